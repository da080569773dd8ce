import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_double
import pytest
import soundfile
from onnx_double import LABELS, RATE, sine, sure
from predicting import clip

import vervet
from vervet import predict

# --- the predictor


@pytest.mark.parametrize("label", LABELS)
def test_known_tones_get_known_probabilities(predictor, label):
    (prediction,) = predictor((sine(LABELS.index(label), 4.0), RATE))
    assert (prediction.file, prediction.start_s, prediction.end_s) == ("<array>", 0, 4)
    assert prediction.label == label
    assert list(prediction.scores) == LABELS
    assert prediction.confidence == prediction.scores[label] == pytest.approx(sure(), abs=1e-5)
    assert sum(prediction.scores.values()) == pytest.approx(1, abs=1e-12)
    assert all(type(score) is float for score in prediction.scores.values())


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_other_rates_and_stereo_are_brought_to_the_models(predictor, tmp_path, rate):
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([sine(3, 2.0, rate)] * 2, axis=1), rate)
    (prediction,) = predictor(path)
    assert (prediction.label, prediction.end_s) == ("fear", 2.0)
    assert prediction.confidence == pytest.approx(sure(), abs=0.01)


def test_path_bytes_and_array_agree(predictor, tmp_path):
    path = clip(tmp_path / "a.flac", "neutral")
    waveform, rate = soundfile.read(path, dtype="float32")
    content = path.read_bytes()
    alike = bytearray(content), memoryview(content)
    answers = [predictor(source) for source in (path, str(path), content, *alike, (waveform, rate))]
    assert all(answer[0].scores == answers[0][0].scores for answer in answers)
    assert [answer[0].file for answer in answers] == [str(path), str(path), *["<bytes>"] * 3, "<array>"]


@pytest.mark.parametrize("rate", [16_000, 16_000.0, np.int32(16_000), np.array(16_000)])
def test_a_sampling_rate_is_any_whole_number(predictor, rate):
    assert predictor((sine(0, 1.0), rate))[0].label == LABELS[0]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "None: is no recording; give a path, the bytes of a file, an open binary file, a pair"),
        (16_000, "16000: is no recording"),
        (["a.wav", "b.wav"], r"\['a.wav', 'b.wav'\]: is no recording"),
        ((sine(0, 1.0), None), r"<array>: give a pair \(waveform, sampling_rate\), the rate a number of Hz"),
        ((sine(0, 1.0), "16000"), "<array>: give a pair"),
        ((16_000, sine(0, 1.0)), "<array>: give a pair"),
        ((sine(0, 1.0),), "<array>: give a pair"),
        ((None, 16_000), "<array>: dtype object"),
    ],
)
def test_what_is_no_recording_at_all_is_told_what_is(predictor, source, message):
    for function in (predictor, predictor.embed):
        with pytest.raises(ValueError, match=message):
            function(source)


@pytest.mark.parametrize("kind", [str, Path, Path.read_bytes, Path.open, soundfile.read, lambda path: None])
def test_one_recording_is_not_the_several_that_enroll_takes(tmp_path, kind):
    one = kind(clip(tmp_path / "a.wav", "fear"))
    with pytest.raises(ValueError, match="enroll takes several recordings; give a list"):
        vervet.load().enroll(one)


def test_each_window_of_a_long_recording_is_answered_for_itself(predictor):
    order = [0, 3, 5, 1]
    waveform = np.concatenate([sine(label, 4.0) for label in order])[: round(13.5 * RATE)]
    predictions = predictor((waveform, RATE))
    assert [prediction.label for prediction in predictions] == [LABELS[label] for label in order]
    assert [(p.start_s, p.end_s) for p in predictions] == [(0, 4), (4, 8), (8, 12), (12, 13.5)]


def test_a_whole_recording_has_the_mean_of_its_windows(predictor):
    waveform = np.concatenate([sine(1, 4.0), np.zeros(4 * RATE, np.float32), sine(2, 1.0)])
    with pytest.warns(UserWarning, match="silent"):
        first, last = predictions = predictor((waveform, RATE))
    whole = predictor.whole(predictions)
    assert (whole.start_s, whole.end_s, whole.label) == (0, 9, LABELS[1])
    for label in LABELS:
        expected = (4 * first.scores[label] + last.scores[label]) / 5
        assert whole.scores[label] == pytest.approx(expected, abs=1e-9)
    assert predictor.whole([first]) == first
    with pytest.raises(ValueError, match="nothing was answered"):
        predictor.whole([])


def test_overlapping_and_shorter_windows(predictor):
    waveform = np.concatenate([sine(0, 2.0), sine(6, 2.0)])
    predictions = predictor((waveform, RATE), window_s=1, hop_s=0.5)
    assert [p.start_s for p in predictions] == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert [p.label for p in predictions if p.end_s <= 2] == ["anger"] * 3
    assert [p.label for p in predictions if p.start_s >= 2] == ["sadness"] * 3
    straddling = predictions[3]
    assert straddling.scores["anger"] == pytest.approx(straddling.scores["sadness"], abs=0.05)


@pytest.mark.parametrize(
    ("window_s", "hop_s", "message"),
    [
        (5, None, "window of 5 s: this model hears 4 s at once; choose 0.1 to 4 s"),
        (0, None, "window of 0 s"),
        (float("nan"), None, "window of nan s"),
        (None, 0, "hop of 0 s: choose at least"),
        (None, float("inf"), "hop of inf s"),
        (None, 1e305, "hop of 1e.305 s"),
    ],
)
def test_windows_that_do_not_suit_the_model_are_refused(predictor, window_s, hop_s, message):
    with pytest.raises(ValueError, match=message):
        predictor((sine(0, 1.0), RATE), window_s=window_s, hop_s=hop_s)


def test_a_silent_recording_has_no_answer(predictor, tmp_path):
    path = tmp_path / "mute.wav"
    soundfile.write(path, np.zeros(RATE), RATE)
    with pytest.raises(ValueError, match=r"mute\.wav: silent \(below -80 dBFS\) in 0\.00 to 1\.00 s"):
        predictor(path)


def test_silent_windows_are_named_and_the_others_answered(predictor):
    gap = np.zeros(8 * RATE, np.float32)
    waveform = np.concatenate([sine(2, 4.0), gap, sine(4, 4.0)])
    with pytest.warns(UserWarning, match=r"silent .* in 4\.00 to 12\.00 s; no answer there"):
        predictions = predictor((waveform, RATE))
    assert [(p.start_s, p.label) for p in predictions] == [(0, "disgust"), (12, "happiness")]


def test_what_nobody_speaks_in_is_left_out_if_asked(predictor):
    hiss = (0.003 * np.random.default_rng(0).standard_normal(8 * RATE)).astype(np.float32)
    call = np.concatenate([hiss, sine(2, 4.0), hiss, np.zeros(4 * RATE, np.float32), sine(4, 2.0)])
    predictions = predictor((call, RATE), speech_only=True)
    assert [(p.start_s, p.label) for p in predictions] == [(8, "disgust"), (24, "happiness")]
    with pytest.warns(UserWarning, match="silent"):
        assert len(predictor((call, RATE))) == 6
    with pytest.raises(ValueError, match="<array>: nobody speaks in it"):
        predictor((hiss, RATE), speech_only=True)


def test_one_channel_is_heard_alone(predictor, tmp_path):
    call = np.stack([sine(0, 2.0), sine(6, 2.0)], axis=1)
    path = tmp_path / "call.wav"
    soundfile.write(path, call, RATE)
    for sound in (path, path.read_bytes(), bytearray(path.read_bytes()), (call, RATE)):
        agent, caller = (predictor(vervet.Part(sound, channel=number))[0] for number in (0, 1))
        assert (agent.label, caller.label) == (LABELS[0], LABELS[6])
        assert [agent.confidence, caller.confidence] == pytest.approx([sure()] * 2, abs=1e-3)
    assert predictor(vervet.Part(path, channel=0))[0].file == str(path)
    alone = predictor(vervet.Part((call[:, 1], RATE), channel=0))
    assert alone[0].scores == predictor(vervet.Part((call, RATE), channel=1))[0].scores
    call[5, 0] = np.nan  # what is wrong with the other one does not matter
    assert predictor(vervet.Part((call, RATE), channel=1))[0].label == LABELS[6]


@pytest.mark.parametrize(
    ("sound", "number", "message"),
    [
        ((sine(0, 1.0), RATE), 1, "<array>: there is no channel 1; it has one channel, number 0"),
        ((np.stack([sine(0, 1.0)] * 3, axis=1), RATE), -1, "there is no channel -1; it has channels 0 to 2"),
        ((np.stack([sine(0, 1.0)] * 3, axis=1), RATE), "left", "there is no channel 'left'"),
        ((np.stack([sine(0, 1.0)] * 2), RATE), 1, "transpose it"),
        (None, 1, "None: is no recording"),
    ],
)
def test_a_channel_that_is_not_there_is_named(predictor, sound, number, message):
    with pytest.raises(ValueError, match=message):
        predictor(vervet.Part(sound, channel=number))


def test_only_the_outputs_asked_for_are_returned(predictor):
    half = sine(0, 2.0)
    views = predictor.run([half, half], ("attention", "log_mel"))
    assert {name: view.shape for name, view in views.items()} == {"attention": (2, 128), "log_mel": (2, 128, 128)}
    assert views["attention"][0, 64:].sum() == 0  # the padded half
    with pytest.raises(ValueError, match="no output gradients, only logits, embedding, attention, log_mel"):
        predictor.run([half], ("gradients",))


def test_probabilities_of_any_logits_are_finite(predictor, monkeypatch):
    logits = np.array([[1000, 1000, 0, -1000, 0, 0, 0], [-2000, -2000, -2000, -2000, -2000, -2000, -2000]], np.float32)
    monkeypatch.setattr(predictor, "run", lambda waveforms: {"logits": logits})
    expected = [[0.5, 0.5, 0, 0, 0, 0, 0], [1 / 7] * 7]
    np.testing.assert_allclose(predictor.probabilities([]), expected, atol=1e-12)


def test_a_model_that_returns_nan_gives_no_number(predictor, monkeypatch):
    monkeypatch.setattr(predictor, "run", lambda waveforms: {"logits": np.full((1, 7), np.nan, np.float32)})
    with pytest.raises(ValueError, match="the model returned NaN"):
        predictor((sine(0, 1.0), RATE))


# --- models


def test_a_run_folder_stands_for_its_model(model, tmp_path):
    (tmp_path / "model.onnx").write_bytes(model.read_bytes())
    assert vervet.load(tmp_path).labels == tuple(LABELS)
    assert vervet.load(str(tmp_path), threads=1).card["protocol"] == "speaker"


def test_shipped_models_go_by_name_and_one_is_the_default(model, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "SHIPPED", tmp_path)
    with pytest.raises(ValueError, match=r"default: no such model.*this installation has none"):
        vervet.load()
    onnx_double.write(tmp_path / "default.onnx", {"network": "shipped"})
    assert vervet.load().card["network"] == vervet.load("default").card["network"] == "shipped"
    with pytest.raises(ValueError, match=r"big: no such model.*this installation has default\)"):
        vervet.load("big")


def test_recordings_in_a_folder_of_that_name_hide_no_shipped_model(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = {name: vervet.load(name).digest for name in ("default", "telephone")}
    for name, digest in shipped.items():
        (tmp_path / name).mkdir()
        assert vervet.load(name).digest == digest
        (tmp_path / name / "model.onnx").write_bytes(model.read_bytes())
        assert vervet.load(name).digest != digest  # it is named, and it is a model
    assert vervet.load().digest == shipped["default"]
    (tmp_path / "default" / "model.onnx").rename(tmp_path / "default" / "run.json")
    with pytest.raises(ValueError, match=r"holds no model\.onnx; let its training end"):
        vervet.load("default")


def test_a_folder_without_a_model_says_how_to_make_one(tmp_path):
    with pytest.raises(ValueError, match=r"holds no model\.onnx; .*vervet export"):
        vervet.load(tmp_path)


def test_what_is_no_model_is_refused(tmp_path):
    path = tmp_path / "text.onnx"
    path.write_text("no protobuf")
    with pytest.raises(ValueError, match=r"text\.onnx: not an ONNX model that can be run"):
        vervet.load(path)


@pytest.mark.parametrize(
    ("metadata", "key"),
    [
        ({}, "other"),
        ({"labels": []}, "vervet"),
        ({"labels": "abcdefg"}, "vervet"),
        ({"labels": LABELS[:3]}, "vervet"),
        ({"labels": [*LABELS[:6], "anger"]}, "vervet"),
        ({"labels": [*LABELS[:6], "confidence"]}, "vervet"),
        ({"labels": [*LABELS[:6], "sad\x1b[31m"]}, "vervet"),
        ({"sampling_rate": "fast"}, "vervet"),
        ({"sampling_rate": 8000}, "vervet"),
        ({"duration_s": -4.0}, "vervet"),
        ({"duration_s": None}, "vervet"),
    ],
)
def test_models_with_other_metadata_are_refused(tmp_path, metadata, key):
    path = onnx_double.write(tmp_path / "other.onnx", metadata, key=key)
    with pytest.raises(ValueError, match=r"other\.onnx: not a Vervet model"):
        vervet.load(path)


def test_predicting_imports_no_torch_and_importing_nothing_at_all(model):
    script = (
        "import sys, vervet\n"
        "assert not {'numpy', 'onnxruntime', 'torch'} & set(sys.modules), 'import vervet is not cheap'\n"
        "import numpy as np\n"
        f"predictions = vervet.load({str(model)!r})((np.sin(np.arange(32000) * 0.1).astype('f4'), 16000))\n"
        "assert isinstance(predictions[0], vervet.Prediction)\n"
        "found = {'torch', 'matplotlib', 'pandas', 'librosa'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
