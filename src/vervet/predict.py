"""A recording becomes predictions. ONNX Runtime is all it takes; torch is never imported.

A recording longer than the model's window is answered window by window. A window of digital silence has no answer: it
is named as a problem, and the other windows are answered. Windows in which nobody speaks are left out if asked for. A
recording in which any sample is unreadable or not a number has no answer at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import chain, filterfalse, islice
from numbers import Number
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime

from vervet import audio, hub
from vervet.emotions import RESERVED
from vervet.speech import Pauses
from vervet.terminal import one_line

BATCH = 16  # windows in one run of the network; bounds the memory, however long the recording
LONGEST_HOP_S = 86_400.0
NAN = "the model returned NaN; its weights are damaged, export it again"
SHIPPED = resources.files("vervet") / "weights"

Judge = Callable[[list[audio.Window]], list["Prediction"]]
Spread = Callable[[Judge, Iterable[list[audio.Window]]], Iterable[list["Prediction"]]]


@dataclass(frozen=True)
class Prediction:
    """What the model hears in one window.

    Attributes
    ----------
    file : str
        The recording; `<bytes>` or `<array>` for one that is no file.
    start_s, end_s : float
        The window, in seconds from the start of the recording; never beyond its end.
    label : str
        The emotion with the highest probability.
    scores : dict of str to float
        Probability of every emotion the model knows, in the model's order; they sum to 1.
    uncertain : bool
        The confidence lies below the model's own threshold, chosen on validation clips: the label is then more likely
        wrong than right. Never true of a model without such a threshold.
    """

    file: str
    start_s: float
    end_s: float
    label: str
    scores: dict[str, float]
    uncertain: bool = False

    def ranked(self) -> list[dict[str, str | float]]:
        """List the emotions, the most probable first, as the audio classifiers of Hugging Face do.

        Returns
        -------
        list of dict
            `label` and `score`, its probability in [0, 1].
        """
        by_score = sorted(self.scores.items(), key=lambda entry: -entry[1])
        return [{"label": label, "score": score} for label, score in by_score]

    def best_of(self, labels: Iterable[str]) -> str:
        """Choose the most probable of some emotions.

        Parameters
        ----------
        labels : iterable of str
            Emotions that the model knows; of equally probable ones the first is taken.

        Returns
        -------
        str
            One of them.
        """
        return max(labels, key=self.scores.__getitem__)

    @property
    def confidence(self) -> float:
        """Probability of the label, in [0, 1]."""
        return self.scores[self.label]

    def to_dict(self) -> dict[str, Any]:
        """Write it as plain data, for JSON.

        Returns
        -------
        dict
            `file`, `start_s`, `end_s`, `label`, `confidence`, `uncertain` and `scores`.
        """
        return {
            "file": self.file,
            "start_s": self.start_s,
            "end_s": self.end_s,
            "label": self.label,
            "confidence": self.confidence,
            "uncertain": self.uncertain,
            "scores": self.scores,
        }


class Predictor:
    """An exported model, ready to be called with recordings.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        The network. It takes `waveform` and returns `logits`; pictures also need `attention` and `log_mel`.
    card : dict
        The model's metadata: `labels`, `sampling_rate` (Hz), `duration_s`, `network`, `protocol`, `leaky`, `corpora`,
        `band_hz`, `uncertain_below` and what else the export wrote.
    digest : str
        SHA-256 of the model's file, in hexadecimal digits; tells it from all other models.
    speaker : numpy.ndarray, optional
        (3, values) float32, what `enroll` has summed up of a speaker; nothing is known of the speaker where not given.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        card: dict[str, Any],
        digest: str,
        speaker: np.ndarray | None = None,
    ) -> None:
        self._session = session
        inputs = session.get_inputs()
        self.enrols = len(inputs) > 1  # whether the model takes what is known of a speaker
        stranger = np.zeros(inputs[1].shape[1:] if self.enrols else 0, np.float32)
        self._speaker = stranger if speaker is None else speaker
        self.card = card
        self.digest = digest
        self.labels: tuple[str, ...] = tuple(card["labels"])
        self.sampling_rate: int = card["sampling_rate"]
        self.duration_s: float = card["duration_s"]
        self.band_hz: tuple[float, float] = tuple(card.get("band_hz", (0.0, self.sampling_rate / 2)))
        self.uncertain_below: float = card.get("uncertain_below", 0.0)

    def __call__(
        self,
        source: audio.Sound,
        *,
        window_s: float | None = None,
        hop_s: float | None = None,
        speech_only: bool = False,
    ) -> list[Prediction]:
        """Predict the emotion in one recording, window by window.

        Parameters
        ----------
        source : path, bytes, binary file, (waveform, sampling_rate), or vervet.Part
            As for `vervet.audio.read`.
        window_s, hop_s : float, optional
            Seconds per window, at most the model's own, and between two windows; the model's window and the window
            where not given.
        speech_only : bool, optional
            Leave out all windows in which nobody speaks, as `vervet.speech.Gate` hears it, and not only silent ones.

        Returns
        -------
        list of Prediction
            In order of time. Silent windows are left out, with a warning that names them.

        Raises
        ------
        ValueError
            If this is no recording, or one that cannot be read, holds NaN, is silent throughout or shorter than 0.1 s,
            or the window is longer than the model's; with `speech_only`, if nobody speaks in it.
        """
        source = _sound(source)
        windowing = self.windowing(window_s, hop_s)
        predictions, problem = self.hear(source, *windowing, audio.name_of(source), speech_only=speech_only)
        if not predictions:
            raise ValueError(problem)
        if problem:
            warnings.warn(problem, stacklevel=2)
        return predictions

    def hear(
        self,
        source: audio.Sound,
        window_s: float,
        hop_s: float,
        file: str,
        speech_only: bool = False,
        batch: int = BATCH,
        spread: Spread = map,
    ) -> tuple[list[Prediction], str]:
        """Predict the emotion in one recording or a part of it, and say where it is silent.

        Parameters
        ----------
        source : path, bytes, binary file, (waveform, sampling_rate), or vervet.Part
            As for `vervet.audio.read`.
        window_s, hop_s : float
            In seconds, from `windowing`.
        file : str
            The name that the predictions bear.
        speech_only : bool
            As for `__call__`.
        batch : int
            Windows in one run of the network.
        spread : callable
            As the built-in `map`: applies a function to batches of windows and gives what it returns, in order. It may
            work ahead on other threads, and so bounds how many windows are held at a time.

        Returns
        -------
        predictions : list of Prediction
            In order of time.
        problem : str
            Names the silent stretches, or says that nobody speaks; else empty.

        Raises
        ------
        ValueError
            If the recording cannot be read, holds NaN or is shorter than 0.1 s.
        """
        source = _sound(source)
        pauses = Pauses(self.sampling_rate, speech_only)
        windows = audio.windows(source, self.sampling_rate, window_s, hop_s)
        sounding = filterfalse(pauses.skip, windows)
        batches = iter(lambda: list(islice(sounding, batch)), [])
        heard = list(chain.from_iterable(spread(partial(self.judge, file), batches)))
        return heard, pauses.problem(audio.full_name_of(source), bool(heard))

    def enroll(self, sources: Iterable[audio.Sound], *, speech_only: bool = False) -> Predictor:
        """Get to know a speaker from recordings of any emotion, which need not be known.

        Parameters
        ----------
        sources : iterable of path, bytes, binary file, (waveform, sampling_rate), or vervet.Part
            Recordings of this speaker alone, best in the same room and by the same microphone as those to come. Silent
            windows do not count.
        speech_only : bool, optional
            As for `__call__`: windows in which nobody speaks do not count either.

        Returns
        -------
        Predictor
            One for this speaker, which knows what this one knows and these recordings. It shares the network.

        Raises
        ------
        ValueError
            If these are not several recordings, the model was not trained to enrol speakers, a recording cannot be
            read, or all is silent.
        """
        if is_one(sources):
            raise ValueError(f"{sources!r:.40}: enroll takes several recordings; give a list of them, even of one")
        self.check_enrols()
        found = (self.statistics(source, speech_only=speech_only) for source in sources)
        total = sum(found, np.zeros_like(self._speaker))
        if not total[2].any():
            raise ValueError("nothing to enrol: there is no recording, or all are silent or without speech")
        return self.knowing(total)

    def knowing(self, statistics: np.ndarray) -> Predictor:
        """Make a predictor that knows more of a speaker.

        Parameters
        ----------
        statistics : numpy.ndarray
            (3, values) float32, of one or several recordings: the sum of what `statistics` gives, of the same model.

        Returns
        -------
        Predictor
            Knows what this one knows, and these. It shares the network.

        Raises
        ------
        ValueError
            If that is nothing that this model's `statistics` gives.
        """
        statistics = np.asarray(statistics)
        if statistics.shape != self._speaker.shape or not np.isfinite(statistics).all():
            raise ValueError(
                f"{statistics!r:.60}: this model takes finite statistics of shape {self._speaker.shape}; give the sum "
                "of what its own `statistics` says of recordings"
            )
        return Predictor(self._session, self.card, self.digest, (self._speaker + statistics).astype(np.float32))

    def statistics(self, source: audio.Sound, *, speech_only: bool = False) -> np.ndarray:
        """Sum up what one recording says of its speaker; the sums of several recordings may be added.

        Parameters
        ----------
        source : path, bytes, binary file, (waveform, sampling_rate), or vervet.Part
            As for `vervet.audio.read`.
        speech_only : bool, optional
            As for `__call__`.

        Returns
        -------
        numpy.ndarray
            (3, values) float32: the sum, the sum of squares and the number, of each Mel band over columns with sound,
            then of each functional, if the model has a second head, over windows; 0 where there is nothing to hear.

        Raises
        ------
        ValueError
            If the model was not trained to enrol speakers, or the recording cannot be read.
        """
        self.check_enrols()
        source = _sound(source)
        windows = audio.windows(source, self.sampling_rate, self.duration_s, self.duration_s)
        total = np.zeros_like(self._speaker)
        for window in filterfalse(Pauses(self.sampling_rate, speech_only).skip, windows):
            total = total + self.run([window.waveform], ("statistics",))["statistics"][0]
        if not np.isfinite(total).all():
            raise ValueError(f"{audio.full_name_of(source)}: {NAN}")
        return total

    def check_enrols(self) -> None:
        """Raise a `ValueError` unless the model takes what is known of a speaker."""
        if not self.enrols:
            raise ValueError("this model was not trained to enrol speakers; its recipe needs student.enrol")

    def embed(self, source: audio.Sound) -> np.ndarray:
        """Give the feature of one recording, that which the network's last layer reads.

        Parameters
        ----------
        source : path, bytes, binary file, (waveform, sampling_rate), or vervet.Part
            As for `vervet.audio.read`.

        Returns
        -------
        numpy.ndarray
            (features,) float32: of a recording longer than the model's window the mean over its windows, each weighted
            by its duration. Silent windows are left out, with a warning that names them.

        Raises
        ------
        ValueError
            As for `__call__`, and if the model gives no features.
        """
        source = _sound(source)
        pauses = Pauses(self.sampling_rate)
        total, heard_s = np.zeros(self.features), 0.0
        windows = audio.windows(source, self.sampling_rate, self.duration_s, self.duration_s)
        for window in filterfalse(pauses.skip, windows):
            duration_s = window.end_s - window.start_s
            total += duration_s * self.run([window.waveform], ("embedding",))["embedding"][0]
            heard_s += duration_s
        name = audio.full_name_of(source)
        problem = pauses.problem(name, bool(heard_s))
        if not heard_s:
            raise ValueError(problem)
        if not np.isfinite(total).all():
            raise ValueError(f"{name}: {NAN}")
        if problem:
            warnings.warn(problem, stacklevel=2)
        return (total / heard_s).astype(np.float32)

    @property
    def features(self) -> int:
        """Size of what `embed` gives; 256 of the shipped model."""
        shapes = {output.name: output.shape for output in self._session.get_outputs()}
        if "embedding" not in shapes:
            raise ValueError("this model has no output embedding; export it again")
        return shapes["embedding"][1]

    def judge(self, file: str, windows: Sequence[audio.Window]) -> list[Prediction]:
        """Predict the emotion in windows that have been cut already, in one run of the network.

        Parameters
        ----------
        file : str
            The name that the predictions bear.
        windows : sequence of vervet.audio.Window
            None of them silent; the shorter ones cost as much as the longest.

        Returns
        -------
        list of Prediction
            One for each window, in their order.

        Raises
        ------
        ValueError
            If the network returns NaN.
        """
        try:
            rows = self.probabilities([window.waveform for window in windows])
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        return [
            self._prediction(file, round(window.start_s, 6), round(window.end_s, 6), row)
            for window, row in zip(windows, rows, strict=True)
        ]

    def whole(self, predictions: Sequence[Prediction]) -> Prediction:
        """Sum up what was answered about the windows of one recording.

        Parameters
        ----------
        predictions : sequence of Prediction
            What calling the predictor with the recording has returned.

        Returns
        -------
        Prediction
            From the start of the first window to the end of the last. Its scores are the mean of theirs, in which each
            counts as long as it is; silent windows have none.

        Raises
        ------
        ValueError
            If there are none.
        """
        if not predictions:
            raise ValueError("no windows to sum up: nothing was answered")
        rows = [list(one.scores.values()) for one in predictions]
        mean = np.average(rows, axis=0, weights=[one.end_s - one.start_s for one in predictions])
        return self._prediction(predictions[0].file, predictions[0].start_s, predictions[-1].end_s, mean)

    def _prediction(self, file: str, start_s: float, end_s: float, probabilities: np.ndarray) -> Prediction:
        label = self.labels[int(probabilities.argmax())]
        scores = dict(zip(self.labels, map(float, probabilities), strict=True))
        return Prediction(file, start_s, end_s, label, scores, scores[label] < self.uncertain_below)

    def windowing(self, window_s: float | None, hop_s: float | None) -> tuple[float, float]:
        """Fill in and check the lengths of window and hop.

        Parameters
        ----------
        window_s, hop_s : float, optional
            In seconds.

        Returns
        -------
        window_s, hop_s : float
            In seconds.

        Raises
        ------
        ValueError
            If the window is longer than the model's or shorter than 0.1 s, or the hop is shorter than a millisecond or
            longer than a day.
        """
        window_s = self.duration_s if window_s is None else window_s
        hop_s = window_s if hop_s is None else hop_s
        if not audio.SHORTEST_S <= window_s <= self.duration_s:
            raise ValueError(
                f"window of {window_s:g} s: this model hears {self.duration_s:g} s at once; "
                f"choose {audio.SHORTEST_S:g} to {self.duration_s:g} s"
            )
        if not 0.001 <= hop_s <= LONGEST_HOP_S:
            raise ValueError(f"hop of {hop_s:g} s: choose at least 0.001 s, at most {LONGEST_HOP_S:.0f} s")
        return window_s, hop_s

    def run(self, waveforms: Sequence[np.ndarray], outputs: Sequence[str] = ("logits",)) -> dict[str, np.ndarray]:
        """Run the network, computing only what is asked for.

        Parameters
        ----------
        waveforms : sequence of numpy.ndarray
            Each (samples,) float32 in [-1, 1] at the model's sampling rate; padded or cut to the model's window, or to
            what the longest needs, if the model says that it answers the same for that.
        outputs : sequence of str
            Of `logits` (batch, classes), `embedding` (batch, features), `attention` (batch, patches side by side),
            `log_mel` (batch, n_mels, width) in [0, 1], and of a model that enrols `statistics` (batch, 3, values).

        Returns
        -------
        dict of str to numpy.ndarray
            float32, by name of output.

        Raises
        ------
        ValueError
            If the model has no such output.
        """
        known = [output.name for output in self._session.get_outputs()]
        if missing := [name for name in outputs if name not in known]:
            raise ValueError(f"this model has no output {', '.join(missing)}, only {', '.join(known)}; export it again")
        samples = self._samples(max(map(len, waveforms)))
        batch = np.stack([audio.fit(waveform, samples) for waveform in waveforms]).astype(np.float32)
        feeds = {"waveform": batch}
        if self.enrols:
            feeds["speaker"] = np.broadcast_to(self._speaker, (len(batch), *self._speaker.shape))
        values: Sequence[Any] = self._session.run(list(outputs), feeds)
        return dict(zip(outputs, values, strict=True))

    def _samples(self, longest: int) -> int:
        """How many samples to give to the network, for waveforms of at most so many."""
        whole = round(self.sampling_rate * self.duration_s)
        if "step_samples" not in self.card:
            return whole
        step = self.card["step_samples"]
        needed = max(self.card["least_samples"], longest + self.card["tail_samples"])
        return min(whole, -(-needed // step) * step)

    def probabilities(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Probability of every emotion, for waveforms that are already cut and checked.

        Parameters
        ----------
        waveforms : sequence of numpy.ndarray
            As for `run`.

        Returns
        -------
        numpy.ndarray
            (batch, classes) float64 in [0, 1]; rows sum to 1.

        Raises
        ------
        ValueError
            If the network returns NaN.
        """
        logits = self.run(waveforms)["logits"].astype(np.float64)
        if not np.isfinite(logits).all():
            raise ValueError(NAN)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)


def load(model: str | Path | None = None, *, threads: int | None = None) -> Predictor:
    """Load a model that predicts emotions.

    Parameters
    ----------
    model : str or pathlib.Path, optional
        An exported `.onnx` file, a folder that holds `model.onnx`, such as a run, `owner/model` or
        `owner/model@revision` of the Hugging Face Hub (extra `hub`), or the name of a shipped model; the shipped
        default where not given.
    threads : int, optional
        CPU threads of one run of the network; as many as there are cores where not given.

    Returns
    -------
    Predictor
        Called with a recording, it returns a list of `Prediction`.

    Raises
    ------
    ValueError
        If there is no such model, or it is not a Vervet model.
    """
    return open_model(*find_model(model), threads)


def open_model(name: str, content: bytes, threads: int | None = None) -> Predictor:
    """Make a predictor of a model that has been read.

    Parameters
    ----------
    name : str
        Of the model, for messages.
    content : bytes
        Of its file.
    threads : int, optional
        As for `load`.

    Returns
    -------
    Predictor
        Called with a recording, it returns a list of `Prediction`.

    Raises
    ------
    ValueError
        If it is not a Vervet model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # 0 is its word for all cores
    options.log_severity_level = 3  # errors; what it warns of is not in the user's hands
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    # its errors have no common base below Exception
    except Exception as error:
        raise ValueError(f"{name}: not an ONNX model that can be run ({error}); export it again") from error
    return Predictor(session, _card(session, name), hashlib.sha256(content).hexdigest())


def shipped_model(model: str | Path | None = None) -> Traversable | None:
    """The file of a model that comes with Vervet; None where a name is that of something else."""
    name = "default" if model is None else str(model)
    path, shipped = Path(name), SHIPPED / f"{name}.onnx"
    if path.name != name or not shipped.is_file():
        return None
    # a folder of that name may hold anything, such as recordings
    is_ours = any((path / name).is_file() for name in ("model.onnx", "model.json", "run.json"))
    return None if model is not None and is_ours else shipped


def find_model(model: str | Path | None = None) -> tuple[str, bytes]:
    """Find and read a model's file.

    Parameters
    ----------
    model : str or pathlib.Path, optional
        As for `load`.

    Returns
    -------
    name : str
        Where it was found.
    content : bytes
        For `open_model`.

    Raises
    ------
    ValueError
        If there is no such model.
    """
    if shipped := shipped_model(model):
        return str(shipped), shipped.read_bytes()
    model = "default" if model is None else model
    path = Path(model)
    if path.is_dir() and not (path / "model.onnx").is_file():
        command = f"vervet export {path} --out {path / 'model.onnx'}"
        raise ValueError(f"{path}: holds no model.onnx; let its training end, or export it: {command}")
    if path.is_dir():
        path = path / "model.onnx"
    if path.is_file():
        return str(path), path.read_bytes()
    # where the owner is the name of a folder here, it is a path that was misspelt: nobody else should hear of it
    if isinstance(model, str) and hub.is_name(model) and not path.parent.is_dir():
        return model, hub.fetch(model).read_bytes()
    names = sorted(entry.name.removesuffix(".onnx") for entry in SHIPPED.iterdir() if entry.name.endswith(".onnx"))
    raise ValueError(
        f"{model}: no such model; give an .onnx file, a run folder, OWNER/MODEL of the Hugging Face Hub, or a shipped "
        f"model (this installation has {', '.join(names) or 'none: install it again'})"
    )


def _card(session: onnxruntime.InferenceSession, name: str) -> dict[str, Any]:
    """Metadata of a model, checked as far as prediction relies on them."""
    try:
        card = json.loads(session.get_modelmeta().custom_metadata_map["vervet"])
        labels, rate, duration_s = card["labels"], card["sampling_rate"], card["duration_s"]
        (waveform, *speaker), outputs = session.get_inputs(), {node.name: node.shape for node in session.get_outputs()}
        agree = (
            isinstance(labels, list)
            and len(labels) > 0
            and all(isinstance(label, str) and label == one_line(label) for label in labels)
            and len({*labels} - {*RESERVED, ""}) == len(labels)
            and isinstance(rate, int)
            and min(rate, duration_s) > 0
            and 0 <= card.get("uncertain_below", 0) <= 1
            and waveform.name == "waveform"
            and [node.name for node in speaker] in ([], ["speaker"])
            # a size that the network leaves open is a string
            and waveform.shape[1] in (round(rate * duration_s), str(waveform.shape[1]))
            and outputs["logits"][1] in (len(labels), str(outputs["logits"][1]))
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: not a Vervet model, its metadata is missing or damaged; export it again") from error
    if not agree:
        raise ValueError(f"{name}: not a Vervet model, its metadata and its network disagree; export it again")
    return card


def is_one(sources: object) -> bool:
    """Tell one recording from several.

    Parameters
    ----------
    sources : object
        A recording, or an iterable of recordings.

    Returns
    -------
    bool
        Whether it is one, or at least not several. A tuple is a pair of waveform and sampling rate if it begins with an
        array or ends in a number.
    """
    if isinstance(sources, tuple):
        return len(sources) == 2 and (isinstance(sources[0], np.ndarray) or isinstance(sources[1], Number))
    if isinstance(sources, np.ndarray) and sources.dtype.kind in "OUS":  # of names
        return False
    one = isinstance(sources, str | os.PathLike | bytes | bytearray | memoryview | np.ndarray)
    return one or hasattr(sources, "read") or not isinstance(sources, Iterable)


def _sound(source: Any) -> audio.Sound:
    """Refuse what is no recording at all; what takes the place of bytes becomes bytes."""
    if isinstance(source, audio.Part):
        return replace(source, sound=_sound(source.sound))
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if isinstance(source, tuple):
        rate = np.asarray(source[1]) if len(source) == 2 else np.empty(0)
        if rate.ndim or rate.dtype.kind not in "iuf":
            raise ValueError(
                f"{audio.name_of(source)}: give a pair (waveform, sampling_rate), the rate a number of Hz such as 16000"
            )
    elif not isinstance(source, str | os.PathLike | bytes | np.ndarray) and not hasattr(source, "read"):
        raise ValueError(
            f"{source!r:.40}: is no recording; give a path, the bytes of a file, an open binary file, "
            "a pair (waveform, sampling_rate), or a vervet.Part of one of these"
        )
    return cast(audio.Sound, source)
