"""The shapes of requests and answers, as OpenAPI describes them. Answers are written without them, for speed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.datastructures import QueryParams


class Asked(BaseModel):
    """Settings of a prediction; an unknown one is refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    window_s: float | None = Field(None, description="Seconds per window, at most the model's own, the default.")
    hop_s: float | None = Field(None, description="Seconds between two windows; the window where not given.")
    speech_only: bool = Field(False, description="Leave out windows in which nobody speaks, and not only silent ones.")
    channel: int | None = Field(None, ge=0, description="Hear this one alone, 0 is the first; else the mean.")
    detail: bool = Field(False, description="With the picture that the network saw, and where it looked.")


class AskedStream(BaseModel):
    """Settings of a stream; an unknown one is refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    sampling_rate: int = 16_000
    channels: int = 1
    pcm: str = "s16le"
    window_s: float | None = None
    hop_s: float = 1.0
    smoothing_s: float = 1.0
    threshold: float | None = None
    gate_db: float | None = 9.0
    adapt: bool = False

    @field_validator("gate_db", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return None if value == "none" else value


class LogMel(BaseModel):
    """The picture of a window."""

    n_mels: int = Field(description="Rows, the lowest band first.")
    columns: int = Field(description="Columns that the window fills; padding is left out.")
    data: str = Field(description="Base64 of n_mels x columns bytes, row by row; 255 stands for 1.0.")


class Window(BaseModel):
    """What the model hears in one window."""

    start_s: float = Field(description="In seconds from the start of the recording.")
    end_s: float
    label: str = Field(description="The emotion with the highest probability.")
    confidence: float = Field(description="Its probability.")
    uncertain: bool = Field(
        description="The confidence is below the model's own threshold: more likely wrong than right."
    )
    scores: dict[str, float] = Field(description="The probability of every emotion.")
    log_mel: LogMel | None = Field(None, description="Only with detail.")
    attention: list[float] | None = Field(None, description="Only with detail: a share per column, which sum to 1.")


class Recording(BaseModel):
    """The answer for one recording."""

    file: str = Field(description="The name of the part, or `<bytes>`.")
    duration_s: float
    predictions: list[Window] = Field(description="In order of time; what is silent, or not asked for, is left out.")
    problem: str = Field(description="Names silent stretches; empty if there are none.")


class Fault(BaseModel):
    """What was wrong."""

    code: str = Field(description="For programs.")
    message: str = Field(description="For people: what was wrong, and what to do.")


class Error(BaseModel):
    """The answer for a request that was refused."""

    error: Fault


class FaultyFile(Error):
    """The answer for a recording of a batch that has none."""

    file: str


class Batch(BaseModel):
    """The answers for several recordings, in their order."""

    results: list[Recording | FaultyFile]


class Model(BaseModel):
    """The model, and what one may ask of it here."""

    labels: list[str]
    sampling_rate: int = Field(description="In Hz, after resampling; recordings may have another.")
    duration_s: float = Field(description="What the model hears at once, in seconds.")
    band_hz: list[float] = Field(description="From where to where the bands of its pictures reach.")
    network: str | None
    corpora: list[str]
    protocol: str | None
    leaky: bool | None = Field(description="Whether its own test score was measured on clips of its training.")
    digest: str = Field(description="SHA-256 of the model's file.")
    version: str = Field(description="Of Vervet.")
    uncertain_below: float | None = Field(description="A confidence below this makes a prediction uncertain.")
    limits: dict[str, float]


RECORDING = {
    "file": "15a02Wb.flac",
    "duration_s": 1.807187,
    "predictions": [
        {
            "start_s": 0.0,
            "end_s": 1.807187,
            "label": "anger",
            "confidence": 0.9635,
            "uncertain": False,
            "scores": {
                "anger": 0.9635,
                "boredom": 0.0009,
                "disgust": 0.0107,
                "fear": 0.0059,
                "happiness": 0.0114,
                "neutral": 0.0032,
                "sadness": 0.0045,
            },
        }
    ],
    "problem": "",
}
FAULTY = {
    "file": "hall.wav",
    "error": {
        "code": "unreadable_audio",
        "message": "hall.wav: only 0.050 s of sound, too short to judge; give at least 0.1 s",
    },
}
ERRORS = {
    400: ("invalid_request", "<bytes>: is empty (0 bytes); send the bytes of a recording"),
    403: ("invalid_request", "a page of https://example.org asks, and --allow-origin does not name it"),
    408: ("timeout", "the body was not there after 60 s; send less, or compress it as FLAC"),
    413: (
        "too_long",
        "talk.flac: lasts 724.0 s, and 600 s are answered here; send it in parts, or use 'vervet predict'",
    ),
    415: (
        "unreadable_audio",
        "<bytes>: not audio that can be decoded (it begins like no known format); convert it to WAV, FLAC, Ogg or MP3",
    ),
    422: (
        "unreadable_audio",
        "<bytes>: silent (below -80 dBFS) in 0.00 to 2.00 s; no answer there, check the recording",
    ),
    503: ("busy", "256 requests are waiting already; try again in a second"),
}
MEANING = {
    400: "The body is empty, or no proper multipart.",
    403: "A page of another server asks, which this one does not allow.",
    408: "The body did not arrive in time.",
    413: "The body is too large, or the recording too long.",
    415: "No decoder takes this for a recording.",
    422: "A setting is wrong, or the recording is damaged, silent throughout or too short.",
    503: "Too much to do, or not answered in time; `Retry-After` says when to try again.",
}


def faults(errors: Iterable[Any]) -> str:
    """Say what is wrong with settings.

    Parameters
    ----------
    errors : iterable of dict
        From pydantic.

    Returns
    -------
    str
        Each setting by its name, and what is wrong with it.
    """
    told = {"extra_forbidden": "is no setting here; /openapi.json says which are"}
    return "; ".join(f"{error['loc'][-1]}: {told.get(error['type'], error['msg'])}" for error in errors)


def once(query: QueryParams) -> dict[str, str]:
    """Take the settings of a query.

    Parameters
    ----------
    query : QueryParams
        What stands behind the question mark.

    Returns
    -------
    dict
        From name to value.

    Raises
    ------
    ValueError
        If one is given twice.
    """
    given = query.multi_items()
    if len(query) < len(given):
        names = [name for name, _ in given]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)}: is given twice")
    return dict(given)


def responses(example: dict[str, Any], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the responses of a route.

    Parameters
    ----------
    example : dict
        The answer, if all is well.
    *statuses : int
        Those of errors.

    Returns
    -------
    dict
        For FastAPI.
    """
    described: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"example": example}}}}
    for status in statuses:
        code, message = ERRORS[status]
        described[status] = {
            "model": Error,
            "description": MEANING[status],
            "content": {"application/json": {"example": {"error": {"code": code, "message": message}}}},
        }
    return described


def request(field: str, raw: bool) -> dict[str, Any]:
    """Describe what is sent: settings in the query, recordings in the body.

    Parameters
    ----------
    field : str
        Name of the part, or of each of several, that is a recording.
    raw : bool
        Whether the body may also be the bytes of a file.

    Returns
    -------
    dict
        For the `openapi_extra` of FastAPI.
    """
    settings = Asked.model_json_schema()["properties"]
    binary = {"type": "string", "format": "binary"}
    part = binary if raw else {"type": "array", "items": binary}
    form = {"schema": {"type": "object", "required": [field], "properties": {field: part}}}
    content = {"multipart/form-data": form} | ({"application/octet-stream": {"schema": binary}} if raw else {})
    return {
        "parameters": [{"name": name, "in": "query", "schema": settings[name]} for name in settings],
        "requestBody": {"required": True, "content": content},
    }
