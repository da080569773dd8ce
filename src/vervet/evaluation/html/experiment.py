"""What a report is about: one run, or the folds of one experiment taken together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vervet.evaluation.run import Tested, history, pool, read_tested
from vervet.files import read_json

SAME = ("corpus", "protocol", "network", "recipe", "seed", "labels")  # in all folds of one experiment


@dataclass(frozen=True)
class Network:
    """A network of an experiment, one per fold, and what they answered on their test sides."""

    folds: tuple[Tested, ...]

    @cached_property
    def record(self) -> dict[str, Any]:
        """Scores in the shape of `results/results.json`; of several folds, of all their answers together."""
        return self.folds[0].record if len(self.folds) == 1 else pool(self.folds)

    @property
    def labels(self) -> list[str]:
        """Every emotion that it can name."""
        return self.folds[0].record["labels"]

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """The answers of all folds, see `Tested`."""
        return [row for fold in self.folds for row in fold.rows]

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """(clips, classes), temperature applied."""
        return np.concatenate([fold.probabilities for fold in self.folds])

    @cached_property
    def uncalibrated(self) -> NDArray[np.float64]:
        """(clips, classes), without the temperature."""
        return np.concatenate([fold.uncalibrated for fold in self.folds])

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """(clips,) whether the answer is the true emotion."""
        return np.concatenate([fold.right for fold in self.folds])

    @cached_property
    def uncertain(self) -> NDArray[np.bool_]:
        """(clips,) whether the answer is less sure than its fold's own threshold; never without one."""
        below = [np.full(len(fold.rows), fold.card.get("uncertain_below", 0.0)) for fold in self.folds]
        return self.probabilities.max(1) < np.concatenate(below)

    @property
    def calibrated(self) -> bool:
        """Whether every fold has a temperature."""
        return all("temperature" in fold.card for fold in self.folds)


@dataclass(frozen=True)
class Experiment:
    """Everything that finished runs tell, without any audio."""

    folders: tuple[Path, ...]  # by fold
    runs: tuple[dict[str, Any], ...]  # run.json of each
    audits: tuple[dict[str, Any], ...]  # audit.json of each
    networks: tuple[Network, ...]  # in the order of the stages

    @property
    def last(self) -> Network:
        """The network of the last stage: what the run is for."""
        return self.networks[-1]

    @property
    def leaky(self) -> bool:
        """Whether the protocol is leaky, or the audit found that a split is."""
        return any(run["leaky"] for run in self.runs) or any(audit["leaky"] for audit in self.audits)

    @property
    def validated(self) -> bool:
        """Whether there were validation clips; a recipe may train on them as well."""
        return all(run["settings"].get("validate", True) for run in self.runs)

    @cached_property
    def histories(self) -> list[list[dict[str, Any]]]:
        """Every epoch of each fold."""
        return [history(folder) for folder in self.folders]

    @cached_property
    def robustness(self) -> list[dict[str, Any]]:
        """The rows of robustness.json; none where it was not measured, or on other recordings than these."""
        path = self.home / "robustness.json"
        rows = read_json(path) if path.is_file() else []
        clips = sum(row["version"] == "original" for row in self.last.rows)
        return rows if rows and rows[0]["n"] == clips else []

    @property
    def home(self) -> Path:
        """The run folder; of several folds, the folder of the folds."""
        return self.folders[0] if len(self.folders) == 1 else self.folders[0].parent


def read_experiment(folders: Sequence[Path]) -> Experiment:
    """Read a run, or the folds of one experiment.

    Parameters
    ----------
    folders : sequence of Path
        Run folders; instead of one, the folder that holds `fold-0`, `fold-1` and so on stands for all of these.

    Returns
    -------
    Experiment
        Its folds in their order.

    Raises
    ------
    ValueError
        If a folder holds no finished run, one fold is given twice, or the runs are not folds of one experiment.
    """
    found = [(folder, read_tested(folder)) for given in folders for folder in _folds(given)]
    for folder, tested in found:
        if not tested:
            raise ValueError(f"{folder}: trained on all clips, so it has no test side to report on")
    found.sort(key=lambda pair: pair[1][-1].record["fold"])
    first = found[0][1]
    for folder, tested in found:
        if [one.stage for one in tested] != [one.stage for one in first]:
            raise ValueError(f"{folder}: has not the same finished stages as {found[0][0]}")
        for key in SAME:
            if tested[-1].record[key] != first[-1].record[key]:
                raise ValueError(f"a report is about the folds of one experiment; {folder} differs in {key}")
    ordered = tuple(folder for folder, _ in found)
    networks = tuple(Network(stage) for stage in zip(*(tested for _, tested in found), strict=True))
    return Experiment(ordered, _read(ordered, "run.json"), _read(ordered, "audit.json"), networks)


def _folds(folder: Path) -> list[Path]:
    if (folder / "run.json").exists():
        return [folder]
    return sorted(path.parent for path in folder.glob("fold-*/run.json")) or [folder]


def _read(folders: Sequence[Path], name: str) -> tuple[dict[str, Any], ...]:
    return tuple(read_json(folder / name) for folder in folders)
