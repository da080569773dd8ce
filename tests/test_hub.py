"""Models on the Hugging Face Hub: written from a run, served on this machine, fetched by name."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("huggingface_hub")
pytest.importorskip("torch")

import torch
from conftest import TINY
from huggingface_hub import ModelCard

import vervet
from vervet import hub
from vervet.cli import main
from vervet.config import FrontEnd, load_recipe, merge
from vervet.evaluation.run import evaluate
from vervet.export import WaveformModel
from vervet.models.checkpoint import load_network
from vervet.publish import model_card, publish
from vervet.training.run import train

COMMIT = "0123456789abcdef0123456789abcdef01234567"
EXAMPLE = str(Path(__file__).parents[1] / "examples" / "15a02Wb.flac")


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_corpus):
    """A finished run of a student without a teacher."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.yaml").write_text(TINY)
    recipe = load_recipe(folder / "tiny.yaml", ["--stages=[student]", "--student.alpha=0"])
    return train(recipe, "table", tiny_corpus, "speaker", 0, folder / "run", folder, "tiny", cpu=True)


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    """What is published of it."""
    folder = tmp_path_factory.mktemp("hub") / "tones"
    assert main(["export", str(run), "--hub", str(folder), "--licence", "cc0-1.0"]) == 0
    return folder


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as a download asks for: owner/tones, revisions main and v1, and an empty owner/empty."""

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        parts = self.path.strip("/").split("/")
        if parts[0] == "api":
            return self.fail("EntryNotFound")
        self.server.asked.append(f"{self.command} {self.path}")
        owner, model, _, revision, file = parts
        path = self.server.folder / file
        if (owner, model) not in (("owner", "tones"), ("owner", "empty")):
            return self.fail("RepoNotFound")
        if revision not in ("main", "v1", COMMIT):
            return self.fail("RevisionNotFound")
        if model == "empty" or not path.is_file():
            return self.fail("EntryNotFound")
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def fail(self, code):
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_): ...


@pytest.fixture
def endpoint(folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.folder, server.asked = folder, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def load_in_a_process(home, port, *names, **environment):
    """Load models by name in a process of its own, as huggingface_hub reads its environment once; digests or errors."""
    code = """
import json, sys, vervet
def tried(name):
    try:
        return vervet.load(name).digest
    except ValueError as error:
        return str(error)
found = [tried(name) for name in sys.argv[1:]]
print(json.dumps(found + ["torch" in sys.modules]))
"""
    settings = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    env = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", code, *names],
        env=env | settings | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    *found, torch_there = json.loads(done.stdout)
    assert not torch_there
    return found


# --- writing


def test_the_folder_holds_what_the_hub_expects(folder, run):
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1  # whoever may read one may read all
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "config.json", "model.onnx", "model.safetensors", "recipe.yaml",
    }  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "vervet"
    assert config["id2label"] == {"0": "anger", "1": "neutral", "2": "sadness"}
    assert config["label2id"] == {"anger": 0, "neutral": 1, "sadness": 2}
    assert config["front_end"] == json.loads((run / "model.json").read_text())["front_end"]
    assert (config["protocol"], config["leaky"], config["corpora"]) == ("speaker", False, ["table"])
    for path in (folder / "README.md", folder / "config.json", folder / "recipe.yaml"):
        assert str(run.parent) not in path.read_text()


def test_the_network_comes_back_as_it_was(folder, run):
    ours, card = load_network(run)
    theirs, config = load_network(folder)
    assert config == card
    for name, tensor in ours.state_dict().items():
        assert torch.equal(theirs.state_dict()[name], tensor)


def test_the_folder_is_a_model_for_vervet(folder, run):
    wave = (0.3 * np.sin(2 * np.pi * 400 * np.arange(16_000) / 16_000)).astype(np.float32)
    network, card = load_network(run)
    front_end = merge(FrontEnd(), card["front_end"], "")
    with torch.inference_mode():
        expected = WaveformModel(front_end, network, card["temperature"]).eval()(torch.from_numpy(wave[None]))
    (prediction,) = vervet.load(folder)((wave, 16_000))
    np.testing.assert_allclose(list(prediction.scores.values()), expected[0].softmax(1)[0], atol=1e-4)


def test_the_card_says_what_was_measured(folder, run):
    record = evaluate([run])[-1]
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.library_name, card.data.pipeline_tag) == (
        "cc0-1.0", "vervet", "audio-classification",
    )  # fmt: skip
    values = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert values == {
        "UAR": round(record["uar"], 4), "WA": round(record["wa"], 4), "macro F1": round(record["macro_f1"], 4),
    }  # fmt: skip
    first = card.text.strip().splitlines()[2:4]
    assert "voices that it was not trained on (protocol `speaker`, fold 0)" in first[0]
    assert first[1].startswith("> The test is not leaky")
    for label, row in zip(record["labels"], record["confusion"], strict=True):
        assert f"| {label} | {' | '.join(map(str, row))} |" in card.text
    assert f"their calibration error is {record['calibration']['ece']:.3f}" in card.text
    assert f"{sum(tensor.numel() for tensor in load_network(run)[0].parameters()):,} parameters" in card.text


def test_a_leaky_score_is_called_so_and_kept_from_lists(run):
    record = evaluate([run])[-1] | {"protocol": "paper", "leaky": True}
    card = ModelCard(model_card(record, ["emodb"], 1000, "apache-2.0", "name"))
    assert card.text.strip().splitlines()[3].startswith("> **The test is leaky.**")
    assert card.data.eval_results is None
    assert "leaky-test" in card.data.tags
    assert card.data.language == ["de"]
    assert "EmoDB is in the public domain (CC0 1.0)" in card.text


def test_copies_among_clips_of_ones_own_make_a_score_leaky(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    audit = json.loads((copy / "audit.json").read_text())
    (copy / "audit.json").write_text(json.dumps(audit | {"leaky": True}))
    folder = publish(copy, tmp_path / "hub", "cc0-1.0")
    card = ModelCard.load(folder / "README.md")
    assert "> **The test is leaky.**" in card.text
    assert card.data.eval_results is None
    assert json.loads((folder / "config.json").read_text())["leaky"] is True


def test_a_run_with_such_copies_gives_a_model_that_says_so(run, tiny_corpus, tmp_path):
    rows = tiny_corpus.read_text().splitlines()
    for clip in sorted(tiny_corpus.parent.glob("*.wav")):
        shutil.copy(clip, tmp_path)
    shutil.copy(tmp_path / "0_anger_0.wav", tmp_path / "copy.wav")
    (tmp_path / "clips.csv").write_text("\n".join([*rows, "copy.wav,anger,s3"]) + "\n")
    recipe = load_recipe(run.parent / "tiny.yaml", ["--stages=[student]", "--student.alpha=0", "--student.epochs=1"])
    copied = train(recipe, "table", tmp_path / "clips.csv", "speaker", 0, tmp_path / "run", tmp_path, "tiny", cpu=True)
    assert json.loads((copied / "audit.json").read_text())["leaky"] is True
    assert json.loads((copied / "run.json").read_text())["leaky"] is False  # what its protocol is
    assert main(["export", str(copied), "--out", str(tmp_path / "model.onnx")]) == 0
    assert vervet.load(tmp_path / "model.onnx").card["leaky"] is True


def test_a_run_is_not_published_into_itself(run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"holds a run \(run\.json\).*give a folder of its own"):
        publish(run, run, "cc0-1.0")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_what_the_base_may_have_heard_is_said(run):
    text = model_card(evaluate([run])[-1], ["table"], 1000, "apache-2.0", "name", unsure=True)
    assert "whether that has heard test clips is not known" in text
    assert "The test is not leaky" not in text


def test_weights_that_may_not_be_published_are_not(run, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"does not know the terms of corpus table.*--licence"):
        publish(run, tmp_path / "out")
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "model.json").write_text((copy / "model.json").read_text().replace('"table"', '"savee"'))
    assert main(["export", str(copy), "--hub", str(tmp_path / "out"), "--licence", "mit"]) == 1
    assert "SAVEE is for research only" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_words_that_do_not_go_together(run, tmp_path):
    for weights in ("--int8", "--float16"):
        assert main(["export", str(run), "--hub", str(tmp_path / "out"), weights]) == 1
    assert main(["export", str(run), "--out", str(tmp_path / "m.onnx"), "--licence", "mit"]) == 1
    assert main(["export", str(tmp_path), "--hub", str(tmp_path / "out")]) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_config_of_others_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "config.json").write_text(json.dumps({"model_type": "hubert"}))
    with pytest.raises(ValueError, match="of type 'hubert', not 'vervet'"):
        load_network(tmp_path / "copy")
    (tmp_path / "copy" / "config.json").write_text(json.dumps({"model_type": "vervet"}))
    with pytest.raises(ValueError, match=r"config\.json: not the card of a Vervet model"):
        load_network(tmp_path / "copy")
    (tmp_path / "copy" / "model.json").write_text(json.dumps({"format": "layers-model"}))
    with pytest.raises(ValueError, match=r"model\.json: not the card of a Vervet model"):
        load_network(tmp_path / "copy")


# --- reading


@pytest.mark.parametrize("name", ["owner/model", "Owner-1/my.model_2", "owner/model@v1.0", "owner/model@refs/pr/1"])
def test_names_of_the_hub(name):
    assert hub.is_name(name)


@pytest.mark.parametrize("name", ["default", "./model", "../runs/x", "/abs/path", "a/b/c", "runs/student.onnx", "a/b@"])
def test_names_of_files_are_none(name):
    assert not hub.is_name(name)


def test_a_model_is_fetched_once_and_then_kept(folder, endpoint, tmp_path):
    port, digest = endpoint.server_port, vervet.load(folder).digest
    assert load_in_a_process(tmp_path, port, "owner/tones", "owner/tones@v1", "owner/tones@" + COMMIT) == [digest] * 3
    assert [line for line in endpoint.asked if line.startswith("GET")] == ["GET /owner/tones/resolve/main/model.onnx"]
    asked = len(endpoint.asked)
    assert load_in_a_process(tmp_path, port, "owner/tones", HF_HUB_OFFLINE="1") == [digest]
    assert len(endpoint.asked) == asked


def test_what_the_hub_has_not_is_said(endpoint, tmp_path):
    names = ("owner/none", "owner/tones@v9", "owner/empty")
    none, revision, empty = load_in_a_process(tmp_path, endpoint.server_port, *names)
    assert none.startswith("owner/none: no such file or folder, and no such model on the Hugging Face Hub")
    assert revision.endswith("owner/tones has no revision v9")
    assert empty.startswith("owner/empty: holds no model.onnx")


def test_a_hub_out_of_reach_is_said(endpoint, tmp_path):
    (offline,) = load_in_a_process(tmp_path, endpoint.server_port, "owner/tones", HF_HUB_OFFLINE="1")
    assert "it cannot be reached or HF_HUB_OFFLINE is set" in offline
    assert endpoint.asked == []


def test_a_path_that_is_misspelt_is_nobody_elses_business(endpoint, tmp_path, monkeypatch):
    (tmp_path / "owner").mkdir()
    monkeypatch.chdir(tmp_path)
    (found,) = load_in_a_process(tmp_path, endpoint.server_port, "owner/tones")
    assert found.startswith("owner/tones: no such model; give an .onnx file, a run folder, OWNER/MODEL")
    assert endpoint.asked == []


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"owner/model: no such file or folder; .*pip install 'vervet\[hub\]'"):
        vervet.load("owner/model")


def test_ranked_is_the_form_of_audio_classifiers():
    (prediction,) = vervet.load()(EXAMPLE)
    ranked = prediction.ranked()
    assert ranked[0] == {"label": prediction.label, "score": prediction.confidence}
    assert {entry["label"]: entry["score"] for entry in ranked} == prediction.scores
    scores = [entry["score"] for entry in ranked]
    assert scores == sorted(scores, reverse=True)
