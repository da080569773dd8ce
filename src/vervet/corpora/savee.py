"""SAVEE, Surrey audio-visual expressed emotion: four English men, seven emotions.

Haq, Jackson, "Multimodal emotion recognition", in Machine Audition, IGI Global, 2010. For research only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from vervet.corpora import Utterance, audio_files, one_file_per_clip

EMOTION_LETTERS = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "n": "neutral",
    "sa": "sadness",
    "su": "surprise",
}
SPEAKERS = ("DC", "JE", "JK", "KL")
CLIP = re.compile(rf"({'|'.join(SPEAKERS)})_(sa|su|[adfhn])(\d\d)")


def load(root: Path) -> list[Utterance]:
    """List the utterances below `root`, named `DC_a01.wav` or `DC/a01.wav`, in it or in its folder `AudioData`."""
    folder = root / "AudioData" if (root / "AudioData").is_dir() else root
    return one_file_per_clip(_named(folder))


def clip_name(path: Path) -> str:
    """Name a clip the same way in both layouts: DC_a01."""
    return path.stem if "_" in path.stem else f"{path.parent.name}_{path.stem}"


def _named(folder: Path) -> Iterator[tuple[str, Utterance]]:
    for path in audio_files(folder, depth=1):
        clip = clip_name(path)
        match = CLIP.fullmatch(clip)
        if not match:
            raise ValueError(
                f"{path}: not the name of a SAVEE clip, such as DC_a01 or DC/a01 "
                "(speaker DC, emotion letter a, number 01); move it out of the folder"
            )
        speaker, letter, number = match.groups()
        yield clip, Utterance(path, EMOTION_LETTERS[letter], "savee", speaker, f"{letter}{number}", "male")
