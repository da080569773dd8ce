"""What the audio of a corpus is like: the facts of each file, what is wrong with them, and what training leaves out."""

from __future__ import annotations

import dataclasses
import hashlib
import statistics
import textwrap
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
from tqdm import tqdm

from vervet.audio import LFS_POINTER, SHORTEST_S, NoSuchPart, Part, is_silent, name_of, opened, part_of
from vervet.corpora import Fault, Release, Utterance, corpus_root, release_of, survey
from vervet.machine import cores
from vervet.terminal import one_line

Treatment = Literal["drop", "keep", "error"]

FULL_SCALE = 32_766 / 32_768  # a 16-bit sample that cannot get louder, or could by one step
CLIPPED_RUN = 3  # samples in a row at full scale; a peak that just touches it has one or two
LENGTH_SHARE = 0.2  # of the clips at one exact length; above it they were cut to it (in a release it is 3 % at most)
LENGTH_CLIPS = 10  # fewer clips may share a length by chance
DURATION_TOLERANCE_S = 0.02
LOSSY = ("OGG", "MP3", "MPEG")


@dataclass(frozen=True)
class AudioFacts:
    """What reading one file once tells. Where `problem` is set, the rest is not known."""

    sampling_rate: int = 0  # Hz
    samples: int = 0  # of one channel
    channels: int = 0
    format: str = ""  # of the file, such as WAV or FLAC
    silent: bool = False  # there is audio, and nothing can be heard in it
    clipped: int = 0  # samples in runs at full scale
    content: str = ""  # SHA-256 of the rate, the channels and the decoded samples
    problem: str = ""  # kind of fault: "lfs-pointer", "empty" or "unreadable"
    message: str = ""  # the problem, for the user

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.samples / self.sampling_rate if self.sampling_rate else 0.0


@dataclass(frozen=True)
class Report:
    """A corpus on disk beside its published release."""

    corpus: str
    root: str
    clips: int
    classes: Mapping[str, int]
    speakers: Mapping[str, int]
    sampling_rates: Mapping[int, int]  # Hz -> clips
    duration_s: tuple[float, float, float]  # min, median, max; zeros where nothing could be read
    published: Release
    faults: tuple[Fault, ...]
    notes: tuple[Fault, ...]  # worth knowing, and no reason to mistrust the copy

    @property
    def ok(self) -> bool:
        """Whether no fault was found."""
        return not self.faults

    def to_json(self) -> dict[str, object]:
        """Give the report as plain lists and dictionaries."""
        return {
            "corpus": self.corpus,
            "root": self.root,
            "clips": self.clips,
            "classes": dict(self.classes),
            "published_classes": dict(sorted(self.published.classes.items())),
            "speakers": dict(self.speakers),
            "sampling_rates": {str(rate): count for rate, count in self.sampling_rates.items()},
            "duration_s": dict(zip(("min", "median", "max"), self.duration_s, strict=True)),
            "faults": [dataclasses.asdict(fault) for fault in self.faults],
            "notes": [dataclasses.asdict(note) for note in self.notes],
            "ok": self.ok,
        }

    def to_text(self) -> str:
        """Give the report as a page to read; it names every fault."""
        return "\n".join([*_headline(self), "", *_class_table(self), "", *_listed(self)])


def check(name: str, root: Path | None = None) -> Report:
    """Compare a corpus on disk with its published release.

    Parameters
    ----------
    name : str
        One of `vervet.corpora.CORPORA`. A table has no release: its rows and its audio are checked alone.
    root : Path, optional
        As for `vervet.corpora.load_corpus`.

    Returns
    -------
    Report
        Faults: files that are misnamed, repeated, missing, extra, LFS pointers, empty, unreadable, silent, too short,
        duplicates, contradictory (same audio, different emotion) or altered (wrong rate, or cut to one length). A fault
        the release itself has is marked `known`. Notes: clipped clips, several channels, lossy coding.

    Raises
    ------
    ValueError
        For an unknown corpus or a missing or empty folder.
    """
    root = corpus_root(name, root)
    clips, faults = survey(name, root)
    release = release_of(name)
    utterances = list(clips.values())
    facts = audio_facts_of(utterances)
    heard = {clip: fact for clip, fact in zip(clips, facts, strict=True) if not fact.problem}
    faults += [
        *_incomplete(clips, release),
        *_problems(utterances, facts),
        *_silent_faults(clips, heard, release),
        *_short_faults(clips, heard),
        *_duplicate_faults(clips, heard, release),
        *_rate_faults(clips, heard, release, root),
        *_length_faults(clips, heard, release, root),
    ]
    durations = [fact.duration_s for fact in heard.values()] or [0.0]
    return Report(
        corpus=name,
        root=str(root),
        clips=len(clips),
        classes=_counts(utterance.emotion for utterance in utterances),
        speakers=_counts(utterance.speaker for utterance in utterances if utterance.speaker),
        sampling_rates=_counts(fact.sampling_rate for fact in heard.values()),
        duration_s=(min(durations), statistics.median(durations), max(durations)),
        published=release,
        faults=tuple(_within(root, faults)),
        notes=tuple(_within(root, _notes(clips, heard, root))),
    )


def clean(
    utterances: Sequence[Utterance], silent: Treatment = "drop", contradictory: Treatment = "drop"
) -> tuple[list[Utterance], list[tuple[Utterance, str]]]:
    """Set aside the clips that no label can be right for.

    Parameters
    ----------
    utterances : sequence of Utterance
        Clips to train and test on.
    silent : {"drop", "keep", "error"}
        What to do about clips of digital silence.
    contradictory : {"drop", "keep", "error"}
        What to do about clips whose samples are the same and whose emotions are not. Every copy is dropped, since
        nothing tells which label is right.

    Returns
    -------
    kept : list of Utterance
        In the order given.
    removed : list of (Utterance, str)
        The others, each with the reason.

    Raises
    ------
    ValueError
        If `vervet.audio.read` refuses a file, or for clips that are to be an error; the message names them all.
    """
    facts = audio_facts_of(utterances)
    broken = _problems(utterances, facts)
    if broken:
        raise ValueError("\n".join(f"{fault.file}: {fault.message}" for fault in broken))
    reasons: dict[Utterance, str] = {}
    if silent != "keep":
        reasons |= dict.fromkeys(silent_clips(utterances, facts), "silent")
        _refuse(reasons, silent, "silent")
    if contradictory != "keep":
        heard = [(u, fact) for u, fact in zip(utterances, facts, strict=True) if u not in reasons]
        groups = contradictory_clips([u for u, _ in heard], [fact for _, fact in heard])
        found = {utterance: _contradiction(utterance, group) for group in groups for utterance in group}
        _refuse(found, contradictory, "contradictory")
        reasons |= found
    kept = [utterance for utterance in utterances if utterance not in reasons]
    return kept, [(utterance, reasons[utterance]) for utterance in utterances if utterance in reasons]


def silent_clips(utterances: Sequence[Utterance], facts: Sequence[AudioFacts] | None = None) -> list[Utterance]:
    """Find the clips of digital silence; `facts` saves reading the files again."""
    facts = audio_facts_of(utterances) if facts is None else facts
    return [utterance for utterance, fact in zip(utterances, facts, strict=True) if fact.silent]


def duplicate_clips(
    utterances: Sequence[Utterance], facts: Sequence[AudioFacts] | None = None
) -> list[list[Utterance]]:
    """Find the groups of clips whose decoded samples are exactly the same; `facts` saves reading the files again."""
    facts = audio_facts_of(utterances) if facts is None else facts
    groups: dict[str, list[Utterance]] = {}
    for utterance, fact in zip(utterances, facts, strict=True):
        if not fact.problem:
            groups.setdefault(fact.content, []).append(utterance)
    return [group for group in groups.values() if len(group) > 1]


def contradictory_clips(
    utterances: Sequence[Utterance], facts: Sequence[AudioFacts] | None = None
) -> list[list[Utterance]]:
    """Find the groups of clips that share their samples and not their emotion."""
    groups = duplicate_clips(utterances, facts)
    return [group for group in groups if len({utterance.emotion for utterance in group}) > 1]


def audio_facts_of(utterances: Sequence[Utterance]) -> list[AudioFacts]:
    """Read each utterance once, several at a time, with a progress bar on a terminal."""
    return facts_of([utterance.sound for utterance in utterances])


def facts_of(sounds: Sequence[Path | Part]) -> list[AudioFacts]:
    """Read each file, or part of one, once, several at a time, with a progress bar on a terminal."""
    with ThreadPoolExecutor(cores()) as pool:
        # Decoding leaves the interpreter free, so threads are enough. `disable=None`: no bar where no terminal is.
        return list(
            tqdm(pool.map(audio_facts, sounds), total=len(sounds), desc="reading", unit="clip", disable=None, delay=1)
        )


def audio_facts(sound: Path | Part) -> AudioFacts:
    """Read one file, or a part of one, and say what is in it.

    Parameters
    ----------
    sound : Path or vervet.audio.Part
        An audio file, or a part of one.

    Returns
    -------
    AudioFacts
        With `problem` and `message` set where `vervet.audio.read`, and so training, refuses the file; this function
        raises nothing for a bad one.
    """
    path = Path(name_of(sound))
    try:
        stamp = path.stat()
        if stamp.st_size == 0:
            return AudioFacts(problem="empty", message="the file has no bytes; copy it again")
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                advice = "fetch the audio with `git lfs pull`, or from the publisher"
                return AudioFacts(problem="lfs-pointer", message=f"a Git LFS pointer, no audio; {advice}")
        return _measured(part_of(sound), stamp.st_mtime_ns, stamp.st_size)
    except NoSuchPart as error:
        return AudioFacts(problem="part", message=str(error).removeprefix(f"{path}: "))
    except ValueError as error:
        message = str(error).removeprefix(f"{path}: ")
        kind = "empty" if message.startswith("has a header but no samples") else "unreadable"
        return AudioFacts(problem=kind, message=message)
    except (OSError, soundfile.LibsndfileError) as error:
        return AudioFacts(problem="unreadable", message=f"not audio that can be read ({_reason(error)}); copy it again")


@cache
def _measured(part: Part, _mtime_ns: int, _size: int) -> AudioFacts:
    with opened(part) as recording:
        waveform = np.concatenate(list(recording.decode(0, recording.frames)))
    samples = waveform[:, None]  # (samples, channels)
    if recording.channels > 1:  # which were mixed down
        # not by its name: where that ends in .raw, soundfile asks for a sampling rate, whatever the file is
        with open(name_of(part), "rb") as file, soundfile.SoundFile(file.fileno(), closefd=False) as sound:
            sound.seek(round(recording.start_s * recording.sampling_rate))
            samples = sound.read(len(waveform), dtype="float32", always_2d=True)
    content = hashlib.sha256(f"{recording.sampling_rate} {recording.channels} ".encode())
    content.update(np.ascontiguousarray(samples).reshape(-1).data)
    return AudioFacts(
        sampling_rate=recording.sampling_rate,
        samples=len(waveform),
        channels=recording.channels,
        format=recording.form,
        silent=is_silent(waveform),
        clipped=_samples_in_runs(np.abs(samples).max(axis=1) >= FULL_SCALE),
        content=content.hexdigest(),
    )


def _samples_in_runs(flags: np.ndarray) -> int:
    """Count the true ones among flags (samples,) that stand in runs of CLIPPED_RUN or more."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    runs = edges[1::2] - edges[::2]
    return int(runs[runs >= CLIPPED_RUN].sum())


def _refuse(reasons: Mapping[Utterance, str], treatment: Treatment, kind: str) -> None:
    if treatment == "error" and reasons:
        named = "\n".join(f"{utterance}: {reason}" for utterance, reason in reasons.items())
        raise ValueError(f"{named}\nremove these clips, or set {kind} to drop or keep")


def _contradiction(utterance: Utterance, group: Sequence[Utterance]) -> str:
    others = _labelled([other for other in group if other is not utterance], {utterance.name})
    return f"contradictory: labelled {utterance.emotion}, the same samples as {others}"


def _labelled(group: Sequence[Utterance], taken: Collection[str] = ()) -> str:
    """Names and emotions of some clips; whole paths where their names, or those taken, do not tell them apart."""
    names = Counter([*taken, *(clip.name for clip in group)])
    return ", ".join(f"{clip.name if max(names.values()) == 1 else clip} ({clip.emotion})" for clip in group)


def _incomplete(clips: Mapping[str, Utterance], release: Release) -> list[Fault]:
    if not release.stems:
        return []
    missing = [
        Fault("missing", clip, "in the release, not on disk") for clip in sorted(release.stems.keys() - clips.keys())
    ]
    extra = sorted(clips.keys() - release.stems.keys())
    return missing + [Fault("extra", str(clips[clip]), "on disk, not in the release") for clip in extra]


def _problems(utterances: Sequence[Utterance], facts: Sequence[AudioFacts]) -> list[Fault]:
    pairs = zip(utterances, facts, strict=True)
    return [Fault(fact.problem, str(utterance), fact.message) for utterance, fact in pairs if fact.problem]


def _silent_faults(clips: Mapping[str, Utterance], heard: Mapping[str, AudioFacts], release: Release) -> list[Fault]:
    return [
        Fault("silent", str(clips[clip]), "digital silence", clip in release.silent)
        for clip, fact in heard.items()
        if fact.silent
    ]


def _short_faults(clips: Mapping[str, Utterance], heard: Mapping[str, AudioFacts]) -> list[Fault]:
    """Fault what training takes, padded, and prediction refuses."""
    advice = f"too short to judge; give at least {SHORTEST_S} s, or leave it out"
    return [
        Fault("short", str(clips[clip]), f"only {fact.duration_s:.3f} s of sound, {advice}")
        for clip, fact in heard.items()
        if fact.samples < int(SHORTEST_S * fact.sampling_rate)
    ]


def _duplicate_faults(clips: Mapping[str, Utterance], heard: Mapping[str, AudioFacts], release: Release) -> list[Fault]:
    """Fault each group of clips with the same samples once; silent clips are alike without being copies."""
    names = {clips[clip]: clip for clip in heard if not heard[clip].silent}
    faults = []
    for group in duplicate_clips(list(names), [heard[clip] for clip in names.values()]):
        contradictory = len({utterance.emotion for utterance in group}) > 1
        kind = "contradictory" if contradictory else "duplicate"
        known = frozenset(names[utterance] for utterance in group) in release.contradictory
        faults.append(Fault(kind, str(group[0]), f"the same samples in {_labelled(group)}", known))
    return faults


def _rate_faults(
    clips: Mapping[str, Utterance], heard: Mapping[str, AudioFacts], release: Release, root: Path
) -> list[Fault]:
    """Fault a resampled copy as a whole, or the odd files of a mixed one."""
    if not release.stems:
        return []
    wrong = {clip: fact.sampling_rate for clip, fact in heard.items() if fact.sampling_rate != release.sampling_rate}
    published = f"{release.title} was published at {release.sampling_rate} Hz"
    if len(wrong) == len(heard) and len(set(wrong.values())) == 1:
        rate = next(iter(wrong.values()))
        return [Fault("altered", str(root), f"a resampled copy: all {len(wrong)} clips are at {rate} Hz, {published}")]
    return [Fault("altered", str(clips[clip]), f"resampled to {rate} Hz, {published}") for clip, rate in wrong.items()]


def _length_faults(
    clips: Mapping[str, Utterance], heard: Mapping[str, AudioFacts], release: Release, root: Path
) -> list[Fault]:
    """Fault a copy cut or padded to one length as a whole, or else the clips outside the release's range."""
    heard = {clip: fact for clip, fact in heard.items() if not clips[clip].part.fragment}  # parts are cut on purpose
    if not heard:
        return []
    length_s, count = Counter(round(fact.duration_s, 4) for fact in heard.values()).most_common(1)[0]
    if len(heard) >= LENGTH_CLIPS and count > LENGTH_SHARE * len(heard):
        message = f"cut or padded to one length: {count} of {len(heard)} clips last exactly {length_s:g} s"
        return [Fault("altered", str(root), message)]
    if not release.stems:
        return []
    shortest, longest = release.duration_s
    return [
        Fault(
            "altered",
            str(clips[clip]),
            f"lasts {fact.duration_s:.2f} s, the clips of {release.title} last {shortest:.2f} to {longest:.2f} s",
        )
        for clip, fact in heard.items()
        if not shortest - DURATION_TOLERANCE_S <= fact.duration_s <= longest + DURATION_TOLERANCE_S
    ]


def _notes(clips: Mapping[str, Utterance], heard: Mapping[str, AudioFacts], root: Path) -> list[Fault]:
    notes = []
    for format, count in _counts(fact.format for fact in heard.values() if fact.format in LOSSY).items():
        message = f"{count} of {len(heard)} clips are in a lossy format ({format}): close to the original, not equal"
        notes.append(Fault("lossy", str(root), message))
    mixed = sum(fact.channels > 1 for fact in heard.values())
    if mixed:
        notes.append(Fault("channels", str(root), f"{mixed} of {len(heard)} clips have several channels"))
    notes += [
        Fault("clipped", str(clips[clip]), f"{fact.clipped} of {fact.samples} samples at full scale")
        for clip, fact in heard.items()
        if fact.clipped
    ]
    return notes


def _counts(values: Iterable) -> dict:
    return dict(sorted(Counter(values).items()))


def _within(root: Path, faults: Iterable[Fault]) -> list[Fault]:
    """Name files as seen from the corpus, which is shorter and the same on every machine."""
    folder = root if root.is_dir() else root.parent
    return [
        dataclasses.replace(fault, file=str(Path(fault.file).relative_to(folder)))
        if Path(fault.file) != root and Path(fault.file).is_relative_to(folder)
        else fault
        for fault in faults
    ]


def _reason(error: Exception) -> str:
    """Give the decoder's own words, without the path that it repeats."""
    return getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)


def _headline(report: Report) -> list[str]:
    shortest, median, longest = report.duration_s
    rates = ", ".join(f"{rate} Hz" for rate in report.sampling_rates) or "nothing readable"
    expected = f" of {len(report.published.stems)}" if report.published.stems else ""
    speakers = f" of {len(report.published.speakers)}" if report.published.speakers else ""
    return [
        f"{report.published.title} in {report.root}",
        f"{report.clips}{expected} clips, {len(report.speakers)}{speakers} speakers, {rates}, "
        f"{shortest:.2f} to {longest:.2f} s (median {median:.2f} s)",
    ]


def _class_table(report: Report) -> list[str]:
    published = report.published.classes
    lines = [f"  {'emotion':12}{'clips':>8}{'published' if published else '':>11}"]
    for emotion in sorted({*report.classes, *published}):
        expected = published.get(emotion, 0) if published else ""
        count = report.classes.get(emotion, 0)
        lines.append(f"  {emotion:12}{count:8}{expected:>11}{'  differs' if published and expected != count else ''}")
    return lines


def _listed(report: Report) -> list[str]:
    if report.ok:
        verdict = "No faults."
    else:
        known = sum(fault.known for fault in report.faults)
        of_release = f", {known} of them in the published release" if known else ""
        verdict = f"{len(report.faults)} fault{'s' * (len(report.faults) > 1)}{of_release}:"
    return [verdict, *_by_kind(report.faults), *(["", "Notes:", *_by_kind(report.notes)] if report.notes else [])]


def _by_kind(faults: Iterable[Fault]) -> list[str]:
    """List faults under their kind; those that differ in nothing but the file share their line and names are packed."""
    lines = []
    ordered = sorted(faults, key=lambda fault: fault.kind)
    for kind, group in groupby(ordered, key=lambda fault: fault.kind):
        members = list(group)
        messages = {_told(fault) for fault in members}
        if len(members) > 1 and len(messages) == 1:
            lines.append(f"  {kind} ({len(members)}): {messages.pop()}")
            names = " ".join(one_line(fault.file) for fault in members)
            lines += textwrap.wrap(names, 110, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
            continue
        lines.append(f"  {kind} ({len(members)})")
        lines += [f"    {one_line(fault.file)}: {_told(fault)}" for fault in members]
    return lines


def _told(fault: Fault) -> str:
    return one_line(f"{fault.message} (known defect of the published release)" if fault.known else fault.message)
