"""The benchmarks compare like with like: the plain networks give the answers of Vervet's own."""

import importlib.util
from pathlib import Path

import pytest
import torch

from vervet.config import Vit
from vervet.models.vit import VisionTransformer

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.parametrize("stem", [(), (4, 8, 4)])
def test_the_plain_network_of_training_cost_answers_the_same(stem):
    found = importlib.util.spec_from_file_location("training_cost", BENCHMARKS / "training_cost.py")
    assert found is not None
    assert found.loader is not None
    cost = importlib.util.module_from_spec(found)
    found.loader.exec_module(cost)
    torch.manual_seed(0)
    position = "ice" if stem else "none"
    model = VisionTransformer(Vit(depth=2, heads=2, dim_head=8, embed_dim=32, stem=stem, position=position), 5)
    images = torch.rand(3, 1, 128, 128)
    for mine, plain in zip(model(images), cost.plain(model)(images), strict=True):
        torch.testing.assert_close(plain, mine, rtol=1e-4, atol=1e-5)
