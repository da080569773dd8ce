"""Answers in files that grow as they come, and that go on after any interruption.

Beside the output `NAME` stands its journal, `NAME.journal`, with one JSON object per line:

    {"vervet": "0.1.0", "model": "5f0c...", "window_s": 4.0, "hop_s": 4.0, "columns": ["file", ...]}
    {"output": 0}
    {"key": "91b4...", "file": "a.wav", "windows": 1}
    {"key": "e027...", "file": "b.wav", "windows": 0, "problem": "b.wav: is empty (0 bytes); ..."}
    {"output": 143}
    {"retry": "e027..."}
    {"key": "e027...", "file": "b.wav", "windows": 0, "problem": "b.wav: is empty (0 bytes); ..."}
    {"output": 143}

The first line says what the answers are of. A `key` says that an item has been answered, in so many windows. `retry`
takes back one that had none, and that was asked again. `output` says where the output ends with all of that in it: in
bytes, or in the files of a Parquet folder. A problem with `"input": true` is of no recording, but of a row, a pattern
or a folder that names none; how these read now every run finds out anew.

The output is written before the journal, and lines count only once an `output` follows them. What stands behind the
last one, in the journal and in the output, was under way when a run was cut off; the next one removes it. So a run may
end in any way, by an error, by Ctrl-C or by kill -9, and what had been written by then is neither lost nor repeated.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from vervet import __version__
from vervet.batch import Answer, Item
from vervet.files import write_whole
from vervet.machine import locked
from vervet.output import audformat_header, csv_line, header, row, to_audformat, to_csv, to_jsonl
from vervet.predict import Predictor

SUFFIXES = (".csv", ".jsonl", ".parquet", ".audformat")
NEEDS = {".parquet": "pyarrow", ".audformat": "audformat"}
# what a run shares with the one that it continues
SAME = ("model", "window_s", "hop_s", "columns", "speaker", "whole", "channel", "speech_only")


@contextmanager
def opened(
    path: Path,
    predictor: Predictor,
    window_s: float | None = None,
    hop_s: float | None = None,
    columns: Sequence[str] = (),
    retry: bool = False,
    asked: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Store]:
    """Begin an output, or continue the one that is there.

    Parameters
    ----------
    path : pathlib.Path
        Ends in .csv, .jsonl, .parquet or .audformat. The last two are folders: of part files, and a database whose one
        table is `predictions`. The folder it is in is made.
    predictor : Predictor
        The model that answers.
    window_s, hop_s : float, optional
        As for `Predictor.__call__`.
    columns : sequence of str
        Of the tables that the recordings come from: `vervet.batch.columns`.
    retry : bool
        Items that have no answer are lacking again.
    asked : mapping, optional
        What else the answers depend on: `speaker`, the column by which speakers are known, and `met`, the digest of the
        recordings that they are known from; `whole`, whether each recording has one answer; `channel`; `speech_only`.

    Yields
    ------
    Store
        To ask what is lacking and to add what is answered. However the `with` ends, what was added is written. At the
        end, the problems are written as a table, `NAME.problems.csv`, if there are any.

    Raises
    ------
    ValueError
        If the name ends in something else; if the output is there without its journal, or has lost what its journal
        knows; if it was begun with another model, window, hop or columns, or something else was asked; or if another
        run is writing it.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: the name of an output ends in {', '.join(SUFFIXES)}")
    if path.suffix == ".audformat" and "channel" in columns:
        raise ValueError(f"{path}: audformat has no channels to tell parts by; name a .csv, .jsonl or .parquet")
    if path.suffix in NEEDS:
        importlib.import_module(NEEDS[path.suffix])  # where it is missing, that should be known before a file is made
    run: dict[str, Any] = {"vervet": __version__, "model": predictor.digest[:16]}
    run["window_s"], run["hop_s"] = predictor.windowing(window_s, hop_s)
    run["columns"] = header(predictor.labels, columns)
    run |= {name: value for name, value in asked.items() if value is not None and value is not False}
    path.parent.mkdir(parents=True, exist_ok=True)
    written = Path(f"{path}.journal")
    written.touch()
    with locked(written, path), open(written, "a+b") as file:
        journal = _Journal(file)
        _check(path, journal.begun, run)
        if journal.begun is None:
            journal.note([run], 0)
        if path.suffix == ".parquet":
            output = _Parts(path, journal.end, predictor.labels, columns, run)
        else:
            lines = {".csv": to_csv, ".jsonl": to_jsonl, ".audformat": to_audformat}[path.suffix]
            text = _database(path, predictor, columns) if path.suffix == ".audformat" else path
            output = _Text(text, journal.end, partial(lines, labels=predictor.labels, columns=columns))
        with closing(output):
            store = Store(journal, output, run.get("met"), retry)
            try:
                yield store
                store.forget()
            finally:
                try:
                    store.commit()
                finally:
                    _list(journal.problems, Path(f"{path}.problems.csv"))


class Store:
    """An output that is being written; made by `opened`.

    Attributes
    ----------
    there : int
        Items that were there already, answered or found at fault.
    problems : list of dict
        One for each item that has no answer, or not for all its windows: `file`, `windows`, which is the number of
        those answered, and `problem`. Items that were there are among them.
    met_others : bool
        Whether speakers were known from other recordings when the output was begun.
    """

    def __init__(self, journal: _Journal, output: _Text | _Parts, met: str | None, retry: bool) -> None:
        self.met_others = (journal.begun or {}).get("met", met) != met
        self._journal = journal
        self._output = output
        self.problems = journal.problems
        faulty = [entry for entry in journal.problems if not entry["windows"]]
        self._of_input = {entry["key"] for entry in faulty if entry.get("input")}
        # to be asked again, if they are met
        self._again = Counter(entry["key"] for entry in faulty if retry or entry["key"] in self._of_input)
        journal.answered.subtract(self._again)
        self.there = journal.answered.total()
        self._unseen = journal.answered
        self._taken_back: Counter[str] = Counter()  # met
        self._waiting: list[Answer] = []
        self._windows = 0  # of those waiting
        self._end = journal.end
        self._committed_at = time.monotonic()

    def lacks(self, item: Item) -> bool:
        """Tell whether an item is still to be answered; to be asked once for each item of a run."""
        key = _key(item)
        if self._unseen[key]:
            self._unseen[key] -= 1  # an item that is listed twice is answered twice
            return False
        if self._again[key]:
            self._again[key] -= 1
            self._taken_back[key] += 1
        return True

    def add(self, answer: Answer) -> None:
        """Take an answer; it is written now, or with those of the next second (Parquet: minute)."""
        self._waiting.append(answer)
        self._windows += len(answer.predictions)
        due = time.monotonic() - self._committed_at > self._output.every_s
        if due or self._windows >= self._output.most:
            self.commit()

    def commit(self) -> None:
        """Write what was added. From here on it counts, however the run ends."""
        answers, self._waiting, self._windows = self._waiting, [], 0  # if it fails, they are not written a second time
        if answers:
            self._end = self._output.append(answers)
            entries = [_entry(answer) for answer in answers]
            self._journal.add([*self._retried(entries), *entries], self._end)
        self._committed_at = time.monotonic()

    def forget(self) -> None:
        """Take back problems of the input that it has no more; to be called when all of it was met."""
        self.commit()
        gone = [{"retry": key} for key in self._again.elements() if key in self._of_input]
        if gone:
            self._journal.add(gone, self._end)

    def _retried(self, entries: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Of those that are answered now, take back what was said before."""
        for key in (entry["key"] for entry in entries):
            if self._taken_back[key]:
                self._taken_back[key] -= 1
                yield {"retry": key}


class _Journal:
    """What has been answered; the module tells of its lines."""

    def __init__(self, file: BinaryIO) -> None:
        self.begun: dict[str, Any] | None = None  # the first line
        self.answered: Counter[str] = Counter()  # keys
        self.problems: list[dict[str, Any]] = []
        self.end = 0  # of the output
        self._file = file
        entries, position, end = [], 0, 0
        file.seek(0)
        for number, line in enumerate(file, 1):
            position += len(line)
            entry = _parsed(line)
            if entry is None:
                if any(map(_parsed, file)):  # no run was cut off there
                    raise ValueError(
                        f"{file.name}: line {number} is damaged, but not all that follow; bring it back, or give "
                        "another --out"
                    )
                break
            if "output" in entry:
                self._count(entries)
                entries, end, self.end = [], position, entry["output"]
            else:
                entries.append(entry)
        file.truncate(end)

    def note(self, entries: Sequence[dict[str, Any]], end: int) -> None:
        """Write lines that belong together, and where the output ends with them."""
        self._file.write("".join(json.dumps(entry) + "\n" for entry in [*entries, {"output": end}]).encode())
        _to_disk(self._file)

    def add(self, entries: Sequence[dict[str, Any]], end: int) -> None:
        """Note them, and list their problems."""
        self.note(entries, end)
        self._list(entries)

    def _count(self, entries: Sequence[dict[str, Any]]) -> None:
        for entry in entries:
            if "key" in entry:
                self.answered[entry["key"]] += 1
            elif "retry" in entry:
                self.answered[entry["retry"]] -= 1
            else:
                self.begun = entry
        self._list(entries)

    def _list(self, entries: Sequence[dict[str, Any]]) -> None:
        again = Counter(entry["retry"] for entry in entries if "retry" in entry)
        if again:
            listed, self.problems[:] = self.problems[:], []
            for problem in listed:
                if not problem["windows"] and again[problem["key"]]:
                    again[problem["key"]] -= 1
                else:
                    self.problems.append(problem)
        self.problems += [entry for entry in entries if "problem" in entry]


class _Text:
    """A file of lines; its end is counted in bytes."""

    every_s = 1.0  # between two commits
    most = 10_000  # windows, of a commit

    def __init__(self, path: Path, end: int, lines: Callable[[Iterable[Answer]], Iterable[str]]) -> None:
        self._lines = lines
        self._head = 1 if path.suffix == ".csv" else 0  # lines that begin the file
        self._file = path.open("ab")
        if self._file.tell() < end:
            raise ValueError(_lost(path, f"{end} bytes", f"{self._file.tell()}"))
        self._file.truncate(end)
        self._file.seek(end)

    def append(self, answers: Sequence[Answer]) -> int:
        lines = islice(self._lines(answers), self._head if self._file.tell() else 0, None)
        self._file.write(_encoded(lines))
        _to_disk(self._file)
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


class _Parts:
    """A folder of Parquet files; its end is counted in files."""

    every_s = 60.0
    most = 100_000

    def __init__(
        self, folder: Path, end: int, labels: Sequence[str], columns: Sequence[str], run: dict[str, Any]
    ) -> None:
        import pyarrow

        text, seconds, share = pyarrow.string(), pyarrow.float64(), pyarrow.float32()
        kinds = [text, seconds, seconds, text, share, pyarrow.bool_(), *[share] * len(labels), *[text] * len(columns)]
        fields = list(zip(header(labels, columns), kinds, strict=True))
        self._schema = pyarrow.schema(fields, {"vervet": json.dumps(run)})
        self._folder = folder
        self._columns = columns
        self._end = end
        folder.mkdir(exist_ok=True)
        parts = sorted(folder.glob("part-*.parquet"))
        if len(parts) < end:
            raise ValueError(_lost(folder, f"{end} files", f"{len(parts)}"))
        for left in [*parts[end:], *folder.glob(".part-*")]:
            left.unlink()

    def append(self, answers: Sequence[Answer]) -> int:
        import pyarrow
        from pyarrow import parquet

        rows = [row(answer.item, prediction, self._columns) for answer in answers for prediction in answer.predictions]
        if rows:
            values = [[_clean(value) for value in column] for column in zip(*rows, strict=True)]
            arrays = [pyarrow.array(column, kind) for column, kind in zip(values, self._schema.types, strict=True)]
            name = f"part-{self._end:06}.parquet"
            begun = self._folder / f".{name}"
            with begun.open("wb") as file:
                parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=self._schema), file, compression="zstd")
                _to_disk(file)
            begun.replace(self._folder / name)
            self._end += 1
        return self._end

    def close(self) -> None: ...


def _database(folder: Path, predictor: Predictor, columns: Sequence[str]) -> Path:
    """Begin a database of audformat; its header is complete before its table has a row."""
    from vervet.audformat import TABLE, write_header

    source = f"vervet {__version__}, model {predictor.digest[:16]}"
    write_header(folder, predictor.labels, audformat_header(predictor.labels, columns)[3:], source)
    return folder / f"db.{TABLE}.csv"


def _check(path: Path, begun: dict[str, Any] | None, run: dict[str, Any]) -> None:
    """Refuse to continue what this run did not begin."""
    if begun is None and path.exists():
        raise ValueError(
            f"{path}: is there without its journal, so it cannot be continued; move it away, or give another --out"
        )
    for name in SAME:
        if begun and begun.get(name) != run.get(name):
            then, now = (_said(name, of.get(name)) for of in (begun, run))
            raise ValueError(f"{path}: was begun {then}, not {now}; give the same, or another --out")


def _said(name: str, value: Any) -> str:
    if value is None or value is False:
        return f"without {name}"
    return f"with {name}" if value is True else f"with {name} {value}"


def _lost(path: Path, known: str, found: str) -> str:
    return f"{path}: its journal knows {known}, but there are {found}; bring back what is gone, or give another --out"


def _key(item: Item) -> str:
    """Tell an item from all others: by its place, not by the way it was named."""
    part = item.part
    place = [os.path.abspath(item.path), part.start_s, part.end_s, item.problem]
    place += [] if part.channel is None else [part.channel]
    return hashlib.blake2b(json.dumps(place).encode(), digest_size=16).hexdigest()


def _entry(answer: Answer) -> dict[str, Any]:
    entry = {"key": _key(answer.item), "file": answer.item.file, "windows": len(answer.predictions)}
    entry |= {"input": True} if answer.item.problem else {}
    return entry | ({"problem": answer.problem} if answer.problem else {})


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Read a line of the journal; None if it was cut off."""
    try:
        return json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None


def _encoded(lines: Iterable[str]) -> bytes:
    return _clean("".join(f"{line}\n" for line in lines)).encode()


def _clean(value: Any) -> Any:
    """Escape what UTF-8 cannot hold: bytes in the name of a file that are no characters."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _list(problems: Sequence[dict[str, Any]], table: Path) -> None:
    """Write the problems as a table; none, no table."""
    if not problems:
        table.unlink(missing_ok=True)
        return
    names = ("file", "windows", "problem")
    rows = ([problem[name] for name in names] for problem in problems)
    write_whole(table, _encoded(map(csv_line, [names, *rows])))
