"""Bodies as they arrive: counted byte by byte, against a limit of their own and one for all of them, never on disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from vervet.serve.limits import LINGER_S, Limits, Refused
from vervet.serve.recording import Upload

NAME = 200  # characters of a file's name that are kept


@dataclass
class Held:
    """Bytes of bodies in memory."""

    most: int
    bytes: int = 0


@asynccontextmanager
async def received(request: Request, field: str, most: int, limits: Limits, held: Held) -> AsyncIterator[list[Upload]]:
    """Receive the recordings of a request, and hold them while they are answered.

    Parameters
    ----------
    request : Request
        Multipart, or raw bytes where one recording is expected.
    field : str
        Name of the parts that are recordings.
    most : int
        Recordings that may come.
    limits : Limits
        Those on bytes and time are held here.
    held : Held
        What all requests hold.

    Yields
    ------
    list of Upload
        At least one.

    Raises
    ------
    Refused
        If the body is too large, too slow, empty or no proper multipart, or if there is no room for it.
    ClientDisconnect
        If the client went away.
    """
    body = _Body(request, limits, held)
    try:
        try:
            async with asyncio.timeout(limits.timeout_s):
                uploads = await _uploads(request, body, field, most)
        except TimeoutError:
            message = f"the body was not there after {limits.timeout_s:g} s; send less, or compress it as FLAC"
            raise Refused(408, "timeout", message) from None
        except Refused:
            await body.read_on()
            raise
        yield uploads
    finally:
        held.bytes -= body.bytes


class _Body:
    """The body of a request, chunk by chunk."""

    def __init__(self, request: Request, limits: Limits, held: Held) -> None:
        self._request = request
        self._stream = request.stream()
        self._limits = limits
        self._held = held
        self.bytes = 0

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        limit, held = self._limits.max_bytes, self._held
        too_large = Refused(
            413, "too_large", f"the body is larger than {limit} bytes; send shorter recordings, or FLAC"
        )
        if int(self._request.headers.get("content-length", 0)) > limit:
            raise too_large
        async for chunk in self._stream:
            if self.bytes + len(chunk) > limit:
                raise too_large
            if held.bytes + len(chunk) > held.most:
                raise Refused(503, "busy", "too many recordings are being received; try again in a second")
            self.bytes += len(chunk)
            held.bytes += len(chunk)
            yield chunk

    async def read_on(self) -> None:
        """Read what is left, for a while: most clients see no answer before they have sent everything."""
        if "100-continue" in self._request.headers.get("expect", "").lower():
            return
        left = self._limits.max_bytes
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                async for chunk in self._stream:
                    left -= len(chunk)
                    if left < 0:
                        return


class _InMemory(MultiPartParser):
    spool_max_size = 0  # its word for no limit; beyond a limit it would write recordings to the disk
    ended = False  # whether the last boundary came; the parser itself takes a body that was cut off

    def on_end(self) -> None:
        self.ended = True


async def _uploads(request: Request, body: _Body, field: str, most: int) -> list[Upload]:
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        return await _parts(request, body, field, most)
    if field == "files":
        raise Refused(415, "invalid_request", "a batch is multipart/form-data with parts named 'files'")
    return [Upload(b"".join([chunk async for chunk in body.chunks()]))]


async def _parts(request: Request, body: _Body, field: str, most: int) -> list[Upload]:
    parser = _InMemory(request.headers, body.chunks(), max_files=most, max_fields=most)
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError, UnicodeError) as error:
        raise Refused(400, "invalid_request", f"the body is no proper multipart: {error}") from error
    if not parser.ended:
        what = "was cut off" if body.bytes else "is empty"
        raise Refused(400, "invalid_request", f"the body {what}, its last boundary is missing; send it again")
    uploads = []
    for name, part in form.multi_items():
        if name != field or not isinstance(part, UploadFile):
            what = "settings go into the query, as ?window_s=2" if not isinstance(part, UploadFile) else "rename it"
            raise Refused(
                422, "invalid_request", f"part {name[:NAME]!r}: only files named {field!r} are expected; {what}"
            )
        uploads.append(Upload(await part.read(), (part.filename or "<bytes>")[-NAME:]))
        await part.close()
    if not uploads:
        raise Refused(400, "invalid_request", f"no part is named {field!r}; send a recording under this name")
    return uploads
