"""What the server counts, and the wrapper around the application that counts it. Nothing here names a file."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vervet import __version__
from vervet.predict import Predictor
from vervet.serve.limits import Refused

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
GONE = 499  # as nginx counts requests whose client went away
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob: data:; "
        b"connect-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        b"frame-ancestors 'none'",
    ),
]

logger = logging.getLogger("vervet.serve")


class Metrics:
    """Counts for Prometheus.

    Parameters
    ----------
    predictor : Predictor
        Described by `vervet_build_info`.
    gauges : iterable of (name, help, function)
        Values that are asked for when they are read.
    """

    def __init__(self, predictor: Predictor, gauges: Iterable[tuple[str, str, Callable[[], float]]]) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("vervet_requests", "Requests answered", ["route", "status"], registry=registry)
        self.seconds = Histogram(
            "vervet_request_seconds", "From the head of a request to its answer", ["route"], buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self.windows = Counter("vervet_windows", "Windows answered, by emotion", ["label"], registry=registry)
        for name, help, function in gauges:
            Gauge(name, help, registry=registry).set_function(function)
        card = predictor.card
        build = Gauge("vervet_build_info", "1", ["version", "model", "network", "protocol"], registry=registry)
        build.labels(__version__, predictor.digest, card.get("network", ""), card.get("protocol", "")).set(1)

    def text(self) -> bytes:
        """Write all counts in the text format of Prometheus."""
        return generate_latest(self._registry)


class Observed:
    """An application whose requests are counted, whose responses have headers of safety, and whose faults are logged.

    Parameters
    ----------
    app : ASGI application
        To wrap.
    metrics : Metrics
        To count in.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or one connection."""
        start_s = time.perf_counter()
        status = GONE

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *HEADERS]
            elif message["type"] == "websocket.accept":
                status = 101
            elif message["type"] == "websocket.close" and status == GONE:
                status = 403  # what the server makes of it
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except Exception as error:
            # the message of an error can hold the name of a file; where it was raised cannot
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error("a fault of Vervet, please report it: %s\n%s", type(error).__name__, where)
        except asyncio.CancelledError:  # the time to finish, after a signal, is over
            if scope["type"] == "http" and status == GONE:
                refused = Refused(503, "shutting_down", "the server has shut down; ask another one, or try again later")
                await JSONResponse(refused.body, refused.status, refused.headers)(scope, receive, send_on)
        finally:
            route = getattr(scope.get("route"), "path", None) or "other"
            self._metrics.requests.labels(route, status).inc()
            if scope["type"] == "http":
                self._metrics.seconds.labels(route).observe(time.perf_counter() - start_s)
