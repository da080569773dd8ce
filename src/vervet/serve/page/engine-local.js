// The model in the browser, by ONNX Runtime Web: the recording stays where it is. As in src/vervet/predict.py.

import * as ort from "./onnxruntime/ort.js";
import { Problem, breath, isSilent, resample, windows } from "./sound.js";

const FIRST_S = 1; // heard before the first live answer
const LIVE_HOP_S = 1;

/** Fetch the model and make it ready. */
export async function open() {
  ort.env.wasm.numThreads = 1; // more need headers that plain web hosts do not send
  ort.env.wasm.wasmPaths = { wasm: new URL("onnxruntime/ort.wasm", import.meta.url).href };
  const [card, model] = await Promise.all([fetched("model.json"), fetched("model.onnx")]);
  const session = await ort.InferenceSession.create(new Uint8Array(await model.arrayBuffer()));
  return new Local(session, await card.json());
}

async function fetched(name) {
  const response = await fetch(new URL(name, import.meta.url)).catch(() => null);
  if (!response?.ok)
    throw new Problem(`${name} could not be fetched. See whether you are online, then load the page again.`);
  return response;
}

class Local {
  constructor(session, card) {
    this.session = session;
    this.card = card;
  }

  /** Answer for every window of a recording, {name, waveform, duration_s}, unless `signal` gives it up. */
  async predict(recording, { window_s, hop_s }, signal, onProgress) {
    if (!recording.waveform) throw recording.problem;
    const rate = this.card.sampling_rate;
    const cut = windows(recording.waveform, rate, window_s, hop_s);
    const predictions = [];
    const silent = [];
    for (const [number, { start, samples }] of cut.entries()) {
      const start_s = start / rate;
      const end_s = Math.min(start_s + window_s, recording.duration_s);
      if (isSilent(samples)) silent.push([start_s, end_s]);
      else predictions.push({ start_s, end_s, ...(await this.judge(samples)) });
      if (signal.aborted) break;
      onProgress((number + 1) / cut.length);
      await breath(); // the page is drawn and hears its buttons
    }
    return { duration_s: recording.duration_s, predictions, problem: silent.length ? silence(silent) : "" };
  }

  /** Answer for one window of samples at the model's sampling rate. */
  async judge(samples) {
    const given = new Float32Array(this.fitting(samples.length));
    given.set(samples.subarray(0, given.length));
    const feeds = { waveform: new ort.Tensor("float32", given, [1, given.length]) };
    const values = this.card.speaker_values; // of a model that takes what is known of a speaker: here, nothing
    if (values) feeds.speaker = new ort.Tensor("float32", new Float32Array(3 * values), [1, 3, values]);
    const { logits, attention, log_mel } = await this.session.run(feeds, ["logits", "attention", "log_mel"]);
    const odds = softmax(logits.data);
    const best = odds.indexOf(Math.max(...odds));
    const filled = Math.min(1, samples.length / this.whole);
    const columns = Math.max(1, Math.ceil(log_mel.dims[2] * filled));
    const wide = Math.ceil(log_mel.dims[2] / attention.dims[1]); // columns of the picture that a patch stands for
    return {
      label: this.card.labels[best],
      confidence: odds[best],
      uncertain: odds[best] < (this.card.uncertain_below ?? 0),
      scores: Object.fromEntries(this.card.labels.map((label, i) => [label, odds[i]])),
      log_mel: picture(log_mel, columns),
      attention: shares(Array.from({ length: columns }, (_, x) => attention.data[Math.floor(x / wide)])),
    };
  }

  get whole() {
    return Math.round(this.card.sampling_rate * this.card.duration_s);
  }

  /** How many samples to give to the network for so many of sound. */
  fitting(samples) {
    const { step_samples: step, least_samples: least, tail_samples: tail } = this.card;
    if (!step) return this.whole;
    return Math.min(this.whole, Math.ceil(Math.max(least, samples + tail) / step) * step);
  }

  /** Hear live: feed it chunks at `samplingRate`; it calls `onHeard` about once a second. */
  listen(samplingRate, onHeard) {
    const recent = new Recent(Math.round(this.card.duration_s * samplingRate));
    let next = FIRST_S * samplingRate;
    let busy = false;
    return {
      feed: async (chunk) => {
        recent.push(chunk);
        if (busy || recent.count < next) return;
        next = recent.count + LIVE_HOP_S * samplingRate;
        busy = true;
        const samples = resample(recent.samples(), samplingRate, this.card.sampling_rate);
        if (isSilent(samples)) onHeard({ label: "silence", scores: {} });
        else onHeard(await this.judge(samples));
        busy = false;
      },
      finish: () => {},
    };
  }
}

/** The last samples of an endless waveform. */
class Recent {
  constructor(length) {
    this.ring = new Float32Array(length);
    this.count = 0;
  }

  push(chunk) {
    for (const sample of chunk) this.ring[this.count++ % this.ring.length] = sample;
  }

  samples() {
    const at = this.count % this.ring.length;
    if (this.count < this.ring.length) return this.ring.slice(0, at);
    const inOrder = new Float32Array(this.ring.length);
    inOrder.set(this.ring.subarray(at));
    inOrder.set(this.ring.subarray(0, at), this.ring.length - at);
    return inOrder;
  }
}

function softmax(logits) {
  const most = Math.max(...logits);
  if (!Number.isFinite(most)) throw new Problem("The model returned NaN; its weights are damaged. Export it again.");
  const odds = Array.from(logits, (logit) => Math.exp(logit - most));
  const sum = odds.reduce((a, b) => a + b);
  return odds.map((value) => value / sum);
}

/** The columns of a log-Mel picture that hold sound, as bytes. */
function picture(tensor, columns) {
  const [, n_mels, width] = tensor.dims;
  const data = new Uint8Array(n_mels * columns);
  for (let band = 0; band < n_mels; band++)
    for (let x = 0; x < columns; x++) data[band * columns + x] = Math.round(255 * tensor.data[band * width + x]);
  return { n_mels, columns, data };
}

function shares(values) {
  const sum = values.reduce((a, b) => a + b, 0);
  return Array.from(values, (value) => value / sum);
}

function silence(spans) {
  const joined = [];
  for (const [start_s, end_s] of spans) {
    const last = joined.at(-1);
    if (last && start_s <= last[1] + 1e-6) last[1] = end_s;
    else joined.push([start_s, end_s]);
  }
  const where = joined.map(([start_s, end_s]) => `${start_s.toFixed(2)} to ${end_s.toFixed(2)} s`).join(", ");
  return `Silent in ${where}: no answer there. Check the recording.`;
}
