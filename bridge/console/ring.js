// The conversation as a loop of tape: a bar for each frame of 80 ms, the caller's outwards, the agent's inwards.

const BARS = 120; // 9.6 seconds a turn
const SHADES = 12; // older bars are fainter, in so many steps
const FAINTEST = 0.14;
const AHEAD = 4; // bars left out before the hand, so that new and old do not touch
const RADIUS = 0.345; // of the canvas's side: where the two sides meet
const GAP = 0.008; // between them
const OUT = 0.135; // the longest bar of the caller, and of the agent
const IN = 0.095;
const STUB = 0.004; // of a bar without sound
const CURVE = 1.5; // of the level, which is even in decibels: what is loud stands out
const TURN = 2 * Math.PI;

export class Ring {
  #canvas;
  #pen;
  #bars = { caller: new Float32Array(BARS), agent: new Float32Array(BARS) };
  #level = { caller: 0, agent: 0 };
  #head = 0;
  #used = 0;
  #colours = {};
  #moving = false;
  #drawn = 0;

  constructor(canvas) {
    this.#canvas = canvas;
    this.#pen = canvas.getContext("2d");
    new ResizeObserver(() => this.#fit()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#fit());
  }

  get drawn() {
    return this.#drawn;
  }

  level(side) {
    return this.#level[side];
  }

  // The next frame of the caller; the hand goes on with it. The agent's level belongs to the same bar.
  caller(level) {
    this.#head = (this.#head + 1) % BARS;
    this.#used = Math.min(BARS, this.#used + 1);
    this.#level.caller = this.#bars.caller[this.#head] = level;
    this.#bars.agent[this.#head] = this.#level.agent;
  }

  agent(level) {
    this.#level.agent = this.#bars.agent[this.#head] = level;
  }

  start() {
    for (const bars of Object.values(this.#bars)) bars.fill(0);
    this.#level = { caller: 0, agent: 0 };
    this.#used = 0;
    if (this.#moving) return;
    this.#moving = true;
    const next = () => {
      this.#draw();
      if (this.#moving) requestAnimationFrame(next);
    };
    requestAnimationFrame(next);
  }

  stop() {
    this.#moving = false;
    this.#draw();
  }

  #fit() {
    const { width } = this.#canvas.getBoundingClientRect();
    this.#canvas.width = this.#canvas.height = Math.round(width * devicePixelRatio);
    const style = getComputedStyle(this.#canvas);
    for (const name of ["caller", "agent", "line"]) this.#colours[name] = style.getPropertyValue(`--${name}`);
    this.#draw();
  }

  #draw() {
    const side = this.#canvas.width;
    const pen = this.#pen;
    this.#drawn += 1;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, side, side);
    pen.translate(side / 2, side / 2);
    pen.lineCap = "round";
    pen.lineWidth = side * 0.0062;
    this.#drawRest(side);
    for (let shade = 0; shade < SHADES; shade++) {
      pen.globalAlpha = 1 - (1 - FAINTEST) * (shade / (SHADES - 1)) ** 0.7;
      this.#drawSide("caller", side, shade, RADIUS + GAP, OUT);
      this.#drawSide("agent", side, shade, RADIUS - GAP, -IN);
    }
    pen.globalAlpha = 1;
  }

  // Where nothing has been said yet: ticks, as on a dial.
  #drawRest(side) {
    const pen = this.#pen;
    pen.strokeStyle = this.#colours.line;
    pen.beginPath();
    for (let age = this.#used; age < BARS; age++) this.#bar(this.#head - age, side, RADIUS - STUB, RADIUS + STUB);
    pen.stroke();
  }

  #drawSide(name, side, shade, from, length) {
    const pen = this.#pen;
    const ages = (BARS - AHEAD) / SHADES;
    const last = Math.min(this.#used, Math.ceil(ages * (shade + 1)), BARS - AHEAD);
    pen.strokeStyle = this.#colours[name];
    pen.beginPath();
    for (let age = Math.ceil(ages * shade); age < last; age++) {
      const at = (this.#head - age + BARS) % BARS;
      const level = this.#bars[name][at];
      this.#bar(at, side, from, from + length * (level ** CURVE + STUB / Math.abs(length)));
    }
    pen.stroke();
  }

  #bar(at, side, from, to) {
    const angle = (at / BARS) * TURN - TURN / 4;
    const [x, y] = [side * Math.cos(angle), side * Math.sin(angle)];
    this.#pen.moveTo(x * from, y * from);
    this.#pen.lineTo(x * to, y * to);
  }
}
