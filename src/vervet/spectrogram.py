"""The front end: a waveform becomes a log-Mel image. The same module trains, evaluates and is exported to ONNX."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vervet.config import FrontEnd

SLANEY_BREAK_HZ = 1000.0  # the Slaney Mel scale is linear below and logarithmic above
SLANEY_BREAK_MEL = 15.0
SLANEY_LOG_STEP = math.log(6.4) / 27.0


def hz_to_mel(hz: Tensor) -> Tensor:
    """Slaney's Mel scale: linear to 1 kHz, logarithmic above (Auditory Toolbox, 1998)."""
    log = SLANEY_BREAK_MEL + torch.log(hz.clamp(min=1e-3) / SLANEY_BREAK_HZ) / SLANEY_LOG_STEP
    return torch.where(hz < SLANEY_BREAK_HZ, hz * SLANEY_BREAK_MEL / SLANEY_BREAK_HZ, log)


def mel_to_hz(mel: Tensor) -> Tensor:
    """The inverse of `hz_to_mel`."""
    log = SLANEY_BREAK_HZ * torch.exp(SLANEY_LOG_STEP * (mel - SLANEY_BREAK_MEL))
    return torch.where(mel < SLANEY_BREAK_MEL, mel * SLANEY_BREAK_HZ / SLANEY_BREAK_MEL, log)


def mel_filters(sampling_rate: int, n_fft: int, n_mels: int) -> Tensor:
    """Triangular Mel filters of equal area (Slaney's normalisation).

    Parameters
    ----------
    sampling_rate : int
        In Hz.
    n_fft : int
        Length of the Fourier transform in samples.
    n_mels : int
        Number of bands, spaced evenly on the Mel scale from 0 Hz to half the sampling rate.

    Returns
    -------
    Tensor
        (n_fft // 2 + 1, n_mels) float32: power spectrum @ filters = Mel spectrum.
    """
    nyquist = torch.tensor(sampling_rate / 2, dtype=torch.float64)
    bins = torch.linspace(0, float(nyquist), n_fft // 2 + 1, dtype=torch.float64)[:, None]  # (bins, 1)
    edges = mel_to_hz(torch.linspace(0, float(hz_to_mel(nyquist)), n_mels + 2, dtype=torch.float64))
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]  # (n_mels,) each
    triangle = torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp(min=0)
    return (triangle * 2 / (high - low)).float()


def resize_matrix(frames: int, width: int, mode: str) -> Tensor:
    """Interpolation over time as one matrix, (frames, width) float32: log-Mel @ matrix = image."""
    impulses = torch.eye(frames)[None]  # each row, interpolated, is a row of the matrix
    align = {"align_corners": False} if mode == "bilinear" else {}
    return F.interpolate(impulses, size=width, mode="linear" if mode == "bilinear" else mode, **align)[0]


class LogMel(nn.Module):
    """Log-Mel image of a waveform, as dB below the clip's maximum scaled to [0, 1].

    The Fourier transform is written as two matrix products. The phase reference is the middle of the window, about
    which the cosine part sees only the even half of a frame and the sine part only the odd half: half the products,
    and operators that every ONNX runtime has.

    Parameters
    ----------
    config : FrontEnd
        Sampling rate, window, bands and image size.

    Notes
    -----
    Agrees with `librosa.feature.melspectrogram(..., window="hamming", center=True)` and
    `librosa.power_to_db(ref=np.max, top_db=80)`, but that the floor follows the clip's maximum at any level, so that
    the image does not change with the gain.
    """

    cosines: Tensor
    sines: Tensor
    filters: Tensor
    resize: Tensor | None

    def __init__(self, config: FrontEnd):
        super().__init__()
        self.config = config
        half = config.win_length // 2
        offset = torch.arange(half + 1, dtype=torch.float64)  # distance from the middle of the window, in samples
        window = 0.54 + 0.46 * torch.cos(math.pi * offset / half)  # periodic Hamming, seen from its middle
        phase = 2 * math.pi / config.n_fft * offset[:, None] * torch.arange(config.n_fft // 2 + 1, dtype=torch.float64)
        self.register_buffer("cosines", (window[:, None] * phase.cos()).float(), persistent=False)  # (half + 1, bins)
        self.register_buffer("sines", (window[:, None] * phase.sin()).float(), persistent=False)  # (half + 1, bins)
        filters = mel_filters(config.sampling_rate, config.n_fft, config.n_mels)
        self.register_buffer("filters", filters, persistent=False)  # (bins, n_mels)
        resize = None
        if config.width != config.frames:
            resize = resize_matrix(config.frames, config.width, config.interpolation)
        self.register_buffer("resize", resize, persistent=False)  # (frames, width)

    def frame(self, waveforms: Tensor) -> Tensor:
        """(batch, samples) -> centred frames (batch, frames, win_length).

        Window and hop are both whole numbers of blocks, so a frame is a row of neighbouring blocks: slices, no gather.
        """
        win, hop, frames = self.config.win_length, self.config.hop_length, self.config.frames
        block = math.gcd(win, hop)
        needed = (frames - 1) * hop + win
        padded = F.pad(waveforms, (win // 2, needed - win // 2 - self.config.samples))
        blocks = padded.reshape(-1, needed // block, block)
        step, last = hop // block, (frames - 1) * (hop // block) + 1
        return torch.cat([blocks[:, k : k + last : step] for k in range(win // block)], dim=-1)

    def power(self, waveforms: Tensor) -> Tensor:
        """(batch, samples) -> power spectrum (batch, frames, n_fft // 2 + 1)."""
        frames = self.frame(waveforms)
        half = self.config.win_length // 2
        # Offsets run from -half to half - 1. The edge, -half, has no partner: it is alone at the end of both halves.
        edge, before, middle, after = frames.split([1, half - 1, 1, half - 1], dim=-1)
        before = before.flip(-1)
        even = torch.cat([middle, after + before, edge], dim=-1)  # (batch, frames, half + 1)
        odd = torch.cat([torch.zeros_like(middle), after - before, -edge], dim=-1)
        return (even @ self.cosines).square() + (odd @ self.sines).square()

    def forward(self, waveforms: Tensor) -> Tensor:
        """Compute the images.

        Parameters
        ----------
        waveforms : Tensor
            (batch, samples) float32 in [-1, 1] at the configured rate, exactly as long as one image.

        Returns
        -------
        Tensor
            (batch, 1, n_mels, width) float32 in [0, 1]; row 0 is the lowest band.
        """
        mel = self.power(waveforms) @ self.filters  # (batch, frames, n_mels)
        peak = mel.amax(dim=(1, 2), keepdim=True).clamp(min=1e-20)
        floor = 10 ** (-self.config.top_db / 10)
        level = 10 * torch.log10((mel / peak).clamp(min=floor))  # dB, in [-top_db, 0]
        image = (level / self.config.top_db + 1).transpose(1, 2)  # (batch, n_mels, frames)
        if self.resize is not None:
            image = image @ self.resize
        return image[:, None]
