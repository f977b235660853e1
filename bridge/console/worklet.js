// The audio thread: microphone to frames for the line, and the line's sound to the loudspeaker, on one clock.

import { JitterBuffer } from "./jitter.js";
import { Resampler } from "./resample.js";

const RATE = 24000; // of the line
const FRAME = 1920; // samples: 80 ms, what an engine takes at a time
const FULL = 32768;

class Phone extends AudioWorkletProcessor {
  #buffer = new JitterBuffer(sampleRate);
  #up = sampleRate === RATE ? null : new Resampler(sampleRate, RATE);
  #down = sampleRate === RATE ? null : new Resampler(RATE, sampleRate);
  #frame = new Int16Array(FRAME);
  #filled = 0;
  #muted = false;
  #heard = 0; // energy of what was played since the last report
  #heardCount = 0;
  #flushes = 0;

  constructor() {
    super();
    this.port.onmessage = ({ data }) => this.#told(data);
  }

  process([input], [output]) {
    const out = output[0];
    this.#buffer.pull(out);
    for (let i = 1; i < output.length; i++) output[i].set(out);
    for (const sample of out) this.#heard += sample * sample;
    this.#heardCount += out.length;
    if (this.#heardCount * RATE >= FRAME * sampleRate) this.#report();
    const mono = input[0] ?? new Float32Array(out.length); // a microphone that is gone is silent
    this.#capture(this.#up ? this.#up.push(mono) : mono);
    return true;
  }

  #told(data) {
    if (data instanceof ArrayBuffer) {
      const pcm = Float32Array.from(new Int16Array(data), (sample) => sample / FULL);
      this.#buffer.push(this.#down ? this.#down.push(pcm) : pcm);
    } else if ("muted" in data) {
      this.#muted = data.muted;
    } else {
      this.#buffer.flush();
      this.#flushes = data.flush;
    }
  }

  #capture(samples) {
    for (const sample of samples) {
      const scaled = this.#muted ? 0 : Math.round(sample * FULL);
      this.#frame[this.#filled++] = Math.max(-FULL, Math.min(FULL - 1, scaled));
      if (this.#filled === FRAME) {
        const level = loudness(this.#frame.reduce((sum, one) => sum + (one / FULL) ** 2, 0) / FRAME);
        this.port.postMessage({ frame: this.#frame.buffer, level }, [this.#frame.buffer]);
        this.#frame = new Int16Array(FRAME);
        this.#filled = 0;
      }
    }
  }

  #report() {
    const { played, lead, target, gaps, depth } = this.#buffer;
    this.port.postMessage({
      played: Math.round((played * RATE) / sampleRate),
      flushes: this.#flushes,
      level: loudness(this.#heard / this.#heardCount),
      lead,
      target,
      gaps,
      depth,
    });
    this.#heard = this.#heardCount = 0;
  }
}

// 0 at -60 dB and below, 1 at full scale.
function loudness(power) {
  return power > 0 ? Math.max(0, 1 + (10 * Math.log10(power)) / 60) : 0;
}

registerProcessor("phone", Phone);
