import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch

import vervet
from vervet.cli import main
from vervet.config import NETWORKS, FrontEnd, Vit
from vervet.export import WaveformModel, export
from vervet.models.checkpoint import load_network, save_network
from vervet.models.vit import VisionTransformer
from vervet.spectrogram import LogMel

CARD = {
    "labels": ["anger", "neutral", "sadness"], "network": "student", "corpora": ["emodb"], "protocol": "speaker",
    "leaky": False, "fold": 8, "recipe": "paper", "split_hash": "0" * 16, "commit": "", "vervet_version": "0.1.0",
    "front_end": asdict(FrontEnd()),
}  # fmt: skip


@pytest.fixture(scope="module", params=["student", "teacher"])
def exported(request, tmp_path_factory):
    """A network with random weights, and its ONNX file."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    save_network(folder, VisionTransformer(NETWORKS[request.param], 3), CARD | {"network": request.param})
    return folder, export(folder, folder / "model.onnx")


def waveforms(count):
    rng = np.random.default_rng(1)
    t = np.arange(64_000) / 16_000
    speech = [np.sin(2 * np.pi * (100 + 90 * k) * t * (1 + 0.1 * np.sin(7 * t))) for k in range(count)]
    made = 0.3 * np.array(speech) * rng.uniform(0.01, 1, (count, 1)) + 0.003 * rng.standard_normal((count, 64_000))
    made[0, 30_000:] = 0
    return made.astype(np.float32)


@pytest.mark.parametrize("batch", [1, 5])
def test_onnx_and_pytorch_agree(exported, batch):
    folder, path = exported
    network, _ = load_network(folder)
    inputs = waveforms(batch)
    with torch.inference_mode():
        expected = [output.numpy() for output in WaveformModel(FrontEnd(), network)(torch.from_numpy(inputs))]
    answers = onnxruntime.InferenceSession(str(path)).run(None, {"waveform": inputs})

    def softmax(logits):
        return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    assert np.abs(softmax(answers[0]) - softmax(expected[0])).max() < 1e-4
    for answer, wanted in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer, wanted, atol=1e-3)
    assert [answer.shape for answer in answers] == [(batch, 3), (batch, 256), (batch, 128), (batch, 128, 128)]


@pytest.mark.parametrize(
    ("changes", "interpolation"),
    [
        ({}, "area"),
        ({"mask_padding": True, "time_convs": 1, "normalise": "deviation"}, "bilinear"),
        ({"mask_padding": True, "reduce": (4, 8, 8), "normalise": "mean"}, "area"),
    ],
)
def test_a_short_waveform_is_answered_as_if_it_were_padded(changes, interpolation, tmp_path):
    torch.manual_seed(0)
    front_end = FrontEnd(interpolation=interpolation, hop_length=160, n_fft=512, win_length=400, width=100)
    network = VisionTransformer(replace(NETWORKS["student"], image=(128, 100), depth=2, **changes), 3).eval()
    save_network(tmp_path, network, CARD | {"front_end": asdict(front_end)})
    path = export(tmp_path, tmp_path / "model.onnx")
    session, model = onnxruntime.InferenceSession(str(path)), WaveformModel(front_end, network)
    for samples in (8_000, 24_010, 50_000, 63_900, 64_000):
        whole = waveforms(2)
        whole[:, samples:] = 0
        whole[1, samples // 2 :] = 0  # the other of the batch is shorter still
        given = min(64_000, -(-(samples + 200) // 160) * 160)
        with torch.inference_mode():
            network_alone = network(model.log_mel(torch.from_numpy(whole)))[0]
            whole_answers = [output.numpy() for output in model(torch.from_numpy(whole))]
        np.testing.assert_allclose(whole_answers[0], network_alone.numpy(), atol=1e-5)
        for answer, wanted in zip(session.run(None, {"waveform": whole[:, :given]}), whole_answers, strict=True):
            assert answer.shape == wanted.shape
            np.testing.assert_allclose(answer, wanted, atol=2e-5)


def test_a_window_that_is_no_whole_number_of_hops_is_given_whole(tmp_path):
    front_end = FrontEnd(duration_s=1.0, n_fft=512, win_length=512, hop_length=96, width=100)
    network = VisionTransformer(replace(NETWORKS["student"], image=(128, 100), depth=1), 3).eval()
    save_network(tmp_path, network, CARD | {"front_end": asdict(front_end)})
    predictor = vervet.load(export(tmp_path, tmp_path / "model.onnx"))
    assert predictor._samples(2_000) == 16_000
    speech = waveforms(1)[:, :16_000]
    with torch.inference_mode():
        expected = network(LogMel(front_end)(torch.from_numpy(speech)))[0].softmax(1)
    np.testing.assert_allclose(predictor.probabilities(speech), expected, atol=1e-5)


def test_the_predictor_gives_no_more_than_is_needed(exported, monkeypatch):
    folder, path = exported
    predictor = vervet.load(path)
    lengths = [predictor._samples(longest) for longest in (1_600, 32_000, 63_900, 64_000)]
    assert lengths == ([1_856, 32_256, 64_000, 64_000] if "student" in folder.name else [64_000] * 4)
    assert all(length % 64 == 0 for length in lengths)


def test_int8_answers_nearly_the_same_from_a_third_of_the_file(exported):
    folder, path = exported
    small = export(folder, folder / "int8.onnx", "int8")
    assert small.stat().st_size < 0.45 * path.stat().st_size
    names = [tensor.name for tensor in onnx.load(small).graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    blocks = NETWORKS[folder.name.rstrip("0")].depth
    assert len([name for name in names if "quantized" in name]) >= 4 * blocks + 1
    inputs = waveforms(4)
    whole, eighth = (onnxruntime.InferenceSession(str(file)).run(None, {"waveform": inputs}) for file in (path, small))
    np.testing.assert_array_equal(whole[3], eighth[3])  # the image stays as it was
    assert 0 < np.abs(whole[0] - eighth[0]).max() < 0.1 * np.abs(whole[0]).max() + 0.05
    assert vervet.load(small).card["precision"] == "int8"
    assert vervet.load(path).card["precision"] == "float32"


def test_float16_answers_the_same_from_little_more_than_half_of_the_file(exported):
    folder, path = exported
    small = export(folder, folder / "float16.onnx", "float16")
    assert small.stat().st_size < 0.62 * path.stat().st_size
    inputs = waveforms(4)
    whole, half = (onnxruntime.InferenceSession(str(file)).run(None, {"waveform": inputs}) for file in (path, small))
    np.testing.assert_array_equal(whole[3], half[3])  # the image stays as it was
    assert 0 < np.abs(whole[0] - half[0]).max() < 0.003
    assert vervet.load(small).card["precision"] == "float16"


def test_weights_beyond_float16_are_refused(tmp_path):
    torch.manual_seed(0)
    network = VisionTransformer(replace(NETWORKS["student"], depth=1), 3)
    with torch.no_grad():
        network.head.weight[0, 0] = 70_000
    save_network(tmp_path, network, CARD)
    with pytest.raises(ValueError, match=r"go beyond 65504, which float16 cannot hold"):
        export(tmp_path, tmp_path / "model.onnx", "float16")
    assert not (tmp_path / "model.onnx").exists()


def test_nothing_that_is_constant_is_left_to_be_computed(exported):
    _, path = exported
    graph = onnx.load(path).graph
    constant = {tensor.name for tensor in graph.initializer}
    assert [node.name for node in graph.node if node.input and set(node.input) <= constant] == []


def test_the_file_names_no_path_of_the_machine_that_wrote_it(exported):
    _, path = exported
    assert str(Path(vervet.__file__).parent).encode() not in path.read_bytes()


def test_waveform_model_is_front_end_then_network(exported):
    folder, _ = exported
    network, _ = load_network(folder)
    model = WaveformModel(FrontEnd(), network).eval()
    inputs = torch.from_numpy(waveforms(2))
    with torch.inference_mode():
        logits, features = network(model.log_mel(inputs))
        got = model(inputs)
        attention = network.attention(model.log_mel(inputs))[:, -1].mean(1)
    torch.testing.assert_close(got[0], logits)
    torch.testing.assert_close(got[1], features)
    torch.testing.assert_close(got[2], attention)


def test_attention_is_told_over_time_whatever_the_patches():
    shape = Vit(depth=1, heads=1, dim_head=8, embed_dim=16, mlp_dim=16, patch=(16, 16))
    network = VisionTransformer(shape, 3).eval()
    model = WaveformModel(FrontEnd(), network).eval()
    inputs = torch.from_numpy(waveforms(2))
    with torch.inference_mode():
        attention = network.attention(model.log_mel(inputs))[:, -1].mean(1)  # (2, 64), row by row
        told = model(inputs)[2]
    torch.testing.assert_close(told, attention.reshape(2, 8, 8).sum(1))


def test_the_file_says_what_it_is(exported):
    _, path = exported
    model = onnx.load(path)
    card = json.loads({entry.key: entry.value for entry in model.metadata_props}["vervet"])
    assert card["labels"] == ["anger", "neutral", "sadness"]
    assert (card["sampling_rate"], card["duration_s"], card["leaky"], card["fold"]) == (16_000, 4.0, False, 8)
    assert [output.name for output in model.graph.output] == ["logits", "embedding", "attention", "log_mel"]


def test_a_file_is_predicted_as_the_network_does(exported, tmp_path):
    folder, path = exported
    network, _ = load_network(folder)
    wave = waveforms(1)[0][:30_000]
    soundfile.write(tmp_path / "clip.wav", wave, 16_000, subtype="FLOAT")
    (prediction,) = vervet.load(path)(tmp_path / "clip.wav")
    padded = torch.from_numpy(np.pad(wave, (0, 34_000)))[None]
    with torch.inference_mode():
        expected = WaveformModel(FrontEnd(), network)(padded)[0].softmax(1)[0].numpy()
    np.testing.assert_allclose(list(prediction.scores.values()), expected, atol=1e-4)
    assert prediction.end_s == pytest.approx(30_000 / 16_000)


def test_every_weight_of_teacher_and_student_comes_back(exported):
    folder, path = exported
    network, again = load_network(folder)[0].state_dict(), load_network(path)[0].state_dict()
    assert list(network) == list(again)
    assert all(torch.equal(network[name].view(torch.int32), again[name].view(torch.int32)) for name in network)


def test_export_command(exported, tmp_path, capsys):
    folder, path = exported
    assert main(["export", str(folder), "--out", str(tmp_path / "deep" / "again.onnx")]) == 0
    assert (tmp_path / "deep" / "again.onnx").stat().st_size == pytest.approx(path.stat().st_size, rel=0.01)
    assert main(["export", str(folder), "--out", str(tmp_path / "again.pt")]) == 1
    assert "ends in .onnx" in capsys.readouterr().err
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "again.onnx")]) == 1
    assert "holds no model.json" in capsys.readouterr().err


def test_a_network_that_does_not_fit_its_card_is_refused(exported, tmp_path):
    folder, _ = exported
    card = json.loads((folder / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(card | {"labels": ["anger", "fear"]}))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"model.safetensors does not fit model.json"):
        load_network(tmp_path)
