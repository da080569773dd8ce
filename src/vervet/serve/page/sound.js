// Sound as the model hears it: mono, at the model's sampling rate, in windows. As in src/vervet/audio.py, so that the
// browser and Python give the same answer.

const SILENCE_DBFS = -80; // a swing below this is digital silence
const RINGING = 400; // samples at both ends that do not count when silence is looked for
export const SHORTEST_S = 0.1;
const LOUDEST = 2; // beyond this, samples are on another scale
const STREAMED = 2 ** 31 - 2 ** 20; // bytes; programs that write to a pipe promise this or more
const DECODED_HZ = 48000; // of formats whose header is not read here; above what speech holds
const PASSBAND = 0.913; // of half the lower sampling rate, as soxr's high quality has it; the stopband begins at 1
const STOPBAND_DB = 120;
const STEP = 16000; // samples that are resampled without a breath

/** What is wrong with a recording or a request, in words for the person who made it. */
export class Problem extends Error {}

/**
 * Decode a recording with the browser's codecs, mix its channels to their mean and change its sampling rate.
 * Resolves to {waveform: Float32Array in [-1, 1], duration_s}; rejects with a Problem.
 */
export async function decode(bytes, samplingRate) {
  if (!bytes.byteLength) throw new Problem("The file is empty. Copy or record it again.");
  const promised = header(bytes);
  const decoded = await decodeAt(bytes, promised.samplingRate ?? DECODED_HZ);
  if (promised.duration_s - decoded.duration >= SHORTEST_S) throw cutShort(decoded.duration, promised.duration_s);
  if (decoded.duration < SHORTEST_S)
    throw new Problem(
      `Only ${decoded.duration.toFixed(3)} s of sound, too short to judge. Give at least ${SHORTEST_S} s.`,
    );
  const out = resampled(mono(decoded), decoded.sampleRate, samplingRate);
  while (out.step()) await breath();
  return { waveform: out.waveform, duration_s: decoded.duration };
}

async function decodeAt(bytes, rate) {
  for (const tried of new Set([rate, DECODED_HZ])) {
    try {
      // decoding takes the bytes away, so it gets a copy
      return await new OfflineAudioContext(1, 1, tried).decodeAudioData(bytes.slice(0));
    } catch {
      // not a rate, or not a format, that this browser knows
    }
  }
  throw new Problem("This is not audio that the browser can decode. Convert it to WAV, FLAC, Ogg or MP3.");
}

/** Sampling rate and length that a WAV or FLAC header promises; an empty object for other formats. */
function header(bytes) {
  const view = new DataView(bytes);
  const text = (at) => String.fromCharCode(...new Uint8Array(bytes, at, 4));
  if (bytes.byteLength >= 42 && text(0) === "fLaC") {
    const packed = view.getUint32(18); // 20 bits of rate, then channels and depth, then 36 bits of samples
    const samplingRate = packed >>> 12;
    return { samplingRate, duration_s: ((packed & 15) * 2 ** 32 + view.getUint32(22)) / samplingRate };
  }
  if (bytes.byteLength < 12 || text(0) !== "RIFF" || text(8) !== "WAVE") return {};
  const found = {};
  let perSecond = 0;
  for (let at = 12; at + 8 <= bytes.byteLength;) {
    const size = view.getUint32(at + 4, true);
    if (text(at) === "fmt " && at + 20 <= bytes.byteLength) {
      found.samplingRate = view.getUint32(at + 12, true);
      perSecond = view.getUint32(at + 16, true);
    } else if (text(at) === "data") {
      const there = bytes.byteLength - at - 8;
      if (size < STREAMED && (size - there) / perSecond >= SHORTEST_S)
        throw cutShort(there / perSecond, size / perSecond);
      break;
    }
    at += 8 + size + (size % 2);
  }
  return found;
}

function cutShort(there_s, promised_s) {
  const [there, promised] = [there_s, promised_s].map((s) => s.toFixed(2));
  return new Problem(
    `The recording ends after ${there} s, but its header promises ${promised} s. It was cut short; copy it again.`,
  );
}

function mono(decoded) {
  const channels = Array.from({ length: decoded.numberOfChannels }, (_, c) => decoded.getChannelData(c));
  const mixed = new Float32Array(decoded.length);
  for (const channel of channels)
    for (let n = 0; n < mixed.length; n++) {
      if (!(Math.abs(channel[n]) <= LOUDEST)) throw badSample(channel[n], n / decoded.sampleRate);
      mixed[n] += Math.max(-1, Math.min(1, channel[n])) / channels.length;
    }
  return mixed;
}

function badSample(value, at_s) {
  return Number.isFinite(value)
    ? new Problem(`Samples reach ${value.toPrecision(3)}, full scale is 1. Scale them to [-1, 1].`)
    : new Problem(
        `The recording holds NaN or infinite samples, the first at ${at_s.toFixed(3)} s. Correct them at their source.`,
      );
}

/** Let the page be drawn and its buttons be heard. */
export const breath = () => new Promise((resolve) => setTimeout(resolve));

/** Change the sampling rate at once. */
export function resample(waveform, from, to) {
  const out = resampled(waveform, from, to);
  while (out.step());
  return out.waveform;
}

/**
 * Change the sampling rate by a windowed sinc, in linear phase. Browsers have resamplers of their own, but none that is
 * the same in all of them, and next to soxr's they change an answer by several per cent. Returns {waveform, step}: each
 * `step()` makes a part of the waveform, and is false after the last.
 */
function resampled(waveform, from, to) {
  if (from === to) return { waveform, step: () => false };
  const divisor = gcd(from, to);
  const [up, down] = [to / divisor, from / divisor];
  const lower = Math.min(1, to / from); // the lower rate, in units of `from`
  const cutoff = (lower * (1 + PASSBAND)) / 2;
  const beta = 0.1102 * (STOPBAND_DB - 8.7); // Kaiser's formulas for window and length
  const half = Math.ceil((STOPBAND_DB - 7.95) / (2.285 * Math.PI * (1 - PASSBAND) * lower) / 2);
  const phases = new Map(); // offset between input and output grid -> filter
  const taps = (phase) => {
    const filter = new Float32Array(2 * half);
    for (let i = 0; i < filter.length; i++) {
      const t = i - half + 1 - phase / up;
      const w = 1 - (t / half) ** 2;
      filter[i] = w > 0 ? (cutoff * sinc(cutoff * t) * bessel(beta * Math.sqrt(w))) / bessel(beta) : 0;
    }
    return filter;
  };
  const out = new Float32Array(Math.round((waveform.length * up) / down));
  const one = (n) => {
    const phase = (n * down) % up;
    if (!phases.has(phase)) phases.set(phase, taps(phase));
    const filter = phases.get(phase);
    const first = (n * down - phase) / up - half + 1;
    const end = Math.min(filter.length, waveform.length - first);
    let sum = 0;
    for (let i = Math.max(0, -first); i < end; i++) sum += filter[i] * waveform[first + i];
    out[n] = sum;
  };
  let made = 0;
  const step = () => {
    const end = Math.min(out.length, made + STEP);
    while (made < end) one(made++);
    return made < out.length;
  };
  return { waveform: out, step };
}

const gcd = (a, b) => (b ? gcd(b, a % b) : a);
const sinc = (x) => (x ? Math.sin(Math.PI * x) / (Math.PI * x) : 1);

/** The modified Bessel function of order zero, by its series. */
function bessel(x) {
  let sum = 1;
  for (let k = 1, term = 1; term > 1e-9 * sum; k++) sum += term *= (x / 2 / k) ** 2;
  return sum;
}

/** Cut a waveform into windows [{start, samples}], in samples; the last one may be partial. */
export function windows(waveform, samplingRate, window_s, hop_s) {
  const [window, hop] = [window_s, hop_s].map((s) => Math.round(s * samplingRate));
  const cut = [];
  let start = 0;
  let covered = 0;
  for (; start + window <= waveform.length; start += hop) {
    cut.push({ start, samples: waveform.subarray(start, start + window) });
    covered = start + window;
  }
  const rest = waveform.length - Math.max(start, covered);
  if (rest >= Math.round(SHORTEST_S * samplingRate) || !covered) cut.push({ start, samples: waveform.subarray(start) });
  return cut;
}

/** Tell digital silence, also about a constant offset, from sound. */
export function isSilent(samples) {
  const end = Math.min(RINGING, Math.floor(samples.length / 4));
  const [low, high] = extent(samples, end, samples.length - end);
  return (high - low) / 2 < 10 ** (SILENCE_DBFS / 20);
}

/** The least and the greatest of the samples from `first` to `last`. */
export function extent(samples, first, last) {
  let [low, high] = [Infinity, -Infinity];
  for (let n = first; n < last; n++) {
    if (samples[n] < low) low = samples[n];
    if (samples[n] > high) high = samples[n];
  }
  return [low, high];
}

/** A WAV file of 16-bit PCM, mono. */
export function wav(waveform, samplingRate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * waveform.length));
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, view.byteLength - 8, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, samplingRate, true);
  view.setUint32(28, 2 * samplingRate, true); // bytes a second
  view.setUint16(32, 2, true); // bytes a frame
  view.setUint16(34, 16, true); // bits a sample
  text(36, "data");
  view.setUint32(40, 2 * waveform.length, true);
  new Uint8Array(view.buffer).set(new Uint8Array(pcm16(waveform).buffer), 44);
  return new Blob([view], { type: "audio/wav" });
}

/** Samples as 16-bit integers, little-endian as on every machine that runs a browser. */
export function pcm16(waveform) {
  return Int16Array.from(waveform, (x) => Math.max(-32768, Math.min(32767, Math.round(x * 32768))));
}
