import pytest
import torch
from torch.nn import functional as F

from vervet.config import NETWORKS, STEM, Vit
from vervet.models.patches import PatchEmbedding, coordinate_planes, heard, sinusoidal_positions, standardise
from vervet.models.stem import ConvStem, _normalised
from vervet.models.vit import VisionTransformer


def build(config: Vit, classes: int = 5) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(config, classes).eval()


def small(**changes) -> Vit:
    shape = {"depth": 2, "heads": 2, "dim_head": 8, "embed_dim": 32, "mlp_dim": 48, "image": (32, 48), "patch": (32, 1)}
    return Vit(**(shape | changes))


@pytest.fixture
def images():
    return torch.rand(2, 1, 128, 128, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def permuted(images):
    return images[..., torch.randperm(128, generator=torch.Generator().manual_seed(2))]


@torch.no_grad()
def test_student_does_not_see_the_order_of_columns(images, permuted):
    student = build(NETWORKS["student"])
    (logits, features), (logits_p, features_p) = student(images), student(permuted)
    torch.testing.assert_close(logits_p, logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(features_p, features, rtol=0, atol=1e-5)
    assert (student(torch.flip(images, [2]))[1] - features).abs().max() > 1e-3  # that of rows it sees


@torch.no_grad()
def test_teacher_sees_the_order_of_columns(images, permuted):
    teacher = build(NETWORKS["teacher"])
    assert (teacher(permuted)[1] - teacher(images)[1]).abs().max() > 1e-3


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "ice"])
@torch.no_grad()
def test_any_position_makes_order_matter(position):
    model, images = build(small(position=position)), torch.rand(1, 1, 32, 48)
    assert (model(images.flip(-1))[1] - model(images)[1]).abs().max() > 1e-4


@pytest.mark.parametrize(("height", "width"), [(128, 128), (128, 1001), (64, 96), (3, 2)])
def test_ice_corners_are_exact(height, width):
    planes = coordinate_planes(height, width)
    assert planes.shape == (2, height, width)
    x, y = planes
    assert x[:, 0].eq(-1).all()
    assert x[:, -1].eq(1).all()
    assert y[0].eq(-1).all()
    assert y[-1].eq(1).all()
    assert (x.diff(dim=1) > 0).all()
    assert (y.diff(dim=0) > 0).all()
    assert x.eq(x[:1]).all()
    assert y.eq(y[:, :1]).all()


def test_sinusoidal_positions():
    positions = sinusoidal_positions(5, 6)
    assert positions.shape == (5, 6)
    torch.testing.assert_close(positions[0], torch.tensor([0.0, 0, 0, 1, 1, 1]))
    assert positions[3, 0] == pytest.approx(0.14112, abs=1e-5)  # sin 3
    assert positions[3, 4] == pytest.approx(0.9903207, abs=1e-5)  # cos(3 / 10000^(1/3))


@pytest.mark.parametrize("position", ["none", "learned", "sinusoidal", "ice"])
@pytest.mark.parametrize("patch", [(128, 1), (16, 16), (1, 128)])
@pytest.mark.parametrize("stem", [(), (2,)], ids=["plain", "stem"])
@torch.no_grad()
def test_every_ablation_runs(position, patch, stem, images):
    model = build(small(position=position, patch=patch, stem=stem, image=(128, 128)))
    assert_shapes(model, images, patches={(128, 1): 128, (16, 16): 64, (1, 128): 128}[patch])


@pytest.mark.parametrize("position", ["none", "learned", "sinusoidal", "ice"])
@pytest.mark.parametrize("stem", [(), (2,)], ids=["plain", "stem"])
@pytest.mark.parametrize(
    ("image", "patch", "patches"),
    [((128, 1001), (128, 1), 1001), ((64, 96), (16, 16), 24), ((64, 96), (1, 96), 64)],
)
@torch.no_grad()
def test_any_image_size_runs(position, stem, image, patch, patches):
    model = build(small(position=position, stem=stem, image=image, patch=patch, depth=1))
    assert_shapes(model, torch.rand(2, 1, *image), patches)


def assert_shapes(model, images, patches):
    batch, config = len(images), model.config
    logits, features = model(images)
    assert logits.shape == (batch, 5)
    assert features.shape == (batch, config.embed_dim)
    assert model.tokens(images)[0].shape == (batch, 1 + patches, config.embed_dim)
    assert model.attention(images).shape == (batch, config.depth, config.heads, patches)
    assert logits.isfinite().all()
    torch.testing.assert_close(model.features(images), features)


@pytest.mark.parametrize("shape", [(2, 1, 128, 127), (2, 1, 64, 128), (2, 3, 128, 128), (1, 128, 128)])
def test_wrong_image_is_an_error(shape):
    with pytest.raises(ValueError, match=r"images .*\(batch, 1, 128, 128\), not "):
        build(NETWORKS["student"])(torch.zeros(shape))


@pytest.mark.parametrize(
    ("patch", "message"),
    [((100, 1), "patch height 100 does not divide image height 128"), ((128, 3), "patch width 3 does not divide")],
)
def test_patch_must_divide_the_image(patch, message):
    with pytest.raises(ValueError, match=message):
        Vit(patch=patch)


class Recorder(torch.nn.Identity):
    def forward(self, x):
        self.seen = x
        return x


def test_patches_hold_what_they_cover_in_order():
    embedding = PatchEmbedding(channels=3, patch=(2, 3), embed_dim=4)
    embedding.norm = recorder = Recorder()
    images = torch.arange(2 * 3 * 4 * 9.0).reshape(2, 3, 4, 9)
    assert embedding(images).shape == (2, 6, 4)
    assert recorder.seen.shape == (2, 6, 18)
    cut = [images[1, :, r : r + 2, c : c + 3] for r in (0, 2) for c in (0, 3, 6)]  # row by row
    for patch, expected in zip(recorder.seen[1], cut, strict=True):
        torch.testing.assert_close(patch, expected.permute(1, 2, 0).flatten())  # pixel by pixel, channels innermost


def test_vertical_patch_is_one_column():
    embedding = PatchEmbedding(channels=1, patch=(128, 1), embed_dim=4)
    embedding.norm = recorder = Recorder()
    images = torch.rand(1, 1, 128, 10)
    embedding(images)
    torch.testing.assert_close(recorder.seen[0], images[0, 0].T)


@torch.no_grad()
def test_constant_column_is_normalised_away():
    # The patch's own LayerNorm: loudness of a column (a constant in dB) does not reach the token.
    model, images = build(small()), torch.rand(1, 1, 32, 48)
    torch.testing.assert_close(model.tokens(images + 0.3)[0], model.tokens(images)[0], rtol=0, atol=1e-4)


def test_cls_comes_first():
    model = build(small())
    tokens, _ = model.tokens(torch.rand(3, 1, 32, 48))
    torch.testing.assert_close(tokens[:, 0], model.cls.expand(3, -1))


@pytest.mark.parametrize("network", ["student", "teacher"])
@torch.no_grad()
def test_attention_is_a_softmax_without_cls(network, images):
    model = build(NETWORKS[network])
    weights = model.attention(images)  # (batch, depth, heads, patches)
    assert weights.shape == (2, model.config.depth, 5, 128)
    assert (weights > 0).all()
    assert (weights.sum(-1) < 1).all()

    block = model.blocks[0].attention  # the first block's, worked out again with its CLS column
    x = block.norm(model.tokens(images)[0])
    query, key, _ = block.qkv(x).reshape(2, 129, 3, 5, 64).unbind(2)  # each (batch, tokens, heads, dim_head)
    full = torch.einsum("bhd,bthd->bht", query[:, 0], key).div(8).softmax(-1)  # sqrt(dim_head) = 8
    torch.testing.assert_close(weights[:, 0], full[..., 1:], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(weights[:, 0].sum(-1) + full[..., 0], torch.ones(2, 5))


@torch.no_grad()
def test_attention_block_is_the_textbook_formula():
    block = build(small()).blocks[0].attention
    x = torch.rand(2, 9, 32)
    query, key, value = block.qkv(block.norm(x)).reshape(2, 9, 3, 2, 8).permute(2, 0, 3, 1, 4)
    mixed = (query @ key.mT / 8**0.5).softmax(-1) @ value  # (batch, heads, tokens, dim_head)
    expected = block.project(mixed.transpose(1, 2).reshape(2, 9, 16))
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_stem_keeps_the_shape_and_normalises():
    stem = ConvStem(STEM)
    assert [(conv.in_channels, conv.out_channels) for conv in stem.convs] == [
        (1, 16), (16, 32), (32, 64), (64, 32), (32, 16), (16, 1),
    ]  # fmt: skip
    images = torch.rand(2, 1, 24, 40)
    out = stem(images)
    assert out.shape == images.shape
    assert out.min() >= -0.18  # GELU's floor: the last layer is activated too
    both = torch.cat([images[:1], 5 * images[1:]])
    torch.testing.assert_close(stem(both)[0], out[0])  # statistics are each image's own


@pytest.mark.parametrize("network", ["student", "teacher"])
def test_the_last_block_computes_what_is_read_and_nothing_else_changes(network, images):
    model = VisionTransformer(NETWORKS[network], 7).eval()
    torch.testing.assert_close(model.features(images), model.every_token(images)[:, 0], atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_weight():
    for config in (small(), small(position="learned", stem=(3,)), small(position="ice", stem=(3,))):
        model = build(config)
        logits, features = model(torch.rand(2, 1, 32, 48))
        (logits.square().sum() + features.square().sum()).backward()
        for name, weight in model.named_parameters():
            assert weight.grad is not None, name
            assert weight.grad.isfinite().all(), name


def test_the_stem_normalises_each_channel_of_each_image():
    """GroupNorm with a channel per group is InstanceNorm, which the paper names."""
    stem = ConvStem((4, 2))
    images = torch.rand(2, 1, 8, 12)
    expected = images
    for conv in stem.convs:
        expected = F.gelu(F.instance_norm(conv(expected)))
    torch.testing.assert_close(stem(images), expected)


def padded():
    """Images whose last columns are black."""
    images = torch.rand(2, 1, 32, 48, generator=torch.Generator().manual_seed(3))
    images[0, ..., 30:] = 0
    images[1, ..., 41:] = 0
    return images


@torch.no_grad()
def test_masked_padding_is_not_looked_at():
    images = padded()
    model = build(small(mask_padding=True, time_convs=1, normalise="mean"))
    weights = model.attention(images)  # (batch, depth, heads, patches)
    assert float(weights[0, ..., 30:].abs().max()) == 0
    assert float(weights[0, ..., :30].min()) > 0
    longer = VisionTransformer(small(mask_padding=True, time_convs=1, normalise="mean", image=(32, 60)), 5).eval()
    longer.load_state_dict(model.state_dict())
    torch.testing.assert_close(longer(F.pad(images, (0, 12)))[0], model(images)[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("deviation", [False, True])
def test_bands_are_standardised_over_sound_alone(deviation):
    images = padded()
    made = standardise(images, heard(images), deviation)
    assert float(made[0, ..., 30:].abs().max()) == 0
    torch.testing.assert_close(made[0, 0, :, :30].mean(1), torch.zeros(32), atol=1e-6, rtol=0)
    expected = images[0, 0, :, :30].std(1, correction=0)
    spread = made[0, 0, :, :30].std(1, correction=0)
    torch.testing.assert_close(spread, expected / (expected + 0.01) if deviation else expected, atol=1e-5, rtol=1e-4)


def test_what_needs_columns_says_so():
    with pytest.raises(ValueError, match="need patches that are columns"):
        small(mask_padding=True, patch=(16, 1))


REDUCED = {"image": (32, 50), "patch": (32, 1), "reduce": (4, 6, 8), "normalise": "mean", "mask_padding": True}


def settled(**changes) -> VisionTransformer:
    """A network that has seen something, so that its BatchNorms are not the identity."""
    model = build(small(**(REDUCED | changes))).train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.rand(8, 1, 32, 50))
    return model.eval()


@torch.no_grad()
def test_reduce_makes_the_image_smaller_and_keeps_every_band_in_a_patch():
    model = settled()
    assert model.config.grid == (1, 13)  # 50 columns, then 25, then 13
    tokens, mask = model.tokens(torch.rand(3, 1, 32, 50))
    assert tokens.shape == (3, 1 + 13, model.config.embed_dim)
    assert mask is not None
    assert mask.shape == (3, 1, 1, 14)
    assert model.attention(torch.rand(3, 1, 32, 50)).shape == (3, 2, 2, 13)
    assert model.patches.patch == (4, 1)  # 32 bands, halved three times


@torch.no_grad()
@pytest.mark.parametrize("end", [1, 2, 17, 30, 50])
def test_reduced_padding_says_nothing(end):
    model = settled(time_convs=2)
    images = torch.rand(2, 1, 32, 50, generator=torch.Generator().manual_seed(3))
    images[..., end:] = 0
    logits, features = model(images)
    narrow_logits, narrow_features = model(images[..., :end])
    torch.testing.assert_close(narrow_logits, logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(narrow_features, features, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("end", [1, 18, 30])
def test_padding_is_not_learnt_from(end):
    """In training BatchNorm counts columns with sound alone, so a batch of short clips is as one that is cut."""
    whole, cut = (build(small(**REDUCED, time_convs=2)).train() for _ in range(2))
    images = torch.rand(4, 1, 32, 50, generator=torch.Generator().manual_seed(3))
    images[..., end:] = 0
    torch.testing.assert_close(cut(images[..., :end])[0], whole(images)[0], rtol=0, atol=1e-5)
    assert whole.reduce is not None
    assert cut.reduce is not None
    for ours, theirs in zip(whole.reduce.buffers(), cut.reduce.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert not torch.equal(whole.reduce.norms[0].running_var, torch.ones(4))


def test_where_all_is_sound_it_is_the_batchnorm_of_pytorch():
    x = torch.randn(3, 5, 8, 12, generator=torch.Generator().manual_seed(0)) * 3 + 1
    ours, theirs = torch.nn.BatchNorm2d(5).train(), torch.nn.BatchNorm2d(5).train()
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    made, expected = _normalised(a, torch.ones(3, 1, 1, 12), ours, 0.1), theirs(b)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    (made * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=1e-2, atol=0)  # theirs divides by n - 1


@torch.no_grad()
def test_reduce_finds_the_same_thing_in_every_place():
    """What distinguishes it from a patch of all bands: shifted by eight bands, the map is shifted by one row."""
    model = settled(normalise="none")
    assert model.reduce is not None
    images = torch.zeros(1, 1, 32, 50)
    images[0, 0, 8:12, 10:20] = 1.0
    columns = torch.ones(1, 50, dtype=torch.bool)
    here, _ = model.reduce(images, columns)
    there, _ = model.reduce(images.roll(8, dims=2), columns)
    torch.testing.assert_close(there[:, :, 2], here[:, :, 1], rtol=0, atol=1e-5)
    assert (there[:, :, 1] - here[:, :, 1]).abs().max() > 1e-3


def test_reduce_needs_columns_and_bands_to_halve():
    with pytest.raises(ValueError, match="reduce need patches that are columns"):
        Vit(patch=(16, 16), reduce=(4,))
    with pytest.raises(ValueError, match="halves 12 bands too often"):
        Vit(image=(12, 8), patch=(12, 1), reduce=(4, 4, 4))
