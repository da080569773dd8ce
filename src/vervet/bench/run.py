"""Let the contenders take turns, and put what they needed into one table."""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from vervet import __version__
from vervet.audio import read, resample
from vervet.bench.contenders import CLASSES, CONTENDERS, LIMIT_SIZE, RATE, SECONDS, Contender
from vervet.corpora import AUDIO_SUFFIXES
from vervet.machine import processor
from vervet.predict import find_model, open_model

Row = dict[str, Any]
FLOAT32 = "a model in float32 or float16"
PAUSE_S = 0.02  # between two turns, so that threads of the one before have gone to sleep


def bench(
    clips: Path, model: str | None = None, names: Sequence[str] = (), threads: Sequence[int] = (1, 2), rounds: int = 100
) -> dict[str, Any]:
    """Time the contenders in turn, each in a process of its own, on four-second windows of real recordings.

    Parameters
    ----------
    clips : Path
        A folder of recordings; they are joined and cut into windows of exactly four seconds.
    model : str, optional
        As for `vervet.load`.
    names : sequence of str, optional
        Which contenders, of `vervet.bench.contenders.CONTENDERS`; all whose packages are installed where not given.
    threads : sequence of int, optional
        How many threads each may use; one pass for each.
    rounds : int, optional
        How often each contender is asked; in every round all are asked about the same window.

    Returns
    -------
    dict
        machine, version, model, windows, rounds, missing (contender -> packages), and rows: contender, title, threads,
        part, p50_ms, p99_ms, cpu_ms (medians and 99th percentiles of one window), windows_per_s (in batches; None
        where not measured), real_time_factor, peak_mb, cold_s (from start to first answer, median of three), model_mb,
        and ratio: how many times vervet's own time it takes, the median over rounds.

    Raises
    ------
    ValueError
        For an unknown contender, no rounds or threads, missing packages of one that was asked for, or a folder without
        recordings.
    """
    for name in names:
        if name not in CONTENDERS:
            raise ValueError(f"unknown contender {name!r}; known are {', '.join(CONTENDERS)}")
    if rounds < 1 or not threads or min(threads) < 1:
        raise ValueError(f"{rounds} rounds of {', '.join(map(str, threads)) or 'no'} threads: give at least 1 of each")
    missing = {name: lacking for name, contender in CONTENDERS.items() if (lacking := _lacking(contender))}
    if open_model(*find_model(model)).card.get("precision") == "int8":
        missing["vervet-pytorch"] = [FLOAT32]
    if asked := [name for name in names if name in missing]:
        raise ValueError(f"{asked[0]} needs {_needed(missing[asked[0]])}")
    chosen = [name for name in dict.fromkeys(names or CONTENDERS) if name not in missing]
    with tempfile.TemporaryDirectory() as folder:
        files = _windows(clips, Path(folder))
        models = _models(model, {CONTENDERS[name].model for name in chosen} - {""}, Path(folder))
        rows = [row for count in threads for row in _pass(chosen, count, rounds, models, files, Path(folder))]
    shown = {name: lacking for name, lacking in missing.items() if not names}
    about = {"machine": processor(), "version": __version__, "windows": len(files), "rounds": rounds, "missing": shown}
    about["model"] = "default" if model is None else model
    return about | {"rows": rows}


def _lacking(contender: Contender) -> list[str]:
    return [package for package in contender.needs if importlib.util.find_spec(package) is None]


def _needed(lacking: Sequence[str]) -> str:
    return ", ".join(lacking) + (": pip install 'vervet[bench]'" if FLOAT32 not in lacking else "")


def _windows(clips: Path, folder: Path) -> list[Path]:
    """Write the recordings of a folder as WAV files of four seconds, and all of them as one array, `clips.npy`."""
    paths = sorted(path for path in clips.glob("*") if path.name.casefold().endswith(AUDIO_SUFFIXES))
    if not paths:
        raise ValueError(f"{clips}: no recordings in this folder; give one with --clips")
    joined = np.concatenate([resample(*read(path), RATE) for path in paths])
    samples = round(RATE * SECONDS)
    if len(joined) < samples:
        raise ValueError(f"{clips}: less than {SECONDS:g} s of sound in this folder; give more with --clips")
    waveforms = joined[: len(joined) // samples * samples].reshape(-1, samples).astype(np.float32)
    np.save(folder / "clips.npy", waveforms)
    files = [folder / f"{number}.wav" for number in range(len(waveforms))]
    for file, waveform in zip(files, waveforms, strict=True):
        soundfile.write(file, waveform, RATE, subtype="PCM_16")
    return files


def _models(model: str | None, wanted: set[str], folder: Path) -> dict[str, Path]:
    """Write the model and what is made of it: its front end alone, and its network in 8 bits."""
    found = {"given": folder / "given.onnx"}
    found["given"].write_bytes(find_model(model)[1])
    if "front_end" in wanted:
        from onnx.utils import extract_model

        found["front_end"] = folder / "front_end.onnx"
        extract_model(found["given"], found["front_end"], ["waveform"], ["log_mel"])
    if "int8" in wanted:
        import onnx

        from vervet.export import quantised
        from vervet.models.exported import in_float32

        found["int8"] = folder / "int8.onnx"
        onnx.save(quantised(in_float32(onnx.load(found["given"]))), found["int8"])
    return found


def _pass(
    names: Sequence[str], threads: int, rounds: int, models: dict[str, Path], files: list[Path], folder: Path
) -> list[Row]:
    """All contenders at one number of threads."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
    }  # fmt: skip

    def start(name: str) -> _Worker:
        model = models.get(CONTENDERS[name].model, "-")
        words = [name, str(threads), str(model), str(folder / "clips.npy"), *map(str, files)]
        return _Worker([sys.executable, "-P", "-m", "vervet.bench.worker", *words], environment)

    cold = {name: [_cold(start, name) for _ in range(3)] for name in names if not CONTENDERS[name].part}
    workers = {name: start(name) for name in names}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    batches: dict[str, list[float]] = {name: [] for name in names}
    try:
        for worker in workers.values():
            for index in range(3):
                worker.ask([index % len(files)])
        for turn in tqdm(
            range(rounds), desc=f"{threads} thread{'s' if threads > 1 else ''}", unit="round", disable=None
        ):
            order = list(names)[turn % len(names) :] + list(names)[: turn % len(names)]
            for name in order:
                time.sleep(PAUSE_S)
                times[name].append(workers[name].ask([turn % len(files)]))
        for turn in range(max(1, rounds // 20)):
            for name in names:
                if size := CONTENDERS[name].batch:
                    indices = [(turn + index) % len(files) for index in range(size)]
                    batches[name].append(size / workers[name].ask(indices)["ms"] * 1000)
    finally:
        for worker in workers.values():
            worker.process.kill()
    rows = [_row(name, threads, times, batches[name], cold.get(name), models) for name in names]
    if "front-end" in times:
        rows += [_network(row, times) for row in rows if row["contender"] in ("vervet", "vervet-int8")]
    return rows


def _network(row: Row, times: dict[str, list[dict[str, float]]]) -> Row:
    """What is left of vervet's time without the front end's."""
    both = zip(times[row["contender"]], times["front-end"], strict=True)
    taken = [whole["ms"] - front["ms"] for whole, front in both]
    return {
        "contender": row["contender"].replace("vervet", "network"),
        "title": row["title"].replace("vervet", "network"),
        "threads": row["threads"],
        "part": True,
        "p50_ms": statistics.median(taken),
        "gmac_per_s": None,
    }


class _Worker:
    """A contender's process."""

    def __init__(self, command: list[str], environment: dict[str, str]):
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the process)
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True
        )
        self.title = " ".join(command[4:6])

    def ask(self, indices: list[int]) -> dict[str, float]:
        """Have it answer some recordings; returns ms, cpu_ms and peak_mb."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(indices) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        return self._line()

    def _line(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            said = self.errors.read().strip().splitlines()
            raise ValueError(f"contender {self.title} stopped: {said[-1] if said else 'it said nothing'}")
        return json.loads(line)


def _cold(start, name: str) -> float:
    """Seconds from the start of a new interpreter to its first answer."""
    began = time.perf_counter()
    worker = start(name)
    try:
        worker.ask([0])
        return time.perf_counter() - began
    finally:
        worker.process.kill()
        worker.process.wait()


def _row(
    name: str,
    threads: int,
    times: dict[str, list[dict[str, float]]],
    batches: list[float],
    cold: list[float] | None,
    models: dict[str, Path],
) -> Row:
    contender, taken = CONTENDERS[name], [one["ms"] for one in times[name]]
    ours = [one["ms"] for one in times["vervet"]] if "vervet" in times else []
    p50 = statistics.median(taken)
    size = models[contender.model].stat().st_size / 1e6 if contender.model else None
    return {
        "contender": name,
        "title": contender.title,
        "threads": threads,
        "part": contender.part,
        "p50_ms": p50,
        "p99_ms": float(np.percentile(taken, 99)),
        "cpu_ms": statistics.median(one["cpu_ms"] for one in times[name]),
        "windows_per_s": statistics.median(batches) if batches else None,
        "real_time_factor": p50 / 1000 / SECONDS,
        "peak_mb": times[name][-1]["peak_mb"],  # before the batches
        "cold_s": statistics.median(cold) if cold else None,
        "model_mb": size,
        "ratio": statistics.median(a / b for a, b in zip(taken, ours, strict=True)) if ours else None,
        "gmac_per_s": LIMIT_SIZE**3 / p50 / 1e6 if name == "limit" else None,
    }


def summary(measured: dict[str, Any]) -> str:
    """The table for people.

    Parameters
    ----------
    measured : dict
        From `bench`.

    Returns
    -------
    str
        A table per number of threads, the parts of vervet below the contenders, then what was missing.
    """
    head = f"{measured['machine']}; {measured['rounds']} rounds on {measured['windows']} windows of {SECONDS:g} s"
    lines = [head]
    for threads in dict.fromkeys(row["threads"] for row in measured["rows"]):
        rows = [row for row in measured["rows"] if row["threads"] == threads]
        lines += ["", f"{threads} thread{'s' if threads > 1 else ''}", _line(HEAD)]
        lines += [_line(_cells(row)) for row in rows if not row["part"]]
        lines += [_part(row, rows, measured["model"]) for row in rows if row["part"]]
    for name, packages in measured["missing"].items():
        lines.append(f"left out: {CONTENDERS[name].title} (needs {_needed(packages)})")
    return "\n".join(lines)


HEAD = ("", "p50 ms", "p99 ms", "CPU ms", "windows/s", "x real time", "memory MB", "cold s", "model MB", "x vervet")


def _line(cells: Sequence[str]) -> str:
    return f"{cells[0]:30}" + "".join(f"{cell:>12}" for cell in cells[1:])


def _cells(row: Row) -> list[str]:
    def number(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:,.{digits}f}"

    fast = 1 / row["real_time_factor"]
    return [
        row["title"], number(row["p50_ms"], 2), number(row["p99_ms"], 2), number(row["cpu_ms"], 2),
        number(row["windows_per_s"], 1), number(fast, 0), number(row["peak_mb"], 0), number(row["cold_s"], 2),
        number(row["model_mb"], 2), number(row["ratio"], 2),
    ]  # fmt: skip


def _part(row: Row, rows: Sequence[Row], model: str) -> str:
    """A part of vervet, and how near the shipped model's network comes to the machine's matrix products."""
    limit = next((one["gmac_per_s"] for one in rows if one["gmac_per_s"]), None)
    told = ""
    if row["gmac_per_s"]:
        told = f"   {row['gmac_per_s']:.0f} GMAC/s, float32"
    elif limit and row["contender"].startswith("network") and model == "default":
        rate = _network_macs() / row["p50_ms"] / 1e6
        told = f"   {rate:.0f} GMAC/s, {rate / limit:.0%} of the matrix product's rate"
    return f"  {row['title']:28}{row['p50_ms']:12.2f}{told}"


def _network_macs() -> int:
    from vervet.evaluation.complexity import describe

    return describe("vervet", CLASSES)["macs_computed"]
