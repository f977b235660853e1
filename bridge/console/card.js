// A live call as an operator sees it: who, how long, what is said, and what can be done.

import { ask, explain } from "./access.js";
import { Words } from "./words.js";

const SURE = 4; // seconds in which the second press that ends a call must come
const STATES = {
  listening: "Listening",
  talking: "Speaking",
  "engine-lost": "Waiting for the engine",
  "client-away": "Away, may come back",
};
const PARTS = ["who", "age", "doing", "delay", "told", "end", "type"]; // by their classes
const LINES = { client: "A client", relay: "A bridge", chat: "A client" };
const NAMES = { caller: "Caller", agent: "Agent" };

export class Card {
  element;
  #id;
  #words;
  #parts;
  #sure;

  constructor(call) {
    this.#id = call.call;
    this.element = document.getElementById("card").content.firstElementChild.cloneNode(true);
    this.element.dataset.call = this.#id;
    const part = (name) => this.element.querySelector(`.${name}`);
    this.#parts = Object.fromEntries(PARTS.map((name) => [name, part(name)]));
    this.#words = new Words(part("words"), null, NAMES);
    this.#parts.end.onclick = () => this.#hangUp();
    this.#parts.type.onsubmit = (event) => this.#type(event);
    this.update(call);
  }

  update(call) {
    const { who, age, delay } = this.#parts;
    const name = call.caller || LINES[call.line] || "Number withheld";
    who.textContent = call.direction === "outbound" ? `to ${name}` : name;
    who.title = `${this.#id}, ${call.line}, engine ${call.engine}`;
    age.textContent = clock(call.seconds);
    const ear = call.mouth_to_ear_ms ? `${call.mouth_to_ear_ms} ms mouth to ear` : "";
    const facts = [ear, gaps(call.underruns), memories(call.memories)];
    delay.textContent = facts.filter(Boolean).join(", ");
    this.state(call.state);
  }

  state(state) {
    this.element.dataset.state = state;
    this.#parts.doing.textContent = STATES[state] ?? state;
  }

  utter(said) {
    this.#words.utter(`${said.id}`, said);
  }

  over(end) {
    this.element.dataset.state = "over";
    this.#parts.doing.textContent = `Ended (${end})`;
    this.element.querySelectorAll("button, input").forEach((one) => (one.disabled = true));
  }

  async #hangUp() {
    const { end } = this.#parts;
    if (!end.classList.contains("sure")) {
      end.classList.add("sure");
      end.textContent = "End this call?";
      this.#sure = setTimeout(() => this.#calm(), 1000 * SURE);
      return;
    }
    this.#calm();
    this.#tell(await ask(this.#path(), "DELETE"), "");
  }

  #calm() {
    clearTimeout(this.#sure);
    this.#parts.end.classList.remove("sure");
    this.#parts.end.textContent = "Hang up";
  }

  async #type(event) {
    event.preventDefault();
    const { elements } = this.#parts.type;
    const text = elements.text.value.trim();
    if (!text) return;
    const say = elements.how.value === "say";
    elements.text.value = "";
    const answer = await ask(`${this.#path()}/${say ? "say" : "inject"}`, "POST", say ? { text } : { context: text });
    if (this.#tell(answer, say ? "To be said." : "The agent knows.")) elements.text.value = text;
  }

  // Show what came of it; gives whether it failed.
  #tell(answer, done) {
    const failed = answer.status < 200 || answer.status > 299;
    this.#parts.told.classList.toggle("trouble", failed);
    this.#parts.told.textContent = failed ? explain(answer, "operator") : done;
    return failed;
  }

  #path() {
    return `/v1/calls/${encodeURIComponent(this.#id)}`;
  }
}

function clock(seconds) {
  const whole = Math.floor(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return (parts[0] ? parts : parts.slice(1)).map((part, i) => (i ? String(part).padStart(2, "0") : part)).join(":");
}

function gaps(count) {
  return count ? `${count} gap${count === 1 ? "" : "s"}` : "";
}

function memories(count) {
  return count ? `${count} memor${count === 1 ? "y" : "ies"}` : "";
}
