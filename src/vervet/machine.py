"""What machine this is, without which figures of time mean nothing, and what programs on it may not do at once."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's name and how many cores may be used, such as "AMD EPYC, 2 cores"."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        name = names[0] if names else name
    return f"{name}, {cores()} core{'s' if cores() > 1 else ''}"


@contextmanager
def locked(place: Path, told: Path | None = None) -> Iterator[None]:
    """Keep a second run away from what this one is writing, where the system and the disk have locks.

    A lock ends with its process, however that ends.

    Parameters
    ----------
    place : Path
        A file or folder that is there.
    told : Path, optional
        What an error names; `place` where not given.

    Raises
    ------
    ValueError
        If another run holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(place, os.O_RDONLY if place.is_dir() else os.O_RDWR)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{told or place}: another run is writing it; let that end, or give another --out"
            ) from None
        except OSError:  # some disks of a network have no locks
            pass
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # a process that was started meanwhile may have the handle too
        os.close(handle)
