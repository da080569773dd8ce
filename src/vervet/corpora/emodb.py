"""EmoDB, the Berlin database of emotional speech: ten actors, ten German sentences, seven emotions.

Burkhardt, Paeschke, Rolfes, Sendlmeier, Weiss, "A database of German emotional speech", Interspeech 2005.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from vervet.corpora import Utterance, audio_files, one_file_per_clip

EMOTION_LETTERS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "N": "neutral",
    "T": "sadness",
}
MALE = ("03", "10", "11", "12", "15")
FEMALE = ("08", "09", "13", "14", "16")
SENTENCES = ("a01", "a02", "a04", "a05", "a07", "b01", "b02", "b03", "b09", "b10")
STEM = re.compile(rf"({'|'.join(sorted(MALE + FEMALE))})({'|'.join(SENTENCES)})([WLEAFTN])([a-z])")


def load(root: Path) -> list[Utterance]:
    """List the utterances below `root`, which holds the folder `wav` of the release or is that folder."""
    folder = root / "wav" if (root / "wav").is_dir() else root
    return one_file_per_clip(_named(folder))


def _named(folder: Path) -> Iterator[tuple[str, Utterance]]:
    for path in audio_files(folder):
        match = STEM.fullmatch(path.stem)
        if not match:
            raise ValueError(
                f"{path}: not the name of an EmoDB clip, such as 03a01Fa "
                "(speaker 03, sentence a01, emotion letter F, version a); move it out of the folder"
            )
        speaker, sentence, letter, _ = match.groups()
        sex = "male" if speaker in MALE else "female"
        yield path.stem, Utterance(path, EMOTION_LETTERS[letter], "emodb", speaker, sentence, sex)
