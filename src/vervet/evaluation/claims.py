"""The paper's claims, each held against our records: is it seen, and is it still seen without leakage."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from vervet.evaluation.records import Record, Runs, by_seed, runs_of, whole_seeds

Verdict = Literal["holds", "the opposite holds", "within chance"]
Side = tuple[str, str]  # network, recipe

ERRORS = 2.0  # standard errors that a difference must reach to be more than chance
# The same where the error was found from few speakers: Student's t, two-sided 95 %, of 1, 2, 3 and more degrees of
# freedom, of speakers one less than there are.
FEW = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10)
SHAPES, POSITIONS = ("[16,16]", "[1,128]"), ("learned", "sinusoidal")


@dataclass(frozen=True)
class Claim:
    """That one side is better than each of some others.

    Attributes
    ----------
    text : str
        In our words.
    pairs : tuple of pair of Side
        The one that is said to be better, and the other.
    """

    text: str
    pairs: tuple[tuple[Side, Side], ...]


def _changed(network: str, recipe: str, *settings: str) -> tuple[tuple[Side, Side], ...]:
    """A recipe against itself with one setting changed, for each setting."""
    return tuple(((network, recipe), (network, f"{recipe} --{setting}")) for setting in settings)


CLAIMS = (
    Claim(
        "The student comes to know more than the teacher that taught it.",
        tuple((("student", recipe), ("teacher", recipe)) for recipe in ("paper", "fast")),
    ),
    Claim(
        "What the teacher passes on makes the student better than learning on its own.",
        ((("student", "fast"), ("student", "alone")), (("student", "paper"), ("student", "alone"))),
    ),
    Claim(
        "Matching features and then learning both is better than matching alone.",
        tuple((("student", recipe), ("student-matched", recipe)) for recipe in ("paper", "fast")),
    ),
    Claim(
        "Vertical patches are better than square and horizontal ones.",
        _changed("student", "alone", *(f"student_network.patch={shape}" for shape in SHAPES))
        + _changed(
            "student",
            "alone",
            *(f"student_network.patch={shape} --student_network.position=learned" for shape in SHAPES),
        )
        + _changed("teacher", "fast", *(f"teacher_network.patch={shape}" for shape in SHAPES)),
    ),
    Claim(
        "Image coordinates make the teacher better than no positions and than other encodings.",
        _changed("teacher", "fast", *(f"teacher_network.position={name}" for name in ("none", *POSITIONS))),
    ),
    Claim(
        "The student needs no positions.",
        _changed("student", "alone", *(f"student_network.position={name}" for name in (*POSITIONS, "ice"))),
    ),
    Claim("The convolutional stem makes the teacher better.", _changed("teacher", "fast", "teacher_network.stem=[]")),
    Claim(
        "The distance to the teacher's feature should weigh ten times the cross-entropy.",
        _changed("student", "fast", *(f"student.alpha={alpha}" for alpha in (0, 1, 100))),
    ),
)


@dataclass(frozen=True)
class Evidence:
    """Two sides on the same corpus, protocol, folds and seeds.

    Attributes
    ----------
    corpus, protocol : str
        As in the records.
    better, other : Side
        The one that is claimed to be better, and the other.
    seeds : int
        Over how many the scores are a mean.
    n_test : int
        Test clips of one seed, all folds pooled.
    gain : float
        WA of `better` less that of `other`, a fraction of 1.
    margin : float
        How far from 0 the gain must be to be more than chance. By unheard speakers, from how differently it falls out
        for them: other speakers might be tested. Else from the number of clips, as if the two sides were independent.
    speakers : int
        Over how many it was found; 0 where clips count.
    """

    corpus: str
    protocol: str
    better: Side
    other: Side
    seeds: int
    n_test: int
    gain: float
    margin: float
    speakers: int = 0

    @property
    def verdict(self) -> Verdict:
        """What the gain says of the claim."""
        if self.gain == 0 or abs(self.gain) < self.margin:
            return "within chance"
        return "holds" if self.gain > 0 else "the opposite holds"


def evidence(claim: Claim, records: Sequence[Record]) -> list[Evidence]:
    """Hold a claim against records.

    Parameters
    ----------
    claim : Claim
        One of `CLAIMS`.
    records : sequence of dict
        As in `results.json`; those of single folds count.

    Returns
    -------
    list of Evidence
        For every pair, corpus and protocol of which both sides were measured on a fold and seed.
    """
    runs, found = runs_of(records), []
    places = sorted({(corpus, protocol) for corpus, protocol, *_ in runs})
    for pair in claim.pairs:
        for corpus, protocol in places:
            better, other = (runs.get((corpus, protocol, *side), {}) for side in pair)
            if both := whole_seeds(better.keys() & other.keys()):
                found.append(_compared(corpus, protocol, pair, *({k: of[k] for k in both} for of in (better, other))))
    return found


def _compared(corpus: str, protocol: str, pair: tuple[Side, Side], better: Runs, other: Runs) -> Evidence:
    sides = [by_seed(runs).values() for runs in (better, other)]
    n_test = min(score.n for side in sides for score in side)
    means = [statistics.fmean(score.wa for score in side) for side in sides]
    found = between(corpus, protocol, pair, len(sides[0]), n_test, *means)
    speakers, others = (
        {name for run in side.values() for name in run.get("by_speaker", ())} for side in (better, other)
    )
    if speakers != others or protocol != "speaker" or len(speakers) < 2:
        return found
    gains, weights = np.transpose([_of_speaker(name, better, other) for name in sorted(speakers)])
    weights = weights / weights.sum()
    spread = math.sqrt(len(gains) / (len(gains) - 1) * float((weights**2 * (gains - weights @ gains) ** 2).sum()))
    errors = FEW[len(gains) - 2] if len(gains) - 2 < len(FEW) else ERRORS
    return replace(found, margin=errors * spread, speakers=len(gains))


def _of_speaker(name: str, better: Runs, other: Runs) -> tuple[float, float]:
    """The gain in WA for one speaker, mean of the seeds, and of how many clips."""
    pairs = [
        (better[run]["by_speaker"][name], other[run]["by_speaker"][name])
        for run in better
        if name in better[run]["by_speaker"]
    ]
    return statistics.fmean(ours["wa"] - theirs["wa"] for ours, theirs in pairs), pairs[0][0]["n"]


def between(
    corpus: str, protocol: str, pair: tuple[Side, Side], seeds: int, n_test: int, better: float, other: float
) -> Evidence:
    """Compare two accuracies.

    Parameters
    ----------
    corpus, protocol, pair, seeds, n_test
        As `Evidence` has them.
    better, other : float
        WA of the two sides, fractions of 1.

    Returns
    -------
    Evidence
        Its margin is that of the difference between two shares of `n_test`.
    """
    error = math.sqrt((better * (1 - better) + other * (1 - other)) / n_test)
    return Evidence(corpus, protocol, *pair, seeds, n_test, better - other, ERRORS * error)
