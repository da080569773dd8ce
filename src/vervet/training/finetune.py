"""Fine-tuning in one go: an honest estimate from folds, then a model of all clips."""

from __future__ import annotations

import statistics
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vervet.config import Recipe, check_enrolment, load_recipe, merge
from vervet.corpora import Utterance, kind_of, load_corpus
from vervet.corpora.check import clean
from vervet.emotions import in_order
from vervet.evaluation.calibration import Calibration, calibrate
from vervet.evaluation.figures import confusion_figure
from vervet.evaluation.leakage import audit
from vervet.evaluation.metrics import from_confusion, interval
from vervet.evaluation.protocols import Split
from vervet.evaluation.run import Tested, pool, read_tested, to_json
from vervet.export import export
from vervet.files import read_json, write_json, write_whole
from vervet.machine import cores
from vervet.predict import load, shipped_model
from vervet.training.pretrained import Base, check_unheard, is_folder, load_base, start_from
from vervet.training.run import cut, differences, settings_of, sides_of
from vervet.training.stages import check_stages
from vervet.training.study import Job, check_finished, run_jobs

RECIPE = Path("finetune")  # comes with Vervet
VALIDATE = "--validate=true"  # of one fold, whose validation side chooses the temperature; else all answers choose it
ENROL = "--student.enrol=4"  # where the base gets to know speakers, and all are named; a setting of one's own wins
RECORD = "finetune.json"  # in the run folder: what it is bound to
LEAST_CLIPS = 5  # of a label: one for each fold
FEW_SPEAKERS = 5  # up to here each is tested alone


def finetune(
    data: Path,
    out: Path,
    model: str | None = None,
    protocol: str = "auto",
    settings: Sequence[str] = (),
    jobs: int | None = None,
    more: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Train a model on from a folder of folders or a table, and say what to expect of it.

    Every fold of the protocol is trained and tested, which gives the estimate; then a model is trained on all clips and
    calibrated on what the folds answered about clips that they had not heard. Where a table fixes the sides, the model
    is that of its training side, and its test side stays unheard.

    Parameters
    ----------
    data : Path
        Folder with a folder for each emotion, or a CSV file; see `vervet.corpora`.
    out : Path
        The run folder. If it holds the same fine-tuning, that goes on.
    model : str, optional
        What to start from, as for `vervet.training.pretrained.load_base`.
    protocol : str
        As for `vervet.evaluation.protocols.split`, or "auto": the sides that a table marks; else by speakers, if all
        are known and three or more; else by clip.
    settings : sequence of str
        Overrides of the recipe, as `--key=value`.
    jobs : int, optional
        How many runs at a time; as many as there are cores where not given.
    more : sequence of str
        Words for every run, such as `--cpu`.

    Returns
    -------
    list of dict
        Records of all folds, the pooled one last; also in `metrics.json`.

    Raises
    ------
    ValueError
        If the clips, labels or settings are at fault, `out` holds something else, or a run failed.
    """
    corpus = kind_of(data)
    if data.is_dir() and out.resolve().is_relative_to(data.resolve()):
        raise ValueError(f"{out}: lies in {data}, where it would be taken for an emotion; choose another --out")
    if jobs is not None and jobs < 1:
        raise ValueError(f"--jobs must be at least 1, not {jobs}")
    base = load_base(model)
    recipe = start_from(load_recipe(RECIPE, settings), base)
    utterances, removed = clean(load_corpus(corpus, data), recipe.silent, recipe.contradictory)
    for utterance, reason in removed:
        print(f"left out: {utterance}: {reason}", file=sys.stderr)
    check_labels(utterances)
    protocol = protocol_for(utterances) if protocol == "auto" else protocol
    if base.enrols and all(utterance.speaker for utterance in utterances):
        settings = (ENROL, *settings)
    if protocol == "table":
        settings = (VALIDATE, *settings)
    recipe = start_from(load_recipe(RECIPE, settings), base)
    check_enrolment(recipe)
    sides = _sides(utterances, protocol, recipe)
    for side in (*sides, *([] if protocol == "table" else [sides_of(utterances, "all", 0, recipe)])):
        check_unheard(base, utterances, side)
        check_stages(recipe, side, ())
    _open(out, _identity(corpus, recipe, base, sides))
    root = data if data.is_dir() else data.parent
    introduced = _introduced(utterances, sides[0], base, root, recipe.front_end.duration_s)
    print("\n".join(introduced), file=sys.stderr)
    start = model or ("default" if shipped_model("default") else str(shipped_model()))  # a run may be called so
    given = {"settings": tuple(settings), "init": start}
    folds = [Job(RECIPE, recipe, corpus, protocol, fold, out / f"fold-{fold}", **given) for fold in range(len(sides))]
    final = [] if protocol == "table" else [Job(RECIPE, recipe, corpus, "all", 0, out / "final", **given)]
    check_finished([*folds, *final], lambda: utterances)
    at_a_time = min(len(folds + final), cores() if jobs is None else jobs)
    run_jobs([*folds, *final], at_a_time, ("--root", str(data), "--no-export", *more))
    without = None if is_folder(model) else _without(model, sides)
    return _publish(out, [job.folder for job in folds], (final or folds)[0].folder, without)


def check_labels(utterances: Sequence[Utterance]) -> None:
    """Refuse clips that nothing can be learnt and tested with.

    Raises
    ------
    ValueError
        If there is one label only, or fewer than five clips of one.
    """
    counts = Counter(utterance.emotion for utterance in utterances)
    if len(counts) < 2:
        raise ValueError(f"all clips are {next(iter(counts), 'unlabelled')!r}: fine-tuning needs two labels or more")
    rare = [f"{label!r} ({count})" for label, count in sorted(counts.items()) if count < LEAST_CLIPS]
    if rare:
        told = f"too few clips of {', '.join(rare)}: fine-tuning and its test need {LEAST_CLIPS} of each label"
        raise ValueError(f"{told}; add some, or leave the label out")


def protocol_for(utterances: Sequence[Utterance]) -> str:
    """Choose the protocol whose score tells most: the table's own sides, else speakers, else clips."""
    if any(utterance.split for utterance in utterances):
        return "table"
    speakers = {utterance.speaker for utterance in utterances}
    if "" in speakers or len(speakers) < 3:
        return "clip"
    return "speaker" if len(speakers) <= FEW_SPEAKERS else "speakers"


def _sides(utterances: Sequence[Utterance], protocol: str, recipe: Recipe) -> list[Split]:
    if protocol in ("paper", "all"):
        raise ValueError(f"protocol {protocol} gives no honest estimate; choose another")
    first = sides_of(utterances, protocol, 0, recipe)
    return [first, *(sides_of(utterances, protocol, fold, recipe) for fold in range(1, first.folds))]


def _identity(corpus: str, recipe: Recipe, base: Base, sides: Sequence[Split]) -> dict[str, Any]:
    labels = {sample.utterance.emotion for side in sides[0].sides.values() for sample in side}
    return {
        "settings": settings_of(recipe),
        "corpus": corpus,
        "protocol": sides[0].protocol,
        "labels": list(in_order(labels)),
        "split_hashes": [side.hash() for side in sides],
        "base": base.origin,
    }


def _open(out: Path, identity: dict[str, Any]) -> None:
    """Write what the folder is bound to, or check that it is what the folder already says."""
    path = out / RECORD
    if path.exists():
        known = read_json(path)
        known["settings"] = settings_of(merge(Recipe(), known["settings"], str(path)))  # of older ones some are missing
        if found := differences(known, identity):
            raise ValueError(
                f"{out} holds another fine-tuning, which differs in {'; '.join(found)}. Choose another --out"
            )
        return
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty and holds no fine-tuning; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, identity)


def _introduced(utterances: Sequence[Utterance], sides: Split, base: Base, root: Path, duration_s: float) -> list[str]:
    """What is learnt from what, and what the estimate will mean."""
    counts = Counter(utterance.emotion for utterance in utterances)
    listed = ", ".join(f"{label} {counts[label]}" for label in in_order(counts))
    new = [label for label in in_order(counts) if label not in base.labels]
    folds = f"{sides.folds} fold{'s' * (sides.folds != 1)}"
    return [
        f"{len(utterances)} clips: {listed}",
        f"labels that the base does not know: {', '.join(new) or 'none'}",
        f"protocol {sides.protocol}, {folds}. {_meaning(utterances, sides.protocol)}",
        *cut(utterances, duration_s),
        *_confounded(utterances),
        *(f"fold 0: {sentence}" for sentence in audit(sides.rows(root), root).verdict),
        f"The base has heard {', '.join(base.card['corpora'])}: to it, clips and voices from there are not new.",
    ]


def _meaning(utterances: Sequence[Utterance], protocol: str) -> str:
    if protocol == "table":
        return "The score tells about the clips that the table marks test; the model is trained without them."
    if protocol.startswith("speaker"):
        return "Each fold tests voices that its training has not heard: the score tells about new voices of this kind."
    unknown = sum(not utterance.speaker for utterance in utterances)
    if unknown:
        told = "unknown" if unknown == len(utterances) else f"unknown of {unknown} clips"
        return (
            f"Speakers {told}: one voice may be in training and in test. The score tells about new clips of these "
            "voices; for new voices it may be far too high. A column or folders of speakers would tell."
        )
    return "Voices of the test are in training too: the score tells about new clips of these voices, not of new ones."


def _confounded(utterances: Sequence[Utterance]) -> list[str]:
    """Labels that only one of several speakers has: a network may learn the voice instead."""
    speakers = {utterance.speaker for utterance in utterances}
    if "" in speakers or len(speakers) < 2:
        return []
    of_label: dict[str, set[str]] = {}
    for utterance in utterances:
        of_label.setdefault(utterance.emotion, set()).add(utterance.speaker)
    alone = [label for label in in_order(of_label) if len(of_label[label]) == 1]
    told = "is spoken by one speaker only: whether the emotion or the voice is recognised cannot be told"
    return [f"{label} {told}." for label in alone]


def _without(model: str | None, sides: Sequence[Split]) -> float | None:
    """UAR of the base as it is on all test clips, among those of their labels that it knows; None if these are none.

    It hears of each clip what fine-tuning does: its beginning. One that training takes and prediction refuses, as too
    short or silent there, is one that it has not recognised.
    """
    predictor = load(model, threads=1)
    clips = [sample.utterance for side in sides for sample in side.test if sample.version == "original"]
    labels = in_order({clip.emotion for clip in clips})
    if not (known := [label for label in labels if label in predictor.labels]):
        return None

    def recognised(clip: Utterance) -> bool:
        try:
            (first, *_) = predictor(clip.sound)
            return first.start_s < clip.part.start_s + 1 and first.best_of(known) == clip.emotion
        except ValueError:  # `clean` has read it, so it is audio
            return False

    with ThreadPoolExecutor(cores()) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of silence, which counts where it is at the beginning, and nowhere else
        right = list(pool.map(recognised, clips))
    recalls = [[one for one, clip in zip(right, clips, strict=True) if clip.emotion == label] for label in labels]
    return statistics.fmean(statistics.fmean(one) for one in recalls)


def _publish(out: Path, folds: Sequence[Path], final: Path, without: float | None) -> list[dict[str, Any]]:
    """Write scores and picture, then the model with its calibration and what to expect of it."""
    tested = [read_tested(folder)[-1] for folder in folds]
    records = [one.record for one in tested] + ([pool(tested)] if len(tested) > 1 else [])
    record = records[-1]
    record |= _interval(tested) if record["protocol"] == "clip" else {"interval_over": "speakers"}
    record |= {} if without is None else {"uar_without": without}
    write_whole(out / "recipe.yaml", (final / "recipe.yaml").read_bytes())
    write_whole(out / "metrics.json", f"{to_json(records)}\n")
    (out / "figures").mkdir(exist_ok=True)
    labels = record["labels"]
    confusion, title = from_confusion(record["confusion"], labels), f"Fine-tuned, {len(folds)} fold(s) pooled"
    figure = confusion_figure(confusion, labels, title, record["protocol"])
    figure.savefig(out / "figures" / "confusion.png", dpi=120)
    if not (out / "model.onnx").exists():
        card = read_json(final / "model.json")
        told = ("protocol", "leaky", "folds", "n_test", "wa", "uar", "uar_interval", "interval_over")
        estimate = {key: record[key] for key in told if key in record}
        if "temperature" not in card and final not in folds:  # else the test side would choose it
            card |= asdict(_calibration(tested))
        write_whole(out / "model.safetensors", (final / "model.safetensors").read_bytes())
        write_json(out / "model.json", card | {"leaky": record["leaky"], "estimate": estimate})
        export(out, out / "model.onnx")
    return records


def _interval(tested: Sequence[Tested]) -> dict[str, Any]:
    """Clips are drawn anew, not speakers: under `clip` the score is about other clips of the same voices."""
    rows = [row for one in tested for row in one.rows]
    true, predicted = [row["emotion"] for row in rows], [row["predicted"] for row in rows]
    each, labels = [str(number) for number in range(len(rows))], tested[0].record["labels"]
    found = {f"{measure}_interval": interval(true, predicted, each, labels, measure) for measure in ("wa", "uar")}
    return {name: list(bounds) if bounds else None for name, bounds in found.items()} | {"interval_over": "clips"}


def _calibration(tested: Sequence[Tested]) -> Calibration:
    """Temperature and threshold from what the folds answered, before their own temperatures, about unheard clips."""
    logits = np.log(np.maximum(np.concatenate([one.uncalibrated for one in tested]), 1e-12))
    labels = tested[0].record["labels"]
    return calibrate(logits, [labels.index(row["emotion"]) for one in tested for row in one.rows])


def told(records: Sequence[dict[str, Any]], out: Path) -> str:
    """The end of the story, for people."""
    record = records[-1]
    bounds = record["uar_interval"]
    between = f" ({bounds[0]:.1%} to {bounds[1]:.1%}, drawing {record['interval_over']} anew)" if bounds else ""
    chance = 1 / len(record["labels"])
    without = ""
    if (found := record.get("uar_without")) is not None:
        without = (
            f"Without fine-tuning, the base has a UAR of {found:.1%} on the same clips, as far as it knows their labels"
        )
        without += ": no less, so nothing speaks for fine-tuning it.\n" if found >= record["uar"] else ".\n"
    leaky = "LEAKY: copies of test clips were trained on, so this is no estimate of anything new.\n"
    return (
        f"{leaky if record['leaky'] else ''}"
        f"Estimate, protocol {record['protocol']}: UAR {record['uar']:.1%}{between}, WA {record['wa']:.1%}, "
        f"{record['n_test']} clips; guessing would have a UAR of {chance:.1%}.\n"
        f"{without}"
        f"The model: {out / 'model.onnx'}; vervet predict --model {out} RECORDING"
    )
