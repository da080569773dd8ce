"""The network that training starts from, where it does not start from chance."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import nn

from vervet.config import NETWORKS, FrontEnd, Recipe, Vit, merge
from vervet.corpora import OWN, Utterance
from vervet.evaluation.leakage import count_heard
from vervet.evaluation.protocols import Split
from vervet.models.checkpoint import enrols, load_network
from vervet.models.exported import read_exported
from vervet.models.functionals import FunctionalsHead
from vervet.models.vit import VisionTransformer
from vervet.predict import find_model, shipped_model

HEADS = ("head.", "functionals.")


@dataclass(frozen=True)
class Base:
    """A trained network and what is known of it."""

    name: str  # where it was found
    network: VisionTransformer
    card: dict[str, Any]

    @property
    def labels(self) -> tuple[str, ...]:
        """The emotions that its head knows."""
        return tuple(self.card["labels"])

    @property
    def enrols(self) -> bool:
        """Whether it was trained to know the statistics of other clips by the same speaker."""
        return enrols(self.card)

    @property
    def whole(self) -> bool:
        """Whether it was trained on all clips of its corpora, and so was whatever it started from."""
        card: dict[str, Any] | None = self.card
        while card:
            if card["protocol"] != "all":
                return False
            card = card.get("base")
        return True

    @property
    def origin(self) -> dict[str, Any]:
        """What the card of a network trained from this one says of it; no path, but a hash of the weights."""
        weights = hashlib.sha256()
        for tensor in self.network.state_dict().values():
            weights.update(tensor.numpy().tobytes())
        known = ("corpora", "protocol", "leaky", "recipe", "split_hash", "commit", "base")
        told = {key: self.card[key] for key in known if key in self.card}
        return told | {"labels": list(self.labels), "weights": weights.hexdigest()[:16]}


def is_folder(model: str | Path | None) -> TypeGuard[str | Path]:
    """Whether a model is a folder, such as that of a run, and none that comes with Vervet."""
    return model is not None and Path(model).is_dir() and not shipped_model(model)


def load_base(model: str | Path | None = None) -> Base:
    """Read the network to start from.

    Parameters
    ----------
    model : str or Path, optional
        A run folder, an exported `.onnx` file, or the name of a shipped model; the shipped default where not given.

    Returns
    -------
    Base
        With every weight as the file holds it.

    Raises
    ------
    ValueError
        If there is no such model, or its weights cannot be had back.
    """
    if is_folder(model):
        return Base(str(model), *load_network(Path(model)))
    name, content = find_model(model)
    return Base(name, *read_exported(content, name))


def starting(corpora: Sequence[str], whole: bool) -> str:
    """What the name of a recipe goes on with where it starts from a model of these corpora, `whole` as of `Base`."""
    return f" from {'all of ' if whole else ''}{'+'.join(corpora)}"


def start_from(recipe: Recipe, base: Base) -> Recipe:
    """Give a recipe the front end and the network of its base.

    Parameters
    ----------
    recipe : Recipe
        Of the stages student and functionals alone. Its network's dropout stays as it is: it has no weights.
    base : Base
        What training starts from.

    Returns
    -------
    Recipe
        With which the base's weights fit.

    Raises
    ------
    ValueError
        If the recipe has other stages, or settings of its own for the front end or the network.
    """
    if not set(recipe.stages) <= {"student", "functionals"}:
        raise ValueError("training from a base has no teacher to match: give --stages=student or [student,functionals]")
    if recipe.student.alpha > 0:
        raise ValueError("training from a base has no teacher: give --student.alpha=0")
    front_end = merge(FrontEnd(), base.card["front_end"], base.name)
    dropout = recipe.student_network.dropout
    network = replace(base.network.config, dropout=dropout, functionals=False, share=Vit.share)  # its stage adds them
    for name, own, default, given in (
        ("front_end", recipe.front_end, FrontEnd(), front_end),
        ("student_network", recipe.student_network, replace(NETWORKS["student"], dropout=dropout), network),
    ):
        if own not in (default, given):
            raise ValueError(f"{name} is that of the base, {base.name}, and cannot be set")
    unused = Vit(image=network.image, patch=(network.image[0], 1), embed_dim=network.embed_dim)
    return replace(recipe, front_end=front_end, student_network=network, teacher_network=unused)


def check_unheard(base: Base, utterances: Sequence[Utterance], sides: Split) -> None:
    """Refuse a base that may have been trained on what is to be tested.

    Parameters
    ----------
    base : Base
        What training starts from.
    utterances : sequence of Utterance
        Of the corpora that it is to be trained and tested on.
    sides : Split
        Where they go.

    Raises
    ------
    ValueError
        If the base was trained on one of these corpora by another split, or on a user's own recordings, among them any
        that is to be tested.
    """
    heard = sorted({utterance.corpus for utterance in utterances}.difference(OWN).intersection(base.card["corpora"]))
    if heard and sides.test and base.card["split_hash"] != sides.hash():
        raise ValueError(
            f"{base.name} was trained on {' and '.join(heard)} by another split, so it may have heard the test side: "
            "start from a model of the same split, or of other corpora"
        )
    tested = [sample.utterance for sample in sides.test]
    if count := count_heard(base.card, tested):
        raise ValueError(
            f"{base.name} was trained on {count} of the {len(tested)} clips that are to be tested, or on other clips "
            "of their speakers, so it knows them: mark others as test, or start from a model that has not heard them; "
            "of one that was fine-tuned on your clips, from what that started from"
        )


@torch.no_grad()
def take_over(network: VisionTransformer, labels: tuple[str, ...], base: Base) -> None:
    """Give a new network the weights of its base, and freeze what its BatchNorms know.

    Parameters
    ----------
    network : VisionTransformer
        Of the base's shape, but for the heads.
    labels : tuple of str
        Of the new network. The head's rows of emotions that the base knows are taken over; all others are 0.
    base : Base
        Where the weights come from.
    """
    weights = {key: value for key, value in base.network.state_dict().items() if not key.startswith(HEADS)}
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert (set(missing), set(unexpected)) == ({"head.weight", "head.bias"}, set())
    _take_rows(network.head, labels, base.network.head, base.labels)
    if network.reduce is not None:
        network.reduce.frozen = True


@torch.no_grad()
def known_functionals(labels: tuple[str, ...], base: Base | None) -> FunctionalsHead | None:
    """What a base knows of functionals, for other labels.

    Parameters
    ----------
    labels : tuple of str
        Of the new network. Rows of emotions that the base does not know are 0.
    base : Base or None
        What training starts from.

    Returns
    -------
    FunctionalsHead or None
        None if there is no base, or it has no such head.
    """
    if base is None or base.network.functionals is None:
        return None
    old = base.network.functionals
    new = FunctionalsHead(len(labels), old.comb.shape[1])
    for name in ("bels", "comb", "mean", "deviation"):
        getattr(new, name).copy_(getattr(old, name))
    _take_rows(new.linear, labels, old.linear, base.labels)
    return new


def _take_rows(new: nn.Linear, labels: tuple[str, ...], old: nn.Linear, known: tuple[str, ...]) -> None:
    """Give a layer the rows of another that stand for the same labels, and zeros for all others."""
    new.weight.zero_()
    new.bias.zero_()
    for row, label in enumerate(labels):
        if label in known:
            new.weight[row] = old.weight[known.index(label)]
            new.bias[row] = old.bias[known.index(label)]
