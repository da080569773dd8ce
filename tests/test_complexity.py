import dataclasses
import json
from itertools import pairwise
from math import prod

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vervet.cli import main
from vervet.config import NETWORKS, STEM, Vit
from vervet.evaluation.complexity import describe, macs, parameters
from vervet.models.functionals import BANDS, CEPSTRA, DESCRIPTORS, FUNCTIONALS, LOWER, MOMENTS, PITCHES, SETS
from vervet.models.patches import TimeConvs
from vervet.models.vit import VisionTransformer


def closed_form_macs(config: Vit, classes: int, every_token: bool = True) -> int:
    """Multiply-accumulates per image by hand, with all tokens of the last block or the one that is read."""
    patches = prod(config.grid)
    tokens, dim, inner = 1 + patches, config.embed_dim, config.heads * config.dim_head
    widths = (1, *config.stem, 1) if config.stem else ()
    stem = sum(9 * c_in * c_out for c_in, c_out in pairwise(widths)) * prod(config.image)
    channels = 3 if config.position == "ice" else 1
    reduce, (height, width) = 0, config.image
    for number, c_out in enumerate(config.reduce):
        height, width = height // 2, (width + 1) // 2 if number < 2 else width
        reduce += 9 * channels * c_out * height * width
        channels = c_out
    embedding = reduce + patches * channels * (config.patch[0] >> len(config.reduce)) * config.patch[1] * dim
    embedding += config.time_convs * patches * dim * TimeConvs.WIDTH
    projections = tokens * dim * inner * 4  # query, key, value, output
    attention = tokens * tokens * inner * 2  # scores, weighted values
    feed_forward = tokens * dim * config.mlp_dim * 2
    whole = stem + embedding + config.depth * (projections + attention + feed_forward) + dim * classes
    if config.functionals:
        whole += prod(config.image) * (CEPSTRA + BANDS + config.image[0] + 3 + len(LOWER) + PITCHES)
        whole += config.image[1] * (PITCHES + 2 * DESCRIPTORS * MOMENTS * SETS) + FUNCTIONALS * classes
    others = tokens - 1  # in the last block they give keys and values, and ask for nothing
    spared = others * (2 * dim * inner + 2 * tokens * inner + 2 * dim * config.mlp_dim)
    return whole if every_token else whole - spared


@pytest.mark.parametrize(
    ("network", "classes", "count"),
    [
        ("student", 6, 1_417_734),
        ("student", 7, 1_417_991),
        ("teacher", 6, 2_911_943),
        ("teacher", 7, 2_912_200),
        ("teacher-large", 6, 11_180_231),
    ],
)
def test_parameters_are_the_published_ones(network, classes, count):
    assert describe(network, classes)["parameters"] == count
    assert parameters(VisionTransformer(NETWORKS[network], classes)) == count


@pytest.mark.parametrize(("network", "millions"), [("student", 213.7), ("teacher", 1191.3), ("teacher-large", 2499.3)])
def test_macs_are_the_published_ones(network, millions):
    got = describe(network, 6)["macs"]
    assert round(got / 1e6, 1) == millions
    assert got == closed_form_macs(NETWORKS[network], 6)
    assert describe(network, 6)["macs_computed"] == closed_form_macs(NETWORKS[network], 6, every_token=False) < got


@pytest.mark.parametrize(
    "config",
    [
        NETWORKS["student"],
        NETWORKS["teacher"],
        Vit(depth=2, heads=3, dim_head=32, embed_dim=64, mlp_dim=96, image=(64, 96), patch=(16, 16), position="ice"),
        Vit(depth=1, image=(32, 48), patch=(1, 48), position="learned", stem=(4,)),
        Vit(depth=1, heads=1, image=(32, 48), patch=(32, 1), position="sinusoidal", stem=STEM),
        Vit(depth=2, image=(32, 48), patch=(32, 1), time_convs=2, mask_padding=True, normalise="deviation"),
        Vit(depth=2, image=(32, 51), patch=(32, 1), reduce=(4, 8, 6), mask_padding=True, normalise="mean"),
        Vit(depth=1, image=(64, 51), patch=(64, 1), functionals=True),
        NETWORKS["vervet"],
    ],
)
def test_counted_on_the_cpu_equals_the_closed_form(config):
    model, images = VisionTransformer(config, 5), torch.rand(1, 1, *config.image)
    assert macs(model, images) == closed_form_macs(config, 5, every_token=False)
    assert macs(model, images.repeat(3, 1, 1, 1)) == 3 * closed_form_macs(config, 5, every_token=False)


class Fused(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


class Explicit(nn.Module):
    def forward(self, x):
        return (x @ x.transpose(-1, -2)).softmax(-1) @ x


def test_attention_counts_once_however_it_is_computed():
    x = torch.rand(2, 3, 7, 5)  # (batch, heads, tokens, dim_head)
    expected = 2 * 3 * 7 * 7 * 5 * 2
    assert macs(Fused(), x) == macs(Explicit(), x) == macs(Fused(), x.to("meta")) == expected


def test_counting_leaves_the_module_as_it_was():
    model = VisionTransformer(dataclasses.replace(NETWORKS["student"], depth=1), 4)
    assert model.training
    state = torch.get_rng_state()
    macs(model, torch.zeros(1, 1, 128, 128))
    describe("student", 4)
    assert model.training
    assert torch.equal(state, torch.get_rng_state())


def test_frozen_and_shared_weights():
    layer = nn.Linear(3, 2)
    assert parameters(nn.Sequential(layer, layer)) == 8
    layer.weight.requires_grad_(False)
    assert parameters(layer) == 2


def test_unknown_network_and_too_few_classes():
    with pytest.raises(ValueError, match=r"unknown network 'pupil'; known are student, teacher, teacher-large"):
        describe("pupil", 6)
    with pytest.raises(ValueError, match="2 classes or more, not 1"):
        describe("student", 1)


def test_command(capsys):
    assert main(["describe", "student", "--classes", "7", "--format", "json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got == describe("student", 7)
    assert main(["describe", "teacher", "--classes", "6"]) == 0
    text = capsys.readouterr().out
    assert "2,911,943" in text
    assert "1,191.3 M" in text
