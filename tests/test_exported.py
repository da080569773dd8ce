"""Weights come back from an exported model bit by bit."""

import json
from dataclasses import asdict, replace

import onnx
import pytest
import torch

from vervet.config import NETWORKS, FrontEnd, Vit
from vervet.export import export
from vervet.models.checkpoint import load_network, save_network
from vervet.models.exported import KEY
from vervet.models.vit import VisionTransformer
from vervet.predict import find_model, load

FRONT_END = FrontEnd(duration_s=1.0, n_fft=256, win_length=256, hop_length=128, n_mels=32, width=24)
CARD = {
    "labels": ["anger", "neutral", "bliss"], "network": "student", "corpora": ["emodb"], "protocol": "speaker",
    "leaky": False, "fold": 8, "recipe": "paper", "split_hash": "0" * 16, "commit": "", "vervet_version": "0.1.0",
    "front_end": asdict(FRONT_END),
}  # fmt: skip
SMALL = Vit(depth=2, heads=2, dim_head=16, embed_dim=32, mlp_dim=48, image=(32, 24), patch=(32, 1))


def saved(folder, vit, **card):
    torch.manual_seed(0)
    network = VisionTransformer(vit, 3)
    for parameter in network.parameters():  # biases and norms begin alike, which would hide what is mixed up
        torch.nn.init.normal_(parameter)
    save_network(folder, network, CARD | card)
    return network


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A calibrated network with learned positions, its folder and its ONNX file."""
    folder = tmp_path_factory.mktemp("exported")
    network = saved(folder, replace(SMALL, position="learned"), temperature=2.5, uncertain_below=0.4)
    return network, folder, export(folder, folder / "model.onnx")


def test_every_weight_comes_back(exported):
    network, _, path = exported
    again, card = load_network(path)
    assert again.config == network.config
    assert (card["labels"], card["front_end"]) == (CARD["labels"], asdict(FRONT_END))
    assert (card["temperature"], card["uncertain_below"]) == (2.5, 0.4)
    assert list(again.state_dict()) == list(network.state_dict())
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name].view(torch.int32), value.view(torch.int32)), name


def test_convolutions_come_back_too(tmp_path):
    shape = replace(SMALL, mask_padding=True, time_convs=2, normalise="deviation", patch_norm=False, mlp_dim=32)
    network = saved(tmp_path, shape)
    again, _ = load_network(export(tmp_path, tmp_path / "model.onnx"))
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_batch_norms_come_back_folded_into_the_convolutions(tmp_path):
    shape = replace(SMALL, image=(32, 126), mask_padding=True, reduce=(4, 6, 8), normalise="mean")
    front_end = replace(FRONT_END, width=126, reference="full scale")
    network = saved(tmp_path, shape, front_end=asdict(front_end)).train()
    with torch.no_grad():
        network(torch.rand(4, 1, 32, 126))
    save_network(tmp_path, network, CARD | {"front_end": asdict(front_end)})
    again, card = load_network(export(tmp_path, tmp_path / "model.onnx"))
    assert card["front_end"] == asdict(front_end)
    assert not torch.equal(again.state_dict()["reduce.convs.0.weight"], network.state_dict()["reduce.convs.0.weight"])
    images = torch.rand(2, 1, 32, 126)
    with torch.no_grad():
        torch.testing.assert_close(again(images)[0], network.eval()(images)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", ["default", "telephone"])
def test_the_shipped_models_can_be_trained_further(tmp_path, model):
    name, content = find_model(model)
    (tmp_path / "copy.onnx").write_bytes(content)
    network, card = load_network(tmp_path / "copy.onnx")
    assert replace(network.config, dropout=0.0) == NETWORKS["vervet"]
    assert {key: card[key] for key in ("labels", "temperature")} == {
        key: load(model).card[key] for key in ("labels", "temperature")
    }
    assert name.endswith(f"{model}.onnx")


def test_weights_of_16_bits_come_back_as_the_file_holds_them(exported, tmp_path):
    network, folder, path = exported
    half = export(folder, tmp_path / "half.onnx", "float16")
    assert half.stat().st_size < path.stat().st_size
    again, card = load_network(half)
    assert card["precision"] == "float16"
    for name, parameter in network.named_parameters():
        rounded = parameter.half().float() if parameter.ndim > 1 else parameter
        assert torch.equal(again.state_dict()[name], rounded), name


def test_rounded_weights_are_refused(exported, tmp_path):
    _, folder, _ = exported
    path = export(folder, tmp_path / "model.onnx", "int8")
    with pytest.raises(
        ValueError, match=r"model\.onnx: its weights are rounded to 8 bits; start from the model in float32"
    ):
        load_network(path)


def test_files_of_older_versions_and_others_are_refused(exported, tmp_path):
    proto = onnx.load(exported[2])
    kept = [entry for entry in proto.metadata_props if entry.key != KEY]
    assert json.loads(kept[0].value)["labels"] == CARD["labels"]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    onnx.save(proto, tmp_path / "old.onnx")
    with pytest.raises(ValueError, match=r"old\.onnx: does not say where its weights are; export it again"):
        load_network(tmp_path / "old.onnx")
    proto = onnx.load(exported[2])
    entry = next(entry for entry in proto.metadata_props if entry.key == KEY)
    told = json.loads(entry.value)
    del told["weights"]["cls"]  # as if the network had got it since
    entry.value = json.dumps(told)
    onnx.save(proto, tmp_path / "lacking.onnx")
    with pytest.raises(ValueError, match=r"lacking\.onnx: its weights do not fit the networks of this version"):
        load_network(tmp_path / "lacking.onnx")
    (tmp_path / "none.onnx").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match=r"none\.onnx: not a Vervet model"):
        load_network(tmp_path / "none.onnx")
