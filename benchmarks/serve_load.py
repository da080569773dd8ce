"""What `vervet serve` does under load: real clients, valid and broken audio, every answer checked.

    python benchmarks/serve_load.py [--senders 200] [--seconds 120] [--jobs N] [--clips examples] [--share]

It starts a server as a process of its own, sends recordings over keep-alive connections, a fifth of them broken and a
quarter as multipart, and compares every answer with the predictor's own for the same bytes. A few rude clients vanish
in the middle of a body. Before and after, `vervet.batch.predict_many` answers the same mixture of files, by as many
jobs on the same cores, for the throughput to be compared with.

The server, and the predictor when it works alone, are held to one half of the cores and the clients to the other, so
that what clients cost is not counted as the server's. With `--share` nobody is held to any. The exit code is 1 if an
answer was a 5xx, wrong or lost, or if memory grew. Nothing else should run on the machine.
"""

import argparse
import asyncio
import collections
import io
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

import vervet
from vervet.batch import Item, find, predict_many
from vervet.machine import cores, processor

BROKEN = 0.2  # of all recordings
FORMS = 0.25  # of all requests
RUDE = 4  # clients
GROWTH = 1.1  # of the memory, from the second quarter of the time to the last
BOUNDARY = b"----a boundary that no recording holds"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Clip:
    name: str
    content: bytes
    status: int
    answer: list  # (label, confidence) of each window


def wav(samples, subtype="PCM_16"):
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, subtype, format="WAV")
    return file.getvalue()


def valid(folder):
    for item in find([folder]):
        yield item.path.name, item.path.read_bytes()
        yield f"{item.path.stem}.wav", wav(soundfile.read(item.path)[0])


def broken(whole):
    tone = 0.3 * np.sin(np.arange(16_000) / 10)
    yield "half.flac", whole[: len(whole) // 2]
    yield "half.wav", wav(tone)[:9000]
    yield "noise.flac", random.Random(0).randbytes(20_000)
    yield "text.wav", b"these are words, not sound " * 1000
    yield "nan.wav", wav(np.where(np.arange(16_000) == 9000, np.nan, tone), "FLOAT")
    yield "silent.wav", wav(np.zeros(32_000))
    yield "short.wav", wav(tone[:800])
    yield "header.wav", wav(tone[:0])


def known(predictor, name, content):
    """What the predictor itself says of a recording."""
    try:
        predictions = predictor(content)
    except ValueError as error:
        return Clip(name, content, 415 if "not audio" in str(error) else 422, [])
    return Clip(name, content, 200, [(p.label, p.confidence) for p in predictions])


def mixture(clips, seed):
    """Draw recordings without end."""
    draw = random.Random(seed)
    good, bad = ([clip for clip in clips if (clip.status == 200) is wanted] for wanted in (True, False))
    while True:
        yield draw.choice(bad if draw.random() < BROKEN else good)


# --- the predictor alone


def alone(folder, seconds, jobs):
    """How many files a second the predictor answers for itself, and the CPU seconds of each; a process of its own."""
    predictor = vervet.load(threads=1)
    clips = [Clip(path.name, b"", 200 if path.name[0] == "v" else 422, []) for path in sorted(Path(folder).iterdir())]
    items = (Item(Path(folder) / clip.name, clip.name) for clip in mixture(clips, 0))
    answers = predict_many(predictor, items, jobs=jobs)
    for _ in range(100):
        next(answers)
    start, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        next(answers)
        count += 1
    print(json.dumps([count / (time.perf_counter() - start), (time.process_time() - cpu) / count]))
    answers.close()


def predictors_own(folder, seconds, jobs, on):
    words = [sys.executable, __file__, "--alone", str(folder), "--seconds", str(seconds), "--jobs", str(jobs)]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, preexec_fn=lambda: os.sched_setaffinity(0, on))
    return json.loads(done.stdout)


# --- clients


def request(clip, form):
    content, kind = clip.content, b"application/octet-stream"
    if form:
        head = b'\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n' % clip.name.encode()
        content = b"--" + BOUNDARY + head + content + b"\r\n--" + BOUNDARY + b"--\r\n"
        kind = b'multipart/form-data; boundary="' + BOUNDARY + b'"'
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (kind, len(content)) + content


async def answer(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.split("content-length: ")[1].split("\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


def is_right(clip, status, body):
    if status != clip.status:
        return False
    if status != 200:
        return bool(json.loads(body)["error"]["message"])
    told = json.loads(body)["predictions"]
    return len(told) == len(clip.answer) and all(
        p["label"] == label and abs(p["confidence"] - confidence) < 1e-4
        for p, (label, confidence) in zip(told, clip.answer, strict=True)
    )


async def sender(number, port, clips, until, seen):
    connection = None
    for count, clip in enumerate(mixture(clips, number)):
        if time.perf_counter() >= until:
            break
        start = time.perf_counter()
        try:
            if connection is None:
                connection = await asyncio.open_connection("127.0.0.1", port)
            connection[1].write(request(clip, count % round(1 / FORMS) == 0))
            status, body = await answer(connection[0])
        except (OSError, asyncio.IncompleteReadError) as error:
            seen.append((time.perf_counter() - start, f"lost: {type(error).__name__}", False))
            connection = None
            continue
        seen.append((time.perf_counter() - start, status, is_right(clip, status, body)))
    if connection:
        connection[1].close()


async def rude(number, port, clips, until):
    """Vanish in the middle of a body, at once or after a long pause; what comes of it is not counted."""
    for clip in mixture(clips, -number):
        if time.perf_counter() >= until:
            return
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        whole = request(clip, False)
        writer.write(whole[: len(whole) // 2])
        await asyncio.sleep(0.2 if number % 2 else min(5, max(0, until - time.perf_counter())))
        writer.close()


def memory_mb(pid):
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def watch(pid, until, memory):
    while time.perf_counter() < until:
        memory.append(memory_mb(pid))
        await asyncio.sleep(1)


async def load(port, pid, clips, senders, seconds):
    seen, memory = [], []
    start, cpu = time.perf_counter(), cpu_s(pid)
    until = start + seconds
    await asyncio.gather(
        watch(pid, until, memory),
        *(sender(number, port, clips, until, seen) for number in range(senders)),
        *(rude(number, port, clips, until) for number in range(1, RUDE + 1)),
    )
    wall = time.perf_counter() - start
    return seen, memory, wall, cpu_s(pid) - cpu


# --- all of it


def serve_and_load(clips, args, on, clients_on):
    words = [sys.executable, "-m", "vervet", "serve", "--port", "0", "--jobs", str(args.jobs)]
    server = subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.sched_setaffinity(0, on)
    )  # fmt: skip
    try:
        port = int(server.stdout.readline().split("127.0.0.1:")[1].split()[0])
        os.sched_setaffinity(0, clients_on)
        asyncio.run(load(port, server.pid, clips, args.senders, min(5, args.seconds / 4)))
        measured = asyncio.run(load(port, server.pid, clips, args.senders, args.seconds))
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(90)
    return (*measured, code)


def report(seen, memory, wall, cpu, code, own, args):
    statuses = collections.Counter(str(status) for _, status, _ in seen)
    lost = sum(count for status, count in statuses.items() if status.startswith("lost"))
    failed = sum(count for status, count in statuses.items() if status.startswith("5"))
    wrong = sum(not right for _, _, right in seen) - lost - failed
    ms = np.array([seconds for seconds, _, _ in seen]) * 1e3
    rate, own_rate = len(seen) / wall, np.mean([rate for rate, _ in own])
    own_cpu = np.mean([cpu for _, cpu in own])
    quarter = max(1, len(memory) // 4)
    growth = np.mean(memory[-quarter:]) / np.mean(memory[quarter : 2 * quarter] or memory)
    print(f"{args.senders} senders, {wall:.0f} s, {args.jobs} jobs; {processor()}")
    print(f"{len(seen):9} answers: " + ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items())))
    print(f"{failed:9} 5xx, {lost} lost, {wrong} wrong; the server ended with {code}")
    print(f"{rate:9.1f} answers per second, {cpu / len(seen) * 1e3:.2f} ms of CPU each")
    print(f"{own_rate:9.1f} by the predictor alone, {own_cpu * 1e3:.2f} ms of CPU each")
    print(f"{rate / own_rate:9.1%} of its throughput, {own_cpu / (cpu / len(seen)):.1%} by CPU time")
    print(f"{np.percentile(ms, 50):9.1f} ms p50, {np.percentile(ms, 99):.1f} ms p99, {ms.max():.1f} ms at most")
    every = max(1, len(memory) // 8)
    print(f"{memory[-1]:9.1f} MB of memory at the end; {', '.join(f'{mb:.0f}' for mb in memory[::every])} over time")
    print(f"{growth:9.1%} of its memory in the second quarter of the time is used in the last")
    return 1 if failed or lost or wrong or code or growth > GROWTH else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--senders", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--jobs", type=int, default=None, help="default: one for each core of the server")
    parser.add_argument("--clips", type=Path, default=Path(__file__).parents[1] / "examples")
    parser.add_argument("--share", action="store_true", help="server and clients on all cores")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        alone(args.alone, args.seconds, args.jobs)
        return 0
    every = sorted(os.sched_getaffinity(0))
    on = set(every if args.share or cores() == 1 else every[: len(every) // 2])
    clients_on = set(every if args.share or cores() == 1 else every[len(every) // 2 :])
    args.jobs = args.jobs or len(on)
    predictor = vervet.load(threads=1)
    good = list(valid(args.clips))
    clips = [known(predictor, name, content) for name, content in itertools.chain(good, broken(good[0][1]))]
    clips.append(Clip("empty.wav", b"", 400, []))
    with tempfile.TemporaryDirectory() as folder:
        for number, clip in enumerate(clips):
            name = f"{'v' if clip.status == 200 else 'x'}{number:03}{Path(clip.name).suffix}"
            (Path(folder) / name).write_bytes(clip.content)
        own = [predictors_own(folder, max(3, args.seconds / 8), args.jobs, on)]
        measured = serve_and_load(clips, args, on, clients_on)
        os.sched_setaffinity(0, every)
        own.append(predictors_own(folder, max(3, args.seconds / 8), args.jobs, on))
    return report(*measured, own, args)


if __name__ == "__main__":
    sys.exit(main())
