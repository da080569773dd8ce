"""The three stages of knowledge transfer, teacher, feature map matching, student; and one for a second head."""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from vervet.config import STAGES, Recipe, Vit
from vervet.evaluation.protocols import Sample, Split
from vervet.models.checkpoint import load, load_network, save, save_network
from vervet.models.vit import VisionTransformer
from vervet.training.enrol import met, statistics_of
from vervet.training.fit import Side, corpus_shares, fit, kept_epoch, predict, seed_of
from vervet.training.functionals import fit_functionals
from vervet.training.linear import fit_told, left_out_together
from vervet.training.pool import Images, Pool
from vervet.training.pretrained import Base, known_functionals, take_over


@dataclass(frozen=True)
class Workshop:
    """What all stages of one run share."""

    recipe: Recipe
    split: Split
    pool: Pool
    labels: tuple[str, ...]
    folder: Path  # the run; each stage has a folder of its own in it
    card: dict[str, Any]  # goes with every network that is saved
    accelerator: Accelerator
    base: Base | None = None  # whose weights the student starts from

    def side(self, samples: Sequence[Sample], targets: Tensor | None = None) -> Side:
        """The images of some samples, with their emotions and perhaps the teacher's features of them."""
        emotions = torch.tensor([self.labels.index(sample.utterance.emotion) for sample in samples])
        speakers = _numbered([sample.utterance.speaker for sample in samples])
        corpora = _numbered([sample.utterance.corpus for sample in samples])
        clips = _numbered([str(sample.utterance) for sample in samples])
        return Side(self.pool.select(samples), emotions, targets, speakers, corpora, clips)


def check_stages(recipe: Recipe, sides: Split, brought: Sequence[str], processes: int = 1) -> None:
    """Refuse at the start what a stage could not do once those before it have trained.

    Parameters
    ----------
    recipe : Recipe
        With the stages.
    sides : Split
        What they train and validate on.
    brought : sequence of str
        The stages that are done, here or in the run whose teacher is taken over.
    processes : int
        That share each batch.

    Raises
    ------
    ValueError
        If a stage needs one that is neither asked for nor done, has fewer images than a batch, nothing to choose its
        best epoch by, or a batch that cannot be shared out evenly.
    """
    there = set(brought)
    for name in recipe.stages:
        settings = getattr(recipe, name)
        matched = name == "matching" or (name == "student" and settings.alpha > 0)
        for needed, by in (("teacher", matched), ("student", name == "functionals")):
            if by and needed not in there:
                raise ValueError(f"stage {name} needs a {needed}, and there is none; add {needed} to stages")
        there.add(name)
        if name in brought or name == "functionals" or settings.head_l2 > 0:
            continue
        if len(sides.train) < settings.batch_size:
            raise ValueError(
                f"stage {name}: a batch of {settings.batch_size} needs more than {len(sides.train)} images"
            )
        if settings.keep == "best" and not sides.validation:
            raise ValueError(f"stage {name}: nothing validates, so no epoch is best; give --{name}.keep=last")
        groups = settings.batch_size // (settings.enrol or 1)
        if groups % processes:
            told = f"{groups} groups of {settings.enrol} clips by one speaker" if settings.enrol else f"{groups} images"
            raise ValueError(f"stage {name}: {processes} processes cannot share a batch of {told} evenly")


def run_stages(workshop: Workshop) -> None:
    """Run the recipe's stages in order; those that the run folder already holds are taken as they are.

    Raises
    ------
    ValueError
        If a stage was left out before and a later one is done.
    """
    stages: dict[str, Callable[[Workshop], None]] = {
        "teacher": _teacher, "matching": _matching, "student": _student, "functionals": _functionals,
    }  # fmt: skip
    for name in workshop.recipe.stages:
        if is_done(workshop.folder / name):
            continue
        if done := [later for later in STAGES[STAGES.index(name) :] if is_done(workshop.folder / later)]:
            raise ValueError(f"{workshop.folder}: {done[0]} was trained without {name}; choose another --out")
        stages[name](workshop)


def is_done(folder: Path) -> bool:
    """Whether a stage left its network."""
    return (folder / "model.json").exists()


def _teacher(workshop: Workshop) -> None:
    model = _new(workshop, workshop.recipe.teacher_network, "teacher")
    _fit(workshop, "teacher", model, None)


def _matching(workshop: Workshop) -> None:
    """The student learns where the teacher's feature lies, and nothing else. The teacher's head reads the result."""
    teacher = _load_teacher(workshop)
    model = _new(workshop, workshop.recipe.student_network, "student")
    model.head.load_state_dict(teacher.head.state_dict())
    model.head.requires_grad_(workshop.recipe.matching.cross_entropy)
    _fit(workshop, "matching", model, teacher)


def _student(workshop: Workshop) -> None:
    """Emotions and the teacher's feature together, from the base, the matched student, or else from nothing."""
    model = _new(workshop, workshop.recipe.student_network, "student")
    if workshop.base:
        take_over(model, workshop.labels, workshop.base)
        if workshop.recipe.student.head_l2 > 0:
            return _fit_head(workshop, model)
    if is_done(workshop.folder / "matching"):
        matched, _ = load_network(workshop.folder / "matching")
        model.load_state_dict(matched.state_dict())
    teacher = _load_teacher(workshop) if workshop.recipe.student.alpha > 0 else None
    _fit(workshop, "student", model, teacher)


def _fit_head(workshop: Workshop, model: VisionTransformer) -> None:
    """The head alone, on what the base makes of the clips as they were recorded; the rest stays that of the base."""
    folder, recipe, settings = workshop.folder / "student", workshop.recipe, workshop.recipe.student
    if workshop.accelerator.is_main_process:
        started = time.perf_counter()
        clips, device = _recorded(workshop), workshop.accelerator.device
        known, told = statistics_of(model.to(device), clips.images), _told(workshop, clips.speakers)
        features = [
            predict(model, clips.images, device, told=met(known, clips.speakers, count, recipe.seed))[1]
            for count in told
        ]
        model.cpu()
        loss, l2 = fit_told(
            model.head, torch.cat(features), clips.emotions, clips.groups, settings.head_l2, settings.l2_factors,
            settings.balanced, settings.label_smoothing, clips.shares, clips.corpora,
        )  # fmt: skip
        folder.mkdir(exist_ok=True)
        minutes = (time.perf_counter() - started) / 60
        said = {"stage": "student", "network": "student", "settings": asdict(settings), "minutes": minutes}
        save_network(folder, model, workshop.card | said | {"epoch": 0, "epochs": 0, "head_loss": loss, "head_l2": l2})
    workshop.accelerator.wait_for_everyone()


@dataclass(frozen=True)
class _Recorded:
    """The training clips as they were recorded."""

    images: Images
    emotions: Tensor  # (clips,) int64
    speakers: list[str]
    shares: Tensor | None  # (clips,) how much each counts; None: all the same
    corpora: Tensor  # (clips,) int64
    groups: list[Hashable]  # left out together where a penalty is chosen


def _recorded(workshop: Workshop) -> _Recorded:
    samples = [sample for sample in workshop.split.train if sample.version == "original"]
    emotions = torch.tensor([workshop.labels.index(sample.utterance.emotion) for sample in samples])
    corpora = _numbered([sample.utterance.corpus for sample in samples])
    shares = corpus_shares(corpora, workshop.recipe.student.corpus_power)
    speakers = [sample.utterance.speaker for sample in samples]
    groups = left_out_together(speakers, [str(sample.utterance.path) for sample in samples], emotions)
    images = workshop.pool.select(samples).to(workshop.accelerator.device)
    return _Recorded(images, emotions, speakers, shares, corpora, groups)


def _numbered(names: Sequence[str]) -> Tensor:
    """A number for each different name, in alphabetical order: (names,) int64."""
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return torch.tensor([numbers[name] for name in names], dtype=torch.long)


def _told(workshop: Workshop, speakers: Sequence[str]) -> tuple[int, ...]:
    """Of how many other clips of its speaker a linear head is told."""
    return workshop.recipe.functionals.told if workshop.recipe.student.enrol and all(speakers) else (0,)


def _functionals(workshop: Workshop) -> None:
    """The student as it is, and a head beside its own that reads functionals of the clips as they were recorded."""
    source, folder, recipe = workshop.folder / "student", workshop.folder / "functionals", workshop.recipe
    if workshop.accelerator.is_main_process:
        started = time.perf_counter()
        student, card = load_network(source)
        shape = replace(student.config, functionals=True, share=recipe.functionals.share)
        model = VisionTransformer(shape, len(workshop.labels))
        model.load_state_dict(student.state_dict(), strict=False)
        assert model.functionals is not None
        model.functionals.read(recipe.front_end)
        model.to(workshop.accelerator.device)
        clips = _recorded(workshop)
        settings = replace(recipe.functionals, told=_told(workshop, clips.speakers))
        known = known_functionals(workshop.labels, workshop.base)
        factors = recipe.student.l2_factors if known else (1.0,)
        loss, l2 = fit_functionals(
            model.functionals, clips.images, clips.emotions, clips.speakers, settings, recipe.student.balanced,
            recipe.seed, known, clips.shares, clips.corpora, factors, clips.groups,
        )  # fmt: skip
        folder.mkdir(exist_ok=True)
        minutes = card["minutes"] + (time.perf_counter() - started) / 60
        told = {
            "stage": "functionals",
            "network": "student",
            "minutes": minutes,
            "functionals": asdict(replace(settings, l2=l2)),
        }
        told |= {"functionals_loss": loss} | {key: card[key] for key in ("settings", "epoch", "epochs")}
        save_network(folder, model, workshop.card | told)
    workshop.accelerator.wait_for_everyone()


def _new(workshop: Workshop, vit: Vit, name: str) -> VisionTransformer:
    """A network with random weights that depend on the recipe's seed and the network's name alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(workshop.recipe.seed, name, "weights"))
        return VisionTransformer(vit, len(workshop.labels))


def _load_teacher(workshop: Workshop) -> VisionTransformer:
    return load_network(workshop.folder / "teacher")[0]


def _fit(workshop: Workshop, name: str, model: VisionTransformer, teacher: VisionTransformer | None) -> None:
    """Fit one stage and save its network."""
    folder = workshop.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    targets = {} if teacher is None else _features(workshop, teacher)
    stage = getattr(workshop.recipe, name)
    history = fit(
        model,
        stage,
        name,
        workshop.side(workshop.split.train, targets.get("train")),
        workshop.side(workshop.split.validation, targets.get("validation")),
        workshop.labels,
        workshop.recipe.seed,
        folder,
        workshop.accelerator,
        workshop.recipe.precision,
        workshop.recipe.augment.online,
        workshop.recipe.front_end,
    )
    if workshop.accelerator.is_main_process:
        chosen = {"stage": name, "settings": asdict(stage), "epoch": kept_epoch(history, stage), "epochs": len(history)}
        network = "teacher" if name == "teacher" else "student"
        minutes = sum(row["seconds"] for row in history) / 60
        save_network(folder, model, workshop.card | {"network": network, "minutes": minutes} | chosen)
    workshop.accelerator.wait_for_everyone()


def _features(workshop: Workshop, teacher: VisionTransformer) -> dict[str, Tensor]:
    """The frozen teacher's features of the training and the validation side, (samples, embed_dim); computed once."""
    path = workshop.folder / "teacher" / "features.safetensors"
    if workshop.accelerator.is_main_process and not path.exists():
        device = workshop.accelerator.device
        teacher = teacher.to(device)
        features = {
            name: predict(teacher, workshop.pool.select(samples).to(device), device, workshop.recipe.precision)[1]
            for name, samples in (("train", workshop.split.train), ("validation", workshop.split.validation))
            if samples
        }
        save(path, features, {})
    workshop.accelerator.wait_for_everyone()
    return load(path)[0]
