"""Fitting one linear layer alone: a convex problem, solved in seconds."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vervet.training.fit import class_weights

ITERATIONS = 300


def fit_linear(
    layer: nn.Linear, inputs: Tensor, emotions: Tensor, l2: float, balanced: bool, label_smoothing: float = 0.0,
    shares: Tensor | None = None, corpora: Tensor | None = None,
) -> float:  # fmt: skip
    """Fit a linear layer, with a penalty on what its weights are changed by.

    Parameters
    ----------
    layer : nn.Linear
        Where its weights begin, the penalty draws them back to.
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
    shares = torch.ones(len(inputs)).to(inputs) if shares is None else shares.to(inputs)
    classes = layer.out_features
    weights = shares[:, None]  # (clips, 1 or classes)
    if balanced:
        weights = weights * class_weights(emotions, classes, shares, corpora)
    truth = F.one_hot(emotions, classes)
    targets = (truth * (1 - label_smoothing) + label_smoothing / classes) * weights / (truth * weights).sum()
    origin = layer.weight.detach().clone()
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
