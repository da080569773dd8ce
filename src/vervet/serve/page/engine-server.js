// The model on the server that this page came from.

import { Problem, pcm16, wav } from "./sound.js";

const BEGINNINGS = ["RIFF", "RIFX", "RF64", "FORM", ".snd", "caff", "NIST", "fLaC", "OggS", "ID3"]; // what it reads

/** Ask the server which model it has. */
export async function open() {
  return new Server(await answered(fetch("v1/model")));
}

class Server {
  constructor(card) {
    this.card = card;
  }

  /** Answer for every window of a recording, {name, bytes, waveform, duration_s}, unless `signal` gives it up. */
  async predict(recording, { window_s, hop_s }, signal) {
    const few =
      recording.waveform && (recording.duration_s - window_s) / hop_s + 2 <= this.card.limits.max_detailed_windows;
    const query = new URLSearchParams({ window_s, hop_s, detail: Boolean(few) });
    const asIs = isRead(recording.bytes) || !recording.waveform;
    const body = new FormData();
    body.append(
      "file",
      asIs ? new Blob([recording.bytes]) : wav(recording.waveform, this.card.sampling_rate),
      recording.name,
    );
    const found = await answered(fetch(`v1/predict?${query}`, { method: "POST", body, signal }));
    for (const { log_mel } of found.predictions) if (log_mel) log_mel.data = fromBase64(log_mel.data);
    return found;
  }

  /** Hear live: feed it chunks at `samplingRate`; it calls `onHeard` about once a second, or `onHeard(null)` if it cannot. */
  listen(samplingRate, onHeard) {
    const url = new URL(`v1/stream?sampling_rate=${samplingRate}&channels=1&pcm=s16le&hop_s=1`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url);
    const waiting = [];
    socket.onopen = () => waiting.splice(0).forEach((chunk) => socket.send(chunk));
    socket.onmessage = ({ data }) => {
      const heard = JSON.parse(data);
      onHeard(heard.error ? null : heard);
    };
    socket.onerror = () => onHeard(null);
    return {
      feed: (chunk) => {
        if (socket.readyState === WebSocket.CONNECTING) waiting.push(pcm16(chunk));
        else if (socket.readyState === WebSocket.OPEN) socket.send(pcm16(chunk));
      },
      finish: () => socket.close(),
    };
  }
}

async function answered(request) {
  const response = await request.catch(() => null);
  if (!response)
    throw new Problem("The server does not answer. See whether it still runs and you are online, then try again.");
  const answer = await response.json().catch(() => ({}));
  if (!response.ok)
    throw new Problem(
      answer.error?.message ?? `The server answered with status ${response.status}. Try again, or ask who runs it.`,
    );
  return answer;
}

/** Whether the server reads such a file itself; what it does not is sent as the WAV that the browser made of it. */
function isRead(bytes) {
  const head = new Uint8Array(bytes, 0, Math.min(4, bytes.byteLength));
  const text = String.fromCharCode(...head);
  return BEGINNINGS.some((beginning) => text.startsWith(beginning)) || (head[0] === 0xff && head[1] >= 0xe0 && (head[1] & 6) !== 0); // MP3, not AAC
}

function fromBase64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}
