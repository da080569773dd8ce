"""The front end: a waveform becomes a log-Mel image. The same module trains, evaluates and is exported to ONNX."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vervet.config import FULL_SCALE_DB, FrontEnd

SLANEY_BREAK_HZ = 1000.0  # the Slaney Mel scale is linear below and logarithmic above
SLANEY_BREAK_MEL = 15.0
SLANEY_LOG_STEP = math.log(6.4) / 27.0
DB = 10 / math.log(10)  # decibels in a power e times as large


def hz_to_mel(hz: Tensor) -> Tensor:
    """Slaney's Mel scale: linear to 1 kHz, logarithmic above (Auditory Toolbox, 1998)."""
    log = SLANEY_BREAK_MEL + torch.log(hz.clamp(min=1e-3) / SLANEY_BREAK_HZ) / SLANEY_LOG_STEP
    return torch.where(hz < SLANEY_BREAK_HZ, hz * SLANEY_BREAK_MEL / SLANEY_BREAK_HZ, log)


def mel_to_hz(mel: Tensor) -> Tensor:
    """The inverse of `hz_to_mel`."""
    log = SLANEY_BREAK_HZ * torch.exp(SLANEY_LOG_STEP * (mel - SLANEY_BREAK_MEL))
    return torch.where(mel < SLANEY_BREAK_MEL, mel * SLANEY_BREAK_HZ / SLANEY_BREAK_MEL, log)


def mel_filters(sampling_rate: int, n_fft: int, n_mels: int, band_hz: tuple[float, float]) -> Tensor:
    """Triangular Mel filters of equal area (Slaney's normalisation).

    Parameters
    ----------
    sampling_rate : int
        In Hz.
    n_fft : int
        Length of the Fourier transform in samples.
    n_mels : int
        Number of bands, spaced evenly on the Mel scale.
    band_hz : tuple of float
        From where to where they reach, in Hz.

    Returns
    -------
    Tensor
        (n_fft // 2 + 1, n_mels) float32: power spectrum @ filters = Mel spectrum.
    """
    bins = torch.linspace(0, sampling_rate / 2, n_fft // 2 + 1, dtype=torch.float64)[:, None]  # (bins, 1)
    edges = _edges(n_mels, band_hz)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]  # (n_mels,) each
    triangle = torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp(min=0)
    return (triangle * 2 / (high - low)).float()


def mel_centres(n_mels: int, band_hz: tuple[float, float]) -> Tensor:
    """Where the Mel filters have their peaks, (n_mels,) float64 in Hz."""
    return _edges(n_mels, band_hz)[1:-1]


def _edges(n_mels: int, band_hz: tuple[float, float]) -> Tensor:
    lowest, highest = hz_to_mel(torch.tensor(band_hz, dtype=torch.float64)).tolist()
    return mel_to_hz(torch.linspace(lowest, highest, n_mels + 2, dtype=torch.float64))


def resize_matrix(frames: int, width: int, mode: str) -> Tensor:
    """Interpolation over time as one matrix, (frames, width) float32: log-Mel @ matrix = image."""
    impulses = torch.eye(frames)[None]  # each row, interpolated, is a row of the matrix
    align = {"align_corners": False} if mode == "bilinear" else {}
    return F.interpolate(impulses, size=width, mode="linear" if mode == "bilinear" else mode, **align)[0]


class LogMel(nn.Module):
    """Log-Mel image of a waveform, as dB below the clip's maximum, or below full scale, scaled to [0, 1].

    The Fourier transform is written as operators that every ONNX runtime has and runs fast: one step of Cooley and
    Tukey (1965). With n_fft = radix * inner, sample n = radix * i + r and bin k = p + inner * q, a short transform over
    i for each r (a convolution with stride, which is also the framing and holds the window) is followed by one over r
    for each p (a small matrix product, which holds the twiddle factors). That takes a quarter of the multiplications of
    one large matrix.

    Parameters
    ----------
    config : FrontEnd
        Sampling rate, window, bands and image size.

    Notes
    -----
    Agrees with `librosa.feature.melspectrogram(..., window="hamming", center=True)` and
    `librosa.power_to_db(ref=np.max, top_db=80)`, but that the floor follows the clip's maximum at any level, so that
    the image does not change with the gain. With the reference `full scale` it does: a sine of amplitude 1 reaches
    about 1, and of two recordings from the same microphone the louder is the brighter.
    """

    short: Tensor
    twiddled: Tensor
    bins: Tensor
    resize: Tensor | None

    def __init__(self, config: FrontEnd):
        super().__init__()
        self.config = config
        self.radix = _radix(config)
        inner = config.n_fft // self.radix
        p, r = torch.arange(inner // 2 + 1), torch.arange(self.radix)  # the other p mirror these: the signal is real
        # Alternating from both ends, the q stand for neighbouring stretches of the spectrum, from low to high.
        q = torch.stack([r, r.flip(0)], dim=1).flatten()[: self.radix]
        offset = torch.arange(config.win_length, dtype=torch.float64)
        window = 0.54 - 0.46 * torch.cos(2 * math.pi / config.win_length * offset)  # periodic Hamming
        filters = mel_filters(config.sampling_rate, config.n_fft, config.n_mels, config.band_hz)  # (bins, n_mels)
        self.full_scale = 2 * math.log(float(window.sum()) / 2) + math.log(float(filters.max()))
        i = torch.arange(config.win_length // self.radix)
        angle = 2 * math.pi / inner * i * p[:, None].double()  # (p, i)
        short = torch.stack([angle.cos(), -angle.sin()], dim=1)  # (p, real and imaginary, i)
        short = window.reshape(-1, self.radix).T[:, None, None, :] * short  # (r, p, 2, i)
        self.register_buffer("short", short.reshape(-1, 1, len(i)).float(), persistent=False)  # (r * p * 2, 1, i)
        k = p[:, None] + inner * q  # (p, q)
        angle = 2 * math.pi / config.n_fft * k[:, :, None].double() * r  # (p, q, r)
        real = torch.stack([angle.cos(), angle.sin()], dim=3)  # of what is real and imaginary in the short transform
        imaginary = torch.stack([-angle.sin(), angle.cos()], dim=3)  # (p, q, r, 2)
        twiddled = torch.cat([real, imaginary], dim=1).reshape(len(p), 2 * self.radix, -1)
        self.register_buffer("twiddled", twiddled.float(), persistent=False)  # (p, 2 * q, r * 2)
        bins = torch.minimum(k, config.n_fft - k).T  # (q, p)
        self.register_buffer("bins", bins, persistent=False)
        self.stretches = self._register_filters(bins, filters)
        resize = None
        if config.width != config.frames:
            resize = resize_matrix(config.frames, config.width, config.interpolation)
        self.register_buffer("resize", resize, persistent=False)  # (frames, width)

    def _register_filters(self, bins: Tensor, filters: Tensor) -> list[tuple[str, int, int]]:
        """Mel filters for three groups of bands, each over the stretch of q that it needs: (name, first q, end)."""
        flat = bins.flatten()
        once = torch.zeros(len(flat))  # a bin that stands there twice, as its own mirror image, counts once
        once[[flat.tolist().index(value) for value in range(self.config.n_fft // 2 + 1)]] = 1
        spread = (filters[flat] * once[:, None]).reshape(*bins.shape, -1)  # (q, p, n_mels)
        edges = sorted({0, self.config.n_mels // 2, 3 * self.config.n_mels // 4, self.config.n_mels})
        found = []
        for number, (low, high) in enumerate(pairwise(edges)):
            used = spread[:, :, low:high].abs().sum(dim=(1, 2)).nonzero().flatten().tolist() or [0]
            first, end = used[0], used[-1] + 1
            group = spread[first:end, :, low:high].reshape(-1, high - low).T.contiguous()
            self.register_buffer(f"filters{number}", group, persistent=False)  # (bands, q * p)
            found.append((f"filters{number}", first, end))
        return found

    def power(self, waveforms: Tensor) -> Tensor:
        """(batch, samples) -> power spectrum (batch, q, p, frames); `bins` (q, p) says which bin stands where."""
        config, radix, p = self.config, self.radix, self.twiddled.shape[0]
        samples, half = waveforms.shape[1], config.win_length // 2
        frames = 1 + samples // config.hop_length
        needed = (frames - 1) * config.hop_length + config.win_length
        padded = F.pad(waveforms, (half, needed - half - samples))  # frames are centred
        phases = padded.reshape(-1, needed // radix, radix).transpose(1, 2)  # (batch, r, samples / radix)
        short = F.conv1d(phases, self.short, stride=config.hop_length // radix, groups=radix)
        short = short.reshape(-1, radix, p, 2, frames).permute(0, 2, 1, 3, 4)  # (batch, p, r, 2, frames)
        spectrum = self.twiddled @ short.reshape(-1, p, 2 * radix, frames)  # (batch, p, 2 * q, frames)
        squares = (spectrum * spectrum).reshape(-1, p, 2, radix, frames)
        return squares.sum(2).transpose(1, 2)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Compute the images.

        Parameters
        ----------
        waveforms : Tensor
            (batch, samples) float32 in [-1, 1] at the configured rate: as long as one image, or shorter, if all that
            follows is silence and half a window of it is there.

        Returns
        -------
        Tensor
            (batch, 1, n_mels, width) float32 in [0, 1]; row 0 is the lowest band. Of a shorter waveform only the
            columns that may hold sound; the missing ones are black.
        """
        power, frames = self.power(waveforms), 1 + waveforms.shape[1] // self.config.hop_length
        groups = [
            getattr(self, name) @ power[:, first:end].reshape(-1, (end - first) * power.shape[2], frames)
            for name, first, end in self.stretches
        ]
        mel = torch.cat(groups, dim=1)  # (batch, n_mels, frames)
        level = mel.clamp(min=1e-30).log()
        peak = level.amax(dim=(1, 2), keepdim=True).clamp(min=math.log(1e-20))  # digital silence stays black
        image = ((level - peak) * (DB / self.config.top_db) + 1).clamp(min=0)
        if self.config.reference == "full scale":  # the same decibels on another scale; black columns stay black
            sounding = (image.amax(dim=1, keepdim=True) > 0).to(image.dtype)
            decibels = (image - 1) * self.config.top_db + (peak - self.full_scale) * DB
            image = (decibels / FULL_SCALE_DB + 1).clamp(0, 1) * sounding
        if self.resize is not None:
            image = image @ self.resize[:frames, : self.columns(frames)]
        return image[:, None]

    def columns(self, frames: int) -> int:
        """How many columns of the image the first frames reach, perhaps one too many."""
        width, whole = self.config.width, self.config.frames
        reached = ((frames + 1) * width + whole - 1) // whole
        return torch.sym_min(width, reached)  # pyright: ignore[reportReturnType] (whole numbers, in export symbols)


def _radix(config: FrontEnd) -> int:
    """The largest power of two, up to 16, that divides transform, window and hop."""
    common = math.gcd(config.n_fft, config.win_length, config.hop_length)
    return max(radix for radix in (1, 2, 4, 8, 16) if common % radix == 0)
