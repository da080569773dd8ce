"""Recordings become features: what the network's last layer reads, for classifiers and searches of one's own."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from vervet.audio import Sound, name_of
from vervet.machine import cores
from vervet.predict import Predictor, is_one, load


def embed(
    sources: Sound | Iterable[Sound], model: str | Path | Predictor | None = None, *, jobs: int | None = None
) -> np.ndarray:
    """Give the features of recordings: what the network's last layer reads, for classifiers of one's own.

    Parameters
    ----------
    sources : path, bytes, binary file, (waveform, sampling_rate), or an iterable of these
        One recording or several, each as for `vervet.audio.read`.
    model : str, pathlib.Path or Predictor, optional
        As for `vervet.load`, or what that has returned, which need not be loaded again.
    jobs : int, optional
        Recordings at a time; as many as there are cores where not given. A negative number counts back from that, as in
        scikit-learn: -1 is all cores, -2 all but one.

    Returns
    -------
    numpy.ndarray
        (recordings, features) float32, 256 features of the shipped model. The row of a recording longer than the
        model's window is the mean over its windows, each weighted by its duration.

    Raises
    ------
    ValueError
        If any recording has no feature, which the message then names, or `jobs` is 0 or no whole number.
    """
    threads = _threads(jobs)
    several: list[Any] = [sources] if is_one(sources) else list(sources)  # type: ignore[arg-type]
    predictor = model if isinstance(model, Predictor) else load(model, threads=1)

    def features(number: int) -> np.ndarray:
        try:
            return predictor.embed(several[number])
        except ValueError as error:
            named = len(several) == 1 or name_of(several[number]) not in ("<array>", "<bytes>", "<stream>")
            raise error if named else ValueError(f"recording {number}, counted from 0: {error}") from error

    with ThreadPoolExecutor(threads) as pool:
        rows = list(pool.map(features, range(len(several))))
    return np.array(rows, np.float32).reshape(-1, predictor.features)


def _threads(jobs: Any) -> int:
    if jobs is None:
        return cores()
    if not isinstance(jobs, int | np.integer) or isinstance(jobs, bool) or not jobs:
        raise ValueError(f"jobs {jobs!r}: give how many recordings at a time, -1 for one per core")
    return int(jobs) if jobs > 0 else max(1, cores() + 1 + int(jobs))
