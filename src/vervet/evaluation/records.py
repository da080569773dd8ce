"""The records of results.json, one for each measured run: what they hold, their file, their sums over seeds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vervet.corpora import OWN, PUBLISHED, release_of
from vervet.evaluation.metrics import Scores, from_confusion, mean_spread, pooled
from vervet.files import write_whole

Record = dict[str, Any]

NETWORKS = ("teacher", "teacher-large", "student")
# How many folds each protocol has; those of `speaker` are speakers, or blocks of them.
FOLDS = {"paper": 5, "clip": 5, "sentence": 5}


def _text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _fraction(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _interval(value: Any) -> bool:
    pair = isinstance(value, list | tuple) and len(value) == 2 and all(map(_fraction, value))
    return value is None or (pair and value[0] <= value[1])


def _labels(value: Any) -> bool:
    return isinstance(value, list) and len(value) >= 2 and all(map(_text, value)) and len(set(value)) == len(value)


def _matrix(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, list) and all(map(_count, row)) for row in value)


def _versions(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(found, dict) and found.keys() == {"wa", "n"} and _fraction(found["wa"]) and _count(found["n"])
        for found in value.values()
    )


def _folds(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(map(_count, value)) and len(set(value)) == len(value)


def _left_out(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_count, value.values()))


def _enrolled(value: Any) -> bool:
    keys = {"wa": _fraction, "uar": _fraction, "macro_f1": _fraction, "confusion": _matrix, "n_test": _count}
    keys |= {"wa_interval": _interval, "uar_interval": _interval}
    return isinstance(value, dict) and all(
        count.isdigit() and found.keys() == keys.keys() and all(holds(found[key]) for key, holds in keys.items())
        for count, found in value.items()
    )


# What each key of a record holds, and how to tell.
_SCHEMA: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "corpus": ("a name", _text),
    "protocol": ("a name", _text),
    "leaky": ("true or false", lambda value: isinstance(value, bool)),
    "network": ("a name", _text),
    "recipe": ("a name", _text),
    "seed": ("a whole number, 0 or more", _count),
    "fold": ('a whole number, 0 or more, or "all"', lambda value: value == "all" or _count(value)),
    "wa": ("a fraction of 1", _fraction),
    "uar": ("a fraction of 1", _fraction),
    "macro_f1": ("a fraction of 1", _fraction),
    "wa_interval": ("[low, high], fractions of 1, or null", _interval),
    "uar_interval": ("[low, high], fractions of 1, or null", _interval),
    "confusion": ("rows of whole counts", _matrix),
    "labels": ("two or more names, each once", _labels),
    "n_test": ("a whole number, 0 or more", _count),
    "epochs": ("a whole number, 0 or more", _count),
    "split_hash": ("a name", _text),
    "commit": ("a name", _text),
    "machine": ("a name", _text),
    "minutes": ("a number, 0 or more", lambda value: _number(value) and 0 <= value < float("inf")),
    "command": ("a command line", _text),
    "folds": ("different whole numbers, 0 or more", _folds),
    "kept_epoch": ("a whole number, 0 or more", _count),
    "by_speaker": ("an object", lambda value: isinstance(value, dict)),
    "by_version": ("an object with wa and n of each version", _versions),
    "calibration": ("an object", lambda value: isinstance(value, dict)),
    "enrolled": ("an object with scores for each number of clips", _enrolled),
    "predicting": ("an object", lambda value: isinstance(value, dict)),
    "left_out": ("an object with a whole number for each kind of clip", _left_out),
}
_OPTIONAL = {"folds", "kept_epoch", "by_speaker", "by_version", "calibration", "enrolled", "left_out", "predicting"}


def validate(record: Record) -> None:
    """Check one record of results.json.

    Parameters
    ----------
    record : dict
        corpus, protocol, network, recipe (str), leaky (bool: true for protocol `paper`, and where clips of
        the test were copies of those trained on), seed (int), fold
        (int, or "all" for the pooled predictions of all folds), wa, uar, macro_f1 (fractions of 1), wa_interval,
        uar_interval ([low, high] by speaker, or null), labels, confusion (rows true, in the order of labels), n_test,
        epochs, split_hash, commit, machine, minutes, command. With fold "all" there may be `folds`, the pooled ones;
        with another, `kept_epoch`, counted from 0. `by_speaker` may hold each test speaker's scores, `by_version` WA
        and n of each version of the clips under `paper`, `calibration` what confidences are worth: ece_before, ece,
        answered and wa_answered, fractions of 1. `enrolled` may hold wa, uar, macro_f1, their intervals, confusion and
        n_test by the number of other clips of the speaker that the network was told of. Of a row `from` another corpus,
        `left_out` may hold how many clips were not asked about, by emotion or reason, `predicting` what
        `vervet.evaluation.cross` says of answers among all emotions that the model knows, not only the corpus's.

    Raises
    ------
    ValueError
        Names the key that is missing, unknown or at fault, or the two that contradict one another.
    """
    if not isinstance(record, dict):
        raise ValueError(f"a record is an object with keys, not {record!r}")
    if missing := sorted(_SCHEMA.keys() - _OPTIONAL - record.keys()):
        raise ValueError(f"missing key: {', '.join(missing)}")
    if unknown := sorted(record.keys() - _SCHEMA.keys()):
        raise ValueError(f"unknown key: {', '.join(unknown)}; known are {', '.join(_SCHEMA)}")
    for key, value in record.items():
        meaning, holds = _SCHEMA[key]
        if not holds(value):
            raise ValueError(f"{key} must be {meaning}, not {value!r}")
    _check_consistent(record)


def _check_consistent(record: Record) -> None:
    if record["protocol"] == "paper" and not record["leaky"]:
        raise ValueError("leaky is False under protocol 'paper', which always is")
    if "folds" in record and record["fold"] != "all":
        raise ValueError(f'folds belongs to fold "all", not to fold {record["fold"]}')
    scores = from_confusion(record["confusion"], record["labels"])
    if scores.n != record["n_test"]:
        raise ValueError(f"confusion sums to {scores.n}, n_test is {record['n_test']}")
    for key in ("wa", "uar", "macro_f1"):
        if abs(record[key] - getattr(scores, key)) > 1e-4:  # room for a rounded score
            raise ValueError(f"{key} is {record[key]}, its confusion matrix gives {getattr(scores, key):.6f}")


def load(path: Path) -> list[Record]:
    """Read and check results.json.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    list of dict
        Its records, see `validate`.

    Raises
    ------
    ValueError
        When the file is no JSON list, or a record is at fault; names file and record.
    OSError
        When the file cannot be read.
    """
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: is not JSON: {error}") from None
    if not isinstance(records, list):
        raise ValueError(f"{path}: is not a list of records")
    _validate_all(records, str(path))
    return records


def add(results_path: Path, records: Iterable[Record]) -> list[Record]:
    """Merge records into results.json.

    A record replaces that of the same corpus, protocol, network, recipe, seed and fold. A matched student of a recipe
    in which only settings of the stage `student` were changed is that of the unchanged recipe, and not filed beside it.
    The pooled record of a seed goes as soon as one of its folds is replaced alone.
    The file appears whole or not at all; two programs should not add at the same time.

    Parameters
    ----------
    results_path : Path
        The file; made, with its folder, where it does not exist.
    records : iterable of dict
        See `validate`. Of two with the same key the later one stays, but that of more folds pooled.

    Returns
    -------
    list of dict
        All records now in the file, sorted.

    Raises
    ------
    ValueError
        When a record, new or old, is at fault, or a table's or folders' are filed that are of other clips than those
        filed under the same name; then the file is left as it was.
    """
    new = list(records)
    _validate_all(new, "new records")
    old = load(results_path) if results_path.exists() else []
    by_key: dict[tuple, Record] = {}
    for record in old + new:
        known = by_key.get(key_of(record), record)
        if not set(known.get("folds", ())) > set(record.get("folds", ())):
            _same_clips(known, record)
            by_key[key_of(record)] = record
    kept = [record for record in by_key.values() if not (_repeats(record, by_key) or _outdated(record, by_key))]
    merged = sorted(kept, key=order)
    results_path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(results_path, _json(merged))
    return merged


def _same_clips(known: Record, record: Record) -> None:
    """Refuse another table or other folders under the name of those that are filed."""
    if record["corpus"] in OWN and record["fold"] != "all" and record["split_hash"] != known["split_hash"]:
        told = f"{record['corpus']}, protocol {record['protocol']}, recipe {record['recipe']}, fold {record['fold']}"
        raise ValueError(f"{told}: filed already, of other clips; file these in a JSON file of their own")


def _validate_all(records: Sequence[Record], where: str) -> None:
    for number, record in enumerate(records):
        try:
            validate(record)
        except ValueError as error:
            raise ValueError(f"{where}: record {number}: {error}") from None


def key_of(record: Mapping[str, Any]) -> tuple:
    """Corpus, protocol, network, recipe, seed and fold, which no two records share."""
    return tuple(record[key] for key in ("corpus", "protocol", "network", "recipe", "seed", "fold"))


def order(record: Record) -> tuple:
    """Where a record stands in the file: by its key, the pooled record of a seed after its folds."""
    *names, seed, fold = key_of(record)
    return (*names, seed, fold == "all", 0 if fold == "all" else fold)


def _repeats(record: Record, by_key: Mapping[tuple, Record]) -> bool:
    """Whether this is a matched student in which only settings of a later stage differ from one that is filed."""
    name, *changed = record["recipe"].split(" --")
    earlier = [setting for setting in changed if not setting.startswith("student.")]
    later = record["network"] == "student-matched" and len(earlier) < len(changed)
    return later and key_of(record | {"recipe": " --".join([name, *earlier])}) in by_key


def _outdated(record: Record, by_key: Mapping[tuple, Record]) -> bool:
    """Whether this is a pooled record, all of whose folds are there and have other predictions in sum."""
    if record["fold"] != "all" or "folds" not in record or "+" in record["corpus"]:  # of several, some clips come twice
        return False
    folds = [by_key.get((*key_of(record)[:-1], fold)) for fold in record["folds"]]
    known = [fold["confusion"] for fold in folds if fold is not None]
    return len(known) == len(folds) and not np.array_equal(np.sum(known, axis=0), record["confusion"])


def _json(records: Sequence[Record]) -> str:
    """One key per line, a matrix on one line: readable, and a changed score is one changed line."""
    blocks = []
    for record in records:
        ordered = [key for key in _SCHEMA if key in record]
        lines = [f"  {json.dumps(key)}: {json.dumps(record[key], ensure_ascii=False)}" for key in ordered]
        blocks.append(" {\n" + ",\n".join(lines) + "\n }")
    return "[\n" + ",\n".join(blocks) + "\n]\n"


# --- single runs: of one fold and seed, which are held against one another ----------------------------------------

Runs = dict[tuple[int, int], Record]  # by seed and fold


def runs_of(records: Sequence[Record]) -> dict[tuple[str, str, str, str], Runs]:
    """Group the records of single folds by corpus, protocol, network and recipe, in the order in which they are met."""
    found: dict[tuple[str, str, str, str], Runs] = {}
    for record in records:
        if record["fold"] != "all":
            corpus, protocol, network, recipe, *run = key_of(record)
            found.setdefault((corpus, protocol, network, recipe), {})[run[0], run[1]] = record
    return found


def whole_seeds(runs: Collection[tuple[int, int]]) -> set[tuple[int, int]]:
    """Of (seed, fold), those of the seeds that have most folds: a seed that is under way counts once it is done."""
    folds = Counter(seed for seed, _ in runs)
    return {(seed, fold) for seed, fold in runs if folds[seed] == max(folds.values())}


def by_seed(runs: Runs) -> dict[int, Scores]:
    """Pool the predictions of all folds of each seed: their scores."""
    found: dict[int, list[Record]] = {}
    for (seed, _), record in sorted(runs.items()):
        found.setdefault(seed, []).append(record)
    return {
        seed: pooled([one["confusion"] for one in members], members[0]["labels"]) for seed, members in found.items()
    }


# --- rows: one per corpus, protocol, network, recipe and set of folds, over seeds ----------------------------------


def summarise(records: Sequence[Record]) -> list[Record]:
    """Bring the records of one experiment together, over folds and seeds.

    Parameters
    ----------
    records : sequence of dict
        See `validate`.

    Returns
    -------
    list of dict
        One per corpus, protocol, network, recipe and set of folds, with these and leaky, seeds (list), n_test,
        wa, uar, macro_f1 (mean and spread over seeds), wa_interval, uar_interval (means of the seeds' limits, or None)
        and commands. Scores of a seed are those of all its folds pooled: its record of fold "all", or where that is
        missing or has fewer folds, the sum of its folds' confusion matrices.

    Raises
    ------
    ValueError
        When the folds of one experiment have different labels.
    """
    seeds: dict[tuple, list[Record]] = {}
    for record in sorted(records, key=order):
        seeds.setdefault(key_of(record)[:-1], []).append(record)
    groups: dict[tuple, list[Record]] = {}
    for key, members in seeds.items():
        whole = _pool(members)
        groups.setdefault((*key[:-1], whole["folds"]), []).append(whole)
    return [_row(members) for _, members in sorted(groups.items(), key=lambda item: _row_order(item[0]))]


def _row_order(key: tuple) -> tuple:
    corpus, protocol, network, recipe, folds = key
    known = [*PUBLISHED, corpus].index(corpus), [*FOLDS, "speaker", protocol].index(protocol)
    return (*known, corpus, protocol, recipe, [*NETWORKS, network].index(network), network, -len(folds), folds)


def all_folds(corpus: str, protocol: str) -> int | None:
    """Say how many folds a protocol has.

    Parameters
    ----------
    corpus, protocol : str
        Names as in the records.

    Returns
    -------
    int or None
        None where it is not known, as for tables with their own split.
    """
    if protocol != "speaker":
        return FOLDS.get(protocol)
    release = release_of(corpus)
    return len(release.blocks or release.speakers) or None


def _pool(members: Sequence[Record]) -> Record:
    """All folds of one seed as one record with `folds` and `commands`."""
    single = [record for record in members if record["fold"] != "all"]
    measured = tuple(record["fold"] for record in single)
    for record in members:
        if record["fold"] == "all":
            everything = tuple(range(all_folds(record["corpus"], record["protocol"]) or 0))
            folds = tuple(sorted(record.get("folds", everything or measured)))
            if set(measured) <= set(folds):
                return record | {"folds": folds, "commands": [one["command"] for one in (*single, record)]}
    if len({tuple(record["labels"]) for record in single}) > 1:
        raise ValueError(f"the folds of {', '.join(map(str, key_of(single[0])[:-1]))} have different labels")
    if len(single) == 1:
        return single[0] | {"folds": measured, "commands": [single[0]["command"]]}
    scores = pooled([record["confusion"] for record in single], single[0]["labels"])
    measures = {"wa": scores.wa, "uar": scores.uar, "macro_f1": scores.macro_f1, "n_test": scores.n}
    measures |= {"wa_interval": None, "uar_interval": None}  # counts no longer say who spoke
    return single[0] | measures | {"folds": measured, "commands": [record["command"] for record in single]}


def _row(members: Sequence[Record]) -> Record:
    """Put the seeds of one experiment into one row."""
    row = {key: members[0][key] for key in ("corpus", "protocol", "leaky", "network", "recipe", "folds")}
    row["seeds"] = [record["seed"] for record in members]
    row["n_test"] = sorted({record["n_test"] for record in members})
    row["commands"] = list(dict.fromkeys(command for record in members for command in record["commands"]))
    for key in ("wa", "uar", "macro_f1"):
        row[key] = mean_spread([record[key] for record in members])
    for key in ("wa_interval", "uar_interval"):
        limits = [record[key] for record in members]
        row[key] = None if None in limits else tuple(np.mean(limits, axis=0).tolist())
    return row
