"""EmoDB, the Berlin database of emotional speech: ten actors, ten German sentences, seven emotions.

Burkhardt, Paeschke, Rolfes, Sendlmeier, Weiss, "A database of German emotional speech", Interspeech 2005.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from vervet.corpora import Fault, Release, Utterance, audio_files, misnamed

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

# Every clip of the release: a speaker, then his or her sentences with the emotion letter and version of each take.
# The actors spoke more; the publishers kept what listeners recognised and found natural.
TAKES = """
03 a01:FaNcWa a02:FcNcTaWbWc a04:AdFdLcNcTaWc a05:AaFcNdTcWaWb a07:FaFbLaNcWc b01:FaLbNbTdWaWc b02:AaLaNaTbWb
b03:NbTcWc b09:LaNcTcWa b10:AbEcNaNcWbWc
08 a01:AbFdLcNaWaWc a02:AbAcFeLaNaTbWc a04:FfLaNcTbWc a05:FeLcNbTaWa a07:FdLaNaTaTbWc b01:AaFdFeLbNaWa
b02:FfLaNbTcWd b03:FeLcNbTcWd b09:AbFdLcNbTbWaWc b10:AaFdLaNcTcWa
09 a01:EaFaNbWb a02:EaEbLaWb a04:FdLaNbWa a05:EdLcNbTbWbWc a07:EbNaTaWbWd b01:EaNaWb b02:NaTbWcWd b03:EdFaFdLbNbTaWb
b09:EaNdWa b10:AaNdWa
10 a01:AcNbWa a02:AbFaLbNaWa a04:FdNbWaWb a05:AaLdTbWb a07:AaAdLaTaWb b01:AaEaFaLb b02:AaLaNaWb b03:LaTbWb
b09:AdLbWb b10:FcLcWa
11 a01:AaAbLdNdWc a02:EcFbLdNcTcWc a04:AcFdNdWc a05:AdFbFcLcNaTdWd a07:AcLdTaWc b01:AbEbFcLbNcWd b02:AbFdNaTdWb
b03:FcLcNbTdWaWb b09:AdFdLdNaTdWa b10:AdAeLdNcTdWa
12 a01:FbLbNbWc a02:AcEcNbWaWc a04:Wc a05:AbLbNdTaWb a07:AcLaWa b01:TaWa b02:AdEaFbNaWaWbWd b03:LaTa b09:AcTdWc
b10:AcLdWa
13 a01:AcEaEcFdLbNbWb a02:AdEcFaLcNcTaWa a04:AcFcLbTaWc a05:AaEaLcNbTcWaWc a07:FdLbNaTcWb b01:AbEcFcLdNcWa
b02:FbLcNbWa b03:AcEdFdLbNaTdWc b09:AbEcFbFcLaNaWa b10:EcFaLaNcWaWc
14 a01:AaAcEaNaWaWc a02:AbEaFdLaNcTbWaWc a04:AaEdLbTbTcWbWc a05:AaAcFaFbLbNaTaTcWaWb a07:AaEbFdLcLdNaTcWc
b01:AcEbFaFcNaWc b02:AaFbNaTcWbWd b03:AdEdLbTaWb b09:AcEaFcLbTdWaWc b10:AdEbLbNbTcWc
15 a01:EaFbLaNbWa a02:AcEaLaNaTaWbWd a04:AbAcFdNcWaWb a05:EbFbLbNaWa a07:AcEbFaFbLdNc b01:EcLbNaWc b02:AaLbNdTcWaWc
b03:AaLcNbTcWaWb b09:AcFaLaNbTaWb b10:AcLcNbNcWa
16 a01:EcFcLbNcTbWb a02:EaEcLbNbTcWb a04:AbEaFaLaLcNcTcWbWc a05:AbEaFcLaTbWbWc a07:EaFaFbLaLbNbTdWa
b01:AaEbFaLaLcTbWaWb b02:AaEbFdLbWb b03:AdEaFaFdLaNbTaWb b09:AbEbFbLaLbWb b10:AaEbFbLbTbTdWaWb
"""


def _published() -> Release:
    stems = []
    speaker = ""
    for word in TAKES.split():
        sentence, _, takes = word.partition(":")
        if not takes:
            speaker = word
        stems += [f"{speaker}{sentence}{takes[i : i + 2]}" for i in range(0, len(takes), 2)]
    return Release(
        title="EmoDB",
        classes=Counter(EMOTION_LETTERS[stem[5]] for stem in stems),
        sampling_rate=16_000,
        duration_s=(1.22, 8.98),
        stems={stem: stem[:2] for stem in stems},
        language="de",
        speech="ten German sentences, acted by ten people in a studio",
        terms="in the public domain (CC0 1.0)",
        shared=True,
        citation="F. Burkhardt, A. Paeschke, M. Rolfes, W. Sendlmeier, B. Weiss: *A database of German emotional "
        "speech.* Interspeech 2005.",
    )


RELEASE = _published()


def read(root: Path) -> Iterator[tuple[str, Utterance] | Fault]:
    """Name the clips below `root`, which holds the folder `wav` of the release or is that folder."""
    for path in audio_files(root / "wav" if (root / "wav").is_dir() else root):
        match = STEM.fullmatch(path.stem)
        if not match:
            example = "03a01Fa (speaker 03, sentence a01, emotion letter F, version a)"
            yield misnamed(path, RELEASE.title, example)
            continue
        speaker, sentence, letter, _ = match.groups()
        sex = "male" if speaker in MALE else "female"
        yield path.stem, Utterance(path, EMOTION_LETTERS[letter], "emodb", speaker, sentence, sex)
