// The page: takes a recording, asks the engine that <html data-engine> names, and shows the answer.

import * as draw from "./draw.js";
import { openMicrophone } from "./microphone.js";
import { Problem, SHORTEST_S, decode, wav } from "./sound.js";

const MOST_WINDOWS = 58; // that are suited to the length of a recording; more at the listener's wish
const LOCAL_LIMITS = { max_bytes: 200e6, max_duration_s: 1800 }; // what the memory of a browser bears
const LONGEST_RECORDING_S = 300;
const CORPORA = {
  emodb: "actors who speak German sentences in a studio (EmoDB)",
  savee: "four men who act English sentences in a studio (SAVEE)",
  cremad: "actors who speak twelve English sentences (CREMA-D)",
};

const TESTED = {
  speaker: "tested on voices that it had not heard",
  sentence: "tested on new sentences of voices that it had heard",
  clip: "tested on new recordings of voices that it had heard",
  paper: "tested on copies of what it had heard (leaky)",
};

const $ = (id) => document.getElementById(id);
const percent = (share) => (share > 0.995 ? "> 99 %" : share > 0 && share < 0.005 ? "< 1 %" : `${Math.round(100 * share)} %`);
const seconds = (s) => `${s.toFixed(1)} s`;

let engine;
let microphone = null; // while it is open: {close, chunks, ...}
let shown = null; // {recording, answer, chosen}
let turn = 0; // of the recording that was asked for last; answers to earlier ones are dropped

// --- from the start to an answer

async function start() {
  say("Getting the model ready …");
  try {
    const { open } = await import(`./engine-${document.documentElement.dataset.engine}.js`);
    engine = await open();
  } catch (error) {
    return complain(error);
  }
  introduce(engine.card);
  enable(true);
  $("record").disabled = false;
  say("");
  document.documentElement.dataset.ready = "";
}

/** Let other recordings be chosen, or not while one is being made. */
function enable(may) {
  for (const control of [$("file"), ...document.querySelectorAll("[data-example]")]) control.disabled = !may;
}

function introduce(card) {
  const corpora = (card.corpora ?? []).map((name) => CORPORA[name] ?? name).join(" and ");
  $("learnt").textContent =
    `This model learnt from ${corpora || "recordings that its card does not name"}, and tells ${list(card.labels)} apart. ` +
    "People who are not acting, other languages and noisy rooms sound different to it, and it errs often.";
  $("privacy").textContent = document.documentElement.dataset.engine === "local"
    ? "The model runs in your browser. Your recording never leaves this device."
    : `Your recording is sent to the server that this page comes from, ${location.host}, and nowhere else.`;
  if (card.uncertain_below)
    $("doubt").textContent = `Below ${percent(card.uncertain_below)} this model is wrong more often than right.`;
  $("card").textContent = `Model: ${[card.network, card.recipe, TESTED[card.protocol]].filter(Boolean).join(", ")}. Vervet ${card.version ?? card.vervet_version}.`;
  for (const s of [1, 2, 3, 4, 6, 8].filter((s) => s < card.duration_s)) $("window").append(new Option(`${s} s long`, s));
  $("window").append(new Option(`${card.duration_s} s long, all it hears at once`, card.duration_s, true, true));
}

/** Read, judge and show a file; `meant` is the emotion that its speaker acted, where that is known. */
async function hear(file, meant = "") {
  const mine = ++turn;
  hush();
  say(`Listening to ${file.name} …`);
  $("main").setAttribute("aria-busy", "true");
  try {
    const recording = await read(file);
    const answer = await engine.predict(recording, windowing(recording), (share) => {
      if (mine === turn) say(`Listening to ${file.name} … ${percent(share)}`);
    });
    if (mine !== turn) return;
    if (!answer.predictions.length) throw new Problem(answer.problem);
    show({ ...recording, meant, duration_s: answer.duration_s }, answer);
  } catch (error) {
    if (mine !== turn) return;
    [shown, $("result").hidden] = [null, true]; // so that nobody takes the last answer for this one's
    $("audio").pause();
    complain(error, file.name);
  } finally {
    if (mine === turn) $("main").removeAttribute("aria-busy");
  }
}

async function read(file) {
  const limits = { ...LOCAL_LIMITS, ...engine.card.limits };
  if (file.size > limits.max_bytes)
    throw new Problem(`The file has ${Math.round(file.size / 1e6)} MB, at most ${Math.round(limits.max_bytes / 1e6)} are taken. Cut it, or save it as FLAC or MP3.`);
  const bytes = await file.arrayBuffer();
  const recording = { file, name: file.name, bytes };
  try {
    Object.assign(recording, await decode(bytes, engine.card.sampling_rate));
  } catch (problem) {
    recording.problem = problem; // the server may know more formats
  }
  if (recording.duration_s > limits.max_duration_s)
    throw new Problem(`The recording lasts ${Math.round(recording.duration_s)} s, at most ${Math.round(limits.max_duration_s)} s are taken. Cut it into parts.`);
  return recording;
}

/** The windows asked for; where it is left to us, no more than are drawn well, and at least a second apart. */
function windowing({ duration_s }) {
  const window_s = Number($("window").value);
  const suited = Math.min(window_s, Math.max(Math.min(1, window_s), Math.ceil(((duration_s ?? 0) / MOST_WINDOWS) * 2) / 2));
  return { window_s, hop_s: Number($("hop").value) || suited };
}

// --- the answer

function show(recording, answer) {
  shown = { recording, answer, chosen: -1 };
  $("result").hidden = false;
  $("over-time").hidden = answer.predictions.length < 2;
  $("summary").textContent = summary(answer);
  fillTable(answer);
  const playable = Boolean(recording.waveform);
  for (const id of ["play", "clock"]) $(id).hidden = !playable;
  URL.revokeObjectURL($("audio").src);
  if (playable) $("audio").src = URL.createObjectURL(wav(recording.waveform, engine.card.sampling_rate));
  $("position").max = recording.duration_s;
  seek(0);
  const { label, confidence, uncertain } = answer.predictions[0];
  const many = answer.predictions.length > 1;
  say(`Done. ${many ? summary(answer) : sentence(label, confidence, uncertain)}`, false);
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  $("result").scrollIntoView({ behavior: still ? "auto" : "smooth", block: "nearest" });
}

function sentence(label, confidence, uncertain) {
  const sure = percent(confidence).replace(">", "over").replace("<", "under");
  return uncertain ? `Uncertain, most likely ${label} (${sure})` : `${capital(label)}, ${sure} sure`;
}

function summary({ predictions, problem }) {
  const counts = new Map();
  for (const { label } of predictions) counts.set(label, (counts.get(label) ?? 0) + 1);
  const [[most, count]] = [...counts].sort((a, b) => b[1] - a[1]);
  const uncertain = predictions.filter((prediction) => prediction.uncertain).length;
  const parts = predictions.length > 1 ? [`Most often ${most}, in ${count} of ${predictions.length} windows${uncertain ? `; uncertain in ${uncertain}` : ""}.`] : [];
  return [...parts, problem].filter(Boolean).join(" ");
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
  $("position").setAttribute("aria-valuetext", `${seconds(at_s)} of ${seconds(recording.duration_s)}: ${sentence(prediction.label, prediction.confidence, prediction.uncertain)}`);
  $("clock").textContent = `${at_s.toFixed(1)} / ${seconds(recording.duration_s)}`;
  movePlayheads(at_s);
}

function choose(index) {
  if (index === shown.chosen) return;
  shown.chosen = index;
  const prediction = shown.answer.predictions[index];
  const { label, confidence, uncertain } = prediction;
  const { name, meant } = shown.recording;
  const span = shown.answer.predictions.length > 1 ? `, ${seconds(prediction.start_s)} to ${seconds(prediction.end_s)}` : "";
  $("name").textContent = `${name}${span}${meant ? `, where the actor meant ${meant}` : ""}`;
  $("headline").textContent = sentence(label, confidence, uncertain);
  $("result").classList.toggle("uncertain", uncertain);
  $("doubt").hidden = !uncertain;
  fillBars(prediction);
  paint();
  if (!prediction.log_mel) look(prediction);
}

/** Ask for the picture of one window, where there are too many to have got them all. */
async function look(prediction) {
  const { recording } = shown;
  if (!recording.waveform) return;
  const rate = engine.card.sampling_rate;
  const waveform = recording.waveform.slice(Math.round(prediction.start_s * rate), Math.round(prediction.end_s * rate));
  const part = { waveform, bytes: await wav(waveform, rate).arrayBuffer(), duration_s: waveform.length / rate };
  const whole = { window_s: engine.card.duration_s, hop_s: engine.card.duration_s };
  const answer = await engine.predict(part, whole).catch(() => null); // the numbers stand without a picture
  const [{ log_mel, attention } = {}] = answer?.predictions ?? [];
  if (!log_mel || shown.recording !== recording) return;
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
  const { recording, answer, chosen } = shown;
  const { waveform, duration_s } = recording;
  const { sampling_rate: rate, labels } = engine.card;
  const { start_s, end_s, log_mel, attention, label, confidence, uncertain } = answer.predictions[chosen];
  const span = `${seconds(start_s)} to ${seconds(end_s)}`;
  const many = answer.predictions.length > 1;
  $("bars-title").textContent = many ? `How likely, ${span}` : "How likely";
  $("saw-title").textContent = many ? `Where the model looked, ${span}` : "What the model saw, and where it looked";
  $("saw").hidden = !waveform && !log_mel;
  for (const id of ["all-waveform", "waveform"]) $(id).hidden = !waveform;
  for (const id of ["attention", "log-mel", "saw-hint"]) $(id).hidden = !log_mel;
  if (many) {
    if (waveform) draw.drawWaveform($("all-waveform"), waveform, rate, { first_s: 0, last_s: duration_s, from_s: start_s, to_s: end_s });
    draw.drawEmotions($("emotions"), answer.predictions, labels, duration_s, chosen);
    draw.drawTime($("all-time"), 0, duration_s);
    $("all-waveform").setAttribute("aria-label", `Waveform of ${seconds(duration_s)}`);
    $("emotions").setAttribute("aria-label", `Probability of each emotion over time. ${summary(answer)} The table below has every number.`);
  }
  if (waveform) draw.drawWaveform($("waveform"), waveform, rate, { first_s: start_s, last_s: end_s });
  if (waveform || log_mel) draw.drawTime($("time"), start_s, end_s);
  $("waveform").setAttribute("aria-label", `Waveform, ${span}`);
  if (!log_mel) return;
  draw.drawAttention($("attention"), attention, 1);
  draw.drawLogMel($("log-mel"), log_mel, attention, 1, rate / 2);
  $("attention").setAttribute("aria-label", `Attention, ${span}: ${whereLooked(attention, start_s, end_s)}`);
  $("log-mel").setAttribute("aria-label", `Log-Mel picture, ${span}, heard as ${sentence(label, confidence, uncertain)}`);
}

/** In words, the shortest stretches that hold half of the attention. */
function whereLooked(attention, start_s, end_s) {
  const order = attention.map((value, i) => [value, i]).sort((a, b) => b[0] - a[0]);
  const picked = new Set();
  for (let sum = 0; sum < 0.5 && order.length; ) {
    const [value, i] = order.shift();
    picked.add(i);
    sum += value;
  }
  const step = (end_s - start_s) / attention.length;
  const spans = [];
  for (const i of [...picked].sort((a, b) => a - b)) {
    if (spans.at(-1)?.[1] === i) spans.at(-1)[1] = i + 1;
    else spans.push([i, i + 1]);
  }
  const longest = spans.sort((a, b) => b[1] - b[0] - (a[1] - a[0])).slice(0, 4).sort((a, b) => a[0] - b[0]);
  return `half of it lies in ${picked.size} of ${attention.length} strips, most of these at ${list(longest.map(([from, to]) => `${(start_s + from * step).toFixed(2)} to ${(start_s + to * step).toFixed(2)} s`))}`;
}

function fillTable({ predictions }) {
  const labels = Object.keys(predictions[0].scores);
  const head = element("tr");
  head.append(...["from", "to", "emotion", ...labels].map((text) => cell("th", text, "col")));
  $("table-head").replaceChildren(head);
  const rows = predictions.map(({ start_s, end_s, label, uncertain, scores }) => {
    const row = element("tr");
    row.append(cell("th", seconds(start_s), "row"), element("td", seconds(end_s)), element("td", uncertain ? `uncertain, ${label}` : label));
    row.append(...labels.map((name) => element("td", `${(100 * scores[name]).toFixed(1)} %`, name === label ? "best" : "")));
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

// --- the microphone

async function toggleRecording() {
  if (microphone) return stopRecording();
  const mine = ++turn;
  hush();
  $("audio").pause();
  const opened = { chunks: [], levels: [], count: 0 };
  try {
    say("Opening the microphone …");
    Object.assign(opened, await openMicrophone((chunk) => heardChunk(opened, chunk), stopRecording));
  } catch (error) {
    return complain(error);
  }
  if (mine !== turn) return opened.close();
  microphone = opened;
  opened.listener = engine.listen(opened.samplingRate, showLive);
  enable(false);
  document.body.classList.add("recording");
  $("record-text").textContent = "Stop";
  $("live-label").textContent = "";
  $("live").hidden = false;
  say("Recording. Press Stop when you are done.");
}

function heardChunk(opened, chunk) {
  if (opened !== microphone) return;
  opened.chunks.push(chunk);
  opened.count += chunk.length;
  opened.levels.push(Math.sqrt(chunk.reduce((sum, x) => sum + x * x, 0) / chunk.length));
  opened.listener.feed(chunk);
  draw.drawLevels($("levels"), opened.levels);
  const elapsed_s = opened.count / opened.samplingRate;
  $("elapsed").textContent = `${Math.floor(elapsed_s / 60)}:${String(Math.floor(elapsed_s % 60)).padStart(2, "0")}`;
  if (elapsed_s >= LONGEST_RECORDING_S) stopRecording();
}

function showLive(heard) {
  if (!microphone) return;
  const best = heard && Math.max(0, ...Object.values(heard.scores));
  $("live-label").textContent = !heard ? "" : heard.label === "silence" ? "silence" : heard.uncertain ? "uncertain" : `${heard.label} ${best ? percent(best) : ""}`;
}

function stopRecording() {
  if (!microphone) return;
  const { close, listener, chunks, count, samplingRate } = microphone;
  microphone = null;
  close();
  listener.finish();
  enable(true);
  document.body.classList.remove("recording");
  $("record-text").textContent = "Record";
  $("live").hidden = true;
  if (count < SHORTEST_S * samplingRate) return complain(new Problem("Nothing was recorded. Let it run for a second or more."));
  const waveform = new Float32Array(count);
  let at = 0;
  for (const chunk of chunks) {
    waveform.set(chunk, at);
    at += chunk.length;
  }
  hear(new File([wav(waveform, samplingRate)], "recording.wav", { type: "audio/wav" }));
}

// --- words

function say(text, seen = true) {
  $("status").textContent = text;
  $("status").classList.toggle("unseen", !seen);
}

function hush() {
  $("error").hidden = true;
  $("error").textContent = "";
}

function complain(error, name = "") {
  say("");
  const text = error instanceof Problem ? error.message : `Something went wrong that should not have (${error.message}). Load the page again.`;
  if (!(error instanceof Problem)) console.error(error);
  $("error").textContent = name && !text.startsWith(name) ? `${name}: ${text}` : text;
  $("error").hidden = false;
}

function save(kind) {
  const { recording, answer } = shown;
  const rows = answer.predictions.map(({ start_s, end_s, label, uncertain, scores }) => ({ file: recording.name, start_s, end_s, label, uncertain, scores }));
  const quoted = (value) => (/[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value);
  const flat = ({ uncertain, scores, ...row }) => ({ ...row, confidence: scores[row.label], uncertain, ...scores });
  const lines = [Object.keys(flat(rows[0])), ...rows.map((row) => Object.values(flat(row)))];
  const text = kind === "json" ? `${JSON.stringify(rows, null, 1)}\n` : lines.map((line) => `${line.map(quoted).join(",")}\n`).join("");
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

const capital = (word) => word[0].toUpperCase() + word.slice(1);
const list = (words) => [words.slice(0, -1).join(", "), words.at(-1)].filter(Boolean).join(" and ");

// --- what people do

$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) hear(file);
  $("file").value = ""; // so that the same file can be chosen again
});
$("record").addEventListener("click", toggleRecording);
for (const button of document.querySelectorAll("[data-example]"))
  button.addEventListener("click", async () => {
    const { example, meant } = button.dataset;
    const response = await fetch(`examples/${example}`).catch(() => null);
    if (!response?.ok) return complain(new Problem("The example could not be fetched. See whether you are online, then try again."));
    hear(new File([await response.blob()], example), meant);
  });
for (const id of ["window", "hop"]) $(id).addEventListener("change", () => shown && hear(shown.recording.file, shown.recording.meant));
$("play").addEventListener("click", () => ($("audio").paused ? $("audio").play() : $("audio").pause()));
for (const happened of ["play", "pause", "ended"]) $("audio").addEventListener(happened, showPlaying);
$("position").addEventListener("input", () => seek(Number($("position").value)));
for (const canvas of document.querySelectorAll(".seekable")) canvas.addEventListener("click", seekByPointer);
$("save-json").addEventListener("click", () => save("json"));
$("save-csv").addEventListener("click", () => save("csv"));

addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dropping"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const [file] = event.dataTransfer.files;
  if (file && engine && !microphone) hear(file);
});
new ResizeObserver(paint).observe($("result"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);

start();
