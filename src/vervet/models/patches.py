"""From an image to tokens: coordinate planes, patches and where a patch stands."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def coordinate_planes(height: int, width: int) -> Tensor:
    """Image coordinate encoding (ICE): the x and y of every pixel as two planes.

    Parameters
    ----------
    height, width : int
        Size of the image in pixels; need not be equal.

    Returns
    -------
    Tensor
        (2, height, width) float32. Plane 0 is x, growing from -1 at the left edge to 1 at the right; plane 1 is y,
        from -1 at the top to 1 at the bottom. Corners are exactly -1 and 1.

    Notes
    -----
    CoordConv (Liu et al., NeurIPS 2018), as Kim & Lee (IEEE Access 2024) use it.
    """
    x = torch.linspace(-1, 1, width).expand(height, width)
    y = torch.linspace(-1, 1, height)[:, None].expand(height, width)
    return torch.stack([x, y])


def sinusoidal_positions(count: int, dim: int) -> Tensor:
    """Fixed sine and cosine positions.

    Parameters
    ----------
    count : int
        Number of positions.
    dim : int
        Even width of each position's vector.

    Returns
    -------
    Tensor
        (count, dim) float32 in [-1, 1]: sines in the first half of each row, cosines in the second.

    Notes
    -----
    Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.5.
    """
    frequency = torch.exp(torch.arange(dim // 2) * (-math.log(10_000.0) / (dim // 2)))
    angle = torch.arange(count)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def heard(images: Tensor) -> Tensor:
    """Which columns hold sound: (batch, 1, height, width) in [0, 1] -> (batch, width) bool; padding is black."""
    return images.amax(dim=(1, 2)) > 0


def statistics(images: Tensor, columns: Tensor) -> Tensor:
    """Sum what is needed for the mean and the deviation of each band; the sums of several clips may be added.

    Parameters
    ----------
    images : Tensor
        (batch, 1, height, width).
    columns : Tensor
        (batch, width) bool, those with sound; the others do not count.

    Returns
    -------
    Tensor
        (batch, 3, height): of each band the sum, the sum of squares and the number of columns.
    """
    weight = columns[:, None].to(images.dtype)  # (batch, 1, width)
    sound = images[:, 0] * weight  # (batch, height, width)
    total = sound.sum(-1)
    return torch.stack([total, sound.square().sum(-1), weight.sum(-1).expand_as(total)], dim=1)


def standardise(images: Tensor, columns: Tensor, deviation: bool, speaker: Tensor | None = None) -> Tensor:
    """Take from each band its mean over a clip's sound, and perhaps its deviation.

    Parameters
    ----------
    images : Tensor
        (batch, 1, height, width).
    columns : Tensor
        (batch, width) bool, those with sound; the others become 0.
    deviation : bool
        Whether to divide by the standard deviation as well.
    speaker : Tensor, optional
        (batch, 3, height), the `statistics` of other clips of the speaker: mean and deviation are over all of them.

    Returns
    -------
    Tensor
        (batch, 1, height, width).
    """
    known = statistics(images, columns)
    total, squares, count = (known if speaker is None else known + speaker).unbind(1)  # (batch, height) each
    count = count.clamp(min=1)
    mean = total / count
    weight = columns[:, None, None].to(images.dtype)  # (batch, 1, 1, width)
    centred = (images - mean[:, None, :, None]) * weight
    if not deviation:
        return centred
    spread = (squares / count - mean.square()).clamp(min=0).sqrt()
    return centred / (spread[:, None, :, None] + 0.01)  # a hundredth of the 80 dB: a band that is still stays still


class TimeConvs(nn.Module):
    """Depthwise convolutions over five columns, each added to its input: what changes within a tenth of a second.

    Parameters
    ----------
    count : int
        How many, one after the other.
    dim : int
        Width of a token.
    """

    WIDTH = 5  # columns

    def __init__(self, count: int, dim: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(count))
        self.convs = nn.ModuleList(
            nn.Conv1d(dim, dim, self.WIDTH, padding=self.WIDTH // 2, groups=dim) for _ in range(count)
        )

    def forward(self, x: Tensor, columns: Tensor) -> Tensor:
        """Tokens (batch, width, dim) and which of them are sound (batch, width) -> tokens; padding is seen as 0."""
        weight = columns[..., None].to(x.dtype)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            seen = (norm(x) * weight).transpose(1, 2)  # (batch, dim, width)
            x = x + F.gelu(conv(seen)).transpose(1, 2)
        return x


class PatchEmbedding(nn.Module):
    """Cut an image into patches and embed each: LayerNorm, Linear, LayerNorm.

    Parameters
    ----------
    channels : int
        Channels of the image, coordinate planes included.
    patch : tuple of int
        (height, width) of a patch in pixels. (128, 1) is the vertical patch: all frequencies of one instant.
    embed_dim : int
        Width of a token.
    norm : bool, optional
        Whether the pixels of a patch are normalised first, which takes away its mean and its scale.
    """

    def __init__(self, channels: int, patch: tuple[int, int], embed_dim: int, norm: bool = True):
        super().__init__()
        self.patch = patch
        patch_dim = channels * patch[0] * patch[1]
        self.norm = nn.LayerNorm(patch_dim) if norm else nn.Identity()
        self.project = nn.Linear(patch_dim, embed_dim)
        self.norm_out = nn.LayerNorm(embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, patches, embed_dim), patches row by row."""
        batch, channels, height, width = images.shape
        ph, pw = self.patch
        # In two steps, as ONNX Runtime does each of them fast and both at once slowly.
        x = images.flatten(2).transpose(1, 2).reshape(batch, height // ph, ph, width // pw, pw, channels)
        x = x.permute(0, 1, 3, 2, 4, 5)  # (batch, rows, columns, ph, pw, channels)
        x = x.reshape(batch, (height // ph) * (width // pw), ph * pw * channels)
        return self.norm_out(self.project(self.norm(x)))
