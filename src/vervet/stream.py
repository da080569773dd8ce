"""Live audio becomes predictions: chunks of any size in, an answer for every hop out, in constant memory.

A `Stream` is given what a microphone, a pipe or a socket delivers. Every hop it answers for the window that ends there:
the emotion with the highest probability, `uncertain` where no emotion is likely enough, or `silence` where nobody
speaks. Times are counted in samples, as integers, so that they are as good after hours as after seconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from queue import Empty, Full, Queue
from typing import BinaryIO, TextIO

import numpy as np

from vervet import audio
from vervet.predict import Predictor
from vervet.speech import GATE_DB, Gate
from vervet.terminal import bar, for_programs, printable

Chunk = np.ndarray | bytes | bytearray | memoryview

SILENCE = "silence"
UNCERTAIN = "uncertain"

# What FFmpeg calls it -> what NumPy calls it. The last two are G.711, of telephones: logarithms in 8 bits.
PCM = {"s16le": "<i2", "s32le": "<i4", "f32le": "<f4", "mulaw": "u1", "alaw": "u1"}
CONTAINERS = audio.BEGINNINGS  # no raw PCM begins so; an MP3 without a title begins as PCM may

FIRST_S = 1.0  # heard before the first answer
THRESHOLD = 0.5  # of models that were not calibrated
JITTER_S = 0.05  # a chunk that is early or late by no more than this is on time

CHUNK_S = 0.1  # that the microphone delivers at once
PATIENCE_S = 10.0  # of sound that may wait while the network is busy
DEAF_S = 5.0  # without a chunk, and the microphone is taken for gone


@dataclass(frozen=True)
class Heard:
    """What a stream hears in one window.

    Attributes
    ----------
    start_s, end_s : float
        The window, in seconds on the clock of the stream.
    label : str
        The emotion with the highest probability, or `uncertain`, or `silence`.
    scores : dict of str to float
        Probability of every emotion the model knows, in the model's order, smoothed over time; they sum to 1. Empty for
        silence.
    """

    start_s: float
    end_s: float
    label: str
    scores: dict[str, float]

    @property
    def confidence(self) -> float:
        """Highest probability, in [0, 1]; 0 for silence."""
        return max(self.scores.values(), default=0.0)


class Stream:
    """Hears chunk by chunk, and answers every hop.

    The first answer comes after 1 s, or up to a hop later, for what has been heard so far; windows grow until they are
    whole, and then move on by a hop each. Whole windows and the last one are those that a `Predictor`, called with the
    same `window_s` and `hop_s`, would cut from the whole recording, and without smoothing they have the same scores.

    Parameters
    ----------
    predictor : Predictor
        The model.
    sampling_rate : int
        Of the chunks, in Hz, 4000 to 768000.
    channels : int
        Of the chunks, 1 to 64; they are mixed to their mean.
    pcm : str
        What chunks of bytes hold: `s16le`, `s32le`, `f32le`, or G.711's `mulaw` or `alaw`; channels interleaved.
    window_s, hop_s : float, optional
        Seconds per window, at most the model's own, which is also the default; and between two answers.
    smoothing_s : float
        Half-life of what was heard before, in seconds: scores are a mean over all windows since the last silence or
        long gap, in which a window weighs half as much as one that came this much later, and the window of a last,
        shorter step less by what the step is shorter. 0 switches smoothing off.
    threshold : float, optional
        Where no score reaches this, in [0, 1], the answer is `uncertain`. 0 switches it off. The model's own where not
        given, or 0.5 if it has none.
    gate_db : float or None
        How far above the noise floor speech is, in dB. Less lets more through. None switches the gate off: only digital
        silence is `silence` then.
    adapt : bool
        Get to know the speaker: whole windows of speech, one after another, go into the answers for windows that begin
        after them. For a stream of one speaker, and a model that enrols; `predictor` is then one that knows the
        speaker so far.

    Raises
    ------
    ValueError
        If a setting is outside its range, or the stream is to adapt and the model was not trained to enrol speakers.

    Examples
    --------
    >>> import numpy as np, vervet
    >>> stream = Stream(vervet.load(), sampling_rate=44_100)
    >>> [heard.label for heard in stream.feed(np.zeros(88_200, np.int16))]
    ['silence']
    >>> stream.finish()[-1].end_s
    2.0
    """

    def __init__(
        self,
        predictor: Predictor,
        sampling_rate: int,
        *,
        channels: int = 1,
        pcm: str = "s16le",
        window_s: float | None = None,
        hop_s: float = 1.0,
        smoothing_s: float = 1.0,
        threshold: float | None = None,
        gate_db: float | None = GATE_DB,
        adapt: bool = False,
    ) -> None:
        if not 1 <= channels <= audio.MOST_CHANNELS:
            raise ValueError(f"{channels} channels: give 1 to {audio.MOST_CHANNELS}")
        if pcm not in PCM:
            raise ValueError(f"PCM format {pcm!r}: choose one of {', '.join(PCM)}")
        if not 0 <= smoothing_s < math.inf:
            raise ValueError(f"smoothing of {smoothing_s:g} s: give a half-life in seconds, or 0 for none")
        if threshold is None:
            threshold = predictor.uncertain_below if "uncertain_below" in predictor.card else THRESHOLD
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold of {threshold:g}: give a probability, 0 to 1")
        if adapt:
            predictor.check_enrols()
        window_s, self.hop_s = predictor.windowing(window_s, hop_s)
        self.predictor = predictor
        self.adapt = adapt
        self.sampling_rate = audio.checked_rate(sampling_rate, "stream")
        self.channels = channels
        self.smoothing_s = smoothing_s
        self.threshold = threshold
        self._gate = None if gate_db is None else Gate(predictor.sampling_rate, gate_db)
        self._sample = np.dtype(PCM[pcm])
        self._law = {"mulaw": _mu_law, "alaw": _a_law}[pcm]() if self._sample == np.uint8 else None
        self._window = round(window_s * predictor.sampling_rate)
        self._hop = round(self.hop_s * predictor.sampling_rate)
        self._rest = b""  # of a PCM sample that goes on in the next chunk
        self._learnt: tuple[float, np.ndarray] | None = None  # where a window of speech ends, and its statistics
        self._begin(0.0)

    @property
    def now_s(self) -> float:
        """How far the stream has heard, in seconds on its own clock, which starts at 0."""
        return self._origin_s + self._count / self.sampling_rate

    def feed(self, chunk: Chunk, at_s: float | None = None) -> list[Heard]:
        """Hear a chunk.

        Parameters
        ----------
        chunk : numpy.ndarray or bytes
            Any number of samples, none included: floating point in [-1, 1], int16 or int32, of shape (samples,) or
            (samples, channels); or bytes of PCM, which may end in the middle of a sample.
        at_s : float, optional
            When the chunk begins, on the clock of the stream; right after the one before where not given. Up to 0.05 s
            early or late is taken for on time. Of a chunk that is earlier, what was heard already is left out. Before
            one that is later there is a gap, see `gap`.

        Returns
        -------
        list of Heard
            For every hop that is now complete; often empty. Where the sampling rate has to be changed, they come a
            little later, 0.04 s from 44.1 kHz and 0.12 s from 8 kHz.

        Raises
        ------
        ValueError
            If samples are NaN, infinite, beyond full scale or of another dtype, the channels are not as many as
            promised, or the chunk is more than a hop early. Nothing of the chunk has been heard then, and the stream
            can go on.
        """
        late_s = self._late_s(at_s)
        samples, rest = self._decoded(chunk, b"" if late_s else self._rest, self.now_s + late_s)
        answers = self.gap(late_s) if late_s > 0 else []
        self._rest = rest
        return answers + self._hear(samples[round(max(0.0, -late_s) * self.sampling_rate) :])

    def gap(self, duration_s: float) -> list[Heard]:
        """Hear that a stretch of sound was lost.

        A gap of up to a hop is filled with zeros. After a longer one all begins anew: what was heard before it is
        answered as at the end of the input, and window and smoothing forget it. The noise floor is kept. What comes
        after a gap begins with a whole sample.

        Parameters
        ----------
        duration_s : float
            In seconds.

        Returns
        -------
        list of Heard
            For every hop that is now complete.

        Raises
        ------
        ValueError
            If the duration is negative, infinite or NaN.
        """
        if not 0 <= duration_s < math.inf:
            raise ValueError(f"gap of {duration_s} s: give a duration in seconds, 0 or more")
        self._rest = b""
        if duration_s <= self.hop_s:
            return self._hear(np.zeros(round(duration_s * self.sampling_rate), np.float32))
        answers = self._end()
        self._begin(self.now_s + duration_s)
        return answers

    def finish(self) -> list[Heard]:
        """Hear that the input has ended.

        Whatever is fed afterwards begins anew, as after a gap.

        Returns
        -------
        list of Heard
            For what is left, if that is 0.1 s or more: the window that the next answer would have been for, as far as
            it was heard.

        Raises
        ------
        ValueError
            If the bytes of PCM end in the middle of a sample. Calling it again leaves these bytes out.
        """
        if self._rest:
            odd, self._rest = len(self._rest), b""
            raise ValueError(
                f"the input ends {odd} bytes into a sample of {self._sample.itemsize * self.channels}: it was cut, "
                "or its PCM format or number of channels is another one; correct them"
            )
        return self._end()

    def listen(self, chunks: Iterable[tuple[Chunk, float | None]]) -> Iterator[Heard]:
        """Feed all chunks, then finish.

        Parameters
        ----------
        chunks : iterable of (chunk, at_s)
            As for `feed`.

        Yields
        ------
        Heard
            As soon as there is one.

        Raises
        ------
        ValueError
            As by `feed` and `finish`; in the end, after the last answer.
        """
        for chunk, at_s in chunks:
            yield from self.feed(chunk, at_s)
        try:
            yield from self.finish()
        except ValueError:
            yield from self.finish()  # which leaves out the bytes that are no sample
            raise

    def _begin(self, origin_s: float) -> None:
        """Start a stretch of unbroken sound."""
        self._origin_s = origin_s
        self._count = 0  # samples since then
        self._answered_s = origin_s
        self._forget()
        # windows start whole hops before 0, as long as FIRST_S of them lie behind it
        rate = self.predictor.sampling_rate
        before = max(0, self._window - round(FIRST_S * rate)) // self._hop * self._hop
        self._cutter = audio.Cutter(self.sampling_rate, rate, self._window, self._hop, -before)

    def _end(self) -> list[Heard]:
        """Answer for what is left of a stretch, and start the next one."""
        long_enough = self._count >= int(audio.SHORTEST_S * self.sampling_rate)
        answers = [self._answer(*window) for window in self._cutter.finish()] if long_enough else []
        self._know()
        self._begin(self.now_s)
        return answers

    def _late_s(self, at_s: float | None) -> float:
        """How late a chunk is; negative where it is early, 0 where it is on time."""
        if at_s is None:
            return 0.0
        late_s = at_s - self.now_s
        if not -max(self.hop_s, JITTER_S) <= late_s < math.inf:
            raise ValueError(
                f"chunk at {at_s:g} s, but {self.now_s:g} s have been heard: give chunks in order of time, "
                "or start a new Stream"
            )
        return late_s if abs(late_s) > JITTER_S else 0.0

    def _decoded(self, chunk: Chunk, rest: bytes, at_s: float) -> tuple[np.ndarray, bytes]:
        """Samples of a chunk, (samples,) float32, and the bytes that are no whole sample yet."""
        if isinstance(chunk, np.ndarray):
            if chunk.shape[1:] != (self.channels,) and (chunk.ndim != 1 or self.channels != 1):
                raise ValueError(
                    f"chunk of shape {chunk.shape}, but the stream has channels={self.channels}: give "
                    f"{'(samples,)' if self.channels == 1 else f'(samples, {self.channels})'}, or start another Stream"
                )
            if rest:
                raise ValueError(
                    "an array after half a sample of PCM: give the rest of the bytes first, or call gap(0)"
                )
            samples = chunk
        elif isinstance(chunk, bytes | bytearray | memoryview):
            data = rest + bytes(chunk)
            whole = len(data) - len(data) % (self._sample.itemsize * self.channels)
            samples, rest = np.frombuffer(data[:whole], self._sample).reshape(-1, self.channels), data[whole:]
            samples = samples if self._law is None else self._law[samples]
        else:
            raise ValueError(f"chunk of type {type(chunk).__name__}: give a NumPy array, or bytes of PCM")
        return audio.mono(samples, self.sampling_rate, "stream", round(at_s * self.sampling_rate)), rest

    def _hear(self, samples: np.ndarray) -> list[Heard]:
        answers = []
        for start in range(0, len(samples), audio.BLOCK):
            block = samples[start : start + audio.BLOCK]
            self._count += len(block)
            answers += [self._answer(*window) for window in self._cutter.feed(block)]
        return answers

    def _answer(self, start: int, waveform: np.ndarray) -> Heard:
        """Judge the window that begins `start` samples, at the model's rate, into the stretch."""
        rate = self.predictor.sampling_rate
        start_s = self._origin_s + max(0, start) / rate
        end_s = min(self._origin_s + (start + self._window) / rate, self.now_s)
        elapsed_s, self._answered_s = end_s - self._answered_s, end_s
        times = round(start_s, 6), round(end_s, 6)
        if not self._is_speech(waveform, elapsed_s):
            self._forget()
            return Heard(*times, SILENCE, {})
        if self.adapt:
            self._meet(start, waveform, *times)
        scores = self.predictor.probabilities([waveform])[0]
        if self.smoothing_s:
            scores = self._smoothed(scores, elapsed_s)
        best = int(scores.argmax())
        label = self.predictor.labels[best] if scores[best] >= self.threshold else UNCERTAIN
        return Heard(*times, label, dict(zip(self.predictor.labels, map(float, scores), strict=True)))

    def _forget(self) -> None:
        self._mean, self._weight = np.zeros(len(self.predictor.labels)), 0.0  # the smoothed scores, and what they count

    def _smoothed(self, scores: np.ndarray, elapsed_s: float) -> np.ndarray:
        fading = 0.5 ** (elapsed_s / self.smoothing_s)
        step_s = min(elapsed_s, self.hop_s) if self._weight else self.hop_s  # the first weighs as one of a whole step
        own = max(-math.expm1(-math.log(2) * step_s / self.smoothing_s), 1e-300)
        self._weight = fading * self._weight + own
        self._mean = self._mean + own / self._weight * (scores - self._mean)
        return self._mean

    def _meet(self, start: int, waveform: np.ndarray, start_s: float, end_s: float) -> None:
        """Know the speaker from whole windows of speech that follow one another and end before this one begins."""
        if self._learnt is not None and self._learnt[0] <= start_s:
            self._know()
        if self._learnt is None and start >= 0 and len(waveform) == self._window:
            self._learnt = end_s, self.predictor.run([waveform], ("statistics",))["statistics"][0]

    def _know(self) -> None:
        """Let what was learnt last go into all that is answered from here on."""
        if self._learnt is not None:
            self.predictor, self._learnt = self.predictor.knowing(self._learnt[1]), None

    def _is_speech(self, waveform: np.ndarray, elapsed_s: float) -> bool:
        return self._gate.lets_through(waveform, elapsed_s) if self._gate else not audio.is_silent(waveform)


# --- where sound comes from


def _mu_law() -> np.ndarray:
    """What each byte of G.711 mu-law stands for: (256,) int16."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4 & 7).astype(int), (code & 15).astype(int)
    magnitude = (8 * mantissa + 132 << exponent) - 132
    return np.where(code & 128, -magnitude, magnitude).astype(np.int16)


def _a_law() -> np.ndarray:
    """What each byte of G.711 A-law stands for: (256,) int16."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = (code >> 4 & 7).astype(int), (code & 15).astype(int)
    magnitude = np.where(exponent > 0, 16 * mantissa + 264 << np.maximum(exponent - 1, 0), 16 * mantissa + 8)
    return np.where(code & 128, magnitude, -magnitude).astype(np.int16)


def pcm_chunks(source: BinaryIO) -> Iterator[tuple[bytes, None]]:
    """Read raw PCM as it arrives.

    Parameters
    ----------
    source : binary file
        A pipe, or standard input; buffered, so that it has `read1`.

    Yields
    ------
    chunk : bytes
        What there is, without waiting for more.
    at_s : None
        A pipe tells no time.

    Raises
    ------
    ValueError
        If it begins like a file that is no raw PCM, or nothing comes.
    """
    begun = False
    while chunk := source.read1(audio.BLOCK):  # pyright: ignore[reportAttributeAccessIssue]
        if not begun and chunk.startswith(CONTAINERS):
            raise ValueError("the input is an audio file, not raw PCM: give it to 'vervet predict', or decode it first")
        begun = True
        yield chunk, None
    if not begun:
        raise ValueError("the input ended before it began: see what the program before the pipe says")


def microphone(
    device: int | str | None = None, sampling_rate: int | None = None, channels: int = 1
) -> tuple[int, Iterator[tuple[np.ndarray, float]]]:
    """Open a microphone.

    Parameters
    ----------
    device : int or str, optional
        Its number, as an integer or as text, or part of its name; the system's default where not given.
    sampling_rate : int, optional
        In Hz; the device's own where not given.
    channels : int
        Some devices only open with as many as they have.

    Returns
    -------
    sampling_rate : int
        In Hz.
    chunks : iterator of (chunk, at_s)
        For `Stream.listen`; chunks are (samples, channels) float32. Recording begins when the first one is asked for.
        If the listener falls 10 s behind, sound is lost, which shows as a gap in `at_s`.

    Raises
    ------
    ModuleNotFoundError
        If sounddevice is not installed; it comes with `pip install 'vervet[mic]'`.
    OSError
        If sounddevice does not find the PortAudio library, or the microphone stops to deliver.
    ValueError
        If there is no such device, or it does not open like this.
    """
    try:
        import sounddevice  # pyright: ignore[reportMissingImports]
    except OSError as error:  # so it says that there is no PortAudio
        raise OSError(f"{error}; install it (on Debian and Ubuntu: apt install libportaudio2)") from error
    waiting: Queue[tuple[np.ndarray, float]] = Queue(round(PATIENCE_S / CHUNK_S))
    count = 0

    # The overflow flag of `status` is left alone: it tells no duration, and on macOS it is set for nothing.
    def hear(block: np.ndarray, frames: int, time: object, status: object) -> None:
        nonlocal count
        with suppress(Full):
            waiting.put_nowait((block.copy(), count / rate))
        count += frames

    try:
        if isinstance(device, str) and device.isdecimal():
            device = int(device)
        own_rate = sounddevice.query_devices(device, "input")["default_samplerate"]
        rate = int(own_rate if sampling_rate is None else sampling_rate)
        opened = sounddevice.InputStream(rate, round(CHUNK_S * rate), device, channels, "float32", callback=hear)
    except (sounddevice.PortAudioError, ValueError) as error:
        raise ValueError(
            f"no microphone: {error}; connect one, allow the terminal to use it, or choose another device, rate or "
            "number of channels ('python -m sounddevice' lists devices)"
        ) from error

    def chunks() -> Iterator[tuple[np.ndarray, float]]:
        with opened:
            while True:
                try:
                    yield waiting.get(timeout=DEAF_S)
                except Empty:
                    raise OSError(
                        f"the microphone has delivered nothing for {DEAF_S:g} s; see whether it is still connected"
                    ) from None

    return rate, chunks()


# --- answers -> text


def to_json(heard: Heard) -> str:
    """Write an answer as one line of JSON.

    Parameters
    ----------
    heard : Heard
        From a `Stream`.

    Returns
    -------
    str
        `{"start_s", "end_s", "label", "scores": {emotion: probability}}`; `scores` is empty for silence.
    """
    return json.dumps(asdict(heard), ensure_ascii=False)


def to_text(heard: Heard) -> str:
    """Write an answer as one line for people.

    Parameters
    ----------
    heard : Heard
        From a `Stream`.

    Returns
    -------
    str
        The end of the window as h:mm:ss.s, the label and, but for silence, the confidence as a bar.

    Examples
    --------
    >>> to_text(Heard(3596.0, 3600.0, "anger", {"anger": 0.75, "fear": 0.25}))
    '1:00:00.0  anger      ████████████       75%'
    """
    tenths = round(heard.end_s * 10)
    clock = f"{tenths // 36_000}:{tenths // 600 % 60:02}:{tenths % 600 / 10:04.1f}"
    if heard.label == SILENCE:
        return f"{clock}  {SILENCE}"
    return f"{clock}  {heard.label:9}  {bar(heard.confidence):16} {heard.confidence:5.0%}"


FORMATS = {"text": to_text, "json": to_json}


def show(answers: Iterable[Heard], format: str, out: TextIO) -> None:
    """Print answers as they come.

    On a terminal a line of text is redrawn while the label stays the same, so that what remains on the screen is one
    line for every change.

    Parameters
    ----------
    answers : iterable of Heard
        From `Stream.listen`.
    format : str
        `text` or `json`, one object per line.
    out : text file
        Flushed after every answer.
    """
    redraw = format == "text" and out.isatty()
    if format == "json":
        for_programs(out)
    label = ""
    try:
        for heard in answers:
            line = printable(FORMATS[format](heard), out.encoding)
            if redraw:
                out.write(("\r" if heard.label == label else "\n" if label else "") + line)
            else:
                out.write(line + "\n")
            out.flush()
            label = heard.label
    finally:
        if redraw and label:
            out.write("\n")
