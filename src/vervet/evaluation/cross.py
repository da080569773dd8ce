"""A trained model on recordings that it has never heard: another corpus, or your own with a table of emotions.

No torch here: the model is asked as `vervet predict` asks it.
"""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vervet.batch import Item, predict_many
from vervet.corpora import CORPORA, OWN, PUBLISHED, Utterance, corpus_root, kind_of, load_corpus
from vervet.corpora.check import clean
from vervet.emotions import in_order
from vervet.evaluation.enrolled import COUNTS, others
from vervet.evaluation.leakage import count_heard, fingerprints
from vervet.evaluation.run import enrolled_scores, network_of, scored_answers
from vervet.files import read_json, write_json
from vervet.machine import cores
from vervet.predict import Prediction, Predictor, load


def cross(model: str | Path, on: str, root: Path | None = None) -> dict[str, Any]:
    """Test a model on recordings that it has not heard, as far as it knows their emotions.

    Parameters
    ----------
    model : str or Path
        A finished run with its `model.onnx`, or any other model, as for `vervet.load`.
    on : str
        "emodb", "savee" or "cremad", and not one that the model was trained on; or your own recordings, a CSV table or
        a folder with a folder for each emotion.
    root : Path, optional
        Where a corpus lies; otherwise looked for under VERVET_CORPORA.

    Returns
    -------
    dict
        A record in the shape of `results/results.json`; of a model that is no run, without seed, epochs, machine and
        minutes, which nobody knows, and with the `model_sha256` of its file. Its protocol is `from` and the names of
        the corpora that the model was trained on, and the fold if it has not heard all of them. Every clip whose
        emotion the model knows is tested, `left_out` counts the others; of the model's answers only the emotions of the
        corpus count. A recording longer than the model's window is answered by the mean over its windows, each weighted
        by its duration. Where every clip names its speaker, `enrolled` has the scores of a model that was trained to be
        told of other clips. `predicting` is about answers as `vervet predict` gives them, among all emotions of the
        model: wa, the share that is right; of a model that knows when it is uncertain, `answered` and `wa_answered`,
        the share that is not, and how many of these are right; `wa_enrolled` by the number of other clips; and
        `answers`, how often each emotion was answered to clips of each. The record of a run also lies in its folder as
        `cross-CORPUS.json`, to be filed with it; that of recordings of your own has the split's hash in its name, and
        is not filed. It is leaky if the model was trained on some of the clips, as
        `vervet.evaluation.leakage.count_heard` finds them.

    Raises
    ------
    ValueError
        If the model was trained on that corpus, both share fewer than two emotions, or a recording cannot be read.
    """
    if on not in CORPORA and not Path(on).exists():
        raise ValueError(f"{on}: no such corpus, table or folder; corpora are {', '.join(PUBLISHED)}")
    corpus, root = (on, root) if on in CORPORA else (kind_of(Path(on)), Path(on))
    folder = Path(model)
    run = read_json(folder / "run.json") if (folder / "run.json").is_file() else None
    predictor = load(model, threads=1)
    card = predictor.card if run is None else predictor.card | read_json(folder / "model.json")
    if corpus in card["corpora"] and corpus not in OWN:
        raise ValueError(f"{model}: was trained on {corpus}; --on takes a corpus that the model has not heard")
    found, removed = clean(load_corpus(corpus, corpus_root(corpus, root)))
    labels = in_order({utterance.emotion for utterance in found} & set(predictor.labels))
    if len(labels) < 2:
        there = ", ".join(in_order({utterance.emotion for utterance in found}))
        raise ValueError(
            f"{corpus} and {model} share {len(labels)} emotions; two or more can be told apart: the one has {there}, "
            f"the other {', '.join(predictor.labels)}"
        )
    clips = [utterance for utterance in found if utterance.emotion in labels]
    left_out = Counter(utterance.emotion for utterance in found if utterance.emotion not in labels)
    left_out |= {"silent or contradictory": len(removed)} if removed else {}
    known = count_heard(card, clips)
    if known:
        told = f"{model} was trained on {known} of these {len(clips)} clips, or on other clips of their speakers"
        print(f"{told}: what it scores is LEAKY", file=sys.stderr)
    seed = run["settings"]["seed"] if run else 0
    rows, said = _answers(predictor, clips, labels, seed)
    origin = run or card  # how it was trained
    part = "" if origin["protocol"] == "all" else f", fold {origin['fold']}"
    record = {
        "corpus": corpus,
        "protocol": f"from {' and '.join(card['corpora'])}{part}",
        "leaky": bool(known),
        "network": network_of(card),
        "recipe": origin["recipe"],
        "fold": "all",
        **scored_answers(rows, list(labels)),
        "labels": list(labels),
        "split_hash": _digest(corpus, clips),
        "commit": card["commit"],
        "command": shlex.join(["vervet", "evaluate", str(model), "--on", on]),
        "predicting": said,
    }
    if left_out:
        record["left_out"] = dict(left_out)
    if "wa_enrolled" in said:
        record["enrolled"] = enrolled_scores(rows, list(labels))
    if run is None:
        return record | {"model_sha256": predictor.digest}
    record |= {
        "seed": seed,
        "epochs": card["epochs"],
        "machine": run["machine"],
        "minutes": round(card["minutes"], 2),
    }
    name = f"cross-{corpus}-{record['split_hash']}.json" if corpus in OWN else f"cross-{corpus}.json"
    write_json(folder / name, record)
    return record


def _digest(corpus: str, clips: Sequence[Utterance]) -> str:
    """16 hexadecimal digits that name what was tested; a user's own recordings by their sound, as names tell little."""
    told = [f"{clip.name} {clip.speaker} {clip.emotion}" for clip in clips]
    told += fingerprints(clips) if corpus in OWN else []
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def _answers(
    predictor: Predictor, clips: Sequence[Utterance], labels: Sequence[str], seed: int
) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """A row per clip: emotion, speaker, the answer, if the model enrols one for each of `COUNTS`; and `predicting`."""
    sure = np.zeros(len(clips), bool)
    true = np.array([predictor.labels.index(clip.emotion) for clip in clips])
    heard = np.zeros(len(clips), int)  # which of all its emotions the model answers
    rows = [{"emotion": clip.emotion, "speaker": clip.speaker} for clip in clips]
    speakers = [clip.speaker for clip in clips]
    enrols = predictor.enrols and all(speakers)
    items = (Item(clip.sound, str(clip)) for clip in clips)
    with (
        closing(predict_many(predictor, items, jobs=cores())) as answers,
        tqdm(total=len(clips) * (2 if enrols else 1), desc="clips", unit="clip", disable=None) as bar,
    ):
        for clip, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            if not answer.predictions:
                raise ValueError(answer.problem)
            whole = predictor.whole(answer.predictions)
            row["predicted"] = whole.best_of(labels)
            heard[clip], sure[clip] = predictor.labels.index(whole.label), not whole.uncertain
            bar.update()
        right = heard == true
        said: dict[str, Any] = {"wa": float(right.mean())}
        if predictor.uncertain_below > 0:
            said |= {
                "answered": float(sure.mean()),
                "wa_answered": float(right[sure].mean()) if sure.any() else None,
            }
        said["answers"] = {
            label: dict(Counter(predictor.labels[one] for one in sorted(heard[true == predictor.labels.index(label)])))
            for label in labels
        }
        if not enrols:
            return rows, said
        chosen = [others(speakers, count, seed) for count in COUNTS]
        knowing = np.zeros((len(COUNTS), len(clips)), bool)  # whether the answer among all its emotions is right
        with ThreadPoolExecutor(cores()) as pool:
            for speaker in dict.fromkeys(speakers):  # one at a time: what is known of all clips would fill the memory
                own = [clip for clip, name in enumerate(speakers) if name == speaker]
                known = dict(zip(own, pool.map(lambda clip: predictor.statistics(clips[clip].sound), own), strict=True))

                def told(clip: int, known: dict[int, np.ndarray] = known) -> list[Prediction]:
                    sums = [sum((known[other] for other in sets[clip]), np.zeros_like(known[clip])) for sets in chosen]
                    return [_told(predictor.knowing(total), clips[clip]) for total in sums]

                for clip, found in zip(own, pool.map(told, own), strict=True):
                    rows[clip] |= {str(count): one.best_of(labels) for count, one in zip(COUNTS, found, strict=True)}
                    knowing[:, clip] = [one.label == clips[clip].emotion for one in found]
                    bar.update()
        said["wa_enrolled"] = {str(count): float(of.mean()) for count, of in zip(COUNTS, knowing, strict=True)}
    return rows, said


def _told(predictor: Predictor, clip: Utterance) -> Prediction:
    """What a model that knows the speaker answers."""
    return predictor.whole(predictor.hear(clip.sound, *predictor.windowing(None, None), str(clip))[0])
