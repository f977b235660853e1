// The page's own call.

import { Line } from "./line.js";
import { Ring } from "./ring.js";
import { NoSound, Sound } from "./sound.js";
import { Words } from "./words.js";

const FRAME = 0.08; // seconds that are spoken before they can be sent
const RECENT = 25; // frames whose median is the delay that is shown: two seconds

const ENDS = {
  caller: "You hung up.",
  agent: "The agent said goodbye.",
  operator: "An operator ended the call.",
  idle: "The call ended: nobody had said anything for long.",
  length: "The call ended: it had reached its longest time.",
  digit: "The call ended.",
  drain: "The bridge is being restarted. Call again in a minute.",
  engine: "The engine failed, and the call with it. Call again.",
  fault: "The bridge failed, and the call with it. Its log says more.",
  "slow-reader": "The connection was too slow for the sound. Try another network.",
};
const STATES = { listening: "Listening", talking: "Speaking", "engine-lost": "The engine is being restarted" };

const at = (id) => document.getElementById(id);
const milliseconds = (seconds) => (Number.isFinite(seconds) ? `${Math.round(1000 * seconds)} ms` : "–");

export class Talk {
  report = null; // of the sound, the last one
  ring = new Ring(at("ring"));
  #words = new Words(at("words"), at("aloud"));
  #line = null;
  #sound = null;
  #muted = false;
  #began = 0;
  #ticking;
  #sentAt = 0;
  #delays = [];
  #asked = []; // notes of what was typed, in the order of the bridge's answers
  #entries = 0;
  #unfinished = new Map(); // utterances: the bridge's id to ours, since an id that is final may come again
  #awake = null; // keeps a telephone's screen on

  constructor() {
    at("call").onclick = () => (this.#line || this.#sound ? this.hangUp() : this.start());
    at("mute").onclick = () => this.mute(!this.#muted);
    at("type").onsubmit = (event) => this.#type(event);
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.#wake());
    this.#show("idle", "Ready when you are");
  }

  get line() {
    return this.#line;
  }

  async start() {
    this.#trouble("");
    this.#words.clear();
    this.#show("asking", "Waiting for the microphone");
    const opening = (this.#sound = Sound.open(
      (...frame) => this.#spoken(...frame),
      (report) => this.#heard(report),
      () => this.#trouble("The microphone is gone, and you are not heard. Connect it, hang up and press Talk again."),
    ));
    try {
      const sound = await opening;
      if (this.#sound !== opening) return sound.close(); // hung up meanwhile
      this.#sound = sound;
    } catch (error) {
      if (!(error instanceof NoSound)) throw error;
      if (this.#sound === opening) this.#over({ code: "refused", why: error.message });
      return;
    }
    this.#show("calling", "Calling");
    this.#line = new Line((kind, what) => this.#told(kind, what));
    this.#line.open();
  }

  hangUp() {
    if (this.#line) this.#line.hangUp();
    else this.#over({ code: "caller" });
  }

  mute(muted) {
    this.#muted = muted;
    at("mute").setAttribute("aria-pressed", muted);
    if (this.#line) this.#sound.mute(muted);
  }

  #told(kind, what) {
    if (kind === "sound") this.#play(what);
    else if (kind === "flush") this.#sound.flush();
    else if (kind === "transcript") this.#words.utter(this.#utterance(what), what);
    else if (kind === "status") this.#status(what.state);
    else if (kind === "live") this.#live(what);
    else if (kind === "broken") this.#show("broken", "The connection broke, taking it up again");
    else if (kind === "memory") what.injected.forEach((text) => this.#words.note(this.#newKey(), "Remembered", text));
    else if (kind === "asked") this.#words.mark(this.#asked.shift(), what.id);
    else if (kind === "error" && !what.id) this.#trouble(`${what.message}.`);
    else if (kind === "over") this.#over(what);
  }

  #status(state) {
    this.#show(state === "engine-lost" ? "lost" : "live", STATES[state], state);
  }

  #live(again) {
    if (again) {
      this.#sound.flush();
    } else {
      this.#began = performance.now();
      this.#ticking = setInterval(() => this.#tick(), 500);
      this.ring.start();
      this.mute(this.#muted);
      this.#wake();
    }
    this.#show("live", "Listening", "listening");
    this.#tick();
  }

  #over({ code, why }) {
    const sound = this.#sound;
    this.#line = this.#sound = null;
    if (sound instanceof Sound) sound.close();
    clearInterval(this.#ticking);
    this.#awake?.release();
    this.#awake = null;
    this.#asked = [];
    this.#unfinished.clear();
    this.#delays = [];
    this.report = null;
    this.ring.stop();
    this.#trouble(why ?? "");
    this.#show("idle", ENDS[code] ?? (why ? "No call" : "The call ended."));
  }

  // -- sound ------------------------------------------------------------------------------------------------------

  #spoken(buffer, level) {
    if (!this.#line) return;
    this.#sentAt = performance.now();
    this.#line.sound(buffer);
    this.ring.caller(level);
  }

  #play(buffer) {
    // A reply comes a step after each frame; one that is slower than a frame comes after the next, as the ping tells.
    let answer = (performance.now() - this.#sentAt) / 1000;
    while (answer < (this.#line.trip ?? 0)) answer += FRAME;
    this.#delays.push(FRAME + answer + (this.report?.lead ?? 0) + this.#sound.latency);
    if (this.#delays.length > RECENT) this.#delays.shift();
    this.#sound.play(buffer);
  }

  #heard(report) {
    if (!this.#line) return;
    this.report = report;
    this.ring.agent(report.level);
    if (report.played) this.#line.send("played", { at: report.played });
  }

  async #wake() {
    if (!this.#line) return;
    await this.#sound.wake();
    if (this.#awake && !this.#awake.released) return;
    this.#awake = await navigator.wakeLock?.request("screen").catch(() => null);
  }

  // -- words ------------------------------------------------------------------------------------------------------

  #newKey() {
    return `${(this.#entries += 1)}`;
  }

  #utterance({ speaker, id, final }) {
    const theirs = `${speaker} ${id}`;
    const key = this.#unfinished.get(theirs) ?? this.#newKey();
    if (final) this.#unfinished.delete(theirs);
    else this.#unfinished.set(theirs, key);
    return key;
  }

  #type(event) {
    event.preventDefault();
    const field = at("text");
    const text = field.value.trim();
    const say = at("type").elements.how.value === "say";
    if (!text || !this.#line?.send(say ? "say" : "inject", say ? { text } : { context: text })) return;
    const key = this.#newKey();
    this.#words.note(key, say ? "To be said" : "Told in silence", text);
    this.#asked.push(key);
    field.value = "";
  }

  // -- what is shown ----------------------------------------------------------------------------------------------

  #tick() {
    const { lead, target, gaps } = this.report ?? {};
    const delay = this.#delays.toSorted((a, b) => a - b)[this.#delays.length >> 1];
    at("trip").textContent = milliseconds(this.#line?.trip ?? NaN);
    at("ear").textContent = milliseconds(delay);
    at("buffer").textContent = lead === undefined ? "–" : `${Math.round(1000 * lead)} of ${milliseconds(target)}`;
    at("gaps").textContent = gaps ?? "–";
    const seconds = Math.floor((performance.now() - this.#began) / 1000);
    at("clock").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  }

  #show(phase, words, who = "") {
    const calling = phase !== "idle";
    document.body.dataset.phase = phase;
    document.body.dataset.who = who;
    at("state").textContent = words;
    at("verb").textContent = calling ? "Hang up" : "Talk";
    for (const id of ["mute", "text", "send"]) at(id).disabled = !["live", "lost", "broken"].includes(phase);
    if (!calling) at("clock").textContent = "";
  }

  #trouble(words) {
    at("trouble").textContent = words;
    at("trouble").hidden = !words;
  }
}
