"""A training run: one folder that holds all it took and all it gave."""

import csv
import io
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate import Accelerator

import vervet
from vervet.config import STAGES, Precision, Recipe, check_enrolment, merge
from vervet.corpora import OWN, PUBLISHED, Utterance, corpus_root, load_corpus
from vervet.corpora.check import audio_facts_of, clean
from vervet.emotions import EMOTIONS, in_order
from vervet.evaluation.calibration import calibrate, softmax
from vervet.evaluation.enrolled import COUNTS
from vervet.evaluation.leakage import audit, fingerprints, heard_by, named, read_split, remembered, voices_of
from vervet.evaluation.protocols import Sample, Split, split
from vervet.files import DRAFT, read_json, write_json, write_whole
from vervet.machine import locked, processor
from vervet.models.checkpoint import load_network
from vervet.training.enrol import met, statistics_of
from vervet.training.fit import predict, usable
from vervet.training.pool import make_pool
from vervet.training.pretrained import Base, check_unheard, load_base, start_from, starting
from vervet.training.stages import Workshop, check_stages, is_done, run_stages

FIRST_FILES = ("split.csv", "audit.json", "recipe.yaml", "run.json")
BORROWED = "borrowed.json"  # beside a teacher that another run has trained: which
TEACHER_SETTINGS = (
    "seed", "precision", "silent", "contradictory", "front_end", "augment", "teacher_network", "teacher",
)  # fmt: skip


def train(
    recipe: Recipe,
    corpus: str,
    root: Path | None,
    protocol: str,
    fold: int,
    out: Path,
    cache: Path,
    recipe_name: str,
    command: Sequence[str] = (),
    cpu: bool = False,
    teacher: Path | None = None,
    init: str | None = None,
    compiled: bool = False,
) -> Path:
    """Train by a recipe and test the networks that come of it.

    Parameters
    ----------
    recipe : Recipe
        Every setting.
    corpus : str
        "emodb", "savee", "cremad", "table" or "folders".
    root : Path or None
        Where it lies; None looks under VERVET_CORPORA.
    protocol, fold : str, int
        Which utterances train, validate and test; see `vervet.evaluation.protocols`.
    out : Path
        The run folder. If it holds a run of the same settings, that run goes on from its last epoch; stages may be
        added to it.
    cache : Path
        Where the images of corpora are kept between runs.
    recipe_name : str
        Under which name results are filed.
    command : sequence of str, optional
        What the user typed, for the record.
    cpu : bool, optional
        Leave a GPU alone.
    teacher : Path, optional
        A run whose teacher is taken over instead of training one: it must have been trained as this one would be.
    init : str, optional
        The model whose weights the student starts from, as for `vervet.training.pretrained.load_base`.
    compiled : bool, optional
        Compile the networks that train with `torch.compile`: half a minute each, and fewer, larger kernels.

    Returns
    -------
    Path
        `out`, with the last network of the recipe as `model.safetensors` and `model.json`.

    Raises
    ------
    ValueError
        If `out` holds a run of other settings or `teacher` a teacher of others (all that differ are named), another
        program is at `out`, or the corpus or the split is at fault.
    """
    if teacher:
        recipe = replace(recipe, stages=tuple(stage for stage in recipe.stages if stage != "teacher"))
    base = load_base(init) if init else None
    if base:
        recipe = start_from(recipe, base)
    elif recipe.student.head_l2 > 0:
        raise ValueError("student.head_l2 fits the head of a model that training starts from: name it with --init")
    elif len(recipe.student.l2_factors) > 1:
        raise ValueError("student.l2_factors are of heads that training starts from: name their model with --init")
    check_enrolment(recipe)
    accelerator = Accelerator(cpu=cpu, dynamo_backend="inductor" if compiled else "no")
    root = corpus_root(corpus, root)
    utterances, removed = clean(load_corpus(corpus, root), recipe.silent, recipe.contradictory)
    sides = sides_of(utterances, protocol, fold, recipe)
    check_speakers(recipe, sides)
    labels = in_order(utterance.emotion for utterance in utterances)
    if len(labels) < 2:
        raise ValueError(f"all clips are {' '.join(labels)!r}: training needs two emotions or more")
    brought = [stage for stage in STAGES if is_done(out / stage) or (stage == "teacher" and teacher)]
    check_stages(recipe, sides, brought, accelerator.num_processes)
    if base:
        check_unheard(base, utterances, sides)
        recipe_name += starting(base.card["corpora"], base.whole)
    identity = {
        "recipe": recipe_name,
        **bound_to(recipe, corpus, protocol, fold, base),
        "leaky": sides.leaky,
        "folds": sides.folds,
        "split_hash": sides.hash(),
        "labels": list(labels),
    }
    card = identity | {"vervet_version": vervet.__version__, "commit": commit(), "front_end": asdict(recipe.front_end)}
    heard = base.card["corpora"] if base else ()  # whose terms hold for what comes of it too
    card["corpora"] = sorted({*heard, *(utterance.corpus for utterance in utterances)})
    own = {sample.utterance for sample in (*sides.train, *sides.validation) if sample.utterance.corpus in OWN}
    if prints := {*fingerprints([*own]), *(heard_by(base.card) if base else ())}:
        card["heard"] = remembered(prints)
    card["voices"] = _voices(sides, base)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out) if accelerator.is_main_process else nullcontext():
        if accelerator.is_main_process:
            folder = root.parent if root.is_file() else root
            precision = usable(recipe.precision, accelerator.device)
            if precision != recipe.precision:
                print(
                    f"this processor has no instructions for {recipe.precision}: {precision} is used", file=sys.stderr
                )
            _open(out, identity, sides, folder, command, precision)
            if teacher:
                _borrow(teacher, out, identity, sides)
            for utterance, reason in removed:
                print(f"left out: {utterance}: {reason}", file=sys.stderr)
            for told in cut(utterances, recipe.front_end.duration_s):
                print(told, file=sys.stderr)
            if never := sorted(
                {sample.utterance.emotion for sample in sides.test}
                - {sample.utterance.emotion for sample in sides.train}
            ):
                print(f"no training clip is {' or '.join(never)}, so no test clip of it is right", file=sys.stderr)
            if own := [label for label in labels if label not in EMOTIONS]:
                print(f"labels of your own, kept as they are: {', '.join(own)}", file=sys.stderr)
        accelerator.wait_for_everyone()
        if sides.test:  # else there is no audit, and nothing to be leaky
            card["leaky"] = read_json(out / "audit.json")["leaky"]  # which finds copies under other names, too
        with accelerator.main_process_first():
            pool = make_pool(utterances, recipe.front_end, recipe.augment, cache)
        workshop = Workshop(recipe, sides, pool, labels, out, card, accelerator, base)
        run_stages(workshop)
        if accelerator.is_main_process:
            _finish(workshop)
        accelerator.wait_for_everyone()
    return out


def sides_of(utterances: Sequence[Utterance], protocol: str, fold: int, recipe: Recipe) -> Split:
    """What a recipe trains on and tests: without a validation side where it wants none."""
    sides = split(utterances, protocol, fold, recipe.seed, recipe.augment.versions)
    return sides if recipe.validate else sides.without_validation(recipe.augment.versions)


def _voices(sides: Split, base: Base | None) -> dict[str, list[str]]:
    """Which speakers of published corpora train the network, or have trained its base."""
    found = {corpus: set(speakers) for corpus, speakers in voices_of(base.card).items()} if base else {}
    for utterance in {sample.utterance for sample in sides.train if sample.utterance.corpus in PUBLISHED}:
        found.setdefault(utterance.corpus, set()).add(utterance.speaker)
    return {corpus: sorted(speakers) for corpus, speakers in sorted(found.items())}


def cut(utterances: Sequence[Utterance], duration_s: float) -> list[str]:
    """Say what of the clips is not heard, if anything."""
    long = sum(facts.duration_s > duration_s for facts in audio_facts_of(utterances))
    told = f"{long} of {len(utterances)} clips are longer than {duration_s:g} s, and only so much of them is heard"
    return [f"{told}: the beginning. Rows of a table may name other parts, with start and end."] if long else []


def check_speakers(recipe: Recipe, sides: Split) -> None:
    """Refuse to tell a network of speakers that nobody knows: strangers would be taken for one person.

    Raises
    ------
    ValueError
        Names the first clip without a speaker, and the setting.
    """
    enrolling = [stage for stage in ("teacher", "matching", "student") if getattr(recipe, stage).enrol]
    nameless = [sample.utterance.name for sample in sides.train if not sample.utterance.speaker]
    if enrolling and nameless:
        raise ValueError(
            f"{enrolling[0]}.enrol tells of other clips by the same speaker, but {len(nameless)} have none, the first "
            f"{nameless[0]}; name the speakers, or train with --{enrolling[0]}.enrol=0"
        )


def check_clips(out: Path, sides: Split, advice: str = "Choose another --out") -> None:
    """Refuse clips other than those that a run was trained and tested with, or with other labels.

    Raises
    ------
    ValueError
        Says how many differ, and how the first one does.
    """
    told = [("emotion", "speaker"), ("split", "corpus", "source", "version")]
    known, here = (
        {tuple(row[key] for key in told[1]): tuple(row[key] for key in told[0]) for row in rows}
        for rows in (read_split(out / "split.csv"), sides.rows())
    )
    differing = sorted(key for key in known.keys() | here.keys() if known.get(key) != here.get(key))
    if differing:
        there, now = (", ".join(side.get(differing[0], ("not there",))) for side in (known, here))
        raise ValueError(
            f"{out} holds a run of other clips: {len(differing)} differ, the first {'/'.join(differing[0])} ({there} "
            f"there, {now} here). {advice}"
        )


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """All that a run folder is bound to, as `run.json` holds it: stages may be added later, the rest may not change."""
    return json.loads(json.dumps({key: value for key, value in asdict(recipe).items() if key != "stages"}))


def bound_to(recipe: Recipe, corpus: str, protocol: str, fold: int, base: Base | None) -> dict[str, Any]:
    """Of all that a run folder is bound to, what is known before its clips are."""
    return {
        "settings": settings_of(recipe),
        "corpus": corpus,
        "protocol": protocol,
        "fold": fold,
        "base": base.origin if base else None,
    }


def read_record(folder: Path) -> dict[str, Any]:
    """What `run.json` says; settings that did not exist when it was written have their defaults."""
    path = folder / "run.json"
    record = read_json(path)
    return record | {"settings": settings_of(merge(Recipe(), record["settings"], str(path)))}


def _open(
    out: Path, identity: dict[str, Any], sides: Split, root: Path, command: Sequence[str], precision: Precision
) -> None:
    """Write what is known before training, or check that it is what the folder already says."""
    path = out / "run.json"
    if path.exists():
        differing = differences(read_record(out), identity)
        if differing:
            raise ValueError(f"{out} holds another run, which differs in {'; '.join(differing)}. Choose another --out")
        check_clips(out, sides)
        return
    # `run.json` comes last: a run that was killed before it left some of the others, and they are written again.
    if any(DRAFT.sub("", file.name) not in FIRST_FILES for file in out.iterdir()):
        raise ValueError(f"{out} is not empty and holds no run; choose another --out")
    rows = sides.rows(root)
    write_table(out / "split.csv", rows)
    if sides.test:
        finding = audit(rows, root)
        print("\n".join(finding.verdict), file=sys.stderr)
        write_json(out / "audit.json", finding.to_json())
    record = {"command": shlex.join(command), "commit": commit(), "machine": machine(precision), "versions": versions()}
    recipe = yaml.safe_dump(identity["settings"], sort_keys=False)
    write_whole(out / "recipe.yaml", recipe)
    write_json(path, identity | record)


def _borrow(source: Path, out: Path, identity: dict[str, Any], sides: Split) -> None:
    """Take over the teacher of another run; its scores stay with the run that trained it."""
    if is_done(out / "teacher"):
        return
    if not is_done(source / "teacher"):
        raise ValueError(f"--teacher {source}: holds no finished teacher")
    known = read_record(source)
    wanted = {key: identity[key] for key in ("corpus", "protocol", "fold", "split_hash")}
    wanted["settings"] = {key: identity["settings"][key] for key in TEACHER_SETTINGS}
    differing = differences(known, wanted)
    if differing:
        raise ValueError(f"--teacher {source} differs in {'; '.join(differing)}")
    check_clips(source, sides, "Choose another --teacher")
    (out / "teacher").mkdir(exist_ok=True)
    write_json(out / "teacher" / BORROWED, {"from": str(source), "recipe": known["recipe"], "commit": known["commit"]})
    for name in ("features.safetensors", "model.safetensors", "model.json"):  # the last one says that it is done
        if (source / "teacher" / name).exists():
            write_whole(out / "teacher" / name, (source / "teacher" / name).read_bytes())


def differences(known: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> list[str]:
    """Name what is wanted and not known to be so, with both values."""
    found = []
    for key, value in wanted.items():
        old = known.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            found += differences(old, value, f"{prefix}{key}.")
        elif old != value:
            found.append(f"{prefix}{key} ({old!r} there, {value!r} here)")
    return found


def _calibrate(workshop: Workshop, stage: str) -> None:
    """Choose temperature and threshold of a stage's network, on validation clips as they were recorded."""
    folder = workshop.folder / stage
    card = read_json(folder / "model.json")
    samples = [sample for sample in workshop.split.validation if sample.version == "original"]
    if "temperature" in card or not samples:
        return
    (folder / "predictions.csv").unlink(missing_ok=True)  # of an older version: without the temperature
    true = [workshop.labels.index(sample.utterance.emotion) for sample in samples]
    write_json(folder / "model.json", card | asdict(calibrate(_logits(workshop, stage, samples)[0], true)))


def _logits(
    workshop: Workshop, stage: str, samples: Sequence[Sample], counts: Sequence[int] = (0,)
) -> list[np.ndarray]:
    """What the network of a stage answers, told of so many other clips of the speaker: (samples, classes) float64."""
    model, _ = load_network(workshop.folder / stage)
    device, images = workshop.accelerator.device, workshop.pool.select(samples)
    model, images = model.to(device), images.to(device)
    speakers = [sample.utterance.speaker for sample in samples]
    known, found = statistics_of(model, images) if any(counts) else None, []
    for count in counts:
        told = None if known is None else met(known, speakers, count, workshop.recipe.seed)
        logits, _ = predict(model, images, device, told=told)
        if not logits.isfinite().all():
            raise ValueError(f"{workshop.folder / stage}: the network answers NaN")
        found.append(logits.double().numpy())
    return found


def _tested_names(workshop: Workshop) -> dict[Sample, str]:
    """What `split.csv` calls the clips of the test side."""
    known: dict[tuple[str, str], list[str]] = {}  # one source may have been two files, such as 1.wav and 1.flac
    for row in read_split(workshop.folder / "split.csv"):
        known.setdefault((row["source"], row["version"]), []).append(named(row))
    tested = (row for row in workshop.split.rows() if row["split"] == "test")
    names = (known[row["source"], row["version"]].pop(0) for row in tested)
    return dict(zip(workshop.split.test, names, strict=True))


def _test(workshop: Workshop, stage: str, names: Mapping[Sample, str]) -> None:
    """Read the test side once, with the finished network of a stage."""
    samples = workshop.split.test
    temperature = read_json(workshop.folder / stage / "model.json").get("temperature", 1.0)
    probabilities = softmax(_logits(workshop, stage, samples)[0] / temperature)
    rows = [
        {"file": names[sample]} | _prediction(sample, workshop.labels, row)
        for sample, row in zip(samples, probabilities.tolist(), strict=True)
    ]
    write_table(workshop.folder / stage / "predictions.csv", rows)


def _test_enrolled(workshop: Workshop, stage: str, names: Mapping[Sample, str]) -> None:
    """Read the test side again, each clip known with 1, 3, 10 and 30 others of its speaker: `enrolled.csv`."""
    samples = [sample for sample in workshop.split.test if sample.version == "original" and sample.utterance.speaker]
    if not samples:  # nobody says who speaks, so there are no others of the same speaker
        return
    found = _logits(workshop, stage, samples, COUNTS)
    answers = {count: logits.argmax(1) for count, logits in zip(COUNTS, found, strict=True)}
    rows = [
        {"file": names[sample], "speaker": sample.utterance.speaker, "emotion": sample.utterance.emotion}
        | {str(count): workshop.labels[answers[count][row]] for count in COUNTS}
        for row, sample in enumerate(samples)
    ]
    write_table(workshop.folder / stage / "enrolled.csv", rows)


def _prediction(sample: Sample, labels: Sequence[str], probabilities: list[float]) -> dict[str, str]:
    utterance = sample.utterance
    return {
        "version": sample.version,
        "speaker": utterance.speaker,
        "sex": utterance.sex,
        "emotion": utterance.emotion,
        "predicted": labels[int(np.argmax(probabilities))],
    } | {label: f"{p:.6g}" for label, p in zip(labels, probabilities, strict=True)}


def _finish(workshop: Workshop) -> None:
    """Calibrate and test what was trained; the network of the last stage is the run's."""
    out = workshop.folder
    done = [stage for stage in STAGES if is_done(out / stage)]
    names = _tested_names(workshop)
    for stage in done:
        if not (out / stage / BORROWED).exists():
            _calibrate(workshop, stage)
            if workshop.split.test and not (out / stage / "predictions.csv").exists():
                if getattr(workshop.recipe, "student" if stage == "functionals" else stage).enrol:
                    _test_enrolled(workshop, stage, names)
                _test(workshop, stage, names)
    weights = (out / done[-1] / "model.safetensors").read_bytes()
    if (out / "model.safetensors").exists() and (out / "model.safetensors").read_bytes() != weights:
        (out / "model.onnx").unlink(missing_ok=True)  # of the stage before
    write_whole(out / "model.safetensors", weights)
    write_whole(out / "model.json", (out / done[-1] / "model.json").read_bytes())


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    """Write rows of equal keys as CSV, atomically."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, rows[0], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_whole(path, text.getvalue())


def commit() -> str:
    """The commit of the source that runs, `-dirty` if it was changed since; the release where it is no checkout."""
    file = Path(vervet.__file__)

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=file.parent, capture_output=True, text=True, check=True).stdout

    try:
        git("ls-files", "--error-unmatch", file.name)  # an environment may lie in another repository
        return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*").strip()
    except (OSError, subprocess.CalledProcessError):
        return f"v{vervet.__version__}"


def machine(precision: Precision) -> str:
    """The processor or GPU, how many threads PyTorch uses, how many processes, and in what precision it computes."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    several = f", {torch.distributed.get_world_size()} processes" if torch.distributed.is_initialized() else ""
    return f"{processor()}, {torch.get_num_threads()} threads{gpu}{several}, {precision}"


def versions() -> dict[str, str]:
    """Of Python and of every package that bears on the result."""
    packages = ("vervet", "torch", "accelerate", "numpy", "soundfile", "soxr")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
