"""A model is tested on a corpus that it was not trained on."""

import json
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
import soundfile
import torch
from test_export import CARD, waveforms

import vervet
from vervet.cli import main
from vervet.config import NETWORKS
from vervet.evaluation.cross import cross
from vervet.evaluation.records import validate
from vervet.evaluation.report import write
from vervet.evaluation.run import elsewhere, evaluate
from vervet.export import export
from vervet.files import write_json
from vervet.models.checkpoint import save_network
from vervet.models.vit import VisionTransformer

TRUTH = ["anger", "anger", "neutral", "neutral", "surprise", "neutral"]
LETTERS = {"W": "anger", "N": "neutral", "T": "sadness", "L": "boredom"}


@pytest.fixture
def corpus(tmp_path):
    """Eight recordings under EmoDB's names: two speakers, four emotions, of which the model knows two."""
    folder = tmp_path / "emodb"
    folder.mkdir()
    for number, clip in enumerate(waveforms(8)):
        name = f"{('03', '08')[number % 2]}a01{list(LETTERS)[number // 2]}a.wav"
        soundfile.write(folder / name, clip[: 40_000 + 2_000 * number], 16_000, subtype="FLOAT")
    return folder


@pytest.fixture
def table(tmp_path):
    """Six recordings, the last of nine seconds: two speakers, two emotions that the model knows and one it does not."""
    rows = ["file,emotion,speaker"]
    for number, clip in enumerate(waveforms(6)):
        clip = np.tile(clip, 3)[: 144_000 if number == 5 else 48_000]
        soundfile.write(tmp_path / f"{number}.wav", clip, 16_000, subtype="FLOAT")
        rows.append(f"{number}.wav,{TRUTH[number]},{number % 2}")
    (tmp_path / "mine.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "mine.csv"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with a network, its card and its ONNX file, which takes half a minute to make."""
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    shape = replace(NETWORKS["student"], depth=1, normalise="mean", mask_padding=True)
    card = CARD | {
        "labels": ["anger", "happiness", "neutral"], "corpora": ["cremad"], "epochs": 3, "minutes": 1.0,
        "commit": "abc", "settings": {"enrol": 4},
    }  # fmt: skip
    save_network(folder, VisionTransformer(shape, 3).eval(), card)
    export(folder, folder / "model.onnx")
    return folder


@pytest.fixture
def finished(exported):
    """Makes run folders of that network, with another card if need be."""

    def make(folder, protocol="all", **card):
        shutil.copytree(exported, folder)
        card = json.loads((folder / "model.json").read_text()) | {"protocol": protocol} | card
        write_json(folder / "model.json", card)
        file = onnx.load(folder / "model.onnx")
        (entry,) = (entry for entry in file.metadata_props if entry.key == "vervet")
        entry.value = json.dumps(json.loads(entry.value) | {"labels": card["labels"], "protocol": protocol})
        onnx.save(file, folder / "model.onnx")
        run = {"recipe": "tiny", "machine": "a computer", "leaky": False, "protocol": protocol, "fold": 2}
        run["settings"] = {"seed": 5}
        write_json(folder / "run.json", run)
        return folder

    return make


def test_only_what_both_know_is_asked(tmp_path, finished, corpus, capsys):
    run = finished(tmp_path / "run")
    assert main(["evaluate", str(run), "--on", "emodb", "--root", str(corpus), "--format", "json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    validate(record)
    assert (record["corpus"], record["protocol"], record["seed"]) == ("emodb", "from cremad", 5)
    assert (record["labels"], record["n_test"]) == (["anger", "neutral"], 4)
    predictor = vervet.load(run)
    names = ["03a01Wa", "08a01Wa", "03a01Na", "08a01Na"]
    read = {name: soundfile.read(corpus / f"{name}.wav", dtype="float32") for name in names}
    answers = {name: predictor.probabilities([read[name][0]])[0][[0, 2]].argmax() for name in names}
    right = [answers[name] == ("N" in name) for name in names]
    assert record["wa"] == pytest.approx(np.mean(right))
    told = [predictor.enroll([read[other]]) for name, other in zip(names, names[2:] + names[:2], strict=True)]
    known = [one.probabilities([read[name][0]])[0][[0, 2]].argmax() for one, name in zip(told, names, strict=True)]
    assert record["enrolled"]["1"]["wa"] == pytest.approx(
        np.mean([k == ("N" in n) for k, n in zip(known, names, strict=True)])
    )
    assert evaluate([run]) == []  # no score of its own
    assert elsewhere([run]) == [record]
    assert main(["report", str(tmp_path / "results.json"), "--add", str(run)]) == 0  # it is filed with the run
    assert [one["protocol"] for one in json.loads((tmp_path / "results.json").read_text())] == ["from cremad"]
    assert "`from cremad`" in write(tmp_path / "results.json").read_text()
    assert main(["evaluate", str(run), "--robustness"]) == 1  # nor does that record stand for a test side of its own
    assert "trained on all clips, so there are no test recordings" in capsys.readouterr().err
    for words in (["evaluate", str(run)], ["report", str(run)], ["export", str(run), "--hub", str(tmp_path / "hub")]):
        assert main(words) == 1
        assert f"{run}: trained on all clips, so " in capsys.readouterr().err
    assert not (tmp_path / "hub").exists()


def test_a_copy_of_a_corpus_is_known_by_its_names(tmp_path, capsys):
    """EmoDB as a folder of folders, at another rate and format: 15 and 16 are the speakers that trained nothing."""
    for seed, name in enumerate(("15a02Wb", "16a02Lb", "03a01Fa", "08a01Na")):
        emotion = {"W": "anger", "L": "boredom", "F": "happiness", "N": "neutral"}[name[5]]
        (tmp_path / "mine" / emotion).mkdir(parents=True)
        waveform = np.random.default_rng(seed).normal(0, 0.1, 8_000)
        soundfile.write(tmp_path / "mine" / emotion / f"{name}.flac", waveform, 8_000)
    assert main(["evaluate", "default", "--on", str(tmp_path / "mine"), "--format", "json"]) == 0
    told = capsys.readouterr()
    assert "was trained on 2 of these 4 clips, or on other clips of their speakers: what it scores is LEAKY" in told.err
    assert json.loads(told.out)[0]["leaky"]
    (tmp_path / "mine.csv").write_text(
        "file,emotion\nmine/anger/15a02Wb.flac,anger\nmine/happiness/03a01Fa.flac,happiness\n"
    )
    assert main(["predict", str(tmp_path / "mine.csv")]) == 0
    assert "was trained on 1 of these recordings, or on other clips of their speakers" in capsys.readouterr().err
    for emotion in ("happiness", "neutral"):
        shutil.rmtree(tmp_path / "mine" / emotion)
    assert main(["evaluate", "default", "--on", str(tmp_path / "mine"), "--format", "json"]) == 0
    assert not json.loads(capsys.readouterr().out)[0]["leaky"]


def test_a_fold_is_filed_as_such_and_what_was_heard_is_refused(tmp_path, finished, corpus, capsys):
    run = finished(tmp_path / "run", "speaker")
    assert main(["evaluate", str(run), "--on", "emodb", "--root", str(corpus)]) == 0
    assert "Enrolled: told of  1 other clips" in capsys.readouterr().out
    assert json.loads((run / "cross-emodb.json").read_text())["protocol"] == "from cremad, fold 2"
    for changes, message in (
        ({"corpora": ["emodb"]}, "was trained on emodb"),
        ({"labels": ["disgust", "fear", "neutral"]}, "share 1 emotions"),
    ):
        other = finished(tmp_path / next(iter(changes)), **changes)
        assert main(["evaluate", str(other), "--on", "emodb", "--root", str(corpus)]) == 1
        assert message in capsys.readouterr().err


def answer(predictor, path, columns=(0, 2)):
    """The label of a recording by hand: the mean over its windows, as long as each is."""
    rows = [[one.scores[predictor.labels[column]] for column in columns] for one in predictor(path)]
    seconds = [one.end_s - one.start_s for one in predictor(path)]
    return predictor.labels[columns[int(np.average(rows, axis=0, weights=seconds).argmax())]]


def test_any_model_on_recordings_of_ones_own(tmp_path, finished, table, capsys):
    model = tmp_path / "model.onnx"
    model.write_bytes((finished(tmp_path / "run") / "model.onnx").read_bytes())
    asked = ["evaluate", str(model), "--on", str(table)]
    assert main([*asked, "--format", "json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["labels"], record["n_test"]) == (["anger", "neutral"], 5)
    assert record["left_out"] == {"surprise": 1}
    predictor = vervet.load(model)
    assert record["model_sha256"] == predictor.digest
    truth = {number: emotion for number, emotion in enumerate(TRUTH) if emotion != "surprise"}
    right = [answer(predictor, tmp_path / f"{number}.wav") == emotion for number, emotion in truth.items()]
    assert record["wa"] == pytest.approx(np.mean(right))
    right = [answer(predictor, tmp_path / f"{number}.wav", (0, 1, 2)) == emotion for number, emotion in truth.items()]
    said = record["predicting"]
    assert said["wa"] == pytest.approx(np.mean(right))
    assert "answered" not in said  # this model has no threshold
    assert said["answers"]["neutral"] == Counter(
        answer(predictor, tmp_path / f"{number}.wav", (0, 1, 2)) for number in truth if truth[number] == "neutral"
    )
    others = {0: [2], 2: [0], 1: [3, 5], 3: [1, 5], 5: [1, 3]}
    told = {
        number: predictor.enroll([tmp_path / f"{other}.wav" for other in known]) for number, known in others.items()
    }
    right = [answer(told[number], tmp_path / f"{number}.wav") == emotion for number, emotion in truth.items()]
    assert record["enrolled"]["3"]["wa"] == pytest.approx(np.mean(right))
    right = [answer(one, tmp_path / f"{number}.wav", (0, 1, 2)) == truth[number] for number, one in told.items()]
    assert said["wa_enrolled"]["3"] == pytest.approx(np.mean(right))
    assert set(record["by_speaker"]) == {"0", "1"}
    assert shlex.split(record["command"])[1:] == asked
    assert main(asked) == 0
    printed = capsys.readouterr().out
    assert "surprise 1" in printed
    counts = Counter(said["answers"]["anger"]) + Counter(said["answers"]["neutral"])
    assert counts.total() == 5
    assert all(f" {label} {count}" in printed.partition("\nAnswers:")[2] for label, count in counts.items())
    assert sorted(path.name for path in tmp_path.glob("*.json")) == []


def test_parts_of_a_file_are_answered_as_files_of_their_own(tmp_path, finished, table, capsys):
    run = finished(tmp_path / "run")
    clips = [soundfile.read(tmp_path / f"{number}.wav", dtype="float32")[0] for number in range(6)]
    ends_s = np.cumsum([len(clip) for clip in clips]) / 16_000
    soundfile.write(tmp_path / "call.wav", np.concatenate(clips), 16_000, subtype="FLOAT")
    rows = [f"call.wav,{e - len(c) / 16_000},{e},{t}" for c, e, t in zip(clips, ends_s, TRUTH, strict=True)]
    rows = [f"{row},{number % 2}" for number, row in enumerate(rows)]
    (tmp_path / "parts.csv").write_text("\n".join(["file,start,end,emotion,speaker", *rows]) + "\n")
    found = []
    for name in ("mine", "parts"):
        assert main(["evaluate", str(run), "--on", str(tmp_path / f"{name}.csv"), "--format", "json"]) == 0
        found += json.loads(capsys.readouterr().out)
    assert [found[1][key] for key in found[1] if key not in ("command", "split_hash")] == [
        found[0][key] for key in found[0] if key not in ("command", "split_hash")
    ]


def test_without_speakers_nobody_is_enrolled(tmp_path, finished, table, capsys):
    run = finished(tmp_path / "run")
    table.write_text("\n".join(line.rsplit(",", 1)[0] for line in table.read_text().splitlines()) + "\n")
    assert main(["evaluate", str(run), "--on", str(table), "--format", "json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    validate(record)
    assert "enrolled" not in record
    assert (record["by_speaker"], record["uar_interval"]) == ({}, None)


def test_it_takes_no_pytorch(table):
    asked = ["evaluate", "default", "--on", str(table), "--format", "json"]
    code = f"import sys; sys.modules['torch'] = None; from vervet.cli import main; sys.exit(main({asked!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (record,) = json.loads(done.stdout)
    assert (record["protocol"], record["n_test"]) == ("from cremad and emodb, fold 8", 5)
    assert set(record["predicting"]) == {"wa", "answered", "wa_answered", "answers", "wa_enrolled"}


def test_other_recordings_of_the_same_names_are_others(tmp_path, table):
    before, again = (cross("default", str(table))["split_hash"] for _ in range(2))
    soundfile.write(tmp_path / "0.wav", waveforms(2)[1][:40_000], 16_000, subtype="FLOAT")
    assert before == again != cross("default", str(table))["split_hash"]


def test_what_cannot_be_heard_is_named_and_nothing_is_filed(tmp_path, finished, table, capsys):
    run = finished(tmp_path / "run")
    (tmp_path / "3.wav").write_bytes(b"no sound")
    assert main(["evaluate", str(run), "--on", str(table)]) == 1
    assert "3.wav" in capsys.readouterr().err
    assert not list(run.glob("cross-*"))
    assert main(["evaluate", "nobody", "--on", str(table)]) == 1
    assert "nobody: no such model" in capsys.readouterr().err


def test_a_folder_of_folders_and_what_is_neither(tmp_path, table, capsys):
    for number, emotion in enumerate(TRUTH):
        (tmp_path / "mine" / emotion).mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{number}.wav").rename(tmp_path / "mine" / emotion / f"{number}.wav")
    assert main(["evaluate", "default", "--on", str(tmp_path / "mine"), "--format", "json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["corpus"], record["n_test"], record["left_out"]) == ("folders", 5, {"surprise": 1})
    assert main(["evaluate", "default", "--on", "emoddb"]) == 1
    assert "emoddb: no such corpus, table or folder; corpora are emodb, savee, cremad" in capsys.readouterr().err
    assert main(["evaluate", "default", "--on", "emodb"]) == 1
    assert "was trained on emodb" in capsys.readouterr().err
    assert main(["evaluate", "default"]) == 1
    assert "--on" in capsys.readouterr().err
