"""Tables and databases of audformat, read and written; their scores with audmetric."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from onnx_double import LABELS, RATE, sine

pytest.importorskip("audformat")

import audformat
import pandas as pd

import vervet
import vervet.audformat
from vervet import batch
from vervet.cli import main
from vervet.corpora import load_corpus
from vervet.evaluation.metrics import scores

EXAMPLES = Path(__file__).parents[1] / "examples"
TONES = np.concatenate([sine(LABELS.index(label), 2.0) for label in ("anger", "fear", "neutral")])


def segmented(emotions):
    """A table of three segments; the last one has no end."""
    index = audformat.segmented_index(["a/x.wav"] * 3, ["0s", "2s", "4s"], ["2s", "3.5s", pd.NaT])
    return pd.Series(emotions, index, name="emotion")


@pytest.fixture(params=["csv", "parquet"])
def database(request, tmp_path):
    """A recording of three tones as a database, with a table of files and one of segments."""
    root = tmp_path / "db"
    (root / "a").mkdir(parents=True)
    soundfile.write(root / "a" / "x.wav", TONES, RATE)
    db = audformat.Database("tones")
    db.schemes["emotion"] = audformat.Scheme(labels=["angry", "fear", "neutral"])
    db.schemes["speaker"] = audformat.Scheme("str")
    db["files"] = audformat.Table(audformat.filewise_index(["a/x.wav"]))
    db["files"]["speaker"] = audformat.Column(scheme_id="speaker")
    db["files"]["speaker"].set(["03"])
    truth = segmented(["angry", "neutral", "neutral"])
    db["emotion"] = audformat.Table(truth.index)
    db["emotion"]["emotion"] = audformat.Column(scheme_id="emotion")
    db["emotion"]["emotion"].set(truth)
    db.save(root, storage_format=request.param)
    return root


# --- reading


def test_segments_of_a_database_are_items(database):
    items = list(batch.find([database], "emotion"))
    assert [(item.file, item.part.start_s, item.part.end_s) for item in items] == [
        ("a/x.wav", 0.0, 2.0), ("a/x.wav", 2.0, 3.5), ("a/x.wav", 4.0, None),
    ]  # fmt: skip
    assert [item.truth() for item in items] == ["anger", "neutral", "neutral"]
    assert {item.path for item in items} == {database / "a" / "x.wav"}
    assert batch.columns([database], "emotion") == ["start", "end", "emotion"]


def test_files_of_a_database_are_items(database):
    (item,) = batch.find([database], "files")
    assert (item.sound, item.columns) == (database / "a" / "x.wav", {"speaker": "03"})


def test_what_is_no_table_of_a_database_is_named(database, tmp_path):
    def problem(path, table):
        (item,) = batch.find([path], table)
        assert batch.columns([path], table) == []
        return item.problem

    (database / "clips.csv").write_text("file\nx.wav\n")  # no table of it
    assert problem(database, "emotions") == f"{database}: has no table emotions, only emotion, files"
    assert "not the folder of an audformat database" in problem(tmp_path, "emotion")
    assert "not the folder of an audformat database" in problem(database / "a" / "x.wav", "emotion")
    audformat.Database.load(str(database)).save(str(tmp_path / "pickled"), storage_format="pkl")
    assert "its table emotion is pickled" in problem(tmp_path / "pickled", "emotion")


def test_a_damaged_parquet_table_is_named(tmp_path):
    (tmp_path / "clips.parquet").write_bytes(b"PAR1 and no more")
    (item,) = batch.find([tmp_path / "clips.parquet"])
    assert "clips.parquet: not a Parquet table" in item.problem


def test_training_reads_files_and_segments_of_a_database(database, tmp_path):
    db = audformat.Database.load(str(database))
    segments = db["emotion"].get()
    segments.reset_index().to_csv(database / "segments.csv", index=False)
    found = [(u.part.start_s, u.part.end_s, u.emotion) for u in load_corpus("table", database / "segments.csv")]
    assert found == [(0, 2, "anger"), (2, 3.5, "neutral"), (4, None, "neutral")]
    whole = db.get("emotion", ["speaker"]).iloc[[2]].droplevel(["start", "end"])
    for frame in (whole, whole.set_axis(audformat.utils.to_segmented_index(whole.index))):
        frame.reset_index().to_csv(database / "clips.csv", index=False)
        (utterance,) = load_corpus("table", database / "clips.csv")
        assert (utterance.path, utterance.emotion) == (database / "a" / "x.wav", "neutral")


# --- writing


def test_a_database_comes_out_of_a_database(database, model, tmp_path):
    out = tmp_path / "out.audformat"
    words = ["predict", str(database), "--table", "emotion", "--model", str(model), "--out", str(out)]
    assert main(words) == 0
    db = audformat.Database.load(str(out), load_data=True)
    table = db["predictions"].get()
    expected = audformat.segmented_index(["a/x.wav"] * 3, ["0s", "2s", "4s"], ["2s", "3.5s", "6s"])
    pd.testing.assert_index_equal(table.index, expected)
    assert list(table["label"]) == ["anger", "fear", "neutral"]
    assert list(db["predictions"]["label"].scheme.labels) == LABELS
    assert db.source == f"vervet {vervet.__version__}, model {vervet.load(model).digest[:16]}"
    assert list(table["emotion"]) == ["angry", "neutral", "neutral"]
    np.testing.assert_allclose(table["confidence"], table[LABELS].max(axis=1))
    np.testing.assert_allclose(table[LABELS].sum(axis=1), 1)
    assert table["uncertain"].dtype == "boolean"
    assert not table["uncertain"].any()
    before = (out / "db.predictions.csv").read_bytes()
    assert main(words) == 0  # it goes on, with nothing left to do
    assert (out / "db.predictions.csv").read_bytes() == before


def test_an_interrupted_database_goes_on(database, model, tmp_path):
    out = tmp_path / "out.audformat"
    words = ["predict", str(database), "--table", "emotion", "--model", str(model), "--out", str(out)]
    shutil.copy(database / "a" / "x.wav", database / "kept.wav")
    (database / "a" / "x.wav").unlink()
    assert main(words) == 1
    assert len(audformat.Database.load(str(out))["predictions"]) == 0
    shutil.copy(database / "kept.wav", database / "a" / "x.wav")
    assert main([*words, "--retry"]) == 0
    assert len(audformat.Database.load(str(out))["predictions"]) == 3


def test_long_times_are_those_of_pandas(model, tmp_path):
    from vervet.output import _timedelta

    for seconds in (0.0, 0.0000004, 59.9999996, 61.25, 3_599.999999, 86_400.0, 200_000.123456):
        assert pd.to_timedelta(_timedelta(seconds)) == pd.to_timedelta(round(seconds, 6), unit="s").round("us")


# --- in Python


def test_an_index_is_answered_segment_by_segment(database, predictor):
    found = vervet.audformat.predict(segmented([0, 1, 2]).index, predictor, root=database)
    assert list(found["label"]) == ["anger", "fear", "neutral"]
    assert list(found.columns) == ["label", "confidence", "uncertain", *LABELS]
    pd.testing.assert_index_equal(
        found.index, audformat.segmented_index(["a/x.wav"] * 3, ["0s", "2s", "4s"], ["2s", "3.5s", "6s"])
    )


def test_windows_keep_what_the_table_knows(database, predictor):
    index = audformat.filewise_index(["a/x.wav"])
    table = pd.DataFrame({"speaker": ["03"], "anger": [7]}, index)
    found = vervet.audformat.predict(table, predictor, root=database, window_s=2)
    assert list(found["label"]) == ["anger", "fear", "neutral"]
    assert list(found["speaker"]) == ["03"] * 3
    assert list(found["table_anger"]) == [7] * 3
    assert list(found.index.get_level_values("start").total_seconds()) == [0, 2, 4]


def test_what_has_no_answer_is_named(database, predictor):
    index = audformat.segmented_index(["a/x.wav"], ["2s"], ["9s"])
    with pytest.raises(ValueError, match=r"segment 2 to 9 s is not within its 6"):
        vervet.audformat.predict(index, predictor, root=database)
    backwards = audformat.segmented_index(["a/x.wav", "a/x.wav"], ["0s", "2s"], ["1s", "1s"])
    with pytest.raises(ValueError, match=r"a/x\.wav: row 1, counted from 0: ends at 1 s, and begins at 2 s"):
        vervet.audformat.predict(backwards, predictor, root=database)
    with pytest.raises(ValueError, match="no such file"):
        vervet.audformat.predict(audformat.filewise_index(["b.wav"]), predictor, root=database)
    with pytest.raises(ValueError, match=r"no index of audformat.*audformat\.utils\.read_csv"):
        vervet.audformat.predict(pd.DataFrame({"file": ["a/x.wav"]}), predictor, root=database)
    with pytest.raises(ValueError, match="0 jobs"):
        vervet.audformat.predict(index, predictor, root=database, jobs=0)
    empty = vervet.audformat.predict(audformat.filewise_index(), predictor, root=database)
    assert (len(empty), list(empty.columns)[:2]) == (0, ["label", "confidence"])


# --- scores


def truth_of_the_examples():
    with (EXAMPLES / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    index = audformat.filewise_index([row["file"] for row in rows])
    return pd.Series([row["emotion"] for row in rows], index, name="emotion")


def test_audmetric_scores_predictions_as_vervet_does(tmp_path):
    audmetric = pytest.importorskip("audmetric")
    truth, labels = truth_of_the_examples(), vervet.load().labels
    found = vervet.audformat.predict(truth, root=EXAMPLES)
    ours = scores(list(truth), list(found["label"]), labels)
    assert 0 < ours.uar < 1
    assert audmetric.unweighted_average_recall(found["emotion"], found["label"]) == pytest.approx(ours.uar, abs=1e-12)
    assert audmetric.accuracy(found["emotion"], found["label"]) == pytest.approx(ours.wa, abs=1e-12)

    out = tmp_path / "examples.audformat"
    assert main(["predict", str(EXAMPLES / "clips.csv"), "--out", str(out)]) == 0
    table = audformat.Database.load(str(out))["predictions"].get()
    assert audmetric.unweighted_average_recall(table["emotion"], table["label"]) == pytest.approx(ours.uar, abs=1e-12)
