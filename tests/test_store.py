"""What `--out` writes: each recording once, however often and however rudely the run is cut off."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx_double
import pytest
import soundfile
from onnx_double import LABELS, RATE, sine
from predicting import clip, run

from vervet import batch, store
from vervet.predict import Prediction

FORMS = ["csv", "jsonl", "parquet"]


@pytest.fixture(params=FORMS)
def form(request) -> str:
    if request.param == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'vervet[parquet]'")
    return request.param


@pytest.fixture
def clips(tmp_path) -> Path:
    """Four recordings with an answer, one of them in three windows and one half silent; one without."""
    folder = tmp_path / "clips"
    for index, label in enumerate(LABELS[:3]):
        clip(folder / f"{index}.wav", label, 9.0 if index == 1 else 1.0)
    (folder / "3.wav").write_text("no audio")
    soundfile.write(folder / "4.wav", np.concatenate([sine(5, 4.0), np.zeros(4 * RATE)]), RATE)
    return folder


def rows(out: Path) -> list[dict]:
    """All rows, numbers as numbers."""
    if out.suffix == ".csv":
        with out.open(newline="", encoding="utf-8") as file:
            found = list(csv.DictReader(file))
        return [{name: number(value) for name, value in row.items()} for row in found]
    if out.suffix == ".jsonl":
        return [json.loads(line) for line in out.read_text().splitlines()]
    from pyarrow import dataset

    return dataset.dataset(out, format="parquet").to_table().to_pylist()


def number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def problems(out: Path) -> list[tuple[str, str, str]]:
    with Path(f"{out}.problems.csv").open(newline="") as file:
        header, *found = csv.reader(file)
    assert header == ["file", "windows", "problem"]
    return [(file, windows, problem) for file, windows, problem in found]


# --- what is written


def test_it_holds_what_is_printed(capsys, model, clips, tmp_path, form):
    _, printed, said = run(capsys, model, clips, "--format", "json")
    expected = json.loads(printed)
    out = tmp_path / "new" / f"x.{form}"
    code, printed, err = run(capsys, model, clips, "--out", out)
    assert code == 1
    assert printed == f"{out}: not all is answered, 2 problems are in {out}.problems.csv\n"
    assert err == said
    found = rows(out)
    assert len(found) == len(expected) == 6
    for row, record in zip(found, expected, strict=True):
        assert [row[name] for name in ("file", "start_s", "end_s", "label")] == list(record.values())[:4]
        scores = row.get("scores") or {label: row[label] for label in LABELS}
        assert scores == pytest.approx(record["scores"], abs=1e-7)
    (file, windows, problem), (half, heard, silent) = problems(out)
    assert (file, windows, half, heard) == (str(clips / "3.wav"), "0", str(clips / "4.wav"), "1")
    assert "not audio" in problem
    assert "silent" in silent


def test_columns_of_a_table_survive(capsys, model, clips, tmp_path, form):
    (clips / "t.csv").write_text('file,speaker,label\n0.wav,7,"a, b"\n')
    out = tmp_path / f"x.{form}"
    assert run(capsys, model, clips / "t.csv", clips / "1.wav", "--out", out)[0] == 0
    found = [(str(row.get("speaker")), row.get("table_label")) for row in rows(out)]
    assert found == ([("7", "a, b")] + [("None", None)] * 3 if form == "jsonl" else
                     [("7" if form == "parquet" else "7.0", "a, b")] + [("", "")] * 3)  # fmt: skip


def test_names_that_are_no_characters_are_escaped(capsys, model, tmp_path, form):
    path = clip(tmp_path / "a.wav", "anger")
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav"))
    try:
        path.rename(odd)
    except OSError:
        pytest.skip("this file system takes no such names")
    out = tmp_path / f"x.{form}"
    assert run(capsys, model, odd, "--out", out)[0] == 0
    (row,) = rows(out)
    assert row["file"].encode("utf-8", "backslashreplace").decode() == f"{tmp_path}/\\udcff.wav"


def test_parquet_carries_its_model_and_has_narrow_types(capsys, model, predictor, clips, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "x.parquet"
    run(capsys, model, clips, "--out", out)
    assert [path.name for path in out.iterdir()] == ["part-000000.parquet"]
    schema = parquet.read_schema(out / "part-000000.parquet")
    assert json.loads(schema.metadata[b"vervet"])["model"] == predictor.digest[:16]
    assert [str(schema.field(name).type) for name in ("file", "start_s", "label", "confidence", "fear")] == [
        "string", "double", "string", "float", "float"]  # fmt: skip


# --- continued


def test_a_finished_run_has_nothing_left_to_do(capsys, model, clips, tmp_path, form):
    out = tmp_path / f"x.{form}"
    run(capsys, model, clips, "--out", out)
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("x.*")) if path.is_file()}
    code, _, err = run(capsys, model, clips, "--out", out)
    assert (code, err) == (1, "")  # the problems of before are still there
    assert before == {path: path.read_bytes() for path in sorted(tmp_path.rglob("x.*")) if path.is_file()}


def test_new_recordings_are_added(capsys, model, clips, tmp_path, form):
    out = tmp_path / f"x.{form}"
    run(capsys, model, clips, "--out", out)
    before = rows(out)
    clip(clips / "05.wav", "sadness")
    run(capsys, model, clips, "--out", out)
    *first, last = rows(out)
    assert first == before
    assert (Path(last["file"]).name, last["label"]) == ("05.wav", "sadness")


def test_what_failed_is_tried_again_only_when_asked(capsys, model, clips, tmp_path, form):
    out = tmp_path / f"x.{form}"
    run(capsys, model, clips, "--out", out)
    clip(clips / "3.wav", "neutral")
    run(capsys, model, clips, "--out", out)
    assert [row for row in rows(out) if row["file"].endswith("3.wav")] == []
    assert run(capsys, model, clips, "--out", out, "--retry")[0] == 1
    assert [row["label"] for row in rows(out) if row["file"].endswith("3.wav")] == ["neutral"]
    assert [file for file, *_ in problems(out)] == [str(clips / "4.wav")]
    assert len(rows(out)) == 7
    (clips / "4.wav").unlink()  # was answered in part, so it is not asked for again
    assert run(capsys, model, clips, "--out", out, "--retry")[0] == 1
    assert len(rows(out)) == 7


def test_what_is_not_named_keeps_its_problem(capsys, model, clips, tmp_path, form):
    out = tmp_path / f"x.{form}"
    (clips / "5.wav").write_text("no audio either")
    run(capsys, model, clips, "--out", out)
    clip(clips / "5.wav", "neutral")
    code, printed, _ = run(capsys, model, clips / "5.wav", "--out", out, "--retry")
    assert (code, "2 problems" in printed) == (1, True)
    assert [Path(file).name for file, *_ in problems(out)] == ["3.wav", "4.wav"]
    assert [row["label"] for row in rows(out) if row["file"].endswith("5.wav")] == ["neutral"]
    before = Path(f"{out}.journal").read_bytes()
    run(capsys, model, clips, "--out", out)
    assert Path(f"{out}.journal").read_bytes() == before
    assert len(rows(out)) == 7


def test_a_row_that_cannot_be_read_is_looked_at_anew(capsys, model, clips, tmp_path, form):
    table, out = tmp_path / "t.csv", tmp_path / f"x.{form}"
    good, bad = f"{clips}/0.wav,a", f"{clips}/0.wav,a,more"
    table.write_text(f"file,who\n{good}\n{bad}\n")
    assert run(capsys, model, table, "--out", out)[0] == 1
    assert ["row 3: 3 values" in problem for *_, problem in problems(out)] == [True]
    table.write_text(f"file,who\n{clips}/1.wav,b\n{good}\n{bad}\n")
    assert run(capsys, model, table, "--out", out)[0] == 1
    assert ["row 4: 3 values" in problem for *_, problem in problems(out)] == [True]
    table.write_text(f"file,who\n{clips}/1.wav,b\n{good}\n")
    code, printed, _ = run(capsys, model, table, "--out", out)
    assert (code, "problem" in printed) == (0, False)
    assert not Path(f"{out}.problems.csv").exists()
    assert len(rows(out)) == 1 + 3
    assert run(capsys, model, table, "--out", out)[0] == 0


def test_its_own_files_are_no_input(capsys, model, clips, tmp_path, monkeypatch, form):
    monkeypatch.chdir(clips)
    out = Path(f"x.{form}")
    for named in (["*"], ["*"], None):
        named = named or sorted(os.listdir("."))  # as a shell does it
        code, _, err = run(capsys, model, *named, "--out", out)
        assert code == 1
        assert "x." not in err
        assert [Path(file).name for file, *_ in problems(out)] == ["3.wav", "4.wav"]
    assert len(rows(out)) == 6
    code, _, err = run(capsys, model, out, "--out", out)
    assert (code, "is the output, and no other recording is named" in err) == (1, True)


def test_a_recording_listed_twice_is_answered_twice(capsys, model, clips, tmp_path, form):
    out = tmp_path / f"x.{form}"
    for _ in range(2):
        assert run(capsys, model, clips / "0.wav", clips / "0.wav", "--out", out)[0] == 0
        assert [row["label"] for row in rows(out)] == ["anger", "anger"]


# --- cut off


def test_what_was_added_is_written_however_it_ends(model, predictor, clips, tmp_path, form):
    out = tmp_path / f"x.{form}"
    with suppress(KeyboardInterrupt), store.opened(out, predictor) as begun:
        for answer in batch.predict_many(predictor, batch.find([clips])):
            begun.add(answer)
        raise KeyboardInterrupt
    assert len(rows(out)) == 6
    with store.opened(out, predictor) as begun:
        assert begun.there == 5


def made(number: int) -> batch.Answer:
    item = batch.Item(Path(f"{number}.wav"), f"{number}.wav")
    scores = dict.fromkeys(LABELS, 1 / 7)
    heard = [Prediction(item.file, 4.0 * n, 4.0 * n + 4, "anger", scores) for n in range(number % 4)]
    return batch.Answer(item, heard, "" if heard else f"{item.file}: is empty")


def fill(out: Path, predictor, numbers, each: bool = False) -> list[int]:
    """Answer what is lacking, and say what that was."""
    lacked = []
    with store.opened(out, predictor) as opened:
        for number in numbers:
            if opened.lacks(made(number).item):
                lacked.append(number)
                opened.add(made(number))
                if each:
                    opened.commit()
    return lacked


@pytest.fixture
def whole(predictor, tmp_path, form) -> tuple[Path, list[tuple[str, float]]]:
    """An output whose every answer was committed for itself, and what is in it."""
    out = tmp_path / "whole" / f"x.{form}"
    fill(out, predictor, range(12), each=True)
    expected = [(f"{number}.wav", 4.0 * n) for number in range(12) for n in range(number % 4)]
    assert [(row["file"], row["start_s"]) for row in rows(out)] == expected
    return out, expected


def test_wherever_the_journal_ends_the_next_run_completes_the_output(predictor, tmp_path, whole):
    source, expected = whole
    journal = Path(f"{source}.journal").read_bytes()
    head = journal.index(b"\n{") + len('\n{"output": 0}\n')  # written before there is an output
    for number, end in enumerate(range(head, len(journal), 41)):
        folder = tmp_path / str(number)
        shutil.copytree(source.parent, folder)
        out = folder / source.name
        Path(f"{out}.journal").write_bytes(journal[:end])
        done = journal[head:end].count(b'"output"') - (b'"output"' in journal[head:end].rpartition(b"\n")[2])
        assert fill(out, predictor, range(12)) == list(range(done, 12))
        assert [(row["file"], row["start_s"]) for row in rows(out)] == expected
        assert [file for file, *_ in problems(out)] == ["0.wav", "4.wav", "8.wav"]
        assert fill(out, predictor, range(12)) == []


@pytest.mark.parametrize("tail", [b"7.wav,0.0,4.0,ang", b"\n", b"\0\0\0\0"])
def test_half_written_lines_are_cut_off(predictor, whole, tail):
    out, expected = whole
    part = out / "part-000099.parquet" if out.suffix == ".parquet" else out
    with part.open("ab") as file:
        file.write(tail)
    with Path(f"{out}.journal").open("ab") as file:
        file.write(tail)
    assert fill(out, predictor, range(13)) == [12]
    assert [(row["file"], row["start_s"]) for row in rows(out)] == expected
    assert len(problems(out)) == 4


def test_an_error_leaves_what_was_committed(predictor, tmp_path, form):
    out = tmp_path / f"x.{form}"

    def interrupted():
        yield from range(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(out, predictor, interrupted(), each=True)
    assert fill(out, predictor, range(8)) == [5, 6, 7]


def test_a_run_that_died_before_its_first_answer_begins_anew(predictor, tmp_path, form):
    out = tmp_path / f"x.{form}"
    Path(f"{out}.journal").write_bytes(b'{"vervet": "0.1.0", "mod')
    assert fill(out, predictor, range(3)) == [0, 1, 2]


# --- refused


def test_another_model_window_hop_or_table_is_refused(capsys, model, clips, tmp_path, form):
    out = tmp_path / f"x.{form}"
    run(capsys, model, clips, "--out", out, "--hop-s", 2)
    other = onnx_double.write(tmp_path / "other.onnx", {"fold": 1})
    (clips / "t.csv").write_text("file,speaker\n0.wav,7\n")
    cases = [
        ((model, clips), "with hop_s 2.0, not with hop_s 4.0"),
        ((model, clips, "--hop-s", 1), "with hop_s 2.0, not with hop_s 1.0"),
        ((model, clips, "--hop-s", 2, "--window-s", 3), "with window_s 4.0, not with window_s 3.0"),
        ((model, clips, "--hop-s", 2, "--whole"), "without whole, not with whole"),
        ((model, clips, "--hop-s", 2, "--channel", 0), "without channel, not with channel 0"),
        ((model, clips, "--hop-s", 2, "--speech-only"), "without speech_only, not with speech_only"),
        ((other, clips, "--hop-s", 2), "with model"),
        ((model, clips / "t.csv", "--hop-s", 2), "with columns"),
    ]
    before = rows(out)
    for (asked, *words), differs in cases:
        code, _, err = run(capsys, asked, *words, "--out", out)
        assert (code, rows(out)) == (1, before)
        assert f"{out}: was begun {differs}" in err
        assert "give the same, or another --out" in err


def test_a_journal_damaged_in_its_middle_loses_no_answers(predictor, whole):
    journal = Path(f"{whole[0]}.journal")
    lines = journal.read_bytes().splitlines(keepends=True)
    damaged = b"".join([*lines[:3], b"garbage\n", *lines[4:]])
    journal.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"journal: line 4 is damaged, but not all that follow"):
        fill(whole[0], predictor, range(13))
    assert journal.read_bytes() == damaged


def test_an_output_without_its_journal_is_left_alone(predictor, whole):
    out, expected = whole
    Path(f"{out}.journal").unlink()
    with pytest.raises(ValueError, match="is there without its journal"):
        fill(out, predictor, range(13))
    assert len(rows(out)) == len(expected)


def test_an_output_that_has_lost_answers_is_not_continued(predictor, whole):
    out, _ = whole
    if out.suffix == ".parquet":
        (out / "part-000003.parquet").unlink()
    else:
        os.truncate(out, out.stat().st_size - 1)
    with pytest.raises(ValueError, match=r"its journal knows \d+ \w+, but there are \d+; bring back"):
        fill(out, predictor, range(13))


def test_two_runs_cannot_write_one_output(predictor, tmp_path, form):
    pytest.importorskip("fcntl")
    out = tmp_path / f"x.{form}"
    with store.opened(out, predictor), pytest.raises(ValueError, match="another run is writing it"):
        fill(out, predictor, range(3))
    assert fill(out, predictor, range(3)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "x.txt"), "x.txt: the name of an output ends in .csv, .jsonl, .parquet"),
        (("--out", "x.csv", "--format", "json"), "leave out --format and --picture"),
        (("--out", "x.csv", "--picture", "x.png"), "leave out --format and --picture"),
        (("--retry",), "name it with --out"),
    ],
)
def test_options_that_do_not_go_together(capsys, model, clips, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, model, clips, *words)
    assert (code, out) == (1, "")
    assert message in err
    assert not list(tmp_path.glob("x.*"))


def test_a_missing_pyarrow_is_named_before_the_work(capsys, model, clips, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = run(capsys, model, clips, "--out", tmp_path / "x.parquet")
    assert code == 1
    assert "needs pyarrow, which is not installed: pip install 'vervet[parquet]'" in err
    assert not list(tmp_path.glob("x.*"))


# --- real processes


def started(model: Path, folder: Path, out: Path) -> subprocess.Popen:
    words = [sys.executable, "-m", "vervet", "predict", folder, "--model", model, "--out", out, "--jobs", "2"]
    return subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen, journal: Path, size: int) -> None:
    """Until the journal is larger than this, or the process has ended."""
    for _ in range(3000):
        if process.poll() is not None or (journal.exists() and journal.stat().st_size > size):
            return
        time.sleep(0.01)
    pytest.fail("nothing was written within half a minute")


@pytest.fixture
def many(tmp_path) -> Path:
    """Links to a few recordings of 9 s, and files that are none; more than is answered in a second."""
    source = [clip(tmp_path / "source" / f"{label}.wav", label, 9.0) for label in LABELS]
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(1000):
        path = folder / f"{number:04}.wav"
        if number % 50:
            os.link(source[number % 7], path)
        else:
            path.write_text("no audio")
    return folder


@pytest.mark.slow
def test_killed_at_any_moment_each_recording_is_answered_once(model, many, tmp_path):
    out, journal = tmp_path / "x.csv", tmp_path / "x.csv.journal"
    random.seed(0)
    for _ in range(3):
        size = journal.stat().st_size if journal.exists() else 0
        process = started(model, many, out)
        wait_for(process, journal, size + 1000)
        time.sleep(random.random() / 2)
        process.kill()
        process.communicate()
    process = started(model, many, out)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    found = [(Path(row["file"]).name, row["start_s"], row["label"]) for row in rows(out)]
    assert sorted(found) == [
        (f"{number:04}.wav", 4.0 * window, LABELS[number % 7])
        for number in range(1000) if number % 50 for window in range(3)
    ]  # fmt: skip
    assert sorted(Path(file).name for file, *_ in problems(out)) == [
        f"{number:04}.wav" for number in range(0, 1000, 50)
    ]
    keys = [json.loads(line).get("key") for line in journal.read_text().splitlines()]
    assert len([key for key in keys if key]) == len({key for key in keys if key}) == 1000


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for another process")
def test_ctrl_c_ends_it_and_the_same_command_goes_on(model, many, tmp_path):
    out, journal = tmp_path / "x.csv", tmp_path / "x.csv.journal"
    process = started(model, many, out)
    wait_for(process, journal, 1000)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "vervet predict: interrupted; the same command goes on from here"
    assert "Traceback" not in err
    done = len(rows(out))
    assert 0 < done < 3 * 980
    process = started(model, many, out)
    process.communicate(timeout=300)
    assert len(rows(out)) == 3 * 980
