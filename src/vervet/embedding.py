"""Recordings become features: what the network's last layer reads, for classifiers and searches of one's own."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from vervet.audio import Sound
from vervet.machine import cores
from vervet.predict import Predictor, load


def embed(
    sources: Sound | Iterable[Sound], model: str | Path | Predictor | None = None, *, jobs: int | None = None
) -> np.ndarray:
    """Give the features of recordings; see `vervet.embed`.

    Parameters
    ----------
    sources : path, bytes, binary file, (waveform, sampling_rate), or an iterable of these
        One recording or several, each as for `vervet.audio.read`.
    model : str, pathlib.Path or Predictor, optional
        As for `vervet.load`, or what that has returned, which need not be loaded again.
    jobs : int, optional
        Recordings at a time; as many as there are cores where not given.

    Returns
    -------
    numpy.ndarray
        (recordings, features) float32: a row for each recording, as `Predictor.embed` gives it.

    Raises
    ------
    ValueError
        If any recording has no feature; the message names it.
    """
    several: list[Any] = [sources] if _is_one(sources) else list(sources)  # type: ignore[arg-type]
    predictor = model if isinstance(model, Predictor) else load(model, threads=1)
    with ThreadPoolExecutor(jobs or cores()) as pool:
        rows = list(pool.map(predictor.embed, several))
    return np.array(rows, np.float32).reshape(-1, predictor.features)


def _is_one(sources: object) -> bool:
    """Tell one recording from several; a tuple is a pair of waveform and sampling rate unless it begins otherwise."""
    if isinstance(sources, tuple):
        return len(sources) == 2 and isinstance(sources[0], np.ndarray) and np.isscalar(sources[1])
    return isinstance(sources, str | os.PathLike | bytes | np.ndarray) or hasattr(sources, "read")
