"""Many recordings: what paths stand for, one at a time, and all of it answered on as many cores as there are.

Nothing here grows with the number of recordings. They are listed as they are needed, only so many are read ahead, and
their answers leave in the order in which they were listed. A recording that is at fault stops none of the others.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import lru_cache, partial
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vervet.audio import Part, name_of, opened, part_of
from vervet.corpora import AUDIO_SUFFIXES, NOT_DECODED
from vervet.corpora.table import csv_rows, given, located
from vervet.emotions import canonical
from vervet.predict import Prediction, Predictor, Spread

READERS = 2  # per run of the network; while one waits for its answer, another reads
AHEAD = 64  # recordings that may be finished behind one that takes long, per run of the network
TABLE_SUFFIXES = (".csv", ".parquet")
WINDOWS = 8  # of one recording that may wait for the network; as many runs can work on it

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class Item:
    """One recording to answer, or a part of one."""

    sound: Path | Part
    file: str  # as the user named it
    columns: dict[str, str] = field(default_factory=dict)  # of its table, but for `file`
    problem: str = ""  # why there is nothing to read: a row that makes no sense, a pattern that matches nothing

    @property
    def path(self) -> Path:
        """The file."""
        return Path(name_of(self.sound))

    @property
    def part(self) -> Part:
        """What of it."""
        return part_of(self.sound)

    def truth(self, labels: Collection[str] = ()) -> str:
        """The true emotion where its table has an `emotion` column, else empty.

        As the table writes it where that is one of a model's labels, else canonical where the name is known.
        """
        named = given(self.columns.get("emotion", ""))
        if named in labels:
            return named
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


@dataclass(frozen=True)
class Speakers:
    """What is known of each who speaks, and the column that names them."""

    column: str
    known: dict[str, np.ndarray]  # sums of what `Predictor.statistics` gives
    digest: str  # of the recordings that they are known from


# --- what the user named -> items


def find(paths: Iterable[str | Path], table: str | None = None, channel: int | None = None) -> Iterator[Item]:
    """List the recordings that paths, folders, globs and tables stand for.

    Parameters
    ----------
    paths : iterable of str or pathlib.Path
        A recording; a folder, searched with all its sub-folders for `AUDIO_SUFFIXES`; a glob; or a table, CSV or
        Parquet, with a `file` column, whose paths are relative to the table's folder, and `start`, `end` and `channel`
        columns where it names parts of files. Every other column is kept.
    table : str, optional
        Then each path is the folder of an audformat database, and stands for its table of this name.
    channel : int, optional
        The only one of each recording that is heard, 0 the first, unless a table names another.

    Yields
    ------
    Item
        In the order given; folders and globs sorted. What cannot be found or understood is an item with a `problem`.
    """
    for path in map(str, paths):
        try:
            for item in _find(path if table is None else _table_of(path, table)):
                yield (
                    item
                    if channel is None or item.part.channel is not None
                    else replace(item, sound=replace(item.part, channel=channel))
                )
        except (ValueError, OSError) as error:
            yield Item(Path(path), path, problem=str(error))


def columns(paths: Iterable[str | Path], table: str | None = None) -> list[str]:
    """Name the columns that the items of `find` can have, reading no more than the heads of tables.

    Parameters
    ----------
    paths, table
        As for `find`.

    Returns
    -------
    list of str
        Without `file`; each once, in the order met.
    """
    names: dict[str, None] = {}
    for path in map(str, paths):
        # a table that cannot be read has no items with columns either
        with suppress(ValueError, OSError):
            path = path if table is None else _table_of(path, table)
            if _is_pattern(path):
                names |= dict.fromkeys(columns(_matches(path)))
            elif _is_table(path):
                with _rows(path) as (header, _):
                    names |= dict.fromkeys(name for name in header if name != "file")
    return list(names)


def apart_from(paths: Iterable[str], output: Path) -> list[str]:
    """Leave out what an earlier run wrote, which a `*` may have caught.

    Parameters
    ----------
    paths : iterable of str
        As for `find`.
    output : pathlib.Path
        With its journal and its table of problems beside it.

    Returns
    -------
    list of str
        Patterns are expanded; those that match nothing stay.

    Raises
    ------
    ValueError
        If nothing else is named.
    """
    written = {os.path.abspath(f"{output}{suffix}") for suffix in ("", ".journal", ".problems.csv")}
    named = [match for path in paths for match in (_matches(path) if _is_pattern(path) else [path]) or [path]]
    apart = [path for path in named if os.path.abspath(path) not in written]
    if not apart:
        raise ValueError(f"{output}: is the output, and no other recording is named")
    return apart


def _find(path: str) -> Iterator[Item]:
    if _is_pattern(path):
        matches = _matches(path)
        if not matches:
            raise ValueError(f"{path}: matches no file; check the pattern and the folder it is relative to")
        yield from find(matches)
    elif os.path.isdir(path):
        yield from _folder(path)
    elif _is_table(path):
        yield from _table(path)
    elif path:
        yield Item(Path(path), path)
    else:
        raise ValueError("an empty name is no recording; is a variable of the shell not set?")


def _is_pattern(path: str) -> bool:
    return not os.path.exists(path) and glob.has_magic(path)


def _is_table(path: str) -> bool:
    return path.casefold().endswith(TABLE_SUFFIXES) and os.path.isfile(path)


def _table_of(database: str, table: str) -> str:
    """Find the file of a table in the folder of an audformat database. What is pickled is never read."""
    found = os.listdir(database) if os.path.isdir(database) else []
    names = [name.removeprefix("db.") for name in found if name.startswith("db.")]
    if "yaml" not in names:
        raise ValueError(f"{database}: not the folder of an audformat database, which holds db.yaml")
    for suffix in TABLE_SUFFIXES:
        if f"{table}{suffix}" in names:
            return os.path.join(database, f"db.{table}{suffix}")
    if f"{table}.pkl" in names:
        raise ValueError(f"{database}: its table {table} is pickled; save it with storage_format='parquet'")
    known = sorted({name.rpartition(".")[0] for name in names if name.endswith(TABLE_SUFFIXES)})
    raise ValueError(f"{database}: has no table {table}, only {', '.join(known) or 'its header'}")


def _matches(pattern: str) -> list[str]:
    matches = sorted(glob.glob(pattern, recursive=True))
    if "**" not in pattern:
        return matches
    above = Path(*takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
    matches = [match for match in matches if not _goes_round(os.path.dirname(match), str(above))]
    # a folder is matched beside its own files
    return [match for match in matches if not os.path.isdir(match)] or matches


@lru_cache(maxsize=1024)
def _goes_round(folder: str, above: str) -> bool:
    """Whether a link on the way from `above` to a folder leads back to the way."""
    parts = Path(os.path.relpath(folder, above)).parts
    ways = [os.path.realpath(os.path.join(above, *parts[:depth])) for depth in range(len(parts) + 1)]
    return len(set(ways)) < len(ways)


def _folder(folder: str) -> Iterator[Item]:
    empty = True
    for item in _below(folder):
        empty = False
        yield item
    if empty:
        raise ValueError(f"{folder}: no recordings in this folder or below; looked for {', '.join(AUDIO_SUFFIXES)}")


def _below(folder: str, above: tuple[tuple[int, int], ...] = ()) -> Iterator[Item]:
    """Walk a folder in the order of its sorted paths, holding no more than the names on the way down.

    Links are followed, but not to a folder on the way down.
    """
    try:
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        problem = f"{folder}: cannot be listed ({error.strerror}); check its permissions"
        yield Item(Path(folder), folder, problem=problem)
        return
    for entry in entries:
        if entry.name.startswith("."):  # left by file systems, such as the ._talk.wav of macOS
            continue
        link = entry.is_symlink()  # one that cannot be followed is a file, which is named when it is read
        if os.path.isdir(entry.path) if link else entry.is_dir():
            yield from _below(entry.path, (*above, here))
        elif entry.name.casefold().endswith((*AUDIO_SUFFIXES, *NOT_DECODED)) and (link or entry.is_file()):
            path = Path(entry.path)
            yield Item(path, str(path))


def _table(table: str) -> Iterator[Item]:
    with _rows(table) as (header, rows):
        empty = True
        for number, row in enumerate(rows, start=2):
            empty = empty and not row
            try:
                if row:
                    yield _row(Path(table).parent, header, row)
            except ValueError as error:
                yield Item(Path(table), table, problem=f"{table}: row {number}: {error}")
    if empty:
        raise ValueError(f"{table}: has no rows; list one recording per line under 'file'")


@contextmanager
def _rows(table: str) -> Iterator[tuple[list[str], Iterator[list[str]]]]:
    """Open a table: its header, checked, and its rows."""
    with closing(_lines(table)) as rows:
        header = [name.strip() for name in next(rows, [])]
        if "file" not in header:
            raise ValueError(f"{table}: has no column 'file', only {', '.join(header) or 'nothing'}; name it in line 1")
        if len(set(header)) < len(header):
            raise ValueError(f"{table}: two columns have the same name in {', '.join(header)}; rename one")
        yield header, rows


def _lines(table: str) -> Generator[list[str]]:
    """Read the header and the rows of a table as text."""
    if table.casefold().endswith(".parquet"):
        yield from _parquet(table)
        return
    try:
        with closing(csv_rows(table)) as rows:
            yield from (row for _, row in rows)
    except UnicodeDecodeError as error:
        raise ValueError(f"{table}: not a CSV table in UTF-8 ({error}); save it as one") from error


def _parquet(table: str) -> Generator[list[str]]:
    import pyarrow
    from pyarrow import parquet

    def texts(column: Any) -> list[str]:
        if pyarrow.types.is_duration(column.type):
            nanoseconds = column.cast(pyarrow.duration("ns")).cast("int64").to_pylist()
            return ["" if ns is None else format(Decimal(ns) / 10**9, "f") for ns in nanoseconds]
        return ["" if value is None or value != value else str(value) for value in column.to_pylist()]

    try:
        with parquet.ParquetFile(table) as file:
            yield file.schema_arrow.names
            for rows in file.iter_batches():
                yield from map(list, zip(*map(texts, rows.columns), strict=True))
    except pyarrow.ArrowException as error:
        raise ValueError(f"{table}: not a Parquet table ({error}); write it again") from error


def _row(folder: Path, header: list[str], row: list[str]) -> Item:
    if len(row) != len(header):
        what = "quote those that hold a comma" if len(row) > len(header) else "leave none out, not even an empty one"
        raise ValueError(f"{len(row)} values under {len(header)} columns; {what}")
    columns = dict(zip(header, row, strict=True))
    file = columns.pop("file").strip()
    if not file:
        raise ValueError("names no file; fill it in or remove the row")
    return Item(located(folder / file, columns), file, columns)


# --- items -> answers


def predict_many(
    predictor: Predictor,
    items: Iterable[Item],
    *,
    jobs: int = 1,
    window_s: float | None = None,
    hop_s: float | None = None,
    speech_only: bool = False,
    speakers: Speakers | None = None,
) -> Generator[Answer, None, None]:
    """Answer many recordings; one that is at fault stops none of the others.

    Reading and resampling go on in threads of their own while the network runs in `jobs` others, one window each; all
    of that leaves Python's lock free. A long recording is spread over the runs window by window.

    Parameters
    ----------
    predictor : Predictor
        The model, best loaded with `threads=1` if `jobs` is more than 1.
    items : iterable of Item
        From `find`; taken as they are needed.
    jobs : int
        Runs of the network at a time, at least 1. Each takes as many cores as the predictor has threads.
    window_s, hop_s, speech_only : optional
        As for `Predictor.__call__`.
    speakers : Speakers, optional
        From `meet`: what is known of those who speak.

    Yields
    ------
    Answer
        One for each item, in order. Closing the generator ends the work within a fraction of a second.

    Raises
    ------
    ValueError
        If the window or the hop does not suit the model, or there are no jobs.
    """
    windowing = predictor.windowing(window_s, hop_s)
    if jobs < 1:
        raise ValueError(f"{jobs} jobs: give at least 1")
    # on the way out the network stops first, and with it the readers that wait for it
    with _threads(READERS * jobs) as readers, _threads(jobs) as network:
        whose = partial(_whose, predictor, speakers)
        answer = partial(_answer, whose, windowing, speech_only, partial(_ahead, network, WINDOWS))
        yield from _ahead(readers, AHEAD * jobs, answer, items)


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _ahead(pool: Executor, most: int, function: Callable[[In], Out], values: Iterable[In]) -> Iterator[Out]:
    """Map on the threads of a pool: results in order, and at most so many values in work or waiting at a time."""
    waiting = deque()
    for value in values:
        waiting.append(pool.submit(function, value))
        if len(waiting) == most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def meet(
    predictor: Predictor, items: Iterable[Item], column: str, jobs: int = 1, speech_only: bool = False
) -> Speakers:
    """Get to know all who speak in many recordings, each from all of their own.

    Parameters
    ----------
    predictor : Predictor
        A model that was trained to enrol speakers.
    items : iterable of Item
        From `find`. Those without a speaker tell nothing; those at fault neither, `predict_many` will name them.
    column : str
        Of their tables, that names who speaks.
    jobs : int
        Recordings at a time, at least 1.
    speech_only : bool, optional
        As for `Predictor.__call__`.

    Returns
    -------
    Speakers
        For `predict_many`. A recording that is then answered is one of those its speaker is known from.

    Raises
    ------
    ValueError
        If the model was not trained to enrol speakers, no item names a speaker, none that does can be read, or there
        are no jobs.
    """

    def told(item: Item) -> tuple[Item, str, np.ndarray | str]:
        name = given(item.columns.get(column, ""))
        if not name or item.problem:
            return item, name, item.problem or ""
        try:
            return item, name, predictor.statistics(item.sound, speech_only=speech_only)
        except (ValueError, OSError) as error:
            return item, name, str(error)

    predictor.check_enrols()
    if jobs < 1:
        raise ValueError(f"{jobs} jobs: give at least 1")
    known: dict[str, np.ndarray] = {}
    problem = ""
    heard = 0  # a sum, whatever order they come in
    with _threads(jobs) as readers:
        for item, name, statistics in _ahead(readers, AHEAD * jobs, told, items):
            if isinstance(statistics, str):
                problem = problem or (name and statistics)
            else:
                clip = f"{name}\0{item.file}\0{item.part.fragment}"
                heard += int.from_bytes(hashlib.sha256(clip.encode()).digest()[:8])
                known[name] = known.get(name, np.zeros_like(statistics)) + statistics
    if not known and problem:
        raise ValueError(f"no recording that names its speaker can be read, the first: {problem}")
    if not known:
        raise ValueError(f"no recording names its speaker in a column {column!r}; see which columns the table has")
    return Speakers(column, known, f"{heard % 2**64:016x}")


def lacks_bands(predictor: Predictor, item: Item) -> bool:
    """Tell whether a recording is sampled as telephones are, too slowly for what a model listens to.

    Parameters
    ----------
    predictor : Predictor
        The model.
    item : Item
        Only its header is read.

    Returns
    -------
    bool
        Whether a quarter of what the model listens to, or more, cannot be there. False of what cannot be read.
    """
    try:
        with opened(item.path) as recording:
            return too_slow(predictor, recording.sampling_rate)
    except (ValueError, OSError):
        return False


def too_slow(predictor: Predictor, sampling_rate: int) -> bool:
    """Tell whether a quarter or more of what a model listens to is above what this rate, in Hz, can hold."""
    return sampling_rate / 2 <= 0.75 * predictor.band_hz[1]


def _whose(predictor: Predictor, speakers: Speakers | None, item: Item) -> Predictor:
    if speakers is None:
        return predictor
    statistics = speakers.known.get(given(item.columns.get(speakers.column, "")))
    return predictor if statistics is None else predictor.knowing(statistics)


def _answer(
    whose: Callable[[Item], Predictor], windowing: tuple[float, float], speech_only: bool, spread: Spread, item: Item
) -> Answer:
    if item.problem:
        return Answer(item, [], item.problem)
    try:
        predictions, problem = whose(item).hear(item.sound, *windowing, item.file, speech_only, batch=1, spread=spread)
        return Answer(item, predictions, problem)
    except (ValueError, OSError) as error:
        return Answer(item, [], str(error))  # what was heard before the fault is no answer
    # a fault of ours that one recording brings to light should not cost all the others
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        return Answer(item, [], f"{item.path}: {what}; a fault of Vervet, please report it with the file")
