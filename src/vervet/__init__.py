"""Emotion in speech, with a vision transformer small enough for any CPU.

>>> import vervet
>>> predictor = vervet.load()  # doctest: +SKIP
>>> predictor("talk.wav")  # doctest: +SKIP
[Prediction(file='talk.wav', start_s=0.0, end_s=1.87, label='anger', scores={'anger': 0.93, ...})]
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vervet.audio import Part
    from vervet.embedding import embed
    from vervet.predict import Prediction, load

__version__ = "0.1.0"
__all__ = ["Part", "Prediction", "__version__", "embed", "load"]

_HOMES = {
    "Part": "vervet.audio",
    "Prediction": "vervet.predict",
    "embed": "vervet.embedding",
    "load": "vervet.predict",
}


def __getattr__(name: str) -> Any:
    # ONNX Runtime takes longer to import than all else together, and `import vervet` should cost nothing
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vervet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
