// All calls, for operators: how the bridge is, who talks, and what is said. Fed by /v1/watch, acts by HTTP.

import { ask, connect, explain } from "./access.js";
import { Card } from "./card.js";
import { Chart } from "./chart.js";

const AGAIN = 2; // seconds before a feed that broke is asked for again
const LINGER = 8; // seconds that a call which ended is still shown
const LATE = 80; // milliseconds: a frame that takes longer is heard
const STARVED = 50; // milliseconds of lag at which docs/operating.md calls for a core

const at = (id) => document.getElementById(id);

export class Operators {
  #socket = null;
  #shown = false;
  #cards = new Map();
  #retry;
  #charts = {
    slots: new Chart(at("chart-slots"), { floor: 1 }),
    frame: new Chart(at("chart-frame"), { floor: 4, unit: " ms", limit: LATE }),
    lag: new Chart(at("chart-lag"), { floor: 4, unit: " ms", limit: STARVED }),
  };

  show(shown) {
    if (shown === this.#shown) return;
    this.#shown = shown;
    if (shown) this.#open();
    else this.#close();
  }

  // With another token.
  renew() {
    if (!this.#shown) return;
    this.#close();
    this.#open();
  }

  async #open() {
    const answer = await ask("/v1/calls");
    if (!this.#shown || this.#socket) return;
    at("board").hidden = answer.status !== 200;
    at("closed").hidden = answer.status === 200;
    if (answer.status === 200) this.#watch();
    else at("closed-why").textContent = explain(answer, "operator");
    if (answer.status === 0) this.#retry = setTimeout(() => this.#open(), 1000 * AGAIN);
  }

  #watch() {
    const socket = (this.#socket = connect("/v1/watch"));
    socket.onmessage = ({ data }) => socket === this.#socket && this.#told(JSON.parse(data));
    socket.onclose = () => {
      if (socket !== this.#socket) return;
      this.#socket = null;
      this.#retry = setTimeout(() => this.#open(), 1000 * AGAIN);
    };
  }

  #close() {
    clearTimeout(this.#retry);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    for (const chart of Object.values(this.#charts)) chart.clear();
    for (const call of this.#cards.keys()) this.#remove(call);
  }

  #told(message) {
    if (message.type === "board") this.#board(message);
    else if (message.type === "begun") this.#card(message.call);
    else if (message.type === "ended") this.#ended(message);
    else if (message.type === "words") this.#cards.get(message.call)?.utter(message);
    else if (message.type === "state") this.#cards.get(message.call)?.state(message.state);
  }

  #board(board) {
    const { slots, memory } = board;
    at("used").textContent = slots.used;
    at("offered").textContent = `of ${slots.offered}`;
    at("frame").textContent = milliseconds(board.frame_ms);
    at("lag").textContent = milliseconds(board.lag_ms);
    this.#charts.slots.add(slots.used, slots.offered);
    this.#charts.frame.add(board.frame_ms ?? 0);
    this.#charts.lag.add(board.lag_ms);
    at("engine").textContent = `${board.engine}, ${engineState(board)}`;
    at("engine").classList.toggle("trouble", Boolean(board.trouble) || !board.ready);
    const level = board.level === null ? "" : `level ${board.level}`;
    at("machine").textContent = [level, board.machine].filter(Boolean).join(", ") || "–";
    at("memory").textContent = memoryState(memory);
    at("memory").classList.toggle("trouble", Boolean(memory?.trouble));
    at("restarts").textContent = `${board.restarts} restarts, ${board.dropped_frames} frames missed`;
    const live = new Set(board.calls.map((call) => call.call));
    for (const call of board.calls) this.#card(call).update(call);
    for (const [call, card] of this.#cards) {
      if (!live.has(call) && card.element.dataset.state !== "over") this.#remove(call);
    }
  }

  #card(call) {
    const known = this.#cards.get(call.call);
    if (known) return known;
    const card = new Card(call);
    this.#cards.set(call.call, card);
    at("calls").append(card.element);
    return card;
  }

  #ended({ call, end }) {
    const card = this.#cards.get(call);
    if (!card) return;
    card.over(end);
    setTimeout(() => this.#cards.get(call) === card && this.#remove(call), 1000 * LINGER);
  }

  #remove(call) {
    this.#cards.get(call).element.remove();
    this.#cards.delete(call);
  }
}

function milliseconds(value) {
  if (value === null) return "–";
  return `${value.toFixed(value < 99.5 ? 1 : 0)} ms`;
}

function engineState(board) {
  if (board.draining) return "stopping: live calls go on, no new ones";
  if (board.trouble) return board.trouble;
  return board.ready ? "ready" : "not ready";
}

function memoryState(memory) {
  if (!memory) return "off";
  if (memory.trouble) return memory.trouble;
  const given = Object.values(memory.reminders).reduce((sum, count) => sum + count, 0);
  return `${memory.ready ? "ready" : "not ready"}, ${memory.written} kept, ${given} came to mind`;
}
