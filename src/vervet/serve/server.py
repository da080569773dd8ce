"""The process: a socket, the server on it, and how it ends."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

import uvicorn
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from vervet.predict import Predictor
from vervet.serve.app import create_app
from vervet.serve.limits import HEAD_S, KEEP_ALIVE_S, STALLED_S, Limits, Refused
from vervet.serve.service import Service

BACKLOG = 2048  # connections that the system holds while the server is busy
MOST_FILES = 65_536  # connections that may be open, if the system allows it


def serve(
    predictor: Predictor,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    jobs: int = 1,
    limits: Limits | None = None,
    origins: Sequence[str] = (),
    root_path: str = "",
    grace_s: float = 0.0,
) -> None:
    """Answer requests until a signal ends it; then finish those that have begun.

    Parameters
    ----------
    predictor : Predictor
        Best loaded with `threads=1`.
    host, port : str, int
        Where to listen; port 0 is any that is free.
    jobs : int
        Windows that are in the network at a time, each on a core of its own.
    limits : Limits, optional
        What requests may ask for.
    origins : sequence of str
        As for `vervet.serve.app.create_app`.
    root_path : str
        Where a proxy has put the server, such as `/vervet`.
    grace_s : float
        After a signal, for so many seconds `/readyz` says 503 and requests are still taken.

    Raises
    ------
    ValueError
        If there are no jobs, or the time of grace is no time.
    OSError
        If the address cannot be listened on.
    """
    if jobs < 1:
        raise ValueError(f"{jobs} jobs: give at least 1")
    if not 0 <= grace_s < math.inf:
        raise ValueError(f"--grace-s {grace_s:g}: give seconds, 0 or more")
    limits = limits or Limits()
    listener = listen(host, port)
    _allow_many_files()
    service = Service(predictor, jobs, limits)
    try:
        Server(service, origins, root_path, grace_s).run([listener])
    finally:
        service.work.close()


def listen(host: str, port: int) -> socket.socket:
    """Open the socket of a server.

    Parameters
    ----------
    host, port : str, int
        Its address.

    Returns
    -------
    socket.socket
        That listens.

    Raises
    ------
    OSError
        If the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None) or 0
        why = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or error
        raise OSError(f"cannot listen on {host} port {port} ({why}); choose another --host or --port") from error
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # connections inherit it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_S * 1000)
    return listener


class Server(uvicorn.Server):
    """uvicorn's server, which also ends idle connections, ends well after a signal, and says where it is.

    Parameters
    ----------
    service, origins, root_path, grace_s
        As for `serve`.
    """

    def __init__(
        self, service: Service, origins: Sequence[str] = (), root_path: str = "", grace_s: float = 0.0
    ) -> None:
        for name in ("uvicorn.error", "python_multipart"):  # which tell of requests, the latter with bytes of bodies
            logging.getLogger(name).setLevel(logging.ERROR)
        config = uvicorn.Config(
            create_app(service, origins),
            http="h11",  # httptools is faster, but takes heads of any size
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            lifespan="off",
            root_path=root_path,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(service.limits.timeout_s),
            ws=_WebSocket,
            ws_max_size=service.limits.max_message_bytes,
            ws_per_message_deflate=False,  # PCM hardly shrinks, and a small message could become a large one
            ws_ping_timeout=None,  # of a client that sends ahead, the answer to a ping waits behind what it sent
        )
        super().__init__(config)
        self._service = service
        self._grace_s = grace_s
        self._leave_s = 0.0
        self._idle: WeakKeyDictionary[Any, tuple[object, float]] = WeakKeyDictionary()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say where."""
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            print(
                f"vervet serve: http://{f'[{host}]' if ':' in host else host}:{port} answers; Ctrl-C ends it",
                flush=True,
            )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; at once after a second signal. The signal is not raised again, as uvicorn would."""
        self.force_exit = self.should_exit = self._service.draining
        if not self._service.draining:
            self._service.draining = True
            self._leave_s = time.monotonic() + self._grace_s

    async def on_tick(self, counter: int) -> bool:
        """Look around, ten times a second."""
        if self._service.draining and time.monotonic() >= self._leave_s:
            self.should_exit = True
        if counter % 10 == 0:
            self._end_idle_connections()
        return await super().on_tick(counter)

    def _end_idle_connections(self) -> None:
        """End connections whose next request does not come; uvicorn waits for the head of one for ever."""
        now_s = time.monotonic()
        for connection in list(self.server_state.connections):
            cycle: Any = getattr(connection, "cycle", self)  # of a request and its response; a WebSocket has none
            if cycle is self or (cycle and not cycle.response_complete):
                self._idle.pop(connection, None)
                continue
            last, since_s = self._idle.get(connection, (self, now_s))
            if last is not cycle:
                since_s = now_s
            self._idle[connection] = cycle, since_s
            if now_s - since_s > (KEEP_ALIVE_S + 1 if cycle else HEAD_S):
                connection.transport.close()


class _WebSocket(WebSocketsSansIOProtocol):
    """uvicorn's, which also ends handshakes that are none, and takes no more memory for what comes in tiny pieces.

    It sends nothing to a client that has gone.
    """

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.send" and self.transport.is_closing():
            raise ClientDisconnected  # else asyncio would log each message that it cannot send
        await super().send(message)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc and not self.handshake_initiated:  # uvicorn would hold it for ever
            error = Refused(400, "invalid_request", f"no proper WebSocket handshake: {self.conn.handshake_exc}")
            body = json.dumps(error.body).encode()
            head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            self.transport.write(f"{head}Connection: close\r\n\r\n".encode() + body)
            self.transport.close()

    def handle_ping(self) -> None:
        """Answer, if the client takes what it is sent; else its answers would pile up."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def handle_cont(self, event: Frame) -> None:
        """Add a piece to those before it, in one buffer instead of a list."""
        buffer: Any = self.frames[0] if isinstance(self.frames[0], bytearray) else bytearray(self.frames[0])
        buffer += event.data
        self.frames = [bytes(buffer) if event.fin else buffer]
        if event.fin:
            self.send_receive_event_to_app()


def _allow_many_files() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
