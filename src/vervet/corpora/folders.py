"""Any corpus, as folders: the name of a clip's folder is its emotion, that of a folder in between its speaker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vervet.corpora import AUDIO_SUFFIXES, Fault, Utterance
from vervet.emotions import label_of


def read(root: Path) -> Iterator[tuple[str, Utterance] | Fault]:
    """Name the clips `root/EMOTION/CLIP.wav` and `root/EMOTION/SPEAKER/CLIP.wav` by their full paths.

    Emotions become labels as `vervet.emotions.label_of` says. Hidden files and folders, files that are no audio, and
    files beside the folders are passed over. A folder without a label, without any clip, or deeper than that of a
    speaker is a fault.

    Raises
    ------
    ValueError
        If `root` is no folder or has no folder in it.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: not a folder")
    folders = _folders(root)
    if not folders:
        raise ValueError(f"{root}: no folders in it; give each emotion a folder of its own, named after it")
    names = [folder.name for folder in folders]
    for folder in folders:
        try:
            yield from _clips(folder, label_of(folder.name, names))
        except ValueError as error:
            yield Fault("label", str(folder), str(error))


def _clips(folder: Path, emotion: str) -> Iterator[tuple[str, Utterance] | Fault]:
    """Clips of one emotion, those without a speaker first."""
    speakers = _folders(folder)
    found = [(path, "") for path in _audio(folder)]
    found += [(path, speaker.name) for speaker in speakers for path in _audio(speaker)]
    for path, speaker in found:
        yield str(path.resolve()), Utterance(path, emotion, "folders", speaker=speaker)
    for deeper in (inner for speaker in speakers for inner in _folders(speaker)):
        yield Fault(
            "misplaced", str(deeper), "a folder inside that of a speaker; clips lie in EMOTION/SPEAKER/ at most"
        )
    if not found:
        yield Fault("empty", str(folder), f"no audio files ({', '.join(AUDIO_SUFFIXES)}) in it; fill or remove it")


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def _audio(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
