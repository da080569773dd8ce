import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from onnx_double import LABELS, sure
from predicting import clip, run, run_json

from vervet import batch, output, terminal
from vervet.predict import Prediction

EXAMPLES = Path(__file__).parents[1] / "examples"


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
    assert terminal.bar(share, 4) == drawn


def test_terminals_without_blocks_get_ascii():
    assert terminal.printable("██▌ ✓ ä…", "ascii") == r"##  + \xe4~"
    assert terminal.printable("██▌ ✓ ä…", "utf-8") == "██▌ ✓ ä…"
    assert terminal.printable("\udcff.wav", None) == r"\udcff.wav"


def test_json_is_the_contract(capsys, model, tmp_path):
    path = clip(tmp_path / "a.wav", "disgust")
    (record,) = run_json(capsys, model, path)
    assert list(record) == ["file", "start_s", "end_s", "label", "confidence", "uncertain", "scores"]
    assert (record["file"], record["start_s"], record["end_s"], record["label"]) == (str(path), 0.0, 2.0, "disgust")
    assert list(record["scores"]) == LABELS
    assert sum(record["scores"].values()) == pytest.approx(1)


def test_the_examples_are_two_speakers_in_seven_emotions(capsys, model):
    records = run_json(capsys, model, EXAMPLES / "clips.csv")
    assert {(r["speaker"], r["emotion"]) for r in records} == {(s, e) for s in ("15", "16") for e in LABELS}
    initials = dict(zip("WLEAFNT", LABELS, strict=True))
    for record in records:
        assert record["file"][:2] == record["speaker"]
        assert initials[record["file"][5]] == record["emotion"]
        assert record["end_s"] < 4
    assert {r["file"] for r in records} == {path.name for path in EXAMPLES.glob("*.flac")}


def test_the_command_answers_in_a_pipe(model, tmp_path):
    path = clip(tmp_path / "a.wav", "boredom")
    start = "import sys; from vervet.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", start, "predict", str(path), str(path), "--model", str(model)]
    done = subprocess.run(words, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""  # no progress bar where there is no terminal
    assert done.stdout.count(b"boredom") == 2
    assert b"#" in done.stdout


def test_what_programs_read_is_utf_8_whatever_the_terminal(model, tmp_path):
    path = clip(tmp_path / "wow😀–ü.wav", "boredom")
    start = "import sys; from vervet.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", start, "predict", str(path), "--model", str(model), "--format", "json"]
    done = subprocess.run(words, capture_output=True, check=True, env=os.environ | {"PYTHONIOENCODING": "cp1252"})
    assert json.loads(done.stdout.decode("utf-8"))[0]["file"] == str(path)


def test_a_value_may_hold_what_ends_a_line():
    values = ["a\rb", "c\nd", "e\r\nf", "plain"]
    assert list(csv.reader(io.StringIO(output.csv_line(values) + "\n", newline=""))) == [values]


# --- as the answers come


def made(file: str, columns: dict[str, str] | None = None) -> batch.Answer:
    scores = {"anger": 0.25, "fear": 0.75}
    item = batch.Item(Path(file), file, columns=columns or {})
    return batch.Answer(item, [Prediction(file, 0.0, 1.5, "fear", scores)])


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_lines_leave_as_soon_as_their_answer_is_there(form):
    def endless():
        yield made("a.wav")
        yield made("b.wav")
        pytest.fail("asked for more than was needed")

    lines = output.FORMATS[form](endless(), ["anger", "fear"], [])
    header = [next(lines)] if form == "csv" else []
    assert header == ["file,start_s,end_s,label,confidence,uncertain,anger,fear"][: len(header)]
    assert ["a.wav" in next(lines), "b.wav" in next(lines)] == [True, True]


def test_json_lines_hold_what_json_holds(capsys, model, tmp_path):
    for name in ("a", "b"):
        clip(tmp_path / f"{name}.wav", "fear", 5.0)
    (tmp_path / "t.csv").write_text("file,note\na.wav,ü\nb.wav,x\n")
    code, out, _ = run(capsys, model, tmp_path / "t.csv", "--format", "jsonl")
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == run_json(capsys, model, tmp_path / "t.csv")
    assert "ü" in out


def test_columns_never_share_a_name():
    answer = made("a.wav", {"label": "1", "table_label": "2", "fear": "3"})
    header, row = csv.reader(io.StringIO("\n".join(output.to_csv([answer], ["anger", "fear"], answer.item.columns))))
    assert header[-3:] == ["table_label", "table_table_label", "table_fear"]
    assert row[-3:] == ["1", "2", "3"]
    (line,) = output.to_jsonl([answer], ["anger", "fear"], [])
    assert list(json.loads(line).items())[-3:] == [("table_label", "1"), ("table_table_label", "2"), ("fear", "3")]
