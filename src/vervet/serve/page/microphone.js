// The microphone: samples as they come, at the device's own rate, without what browsers do to make calls sound better.

import { Problem } from "./sound.js";

const CHUNK = 2048; // samples

const REFUSALS = {
  NotAllowedError:
    "The microphone was not allowed. Allow it in the browser's settings for this page, or choose a file.",
  NotFoundError: "No microphone was found. Connect one, or choose a file.",
  NotReadableError: "The microphone is in use by another program, or broken. Close that program, or choose a file.",
};

let prepared = null; // {context, loaded}: an AudioContext, which sleeps between recordings, and when it has the worklet
let open = 0; // recordings

/** Fetch what the microphone needs, so that it opens without a network later. */
export function prepareMicrophone() {
  if (isThere()) prepare();
}

const isThere = () => Boolean(navigator.mediaDevices?.getUserMedia && window.AudioWorkletNode);

function prepare() {
  if (prepared) return prepared;
  const context = new AudioContext();
  const loaded = context.audioWorklet.addModule(new URL("worklet.js", import.meta.url));
  loaded.catch(() => {
    prepared = null; // the next one tries again
    context.close();
  });
  return (prepared = { context, loaded });
}

/**
 * Open the microphone and call `onChunk` with Float32Arrays until `close` is called.
 * Resolves to {samplingRate, close}; rejects with a Problem. `onEnd` is called if the microphone is taken away.
 */
export async function openMicrophone(onChunk, onEnd) {
  if (!isThere())
    throw new Problem(
      "The browser gives a page the microphone only over https or on localhost. Open it there, or choose a file.",
    );
  const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio }).catch((error) => {
    throw new Problem(
      REFUSALS[error.name] ?? `The microphone could not be opened (${error.message}). Try again, or choose a file.`,
    );
  });
  const { context, loaded } = prepare();
  let source, node;
  open++;
  const close = () => {
    stream.getTracks().forEach((track) => track.stop()); // else the browser goes on showing that it listens
    source?.disconnect();
    node?.disconnect();
    node?.port.postMessage("end");
    if (--open === 0 && context.state !== "closed") context.suspend();
  };
  try {
    await Promise.all([loaded, context.resume()]);
    node = new AudioWorkletNode(context, "samples", { numberOfOutputs: 1, processorOptions: { chunk: CHUNK } });
    node.port.onmessage = ({ data }) => onChunk(data);
    source = context.createMediaStreamSource(stream);
    source.connect(node).connect(context.destination); // it plays silence: only what is connected runs
    stream.getAudioTracks()[0].onended = onEnd;
    return { samplingRate: context.sampleRate, close };
  } catch (error) {
    close();
    throw new Problem(`The microphone could not be opened (${error.message}). Try again, or choose a file.`);
  }
}
