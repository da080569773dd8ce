"""SAVEE, Surrey audio-visual expressed emotion: four English men, seven emotions.

Haq, Jackson, "Multimodal emotion recognition", in Machine Audition, IGI Global, 2010. For research only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from vervet.corpora import Fault, Release, Utterance, audio_files, misnamed

EMOTION_LETTERS = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "n": "neutral",
    "sa": "sadness",
    "su": "surprise",
}
CLIPS = {letter: 30 if letter == "n" else 15 for letter in EMOTION_LETTERS}  # of one speaker
SPEAKERS = ("DC", "JE", "JK", "KL")
COMMON_SENTENCES = ("01", "02", "03")
CLIP = re.compile(rf"({'|'.join(SPEAKERS)})_(sa|su|[adfhn])(\d\d)")
RELEASE = Release(
    title="SAVEE",
    classes={emotion: CLIPS[letter] * len(SPEAKERS) for letter, emotion in EMOTION_LETTERS.items()},
    sampling_rate=44_100,
    duration_s=(1.63, 7.14),
    stems={
        f"{speaker}_{letter}{number:02}": speaker
        for speaker in SPEAKERS
        for letter, count in CLIPS.items()
        for number in range(1, count + 1)
    },
    language="en",
    speech="British English sentences, acted by four men in a studio",
    terms="for research only",
    citation="S. Haq, P. J. B. Jackson: *Multimodal emotion recognition.* In: Machine Audition, IGI Global, 2010.",
)


def read(root: Path) -> Iterator[tuple[str, Utterance] | Fault]:
    """Name the clips below `root`: `DC_a01.wav` or `DC/a01.wav`, in it or in its folder `AudioData`."""
    for path in audio_files(root / "AudioData" if (root / "AudioData").is_dir() else root, depth=1):
        clip = path.stem if "_" in path.stem else f"{path.parent.name}_{path.stem}"
        match = CLIP.fullmatch(clip)
        if not match:
            yield misnamed(path, RELEASE.title, "DC_a01 or DC/a01 (speaker DC, emotion letter a, number 01)")
            continue
        speaker, letter, number = match.groups()
        yield clip, Utterance(path, EMOTION_LETTERS[letter], "savee", speaker, _sentence(letter, number), "male")


def _sentence(letter: str, number: str) -> str:
    """Name the sentence as far as the file name tells.

    Numbers 01 to 03 are the same three sentences in every emotion; the others belong to one emotion, a01 to su15.
    The speakers also said the two sentences special to each emotion neutrally, but no file name tells which of
    n04 to n30 those are, so a sentence may go by two names here, never two sentences by one.
    """
    return number if number in COMMON_SENTENCES else letter + number
