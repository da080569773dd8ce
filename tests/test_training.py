import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

import vervet
from vervet.augment import version
from vervet.cli import main
from vervet.config import NETWORKS, Augment, FrontEnd, Online, Recipe, Stage, Vit
from vervet.corpora import Utterance, load_corpus
from vervet.evaluation.leakage import read_split
from vervet.evaluation.protocols import Sample, Split
from vervet.evaluation.records import validate
from vervet.evaluation.robustness import _clips
from vervet.evaluation.run import evaluate, read_tested
from vervet.machine import locked
from vervet.models.checkpoint import load, load_network
from vervet.models.vit import VisionTransformer
from vervet.spectrogram import LogMel
from vervet.training.fit import (
    Side,
    _Log,
    _Loop,
    _order,
    autocast,
    class_weights,
    corpus_shares,
    fit,
    kept_epoch,
    loss_of,
    predict,
    usable,
)
from vervet.training.linear import choose_l2, fit_linear, left_out_together
from vervet.training.pool import Images, make_pool
from vervet.training.run import check_speakers, commit, sides_of
from vervet.training.stages import check_stages
from vervet.training.study import folds_of, read_study, run_jobs, unfiled, with_lenders

SMALL = FrontEnd(duration_s=1.0, n_fft=256, win_length=256, hop_length=128, n_mels=16, width=24)


def words(recipe, table, out, *more, export=False):
    """What to type; without the export, which takes longer than all the rest and is tested elsewhere."""
    return [
        "train", str(recipe), "--corpus", "table", "--root", str(table), "--protocol", "speaker", "--out", str(out),
        "--cache", str(Path(out).parent / "cache"), "--cpu", *([] if export else ["--no-export"]), *more,
    ]  # fmt: skip


def weights(run, stage="student"):
    return load(Path(run) / stage / "model.safetensors")[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_corpus):
    """One finished run of all three stages."""
    from conftest import TINY

    folder = tmp_path_factory.mktemp("run")
    recipe = folder / "tiny.yaml"
    recipe.write_text(TINY)
    assert main(words(recipe, tiny_corpus, folder / "run", export=True)) == 0
    return folder / "run"


def test_a_run_folder_holds_all_it_took_and_gave(run):
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    expected = {
        "run.json", "recipe.yaml", "split.csv", "audit.json", "model.safetensors", "model.json", "model.onnx",
        "metrics.json", "figures/curves.png", "figures/confusion-student.png", "figures/confusion-teacher.png",
    } | {
        f"{stage}/{name}"
        for stage in ("teacher", "matching", "student")
        for name in ("checkpoint.safetensors", "log.csv", "model.safetensors", "model.json", "predictions.csv")
    }  # fmt: skip
    assert expected <= names
    assert any("tfevents" in name for name in names)
    assert not any(name.endswith((".pt", ".pth", ".pkl", ".partial")) for name in names)
    record = json.loads((run / "run.json").read_text())
    assert record["protocol"] == "speaker"
    assert record["leaky"] is False
    assert record["labels"] == ["anger", "neutral", "sadness"]
    assert {"python", "torch", "vervet"} <= set(record["versions"])
    assert json.loads((run / "audit.json").read_text())["speaker_independent"] is True


def test_the_tiny_networks_learn_the_tones(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert {record["network"] for record in metrics} == {"teacher", "student", "student-matched"}
    with (run / "teacher" / "log.csv").open() as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0]


def test_the_same_words_again_change_nothing(run, tiny_corpus):
    before = {path: path.read_bytes() for path in run.rglob("*.safetensors")}
    assert main(words(run.parent / "tiny.yaml", tiny_corpus, run)) == 0
    assert {path: path.read_bytes() for path in run.rglob("*.safetensors")} == before


def test_calibration_goes_from_the_run_into_the_model_and_every_answer(run, tiny_corpus):
    card = json.loads((run / "model.json").read_text())
    predictor = vervet.load(run)
    assert predictor.card["temperature"] == card["temperature"] != 1
    assert predictor.uncertain_below == card["uncertain_below"]
    with (run / "student" / "predictions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["version"] == "original"]
    for row in rows[:3]:
        (prediction,) = predictor(tiny_corpus.parent / row["file"], window_s=1.0)
        stored = [float(row[label]) for label in predictor.labels]
        assert list(prediction.scores.values()) == pytest.approx(stored, abs=2e-3)  # the stored image has 16 bits
        assert prediction.uncertain == (prediction.confidence < card["uncertain_below"])
    record = json.loads((run / "metrics.json").read_text())[-1]
    assert set(record["calibration"]) == {
        "ece_before", "ece", "answered", "wa_answered", "temperature", "uncertain_below",
    }  # fmt: skip


def test_runs_of_older_versions_are_calibrated_by_the_same_words(run, tiny_corpus, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    for folder in (tmp_path / "run", *(tmp_path / "run" / stage for stage in ("teacher", "matching", "student"))):
        card = json.loads((folder / "model.json").read_text())
        old = {key: value for key, value in card.items() if key not in ("temperature", "uncertain_below")}
        (folder / "model.json").write_text(json.dumps(old))
    (tmp_path / "run" / "student" / "predictions.csv").write_text("of an older version")
    assert main(words(run.parent / "tiny.yaml", tiny_corpus, tmp_path / "run")) == 0
    for name in ("model.json", "student/predictions.csv", "teacher/model.json"):
        assert (tmp_path / "run" / name).read_text() == (run / name).read_text()


def test_other_words_are_refused(run, tiny_corpus, capsys):
    assert main(words(run.parent / "tiny.yaml", tiny_corpus, run, "--student.lr=0.5", "--fold", "1")) == 1
    error = capsys.readouterr().err
    assert "settings.student.lr (0.001 there, 0.5 here)" in error
    assert "fold (0 there, 1 here)" in error


def test_two_at_a_time_do_not_train_into_one_folder(run, tiny_corpus, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    again = words(run.parent / "tiny.yaml", tiny_corpus, run)
    with locked(run):
        assert main(again) == 1
    assert f"{run}: another run is writing it; let that end" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert main(again) == 0


def test_stages_may_be_added_one_by_one(run, tiny_corpus, tmp_path):
    for stage in ("teacher", "matching", "student"):
        assert main(words(run.parent / "tiny.yaml", tiny_corpus, tmp_path / "run", f"--stages={stage}")) == 0
    ours, theirs = weights(tmp_path / "run"), weights(run)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_student_that_skips_matching_is_called_so_and_stays_so(run, tiny_corpus, tmp_path, capsys):
    recipe, out = run.parent / "tiny.yaml", tmp_path / "run"
    borrowed = ("--teacher", str(run), "--student.epochs=1")
    assert main(words(recipe, tiny_corpus, out, *borrowed, "--stages=student")) == 0
    assert load_network(out)[1]["recipe"] == "tiny without matching --student.epochs=1"
    capsys.readouterr()
    assert main(words(recipe, tiny_corpus, out, *borrowed)) == 1
    assert (
        "recipe ('tiny without matching --student.epochs=1' there, 'tiny --student.epochs=1'" in capsys.readouterr().err
    )
    shutil.copytree(run, tmp_path / "whole")
    shutil.rmtree(tmp_path / "whole" / "matching")
    assert main(words(recipe, tiny_corpus, tmp_path / "whole")) == 1
    assert "student was trained without matching; choose another --out" in capsys.readouterr().err


def test_folders_of_others_are_left_alone(tiny_recipe, tiny_corpus, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("")
    assert main(words(tiny_recipe, tiny_corpus, tmp_path / "photos")) == 1
    assert "is not empty and holds no run" in capsys.readouterr().err


def test_a_student_needs_its_teacher(tiny_recipe, tiny_corpus, tmp_path, capsys):
    assert main(words(tiny_recipe, tiny_corpus, tmp_path / "run", "--stages=student")) == 1
    assert "stage student needs a teacher" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("--student.batch_size=1000", "stage student: a batch of 1000 needs more than"),
        ("--protocol all --student.keep=best", "stage student: nothing validates, so no epoch is best"),
    ],
)
def test_what_a_later_stage_cannot_do_is_said_at_the_start(
    tiny_recipe, tiny_corpus, tmp_path, capsys, settings, message
):
    assert main(words(tiny_recipe, tiny_corpus, tmp_path / "run", *settings.split())) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_batches_are_shared_out_evenly():
    clip = Sample(Utterance(Path("a.wav"), "anger", "table", "ann"))
    sides = Split("speaker", 0, 1, (clip,) * 16, (clip,), (clip,))
    recipe = Recipe(stages=("student",), student=Stage(batch_size=8))
    check_stages(recipe, sides, (), 4)
    with pytest.raises(ValueError, match="3 processes cannot share a batch of 8 images evenly"):
        check_stages(recipe, sides, (), 3)
    recipe = replace(recipe, student=Stage(batch_size=8, enrol=4))
    check_stages(recipe, sides, (), 2)
    with pytest.raises(ValueError, match="4 processes cannot share a batch of 2 groups of 4 clips by one speaker"):
        check_stages(recipe, sides, (), 4)


def test_of_one_emotion_nothing_is_learnt(tiny_recipe, tiny_corpus, tmp_path, capsys):
    header, *rows = tiny_corpus.read_text().splitlines()
    table = tiny_corpus.with_name("one.csv")
    table.write_text("\n".join([header, *(row for row in rows if ",anger," in row)]) + "\n")
    assert main(words(tiny_recipe, table, tmp_path / "run")) == 1
    assert "all clips are 'anger': training needs two emotions or more" in capsys.readouterr().err


def test_a_teacher_of_other_labels_is_not_borrowed(run, tiny_corpus, tmp_path, capsys):
    table = tiny_corpus.with_name("other.csv")
    table.write_text(tiny_corpus.read_text().replace("0_anger_0.wav,anger", "0_anger_0.wav,neutral"))
    assert main(words(run.parent / "tiny.yaml", table, tmp_path / "out", "--teacher", str(run))) == 1
    assert "holds a run of other clips" in capsys.readouterr().err


def test_a_teacher_may_be_borrowed(run, tiny_corpus, tmp_path, capsys):
    recipe = run.parent / "tiny.yaml"
    out = tmp_path / "borrower"
    assert main(words(recipe, tiny_corpus, out, "--teacher", str(run), "--student.alpha=1")) == 0
    for stage in ("teacher", "matching"):
        ours, theirs = weights(out, stage), weights(run, stage)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    networks = {record["network"] for record in json.loads((out / "metrics.json").read_text())}
    assert networks == {"student", "student-matched"}  # the teacher's scores are the other run's
    assert json.loads((out / "teacher" / "borrowed.json").read_text())["recipe"] == "tiny"
    capsys.readouterr()
    for settings, message in (
        (["--teacher", str(run), "--seed=1"], "differs in settings.seed (0 there, 1 here)"),
        (["--teacher", str(run), "--teacher.lr=0.5"], "settings.teacher.lr"),
        (["--teacher", str(tmp_path)], "holds no finished teacher"),
        (["--teacher", str(run), "--fold", "all"], "--teacher belongs to one fold"),
    ):
        assert main(words(recipe, tiny_corpus, tmp_path / "other", *settings)) == 1
        assert message in capsys.readouterr().err
        shutil.rmtree(tmp_path / "other", ignore_errors=True)


def test_bfloat16_trains_too_where_a_run_was_killed_at_its_very_start(tiny_recipe, tiny_corpus, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "split.csv").write_text("what was written before the kill\n")
    (out / "audit.json.partial").write_text("{")
    more = ("--stages=student", "--student.alpha=0", "--precision=bfloat16", "--student.epochs=1")
    assert main(words(tiny_recipe, tiny_corpus, out, *more)) == 0
    assert {tensor.dtype for tensor in weights(out).values()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler, which torch.compile needs on a CPU")
def test_compiled_networks_train_alike(tiny_recipe, tiny_corpus, tmp_path):
    more = ("--stages=student", "--student.alpha=0", "--student.epochs=2")
    for name, words_too in (("plain", ()), ("compiled", ("--compile",))):
        assert main([*words(tiny_recipe, tiny_corpus, tmp_path / name, *more), *words_too]) == 0
    plain, compiled = weights(tmp_path / "plain"), weights(tmp_path / "compiled")
    assert plain.keys() == compiled.keys()
    assert all(torch.allclose(plain[name], compiled[name], atol=1e-4) for name in plain)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_recorded_batch_trains_as_one_that_is_not(tiny_recipe, tiny_corpus, tmp_path, monkeypatch):
    losses = []
    for name, first in (("recorded", 1), ("plain", 10**9)):
        monkeypatch.setattr(_Loop, "FIRST", first)
        line = words(tiny_recipe, tiny_corpus, tmp_path / name, "--stages=student", "--student.alpha=0")
        assert main([word for word in line if word != "--cpu"]) == 0
        losses.append(
            [float(row["train_loss"]) for row in csv.DictReader((tmp_path / name / "student" / "log.csv").open())]
        )
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_in_the_end_batchnorm_knows_clips_as_they_were_recorded(tmp_path):
    shape = Vit(depth=1, image=(8, 8), patch=(8, 1), reduce=(2,))
    model = VisionTransformer(shape, 2)
    store = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)).half() * 0.5 + 0.1
    side = Side(Images(store, torch.arange(16)), torch.arange(16) % 2)
    nothing = Side(Images(store, torch.arange(0)), torch.arange(0))
    stage, noise = Stage(epochs=2, batch_size=4, average=0.5), Online(hiss=1.0)
    fit(model, stage, "student", side, nothing, ("anger", "fear"), 0, tmp_path, Accelerator(cpu=True), online=noise)
    assert model.reduce is not None
    with torch.no_grad():
        expected = model.reduce.convs[0](store.float()).mean((0, 2, 3))
    torch.testing.assert_close(model.reduce.norms[0].running_mean, expected, rtol=0, atol=1e-6)
    assert not model.training


def test_where_batches_are_few_the_mean_forgets_how_it_began(tmp_path):
    model = VisionTransformer(Vit(depth=1, image=(8, 8), patch=(8, 1)), 2)
    before = model.head.weight.detach().clone()
    side = Side(Images(torch.rand(16, 1, 8, 8).half(), torch.arange(16)), torch.arange(16) % 2)
    nothing = Side(Images(side.images.store, torch.arange(0)), torch.arange(0))
    stage = Stage(epochs=2, batch_size=4, average=0.999)
    fit(model, stage, "student", side, nothing, ("anger", "fear"), 0, tmp_path, Accelerator(cpu=True))
    ends, _ = load(tmp_path / "checkpoint.safetensors")
    mean, last = (float((ends[f"{which}.head.weight"] - before).norm()) for which in ("averaged", "model"))
    assert 0.4 * last < mean < last


def test_killed_twice_it_ends_with_the_very_same_weights(tiny_recipe, tiny_corpus, tmp_path):
    longer = ("--teacher.epochs=12", "--matching.epochs=12", "--student.epochs=12")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(out):
        return subprocess.Popen(
            [sys.executable, "-m", "vervet", *words(tiny_recipe, tiny_corpus, tmp_path / out, *longer)],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def kill_once(process, file):
        deadline = time.monotonic() + 120
        while not file.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, process.stderr.read().decode()

    kill_once(start("killed"), tmp_path / "killed" / "teacher" / "checkpoint.safetensors")
    assert not (tmp_path / "killed" / "teacher" / "model.json").exists()
    kill_once(start("killed"), tmp_path / "killed" / "student" / "log.csv")
    assert not (tmp_path / "killed" / "student" / "model.json").exists()
    for out in ("killed", "whole"):
        process = start(out)
        _, error = process.communicate(timeout=240)
        assert process.returncode == 0, error.decode()
    for stage in ("teacher", "matching", "student"):
        ours, theirs = weights(tmp_path / "killed", stage), weights(tmp_path / "whole", stage)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    logs = [(tmp_path / out / "student" / "log.csv").read_text().splitlines() for out in ("killed", "whole")]
    assert [line.rsplit(",", 1)[0] for line in logs[0]] == [line.rsplit(",", 1)[0] for line in logs[1]]


def test_two_processes_train_as_one_does(tiny_recipe, tiny_corpus, tmp_path):
    """Each takes half of every batch, and gradients are averaged: equal but for the order of additions."""
    more = ("--stages=student", "--student.alpha=0", "--student.epochs=2")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "vervet"]
    both = subprocess.run(
        [*launch, *words(tiny_recipe, tiny_corpus, tmp_path / "two", *more)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert both.returncode == 0, both.stderr[-3000:]
    assert "2 processes" in json.loads((tmp_path / "two" / "run.json").read_text())["machine"]
    assert main(words(tiny_recipe, tiny_corpus, tmp_path / "one", *more)) == 0
    ours, theirs = weights(tmp_path / "two"), weights(tmp_path / "one")
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-4, rtol=1e-3)


def test_matching_loss_of_identical_networks_is_zero():
    network, stage = VisionTransformer(NETWORKS["student"], 3), Stage(cross_entropy=False, alpha=1.0)
    images = torch.rand(2, 1, 128, 128)
    logits, features = network(images)
    again = network(images)[1]
    assert float(loss_of(stage, logits, features, torch.tensor([0, 1]), again)) == 0.0
    assert float(loss_of(stage, logits, features, torch.tensor([0, 1]), again + 0.5)) == pytest.approx(0.5, abs=1e-5)


def test_joint_loss_is_cross_entropy_plus_alpha_times_distance():
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    features, targets = torch.zeros(2, 4), torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.0]])
    loss = loss_of(Stage(alpha=10.0), logits, features, torch.tensor([0, 1]), targets)
    assert float(loss) == pytest.approx(np.log(2) + 10 * 0.5)


def test_all_that_is_off_by_default_trains_and_goes_on_after_a_stop(tiny_recipe, tiny_corpus, tmp_path, monkeypatch):
    more = (
        "--stages=student", "--student.alpha=0", "--augment.versions=[original]", "--augment.online.stretch=0.1",
        "--augment.online.mixup=0.3", "--augment.online.noise=0.5", "--student.schedule=cosine",
        "--student.weight_decay=0.01", "--student.label_smoothing=0.1", "--student.balanced=true",
        "--student.average=0.9", "--student_network.mask_padding=true", "--student_network.normalise=deviation",
        "--student_network.time_convs=1", "--student_network.dropout=0.1", "--student.enrol=2",
        "--student_network.reduce=[4, 6]", "--front_end.reference=full scale",
    )  # fmt: skip
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main(words(tiny_recipe, tiny_corpus, whole, *more)) == 0
    with monkeypatch.context() as patch:
        add = _Log.add

        def stop(log, history):
            add(log, history)
            if len(history) == 2:
                raise KeyboardInterrupt

        patch.setattr(_Log, "add", stop)
        assert main(words(tiny_recipe, tiny_corpus, stopped, *more)) == 130
    tensors, data = load(whole / "student" / "checkpoint.safetensors")
    assert {name.partition(".")[0] for name in tensors} == {"model", "averaged", "kept", "adam"}
    assert data["history"][0]["lr"] > data["history"][2]["lr"] > 0
    kept = weights(whole)
    settled = [name for name in kept if "running_" in name]  # BatchNorm's, in the end
    assert all(torch.equal(tensors[f"averaged.{name}"], kept[name]) for name in kept if name not in settled)
    assert not any(torch.equal(tensors[f"averaged.{name}"], kept[name]) for name in settled)
    assert settled
    assert any(not torch.equal(tensors[f"model.{name}"], kept[name]) for name in kept)
    assert main(words(tiny_recipe, tiny_corpus, stopped, *more)) == 0
    assert all(torch.equal(weights(stopped)[name], kept[name]) for name in kept)
    enrolled = list(csv.DictReader((whole / "student" / "enrolled.csv").open()))
    tested = list(csv.DictReader((whole / "student" / "predictions.csv").open()))
    assert [row["file"] for row in enrolled] == [row["file"] for row in tested]
    assert list(enrolled[0]) == ["file", "speaker", "emotion", "1", "3", "10", "30"]
    (record,) = evaluate([whole])
    assert list(record["enrolled"]) == ["1", "3", "10", "30"]
    right = np.mean([row["emotion"] == row["30"] for row in enrolled])
    assert record["enrolled"]["30"]["wa"] == pytest.approx(right)
    validate(record)


def test_clips_of_one_speaker_stand_together_where_they_enrol():
    speakers = torch.tensor([0] * 9 + [1] * 4 + [2])
    side = Side(torch.zeros(14, 1, 2, 2), torch.zeros(14), speakers=speakers)
    order = _order(side, Stage(batch_size=8, enrol=4), 0)
    groups = speakers[order.reshape(-1, 4)]
    assert (groups == groups[:, :1]).all()
    assert len(order) == 16  # of five groups, four fill two batches
    assert not torch.equal(order, _order(side, Stage(batch_size=8, enrol=4), 1))
    plain = _order(side, Stage(batch_size=4), 0)
    assert len(plain) == len(plain.unique()) == 12
    with pytest.raises(ValueError, match="divisor of batch_size"):
        Stage(batch_size=8, enrol=3)


def test_balanced_classes_count_the_same():
    emotions = torch.tensor([0] * 6 + [1] * 2)
    weights = class_weights(emotions, 2)
    torch.testing.assert_close(weights, torch.tensor([[8 / 12, 8 / 4]]).expand(8, -1))
    assert float(weights[torch.arange(8), emotions].mean()) == pytest.approx(1)


def test_emotions_are_balanced_within_each_corpus():
    corpora = torch.tensor([0] * 8 + [1] * 6)
    emotions = torch.tensor([0] * 6 + [1] * 2 + [0] * 1 + [1] * 2 + [2] * 3)  # the first corpus has no third emotion
    weights = class_weights(emotions, 3, None, corpora)
    torch.testing.assert_close(weights[0], torch.tensor([8 / 12, 8 / 4, 0]))
    torch.testing.assert_close(weights[8], torch.tensor([6 / 3, 6 / 6, 6 / 9]))
    own = weights[torch.arange(14), emotions]
    assert float(own[:8].mean()) == float(own[8:].mean()) == pytest.approx(1)  # nor does a corpus count more for it
    for corpus, emotion in ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2)):
        assert float(own[(corpora == corpus) & (emotions == emotion)].sum()) == pytest.approx(4 if corpus == 0 else 2)


@pytest.mark.parametrize("enrol", [0, 4])
def test_small_corpora_are_drawn_more_often_than_their_size_says(enrol):
    corpora = torch.tensor([0] * 64 + [1] * 16)
    side = Side(torch.zeros(80, 1, 2, 2), torch.zeros(80), speakers=torch.arange(80) // 8, corpora=corpora)
    for power, times in ((1.0, 1), (0.5, 2), (0.0, 4)):  # 64 and 16 clips: as 4 to 1, 2 to 1, 1 to 1
        order = _order(side, Stage(batch_size=4, enrol=enrol, corpus_power=power), 0)
        counts = order.bincount(minlength=80)
        assert (counts[:64] == 1).all()
        assert (counts[64:] == times).all()
    if enrol:
        groups = order.reshape(-1, enrol)
        assert all(len(group.unique()) == enrol for group in groups)  # nobody is told of itself
    else:
        assert not torch.equal(order.sort(stable=True).indices, torch.arange(128))
        assert set(corpora[order[:32]].tolist()) == {0, 1}  # not one corpus after the other


def test_a_clip_that_is_drawn_often_counts_often_in_the_weights_of_emotions():
    corpora, emotions = torch.tensor([0] * 64 + [1] * 16), torch.tensor([0] * 64 + [1] * 16)
    shares = corpus_shares(corpora, 0.5)
    assert shares is not None
    torch.testing.assert_close(shares, torch.tensor([1.0] * 64 + [2.0] * 16))
    torch.testing.assert_close(class_weights(emotions, 2, shares)[0], torch.tensor([96 / 128, 96 / 64]))
    assert corpus_shares(corpora, 1.0) is None
    with pytest.raises(ValueError, match="corpus_power must be in"):
        Stage(corpus_power=1.5)


def test_a_linear_layer_is_fitted_as_if_clips_stood_there_as_often_as_their_shares_say():
    generator = torch.Generator().manual_seed(0)
    inputs, emotions = torch.randn(40, 3, generator=generator), torch.randint(2, (40,), generator=generator)
    shares = torch.tensor([1.0] * 30 + [3.0] * 10)
    repeated = torch.arange(40).repeat_interleave(shares.long())
    one, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    other.load_state_dict(one.state_dict())
    loss = fit_linear(one, inputs, emotions, 0.1, True, 0.1, shares)
    assert fit_linear(other, inputs[repeated], emotions[repeated], 0.1, True, 0.1) == pytest.approx(loss, abs=1e-5)
    torch.testing.assert_close(one.weight, other.weight, atol=1e-3, rtol=0)


def test_the_penalty_is_chosen_by_clips_left_out():
    """A layer that knows the answer is best kept where labels are noise, and best changed where they are another's."""
    torch.manual_seed(0)
    inputs, l2s = torch.randn(60, 20), (0.001, 0.1, 100.0)
    speakers = [f"s{clip % 6}" for clip in range(60)]
    layer = torch.nn.Linear(20, 3)
    with torch.no_grad():
        noise = (layer(inputs) + 3 * torch.randn(60, 3)).argmax(1)
        torch.nn.init.zeros_(other := torch.nn.Linear(20, 3).weight)
        other[:, :3] = 3 * torch.eye(3)
        clear = (inputs @ other.T).argmax(1)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    files = [f"{clip}.wav" for clip in range(60)]
    groups = left_out_together(speakers, files, noise)
    assert groups == speakers
    assert choose_l2(layer, inputs, noise, l2s, groups, True) == 100.0
    assert choose_l2(layer, inputs, clear, l2s, groups, True, 0.0, torch.ones(60), torch.zeros(60).long()) < 1
    assert choose_l2(layer, inputs, clear, (5.0,), groups, False) == 5.0
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    in_turn = torch.arange(60) % 5
    for unknown in (["", *speakers[1:]], ["ann"] * 60):
        folds = torch.tensor(left_out_together(unknown, files, in_turn))
        for fold in range(5):  # a fifth of every emotion, though these alternate in the same rhythm
            assert torch.bincount(in_turn[folds == fold], minlength=5).min() >= 2
    parts = left_out_together([""] * 60, [f"{clip // 2}.wav" for clip in range(60)], in_turn)
    assert parts[::2] == parts[1::2]  # both parts of a file
    assert len(set(parts)) == 5


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({"avx512_bf16": False, "amx_bf16": False}, "float32"),
        ({"avx512_bf16": True, "amx_bf16": False}, "bfloat16"),
        ({"bf16": False}, "float32"),
        ({}, "bfloat16"),
    ],
)
def test_bfloat16_needs_a_processor_that_has_it(monkeypatch, capabilities, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert usable("bfloat16", torch.device("cpu")) == precision
    assert usable("bfloat16", torch.device("cuda")) == "bfloat16"
    assert usable("float32", torch.device("cpu")) == "float32"
    with autocast(torch.device("cpu"), "bfloat16"):
        made = torch.ones(2, 2) @ torch.ones(2, 2)
    assert made.dtype == getattr(torch, precision)


def test_the_epoch_is_the_last_or_chosen_on_validation():
    rows = [
        {"epoch": 0, "validation_uar": 0.5, "validation_loss": 0.1},
        {"epoch": 1, "validation_uar": 0.7, "validation_loss": 0.9},
        {"epoch": 2, "validation_uar": 0.7, "validation_loss": 0.8},
    ]
    assert kept_epoch(rows, Stage(keep="best")) == 2
    assert kept_epoch(rows[:2], Stage(keep="best")) == 1
    assert kept_epoch(rows, Stage(cross_entropy=False, alpha=1.0, keep="best")) == 0
    assert kept_epoch(rows, Stage(cross_entropy=False, alpha=1.0)) == 2


def test_pool_holds_the_images_of_each_version(tiny_corpus, tmp_path):
    utterances, augment = load_corpus("table", tiny_corpus), Augment(versions=("original", "noise", "shift"))
    pool = make_pool(utterances, SMALL, augment, tmp_path)
    assert pool.images.shape == (45, 3, 16, 24)
    images = pool.select([Sample(utterances[7], "shift"), Sample(utterances[0])])
    import soundfile

    for index, name, utterance in ((0, "shift", utterances[7]), (1, "original", utterances[0])):
        waveform, _ = soundfile.read(utterance.path, dtype="float32")
        made = version(waveform, name, augment, SMALL, np.random.default_rng(0))
        expected = LogMel(SMALL)(torch.from_numpy(made)[None])
        torch.testing.assert_close(images[torch.tensor([index])], expected, atol=1e-3, rtol=0)


def test_parts_of_calls_train_as_files_of_their_own(tiny_recipe, tiny_corpus, tiny_calls, tmp_path):
    """And all that reads a run finds them again."""
    settings = ("--augment.versions=[original]", "--stages=[student]", "--student.alpha=0")
    for name, table in (("files", tiny_corpus), ("parts", tiny_calls)):
        assert main(words(tiny_recipe, table, tmp_path / name, *settings)) == 0
    files, parts = (load(tmp_path / name / "student" / "model.safetensors")[0] for name in ("files", "parts"))
    assert all(torch.equal(files[key], parts[key]) for key in files)
    found = [read_tested(tmp_path / name)[-1] for name in ("files", "parts")]
    assert [row["anger"] for row in found[1].rows] == [row["anger"] for row in found[0].rows]
    clips = [_clips(tmp_path / "parts", tiny_calls.parent, "table", "test"), load_corpus("table", tiny_calls)[:9]]
    assert [clip.sound for clip in clips[0]] == [clip.sound for clip in clips[1]]
    assert [row["file"] for row in found[1].rows] == [clip.name for clip in clips[1]]  # beside the table
    assert main(words(tiny_recipe, tiny_calls, tmp_path / "parts", *settings)) == 0  # these are the clips it knows


def test_clips_of_one_name_in_two_folders_are_told_apart(tiny_recipe, tiny_corpus, tmp_path):
    for path in tiny_corpus.parent.glob("*.wav"):
        speaker, emotion, take = path.name.split("_")
        folder = tmp_path / "corpus" / emotion / speaker
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / take)
    out, settings = (
        tmp_path / "run",
        ("--stages=[student]", "--student.alpha=0", "--student.enrol=2", "--student_network.normalise=mean"),
    )
    command = words(tiny_recipe, tmp_path / "corpus", out, *settings)
    command[command.index("table")] = "folders"
    assert main(command) == 0
    tested = [row for row in read_split(out / "split.csv") if row["split"] == "test"]
    (network,) = read_tested(out)
    assert [row["file"] for row in network.rows] == [row["file"] for row in tested]
    assert {row["file"] for row in network.enrolled} == {row["file"] for row in tested if row["version"] == "original"}
    assert len({Path(row["file"]).name for row in tested}) < len({row["file"] for row in tested})


def test_pool_is_computed_once_and_keyed_by_content_and_settings(tiny_corpus, tmp_path):
    utterances = load_corpus("table", tiny_corpus)[:4]
    first = make_pool(utterances, SMALL, Augment(versions=("original",)), tmp_path)
    file = next(tmp_path.glob("*.npy"))
    stamp = file.stat().st_mtime_ns
    again = make_pool(utterances, SMALL, Augment(versions=("original",)), tmp_path)
    assert file.stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(first.images, again.images)
    make_pool(utterances, SMALL, Augment(versions=("original", "noise")), tmp_path)
    make_pool(utterances[:3], SMALL, Augment(versions=("original",)), tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 3
    assert not list(tmp_path.glob("*.partial*"))


def test_an_interrupted_pool_goes_on(tiny_corpus, tmp_path, monkeypatch):
    from vervet.training import pool as module

    utterances, made = load_corpus("table", tiny_corpus), []
    real = module._versions
    monkeypatch.setattr(module, "CHUNK", 10)

    def failing(path, *rest):
        if len(made) >= 25:
            raise KeyboardInterrupt
        made.append(path)
        return real(path, *rest)

    monkeypatch.setattr(module, "_versions", failing)
    with pytest.raises(KeyboardInterrupt):
        make_pool(utterances, SMALL, Augment(), tmp_path / "a")
    assert not [path for path in (tmp_path / "a").glob("*.npy") if "partial" not in path.name]
    again = []
    monkeypatch.setattr(module, "_versions", lambda path, *rest: again.append(path) or real(path, *rest))
    resumed = make_pool(utterances, SMALL, Augment(), tmp_path / "a")
    assert len(again) == 45 - 20
    monkeypatch.setattr(module, "_versions", real)
    np.testing.assert_array_equal(resumed.images, make_pool(utterances, SMALL, Augment(), tmp_path / "b").images)


def test_checkpoints_of_others_are_refused(tmp_path):
    (tmp_path / "model.json").write_text("{}")
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x80\x04 pickle")
    with pytest.raises(ValueError, match=r"model.safetensors: not a Vervet checkpoint"):
        load(path)
    with pytest.raises(ValueError, match=r"holds no model.json"):
        load_network(tmp_path / "nothing")


def test_too_few_images_for_a_batch(tiny_recipe, tiny_corpus, tmp_path, capsys):
    more = ("--stages=teacher", "--teacher.batch_size=1000")
    assert main(words(tiny_recipe, tiny_corpus, tmp_path / "run", *more)) == 1
    assert "a batch of 1000 needs more than" in capsys.readouterr().err


def test_folds_side_by_side(tiny_recipe, tiny_corpus, tmp_path, capsys):
    more = ("--stages=teacher", "--teacher.epochs=1", "--fold", "0-1", "--jobs", "2")
    assert main(words(tiny_recipe, tiny_corpus, tmp_path / "runs", *more)) == 0
    assert "all teacher" in " ".join(capsys.readouterr().out.split())
    for fold in range(2):
        record = json.loads((tmp_path / "runs" / f"fold-{fold}" / "run.json").read_text())
        assert record["fold"] == fold
        assert f"--fold {fold} " in record["command"]
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


def test_all_folds_are_those_of_the_protocol(tiny_corpus):
    assert folds_of("all", Recipe(), "table", tiny_corpus, "speaker") == [0, 1, 2, 3, 4]
    assert folds_of("0,5-7", Recipe(), "table", tiny_corpus, "speaker") == [0, 5, 6, 7]


def test_failing_folds_are_named_and_others_finish(tiny_recipe, tiny_corpus, tmp_path, capsys):
    more = ("--stages=teacher", "--teacher.epochs=1", "--fold", "4,5", "--jobs", "2")
    assert main(words(tiny_recipe, tiny_corpus, tmp_path / "runs", *more)) == 1
    error = capsys.readouterr().err
    assert "1 of 2 runs failed" in error
    assert "protocol speaker has folds 0 to 4 here, not 5" in error
    assert (tmp_path / "runs" / "fold-4" / "metrics.json").exists()


def test_finished_folds_of_something_else_are_not_taken_for_ones_own(tiny_recipe, tiny_corpus, tmp_path, capsys):
    table = tmp_path / "clips.csv"
    header, *rows = tiny_corpus.read_text().splitlines()
    table.write_text("\n".join([header, *(f"{tiny_corpus.parent}/{row}" for row in rows)]) + "\n")
    more = ("--stages=teacher", "--teacher.epochs=1", "--fold", "0-1", "--jobs", "2")
    again = words(tiny_recipe, table, tmp_path / "runs", *more)
    assert main(again) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("fold-*/*")}
    assert main(again) == 0
    capsys.readouterr()
    assert main([word if word != "speaker" else "clip" for word in again]) == 1
    assert "protocol ('speaker' there, 'clip' here)" in capsys.readouterr().err
    first = rows[0].split(",")[1]
    corrected = rows[0].replace(f",{first},", ",sadness," if first != "sadness" else ",anger,")
    table.write_text("\n".join([header, *(f"{tiny_corpus.parent}/{row}" for row in [corrected, *rows[1:]])]) + "\n")
    for typed in (again, words(tiny_recipe, table, tmp_path / "runs" / "fold-0", *more[:2])):
        assert main(typed) == 1
        assert "fold-0 holds a run of other clips: 1 differ, the first " in capsys.readouterr().err
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("fold-*/*")}
    assert after == before


def test_clips_of_nobody_are_not_taken_for_one_speaker(tiny_corpus, tmp_path):
    recipe = replace(Recipe(), student=Stage(enrol=4, alpha=0.0))
    utterances = [replace(one, speaker="") for one in load_corpus("table", tiny_corpus)]
    sides = sides_of(utterances, "clip", 0, recipe)
    with pytest.raises(ValueError, match=r"tells of other clips .*; name the speakers, or .*student\.enrol=0"):
        check_speakers(recipe, sides)
    check_speakers(Recipe(), sides)
    check_speakers(recipe, sides_of(load_corpus("table", tiny_corpus), "clip", 0, recipe))


@pytest.mark.parametrize("shape", [{"position": "learned"}, {"position": "ice"}, {"stem": (4,)}])
def test_networks_that_need_all_columns_get_them(shape):
    config = Vit(depth=1, heads=1, dim_head=8, embed_dim=16, mlp_dim=16, mask_padding=True, **shape)
    images = torch.rand(2, 1, *config.image)
    images[..., 90:] = 0
    logits, _ = predict(VisionTransformer(config, 3), images, torch.device("cpu"))
    assert logits.shape == (2, 3)


@pytest.mark.parametrize("fold", ["some", "1-", "-1", "1,1", "2-1", "0,7-5", ""])
def test_folds_that_are_none(fold, tiny_recipe, tiny_corpus, tmp_path, capsys):
    assert main(words(tiny_recipe, tiny_corpus, tmp_path / "run", f"--fold={fold}")) == 1
    assert "--fold" in capsys.readouterr().err


STUDY = """
- {corpus: emodb, protocol: speaker, recipe: tiny.yaml, folds: "0,3", seeds: [0, 1]}
- {corpus: emodb, protocol: paper, recipe: tiny.yaml, folds: "0", settings: [--student.lr=1e-3]}
"""


def test_a_study_names_every_run(tiny_recipe, tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text(STUDY)
    jobs = read_study(study, tmp_path / "runs")
    assert [str(job.folder.relative_to(tmp_path / "runs")) for job in jobs] == [
        "emodb-speaker-tiny-0/fold-0",
        "emodb-speaker-tiny-0/fold-3",
        "emodb-speaker-tiny-1/fold-0",
        "emodb-speaker-tiny-1/fold-3",
        "emodb-paper-tiny-student.lr=1e-3-0/fold-0",
    ]
    assert jobs[3].words[1:] == ("--corpus", "emodb", "--protocol", "speaker", "--seed=1", "--fold", "3")
    assert jobs[3].needs is None
    assert jobs[0].log == tmp_path / "runs" / "emodb-speaker-tiny-0" / "fold-0.log"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "a study is a list of experiments"),
        ("- {corpus: emodb, protocol: paper}", "experiment 0: needs corpus, protocol and recipe"),
        ("- {corpus: emodb, protocol: paper, recipe: tiny.yaml, fold: '1'}", "unknown setting 'fold'; .* is 'folds'"),
        (
            "- {corpus: emodb, protocol: paper, recipe: tiny.yaml, folds: '0', teacher: fast}",
            "weights are to come from .*emodb-paper-fast-0/fold-0, which the study does not train",
        ),
        ("- {corpus: emodb, protocol: paper, recipe: tiny.yaml, folds: '0', seeds: []}", "0: names no seeds"),
        (2 * "- {corpus: emodb, protocol: paper, recipe: tiny.yaml, folds: '0'}\n", "asked for twice: .*fold-0"),
        ("- {corpus: emodb, protocol: paper, recipe: tiny.yaml, folds: '0', teacher: tiny}", "fold-0 waits for itself"),
        ("- {corpus: emodb, protocol: paper, recipe: tiny.yaml, folds: '0', settings: [--x=1]}", "unknown setting 'x'"),
    ],
)
def test_faulty_studies_are_refused(text, message, tiny_recipe, tmp_path):
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_study(tmp_path / "study.yaml", tmp_path / "runs")


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["study", "ablations"])
def test_the_studies_of_the_results_can_be_run(name, corpora, tmp_path):
    jobs = read_study(Path(__file__).parents[1] / "results" / f"{name}.yaml", tmp_path)
    assert len(jobs) > 50
    assert not any(job.finished for job in jobs)


def test_a_teacher_is_trained_before_it_is_lent(tiny_recipe, tmp_path, monkeypatch):
    study = tmp_path / "study.yaml"
    study.write_text(
        "- {corpus: emodb, protocol: paper, recipe: tiny.yaml, folds: '0', teacher: tiny,"
        "   settings: [--student.alpha=1]}\n"
        "- {corpus: emodb, protocol: paper, recipe: tiny.yaml, folds: '0'}\n"
    )
    jobs = read_study(study, tmp_path / "runs")
    lender = tmp_path / "runs" / "emodb-paper-tiny-0" / "fold-0"
    assert (jobs[0].needs, jobs[0].words[-2:]) == (lender, ("--teacher", str(lender)))
    started = []

    def start(job, more, environment):
        started.append(job)
        return subprocess.Popen([sys.executable, "-c", ""])

    monkeypatch.setattr("vervet.training.study._start", start)
    run_jobs(jobs, 2)
    assert started == [jobs[1], jobs[0]]


def test_runs_may_start_from_another_or_from_the_shipped_model(tiny_recipe, tmp_path):
    study, runs = tmp_path / "study.yaml", tmp_path / "runs"
    study.write_text(
        "- {corpus: cremad, protocol: all, recipe: tiny.yaml, folds: '0'}\n"
        "- {corpus: emodb, protocol: speaker, recipe: tiny.yaml, folds: '3', seeds: [0, 1], init: cremad-all-tiny-0}\n"
        "- {corpus: savee, protocol: speaker, recipe: tiny.yaml, folds: '3', init: default}\n"
        "- {corpus: savee, protocol: speaker, recipe: tiny.yaml, folds: '3', init: savee-speaker-tiny-from-default-0}\n"
        "- {corpus: cremad, protocol: speaker, recipe: tiny.yaml, folds: '1', "
        "init: savee-speaker-tiny-from-default-0/fold-3}\n"
    )
    jobs = read_study(study, runs)
    base = runs / "cremad-all-tiny-0" / "fold-0"
    assert [job.needs for job in jobs] == [None, base, base, None, jobs[3].folder, jobs[3].folder]
    lent = str(jobs[3].folder)
    assert [job.init for job in jobs] == ["", str(base), str(base), "default", lent, lent]
    assert jobs[2].words[-2:] == ("--init", str(base))
    assert jobs[2].folder == runs / "emodb-speaker-tiny-from-cremad-all-tiny-0-1" / "fold-3"
    assert jobs[3].folder == runs / "savee-speaker-tiny-from-default-0" / "fold-3"
    assert [job.tests for job in jobs] == [False, True, True, True, True, True]
    assert jobs[5].folder == runs / "cremad-speaker-tiny-from-savee-speaker-tiny-from-default-0-fold-3-0" / "fold-1"
    study.write_text(study.read_text().replace("init:", "teacher: tiny, init:"))
    with pytest.raises(ValueError, match="experiment 1: has either a teacher or init, not both"):
        read_study(study, runs)


def test_a_run_names_the_commit_or_the_release_that_made_it(tmp_path, monkeypatch):
    assert re.fullmatch(r"[0-9a-f]{12}(-dirty)?", commit())
    installed = tmp_path / "environment" / "vervet"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    monkeypatch.setattr("vervet.__file__", str(installed / "__init__.py"))
    assert commit() == f"v{vervet.__version__}"
    git = ["git", "-c", "user.name=x", "-c", "user.email=x"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "of something else"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    assert commit() == f"v{vervet.__version__}"


def test_all_folds_of_a_protocol_that_tests_nothing(tiny_recipe, tiny_corpus, tmp_path, capsys):
    words = ["train", str(tiny_recipe), "--corpus", "table", "--root", str(tiny_corpus), "--protocol", "all"]
    more = ["--stages=teacher", "--teacher.epochs=1", "--cache", str(tmp_path / "cache"), "--cpu", "--no-export"]
    assert main([*words, "--fold", "all", *more, "--out", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "run" / "fold-0" / "model.json").exists()


def test_what_is_missing_is_told_from_what_is_filed(tiny_recipe, tmp_path):
    study, runs = tmp_path / "study.yaml", tmp_path / "runs"
    study.write_text(
        "- {corpus: cremad, protocol: all, recipe: tiny.yaml, folds: '0'}\n"
        "- {corpus: emodb, protocol: speaker, recipe: tiny.yaml, folds: '0,3', seeds: [0, 1]}\n"
        "- {corpus: savee, protocol: speaker, recipe: tiny.yaml, folds: '2', init: cremad-all-tiny-0}\n"
        "- {corpus: savee, protocol: speaker, recipe: tiny.yaml, folds: '2', init: default}\n"
        "- {corpus: emodb, protocol: speaker, recipe: tiny.yaml, folds: '3', teacher: tiny,"
        " settings: [--student.alpha=1, --stages=student]}\n"
    )
    jobs = read_study(study, runs)

    def record(corpus: str, recipe: str, seed: int, fold: int | str, network: str = "student") -> dict:
        keys = ("corpus", "protocol", "network", "recipe", "seed", "fold")
        return dict(zip(keys, (corpus, "speaker", network, recipe, seed, fold), strict=True))

    own = [record("emodb", "tiny", seed, fold) for seed in (0, 1) for fold in (0, 3)]
    started = [record("savee", f"tiny from {base}", 0, 2) for base in ("all of cremad", "cremad+emodb")]
    changed = record("emodb", "tiny without matching --student.alpha=1", 0, 3)
    assert unfiled(jobs, [*own, *started, changed]) == []
    assert unfiled(jobs, []) == jobs[1:]  # protocol `all` tests nothing
    assert unfiled(jobs, [*own, started[1], changed]) == [jobs[5]]
    assert unfiled(jobs, [*own[:3], *started, changed]) == jobs[3:5]  # both folds of the seed
    assert unfiled(jobs, [*own, *started]) == [jobs[7]]
    other = record("emodb", "tiny without matching --student.alpha=1", 0, 3, network="student-matched")
    assert unfiled(jobs, [*own, *started, other]) == [jobs[7]]

    assert with_lenders(jobs, jobs) == jobs
    assert with_lenders([jobs[5], jobs[6]], jobs) == [jobs[0], jobs[5], jobs[6]]
    assert with_lenders([jobs[7]], jobs) == [jobs[2], jobs[7]]


def test_a_study_of_published_corpora_is_listed_without_them(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("VERVET_CORPORA", raising=False)
    study = tmp_path / "study.yaml"
    study.write_text("- {corpus: savee, protocol: speaker, recipe: fast, folds: all}\n")
    shutil.copy(Path(__file__).parents[1] / "recipes" / "fast.yaml", tmp_path / "fast")
    assert main(["study", str(study), "--results", str(tmp_path / "none.json"), "--missing", "--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_a_study_trains_and_files(tiny_recipe, tiny_corpus, tmp_path, monkeypatch, capsys):
    corpora = tmp_path / "corpora" / "emodb"
    corpora.mkdir(parents=True)
    for number, path in enumerate(sorted(tiny_corpus.parent.glob("*.wav"))):  # dressed up as EmoDB
        speaker, emotion = ("03", "08", "09", "10", "11")[int(path.name[0])], path.name.split("_")[1]
        letter = {"anger": "W", "neutral": "N", "sadness": "T"}[emotion]
        sentence = ("a01", "a02", "a04", "a05", "a07", "b01", "b02", "b03", "b09")[number % 9]
        shutil.copy(path, corpora / f"{speaker}{sentence}{letter}a.wav")
    monkeypatch.setenv("VERVET_CORPORA", str(tmp_path / "corpora"))
    study = tmp_path / "study.yaml"
    study.write_text(
        "- {corpus: emodb, protocol: speaker, recipe: tiny.yaml, folds: '0-1', "
        "settings: [--stages=teacher, --teacher.epochs=1]}"
    )
    more = ["--out", str(tmp_path / "runs"), "--results", str(tmp_path / "results.json"), "--jobs", "2", "--cpu"]
    assert main(["study", str(study), *more, "--cache", str(tmp_path / "cache")]) == 0
    records = json.loads((tmp_path / "results.json").read_text())
    assert [record["fold"] for record in records] == [0, 1, "all"]
    assert "README.md" in capsys.readouterr().out
    jobs = read_study(study, tmp_path / "runs")
    assert all(job.finished for job in jobs)
    assert main(["study", str(study), *more[:4], "--out", str(tmp_path / "elsewhere"), "--missing", "--list"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "results.json holds every run of" in told.err
    assert main(["study", str(study), *more[:4], "--out", str(tmp_path / "elsewhere"), "--list"]) == 0
    assert [Path(line).name for line in capsys.readouterr().out.split()] == ["fold-0", "fold-1"]
    text = tiny_recipe.read_text()
    tiny_recipe.write_text(text.replace("augment: {versions:", "augment: {noise_sigma: 0.1, versions:"))
    assert not any(job.finished for job in read_study(study, tmp_path / "runs"))  # of another recipe
    shutil.rmtree(jobs[1].folder)
    (tmp_path / "results.json").unlink()
    assert main(["study", str(study), *more, "--cache", str(tmp_path / "cache")]) == 1
    assert "settings.augment.noise_sigma (0.005 there, 0.1 here)" in jobs[0].log.read_text()
    assert [record["fold"] for record in json.loads((tmp_path / "results.json").read_text())] == [1]  # the finished one
