"""The scores of finished runs, from the predictions they stored."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vervet.config import STAGES, VERSIONS
from vervet.corpora import OWN, PUBLISHED, title_of
from vervet.evaluation.calibration import calibration_error, softmax
from vervet.evaluation.leakage import read_split
from vervet.evaluation.metrics import by_speaker, from_confusion, interval, scores
from vervet.evaluation.records import all_folds
from vervet.files import read_json, write_whole


def evaluate(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Score the test sides of runs.

    Parameters
    ----------
    folders : sequence of Path
        Run folders, each of one fold. Folds of one experiment (same corpus, protocol, recipe and seed) are also pooled.

    Returns
    -------
    list of dict
        A record for each network of each run, in the shape of `results/results.json`; then, for every experiment of
        more than one fold, a record with fold "all" whose scores are those of the predictions of all its folds.

    Raises
    ------
    ValueError
        If a folder holds no run, the run is not finished, one fold is given twice, or folds are of different clips.
    """
    experiments: dict[tuple, list[Tested]] = {}
    first: dict[tuple, tuple[Path, Any]] = {}
    for folder in folders:
        networks = read_tested(folder)
        known = _known_clips(folder, networks[0]) if networks else None
        for tested in networks:
            key = tuple(tested.record[name] for name in ("corpus", "protocol", "network", "recipe", "seed"))
            experiments.setdefault(key, []).append(tested)
            other, wanted = first.setdefault(key, (folder, known))
            if known != wanted:
                raise ValueError(f"{folder} and {other} are not of the same clips; score them one by one")
    records = [tested.record for runs in experiments.values() for tested in runs]
    return records + [pool(runs) for runs in experiments.values() if len(runs) > 1]


def _known_clips(folder: Path, tested: Tested) -> tuple[list[str], set[tuple[str, str]]]:
    """What two folds of one experiment share: the labels and, of recordings of one's own, the clips."""
    if tested.record["corpus"] not in OWN:
        return tested.record["labels"], set()
    rows = read_split(folder / "split.csv")
    return tested.record["labels"], {(row["source"], row["emotion"]) for row in rows}


def elsewhere(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """What `vervet.evaluation.cross` has measured of runs and left in their folders; records, as of `evaluate`.

    Those of recordings of one's own stay there: two tables have no names that would tell their records apart.
    """
    found = [read_json(path) for folder in folders for path in sorted(folder.glob("cross-*.json"))]
    return [record for record in found if record["corpus"] not in OWN]


@dataclass(frozen=True)
class Tested:
    """A network of a finished run, and what it answered on the test side.

    Attributes
    ----------
    stage : str
        `teacher`, `matching`, `student` or `functionals`.
    card : dict
        Its `model.json`.
    rows : list of dict
        Its `predictions.csv`: file, version, speaker, sex, emotion, predicted, and the probability of each emotion.
    record : dict
        Its scores, in the shape of `results/results.json`.
    enrolled : list of dict
        Its `enrolled.csv`: file, speaker, emotion, and the answer for each number of other clips of the speaker that it
        was told of. Empty for a network that was not trained to be told.
    """

    stage: str
    card: dict[str, Any]
    rows: list[dict[str, str]]
    record: dict[str, Any]
    enrolled: list[dict[str, str]]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(clips, classes), as the network answered, temperature applied."""
        return np.array([[float(row[label]) for label in self.record["labels"]] for row in self.rows])

    @property
    def right(self) -> NDArray[np.bool_]:
        """(clips,) whether the answer is the true emotion."""
        return np.array([row["emotion"] == row["predicted"] for row in self.rows])

    @property
    def uncalibrated(self) -> NDArray[np.float64]:
        """(clips, classes), as the network would answer without its temperature."""
        return softmax(np.log(np.maximum(self.probabilities, 1e-300)) * self.card.get("temperature", 1.0))


def read_tested(folder: Path) -> list[Tested]:
    """Read what the networks of a run answered on its test side.

    Parameters
    ----------
    folder : Path
        The run folder.

    Returns
    -------
    list of Tested
        In the order of their stages.

    Raises
    ------
    ValueError
        If the folder holds no run, or the run is not finished.
    """
    path = folder / "run.json"
    if not path.exists():
        if (folder / "finetune.json").exists():
            raise ValueError(f"{folder}: a fine-tuning; give the runs in it, {folder}/fold-?, or read its metrics.json")
        raise ValueError(f"{folder}: holds no run.json; it is not a run folder; any model can be tested with --on")
    run = read_json(path)
    audit = folder / "audit.json"  # finds copies under other names, too
    run["leaky"] = run["leaky"] or (audit.exists() and read_json(audit)["leaky"])
    found = []
    for stage in STAGES:
        predictions = folder / stage / "predictions.csv"
        if predictions.exists():
            rows = _read_table(predictions)
            card = read_json(folder / stage / "model.json")
            told = folder / stage / "enrolled.csv"
            tested = Tested(stage, card, rows, _record(run, card, rows), _read_table(told) if told.exists() else [])
            if tested.enrolled:
                tested.record["enrolled"] = enrolled_scores(tested.enrolled, run["labels"])
            if "temperature" in card:
                tested.record["calibration"] = _calibration([tested]) | {
                    key: card[key] for key in ("temperature", "uncertain_below")
                }
            found.append(tested)
    if not found and run["protocol"] != "all":
        raise ValueError(f"{folder}: the run is not finished; give its `vervet train` command again to go on")
    return found


def _read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def network_of(card: dict[str, Any]) -> str:
    """What records call the network of this `model.json`: the student has three names, by the stage it comes from."""
    return card["network"] + {"matching": "-matched", "functionals": "+functionals"}.get(card.get("stage", ""), "")


def _record(run: dict[str, Any], card: dict[str, Any], rows: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "corpus": run["corpus"],
        "protocol": run["protocol"],
        "leaky": run["leaky"],
        "network": network_of(card),
        "recipe": run["recipe"],
        "seed": run["settings"]["seed"],
        "fold": run["fold"],
        **scored_answers(rows, run["labels"]),
        "labels": run["labels"],
        "epochs": card["epochs"],
        "kept_epoch": card["epoch"],
        "split_hash": run["split_hash"],
        "commit": card["commit"],
        "machine": run["machine"],
        "minutes": round(card["minutes"], 2),
        "command": run["command"],
    }


def scored_answers(rows: list[dict[str, str]], labels: list[str]) -> dict[str, Any]:
    """Scores of some answers, as a record has them: of all, with intervals, and by speaker.

    Parameters
    ----------
    rows : list of dict
        emotion, predicted, speaker, perhaps version; as in `predictions.csv`.
    labels : list of str
        The emotions, in the order of the confusion matrix.

    Returns
    -------
    dict
        wa, uar, macro_f1, wa_interval, uar_interval, confusion, n_test, by_speaker; by_version, with WA and number of
        items, where the rows are of several versions of clips.
    """
    true, predicted = [row["emotion"] for row in rows], [row["predicted"] for row in rows]
    speakers = [row["speaker"] for row in rows]
    overall = scores(true, predicted, labels)
    versions = sorted({row["version"] for row in rows if "version" in row}, key=VERSIONS.index)
    copies = {}
    if len(versions) > 1:
        for version in versions:
            right = [row["emotion"] == row["predicted"] for row in rows if row["version"] == version]
            copies[version] = {"wa": sum(right) / len(right), "n": len(right)}
    intervals = {}
    for measure in ("wa", "uar"):
        bounds = interval(true, predicted, speakers, labels, measure) if all(speakers) else None
        intervals[f"{measure}_interval"] = list(bounds) if bounds else None
    found = by_speaker(true, predicted, speakers, labels) if all(speakers) else {}
    return {
        "wa": overall.wa,
        "uar": overall.uar,
        "macro_f1": overall.macro_f1,
        **intervals,
        "confusion": overall.confusion,
        "n_test": overall.n,
        "by_speaker": {name: {"wa": s.wa, "uar": s.uar, "n": s.n} for name, s in found.items()},
        **({"by_version": copies} if copies else {}),
    }


def enrolled_scores(rows: list[dict[str, str]], labels: list[str]) -> dict[str, Any]:
    """Score answers by the number of other clips of the speaker that the network was told of.

    Parameters
    ----------
    rows : list of dict
        emotion, speaker, and under each such number the answer.
    labels : list of str
        The emotions.

    Returns
    -------
    dict
        For each number the scores, as a record has them.
    """
    found = {}
    for count in (key for key in rows[0] if key.isdigit()):
        told = scored_answers([row | {"predicted": row[count]} for row in rows], labels)
        found[count] = {key: value for key, value in told.items() if key != "by_speaker"}
    return found


def _calibration(runs: Sequence[Tested]) -> dict[str, Any]:
    """What temperature and threshold do to the test clips of one run or several folds."""
    counted = _first_answers(runs[0].record["corpus"], [row for run in runs for row in run.rows])
    before = np.concatenate([run.uncalibrated.max(1) for run in runs])[counted]
    after = np.concatenate([run.probabilities.max(1) for run in runs])[counted]
    answered = np.concatenate([run.probabilities.max(1) >= run.card["uncertain_below"] for run in runs])[counted]
    right = np.concatenate([run.right for run in runs])[counted]
    return {
        "ece_before": calibration_error(before, right),
        "ece": calibration_error(after, right),
        "answered": float(answered.mean()),
        "wa_answered": float(right[answered].mean()) if answered.any() else None,
    }


def pool(runs: Sequence[Tested]) -> dict[str, Any]:
    """Score the folds of one network together: a record with fold "all".

    Raises
    ------
    ValueError
        If one fold is given twice.
    """
    runs = sorted(runs, key=lambda run: run.record["fold"])
    records = [run.record for run in runs]
    folds = [record["fold"] for record in records]
    first = records[0]
    if len(set(folds)) < len(folds):
        raise ValueError(f"{first['corpus']}, {first['protocol']}: fold given twice among {folds}")
    rows = _counted(first["corpus"], [row for run in runs for row in run.rows])
    hashes = "".join(record["split_hash"] for record in records)
    pooled = {key: value for key, value in first.items() if key not in ("kept_epoch", "calibration", "enrolled")}
    if all("calibration" in record for record in records):
        pooled["calibration"] = _calibration(runs)
    if all(run.enrolled for run in runs):
        pooled["enrolled"] = enrolled_scores(
            _counted(first["corpus"], [row for run in runs for row in run.enrolled]), first["labels"]
        )
    return pooled | {
        "fold": "all",
        "folds": folds,
        "leaky": any(record["leaky"] for record in records),
        **scored_answers(rows, first["labels"]),
        "split_hash": hashlib.sha256(hashes.encode()).hexdigest()[:16],
        **{key: "; ".join(dict.fromkeys(record[key] for record in records)) for key in ("commit", "machine")},
        "minutes": round(sum(record["minutes"] for record in records), 2),
    }


def _first_answers(corpus: str, rows: Sequence[dict[str, str]]) -> list[int]:
    """Which rows count. Of several corpora, that with fewer folds begins anew when they are through."""
    if "+" not in corpus:
        return list(range(len(rows)))
    first: dict[tuple, int] = {}
    for number, row in enumerate(rows):
        name = Path(row["file"]).name  # older answers lack the folder
        first.setdefault((name, *(row.get(key) for key in ("version", "speaker"))), number)
    return list(first.values())


def _counted(corpus: str, rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    return [rows[number] for number in _first_answers(corpus, rows)]


def present(folder: Path) -> list[dict[str, Any]]:
    """Write what a finished run looks like: `metrics.json`, and into `figures/` its curves and confusion matrices.

    There are no curves of a run without epochs.

    Returns
    -------
    list of dict
        Its records, as `evaluate` gives them.
    """
    from vervet.evaluation.figures import confusion_figure, curves_figure

    records = evaluate([folder])
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    first = records[0]
    title = f"{title_of(first['corpus'])}, fold {first['fold']}"
    if epochs := history(folder):
        curves_figure(epochs, title, first["protocol"]).savefig(figures / "curves.png", dpi=120)
    for record in records:
        found = from_confusion(record["confusion"], record["labels"])
        figure = confusion_figure(found, record["labels"], f"{title}, {record['network']}", record["protocol"])
        figure.savefig(figures / f"confusion-{record['network']}.png", dpi=120)
    write_whole(folder / "metrics.json", f"{to_json(records)}\n")  # the last: where it is, the run is written up
    return records


def history(folder: Path) -> list[dict[str, Any]]:
    """Every epoch of every stage of a run, as `log.csv` has it, with `stage` and `chosen`: its weights were kept."""
    rows = []
    for stage in STAGES:
        log = folder / stage / "log.csv"
        if (folder / stage / "predictions.csv").exists() and log.exists():
            chosen = read_json(folder / stage / "model.json")["epoch"]
            with log.open(newline="") as file:
                for text in csv.DictReader(file):
                    row = {key: float(value) for key, value in text.items()}
                    rows.append(row | {"stage": stage, "epoch": int(row["epoch"]), "chosen": row["epoch"] == chosen})
    return rows


def to_json(records: list[dict[str, Any]]) -> str:
    """Records as JSON, one list."""
    return json.dumps(records, indent=1, ensure_ascii=False)


def _fold_cell(record: dict[str, Any]) -> str:
    """The fold, or "all", or how many of them were pooled."""
    every = all_folds(record["corpus"], record["protocol"]) if record["corpus"] in PUBLISHED else None
    if record["fold"] != "all" or not every or len(record.get("folds", range(every))) == every:
        return str(record["fold"])
    return f"{len(record['folds'])} of {every}"


def _told(record: dict[str, Any], counts: Iterable[str]) -> dict[str, str]:
    """Of how many other clips of a speaker a network was told, in words: no more than there are, and that once."""
    most = max((speaker["n"] for speaker in record["by_speaker"].values()), default=1) - 1
    told = {count: count for count in counts if int(count) <= most}
    rest = [count for count in counts if int(count) > most]
    return told | ({rest[0]: f"all {most}"} if rest and str(most) not in told and most else {})


def summary(records: list[dict[str, Any]]) -> str:
    """Records as a table for people; below it the speakers and the confusion matrix of the last."""
    protocols = [record["protocol"] + (" (leaky)" if record["leaky"] else "") for record in records]
    wide = max(8, *(len(record["corpus"]) for record in records))
    wider = max(16, *map(len, protocols))
    lines = [
        f"{'corpus':{wide}} {'protocol':{wider}} {'fold':>7} {'network':16} {'clips':>6} "
        f"{'WA':>7} {'UAR':>7} {'F1':>7}  UAR 95 %"
    ]
    for record, protocol in zip(records, protocols, strict=True):
        bounds = record["uar_interval"]
        between = f"{bounds[0]:.1%} to {bounds[1]:.1%}" if bounds else "-"
        lines.append(
            f"{record['corpus']:{wide}} {protocol:{wider}} {_fold_cell(record):>7} {record['network']:16} "
            f"{record['n_test']:6d} {record['wa']:7.2%} {record['uar']:7.2%} {record['macro_f1']:7.2%}  {between}"
        )
    last = records[-1]
    heard = [title_of(name) for name in last["protocol"].replace(",", "").split()[1:] if name in PUBLISHED]
    if last["corpus"] in OWN and heard:
        lines += ["", f"The model has heard {' and '.join(heard)}: clips and voices from there are not new to it"]
    if last["leaky"] and last["protocol"].startswith("from "):
        lines += ["", "The model was trained on some of these clips, or on their speakers: no score counts"]
    if found := last.get("left_out"):
        kinds = ", ".join(f"{kind} {count}" for kind, count in found.items())
        lines += ["", f"Clips left out, which the model has no emotion for or no answer can be right about: {kinds}"]
    if found := last.get("predicting"):
        lines += ["", f"As `vervet predict` answers, among all emotions that the model knows: WA {found['wa']:.2%}"]
        if "answered" in found:
            right = "" if found["wa_answered"] is None else f", {found['wa_answered']:.1%} of these right"
            lines[-1] += f"; {found['answered']:.0%} are not uncertain{right}"
        known = found.get("wa_enrolled", {})
        told = [f"{known[count]:.2%} told of {words}" for count, words in _told(last, known).items()]
        lines += [f"and knowing other clips of each speaker: {', '.join(told)}"] if told else []
        if answers := sum((Counter(one) for one in found.get("answers", {}).values()), Counter()):
            lines += [f"Answers: {', '.join(f'{label} {count}' for label, count in answers.most_common())}"]
    if found := last.get("calibration"):
        right = "" if found["wa_answered"] is None else f", {found['wa_answered']:.1%} of these right"
        lines += ["", f"Confidence of {last['network']}, fold {last['fold']}: calibration error {found['ece']:.3f}"]
        lines[-1] += f" ({found['ece_before']:.3f} before); {found['answered']:.0%} are not uncertain{right}"
    told = _told(last, last.get("enrolled", {}))
    lines += [""] if told else []
    for count, words in told.items():
        found = last["enrolled"][count]
        bounds = found["uar_interval"]
        between = f" ({bounds[0]:.1%} to {bounds[1]:.1%})" if bounds else ""
        lines.append(
            f"Enrolled: told of {words:>2} other clips of each speaker, {last['network']} has WA {found['wa']:.2%}, "
            f"UAR {found['uar']:.2%}{between}"
        )
    if copies := last.get("by_version"):
        lines += ["", f"Versions of clips as {last['network']} hears them, fold {last['fold']}"]
        lines += [f"{name:>10} {found['n']:6d} {found['wa']:7.2%}" for name, found in copies.items()]
    if last["by_speaker"]:
        lines += ["", f"Speakers as {last['network']} hears them, fold {last['fold']}"]
        lines.append(f"{'speaker':>10} {'clips':>6} {'WA':>7} {'UAR':>7}")
        for name, found in sorted(last["by_speaker"].items()):
            lines.append(f"{name:>10} {found['n']:6d} {found['wa']:7.2%} {found['uar']:7.2%}")
    lines += ["", f"Confusion matrix of {last['network']}, fold {last['fold']} (rows true, columns recognised)"]
    lines.append(" " * 10 + " ".join(f"{label[:9]:>9}" for label in last["labels"]))
    for label, row in zip(last["labels"], last["confusion"], strict=True):
        lines.append(f"{label:10}" + " ".join(f"{count:9d}" for count in row))
    return "\n".join(lines)
