"""What is done to images anew each time they are trained on, on the images themselves: cheap, on any device."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vervet.config import Online
from vervet.models.patches import heard

DECADES = 8.0  # powers of ten between 0 and 1 of an image: 80 dB


def disturb(images: Tensor, settings: Online, generator: torch.Generator) -> Tensor:
    """Stretch, warp, colour, add noise to and mask images; each has its own draw.

    Parameters
    ----------
    images : Tensor
        (batch, 1, n_mels, width) float32 in [0, 1]; black columns at the end are padding and stay so.
    settings : Online
        How much of each. Where all are 0 the images come back as they are.
    generator : torch.Generator
        On the CPU; decides every draw.

    Returns
    -------
    Tensor
        The same shape, in [0, 1].
    """
    device = images.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(len(images), *shape, generator=generator)).to(device)

    if settings.stretch or settings.warp:
        time = uniform(-settings.stretch, settings.stretch).exp()
        images = _resample(images, time, uniform(-settings.warp, settings.warp).exp())
    columns = heard(images)[:, None, None]  # (batch, 1, 1, width)
    if settings.colour_db:
        images = images + _curve(uniform(-1, 1, 6), images.shape[2]) * (settings.colour_db / (10 * DECADES))
    if settings.noise:
        level = uniform(-60, -20, 1, 1, 1) / (10 * DECADES) + 1 + 0.1 * _curve(uniform(-1, 1, 4), images.shape[2])
        floor = level + 0.02 * torch.randn(images.shape, generator=generator).to(device)
        noisy = torch.logaddexp2(images * _BITS, floor * _BITS) / _BITS  # powers add
        images = torch.where(uniform(0, 1, 1, 1, 1) < settings.noise, noisy, images)
    if settings.colour_db or settings.noise:
        images = images - (images * columns).amax(dim=(2, 3), keepdim=True) + 1  # the loudest point is 1 again
        images = images.clamp(0, 1) * columns
    for _ in range(2):
        images = _black(images, uniform(0, settings.time_mask), uniform(0, 1), -1)
        images = _black(images, uniform(0, settings.band_mask), uniform(0, 1), -2)
    return images


_BITS = DECADES * math.log2(10)  # powers of two between 0 and 1 of an image


def mix(
    images: Tensor, shares: Tensor, settings: Online, generator: torch.Generator, targets: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mixup: each image with another of the batch, its emotions and its teacher's feature likewise.

    Parameters
    ----------
    images : Tensor
        (batch, 1, n_mels, width).
    shares : Tensor
        (batch, classes) float32, how much of each emotion; rows sum to 1.
    settings : Online
        `mixup` is the parameter of the Beta distribution.
    generator : torch.Generator
        On the CPU.
    targets : Tensor, optional
        (batch, embed_dim).

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
    order = torch.randperm(len(images), generator=generator).to(images.device)
    rng = np.random.default_rng(int(torch.randint(1 << 62, (), generator=generator)))
    drawn = torch.from_numpy(rng.beta(settings.mixup, settings.mixup, len(images))).float()
    share = torch.maximum(drawn, 1 - drawn).to(images.device)  # the image itself counts more than its guest

    def blend(values: Tensor) -> Tensor:
        weight = share.reshape(-1, *[1] * (values.dim() - 1))
        return weight * values + (1 - weight) * values[order]

    return blend(images), blend(shares), None if targets is None else blend(targets)


def _resample(images: Tensor, time: Tensor, band: Tensor) -> Tensor:
    """Scale time from its first column on, and frequency from its lowest band on; what is shifted in is black."""
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) + 0.5
    columns = torch.arange(width, device=images.device) + 0.5
    y = (rows / band[:, None]).clamp(max=height - 0.5) / height * 2 - 1  # above the highest band: the highest
    x = columns / time[:, None] / width * 2 - 1
    size = (len(images), height, width)
    grid = torch.stack([x[:, None, :].expand(size), y[:, :, None].expand(size)], dim=-1)
    moved = F.grid_sample(images, grid, align_corners=False)
    # A column half of which is padding would be half as loud: it is taken for padding.
    whole = F.grid_sample(heard(images)[:, None, None].float().expand_as(images), grid, align_corners=False)
    return moved * (whole > 0.99)


def _curve(points: Tensor, height: int) -> Tensor:
    """(batch, points) -> a smooth curve over the bands through them, (batch, 1, height, 1)."""
    return F.interpolate(points[:, None], size=height, mode="linear", align_corners=True)[..., None]


def _black(images: Tensor, extent: Tensor, place: Tensor, dim: int) -> Tensor:
    """Blacken `extent` (batch,) rows or columns from a place (batch,) in [0, 1] on."""
    size = images.shape[dim]
    index = torch.arange(size, device=images.device)
    first = place[:, None] * (size - extent[:, None])
    hit = (index >= first) & (index < first + extent[:, None].floor())  # (batch, size)
    hit = hit[:, None, None, :] if dim == -1 else hit[:, None, :, None]
    return images.masked_fill(hit, 0)
