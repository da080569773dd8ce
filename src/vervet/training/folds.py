"""Several folds of one experiment, each trained by a process of its own, a few at a time."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from vervet.config import Recipe
from vervet.corpora import load_corpus
from vervet.evaluation.protocols import split


def folds_of(text: str, recipe: Recipe, corpus: str, root: Path | None, protocol: str) -> list[int]:
    """Read a choice of folds.

    Parameters
    ----------
    text : str
        "all", or numbers and ranges such as "0,2,5-7".
    recipe, corpus, root, protocol : Recipe, str, Path or None, str
        What is to be trained; "all" asks the protocol how many folds this corpus has.

    Returns
    -------
    list of int
        In the order given.

    Raises
    ------
    ValueError
        If the text is none of these, or names a fold twice.
    """
    if text == "all":
        utterances = load_corpus(corpus, root)
        return list(range(split(utterances, protocol, 0, recipe.seed, recipe.augment.versions).folds))
    folds = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"--fold {text}: give a number, several (0,2,5-7), or all")
        folds += range(int(first), int(last or first) + 1)
    if len(set(folds)) < len(folds) or not folds:
        raise ValueError(f"--fold {text}: name each fold once")
    return folds


def train_folds(words: Sequence[str], folds: Sequence[int], out: Path, jobs: int) -> list[Path]:
    """Train folds side by side.

    Parameters
    ----------
    words : sequence of str
        What stands after `vervet train`, without the fold and the run folder.
    folds : sequence of int
        Which.
    out : Path
        Fold K goes into `out/fold-K`, what it prints into `out/fold-K.log`. Folds that are finished there are left as
        they are, others go on from their last epoch.
    jobs : int
        How many at a time; each gets its share of the cores.

    Returns
    -------
    list of Path
        The run folders.

    Raises
    ------
    ValueError
        If folds failed, after the others have finished; names their logs and last lines.
    """
    if jobs < 1:
        raise ValueError(f"--jobs must be at least 1, not {jobs}")
    out.mkdir(parents=True, exist_ok=True)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    environment = {"OMP_NUM_THREADS": str(threads)} | os.environ
    waiting, running, failed = list(folds), {}, []
    try:
        with tqdm(total=len(folds), desc="folds", unit="fold", disable=None) as bar:
            while waiting or running:
                while waiting and len(running) < jobs:
                    fold = waiting.pop(0)
                    running[fold] = _start(words, fold, out, environment)
                fold = _first_to_end(running)
                if running.pop(fold).returncode:
                    failed.append(fold)
                bar.update()
    finally:
        for process in running.values():
            process.terminate()
    if failed:
        told = "\n".join(_last_line(out / f"fold-{fold}.log") for fold in failed)
        raise ValueError(f"{len(failed)} of {len(folds)} folds failed; the same command goes on with them\n{told}")
    return [out / f"fold-{fold}" for fold in folds]


def _start(words: Sequence[str], fold: int, out: Path, environment: dict[str, str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "vervet", "train", *words, "--fold", str(fold), "--out", str(out / f"fold-{fold}")]
    with (out / f"fold-{fold}.log").open("ab") as log:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _first_to_end(running: dict[int, subprocess.Popen]) -> int:
    """Wait for one of them."""
    while True:
        for fold, process in running.items():
            try:
                process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                continue
            return fold


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return f"{log}: {next((line for line in reversed(lines) if line.strip()), 'nothing was printed')}"
