"""The models that ship: what their card claims, held against the recordings."""

import json
from pathlib import Path

import numpy as np
import pytest

import vervet
from vervet.audio import read, resample
from vervet.cli import main
from vervet.corpora import corpus_root, load_corpus
from vervet.corpora.check import clean
from vervet.evaluation.metrics import scores
from vervet.evaluation.robustness import RATE, telephone
from vervet.evaluation.run import network_of

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "results.json"


@pytest.fixture(scope="module", params=["default", "telephone"])
def predictor(request):
    return vervet.load(request.param)


def record_of(card):
    """The record in results/ of the run that the model comes from."""
    (found,) = [
        record
        for record in json.loads(RESULTS.read_text())
        if (record["network"], record["split_hash"]) == (network_of(card), card["split_hash"])
        and record["recipe"] == card["recipe"]
    ]
    return found


def test_these_ship_and_are_small():
    sizes = {path.name: path.stat().st_size for path in (ROOT / "src/vervet/weights").glob("*.onnx")}
    assert sizes.keys() == {"default.onnx", "telephone.onnx"}
    assert max(sizes.values()) < 8_000_000


def test_it_comes_from_an_honest_split(predictor):
    card = predictor.card
    assert (network_of(card), card["protocol"], card["leaky"], card["corpora"]) == (
        "student+functionals",
        "speaker",
        False,
        ["cremad", "emodb"],
    )
    assert predictor.labels == ("anger", "boredom", "disgust", "fear", "happiness", "neutral", "sadness")


def test_its_results_are_filed_and_its_card_quotes_them(predictor):
    record = record_of(predictor.card)
    card = (ROOT / "src/vervet/weights/README.md").read_text()
    assert f"{100 * record['wa']:.1f}" in card
    assert f"{100 * record['uar']:.1f}" in card


def test_the_examples_are_answered(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["predict", "examples/clips.csv", "--format", "json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert len(answers) == 14
    for answer in answers:
        assert sum(answer["scores"].values()) == pytest.approx(1)
        assert answer["label"] == max(answer["scores"], key=answer["scores"].get)


def test_a_telephone_changes_little_for_the_one_that_is_for_it():
    """Its bands are those of telephones, so it says of a voice over one what it says of the voice itself."""
    known, usual, changed = vervet.load("telephone"), vervet.load(), []
    for path in sorted((ROOT / "examples").glob("*.flac")):
        waveform = resample(*read(path), RATE)
        called = telephone(waveform, "ULAW"), RATE
        before, after = (
            [list(one(sound)[0].scores.values()) for one in (known, usual)] for sound in ((waveform, RATE), called)
        )
        changed.append(np.abs(np.subtract(before, after)).max(axis=1))
    assert np.median(changed, axis=0)[0] < 0.1 < np.median(changed, axis=0)[1]


@pytest.mark.corpus
def test_it_scores_on_its_test_speakers_what_results_say(predictor, corpora):
    record = record_of(predictor.card)
    tested = set(record["by_speaker"])
    found, _ = clean(load_corpus(record["corpus"], corpus_root(record["corpus"], None)))
    utterances = [utterance for utterance in found if utterance.speaker in tested]
    heard = [predictor((ROOT / u.path), window_s=4.0, hop_s=10.0)[0].label for u in utterances]
    scored = scores([u.emotion for u in utterances], heard, predictor.labels)
    assert scored.n == record["n_test"]
    # Training kept its pictures in half precision, so clips on the edge may fall to the other side.
    assert scored.wa == pytest.approx(record["wa"], abs=0.003)
