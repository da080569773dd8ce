"""Any corpus, as a table: a CSV (or audformat CSV) of files, or parts of them, with their emotions."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Generator, Iterator, Mapping
from pathlib import Path

from vervet.audio import Part, part_of
from vervet.corpora import Fault, Utterance
from vervet.emotions import label_of, without_blanks

REQUIRED = ("file", "emotion")
PART = ("start", "end", "channel")
OPTIONAL = ("speaker", "sentence", "sex", "split", *PART)
SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "devel": "validation",
    "development": "validation",
    "test": "test",
}
SEXES = {"female": "female", "f": "female", "male": "male", "m": "male"}


def read(root: Path) -> Iterator[tuple[str, Utterance] | Fault]:
    """Name the clips of the CSV file `root`, whose paths are relative to its folder, by their full paths.

    Emotions become labels as `vervet.emotions.label_of` says. Each row at fault is a fault: an emotion without a label,
    an unknown split or sex, a file that does not exist, a part of one that cannot be, or what an earlier row names. The
    message tells the row's line in the CSV file.

    Raises
    ------
    ValueError
        If the CSV file has no column `file` or `emotion`, or no rows.
    """
    lines: dict[str, int] = {}
    rows = list(read_rows(root, REQUIRED, OPTIONAL))
    emotions = {row["emotion"] for _, row in rows}
    for line, row in rows:
        where = f"line {line} of {root.name}"
        path = root.parent / row["file"]
        if not row["file"] or not path.is_file():
            yield Fault("missing", str(path), f"{where}: no such file; paths are relative to the table's folder")
            continue
        try:
            sound = located(path, row)
        except ValueError as error:
            yield Fault("part", str(path), f"{where}: {error}")
            continue
        clip = f"{path.resolve()}{part_of(sound).fragment}"
        if clip in lines:
            yield Fault("repeated", str(path), f"{where}: already on line {lines[clip]}; keep one of the two rows")
            continue
        lines[clip] = line
        try:
            yield clip, _utterance(row, sound, emotions)
        except ValueError as error:
            yield Fault("label", str(path), f"{where}: {error}")


def read_rows(
    table: Path, required: tuple[str, ...], optional: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Read the named columns of a CSV file, as (line, row); an optional column that is absent is empty.

    Raises
    ------
    ValueError
        If the file is a folder or no text, lacks a required column, has one of them all twice, or has no rows; if a
        quote is not closed, or a row has more or fewer values than there are columns.
    """
    if table.is_dir():
        raise ValueError(f"{table}: a folder; give the CSV file with the columns {', '.join(required)}")
    count, rows = 0, csv_rows(table)
    try:
        _, header = next(rows, (1, []))
        columns = [column.strip() for column in header]
        missing = [column for column in required if column not in columns]
        if missing:
            has = ", ".join(columns) or "nothing"
            raise ValueError(f"{table}: no column {' and no column '.join(missing)}; the first line has {has}")
        if twice := [column for column in (*required, *optional) if columns.count(column) > 1]:
            raise ValueError(f"{table}: two columns have the same name, {twice[0]}; rename one")
        for line, values in rows:
            if not values:  # a blank line
                continue
            if len(values) != len(columns):
                more = len(values) > len(columns)
                what = "quote those that hold a comma" if more else "leave none out, not even an empty one"
                raise ValueError(f"{table}: line {line}: {len(values)} values under {len(columns)} columns; {what}")
            count += 1
            row = dict(zip(columns, values, strict=True))
            yield line, {column: given(row.get(column, ""), column) for column in (*required, *optional)}
    except UnicodeDecodeError as error:
        raise ValueError(f"{table}: not a CSV file in UTF-8 ({error})") from None
    if count == 0:
        raise ValueError(f"{table}: no rows below the first line")


def csv_rows(table: str | Path) -> Generator[tuple[int, list[str]]]:
    """Read a CSV file row by row, the header first, each with the line in which it ends.

    Raises
    ------
    UnicodeDecodeError
        If it is no text in UTF-8.
    ValueError
        If a row is not CSV; the message names its first line.
    """
    line = 1
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)  # else a quote that is never closed takes in all rows below it
            for row in rows:
                yield rows.line_num, row
                line = rows.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{table}: the row of line {line} is not CSV ({error}); is a quote not closed?") from error


def known(value: str, names: Mapping[str, str], column: str) -> str:
    """Map a value of a column to its canonical name.

    Raises
    ------
    ValueError
        For a value that is not known; the message lists those that are.
    """
    try:
        return names[value.casefold()]
    except KeyError:
        raise ValueError(f"unknown {column} {value!r}; known are {', '.join(names)}") from None


def located(path: Path, row: Mapping[str, str]) -> Path | Part:
    """Find what of a file a row names.

    Parameters
    ----------
    path : Path
        The file.
    row : mapping of str to str
        With or without `start` and `end`, in seconds or as audformat writes times, and `channel`, 0 the first; empty
        where it is the beginning, the end, and the mean of all channels.

    Returns
    -------
    Path or vervet.audio.Part
        The file itself, if it is the whole of it.

    Raises
    ------
    ValueError
        If one of them is something else, or the end does not come after the start.
    """
    start_s, end_s = seconds(row.get("start", "")) or 0.0, seconds(row.get("end", ""))
    if end_s is not None and end_s <= start_s:
        raise ValueError(f"ends at {end_s:g} s, and begins at {start_s:g} s; correct one of them")
    channel = given(row.get("channel", ""))
    if channel and not re.fullmatch(r"[0-9]{1,2}(\.0*)?", channel):  # a column with gaps becomes one of decimals
        raise ValueError(f"channel {channel!r} is not a number, 0 the first, empty the mean of all; rename the column?")
    part = Part(path, start_s, end_s, int(float(channel)) if channel else None)
    return part if part.fragment else path


_TIME = re.compile(r"(?:(\d+) days?,? ?)?(?:(\d+):(\d\d):(\d\d(?:\.\d*)?))?")


def seconds(text: str) -> float | None:
    """Read a time of a table: `1.5`, or `0 days 00:00:01.5` as audformat writes it; None is a gap.

    Raises
    ------
    ValueError
        If it is neither.
    """
    text = given(text)
    if not text:
        return None
    if re.fullmatch(r"(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", text, re.IGNORECASE):
        return float(text)
    if not (match := _TIME.fullmatch(text)):
        raise ValueError(f"{text!r} is not a time; write seconds (1.5) or '0 days 00:00:01.5'")
    days, hours, minutes, rest = (float(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def given(text: str, column: str = "") -> str:
    """A value; empty where its table says that there is none. Only a file may be called `nan`, and is as it is."""
    if column == "file":
        return text.strip()
    text = without_blanks(text)
    return "" if text in ("nan", "NaN", "NAN", "nat", "NaT", "<NA>", "<na>") else text


def _utterance(row: dict[str, str], sound: Path | Part, emotions: Collection[str]) -> Utterance:
    return Utterance(
        sound,
        label_of(row["emotion"], emotions),
        "table",
        speaker=row["speaker"],
        sentence=row["sentence"],
        sex=known(row["sex"], SEXES, "sex") if row["sex"] else "",
        split=known(row["split"], SPLITS, "split") if row["split"] else "",
    )
