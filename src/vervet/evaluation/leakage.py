"""What two sides of a split share, and so what its test score can and cannot mean."""

from __future__ import annotations

import dataclasses
import math
import os
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from vervet.audio import Part, name_of, part_of
from vervet.corpora import OWN, PUBLISHED, Utterance, release_of
from vervet.corpora.check import audio_facts_of, facts_of
from vervet.corpora.table import PART, SPLITS, known, located, read_rows
from vervet.emotions import canonical

SIDES = ("train", "validation", "test")
COLUMNS = ("file", "split")
OPTIONAL_COLUMNS = ("source", "version", "emotion", "speaker", "sentence", "corpus", *PART)
HEARD = 0.5  # share of a part; with as much of it on another side, what was learnt there is known of it
FINGERPRINT = 10  # hexadecimal digits that tell one sound from others
EXAMPLES = 6  # names that the text gives of what is shared; the JSON gives all


@dataclass(frozen=True)
class Item:
    """One row of a split, ready to be compared."""

    file: str
    part: Part  # of the file by that name
    side: str
    clip: str  # the recording that this is a version of
    speaker: str  # empty: unknown
    sentence: str  # empty: unknown
    emotion: str  # empty: unknown
    content: str  # hash of the samples, empty: not read


@dataclass(frozen=True)
class Shared:
    """What stands on two sides of a split."""

    sides: tuple[str, str]
    items: int  # on the second side
    siblings: int  # of these, items of which the first side holds a version, an exact copy or half of the sound
    clips: tuple[str, ...]  # with versions on both sides
    duplicates: tuple[tuple[str, ...], ...]  # files of different clips on both sides with exactly the same samples
    overlaps: tuple[str, ...]  # other parts of which half or more is also in parts of the first side
    speakers: tuple[str, ...]
    sentences: tuple[str, ...]

    @property
    def share(self) -> float:
        """Siblings among the items of the second side, 0 to 1."""
        return self.siblings / self.items if self.items else 0.0


@dataclass(frozen=True)
class Audit:
    """What a split's test score can and cannot mean, and the findings behind it."""

    items: Mapping[str, int]  # by side
    shared: tuple[Shared, ...]  # train and validation, train and test, validation and test
    contradictory: tuple[tuple[str, ...], ...]  # files of one clip, or with the same samples, and unlike emotions
    files: int  # distinct ones
    files_read: int  # of these, how many were found and compared by their samples
    leaky: bool  # a test clip, or a copy of it, is also in training or validation
    speaker_independent: bool | None  # None: the speakers are not known
    sentence_independent: bool | None  # None: the sentences are not known
    test_speakers: int
    verdict: tuple[str, ...]

    def between(self, first: str, second: str) -> Shared:
        """Give what two sides share, "train" before "validation" before "test"."""
        return next(shared for shared in self.shared if shared.sides == (first, second))

    def to_json(self) -> dict[str, object]:
        """Give the audit as plain lists and dictionaries."""
        return dataclasses.asdict(self) | {
            "items": dict(self.items),
            "shared": [dataclasses.asdict(shared) | {"share": shared.share} for shared in self.shared],
        }

    def to_text(self) -> str:
        """Give the audit as a page to read."""
        counts = ", ".join(f"{self.items[side]} {side}" for side in SIDES)
        lines = [counts, "", *(f"- {sentence}" for sentence in self.verdict), ""]
        for shared in self.shared:
            if shared.items and self.items[shared.sides[0]]:
                lines += _shared_text(
                    shared, self.speaker_independent is not None, self.sentence_independent is not None
                )
        if self.contradictory:
            lines.append("contradictory labels")
            lines += [f"  {', '.join(group)}" for group in self.contradictory]
        return "\n".join(lines).rstrip()


def read_split(path: Path) -> list[dict[str, str]]:
    """Read a split from a CSV file.

    Parameters
    ----------
    path : Path
        CSV file with the columns `file` and `split`, and where known `source` (the recording that a version was made
        from), `version`, `emotion`, `speaker`, `sentence` and `corpus`; `start`, `end` and `channel` of a part of a
        file.

    Returns
    -------
    list of dict
        One for each row; the split is "train", "validation" or "test", columns that are absent are empty.

    Raises
    ------
    ValueError
        For a missing column, no rows, an empty file name, an unknown split, or a part that makes no sense; the message
        tells the line.
    """
    rows = []
    for line, row in read_rows(path, COLUMNS, OPTIONAL_COLUMNS):
        if not row["file"]:
            raise ValueError(f"{path}, line {line}: the column file is empty")
        try:
            located(Path(row["file"]), row)
            rows.append(row | {"split": known(row["split"], SPLITS, "split")})
        except ValueError as error:
            raise ValueError(f"{path}, line {line}: {error}") from None
    return rows


def audit(rows: Sequence[Mapping[str, str]], root: Path | None = None) -> Audit:
    """Find what the sides of a split share.

    Parameters
    ----------
    rows : sequence of mapping
        As `read_split` gives them.
    root : Path, optional
        The folder that files are relative to. Those not found there are looked for below the folder that the
        environment variable VERVET_CORPORA names, and below its folder with the name in the column `corpus`.

    Returns
    -------
    Audit
        Rows of one `source` are versions of one clip; without a source the file is the clip, or the part of it. Copies
        under another name are found by their samples, as far as the files are at hand.

    Raises
    ------
    ValueError
        If there is nothing to train on or nothing to test on.
    """
    items = _items(rows, root)
    by_side = {side: [item for item in items if item.side == side] for side in SIDES}
    for side in ("train", "test"):
        if not by_side[side]:
            raise ValueError(f"the split has no row with split {side}; without it there is nothing to audit")
    shared = tuple(_shared(first, second, by_side) for first, second in combinations(SIDES, 2))
    with_test = [pair for pair in shared if pair.sides[1] == "test"]
    files: dict[Any, bool] = {}
    for item in items:
        files[item.part.sound] = files.get(item.part.sound, True) and bool(item.content)
    finding = Audit(
        items={side: len(by_side[side]) for side in SIDES},
        shared=shared,
        contradictory=_contradictory(items),
        files=len(files),
        files_read=sum(files.values()),
        leaky=any(pair.siblings for pair in with_test),
        speaker_independent=(
            not any(pair.speakers for pair in with_test) if all(item.speaker for item in items) else None
        ),
        sentence_independent=(
            not any(pair.sentences for pair in with_test) if all(item.sentence for item in items) else None
        ),
        test_speakers=len({item.speaker for item in by_side["test"]} - {""}),
        verdict=(),
    )
    return dataclasses.replace(finding, verdict=tuple(_verdict(finding)))


def _items(rows: Sequence[Mapping[str, str]], root: Path | None) -> list[Item]:
    places = [place(row, root) for row in rows]
    found = list(dict.fromkeys(sound for sound in places if sound is not None))
    content = {sound: facts.content for sound, facts in zip(found, facts_of(found), strict=True)} if found else {}
    several = len({row.get("corpus", "") for row in rows}) > 1

    def apart(row: Mapping[str, str], name: str) -> str:
        """Tell apart what two corpora call by the same name."""
        return f"{row.get('corpus', '')}/{name}" if several and name else name

    return [
        Item(
            file=f"{row['file']}{part.fragment}",
            part=dataclasses.replace(part, sound=apart(row, _path(row, place))),
            side=known(row["split"], SPLITS, "split"),
            clip=apart(row, row.get("source") or f"{_path(row, place)}{part.fragment}"),
            speaker=apart(row, row.get("speaker", "")),
            sentence=apart(row, row.get("sentence", "")),
            emotion=_emotion(row.get("emotion", "")),
            content=content[place] if place is not None else "",
        )
        for row, place, part in zip(rows, places, map(_row_part, rows), strict=True)
    ]


def _path(row: Mapping[str, str], place: Path | Part | None) -> str:
    """One spelling of a file, however the row has it."""
    return os.path.normpath(row["file"]) if place is None else os.path.realpath(name_of(place))


def _row_part(row: Mapping[str, str]) -> Part:
    return part_of(located(Path(row["file"]), row))


def named(row: Mapping[str, str]) -> str:
    """Name a row of a split as predictions do: its file, and which part of it it is."""
    return f"{row['file']}{_row_part(row).fragment}"


def place(row: Mapping[str, str], root: Path | None = None) -> Path | Part | None:
    """Find the recording of a split's row on disk: below `root`, $VERVET_CORPORA or $VERVET_CORPORA/corpus; or None."""
    folders = [] if root is None else [root]
    if os.environ.get("VERVET_CORPORA"):
        corpora = Path(os.environ["VERVET_CORPORA"])
        folders += [corpora, corpora / row.get("corpus", "")]
    candidates = [Path(row["file"]), *(folder / row["file"] for folder in folders)]
    if not candidates[0].is_absolute():
        candidates.pop(0)
    return next((located(path, row) for path in candidates if path.is_file()), None)


def heard_shares(known: Sequence[Part], asked: Sequence[Part]) -> list[float]:
    """Say how much of the sound of each part others have in common with it.

    Parameters
    ----------
    known : sequence of Part
        What is heard in training, perhaps; their `sound` is the name of a file.
    asked : sequence of Part
        What is tested.

    Returns
    -------
    list of float
        For each that is asked the share of its time that the known ones of its file and channel have, all together, 0
        to 1; 1 where it has no end and anything is in common. All 0 where there are nothing but whole files.
    """
    if not any(part.fragment for part in (*known, *asked)):
        return [0.0] * len(asked)
    by_file: dict[Any, list[Part]] = {}
    for part in known:
        by_file.setdefault(part.sound, []).append(part)
    stretches: dict[Any, list[tuple[float, float]]] = {}
    for sound, channel in dict.fromkeys((part.sound, part.channel) for part in asked):
        together = [one for one in by_file.get(sound, ()) if None in (channel, one.channel) or one.channel == channel]
        stretches[sound, channel] = _joined(sorted((one.start_s, _end(one)) for one in together))
    return [_share(stretches[part.sound, part.channel], part.start_s, _end(part)) for part in asked]


def _end(part: Part) -> float:
    return math.inf if part.end_s is None else part.end_s


def _joined(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Sorted spans as such that have nothing in common."""
    joined: list[tuple[float, float]] = []
    for start, end in spans:
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def _share(stretches: Sequence[tuple[float, float]], start: float, end: float) -> float:
    first = max(0, bisect_left(stretches, (start, start)) - 1)  # that before may reach into it
    last = bisect_left(stretches, (end, end))
    common = sum(max(0.0, min(end, b) - max(start, a)) for a, b in stretches[first:last])
    return float(common > 0) if math.isinf(end) else common / (end - start)


def _emotion(label: str) -> str:
    """Give labels of one meaning one name; a split may use emotions that Vervet does not know."""
    try:
        return canonical(label)
    except ValueError:
        return label.casefold()


def _shared(first: str, second: str, by_side: Mapping[str, Sequence[Item]]) -> Shared:
    left, right = by_side[first], by_side[second]
    clips = {item.clip for item in left} & {item.clip for item in right}
    contents = ({item.content for item in left} & {item.content for item in right}) - {""}
    shares = heard_shares([item.part for item in left], [item.part for item in right])
    overlaps = {
        item.file for item, share in zip(right, shares, strict=True) if share >= HEARD and item.clip not in clips
    }
    alike = [item.clip in clips or item.content in contents or item.file in overlaps for item in right]
    return Shared(
        sides=(first, second),
        items=len(right),
        siblings=sum(alike),
        clips=tuple(sorted(clips)),
        duplicates=_duplicates(left, right, contents),
        overlaps=tuple(sorted(overlaps)),
        speakers=tuple(sorted(({item.speaker for item in left} & {item.speaker for item in right}) - {""})),
        sentences=tuple(sorted(({item.sentence for item in left} & {item.sentence for item in right}) - {""})),
    )


def fingerprints(utterances: Sequence[Utterance]) -> list[str]:
    """What tells the sound of each utterance from others, wherever it lies: `FINGERPRINT` hexadecimal digits."""
    return [facts.content[:FINGERPRINT] for facts in audio_facts_of(utterances)]


def remembered(prints: Iterable[str]) -> str:
    """Fingerprints as the card of a model has them, one after the other."""
    return "".join(sorted(set(prints)))


def heard_by(card: Mapping[str, Any]) -> frozenset[str]:
    """The fingerprints of a user's own recordings, among them those that its base has heard, that trained a model."""
    text = card.get("heard", "")
    return frozenset(text[start : start + FINGERPRINT] for start in range(0, len(text), FINGERPRINT))


def voices_of(card: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Which speakers of each published corpus trained a model, or its base; all, where an older card does not say.

    Speakers that validated it are not among them: they chose its temperature and threshold, and taught it nothing.
    """
    told = card.get("voices", {})
    corpora = [corpus for corpus in card.get("corpora", ()) if corpus in PUBLISHED]
    return {corpus: frozenset(told.get(corpus, release_of(corpus).speakers)) for corpus in corpora}


def count_heard(card: Mapping[str, Any], utterances: Sequence[Utterance]) -> int:
    """How many of a user's own utterances a model knows from training.

    These are the recordings of `heard_by`, and clips that are called like those of a published corpus, by a speaker of
    `voices_of`: a copy of EmoDB is still EmoDB where it is given as a table or a folder, resampled or not.
    """
    heard, voices = heard_by(card), voices_of(card)
    sounds = fingerprints(utterances) if heard else [""] * len(utterances)
    pairs = zip(utterances, sounds, strict=True)
    return sum(sound in heard or (clip.corpus in OWN and _is_released(clip.path, voices)) for clip, sound in pairs)


def _is_released(path: Path, voices: Mapping[str, frozenset[str]]) -> bool:
    """Whether a file is called like a clip by one of these speakers, as of `voices_of`."""
    names = (path.stem, f"{path.parent.name}_{path.stem}")  # SAVEE may have its speakers in folders of their own
    return any(release_of(corpus).stems.get(name) in voices[corpus] for corpus in voices for name in names)


def _duplicates(left: Sequence[Item], right: Sequence[Item], contents: set[str]) -> tuple[tuple[str, ...], ...]:
    """Group the files that share samples across two sides, where they are more than one clip."""
    groups: dict[str, set[Item]] = {}
    for item in (*left, *right):
        if item.content in contents:
            groups.setdefault(item.content, set()).add(item)
    several = [group for group in groups.values() if len({item.clip for item in group}) > 1]
    return tuple(sorted(tuple(sorted({item.file for item in group})) for group in several))


def _contradictory(items: Sequence[Item]) -> tuple[tuple[str, ...], ...]:
    """Group the files of one clip, or with the same samples, that carry different emotions."""
    groups: dict[tuple[str, str], set[Item]] = {}
    for item in items:
        groups.setdefault(("clip", item.clip), set()).add(item)
        if item.content:
            groups.setdefault(("content", item.content), set()).add(item)
    unlike = [group for group in groups.values() if len({item.emotion for item in group} - {""}) > 1]
    named = {tuple(sorted({f"{item.file} ({item.emotion})" for item in group})) for group in unlike}
    return tuple(sorted(named))


def _verdict(finding: Audit) -> list[str]:
    sentences = [
        *_about_clips(finding),
        _about_copies(finding),
        *_about_speakers(finding),
        _about_sentences(finding),
    ]
    if finding.contradictory:
        count = len(finding.contradictory)
        sentences.append(f"{count} clip(s) carry contradictory labels: no model can be right about all of them.")
    return sentences


def _about_clips(finding: Audit) -> list[str]:
    training, validation = finding.between("train", "test"), finding.between("validation", "test")
    selection = finding.between("train", "validation")
    sentences = []
    if training.siblings:
        sentences.append(
            f"LEAKY: {_part(training)} test items are versions or copies of clips in training. The model was told "
            "their answers; the score cannot tell how it does on a recording it has never heard."
        )
    if validation.siblings:
        sentences.append(
            f"LEAKY: {_part(validation)} test items are versions or copies of clips in validation, on which epochs and "
            "settings are chosen; the score is chosen to be high."
        )
    if not finding.leaky:
        sentences.append(
            "No clip is found both in test and in training or validation: the score tells about new clips."
        )
    if selection.siblings:
        sentences.append(
            f"{_part(selection)} validation items are versions or copies of clips in training: what is chosen there is "
            "chosen on clips already heard."
        )
    return sentences


def _about_copies(finding: Audit) -> str:
    if finding.files_read == finding.files:
        return f"Copies under another name: all {finding.files} files were compared sample by sample."
    advice = "set VERVET_CORPORA to the folder that holds the corpora"
    if finding.files_read == 0:
        return f"Copies under another name: not checked, none of the {finding.files} files can be read; {advice}."
    return (
        f"Copies under another name: checked for {finding.files_read} of {finding.files} files only, "
        f"the others cannot be read; {advice}."
    )


def _about_speakers(finding: Audit) -> list[str]:
    if finding.speaker_independent is None:
        return ["Not every row names its speaker: the score must not be called speaker-independent."]
    if not finding.speaker_independent:
        heard = {speaker for pair in finding.shared if pair.sides[1] == "test" for speaker in pair.speakers}
        return [
            f"{len(heard)} of {finding.test_speakers} test speakers are heard in training or validation: "
            "the score cannot tell how the model does on a new speaker."
        ]
    plural = "s" * (finding.test_speakers != 1)
    sentences = [
        f"Speaker-independent: the score tells about new speakers, from {finding.test_speakers} speaker{plural}."
    ]
    if finding.between("train", "validation").speakers:
        sentences.append("Validation speakers are heard in training: what is chosen there is chosen on known voices.")
    return sentences


def _about_sentences(finding: Audit) -> str:
    if finding.sentence_independent is None:
        return "Not every row names its sentence: whether the words are new cannot be told."
    if finding.sentence_independent:
        return "Sentence-independent: no test sentence is spoken in training or validation."
    shared = {name for pair in finding.shared if pair.sides[1] == "test" for name in pair.sentences}
    return (
        f"{len(shared)} test sentence(s) are spoken in training or validation too: the score is not one of new words."
    )


def _part(shared: Shared) -> str:
    return f"{shared.siblings} of {shared.items} ({shared.share:.1%})"


def _shared_text(shared: Shared, speakers_known: bool, sentences_known: bool) -> list[str]:
    def told(what: str, names: Sequence[str], known: bool = True) -> str:
        more = ", ..." if len(names) > EXAMPLES else ""
        count = len(names) if known or names else "?"
        return f"  {what:28}{count:>6}  {', '.join(names[:EXAMPLES])}{more}".rstrip()

    return [
        f"{shared.sides[0]} and {shared.sides[1]}",
        told("clips on both sides", shared.clips),
        told("exact copies of other clips", [" = ".join(group) for group in shared.duplicates]),
        *([told("parts that overlap", shared.overlaps)] if shared.overlaps else []),
        told("speakers on both sides", shared.speakers, speakers_known),
        told("sentences on both sides", shared.sentences, sentences_known),
    ]
