"""What each section of a report says, as plain data for the template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vervet.config import Vit, merge
from vervet.corpora import PUBLISHED, release_of, title_of
from vervet.evaluation.calibration import rejection, reliability
from vervet.evaluation.complexity import cost
from vervet.evaluation.html.experiment import Experiment, Network
from vervet.evaluation.metrics import Measure, Scores, interval, scores, share_interval
from vervet.evaluation.robustness import GROUPS

MEASURES: tuple[tuple[Measure, str, str], ...] = (
    ("uar", "UAR", "mean recall over the emotions"),
    ("wa", "WA", "share of clips recognised"),
    ("macro_f1", "macro-F1", "mean F1 over the emotions"),
)
# What test clips share with training under each protocol.
PROTOCOLS = {
    "paper": "versions of one clip stand on both sides",
    "clip": "clips are kept apart",
    "sentence": "sentences are kept apart",
    "speaker": "speakers are kept apart",
    "speakers": "speakers are kept apart",
    "table": "as the table says",
}


def told(count: int, noun: str) -> str:
    """A number and what it counts: "1 clip", "2,140 clips"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(names: list[str]) -> str:
    """Names as a sentence has them: "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def title(experiment: Experiment) -> dict[str, str]:
    """What was trained on what, and how much was tested."""
    record = experiment.last.record
    speakers = {row["speaker"] for row in experiment.last.rows}
    spoken = "unknown speakers" if "" in speakers else told(len(speakers), "speaker")
    whole = record["n_test"] == sum(row["version"] == "original" for row in experiment.last.rows)
    clips = told(record["n_test"], "clip" if whole else "item")
    corpora = [title_of(name) for name in record["corpus"].split("+") if name in PUBLISHED]
    return {
        "corpus": " and ".join(corpora) or "recordings of your own",
        "network": record["network"],
        "recipe": record["recipe"],
        "tested": f"{clips} of {spoken}",
        "folds": folds(experiment),
    }


def folds(experiment: Experiment) -> str:
    """Which folds there are: "fold 8 of 10 (0 to 9)"."""
    total, numbers = experiment.runs[0]["folds"], [run["fold"] for run in experiment.runs]
    if total == 1:
        return "its only fold"
    if len(numbers) == total:
        return f"all {total} folds together"
    if len(numbers) == 1:
        return f"fold {numbers[0]} (one of 0 to {total - 1})"
    return f"folds {listed([str(number) for number in numbers])} (of 0 to {total - 1}) together"


def verdict(experiment: Experiment) -> dict[str, Any]:
    """What the score is about, by protocol and audit, in one line; and the audit's own sentences."""
    whole = len(experiment.audits)
    sentences = Counter(sentence for audit in experiment.audits for sentence in audit["verdict"])
    return {
        "leaky": experiment.leaky,
        "protocol": experiment.last.record["protocol"],
        "meaning": PROTOCOLS[experiment.last.record["protocol"]],
        "line": _leak(experiment) if experiment.leaky else _novelty(experiment),
        "sentences": [(text, _in_folds(count, whole)) for text, count in sentences.items()],
    }


def _in_folds(count: int, whole: int) -> str:
    if whole == 1:
        return ""
    return "in each fold" if count == whole else f"in {count} of {whole} folds"


def _leak(experiment: Experiment) -> str:
    pairs = [pair for audit in experiment.audits for pair in audit["shared"] if pair["sides"] == ["train", "test"]]
    siblings, items = sum(pair["siblings"] for pair in pairs), sum(pair["items"] for pair in pairs)
    found = (
        f"{siblings:,} of {items:,} test items are versions or copies of clips in training"
        if siblings
        else "test items are known from validation"
    )
    return f"{found}. This score says nothing about new recordings."


def _novelty(experiment: Experiment) -> str:
    known = [audit["speaker_independent"] for audit in experiment.audits]
    if None in known:
        return "no test clip is in training or validation; whether its speakers are is not known."
    speakers = sum(audit["test_speakers"] for audit in experiment.audits)
    if all(known):
        voices = "the test speaker" if speakers == 1 else "any test speaker"
        of_fold = " of its fold" if len(experiment.audits) > 1 else ""
        return f"neither a test clip nor {voices} is heard in training or validation{of_fold}."
    return (
        "no test clip is in training or validation, but its speakers are heard there. "
        "The score is of new recordings of known voices, not of new voices."
    )


def headline(experiment: Experiment) -> dict[str, Any]:
    """The three scores with interval and chance level."""
    network = experiment.last
    true, said, speakers = (_column(network, name) for name in ("emotion", "predicted", "speaker"))
    common, _ = Counter(true).most_common(1)[0]
    chance = scores(true, [common] * len(true), network.labels)
    return {
        "constant": common,
        "speakers": None if "" in speakers else len(set(speakers)),
        "scores": [
            {
                "key": key,
                "name": name,
                "means": means,
                "value": network.record[key],
                "interval": interval(true, said, speakers, network.labels, key),
                "chance": getattr(chance, key),
            }
            for key, name, means in MEASURES
        ],
    }


def _column(network: Network, name: str) -> list[str]:
    return [row[name] for row in network.rows]


def compared(experiment: Experiment) -> dict[str, Any]:
    """Scores and costs of all networks, and where a teacher came from that has no scores here."""
    rows = []
    for network in experiment.networks:
        card = network.folds[0].card
        spent = cost(merge(Vit(), card["vit"], "model.json"), len(network.labels))
        rows.append({"record": network.record, "card": card, **spent})
    borrowed = [folder / "teacher" / "borrowed.json" for folder in experiment.folders]
    return {"rows": rows, "borrowed": any(path.exists() for path in borrowed)}


def confusion(experiment: Experiment) -> dict[str, Any]:
    """The matrix, and what each emotion's recall, precision and F1 are."""
    labels, counts = experiment.last.labels, np.array(experiment.last.record["confusion"])
    emotions = [_emotion(labels, counts, index) for index in range(len(labels))]
    pairs = sorted(
        ((counts[i, j], i, j) for i in range(len(labels)) for j in range(len(labels)) if i != j and counts[i, j]),
        reverse=True,
    )
    return {
        "labels": labels,
        "rows": [
            {"label": label, "clips": int(row.sum()), "cells": [_cell(int(count), int(row.sum())) for count in row]}
            for label, row in zip(labels, counts, strict=True)
        ],
        "emotions": emotions,
        "worst": [(labels[i], labels[j], int(count), int(counts[i].sum())) for count, i, j in pairs[:3]],
    }


def _cell(count: int, clips: int) -> dict[str, Any]:
    return {"count": count, "share": count / clips if clips else 0.0}


def _emotion(labels: list[str], counts: np.ndarray, index: int) -> dict[str, Any]:
    hits, clips, named = int(counts[index, index]), int(counts[index].sum()), int(counts[:, index].sum())
    return {
        "label": labels[index],
        "clips": clips,
        "recall": hits / clips if clips else None,
        "precision": hits / named if named else None,
        "f1": 2 * hits / (clips + named) if clips else None,
    }


def speakers(experiment: Experiment) -> list[dict[str, Any]]:
    """Every test speaker with scores, the least well recognised first; none where speakers are unknown."""
    network = experiment.last
    if "" in _column(network, "speaker"):
        return []
    found = [(name, rows) for name, rows in _groups(network, "speaker")]
    return sorted((_speaker(name, rows, network.labels) for name, rows in found), key=lambda one: one["wa"])


def _groups(network: Network, column: str) -> Iterator[tuple[str, list[dict[str, str]]]]:
    for name in sorted({row.get(column, "") for row in network.rows}):
        yield name, [row for row in network.rows if row.get(column, "") == name]


def _scored(rows: list[dict[str, str]], labels: list[str]) -> Scores:
    return scores([row["emotion"] for row in rows], [row["predicted"] for row in rows], labels)


def _speaker(name: str, rows: list[dict[str, str]], labels: list[str]) -> dict[str, Any]:
    found, right = _scored(rows, labels), sum(row["emotion"] == row["predicted"] for row in rows)
    return {
        "name": name,
        "sex": rows[0].get("sex", ""),
        "n": found.n,
        "wa": found.wa,
        "uar": found.uar,
        "interval": share_interval(right, found.n),
    }


def sexes(experiment: Experiment) -> list[dict[str, Any]]:
    """Scores of female and male speakers; none where the sex of any is unknown."""
    network = experiment.last
    groups = list(_groups(network, "sex"))
    if any(name == "" for name, _ in groups):
        return []
    made = []
    for name, rows in groups:
        found, voices = _scored(rows, network.labels), [row["speaker"] for row in rows]
        true, said = [row["emotion"] for row in rows], [row["predicted"] for row in rows]
        limits = interval(true, said, voices, network.labels, "uar")
        made.append({"name": name, "n": found.n, "speakers": len(set(voices)), "scores": found, "interval": limits})
    return made


def confidence(experiment: Experiment) -> dict[str, Any] | None:
    """What confidences are worth before and after calibration; None for runs without it."""
    network = experiment.last
    if not network.calibrated:
        return None
    sure = network.probabilities.max(1)
    cards = [fold.card for fold in network.folds]
    return {
        **network.record["calibration"],
        "before": reliability(network.uncalibrated.max(1), network.right),
        "after": reliability(sure, network.right),
        "rejection": rejection(sure, network.right),
        "wa": network.record["wa"],
        "temperature": _range([card["temperature"] for card in cards], "{:.2f}"),
        "threshold": _range([100 * card["uncertain_below"] for card in cards], "{:.1f}") + "\u00a0%",
        "validation": _range([audit["items"]["validation"] for audit in experiment.audits], "{:,}"),
        "folds": len(cards),
    }


def _range(values: Sequence[float], form: str) -> str:
    ends = [form.format(value) for value in (min(values), max(values))]
    return " to ".join(dict.fromkeys(ends))


def enrolled(experiment: Experiment) -> list[dict[str, Any]]:
    """Scores by the number of other clips of the speaker that were known, 0 first; none if it is not told of any."""
    record = experiment.last.record
    known = sorted(record.get("enrolled", {}).items(), key=lambda pair: int(pair[0]))
    return [{"count": int(count), **told} for count, told in (("0", record), *known)] if known else []


def robustness(experiment: Experiment) -> list[dict[str, Any]]:
    """The degraded conditions by kind; none where they were not measured."""
    rows = [row for row in experiment.robustness if row["kind"] not in GROUPS]
    kinds = dict.fromkeys(row["kind"] for row in rows[1:])
    return [{"kind": kind, "rows": [row for row in rows if row["kind"] == kind]} for kind in kinds]


def provenance(experiment: Experiment) -> dict[str, Any]:
    """What it takes to make the run again."""
    runs, last = experiment.runs, experiment.last
    onnx = experiment.folders[0] / "model.onnx"
    return {
        "commands": [run["command"] for run in runs],
        "facts": {
            "recipe": runs[0]["recipe"],
            "seed": runs[0]["settings"]["seed"],
            "split": ", ".join(run["split_hash"] for run in runs),
            "commit": _different(fold.card["commit"] or "unknown" for fold in last.folds),
            "machine": _different(run["machine"] for run in runs),
            "training": "; ".join(_training(network) for network in experiment.networks),
            "model file": f"{onnx.stat().st_size / 1e6:.1f} MB" if onnx.exists() else "not exported",
            "versions": ", ".join(f"{name} {number}" for name, number in runs[0]["versions"].items()),
        },
        "settings": list(_flat(runs[0]["settings"])),
    }


def _different(values: Iterator[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _training(network: Network) -> str:
    record, kept = network.record, [fold.card["epoch"] + 1 for fold in network.folds]
    if not record["epochs"]:
        return f"{record['network']} {record['minutes']:.1f} minutes, the heads alone, without epochs"
    epochs = f"{min(kept)} to {max(kept)}" if min(kept) < max(kept) else f"{kept[0]}"
    return f"{record['network']} {record['minutes']:.1f} minutes, epoch {epochs} of {record['epochs']} kept"


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def limits(experiment: Experiment) -> list[str]:
    """What the scores cannot say."""
    record, run = experiment.last.record, experiment.runs[0]
    voices = {row["speaker"] for row in experiment.last.rows}
    said = []
    if experiment.leaky:
        said.append("The split is leaky: no number on this page holds for a recording that the network has not heard.")
    if len(experiment.runs) < run["folds"] and not experiment.leaky:
        said.append(
            f"{told(len(experiment.runs), 'fold')} of {run['folds']}: the score to quote is that of all folds together."
        )
    if "" not in voices and len(voices) < 10:
        said.append(f"{told(len(voices), 'test speaker')}: with other voices the score may be quite different.")
    if speech := [release_of(name).speech for name in record["corpus"].split("+") if name in PUBLISHED]:
        said.append(f"The speech is {', and '.join(speech)}. Spontaneous speech and other languages are harder.")
    said.append("The label is the emotion that a clip is filed under. What the speaker felt is not known.")
    if not robustness(experiment):
        said.append("What other microphones, rooms and telephones do to the score was not measured.")
    return said
