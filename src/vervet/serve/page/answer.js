// The answer: in words, bars and pictures, with a player and a table.

import * as draw from "./draw.js";
import { wav } from "./sound.js";

const $ = (id) => document.getElementById(id);
const seconds = (s) => `${s.toFixed(1)} s`;
const capital = (word) => word[0].toUpperCase() + word.slice(1);

const REST_MS = 100; // on a window, before its picture is asked for

let resting; // the timer of that
let shown = null; // {engine, recording, answer, chosen: the number of the window that is looked at}

/** Show the answer of an engine to a recording; returns it in words. */
export function show(engine, recording, answer) {
  shown = { engine, recording, answer, chosen: -1 };
  $("result").hidden = false;
  $("over-time").hidden = answer.predictions.length < 2;
  const unseen = recording.waveform ? "" : "Your browser cannot play this format, so there are no pictures.";
  $("summary").textContent = [summary(answer), unseen].filter(Boolean).join(" ");
  fillTable(answer);
  const playable = Boolean(recording.waveform);
  for (const id of ["play", "clock"]) $(id).hidden = !playable;
  $("audio").pause();
  URL.revokeObjectURL($("audio").src);
  if (playable) $("audio").src = URL.createObjectURL(wav(recording.waveform, engine.card.sampling_rate));
  showPlaying(); // another source takes the place of one that plays without a word
  $("position").max = recording.duration_s;
  seek(0);
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  $("result").scrollIntoView({ behavior: still ? "auto" : "smooth", block: "nearest" });
  return answer.predictions.length > 1 ? summary(answer) : sentence(answer.predictions[0]);
}

/** Show nothing, so that nobody takes the last answer for that to another recording. */
export function hide() {
  shown = null;
  $("result").hidden = true;
  $("audio").pause();
}

function sentence({ label, confidence, uncertain }) {
  const sure = percent(confidence).replace(">", "over").replace("<", "under");
  return uncertain ? `Uncertain, most likely ${label} (${sure})` : `${capital(label)}, ${sure} sure`;
}

function summary({ predictions, problem }) {
  const counts = new Map();
  for (const { label } of predictions) counts.set(label, (counts.get(label) ?? 0) + 1);
  const [[most, count]] = [...counts].sort((a, b) => b[1] - a[1]);
  const doubtful = predictions.filter(({ uncertain }) => uncertain).length;
  const doubt = doubtful ? `; uncertain in ${doubtful}` : "";
  const often =
    predictions.length > 1 ? `Most often ${most}, in ${count} of ${predictions.length} windows${doubt}.` : "";
  return [often, problem].filter(Boolean).join(" ");
}

/** Go to a moment: the window around it is shown. */
function seek(at_s, inAudio = true) {
  const { recording, answer } = shown;
  if (inAudio && recording.waveform) $("audio").currentTime = at_s;
  $("position").value = at_s;
  const spans = draw.stretches(answer.predictions);
  const found = spans.findIndex(([, to_s]) => at_s < to_s);
  choose(found < 0 ? spans.length - 1 : found);
  const prediction = answer.predictions[shown.chosen];
  $("position").setAttribute(
    "aria-valuetext",
    `${seconds(at_s)} of ${seconds(recording.duration_s)}: ${sentence(prediction)}`,
  );
  $("clock").textContent = `${at_s.toFixed(1)} / ${seconds(recording.duration_s)}`;
  movePlayheads(at_s);
}

function choose(index) {
  if (index === shown.chosen) return;
  shown.chosen = index;
  const prediction = shown.answer.predictions[index];
  const { name, meant } = shown.recording;
  const span =
    shown.answer.predictions.length > 1 ? `, ${seconds(prediction.start_s)} to ${seconds(prediction.end_s)}` : "";
  $("name").textContent = `${name}${span}${meant ? `, where the actor meant ${meant}` : ""}`;
  $("headline").textContent = sentence(prediction);
  $("result").classList.toggle("uncertain", prediction.uncertain);
  $("doubt").hidden = !prediction.uncertain;
  fillBars(prediction);
  paint();
  clearTimeout(resting);
  if (!prediction.log_mel) resting = setTimeout(look, REST_MS, prediction);
}

/** Ask for the picture of one window, where there are too many to have got them all. */
async function look(prediction) {
  if (!shown || prediction.asked) return;
  const { engine, recording } = shown;
  if (!recording.waveform) return;
  prediction.asked = true;
  const rate = engine.card.sampling_rate;
  const waveform = recording.waveform.slice(Math.round(prediction.start_s * rate), Math.round(prediction.end_s * rate));
  const part = {
    name: recording.name,
    waveform,
    bytes: await wav(waveform, rate).arrayBuffer(),
    duration_s: waveform.length / rate,
  };
  const whole = { window_s: engine.card.duration_s, hop_s: engine.card.duration_s };
  const answer = await engine.predict(part, whole).catch(() => null); // the numbers stand without a picture
  const [{ log_mel, attention } = {}] = answer?.predictions ?? [];
  prediction.asked = Boolean(log_mel);
  if (!log_mel || shown?.recording !== recording) return;
  Object.assign(prediction, { log_mel, attention });
  paint();
}

function fillBars({ scores, label }) {
  const rows = Object.entries(scores).map(([name, share]) => {
    const row = element("div", "", name === label ? "best" : "");
    row.style.setProperty("--share", share);
    row.append(element("dt", name), element("dd", percent(share), "number"));
    return row;
  });
  $("bars").replaceChildren(...rows);
}

function paint() {
  if (!shown) return;
  const { engine, recording, answer, chosen } = shown;
  const { waveform, duration_s } = recording;
  const { sampling_rate: rate, band_hz, labels } = engine.card;
  const prediction = answer.predictions[chosen];
  const { start_s, end_s, log_mel, attention } = prediction;
  const span = `${seconds(start_s)} to ${seconds(end_s)}`;
  const many = answer.predictions.length > 1;
  $("bars-title").textContent = many ? `How likely, ${span}` : "How likely";
  $("saw-title").textContent = many ? `Where the model looked, ${span}` : "What the model saw, and where it looked";
  $("saw").hidden = !waveform && !log_mel;
  for (const id of ["all-waveform", "waveform"]) $(id).hidden = !waveform;
  for (const id of ["attention", "log-mel", "saw-hint"]) $(id).hidden = !log_mel;
  if (many) {
    if (waveform)
      draw.drawWaveform($("all-waveform"), waveform, rate, {
        first_s: 0,
        last_s: duration_s,
        from_s: start_s,
        to_s: end_s,
      });
    draw.drawEmotions($("emotions"), answer.predictions, labels, duration_s, chosen);
    draw.drawTime($("all-time"), 0, duration_s);
    $("all-waveform").setAttribute("aria-label", `Waveform of ${seconds(duration_s)}`);
    $("emotions").setAttribute(
      "aria-label",
      `Probability of each emotion over time. ${summary(answer)} The table below has every number.`,
    );
  }
  if (waveform) draw.drawWaveform($("waveform"), waveform, rate, { first_s: start_s, last_s: end_s });
  if (waveform || log_mel) draw.drawTime($("time"), start_s, end_s);
  $("waveform").setAttribute("aria-label", `Waveform, ${span}`);
  if (!log_mel) return;
  draw.drawAttention($("attention"), attention);
  draw.drawLogMel($("log-mel"), log_mel, attention, band_hz ?? [0, rate / 2]);
  $("attention").setAttribute("aria-label", `Attention, ${span}: ${whereLooked(attention, start_s, end_s)}`);
  $("log-mel").setAttribute("aria-label", `Log-Mel picture, ${span}, heard as ${sentence(prediction)}`);
}

/** In words, the columns that hold half of the attention, and where most of them stand together. */
function whereLooked(attention, start_s, end_s) {
  const order = [...attention.keys()].sort((a, b) => attention[b] - attention[a]);
  let [sum, needed] = [0, 0];
  while (sum < 0.5) sum += attention[order[needed++]];
  const spans = [];
  for (const column of order.slice(0, needed).sort((a, b) => a - b)) {
    if (spans.at(-1)?.[1] === column) spans.at(-1)[1]++;
    else spans.push([column, column + 1]);
  }
  spans.sort(([a, b], [c, d]) => d - c - (b - a)).splice(4);
  const at = (column) => (start_s + (column * (end_s - start_s)) / attention.length).toFixed(2);
  const where = spans.sort(([a], [c]) => a - c).map(([from, to]) => `${at(from)} to ${at(to)} s`);
  return `half of it lies in ${needed} of ${attention.length} strips, most of these at ${list(where)}`;
}

function fillTable({ predictions }) {
  const labels = Object.keys(predictions[0].scores);
  const head = element("tr");
  head.append(...["from", "to", "emotion", ...labels].map((text) => cell("th", text, "col")));
  $("table-head").replaceChildren(head);
  const rows = predictions.map(({ start_s, end_s, label, uncertain, scores }) => {
    const row = element("tr");
    row.append(
      cell("th", seconds(start_s), "row"),
      element("td", seconds(end_s)),
      element("td", uncertain ? `uncertain, ${label}` : label),
    );
    row.append(
      ...labels.map((name) => element("td", `${(100 * scores[name]).toFixed(1)} %`, name === label ? "best" : "")),
    );
    return row;
  });
  $("table-body").replaceChildren(...rows);
}

// --- playing and seeking

function movePlayheads(at_s) {
  const { recording, answer, chosen } = shown;
  const { start_s, end_s } = answer.predictions[chosen];
  putPlayhead("over-time", at_s / recording.duration_s);
  putPlayhead("saw", (at_s - start_s) / (end_s - start_s));
}

function putPlayhead(section, share) {
  const head = $(section).querySelector(".playhead");
  head.hidden = !(share >= 0 && share <= 1);
  head.style.left = `calc(${draw.GUTTER}px + (100% - ${draw.GUTTER}px) * ${share})`;
}

function follow() {
  if (!shown || $("audio").paused) return;
  seek($("audio").currentTime, false);
  requestAnimationFrame(follow);
}

function seekByPointer(event) {
  const box = event.currentTarget.getBoundingClientRect();
  const share = Math.max(0, Math.min(1, (event.clientX - box.left - draw.GUTTER) / (box.width - draw.GUTTER)));
  const { start_s, end_s } = shown.answer.predictions[shown.chosen];
  const inAll = $("over-time").contains(event.currentTarget);
  seek(inAll ? share * shown.recording.duration_s : start_s + share * (end_s - start_s) * 0.999);
}

function showPlaying() {
  const playing = !$("audio").paused;
  $("play").classList.toggle("playing", playing);
  $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  if (playing) follow();
}

// --- saving

function save(kind) {
  const { recording, answer } = shown;
  const rows = answer.predictions.map(({ start_s, end_s, label, uncertain, scores }) => ({
    file: recording.name,
    start_s,
    end_s,
    label,
    confidence: scores[label],
    uncertain,
    scores,
  }));
  const quoted = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value);
  const flat = ({ scores, ...row }) => ({ ...row, ...scores });
  const lines = [Object.keys(flat(rows[0])), ...rows.map((row) => Object.values(flat(row)))];
  const text =
    kind === "json"
      ? `${JSON.stringify(rows, null, 1)}\n`
      : lines.map((line) => `${line.map(quoted).join(",")}\n`).join("");
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([text], { type: kind === "json" ? "application/json" : "text/csv" }));
  link.download = `${recording.name.replace(/\.\w+$/, "")}.${kind}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function cell(tag, text, scope) {
  const made = element(tag, text);
  made.scope = scope;
  return made;
}

// --- words

export const percent = (share) =>
  share > 0.995 ? "> 99 %" : share > 0 && share < 0.005 ? "< 1 %" : `${Math.round(100 * share)} %`;

export const list = (words) => [words.slice(0, -1).join(", "), words.at(-1)].filter(Boolean).join(" and ");

// --- what people do

$("play").addEventListener("click", () => ($("audio").paused ? $("audio").play() : $("audio").pause()));
for (const happened of ["play", "pause", "ended"]) $("audio").addEventListener(happened, showPlaying);
$("position").addEventListener("input", () => seek(Number($("position").value)));
for (const canvas of document.querySelectorAll(".seekable")) canvas.addEventListener("click", seekByPointer);
$("save-json").addEventListener("click", () => save("json"));
$("save-csv").addEventListener("click", () => save("csv"));

new ResizeObserver(paint).observe($("result"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
