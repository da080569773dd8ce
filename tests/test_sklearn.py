"""The scikit-learn transformer, under scikit-learn's own checks and with recordings."""

import csv
import pickle
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

import vervet
from vervet.sklearn import Embedder

EXAMPLES = Path(__file__).parents[1] / "examples"
RATE = 16_000


class OfTones(Embedder):
    """The Embedder, but for the last step before the network: each number of a row becomes the strength of a tone.

    scikit-learn's checks draw a handful of numbers per row, on any scale. As waveforms they are too short and too loud,
    and are refused, as they should be. Here they pass every check of the input, and then become sound.
    """

    def _recordings(self, X, reset):
        return [(tones(row), rate) for row, rate in super()._recordings(X, reset)]


def tones(row):
    time_s = np.arange(RATE // 5) / RATE
    hz = np.linspace(200, 3000, len(row))
    strength = np.tanh(np.asarray(row, float) / 10) / len(row)
    return 0.1 * np.sin(2 * np.pi * 100 * time_s) + strength @ np.sin(2 * np.pi * np.outer(hz, time_s)) / 2


def checks(estimator):
    return [pytest.param(*pair, id=name(pair[1])) for pair in estimator_checks_generator(estimator)]


def name(check):
    function = getattr(check, "func", check)
    options = "-".join(map(str, getattr(check, "keywords", {}).values()))
    return f"{function.__name__}{'-' if options else ''}{options}"


@pytest.mark.parametrize(("estimator", "check"), checks(OfTones()))
@pytest.mark.filterwarnings("ignore")
def test_it_passes_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore")
def test_numbers_that_are_no_sound_are_all_that_it_refuses():
    results = check_estimator(Embedder(), on_skip=None, on_fail=None)
    failed = [str(result["exception"]) for result in results if result["status"] == "failed"]
    assert all("too short to judge" in error or "full scale is 1" in error for error in failed)
    assert 0 < len(failed) < len(results) / 2


@pytest.fixture(scope="module")
def clips():
    with (EXAMPLES / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [str(EXAMPLES / row["file"]) for row in rows], [row["emotion"] for row in rows], [r["speaker"] for r in rows]


def test_files_and_waveforms_become_the_rows_of_embed(clips):
    files, _, _ = clips
    np.testing.assert_array_equal(Embedder(n_jobs=-1).fit_transform(files), vervet.embed(files))
    waveforms = 0.1 * np.random.default_rng(0).standard_normal((3, 8_000))
    of_rate = Embedder(sampling_rate=8_000).fit(waveforms)
    assert of_rate.n_features_in_ == 8_000
    np.testing.assert_array_equal(of_rate.transform(waveforms), vervet.embed([(w, 8_000) for w in waveforms]))


def test_lists_arrays_and_tables_of_files(clips):
    pandas = pytest.importorskip("pandas")
    files = clips[0][:2]
    rows = vervet.embed(files)
    pairs = [(np.sin(np.arange(8_000) / 10), 8_000)] * 2
    np.testing.assert_array_equal(Embedder().transform(pairs), vervet.embed(pairs))
    parts = [vervet.Part(file, end_s=1.0) for file in files]
    np.testing.assert_array_equal(Embedder().transform(parts), vervet.embed(parts))
    with open(files[0], "rb") as one, open(files[1], "rb") as other:
        np.testing.assert_array_equal(Embedder().transform([one, other]), rows)
    contents = [bytearray(Path(file).read_bytes()) for file in files]
    np.testing.assert_array_equal(Embedder().transform(contents), rows)
    for named in (np.array(files), np.array(files)[:, None], pandas.Series(files), pandas.DataFrame({"file": files})):
        np.testing.assert_array_equal(Embedder().transform(named), rows)
    frame = Embedder().set_output(transform="pandas").fit_transform(pandas.Series(files, index=[7, 9]))
    assert list(frame.columns[:2]) == ["embedder0", "embedder1"]
    assert list(frame.index) == [7, 9]


def test_it_is_part_of_pipelines_searches_and_pickles(clips):
    files, emotions, speakers = clips
    pipeline = make_pipeline(Embedder(), StandardScaler(), LogisticRegression(C=0.1))
    scores = cross_val_score(pipeline, files, emotions, groups=speakers, cv=LeaveOneGroupOut())
    assert scores.shape == (2,)
    fitted = pipeline.fit(files, emotions)
    assert fitted.score(files, emotions) == 1.0
    assert list(pickle.loads(pickle.dumps(fitted)).predict(files)) == list(fitted.predict(files))
    search = GridSearchCV(pipeline, {"logisticregression__C": [0.01, 1.0]}, cv=LeaveOneGroupOut())
    assert search.fit(files, emotions, groups=speakers).best_score_ >= 1 / 7


@pytest.mark.parametrize(
    ("recordings", "message"),
    [
        (["nowhere.wav"], "nowhere.wav: no such file"),
        ([], "Expected 2D array"),
        (["talk.wav", float("nan")], "recording 1, counted from 0, is nan: give a path"),
        (np.zeros((1, RATE)), "silent"),
        (np.full((1, RATE), np.nan), "NaN"),
    ],
)
def test_what_has_no_feature_is_named(recordings, message):
    with pytest.raises(ValueError, match=message):
        Embedder().transform(recordings)


def test_no_jobs_are_refused(clips):
    with pytest.raises(ValueError, match="jobs 0: give how many"):
        Embedder(n_jobs=0).transform(clips[0][:1])


def test_an_unknown_model_is_named_when_it_is_fitted(clips):
    with pytest.raises(ValueError, match=r"nothing\.onnx: no such model"):
        Embedder("nothing.onnx").fit(clips[0])
