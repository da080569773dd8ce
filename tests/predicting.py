"""Recordings of one tone, and the command `vervet predict` on them."""

import json
from pathlib import Path

import soundfile
from onnx_double import LABELS, RATE, sine

from vervet import cli


def clip(path: Path, label: str, duration_s: float = 2.0, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sine(LABELS.index(label), duration_s, rate), rate)
    return path


def run(capsys, model, *arguments) -> tuple[int, str, str]:
    code = cli.main(["predict", "--model", str(model), *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def run_json(capsys, model, *arguments) -> list[dict]:
    code, out, err = run(capsys, model, *arguments, "--format", "json")
    assert (code, err) == (0, "")
    return json.loads(out)
