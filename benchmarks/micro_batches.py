"""Whether windows of several requests should go through the network together, and which: what `vervet serve` rests on.

    python benchmarks/micro_batches.py [--clips examples] [--rounds 20]

It draws 64 windows as requests would bring them, and runs them on one thread in batches of several sizes: in the order
in which they came, each batch padded to its longest, and sorted by length, so that hardly anything is padded. It prints
CPU time per window, the median over rounds in which all of them take turns.
"""

import argparse
import random
import time
from pathlib import Path

import numpy as np

import vervet
from vervet import audio
from vervet.batch import find
from vervet.machine import processor

WINDOWS = 64
SIZES = (1, 2, 4, 8, 16)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, default=Path(__file__).parents[1] / "examples")
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    predictor = vervet.load(threads=1)
    short = [audio.resample(*audio.read(item.path), predictor.sampling_rate) for item in find([args.clips])]
    drawn = random.Random(0).choices(short, k=WINDOWS)
    whole = [np.resize(waveform, round(predictor.sampling_rate * predictor.duration_s)) for waveform in drawn]
    orders = {"as they come": drawn, "sorted by length": sorted(drawn, key=len), "whole windows": whole}
    times = {(name, size): [] for name in orders for size in SIZES}
    for _ in range(args.rounds):
        for name, size in times:
            start = time.thread_time()
            for first in range(0, WINDOWS, size):
                predictor.run(orders[name][first : first + size])
            times[name, size].append((time.thread_time() - start) / WINDOWS * 1e3)
    print(f"{processor()}; ms of CPU per window\n\n{'in one run':18}" + "".join(f"{size:>8}" for size in SIZES))
    for name in orders:
        print(f"{name:18}" + "".join(f"{np.median(times[name, size]):8.2f}" for size in SIZES))


if __name__ == "__main__":
    main()
