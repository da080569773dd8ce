"""Functionals of a recording: statistics over time of what its spectrogram looks like, and a linear head on them.

A network that sees every column has to learn from hundreds of clips what matters in them. Means, spreads and
percentiles of a few dozen descriptors are few enough for a linear model, and a speaker's other recordings say which of
them are the speaker's own.

Descriptors and functionals are of the kind that Eyben et al. ("openSMILE", ACM Multimedia 2010) collect, made from the
log-Mel spectrogram alone; taking from them the speaker's mean and deviation follows Busso et al. ("Iterative feature
normalization scheme for automatic emotion detection from speech", IEEE TAC 2013), without its choice of neutral clips.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CEPSTRA, BANDS = 25, 32
LOWER = (1 / 8, 1 / 4, 1 / 2, 3 / 4)  # shares of the bands
DESCRIPTORS = CEPSTRA + BANDS + len(LOWER) + 7
MOMENTS, PERCENTILES = 7, (1, 10, 25, 50, 75, 90, 99)
FUNCTIONALS = DESCRIPTORS * (2 * MOMENTS + len(PERCENTILES)) + 1
RIPPLE = 9  # bands; what rises above the mean of these is a harmonic
OUTLIER = 4.0  # deviations
SHRINK_MEAN, SHRINK_DEVIATION = 3.0, 5.0  # so many clips of nobody in particular count beside a speaker's own
SHARE_STRANGER, SHARE_KNOWN = 0.4, 0.6  # of this head in the answer, and how that grows with what is known of a speaker


def descriptors(images: Tensor, columns: Tensor, bels: Tensor) -> Tensor:
    """Describe every column of a spectrogram, whatever its level.

    Parameters
    ----------
    images : Tensor
        (batch, 1, height, width) float32 in [0, 1].
    columns : Tensor
        (batch, width) bool, those with sound.
    bels : Tensor
        A scalar, the range of the images in tens of decibels.

    Returns
    -------
    Tensor
        (batch, 68, width): 25 cepstra; 32 bands; logarithm, centroid, spread and entropy of the power over the bands;
        how much of it, as a logarithm, lies in the lowest eighth, quarter, half and three quarters of the bands; the
        change since the column before; and how far single bands stick out of their neighbours, in the lower and the
        upper half.
    """
    x, height = images[:, 0] * bels, images.shape[2]
    sound = columns[:, None].to(x.dtype)  # (batch, 1, width)
    x = x - (x * sound).sum((1, 2), keepdim=True) / (height * sound.sum((1, 2), keepdim=True)).clamp(min=1)
    linear = (_linear(height).to(x) @ x).split([CEPSTRA, BANDS, height], dim=1)
    cepstra, bands, smooth = linear
    power = (x * math.log(10)).exp()
    total, first, second, lower = (_weights(height).to(x) @ power).split([1, 1, 1, len(LOWER)], dim=1)
    centroid = first / total
    spread = ((second / total - centroid.square()).clamp(min=0) + 1e-6).sqrt()
    entropy = total.log10() - (power * x).sum(1, keepdim=True) / total
    change = (x - _before(x)).abs().mean(1, keepdim=True)
    ripple = [(part.mean(1, keepdim=True) + 1e-6).sqrt() for part in (x - smooth).square().chunk(2, dim=1)]
    shares = (lower / total + 1e-6).log10()
    return torch.cat([cepstra, bands, total.log10(), centroid, spread, entropy, shares, change, *ripple], dim=1)


def functionals(images: Tensor, columns: Tensor, bels: Tensor) -> Tensor:
    """Sum up a recording.

    Parameters
    ----------
    images, columns, bels : Tensor
        As for `descriptors`.

    Returns
    -------
    Tensor
        (batch, 1429) float32. Of each descriptor and of its change from column to column: mean, deviation, skewness,
        kurtosis, slope, mean change, how often it crosses its mean. Of each descriptor the percentiles 1, 10, 25, 50,
        75, 90, 99, from every second column. Last, the logarithm of the number of columns.
    """
    found = descriptors(images.float(), columns, bels)
    sound = columns[:, None].to(found.dtype)  # (batch, 1, width)
    both = sound * _before(sound)
    changes = (found - _before(found)) * both
    length = sound.sum(-1).clamp(min=1).log()
    moments = _moments(torch.cat([found, changes], dim=1), sound, both)
    return torch.cat([*moments, *_percentiles(found[..., ::2], columns[:, ::2]), length], dim=1)


class FunctionalsHead(nn.Module):
    """A linear head on the functionals, standardised by the training clips and then by the speaker's.

    Parameters
    ----------
    classes : int
        Number of emotions.

    Attributes
    ----------
    bels : Tensor
        A scalar, the range of the images in tens of decibels.
    mean, deviation : Tensor
        (1429,), of the training clips.
    """

    bels: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, classes: int):
        super().__init__()
        self.register_buffer("bels", torch.tensor(1.0))
        self.register_buffer("mean", torch.zeros(FUNCTIONALS))
        self.register_buffer("deviation", torch.ones(FUNCTIONALS))
        self.linear = nn.Linear(FUNCTIONALS, classes)

    def standardised(self, images: Tensor, columns: Tensor) -> Tensor:
        """(batch, 1, height, width) in [0, 1], (batch, width) bool -> (batch, 1429), in deviations, outliers cut."""
        return self.scaled(functionals(images, columns, self.bels))

    def scaled(self, found: Tensor) -> Tensor:
        """Functionals (batch, 1429) in deviations of the training clips, outliers cut."""
        return ((found - self.mean) / self.deviation).clamp(-OUTLIER, OUTLIER)

    def forward(self, standardised: Tensor, speaker: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Read functionals.

        Parameters
        ----------
        standardised : Tensor
            (batch, 1429).
        speaker : Tensor, optional
            (batch, 3, 1429), the sum of the `clip_statistics` of other clips by the speaker.

        Returns
        -------
        tuple of Tensor
            Logits (batch, classes), and their share in the answer, (batch, 1): the more clips are known, the larger;
            the further the functionals lie from what is usual, the smaller.
        """
        share: Tensor | float = SHARE_STRANGER
        if speaker is not None:
            count = speaker[:, 2, :1]
            share = share + (SHARE_KNOWN - SHARE_STRANGER) * count / (count + SHRINK_MEAN)
        own = adapt(standardised, speaker)
        return self.linear(own), share / excess(own)


def clip_statistics(standardised: Tensor) -> Tensor:
    """(batch, 1429) -> (batch, 3, 1429): itself, its square and one clip. The sums of several clips may be added."""
    return torch.stack([standardised, standardised.square(), torch.ones_like(standardised)], dim=1)


def adapt(standardised: Tensor, speaker: Tensor | None) -> Tensor:
    """Take from the functionals of clips the mean and the deviation of other clips of their speakers.

    Parameters
    ----------
    standardised : Tensor
        (batch, 1429).
    speaker : Tensor or None
        (batch, 3, 1429), the sum of the `clip_statistics` of other clips; 0 or None where nothing is known.

    Returns
    -------
    Tensor
        (batch, 1429). The fewer clips are known, the nearer mean and deviation are to 0 and 1.
    """
    if speaker is None:
        return standardised
    total, squares, count = speaker.unbind(1)
    mean = total / (count + SHRINK_MEAN)
    apart = (squares - 2 * mean * total + count * mean.square()).clamp(min=0)
    return (standardised - mean) * ((count + SHRINK_DEVIATION) / (apart + SHRINK_DEVIATION)).sqrt()


def excess(own: Tensor) -> Tensor:
    """(batch, 1429), adapted -> (batch, 1), the mean square, 1 where it is smaller. That of training clips is about 1.

    Of recordings unlike those of training a linear head would be all too sure.
    """
    return own.square().mean(1, keepdim=True).clamp(min=1)


def _before(x: Tensor) -> Tensor:
    """(batch, rows, width) -> each column's predecessor; the first has 0."""
    return F.pad(x[..., :-1], (1, 0))


def _linear(height: int) -> Tensor:
    """(185, height): cosine transform (its output has the size of its input), means of neighbours, running means."""
    band = torch.arange(height)
    angle = torch.arange(CEPSTRA)[:, None] * (band + 0.5) * (math.pi / height)
    cosines = angle.cos() * (2 / height)
    means = (band // (height // BANDS) == torch.arange(BANDS)[:, None]) * (BANDS / height)
    near = ((band - band[:, None]).abs() <= RIPPLE // 2).float()
    return torch.cat([cosines, means, near / near.sum(1, keepdim=True)])


def _weights(height: int) -> Tensor:
    """(7, height): what powers are summed with."""
    band = torch.linspace(0, 1, height)
    return torch.stack([torch.ones(height), band, band.square(), *((band < share).float() for share in LOWER)])


def _moments(x: Tensor, sound: Tensor, both: Tensor) -> list[Tensor]:
    """(batch, rows, width), what counts (batch, 1, width), what of that follows such -> seven times (batch, rows)."""
    count = sound.sum(-1).clamp(min=1)  # (batch, 1)
    mean = (x * sound).sum(-1) / count
    centred = (x - mean[..., None]) * sound
    deviation = (centred.square().sum(-1) / count + 1e-6).sqrt()
    scaled = centred / deviation[..., None]
    place = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype)
    middle = (place * sound).sum(-1, keepdim=True) / count[..., None]
    time = (place - middle) / count[..., None] * sound  # (batch, 1, width), in lengths of the recording
    slope = (centred * time).sum(-1) / time.square().sum(-1).clamp(min=1e-3)
    change = ((x - _before(x)).abs() * both).sum(-1) / count
    side = F.softsign(10 * scaled)
    crossing = ((side - _before(side)).abs() * both).sum(-1) / count
    cubed = scaled * scaled.square()
    return [mean, deviation, cubed.sum(-1) / count, (cubed * scaled).sum(-1) / count, slope, change, crossing]


def _percentiles(x: Tensor, columns: Tensor) -> list[Tensor]:
    """(batch, rows, width) over the columns that count -> for each of `PERCENTILES` (batch, rows)."""
    last = (columns.sum(1).clamp(min=1) - 1).to(x.dtype)  # (batch,)
    places = last[:, None] * (torch.tensor(PERCENTILES, device=x.device) / 100)  # (batch, percentiles)
    low = places.floor()
    high = torch.minimum(low + 1, last[:, None])
    ordered = torch.where(columns[:, None], x, torch.full_like(x, 1e4)).sort(dim=-1).values
    lower, upper = (ordered.gather(-1, i.long()[:, None].expand(-1, x.shape[1], -1)) for i in (low, high))
    found = lower + (upper - lower) * (places - low)[:, None]  # (batch, rows, percentiles)
    return list(found.unbind(-1))
