// One conversation over /v1/stream: docs/clients.md is its wire. A connection that breaks is taken up again.

import { ask, connect, explain } from "./access.js";

const PATH = "/v1/stream";
const AGAIN = 10; // seconds for which the bridge keeps a conversation whose connection broke
const WAITS = [0, 0.25, 0.5, 1]; // seconds before one try after the other; the last goes on
const TRY = 2.5; // seconds for one of them; a network that is away does not even refuse
const PING = 2; // seconds between questions for the round trip
const DEAF = 6; // seconds without any message after which the connection counts as broken

export class Line {
  trip = null; // seconds to the bridge and back
  #tell;
  #socket = null;
  #ticket = null;
  #over = false;
  #broken = 0; // when the connection broke, by the page's clock
  #tries = 0;
  #why = ""; // the bridge's own words for an end
  #heard = 0;
  #pinged = 0;
  #pinging;
  #retry;

  // `tell(kind, what)` is given "live" (with whether it was taken up again), "broken", "sound" (a buffer), "over"
  // ({code, why}), and each of the bridge's own messages by its type.
  constructor(tell) {
    this.#tell = tell;
  }

  open() {
    this.#connect();
    this.#pinging = setInterval(() => this.#ping(), 1000 * PING);
  }

  sound(buffer) {
    if (this.#live) this.#socket.send(buffer);
  }

  send(type, fields = {}) {
    if (this.#live) this.#socket.send(JSON.stringify({ type, ...fields }));
    return this.#live;
  }

  hangUp() {
    this.send("close");
    this.#end("caller");
  }

  get #live() {
    return this.#socket?.readyState === WebSocket.OPEN && !this.#broken;
  }

  #connect() {
    const socket = connect(PATH);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#heard = performance.now();
      socket.send(JSON.stringify(this.#ticket ? { type: "open", resume: this.#ticket } : { type: "open" }));
    };
    socket.onmessage = ({ data }) => this.#message(data);
    socket.onclose = () => socket === this.#socket && this.#lost();
    this.#socket = socket;
  }

  #message(data) {
    this.#heard = performance.now();
    if (typeof data !== "string") {
      this.#tell("sound", data);
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "ready") {
      const again = this.#broken > 0;
      this.#ticket = message.ticket ?? null;
      this.#broken = this.#tries = 0;
      clearTimeout(this.#retry);
      this.#tell("live", again);
      this.#ping();
    } else if (message.type === "pong") {
      this.trip = (performance.now() - this.#pinged) / 1000;
    } else if (message.type === "ended") {
      this.#end(message.code);
    } else {
      if (message.type === "error") this.#why = message.code === "message" ? "" : message.message;
      this.#tell(message.type, message);
    }
  }

  async #lost() {
    if (this.#over) return;
    clearTimeout(this.#retry);
    if (this.#why) return this.#end("refused", this.#why);
    if (this.#ticket) return this.#again();
    const answer = await ask(PATH);
    if (this.#over) return;
    const entered = answer.status === 426; // what it says to a question that would have been let in
    this.#end("refused", entered ? "The connection broke. Press Talk to begin anew." : explain(answer, "talk"));
  }

  #again() {
    const now = performance.now();
    if (!this.#broken) {
      this.#broken = now;
      this.#tell("broken");
    }
    if (now - this.#broken > 1000 * AGAIN) {
      return this.#end("refused", "The connection broke and did not come back. Press Talk to begin anew.");
    }
    const wait = WAITS[Math.min(this.#tries, WAITS.length - 1)];
    this.#tries += 1;
    this.#retry = setTimeout(() => {
      this.#connect();
      this.#retry = setTimeout(() => this.#abandon(), 1000 * TRY);
    }, 1000 * wait);
  }

  // Its close may take as long as the network is away, so it is not waited for.
  #abandon() {
    const socket = this.#socket;
    this.#socket = null;
    socket.close();
    this.#lost();
  }

  #ping() {
    if (!this.#live) return;
    if (performance.now() - this.#heard > 1000 * DEAF) return this.#abandon();
    this.#pinged = performance.now();
    this.send("ping");
  }

  #end(code, why = this.#why) {
    if (this.#over) return;
    this.#over = true;
    clearInterval(this.#pinging);
    clearTimeout(this.#retry);
    this.#socket?.close();
    this.#tell("over", { code, why });
  }
}
