import csv
import io
import json
import os
import threading
import time
from itertools import count, cycle
from pathlib import Path

import numpy as np
import pytest
import soundfile
from onnx_double import LABELS, RATE, sine, sure
from predicting import clip, run, run_json

from vervet import audio, batch
from vervet.cli import main
from vervet.corpora import AUDIO_SUFFIXES, table

# --- the command


def test_files_folders_and_globs(capsys, model, tmp_path, monkeypatch):
    clip(tmp_path / "b" / "same.wav", "anger")
    clip(tmp_path / "a" / "deep" / "same.wav", "fear")
    clip(tmp_path / "a" / "LOUD.FLAC", "neutral")
    clip(tmp_path / "a" / "x.mp3", "boredom")
    clip(tmp_path / "a" / "._x.wav", "sadness")
    clip(tmp_path / "a" / ".Trashes" / "501" / "y.wav", "sadness")
    (tmp_path / "a" / "notes.txt").write_text("no audio")
    monkeypatch.chdir(tmp_path)

    def heard(*paths):
        return [(Path(r["file"]).as_posix(), r["label"]) for r in run_json(capsys, model, *paths)]

    in_a = [("a/LOUD.FLAC", "neutral"), ("a/deep/same.wav", "fear"), ("a/x.mp3", "boredom")]
    assert heard("b/same.wav", "a") == [("b/same.wav", "anger"), *in_a]
    assert heard("*/same.wav") == [("b/same.wav", "anger")]
    assert heard("**/same.wav") == [("a/deep/same.wav", "fear"), ("b/same.wav", "anger")]
    assert heard("[a]") == in_a
    clip(tmp_path / "ab.wav", "sadness")
    assert heard("[a]*") == [*in_a, ("ab.wav", "sadness")]  # a folder that matches beside a file is searched
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
        ("empty", "no recordings in this folder or below; looked for .wav, .wave, .flac"),
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


def test_one_side_of_a_call_where_it_speaks(capsys, model, tmp_path):
    quiet = 0.003 * np.random.default_rng(0).standard_normal(4 * RATE)
    sides = [[sine(1, 4.0), quiet], [quiet, sine(5, 4.0)]]
    path = tmp_path / "call.wav"
    soundfile.write(path, np.stack([np.concatenate(side) for side in sides], axis=1), RATE)
    for channel, expected in ((0, [(0, LABELS[1])]), (1, [(4, LABELS[5])])):
        records = run_json(capsys, model, path, "--channel", channel, "--speech-only")
        assert [(r["start_s"], r["label"]) for r in records] == expected
    assert len(run_json(capsys, model, path, "--channel", 0)) == 2
    code, out, err = run(capsys, model, path, "--channel", 2)
    assert (code, out) == (1, "")
    assert f"{path}: there is no channel 2; it has channels 0 to 1" in err


def test_the_part_that_has_no_answer_is_named(capsys, model, tmp_path):
    soundfile.write(tmp_path / "call.wav", np.stack([sine(1, 4.0), np.zeros(4 * RATE)], axis=1), RATE)
    (tmp_path / "t.csv").write_text("file,start,end,channel\ncall.wav,,,0\ncall.wav,1,3,1\ncall.wav,1,3,0\n")
    _, out, err = run(capsys, model, tmp_path / "t.csv", "--format", "jsonl")
    assert out.count("\n") == 2
    assert f"{tmp_path / 'call.wav'}#t=1,3&channel=1: silent" in err


@pytest.mark.parametrize(("rate", "hinted"), [(8_000, True), (11_025, True), (16_000, False), (44_100, False)])
def test_the_model_for_telephones_is_named_where_it_suits(capsys, tmp_path, rate, hinted):
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, sine(1, 1.0, rate), rate)
    assert main(["predict", str(tmp_path), "--format", "csv"]) == 0
    told = capsys.readouterr()
    assert told.err.count("--model telephone is for these") == hinted
    assert told.out.count("\n") == 3
    assert main(["predict", str(tmp_path), "--model", "telephone", "--format", "csv"]) == 0
    assert capsys.readouterr().err == ""


# --- tables


def test_one_answer_for_each_recording(capsys, model, tmp_path):
    clip(tmp_path / "a.wav", "anger", 9.0)
    clip(tmp_path / "b.wav", "fear", 2.0)
    found = run_json(capsys, model, tmp_path, "--whole")
    assert [(Path(r["file"]).name, r["start_s"], r["end_s"], r["label"]) for r in found] == [
        ("a.wav", 0, 9, "anger"),
        ("b.wav", 0, 2, "fear"),
    ]
    code, _, err = run(capsys, model, tmp_path, "--whole", "--picture", tmp_path / "p.png")
    assert (code, "leave out --whole" in err) == (1, True)


def test_what_others_decode_is_named_not_passed_over(capsys, model, tmp_path):
    clip(tmp_path / "a.wav", "anger")
    (tmp_path / "call.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    (tmp_path / "call.webm").write_bytes(b"\x1a\x45\xdf\xa3" + bytes(100))
    code, out, err = run(capsys, model, tmp_path, "--format", "jsonl")
    assert (code, out.count("\n")) == (1, 1)
    assert "call.webm: is WebM or Matroska, which is not decoded here" in err
    assert "call.m4a: is MPEG-4 audio or video, such as .m4a, which is not decoded here" in err


@pytest.mark.parametrize("suffix", AUDIO_SUFFIXES)
def test_what_a_folder_holds_of_any_kind_is_answered(capsys, model, tmp_path, suffix):
    forms = {"wave": "wav", "oga": "ogg", "opus": "ogg", "aif": "aiff", "aifc": "aiff", "snd": "au", "sph": "nist"}
    form = forms.get(suffix[1:], suffix[1:])
    subtype = "OPUS" if suffix == ".opus" else None
    soundfile.write(tmp_path / f"a{suffix}", sine(1, 2.0), RATE, subtype, format=form.upper())
    assert [record["label"] for record in run_json(capsys, model, tmp_path)] == [LABELS[1]]


def test_a_name_cannot_command_the_terminal(capsys, model, tmp_path):
    path = clip(tmp_path / "a\x1b[31mred\nline.wav", "anger")
    _, out, _ = run(capsys, model, path)
    assert "\x1b" not in out
    assert "red\\nline.wav" in out
    _, _, err = run(capsys, model, tmp_path / "no\nsuch.wav")
    assert "no\\nsuch.wav" in err


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
    own = ["file", "start_s", "end_s", "label", "confidence", "uncertain", *LABELS]
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
        ("6.25e-05", 6.25e-5),
        ("0 days 00:00:01.500000", 1.5),
        ("00:01:02", 62),
        ("1 days 01:00:00", 90_000),
        ("NaT", None),
    ],
)
def test_times_of_tables(text, seconds):
    assert table.seconds(text) == seconds


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no column 'file', only nothing"),
        ("path,emotion\na.wav,anger\n", "has no column 'file', only path, emotion"),
        ("file,x,x\na.wav,1,2\n", "two columns have the same name"),
        ("file,emotion\n", "has no rows"),
        ("file,emotion\n\n\n", "has no rows"),
        ("file,emotion\na.wav,anger,more\n", "row 2: 3 values under 2 columns"),
        ("file,emotion\n,anger\n", "row 2: names no file"),
        ("file,start,end\na.wav,soon,2\n", "row 2: 'soon' is not a time"),
        ("file,start,end\na.wav,-1 days +23:59:59,2\n", "is not a time"),
        ("file,start,end\na.wav,1,9\n", "segment 1 to 9 s is not within its 2.00 s"),
        ("file,start,end\na.wav,2,1\n", "row 2: ends at 1 s, and begins at 2 s; correct one of them"),
        ("file,channel\na.wav,left\n", "row 2: channel 'left' is not a number, 0 the first"),
        ("file,channel\na.wav,1\n", "a.wav: there is no channel 1; it has one channel, number 0"),
        ("file\ngone.wav\n", "gone.wav: no such file"),
    ],
)
def test_faults_of_tables_are_named(capsys, model, tmp_path, content, message):
    clip(tmp_path / "a.wav", "anger")
    (tmp_path / "t.csv").write_text(content)
    code, out, err = run(capsys, model, tmp_path / "t.csv", "--format", "json")
    assert (code, json.loads(out)) == (1, [])
    assert message in err


def test_a_table_names_one_side_of_a_call(capsys, model, tmp_path):
    soundfile.write(tmp_path / "call.wav", np.stack([sine(1, 2.0), sine(6, 2.0)], axis=1), RATE)
    (tmp_path / "t.csv").write_text("file,channel,end\ncall.wav,0.0,NaN\ncall.wav,1.0,1.5\ncall.wav,nan,1\n")
    records = run_json(capsys, model, tmp_path / "t.csv", "--channel", "1")
    assert [(r["end_s"], r["label"]) for r in records] == [(2, LABELS[1]), (1.5, LABELS[6]), (1, LABELS[6])]
    code, _, err = run(capsys, model, tmp_path / "t.csv", "--out", tmp_path / "o.audformat")
    assert (code, "audformat has no channels to tell parts by" in err) == (1, True)
    assert not (tmp_path / "o.audformat").exists()


def test_a_bad_row_stops_none_of_the_others(capsys, model, tmp_path):
    clip(tmp_path / "a.wav", "anger")
    (tmp_path / "t.csv").write_text("file,start,end\na.wav,x,1\na.wav,,\n")
    code, out, err = run(capsys, model, tmp_path / "t.csv", "--format", "json")
    assert (code, [r["label"] for r in json.loads(out)]) == (1, ["anger"])
    assert "t.csv: row 2" in err


def test_links_are_followed_but_never_round_and_round(tmp_path):
    folder = tmp_path / "here"
    (tmp_path / "far").mkdir()
    clip(tmp_path / "far" / "a.wav", "anger")
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "back").symlink_to(folder)
    (folder / "far").symlink_to(tmp_path / "far")
    (folder / "gone.wav").symlink_to(tmp_path / "nothing.wav")
    (folder / "itself").symlink_to("itself")
    (folder / "itself.wav").symlink_to("itself.wav")
    expected = [str(folder / name) for name in ("far/a.wav", "gone.wav", "itself.wav")]
    assert [item.file for item in batch.find([folder])] == expected
    assert [item.file for item in batch.find([f"{folder}/**/*.wav"])] == expected


def test_a_quote_that_is_not_closed_hides_no_rows(capsys, model, tmp_path):
    clip(tmp_path / "a.wav", "anger")
    (tmp_path / "t.csv").write_text('file,note\na.wav,"two\nlines"\na.wav,"said: hm\na.wav,\na.wav,\n')
    code, out, err = run(capsys, model, tmp_path / "t.csv", "--format", "jsonl")
    assert (code, [json.loads(line)["note"] for line in out.splitlines()]) == (1, ["two\nlines"])
    assert "t.csv: the row of line 4 is not CSV (unexpected end of data); is a quote not closed?" in err


def test_a_table_in_another_encoding_is_named(capsys, model, tmp_path):
    (tmp_path / "t.csv").write_bytes("file\nä.wav\n".encode("latin-1"))
    code, _, err = run(capsys, model, tmp_path / "t.csv")
    assert code == 1
    assert "t.csv: not a CSV table in UTF-8" in err


# --- on many threads


@pytest.fixture
def tones(tmp_path) -> list[batch.Item]:
    for index in range(12):
        clip(tmp_path / f"{index:02}.wav", LABELS[index % len(LABELS)], 1.0 if index % 4 else 11.0)
    return list(batch.find([tmp_path]))


def test_answers_do_not_depend_on_the_jobs(predictor, tones):
    one, many = (list(batch.predict_many(predictor, tones, jobs=jobs, hop_s=2)) for jobs in (1, 5))
    assert one == many
    assert [answer.item for answer in one] == tones
    for answer in one:
        assert [p.label for p in answer.predictions] == [p.label for p in predictor(answer.item.path, hop_s=2)]


def test_the_order_is_kept_when_the_first_takes_longest(predictor, tones, monkeypatch):
    windows = audio.windows

    def slow(source, *rest):
        time.sleep(0.2 if source == tones[0].path else 0)
        return windows(source, *rest)

    monkeypatch.setattr(audio, "windows", slow)
    assert [answer.item for answer in batch.predict_many(predictor, tones, jobs=3)] == tones


def test_only_so_many_recordings_are_read_ahead(predictor, tones):
    taken = count()
    answers = batch.predict_many(predictor, (item for item in cycle(tones) if next(taken) >= 0), jobs=2)
    for _ in range(5):
        next(answers)
    assert next(taken) <= 2 * batch.AHEAD + 5
    answers.close()


def test_only_so_many_windows_are_read_ahead(predictor, tmp_path, monkeypatch):
    path = clip(tmp_path / "long.wav", "fear", 200.0)
    windows, probabilities = audio.windows, predictor.probabilities
    read = heard = most = 0

    def counted(*arguments):
        nonlocal read, most
        for window in windows(*arguments):
            read += 1
            most = max(most, read - heard)
            yield window

    def slow(waveforms):
        nonlocal heard
        time.sleep(0.002)
        heard += 1
        return probabilities(waveforms)

    monkeypatch.setattr(audio, "windows", counted)
    monkeypatch.setattr(predictor, "probabilities", slow)
    (answer,) = batch.predict_many(predictor, [batch.Item(path, "long")], hop_s=1)
    assert len(answer.predictions) == 197
    assert 1 < most <= batch.WINDOWS + 1


def test_work_ends_soon_after_nobody_wants_it(predictor, tones):
    before = threading.active_count()
    answers = batch.predict_many(predictor, cycle(tones), jobs=2)
    next(answers)
    start = time.monotonic()
    answers.close()
    assert time.monotonic() - start < 5
    assert threading.active_count() == before


def test_a_fault_of_ours_costs_one_recording(predictor, tones, monkeypatch):
    windows = audio.windows

    def faulty(source, *rest):
        if source == tones[3].path:
            raise TypeError("unforeseen")
        return windows(source, *rest)

    monkeypatch.setattr(audio, "windows", faulty)
    problems = [answer.problem for answer in batch.predict_many(predictor, tones, jobs=2)]
    assert problems[3] == f"{tones[3].path}: TypeError: unforeseen; a fault of Vervet, please report it with the file"
    assert not any(problems[:3] + problems[4:])


def test_a_model_that_returns_nan_names_the_file(predictor, tones, monkeypatch):
    monkeypatch.setattr(predictor, "run", lambda waveforms: {"logits": np.full((len(waveforms), 7), np.nan)})
    (answer,) = batch.predict_many(predictor, tones[:1])
    assert answer.problem.startswith(f"{tones[0].file}: the model returned NaN")


def test_no_jobs_are_refused(capsys, model, tones):
    code, _, err = run(capsys, model, tones[0].path, "--jobs", 0)
    assert (code, err) == (1, "vervet predict: 0 jobs: give at least 1\n")


# --- what paths stand for


def test_columns_are_known_before_the_rows_are_read(tmp_path):
    (tmp_path / "a.csv").write_text("speaker,file\n1,a.wav\n")
    (tmp_path / "b.csv").write_text("file, note,speaker\na.wav,x,2\n")
    (tmp_path / "c.csv").write_text("no such column\n")
    (tmp_path / "d.csv").write_bytes("file,ä\n".encode("latin-1"))
    assert batch.columns([tmp_path / "b.csv", tmp_path]) == ["note", "speaker"]
    assert batch.columns([tmp_path / "*.csv", tmp_path / "gone.csv", "none*"]) == ["speaker", "note"]


def test_a_folder_that_cannot_be_listed_stops_none_of_the_others(tmp_path, monkeypatch):
    clip(tmp_path / "a" / "1.wav", "anger")
    clip(tmp_path / "c" / "3.wav", "anger")
    (tmp_path / "b").mkdir()
    scandir = os.scandir

    def guarded(folder):
        if os.path.basename(folder) == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    problems = [item.problem for item in batch.find([tmp_path])]
    assert problems == ["", f"{tmp_path / 'b'}: cannot be listed (Permission denied); check its permissions", ""]


def test_folders_are_listed_in_the_order_of_their_sorted_paths(tmp_path):
    for name in ("a/z.wav", "a.wav", "a b/c.wav", "B.wav", "a/b/c.wav", "ä.wav"):
        clip(tmp_path / name, "anger", 0.1)
    assert [item.path for item in batch.find([tmp_path])] == sorted(tmp_path.rglob("*.wav"))


def test_the_truth_is_told_in_the_words_of_the_model_where_it_has_them():
    decomposed = batch.Item(Path("a.wav"), "a.wav", columns={"emotion": "A\u0308rger "})
    assert (decomposed.truth(), decomposed.truth(("Ärger",))) == ("anger", "Ärger")
    item = batch.Item(Path("a.wav"), "a.wav", columns={"emotion": " calm"})
    assert (item.truth(), item.truth(("anger", "neutral")), item.truth(("calm", "neutral"))) == (
        "neutral",
        "neutral",
        "calm",
    )
