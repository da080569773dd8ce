"""CREMA-D, the crowd-sourced emotional multimodal actors dataset: 91 actors, twelve English sentences, six emotions.

Cao, Cooper, Keutmann, Gur, Nenkova, Verma, IEEE Transactions on Affective Computing 5(4), 2014.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from vervet.corpora import Utterance, audio_files, one_file_per_clip
from vervet.emotions import canonical

EMOTION_CODES = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
LEVELS = ("LO", "MD", "HI", "XX")  # intensity; XX: not specified
SENTENCES = ("DFA", "IEO", "IOM", "ITH", "ITS", "IWL", "IWW", "MTI", "TAI", "TIE", "TSI", "WSI")
STEM = re.compile(rf"(10\d\d)_({'|'.join(SENTENCES)})_({'|'.join(EMOTION_CODES)})_({'|'.join(LEVELS)})")


def load(root: Path) -> list[Utterance]:
    """List the utterances below `root`, which holds the folder `AudioWAV` of the release or is that folder."""
    folder = root / "AudioWAV" if (root / "AudioWAV").is_dir() else root
    return one_file_per_clip(_named(folder, _sexes(root / "VideoDemographics.csv")))


def _named(folder: Path, sexes: dict[str, str]) -> Iterator[tuple[str, Utterance]]:
    for path in audio_files(folder):
        match = STEM.fullmatch(path.stem)
        if not match or not 1001 <= int(match[1]) <= 1091:
            raise ValueError(
                f"{path}: not the name of a CREMA-D clip, such as 1001_DFA_ANG_XX "
                "(actor 1001 to 1091, sentence DFA, emotion ANG, level XX); move it out of the folder"
            )
        actor, sentence, code, _ = match.groups()
        yield path.stem, Utterance(path, canonical(code), "cremad", actor, sentence, sexes.get(actor, ""))


def _sexes(demographics: Path) -> dict[str, str]:
    """Read actor -> sex; nothing where the release's table of actors is not at hand."""
    if not demographics.is_file():
        return {}
    with demographics.open(newline="", encoding="utf-8-sig") as file:
        return {row["ActorID"]: row["Sex"].lower() for row in csv.DictReader(file)}
