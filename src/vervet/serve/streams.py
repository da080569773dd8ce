"""Live audio over a WebSocket: PCM in, an emotion for every hop out.

A chunk is taken when the one before it has been answered, so a client that sends faster than the server works is held
back by its connection, and one that does not take its answers is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from vervet.serve.limits import STALLED_S, Refused
from vervet.serve.schema import AskedStream, faults, once
from vervet.serve.service import Service
from vervet.serve.work import Steps
from vervet.stream import CONTAINERS, Heard, Stream, to_json

POLICY, FAULT, TRY_LATER = 1008, 1011, 1013  # codes that end a WebSocket


async def converse(websocket: WebSocket, service: Service) -> None:
    """Hear a client until it ends.

    Parameters
    ----------
    websocket : WebSocket
        Not accepted yet.
    service : Service
        With the model.
    """
    await websocket.accept()
    with suppress(WebSocketDisconnect):
        try:
            with service.streaming():
                await _hear(websocket, service, _open(websocket, service))
            await websocket.close()
        except Refused as refused:
            await _refuse(websocket, refused, TRY_LATER if refused.status == 503 else POLICY)
        except WebSocketDisconnect:
            raise
        except Exception:
            await _refuse(websocket, Refused(500, "internal", "a fault of Vervet; please report it"), FAULT)
            raise


async def _refuse(websocket: WebSocket, refused: Refused, code: int) -> None:
    await websocket.send_json(refused.body)
    await websocket.close(code)


def _open(websocket: WebSocket, service: Service) -> Stream:
    try:
        asked = AskedStream.model_validate(once(websocket.query_params))
        if asked.hop_s < service.limits.min_stream_hop_s:
            raise ValueError(f"hop of {asked.hop_s:g} s: choose at least {service.limits.min_stream_hop_s:g} s")
        return Stream(service.predictor, **asked.model_dump())
    except ValidationError as error:
        raise Refused(422, "invalid_request", faults(error.errors())) from error
    except ValueError as error:
        raise Refused(422, "invalid_request", str(error)) from error


async def _hear(websocket: WebSocket, service: Service, stream: Stream) -> None:
    begun = False
    while True:
        try:
            async with asyncio.timeout(service.limits.idle_s):
                message = await websocket.receive()
        except TimeoutError:
            raise Refused(408, "timeout", f"nothing came for {service.limits.idle_s:g} s; open it anew") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        chunk = message.get("bytes")
        if chunk is None and message.get("text") != "end":
            raise Refused(422, "invalid_request", "a text message that is not 'end'; send PCM as binary messages")
        if chunk and not begun and chunk.startswith(CONTAINERS):
            raise Refused(415, "unreadable_audio", "an audio file, not raw PCM; decode it, or send it to /v1/predict")
        begun = begun or bool(chunk)
        steps = _once(stream.finish) if chunk is None else _feed(stream, chunk)
        try:
            answers = await service.work.do(steps, live=True)
        except ValueError as error:
            raise Refused(422, "unreadable_audio", str(error)) from error
        await _tell(websocket, service, answers)
        if chunk is None:
            return


def _feed(stream: Stream, chunk: bytes) -> Steps[list[Heard]]:
    """Hear a chunk by hops, each about one run of the network, so that others have their turn in between."""
    heard = []
    size = round(stream.hop_s * stream.sampling_rate) * stream.channels * 2  # or half of it, where samples have 4 bytes
    for start in range(0, len(chunk), size):
        if start:
            yield None
        heard += stream.feed(chunk[start : start + size])
    return heard


def _once(function: Callable[[], list[Heard]]) -> Steps[list[Heard]]:
    return function()
    yield  # which makes it a generator


async def _tell(websocket: WebSocket, service: Service, answers: list[Heard]) -> None:
    for heard in answers:
        service.metrics.windows.labels(heard.label).inc()
        try:
            async with asyncio.timeout(STALLED_S):
                await websocket.send_text(to_json(heard))
        except TimeoutError:
            raise WebSocketDisconnect(POLICY) from None
