// Microphone and loudspeaker of a call. `Sound.open` asks for the microphone; what goes wrong it says with its remedy.

const RATE = 24000; // of the line

export class NoSound extends Error {}

export class Sound {
  #context;
  #node;
  #stream;
  #flushes = 0;

  // `onFrame(buffer, level)` is given 80 ms of the microphone at a time, `onReport` as often what was played;
  // `onGone` is called when the microphone is pulled out.
  static async open(onFrame, onReport, onGone) {
    if (!window.isSecureContext || !navigator.mediaDevices) {
      throw new NoSound(
        "Browsers give the microphone only to https pages and to this machine itself. Open this page over https:// " +
          "(docs/console.md says how), or at http://localhost on the machine of the bridge.",
      );
    }
    const sound = new Sound();
    try {
      sound.#stream = await microphone();
      sound.#stream.getAudioTracks()[0].onended = onGone;
      await sound.#connect(onFrame, onReport);
    } catch (error) {
      sound.close();
      if (error instanceof NoSound) throw error;
      throw new NoSound(`The sound of this browser cannot be used: ${error.message}`);
    }
    return sound;
  }

  play(buffer) {
    this.#node.port.postMessage(buffer, [buffer]);
  }

  // Throw away what is not yet heard; positions begin at 0 again.
  flush() {
    this.#flushes += 1;
    this.#node.port.postMessage({ flush: this.#flushes });
  }

  mute(muted) {
    this.#node.port.postMessage({ muted });
  }

  // A browser holds the sound of a page that was away, as a telephone call or a locked screen makes it.
  async wake() {
    if (this.#context.state !== "running") await this.#context.resume();
  }

  // Seconds between a sample and the air, at both ends, as far as the browser knows them.
  get latency() {
    const { baseLatency = 0, outputLatency = 0 } = this.#context;
    const [track] = this.#stream.getAudioTracks();
    return baseLatency + outputLatency + (track.getSettings().latency ?? 0);
  }

  close() {
    this.#stream?.getTracks().forEach((track) => track.stop());
    if (this.#node) this.#node.port.onmessage = null;
    this.#context?.close();
  }

  async #connect(onFrame, onReport) {
    const source = this.#source();
    await this.#context.audioWorklet.addModule(new URL("worklet.js", import.meta.url));
    const oneChannel = { outputChannelCount: [1], channelCount: 1, channelCountMode: "explicit" };
    this.#node = new AudioWorkletNode(this.#context, "phone", oneChannel);
    this.#node.port.onmessage = ({ data }) => {
      if (data.frame) onFrame(data.frame, data.level);
      else if (data.flushes === this.#flushes) onReport(data);
    };
    source.connect(this.#node).connect(this.#context.destination);
    await this.#context.resume();
  }

  // At the line's rate, or at the device's own where a browser does not convert a microphone (Firefox).
  #source() {
    try {
      this.#context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
      return this.#context.createMediaStreamSource(this.#stream);
    } catch {
      this.#context?.close();
      this.#context = new AudioContext({ latencyHint: "interactive" });
      return this.#context.createMediaStreamSource(this.#stream);
    }
  }
}

async function microphone() {
  const wanted = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: wanted });
  } catch (error) {
    throw new NoSound(REMEDIES[error.name] ?? `The microphone cannot be used: ${error.message}`);
  }
}

const REMEDIES = {
  NotAllowedError:
    "This page may not use the microphone. Allow it in the browser, beside the address, and press Talk again.",
  NotFoundError: "There is no microphone. Connect one and press Talk again.",
  NotReadableError: "The microphone is used by another program. Close that one and press Talk again.",
};
