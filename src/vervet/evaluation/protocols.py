"""Protocols: which utterances train, which validate, which test."""

import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vervet.corpora import AUDIO_SUFFIXES, Utterance, release_of
from vervet.evaluation.leakage import HEARD, heard_shares

PROTOCOLS = ("paper", "clip", "sentence", "speaker", "speakers", "table", "all")
LEAKY = ("paper",)  # versions of one clip stand on both sides
TEST_SHARE = 0.2
VALIDATION_SHARE = 0.1  # of what is not test
PAPER_VALIDATION_SHARE = 0.025  # of what is not test; trained on too, since the published split leaves nothing aside
BLOCKS = 5  # of sentences, and of speakers under `speakers`


@dataclass(frozen=True)
class Sample:
    """One version of one utterance."""

    utterance: Utterance
    version: str = "original"


@dataclass(frozen=True)
class Split:
    """The three sides of one fold."""

    protocol: str
    fold: int
    folds: int
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]

    @property
    def leaky(self) -> bool:
        """Whether the protocol lets what is tested be known in training."""
        return self.protocol in LEAKY

    @property
    def sides(self) -> dict[str, tuple[Sample, ...]]:
        """The three sides by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def without_validation(self, versions: tuple[str, ...]) -> "Split":
        """The same test, with what validates trained on as well, in these versions."""
        if set(self.train).issuperset(self.validation):  # as under `paper`; other versions of these may be tested
            return replace(self, validation=())
        joining = tuple(_versions([sample.utterance for sample in self.validation], versions))
        return replace(self, train=self.train + joining, validation=())

    def rows(self, root: Path | None = None) -> list[dict[str, str]]:
        """The split as a table: file, source, version, split, emotion, speaker, sentence, corpus.

        Files are relative to `root`, or to the folder that all recordings share; the source is the file, without the
        suffix of audio, relative to that folder, and which part of it it is. Where there are parts, `start`, `end` and
        `channel` follow.
        """
        samples = [sample for side in self.sides.values() for sample in side]
        shared = os.path.commonpath([sample.utterance.path.absolute().parent for sample in samples])
        parts = any(sample.utterance.part.fragment for sample in samples)
        return [
            {
                "file": Path(os.path.relpath(sample.utterance.path, root or shared)).as_posix(),
                "source": _without_suffix(Path(os.path.relpath(sample.utterance.path, shared))).as_posix()
                + sample.utterance.part.fragment,
                "version": sample.version,
                "split": side,
                "emotion": sample.utterance.emotion,
                "speaker": sample.utterance.speaker,
                "sentence": sample.utterance.sentence,
                "corpus": sample.utterance.corpus,
            }
            | (_part(sample.utterance) if parts else {})
            for side, samples in self.sides.items()
            for sample in samples
        ]

    def hash(self) -> str:
        """16 hexadecimal digits that name this split, wherever the corpus lies and whatever its files are packed in."""
        keys = sorted(f"{row['split']}/{row['corpus']}/{row['source']}/{row['version']}" for row in self.rows())
        return hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]


def split(utterances: Sequence[Utterance], protocol: str, fold: int, seed: int, versions: tuple[str, ...]) -> Split:
    """Split a corpus.

    Parameters
    ----------
    utterances : sequence of Utterance
        The corpus, in a fixed order.
    protocol : str
        "paper": all versions of all clips pooled, then 80/20 at random, stratified by emotion (leaky: so the published
        figures were made). "clip": clips split 80/20 first, stratified, only the training side augmented.
        "sentence": a fifth of the sentences is kept out. "speaker": leave one speaker out; for CREMA-D five blocks of
        actors. "speakers": a fifth of the speakers is kept out. "table": as its `split` column says. "all": everything
        trains, nothing validates or tests, for the last network once others have told what to expect of it. Several
        corpora are split one by one, each as if it were alone, and their sides joined.
    fold : int
        From 0. Under `paper` and `clip` each of the five folds tests another fifth. Of several corpora, one with fewer
        folds than the others begins again with its first.
    seed : int
        Draws the random protocols; `sentence`, `speaker` and `speakers` do not depend on it.
    versions : tuple of str
        What the training side is augmented with, "original" first.

    Returns
    -------
    Split
        Validation always comes from the training side: a tenth, stratified, or whole sentences or speakers. Under
        `paper` it stays in training as well.

    Raises
    ------
    ValueError
        For an unknown protocol, a fold out of range, too few speakers, or a side left empty; unless it is leaky anyway,
        for tested parts of which others that are not tested have half or more.
    """
    makers = {
        "paper": _paper, "clip": _clip, "sentence": _sentence, "speaker": _speaker, "speakers": _speakers,
        "table": _table, "all": _all,
    }  # fmt: skip
    if protocol not in makers:
        raise ValueError(f"unknown protocol {protocol!r}; known are {', '.join(PROTOCOLS)}")
    groups: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        groups[utterance.corpus].append(utterance)
    if len(groups) > 1:
        folds, *sides = _joined(makers[protocol], list(groups.values()), fold, seed, versions)
    else:
        folds, *sides = makers[protocol](utterances, fold, seed, versions)
    train, validation, test = sides
    for name, side in (("training", train), ("validation", validation), ("test", test)):
        if not side and (protocol != "all" or name == "training"):
            raise ValueError(f"protocol {protocol}, fold {fold}: the {name} side is empty")
    found = Split(protocol, fold, folds, tuple(train), tuple(validation), tuple(test))
    _check_apart(found)
    return found


def _check_apart(sides: Split) -> None:
    """Refuse to call honest a test of parts that training or validation hears most of."""
    others = sides.train + sides.validation
    heard, tested = (list(dict.fromkeys(sample.utterance for sample in side)) for side in (others, sides.test))
    if sides.leaky or not any(utterance.part.fragment for utterance in (*heard, *tested)):
        return
    names = {path: str(path.resolve()) for path in {utterance.path for utterance in (*heard, *tested)}}
    known, asked = ([replace(one.part, sound=names[one.path]) for one in side] for side in (heard, tested))
    shares = heard_shares(known, asked)
    if alike := [index for index, share in enumerate(shares) if share >= HEARD]:
        raise ValueError(
            f"protocol {sides.protocol}, fold {sides.fold}: {len(alike)} of {len(tested)} tested clips are for half or "
            f"more the same sound as clips of training or validation, the first {tested[alike[0]].name} "
            f"({shares[alike[0]]:.0%}); leave out parts that overlap, or keep them on one side by a column split"
        )


def _without_suffix(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() in AUDIO_SUFFIXES else path  # `talk.001` has none


def _part(utterance: Utterance) -> dict[str, str]:
    part = utterance.part
    told = {"start": part.start_s or None, "end": part.end_s, "channel": part.channel}
    return {name: "" if value is None else str(value) for name, value in told.items()}


def _joined(make, groups: Sequence[list[Utterance]], fold: int, seed: int, versions: tuple[str, ...]):
    """Split each corpus by itself and put the sides together."""
    counts = [make(group, 0, seed, versions)[0] for group in groups]
    if not 0 <= fold < max(counts):
        raise ValueError(f"these corpora together have folds 0 to {max(counts) - 1}, not {fold}")
    parts = [make(group, fold % count, seed, versions) for group, count in zip(groups, counts, strict=True)]
    return max(counts), *([sample for part in parts for sample in part[side]] for side in (1, 2, 3))


def _versions(utterances: Sequence[Utterance], versions: tuple[str, ...] = ("original",)) -> list[Sample]:
    return [Sample(utterance, version) for utterance in utterances for version in versions]


def _check_fold(fold: int, folds: int, protocol: str) -> None:
    if not 0 <= fold < folds:
        raise ValueError(f"protocol {protocol} has folds 0 to {folds - 1} here, not {fold}")


def _stratified(emotions: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """A random order in which every emotion is spread evenly, so that any run of it is stratified."""
    parts = np.empty(len(emotions))
    for emotion in sorted(set(emotions)):
        members = np.flatnonzero(np.array(emotions) == emotion)
        parts[members] = (rng.permutation(len(members)) + rng.random()) / len(members)
    return np.argsort(parts, kind="stable")


def _cut(
    items: list, emotions: Sequence[str], fold: int, share: float, rng: np.random.Generator, apart: bool = False
) -> tuple[list, list]:
    """The rest and the `fold`-th run of a share of the items, stratified by emotion; both in their old order.

    Runs are rounded up, as the published ones are, and so may overlap by an item; `apart`, every item is in one alone.
    """
    order = _stratified(emotions, rng)
    first = round(fold * share * len(items))
    end = round((fold + 1) * share * len(items)) if apart else first + math.ceil(share * len(items))
    chosen = {int(i) for i in order[first:end]}
    return [x for i, x in enumerate(items) if i not in chosen], [x for i, x in enumerate(items) if i in chosen]


def _paper(utterances: Sequence[Utterance], fold: int, seed: int, versions: tuple[str, ...]):
    _check_fold(fold, 5, "paper")
    rng = np.random.default_rng([seed, 1])
    pool = _versions(utterances, versions)
    rest, test = _cut(pool, [s.utterance.emotion for s in pool], fold, TEST_SHARE, rng)
    _, validation = _cut(rest, [s.utterance.emotion for s in rest], 0, PAPER_VALIDATION_SHARE, rng)
    return 5, rest, validation, test


def _clip(utterances: Sequence[Utterance], fold: int, seed: int, versions: tuple[str, ...]):
    _check_fold(fold, 5, "clip")
    rng = np.random.default_rng([seed, 2])
    rest, test = _cut(list(utterances), [u.emotion for u in utterances], fold, TEST_SHARE, rng, apart=True)
    train, validation = _cut(rest, [u.emotion for u in rest], 0, VALIDATION_SHARE, rng)
    return 5, _versions(train, versions), _versions(validation), _versions(test)


def _sentence(utterances: Sequence[Utterance], fold: int, seed: int, versions: tuple[str, ...]):
    if any(utterance.corpus == "savee" for utterance in utterances):
        raise ValueError(
            "protocol sentence: SAVEE's neutral clips repeat sentences of the other emotions, and no file name tells "
            "which, so its sentences cannot be kept apart; choose speaker or clip"
        )
    by_sentence = _by("sentence", utterances)
    return _blocked(by_sentence, _fifths(by_sentence), "sentence", fold, versions)


def _speaker(utterances: Sequence[Utterance], fold: int, seed: int, versions: tuple[str, ...]):
    by_speaker = _by("speaker", utterances)
    published = release_of(next((utterance.corpus for utterance in utterances), "")).blocks
    there = [tuple(speaker for speaker in block if speaker in by_speaker) for block in published]
    blocks = [block for block in there if block] or [(speaker,) for speaker in sorted(by_speaker)]
    return _blocked(by_speaker, blocks, "speaker", fold, versions)


def _speakers(utterances: Sequence[Utterance], fold: int, seed: int, versions: tuple[str, ...]):
    by_speaker = _by("speaker", utterances)
    return _blocked(by_speaker, _fifths(by_speaker), "speaker", fold, versions)


def _fifths(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Every fifth of the sorted names, from each of the first five on."""
    ordered = sorted(names)
    return [tuple(ordered[k::BLOCKS]) for k in range(BLOCKS) if ordered[k:]]


def _by(attribute: str, utterances: Sequence[Utterance]) -> dict[str, list[Utterance]]:
    groups: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        name = getattr(utterance, attribute)
        if not name:
            raise ValueError(f"{utterance}: protocol {attribute} needs the {attribute} of every utterance")
        groups[name].append(utterance)
    return groups


def _blocked(
    groups: dict[str, list[Utterance]], blocks: list[tuple[str, ...]], name: str, fold: int, versions: tuple[str, ...]
):
    """Test one block of speakers or sentences; those that follow it, round the list, validate."""
    if len(blocks) < 3:
        raise ValueError(f"protocol {name} needs at least 3 {name}s, this corpus has {len(groups)}")
    _check_fold(fold, len(blocks), name)
    rest = [member for block in blocks[fold + 1 :] + blocks[:fold] for member in block]
    validating = set(rest[: math.ceil(VALIDATION_SHARE * len(rest))])

    def utterances_of(members) -> list[Utterance]:
        return [utterance for member in sorted(members) for utterance in groups[member]]

    train = _versions(utterances_of(set(rest) - validating), versions)
    return len(blocks), train, _versions(utterances_of(validating)), _versions(utterances_of(blocks[fold]))


def _table(utterances: Sequence[Utterance], fold: int, seed: int, versions: tuple[str, ...]):
    _check_fold(fold, 1, "table")
    sides: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        if not utterance.split:
            raise ValueError(f"{utterance}: protocol table needs a split (train, validation, test) in every row")
        sides[utterance.split].append(utterance)
    if sides["train"] and not sides["validation"]:
        rng = np.random.default_rng([seed, 3])
        emotions = [u.emotion for u in sides["train"]]
        sides["train"], sides["validation"] = _cut(sides["train"], emotions, 0, VALIDATION_SHARE, rng)
    return 1, _versions(sides["train"], versions), _versions(sides["validation"]), _versions(sides["test"])


def _all(utterances: Sequence[Utterance], fold: int, seed: int, versions: tuple[str, ...]):
    _check_fold(fold, 1, "all")
    return 1, _versions(utterances, versions), [], []
