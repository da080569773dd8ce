"""The direction of imports, and what the base install may not need."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "vervet"
NO_TORCH = ("audio", "speech", "corpora", "emotions", "predict", "batch", "output", "store", "stream", "picture", "cli",
            "serve.static",
            "evaluation.metrics", "evaluation.protocols", "evaluation.leakage", "evaluation.records",
            "evaluation.report", "evaluation.run", "evaluation.figures", "evaluation.ablation",
            "evaluation.cross", "bench.run", "bench.contenders",
            "bench.worker", "embedding", "hub", "machine", "serve.server")  # fmt: skip
# Each room, and the rooms whose code it may use.
MAY_USE = {
    "config": set(),
    "files": set(),
    "emotions": set(),
    "audio": {"emotions", "config"},
    "corpora": {"emotions", "config", "audio", "machine", "terminal"},
    "spectrogram": {"config"},
    "augment": {"config", "audio"},
    "models": {"config", "files", "spectrogram"},
    "evaluation": {
        "config",
        "files",
        "emotions",
        "audio",
        "corpora",
        "models",
        "augment",
        "predict",
        "batch",
        "machine",
        "spectrogram",
    },
    "training": {
        "config",
        "files",
        "emotions",
        "audio",
        "corpora",
        "spectrogram",
        "augment",
        "models",
        "evaluation",
        "machine",
        "predict",
        "export",
        "__init__",
    },
    "machine": set(),
    "export": {"config", "files", "spectrogram", "models"},
    "publish": {"config", "files", "corpora", "evaluation", "export", "models", "__init__"},
    "terminal": set(),
    "hub": {"__init__"},
    "speech": {"audio"},
    "predict": {"audio", "emotions", "hub", "speech", "terminal"},
    "embedding": {"predict", "audio", "machine"},
    "audformat": {"batch", "corpora", "output", "predict", "machine"},
    "sklearn": {"audio", "embedding", "predict"},
    "batch": {"predict", "audio", "corpora", "emotions"},
    "output": {"batch", "predict", "terminal"},
    "store": {"audformat", "files", "output", "batch", "predict", "machine", "__init__"},
    "cluster": {"batch", "predict"},
    "stream": {"predict", "audio", "speech", "terminal"},
    "serve": {"predict", "audio", "speech", "stream", "__init__"},
    "bench": {
        "audio",
        "corpora",
        "config",
        "evaluation",
        "export",
        "machine",
        "models",
        "predict",
        "spectrogram",
        "stream",
        "__init__",
    },
    "picture": {"output", "batch", "predict", "audio", "terminal"},
}


def module_of(path):
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def rooms_used(path):
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "vervet":
            yield parts[1] if len(parts) > 1 and parts[1] != "__version__" else "__init__"


FILES = sorted(path for path in SOURCE.rglob("*.py") if path.name not in ("cli.py", "__main__.py"))


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_one_way(path):
    room = module_of(path).split(".")[0]
    if room == "__init__":
        assert set(rooms_used(path)) <= {"predict", "embedding", "audio"}
    else:
        assert set(rooms_used(path)) - {room} <= MAY_USE[room]


@pytest.mark.parametrize("room", NO_TORCH)
def test_no_torch(room):
    code = f"import sys, vervet.{room}; sys.exit('torch' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_prints_nothing():
    done = subprocess.run([sys.executable, "-c", "import vervet.predict"], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
