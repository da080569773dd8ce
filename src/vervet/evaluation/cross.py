"""A trained model on a corpus that it has never heard anything of: other voices, words, rooms and often a language."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vervet.audio import read, resample
from vervet.corpora import Utterance, corpus_root, load_corpus
from vervet.corpora.check import clean
from vervet.emotions import in_order
from vervet.evaluation.enrolled import COUNTS, others
from vervet.evaluation.run import enrolled_scores, network_of, scored_answers
from vervet.models.checkpoint import write_json
from vervet.predict import Predictor, load

BATCH = 32


def cross(folder: Path, corpus: str, root: Path | None = None) -> dict[str, Any]:
    """Test the model of a run on another corpus, as far as both know the same emotions.

    Parameters
    ----------
    folder : Path
        A finished run, with its `model.onnx`.
    corpus : str
        "emodb", "savee", "cremad" or "table"; not one that the model was trained on.
    root : Path, optional
        Where it lies; otherwise looked for under VERVET_CORPORA.

    Returns
    -------
    dict
        A record in the shape of `results/results.json`. Its protocol is `from` and the names of the corpora that the
        model was trained on, and the fold if it has not heard all of them. Every clip whose emotion the model knows is
        tested; of the model's answers only the emotions of the corpus count. The record also lies in the run folder as
        `cross-CORPUS.json`, to be filed with it.

    Raises
    ------
    ValueError
        If the model was trained on that corpus, both share fewer than two emotions, or a recording cannot be read.
    """
    run, card = (json.loads((folder / name).read_text()) for name in ("run.json", "model.json"))
    if corpus in card["corpora"]:
        raise ValueError(f"{folder}: was trained on {corpus}; --on takes a corpus that the model has not heard")
    predictor = load(folder)
    found, _ = clean(load_corpus(corpus, corpus_root(corpus, root)))
    labels = in_order({utterance.emotion for utterance in found} & set(predictor.labels))
    if len(labels) < 2:
        raise ValueError(f"{corpus} and {folder} share {len(labels)} emotions; two or more can be told apart")
    clips = [utterance for utterance in found if utterance.emotion in labels]
    rows = _answers(predictor, clips, labels, run["settings"]["seed"])
    told = "\n".join(f"{clip.path.name} {clip.speaker} {clip.emotion}" for clip in clips)
    part = "" if run["protocol"] == "all" else f", fold {run['fold']}"
    record = {
        "corpus": corpus,
        "protocol": f"from {' and '.join(card['corpora'])}{part}",
        "leaky": False,
        "network": network_of(card),
        "recipe": run["recipe"],
        "seed": run["settings"]["seed"],
        "fold": "all",
        **scored_answers(rows, list(labels)),
        "labels": list(labels),
        "epochs": card["epochs"],
        "split_hash": hashlib.sha256(told.encode()).hexdigest()[:16],
        "commit": card["commit"],
        "machine": run["machine"],
        "minutes": round(card["minutes"], 2),
        "command": shlex.join(["vervet", "evaluate", str(folder), "--on", corpus]),
    }
    if predictor.enrols:
        record["enrolled"] = enrolled_scores(rows, list(labels))
    write_json(folder / f"cross-{corpus}.json", record)
    return record


def _answers(
    predictor: Predictor, clips: Sequence[Utterance], labels: Sequence[str], seed: int
) -> list[dict[str, str]]:
    """A row per clip: emotion, speaker, the answer, and of a model that enrols, one for each of `COUNTS`."""
    column = [predictor.labels.index(label) for label in labels]
    window = round(predictor.sampling_rate * predictor.duration_s)
    rows, statistics, waveforms = [], [], []
    with tqdm(total=len(clips) * (2 if predictor.enrols else 1), desc="clips", unit="clip", disable=None) as bar:
        for first in range(0, len(clips), BATCH):
            part = clips[first : first + BATCH]
            heard = [resample(*read(clip.path), predictor.sampling_rate)[:window] for clip in part]
            answers = predictor.probabilities(heard)[:, column].argmax(1)
            rows += [
                {"emotion": clip.emotion, "speaker": clip.speaker, "predicted": labels[answer]}
                for clip, answer in zip(part, answers, strict=True)
            ]
            bar.update(len(part))
            if predictor.enrols:
                statistics.append(predictor.run(heard, ("statistics",))["statistics"])
                waveforms += heard
        if predictor.enrols:
            known = np.concatenate(statistics)  # (clips, 3, n_mels)
            chosen = [others([clip.speaker for clip in clips], count, seed) for count in COUNTS]
            for clip, row in enumerate(rows):
                for count, sets in zip(COUNTS, chosen, strict=True):
                    knowing = predictor.knowing(known[sets[clip]].sum(0))
                    row[str(count)] = labels[int(knowing.probabilities([waveforms[clip]])[0, column].argmax())]
                bar.update()
    return rows
