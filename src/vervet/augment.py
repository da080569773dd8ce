"""The versions of a clip: original, speed-perturbed, noise-perturbed, time-shifted."""

import math

import numpy as np
import torch

from vervet.audio import fit
from vervet.config import Augment, FrontEnd


def stretch(waveform: np.ndarray, speed: float, n_fft: int = 2048) -> np.ndarray:
    """Change the speed of speech and keep its pitch, by a phase vocoder.

    Parameters
    ----------
    waveform : np.ndarray
        (samples,) float32.
    speed : float
        Above 1 is faster; 1.2 makes the result 1 / 1.2 as long.
    n_fft : int, optional
        Length of the analysis window in samples; a quarter of it is the hop.

    Returns
    -------
    np.ndarray
        (round(samples / speed),) float32.

    Notes
    -----
    Flanagan & Golden, "Phase vocoder", Bell System Technical Journal, 1966; agrees with `librosa.effects.time_stretch`.
    """
    if speed <= 0:
        raise ValueError(f"speed must be positive, not {speed}")
    hop, window = n_fft // 4, torch.hann_window(n_fft)
    signal = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))
    spectrum = torch.stft(signal, n_fft, hop, window=window, pad_mode="constant", return_complex=True)  # (bins, frames)
    bins, frames = spectrum.shape
    at = torch.arange(0, frames, speed, dtype=torch.float64)  # where each output frame lies among the input's
    left, weight = at.long(), (at % 1).float()
    spectrum = torch.cat([spectrum, spectrum.new_zeros(bins, 2)], dim=1)
    magnitude = (1 - weight) * spectrum[:, left].abs() + weight * spectrum[:, left + 1].abs()
    # A bin's phase grows by its own frequency times the hop, plus what was measured to deviate from it.
    expected = torch.linspace(0, math.pi * hop, bins, dtype=torch.float64)[:, None]
    deviation = (spectrum[:, left + 1].angle() - spectrum[:, left].angle()).double() - expected
    deviation -= 2 * math.pi * (deviation / (2 * math.pi)).round()
    phase = torch.cumsum(expected + deviation, dim=1)
    phase = torch.cat([spectrum[:, :1].angle().double(), spectrum[:, :1].angle() + phase[:, :-1]], dim=1)
    phase = phase.remainder(2 * math.pi).float()
    output = torch.istft(torch.polar(magnitude, phase), n_fft, hop, window=window, length=round(len(signal) / speed))
    return output.numpy()


def add_noise(waveform: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Add white Gaussian noise of standard deviation `sigma` (1 is full scale) to (samples,) float32."""
    return waveform + rng.normal(0, sigma, len(waveform)).astype(np.float32)


def shift(waveform: np.ndarray, shift_s: float, sampling_rate: int) -> np.ndarray:
    """Let the waveform, (samples,) float32, begin `shift_s` seconds later, after zeros."""
    return np.concatenate([np.zeros(round(shift_s * sampling_rate), np.float32), waveform])


def version(
    waveform: np.ndarray, name: str, augment: Augment, front_end: FrontEnd, rng: np.random.Generator
) -> np.ndarray:
    """Make one version of a clip, as long as an image.

    Parameters
    ----------
    waveform : np.ndarray
        (samples,) float32 in [-1, 1] at the front end's rate, of any length.
    name : str
        "original", "speed", "noise" or "shift".
    augment : Augment
        How strong each is.
    front_end : FrontEnd
        Rate and length of the result.
    rng : np.random.Generator
        Draws the speed and the noise.

    Returns
    -------
    np.ndarray
        (front_end.samples,) float32. Noise is added after padding, so it fills the padded zone too.
    """
    match name:
        case "original":
            return fit(waveform, front_end.samples)
        case "speed":
            return fit(stretch(waveform, float(rng.choice(augment.speeds))), front_end.samples)
        case "noise":
            scale = float(np.abs(waveform).max(initial=0.0)) if augment.noise_relative else 1.0
            return add_noise(fit(waveform, front_end.samples), scale * augment.noise_sigma, rng)
        case "shift":
            return fit(shift(waveform, augment.shift_s, front_end.sampling_rate), front_end.samples)
    raise ValueError(f"unknown version {name!r}; known are original, speed, noise, shift")
