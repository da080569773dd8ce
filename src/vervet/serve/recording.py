"""One recording, from its bytes to the JSON that answers for it; a job for `vervet.serve.work`."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from vervet import audio
from vervet.predict import Predictor
from vervet.serve.limits import Limits, Refused
from vervet.serve.work import Steps
from vervet.speech import Pauses


class Upload(io.BytesIO):
    """The bytes of a recording, which can be taken away from a decoder in the middle of its work.

    Parameters
    ----------
    content : bytes
        The file.
    name : str
        For answers and messages.
    """

    def __init__(self, content: bytes, name: str = "<bytes>") -> None:
        super().__init__(content)
        self.name = name
        self.given_up = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file, until it is given up."""
        if self.given_up:
            raise OSError("given up")
        return super().read(size)


@dataclass(frozen=True)
class Wanted:
    """What is asked about a recording."""

    window_s: float  # this and the next from `Predictor.windowing`
    hop_s: float
    speech_only: bool  # leave out windows in which nobody speaks
    channel: int | None  # the only one that is heard
    detail: bool  # each window comes with its picture and the attention on it


def answer(predictor: Predictor, upload: Upload, wanted: Wanted, limits: Limits) -> Steps[dict[str, Any]]:
    """Predict the emotion in one recording, window by window.

    Parameters
    ----------
    predictor : Predictor
        The model.
    upload : Upload
        The recording.
    wanted : Wanted
        What is asked about it.
    limits : Limits
        Those on length are held here.

    Yields
    ------
    vervet.audio.Window or None
        A window to be judged, or None for one that is left out.

    Returns
    -------
    dict
        What `/v1/predict` answers.

    Raises
    ------
    Refused
        If the recording is too long, unreadable or silent throughout, lacks the channel, or nobody speaks.
    """
    if not upload.getbuffer().nbytes:
        raise Refused(400, "invalid_request", f"{upload.name}: is empty (0 bytes); send the bytes of a recording")
    predictions, pauses = [], Pauses(predictor.sampling_rate, wanted.speech_only)
    sound = audio.Part(upload, channel=wanted.channel)
    try:
        with audio.opened(sound) as recording:
            duration_s = recording.duration_s
            _check_length(upload.name, duration_s, wanted, limits)
            for window in recording.windows(predictor.sampling_rate, wanted.window_s, wanted.hop_s):
                if pauses.skip(window):
                    yield None
                    continue
                prediction = yield window
                assert prediction
                record = prediction.to_dict()
                del record["file"]  # the answer has it once
                predictions.append(record | view(predictor, window.waveform) if wanted.detail else record)
    except audio.NoSuchPart as error:
        raise Refused(422, "invalid_request", str(error)) from error
    except audio.NotAudio as error:
        raise Refused(415, "unreadable_audio", str(error)) from error
    except ValueError as error:
        raise Refused(422, "unreadable_audio", str(error)) from error
    problem = pauses.problem(upload.name, bool(predictions))
    if not predictions:
        raise Refused(422, "unreadable_audio", problem)
    return {"file": upload.name, "duration_s": round(duration_s, 6), "predictions": predictions, "problem": problem}


def view(predictor: Predictor, waveform: np.ndarray) -> dict[str, Any]:
    """Show what the network saw of a window, and where it looked.

    Parameters
    ----------
    predictor : Predictor
        The model.
    waveform : numpy.ndarray
        (samples,) float32 in [-1, 1].

    Returns
    -------
    dict
        `log_mel`: `n_mels`, `columns` and `data`, uint8 of shape (n_mels, columns) in base64, the lowest band first and
        255 for 1.0; `attention`: one share for each column, which sum to 1. Columns of padding are left out.
    """
    views = predictor.run([waveform], ("attention", "log_mel"))
    attention, image = views["attention"][0], views["log_mel"][0]
    filled = min(1.0, len(waveform) / (predictor.sampling_rate * predictor.duration_s))
    columns = max(1, math.ceil(filled * image.shape[1]))
    wide = math.ceil(image.shape[1] / len(attention))  # a patch of several columns counts for each of them
    shares = np.repeat(attention.astype(np.float64), wide)[:columns]
    pixels = np.rint(np.clip(image[:, :columns], 0, 1) * 255).astype(np.uint8)
    return {
        "log_mel": {
            "n_mels": len(pixels),
            "columns": columns,
            "data": base64.b64encode(pixels.tobytes()).decode("ascii"),
        },
        "attention": (shares / shares.sum()).tolist(),
    }


def _check_length(name: str, duration_s: float, wanted: Wanted, limits: Limits) -> None:
    if duration_s > limits.max_duration_s:
        raise Refused(
            413,
            "too_long",
            f"{name}: lasts {duration_s:.1f} s, and {limits.max_duration_s:g} s are answered here; "
            "send it in parts, or use 'vervet predict'",
        )
    window_s, hop_s = wanted.window_s, wanted.hop_s
    windows = 1 + max(0, math.ceil((duration_s - max(window_s, hop_s)) / hop_s - 1e-9))
    most = limits.max_detailed_windows if wanted.detail else limits.max_windows
    if windows > most:
        raise Refused(
            422,
            "invalid_request",
            f"{name}: has {windows} windows, and {most} are answered at once{' with detail' if wanted.detail else ''}; "
            f"choose a hop of {_least_hop_s(duration_s, window_s, most):g} s or more",
        )


def _least_hop_s(duration_s: float, window_s: float, most: int) -> float:
    """The shortest hop, in whole milliseconds, with no more than `most` windows."""
    hop_s = (duration_s - window_s) / (most - 1) if most > 1 else duration_s
    return math.ceil(min(max(hop_s, 0.001), duration_s) * 1000) / 1000
