import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from vervet.cli import main
from vervet.evaluation.run import evaluate


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("predict", "train", "evaluate", "audit", "corpus", "describe", "export"))


def test_unknown_words_are_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["describe", "student", "--classes", "7", "--colour=red"])
    printed = capsys.readouterr().err
    assert "unrecognized arguments: --colour=red" in printed
    assert "--classes" in printed  # the command's own options, not those of all commands


def test_a_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "vervet.evaluation.complexity", raising=False)
    assert main(["describe", "student", "--classes", "7"]) == 1
    assert "needs torch, which is not installed: pip install 'vervet[train]'" in capsys.readouterr().err


def test_debug_shows_where_an_error_came_from():
    with pytest.raises(ValueError, match=r"holds no run\.json"):
        main(["evaluate", "nowhere", "--debug"])


def test_a_reader_that_stops_early_is_no_error():
    words = [sys.executable, "-m", "vervet", "describe", "student", "--classes", "7"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_closed_outputs_are_no_error():
    words = [sys.executable, "-m", "vervet", "describe", "student", "--classes", "7"]
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        assert subprocess.run(f"{shlex.join(words)} {closed}", shell=True, stdout=subprocess.DEVNULL).returncode == 0


def test_evaluate_pools_folds(tmp_path, tiny_recipe, tiny_corpus, capsys):
    runs = []
    for fold in ("0", "3"):
        runs.append(str(tmp_path / fold))
        words = ["train", str(tiny_recipe), "--corpus", "table", "--root", str(tiny_corpus), "--protocol", "speaker"]
        more = ["--stages=teacher", "--teacher.epochs=1", "--cache", str(tmp_path / "cache"), "--cpu", "--no-export"]
        assert main([*words, *more, "--fold", fold, "--out", runs[-1]]) == 0
    printed = capsys.readouterr().out
    assert "Confusion matrix of teacher, fold 0" in printed
    run = json.loads(Path(runs[1], "run.json").read_text())
    Path(runs[1], "run.json").write_text(json.dumps(run | {"machine": "another"}))
    assert main(["evaluate", *runs, "--format", "json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [record["fold"] for record in records] == [0, 3, "all"]
    pooled = records[-1]
    assert pooled["n_test"] == 18
    assert pooled["folds"] == [0, 3]
    assert pooled["machine"] == f"{run['machine']}; another"
    assert pooled["commit"] == records[0]["commit"]
    assert pooled["wa"] == pytest.approx((records[0]["wa"] + records[1]["wa"]) / 2)
    assert set(pooled["by_speaker"]) == {"s0", "s3"}
    assert not pooled["leaky"]
    assert pooled["uar_interval"] is not None
    assert main(["report", str(tmp_path / "results.json"), "--add", *runs]) == 0
    assert "folds" in (tmp_path / "README.md").read_text()
    assert len(json.loads((tmp_path / "results.json").read_text())) == 3
    assert main(["evaluate", runs[0], runs[0]]) == 1
    assert "fold given twice among [0, 0]" in capsys.readouterr().err
    audit = json.loads(Path(runs[1], "audit.json").read_text())
    Path(runs[1], "audit.json").write_text(json.dumps(audit | {"leaky": True}))  # copies under another name
    assert [record["leaky"] for record in evaluate([Path(run) for run in runs])] == [False, True, True]
    for folder in runs:  # of two corpora, the second through before the first
        file = Path(folder, "run.json")
        file.write_text(json.dumps(json.loads(file.read_text()) | {"corpus": "emodb+savee"}))
    before = evaluate([Path(run) for run in runs])[-1]
    table = Path(runs[1], "teacher", "predictions.csv")
    table.write_text(table.read_text() + Path(runs[0], "teacher", "predictions.csv").read_text().partition("\n")[2])
    again = evaluate([Path(run) for run in runs])[-1]
    assert again["n_test"] == 18
    assert again["calibration"] == before["calibration"]
    assert evaluate([Path(run) for run in reversed(runs)])[-1] == again  # whatever the order, the first fold counts
    results = tmp_path / "two" / "results.json"
    assert main(["report", str(results), "--add", *runs]) == 0
    assert [one["fold"] for one in json.loads(results.read_text())] == [0, 3, "all"]
    for folder in runs:
        file = Path(folder, "run.json")
        file.write_text(json.dumps(json.loads(file.read_text()) | {"corpus": "emodb"}))
    capsys.readouterr()
    assert main(["evaluate", *runs]) == 0
    assert " 2 of 10 teacher" in capsys.readouterr().out


def test_runs_of_two_tables_are_not_pooled(tiny_recipe, tiny_corpus, tmp_path, capsys):
    words = ["train", str(tiny_recipe), "--corpus", "table", "--protocol", "speaker", "--cpu", "--no-export"]
    words += ["--stages=teacher", "--teacher.epochs=1", "--cache", str(tmp_path / "cache")]
    (other := tmp_path / "other").mkdir()
    table = other / "clips.csv"
    rows = tiny_corpus.read_text().splitlines()
    table.write_text(
        "\n".join([rows[0], *(f"{tiny_corpus.parent}/{row}" for row in rows[1:] if "_2.wav" not in row)]) + "\n"
    )
    runs = []
    for fold, root in enumerate((tiny_corpus, table)):
        runs.append(str(tmp_path / f"fold-{fold}"))
        assert main([*words, "--root", str(root), "--fold", str(fold), "--out", runs[-1]]) == 0
    assert main(["evaluate", *runs]) == 1
    assert f"{runs[1]} and {runs[0]} are not of the same clips; score them one by one" in capsys.readouterr().err


def test_a_machine_without_a_home_needs_a_place_for_images(monkeypatch, tiny_recipe, tiny_corpus, tmp_path, capsys):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", homeless)
    words = ["train", str(tiny_recipe), "--corpus", "table", "--root", str(tiny_corpus), "--protocol", "clip"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 1
    assert "name a folder with --cache" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
