"""Whatever comes in: valid predictions for what was sound, or a ValueError that names the file and says what to do.

VERVET_FUZZ_SEED and VERVET_FUZZ_INPUTS choose another corpus, or a larger one.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import fuzz
import numpy as np
import onnx_double
import pytest
import soundfile

import vervet
from vervet.terminal import one_line

SEED = int(os.environ.get("VERVET_FUZZ_SEED", "0"))
INPUTS = int(os.environ.get("VERVET_FUZZ_INPUTS", "10000"))
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs the limits, devices and file names of Linux")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return onnx_double.write(tmp_path_factory.mktemp("model") / "tones.onnx")


def _faults(model: Path, folder: Path) -> list[str]:
    """Answer the corpus in processes of their own; one that crashes or hangs is followed by another."""
    faults, first = [], 0
    while first < INPUTS:
        command = [sys.executable, fuzz.__file__, model, folder, SEED, first, INPUTS]
        run = subprocess.run(list(map(str, command)), capture_output=True, encoding="utf-8", errors="replace")
        faults += run.stdout.splitlines()
        if run.returncode == 0:
            break
        assert run.returncode < 0, run.stderr
        last = max(folder.iterdir()).name
        faults.append(f"{last}: ended the process with {signal.Signals(-run.returncode).name}")
        first = int(last.split()[0]) + 1
    return faults


def test_bad_recordings_are_answered_rightly_or_refused_kindly(model, tmp_path):
    faults = _faults(model, tmp_path)
    listed = "\n".join(fault[:400] for fault in faults[:20])
    assert not faults, (
        f"seed {SEED}: {len(faults)} of {INPUTS} at fault, kept in {tmp_path} for vervet predict\n{listed}"
    )


def _predict(model: Path, *paths: Path) -> tuple[int, dict[str, list], str]:
    """Return the exit code, the answers by file, and what was said on stderr."""
    command = [sys.executable, "-m", "vervet", "predict", *paths, "--model", model, "--format", "json"]
    run = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=120)
    answers: dict[str, list] = {}
    for record in json.loads(run.stdout):
        answers.setdefault(record["file"], []).append(record)
    return run.returncode, answers, run.stderr


def test_a_folder_of_everything_is_answered_or_named(model, tmp_path):
    for number in range(3 * len(fuzz.KINDS)):
        case = fuzz.case(SEED, number)
        (tmp_path / f"{number:03} {case.kind}.wav").write_bytes(case.content)
    for name in (b"two\nlines.wav", b"caf\xe9.flac", b"cafe\xcc\x81.ogg", b"[1]*?.mp3", b"x" * 251 + b".wav"):
        path = tmp_path / os.fsdecode(name)
        path.write_bytes(fuzz.case(SEED, 0).content)
        path.with_name(f"0{path.name[1:]}").write_bytes(b"no sound")
    predictor, refused, expected = vervet.load(model), set(), {}
    for path in map(str, tmp_path.iterdir()):
        try:
            expected[path] = [prediction.label for prediction in predictor(path)]
        except ValueError as error:
            refused.add(one_line(f"vervet predict: {error}").encode("utf-8", "backslashreplace").decode())
    code, answers, said = _predict(model, tmp_path)
    assert code == 1
    assert {path: [record["label"] for record in records] for path, records in answers.items()} == expected
    assert min(len(refused), len(expected)) > len(fuzz.KINDS)
    assert [message for message in refused if message not in said] == []
    assert said.count("vervet predict: ") == len(refused)
    assert "Traceback" not in said


def test_what_is_no_file_ends_soon_and_is_named(model, tmp_path):
    good = tmp_path / "good.wav"
    soundfile.write(good, onnx_double.sine(3, 1.0), onnx_double.RATE)
    folder, pipe, loop = (tmp_path / f"{name}.wav" for name in ("folder", "pipe", "loop"))
    folder.mkdir()
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    bad = [folder, pipe, loop, tmp_path / "gone.wav", Path("/dev/zero"), Path("/dev/null"), Path("/proc/self/mem")]
    bad += [good / "inside.wav", tmp_path / f"{'x' * 300}.wav"]
    code, answers, said = _predict(model, *bad, good)
    assert code == 1
    assert list(answers) == [str(good)]
    assert [path for path in bad if f"vervet predict: {path}: " not in said] == []
    assert said.count("\n") == len(bad)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_three_hours_take_no_more_memory_than_three_minutes(model, tmp_path, suffix):
    rate, silence = 8_000, np.zeros(60 * 8_000, np.int16)
    voice = (32767 * onnx_double.sine(3, 4.0, rate)).astype(np.int16)
    peaks = []
    for minutes in (3, 180):
        path = tmp_path / f"{minutes} minutes.{suffix}"
        with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as sound:
            for _ in range(minutes - 1):
                sound.write(silence)
            sound.write(silence[len(voice) :])
            sound.write(voice)
        answers = tmp_path / "answers.json"
        command = [sys.executable, "-m", "vervet", "predict", path, "--model", model, "--format", "json"]
        with answers.open("wb") as stdout, subprocess.Popen(command, stdout=stdout, stderr=subprocess.DEVNULL) as child:
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 1  # most of it is silent, and was named
        (record,) = json.loads(answers.read_text())
        assert (record["start_s"], record["end_s"]) == (60 * minutes - 4, 60 * minutes)
        peaks.append(usage.ru_maxrss * 1024)
    assert peaks[1] - peaks[0] < fuzz.MOST_BYTES
