"""What a confidence is worth: temperature, calibration error, and when an answer is too unsure to be given.

Temperature and threshold are chosen on validation clips and go into the model; what they bring is measured on test
clips.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

TEMPERATURES = np.exp(np.linspace(-3, 3, 601))  # that are tried, 1 % apart
WITHHELD_COST = 0.5  # of an answer that is withheld; a wrong one costs 1
BINS = 10


@dataclass(frozen=True)
class Calibration:
    """What turns a network's logits into confidences that mean something.

    Attributes
    ----------
    temperature : float
        The logits are divided by it.
    uncertain_below : float
        In [0, 1]; an answer less sure than this is more likely wrong than right.
    """

    temperature: float
    uncertain_below: float


def calibrate(logits: ArrayLike, true: ArrayLike) -> Calibration:
    """Choose temperature and threshold on clips that were not trained on.

    The temperature (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017) minimises the negative
    log-likelihood, to which half the square of its logarithm is added: on a few clips, all of them right, the network
    would otherwise become infinitely sure. The threshold minimises the cost of answers where a wrong one costs 1 and a
    withheld one a half (Chow, "On optimum recognition error and reject tradeoff", 1970).

    Parameters
    ----------
    logits : array
        (clips, classes) float, of the network as it was trained.
    true : array
        (clips,) int, the index of the true emotion.

    Returns
    -------
    Calibration
        Temperature to 1 %, from 0.05 to 20.

    Raises
    ------
    ValueError
        If there is no clip, or a logit is not finite.
    """
    logits, true = np.asarray(logits, np.float64), np.asarray(true, np.int64)
    if not len(logits):
        raise ValueError("calibration needs at least one clip")
    if not np.isfinite(logits).all():
        raise ValueError("the network answers NaN; its weights are damaged")
    surprise = [_negative_log_likelihood(logits / t, true) + np.log(t) ** 2 / 2 for t in TEMPERATURES]
    temperature = float(TEMPERATURES[np.argmin(surprise)])
    probabilities = softmax(logits / temperature)
    threshold = _threshold(probabilities.max(1), probabilities.argmax(1) == true)
    return Calibration(round(temperature, 4), round(threshold, 4))


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities (clips, classes) of logits (clips, classes)."""
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def _negative_log_likelihood(logits: NDArray[np.float64], true: NDArray[np.int64]) -> float:
    top = logits.max(axis=1)
    log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return float((log_sum - logits[np.arange(len(true)), true]).sum())


def _threshold(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """The lowest threshold of least cost; between two clips it lies halfway."""
    order = np.argsort(confidence, kind="stable")
    sure, wrong = confidence[order], ~right[order]
    withheld = np.arange(len(sure) + 1)  # the k least sure
    cost = WITHHELD_COST * withheld + (wrong.sum() - np.concatenate([[0], np.cumsum(wrong)]))
    edges = np.concatenate([[0.0], (sure[:-1] + sure[1:]) / 2, [1.0]])
    apart = np.concatenate([[True], sure[:-1] < edges[1:-1], sure[-1:] < 1])  # those equally sure are answered alike
    return float(edges[np.argmin(np.where(apart, cost, np.inf))])


@dataclass(frozen=True)
class Bin:
    """Clips of about the same confidence."""

    confidence: float  # their mean
    accuracy: float  # the share of them that is right
    clips: int


def reliability(confidence: ArrayLike, right: ArrayLike, bins: int = BINS) -> list[Bin]:
    """Compare how sure a network is with how often it is right.

    Parameters
    ----------
    confidence : array
        (clips,) float in [0, 1], the probability of the answer.
    right : array
        (clips,) bool.
    bins : int
        Of equal width over [0, 1].

    Returns
    -------
    list of Bin
        From unsure to sure, without empty ones.
    """
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, bool)
    chosen = np.minimum((confidence * bins).astype(int), bins - 1)
    found = (chosen == index for index in range(bins))
    return [
        Bin(float(confidence[inside].mean()), float(right[inside].mean()), int(inside.sum()))
        for inside in found
        if inside.any()
    ]


def calibration_error(confidence: ArrayLike, right: ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart, a mean over clips.

    Parameters
    ----------
    confidence, right, bins
        As for `reliability`.

    Returns
    -------
    float
        In [0, 1].
    """
    found = reliability(confidence, right, bins)
    return sum(abs(one.confidence - one.accuracy) * one.clips for one in found) / sum(one.clips for one in found)


def rejection(confidence: ArrayLike, right: ArrayLike) -> list[tuple[float, float]]:
    """Accuracy of the answers, were only the surest of them given.

    Parameters
    ----------
    confidence, right
        As for `reliability`.

    Returns
    -------
    list of tuple of float
        Share of clips answered and accuracy among them, for every number of clips from one to all. Where clips are
        equally sure, the wrong ones are answered first.
    """
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, bool)
    answered = np.arange(1, len(right) + 1)
    accuracy = np.cumsum(right[np.lexsort((right, -confidence))]) / answered
    return list(zip((answered / len(right)).tolist(), accuracy.tolist(), strict=True))
