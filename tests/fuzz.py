"""Recordings that went wrong in every way we know of, each made from a seed and its number, and the judge of answers.

`python tests/fuzz.py MODEL FOLDER SEED FIRST LAST` answers inputs FIRST to LAST - 1 in a process that has a limit of
time and memory, so that a decoder may crash, hang or grow without taking the tests with it. Each input is a file of
FOLDER that is removed when all went well: what is left is at fault, and can be given to `vervet predict` again.
"""

import gzip
import io
import json
import signal
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import soundfile

LIMIT_S = 20  # of wall clock for one input; the slowest takes a tenth of a second on an idle core
MOST_BYTES = 64 << 20  # that the memory in use may grow by, whatever a header promises
RATE = 8_000
FRAMES = 2_000
RATES = (4_000, 8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000)
SUFFIXES = (".wav", ".WAV", ".flac", ".ogg", ".mp3", ".aiff", ".sph", ".m4a", ".txt", "")
CODECS = {
    "WAV": "PCM_U8 PCM_16 PCM_24 PCM_32 FLOAT DOUBLE ULAW ALAW IMA_ADPCM MS_ADPCM G721_32 NMS_ADPCM_32 GSM610",
    "WAVEX": "PCM_24",
    "RF64": "PCM_16",
    "W64": "FLOAT",
    "AIFF": "PCM_16 FLOAT IMA_ADPCM",
    "AU": "PCM_16 ULAW",
    "CAF": "PCM_16 ALAC_16",
    "NIST": "PCM_16",
    "FLAC": "PCM_16 PCM_24",
    "OGG": "VORBIS OPUS",
    "MP3": "MPEG_LAYER_III",
}
FILES = [(container, codec) for container, codecs in CODECS.items() for codec in codecs.split()]
FLOATING = [file for file in FILES if file[1] in ("FLOAT", "DOUBLE")]
MONO = ("G721_32", "NMS_ADPCM_32", "GSM610")
NUMBERS = (0, 1, 2, 255, 1 << 16, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 2, (1 << 32) - 1)

T = TypeVar("T")
Rng = np.random.Generator
Make = Callable[[Rng, int], bytes]
KINDS: dict[str, tuple[Make, bool | None]] = {}


class Case(NamedTuple):
    kind: str
    suffix: str
    content: bytes
    answered: bool | None  # whether it must be; None: it may be, if it can be decoded


def case(seed: int, number: int) -> Case:
    """Make input `number` of the corpus `seed`; only the serial numbers of Ogg streams are not the same every time."""
    rng = np.random.default_rng([seed, number])
    turn, index = divmod(number, len(KINDS))
    kind, (make, answered) = list(KINDS.items())[index]
    return Case(kind, _one(rng, SUFFIXES), make(rng, turn), answered)


def _kind(answered: bool | None) -> Callable[[Make], Make]:
    """List a function that makes input number `turn` of its kind."""

    def listed(make: Make) -> Make:
        KINDS[make.__name__.replace("_", " ")] = make, answered
        return make

    return listed


# --- whole recordings


def _voice(rng: Rng, frames: int = FRAMES, rate: int = RATE, channels: int = 1) -> np.ndarray:
    hertz, time_s = rng.uniform(100, 400), np.arange(frames) / rate
    return 0.3 * np.sin(2 * np.pi * hertz * time_s)[:, None] + 0.02 * rng.standard_normal((frames, channels))


def _file(samples: np.ndarray, rate: int = RATE, container: str = "WAV", codec: str = "PCM_16") -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=container, subtype=codec)
    return stream.getvalue()


@cache
def _whole(container: str, codec: str, channels: int) -> bytes:
    return _file(_voice(np.random.default_rng(channels), channels=channels), RATE, container, codec)


def _one(rng: Rng, choices: Sequence[T]) -> T:
    return choices[int(rng.integers(len(choices)))]


def _noise(rng: Rng, most: int) -> bytes:
    return rng.bytes(int(rng.integers(most)))


def _any(rng: Rng, without: tuple[str, ...] = ()) -> bytes:
    container, codec = _one(rng, [file for file in FILES if file[0] not in without])
    return _whole(container, codec, 1 if codec in MONO else int(rng.integers(1, 3)))


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _wav(
    data: bytes,
    *,
    rate: int = RATE,
    channels: int = 1,
    bits: int = 16,
    promised: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """Write a WAV file by hand, so that its header can lie, with more chunks before and after the samples."""
    block = channels * bits // 8
    layout = struct.pack("<HHIIHH", 1, channels, rate, rate * block % (1 << 32), block % (1 << 16), bits)
    size = struct.pack("<I", len(data) if promised is None else promised)
    return _chunk(b"RIFF", b"WAVE" + _chunk(b"fmt ", layout) + before + b"data" + size + data + after)


def _samples(rng: Rng) -> bytes:
    return (_voice(rng) * 32767).astype("<i2").tobytes()


@_kind(answered=True)
def every_codec(rng: Rng, turn: int) -> bytes:
    return _whole(*FILES[turn % len(FILES)], 1)


@_kind(answered=True)
def rates_and_channels(rng: Rng, turn: int) -> bytes:
    rate, channels = _one(rng, RATES), int(rng.integers(1, 9))
    container, codec = _one(rng, [("WAV", "PCM_24"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("AIFF", "PCM_16")])
    return _file(_voice(rng, round(rng.uniform(0.11, 0.3) * rate), rate, channels), rate, container, codec)


@_kind(answered=True)
def streamed(rng: Rng, turn: int) -> bytes:
    return _wav(_samples(rng), promised=_one(rng, ((1 << 32) - 1, (1 << 32) - 37, 1 << 31, 0x7FFFF000)))


@_kind(answered=True)
def more_chunks(rng: Rng, turn: int) -> bytes:
    def some() -> bytes:
        title = _chunk(b"LIST", b"INFO" + _chunk(b"INAM", b"a talk"))
        unknown = (_chunk(name, _noise(rng, 400)) for name in (b"JUNK", b"PAD ", b"id3 ", b"abcd"))
        return b"".join(chunk for chunk in (title, *unknown) if rng.random() < 0.5)

    return _wav(_samples(rng), before=some(), after=some())


@_kind(answered=True)
def tagged(rng: Rng, turn: int) -> bytes:
    tag = b"ID3\x03\x00\x00\x00\x00\x01\x00" + bytes(128)
    mp3 = _whole("MP3", "MPEG_LAYER_III", 1)
    return (tag + mp3, mp3 + b"TAG" + bytes(125), tag + mp3 + b"TAG" + bytes(125))[turn % 3]


# --- recordings that were damaged


@_kind(answered=False)
def header_cut(rng: Rng, turn: int) -> bytes:
    return _any(rng)[: turn % 128]


@_kind(answered=None)
def cut(rng: Rng, turn: int) -> bytes:
    content = _any(rng)
    return content[: rng.integers(len(content))]


def _place(rng: Rng, content: bytes | bytearray) -> int:
    """Choose a byte, every other time from the header."""
    return int(rng.integers(len(content) if rng.random() < 0.5 else min(len(content), 128)))


@_kind(answered=None)
def bits_flipped(rng: Rng, turn: int) -> bytes:
    content = bytearray(_any(rng))
    for _ in range(rng.integers(1, 9)):
        content[_place(rng, content)] ^= 1 << int(rng.integers(8))
    return bytes(content)


@_kind(answered=None)
def bytes_replaced(rng: Rng, turn: int) -> bytes:
    content = bytearray(_any(rng))
    for _ in range(rng.integers(1, 9)):
        content[_place(rng, content)] = _one(rng, (0, 1, 0x7F, 0x80, 0xFF))
    return bytes(content)


@_kind(answered=None)
def numbers_replaced(rng: Rng, turn: int) -> bytes:
    content = bytearray(_any(rng))
    at = _place(rng, content[:-8])
    number = struct.pack(_one(rng, ("<I", ">I", "<Q", ">Q")), _one(rng, NUMBERS))
    content[at : at + len(number)] = number
    return bytes(content)


@_kind(answered=None)
def bytes_lost(rng: Rng, turn: int) -> bytes:
    content = _any(rng)
    at = _place(rng, content)
    return content[:at] + content[at + int(rng.integers(1, 64)) :]


@_kind(answered=None)
def bytes_added(rng: Rng, turn: int) -> bytes:
    content = _any(rng)
    at = _place(rng, content)
    return content[:at] + _noise(rng, 64) + content[at:]


@_kind(answered=None)
def bytes_zeroed(rng: Rng, turn: int) -> bytes:
    content = _any(rng)
    at, count = _place(rng, content), int(rng.integers(1, 600))
    return content[:at] + bytes(count) + content[at + count :]


@_kind(answered=None)
def two_in_one(rng: Rng, turn: int) -> bytes:
    first, second = _any(rng), _any(rng)
    return first[: _place(rng, first)] + second[_place(rng, second) :]


@_kind(answered=None)
def tail_added(rng: Rng, turn: int) -> bytes:
    return _any(rng) + _one(rng, (bytes(500), rng.bytes(500), b"<html>not found</html>"))


# --- headers that lie


@_kind(answered=False)
def absurd_rate(rng: Rng, turn: int) -> bytes:
    return _wav(_samples(rng), rate=_one(rng, (0, 1, 7, 3_999, 768_001, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)))


@_kind(answered=False)
def absurd_channels(rng: Rng, turn: int) -> bytes:
    return _wav(rng.bytes(65_000), bits=8, channels=_one(rng, (0, 65, 200, 1_024, 1_025, 65_535)))


@_kind(answered=False)
def promise_broken(rng: Rng, turn: int) -> bytes:
    if turn % 2:
        samples = _samples(rng)
        return _wav(samples, promised=int(rng.integers(2 * len(samples), (1 << 31) - (1 << 20))))
    content = _any(rng, without=("OGG", "NIST"))  # they can be cut between two pages, and anywhere
    return content[: int(len(content) * rng.uniform(0.1, 0.5))]


@_kind(answered=None)
def promise_odd(rng: Rng, turn: int) -> bytes:
    samples = _samples(rng)
    sizes = (0, 1, 2, 3, len(samples) - 1, len(samples) + 1, len(samples) + 44, 2 * len(samples))
    return _wav(samples, promised=_one(rng, sizes))


@_kind(answered=False)
def promise_none(rng: Rng, turn: int) -> bytes:
    content = bytearray(_whole("FLAC", "PCM_16", 1))
    content[21] &= 0xF0  # the number of samples: 36 bits, and all of them 0 when ffmpeg writes to a pipe
    content[22:26] = bytes(4)
    return bytes(content)


@_kind(answered=None)
def chunks_that_lie(rng: Rng, turn: int) -> bytes:
    name = _one(rng, (b"LIST", b"fact", b"fmt ", b"cue ", b"PEAK", b"bext", b"smpl", b"cart", b"abcd"))
    content = _noise(rng, 60)
    size = struct.pack("<I", _one(rng, (*NUMBERS, len(content), len(content) + 1)))
    lie = name + size + content
    return _wav(_samples(rng), before=lie) if turn % 2 else _wav(_samples(rng), after=lie)


# --- samples that are no sound


@_kind(answered=False)
def no_numbers(rng: Rng, turn: int) -> bytes:
    samples = _voice(rng, channels=int(rng.integers(1, 3)))
    samples.flat[rng.integers(samples.size)] = _one(rng, (np.nan, np.inf, -np.inf))
    return _file(samples, RATE, *_one(rng, FLOATING))


@_kind(answered=False)
def far_too_loud(rng: Rng, turn: int) -> bytes:
    return _file(_voice(rng) * 10.0 ** rng.uniform(1.2, 300), RATE, *_one(rng, FLOATING))


@_kind(answered=False)
def too_short(rng: Rng, turn: int) -> bytes:
    return _file(_voice(rng, int(rng.integers(0, RATE // 10))), RATE, _one(rng, ("WAV", "FLAC", "AIFF")))


@_kind(answered=False)
def silent(rng: Rng, turn: int) -> bytes:
    samples = (np.zeros(FRAMES), np.full(FRAMES, 0.25), np.full(FRAMES, -1.0), _voice(rng) * 1e-4)[turn % 4]
    return _file(samples, RATE, *_one(rng, FLOATING))


# --- files that are no recordings


WORDS = "These are words and no sound. " * 100
NO_SOUND = [
    b"",
    bytes(1),
    bytes(5_000),
    b"\xff" * 5_000,
    b"\xff\xfb" * 2_500,
    b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 48044\n",
    b"file,emotion\na.wav,anger\n" * 50,
    b"#EXTM3U\na.mp3\n" * 50,
    json.dumps([WORDS]).encode(),
    *(WORDS.encode(encoding) for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32")),
    *(_chunk(b"RIFF", content) for content in (b"WAVE", b"WEBPVP8 " + WORDS.encode(), b"AVI LIST" + WORDS.encode())),
]
BEGINNINGS_OF_NO_SOUND = [
    b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    b"\xff\xd8\xff\xe0\0\x10JFIF",
    b"%PDF-1.7\n",
    b"\0\0\0\x20ftypM4A \0\0\0\0",
    b"\x1aE\xdf\xa3",  # Matroska and WebM
    b"MThd\0\0\0\6",
    b"FORM\0\0\x0b\xb8ILBM",
    b"\x01\x04",  # enough for libsndfile
    b"MATLAB 5.0 MAT-file",
    b"\x7fELF",
]
BEGINNINGS_OF_SOUND = [
    b"RIFF\0\0\1\0WAVE",
    b"RIFX",
    b"RF64",
    b"riff",
    b"FORM\0\0\1\0AIFF",
    b".snd\0\0\0\x18",
    b"caff\0\1\0\0",
    b"NIST_1A\n   1024\n",
    b"fLaC\0\0\0\x22",
    b"OggS\0\2",
    b"ID3\3\0\0",
    b"\xff\xfb",
    b"\xff\xe3",
    b"\xff\xf3",
]


@_kind(answered=False)
def no_sound(rng: Rng, turn: int) -> bytes:
    return NO_SOUND[turn % len(NO_SOUND)]


@_kind(answered=False)
def no_sound_by_its_beginning(rng: Rng, turn: int) -> bytes:
    return _one(rng, BEGINNINGS_OF_NO_SOUND) + _noise(rng, 10_000)


@_kind(answered=False)
def packed(rng: Rng, turn: int) -> bytes:
    if turn % 2:
        return gzip.compress(_any(rng), mtime=0)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zipfile.ZipInfo("talk.wav"), _any(rng))
    return stream.getvalue()


@_kind(answered=False)
def random_bytes(rng: Rng, turn: int) -> bytes:
    return _noise(rng, 10_000)


@_kind(answered=None)
def random_but_for_its_beginning(rng: Rng, turn: int) -> bytes:
    return _one(rng, BEGINNINGS_OF_SOUND) + _noise(rng, 10_000)


# --- the judge


def verdict(predictor, made: Case, source: str | bytes, path: Path) -> str:
    """Let the predictor answer, and say what is wrong with its answer; empty if nothing is."""
    from vervet.audio import NotAudio

    name = "<bytes>" if isinstance(source, bytes) else source
    try:
        predictions = predictor(source)
        samples, rate = soundfile.read(path, always_2d=True)
    except ValueError as error:
        if made.answered:
            return f"not answered: {error}"
        ours = type(error) in (ValueError, NotAudio)  # and not one of those that come out of libraries
        kind = ours and str(error).startswith(f"{name}: ") and "; " in str(error)
        return "" if kind else f"{type(error).__name__} that names no file or no remedy: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    sound = len(samples) >= 0.1 * rate and np.ptp(samples.mean(axis=1)) > 1e-4 and np.abs(samples).max() <= 2
    starts = [prediction.start_s for prediction in predictions]
    valid = starts == sorted(set(starts)) != [] and all(
        prediction.file == name
        and 0 <= prediction.start_s < prediction.end_s <= len(samples) / rate + 1e-6
        and list(prediction.scores) == list(predictor.labels)
        and prediction.label == max(prediction.scores, key=prediction.scores.__getitem__)
        and min(prediction.scores.values()) >= 0
        and abs(sum(prediction.scores.values()) - 1) < 1e-6
        for prediction in predictions
    )
    return "" if sound and valid and made.answered is not False else f"answered: {predictions}"


def main(model: str, folder: str, seed: int, first: int, last: int) -> None:
    import resource  # not on every system

    import vervet

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    predictor = vervet.load(model, threads=1)
    predictor(_whole("FLAC", "PCM_16", 2))
    warnings.simplefilter("ignore")  # of the predictor, that some windows are silent
    unheard = []  # exceptions in what libsndfile calls; they cannot get through its C code
    sys.unraisablehook = unheard.append
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (1 << 30), mapped + (1 << 30)))
    most = peak() + MOST_BYTES
    for number in range(first, last):
        made = case(seed, number)
        path = Path(folder, f"{number:06} {made.kind}{made.suffix}")
        path.write_bytes(made.content)
        signal.alarm(LIMIT_S)  # ends the process, be it in C code or not
        fault = verdict(predictor, made, made.content if number % 2 else str(path), path)
        signal.alarm(0)
        if unheard:
            fault += f" unheard: {unheard.pop().exc_value!r}"
        if peak() > most:
            fault += f" memory grew to {peak() >> 20} MiB"
            most = peak() + MOST_BYTES
        if fault:
            print(f"{path.name}: {fault}", flush=True)
        else:
            path.unlink()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
