"""Files, arrays and tables become predictions. ONNX Runtime is all it takes; torch is never imported.

A recording longer than the model's window is answered window by window. A window of digital silence has no answer: it
is named as a problem, and the other windows are answered. A recording in which any sample is unreadable or not a number
has no answer at all.
"""

from __future__ import annotations

import csv
import glob
import io
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tqdm import tqdm

from vervet import audio
from vervet.corpora import AUDIO_SUFFIXES
from vervet.emotions import canonical

BATCH = 16  # windows in one run of the network; bounds the memory, whatever the number of files
SHIPPED = resources.files("vervet") / "weights"
TABLE_COLUMNS = 100  # characters, of the terminal table
BAR = 16  # characters, of a confidence of 1


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
    """

    file: str
    start_s: float
    end_s: float
    label: str
    scores: dict[str, float]

    @property
    def confidence(self) -> float:
        """Probability of the label, in [0, 1]; as sure as the model says it is, which is not how often it is right."""
        return self.scores[self.label]


@dataclass(frozen=True)
class Item:
    """One recording to answer, or one segment of it."""

    path: Path
    file: str  # as the user named it
    start_s: float = 0.0
    end_s: float | None = None  # None: the end of the recording
    columns: dict[str, str] = field(default_factory=dict)  # of its table, but for `file`

    @property
    def truth(self) -> str:
        """The true emotion where its table has an `emotion` column, canonical where the name is known; else empty."""
        named = self.columns.get("emotion", "").strip()
        try:
            return canonical(named)
        except ValueError:
            return named


@dataclass(frozen=True)
class Answer:
    """The predictions for one item, and what of it has none."""

    item: Item
    predictions: list[Prediction]
    problem: str = ""  # names the file, what was wrong and what to do; empty if all was well


class Predictor:
    """An exported model, ready to be called with recordings.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        The network. It takes `waveform` and returns `logits`; pictures also need `attention` and `log_mel`.
    card : dict
        The model's metadata: `labels`, `sampling_rate` (Hz), `duration_s`, `network`, `protocol`, `leaky`, `corpora`
        and what else the export wrote.
    """

    def __init__(self, session: onnxruntime.InferenceSession, card: dict[str, Any]) -> None:
        self._session = session
        self.card = card
        self.labels: tuple[str, ...] = tuple(card["labels"])
        self.sampling_rate: int = card["sampling_rate"]
        self.duration_s: float = card["duration_s"]

    def __call__(
        self, source: audio.Sound, *, window_s: float | None = None, hop_s: float | None = None
    ) -> list[Prediction]:
        """Predict the emotion in one recording, window by window.

        Parameters
        ----------
        source : path, bytes, binary file, or (waveform, sampling_rate)
            As for `vervet.audio.read`.
        window_s, hop_s : float, optional
            Seconds per window, at most the model's own, and between two windows; the model's window and the window
            where not given.

        Returns
        -------
        list of Prediction
            In order of time. Silent windows are left out, with a warning that names them.

        Raises
        ------
        ValueError
            If the recording cannot be read, holds NaN, is silent throughout or shorter than 0.1 s, or the window is
            longer than the model's.
        """
        file = audio.name_of(source)
        item = Item(Path(file), file)
        (answer,) = _answers(self, [(item, source)], *self.windowing(window_s, hop_s))
        if not answer.predictions:
            raise ValueError(answer.problem)
        if answer.problem:
            warnings.warn(answer.problem, stacklevel=2)
        return answer.predictions

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
            If the window is longer than the model's or shorter than 0.1 s, or the hop is not at least one millisecond.
        """
        window_s = self.duration_s if window_s is None else window_s
        hop_s = window_s if hop_s is None else hop_s
        if not audio.SHORTEST_S <= window_s <= self.duration_s:
            raise ValueError(
                f"window of {window_s:g} s: this model hears {self.duration_s:g} s at once; "
                f"choose {audio.SHORTEST_S:g} to {self.duration_s:g} s"
            )
        if not 0.001 <= hop_s < float("inf"):
            raise ValueError(f"hop of {hop_s:g} s: choose at least 0.001 s")
        return window_s, hop_s

    def run(self, waveforms: Sequence[np.ndarray], outputs: Sequence[str] = ("logits",)) -> dict[str, np.ndarray]:
        """Run the network, computing only what is asked for.

        Parameters
        ----------
        waveforms : sequence of numpy.ndarray
            Each (samples,) float32 in [-1, 1] at the model's sampling rate; padded or cut to the model's window.
        outputs : sequence of str
            Of `logits` (batch, classes), `embedding` (batch, features), `attention` (batch, patches) and `log_mel`
            (batch, n_mels, width) in [0, 1].

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
        samples = round(self.sampling_rate * self.duration_s)
        batch = np.stack([audio.fit(waveform, samples) for waveform in waveforms]).astype(np.float32)
        values: Sequence[Any] = self._session.run(list(outputs), {"waveform": batch})
        return dict(zip(outputs, values, strict=True))

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
            raise ValueError("the model returned NaN; its weights are damaged, export it again")
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)


def load(model: str | Path | None = None, *, threads: int | None = None) -> Predictor:
    """Load a model; see `vervet.load`.

    Parameters
    ----------
    model : str or pathlib.Path, optional
        An `.onnx` file, a run folder that holds `model.onnx`, or the name of a shipped model; the shipped default where
        not given.
    threads : int, optional
        CPU threads of one run of the network; as many as there are cores where not given.

    Returns
    -------
    Predictor
        Ready to be called.

    Raises
    ------
    ValueError
        If there is no such model, or it is not a Vervet model.
    """
    name, content = find_model("default" if model is None else model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # 0 is its word for all cores
    options.log_severity_level = 3  # errors; what it warns of is not in the user's hands
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    # its errors have no common base below Exception
    except Exception as error:
        raise ValueError(f"{name}: not an ONNX model that can be run ({error}); export it again") from error
    return Predictor(session, _card(session, name))


def find_model(model: str | Path) -> tuple[str, bytes]:
    path = Path(model)
    if path.is_dir() and not (path / "model.onnx").is_file():
        raise ValueError(f"{path}: holds no model.onnx; let its training end, or export it with 'vervet export {path}'")
    if path.is_dir():
        path = path / "model.onnx"
    if path.is_file():
        return str(path), path.read_bytes()
    shipped = SHIPPED / f"{model}.onnx"
    if path.name == str(model) and shipped.is_file():
        return str(shipped), shipped.read_bytes()
    names = sorted(entry.name.removesuffix(".onnx") for entry in SHIPPED.iterdir() if entry.name.endswith(".onnx"))
    raise ValueError(
        f"{model}: no such model; give an .onnx file, a run folder, or a shipped model "
        f"(this installation has {', '.join(names) or 'none: install it again'})"
    )


def _card(session: onnxruntime.InferenceSession, name: str) -> dict[str, Any]:
    """Metadata of a model, checked as far as prediction relies on them."""
    try:
        card = json.loads(session.get_modelmeta().custom_metadata_map["vervet"])
        labels, rate, duration_s = card["labels"], card["sampling_rate"], card["duration_s"]
        [waveform], outputs = session.get_inputs(), {node.name: node.shape for node in session.get_outputs()}
        agree = (
            isinstance(labels, list)
            and len(labels) > 0
            and all(isinstance(label, str) for label in labels)
            and isinstance(rate, int)
            and min(rate, duration_s) > 0
            and waveform.name == "waveform"
            # a size that the network leaves open is a string
            and waveform.shape[1] in (round(rate * duration_s), str(waveform.shape[1]))
            and outputs["logits"][1] in (len(labels), str(outputs["logits"][1]))
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: not a Vervet model, its metadata is missing or damaged; export it again") from error
    if not agree:
        raise ValueError(f"{name}: not a Vervet model, its metadata and its network disagree; export it again")
    return card


# --- what the user named -> items


def find(paths: Iterable[str | Path]) -> tuple[list[Item], list[str]]:
    """List the recordings that paths, folders, globs and tables stand for.

    Parameters
    ----------
    paths : iterable of str or pathlib.Path
        A recording; a folder, searched with all its sub-folders for `AUDIO_SUFFIXES`; a glob; or a CSV table with a
        `file` column, whose paths are relative to the table's folder, and `start` and `end` columns where it names
        segments (audformat). Every other column is kept.

    Returns
    -------
    items : list of Item
        In the order given; folders and globs sorted.
    problems : list of str
        What could not be found or understood. The rest stands in `items`.
    """
    items: list[Item] = []
    problems: list[str] = []
    for path in map(str, paths):
        try:
            items += _find(path, problems)
        except (ValueError, OSError) as error:
            problems.append(str(error))
    return items, problems


def _find(path: str, problems: list[str]) -> list[Item]:
    if not os.path.exists(path) and glob.has_magic(path):
        matches = sorted(glob.glob(path, recursive=True))
        # with ** a folder is matched beside its own files
        items = [item for match in matches if not os.path.isdir(match) for item in _find(match, problems)]
        items = items or [item for match in matches for item in _find(match, problems)]
        if not items:
            raise ValueError(f"{path}: matches no file; check the pattern and the folder it is relative to")
        return items
    if os.path.isdir(path):
        return _folder(Path(path))
    if Path(path).suffix.casefold() == ".csv" and os.path.exists(path):
        return _table(Path(path), problems)
    return [Item(Path(path), path)]


def _folder(folder: Path) -> list[Item]:
    # names with a leading dot are left by file systems, such as the ._talk.wav of macOS
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.casefold() in AUDIO_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise ValueError(f"{folder}: no recordings in this folder or below; looked for {', '.join(AUDIO_SUFFIXES)}")
    return [Item(path, str(path)) for path in found]


def _table(table: Path, problems: list[str]) -> list[Item]:
    try:
        rows = list(csv.reader(io.StringIO(table.read_text(encoding="utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table}: not a CSV table in UTF-8 ({error}); save it as one") from error
    header = [name.strip() for name in rows[0]] if rows else []
    if "file" not in header:
        raise ValueError(f"{table}: has no column 'file', only {', '.join(header) or 'nothing'}; name it in line 1")
    if len(set(header)) < len(header):
        raise ValueError(f"{table}: two columns have the same name in {', '.join(header)}; rename one")
    items = []
    for number, row in enumerate(rows[1:], start=2):
        try:
            if row:
                items.append(_row(table.parent, header, row))
        except ValueError as error:
            problems.append(f"{table}: row {number}: {error}")
    if not items and not problems:
        raise ValueError(f"{table}: has no rows; list one recording per line under 'file'")
    return items


def _row(folder: Path, header: list[str], row: list[str]) -> Item:
    if len(row) != len(header):
        raise ValueError(f"{len(row)} values under {len(header)} columns; quote those that hold a comma")
    columns = dict(zip(header, row, strict=True))
    file = columns.pop("file").strip()
    if not file:
        raise ValueError("names no file; fill it in or remove the row")
    start_s, end_s = _seconds(columns.get("start", "")), _seconds(columns.get("end", ""))
    return Item(folder / file, file, start_s or 0.0, end_s, columns)


_TIME = re.compile(r"(?:(\d+) days?,? ?)?(?:(\d+):(\d\d):(\d\d(?:\.\d*)?))?")


def _seconds(text: str) -> float | None:
    """Seconds of a table's time: `1.5`, `0 days 00:00:01.5` as audformat writes it, or None for its `NaT`."""
    text = text.strip()
    if text in ("", "NaT"):
        return None
    if re.fullmatch(r"\d+(\.\d*)?|\.\d+", text):
        return float(text)
    if not (match := _TIME.fullmatch(text)):
        raise ValueError(f"{text!r} is not a time; write seconds (1.5) or '0 days 00:00:01.5'")
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


# --- items -> answers


def predict_many(
    predictor: Predictor,
    items: Sequence[Item],
    *,
    window_s: float | None = None,
    hop_s: float | None = None,
    progress: bool = False,
) -> Iterator[Answer]:
    """Answer many recordings; one that is at fault stops none of the others.

    Parameters
    ----------
    predictor : Predictor
        The model.
    items : sequence of Item
        From `find`.
    window_s, hop_s : float, optional
        As for `Predictor.__call__`.
    progress : bool
        Draw a progress bar on stderr, if that is a terminal.

    Yields
    ------
    Answer
        One for each item, in order.

    Raises
    ------
    ValueError
        If the window or the hop does not suit the model.
    """
    windowing = predictor.windowing(window_s, hop_s)
    quiet = None if progress and len(items) > 1 else True  # None: tqdm looks whether stderr is a terminal
    sources = ((item, item.path) for item in items)
    yield from tqdm(_answers(predictor, sources, *windowing), total=len(items), unit="file", leave=False, disable=quiet)


def _answers(
    predictor: Predictor, sources: Iterable[tuple[Item, audio.Sound]], window_s: float, hop_s: float
) -> Iterator[Answer]:
    """Batch windows across recordings; an answer leaves when the last of its windows has been through the network."""
    batch: list[tuple[Answer, audio.Window]] = []
    read: list[Answer] = []  # in full, with windows still in the batch
    for item, source in sources:
        answer = Answer(item, [])
        silent: list[tuple[float, float]] = []
        try:
            for window in audio.windows(source, predictor.sampling_rate, window_s, hop_s, item.start_s, item.end_s):
                if audio.is_silent(window.waveform):
                    silent.append((window.start_s, window.end_s))
                    continue
                batch.append((answer, window))
                if len(batch) == BATCH:
                    _run(predictor, batch)
                    yield from read
                    read.clear()
        except (ValueError, OSError) as error:
            answer = Answer(item, [], str(error))  # what was heard before the fault is no answer
        if silent and not answer.problem:
            answer = Answer(item, answer.predictions, _silence(item, silent))
        read.append(answer)
    _run(predictor, batch)
    yield from read


def _run(predictor: Predictor, batch: list[tuple[Answer, audio.Window]]) -> None:
    """Send a batch through the network, hand each answer its predictions, and empty the batch."""
    if not batch:
        return
    rows = predictor.probabilities([window.waveform for _, window in batch])
    for (answer, window), row in zip(batch, rows, strict=True):
        label = predictor.labels[int(row.argmax())]
        scores = dict(zip(predictor.labels, map(float, row), strict=True))
        times = round(window.start_s, 6), round(window.end_s, 6)
        answer.predictions.append(Prediction(answer.item.file, *times, label, scores))
    batch.clear()


def _silence(item: Item, silent: Iterable[tuple[float, float]]) -> str:
    """Name the silent stretches of a recording, neighbours joined."""
    spans: list[tuple[float, float]] = []
    for start_s, end_s in silent:
        if spans and start_s <= spans[-1][1] + 1e-6:
            start_s = spans.pop()[0]
        spans.append((start_s, end_s))
    where = ", ".join(f"{start_s:.2f} to {end_s:.2f} s" for start_s, end_s in spans)
    return f"{item.path}: silent (below {audio.SILENCE_DBFS:g} dBFS) in {where}; no answer there, check the recording"


# --- answers -> text


def to_json(answers: Sequence[Answer], labels: Sequence[str]) -> str:
    """Write answers as a JSON list, one object per window.

    Parameters
    ----------
    answers : sequence of Answer
        From `predict_many`.
    labels : sequence of str
        The model's.

    Returns
    -------
    str
        A list of `{"file", "start_s", "end_s", "label", "scores": {label: probability}}` and the columns of the table
        the file came from. A column that has one of these names becomes `table_` and its name.
    """
    records = []
    for item, prediction in _pairs(answers):
        record: dict[str, Any] = {
            "file": prediction.file,
            "start_s": prediction.start_s,
            "end_s": prediction.end_s,
            "label": prediction.label,
            "scores": prediction.scores,
        }
        records.append(record | {_free(name, record): value for name, value in item.columns.items()})
    return json.dumps(records, indent=1, ensure_ascii=False)


def to_csv(answers: Sequence[Answer], labels: Sequence[str]) -> str:
    """Write answers as a CSV table, one row per window.

    Parameters
    ----------
    answers : sequence of Answer
        From `predict_many`.
    labels : sequence of str
        The model's.

    Returns
    -------
    str
        Columns file, start_s, end_s, label, confidence, one per emotion, and those of the table the file came from. A
        column that has one of these names becomes `table_` and its name.
    """
    own = ["file", "start_s", "end_s", "label", "confidence", *labels]
    others = list(dict.fromkeys(name for answer in answers for name in answer.item.columns))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*own, *(_free(name, own) for name in others)])
    for item, prediction in _pairs(answers):
        start_s, end_s, scores = prediction.start_s, prediction.end_s, prediction.scores
        ours = [prediction.file, start_s, end_s, prediction.label, prediction.confidence, *scores.values()]
        writer.writerow([*ours, *(item.columns.get(name, "") for name in others)])
    return text.getvalue().rstrip("\n")


def to_table(answers: Sequence[Answer], labels: Sequence[str]) -> str:
    """Write answers as a table for the terminal, at most 100 characters wide.

    Parameters
    ----------
    answers : sequence of Answer
        From `predict_many`.
    labels : sequence of str
        The model's.

    Returns
    -------
    str
        One line per window, the confidence as a bar. Where true emotions are known they stand beside it, and a last
        line counts how often the model was right among those it could know.
    """
    pairs = _pairs(answers)
    if not pairs:
        return ""
    truths = [(prediction.label, item.truth) for item, prediction in pairs if item.truth]
    emotion = max(len("emotion"), *map(len, labels))
    truth = max(len("true emotion"), *(len(true) + 2 for _, true in truths)) if truths else 0
    fixed = 2 * 10 + (2 + emotion) + (2 + BAR + 6) + (2 + min(truth, 16) if truth else 0)
    longest = max(len("file"), *(len(prediction.file) for _, prediction in pairs))
    file = min(longest, max(8, TABLE_COLUMNS - fixed))
    lines = [f"{'file':{file}}  {'start s':>8}  {'end s':>8}  {'emotion':{emotion}}  {'confidence':{BAR + 6}}"]
    lines[0] += "  true emotion" if truths else ""
    for item, prediction in pairs:
        lines.append(
            f"{_shortened(prediction.file, file):{file}}  {prediction.start_s:8.2f}  {prediction.end_s:8.2f}  "
            f"{prediction.label:{emotion}}  {bar(prediction.confidence):{BAR}} {prediction.confidence:5.0%}"
        )
        if item.truth:
            lines[-1] += f"  {mark(prediction.label, item.truth, labels)} {_shortened(item.truth, 14)}"
    return "\n".join([*(line.rstrip() for line in lines), *_count(truths, labels)])


FORMATS: dict[str, Callable[[Sequence[Answer], Sequence[str]], str]] = {
    "table": to_table,
    "csv": to_csv,
    "json": to_json,
}


def mark(label: str, truth: str, labels: Sequence[str]) -> str:
    """Mark a prediction as right or wrong.

    Parameters
    ----------
    label, truth : str
        What the model said and what is true.
    labels : sequence of str
        What the model can say.

    Returns
    -------
    str
        "✓" or "✗", and "–" for a true emotion that the model does not know.
    """
    return "–" if truth not in labels else "✓" if label == truth else "✗"


def bar(share: float, width: int = BAR) -> str:
    """Draw a share as a bar of block characters, in eighths of a character.

    Parameters
    ----------
    share : float
        In [0, 1].
    width : int
        Characters of a share of 1.

    Returns
    -------
    str
        At most `width` characters.

    Examples
    --------
    >>> bar(0.5, 4)
    '██'
    """
    eighths = round(share * width * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def printable(text: str, encoding: str | None) -> str:
    """Redraw what a terminal's encoding has no characters for.

    Parameters
    ----------
    text : str
        Any text.
    encoding : str or None
        Of the stream it is for; None is taken for UTF-8.

    Returns
    -------
    str
        The text, or if it cannot be encoded, one in which bars and marks are ASCII and other characters escaped.
    """
    encoding = encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        plain = text.translate(str.maketrans("█▏▎▍▌▋▊▉✓✗–…", "#       +x-~"))
        return plain.encode(encoding, "backslashreplace").decode(encoding)
    return text


def _pairs(answers: Sequence[Answer]) -> list[tuple[Item, Prediction]]:
    return [(answer.item, prediction) for answer in answers for prediction in answer.predictions]


def _free(name: str, taken: Iterable[str]) -> str:
    return f"table_{name}" if name in taken else name


def _shortened(text: str, width: int) -> str:
    """Keep the end of a long name, which tells files of one folder apart."""
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def _count(truths: Sequence[tuple[str, str]], labels: Sequence[str]) -> list[str]:
    known = [(label, truth) for label, truth in truths if truth in labels]
    lines = []
    if known:
        lines.append(f"{sum(label == truth for label, truth in known)} of {len(known)} right")
    if unknown := sorted({truth for _, truth in truths} - set(labels)):
        lines.append(f"not counted: {', '.join(unknown)}, which the model does not know")
    return ["", *lines] if lines else []
