"""What the server takes on, and how it says no."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

KEEP_ALIVE_S = 75  # a connection without a request is closed; longer than proxies keep theirs, which is 60 s
HEAD_S = 10  # for the head of the first request on a connection
LINGER_S = 2.0  # what is left of a body that was refused is read for so long
STALLED_S = 20  # sent, but not taken by the client; its connection is dropped then


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and all of them together.

    Attributes
    ----------
    max_bytes : int
        Of one body.
    max_held_bytes : int
        Of all bodies in memory.
    max_duration_s : float
        Of one recording.
    max_windows : int
        Of one recording.
    max_detailed_windows : int
        Of one recording, where pictures are asked for.
    max_files : int
        In one batch.
    max_waiting : int
        Requests that are being answered or wait for it.
    timeout_s : float
        For a body to arrive, and again for its answer.
    max_streams : int
        WebSockets at a time.
    max_message_bytes : int
        Of one WebSocket message.
    min_stream_hop_s : float
        Between two answers of a stream.
    idle_s : float
        Without a message, and a stream is closed.
    """

    max_bytes: int = 64_000_000
    max_held_bytes: int = 512_000_000
    max_duration_s: float = 600.0
    max_windows: int = 2000
    max_detailed_windows: int = 60
    max_files: int = 64
    max_waiting: int = 256
    timeout_s: float = 60.0
    max_streams: int = 64
    max_message_bytes: int = 1_000_000
    min_stream_hop_s: float = 0.1
    idle_s: float = 60.0


def limits_of(given: Mapping[str, Any]) -> Limits:
    """Take limits that were given, and the usual ones for those that are None.

    Parameters
    ----------
    given : mapping of str to int, float or None
        By the names of `Limits`.

    Returns
    -------
    Limits
        All of them.

    Raises
    ------
    ValueError
        If one is not positive.
    """
    for name, value in given.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"--{name.replace('_', '-')} {value:g}: give a positive number")
    limits = Limits(**{name: value for name, value in given.items() if value is not None})
    return replace(limits, max_held_bytes=max(limits.max_held_bytes, limits.max_bytes))  # one body can always be held


def check_origins(origins: Iterable[str]) -> None:
    """Refuse what no browser names as the origin of a page.

    Parameters
    ----------
    origins : iterable of str
        Such as `https://example.org`; `*` is any, `null` one that a browser keeps to itself, as that of a file.

    Raises
    ------
    ValueError
        Names the first that is something else.
    """
    for origin in origins:
        if not re.fullmatch(r"\*|null|[a-z][a-z0-9+.-]*://[^\sA-Z/?#@]+", origin):
            raise ValueError(f"--allow-origin {origin}: give scheme and host alone, such as https://example.org, or *")


def is_welcome(connection: HTTPConnection, origins: Iterable[str]) -> bool:
    """Tell whether whoever asks may: browsers let any page open streams and send forms, and say which it is.

    Parameters
    ----------
    connection : HTTPConnection
        A request, or a WebSocket that is not accepted yet.
    origins : iterable of str
        Such as `https://example.org`, beside the server's own; `*` is any.

    Returns
    -------
    bool
        True also for clients that are no browsers.
    """
    headers = connection.headers
    origin = headers.get("origin")
    if origin is None or not {origin, "*"}.isdisjoint(origins) or headers.get("sec-fetch-site") == "same-origin":
        return True
    try:
        return urlsplit(origin).netloc == headers.get("host")
    except ValueError:  # no address at all
        return False


class Refused(Exception):
    """A request that gets no answer.

    Parameters
    ----------
    status : int
        Of HTTP.
    code : str
        For programs.
    message : str
        For people: what was wrong, and what to do.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    @property
    def body(self) -> dict[str, dict[str, str]]:
        """The error as it is sent."""
        return {"error": {"code": self.code, "message": self.message}}

    @property
    def headers(self) -> dict[str, str]:
        """Of the response, beside those that all have."""
        if self.status == 503:
            return {"Retry-After": "1"}
        return {"Connection": "close"} if self.status == 408 else {}
