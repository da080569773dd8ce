"""What is done to images anew each time they are trained on, on the images themselves: cheap, on any device."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vervet.config import FrontEnd, Online
from vervet.models.patches import heard

LOWEST, HIGHEST = 0.12, 0.65  # of the bands: with Mel bands up to 8 kHz, some 350 Hz and 2.7 kHz


def disturb(
    images: Tensor, settings: Online, generator: torch.Generator, group: int = 1, front_end: FrontEnd | None = None
) -> Tensor:
    """Stretch, warp, colour, add noise to, limit and mask images; each has its own draw.

    Parameters
    ----------
    images : Tensor
        (batch, 1, n_mels, width) float32 in [0, 1]; black columns at the end are padding and stay so.
    settings : Online
        How much of each. Where all are 0 the images come back as they are.
    generator : torch.Generator
        On the images' device; decides every draw.
    group : int
        So many images that follow one another are of one speaker and one place: warp, colour, noise and limits are the
        same.
    front_end : FrontEnd, optional
        What made the images; the default settings, if not given. If the loudest point of each is 1, colour, noise and
        hiss leave it so.

    Returns
    -------
    Tensor
        The same shape, in [0, 1].
    """
    device, front_end = images.device, front_end or FrontEnd()
    bits = front_end.range_db / 10 * math.log2(10)  # powers of two between 0 and 1 of an image

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(len(images), *shape, generator=generator, device=device)

    def shared(low: float, high: float, *shape: int) -> Tensor:
        return uniform(low, high, *shape)[::group].repeat_interleave(group, dim=0)

    def some_with(noise: Tensor, probability: float) -> Tensor:
        added = torch.logaddexp2(images * bits, noise * bits) / bits  # powers add
        return torch.where(shared(0, 1, 1, 1, 1) < probability, added, images)

    if settings.stretch or settings.warp:
        time = uniform(-settings.stretch, settings.stretch).exp()
        images = _resample(images, time, shared(-settings.warp, settings.warp).exp())
    columns = heard(images)[:, None, None]  # (batch, 1, 1, width)
    if settings.colour_db:
        images = images + _curve(shared(-1, 1, 6), images.shape[2]) * (settings.colour_db / front_end.range_db)
    if settings.noise:
        loudest = (images * columns).unflatten(0, (-1, group)).amax(dim=(1, 3, 4)).repeat_interleave(group, dim=0)
        below = shared(-60, -20, 1, 1, 1) / front_end.range_db + 0.1 * _curve(shared(-1, 1, 4), images.shape[2])
        floor = loudest[:, None, None] + below + 0.02 * torch.randn(images.shape, generator=generator, device=device)
        images = some_with(floor, settings.noise)
    if settings.hiss:
        rank = images.shape[3] - math.ceil(0.98 * images.shape[3]) + 1
        loud = images[:, 0].topk(rank, dim=2).values[..., -1]  # (batch, height), the percentile 98
        loud = loud.unflatten(0, (-1, group)).amax(1).repeat_interleave(group, dim=0)
        loud = F.avg_pool1d(loud[:, None], 9, 1, 4, count_include_pad=False)[..., None]  # (batch, 1, height, 1), smooth
        floor = loud + shared(-50, -10, 1, 1, 1) / front_end.range_db
        floor = floor + 2 / front_end.range_db * torch.randn(images.shape, generator=generator, device=device)
        images = some_with(floor, settings.hiss)
    if settings.colour_db or settings.noise or settings.hiss:
        if front_end.reference == "clip":
            images = images - (images * columns).amax(dim=(2, 3), keepdim=True) + 1  # the loudest point is 1 again
        images = images.clamp(0, 1) * columns
    if settings.band_limit:
        low, high = shared(0, LOWEST, 1, 1, 1), shared(HIGHEST, 1, 1, 1, 1)
        place = ((torch.arange(images.shape[2], device=device) + 0.5) / images.shape[2])[:, None]
        cut = (place < low) | (place > high)
        images = images.masked_fill(cut & (shared(0, 1, 1, 1, 1) < settings.band_limit), 0)
    for _ in range(2):
        images = _black(images, uniform(0, settings.time_mask), uniform(0, 1))
        images = _level(images, uniform(0, settings.band_mask), uniform(0, 1))
    return images


def mix(
    images: Tensor,
    shares: Tensor,
    settings: Online,
    generator: torch.Generator,
    targets: Tensor | None = None,
    group: int = 0,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mixup: each image with another of the batch, its emotions and its teacher's feature likewise.

    Parameters
    ----------
    images : Tensor
        (batch, 1, n_mels, width).
    shares : Tensor
        (batch, classes) float32, how much of each emotion.
    settings : Online
        `mixup` is the parameter of the Beta distribution.
    generator : torch.Generator
        On the images' device.
    targets : Tensor, optional
        (batch, embed_dim).
    group : int
        Images are mixed within groups of so many that follow one another; within the whole batch where 0.

    Returns
    -------
    tuple of Tensor
        Images, shares and targets, mixed.

    Notes
    -----
    Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018.
    """
    if not settings.mixup:
        return images, shares, targets
    group = group or len(images)
    device = images.device
    places = torch.rand(len(images) // group, group, generator=generator, device=device).argsort(dim=1)
    order = (places + torch.arange(0, len(images), group, device=device)[:, None]).flatten()
    rng = np.random.default_rng(int(torch.randint(1 << 62, (), generator=generator, device=device)))
    drawn = torch.from_numpy(rng.beta(settings.mixup, settings.mixup, len(images))).float()
    share = torch.maximum(drawn, 1 - drawn).to(device)  # the image itself counts more than its guest

    def blend(values: Tensor) -> Tensor:
        weight = share.reshape(-1, *[1] * (values.dim() - 1))
        return weight * values + (1 - weight) * values[order]

    return blend(images), blend(shares), None if targets is None else blend(targets)


def _resample(images: Tensor, time: Tensor, band: Tensor) -> Tensor:
    """Scale time from its first column on, and frequency from its lowest band on; what is shifted in is black."""
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) + 0.5
    columns = torch.arange(width, device=images.device) + 0.5
    y = (rows / band[:, None]).clamp(0.5, height - 0.5) / height * 2 - 1  # above the highest band: the highest
    x = (columns / time[:, None]).clamp(min=0.5) / width * 2 - 1  # before the first column there is nothing
    size = (len(images), height, width)
    grid = torch.stack([x[:, None, :].expand(size), y[:, :, None].expand(size)], dim=-1)
    moved = F.grid_sample(images, grid, align_corners=False)
    # A column half of which is padding would be half as loud: it is taken for padding.
    whole = F.grid_sample(heard(images)[:, None, None].float().expand_as(images), grid, align_corners=False)
    return moved * (whole > 0.99)


def _curve(points: Tensor, height: int) -> Tensor:
    """(batch, points) -> a smooth curve over the bands through them, (batch, 1, height, 1)."""
    return F.interpolate(points[:, None], size=height, mode="linear", align_corners=True)[..., None]


def _black(images: Tensor, extent: Tensor, place: Tensor) -> Tensor:
    """Blacken `extent` (batch,) columns from a place (batch,) in [0, 1] on: they count as padding."""
    return images.masked_fill(_hit(images.shape[3], extent, place)[:, None, None, :], 0)


def _level(images: Tensor, extent: Tensor, place: Tensor) -> Tensor:
    """Give `extent` (batch,) bands from a place (batch,) in [0, 1] on their mean over the sound, which says nothing."""
    columns = heard(images)[:, None, None].to(images.dtype)  # (batch, 1, 1, width)
    mean = (images * columns).sum(3, keepdim=True) / columns.sum(3, keepdim=True).clamp(min=1)
    return torch.where(_hit(images.shape[2], extent, place)[:, None, :, None], mean * columns, images)


def _hit(size: int, extent: Tensor, place: Tensor) -> Tensor:
    """(batch, size) bool: `extent` neighbours from a place on."""
    index = torch.arange(size, device=extent.device)
    first = place[:, None] * (size - extent[:, None])
    return (index >= first) & (index < first + extent[:, None].floor())
