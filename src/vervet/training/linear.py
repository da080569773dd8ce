"""Fitting one linear layer alone: a convex problem, solved in seconds."""

import copy
from collections import Counter
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vervet.training.fit import class_weights

ITERATIONS = 300
FOLDS = 5  # in which penalties are compared
ENOUGH = 1_000  # rows of inputs left out, after which no more folds are needed


def choose_l2(
    layer: nn.Linear, inputs: Tensor, emotions: Tensor, l2s: Sequence[float], groups: Sequence[Hashable],
    balanced: bool, label_smoothing: float = 0.0, shares: Tensor | None = None, corpora: Tensor | None = None,
) -> float:  # fmt: skip
    """Choose the penalty with which a linear layer answers best about clips that it was not fitted on.

    Parameters
    ----------
    layer, inputs, emotions, balanced, label_smoothing, shares, corpora
        As for `fit_linear`; the layer stays as it is.
    l2s : sequence of float
        Penalties to choose from.
    groups : sequence of hashable
        (clips,) Clips of one group, such as a speaker's, are left out together: a fifth of the groups at a time, or
        each alone where there are five or fewer, until all, or a thousand clips, have been left out.

    Returns
    -------
    float
        The penalty with the smallest cross-entropy of the clips left out, which count as in `fit_linear`.
    """
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    if len(l2s) == 1 or len(places) == 1:
        return l2s[0]
    folds = torch.tensor([places[group] % FOLDS for group in groups])
    emotions = emotions.to(inputs.device)
    weights = _counts(layer, inputs, emotions, balanced, shares, corpora)
    counting = weights.expand(-1, layer.out_features).gather(1, emotions[:, None])[:, 0]
    losses, seen = dict.fromkeys(l2s, 0.0), 0
    for fold in folds.unique():
        kept, out = (folds != fold).to(inputs.device), (folds == fold).to(inputs.device)
        known, asked = inputs[kept], inputs[out]
        own = [None if of is None else of.to(inputs.device)[kept] for of in (shares, corpora)]
        trial = copy.deepcopy(layer)
        for l2 in sorted(l2s, reverse=True):  # each is near the one before, where its fit begins
            fit_linear(trial, known, emotions[kept], l2, balanced, label_smoothing, *own, origin=layer.weight)
            with torch.no_grad():
                loss = F.cross_entropy(trial(asked), emotions[out], reduction="none")
            losses[l2] += float((loss * counting[out]).sum())
        seen += len(asked)
        if seen >= ENOUGH:
            break
    return min(losses, key=lambda l2: losses[l2])


def fit_told(
    layer: nn.Linear, inputs: Tensor, emotions: Tensor, groups: Sequence[Hashable], l2: float, factors: Sequence[float],
    balanced: bool, label_smoothing: float = 0.0, shares: Tensor | None = None, corpora: Tensor | None = None,
) -> tuple[float, float]:  # fmt: skip
    """Fit the head of a network on clips that were told of several numbers of others.

    Parameters
    ----------
    layer, balanced, label_smoothing
        As for `fit_linear`.
    inputs : Tensor
        (numbers x clips, features) float32: all clips once for each number.
    emotions, shares, corpora
        As for `fit_linear`, (clips,).
    groups : sequence of hashable
        (clips,) From `left_out_together`; nobody asks for them where there is one factor.
    l2 : float
        The weakest penalty to choose from.
    factors : sequence of float
        By which it may be multiplied, see `choose_l2`.

    Returns
    -------
    tuple of float
        The loss, with the penalty; and the strength of the penalty.
    """
    many = len(inputs) // len(emotions)
    emotions = emotions.repeat(many)
    shares, corpora = (None if given is None else given.repeat(many) for given in (shares, corpora))
    counting = balanced, label_smoothing, shares, corpora
    l2s = [round(l2 * factor, 9) for factor in factors]
    chosen = choose_l2(layer, inputs, emotions, l2s, [*groups] * many, *counting)
    return fit_linear(layer, inputs, emotions, chosen, *counting), chosen


def left_out_together(speakers: Sequence[str], files: Sequence[str], emotions: Tensor) -> list[Hashable]:
    """A group for each clip, as `choose_l2` wants them.

    That is its speaker. Where these are unknown or one, the files of each emotion are dealt out in turn, so that no
    emotion is left out as a whole, each with all its parts; its emotion is here that of the first.
    """
    if all(speakers) and len(set(speakers)) > 1:
        return [*speakers]
    dealt: Counter[int] = Counter()
    groups: dict[str, int] = {}
    for file, emotion in zip(files, emotions.tolist(), strict=True):
        if file not in groups:
            groups[file] = dealt[emotion] % FOLDS
            dealt[emotion] += 1
    return [groups[file] for file in files]


def fit_linear(
    layer: nn.Linear, inputs: Tensor, emotions: Tensor, l2: float, balanced: bool, label_smoothing: float = 0.0,
    shares: Tensor | None = None, corpora: Tensor | None = None, origin: Tensor | None = None,
) -> float:  # fmt: skip
    """Fit a linear layer, with a penalty on what its weights are changed by.

    Parameters
    ----------
    layer : nn.Linear
        Fitted from where it is.
    inputs : Tensor
        (clips, features) float32.
    emotions : Tensor
        (clips,) int64.
    l2 : float
        Half of it times the squared change of the weights is added to the mean cross-entropy.
    balanced : bool
        Whether every emotion of a corpus counts the same, however many clips it has.
    label_smoothing : float, optional
        Share of the target that is spread over all emotions.
    shares : Tensor, optional
        (clips,) float32, how much each clip counts; all the same, if not given.
    corpora : Tensor, optional
        (clips,) int64, whose recordings they are; of one corpus, if not given.
    origin : Tensor, optional
        The weights that the penalty draws back to; those that the layer begins with, if not given.

    Returns
    -------
    float
        The loss, with the penalty.

    Raises
    ------
    ValueError
        If the loss is not finite.

    Notes
    -----
    Multinomial logistic regression by L-BFGS, without chance: its minimum is one.
    """
    emotions = emotions.to(inputs.device)
    classes = layer.out_features
    weights = _counts(layer, inputs, emotions, balanced, shares, corpora)
    truth = F.one_hot(emotions, classes)
    targets = (truth * (1 - label_smoothing) + label_smoothing / classes) * weights / (truth * weights).sum()
    origin = (layer.weight if origin is None else origin).detach().clone()
    optimizer = torch.optim.LBFGS(
        layer.parameters(), max_iter=ITERATIONS, tolerance_grad=1e-5, tolerance_change=1e-7, history_size=10,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(layer(inputs), targets, reduction="sum")
        loss = loss + l2 / 2 * (layer.weight - origin).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    loss = float(closure().detach())
    if not loss < float("inf"):
        raise ValueError(f"the loss of a linear layer is {loss}")
    return loss


def _counts(
    layer: nn.Linear, inputs: Tensor, emotions: Tensor, balanced: bool, shares: Tensor | None, corpora: Tensor | None
) -> Tensor:
    """How much each clip counts: (clips, 1), or of balanced ones (clips, classes), by emotion."""
    shares = torch.ones(len(inputs)).to(inputs) if shares is None else shares.to(inputs)
    counts = shares[:, None]
    return counts * class_weights(emotions, layer.out_features, shares, corpora) if balanced else counts
