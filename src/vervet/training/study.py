"""Many training runs, each a process of its own, a few at a time: the folds of one experiment, or a whole study."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vervet.config import Recipe, load_recipe, merge, read_yaml, recipe_name
from vervet.corpora import OWN, PUBLISHED, Utterance, load_corpus
from vervet.corpora.check import clean
from vervet.evaluation.protocols import split
from vervet.evaluation.records import all_folds, key_of
from vervet.evaluation.run import network_of
from vervet.machine import cores
from vervet.training.pretrained import load_base, start_from, starting
from vervet.training.run import bound_to, check_clips, differences, read_record, sides_of


@dataclass(frozen=True)
class Experiment:
    """One line of a study: a recipe under a protocol, over folds and seeds."""

    corpus: str = ""
    protocol: str = ""
    recipe: str = ""  # a file, as seen from the study's folder
    folds: str = "all"
    seeds: tuple[int, ...] = (0,)
    settings: tuple[str, ...] = ()  # overrides, as on the command line
    teacher: str = ""  # name of another recipe of this study: its runs of the same seed and fold lend their teacher
    # from whose weights these start: CORPUS-PROTOCOL-RECIPE-SEED of this study, the same fold, or with /fold-K that
    # one; or "default"
    init: str = ""


@dataclass(frozen=True)
class Job:
    """One run to train."""

    file: Path  # of the recipe
    recipe: Recipe = field(compare=False)  # with the settings
    corpus: str
    protocol: str
    fold: int
    folder: Path
    settings: tuple[str, ...] = ()  # overrides, as on the command line
    init: str = ""  # the model whose weights it starts from; empty where it starts from chance
    teacher: str = ""  # the run whose teacher it takes over
    needs: Path | None = None  # the run folder that must be finished before

    @property
    def words(self) -> tuple[str, ...]:
        """What stands after `vervet train`, but for the run folder."""
        lent = ("--teacher", self.teacher) if self.teacher else ("--init", self.init) if self.init else ()
        what = ("--corpus", self.corpus, "--protocol", self.protocol, *self.settings, "--fold", str(self.fold))
        return str(self.file), *what, *lent

    @property
    def log(self) -> Path:
        """What the run prints."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def tests(self) -> bool:
        """Whether it has a test side; under protocol `all` everything trains."""
        return self.protocol != "all"

    @property
    def finished(self) -> bool:
        """Whether the run is trained, tested and written up, by the recipe as it is now."""
        stages = [stage for stage in self.recipe.stages if stage != "teacher" or not self.teacher]  # tested where it is
        tables = [f"{stage}/predictions.csv" for stage in stages]
        needed = ["run.json", "metrics.json", *tables]
        if not self.tests:
            needed = ["run.json", "model.json", *(f"{stage}/model.json" for stage in self.recipe.stages)]
        if not all((self.folder / name).exists() for name in needed):
            return False
        base = load_base(self.init) if self.init else None
        recipe = start_from(self.recipe, base) if base else self.recipe
        return not differences(
            read_record(self.folder), bound_to(recipe, self.corpus, self.protocol, self.fold, base)
        )  # which clips these were, `check_finished` asks


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
        if corpus in OWN:  # a speaker of silent clips alone is no fold; the published ones have no such speaker
            utterances, _ = clean(utterances, recipe.silent, recipe.contradictory)
        return list(range(split(utterances, protocol, 0, recipe.seed, recipe.augment.versions).folds))
    folds = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"--fold {text}: give a number, several (0,2,5-7), or all")
        if dash and int(last) < int(first):
            raise ValueError(f"--fold {text}: {part} ends before it begins")
        folds += range(int(first), int(last or first) + 1)
    if len(set(folds)) < len(folds) or not folds:
        raise ValueError(f"--fold {text}: name each fold once")
    return folds


def read_study(path: Path, out: Path) -> list[Job]:
    """Read a study: every run that its experiments need.

    Parameters
    ----------
    path : Path
        YAML: a list of experiments, see `Experiment`. Corpora are looked for under VERVET_CORPORA.
    out : Path
        Runs go into `out/CORPUS-PROTOCOL-RECIPE-SEED/fold-K`.

    Returns
    -------
    list of Job
        In the order of the file, seed by seed, fold by fold.

    Raises
    ------
    ValueError
        Names the file, the experiment and the key at fault.
    """
    data = read_yaml(path)
    if not isinstance(data, list) or not data:
        raise ValueError(f"{path}: a study is a list of experiments")
    jobs = []
    for number, entry in enumerate(data):
        where = f"{path}: experiment {number}"
        experiment = merge(Experiment(), entry, where)
        if not (experiment.corpus and experiment.protocol and experiment.recipe):
            raise ValueError(f"{where}: needs corpus, protocol and recipe")
        if not experiment.seeds:
            raise ValueError(f"{where}: names no seeds")
        if experiment.teacher and experiment.init:
            raise ValueError(f"{where}: has either a teacher or init, not both")
        jobs += _jobs(experiment, path.parent, out)
    folders = [job.folder for job in jobs]
    lacking = sorted({str(job.needs) for job in jobs if job.needs and job.needs not in folders})
    if lacking:
        raise ValueError(f"{path}: weights are to come from {', '.join(lacking)}, which the study does not train")
    twice = sorted({str(folder) for folder in folders if folders.count(folder) > 1})
    if twice:
        raise ValueError(f"{path}: asked for twice: {', '.join(twice)}")
    by_folder = {job.folder: job for job in jobs}
    for job in jobs:
        needed, following = job.needs, {job.folder}
        while needed in by_folder:
            if needed in following:
                raise ValueError(f"{path}: {job.folder} waits for itself: its weights are to come from its own")
            following.add(needed)
            needed = by_folder[needed].needs
    return jobs


def unfiled(jobs: Sequence[Job], filed: Sequence[Mapping[str, Any]]) -> list[Job]:
    """Leave out what is filed already, wherever it was trained.

    Parameters
    ----------
    jobs : sequence of Job
        Of one study.
    filed : sequence of mapping
        Records of results, see `vervet.evaluation.records.load`.

    Returns
    -------
    list of Job
        In the same order, those that test something and whose last network is not filed: all folds of a seed as soon
        as one is not, since its scores are those of all its folds together.
    """
    known = {key_of(record) for record in filed}
    by_folder = {job.folder: job for job in jobs}
    seeds = {job.folder.parent for job in jobs if job.tests and _filed_as(job, by_folder) not in known}
    return [job for job in jobs if job.folder.parent in seeds]


def with_lenders(wanted: Sequence[Job], jobs: Sequence[Job]) -> list[Job]:
    """Those of the jobs of a study that are wanted, and those whose weights unfinished ones of them need."""
    by_folder = {job.folder: job for job in jobs}
    folders: set[Path] = set()
    for job in wanted:
        folders.add(job.folder)
        while job.needs and not job.finished:
            job = by_folder[job.needs]
            folders.add(job.folder)
    return [job for job in jobs if job.folder in folders]


def _filed_as(job: Job, by_folder: Mapping[Path, Job]) -> tuple:
    """The key of the record of its last network, see `key_of`."""
    name = recipe_name(job.file, job.settings)
    if job.init:
        heard, whole = _heard(job, by_folder)
        name += starting(sorted(heard), whole)
    stage = job.recipe.stages[-1]
    network = network_of({"network": "teacher" if stage == "teacher" else "student", "stage": stage})
    return job.corpus, job.protocol, network, name, job.recipe.seed, job.fold


def _heard(job: Job, by_folder: Mapping[Path, Job]) -> tuple[set[str], bool]:
    """The corpora that what a run starts from was trained on, and whether on all their clips."""
    if job.needs is None:
        base = load_base(job.init)
        return set(base.card["corpora"]), base.whole
    base_job = by_folder[job.needs]
    heard, whole = _heard(base_job, by_folder) if base_job.init else (set(), True)
    return heard | set(base_job.corpus.split("+")), whole and not base_job.tests


def _jobs(experiment: Experiment, folder: Path, out: Path) -> list[Job]:
    file = Path(os.path.relpath(folder / experiment.recipe))
    found = []
    for seed in experiment.seeds:
        settings = (*experiment.settings, f"--seed={seed}")
        recipe = load_recipe(file, settings)
        place = out / _folder_name(experiment, recipe_name(file, settings), seed)
        lender = out / _folder_name(experiment, experiment.teacher, seed) if experiment.teacher else None
        base = out / experiment.init if experiment.init not in ("", "default") else None
        whole = "-all-" in experiment.init  # a base of all clips has one fold only
        for fold in _folds(experiment, recipe):
            lends = lender or base
            needs = _fold_of(lends, 0 if whole else fold) if lends else None
            model = str(needs) if needs else experiment.init  # nothing, or the shipped model
            lent = {"teacher" if lender else "init": model}
            what = (experiment.corpus, experiment.protocol, fold, place / f"fold-{fold}", settings)
            found.append(Job(file, recipe, *what, **lent, needs=needs))
    return found


def _folds(experiment: Experiment, recipe: Recipe) -> list[int]:
    """The folds of an experiment; of published corpora also where they are not at hand, such as to list what to run."""
    corpus, protocol = experiment.corpus, experiment.protocol
    published = all(name in PUBLISHED for name in corpus.split("+"))
    if experiment.folds == "all" and published and "VERVET_CORPORA" not in os.environ:
        known = 1 if protocol == "all" else all_folds(corpus, protocol)
        if known:
            return list(range(known))
    return folds_of(experiment.folds, recipe, corpus, None, protocol)


def _fold_of(runs: Path, fold: int) -> Path:
    """A fold of an experiment, or the one that is already named."""
    return runs if re.fullmatch(r"fold-\d+", runs.name) else runs / f"fold-{fold}"


def _folder_name(experiment: Experiment, recipe: str, seed: int) -> str:
    """The recipe's name may hold settings with spaces, slashes and brackets."""
    parts = [experiment.corpus, experiment.protocol, re.sub("[^a-zA-Z0-9._=]+", "-", recipe).strip("-")]
    return "-".join([*parts, *(["from", experiment.init.replace("/", "-")] if experiment.init else []), str(seed)])


def check_finished(jobs: Sequence[Job], read: Callable[[], Sequence[Utterance]]) -> None:
    """Refuse finished folds of other clips than those that lie there now; unfinished ones ask themselves.

    Parameters
    ----------
    jobs : sequence of Job
        Of one corpus and recipe.
    read : callable
        Gives the corpus, cleaned; asked only where something is finished.

    Raises
    ------
    ValueError
        Names the run folder and the first clip that differs.
    """
    finished = [job for job in jobs if job.finished]
    if finished:
        utterances = read()
        for job in finished:
            check_clips(job.folder, sides_of(utterances, job.protocol, job.fold, job.recipe))


def run_jobs(jobs: Sequence[Job], at_a_time: int, more: Sequence[str] = ()) -> list[Path]:
    """Train runs side by side.

    Parameters
    ----------
    jobs : sequence of Job
        Runs that are finished are left as they are, others go on from their last epoch.
    at_a_time : int
        How many; each gets its share of the cores.
    more : sequence of str, optional
        Words for all of them, such as `--cpu`.

    Returns
    -------
    list of Path
        The run folders, in the order of the jobs. What a run prints is in a log beside its folder.

    Raises
    ------
    ValueError
        If runs failed, after the others have finished; names their logs and last lines.
    """
    if at_a_time < 1:
        raise ValueError(f"--jobs must be at least 1, not {at_a_time}")
    threads = max(1, cores() // at_a_time)
    environment = {"OMP_NUM_THREADS": str(threads)} | os.environ
    waiting, failed = [job for job in jobs if not job.finished], []
    running: dict[Job, subprocess.Popen] = {}
    try:
        done = len(jobs) - len(waiting)
        with tqdm(total=len(jobs), initial=done, desc="runs", unit="run", disable=None) as bar:
            while waiting or running:
                unfinished = {job.folder for job in (*waiting, *running)}
                ready = [job for job in waiting if job.needs not in unfinished]
                for job in ready[: at_a_time - len(running)]:
                    waiting.remove(job)
                    running[job] = _start(job, more, environment)
                job = _first_to_end(running)
                if running.pop(job).returncode:
                    failed.append(job)
                bar.update()
    finally:
        for process in running.values():
            process.terminate()
    if failed:
        told = "\n".join(_last_line(job.log) for job in failed)
        raise ValueError(f"{len(failed)} of {len(jobs)} runs failed; the same command goes on with them\n{told}")
    return [job.folder for job in jobs]


def _start(job: Job, more: Sequence[str], environment: dict[str, str]) -> subprocess.Popen:
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", "-m", "vervet", "train", *job.words, *more, "--out", str(job.folder)]
    with job.log.open("ab") as log:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _first_to_end(running: dict[Job, subprocess.Popen]) -> Job:
    """Wait for one of them."""
    while True:
        for job, process in running.items():
            try:
                process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                continue
            return job


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return f"{log}: {next((line for line in reversed(lines) if line.strip()), 'nothing was printed')}"
