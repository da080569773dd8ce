"""Convolutions before the image is cut into patches: the teacher's stem, and one that makes the image smaller."""

from contextlib import nullcontext
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvStem(nn.Module):
    """3x3 convolutions at full resolution, each followed by InstanceNorm (not affine) and GELU.

    Parameters
    ----------
    channels : tuple of int
        Channels between the one-channel input and the one-channel output, e.g. (16, 32, 64, 32, 16).

    Notes
    -----
    Kim & Lee (IEEE Access 2024). The last layer, of one channel, is normalised and activated like the others.
    """

    def __init__(self, channels: tuple[int, ...]):
        super().__init__()
        widths = (1, *channels, 1)
        self.convs = nn.ModuleList(nn.Conv2d(c_in, c_out, kernel_size=3, padding=1) for c_in, c_out in pairwise(widths))

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 1, height, width) -> the same shape."""
        if images.is_cuda or torch.compiler.is_compiling():
            return self._together(images)
        return torch.cat([self._alone(image) for image in images.split(1)])

    def _together(self, images: Tensor) -> Tensor:
        """InstanceNorm as GroupNorm with one channel per group.

        On a GPU, whose memory is the limit, what lies between convolutions stays in their precision under autocast.
        """
        for conv in self.convs:
            images = conv(images)
            with torch.autocast("cuda", enabled=False) if images.is_cuda else nullcontext():
                images = F.gelu(F.group_norm(images, num_groups=images.shape[1]))
        return images

    def _alone(self, image: Tensor) -> Tensor:
        """InstanceNorm as BatchNorm over a batch of one: the same numbers again.

        On a CPU this allows channels last, which its convolutions prefer, and what one image needs stays in the cache.
        `benchmarks/training_cost.py` measures what that is worth.
        """
        image = image.contiguous(memory_format=torch.channels_last)
        for conv in self.convs:
            image = conv(image)
            image = F.gelu(F.batch_norm(image, None, None, training=True))
        return image


class Reduce(nn.Module):
    """3x3 convolutions with stride, each followed by BatchNorm and GELU: fewer bands and columns, more channels.

    What it finds in one place of the spectrum it finds in another, which a patch of all bands has to learn anew for
    every voice. Each layer halves the bands; the first two halve the columns as well.

    Parameters
    ----------
    channels_in : int
        Channels of the image.
    channels : tuple of int
        Channels after each layer, e.g. (16, 32, 64, 64): 128 x 251 pixels become 8 x 63 of 64 channels.

    Attributes
    ----------
    frozen : bool
        Whether the BatchNorms normalise by what they know in training too. Of an exported model that is folded into the
        convolutions: statistics of a batch would undo it.
    momentum : float
        The share of a batch in the BatchNorms' running statistics.
    """

    frozen = False
    momentum = 0.1

    def __init__(self, channels_in: int, channels: tuple[int, ...]):
        super().__init__()
        widths = (channels_in, *channels)
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, c_out, kernel_size=3, stride=(2, 2 if i < 2 else 1), padding=1, bias=False)
            for i, (c_in, c_out) in enumerate(pairwise(widths))
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(c_out) for c_out in channels)

    def forward(self, images: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Make images smaller.

        Parameters
        ----------
        images : Tensor
            (batch, channels_in, height, width).
        columns : Tensor
            (batch, width) bool, those with sound; the others are black and stay so.

        Returns
        -------
        tuple of Tensor
            (batch, channels, reduced height, reduced width), and which of its columns hold sound.
        """
        images = images.contiguous(memory_format=torch.channels_last)
        sound = columns[:, None].to(images.dtype)  # (batch, 1, width)
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            images = conv(images)
            if number < 2:  # a column holds sound if one of the two that it stands for does
                sound = F.max_pool1d(F.pad(sound, (0, 1)), kernel_size=2)
            weight = sound[:, :, None].to(images.dtype)  # (batch, 1, 1, width)
            assert isinstance(norm, nn.BatchNorm2d)
            images = _normalised(images, weight, norm, self.momentum) if norm.training else norm(images)
            images = F.gelu(images) * weight
        return images, sound[:, 0] > 0

    def train(self, mode: bool = True) -> Self:
        """As of any module, but frozen BatchNorms stay as they are."""
        super().train(mode)
        if self.frozen:
            self.norms.eval()
        return self

    @torch.no_grad()
    def fold(self) -> None:
        """Put what the BatchNorms have learnt into the convolutions: the same answers, and one step less."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            conv.weight.mul_(scale[:, None, None, None])
            norm.bias.sub_(norm.running_mean * scale)
            norm.weight.fill_(1)
            norm.running_mean.fill_(0)
            norm.running_var.fill_(1 - norm.eps)


def _normalised(images: Tensor, weight: Tensor, norm: nn.BatchNorm2d, momentum: float) -> Tensor:
    """BatchNorm in training, over the columns that hold sound.

    Padding would change what is normalised by from batch to batch, with how long the clips in it happen to be, which a
    network learns from and does not meet when it is used.

    Parameters
    ----------
    images : Tensor
        (batch, channels, height, width).
    weight : Tensor
        (batch, 1, 1, width), 1 where there is sound, else 0.
    norm : nn.BatchNorm2d
        Its running statistics are moved.
    momentum : float
        How far.

    Returns
    -------
    Tensor
        Of the shape and dtype of `images`.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    values = (images * weight).permute(0, 2, 3, 1).flatten(0, 2).float()  # (pixels, channels), 0 where there is padding
    count = (weight.float().sum() * images.shape[2]).clamp(min=1)
    mean = values.sum(0) / count
    var = ((values * values).sum(0) / count - mean * mean).clamp(min=0)
    with torch.no_grad():
        norm.running_mean.lerp_(mean, momentum)
        norm.running_var.lerp_(var, momentum)
    scale = norm.weight * (var + norm.eps).rsqrt()
    shift = norm.bias - mean * scale
    return torch.addcmul(shift[:, None, None].to(images.dtype), images, scale[:, None, None].to(images.dtype))
