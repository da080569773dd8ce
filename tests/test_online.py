import itertools

import pytest
import torch

from vervet.config import Online
from vervet.models.patches import heard, standardise, statistics
from vervet.training.enrol import tell
from vervet.training.online import disturb, mix

ALL = Online(stretch=0.2, warp=0.1, colour_db=6.0, noise=1.0, hiss=1.0, band_limit=1.0, time_mask=20, band_mask=20)


def speech(clips=4, end=90):
    """Images with a rising line, sound in the first `end` columns and black padding behind."""
    images = 0.3 + 0.3 * torch.rand(clips, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    for column in range(end):
        images[:, :, column, column] = 1.0
    images[..., end:] = 0
    return images


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_nothing_by_default():
    assert torch.equal(disturb(speech(), Online(), generator()), speech())
    images, shares, targets = mix(speech(), torch.eye(4), Online(), generator())
    assert torch.equal(images, speech())
    assert torch.equal(shares, torch.eye(4))
    assert targets is None


@pytest.mark.parametrize(
    "name", ["stretch", "warp", "colour_db", "noise", "hiss", "band_limit", "time_mask", "band_mask"]
)
def test_each_setting_does_something_and_keeps_the_scale(name):
    images = disturb(speech(), Online(**{name: getattr(ALL, name)}), generator())
    assert images.shape == (4, 1, 128, 128)
    assert not torch.equal(images, speech())
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    assert len({float(image.sum()) for image in images}) == 4  # each has its own draw


def test_draws_are_decided_by_the_generator():
    first, again, other = (disturb(speech(), ALL, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_padding_stays_black_and_moves_with_the_stretch():
    columns = (disturb(speech(), Online(noise=1.0, hiss=1.0, colour_db=6.0), generator()).amax(dim=(1, 2)) > 0).sum(1)
    assert columns.tolist() == [90] * 4
    stretched = (disturb(speech(32), Online(stretch=0.2), generator()).amax(dim=(1, 2)) > 0).sum(1)
    assert 70 <= int(stretched.min()) < 85
    assert 95 < int(stretched.max()) <= 111


def test_warp_moves_the_line_up_or_down_and_not_in_time():
    images = disturb(speech(16), Online(warp=0.15), generator())
    peaks = images[:, 0, :, 60].argmax(dim=1)
    assert 50 <= int(peaks.min()) < 58
    assert 62 < int(peaks.max()) <= 71


def test_the_lowest_band_and_the_first_column_stay():
    """They have no neighbours to be mixed with but themselves."""
    images = torch.full((64, 1, 128, 128), 0.5)
    found = disturb(images, Online(stretch=0.2, warp=0.1), generator())
    torch.testing.assert_close(found[:, :, 0, 0], images[:, :, 0, 0])
    torch.testing.assert_close(found[:, :, :, :100], images[:, :, :, :100])


def test_noise_fills_what_is_quiet_and_leaves_what_is_loud():
    images = speech()
    images[:, :, 100:, :90] = 0.05  # 76 dB below
    noisy = disturb(images, Online(noise=1.0), generator())
    assert float(noisy[:, :, 100:, :90].mean()) > 0.15
    torch.testing.assert_close(noisy[:, 0, 60, 60], torch.ones(4), atol=0.02, rtol=0)


def test_hiss_has_the_colour_of_the_voice():
    images = 0.4 + 0.2 * torch.rand(8, 1, 128, 128, generator=generator())
    images[:, :, 64:] -= 0.3  # 24 dB less in the upper half
    images[..., 40:60] = 0.01  # a pause
    images[:, :, 5, 5] = 1.0  # the loudest point stays where it is
    noisy = disturb(images, Online(hiss=1.0), generator())
    lower, upper = noisy[:, 0, :64, 40:60].mean((1, 2)), noisy[:, 0, 64:, 40:60].mean((1, 2))
    lifted = lower > 0.15
    assert int(lifted.sum()) > 0
    assert bool((lower - upper > 0.1)[lifted].all())
    alike = disturb(images, Online(hiss=1.0), generator(), group=4)[:, 0, :64, 40:60].mean((1, 2))
    assert float(alike[:4].std()) < 0.01 < float(alike.std())


def test_a_limited_band_keeps_its_middle():
    images = disturb(speech(32), Online(band_limit=0.5), generator(), group=2)
    kept = (images[..., 10] > 0)[:, 0]  # (batch, bands)
    whole = kept.all(1)
    assert 4 <= int(whole.sum()) <= 28
    assert bool(kept[:, 16:83].all())  # 480 Hz to 2.6 kHz
    low, high = kept.float().argmax(1), 128 - kept.flip(1).float().argmax(1)
    assert bool(((low < 16) & (high > 83)).all())
    assert bool((low[~whole] > 0).any() and (high[~whole] < 128).any())
    assert torch.equal(kept[::2], kept[1::2])  # one place
    middle = kept[..., None].expand(-1, -1, 90)
    assert torch.equal(images[:, 0, :, :90][middle], speech(32)[:, 0, :, :90][middle])


def test_mixup_blends_images_emotions_and_targets_alike():
    images, targets = speech(), torch.arange(4.0)[:, None].expand(4, 3)
    mixed, shares, mixed_targets = mix(images, torch.eye(4), Online(mixup=0.4), generator(), targets)
    torch.testing.assert_close(shares.sum(1), torch.ones(4))
    assert bool((shares.diagonal() >= 0.5).all())
    torch.testing.assert_close(mixed_targets, shares @ targets)
    torch.testing.assert_close(mixed, torch.einsum("ij,jchw->ichw", shares, images))


# --- enrolled: what other clips of the speaker say


def test_statistics_of_clips_add_up_to_those_of_all():
    first, second = torch.rand(1, 1, 8, 12) + 0.01, torch.rand(1, 1, 8, 20) + 0.01
    both = torch.cat([first, second], dim=3)
    sums = [statistics(images, heard(images)) for images in (first, second, both)]
    assert torch.allclose(sums[0] + sums[1], sums[2], rtol=1e-5)
    mean, deviation = both.mean(3)[:, 0], both.std(3, correction=0)[:, 0]
    told = standardise(first, heard(first), True, sums[1])
    assert torch.allclose(told, (first - mean[:, None, :, None]) / (deviation[:, None, :, None] + 0.01), atol=1e-4)
    assert not torch.allclose(told, standardise(first, heard(first), True), atol=1e-2)


def test_nobody_is_told_of_itself_nor_of_other_speakers():
    images = torch.full((8, 1, 2, 4), 0.5)
    for index in range(8):
        images[index] *= 10.0**-index  # every sum tells of whom it is
    told = tell(images, torch.arange(len(images)), 4, torch.Generator().manual_seed(0))
    own = statistics(images, heard(images))
    many = set()
    for index in range(8):
        others = [i for i in range(index // 4 * 4, index // 4 * 4 + 4) if i != index]
        count = round(float(told[index, 2, 0]) / 4)
        many.add(count)
        sums = [
            sum((own[i, 0, 0] for i in chosen), torch.zeros(())) for chosen in itertools.combinations(others, count)
        ]
        assert any(torch.isclose(told[index, 0, 0], total, rtol=1e-5) for total in sums)
    assert many <= {0, 1, 3}
    assert len(many) > 1


def test_a_clip_that_fills_its_group_up_is_not_told_of_itself():
    images = torch.rand(8, 1, 2, 4) + 0.1
    images[1:4], images[7] = images[0], images[4]  # a speaker of one clip, and one of three
    clips = torch.tensor([0, 0, 0, 0, 4, 5, 6, 4])
    own = statistics(images, heard(images))
    for seed in range(20):
        told = tell(images, clips, 4, torch.Generator().manual_seed(seed))
        assert (told[:4] == 0).all()
        for first, second in ((4, 7), (7, 4)):
            assert told[first, 2, 0] <= 2 * 4  # columns of the two others at most
            sums = [torch.zeros(()), own[5, 0, 0], own[6, 0, 0], own[5, 0, 0] + own[6, 0, 0]]
            assert any(torch.isclose(told[first, 0, 0], total, rtol=1e-5) for total in sums), second


def test_a_group_is_disturbed_by_one_room_and_one_voice():
    images = speech(8, 60)
    settings = Online(warp=0.2, colour_db=6.0)
    images[:] = images[:1]
    made = disturb(images, settings, torch.Generator().manual_seed(0), group=4)
    assert torch.allclose(made[0], made[3])
    assert not torch.allclose(made[3], made[4])


def test_bands_that_are_masked_have_their_mean():
    images = speech(4, 60)
    made = disturb(images, Online(band_mask=16), torch.Generator().manual_seed(0))
    columns = heard(images)
    assert torch.equal(columns, heard(made))
    means = [one[:, 0][:, :, :60].mean(2) for one in (images, made)]
    assert torch.allclose(*means, atol=1e-5)
    assert (made[:, 0, :, :60].std(2) < 1e-6).any(1).all()
