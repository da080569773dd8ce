"""The clips that a network was most sure of and wrong about: to be heard, and seen as the network saw them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import soundfile
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from vervet.audio import Part, fit, read, resample
from vervet.corpora import PUBLISHED, release_of
from vervet.evaluation.html.charts import clip_chart
from vervet.evaluation.html.experiment import Experiment
from vervet.evaluation.leakage import named, place, read_split
from vervet.predict import Predictor, load

MOST_CLIPS = 8
LONGEST_S = 10.0  # of a player; what follows is cut
MEL_COLOURS = "magma"


@dataclass(frozen=True)
class Terms:
    """Whether the recordings of a corpus may be passed on, and what must be said of them."""

    audio: bool
    notice: str


OWN = Terms(False, "These are recordings of your own; whether they may be passed on is for their owner to say.")


def terms_of(corpus: str) -> Terms:
    """Those of a corpus; of several, such as `emodb+savee`, all of them hold."""
    parts = [_terms_of(name) for name in corpus.split("+")]
    return Terms(all(part.audio for part in parts), " ".join(dict.fromkeys(part.notice for part in parts)))


def _terms_of(name: str) -> Terms:
    if name not in PUBLISHED:
        return OWN
    release = release_of(name)
    if release.shared:
        terms = f"Contains information from {release.title}, which is {release.terms}."
    else:
        terms = f"{release.title} is {release.terms}; its recordings are not to be passed on."
    return Terms(release.shared, f"{terms} {release.citation.replace('*', '')}")


@dataclass(frozen=True)
class Hard:
    """A clip with a confident wrong answer."""

    file: str
    speaker: str
    true: str
    said: str
    scores: tuple[tuple[str, float], ...]
    uncertain: bool
    picture: Markup | None  # None where the recording was not found
    audio: str  # a data URI, or empty
    cut: bool  # the player ends before the recording


def hardest(experiment: Experiment, root: Path | None, audio: bool | None) -> dict[str, Any]:
    """Find the wrong answers of highest confidence among recordings as they were made.

    Parameters
    ----------
    experiment : Experiment
        Whose last network is asked.
    root : Path or None
        Folder or table of the corpus; otherwise looked for under VERVET_CORPORA.
    audio : bool or None
        Whether players are put in; None: where the licence of the corpus allows it.

    Returns
    -------
    dict
        clips (list of Hard), told (what they are), audio (whether players are wanted), found (whether all
        recordings were there), terms.
    """
    network, terms = experiment.last, terms_of(experiment.last.record["corpus"])
    wanted = terms.audio if audio is None else audio
    sure = network.probabilities.max(1)
    original = np.array([row["version"] == "original" for row in network.rows])
    wrong = np.flatnonzero(~network.right & original)
    chosen = wrong[np.argsort(-sure[wrong], kind="stable")][:MOST_CLIPS]
    sounds = _recordings(experiment, root.parent if root and root.is_file() else root)
    fold_of = np.repeat(np.arange(len(network.folds)), [len(fold.rows) for fold in network.folds])
    models: dict[int, Predictor] = {}
    clips = []
    for index in chosen:
        recording, fold = sounds[index], int(fold_of[index])
        if recording and fold not in models:
            models[fold] = load(experiment.folders[fold], threads=1)
        clips.append(_hard(experiment, int(index), recording, models.get(fold), wanted))
    return {
        "clips": clips,
        "told": _told(len(chosen), len(wrong), "" if original.all() else " to recordings as they were made"),
        "audio": wanted,
        "found": all(sounds[index] for index in chosen),
        "terms": terms,
    }


def _told(shown: int, wrong: int, to_what: str) -> str:
    if wrong == 1:
        return f"The only wrong answer{to_what}"
    which = f"All {wrong}" if shown == wrong else f"The {shown} most confident of {wrong:,}"
    return f"{which} wrong answers{to_what}"


def _recordings(experiment: Experiment, root: Path | None) -> list[Path | Part | None]:
    """Where the recording of each answer lies; `predictions.csv` has the test rows of `split.csv` in their order."""
    sounds: list[Path | Part | None] = []
    for folder, fold in zip(experiment.folders, experiment.last.folds, strict=True):
        rows = [row for row in read_split(folder / "split.csv") if row["split"] == "test"]
        names = [[Path(name).name for name in side] for side in (map(named, rows), (row["file"] for row in fold.rows))]
        if names[0] != names[1]:  # answers of older runs name files without their folder
            raise ValueError(f"{folder}: split.csv and predictions.csv name different test clips; train it again")
        sounds += [place(row, root) for row in rows]
    return sounds


def _hard(
    experiment: Experiment, index: int, recording: Path | Part | None, model: Predictor | None, audio: bool
) -> Hard:
    network = experiment.last
    row, probabilities = network.rows[index], network.probabilities[index]
    picture, sound, cut = None, "", False
    if recording and model:
        waveform = resample(*read(recording), model.sampling_rate)
        picture = _picture(model, waveform, row["file"])
        longest = round(LONGEST_S * model.sampling_rate)
        sound, cut = _player(waveform[:longest], model.sampling_rate) if audio else "", len(waveform) > longest
    scores = sorted(zip(network.labels, probabilities.tolist(), strict=True), key=lambda pair: -pair[1])
    return Hard(
        row["file"], row["speaker"], row["emotion"], row["predicted"], tuple(scores),
        bool(network.uncertain[index]), picture, sound, cut,
    )  # fmt: skip


def _picture(model: Predictor, waveform: NDArray[np.float32], name: str) -> Markup:
    heard = fit(waveform, min(len(waveform), round(model.duration_s * model.sampling_rate)))
    views = model.run([heard], ("attention", "log_mel"))
    over_time, seconds = views["attention"][0].tolist(), len(waveform) / model.sampling_rate
    return clip_chart(_png(views["log_mel"][0]), over_time, seconds, model.duration_s, name)


def _png(image: NDArray[np.float32]) -> str:
    """An image (bands, columns) in [0, 1] as a data URI, one byte per pixel."""
    levels = np.round(255 * np.clip(image[::-1], 0, 1)).astype(np.uint8)
    colours = matplotlib.colormaps[MEL_COLOURS](np.arange(256), bytes=True)[:, :3]
    picture = Image.fromarray(levels).convert("P")
    picture.putpalette(colours.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return _uri("image/png", buffer)


def _player(waveform: NDArray[np.float32], sampling_rate: int) -> str:
    """What the network hears, without loss, as a data URI."""
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, sampling_rate, format="FLAC", subtype="PCM_16")
    return _uri("audio/flac", buffer)


def _uri(kind: str, buffer: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
