"""Where the time of the shipped model goes: ONNX Runtime's own profile of runs on four seconds, one thread.

    python benchmarks/profile_model.py [--runs 60] [--model FILE.onnx]

Each row is an operator, the shape of what it gives, and the lower quartile over runs in microseconds. Those with 251
frames are of the front end, those with 63 or 64 tokens of the network.
"""

import argparse
import collections
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

from vervet.predict import find_model


def profile(content, runs, folder):
    """Microseconds of one run: (operator, its name) -> lower quartile."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(Path(folder) / "profile")
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    waveform = np.random.default_rng(0).uniform(-0.1, 0.1, (1, 64_000)).astype(np.float32)
    # of a model that enrols speakers, the second input: nothing is known of this one
    known = {node.name: np.zeros((1, *node.shape[1:]), np.float32) for node in session.get_inputs()[1:]}
    for _ in range(runs):
        session.run(None, {"waveform": waveform} | known)
    times = collections.defaultdict(list)
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            shapes = json.dumps(event["args"].get("output_type_shape", ""))
            times[event["args"]["op_name"], shapes, event["name"]].append(event["dur"])
    return {key: statistics.quantiles(durations, n=4)[0] for key, durations in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--model", default=None, help="as for vervet predict; default: the shipped one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = profile(find_model(args.model)[1], args.runs, folder)
    print(f"{'operator':24} {'output':44} {'us':>6}")
    for (operator, shapes, _), us in sorted(found.items(), key=lambda item: -item[1])[:24]:
        print(f"{operator:24} {shapes[:44]:44} {us:6.0f}")
    print(f"{'all operators':69} {sum(found.values()):6.0f}")


if __name__ == "__main__":
    main()
