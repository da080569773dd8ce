"""How fast a folder of many short recordings is answered, and how much of the machine works on it.

    python benchmarks/many_files.py [--files 10000] [--seconds S] [--jobs N] [--form csv] [--clips examples] [--cluster]

It fills a temporary folder with links to the recordings of `--clips`, runs `vervet predict` on it as a process of its
own, start and end included, and prints what that took. Busy is the time that it had on the cores, of all the time that
the cores had. Nothing else should run on the machine.
"""

import argparse
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from vervet.audio import read, resample
from vervet.batch import find
from vervet.machine import cores

RATE = 16_000  # Hz, of files that are made of several clips


def fill(folder, clips, files):
    """Link the clips into a folder in turn, a thousand to a sub-folder; returns the seconds of sound in all of them."""
    durations_s = [soundfile.info(clip).duration for clip in clips]
    for number in range(files):
        clip = clips[number % len(clips)]
        below = folder / f"{number // 1000:04}"
        below.mkdir(exist_ok=True)
        place = below / f"{number:07}{clip.suffix}"
        try:
            os.link(clip, place)
        except OSError:  # another file system
            shutil.copy(clip, place)
    return sum(durations_s[number % len(clips)] for number in range(files))


def joined(clips, seconds, folder):
    """Write the clips one after the other, again and again, into one FLAC file of so many seconds."""
    parts = [resample(*read(clip), RATE) for clip in clips]
    waveform = np.resize(np.concatenate(parts), round(seconds * RATE))
    soundfile.write(folder / "joined.flac", waveform, RATE)
    return folder / "joined.flac"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=None, help="of each file; default: the clips as they are")
    parser.add_argument("--jobs", type=int, default=cores())
    parser.add_argument("--form", choices=("csv", "jsonl", "parquet"), default="csv")
    parser.add_argument("--clips", type=Path, default=Path(__file__).parents[1] / "examples")
    parser.add_argument("--cluster", action="store_true", help="on a local Ray cluster of as many cores as jobs")
    args = parser.parse_args()
    clips = [item.path.resolve() for item in find([args.clips])]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "clips"
        folder.mkdir()
        if args.seconds:
            clips = [joined(clips, args.seconds, Path(temporary))]
        sound_s = fill(folder, clips, args.files)
        out = Path(temporary) / f"answers.{args.form}"
        words = [sys.executable, "-m", "vervet", "predict", str(folder), "--out", str(out), "--jobs", str(args.jobs)]
        words += ["--cluster"] if args.cluster else []
        start = time.perf_counter()
        code = os.waitstatus_to_exitcode(os.waitpid(os.spawnv(os.P_NOWAIT, sys.executable, words), 0)[1])
        wall_s = time.perf_counter() - start
        if code:
            sys.exit(code)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = usage.ru_utime + usage.ru_stime
    print(f"{args.files} files, {sound_s / 3600:.2f} hours of sound, {args.jobs} jobs on {cores()} cores, {out.suffix}")
    print(f"{wall_s:9.2f} s of the clock, {cpu_s:.2f} s on the cores, {usage.ru_maxrss / 1024:.0f} MiB of memory")
    print(f"{args.files / wall_s:9.1f} files per second")
    print(f"{sound_s / wall_s:9.1f} seconds of sound per second")
    print(f"{sound_s / cpu_s:9.1f} hours of sound per core-hour")
    print(f"{cpu_s / (wall_s * cores()):9.1%} busy")


if __name__ == "__main__":
    main()
