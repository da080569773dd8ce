"""Emotion in speech, with a vision transformer small enough for any CPU.

>>> import vervet
>>> predictor = vervet.load()  # doctest: +SKIP
>>> predictor("talk.wav")  # doctest: +SKIP
[Prediction(file='talk.wav', start_s=0.0, end_s=1.87, label='anger', scores={'anger': 0.93, ...})]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from vervet.predict import Prediction, Predictor

__version__ = "0.1.0"
__all__ = ["Prediction", "__version__", "load"]


def load(model: str | Path | None = None, *, threads: int | None = None) -> Predictor:
    """Load a model that predicts emotions.

    Parameters
    ----------
    model : str or pathlib.Path, optional
        An exported `.onnx` file, a run folder that holds `model.onnx`, or the name of a shipped model; the shipped
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


def __getattr__(name: str) -> Any:
    # ONNX Runtime takes longer to import than all else together, and `import vervet` should cost nothing
    if name == "Prediction":
        from vervet.predict import Prediction

        return Prediction
    raise AttributeError(f"module 'vervet' has no attribute {name!r}")
