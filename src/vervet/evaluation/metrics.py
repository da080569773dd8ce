"""Scores of emotion recognition: WA, UAR, macro-F1, by speaker, with intervals that respect who spoke.

Everything is computed from confusion matrices, rows true and columns predicted. No torch here, and no scikit-learn.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Measure = Literal["wa", "uar", "macro_f1"]


@dataclass(frozen=True)
class Scores:
    """How well a set of clips was recognised. Fractions of 1.

    A class with no true clip has no recall. It is left out of `uar` and `macro_f1` (its recall is None), so a test side
    of one speaker who never shows an emotion is scored on those that are there. Clips that were wrongly given such a
    class still cost the class that they belong to.
    """

    wa: float  # overall accuracy ("weighted accuracy")
    uar: float  # mean recall over the classes that occur
    macro_f1: float  # mean F1 over the classes that occur
    recall: dict[str, float | None]  # of each label, in the order given
    confusion: list[list[int]]  # rows true, columns predicted, in the order of the labels
    n: int  # clips


def scores(true: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> Scores:
    """Score predictions.

    Parameters
    ----------
    true, predicted : sequence of str
        The emotion of each clip, and what was recognised; of equal length, at least one clip.
    labels : sequence of str
        Every emotion that the model can name, each once. Sets the order of the confusion matrix.

    Returns
    -------
    Scores
        Fractions of 1.

    Raises
    ------
    ValueError
        When there is no clip, when the lengths differ, when a label repeats, or for an emotion that is not in `labels`.

    Notes
    -----
    UAR is the mean recall over classes (Schuller et al., "The INTERSPEECH 2009 Emotion Challenge"), which the field
    also calls UA; F1 of a class is 2 TP / (2 TP + FP + FN).

    Examples
    --------
    >>> scores(["anger", "anger", "fear"], ["anger", "fear", "fear"], ["anger", "fear"]).uar
    0.75
    """
    return from_confusion(_confusion(true, predicted, labels).tolist(), labels)


def from_confusion(confusion: Sequence[Sequence[int]], labels: Sequence[str]) -> Scores:
    """Score a confusion matrix, for example the sum of those of several folds.

    Parameters
    ----------
    confusion : sequence of sequence of int
        (classes, classes) counts of clips, rows true, columns predicted.
    labels : sequence of str
        The emotion of each row and column.

    Returns
    -------
    Scores
        Fractions of 1.

    Raises
    ------
    ValueError
        When the matrix is not one count per pair of labels, or is all zero.
    """
    _check_labels(labels)
    if len(confusion) != len(labels) or any(len(row) != len(labels) for row in confusion):
        raise ValueError(f"the confusion matrix is not {len(labels)} x {len(labels)}, one row per label")
    if any(count != int(count) or count < 0 for row in confusion for count in row):
        raise ValueError("a confusion matrix holds whole counts, 0 or more")
    counts = np.array(confusion, dtype=np.int64)
    if counts.sum() == 0:
        raise ValueError("there is no clip to score")
    recall = [
        float(hit / total) if total else None for hit, total in zip(counts.diagonal(), counts.sum(1), strict=True)
    ]
    return Scores(
        wa=float(_wa(counts)),
        uar=float(_uar(counts)),
        macro_f1=float(_macro_f1(counts)),
        recall=dict(zip(labels, recall, strict=True)),
        confusion=counts.tolist(),
        n=int(counts.sum()),
    )


def by_speaker(
    true: Sequence[str], predicted: Sequence[str], speakers: Sequence[str], labels: Sequence[str]
) -> dict[str, Scores]:
    """Score each speaker's clips apart.

    Parameters
    ----------
    true, predicted, labels : sequence of str
        As for `scores`.
    speakers : sequence of str
        Who speaks in each clip. Clips of unknown speakers (the empty string) are scored together.

    Returns
    -------
    dict
        Speaker to `Scores`, sorted by speaker.

    Raises
    ------
    ValueError
        As for `scores`, and when there is not one speaker per clip.
    """
    names, counts = _confusion_by_speaker(true, predicted, speakers, labels)
    return {name: from_confusion(matrix.tolist(), labels) for name, matrix in zip(names, counts, strict=True)}


def interval(
    true: Sequence[str],
    predicted: Sequence[str],
    speakers: Sequence[str],
    labels: Sequence[str],
    measure: Measure = "uar",
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Where a score would lie had other speakers of the same kind been recorded.

    Speakers are drawn with replacement, as many as there are, each with all of their clips; the interval is between the
    percentiles of the score over such draws. Clips of one speaker are alike, so resampling clips would pretend to far
    more evidence than there is; that is why nothing of the kind is done when speakers are unknown.

    Parameters
    ----------
    true, predicted, labels : sequence of str
        As for `scores`.
    speakers : sequence of str
        Who speaks in each clip; the empty string where unknown.
    measure : {"uar", "wa", "macro_f1"}
        Which score. UAR and macro-F1 are means over classes: draws without a clip of some class do not count, since
        their mean would be of the others.
    resamples : int
        Number of draws.
    confidence : float
        Between 0 and 1, both excluded.
    seed : int
        Of the draws: the same words give the same interval.

    Returns
    -------
    tuple of float or None
        (low, high), fractions of 1. None with fewer than two speakers, or where any clip's speaker is unknown: then
        nothing can be said about other speakers.

    Raises
    ------
    ValueError
        As for `scores`, and for an unknown measure, no resamples, or a confidence outside (0, 1).

    Notes
    -----
    The cluster bootstrap with percentile limits: Davison & Hinkley, "Bootstrap Methods and their Application", 1997,
    section 3.8. With few speakers (SAVEE has four) it is too narrow rather than too wide.
    """
    if measure not in _MEASURES:
        raise ValueError(f"unknown measure {measure!r}; known are {', '.join(_MEASURES)}")
    if resamples < 1:
        raise ValueError(f"resamples must be 1 or more, not {resamples}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    names, counts = _confusion_by_speaker(true, predicted, speakers, labels)
    if len(names) < 2 or "" in names:
        return None
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)  # (resamples, speakers)
    sums = np.tensordot(drawn, counts, axes=1)  # (resamples, classes, classes)
    if measure != "wa":
        clips = counts.sum(axis=(0, 2))
        whole = (sums.sum(axis=2)[:, clips > 0] > 0).all(axis=1)
        sums = sums[whole] if whole.any() else sums
    values = _MEASURES[measure](sums)
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def share_interval(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Where the share of one speaker's clips that are recognised would lie, had the same voice said more of the kind.

    Parameters
    ----------
    hits, n : int
        Clips recognised, of how many; n is at least one.
    z : float
        Standard errors to either side; 1.96 gives 95 %.

    Returns
    -------
    tuple of float
        (low, high), fractions of 1. Clips are taken as independent of one another; it says nothing of other speakers.

    Raises
    ------
    ValueError
        When there is no clip, or more hits than clips.

    Notes
    -----
    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    if not 0 <= hits <= n or n == 0:
        raise ValueError(f"{hits} hits of {n} clips are no share")
    share = hits / n
    middle, half = share + z * z / (2 * n), z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    below = 1 + z * z / n
    return max(0.0, float((middle - half) / below)), min(1.0, float((middle + half) / below))


def pooled(matrices: Sequence[Sequence[Sequence[int]]], labels: Sequence[str]) -> Scores:
    """Score the predictions of several folds as one.

    Parameters
    ----------
    matrices : sequence of matrices
        The confusion matrix of each fold, rows true, in the order of `labels`.
    labels : sequence of str
        The emotions, the same in all folds.

    Returns
    -------
    Scores
        Of all predictions together.
    """
    return from_confusion(np.sum(matrices, axis=0).tolist(), labels)


def mean_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and spread of a score over seeds.

    Parameters
    ----------
    values : sequence of float
        One score per seed, at least one.

    Returns
    -------
    mean : float
        Their mean.
    spread : float or None
        Their sample standard deviation (n - 1 below the line); None for a single value, which has no spread.

    Raises
    ------
    ValueError
        When there is no value.
    """
    if len(values) == 0:
        raise ValueError("there is no value to average")
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _wa(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(..., classes, classes) -> (...)."""
    return _hits(counts).sum(-1) / counts.sum((-2, -1))


def _uar(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(..., classes, classes) -> (...)."""
    return _mean_over_present(_hits(counts), counts.sum(-1), counts)


def _macro_f1(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(..., classes, classes) -> (...)."""
    return _mean_over_present(2 * _hits(counts), counts.sum(-1) + counts.sum(-2), counts)


_MEASURES = {"uar": _uar, "wa": _wa, "macro_f1": _macro_f1}


def _hits(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.diagonal(counts, axis1=-2, axis2=-1)


def _mean_over_present(
    above: NDArray[np.int64], below: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Mean of the ratios of those classes that have a true clip."""
    present = counts.sum(-1) > 0
    ratio = np.divide(above, below, out=np.zeros(above.shape), where=present)
    return ratio.sum(-1) / present.sum(-1)


def _check_labels(labels: Sequence[str]) -> None:
    if len(set(labels)) != len(labels):
        raise ValueError(f"a label repeats: {', '.join(labels)}")


def _indices(names: Sequence[str], labels: Sequence[str], what: str) -> NDArray[np.int64]:
    """Position of each name among the labels."""
    position = {label: index for index, label in enumerate(labels)}
    for clip, name in enumerate(names):
        if name not in position:
            raise ValueError(f"clip {clip}: {what} emotion {name!r} is not among the labels {', '.join(labels)}")
    return np.array([position[name] for name in names], dtype=np.int64)


def _confusion(
    true: Sequence[str],
    predicted: Sequence[str],
    labels: Sequence[str],
    groups: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Count clips: (classes, classes), or (groups, classes, classes) where each clip's group is given."""
    _check_labels(labels)
    if len(true) != len(predicted):
        raise ValueError(f"{len(true)} true emotions but {len(predicted)} predicted ones")
    if len(true) == 0:
        raise ValueError("there is no clip to score")
    rows, columns = _indices(true, labels, "true"), _indices(predicted, labels, "predicted")
    leading = () if groups is None else (int(groups.max()) + 1,)
    counts = np.zeros((*leading, len(labels), len(labels)), dtype=np.int64)
    np.add.at(counts, (rows, columns) if groups is None else (groups, rows, columns), 1)
    return counts


def _confusion_by_speaker(
    true: Sequence[str], predicted: Sequence[str], speakers: Sequence[str], labels: Sequence[str]
) -> tuple[list[str], NDArray[np.int64]]:
    """Return the sorted speakers, and (speakers, classes, classes) counts of their clips."""
    if len(speakers) != len(true):
        raise ValueError(f"{len(true)} clips but {len(speakers)} speakers")
    names = sorted(set(speakers))
    position = {name: index for index, name in enumerate(names)}
    groups = np.array([position[name] for name in speakers], dtype=np.int64)
    return names, _confusion(true, predicted, labels, groups if len(groups) else None)
