"""Any corpus, as a table: a CSV (or audformat CSV) of files with their emotions."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from vervet.corpora import Utterance
from vervet.emotions import canonical

REQUIRED = ("file", "emotion")
OPTIONAL = ("speaker", "sentence", "sex", "split")
SPLITS = {
    "": "",
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "devel": "validation",
    "development": "validation",
    "test": "test",
    "eval": "test",
}
SEXES = {"": "", "f": "female", "female": "female", "m": "male", "male": "male"}


def load(root: Path) -> list[Utterance]:
    """List the utterances of the CSV file `root`, whose paths are relative to its folder.

    Raises
    ------
    ValueError
        For a missing column, or a row with an unknown emotion, split or sex, a file that does not exist or that an
        earlier row names; the message tells the row's line in the file.
    """
    if not root.is_file():
        raise ValueError(f"{root}: a table is a CSV file with the columns {' and '.join(REQUIRED)}, this is a folder")
    seen: dict[Path, int] = {}
    utterances = []
    for line, row in _rows(root):
        where = f"{root}, line {line}"
        utterance = _utterance(row, root.parent, where)
        first = seen.setdefault(utterance.path.resolve(), line)
        if first != line:
            raise ValueError(f"{where}: {row['file']} is already on line {first}; keep one of the two rows")
        utterances.append(utterance)
    if not utterances:
        raise ValueError(f"{root}: no rows below the header")
    return utterances


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        missing = [column for column in REQUIRED if column not in columns]
        if missing:
            raise ValueError(f"{table}: no column {' or '.join(missing)}; it has {', '.join(columns) or 'no header'}")
        for row in reader:
            yield reader.line_num, {column: (row.get(column) or "").strip() for column in (*REQUIRED, *OPTIONAL)}


def _utterance(row: dict[str, str], folder: Path, where: str) -> Utterance:
    if not row["file"]:
        raise ValueError(f"{where}: the column file is empty")
    path = folder / row["file"]
    if not path.is_file():
        raise ValueError(f"{where}: no file {path}; paths are relative to the table's folder")
    try:
        emotion = canonical(row["emotion"])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return Utterance(
        path,
        emotion,
        "table",
        speaker=row["speaker"],
        sentence=row["sentence"],
        sex=_known(row["sex"], SEXES, "sex", where),
        split=_known(row["split"], SPLITS, "split", where),
    )


def _known(value: str, names: dict[str, str], column: str, where: str) -> str:
    try:
        return names[value.casefold()]
    except KeyError:
        known = ", ".join(name for name in names if name)
        raise ValueError(f"{where}: unknown {column} {value!r}; known are {known}") from None
