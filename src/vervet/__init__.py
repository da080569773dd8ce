"""Emotion in speech, with a vision transformer small enough for any CPU.

>>> import vervet
>>> predictor = vervet.load()  # doctest: +SKIP
>>> predictor("talk.wav")  # doctest: +SKIP
[Prediction(file='talk.wav', start_s=0.0, end_s=1.87, label='anger', scores={'anger': 0.93, ...})]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy as np

    from vervet.audio import Sound
    from vervet.predict import Prediction, Predictor

__version__ = "0.1.0"
__all__ = ["Prediction", "__version__", "embed", "load"]


def load(model: str | Path | None = None, *, threads: int | None = None) -> Predictor:
    """Load a model that predicts emotions.

    Parameters
    ----------
    model : str or pathlib.Path, optional
        An exported `.onnx` file, a folder that holds `model.onnx`, such as a run, `owner/model` or
        `owner/model@revision` of the Hugging Face Hub (extra `hub`), or the name of a shipped model; the shipped
        default where not given.
    threads : int, optional
        CPU threads of one run of the network; as many as there are cores where not given.

    Returns
    -------
    vervet.predict.Predictor
        Called with a recording, it returns a list of `Prediction`.

    Raises
    ------
    ValueError
        If there is no such model, or it is not a Vervet model.
    """
    from vervet import predict

    return predict.load(model, threads=threads)


def embed(
    sources: Sound | Iterable[Sound], model: str | Path | Predictor | None = None, *, jobs: int | None = None
) -> np.ndarray:
    """Give the features of recordings: what the network's last layer reads, for classifiers of one's own.

    Parameters
    ----------
    sources : path, bytes, binary file, (waveform, sampling_rate), or an iterable of these
        One recording or several, each as for `vervet.audio.read`.
    model : str, pathlib.Path or vervet.predict.Predictor, optional
        As for `load`, or what that has returned, which need not be loaded again.
    jobs : int, optional
        Recordings at a time; as many as there are cores where not given; -1 is all cores, -2 all but one.

    Returns
    -------
    numpy.ndarray
        (recordings, features) float32, 256 features of the shipped model. The row of a recording longer than the
        model's window is the mean over its windows, each weighted by its duration.

    Raises
    ------
    ValueError
        If any recording cannot be read or is silent throughout; the message names it.
    """
    from vervet import embedding

    return embedding.embed(sources, model, jobs=jobs)


def __getattr__(name: str) -> Any:
    # ONNX Runtime takes longer to import than all else together, and `import vervet` should cost nothing
    if name == "Prediction":
        from vervet.predict import Prediction

        return Prediction
    raise AttributeError(f"module 'vervet' has no attribute {name!r}")
