"""Any corpus, as folders: the name of a clip's folder is its emotion, that of a folder in between its speaker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vervet.corpora import AUDIO_SUFFIXES, NOT_DECODED, Fault, Utterance
from vervet.emotions import is_known, label_of, without_blanks


def read(root: Path) -> Iterator[tuple[str, Utterance] | Fault]:
    """Name the clips `root/EMOTION/CLIP.wav` and `root/EMOTION/SPEAKER/CLIP.wav` by their full paths.

    Emotions become labels as `vervet.emotions.label_of` says. Hidden files and folders, and files that are no audio,
    are passed over. A folder without a label, without any clip, or deeper than that of a speaker is a fault; so is
    audio beside the folders of emotions, and audio that cannot be decoded here.

    Raises
    ------
    ValueError
        If `root` is no folder, has no folder in it, or has folders of speakers with folders of emotions.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: not a folder")
    folders = _folders(root)
    if not folders:
        raise ValueError(f"{root}: no folders in it; give each emotion a folder of its own, named after it")
    names = [folder.name for folder in folders]
    inner = [deeper.name for folder in folders for deeper in _folders(folder)]
    if 2 * sum(map(is_known, inner)) > len(inner) and not any(map(is_known, names)):
        raise ValueError(
            f"{root}: has folders of speakers ({names[0]}) with folders of emotions ({inner[0]}) in them; turn them "
            "round, EMOTION/SPEAKER/CLIP, or list the clips in a table"
        )
    for path in _audio(root):
        yield Fault("misplaced", str(path), "beside the folders of emotions; move it into one of them, or away")
    for folder in folders:
        try:
            yield from _clips(folder, label_of(folder.name, names))
        except ValueError as error:
            yield Fault("label", str(folder), str(error))


def _clips(folder: Path, emotion: str) -> Iterator[tuple[str, Utterance] | Fault]:
    """Clips of one emotion, those without a speaker first."""
    speakers = _folders(folder)
    found = [(path, "") for path in _audio(folder)]
    found += [(path, without_blanks(speaker.name)) for speaker in speakers for path in _audio(speaker)]
    for path, speaker in found:
        if path.suffix.lower() in NOT_DECODED:
            yield Fault("unreadable", str(path), f"{path.suffix} is not decoded here; convert it to WAV or FLAC")
        else:
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
        if path.suffix.lower() in (*AUDIO_SUFFIXES, *NOT_DECODED) and not path.name.startswith(".") and path.is_file()
    )
