"""CREMA-D, the crowd-sourced emotional multimodal actors dataset: 91 actors, twelve English sentences, six emotions.

Cao, Cooper, Keutmann, Gur, Nenkova, Verma, IEEE Transactions on Affective Computing 5(4), 2014.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from vervet.corpora import Fault, Release, Utterance, audio_files, misnamed
from vervet.corpora.table import SEXES, known, read_rows
from vervet.emotions import canonical

ACTORS = tuple(str(actor) for actor in range(1001, 1092))
BLOCKS = ((1001, 1018), (1019, 1036), (1037, 1054), (1055, 1072), (1073, 1091))  # first and last, as others test
EMOTION_CODES = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
SENTENCES = ("DFA", "IEO", "IOM", "ITH", "ITS", "IWL", "IWW", "MTI", "TAI", "TIE", "TSI", "WSI")
LEVELS = ("LO", "MD", "HI", "XX")  # of intensity, XX: not asked for; the others are asked for in one sentence
LEVELLED_SENTENCE = "IEO"
STEM = re.compile(rf"(\d{{4}})_({'|'.join(SENTENCES)})_({'|'.join(EMOTION_CODES)})_({'|'.join(LEVELS)})")

# What 91 actors should have spoken and the release lacks: three sentences of one actor each, and two clips more.
NOT_RELEASED = frozenset(
    f"{take}_{code}_XX" for take in ("1008_WSI", "1009_MTI", "1019_ITH") for code in EMOTION_CODES
) | {"1002_TIE_NEU_XX", "1076_ITS_NEU_XX"}


def _published() -> Release:
    takes = [
        f"{actor}_{sentence}_{code}_{level}"
        for actor in ACTORS
        for sentence in SENTENCES
        for code in EMOTION_CODES
        for level in (LEVELS[:3] if sentence == LEVELLED_SENTENCE and code != "NEU" else LEVELS[3:])
    ]
    stems = [stem for stem in takes if stem not in NOT_RELEASED]
    return Release(
        title="CREMA-D",
        classes=Counter(canonical(stem.split("_")[2]) for stem in stems),
        sampling_rate=16_000,
        duration_s=(1.26, 5.01),
        stems={stem: stem.split("_")[0] for stem in stems},
        silent=frozenset({"1076_MTI_SAD_XX"}),
        contradictory=(
            frozenset({"1006_TIE_HAP_XX", "1006_TIE_NEU_XX"}),
            frozenset({"1013_WSI_DIS_XX", "1013_WSI_SAD_XX"}),
            frozenset({"1017_IWW_ANG_XX", "1017_IWW_FEA_XX"}),
        ),
        blocks=tuple(tuple(actor for actor in ACTORS if first <= int(actor) <= last) for first, last in BLOCKS),
        language="en",
        speech="twelve American English sentences, acted by 91 people in a studio",
        terms="made available under the Open Database License (ODbL 1.0), which asks to name it, and its contents "
        "under the Database Contents License (DbCL 1.0)",
        shared=True,
        citation="H. Cao, D. G. Cooper, M. K. Keutmann, R. C. Gur, A. Nenkova, R. Verma: *CREMA-D: Crowd-sourced "
        "emotional multimodal actors dataset.* IEEE Transactions on Affective Computing 5(4), 2014.",
    )


RELEASE = _published()


def read(root: Path) -> Iterator[tuple[str, Utterance] | Fault]:
    """Name the clips below `root`, which holds the folder `AudioWAV` of the release or is that folder."""
    sexes = _sexes(root / "VideoDemographics.csv")
    for path in audio_files(root / "AudioWAV" if (root / "AudioWAV").is_dir() else root):
        match = STEM.fullmatch(path.stem)
        if not match or match[1] not in ACTORS:
            example = "1001_DFA_ANG_XX (actor 1001 to 1091, sentence DFA, emotion ANG, level XX)"
            yield misnamed(path, RELEASE.title, example)
            continue
        actor, sentence, code, _ = match.groups()
        yield path.stem, Utterance(path, canonical(code), "cremad", actor, sentence, sexes.get(actor, ""))


def _sexes(demographics: Path) -> dict[str, str]:
    """Read actor -> sex; nothing where the release's table of actors is not at hand."""
    if not demographics.is_file():
        return {}
    sexes = {}
    for line, row in read_rows(demographics, ("ActorID", "Sex"), ()):
        try:
            sexes[row["ActorID"]] = known(row["Sex"], SEXES, "sex")
        except ValueError as error:
            raise ValueError(f"{demographics}, line {line}: {error}; take the file of the release") from None
    return sexes
