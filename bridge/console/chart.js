// A figure's last two minutes as a line. Crisp on every screen, in the colours of the theme.

const KEPT = 120; // values: two minutes of one a second
const ROOM = 1.15; // over the highest value, so that the line does not touch the top
const TOP = 16; // pixels for the number of the scale

// The number of the form 1, 2 or 5 times a power of ten that holds `most`.
export function roundUp(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  const digit = [1, 2, 5, 10].find((one) => one * power >= most * (1 - 1e-9));
  return digit * power;
}

export class Chart {
  #canvas;
  #pen;
  #floor;
  #unit;
  #limit;
  #values = [];
  #colours = {};
  #size = { width: 0, height: 0 };

  // `floor`: the least that the scale shows; `limit`: a value that should not be passed, shown once it is near.
  constructor(canvas, { floor, unit = "", limit = Infinity }) {
    this.#canvas = canvas;
    this.#pen = canvas.getContext("2d");
    this.#floor = floor;
    this.#unit = unit;
    this.#limit = limit;
    new ResizeObserver(() => this.#fit()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#fit());
  }

  // `most` is what the value may be at this time (slots on offer): a second, fainter line.
  add(value, most = null) {
    this.#values.push({ value, most });
    if (this.#values.length > KEPT) this.#values.shift();
    this.#draw();
  }

  clear() {
    this.#values = [];
    this.#draw();
  }

  get scale() {
    const highest = Math.max(this.#floor, ...this.#values.map(({ value, most }) => Math.max(value, most ?? 0)));
    return roundUp(highest * ROOM);
  }

  #fit() {
    const { width, height } = this.#canvas.getBoundingClientRect();
    if (!width) return;
    this.#size = { width, height };
    this.#canvas.width = Math.round(width * devicePixelRatio);
    this.#canvas.height = Math.round(height * devicePixelRatio);
    const style = getComputedStyle(this.#canvas);
    for (const name of ["ink", "soft", "line", "trouble", "sans"]) {
      this.#colours[name] = style.getPropertyValue(`--${name}`);
    }
    this.#draw();
  }

  #draw() {
    const { width, height } = this.#size;
    const pen = this.#pen;
    const scale = this.scale;
    const y = (value) => TOP + (height - TOP - 1) * (1 - value / scale);
    pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = `12px ${this.#colours.sans}`;
    pen.fillStyle = this.#colours.soft;
    pen.textAlign = "right";
    pen.textBaseline = "top";
    pen.fillText(`${scale}${this.#unit}`, width, 0);
    this.#rule(y(0), width, this.#colours.line);
    this.#rule(y(scale), width, this.#colours.line);
    if (this.#limit < scale) this.#rule(y(this.#limit), width, this.#colours.trouble, [3, 4]);
    if (this.#values.some(({ most }) => most !== null)) {
      this.#trace(({ most }) => y(most ?? 0), width, this.#colours.soft, [3, 3]);
    }
    this.#fill(y, width, height);
    this.#trace(({ value }) => y(value), width, this.#colours.ink);
  }

  #x(index, width) {
    return width - ((this.#values.length - 1 - index) * width) / (KEPT - 1);
  }

  #rule(y, width, colour, dash = []) {
    const pen = this.#pen;
    pen.strokeStyle = colour;
    pen.lineWidth = 1;
    pen.setLineDash(dash);
    pen.beginPath();
    pen.moveTo(0, Math.round(y) + 0.5);
    pen.lineTo(width, Math.round(y) + 0.5);
    pen.stroke();
  }

  #trace(y, width, colour, dash = []) {
    const pen = this.#pen;
    pen.strokeStyle = colour;
    pen.lineWidth = dash.length ? 1 : 1.75;
    pen.setLineDash(dash);
    pen.beginPath();
    this.#values.forEach((value, index) => pen.lineTo(this.#x(index, width), y(value)));
    pen.stroke();
  }

  #fill(y, width, height) {
    const pen = this.#pen;
    if (!this.#values.length) return;
    pen.globalAlpha = 0.08;
    pen.fillStyle = this.#colours.ink;
    pen.beginPath();
    pen.moveTo(this.#x(0, width), height - 1);
    this.#values.forEach(({ value }, index) => pen.lineTo(this.#x(index, width), y(value)));
    pen.lineTo(width, height - 1);
    pen.fill();
    pen.globalAlpha = 1;
  }
}
