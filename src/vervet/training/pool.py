"""The images of a corpus, computed once and kept on disk; all runs, folds and seeds read one memory-mapped file."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from vervet.audio import Part, read, resample
from vervet.augment import version
from vervet.config import Augment, FrontEnd
from vervet.corpora import Utterance
from vervet.evaluation.protocols import Sample
from vervet.files import write_whole
from vervet.machine import cores
from vervet.spectrogram import LogMel

FORMAT = 1  # part of the cache's key: raise it when the same settings come to mean other images
CHUNK = 64  # clips between two points from which an interrupted computation goes on


@dataclass(frozen=True)
class Pool:
    """Every version of every utterance of a corpus as an image.

    `images` is (utterances, versions, n_mels, width) float16 in [0, 1], memory-mapped; half precision is finer than
    0.04 dB of the image's 80.
    """

    images: np.ndarray
    row_of: dict[Utterance, int]
    column_of: dict[str, int]

    def select(self, samples: Sequence[Sample]) -> "Images":
        """The images of these samples, in this order."""
        positions = [
            self.row_of[sample.utterance] * len(self.column_of) + self.column_of[sample.version] for sample in samples
        ]
        height, width = self.images.shape[2:]
        flat = torch.from_numpy(self.images.reshape(-1, 1, height, width))
        return Images(flat, torch.tensor(positions, dtype=torch.long))


@dataclass(frozen=True)
class Images:
    """Some images of a pool; `images[indices]` reads only those."""

    store: Tensor  # (all, 1, n_mels, width) float16
    positions: Tensor  # (len,) int64

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """(n,) int64 -> (n, 1, n_mels, width) float32, on the store's device."""
        return self.store[self.positions[indices.to(self.positions.device)]].float()

    def to(self, device: torch.device) -> "Images":
        """Copy these images, and no others, to a device; on the CPU they stay on disk."""
        if device.type == "cpu":
            return self
        return Images(self.store[self.positions].to(device), torch.arange(len(self), device=device))


def make_pool(utterances: Sequence[Utterance], front_end: FrontEnd, augment: Augment, cache: Path) -> Pool:
    """Open the images of a corpus, computing first those that are not on disk yet, or damaged there.

    Parameters
    ----------
    utterances : sequence of Utterance
        The corpus.
    front_end : FrontEnd
        Settings of the image.
    augment : Augment
        Settings of the versions.
    cache : Path
        A folder; the file's name is a hash of the settings and of the content of every recording.

    Returns
    -------
    Pool
        Its images are read-only for all practical purposes: what is written to them never reaches the disk.
    """
    hashes = _hashes(utterances)
    versions = {key: value for key, value in asdict(augment).items() if key != "online"}
    settings = {"format": FORMAT, "front_end": asdict(front_end), "augment": versions, "content": hashes}
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:24]
    path = cache / f"{key}.npy"
    shape = (len(utterances), len(augment.versions), front_end.n_mels, front_end.width)
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # runs started together compute one corpus once
        images = _opened(path, shape)
        if images is None:
            _compute(utterances, hashes, front_end, augment, path, shape)
            images = np.lib.format.open_memmap(path, mode="c")
    rows = {utterance: row for row, utterance in enumerate(utterances)}
    return Pool(images, rows, {name: column for column, name in enumerate(augment.versions)})


def _hashes(utterances: Sequence[Utterance]) -> list[str]:
    """A hash of the content of every recording; of a part of one, of which part it is as well."""
    of_file: dict[Path, str] = {}
    for path in dict.fromkeys(utterance.path for utterance in utterances):
        with path.open("rb") as file:
            of_file[path] = hashlib.file_digest(file, "sha256").hexdigest()

    def told(utterance: Utterance) -> str:
        whole, fragment = of_file[utterance.path], utterance.part.fragment
        return hashlib.sha256(f"{whole}{fragment}".encode()).hexdigest() if fragment else whole

    return [told(utterance) for utterance in utterances]


def _opened(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The images of a file; None if it is not there, or damaged: it is then written anew, as a cache may be."""
    try:
        images = np.lib.format.open_memmap(path, mode="c")
    except FileNotFoundError:
        return None
    except OSError:  # a disk that fails, or a file of somebody else: no reason to write over it
        raise
    # numpy's errors for a damaged header have no common base below Exception
    except Exception:
        return None
    return images if images.shape == shape and images.dtype == np.float16 else None


def _done(progress: Path, partial: Path, shape: tuple[int, ...]) -> int:
    """How many clips an interrupted computation has left; 0 if what it left is damaged."""
    # opened for writing, a file that was cut short would be filled up with zeros, and pass for whole
    if not progress.exists() or _opened(partial, shape) is None:
        return 0
    try:
        done = int(progress.read_text())
    except ValueError:
        return 0
    return done if 0 <= done <= shape[0] else 0


def _compute(
    utterances: Sequence[Utterance],
    hashes: Sequence[str],
    front_end: FrontEnd,
    augment: Augment,
    path: Path,
    shape: tuple[int, ...],
) -> None:
    """Fill the file chunk by chunk; it takes its final name only when it is whole."""
    partial, progress = path.with_suffix(".partial.npy"), path.with_suffix(".progress")
    done = _done(progress, partial, shape)
    if not done:
        progress.unlink(missing_ok=True)  # which would soon stand beside a new file, and count what that does not hold
    mode = "r+" if done else "w+"
    images = np.lib.format.open_memmap(partial, mode=mode, dtype=np.float16, shape=None if done else shape)
    log_mel = LogMel(front_end).eval()

    def clip(index: int) -> np.ndarray:
        return _versions(utterances[index].sound, hashes[index], log_mel, augment)

    with (
        tqdm(total=len(utterances), initial=done, desc="images", unit="clip", disable=None) as bar,
        ThreadPoolExecutor(cores()) as threads,
    ):
        for first in range(done, len(utterances), CHUNK):
            chunk = range(first, min(first + CHUNK, len(utterances)))
            for index, result in zip(chunk, threads.map(clip, chunk), strict=True):
                images[index] = result
                bar.update()
            images.flush()
            write_whole(progress, str(chunk.stop))
    del images
    os.replace(partial, path)
    progress.unlink()


@torch.inference_mode()
def _versions(sound: Path | Part, content: str, log_mel: LogMel, augment: Augment) -> np.ndarray:
    """(versions, n_mels, width) float16. What is drawn at random depends on the recording's content alone."""
    waveform = resample(*read(sound), log_mel.config.sampling_rate)
    rngs = {name: np.random.default_rng([int(content[:12], 16), k]) for k, name in enumerate(("speed", "noise"))}
    waveforms = [
        version(waveform, name, augment, log_mel.config, rngs.get(name, np.random.default_rng(0)))
        for name in augment.versions
    ]
    return log_mel(torch.from_numpy(np.stack(waveforms)))[:, 0].to(torch.float16).numpy()
