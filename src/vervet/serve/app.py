"""The application: what is asked under which address, and how it is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRouter
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Scope

from vervet import __version__
from vervet.predict import Predictor
from vervet.serve import schema
from vervet.serve.body import received
from vervet.serve.limits import Refused, check_origins, is_welcome
from vervet.serve.metrics import GONE, Observed
from vervet.serve.recording import Upload, Wanted
from vervet.serve.schema import faults, responses
from vervet.serve.service import Service
from vervet.serve.streams import converse

PAGE = Path(__file__).parent / "page"
ABOUT = """\
Emotion in speech. Recordings are WAV, FLAC, Ogg or MP3. Errors are `{"error": {"code", "message"}}`.

Live audio goes to the WebSocket `/v1/stream?sampling_rate=16000&channels=1&pcm=s16le&hop_s=1`: binary messages of PCM
in, a JSON message `{"start_s", "end_s", "label", "scores"}` for every hop out. The text message `end` has what is left
answered, and ends it. More settings are `window_s`, `smoothing_s`, `threshold`, `gate_db` (a number, or `none`) and
`adapt`.

No audio is kept or logged.
"""

router = APIRouter()


def create_app(service: Service, origins: Sequence[str] = ()) -> ASGIApp:
    """Make the application.

    Parameters
    ----------
    service : Service
        That answers.
    origins : sequence of str
        Pages of other servers that may ask, such as `https://example.org`; `*` is all.

    Returns
    -------
    ASGI application
        For uvicorn.

    Raises
    ------
    ValueError
        If an origin is none.
    """
    check_origins(origins)
    # its pages of documentation load scripts from elsewhere
    app = FastAPI(
        title="Vervet", version=__version__, description=ABOUT, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.service, app.state.origins = service, origins
    app.include_router(router)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_such)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _fault)
    if (PAGE / "index.html").is_file():
        # mounted, it would take the addresses above as well where they are asked by another method
        app.router.default = _Page(directory=PAGE, html=True)
    else:
        app.add_api_route("/", _no_page, methods=["GET", "HEAD"], include_in_schema=False)
    asked: ASGIApp = app
    if origins:  # around all of it, so that the answer for a fault may be read as well
        asked = CORSMiddleware(
            app, origins, allow_methods=["GET", "POST"], allow_headers=["*"], expose_headers=["Retry-After"]
        )
    return Observed(asked, service.metrics)


@router.post(
    "/v1/predict",
    response_model=schema.Recording,
    responses=responses(schema.RECORDING, 400, 403, 408, 413, 415, 422, 503),
    openapi_extra=schema.request("file", raw=True),
)
async def predict(request: Request) -> Response:
    """Recognise the emotion in one recording, window by window.

    The body is the bytes of a file, or multipart with one part `file`.
    """
    service: Service = request.app.state.service
    wanted = _wanted(request, service.predictor)
    async with (
        received(request, "file", 1, service.limits, service.held) as [upload],
        service.admitted(request),
    ):
        return _json(await service.answer(upload, wanted))


@router.post(
    "/v1/predict/batch",
    response_model=schema.Batch,
    responses=responses({"results": [schema.RECORDING, schema.FAULTY]}, 400, 403, 408, 413, 415, 422, 503),
    openapi_extra=schema.request("files", raw=False),
)
async def predict_batch(request: Request) -> Response:
    """Recognise the emotion in several recordings.

    The body is multipart with parts `files`. There is a result for each, in their order; one that has no answer has an
    error instead, and stops none of the others.
    """
    service: Service = request.app.state.service
    wanted = _wanted(request, service.predictor)
    at_once = asyncio.Semaphore(service.jobs)  # a batch takes no more turns than there are threads

    async def result(upload: Upload) -> dict[str, Any]:
        try:
            async with at_once:
                return await service.answer(upload, wanted)
        except Refused as refused:
            return {"file": upload.name, **refused.body}

    async with (
        received(request, "files", service.limits.max_files, service.limits, service.held) as uploads,
        service.admitted(request),
    ):
        return _json({"results": await asyncio.gather(*map(result, uploads))})


@router.websocket("/v1/stream")
async def stream(websocket: WebSocket) -> None:
    """Hear live audio; see `vervet.serve.streams`."""
    if is_welcome(websocket, websocket.app.state.origins):
        await converse(websocket, websocket.app.state.service)
    else:
        await websocket.close()  # refused with 403 where it was not accepted


@router.head("/v1/model", include_in_schema=False)
@router.get("/v1/model", response_model=schema.Model)
async def model(request: Request) -> Response:
    """Describe the model, and what one may ask of it here."""
    service: Service = request.app.state.service
    card = service.predictor.card
    return _json(
        {
            "labels": service.predictor.labels,
            "sampling_rate": service.predictor.sampling_rate,
            "duration_s": service.predictor.duration_s,
            "band_hz": service.predictor.band_hz,
            "network": card.get("network"),
            "corpora": card.get("corpora") or [],
            "protocol": card.get("protocol"),
            "leaky": card.get("leaky"),
            "digest": service.predictor.digest,
            "version": __version__,
            "uncertain_below": card.get("uncertain_below"),
            "limits": asdict(service.limits),
        }
    )


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", responses=responses({"status": "ok"}))
async def healthz(request: Request) -> Response:
    """Tell whether the server works; if not, it should be started anew."""
    alive = request.app.state.service.work.alive
    return _json({"status": "ok" if alive else "a thread has died"}, 200 if alive else 500)


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses=responses({"status": "ready"}, 503))
async def readyz(request: Request) -> Response:
    """Tell whether the server should be sent requests; not while it shuts down."""
    if request.app.state.service.draining:
        raise Refused(503, "shutting_down", "the server is shutting down; ask another one")
    return _json({"status": "ready"})


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Count requests, windows and what is going on, for Prometheus."""
    if request.method == "HEAD":  # the text takes a millisecond
        response = Response(media_type=CONTENT_TYPE_LATEST)
        del response.headers["content-length"]  # which is not that of the text
        return response
    return Response(request.app.state.service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


class _Page(StaticFiles):
    """The page; asked for anew after an upgrade."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if scope["method"] not in ("GET", "HEAD") and self.lookup_path(path)[1] is None:
            raise HTTPException(404)  # another method would not help
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


async def _no_page() -> PlainTextResponse:
    return PlainTextResponse("Vervet: POST a recording to /v1/predict; /openapi.json says what else there is.\n")


def _wanted(request: Request, predictor: Predictor) -> Wanted:
    """Settings in the query. FastAPI would read them too, in a quarter of the time that a request takes it."""
    if not is_welcome(request, request.app.state.origins):
        page = request.headers["origin"]
        raise Refused(403, "invalid_request", f"a page of {page} asks, and --allow-origin does not name it")
    try:
        asked = schema.Asked.model_validate(schema.once(request.query_params))
        windowing = predictor.windowing(asked.window_s, asked.hop_s)
        return Wanted(*windowing, asked.speech_only, asked.channel, asked.detail)
    except ValidationError as error:
        raise Refused(422, "invalid_request", faults(error.errors())) from error
    except ValueError as error:
        raise Refused(422, "invalid_request", str(error)) from error


def _json(content: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """ASCII throughout: the name of a file may hold what UTF-8 cannot."""
    return Response(json.dumps(content), status, headers, media_type="application/json")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _json(error.body, error.status, error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _refused(request, Refused(422, "invalid_request", faults(error.errors())))


async def _no_such(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}; /openapi.json says what there is"
    response = await _refused(request, Refused(error.status_code, "invalid_request", message))
    response.headers.update(error.headers or {})
    if response.headers.get("allow") == "GET":  # HEAD has a route of its own
        response.headers["allow"] = "GET, HEAD"
    return response


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=GONE)


async def _fault(request: Request, error: Exception) -> Response:
    return await _refused(request, Refused(500, "internal", "a fault of Vervet; please report it with the file"))
