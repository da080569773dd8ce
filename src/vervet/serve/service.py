"""What all requests share: the model, the threads that work, and the counts that limits are held against."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from starlette.requests import ClientDisconnect, Request

from vervet.predict import Predictor
from vervet.serve.body import Held
from vervet.serve.limits import Limits, Refused
from vervet.serve.metrics import Metrics
from vervet.serve.recording import Upload, Wanted, answer
from vervet.serve.work import Work
from vervet.stream import UNCERTAIN


class Service:
    """A model at work for many clients.

    Parameters
    ----------
    predictor : Predictor
        Best loaded with `threads=1`.
    jobs : int
        Windows that are in the network at a time, each on a core of its own.
    limits : Limits
        For all requests.
    """

    def __init__(self, predictor: Predictor, jobs: int, limits: Limits) -> None:
        self.predictor = predictor
        self.jobs = jobs
        self.limits = limits
        self.work = Work(predictor, jobs)
        self.held = Held(limits.max_held_bytes)
        self.waiting = 0
        self.streams = 0
        self.draining = False
        self.metrics = Metrics(
            predictor,
            [
                ("vervet_waiting", "Requests that are being answered or wait for it", lambda: self.waiting),
                ("vervet_queue_length", "Recordings and chunks that wait for a thread", lambda: len(self.work)),
                ("vervet_streams_open", "Streams that are open", lambda: self.streams),
                ("vervet_held_bytes", "Bytes of recordings in memory", lambda: self.held.bytes),
            ],
        )

    @asynccontextmanager
    async def admitted(self, request: Request) -> AsyncIterator[None]:
        """Let a request whose body has arrived wait for its answer, but no longer than its client does.

        Parameters
        ----------
        request : Request
            Read to its end.

        Raises
        ------
        Refused
            If too many are waiting, or the time is over.
        ClientDisconnect
            If the client went away; its work is dropped.
        """
        if self.waiting >= self.limits.max_waiting:
            raise Refused(503, "busy", f"{self.waiting} requests are waiting already; try again in a second")
        self.waiting += 1
        loop = asyncio.get_running_loop()
        gone = asyncio.ensure_future(request.receive())  # nothing but its end can come now
        try:
            async with asyncio.timeout(self.limits.timeout_s) as timer:

                def stop(_: object) -> None:
                    timer.reschedule(loop.time())

                gone.add_done_callback(stop)
                try:
                    yield
                finally:
                    gone.remove_done_callback(stop)
        except TimeoutError:
            if gone.done():
                raise ClientDisconnect from None
            message = f"no answer after {self.limits.timeout_s:g} s; try again later, or send shorter recordings"
            raise Refused(503, "timeout", message) from None
        finally:
            gone.cancel()
            self.waiting -= 1

    async def answer(self, upload: Upload, wanted: Wanted) -> dict[str, Any]:
        """Answer for one recording.

        Parameters
        ----------
        upload, wanted
            As for `vervet.serve.recording.answer`.

        Returns
        -------
        dict
            What `/v1/predict` answers.
        """
        try:
            steps = answer(self.predictor, upload, wanted, self.limits)
            answered = await self.work.do(steps)
        finally:
            upload.given_up = True
        for prediction in answered["predictions"]:
            self.metrics.windows.labels(UNCERTAIN if prediction["uncertain"] else prediction["label"]).inc()
        return answered

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """Count a stream while it is open; refuse it if there are as many as may be."""
        if self.streams >= self.limits.max_streams:
            raise Refused(503, "busy", f"{self.streams} streams are open already; try again later")
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1
