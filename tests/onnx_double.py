"""A tiny real ONNX model with the contract of an exported one, whose answers can be computed by hand.

It hears tones: label k stands for the tone of `tone(k)` Hz. The logit of a label is `SURE` times the share of its tone
in the energy of all the tones, so a window that is one whole tone and nothing else has logits SURE, 0, 0, ...
"""

import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

LABELS = ["anger", "boredom", "disgust", "fear", "happiness", "neutral", "sadness"]
SURE = 4.0
RATE = 16_000
COLUMNS = 128
METADATA = {
    "labels": LABELS,
    "sampling_rate": RATE,
    "duration_s": 4.0,
    "vervet_version": "0.0",
    "network": "student",
    "protocol": "speaker",
    "leaky": False,
    "corpora": ["emodb"],
    "voices": {"emodb": ["03"]},
    "fold": 0,
    "commit": "0" * 40,
    "split_hash": "0" * 64,
}


def tone(label: int) -> float:
    """Hz; a whole number of periods in a quarter of a second, so that tones do not leak into one another."""
    return 200.0 + 100.0 * label


def sure(labels: int = len(LABELS)) -> float:
    """Probability of the label whose tone alone is heard."""
    return float(np.exp(SURE) / (np.exp(SURE) + labels - 1))


def sine(label: int, duration_s: float, rate: int = RATE) -> np.ndarray:
    """(samples,) float32, the tone of a label."""
    time_s = np.arange(round(duration_s * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * tone(label) * time_s)).astype(np.float32)


def write(path: Path, metadata: dict | None = None, labels: int = len(LABELS), key: str = "vervet") -> Path:
    """Write the model; `metadata` replaces entries of METADATA."""
    samples = RATE * 4
    radians_per_sample = [2 * np.pi * tone(label) / RATE for label in range(labels)]
    bands = np.arange(128, dtype=np.float32)[None, :, None] / 127
    constants = {
        "zero": np.float64(0),
        "samples": np.float64(samples),
        "one": np.float64(1),
        "speeds": np.array([radians_per_sample]),
        "tiny": np.float32(1e-9),
        "surety": np.float32(SURE),
        "columns": np.array([0, COLUMNS, samples // COLUMNS]),
        "last": np.array([2]),
        "middle": np.array([1]),
        "from": np.array([0]),
        "to": np.array([256]),
        "ramp": 1 - bands,
    }
    nodes = [
        ("Range", ["zero", "samples", "one"], "steps"),
        ("Unsqueeze", ["steps", "middle"], "step"),
        ("Mul", ["step", "speeds"], "radians"),
        ("Cos", ["radians"], "cosine64"),
        ("Sin", ["radians"], "sine64"),
        ("CastLike", ["cosine64", "tiny"], "cosine"),
        ("CastLike", ["sine64", "tiny"], "sine"),
        ("MatMul", ["waveform", "cosine"], "c"),
        ("MatMul", ["waveform", "sine"], "s"),
        ("Mul", ["c", "c"], "cc"),
        ("Mul", ["s", "s"], "ss"),
        ("Add", ["cc", "ss"], "energy"),
        ("ReduceSum", ["energy", "middle"], "energies"),
        ("Add", ["energies", "tiny"], "whole"),
        ("Div", ["energy", "whole"], "share"),
        ("Mul", ["share", "surety"], "logits"),
        ("Slice", ["waveform", "from", "to", "middle"], "embedding"),
        ("Abs", ["waveform"], "size"),
        ("Reshape", ["size", "columns"], "framed"),
        ("ReduceSum", ["framed", "last"], "loud3"),
        ("Squeeze", ["loud3", "last"], "loud"),
        ("ReduceSum", ["loud", "middle"], "louds"),
        ("Div", ["loud", "louds"], "attention"),
        ("ReduceMax", ["loud", "middle"], "loudest"),
        ("Div", ["loud", "loudest"], "relative"),
        ("Unsqueeze", ["relative", "middle"], "row"),
        ("Mul", ["row", "ramp"], "log_mel"),
    ]
    sizes = {"logits": [labels], "embedding": [256], "attention": [COLUMNS], "log_mel": [128, COLUMNS]}
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output]) for kind, inputs, output in nodes],
        "double",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", samples])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *size]) for name, size in sizes.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {key: json.dumps(METADATA | (metadata or {}))})
    save(model, path)
    return path
