"""Speech corpora: a folder on disk becomes a list of utterances.

Each corpus is a module with `read(root)`, which names the clips it finds, and with `RELEASE`, which says what its
publisher gave out.
"""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from vervet.audio import Part, full_name_of, name_of, part_of

AUDIO_SUFFIXES = (
    ".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64",
    ".rf64", ".sph",
)  # fmt: skip
# recordings that are named as such where a folder holds them
NOT_DECODED = (
    ".m4a", ".aac", ".amr", ".wma", ".webm", ".mp4", ".mka", ".mov", ".3gp", ".gsm", ".ulaw", ".ul", ".alaw", ".al",
    ".sln", ".vox", ".g722", ".g729", ".spx",
)  # fmt: skip
PUBLISHED = ("emodb", "savee", "cremad")
OWN = ("folders", "table")  # not published under a name: they lie where the user says
CORPORA = (*PUBLISHED, *OWN)
NAMED_IN_ERROR = 5  # faults that one message spells out; `vervet corpus check` names them all


@dataclass(frozen=True)
class Utterance:
    """One recording and what is known of it. It travels whole through splits, training and evaluation."""

    sound: Path | Part
    emotion: str  # one of vervet.emotions.EMOTIONS; of a user's own corpus, any name that label_of allows
    corpus: str
    speaker: str = ""  # empty: unknown
    sentence: str = ""  # empty: unknown
    sex: str = ""  # "female", "male", or empty: unknown
    split: str = ""  # "train", "validation" or "test" where a table fixes it, else empty

    @property
    def path(self) -> Path:
        """The file that the recording is, or is a part of."""
        return Path(name_of(self.sound))

    @property
    def part(self) -> Part:
        """Which part of the file it is."""
        return part_of(self.sound)

    @property
    def name(self) -> str:
        """The name of the file, and which part it is."""
        return f"{self.path.name}{self.part.fragment}"

    def __str__(self) -> str:
        return full_name_of(self.sound)


@dataclass(frozen=True)
class Fault:
    """Something wrong with one file, row or corpus."""

    kind: str  # one word, such as "missing" or "silent"
    file: str
    message: str  # without the file
    known: bool = False  # the published release has it too


@dataclass(frozen=True)
class Release:
    """What the publisher of a corpus gave out, and on what terms."""

    title: str
    classes: Mapping[str, int]  # clips by emotion
    sampling_rate: int  # Hz
    duration_s: tuple[float, float]  # of the shortest and of the longest clip
    stems: Mapping[str, str]  # the name of every clip -> its speaker
    silent: frozenset[str] = frozenset()  # clips known to be digital silence
    contradictory: tuple[frozenset[str], ...] = ()  # clips known to share audio, not emotion
    blocks: tuple[tuple[str, ...], ...] = ()  # speakers that are tested together; each alone where there are none
    language: str = ""  # ISO 639-1
    speech: str = ""  # what is spoken, by whom and where
    terms: str = ""  # on which it is given out: it is ...
    shared: bool = False  # whether these let clips, and weights that learnt from them, be passed on
    citation: str = ""  # Markdown

    @property
    def speakers(self) -> Mapping[str, int]:
        """Clips by speaker."""
        return Counter(self.stems.values())


def load_corpus(name: str, root: Path | None = None) -> list[Utterance]:
    """List the utterances of a corpus, without decoding any audio.

    Parameters
    ----------
    name : str
        One of `CORPORA`; or several published ones, such as "cremad+emodb", taken as one.
    root : Path, optional
        Folder of the corpus; for "table" the CSV file; for "folders" the folder of folders; for several corpora the
        folder that holds one for each, by its name. Where not given, that of the environment variable VERVET_CORPORA,
        or for one corpus the folder `name` inside it.

    Returns
    -------
    list of Utterance
        Sorted by path and time; of several corpora, one after the other.

    Raises
    ------
    ValueError
        For an unknown corpus, a missing or empty folder, a file whose name is not one of the corpus, two files of one
        clip, or a faulty row of a table.

    Notes
    -----
    What the audio is like is another question: see `vervet.corpora.check`.
    """
    parts = parts_of(name)
    if len(parts) > 1:
        folder = corpus_root(name, root)
        return [utterance for part in parts for utterance in load_corpus(part, folder / part)]
    utterances, faults = survey(name, root)
    if faults:
        named = [f"{fault.file}: {fault.message}" for fault in faults[:NAMED_IN_ERROR]]
        more = len(faults) - NAMED_IN_ERROR
        if more > 0:
            named.append(f"and {more} more; `vervet corpus check {name}` names them all")
        raise ValueError("\n".join(named))
    return list(utterances.values())


def kind_of(data: Path) -> str:
    """What recordings of a user's own are: "folders" for a folder of folders, "table" for a CSV file.

    Raises
    ------
    ValueError
        If there is neither.
    """
    if not data.exists():
        raise ValueError(f"{data}: no such folder or table")
    return "folders" if data.is_dir() else "table"


def parts_of(name: str) -> list[str]:
    """The corpora that a name stands for: one, or the published ones between its plus signs.

    Raises
    ------
    ValueError
        If one of several is unknown, named twice, or a user's own.
    """
    parts = name.split("+")
    for part in parts if len(parts) > 1 else ():
        if part not in PUBLISHED:
            raise ValueError(f"{name}: {part!r} cannot be joined with others; these can: {', '.join(PUBLISHED)}")
    if len(set(parts)) < len(parts):
        raise ValueError(f"{name}: name each corpus once")
    return parts


def survey(name: str, root: Path | None = None) -> tuple[dict[str, Utterance], list[Fault]]:
    """List the clips of a corpus by name, sorted by path, and all that keeps files from being clips of it.

    Raises
    ------
    ValueError
        For an unknown corpus or a missing or empty folder, where there is nothing to list.
    """
    if name not in CORPORA:
        raise ValueError(f"unknown corpus {name!r}; known are {', '.join(CORPORA)}")
    clips: dict[str, Utterance] = {}
    faults = []
    for found in importlib.import_module(f"vervet.corpora.{name}").read(corpus_root(name, root)):
        if isinstance(found, Fault):
            faults.append(found)
            continue
        clip, utterance = found
        if clip in clips:
            message = f"clip {clip} is also {clips[clip]}; keep one of the two files"
            faults.append(Fault("repeated", str(utterance), message))
            continue
        clips[clip] = utterance
    return dict(sorted(clips.items(), key=lambda item: _place(item[1]))), faults


def _place(utterance: Utterance) -> tuple[Path, float, str]:
    return utterance.path, utterance.part.start_s, utterance.part.fragment


def release_of(name: str) -> Release:
    """Say what was published under the name of a corpus; nothing is known of a user's own."""
    if name not in PUBLISHED:
        return Release(name, MappingProxyType({}), 0, (0.0, 0.0), MappingProxyType({}))
    return importlib.import_module(f"vervet.corpora.{name}").RELEASE


def title_of(name: str) -> str:
    """Give the title under which a corpus was published; else its name. Several are joined by plus signs."""
    return " + ".join(release_of(one).title if one in PUBLISHED else one for one in name.split("+"))


def corpus_root(name: str, root: Path | None = None) -> Path:
    """Find where a corpus lies: `root` itself, or $VERVET_CORPORA/name; of several, $VERVET_CORPORA.

    Raises
    ------
    ValueError
        If neither is given, or nothing lies there; the message says what to set.
    """
    if root is None:
        if name in OWN:
            what = "the path of the CSV file" if name == "table" else "the folder"
            raise ValueError(f"a corpus of your own has no default place: give {what} as --root")
        parent = os.environ.get("VERVET_CORPORA")
        if not parent:
            raise ValueError(
                f"where is {name}? Give its folder as --root, or set the environment variable VERVET_CORPORA "
                f"to the folder that holds {' and '.join(f'{part}/' for part in parts_of(name))}"
            )
        root = Path(parent) / name if len(parts_of(name)) == 1 else Path(parent)
    root = Path(root)
    if not root.exists():
        raise ValueError(f"{root}: no such {'table' if name == 'table' else 'folder'} ({name})")
    return root


def audio_files(folder: Path, depth: int = 0) -> Iterator[Path]:
    """List the audio files of a folder and of those down to `depth` below it, sorted; hidden ones are left out.

    Raises
    ------
    ValueError
        If `folder` is no folder or holds no audio.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: not a folder")
    patterns = ["/".join(["*"] * level) for level in range(1, depth + 2)]
    found = sorted(
        path
        for pattern in patterns
        for path in folder.glob(pattern)
        if path.suffix.lower() in AUDIO_SUFFIXES and not _hidden(path.relative_to(folder)) and path.is_file()
    )
    if not found:
        raise ValueError(f"{folder}: no audio files ({', '.join(AUDIO_SUFFIXES)}) in it")
    yield from found


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def misnamed(path: Path, title: str, example: str) -> Fault:
    """Fault a file whose name is not of the corpus's pattern."""
    message = f"not the name of a clip of {title}, such as {example}; move the file out of the folder"
    return Fault("misnamed", str(path), message)
