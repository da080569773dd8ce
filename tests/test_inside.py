from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from vervet.cli import main
from vervet.config import FrontEnd, Vit
from vervet.evaluation.inside import attention_figure, positions_figure
from vervet.models.checkpoint import save_network
from vervet.models.vit import VisionTransformer

CLIP = Path(__file__).parents[1] / "examples" / "15a02Wb.flac"
SMALL = {"depth": 1, "heads": 1, "dim_head": 8, "embed_dim": 16, "mlp_dim": 16}


def network(folder, **changes):
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    card = {"labels": ["anger", "fear"], "network": "student", "protocol": "speaker"}
    front_end = changes.pop("front_end", FrontEnd())
    save_network(folder, VisionTransformer(Vit(**SMALL, **changes), 2), card | {"front_end": asdict(front_end)})
    return folder


def test_every_network_gets_the_pictures_it_allows(tmp_path, capsys):
    vertical = network(tmp_path / "a", position="ice", stem=(2,))
    square = network(tmp_path / "b", patch=(16, 16))
    out = tmp_path / "out"
    assert main(["inside", str(vertical), str(square), "--clip", str(CLIP), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"attention.png", "positions-0.png", "stem-0.png", "method.png"}
    assert str(out / "method.png") in capsys.readouterr().out


def test_a_network_of_the_shipped_shape_is_drawn(tmp_path):
    changes = {"image": (128, 251), "reduce": (4, 8), "normalise": "mean", "mask_padding": True, "functionals": True}
    front_end = FrontEnd(hop_length=256, width=251, reference="full scale")
    one = network(tmp_path / "a", front_end=front_end, **changes)
    assert main(["inside", str(one), "--clip", str(CLIP), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "method.png").stat().st_size > 10_000


def test_networks_of_different_front_ends_are_refused(tmp_path, capsys):
    one = network(tmp_path / "a")
    other = network(tmp_path / "b", front_end=FrontEnd(top_db=60.0))
    assert main(["inside", str(one), str(other), "--clip", str(CLIP), "--out", str(tmp_path / "out")]) == 1
    assert "different front ends" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_positions_are_alike_without_coordinates_and_not_with_them():
    torch.manual_seed(0)
    model = VisionTransformer(Vit(**SMALL, position="ice"), 2).eval()
    figure = positions_figure(model, {"network": "teacher", "protocol": "paper"}, torch.rand(1, 1, 128, 128))
    with_ice, _, without, _ = (np.asarray(axes.images[0].get_array()) for axes in figure.axes[:4])
    np.testing.assert_allclose(without, 1.0, atol=1e-4)
    assert with_ice.min() < 0.9
    assert model.planes is not None
    assert float(model.planes.abs().max()) == 1.0
    assert "(leaky)" in figure.get_suptitle()


@pytest.mark.parametrize("patch", [(128, 1), (16, 16), (1, 128)])
def test_attention_is_drawn_for_any_patch(patch):
    torch.manual_seed(0)
    model = VisionTransformer(Vit(**SMALL, patch=patch), 2).eval()
    figure = attention_figure([(model, {"network": "student", "protocol": "speaker"})], torch.rand(4, 1, 128, 128))
    overlay = np.asarray(figure.axes[0].images[1].get_array())
    assert overlay.shape == (128, 128, 4)
    rows, columns = 128 // patch[0], 128 // patch[1]
    assert len(np.unique(overlay[..., 3])) <= rows * columns
