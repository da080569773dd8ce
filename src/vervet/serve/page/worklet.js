// Runs on the browser's audio thread: gathers samples and posts them in chunks, until it is sent anything.

class Samples extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    this.chunk = new Float32Array(processorOptions.chunk);
    this.filled = 0;
    this.ended = false;
    this.port.onmessage = () => (this.ended = true);
  }

  process([[samples]]) {
    for (const sample of samples ?? []) {
      this.chunk[this.filled++] = sample;
      if (this.filled === this.chunk.length) {
        this.port.postMessage(this.chunk);
        this.filled = 0;
      }
    }
    return !this.ended;
  }
}

registerProcessor("samples", Samples);
