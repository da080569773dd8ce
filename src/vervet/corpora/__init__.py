"""Speech corpora: a folder on disk becomes a list of utterances."""

from dataclasses import dataclass
from pathlib import Path

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


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
