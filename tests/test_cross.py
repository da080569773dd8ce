"""A model is tested on a corpus that it was not trained on."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from test_export import CARD, waveforms

import vervet
from vervet.cli import main
from vervet.config import NETWORKS
from vervet.evaluation.report import add, validate, write
from vervet.evaluation.run import evaluate
from vervet.export import export
from vervet.models.checkpoint import save_network, write_json
from vervet.models.vit import VisionTransformer

LETTERS = {"W": "anger", "N": "neutral", "T": "sadness", "L": "boredom"}


@pytest.fixture
def corpus(tmp_path):
    """Eight recordings under EmoDB's names: two speakers, four emotions, of which the model knows two."""
    folder = tmp_path / "emodb"
    folder.mkdir()
    for number, clip in enumerate(waveforms(8)):
        name = f"{('03', '08')[number % 2]}a01{list(LETTERS)[number // 2]}a.wav"
        soundfile.write(folder / name, clip[: 40_000 + 2_000 * number], 16_000, subtype="FLOAT")
    return folder


def finished(folder, protocol="all", **card):
    torch.manual_seed(0)
    shape = replace(NETWORKS["student"], depth=1, normalise="mean", mask_padding=True)
    network = VisionTransformer(shape, 3).eval()
    folder.mkdir()
    card = CARD | {
        "labels": ["anger", "happiness", "neutral"], "corpora": ["cremad"], "protocol": protocol, "epochs": 3,
        "minutes": 1.0, "commit": "abc", "settings": {"enrol": 4},
    } | card  # fmt: skip
    save_network(folder, network, card)
    run = {"recipe": "tiny", "machine": "a computer", "protocol": protocol, "fold": 2, "settings": {"seed": 5}}
    write_json(folder / "run.json", run)
    export(folder, folder / "model.onnx")
    return folder


def test_only_what_both_know_is_asked(tmp_path, corpus, capsys):
    run = finished(tmp_path / "run")
    assert main(["evaluate", str(run), "--on", "emodb", "--root", str(corpus), "--format", "json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    validate(record)
    assert (record["corpus"], record["protocol"], record["seed"]) == ("emodb", "from cremad", 5)
    assert (record["labels"], record["n_test"]) == (["anger", "neutral"], 4)
    predictor = vervet.load(run)
    names = ["03a01Wa", "08a01Wa", "03a01Na", "08a01Na"]
    read = {name: soundfile.read(corpus / f"{name}.wav", dtype="float32") for name in names}
    answers = {name: predictor.probabilities([read[name][0]])[0][[0, 2]].argmax() for name in names}
    right = [answers[name] == ("N" in name) for name in names]
    assert record["wa"] == pytest.approx(np.mean(right))
    told = [predictor.enroll([read[other]]) for name, other in zip(names, names[2:] + names[:2], strict=True)]
    known = [one.probabilities([read[name][0]])[0][[0, 2]].argmax() for one, name in zip(told, names, strict=True)]
    assert record["enrolled"]["1"]["wa"] == pytest.approx(
        np.mean([k == ("N" in n) for k, n in zip(known, names, strict=True)])
    )
    assert evaluate([run]) == [record]  # it is filed with the run
    add(tmp_path / "results.json", [record])
    assert "`from cremad`" in write(tmp_path / "results.json").read_text()
    assert main(["evaluate", str(run), "--robustness"]) == 1  # nor does that record stand for a test side of its own
    assert "trained on all clips, so there are no test recordings" in capsys.readouterr().err


def test_a_fold_is_filed_as_such_and_what_was_heard_is_refused(tmp_path, corpus, capsys):
    run = finished(tmp_path / "run", "speaker")
    assert main(["evaluate", str(run), "--on", "emodb", "--root", str(corpus)]) == 0
    assert "Enrolled: told of  1 other clips" in capsys.readouterr().out
    assert json.loads((run / "cross-emodb.json").read_text())["protocol"] == "from cremad, fold 2"
    for changes, message in (
        ({"corpora": ["emodb"]}, "was trained on emodb"),
        ({"labels": ["disgust", "fear", "neutral"]}, "share 1 emotions"),
    ):
        other = finished(tmp_path / next(iter(changes)), **changes)
        assert main(["evaluate", str(other), "--on", "emodb", "--root", str(corpus)]) == 1
        assert message in capsys.readouterr().err
