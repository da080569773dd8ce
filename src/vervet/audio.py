"""Sound as every part of Vervet sees it: mono, float32, in [-1, 1], with its sampling rate beside it.

A recording comes as a path, as the bytes of a file, as an open binary file, or as a pair of samples and sampling rate.
It is read whole by `read`, or window by window by `windows`, which never holds more than one window and one block.
What comes without an end, block by block, is cut by a `Cutter`.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from numbers import Integral, Real
from typing import BinaryIO, NamedTuple, cast

import numpy as np
import soundfile
import soxr

Encoded = str | os.PathLike[str] | bytes | BinaryIO

SILENCE_DBFS = -80.0  # a swing below this is digital silence; three steps of 16-bit audio
RINGING = 400  # samples; a constant offset that begins or ends rings when it is resampled
SHORTEST_S = 0.1  # less holds no speech to judge, and is about what MP3 frames add to the end of a recording
LOUDEST = 2.0  # lossy decoders overshoot full scale by a little; beyond this, samples are on another scale
BLOCK = 1 << 16  # frames decoded at once
MOST_CHANNELS = 64
LOWEST_RATE, HIGHEST_RATE = 4_000, 768_000  # Hz; what a damaged header may say beyond would fill the memory
LFS_POINTER = b"version https://git-lfs"
# How recordings begin. libsndfile knows more formats; for one of them it takes any file that begins with bytes 1 and 4.
BEGINNINGS = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b".snd", b"caff", b"NIST", b"fLaC", b"OggS", b"ID3")
# Bytes that a header promises, as libsndfile's log has it where the file holds fewer: WAV, CAF, AIFF, AU, RF64, W64.
PROMISE = re.compile(r"^ *(?:data|SSND|Data Size|Riff size|riff) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
STREAMED = (1 << 31) - (1 << 20)  # bytes; programs that write to a pipe promise this or more, not knowing the length
HEADER = 4096  # bytes; no file without samples is much longer
OGG_PAGE = 27 + 255 + 255 * 255  # bytes at most
ENDLESS = (1 << 63) - 1  # frames, as libsndfile counts a FLAC file that was written to a pipe


@dataclass(frozen=True, eq=False)
class Window:
    """A stretch of a recording; not padded, so its last one may be shorter than the others."""

    start_s: float
    end_s: float
    waveform: np.ndarray  # (samples,) float32 in [-1, 1]


@dataclass(frozen=True)
class Part:
    """A part of a recording: a stretch of time, one of its channels, or both, as one side of a telephone call."""

    sound: Encoded | tuple[np.ndarray, int]
    start_s: float = 0.0
    end_s: float | None = None  # None: the end of the recording
    channel: int | None = None  # the only one that is heard, 0 the first; None: the mean of all

    def __post_init__(self) -> None:
        if isinstance(self.sound, Part):
            raise ValueError(f"{name_of(self.sound)}: a part of a part; give the part of the whole that is meant")
        times = [self.start_s] if self.end_s is None else [self.start_s, self.end_s]
        if not all(isinstance(time, Real) for time in times):
            raise ValueError(f"{name_of(self.sound)}: {times} are no times; give start_s and end_s in seconds")
        if self.channel is not None and (isinstance(self.channel, bool) or not isinstance(self.channel, Integral)):
            raise ValueError(f"{name_of(self.sound)}: there is no channel {self.channel!r}; give a number, 0 the first")

    @property
    def fragment(self) -> str:
        """The part in the notation of web addresses, such as `#t=1.5,3.2&channel=0`; empty, if it is the whole."""
        time = f"t={self.start_s:.12g},{'' if self.end_s is None else f'{self.end_s:.12g}'}".rstrip(",")
        named = [time] if self.start_s or self.end_s is not None else []
        named += [] if self.channel is None else [f"channel={self.channel}"]
        return f"#{'&'.join(named)}" if named else ""


Sound = Encoded | tuple[np.ndarray, int] | Part


class NoSuchPart(ValueError):
    """A stretch or a channel that a recording does not have."""


class NotAudio(ValueError):
    """Bytes that no decoder takes for a recording; whatever else is wrong with a recording is a plain `ValueError`."""


def read(source: Sound) -> tuple[np.ndarray, int]:
    """Read a whole recording, its channels mixed down to their mean, or a part of it.

    Parameters
    ----------
    source : path, bytes, binary file, (waveform, sampling_rate), or Part
        WAV, FLAC, Ogg or MP3, also AIFF, AU, CAF, W64, RF64 and NIST Sphere, of 4 to 768 kHz and up to 64 channels. A
        path must lead to a regular file; a binary file is read from its beginning. An array is (samples,) or
        (samples, channels), either floating point in [-1, 1] or int16 or int32 over their full range. Of a `Part`
        nothing else is read.

    Returns
    -------
    waveform : numpy.ndarray
        (samples,) float32 in [-1, 1].
    sampling_rate : int
        In Hz, that of the recording.

    Raises
    ------
    ValueError
        If there is no such file, or it is a folder, a pipe, a device, empty, a Git LFS pointer, not audio, cut short or
        without samples, or has no such part, or if samples are NaN, infinite or far beyond full scale. The message
        names the file and what to do.
    """
    with opened(source) as recording:
        blocks = list(recording.decode(0, recording.frames))
        return np.concatenate(blocks), recording.sampling_rate


def windows(source: Sound, sampling_rate: int, window_s: float, hop_s: float) -> Iterator[Window]:
    """Read a recording window by window, at the sampling rate asked for.

    Windows start at 0, `hop_s`, 2 `hop_s` and so on, of a `Part` from its start, until the end is covered. The last one
    may be partial; it is left out where it would add less than `SHORTEST_S`. A recording shorter than a window is one
    window. Memory does not grow with the recording.

    Parameters
    ----------
    source : path, bytes, binary file, (waveform, sampling_rate), or Part
        As for `read`.
    sampling_rate : int
        Of the windows, in Hz.
    window_s, hop_s : float
        Length of a window and distance between two starts, in seconds.

    Yields
    ------
    Window
        Times are in seconds from the start of the recording, and never beyond its end.

    Raises
    ------
    ValueError
        As for `read`, and if the recording, or the part, is shorter than `SHORTEST_S`.
    """
    with opened(source) as recording:
        yield from recording.windows(sampling_rate, window_s, hop_s)


class Recording(NamedTuple):
    """A recording, or a part of one, that is open, its header read and nothing else.

    Attributes
    ----------
    name : str
        For messages.
    sampling_rate : int
        In Hz.
    frames : int
        As many as its header says; no more are ever decoded.
    decode : callable
        Takes the first frame and the one after the last, and yields mono blocks of what is between, checked.
    channels : int
        Before they are mixed down; one, if no other is heard.
    form : str
        Of its file, such as "WAV" or "OGG"; empty for an array.
    start_s : float
        Where the part begins in the whole; 0 for a whole one.
    """

    name: str
    sampling_rate: int
    frames: int
    decode: Callable[[int, int], Iterator[np.ndarray]]
    channels: int
    form: str
    start_s: float = 0.0

    @property
    def duration_s(self) -> float:
        """In seconds."""
        return self.frames / self.sampling_rate

    def windows(self, sampling_rate: int, window_s: float, hop_s: float) -> Iterator[Window]:
        """Read it window by window; all as for `vervet.audio.windows`."""
        window, hop = round(window_s * sampling_rate), round(hop_s * sampling_rate)
        if window < 1 or hop < 1:
            raise ValueError(f"window {window_s} s and hop {hop_s} s must be positive")
        if self.frames < int(SHORTEST_S * self.sampling_rate) - 1:  # the times of a window at another rate are rounded
            raise ValueError(
                f"{self.name}: only {self.duration_s:.3f} s of sound, too short to judge; give at least {SHORTEST_S} s"
            )
        cutter = Cutter(self.sampling_rate, sampling_rate, window, hop)
        complete = chain.from_iterable(map(cutter.feed, self.decode(0, self.frames)))
        for start, waveform in chain(complete, cutter.finish()):
            begin_s = self.start_s + start / sampling_rate
            yield Window(begin_s, min(begin_s + window / sampling_rate, self.start_s + self.duration_s), waveform)


@contextmanager
def opened(source: Sound) -> Iterator[Recording]:
    """Open a recording.

    Parameters
    ----------
    source : path, bytes, binary file, (waveform, sampling_rate), or Part
        As for `read`.

    Yields
    ------
    Recording
        Open until the block ends.

    Raises
    ------
    ValueError
        As for `read`, but for what only decoding brings to light.
    """
    part = part_of(source)
    with _opened(part.sound, part.channel) as recording:
        yield _stretch(recording, part.start_s, part.end_s)


@contextmanager
def _opened(source: Encoded | tuple[np.ndarray, int], channel: int | None) -> Iterator[Recording]:
    name = name_of(source)
    if isinstance(source, tuple):
        yield _array(*source, name, channel)
        return
    with _stream(source, name) as stream:
        _sniff(stream, name)
        try:
            sound = soundfile.SoundFile(cast(BinaryIO, _Readable(stream)))  # it calls no other methods
        except soundfile.LibsndfileError as error:
            why = error.error_string
            if why.startswith("File does not exist"):  # so it calls what its MP3 decoder gives up
                why = "it begins like MP3, but goes on otherwise"
            raise _no_audio(name, why) from error
        with sound:
            sampling_rate, frames = checked_rate(sound.samplerate, name), _frames(sound)
            if sound.channels > MOST_CHANNELS:
                raise ValueError(f"{name}: has {sound.channels} channels; keep at most {MOST_CHANNELS}")
            _check_channel(channel, sound.channels, name)
            if frames < 1 and stream.seek(0, os.SEEK_END) < HEADER + SHORTEST_S * sampling_rate * sound.channels:
                raise ValueError(f"{name}: has a header but no samples; record or export it again")
            if frames < 1 or frames == ENDLESS:
                raise ValueError(
                    f"{name}: was streamed, or its recorder stopped, so its header tells no length; write it again "
                    "with 'ffmpeg -i OLD NEW'"
                )
            decode = partial(_decode, sound, name, frames, channel)
            channels = sound.channels if channel is None else 1
            yield Recording(name, sampling_rate, frames, decode, channels, sound.format)


class Cutter:
    """Resample a waveform that comes block by block, and cut it into windows; one window is all that it holds.

    Windows start at `first`, `first + hop`, `first + 2 hop` and so on. The last one may be partial; it is left out
    where it would add less than `SHORTEST_S`.

    Parameters
    ----------
    from_rate, to_rate : int
        Sampling rates of the blocks and of the windows, in Hz.
    window, hop : int
        Length of a window and distance between two starts, in samples at `to_rate`.
    first : int
        Start of the first window, in samples at `to_rate`, more than `-window` and at most 0.
    """

    def __init__(self, from_rate: int, to_rate: int, window: int, hop: int, first: int = 0) -> None:
        same = from_rate == to_rate
        self._resampler = None if same else soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality="HQ")
        self._ring = np.zeros(window, np.float32)  # sample n stands at n % window
        self._heard = 0  # samples at `to_rate`
        self._start = first  # of the next window
        self._hop = hop
        self._covered = 0  # end of the last window
        self._tail = round(SHORTEST_S * to_rate)

    def feed(self, block: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Hear a block.

        Parameters
        ----------
        block : numpy.ndarray
            (samples,) float32 at `from_rate`, of any length.

        Yields
        ------
        start : int
            Of a window that is now complete, in samples at `to_rate` from the beginning of the first block.
        waveform : numpy.ndarray
            (samples,) float32 at `to_rate`; of a window that starts before 0, what lies behind it.
        """
        return self._cut(self._resampler.resample_chunk(block) if self._resampler else block)

    def finish(self) -> Iterator[tuple[int, np.ndarray]]:
        """Hear that the waveform has ended.

        Yields
        ------
        start, waveform
            As from `feed`; the last one may be shorter than a window.
        """
        if self._resampler:
            yield from self._cut(self._resampler.resample_chunk(np.empty(0, np.float32), last=True))
        rest = self._heard - max(self._start, self._covered)
        if rest >= self._tail or (rest and not self._covered):
            yield self._window()

    def _cut(self, block: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        window = len(self._ring)
        while len(block):
            # up to where the ring begins again or the next window ends, whichever is nearer
            at, end = self._heard % window, self._start + window
            step = block[: min(window - at, end - self._heard)]
            self._ring[at : at + len(step)] = step
            self._heard += len(step)
            block = block[len(step) :]
            if self._heard == end:
                yield self._window()

    def _window(self) -> tuple[int, np.ndarray]:
        """Give the window that ends here, and move on to the next."""
        start = self._start
        self._start += self._hop
        self._covered = self._heard
        oldest = self._heard % len(self._ring)
        in_order = np.concatenate([self._ring[oldest:], self._ring[:oldest]])
        return start, in_order[max(0, start) - self._heard :]


def mono(
    samples: np.ndarray, sampling_rate: int, name: str = "<array>", first: int = 0, channel: int | None = None
) -> np.ndarray:
    """Check samples, scale them to [-1, 1] and mix their channels down to their mean, or choose one of them.

    Parameters
    ----------
    samples : numpy.ndarray
        (samples,) or (samples, channels), as for `read`. It may be empty.
    sampling_rate, first : int
        In Hz, and which sample of the recording the first one is; for messages.
    name : str
        Of the recording; for messages.
    channel : int, optional
        The only one that is heard; 0 is the first.

    Returns
    -------
    numpy.ndarray
        (samples,) float32 in [-1, 1].

    Raises
    ------
    ValueError
        If the dtype or shape is another one, there is no such channel, or samples are NaN, infinite or far beyond full
        scale.
    """
    samples = np.asarray(samples)
    if samples.dtype.newbyteorder("=") in (np.int16, np.int32):
        samples = samples / -float(np.iinfo(samples.dtype).min)
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"{name}: dtype {samples.dtype}; give floating point in [-1, 1], int16 or int32")
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 1 <= samples.shape[1] <= MOST_CHANNELS):
        hint = "; transpose it" if samples.ndim == 2 and 1 <= samples.shape[0] <= MOST_CHANNELS else ""
        raise ValueError(f"{name}: shape {samples.shape}; give (samples,) or (samples, channels){hint}")
    block = samples if samples.ndim == 2 else samples[:, None]
    _check_channel(channel, block.shape[1], name)
    return _mixed(block, channel, name, first, sampling_rate).astype(np.float32)


def checked_rate(sampling_rate: float, name: str) -> int:
    """Refuse a sampling rate that no recording of speech has.

    Parameters
    ----------
    sampling_rate : float
        In Hz.
    name : str
        Of the recording; for messages.

    Returns
    -------
    int
        In Hz.

    Raises
    ------
    ValueError
        If it is not a whole number from `LOWEST_RATE` to `HIGHEST_RATE`.
    """
    if not LOWEST_RATE <= sampling_rate <= HIGHEST_RATE or sampling_rate != int(sampling_rate):
        raise ValueError(
            f"{name}: sampling rate {sampling_rate}; give a whole number of {LOWEST_RATE} to {HIGHEST_RATE} Hz"
        )
    return int(sampling_rate)


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
        Whether the samples swing by less than `SILENCE_DBFS` about their middle; a constant offset is silence too. Both
        ends do not count, up to `RINGING` samples or a quarter of all each.
    """
    end = min(RINGING, len(waveform) // 4)
    return float(np.ptp(waveform[end : len(waveform) - end])) / 2 < 10 ** (SILENCE_DBFS / 20)


def full_name_of(source: Sound) -> str:
    """Name a recording and which part of it, in messages.

    Parameters
    ----------
    source : path, bytes, binary file, (waveform, sampling_rate), or Part
        As for `read`.

    Returns
    -------
    str
        As by `name_of`, and behind it the fragment of a `Part`: `talk.wav#t=1.5,3.2&channel=0`.
    """
    return f"{name_of(source)}{part_of(source).fragment}"


def part_of(source: Sound) -> Part:
    """See a recording as a part of itself.

    Parameters
    ----------
    source : path, bytes, binary file, (waveform, sampling_rate), or Part
        As for `read`.

    Returns
    -------
    Part
        It, if it is one; else the whole.
    """
    return source if isinstance(source, Part) else Part(source)


def name_of(source: Sound) -> str:
    """Name a recording in results and messages.

    Parameters
    ----------
    source : path, bytes, binary file, (waveform, sampling_rate), or Part
        As for `read`.

    Returns
    -------
    str
        The path where there is one, else `<bytes>`, `<array>` or `<stream>`; a `Part` has the name of the whole.
    """
    if isinstance(source, Part):
        return name_of(source.sound)
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    if isinstance(source, bytes):
        return "<bytes>"
    if isinstance(source, tuple | np.ndarray):
        return "<array>"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "<stream>"


@contextmanager
def _stream(source: Encoded, name: str) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif isinstance(source, str | os.PathLike):
        with _file(source, name) as stream:
            yield stream
    elif isinstance(source, np.ndarray):
        raise ValueError(f"{name}: an array without its sampling rate; give (waveform, sampling_rate)")
    else:
        yield source


def _file(path: str | os.PathLike[str], name: str) -> BinaryIO:
    """Open a regular file; a pipe without a writer would be waited for, and a device may have no end."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            return open(path, "rb")
    except FileNotFoundError:
        raise ValueError(f"{name}: no such file; check the spelling and the folder it is relative to") from None
    except (OSError, ValueError) as error:  # ValueError: characters that no file name can hold
        why = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{name}: cannot be opened ({why}); check its name and permissions") from error
    if stat.S_ISDIR(mode):
        raise ValueError(f"{name}: is a folder, not a recording; name a file in it")
    raise ValueError(f"{name}: is a pipe, a socket or a device; save the recording as a file first")


class _Readable:
    """A binary stream as libsndfile needs it, without exceptions: they would not get through its C code.

    Damaged headers send it to places before the beginning, and disks fail. It then reads less than it was promised,
    which `_decode` names.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.tell = stream.tell

    def seek(self, offset: int, whence: int) -> None:
        with suppress(OSError, ValueError):
            self._stream.seek(offset, whence)

    def read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except OSError:
            return b""


def _sniff(stream: BinaryIO, name: str) -> None:
    """Find what libsndfile would call an unknown format, or worse, would not."""
    try:
        stream.seek(0)
        head = bytes(stream.read(len(LFS_POINTER)))
        stream.seek(0)
    except (OSError, ValueError, TypeError) as error:  # a pipe, a closed file, a file opened as text
        raise ValueError(
            f"{name}: cannot be read ({error}); give an open binary file that can be rewound, or its bytes"
        ) from error
    if not head:
        raise ValueError(f"{name}: is empty (0 bytes); copy or record it again")
    if head == LFS_POINTER:
        raise ValueError(f"{name}: is a Git LFS pointer, not audio; fetch the recording with 'git lfs pull'")
    mp3 = head[0] == 0xFF and head[1:2] >= b"\xe0"
    if kind := _not_decoded(head):
        raise NotAudio(f"{name}: is {kind}, which is not decoded here; convert it, as with ffmpeg -i FILE file.wav")
    if not (mp3 or head.startswith(BEGINNINGS)):
        raise _no_audio(name, "it begins like no known format")
    if head.startswith(b"OggS") and _ends_within_a_page(stream):  # where libsndfile ends before, without a word
        raise ValueError(f"{name}: ends in the middle of a page; it was cut short, copy it again")


def _ends_within_a_page(stream: BinaryIO) -> bool:
    """Whether the last page of an Ogg file promises more bytes than there are."""
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - OGG_PAGE))
    tail = bytes(stream.read(OGG_PAGE))
    stream.seek(0)
    page = tail[max(0, tail.rfind(b"OggS\0")) :]
    if not page.startswith(b"OggS"):  # something else of that length follows
        return False
    return len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


def _not_decoded(head: bytes) -> str:
    """What others decode, told by its first bytes; nothing, if it is none of these."""
    if head[4:8] == b"ftyp":
        return "MPEG-4 audio or video, such as .m4a"
    if head[0] == 0xFF and head[1:2] in (b"\xf1", b"\xf9"):
        return "AAC"
    beginnings = {b"#!AMR": "AMR", b"\x1aE\xdf\xa3": "WebM or Matroska", b"0&\xb2u": "Windows Media"}
    return next((kind for beginning, kind in beginnings.items() if head.startswith(beginning)), "")


def _no_audio(name: str, why: str) -> NotAudio:
    return NotAudio(f"{name}: not audio that can be decoded ({why.rstrip('.')}); convert it to WAV, FLAC, Ogg or MP3")


def _frames(sound: soundfile.SoundFile) -> int:
    """Frames that the header promises; libsndfile itself only tells how many can be there, and is silent on the rest.

    A promise is not held against a file that lacks less than `SHORTEST_S`, as some recorders count their header.
    """
    found = PROMISE.search(sound.extra_info)
    promised, there = map(int, found.groups()) if found else (0, 0)
    if not there or promised >= STREAMED:
        return sound.frames
    frames = sound.frames * promised // there
    return frames if frames - sound.frames >= SHORTEST_S * sound.samplerate else sound.frames


def _decode(
    sound: soundfile.SoundFile, name: str, frames: int, channel: int | None, first: int, last: int
) -> Iterator[np.ndarray]:
    """Yield frames [first, last) as checked mono blocks."""
    try:
        if first and sound.seekable():
            sound.seek(first)
        else:  # as of a telephone's GSM 6.10
            for skipped in range(0, first, BLOCK):
                sound.read(min(BLOCK, first - skipped), dtype="float32")
        while first < last:
            wanted = min(BLOCK, last - first)
            block = sound.read(wanted, dtype="float32", always_2d=True)  # (frames, channels)
            yield _mixed(block, channel, name, first, sound.samplerate)
            first += len(block)
            if len(block) < wanted:  # asked again, the decoder of a damaged MP3 goes on from elsewhere
                break
    except soundfile.SoundFileError as error:
        raise ValueError(f"{name}: damaged after {first / sound.samplerate:.2f} s ({error}); copy it again") from error
    if first < last:
        raise ValueError(
            f"{name}: ends after {first / sound.samplerate:.2f} s, but its header promises "
            f"{frames / sound.samplerate:.2f} s; it was cut short, copy it again"
        )


def _array(samples: np.ndarray, sampling_rate: int, name: str, channel: int | None) -> Recording:
    sampling_rate = checked_rate(sampling_rate, name)
    waveform = mono(samples, sampling_rate, name, channel=channel)
    if not len(waveform):
        raise ValueError(f"{name}: has no samples; give at least {SHORTEST_S} s")
    channels = 1 if np.ndim(samples) == 1 or channel is not None else np.shape(samples)[1]
    return Recording(
        name, sampling_rate, len(waveform), lambda first, last: iter([waveform[first:last]]), channels, form=""
    )


def _check_channel(channel: int | None, channels: int, name: str) -> None:
    if channel is not None and not (0 <= channel < channels):
        there = "one channel, number 0" if channels == 1 else f"channels 0 to {channels - 1}"
        raise NoSuchPart(f"{name}: there is no channel {channel}; it has {there}")


def _mixed(block: np.ndarray, channel: int | None, name: str, first: int, sampling_rate: int) -> np.ndarray:
    """Checked samples (frames, channels) -> the mean of all channels, or one of them: (frames,)."""
    heard = block if channel is None else block[:, [channel]]
    return _checked(heard, name, first, sampling_rate).mean(axis=1)


def _checked(block: np.ndarray, name: str, first: int, sampling_rate: int) -> np.ndarray:
    """Refuse samples that are no numbers or on another scale; cut the overshoot of lossy decoders."""
    finite = np.isfinite(block).all(axis=1)
    if not finite.all():
        at_s = (first + int(np.argmin(finite))) / sampling_rate
        raise ValueError(
            f"{name}: holds NaN or infinite samples, the first at {at_s:.3f} s; correct them at their source"
        )
    peak = float(np.abs(block).max(initial=0))
    if peak > LOUDEST:
        raise ValueError(f"{name}: samples reach {peak:g}, full scale is 1; scale them to [-1, 1]")
    return np.clip(block, -1.0, 1.0) if peak > 1 else block


def _stretch(recording: Recording, start_s: float, end_s: float | None) -> Recording:
    """Cut a part out of a recording that is open."""
    if start_s == 0 and end_s is None:
        return recording
    rate, duration_s = recording.sampling_rate, recording.duration_s
    stop_s = duration_s if end_s is None else end_s
    # tables round their times, so that an end may lie a little behind the true one
    if not 0 <= start_s < stop_s <= duration_s + SHORTEST_S or start_s >= duration_s:
        within = f"is not within its {duration_s:.2f} s"
        raise NoSuchPart(f"{recording.name}: segment {start_s:g} to {stop_s:g} s {within}; correct it")
    first = min(round(start_s * rate), recording.frames - 1)
    last = min(max(round(stop_s * rate), first + 1), recording.frames)
    return recording._replace(
        name=f"{recording.name}{Part('', start_s, end_s).fragment}",
        frames=last - first,
        decode=lambda begin, end: recording.decode(first + begin, first + end),
        start_s=first / rate,
    )
