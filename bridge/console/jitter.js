// What has come from the bridge and is not yet heard. Owns no clock: it counts the samples that are taken out of it.

const FIRST = 0.04; // seconds of sound to wait for at first: what a quiet network's jitter needs
const LEAST = 0.02; // below it every late packet is heard
const MOST = 0.32; // more is heard as slowness, worse than a rare gap
const STEP = 0.02; // seconds that a gap adds and that calm takes off
const STALL = 0.5; // a gap of more than that is no jitter: no wait would have bridged it
const CALM = 5; // seconds without a gap after which a shorter wait is tried
const MOST_CALM = 80; // that doubles up to this, each time that the shorter wait soon proves too short
const SOON = 10; // seconds; a gap within them is laid to the shorter wait
const WINDOW = 2; // seconds over which the least lead is looked for: what is over the wait all the time can go
const QUIET = 0.002; // of full scale (-54 dB): what may be left out unheard
const HELD = 10; // seconds that are kept at most; the oldest goes
const FADE = 0.97; // a sample, of the last one: a gap begins without a click

export class JitterBuffer {
  target = FIRST; // seconds to wait before what is played anew
  lead = 0; // seconds that were left when the last sound came
  gaps = 0;
  played = 0; // samples since the last flush, with those that were left out
  #rate;
  #chunks = [];
  #at = 0; // samples of the first chunk that are gone
  #held = 0;
  #now = 0; // samples taken out, silence too
  #waiting = true;
  #began = null; // when the first of the sound that is waited with came
  #dry = null; // when it ran out
  #last = 0; // the sample played last
  #calm = CALM;
  #calmSince = 0;
  #lowered = -SOON;
  #surplus = 0; // samples that may be left out
  #least = Infinity; // samples of lead in this window
  #windowEnds = 0;

  constructor(rate) {
    this.#rate = rate;
  }

  get depth() {
    return this.#held / this.#rate;
  }

  push(samples) {
    const now = this.#seconds();
    if (this.#dry !== null) this.#ranDry(now);
    if (this.#waiting) this.#began ??= now;
    else this.#watch(now);
    this.lead = this.depth;
    this.#chunks.push(samples);
    this.#held += samples.length;
    const over = this.#held - HELD * this.#rate;
    if (over > 0) this.#drop(over);
  }

  pull(out) {
    if (this.#waiting && this.#held && this.#patient()) {
      this.#waiting = false;
      this.#began = null;
    }
    if (this.#surplus > 0 && !this.#waiting) this.#leaveOut(out.length);
    const here = this.#waiting ? 0 : Math.min(this.#held, out.length);
    this.#take(out, here);
    this.#now += out.length;
    if (here) this.#last = out[here - 1];
    for (let i = here; i < out.length; i++) out[i] = this.#last *= FADE;
    if (!this.#waiting && here < out.length) {
      this.#waiting = true;
      this.#dry = this.#seconds();
    }
  }

  flush() {
    this.#chunks = [];
    this.#at = this.#held = this.played = this.#surplus = 0;
    this.#waiting = true;
    this.#began = this.#dry = null;
  }

  #seconds() {
    return this.#now / this.#rate;
  }

  #patient() {
    return this.depth >= this.target || this.#seconds() - this.#began >= this.target;
  }

  #ranDry(now) {
    if (now - this.#dry <= STALL) {
      this.gaps += 1;
      this.target = Math.min(MOST, this.target + STEP);
      this.#calm = now - this.#lowered < SOON ? Math.min(MOST_CALM, this.#calm * 2) : CALM;
    }
    this.#calmSince = now;
    this.#dry = null;
  }

  #watch(now) {
    this.#least = Math.min(this.#least, this.#held);
    if (now > this.#windowEnds) {
      const over = this.#least - (this.target + STEP) * this.#rate;
      this.#surplus = Math.max(0, Number.isFinite(over) ? over : 0);
      this.#least = Infinity;
      this.#windowEnds = now + WINDOW;
    }
    if (now - this.#calmSince > this.#calm && this.target > LEAST) {
      this.target = Math.max(LEAST, this.target - STEP);
      this.#calmSince = this.#lowered = now;
    }
  }

  #leaveOut(most) {
    const next = this.#chunks[0];
    const some = next ? next.subarray(this.#at, this.#at + Math.min(most, this.#surplus)) : [];
    if (some.length && some.every((sample) => Math.abs(sample) < QUIET)) {
      this.#surplus -= some.length;
      this.#drop(some.length);
    }
  }

  #take(out, count) {
    for (let done = 0; done < count; ) {
      const chunk = this.#chunks[0];
      const some = chunk.subarray(this.#at, this.#at + count - done);
      out.set(some, done);
      done += some.length;
      this.#drop(some.length);
    }
  }

  #drop(count) {
    this.#held -= count;
    this.played += count;
    this.#at += count;
    while (this.#chunks.length && this.#at >= this.#chunks[0].length) this.#at -= this.#chunks.shift().length;
  }
}
