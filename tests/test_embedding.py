from pathlib import Path

import numpy as np
import onnx_double
import pytest
from onnx_double import LABELS, RATE, sine
from predicting import clip

import vervet
from vervet import audio, embedding

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_feature_is_what_the_network_gives(predictor):
    waveform = sine(2, 4.0)  # the double's feature is the beginning of the window
    feature = predictor.embed((waveform, RATE))
    assert (feature.shape, feature.dtype) == ((256,), np.float32)
    np.testing.assert_allclose(feature, waveform[:256], atol=1e-6)


def test_windows_count_by_their_duration_and_silent_ones_not_at_all(predictor):
    first, last = sine(0, 4.0), sine(3, 1.0)
    silence = np.zeros(4 * RATE, np.float32)
    with pytest.warns(UserWarning, match=r"silent .* in 4\.00 to 8\.00 s"):
        feature = predictor.embed((np.concatenate([first, silence, last]), RATE))
    np.testing.assert_allclose(feature, (4 * first[:256] + last[:256]) / 5, atol=1e-6)


def test_one_recording_or_several_of_any_kind(predictor, tmp_path):
    path = clip(tmp_path / "a.wav", "fear")
    pair = (sine(LABELS.index("fear"), 2.0), RATE)
    rows = vervet.embed([path, str(path), path.read_bytes(), pair], predictor)
    assert rows.shape == (4, 256)
    np.testing.assert_allclose(rows, rows[[0]].repeat(4, axis=0), atol=1e-4)  # the file holds 16-bit samples
    for one in (path, str(path), path.read_bytes(), bytearray(path.read_bytes()), pair):
        assert vervet.embed(one, predictor).shape == (1, 256)
    with path.open("rb") as file:
        assert vervet.embed(file, predictor).shape == (1, 256)
    np.testing.assert_array_equal(vervet.embed((str(path), str(path)), predictor), rows[[1, 1]])
    np.testing.assert_array_equal(vervet.embed(np.array([str(path), str(path)]), predictor), rows[[1, 1]])
    np.testing.assert_array_equal(vervet.embed(np.array([str(path)], object), predictor), rows[[1]])
    listed, rate = audio.read(path)
    np.testing.assert_allclose(vervet.embed((listed.tolist(), rate), predictor), rows[[1]], atol=1e-6)
    assert vervet.embed([], predictor).shape == (0, 256)


def test_the_shipped_model_embeds_the_examples():
    rows = vervet.embed(sorted(EXAMPLES.glob("*.flac")))
    assert (rows.shape, rows.dtype) == ((14, 256), np.float32)
    assert np.isfinite(rows).all()
    assert np.linalg.matrix_rank(rows) == 14


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["nowhere.wav"], "nowhere.wav: no such file"),
        (None, "None: is no recording"),
        ((np.zeros(RATE), None), "give a pair"),
        (np.zeros(RATE), "an array without its sampling rate"),
        (np.zeros((2, RATE)), "an array without its sampling rate"),
        ([(np.zeros(RATE), RATE)], "^<array>: silent"),
        ([(np.sin(np.arange(RATE)) / 9, RATE), (np.zeros(RATE), RATE)], "recording 1, counted from 0: <array>: silent"),
        ([(np.full(RATE, np.nan), RATE)], "NaN"),
        ([(np.full(RATE, 3.0), RATE)], "full scale is 1"),
    ],
)
def test_what_has_no_feature_is_named(predictor, sources, message):
    with pytest.raises(ValueError, match=message):
        vervet.embed(sources, predictor)


@pytest.mark.parametrize(("jobs", "threads"), [(None, 4), (1, 1), (np.int64(9), 9), (-1, 4), (-2, 3), (-9, 1)])
def test_jobs_are_counted_as_in_scikit_learn(predictor, monkeypatch, jobs, threads):
    started = []

    class Pool(embedding.ThreadPoolExecutor):
        def __init__(self, most):
            started.append(most)
            super().__init__(most)

    monkeypatch.setattr(embedding, "cores", lambda: 4)
    monkeypatch.setattr(embedding, "ThreadPoolExecutor", Pool)
    vervet.embed([(sine(0, 1.0), RATE)], predictor, jobs=jobs)
    assert started == [threads]


@pytest.mark.parametrize("jobs", [0, 2.0, "2", True])
def test_other_jobs_are_refused(predictor, jobs):
    with pytest.raises(ValueError, match=f"jobs {jobs!r}: give how many"):
        vervet.embed([(sine(0, 1.0), RATE)], predictor, jobs=jobs)


def test_a_model_without_features_says_so(tmp_path):
    import onnx

    path = onnx_double.write(tmp_path / "double.onnx")
    model = onnx.load(path)
    kept = [output for output in model.graph.output if output.name != "embedding"]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    onnx.save(model, path)
    with pytest.raises(ValueError, match="no output embedding"):
        vervet.embed([(sine(0, 1.0), RATE)], path)
