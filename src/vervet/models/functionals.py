"""Functionals of a recording: statistics over time of what its spectrogram looks like, and a linear head on them.

A network that sees every column has to learn from hundreds of clips what matters in them. Means, spreads and
percentiles of a few dozen descriptors are few enough for a linear model, and a speaker's other recordings say which of
them are the speaker's own. Columns with a pitch and columns without are summed up apart, too, so that how a voice
sounds is told from how much of the recording is voice.

Descriptors and functionals are of the kind that Eyben et al. ("openSMILE", ACM Multimedia 2010) collect, made from the
log-Mel spectrogram alone; taking from them the speaker's mean and deviation follows Busso et al. ("Iterative feature
normalization scheme for automatic emotion detection from speech", IEEE TAC 2013), without its choice of neutral clips.
Pitch is where a comb of harmonics fits best: a cosine over frequency, as Camacho and Harris have it ("A sawtooth
waveform inspired pitch estimator for speech and music", JASA 2008), so that half and twice the pitch fit less.
"""

import math
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vervet.config import FrontEnd, Vit
from vervet.spectrogram import mel_centres

CEPSTRA, BANDS = 25, 32
LOWER = (1 / 8, 1 / 4, 1 / 2, 3 / 4)  # shares of the bands
DESCRIPTORS = CEPSTRA + BANDS + len(LOWER) + 9
MOMENTS, PERCENTILES = 7, (1, 10, 25, 50, 75, 90, 99)
SETS = 3  # of columns: all with sound, those with a pitch, those without
FUNCTIONALS = DESCRIPTORS * (2 * MOMENTS * SETS + len(PERCENTILES)) + 2
RIPPLE = 9  # bands; what rises above the mean of these is a harmonic
PITCHES, LOWEST_HZ, HIGHEST_HZ = 56, 65.0, 500.0
COMB_HZ = 1300.0  # above it harmonics are too close for the bands
COMB_RIPPLE = 41  # bands, as RIPPLE, for harmonics as far apart as a high voice has them
COMB_COLUMNS = 5  # over which the fit of a comb is averaged
COMB_BELS = 5.0  # below the loudest point; what lies deeper does not count
SURE = 2.5  # how sharply the better of two combs is preferred, per bel
VOICED = 1.5  # bels by which a comb must fit for the column to have a pitch
OUTLIER = 4.0  # deviations
SHRINK_MEAN, SHRINK_DEVIATION = 3.0, 5.0  # so many clips of nobody in particular count beside a speaker's own
SHARE_KNOWN = 0.6  # of this head in the answer about somebody who is well known, if that is more than about a stranger


def combs(config: FrontEnd) -> Tensor:
    """What the bands are multiplied by to tell how well harmonics of each pitch fit.

    Parameters
    ----------
    config : FrontEnd
        Number and places of the bands.

    Returns
    -------
    Tensor
        (56, bands) float32, for pitches from 65 to 500 Hz, evenly spaced as logarithms: a cosine over frequency with a
        period of the pitch, from half of it to 1300 Hz, ever smaller. The running mean over the bands is taken out.
    """
    hertz = mel_centres(config.n_mels, config.band_hz).double()
    found = []
    for pitch in _pitches().double().exp():
        weight = (-hertz / 1000).exp() * ((hertz > pitch / 2) & (hertz < COMB_HZ))
        comb = torch.cos(2 * math.pi * hertz / pitch)
        comb = (comb - (comb * weight).sum() / weight.sum().clamp(min=1e-9)) * weight
        found.append(comb / comb.norm().clamp(min=1e-9))
    near = torch.arange(-(COMB_RIPPLE // 2), COMB_RIPPLE // 2 + 1) + torch.arange(config.n_mels)[:, None]
    mean = torch.zeros(config.n_mels, config.n_mels, dtype=torch.float64)  # at the edges the last band is repeated
    mean.scatter_add_(1, near.clamp(0, config.n_mels - 1), torch.full(near.shape, 1 / COMB_RIPPLE, dtype=torch.float64))
    fit = torch.stack(found)
    return (fit - fit @ mean).float()


def descriptors(images: Tensor, columns: Tensor, bels: Tensor, comb: Tensor) -> Tensor:
    """Describe every column of a spectrogram, whatever its level.

    Parameters
    ----------
    images : Tensor
        (batch, 1, height, width) float32 in [0, 1].
    columns : Tensor
        (batch, width) bool, those with sound.
    bels : Tensor
        A scalar, the range of the images in tens of decibels.
    comb : Tensor
        (56, height), see `combs`.

    Returns
    -------
    Tensor
        (batch, 70, width): 25 cepstra; 32 bands; logarithm, centroid, spread and entropy of the power over the bands;
        how much of it, as a logarithm, lies in the lowest eighth, quarter, half and three quarters of the bands; the
        change since the column before; how far single bands stick out of their neighbours, in the lower and the upper
        half; the pitch, as a natural logarithm of Hz; and how well its harmonics fit, in bels.
    """
    x, height = images[:, 0] * bels, images.shape[2]
    fit = comb @ torch.maximum(x, x.amax((1, 2), keepdim=True) - COMB_BELS)  # (batch, 56, width)
    near = F.pad(fit, (COMB_COLUMNS // 2, COMB_COLUMNS // 2))
    fit = reduce(torch.add, [near[..., i : i + fit.shape[-1]] for i in range(COMB_COLUMNS)]) / COMB_COLUMNS
    pitch = _pitches().to(x) @ (fit * SURE).softmax(1)  # (batch, width)
    sound = columns[:, None].to(x.dtype)  # (batch, 1, width)
    x = x - (x * sound).sum((1, 2), keepdim=True) / (height * sound.sum((1, 2), keepdim=True)).clamp(min=1)
    linear = (_linear(height).to(x) @ x).split([CEPSTRA, BANDS, height], dim=1)
    cepstra, bands, smooth = linear
    power = (x * math.log(10)).exp()
    total, first, second, lower = (_weights(height).to(x) @ power).split([1, 1, 1, len(LOWER)], dim=1)
    centroid = first / total
    spread = ((second / total - _square(centroid)).clamp(min=0) + 1e-6).sqrt()
    entropy = total.log10() - (power * x).sum(1, keepdim=True) / total
    change = (x - _before(x)).abs().mean(1, keepdim=True)
    ripple = [(part.mean(1, keepdim=True) + 1e-6).sqrt() for part in _square(x - smooth).chunk(2, dim=1)]
    shares = (lower / total + 1e-6).log10()
    harmonic = [pitch[:, None], fit.amax(1, keepdim=True)]
    return torch.cat(
        [cepstra, bands, total.log10(), centroid, spread, entropy, shares, change, *ripple, *harmonic], dim=1
    )


def functionals(images: Tensor, columns: Tensor, bels: Tensor, comb: Tensor) -> Tensor:
    """Sum up a recording.

    Parameters
    ----------
    images, columns, bels, comb : Tensor
        As for `descriptors`.

    Returns
    -------
    Tensor
        (batch, 3432) float32. For each of three sets of columns, all with sound, those of them with a pitch, those
        without, of each descriptor and of its change from column to column: mean, deviation, skewness, kurtosis, slope,
        mean change, how often it crosses its mean. A set without columns is taken to be the first. Of each descriptor
        the percentiles 1, 10, 25, 50, 75, 90, 99, from every second column with sound. Last, the share of columns with
        a pitch, and the logarithm of the number of columns.
    """
    found = descriptors(images.float(), columns, bels, comb)
    sound = columns[:, None].to(found.dtype)  # (batch, 1, width)
    voiced = sound * (found[:, -1:] > VOICED).to(found.dtype)
    sets = torch.cat([sound, voiced, sound - voiced], dim=1)  # (batch, 3, width)
    sets = torch.where(sets.amax(-1, keepdim=True) > 0, sets, sound)
    changes = (found - _before(found)) * (sound * _before(sound))
    moments = _moments(torch.cat([found, changes], dim=1), sets)
    share = voiced.sum(-1) / sound.sum(-1).clamp(min=1)
    length = sound.sum(-1).clamp(min=1).log()
    return torch.cat([moments, _percentiles(found[..., ::2], columns[:, ::2]), share, length], dim=1)


class FunctionalsHead(nn.Module):
    """A linear head on the functionals, standardised by the training clips and then by the speaker's.

    Parameters
    ----------
    classes : int
        Number of emotions.
    height : int
        Number of bands of the images.
    stranger : float, optional
        Its share in the answer about somebody of whom nothing is known.

    Attributes
    ----------
    bels : Tensor
        A scalar, the range of the images in tens of decibels.
    comb : Tensor
        (56, height), see `combs`.
    mean, deviation : Tensor
        (3432,), of the training clips.
    """

    bels: Tensor
    comb: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, classes: int, height: int, stranger: float = Vit.share):
        super().__init__()
        self.stranger = stranger
        self.register_buffer("bels", torch.tensor(1.0))
        self.register_buffer("comb", torch.zeros(PITCHES, height))
        self.register_buffer("mean", torch.zeros(FUNCTIONALS))
        self.register_buffer("deviation", torch.ones(FUNCTIONALS))
        self.linear = nn.Linear(FUNCTIONALS, classes)

    def read(self, config: FrontEnd) -> None:
        """Set what depends on how images are made, `bels` and `comb`."""
        self.bels.fill_(config.range_db / 10)
        self.comb.copy_(combs(config))

    def summed(self, images: Tensor, columns: Tensor) -> Tensor:
        """The functionals: (batch, 1, height, width) in [0, 1], (batch, width) bool -> (batch, 3432)."""
        return functionals(images, columns, self.bels, self.comb)

    def standardised(self, images: Tensor, columns: Tensor) -> Tensor:
        """(batch, 1, height, width) in [0, 1], (batch, width) bool -> (batch, 3432), in deviations, outliers cut."""
        return self.scaled(self.summed(images, columns))

    def scaled(self, found: Tensor) -> Tensor:
        """Functionals (batch, 3432) in deviations of the training clips, outliers cut."""
        return ((found - self.mean) / self.deviation).clamp(-OUTLIER, OUTLIER)

    def forward(self, standardised: Tensor, speaker: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Read functionals.

        Parameters
        ----------
        standardised : Tensor
            (batch, 3432).
        speaker : Tensor, optional
            (batch, 3, 3432), the sum of the `clip_statistics` of other clips by the speaker.

        Returns
        -------
        tuple of Tensor
            Logits (batch, classes), and their share in the answer, (batch, 1): the more clips are known, the larger;
            the further the functionals lie from what is usual, the smaller.
        """
        share: Tensor | float = self.stranger
        if speaker is not None:
            count = speaker[:, 2, :1]
            share = share + max(0.0, SHARE_KNOWN - self.stranger) * count / (count + SHRINK_MEAN)
        own = adapt(standardised, speaker)
        return self.linear(own), share / excess(own)


def clip_statistics(standardised: Tensor) -> Tensor:
    """(batch, 3432) -> (batch, 3, 3432): itself, its square and one clip. The sums of several clips may be added."""
    return torch.stack([standardised, standardised.square(), torch.ones_like(standardised)], dim=1)


def adapt(standardised: Tensor, speaker: Tensor | None) -> Tensor:
    """Take from the functionals of clips the mean and the deviation of other clips of their speakers.

    Parameters
    ----------
    standardised : Tensor
        (batch, 3432).
    speaker : Tensor or None
        (batch, 3, 3432), the sum of the `clip_statistics` of other clips; 0 or None where nothing is known.

    Returns
    -------
    Tensor
        (batch, 3432). The fewer clips are known, the nearer mean and deviation are to 0 and 1.
    """
    if speaker is None:
        return standardised
    total, squares, count = speaker.unbind(1)
    mean = total / (count + SHRINK_MEAN)
    apart = (squares - 2 * mean * total + count * mean.square()).clamp(min=0)
    return (standardised - mean) * ((count + SHRINK_DEVIATION) / (apart + SHRINK_DEVIATION)).sqrt()


def excess(own: Tensor) -> Tensor:
    """(batch, 3432), adapted -> (batch, 1), the mean square, 1 where it is smaller. That of training clips is about 1.

    Of recordings unlike those of training a linear head would be all too sure.
    """
    return _square(own).mean(1, keepdim=True).clamp(min=1)


def _pitches() -> Tensor:
    """(56,) float32, as natural logarithms of Hz."""
    return torch.linspace(math.log(LOWEST_HZ), math.log(HIGHEST_HZ), PITCHES)


def _square(x: Tensor) -> Tensor:
    """As `Tensor.square`, which ONNX would take for a power with any exponent."""
    return x * x


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


def _moments(x: Tensor, sets: Tensor) -> Tensor:
    """(batch, rows, width), which columns are in each set (batch, sets, width) -> (batch, sets * 7 * rows).

    Sums of powers, from which the moments of all sets follow, are one product with the sets. They are taken about the
    mean of the first set, and in its deviations, so that nothing is lost when others are taken from them.
    """
    first = sets[:, :1]  # (batch, 1, width)
    counts = sets.sum(-1).clamp(min=1)  # (batch, sets)
    middle = (x * first).sum(-1, keepdim=True) / counts[:, :1, None]
    centred = (x - middle) * first
    scale = (_square(centred).sum(-1, keepdim=True) / counts[:, :1, None] + 1e-6).sqrt()  # (batch, rows, 1)
    z = centred / scale
    pairs = sets * _before(sets)  # columns whose predecessor is in the set as well
    jump = (x - _before(x)).abs()
    side = F.softsign(10 * z)
    crossing = (side - _before(side)).abs()
    place = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype)
    time = (place - (place * sets).sum(-1, keepdim=True) / counts[..., None]) / counts[..., None] * sets
    share = sets / counts[..., None]
    # from here on (batch, rows, sets)
    mean, second, third, fourth = (power @ share.mT for power in (z, z * z, z * z * z, z * z * z * z))
    slope = z @ (time / _square(time).sum(-1, keepdim=True).clamp(min=1e-3)).mT  # time is in lengths of the set
    jumps, crossings = jump @ (pairs / counts[..., None]).mT, crossing @ (pairs / counts[..., None]).mT
    square = _square(mean)
    variance = (second - square).clamp(min=0)
    skew = third - mean * (3 * second - 2 * square)
    kurtosis = fourth - mean * (4 * third - mean * (6 * second - 3 * square))
    most = variance.clamp(min=1e-2)  # where a set hardly varies, the rest is rounding
    found = [
        mean * scale + middle,
        (variance * _square(scale) + 1e-6).sqrt(),
        skew / (most * most.sqrt()),
        kurtosis / _square(most),
        slope * scale,
        jumps,
        crossings,
    ]
    return torch.stack(found, dim=-1).permute(0, 2, 3, 1).flatten(1)


def _percentiles(x: Tensor, columns: Tensor) -> Tensor:
    """(batch, rows, width), over columns that count -> (batch, percentiles * rows), see `PERCENTILES`; 0 of none."""
    count = columns.sum(1)  # (batch,)
    last = (count.clamp(min=1) - 1).to(x.dtype)
    beyond = 1e4 * count.clamp(max=1).to(x.dtype)
    places = last[:, None] * (torch.tensor(PERCENTILES, device=x.device) / 100)  # (batch, percentiles)
    low = places.floor()
    high = torch.minimum(low + 1, last[:, None])
    ordered = torch.where(columns[:, None], x, beyond[:, None, None]).sort(dim=-1).values
    lower, upper = (ordered.gather(-1, i.long()[:, None].expand(-1, x.shape[1], -1)) for i in (low, high))
    found = lower + (upper - lower) * (places - low)[:, None]  # (batch, rows, percentiles)
    return found.transpose(1, 2).flatten(1)
