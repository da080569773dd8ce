import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from vervet.bench import run
from vervet.bench.contenders import CONTENDERS, Contender
from vervet.cli import main
from vervet.predict import find_model

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def measured():
    return run.bench(EXAMPLES, names=("vervet", "vervet-int8", "stream", "front-end", "limit"), threads=(1,), rounds=3)


def test_every_contender_has_its_row(measured):
    rows = {row["contender"]: row for row in measured["rows"]}
    assert list(rows) == ["vervet", "vervet-int8", "stream", "front-end", "limit", "network", "network-int8"]
    assert measured["windows"] >= 5
    assert rows["vervet"]["ratio"] == 1
    assert 0 < rows["vervet"]["p50_ms"] <= rows["vervet"]["p99_ms"]
    assert rows["vervet"]["cold_s"] > 0.05
    assert rows["vervet"]["windows_per_s"] > 1
    assert 20 < rows["vervet"]["peak_mb"] < 400  # of its own process: this one has loaded torch
    assert rows["vervet-int8"]["model_mb"] < rows["vervet"]["model_mb"]
    assert rows["front-end"]["p50_ms"] < rows["vervet"]["p50_ms"]
    assert rows["limit"]["gmac_per_s"] > 1
    assert 0 < rows["network"]["p50_ms"] < rows["vervet"]["p50_ms"]
    json.dumps(measured)


def test_what_a_package_prints_is_no_answer(tmp_path):
    np.save(tmp_path / "clips.npy", np.zeros((1, 64_000), np.float32))
    noisy = (
        "from vervet.bench import worker; from vervet.bench.contenders import Contender\n"
        "def prepare(threads, model): print('loading'); return lambda paths, waveforms: print('heard')\n"
        "worker.CONTENDERS['noisy'] = Contender('noisy', prepare); worker.main()"
    )
    command = [sys.executable, "-c", noisy, "noisy", "1", "-", str(tmp_path / "clips.npy"), "0.wav"]
    worker = run._Worker(command, dict(os.environ))
    assert worker.ask([0])["ms"] >= 0
    assert worker.ask([0])["peak_mb"] > 0
    worker.process.kill()
    worker.process.wait()


def test_a_contender_named_twice_is_one():
    assert len(run.bench(EXAMPLES, names=("limit", "limit"), rounds=1, threads=(1,))["rows"]) == 1


def test_table(measured):
    text = run.summary(measured | {"missing": {"wav2vec2": ["transformers"]}})
    assert "of the matrix product's rate" in text
    assert "left out: wav2vec2-base + head (needs transformers" in text
    assert max(map(len, text.splitlines())) <= 140


def test_unknown_missing_and_failing_contenders_are_named(monkeypatch, tmp_path, capsys):
    assert main(["bench", "whisper"]) == 1
    assert "unknown contender 'whisper'; known are vervet, vervet-int8" in capsys.readouterr().err
    monkeypatch.setitem(CONTENDERS, "egemaps-svm", Contender("SVM", CONTENDERS["vervet"].prepare, ("no_such_package",)))
    with pytest.raises(ValueError, match=r"egemaps-svm needs no_such_package: pip install 'vervet\[bench\]'"):
        run.bench(EXAMPLES, names=("egemaps-svm",))
    small = onnx.load_from_string(find_model("telephone")[1])
    entry = next(entry for entry in small.metadata_props if entry.key == "vervet")
    entry.value = json.dumps(json.loads(entry.value) | {"precision": "int8"})
    onnx.save(small, tmp_path / "int8.onnx")
    with pytest.raises(ValueError, match=r"vervet-pytorch needs a model in float32 or float16$"):
        run.bench(EXAMPLES, str(tmp_path / "int8.onnx"), names=("vervet-pytorch",))
    for rounds, threads in ((0, (1,)), (1, (0,)), (1, ())):
        with pytest.raises(ValueError, match="give at least 1 of each"):
            run.bench(EXAMPLES, names=("vervet",), rounds=rounds, threads=threads)
    with pytest.raises(ValueError, match="no recordings in this folder"):
        run.bench(tmp_path, names=("vervet",))
    command = [sys.executable, "-P", "-m", "vervet.bench.worker", "limit", "x", "-", "-"]
    with pytest.raises(ValueError, match="contender limit x stopped: ValueError: invalid literal"):
        run._Worker(command, dict(os.environ)).ask([0])
