"""One contender in a process of its own: told over standard input which recordings to answer, it says how long it took.

    python -m vervet.bench.worker NAME THREADS MODEL CLIPS.npy FILE...

Each line of input is a JSON list of indices into the recordings, each line of output {"ms", "cpu_ms", "peak_mb"}. A
recording is answered once for warmth, since the turn of another has emptied the processor's caches, and once for time;
the first one of all, the cold start, is answered once, and so are batches.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

from vervet.bench.contenders import CONTENDERS


def main() -> None:
    """Serve until standard input ends."""
    name, threads, model, clips, *files = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # packages that print would be taken for answers
    recognise = CONTENDERS[name].prepare(int(threads), Path(model))
    waveforms, paths = np.load(clips), [Path(file) for file in files]
    for number, line in enumerate(sys.stdin):
        indices = json.loads(line)
        chosen, named = np.ascontiguousarray(waveforms[indices]), [paths[index] for index in indices]
        if number and len(indices) == 1:
            recognise(named, chosen)
        start, cpu = time.perf_counter(), time.process_time()
        recognise(named, chosen)
        taken = {"ms": 1000 * (time.perf_counter() - start), "cpu_ms": 1000 * (time.process_time() - cpu)}
        print(json.dumps(taken | {"peak_mb": _peak_mb()}), file=answers, flush=True)


def _peak_mb() -> float:
    """Most memory that was resident, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # what `getrusage` says there began with the process that started this one
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / (1 << 10)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


if __name__ == "__main__":
    main()
