"""Answers become text: a table for people, CSV and JSON for programs.

Each form takes the answers, the labels of the model and the names of the columns that tables bring along
(`vervet.batch.columns`), and yields lines without their ends. CSV and JSON Lines come as the answers come; the table
and JSON need all of them first. A column that has a name of ours becomes `table_` and its name.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from vervet.batch import Answer, Item
from vervet.predict import Prediction
from vervet.terminal import BAR, bar, one_line

TABLE_COLUMNS = 100  # characters, of the terminal table
OURS = ("file", "start_s", "end_s", "label", "confidence", "uncertain")  # columns of CSV, before one for each emotion


def to_csv(answers: Iterable[Answer], labels: Sequence[str], columns: Sequence[str]) -> Iterator[str]:
    """Write answers as a CSV table, one row per window.

    Parameters
    ----------
    answers : iterable of Answer
        From `predict_many`.
    labels : sequence of str
        The model's.
    columns : sequence of str
        Of the tables that the recordings come from, but for `file`.

    Yields
    ------
    str
        The header, then a row for each window: file, start_s and end_s in seconds, label, its probability as
        confidence, whether that is uncertain (`true` or `false`), the probability of each emotion in [0, 1], and the
        columns of its table, empty where it has none.
    """
    yield csv_line(header(labels, columns))
    for item, prediction in _pairs(answers):
        yield csv_line(row(item, prediction, columns))


def to_audformat(answers: Iterable[Answer], labels: Sequence[str], columns: Sequence[str]) -> Iterator[str]:
    """Write answers as a table of audformat with a segmented index, in CSV.

    Parameters
    ----------
    answers, labels, columns
        As for `to_csv`.

    Yields
    ------
    str
        As from `to_csv`, but that `start` and `end` stand for `start_s` and `end_s`.
    """
    yield csv_line(audformat_header(labels, columns))
    for item, prediction in _pairs(answers):
        file, start_s, end_s, *values = row(item, prediction, columns)
        yield csv_line([file, _timedelta(start_s), _timedelta(end_s), *values])


def to_jsonl(answers: Iterable[Answer], labels: Sequence[str], columns: Sequence[str]) -> Iterator[str]:
    """Write answers as JSON Lines, one object per window.

    Parameters
    ----------
    answers, labels, columns
        As for `to_csv`.

    Yields
    ------
    str
        An object with `file`, `start_s`, `end_s`, `label`, `confidence`, `uncertain`, `scores` (the probability of each
        emotion, by label), and the columns that its own table has.
    """
    for item, prediction in _pairs(answers):
        yield json.dumps(_record(item, prediction), ensure_ascii=False)


def to_json(answers: Iterable[Answer], labels: Sequence[str], columns: Sequence[str]) -> Iterator[str]:
    """Write answers as one JSON list.

    Parameters
    ----------
    answers, labels, columns
        As for `to_csv`.

    Yields
    ------
    str
        Once: the list, its objects as from `to_jsonl`.
    """
    records = [_record(item, prediction) for item, prediction in _pairs(answers)]
    yield json.dumps(records, indent=1, ensure_ascii=False)


def to_table(answers: Iterable[Answer], labels: Sequence[str], columns: Sequence[str]) -> Iterator[str]:
    """Write answers as a table for the terminal, at most 100 characters wide.

    Parameters
    ----------
    answers, labels, columns
        As for `to_csv`.

    Yields
    ------
    str
        One line per window, the confidence as a bar, `?` beside an uncertain emotion. Where true emotions are known
        they stand beside it, and a last line counts how often the model was right among those it could know. Nothing
        where nothing was answered.
    """
    pairs = list(_pairs(answers))
    if not pairs:
        return
    truths = [(prediction.label, named) for item, prediction in pairs if (named := item.truth(labels))]
    unsure = any(prediction.uncertain for _, prediction in pairs)
    emotion = max(len("emotion"), *map(len, labels)) + 2 * unsure
    truth = max(len("true emotion"), *(len(true) + 2 for _, true in truths)) if truths else 0
    fixed = 2 * 10 + (2 + emotion) + (2 + BAR + 6) + (2 + min(truth, 16) if truth else 0)
    longest = max(len("file"), *(len(one_line(prediction.file)) for _, prediction in pairs))
    file = min(longest, max(8, TABLE_COLUMNS - fixed))
    head = f"{'file':{file}}  {'start s':>8}  {'end s':>8}  {'emotion':{emotion}}  {'confidence':{BAR + 6}}"
    yield f"{head}{'  true emotion' if truths else ''}".rstrip()
    for item, prediction in pairs:
        label = prediction.label + " ?" * prediction.uncertain
        line = (
            f"{_shortened(prediction.file, file):{file}}  {prediction.start_s:8.2f}  {prediction.end_s:8.2f}  "
            f"{label:{emotion}}  {bar(prediction.confidence):{BAR}} {prediction.confidence:5.0%}"
        )
        known = item.truth(labels)
        true = f"  {mark(prediction.label, known, labels)} {_shortened(known, 14)}" if known else ""
        yield f"{line}{true}".rstrip()
    yield from _count(truths, labels, unsure)


FORMATS: dict[str, Callable[[Iterable[Answer], Sequence[str], Sequence[str]], Iterator[str]]] = {
    "table": to_table,
    "csv": to_csv,
    "json": to_json,
    "jsonl": to_jsonl,
}


def header(labels: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Name the columns of `row`."""
    return _beside([*OURS, *labels], columns)


def audformat_header(labels: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Name the columns of `to_audformat`: three of its index, then those of its table."""
    return _beside(["file", "start", "end", *OURS[3:], *labels], columns)


def row(item: Item, prediction: Prediction, columns: Sequence[str]) -> list[Any]:
    """Flatten one prediction into the values of a row: str, float and bool."""
    return [
        prediction.file,
        prediction.start_s,
        prediction.end_s,
        prediction.label,
        prediction.confidence,
        prediction.uncertain,
        *prediction.scores.values(),
        *(item.columns.get(name, "") for name in columns),
    ]


def csv_line(values: Iterable[Any]) -> str:
    """Write one row of CSV, without the end of its line."""
    text = io.StringIO()
    plain = (str(value).lower() if isinstance(value, bool) else value for value in values)
    csv.writer(text, lineterminator="\r\n").writerow(plain)  # so that it quotes both characters in a value
    return text.getvalue()[:-2]


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


def _record(item: Item, prediction: Prediction) -> dict[str, Any]:
    record = prediction.to_dict()
    values = [*record.values(), *item.columns.values()]
    return dict(zip(_beside(record, item.columns), values, strict=True))


def _pairs(answers: Iterable[Answer]) -> Iterator[tuple[Item, Prediction]]:
    return ((answer.item, prediction) for answer in answers for prediction in answer.predictions)


def _beside(own: Iterable[str], columns: Iterable[str]) -> list[str]:
    """Put the columns of a table behind our own; one that has a name of ours gets another."""
    names = list(own)
    for name in columns:
        while name in names:
            name = f"table_{name}"
        names.append(name)
    return names


def _timedelta(seconds: float) -> str:
    """Write a time as pandas does: 0 days 00:01:02.500000."""
    minutes, rest = divmod(round(seconds * 1_000_000), 60_000_000)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} days {hours:02}:{minutes:02}:{rest / 1_000_000:09.6f}"


def _shortened(text: str, width: int) -> str:
    """Keep the end of a long name, which tells files of one folder apart."""
    text = one_line(text)
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def _count(truths: Sequence[tuple[str, str]], labels: Sequence[str], unsure: bool) -> list[str]:
    known = [(label, truth) for label, truth in truths if truth in labels]
    lines = []
    if known:
        lines.append(f"{sum(label == truth for label, truth in known)} of {len(known)} right")
    if unknown := sorted({truth for _, truth in truths} - set(labels)):
        lines.append(f"not counted: {', '.join(unknown)}, which the model does not know")
    if unsure:
        lines.append("? uncertain: more likely wrong than right")
    return ["", *lines] if lines else []
