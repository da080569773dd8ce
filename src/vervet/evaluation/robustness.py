"""How a model bears what microphones, rooms, telephones and codecs do to a recording."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from vervet.audio import read, resample
from vervet.augment import shift, stretch
from vervet.evaluation.metrics import scores

RATE = 16_000  # Hz, of the recordings that are degraded
BATCH = 8

GROUPS = ("sex", "corpus")  # whose recordings are also scored apart, untouched

Degrade = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # (samples,) float32 at RATE -> the same
Predict = Callable[[Sequence[np.ndarray]], np.ndarray]  # waveforms at RATE -> probabilities (n, classes)


@dataclass(frozen=True)
class Clip:
    """A test recording and what is known of it."""

    path: Path
    emotion: str
    sex: str = ""
    corpus: str = ""


@dataclass(frozen=True)
class Condition:
    """One thing that happens to a recording, at one strength."""

    kind: str
    level: str
    degrade: Degrade


def add_noise_at(waveform: np.ndarray, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    """Add white noise `snr_db` below the mean power of (samples,) float32."""
    power = float(np.mean(np.square(waveform, dtype=np.float64)))
    sigma = np.sqrt(power * 10 ** (-snr_db / 10))
    return waveform + rng.normal(0, sigma, len(waveform)).astype(np.float32)


def telephone(waveform: np.ndarray) -> np.ndarray:
    """What an analogue telephone leaves of (samples,) float32: 300 to 3400 Hz, sampled at 8 kHz in between."""
    narrow = resample(waveform, RATE, 8_000)
    spectrum = np.fft.rfft(narrow)
    hz = np.fft.rfftfreq(len(narrow), 1 / 8_000)
    spectrum[(hz < 300) | (hz > 3_400)] = 0
    return resample(np.fft.irfft(spectrum, len(narrow)).astype(np.float32), 8_000, RATE)


def recode(waveform: np.ndarray, format: str, subtype: str, compression: float) -> np.ndarray:
    """Encode (samples,) float32 with a lossy codec and decode it again; `compression` in [0, 1], 1 is smallest."""
    buffer = io.BytesIO()
    extra = {"bitrate_mode": "CONSTANT"} if format == "MP3" else {}
    encoding: Any = {"format": format, "subtype": subtype, "compression_level": compression} | extra
    soundfile.write(buffer, waveform, RATE, **encoding)
    buffer.seek(0)
    decoded, _ = soundfile.read(buffer, dtype="float32")
    return np.ascontiguousarray(decoded[: len(waveform)])


def amplify(waveform: np.ndarray, gain_db: float) -> np.ndarray:
    """Change the level of (samples,) float32 and cut what exceeds full scale."""
    return np.clip(waveform * np.float32(10 ** (gain_db / 20)), -1, 1)


def conditions() -> list[Condition]:
    """Every condition, the untouched recordings first."""

    def condition(kind: str, level: str, degrade: Callable[[np.ndarray], np.ndarray]) -> Condition:
        return Condition(kind, level, lambda waveform, rng: degrade(waveform))

    return [
        condition("original", "-", lambda waveform: waveform),
        *(condition("speed", f"x{s}", partial(stretch, speed=s)) for s in (0.8, 0.9, 1.1, 1.25)),
        *(Condition("noise", f"{snr} dB SNR", partial(_noise, snr_db=snr)) for snr in (30, 20, 10, 5, 0)),
        *(condition("shift", f"{s} s", partial(shift, shift_s=s, sampling_rate=RATE)) for s in (0.5, 1.0, 1.5, 2.0)),
        condition("telephone", "300-3400 Hz", telephone),
        condition("MP3", "8 kbit/s", partial(recode, format="MP3", subtype="MPEG_LAYER_III", compression=0.99)),
        condition("MP3", "16 kbit/s", partial(recode, format="MP3", subtype="MPEG_LAYER_III", compression=0.95)),
        condition("Opus", "10 kbit/s", partial(recode, format="OGG", subtype="OPUS", compression=0.99)),
        condition("Opus", "19 kbit/s", partial(recode, format="OGG", subtype="OPUS", compression=0.95)),
        *(condition("gain", f"{gain:+d} dB", partial(amplify, gain_db=gain)) for gain in (-20, -10, 6)),
    ]


def _noise(waveform: np.ndarray, rng: np.random.Generator, snr_db: float) -> np.ndarray:
    return add_noise_at(waveform, snr_db, rng)


def robustness(
    parts: Sequence[tuple[Predict, Sequence[Clip]]], labels: Sequence[str], seed: int = 0
) -> list[dict[str, Any]]:
    """Score a model, or the models of several folds, on test recordings under every condition.

    Parameters
    ----------
    parts : sequence of (callable, sequence of Clip)
        A fold each: its model and its recordings, from speakers and clips that its training has not seen. A model takes
        waveforms, each (samples,) float32 at 16 kHz and as long as the recording, and returns probabilities
        (n, classes); padding and cutting are its own affair. The predictions of all folds are pooled.
    labels : sequence of str
        The emotions, in the order of the probabilities.
    seed : int, optional
        Of the noise; each recording has its own, the same for every model.

    Returns
    -------
    list of dict
        kind, level, wa, uar, n: one per condition, then of the untouched recordings one per sex and, if there are
        several, per corpus (kinds "sex" and "corpus").

    Raises
    ------
    ValueError
        If there is no clip, or one cannot be read.
    """
    clips = [clip for _, fold in parts for clip in fold]
    if not clips:
        raise ValueError("robustness needs at least one test recording")
    waveforms = [resample(*read(clip.path), RATE) for clip in clips]
    true = [clip.emotion for clip in clips]
    rows: list[dict[str, Any]] = []
    untouched: list[str] = []
    for condition in tqdm(conditions(), desc="robustness", unit="condition", disable=None):
        degraded = [
            condition.degrade(waveform, np.random.default_rng([seed, index]))
            for index, waveform in enumerate(waveforms)
        ]
        found, first = [], 0
        for predict, fold in parts:
            found += _recognise(predict, degraded[first : first + len(fold)], labels)
            first += len(fold)
        untouched = untouched or found
        rows.append(_row(condition.kind, condition.level, true, found, labels))
    for kind in GROUPS:
        members = [getattr(clip, kind) for clip in clips]
        names = sorted(set(members) - {""})
        for name in names if kind == "sex" or len(names) > 1 else ():
            chosen = [index for index, member in enumerate(members) if member == name]
            rows.append(_row(kind, name, [true[i] for i in chosen], [untouched[i] for i in chosen], labels))
    return rows


def _recognise(predict: Predict, waveforms: Sequence[np.ndarray], labels: Sequence[str]) -> list[str]:
    batches = [predict(waveforms[first : first + BATCH]) for first in range(0, len(waveforms), BATCH)]
    if not batches:
        return []
    return [labels[int(index)] for index in np.concatenate(batches).argmax(axis=1)]


def _row(kind: str, level: str, true: list[str], found: list[str], labels: Sequence[str]) -> dict[str, Any]:
    scored = scores(true, found, labels)
    return {"kind": kind, "level": level, "wa": scored.wa, "uar": scored.uar, "n": scored.n}


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table for people; differences are to the untouched recordings."""
    lines = [f"{'condition':22} {'clips':>6} {'WA':>8} {'UAR':>8} {'change':>8}"]
    for row in rows:
        change = "" if row["kind"] in ("original", *GROUPS) else f"{100 * (row['uar'] - rows[0]['uar']):+8.1f}"
        name = row["kind"] if row["level"] == "-" else f"{row['kind']} {row['level']}"
        lines.append(f"{name:22} {row['n']:6d} {row['wa']:8.1%} {row['uar']:8.1%} {change}")
    return "\n".join(lines)
