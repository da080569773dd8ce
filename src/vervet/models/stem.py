"""The teacher's convolutional stem: local time-frequency texture before the image is cut into patches."""

from itertools import pairwise

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
        """InstanceNorm as GroupNorm with one channel per group."""
        for conv in self.convs:
            images = conv(images)
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
