// Pictures on canvases, in the colours of style.css. Time runs over the same stretch of all of them: from GUTTER pixels
// after the left edge to the right edge.

import { extent } from "./sound.js";

export const GUTTER = 76; // CSS pixels
const FLOOR = 0.2; // of the range of the log-Mel picture: below is little but the room
const GAMMA = 0.75; // less shows more of what is faint
const LEAST_COLOUR = 0.06; // of the most attended column, from where a column gets colour
const BREAK_HZ = 1000; // Slaney's Mel scale is linear below and logarithmic above
const BREAK_MEL = 15;
const STEP = Math.log(6.4) / 27;

const mel = (hz) => (hz < BREAK_HZ ? (hz * BREAK_MEL) / BREAK_HZ : BREAK_MEL + Math.log(hz / BREAK_HZ) / STEP);

/** Start a drawing: {context, width, height, colour} in CSS pixels, cleared. */
function begin(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  const scale = window.devicePixelRatio || 1;
  [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  const style = getComputedStyle(canvas);
  context.font = `12px ${style.fontFamily}`;
  context.textBaseline = "middle";
  return { context, width, height, colour: (name) => style.getPropertyValue(`--${name}`).trim() };
}

/** The swing of the sound; the stretch from `from_s` to `to_s` stands out if it is not all. */
export function drawWaveform(canvas, waveform, samplingRate, { first_s, last_s, from_s = first_s, to_s = last_s }) {
  const { context, width, height, colour } = begin(canvas);
  const perPixel = ((last_s - first_s) * samplingRate) / (width - GUTTER);
  const peak = Math.max(...extent(waveform, 0, waveform.length).map(Math.abs), 1e-4);
  const at = (s) => GUTTER + ((s - first_s) / (last_s - first_s)) * (width - GUTTER);
  if (from_s > first_s || to_s < last_s) {
    context.fillStyle = colour("chosen");
    context.fillRect(at(from_s), 0, at(to_s) - at(from_s), height);
  }
  for (let x = 0; x < width - GUTTER; x++) {
    const start = Math.floor(first_s * samplingRate + x * perPixel);
    const end = Math.min(waveform.length, Math.max(start + 1, Math.floor(start + perPixel)));
    if (start >= end) break;
    const [low, high] = extent(waveform, start, end);
    const chosen = GUTTER + x >= at(from_s) - 1 && GUTTER + x <= at(to_s);
    context.fillStyle = colour(chosen ? "ink" : "faint");
    const [top, bottom] = [high, low].map((value) => (height / 2) * (1 - (0.94 * value) / peak));
    context.fillRect(GUTTER + x, top, 1, Math.max(1, bottom - top));
  }
  label(context, colour, "sound", height / 2);
}

/** How much of its attention the model gave each column. */
export function drawAttention(canvas, attention) {
  const { context, width, height, colour } = begin(canvas);
  const most = Math.max(...attention);
  const step = (width - GUTTER) / attention.length;
  context.fillStyle = colour("attend");
  attention.forEach((value, column) => {
    const tall = (value / most) * (height - 2);
    context.fillRect(GUTTER + column * step, height - tall, Math.max(1, step - (step > 4 ? 1 : 0)), tall);
  });
  const even = height - (1 / attention.length / most) * (height - 2);
  context.strokeStyle = colour("soft");
  context.setLineDash([2, 3]);
  context.beginPath();
  context.moveTo(GUTTER, even);
  context.lineTo(width, even);
  context.stroke();
  label(context, colour, "attention", height / 2);
}

/** The least and the largest of the values that are not 0, as padding is. */
function range(data) {
  let [least, largest] = [255, 1];
  for (const value of data) {
    if (value && value < least) least = value;
    if (value > largest) largest = value;
  }
  return [least, largest];
}

/** The log-Mel picture as ink on paper; columns that the model attended to are in colour. */
export function drawLogMel(canvas, { n_mels, columns, data }, attention, [lowest, highest]) {
  const { context, width, height, colour } = begin(canvas);
  const [paper, ink, attend] = ["mel-paper", "mel-ink", "mel-attend"].map((name) => rgb(colour(name)));
  const most = Math.max(...attention);
  const image = new ImageData(columns, n_mels);
  const [quiet, loudest] = range(data);
  for (let x = 0; x < columns; x++) {
    const looked = Math.sqrt(Math.max(0, attention[x] / most - LEAST_COLOUR) / (1 - LEAST_COLOUR));
    const full = mix(ink, attend, looked);
    for (let band = 0; band < n_mels; band++) {
      const level = (data[band * columns + x] - quiet) / Math.max(1, loudest - quiet);
      const loud = (Math.max(0, level - FLOOR) / (1 - FLOOR)) ** GAMMA;
      image.data.set([...mix(paper, full, loud), 255], 4 * ((n_mels - 1 - band) * columns + x));
    }
  }
  const small = new OffscreenCanvas(columns, n_mels);
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false; // patches have edges
  context.fillStyle = `rgb(${paper})`;
  context.fillRect(GUTTER, 0, width - GUTTER, height);
  context.drawImage(small, GUTTER, 0, width - GUTTER, height);
  for (const hz of [500, 1000, 2000, 4000]) {
    const y = height * (1 - (mel(hz) - mel(lowest)) / (mel(highest) - mel(lowest)));
    if (lowest < hz && hz < highest) label(context, colour, hz < 1000 ? `${hz} Hz` : `${hz / 1000} kHz`, y);
  }
}

/** The probability of every emotion in every window, a lane for each; uncertain ones are hollow. */
export function drawEmotions(canvas, predictions, labels, duration_s, chosen) {
  const { context, width, height, colour } = begin(canvas);
  const lane = height / labels.length;
  const spans = stretches(predictions).map((span) => span.map((s) => GUTTER + (s / duration_s) * (width - GUTTER)));
  const [from, to] = spans[chosen];
  context.fillStyle = colour("chosen");
  context.fillRect(from, 0, to - from, height);
  labels.forEach((name, row) => {
    const floor = (row + 1) * lane - 2;
    predictions.forEach(({ scores, label: best, uncertain }, i) => {
      const tall = scores[name] * (lane - 4);
      const [x, wide] = [spans[i][0], Math.max(1, spans[i][1] - spans[i][0] - 1)];
      context.fillStyle = context.strokeStyle = colour(name === best ? "accent" : "faint");
      const hollow = name === best && uncertain;
      context.globalAlpha = hollow ? 0.2 : 1;
      context.fillRect(x, floor - tall, wide, tall);
      context.globalAlpha = 1;
      if (hollow) context.strokeRect(x + 0.5, floor - tall + 0.5, wide - 1, tall - 0.5);
    });
    context.fillStyle = colour("line");
    context.fillRect(GUTTER, floor, width - GUTTER, 1);
    label(context, colour, name, floor - lane / 2 + 2, predictions[chosen].label === name);
  });
}

/** The stretch [from_s, to_s] that each window stands for: within it, and no nearer to the middles of its neighbours. */
export function stretches(predictions) {
  const middles = predictions.map(({ start_s, end_s }) => (start_s + end_s) / 2);
  return predictions.map(({ start_s, end_s }, i) => [
    i ? Math.max(start_s, (middles[i - 1] + middles[i]) / 2) : start_s,
    i + 1 < middles.length ? Math.min(end_s, (middles[i] + middles[i + 1]) / 2) : end_s,
  ]);
}

/** Seconds below the other pictures. */
export function drawTime(canvas, first_s, last_s) {
  const { context, width, height, colour } = begin(canvas);
  const most = Math.max(2, Math.floor((width - GUTTER) / 64));
  const step =
    [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600].find((s) => (last_s - first_s) / s <= most) ?? 1200;
  context.fillStyle = colour("soft");
  for (let tick = Math.ceil(first_s / step - 1e-6); tick * step <= last_s + 1e-6; tick++) {
    const x = GUTTER + ((tick * step - first_s) / (last_s - first_s)) * (width - GUTTER);
    context.fillRect(Math.min(x, width - 1), 0, 1, 4);
    context.textAlign = x > width - 20 ? "right" : x < GUTTER + 12 ? "left" : "center";
    context.fillText(clock(tick * step, step), x, height / 2 + 3);
  }
}

function clock(s, step) {
  const digits = step < 1 ? 1 : 0;
  const shown = Number(s.toFixed(digits)); // rounded before minutes are taken off
  if (step < 60 && shown < 60) return `${shown.toFixed(digits)} s`;
  return `${Math.floor(shown / 60)}:${(shown % 60).toFixed(digits).padStart(digits ? 4 : 2, "0")}`;
}

/** How loud the last chunks were, newest at the right. */
export function drawLevels(canvas, levels) {
  const { context, width, height, colour } = begin(canvas);
  const step = 4;
  const shown = levels.slice(-Math.floor(width / step));
  context.fillStyle = colour("attend");
  shown.forEach((level, i) => {
    const tall = Math.max(2, Math.min(1, Math.sqrt(level) * 1.4) * height);
    context.fillRect(width - (shown.length - i) * step, (height - tall) / 2, step - 1, tall);
  });
}

function label(context, colour, text, y, strong = false) {
  context.fillStyle = colour(strong ? "ink" : "soft");
  context.textAlign = "right";
  context.font = context.font.replace(/^(bold )?/, strong ? "bold " : "");
  context.fillText(text, GUTTER - 10, y);
}

const mix = (from, to, share) => from.map((value, i) => Math.round(value + (to[i] - value) * share));
const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
