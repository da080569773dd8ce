import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_double
import pytest
import soundfile
from onnx_double import LABELS, RATE, sine, sure

import vervet
from vervet import cli, predict

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return onnx_double.write(tmp_path_factory.mktemp("model") / "double.onnx")


@pytest.fixture(scope="module")
def predictor(model):
    return vervet.load(model)


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


# --- the predictor


@pytest.mark.parametrize("label", LABELS)
def test_known_tones_get_known_probabilities(predictor, label):
    (prediction,) = predictor((sine(LABELS.index(label), 4.0), RATE))
    assert (prediction.file, prediction.start_s, prediction.end_s) == ("<array>", 0, 4)
    assert prediction.label == label
    assert list(prediction.scores) == LABELS
    assert prediction.confidence == prediction.scores[label] == pytest.approx(sure(), abs=1e-5)
    assert sum(prediction.scores.values()) == pytest.approx(1, abs=1e-12)
    assert all(type(score) is float for score in prediction.scores.values())


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_other_rates_and_stereo_are_brought_to_the_models(predictor, tmp_path, rate):
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([sine(3, 2.0, rate)] * 2, axis=1), rate)
    (prediction,) = predictor(path)
    assert (prediction.label, prediction.end_s) == ("fear", 2.0)
    assert prediction.confidence == pytest.approx(sure(), abs=0.01)


def test_path_bytes_and_array_agree(predictor, tmp_path):
    path = clip(tmp_path / "a.flac", "neutral")
    waveform, rate = soundfile.read(path, dtype="float32")
    answers = [predictor(source) for source in (path, str(path), path.read_bytes(), (waveform, rate))]
    assert all(answer[0].scores == answers[0][0].scores for answer in answers)
    assert [answer[0].file for answer in answers] == [str(path), str(path), "<bytes>", "<array>"]


def test_each_window_of_a_long_recording_is_answered_for_itself(predictor):
    order = [0, 3, 5, 1]
    waveform = np.concatenate([sine(label, 4.0) for label in order])[: round(13.5 * RATE)]
    predictions = predictor((waveform, RATE))
    assert [prediction.label for prediction in predictions] == [LABELS[label] for label in order]
    assert [(p.start_s, p.end_s) for p in predictions] == [(0, 4), (4, 8), (8, 12), (12, 13.5)]


def test_overlapping_and_shorter_windows(predictor):
    waveform = np.concatenate([sine(0, 2.0), sine(6, 2.0)])
    predictions = predictor((waveform, RATE), window_s=1, hop_s=0.5)
    assert [p.start_s for p in predictions] == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert [p.label for p in predictions if p.end_s <= 2] == ["anger"] * 3
    assert [p.label for p in predictions if p.start_s >= 2] == ["sadness"] * 3
    straddling = predictions[3]
    assert straddling.scores["anger"] == pytest.approx(straddling.scores["sadness"], abs=0.05)


@pytest.mark.parametrize(
    ("window_s", "hop_s", "message"),
    [
        (5, None, "window of 5 s: this model hears 4 s at once; choose 0.1 to 4 s"),
        (0, None, "window of 0 s"),
        (float("nan"), None, "window of nan s"),
        (None, 0, "hop of 0 s: choose at least"),
        (None, float("inf"), "hop of inf s"),
    ],
)
def test_windows_that_do_not_suit_the_model_are_refused(predictor, window_s, hop_s, message):
    with pytest.raises(ValueError, match=message):
        predictor((sine(0, 1.0), RATE), window_s=window_s, hop_s=hop_s)


def test_a_silent_recording_has_no_answer(predictor, tmp_path):
    path = tmp_path / "mute.wav"
    soundfile.write(path, np.zeros(RATE), RATE)
    with pytest.raises(ValueError, match=r"mute\.wav: silent \(below -80 dBFS\) in 0\.00 to 1\.00 s"):
        predictor(path)


def test_silent_windows_are_named_and_the_others_answered(predictor):
    gap = np.zeros(8 * RATE, np.float32)
    waveform = np.concatenate([sine(2, 4.0), gap, sine(4, 4.0)])
    with pytest.warns(UserWarning, match=r"silent .* in 4\.00 to 12\.00 s; no answer there"):
        predictions = predictor((waveform, RATE))
    assert [(p.start_s, p.label) for p in predictions] == [(0, "disgust"), (12, "happiness")]


def test_only_the_outputs_asked_for_are_returned(predictor):
    half = sine(0, 2.0)
    views = predictor.run([half, half], ("attention", "log_mel"))
    assert {name: view.shape for name, view in views.items()} == {"attention": (2, 128), "log_mel": (2, 128, 128)}
    assert views["attention"][0, 64:].sum() == 0  # the padded half
    with pytest.raises(ValueError, match="no output gradients, only logits, embedding, attention, log_mel"):
        predictor.run([half], ("gradients",))


def test_probabilities_of_any_logits_are_finite(predictor, monkeypatch):
    logits = np.array([[1000, 1000, 0, -1000, 0, 0, 0], [-2000, -2000, -2000, -2000, -2000, -2000, -2000]], np.float32)
    monkeypatch.setattr(predictor, "run", lambda waveforms: {"logits": logits})
    expected = [[0.5, 0.5, 0, 0, 0, 0, 0], [1 / 7] * 7]
    np.testing.assert_allclose(predictor.probabilities([]), expected, atol=1e-12)


def test_a_model_that_returns_nan_gives_no_number(predictor, monkeypatch):
    monkeypatch.setattr(predictor, "run", lambda waveforms: {"logits": np.full((1, 7), np.nan, np.float32)})
    with pytest.raises(ValueError, match="the model returned NaN"):
        predictor((sine(0, 1.0), RATE))


# --- models


def test_a_run_folder_stands_for_its_model(model, tmp_path):
    (tmp_path / "model.onnx").write_bytes(model.read_bytes())
    assert vervet.load(tmp_path).labels == tuple(LABELS)
    assert vervet.load(str(tmp_path), threads=1).card["protocol"] == "speaker"


def test_shipped_models_go_by_name_and_one_is_the_default(model, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "SHIPPED", tmp_path)
    with pytest.raises(ValueError, match=r"default: no such model.*this installation has none"):
        vervet.load()
    onnx_double.write(tmp_path / "default.onnx", {"network": "shipped"})
    assert vervet.load().card["network"] == vervet.load("default").card["network"] == "shipped"
    with pytest.raises(ValueError, match=r"big: no such model.*this installation has default\)"):
        vervet.load("big")


def test_a_folder_without_a_model_says_how_to_make_one(tmp_path):
    with pytest.raises(ValueError, match=r"holds no model\.onnx; .*vervet export"):
        vervet.load(tmp_path)


def test_what_is_no_model_is_refused(tmp_path):
    path = tmp_path / "text.onnx"
    path.write_text("no protobuf")
    with pytest.raises(ValueError, match=r"text\.onnx: not an ONNX model that can be run"):
        vervet.load(path)


@pytest.mark.parametrize(
    ("metadata", "key"),
    [
        ({}, "other"),
        ({"labels": []}, "vervet"),
        ({"labels": "abcdefg"}, "vervet"),
        ({"labels": LABELS[:3]}, "vervet"),
        ({"sampling_rate": "fast"}, "vervet"),
        ({"sampling_rate": 8000}, "vervet"),
        ({"duration_s": -4.0}, "vervet"),
        ({"duration_s": None}, "vervet"),
    ],
)
def test_models_with_other_metadata_are_refused(tmp_path, metadata, key):
    path = onnx_double.write(tmp_path / "other.onnx", metadata, key=key)
    with pytest.raises(ValueError, match=r"other\.onnx: not a Vervet model"):
        vervet.load(path)


# --- the command


def test_json_is_the_contract(capsys, model, tmp_path):
    path = clip(tmp_path / "a.wav", "disgust")
    (record,) = run_json(capsys, model, path)
    assert list(record) == ["file", "start_s", "end_s", "label", "scores"]
    assert (record["file"], record["start_s"], record["end_s"], record["label"]) == (str(path), 0.0, 2.0, "disgust")
    assert list(record["scores"]) == LABELS
    assert sum(record["scores"].values()) == pytest.approx(1)


def test_files_folders_and_globs(capsys, model, tmp_path, monkeypatch):
    clip(tmp_path / "b" / "same.wav", "anger")
    clip(tmp_path / "a" / "deep" / "same.wav", "fear")
    clip(tmp_path / "a" / "LOUD.FLAC", "neutral")
    clip(tmp_path / "a" / "x.mp3", "boredom")
    clip(tmp_path / "a" / "._x.wav", "sadness")
    (tmp_path / "a" / "notes.txt").write_text("no audio")
    monkeypatch.chdir(tmp_path)

    def heard(*paths):
        return [(Path(r["file"]).as_posix(), r["label"]) for r in run_json(capsys, model, *paths)]

    in_a = [("a/LOUD.FLAC", "neutral"), ("a/deep/same.wav", "fear"), ("a/x.mp3", "boredom")]
    assert heard("b/same.wav", "a") == [("b/same.wav", "anger"), *in_a]
    assert heard("*/same.wav") == [("b/same.wav", "anger")]
    assert heard("**/same.wav") == [("a/deep/same.wav", "fear"), ("b/same.wav", "anger")]
    assert heard("[a]") == in_a
    clip(tmp_path / "[take 1].wav", "happiness")
    assert heard("[take 1].wav") == [("[take 1].wav", "happiness")]


@pytest.mark.parametrize("rows", [17, 33])
def test_many_files_come_back_in_order_whatever_the_batches(capsys, model, tmp_path, rows):
    expected = []
    for index in range(rows):
        label = LABELS[index * 5 % len(LABELS)]
        clip(tmp_path / f"{index:03}.wav", label, 6.0 if index % 3 == 0 else 0.5)
        expected += [(f"{index:03}.wav", label)] * (2 if index % 3 == 0 else 1)
    records = run_json(capsys, model, tmp_path)
    assert [(Path(r["file"]).name, r["label"]) for r in records] == expected


def test_one_bad_file_stops_none_of_the_others(capsys, model, tmp_path):
    good = [clip(tmp_path / "1.wav", "anger"), clip(tmp_path / "3.wav", "fear")]
    (tmp_path / "2.wav").write_text("no audio")
    soundfile.write(tmp_path / "4.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "5.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "6.wav", np.concatenate([sine(5, 4.0), np.zeros(4 * RATE)]), RATE)
    code, out, err = run(capsys, model, tmp_path, tmp_path / "gone.wav", "--format", "json")
    assert code == 1
    assert [(r["file"], r["label"]) for r in json.loads(out)] == [
        (str(good[0]), "anger"),
        (str(good[1]), "fear"),
        (str(tmp_path / "6.wav"), "neutral"),
    ]
    lines = err.splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        *(str(tmp_path / f"{n}.wav") for n in (2, 4, 5, 6)),
        str(tmp_path / "gone.wav"),
    ]
    for line, fault in zip(lines, ["not audio", "NaN", "silent", "4.00 to 8.00 s", "no such file"], strict=True):
        assert fault in line


def test_a_recording_with_one_bad_sample_has_no_answer_at_all(capsys, model, tmp_path):
    waveform = np.concatenate([sine(0, 4.0)] * 20)
    waveform[-1] = np.nan
    soundfile.write(tmp_path / "late.wav", waveform, RATE, subtype="FLOAT")
    code, out, err = run(capsys, model, tmp_path / "late.wav", "--format", "json")
    assert (code, json.loads(out)) == (1, [])
    assert "late.wav: holds NaN" in err


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("empty", "no recordings in this folder or below; looked for .wav, .flac, .ogg, .mp3"),
        ("*.wav", "matches no file"),
        ("gone.wav", "no such file"),
        ("gone.csv", "no such file"),
    ],
)
def test_nothing_found_is_an_error(capsys, model, tmp_path, monkeypatch, path, message):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, model, path, "--format", "json")
    assert (code, json.loads(out)) == (1, [])
    assert f"{path}: {message}" in err


def test_a_window_too_long_is_one_error(capsys, model, tmp_path):
    code, out, err = run(capsys, model, clip(tmp_path / "a.wav", "anger"), "--window-s", "5")
    assert (code, out) == (1, "")
    assert err.count("window of 5 s") == 1


def test_window_and_hop_reach_the_predictor(capsys, model, tmp_path):
    path = clip(tmp_path / "a.wav", "anger", 3.0)
    records = run_json(capsys, model, path, "--window-s", "2", "--hop-s", "0.5")
    assert [(r["start_s"], r["end_s"]) for r in records] == [(0, 2), (0.5, 2.5), (1, 3)]


# --- tables


def test_columns_of_a_table_survive(capsys, model, tmp_path):
    clip(tmp_path / "clips" / "a.wav", "anger")
    clip(tmp_path / "clips" / "b.wav", "fear")
    absolute = clip(tmp_path / "elsewhere" / "a.wav", "sadness")
    table = tmp_path / "clips" / "t.csv"
    header = "speaker,file,emotion,label,note,anger\r\n"
    rows = f'3,a.wav,Wut,mine,"a, b",7\r\n4,b.wav,happy,,,8\r\n\r\n5,{absolute},other,x,ü,9\r\n'
    table.write_text("\ufeff" + header + rows, encoding="utf-8", newline="")

    records = run_json(capsys, model, table)
    assert [(r["file"], r["label"]) for r in records] == [
        ("a.wav", "anger"),
        ("b.wav", "fear"),
        (str(absolute), "sadness"),
    ]
    assert [r["speaker"] for r in records] == ["3", "4", "5"]
    assert [r["emotion"] for r in records] == ["Wut", "happy", "other"]
    assert [r["note"] for r in records] == ["a, b", "", "ü"]
    assert records[0]["table_label"] == "mine"
    assert records[0]["anger"] == "7"
    assert records[0]["scores"]["anger"] == pytest.approx(sure(), abs=1e-4)

    code, out, _ = run(capsys, model, table, "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    own = ["file", "start_s", "end_s", "label", "confidence", *LABELS]
    assert list(lines[0]) == [*own, "speaker", "emotion", "table_label", "note", "table_anger"]
    assert [line["table_anger"] for line in lines] == ["7", "8", "9"]
    assert float(lines[1]["confidence"]) == float(lines[1]["fear"]) == records[1]["scores"]["fear"]
    assert lines[0]["note"] == "a, b"


def test_tables_and_plain_files_mix(capsys, model, tmp_path):
    path = clip(tmp_path / "a.wav", "anger")
    (tmp_path / "t.csv").write_text("file,speaker\na.wav,9\n")
    code, out, _ = run(capsys, model, path, tmp_path / "t.csv", "--format", "csv")
    assert code == 0
    assert [line["speaker"] for line in csv.DictReader(io.StringIO(out))] == ["", "9"]


def test_audformat_segments_are_answered(capsys, model, tmp_path):
    waveform = np.concatenate([sine(label, 2.0) for label in (1, 4, 6)])
    soundfile.write(tmp_path / "long.wav", waveform, RATE)
    (tmp_path / "db.csv").write_text(
        "file,start,end,emotion\n"
        "long.wav,0 days 00:00:00,0 days 00:00:02,boredom\n"
        "long.wav,0 days 00:00:02.250000,0 days 00:00:03.750000000,happiness\n"
        "long.wav,4.0,NaT,sadness\n"
    )
    records = run_json(capsys, model, tmp_path / "db.csv")
    assert [(r["start_s"], r["end_s"], r["label"]) for r in records] == [
        (0, 2, "boredom"),
        (2.25, 3.75, "happiness"),
        (4, 6, "sadness"),
    ]
    assert [r["start"] for r in records] == ["0 days 00:00:00", "0 days 00:00:02.250000", "4.0"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1.5", 1.5),
        (".5", 0.5),
        ("0 days 00:00:01.500000", 1.5),
        ("00:01:02", 62),
        ("1 days 01:00:00", 90_000),
        ("NaT", None),
    ],
)
def test_times_of_tables(text, seconds):
    assert predict._seconds(text) == seconds


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no column 'file', only nothing"),
        ("path,emotion\na.wav,anger\n", "has no column 'file', only path, emotion"),
        ("file,x,x\na.wav,1,2\n", "two columns have the same name"),
        ("file,emotion\n", "has no rows"),
        ("file,emotion\na.wav,anger,more\n", "row 2: 3 values under 2 columns"),
        ("file,emotion\n,anger\n", "row 2: names no file"),
        ("file,start,end\na.wav,soon,2\n", "row 2: 'soon' is not a time"),
        ("file,start,end\na.wav,-1 days +23:59:59,2\n", "is not a time"),
        ("file,start,end\na.wav,1,9\n", "segment 1 to 9 s is not within its 2.00 s"),
        ("file\ngone.wav\n", "gone.wav: no such file"),
    ],
)
def test_faults_of_tables_are_named(capsys, model, tmp_path, content, message):
    clip(tmp_path / "a.wav", "anger")
    (tmp_path / "t.csv").write_text(content)
    code, out, err = run(capsys, model, tmp_path / "t.csv", "--format", "json")
    assert (code, json.loads(out)) == (1, [])
    assert message in err


def test_a_bad_row_stops_none_of_the_others(capsys, model, tmp_path):
    clip(tmp_path / "a.wav", "anger")
    (tmp_path / "t.csv").write_text("file,start,end\na.wav,x,1\na.wav,,\n")
    code, out, err = run(capsys, model, tmp_path / "t.csv", "--format", "json")
    assert (code, [r["label"] for r in json.loads(out)]) == (1, ["anger"])
    assert "t.csv: row 2" in err


def test_a_table_in_another_encoding_is_named(capsys, model, tmp_path):
    (tmp_path / "t.csv").write_bytes("file\nä.wav\n".encode("latin-1"))
    code, _, err = run(capsys, model, tmp_path / "t.csv")
    assert code == 1
    assert "t.csv: not a CSV table in UTF-8" in err


# --- the terminal table


def test_terminal_table_marks_and_counts(capsys, model, tmp_path):
    for name, label in (("a", "anger"), ("b", "fear"), ("c", "sadness"), ("d", "neutral")):
        clip(tmp_path / f"{name}.wav", label)
    (tmp_path / "t.csv").write_text("file,emotion\na.wav,Ärger\nb.wav,happy\nc.wav,surprised\nd.wav,wistful\n")
    code, out, err = run(capsys, model, tmp_path / "t.csv")
    assert (code, err) == (0, "")
    header, *rows, blank, count, unknown = out.splitlines()
    assert header.split() == ["file", "start", "s", "end", "s", "emotion", "confidence", "true", "emotion"]
    assert [row.split()[0] for row in rows] == ["a.wav", "b.wav", "c.wav", "d.wav"]
    assert [row.split("%")[1].strip() for row in rows] == ["✓ anger", "✗ happiness", "– surprise", "– wistful"]
    assert f"{sure():.0%}" in rows[0]
    assert (blank, count) == ("", "1 of 2 right")
    assert unknown == "not counted: surprise, wistful, which the model does not know"


def test_terminal_table_fits_a_hundred_columns(capsys, model, tmp_path):
    path = clip(tmp_path / ("long" * 10) / ("name" * 20 + "_take7.wav"), "happiness")
    (tmp_path / "t.csv").write_text(f"file,emotion\n{path},pleasant surprise of the very longest kind\n")
    _, out, _ = run(capsys, model, tmp_path / "t.csv")
    assert max(map(len, out.splitlines()[:2])) <= 100
    assert "name_take7.wav " in out
    assert "…" in out


def test_without_true_emotions_nothing_is_counted(capsys, model, tmp_path):
    _, out, _ = run(capsys, model, clip(tmp_path / "a.wav", "anger"))
    header, row = out.splitlines()
    assert header.rstrip().endswith("confidence")
    assert row.endswith("%")


@pytest.mark.parametrize(("share", "drawn"), [(0, ""), (1, "████"), (0.5, "██"), (0.28125, "█▏"), (0.21875, "▉")])
def test_bars(share, drawn):
    assert predict.bar(share, 4) == drawn


def test_terminals_without_blocks_get_ascii():
    assert predict.printable("██▌ ✓ ä…", "ascii") == r"##  + \xe4~"
    assert predict.printable("██▌ ✓ ä…", "utf-8") == "██▌ ✓ ä…"
    assert predict.printable("\udcff.wav", None) == r"\udcff.wav"


# --- pictures, examples, imports


def test_the_examples_are_two_speakers_in_seven_emotions(capsys, model):
    records = run_json(capsys, model, EXAMPLES / "clips.csv")
    assert {(r["speaker"], r["emotion"]) for r in records} == {(s, e) for s in ("15", "16") for e in LABELS}
    initials = dict(zip("WLEAFNT", LABELS, strict=True))
    for record in records:
        assert record["file"][:2] == record["speaker"]
        assert initials[record["file"][5]] == record["emotion"]
        assert record["end_s"] < 4
    assert {r["file"] for r in records} == {path.name for path in EXAMPLES.glob("*.flac")}


def test_a_picture_is_drawn(capsys, model, tmp_path):
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    path = tmp_path / "new" / "run.png"
    code, out, err = run(capsys, model, EXAMPLES / "clips.csv", "--picture", path)
    assert (code, err) == (0, "")
    assert "14 right" in out
    fourteen = imread(path)
    assert fourteen.std() > 0.05
    run(capsys, model, EXAMPLES / "16a04Wb.flac", "--picture", path)
    one = imread(path)
    assert one.shape[0] < fourteen.shape[0] / 3
    assert one.shape[1] == fourteen.shape[1] / 2


def test_a_picture_shows_the_first_windows_of_many(predictor, tmp_path):
    picture = pytest.importorskip("vervet.picture")
    clip(tmp_path / "long.wav", "fear", 30.0)
    items, _ = predict.find([tmp_path / "long.wav"])
    answers = list(predict.predict_many(predictor, items, hop_s=1))
    assert picture.draw(predictor, answers, tmp_path / "run.png") == picture.MOST_WINDOWS < len(answers[0].predictions)
    with pytest.raises(ValueError, match="nothing was predicted"):
        picture.draw(predictor, [], tmp_path / "none.png")


def test_predicting_imports_no_torch_and_importing_nothing_at_all(model):
    script = (
        "import sys, vervet\n"
        "assert not {'numpy', 'onnxruntime', 'torch'} & set(sys.modules), 'import vervet is not cheap'\n"
        "import numpy as np\n"
        f"predictions = vervet.load({str(model)!r})((np.sin(np.arange(32000) * 0.1).astype('f4'), 16000))\n"
        "assert isinstance(predictions[0], vervet.Prediction)\n"
        "found = {'torch', 'matplotlib', 'pandas', 'librosa'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr


def test_the_command_answers_in_a_pipe(model, tmp_path):
    path = clip(tmp_path / "a.wav", "boredom")
    start = "import sys; from vervet.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", start, "predict", str(path), str(path), "--model", str(model)]
    done = subprocess.run(words, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""  # no progress bar where there is no terminal
    assert done.stdout.count(b"boredom") == 2
    assert b"#" in done.stdout
