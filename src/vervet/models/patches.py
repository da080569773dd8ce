"""From an image to tokens: coordinate planes, patches and where a patch stands."""

import math

import torch
from torch import Tensor, nn


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
    """

    def __init__(self, channels: int, patch: tuple[int, int], embed_dim: int):
        super().__init__()
        self.patch = patch
        patch_dim = channels * patch[0] * patch[1]
        self.norm = nn.LayerNorm(patch_dim)
        self.project = nn.Linear(patch_dim, embed_dim)
        self.norm_out = nn.LayerNorm(embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, patches, embed_dim), patches row by row."""
        batch, channels, height, width = images.shape
        ph, pw = self.patch
        x = images.reshape(batch, channels, height // ph, ph, width // pw, pw)
        x = x.permute(0, 2, 4, 3, 5, 1)  # (batch, rows, columns, ph, pw, channels)
        x = x.reshape(batch, (height // ph) * (width // pw), ph * pw * channels)
        return self.norm_out(self.project(self.norm(x)))
