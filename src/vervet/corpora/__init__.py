"""Speech corpora: a folder on disk becomes a list of utterances."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
CORPORA = ("cremad", "emodb", "savee", "table")  # each is a module here with `load(root)`


@dataclass(frozen=True)
class Utterance:
    """One recording and what is known of it. It travels whole through splits, training and evaluation."""

    path: Path
    emotion: str  # one of vervet.emotions.EMOTIONS
    corpus: str
    speaker: str = ""  # empty: unknown
    sentence: str = ""  # empty: unknown
    sex: str = ""  # "female", "male", or empty: unknown
    split: str = ""  # "train", "validation" or "test" where a table fixes it, else empty


def load_corpus(name: str, root: Path | None = None) -> list[Utterance]:
    """List the utterances of a corpus, without decoding any audio.

    Parameters
    ----------
    name : str
        One of `CORPORA`.
    root : Path, optional
        Folder of the corpus; for "table" the CSV file. Where not given, the folder `name` inside the one that the
        environment variable VERVET_CORPORA names.

    Returns
    -------
    list of Utterance
        Sorted by path.

    Raises
    ------
    ValueError
        For an unknown corpus, a missing or empty folder, a file whose name is not one of the corpus, two files of one
        clip, or a faulty row of a table.

    Notes
    -----
    What the audio is like is another question: see `vervet.corpora.check`.
    """
    if name not in CORPORA:
        raise ValueError(f"unknown corpus {name!r}; known are {', '.join(CORPORA)}")
    loader = importlib.import_module(f"vervet.corpora.{name}")
    return sorted(loader.load(corpus_root(name, root)), key=lambda utterance: utterance.path)


def corpus_root(name: str, root: Path | None = None) -> Path:
    """Find where a corpus lies: `root` itself, or $VERVET_CORPORA/name.

    Raises
    ------
    ValueError
        If neither is given, or nothing lies there; the message says what to set.
    """
    if root is None:
        if name == "table":
            raise ValueError("a table has no default place: give the path of the CSV file as --root")
        parent = os.environ.get("VERVET_CORPORA")
        if not parent:
            raise ValueError(
                f"where is {name}? Give its folder as --root, or set the environment variable VERVET_CORPORA "
                f"to the folder that holds {name}/"
            )
        root = Path(parent) / name
    root = Path(root)
    if not root.exists():
        raise ValueError(f"{root}: no such {'table' if name == 'table' else 'folder'} ({name})")
    return root


def audio_files(folder: Path, depth: int = 0) -> list[Path]:
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
        if path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise ValueError(f"{folder}: no audio files ({', '.join(AUDIO_SUFFIXES)}) found")
    return found


def one_file_per_clip(utterances: Iterable[tuple[str, Utterance]]) -> list[Utterance]:
    """Drop the clip names of (clip, utterance) pairs, once it is sure that each occurs once.

    Raises
    ------
    ValueError
        If two files hold the same clip, for instance as .wav and as .flac; a copy would count twice.
    """
    seen: dict[str, Utterance] = {}
    for clip, utterance in utterances:
        if clip in seen:
            raise ValueError(f"{utterance.path}: clip {clip} is also {seen[clip].path}; keep one of the two files")
        seen[clip] = utterance
    return list(seen.values())
