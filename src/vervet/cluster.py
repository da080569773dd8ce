"""Many recordings on many machines: Ray carries them there and their answers back. Needs the extra `cluster`.

Every machine needs Vervet and must see the recordings under the same paths. The model travels from here.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

# Ray reports its use to its makers unless told otherwise; who wants that can set it.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray  # pyright: ignore[reportMissingImports]
from ray import exceptions  # pyright: ignore[reportMissingImports]

from vervet import batch
from vervet.batch import Answer, Item
from vervet.predict import Prediction, Predictor, find_model, open_model

WINDOWS = 256  # that one task should answer; a second or two of work, so a death costs little and a start even less
FIRST = 8  # recordings of a task, before it is known how many windows they have
LEAD = 4  # tasks per core that are handed out, so that no core waits for the next one
RETRIES = 3  # of a task whose worker died
DEATHS = (exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.OutOfMemoryError,
          exceptions.ObjectLostError)  # fmt: skip


def predict_many(
    model: str | Path | None,
    items: Iterable[Item],
    address: str = "local",
    *,
    jobs: int | None = None,
    window_s: float | None = None,
    hop_s: float | None = None,
    speech_only: bool = False,
) -> Generator[Answer, None, None]:
    """Answer many recordings on a Ray cluster, one core for each task.

    What a worker had in hand when it died is given to others. If they die of it too, it is given out in halves, and so
    on, until the one recording that nobody survives is alone, and found at fault.

    Parameters
    ----------
    model : str or pathlib.Path, optional
        As for `vervet.load`.
    items : iterable of Item
        From `vervet.batch.find`; taken as they are needed.
    address : str
        Of the cluster: "auto" for the one that this machine belongs to, `host:port`, or "local" for one that is started
        on this machine and stopped at the end.
    jobs : int, optional
        Cores that a local cluster uses; all of them where not given.
    window_s, hop_s, speech_only : optional
        As for `Predictor.__call__`.

    Yields
    ------
    Answer
        One for each item, in the order in which tasks end.

    Raises
    ------
    ValueError
        If there is no such cluster, Vervet cannot run on it, or window, hop or jobs are none.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"{jobs} jobs: give at least 1")
    if jobs is not None and address != "local":
        raise ValueError(f"--jobs {jobs} is for this machine; the cluster at {address} has its own number of cores")
    found = find_model(model)
    open_model(*found, threads=1).windowing(window_s, hop_s)
    try:
        ray.init(address, num_cpus=jobs, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        asked = {"window_s": window_s, "hop_s": hop_s, "speech_only": speech_only}
        yield from _answers(found, iter(items), asked)
    except (ConnectionError, exceptions.RayError) as error:
        cause = getattr(error, "cause", None) or error
        raise ValueError(
            f"the cluster at {address} failed ({type(cause).__name__}: {cause}); see that it runs, and that each of "
            "its machines has the same versions of Python, Ray and Vervet as this one"
        ) from error
    finally:
        ray.shutdown()


def _answers(model: tuple[str, bytes], items: Iterator[Item], asked: dict[str, Any]) -> Iterator[Answer]:
    name, content = model
    shared = ray.put(content)
    task = ray.remote(max_retries=RETRIES)(_task)
    working: dict[ray.ObjectRef, list[Item]] = {}
    lost: deque[list[Item]] = deque()
    recordings, windows, size = 0, 0, FIRST
    while True:
        room = LEAD * max(1, int(ray.cluster_resources().get("CPU", 0)))  # machines come and go
        while len(working) < room and (chunk := lost.popleft() if lost else list(islice(items, size))):
            working[task.remote(name, (shared,), _placed(chunk), asked)] = chunk
        if not working:
            return
        (done,), _ = ray.wait(list(working))
        chunk = working.pop(done)
        try:
            answers = [Answer(item, *found) for item, found in zip(chunk, ray.get(done), strict=True)]
        except DEATHS as death:
            half = len(chunk) // 2
            if half:
                lost += [chunk[:half], chunk[half:]]
                continue
            problem = f"{chunk[0].path}: every worker that read it died ({type(death).__name__}); look for what ails it"
            answers = [Answer(chunk[0], [], problem)]
        yield from answers
        recordings += len(answers)
        windows += sum(max(1, len(answer.predictions)) for answer in answers)
        size = max(1, WINDOWS * recordings // windows)


def _placed(chunk: list[Item]) -> list[Item]:
    """Workers have another working directory."""
    return [replace(item, sound=replace(item.part, sound=item.path.absolute())) for item in chunk]


def _task(
    name: str, model: tuple[ray.ObjectRef], items: list[Item], asked: dict[str, Any]
) -> list[tuple[list[Prediction], str]]:
    """What a worker does; the model comes in a tuple, so that Ray fetches it only where it is asked to."""
    answers = batch.predict_many(_predictor(name, *model), items, **asked)
    return [(answer.predictions, answer.problem) for answer in answers]


@lru_cache(maxsize=1)
def _predictor(name: str, model: ray.ObjectRef) -> Predictor:
    return open_model(name, ray.get(model), threads=1)
