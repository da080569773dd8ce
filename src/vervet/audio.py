"""Sound as every part of Vervet sees it: mono, float32, in [-1, 1], with its sampling rate beside it.

A recording comes as a path, as the bytes of a file, as an open binary file, or as a pair of samples and sampling rate.
It is read whole by `read`, or window by window by `windows`, which never holds more than one window and one block.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile
import soxr

Encoded = str | os.PathLike[str] | bytes | BinaryIO
Sound = Encoded | tuple[np.ndarray, int]

SILENCE_DBFS = -80.0  # a swing below this is digital silence; three steps of 16-bit audio
SHORTEST_S = 0.1  # less holds no speech to judge, and is about what MP3 frames add to the end of a recording
LOUDEST = 2.0  # lossy decoders overshoot full scale by a little; beyond this, samples are on another scale
BLOCK = 1 << 16  # frames decoded at once
MOST_CHANNELS = 64
LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, eq=False)
class Window:
    """A stretch of a recording; not padded, so its last one may be shorter than the others."""

    start_s: float
    end_s: float
    waveform: np.ndarray  # (samples,) float32 in [-1, 1]


def read(source: Sound) -> tuple[np.ndarray, int]:
    """Read a whole recording, its channels mixed down to their mean.

    Parameters
    ----------
    source : path, bytes, binary file, or (waveform, sampling_rate)
        WAV, FLAC, Ogg, MP3 and whatever else libsndfile decodes. An array is (samples,) or (samples, channels), either
        floating point in [-1, 1] or int16 or int32 over their full range.

    Returns
    -------
    waveform : numpy.ndarray
        (samples,) float32 in [-1, 1].
    sampling_rate : int
        In Hz, that of the recording.

    Raises
    ------
    ValueError
        If there is no such file, or it is a folder, empty, a Git LFS pointer, not audio, cut short, without samples, or
        if samples are NaN, infinite or far beyond full scale. The message names the file and what to do.
    """
    with _opened(source) as recording:
        blocks = list(recording.decode(0, recording.frames))
        return np.concatenate(blocks), recording.sampling_rate


def windows(
    source: Sound,
    sampling_rate: int,
    window_s: float,
    hop_s: float,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> Iterator[Window]:
    """Read a recording window by window, at the sampling rate asked for.

    Windows start at 0, `hop_s`, 2 `hop_s` and so on until the end is covered. The last one may be partial; it is left
    out where it would add less than `SHORTEST_S`. A recording shorter than a window is one window. Memory does not grow
    with the recording.

    Parameters
    ----------
    source : path, bytes, binary file, or (waveform, sampling_rate)
        As for `read`.
    sampling_rate : int
        Of the windows, in Hz.
    window_s, hop_s : float
        Length of a window and distance between two starts, in seconds.
    start_s, end_s : float, optional
        The segment to read, in seconds; the whole recording where not given. Windows are counted from its start.

    Yields
    ------
    Window
        Times are in seconds from the start of the recording, and never beyond its end.

    Raises
    ------
    ValueError
        As for `read`, and if the segment is not within the recording or shorter than `SHORTEST_S`.
    """
    window, hop = round(window_s * sampling_rate), round(hop_s * sampling_rate)
    if window < 1 or hop < 1:
        raise ValueError(f"window {window_s} s and hop {hop_s} s must be positive")
    with _opened(source) as recording:
        first, last = _segment(recording, start_s, end_s)
        blocks = _resampled(recording.decode(first, last), recording.sampling_rate, sampling_rate)
        first_s, last_s = first / recording.sampling_rate, last / recording.sampling_rate
        for start, waveform in _cut(blocks, window, hop, round(SHORTEST_S * sampling_rate)):
            begin_s = first_s + start / sampling_rate
            yield Window(begin_s, min(begin_s + window / sampling_rate, last_s), waveform)


def resample(waveform: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Change the sampling rate (soxr, high quality).

    Parameters
    ----------
    waveform : numpy.ndarray
        (samples,) float32.
    from_rate, to_rate : int
        In Hz.

    Returns
    -------
    numpy.ndarray
        (samples * to_rate / from_rate,) float32; the input itself where the rates agree.
    """
    return waveform if from_rate == to_rate else soxr.resample(waveform, from_rate, to_rate, quality="HQ")


def fit(waveform: np.ndarray, samples: int) -> np.ndarray:
    """Cut a waveform, or pad it with zeros at its end, to a length.

    Parameters
    ----------
    waveform : numpy.ndarray
        (any,) of any dtype.
    samples : int
        The length wanted.

    Returns
    -------
    numpy.ndarray
        (samples,) of the same dtype.
    """
    return np.pad(waveform[:samples], (0, max(0, samples - len(waveform))))


def is_silent(waveform: np.ndarray) -> bool:
    """Tell digital silence from sound.

    Parameters
    ----------
    waveform : numpy.ndarray
        (samples,) float32 in [-1, 1].

    Returns
    -------
    bool
        Whether the samples swing by less than `SILENCE_DBFS` about their middle; a constant offset is silence too.
    """
    return float(np.ptp(waveform)) / 2 < 10 ** (SILENCE_DBFS / 20)


def name_of(source: Sound) -> str:
    """Name a recording in results and messages.

    Parameters
    ----------
    source : path, bytes, binary file, or (waveform, sampling_rate)
        As for `read`.

    Returns
    -------
    str
        The path where there is one, else `<bytes>`, `<array>` or `<stream>`.
    """
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    if isinstance(source, bytes):
        return "<bytes>"
    if isinstance(source, tuple):
        return "<array>"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "<stream>"


class _Recording(NamedTuple):
    name: str
    sampling_rate: int  # Hz
    frames: int
    decode: Callable[[int, int], Iterator[np.ndarray]]  # (first, last) frame -> mono blocks, checked

    @property
    def duration_s(self) -> float:
        return self.frames / self.sampling_rate


@contextmanager
def _opened(source: Sound) -> Iterator[_Recording]:
    name = name_of(source)
    if isinstance(source, tuple):
        yield _array(*source, name)
        return
    with _stream(source, name) as stream:
        _sniff(stream, name)
        try:
            sound = soundfile.SoundFile(stream)
        # TypeError: soundfile asks for the layout of headerless .raw files
        except (soundfile.SoundFileError, TypeError) as error:
            raise ValueError(
                f"{name}: not audio that can be decoded ({error}); convert it to WAV, FLAC, Ogg or MP3"
            ) from error
        with sound:
            if sound.frames < 1:
                raise ValueError(f"{name}: has a header but no samples; record or export it again")
            yield _Recording(name, sound.samplerate, sound.frames, partial(_decode, sound, name))


@contextmanager
def _stream(source: Encoded, name: str) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.is_dir():
            raise ValueError(f"{name}: is a folder, not a recording; name a file in it")
        try:
            stream = path.open("rb")
        except FileNotFoundError:
            raise ValueError(f"{name}: no such file; check the spelling and the folder it is relative to") from None
        except OSError as error:
            raise ValueError(f"{name}: cannot be opened ({error.strerror}); check its permissions") from error
        with stream:
            yield stream
    else:
        yield source


def _sniff(stream: BinaryIO, name: str) -> None:
    """Find the two faults that libsndfile would call an unknown format."""
    position = stream.tell()
    head = stream.read(len(LFS_POINTER))
    stream.seek(position)
    if not head:
        raise ValueError(f"{name}: is empty (0 bytes); copy or record it again")
    if head == LFS_POINTER:
        raise ValueError(f"{name}: is a Git LFS pointer, not audio; fetch the recording with 'git lfs pull'")


def _decode(sound: soundfile.SoundFile, name: str, first: int, last: int) -> Iterator[np.ndarray]:
    """Yield frames [first, last) as checked mono blocks."""
    try:
        if first:
            sound.seek(first)
        while first < last:
            block = sound.read(min(BLOCK, last - first), dtype="float32", always_2d=True)  # (frames, channels)
            if not len(block):
                break
            yield _checked(block, name, first, sound.samplerate).mean(axis=1)
            first += len(block)
    except soundfile.SoundFileError as error:
        raise ValueError(f"{name}: damaged after {first / sound.samplerate:.2f} s ({error}); copy it again") from error
    if first < last:
        raise ValueError(
            f"{name}: ends after {first / sound.samplerate:.2f} s, but its header promises "
            f"{sound.frames / sound.samplerate:.2f} s; it was cut short, copy it again"
        )


def _array(samples: np.ndarray, sampling_rate: int, name: str) -> _Recording:
    samples = np.asarray(samples)
    if samples.dtype in (np.int16, np.int32):
        samples = samples / -float(np.iinfo(samples.dtype).min)
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"{name}: dtype {samples.dtype}; give floating point in [-1, 1], int16 or int32")
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 1 <= samples.shape[1] <= MOST_CHANNELS):
        raise ValueError(f"{name}: shape {samples.shape}; give (samples,) or (samples, channels)")
    if not len(samples):
        raise ValueError(f"{name}: has no samples; give at least {SHORTEST_S} s")
    if sampling_rate != int(sampling_rate) or sampling_rate <= 0:
        raise ValueError(f"{name}: sampling rate {sampling_rate}; give a positive whole number of Hz")
    checked = _checked(samples.reshape(len(samples), -1), name, 0, sampling_rate).mean(axis=1).astype(np.float32)
    return _Recording(name, int(sampling_rate), len(checked), lambda first, last: iter([checked[first:last]]))


def _checked(block: np.ndarray, name: str, first: int, sampling_rate: int) -> np.ndarray:
    """Refuse samples that are no numbers or on another scale; cut the overshoot of lossy decoders."""
    finite = np.isfinite(block).all(axis=1)
    if not finite.all():
        at_s = (first + int(np.argmin(finite))) / sampling_rate
        raise ValueError(f"{name}: holds NaN or infinite samples, the first at {at_s:.3f} s; export it again")
    peak = float(np.abs(block).max())
    if peak > LOUDEST:
        raise ValueError(f"{name}: samples reach {peak:g}, full scale is 1; scale them to [-1, 1]")
    return np.clip(block, -1.0, 1.0) if peak > 1 else block


def _segment(recording: _Recording, start_s: float, end_s: float | None) -> tuple[int, int]:
    """First and last frame of a segment, checked against the recording."""
    rate, duration_s = recording.sampling_rate, recording.duration_s
    stop_s = duration_s if end_s is None else end_s
    # tables round their times, so that an end may lie a little behind the true one
    if not 0 <= start_s < stop_s <= duration_s + SHORTEST_S:
        raise ValueError(
            f"{recording.name}: segment {start_s:g} to {stop_s:g} s is not within its {duration_s:.2f} s; correct it"
        )
    first, last = round(start_s * rate), min(round(stop_s * rate), recording.frames)
    if last - first < int(SHORTEST_S * rate):
        raise ValueError(
            f"{recording.name}: only {(last - first) / rate:.3f} s of sound, too short to judge; "
            f"give at least {SHORTEST_S} s"
        )
    return first, last


def _resampled(blocks: Iterable[np.ndarray], from_rate: int, to_rate: int) -> Iterator[np.ndarray]:
    if from_rate == to_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def _cut(blocks: Iterable[np.ndarray], window: int, hop: int, tail: int) -> Iterator[tuple[int, np.ndarray]]:
    """Cut a stream of blocks into (start, waveform), all in samples; a last window adds at least `tail`."""
    held = np.empty(0, np.float32)
    offset = 0  # where `held` begins in the stream
    start = 0  # of the next window
    for block in blocks:
        held = np.concatenate([held, block])
        while start + window <= offset + len(held):
            yield start, held[start - offset : start - offset + window].copy()
            start += hop
        spent = min(max(0, start - offset), len(held))
        held, offset = held[spent:], offset + spent
    covered = start - hop + window if start else 0
    end = offset + len(held)
    if not start or end - max(start, covered) >= tail:
        yield start, held[start - offset :]
