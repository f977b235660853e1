// From one rate to another, for devices that cannot be opened at the rate of the line. A windowed sinc, in a table.

const CROSSINGS = 12; // zeros of the sinc on either side: its ripple is inaudible, its delay half a millisecond
const PHASES = 256; // entries of the table between two samples; what lies between is interpolated
const BAND = 0.94; // of the lower rate's half that passes

export class Resampler {
  #step;
  #reach; // samples on either side that a sample is made of
  #table;
  #past;
  #at; // of the next sample to make, in what is at hand

  constructor(from, to) {
    const cut = Math.min(1, to / from) * BAND;
    this.#step = from / to;
    this.#reach = Math.ceil(CROSSINGS / cut);
    const length = this.#reach * PHASES + 2;
    this.#table = Float32Array.from({ length }, (_, i) => kernel(i / PHASES, cut, this.#reach));
    this.#past = new Float32Array(this.#reach);
    this.#at = this.#reach;
  }

  push(samples) {
    const all = new Float32Array(this.#past.length + samples.length);
    all.set(this.#past);
    all.set(samples, this.#past.length);
    const out = new Float32Array(Math.max(0, Math.ceil((all.length - this.#reach - this.#at) / this.#step)));
    for (let i = 0; i < out.length; i++, this.#at += this.#step) out[i] = this.#sample(all, this.#at);
    const gone = Math.max(0, Math.floor(this.#at) - this.#reach);
    this.#past = all.slice(gone);
    this.#at -= gone;
    return out;
  }

  #sample(all, at) {
    const first = Math.max(0, Math.ceil(at - this.#reach));
    const last = Math.min(all.length - 1, Math.floor(at + this.#reach));
    let sum = 0;
    for (let i = first; i <= last; i++) {
      const place = Math.abs(i - at) * PHASES;
      const entry = Math.floor(place);
      const low = this.#table[entry];
      sum += all[i] * (low + (this.#table[entry + 1] - low) * (place - entry));
    }
    return sum;
  }
}

function kernel(distance, cut, reach) {
  if (distance >= reach) return 0;
  const angle = Math.PI * cut * distance;
  const sinc = angle === 0 ? 1 : Math.sin(angle) / angle;
  return cut * sinc * (0.5 + 0.5 * Math.cos((Math.PI * distance) / reach));
}
