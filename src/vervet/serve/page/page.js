// The page: takes a recording, asks the engine that <html data-engine> names, and shows the answer.

import { hide, list, percent, show } from "./answer.js";
import { drawLevels } from "./draw.js";
import { openMicrophone, prepareMicrophone } from "./microphone.js";
import { Problem, SHORTEST_S, decode, wav } from "./sound.js";

const MOST_WINDOWS = 58; // that are suited to the length of a recording; more at the listener's wish
const LOCAL_LIMITS = { max_bytes: 200e6, max_duration_s: 1800 }; // what the memory of a browser bears
const LARGE_BYTES = 5e6; // decoded, such a file may fill the memory
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
let engine;
let microphone = null; // while it is open: {close, chunks, ...}
let last = null; // [file, meant] that was heard
let work = new AbortController(); // on what was asked for last; answers to what was asked before are dropped

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
  prepareMicrophone();
  say("");
  document.documentElement.dataset.ready = "";
}

/** Let other recordings be chosen, or not while one is being made. */
function enable(may) {
  for (const control of [$("file"), $("window"), $("hop"), ...document.querySelectorAll("[data-example]")]) control.disabled = !may;
}

function introduce(card) {
  const corpora = (card.corpora ?? []).map((name) => CORPORA[name] ?? name).join(" and ");
  $("learnt").textContent =
    `This model learnt from ${corpora || "recordings that its card does not name"}, and tells ${list(card.labels)} apart. ` +
    "People who are not acting, other languages and noisy rooms sound different to it, and it errs often.";
  $("privacy").textContent =
    document.documentElement.dataset.engine === "local"
      ? "The model runs in your browser. Your recording never leaves this device."
      : `Your recording is sent to the server that this page comes from, ${location.host}, and nowhere else.`;
  if (card.uncertain_below)
    $("doubt").textContent = `Below ${percent(card.uncertain_below)} this model is wrong more often than right.`;
  $("card").textContent =
    `Model: ${[card.network, card.recipe, TESTED[card.protocol]].filter(Boolean).join(", ")}. Vervet ${card.version ?? card.vervet_version}.`;
  for (const s of [1, 2, 3, 4, 6, 8].filter((s) => s < card.duration_s))
    $("window").append(new Option(`${s} s long`, s));
  $("window").append(new Option(`${card.duration_s} s long, all it hears at once`, card.duration_s, true, true));
}

/** Give up what was asked for before; the signal that says when this is given up. */
function begin() {
  work.abort();
  work = new AbortController();
  hush();
  return work.signal;
}

/** Read, judge and show a file; `meant` is the emotion that its speaker acted, where that is known. */
async function hear(file, meant = "") {
  const signal = begin();
  last = [file, meant];
  say(`Listening to ${file.name} …`);
  $("main").setAttribute("aria-busy", "true");
  try {
    const recording = await read(file);
    if (signal.aborted) return;
    const answer = await engine.predict(recording, windowing(recording), signal, (share) =>
      say(`Listening to ${file.name} … ${percent(share)}`),
    );
    if (signal.aborted) return;
    if (!answer.predictions.length) throw new Problem(answer.problem);
    say(`Done. ${show(engine, { ...recording, meant, duration_s: answer.duration_s }, answer)}`, false);
  } catch (error) {
    if (signal.aborted) return;
    hide();
    complain(error, file.name);
  } finally {
    if (!signal.aborted) $("main").removeAttribute("aria-busy");
  }
}

const most = () => ({ ...LOCAL_LIMITS, ...engine.card.limits });

async function read(file) {
  const { max_bytes, max_duration_s } = most();
  const check = (duration_s) => {
    if (duration_s > max_duration_s)
      throw new Problem(
        `The recording lasts ${duration_s.toFixed(1)} s, and ${max_duration_s} s are the most. Cut it into parts.`,
      );
  };
  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
  if (file.size > max_bytes)
    throw new Problem(
      `The file has ${megabytes(file.size)}, and ${megabytes(max_bytes)} are the most. Cut it, or save it as FLAC or MP3.`,
    );
  if (file.size > LARGE_BYTES) {
    const duration_s = await lasting(file);
    if (Number.isFinite(duration_s)) check(duration_s);
  }
  const bytes = await file.arrayBuffer().catch(() => {
    throw new Problem("It cannot be read: it is a folder, or was moved or changed since. Choose the file anew.");
  });
  const recording = { name: file.name, bytes };
  try {
    Object.assign(recording, await decode(recording.bytes, engine.card.sampling_rate));
  } catch (problem) {
    recording.problem = problem; // the server may know more formats
  }
  check(recording.duration_s);
  return recording;
}

/** How long a file plays, found without decoding it; NaN where the browser cannot tell. */
async function lasting(file) {
  const audio = new Audio();
  audio.preload = "metadata";
  audio.src = URL.createObjectURL(file);
  await new Promise((resolve) => {
    audio.onloadedmetadata = audio.onerror = resolve;
    setTimeout(resolve, 5000);
  });
  URL.revokeObjectURL(audio.src);
  return audio.duration;
}

/** The windows asked for; where it is left to us, no more than are drawn well, and at least a second apart. */
function windowing({ duration_s }) {
  const window_s = Number($("window").value);
  const least_s = Math.ceil((2 * (duration_s ?? 0)) / MOST_WINDOWS) / 2;
  const suited = Math.min(window_s, Math.max(1, least_s));
  return { window_s, hop_s: Number($("hop").value) || suited };
}

// --- the microphone

async function toggleRecording() {
  if (microphone) return stopRecording();
  const signal = begin();
  $("main").removeAttribute("aria-busy");
  $("audio").pause();
  const opened = { chunks: [], levels: [], count: 0 };
  try {
    say("Opening the microphone …");
    Object.assign(opened, await openMicrophone((chunk) => heardChunk(opened, chunk), stopRecording));
  } catch (error) {
    if (!signal.aborted) complain(error);
    return;
  }
  if (signal.aborted) return opened.close();
  microphone = opened;
  opened.listener = engine.listen(opened.samplingRate, showLive);
  enable(false);
  document.body.classList.add("recording");
  $("record-text").textContent = "Stop";
  $("live-label").textContent = "";
  $("elapsed").textContent = "0:00";
  $("live").hidden = false;
  say("Recording. Press Stop when you are done.");
}

function heardChunk(opened, chunk) {
  if (opened !== microphone) return;
  opened.chunks.push(chunk);
  opened.count += chunk.length;
  opened.levels.push(Math.sqrt(chunk.reduce((sum, x) => sum + x * x, 0) / chunk.length));
  opened.listener.feed(chunk);
  drawLevels($("levels"), opened.levels);
  const elapsed_s = opened.count / opened.samplingRate;
  $("elapsed").textContent = `${Math.floor(elapsed_s / 60)}:${String(Math.floor(elapsed_s % 60)).padStart(2, "0")}`;
  if (elapsed_s >= longest_s(opened.samplingRate)) stopRecording();
}

/** How long may be recorded: what is made of it has to be taken afterwards. */
function longest_s(samplingRate) {
  const { max_duration_s, max_bytes } = most();
  return Math.min(LONGEST_RECORDING_S, max_duration_s - 1, max_bytes / (2 * samplingRate) - 1);
}

function showLive(heard) {
  if (!microphone) return;
  const { label = "", scores = {}, uncertain } = heard ?? {};
  const named = label in scores && !uncertain;
  $("live-label").textContent = named ? `${label} ${percent(scores[label])}` : uncertain ? "uncertain" : label;
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
  if (count < SHORTEST_S * samplingRate)
    return complain(new Problem("Nothing was recorded. Let it run for a second or more."));
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
  const text =
    error instanceof Problem
      ? error.message
      : `Something went wrong that should not have (${error.message}). Load the page again.`;
  if (!(error instanceof Problem)) console.error(error);
  $("error").textContent = name && !text.startsWith(name) ? `${name}: ${text}` : text;
  $("error").hidden = false;
}

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
    const signal = begin();
    $("main").setAttribute("aria-busy", "true");
    say(`Fetching ${example} …`);
    const response = await fetch(`examples/${example}`).catch(() => null);
    const found = response?.ok ? await response.blob().catch(() => null) : null;
    if (signal.aborted) return;
    $("main").removeAttribute("aria-busy");
    if (!found)
      return complain(new Problem("The example could not be fetched. See whether you are online, then try again."));
    hear(new File([found], example), meant);
  });
for (const id of ["window", "hop"]) $(id).addEventListener("change", () => last && hear(...last));
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
start();
