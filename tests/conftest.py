import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # side by side, each has its share of the cores, and so has what it starts
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

import numpy as np
import pytest
import soundfile

TINY = """
front_end: {duration_s: 1.0, n_fft: 256, win_length: 256, hop_length: 128, n_mels: 16, width: 24}
augment: {versions: [original, noise]}
teacher_network: {image: [16, 24], patch: [16, 1], depth: 2, heads: 2, dim_head: 8, embed_dim: 16, mlp_dim: 16, \
position: ice, stem: [2]}
student_network: {image: [16, 24], patch: [16, 1], depth: 1, heads: 1, dim_head: 8, embed_dim: 16, mlp_dim: 16}
teacher: {epochs: 3, lr: 1e-3}
matching: {epochs: 3, lr: 1e-3}
student: {epochs: 3, lr: 1e-3}
"""


@pytest.fixture
def tiny_recipe(tmp_path):
    """All three stages with networks so small that they train in seconds."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory):
    """A table of 5 speakers x 3 emotions x 3 clips; each emotion is a tone of its own."""
    folder = tmp_path_factory.mktemp("tiny")
    rng, rows = np.random.default_rng(0), ["file,emotion,speaker"]
    for speaker in range(5):
        for emotion, hz in (("anger", 400), ("neutral", 1000), ("sadness", 2500)):
            for take in range(3):
                t = np.arange(int(16_000 * rng.uniform(0.5, 1.2))) / 16_000
                wave = 0.3 * np.sin(2 * np.pi * hz * (1 + 0.02 * speaker) * t) + 0.01 * rng.standard_normal(len(t))
                name = f"{speaker}_{emotion}_{take}.wav"
                soundfile.write(folder / name, wave.astype(np.float32), 16_000)
                rows.append(f"{name},{emotion},s{speaker}")
    table = folder / "clips.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


@pytest.fixture(scope="session")
def tiny_calls(tiny_corpus, tmp_path_factory):
    """The same clips, of each speaker one after the other in one call; another voice is on its first channel."""
    folder, rows = tmp_path_factory.mktemp("calls"), ["file,start,end,channel,emotion,speaker"]
    for speaker in range(5):
        paths = sorted(tiny_corpus.parent.glob(f"{speaker}_*.wav"))
        clips = [soundfile.read(path, dtype="int16")[0] for path in paths]
        ends = np.cumsum([len(clip) for clip in clips])
        other = np.random.default_rng(speaker).integers(-9_000, 9_000, ends[-1], np.int16)
        soundfile.write(folder / f"call_{speaker}.wav", np.stack([other, np.concatenate(clips)], 1), 16_000)
        for path, clip, end in zip(paths, clips, ends, strict=True):
            times = f"{(end - len(clip)) / 16_000},{end / 16_000}"
            rows.append(f"call_{speaker}.wav,{times},1,{path.stem.split('_')[1]},s{speaker}")
    table = folder / "calls.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


@pytest.fixture
def corpora():
    """The folder of real corpora."""
    if "VERVET_CORPORA" not in os.environ:
        pytest.skip("VERVET_CORPORA is not set: no real corpora")
    return Path(os.environ["VERVET_CORPORA"])


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """An ONNX model that hears tones."""
    import onnx_double

    return onnx_double.write(tmp_path_factory.mktemp("model") / "double.onnx")


@pytest.fixture(scope="session")
def predictor(model):
    import vervet

    return vervet.load(model)
