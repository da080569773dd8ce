"""What one changed setting costs or gains: a recipe with an override against the same recipe without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vervet.evaluation.metrics import mean_spread
from vervet.evaluation.records import Record, Runs, by_seed, runs_of, whole_seeds

# What a setting that was changed is about, in the order in which the page asks. A recipe's part stands before the dot.
QUESTIONS = {
    "patch": "Patch shape",
    "position": "Position encoding",
    "stem": "Convolutional stem",
    "alpha": "Weight of the distance to the teacher's feature",
    "epochs": "Epochs",
    "depth": "Depth and heads",
    "heads": "Depth and heads",
    "width": "Columns of the image",
    "image": "Columns of the image",
}


@dataclass(frozen=True)
class Ablation:
    """One change, measured; scores are fractions of 1, differences are to the recipe without the change."""

    corpus: str
    protocol: str
    network: str
    recipe: str  # without the change
    change: tuple[str, ...]  # settings as on the command line, without the dashes
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    n_test: int  # of one seed
    wa: tuple[float, float | None]  # mean and spread over seeds
    uar: tuple[float, float | None]
    # of seeds that both were run on, on the same folds, mean and spread of the differences; None where there are none
    wa_gain: tuple[float, float | None] | None
    uar_gain: tuple[float, float | None] | None

    @property
    def kept(self) -> tuple[str, ...]:
        """The changes that both sides have, but for who validates."""
        return tuple(setting for setting in self.recipe.split(" --")[1:] if not setting.startswith("validate="))

    @property
    def question(self) -> str:
        """What is asked by this change."""
        keys = [setting.partition("=")[0].rpartition(".")[2] for setting in self.change]
        if self._widens:
            return QUESTIONS["width"]
        return next((question for key, question in QUESTIONS.items() if key in keys), "Other settings")

    @property
    def telling(self) -> tuple[str, ...]:
        """What says it all of this network: nothing of the other one, and no image that the width calls for."""
        other = "teacher_network." if self.network.startswith("student") else "student_network."
        told = [one for one in self.change if not one.startswith(other) and not (self._widens and ".image=" in one)]
        return tuple(told) or self.change

    @property
    def _widens(self) -> bool:
        """Whether the image has other columns, for which other patches are needed too."""
        return any(setting.startswith("front_end.width=") for setting in self.change)


def is_ablation(record: Record) -> bool:
    """Whether a record is of a recipe with overrides, whose name goes on with them.

    What starts from another model is not: there, the settings say how to go on from it. Nor is what was asked about
    another corpus: there, they name the model.
    """
    elsewhere = record["protocol"].startswith("from ")
    return " --" in record["recipe"] and " from " not in record["recipe"] and not elsewhere


def ablations(records: Sequence[Record]) -> list[Ablation]:
    """Compare every recipe that has overrides with the same recipe without one of them, or without any.

    Where it differs by `validate` alone, it is the recipe on other clips, and held against nothing.

    Parameters
    ----------
    records : sequence of dict
        As in `results.json`; those of single folds count, and under `paper` the one fold of each seed.

    Returns
    -------
    list of Ablation
        In the order of `QUESTIONS`, then of corpus, protocol, recipe, network and change.
    """
    by_fold, found = runs_of(records), []
    for (corpus, protocol, network, recipe), runs in by_fold.items():
        if is_ablation(next(iter(runs.values()))):
            others = [one for *where, one in by_fold if where == [corpus, protocol, network]]
            base = _nearest(recipe, others)
            change = tuple(setting for setting in recipe.split(" --") if setting not in base.split(" --"))
            same = all(setting.startswith("validate=") for setting in change)  # but for who trains
            plain = {} if same else by_fold.get((corpus, protocol, network, base), {})
            found.append(_compare(corpus, protocol, network, base, change, runs, plain))
    order = list(dict.fromkeys(QUESTIONS.values()))
    return sorted(
        found,
        key=lambda one: (
            [*order, one.question].index(one.question), one.corpus, one.protocol, one.recipe, one.network, one.change,
        ),
    )  # fmt: skip


def _nearest(recipe: str, others: Sequence[str]) -> str:
    """Of other recipes the one that shares most of this one's overrides and has none besides; or it without any."""
    name, *settings = recipe.split(" --")
    parts = {other: other.split(" --") for other in others}
    fewer = [other for other, (of, *kept) in parts.items() if of == name and {*kept} < {*settings}]
    return max(fewer, key=lambda other: len(parts[other]), default=name)


def _compare(
    corpus: str,
    protocol: str,
    network: str,
    recipe: str,
    change: tuple[str, ...],
    runs: Runs,
    plain: Runs,
) -> Ablation:
    seeds = by_seed(runs)
    both = whole_seeds(runs.keys() & plain.keys())
    gains: dict[str, tuple[float, float | None] | None] = {"wa": None, "uar": None}
    if both:
        ours, theirs = (by_seed({key: side[key] for key in both}) for side in (runs, plain))
        for measure in gains:
            gains[measure] = mean_spread(
                [getattr(ours[seed], measure) - getattr(theirs[seed], measure) for seed in ours]
            )
    return Ablation(
        corpus, protocol, network, recipe, change,
        folds=tuple(sorted({fold for _, fold in runs})),
        seeds=tuple(sorted(seeds)),
        n_test=max(scores.n for scores in seeds.values()),
        wa=mean_spread([scores.wa for scores in seeds.values()]),
        uar=mean_spread([scores.uar for scores in seeds.values()]),
        wa_gain=gains["wa"],
        uar_gain=gains["uar"],
    )  # fmt: skip
