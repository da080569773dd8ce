"""The work of all requests on a few threads: window by window, in turn, in small batches, dropped when nobody waits.

A job is a generator. It yields a window to have it judged, and is sent the prediction; or it yields None where it has
worked for a while and others may have their turn. A long recording so takes no more than its share, and a job that was
given up ends at its next turn.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from vervet.audio import Window
from vervet.predict import Prediction, Predictor

TURN = 8  # jobs that a thread takes at a time; among them it looks for windows of one length
TOGETHER = 2  # windows in one run of the network: two take up to a tenth less than one by one, more do not
ALIKE = 0.9  # of two windows in one run the shorter is at least so long as this share of the longer; padding costs time

Result = TypeVar("Result")
Steps = Generator[Window | None, Prediction | None, Result]


@dataclass(eq=False)
class _Job:
    steps: Steps[Any]
    future: asyncio.Future[Any]
    line: deque[_Job]
    window: Window | None = None  # that it waits for
    outcome: tuple[Any, Exception | None] | None = None  # what it returned or raised
    given_up: bool = False


class Work:
    """Threads that do jobs.

    Parameters
    ----------
    predictor : Predictor
        Best loaded with `threads=1`.
    threads : int
        Each is kept busy by one core.
    """

    def __init__(self, predictor: Predictor, threads: int) -> None:
        self._predictor = predictor
        self._ready = threading.Condition()
        self._live: deque[_Job] = deque()
        self._files: deque[_Job] = deque()
        self._closed = False
        self._threads = [threading.Thread(target=self._run, name=f"work-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether all threads are."""
        return all(thread.is_alive() for thread in self._threads)

    def __len__(self) -> int:
        return len(self._live) + len(self._files)

    async def do(self, steps: Steps[Result], live: bool = False) -> Result:
        """Do a job; cancelled, it is dropped.

        Parameters
        ----------
        steps : generator
            The job.
        live : bool
            Whether somebody is speaking; such jobs have a turn before each few of the others.

        Returns
        -------
        object
            What the generator returns, or raises.
        """
        future = asyncio.get_running_loop().create_future()
        job = _Job(steps, future, self._live if live else self._files)
        with self._ready:
            job.line.append(job)
            self._ready.notify()
        try:
            return await future
        except asyncio.CancelledError:
            self._give_up(job)
            raise

    def close(self) -> None:
        """End the threads; what is in the lines stays undone."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()
        for thread in self._threads:
            thread.join()

    def _give_up(self, job: _Job) -> None:
        with self._ready:
            job.given_up = True
            waiting = job in job.line
            if waiting:
                job.line.remove(job)
        if waiting:
            job.steps.close()

    def _run(self) -> None:
        while jobs := self._take():
            for job in jobs:
                if job.window is None:
                    _advance(job, None)
            asking = _tell_ended(jobs)
            for together in _alike([job for job in asking if job.window]):
                self._judge(together)
            self._put_back(_tell_ended(asking))

    def _take(self) -> list[_Job]:
        """A fair share of those who wait: all the live ones, a few of the others."""
        with self._ready:
            self._ready.wait_for(lambda: self._closed or self._live or self._files)
            if self._closed:
                return []
            share = [-(-len(line) // len(self._threads)) for line in (self._live, self._files)]
            live = [self._live.popleft() for _ in range(share[0])]
            return live + [self._files.popleft() for _ in range(min(share[1], TURN))]

    def _put_back(self, jobs: list[_Job]) -> None:
        with self._ready:
            dropped = [job for job in jobs if job.given_up]  # what is put back is another thread's from here on
            for job in jobs:
                if not job.given_up:
                    job.line.append(job)
                    self._ready.notify()
        for job in dropped:
            job.steps.close()

    def _judge(self, jobs: list[_Job]) -> None:
        try:
            predictions = self._predictor.judge("", [job.window for job in jobs if job.window])
        except Exception as error:
            for job in jobs:
                job.steps.close()
                job.outcome = None, error
            return
        for job, prediction in zip(jobs, predictions, strict=True):
            _advance(job, prediction)


def _advance(job: _Job, prediction: Prediction | None) -> None:
    """Let a job go on to its next window, or to its end."""
    try:
        job.window = job.steps.send(prediction)
    except StopIteration as end:
        job.outcome = end.value, None
    except Exception as error:
        job.outcome = None, error


def _tell_ended(jobs: list[_Job]) -> list[_Job]:
    """Tell the outcome to all who wait for it, at once, as each waking of their thread costs; gives the other jobs."""
    ended = [job for job in jobs if job.outcome]
    if ended:
        with suppress(RuntimeError):  # the server has ended, and its loop is closed
            ended[0].future.get_loop().call_soon_threadsafe(_tell, ended)
    return [job for job in jobs if not job.outcome]


def _tell(jobs: list[_Job]) -> None:
    for job in jobs:
        result, error = job.outcome or (None, None)
        if job.future.done():  # given up
            continue
        if error:
            job.future.set_exception(error)
        else:
            job.future.set_result(result)


def _alike(jobs: list[_Job]) -> Iterator[list[_Job]]:
    """Group jobs whose windows are of about the same length."""
    together: list[_Job] = []
    for job in sorted(jobs, key=_samples, reverse=True):
        if together and (len(together) == TOGETHER or _samples(job) < ALIKE * _samples(together[0])):
            yield together
            together = []
        together.append(job)
    if together:
        yield together


def _samples(job: _Job) -> int:
    return len(job.window.waveform) if job.window else 0
