import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import vervet
from vervet.cli import main
from vervet.config import FrontEnd, Vit, load_recipe
from vervet.corpora import Utterance, load_corpus
from vervet.evaluation.protocols import Sample, split
from vervet.models.checkpoint import load_network, save_network
from vervet.models.vit import VisionTransformer
from vervet.training.finetune import _confounded, _meaning, _without, check_labels, protocol_for, told
from vervet.training.pretrained import HEADS, Base, check_unheard, load_base, start_from, take_over
from vervet.training.run import cut

EXAMPLES = Path(__file__).parents[1] / "examples"
HZ = {"anger": 400, "awe": 900, "sadness": 2500}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny network that knows anger, neutral and sadness by name, with random weights."""
    folder = tmp_path_factory.mktemp("base")
    front_end = FrontEnd(duration_s=1.0, n_fft=256, win_length=256, hop_length=128, n_mels=32, width=24)
    shape = Vit(image=(32, 24), patch=(32, 1), depth=1, heads=1, dim_head=8, embed_dim=16, mlp_dim=16)
    card = {
        "labels": ["anger", "neutral", "sadness"], "network": "student", "corpora": ["emodb"], "protocol": "speaker",
        "voices": {"emodb": ["03"]},
        "leaky": False, "fold": 8, "recipe": "tiny", "split_hash": "0" * 16, "commit": "", "vervet_version": "0.1.0",
        "front_end": asdict(front_end),
    }  # fmt: skip
    torch.manual_seed(0)
    save_network(folder, VisionTransformer(shape, 3), card)
    return folder


def tones(folder, speakers=("",), takes=5, emotions=tuple(HZ)):
    """A folder of folders, `emotion/speaker/take.wav`; each emotion is a tone of its own."""
    rng = np.random.default_rng(0)
    for number, speaker in enumerate(speakers):
        for emotion in emotions:
            place = folder / emotion / speaker
            place.mkdir(parents=True, exist_ok=True)
            for take in range(takes):
                t = np.arange(int(16_000 * rng.uniform(0.5, 1.0))) / 16_000
                wave = 0.3 * np.sin(2 * np.pi * HZ[emotion] * (1 + 0.02 * number) * t) + 0.01 * rng.normal(size=len(t))
                soundfile.write(place / f"{take}.wav", wave.astype(np.float32), 16_000)
    return folder


def words(data, base, out, *more):
    """Of the whole network, two epochs."""
    return [
        "finetune", str(data), "--model", str(base), "--out", str(out), "--cache", str(out.parent / "cache"), "--cpu",
        "--student.head_l2=0", "--student.epochs=2", *more,
    ]  # fmt: skip


def table(path, rows, columns="file,emotion,split"):
    path.write_text("\n".join([columns, *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def tuned(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    data = tones(folder / "data", ("ann", "ben", "cai"), takes=2)
    assert main(words(data, base, folder / "run")) == 0
    return folder / "run"


def test_folders_give_an_estimate_and_a_model(tuned, base):
    *folds, pooled = json.loads((tuned / "metrics.json").read_text())
    assert [record["fold"] for record in folds] == [0, 1, 2]
    assert (pooled["protocol"], pooled["n_test"], pooled["interval_over"]) == ("speaker", 18, "speakers")
    assert (tuned / "figures" / "confusion.png").stat().st_size > 10_000
    predictor = vervet.load(tuned)
    assert predictor.labels == ("anger", "sadness", "awe")  # new labels behind those that Vervet knows
    assert predictor.card["estimate"]["uar"] == pooled["uar"]
    assert predictor.card["base"]["labels"] == ["anger", "neutral", "sadness"]
    assert predictor.card["protocol"] == "all"
    assert predictor.card["corpora"] == ["emodb", "folders"]  # and the base's, whose terms hold for it too
    assert predictor.card["voices"] == {"emodb": ["03"]}
    assert predictor.card["temperature"] != 1
    (prediction,) = predictor(tuned.parent / "data" / "awe" / "ann" / "0.wav")
    assert set(prediction.scores) == {"anger", "sadness", "awe"}


def test_on_the_hub_its_card_gives_the_estimate_of_the_folds(tuned, tmp_path, capsys):
    ModelCard = pytest.importorskip("huggingface_hub").ModelCard
    assert main(["export", str(tuned), "--hub", str(tmp_path / "hub"), "--licence", "cc0-1.0"]) == 0
    *_, record = json.loads((tuned / "metrics.json").read_text())
    card = ModelCard.load(tmp_path / "hub" / "README.md")
    scores = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert scores["UAR"] == round(record["uar"], 4)
    assert card.data.eval_results[0].dataset_name == "folders of recordings, protocol speaker"
    first, verdict = card.text.strip().splitlines()[2:4]
    assert first.startswith("> Trained on all clips, so that none is left to test it on. The scores are an estimate")
    assert "of 3 models that were trained like it" in first
    assert "voices that it was not trained on (protocol `speaker`, 18 items in all)" in first
    assert verdict.endswith("no version of a test clip was among those that its model was trained on.")
    below = vervet.load(tmp_path / "hub").card["uncertain_below"]
    assert (f"Answers less sure than {below:.2f} are marked" if below else "No answer is marked") in card.text
    assert "trained on EmoDB and folders of recordings" in card.text
    assert (tmp_path / "hub" / "recipe.yaml").read_bytes() == (tuned / "final" / "recipe.yaml").read_bytes()
    assert main(["export", str(tuned / "final"), "--hub", str(tmp_path / "other"), "--licence", "cc0-1.0"]) == 1
    assert "of a fine-tuning, give the folder that has it and the folds" in capsys.readouterr().err


def test_a_file_that_is_named_alike_is_the_same_to_it(tuned, base, tmp_path):
    data, run = (Path(shutil.copytree(tuned.parent / name, tmp_path / name)) for name in ("data", "run"))
    before = (run / "model.onnx").read_bytes()
    (data / "anger" / "ann" / "0.wav").rename(data / "awe" / "ann" / "7.wav")
    (data / "awe" / "ann" / "0.wav").rename(data / "anger" / "ann" / "0.wav")
    (data / "awe" / "ann" / "7.wav").rename(data / "awe" / "ann" / "0.wav")
    assert main(words(data, base, run)) == 0
    assert (run / "model.onnx").read_bytes() == before


def test_but_for_its_heads_the_network_stays_that_of_the_base(tmp_path):
    """The recipe as it is, from a base that gets to know speakers."""
    front_end = FrontEnd(duration_s=1.0, n_fft=256, win_length=256, hop_length=128, n_mels=32, width=24)
    shape = Vit(
        image=(32, 24), patch=(32, 1), depth=1, heads=1, dim_head=8, embed_dim=16, mlp_dim=16, position="none",
        reduce=(4, 8), normalise="mean", mask_padding=True, functionals=True,
    )  # fmt: skip
    network = VisionTransformer(shape, 2)
    card = {
        "labels": ["anger", "neutral"], "network": "student", "corpora": ["emodb"], "protocol": "speaker",
        "leaky": False, "fold": 8, "recipe": "tiny", "split_hash": "0" * 16, "commit": "", "vervet_version": "0.1.0",
        "front_end": asdict(front_end), "settings": {"enrol": 4},
    }  # fmt: skip
    (tmp_path / "base").mkdir()
    save_network(tmp_path / "base", network, card)
    data = tones(tmp_path / "data", ("ann", "ben", "cai"), takes=3)
    told = ["finetune", str(data), "--model", str(tmp_path / "base"), "--out", str(tmp_path / "run"), "--cpu"]
    assert main([*told, "--cache", str(tmp_path / "cache"), "--student.l2_factors=[0.5,50]"]) == 0
    tuned, found = load_network(tmp_path / "run")
    before, after = network.state_dict(), tuned.state_dict()
    body = [key for key in after if not key.startswith(HEADS)]
    assert len(body) > 20
    assert all(torch.equal(after[key], before[key]) for key in body)
    assert found["epochs"] == 0
    *_, record = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert record["network"] == "student+functionals"
    assert record["recipe"] == "finetune --student.enrol=4 --student.l2_factors=[0.5,50] from emodb"
    for stage, of in (
        ("student", lambda card: card["head_l2"]),
        ("functionals", lambda card: card["functionals"]["l2"]),
    ):
        cards = [json.loads(path.read_text()) for path in (tmp_path / "run").glob(f"*/{stage}/model.json")]
        assert len(cards) == 4
        assert {of(card) for card in cards} <= {0.15, 15.0}  # of which each network chose one
    assert record["uar"] == 1  # tones, each of a frequency of its own
    assert set(record["enrolled"]) == {"1", "3", "10", "30"}
    assert vervet.load(tmp_path / "run").enrols


def test_whether_a_base_has_heard_all_of_its_corpora(base, tuned):
    untested = load_base(str(tuned))
    assert untested.card["protocol"] == "all"
    assert not untested.whole  # what it started from left speakers out
    assert not load_base(str(base)).whole
    assert replace(untested, card=untested.card | {"base": None}).whole
    assert replace(untested, card=untested.card | {"base": {"protocol": "all", "base": None}}).whole


def test_a_run_is_named_after_such_a_base(base, tmp_path):
    heard = tmp_path / "base"
    shutil.copytree(base, heard)
    card = json.loads((heard / "model.json").read_text())
    (heard / "model.json").write_text(json.dumps(card | {"protocol": "all"}))
    data = tones(tmp_path / "data", ("dan", "eve", "fay"), takes=2)
    told = ["train", "finetune", "--corpus", "folders", "--root", str(data), "--protocol", "speaker", "--no-export"]
    one = ["--init", str(heard), "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "run"), "--cpu"]
    assert main([*told, *one, "--student.head_l2=0", "--student.epochs=1"]) == 0
    assert load_network(tmp_path / "run")[1]["recipe"].endswith(" from all of emodb")


def test_what_the_base_is_worth_without_fine_tuning(tmp_path):
    utterances = load_corpus("table", EXAMPLES / "clips.csv")
    sides = [split(utterances, "clip", fold, 0, ("original",)) for fold in range(5)]
    assert _without(None, sides) == pytest.approx(6.5 / 7)  # one of fourteen is wrong, of seven emotions
    named = [replace(one, emotion="awe" if one.emotion == "boredom" else one.emotion) for one in utterances]
    assert _without(None, [split(named, "clip", fold, 0, ("original",)) for fold in range(5)]) == pytest.approx(5.5 / 7)
    named = [replace(one, emotion="dread" if one.emotion == "fear" else "awe") for one in utterances]
    assert _without(None, [split(named, "clip", fold, 0, ("original",)) for fold in range(5)]) is None
    short = tmp_path / "short.wav"
    soundfile.write(short, np.full(800, 0.1), 16_000)  # which training takes and prediction refuses
    more = [*utterances, replace(utterances[0], sound=short)]
    sides = [split(more, "clip", fold, 0, ("original",)) for fold in range(5)]
    assert _without(None, sides) < 6.5 / 7
    record = {"protocol": "clip", "uar_interval": None, "wa": 0.9, "uar": 0.9, "n_test": 14, "labels": ["a", "b"]}
    record["leaky"] = False
    assert "the base has a UAR of 92.9% on the same clips" in told([record | {"uar_without": 6.5 / 7}], Path("run"))
    assert "Without" not in told([record], Path("run"))
    assert told([record | {"leaky": True}], Path("run")).startswith("LEAKY: copies of test clips were trained on")


def test_the_last_model_is_trained_on_all_clips_and_tested_on_none(tuned):
    with (tuned / "final" / "split.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["source"] for row in rows}) == 18
    assert {row["split"] for row in rows} == {"train"}
    assert not (tuned / "final" / "student" / "predictions.csv").exists()
    final, last = load_network(tuned / "final")[0].state_dict(), load_network(tuned)[0].state_dict()
    assert all(torch.equal(final[name], last[name]) for name in final)


def test_the_model_can_itself_be_a_base(tuned):
    again = load_base(tuned / "model.onnx")
    assert again.origin["weights"] == load_base(tuned).origin["weights"]
    assert again.origin["base"]["labels"] == ["anger", "neutral", "sadness"]


def test_what_it_has_heard_of_ones_own_tests_nothing_that_comes_after(tuned, tmp_path, capsys):
    data = tuned.parent / "data"
    for model in (tuned, tuned / "model.onnx"):
        assert main(words(data, model, tmp_path / "again")) == 1
        assert "was trained on 6 of the 6 clips that are to be tested, or on other clips" in capsys.readouterr().err
        assert not (tmp_path / "again").exists()
    assert main(["evaluate", str(tuned), "--on", str(data), "--format", "json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)[0]["leaky"]
    assert (
        "was trained on 18 of these 18 clips, or on other clips of their speakers: what it scores is LEAKY" in told.err
    )
    rows = [f"{path},{path.parts[-3]}" for path in sorted(data.rglob("*.wav"))]
    clips = table(tmp_path / "clips.csv", rows, "file,emotion")
    assert main(["predict", str(clips), "--model", str(tuned)]) == 0
    assert "was trained on 18 of these recordings, or on other clips" in capsys.readouterr().err
    assert main(["evaluate", str(tuned), "--on", str(EXAMPLES / "clips.csv"), "--format", "json"]) == 0
    assert not json.loads(capsys.readouterr().out)[0]["leaky"]


def test_the_same_words_again_change_nothing(tuned, base):
    before = {path: path.read_bytes() for path in tuned.rglob("*") if path.suffix in (".safetensors", ".onnx", ".log")}
    record = json.loads((tuned / "finetune.json").read_text())
    del record["settings"]["teacher"]["l2_factors"]  # as if a version without such a setting had begun it
    (tuned / "finetune.json").write_text(json.dumps(record))
    assert main(words(tuned.parent / "data", base, tuned)) == 0
    assert {path: path.read_bytes() for path in before} == before


def test_other_clips_settings_or_bases_need_another_folder(tuned, base, tmp_path, capsys):
    data = tuned.parent / "data"
    assert main([*words(data, base, tuned), "--student.lr=1e-3"]) == 1
    assert "differs in settings.student.lr (" in capsys.readouterr().err
    (other := tmp_path / "other").mkdir()
    network, card = load_network(base)
    save_network(other, network, card | {"commit": "another"})
    assert main(words(data, other, tuned)) == 1
    assert "base.commit (" in capsys.readouterr().err
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "awe" / "ann" / "0.wav").unlink()
    assert main(words(tmp_path / "data", base, tuned)) == 1
    assert "split_hashes (" in capsys.readouterr().err
    (tmp_path / "mine.txt").write_text("mine")
    assert main(words(data, base, tmp_path)) == 1
    assert "is not empty and holds no fine-tuning" in capsys.readouterr().err


@pytest.fixture(scope="module")
def marked(base, tmp_path_factory):
    """A table that marks its sides, the words that fine-tune on it, and what they printed."""
    folder = tmp_path_factory.mktemp("marked")
    tones(folder, takes=6)
    sides = ("train", "train", "train", "validation", "test", "test")
    rows = [f"{emotion}/{take}.wav,{emotion},{side}" for emotion in HZ for take, side in enumerate(sides)]
    clips = table(folder / "clips.csv", rows)

    def command(out):
        return [sys.executable, "-m", "vervet", *words(clips, base, folder / out), "--student.epochs=12"]

    return folder, command, subprocess.run(command("run"), capture_output=True, text=True, check=True)


def test_a_table_that_marks_its_sides_keeps_them(marked):
    folder, _, told = marked
    assert "The score tells about the clips that the table marks test" in told.stderr
    assert "labels that the base does not know: awe" in told.stderr
    assert "guessing would have a UAR of 33.3%" in told.stdout
    assert "drawing" not in told.stdout  # of speakers nothing is known, and nothing was drawn
    assert not (folder / "run" / "final").exists()
    (record,) = json.loads((folder / "run" / "metrics.json").read_text())
    assert record["n_test"] == 6
    assert vervet.load(folder / "run").card["protocol"] == "table"


def test_corrected_labels_are_another_fine_tuning(marked, tmp_path, capsys):
    folder, command, _ = marked
    run = shutil.copytree(folder / "run", tmp_path / "run")
    clips, before = folder / "clips.csv", (folder / "clips.csv").read_text()
    clips.write_text(before.replace("anger/0.wav,anger", "anger/0.wav,awe"))
    try:
        assert main(command(run)[3:]) == 1
        assert "holds a run of other clips: 1 differ" in capsys.readouterr().err
    finally:
        clips.write_text(before)


def test_killed_it_goes_on_and_ends_the_same(marked):
    folder, command, _ = marked
    process = subprocess.Popen(command("cut"), start_new_session=True, stderr=subprocess.DEVNULL)
    log = folder / "cut" / "fold-0" / "student" / "log.csv"
    started = time.monotonic()
    while not log.exists() and time.monotonic() - started < 300:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)  # and the run that it started
    process.wait()
    assert not (folder / "cut" / "model.json").exists()
    assert main(command("cut")[3:]) == 0
    whole, cut = (load_network(folder / name)[0].state_dict() for name in ("run", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_what_nothing_can_be_learnt_from_is_refused(base, tmp_path, capsys):
    def refused(data):
        assert main(words(data, base, tmp_path / "run")) == 1
        assert not (tmp_path / "run").exists()
        return capsys.readouterr().err

    assert "no such folder or table" in refused(tmp_path / "nowhere")
    assert "all clips are 'awe': fine-tuning needs two labels" in refused(tones(tmp_path / "one", emotions=("awe",)))
    few = tones(tmp_path / "few", takes=1)
    assert "too few clips of 'anger' (1), 'awe' (1), 'sadness' (1)" in refused(few)
    (tones(tmp_path / "empty") / "zeal").mkdir()
    assert f"{tmp_path / 'empty' / 'zeal'}: no audio files" in refused(tmp_path / "empty")
    (tones(tmp_path / "broken") / "awe" / "3.wav").write_bytes(b"RIFF")
    assert f"{tmp_path / 'broken' / 'awe' / '3.wav'}: not audio that can be decoded" in refused(tmp_path / "broken")
    segments = table(few / "clips.csv", ["awe/0.wav,awe,1,0"], "file,emotion,start,end")
    assert "line 2 of clips.csv: ends at 0 s, and begins at 1 s" in refused(segments)


def test_an_output_among_the_clips_and_no_jobs_are_refused_before_anything_is_written(base, tmp_path, capsys):
    data = tones(tmp_path / "data")
    for more, message in (((data / "run",), "would be taken for an emotion"), ((tmp_path / "run", "--jobs", "0"), "1")):
        assert main(words(data, base, *more)) == 1
        assert message in capsys.readouterr().err
        assert not more[0].exists()


def test_a_folder_called_default_hides_no_shipped_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "default").mkdir()
    assert load_base("default").origin == load_base().origin
    (tmp_path / "default" / "model.json").write_text("{}")  # now it is a run, or claims to be one
    with pytest.raises(ValueError, match=r"default/model\.json: not the card of a Vervet model"):
        load_base("default")
    assert load_base().labels


def test_of_long_clips_only_the_beginning_counts(tmp_path):
    (clip,) = (one for one in load_corpus("table", EXAMPLES / "clips.csv") if one.name == "15a02Wb.flac")
    speech, rate = soundfile.read(clip.path)
    soundfile.write(tmp_path / "late.wav", np.concatenate([np.zeros(5 * rate), speech]), rate)
    soundfile.write(tmp_path / "early.wav", np.concatenate([speech, np.zeros(5 * rate)]), rate)
    late, early = (replace(clip, sound=tmp_path / f"{name}.wav") for name in ("late", "early"))
    assert cut([clip, late, early], 4.0)[0].startswith("2 of 3 clips are longer than 4 s")
    assert cut([clip], 4.0) == []
    assert _without(None, [split([early], "all", 0, 0, ("original",))]) is None  # nothing is tested
    for one, uar in ((early, 1), (late, 0)):
        sides = replace(split([one], "all", 0, 0, ("original",)), test=(Sample(one),))
        assert _without(None, [sides]) == uar


def test_settings_that_are_the_bases_own_are_refused(base, tmp_path, capsys):
    data = tones(tmp_path / "data")
    for setting, message in (
        ("--student_network.depth=7", "student_network is that of the base"),
        ("--front_end.n_mels=64", "the front end makes"),
        ("--front_end.top_db=60", "front_end is that of the base"),
        ("--student.alpha=1", "has no teacher"),
        ("--student.head_l2=1", "--student.epochs=2: changes nothing while the heads alone are fitted"),
        ("--student.enrol=4", "student.enrol needs student_network.normalise"),
        ("--protocol=paper", "invalid choice"),
    ):
        if "protocol" in setting:
            with pytest.raises(SystemExit):
                main(words(data, base, tmp_path / "run", setting))
        else:
            assert main(words(data, base, tmp_path / "run", setting)) == 1
            assert not (tmp_path / "run").exists()
        assert message in capsys.readouterr().err


def test_known_labels_keep_their_rows_and_new_ones_start_with_nothing():
    base = load_base()
    labels = ("anger", "sadness", "awe")
    torch.manual_seed(0)
    network = VisionTransformer(start_from(load_recipe(Path("finetune")), base).student_network, len(labels))
    assert network.head.weight[2].any()
    take_over(network, labels, base)
    assert torch.equal(network.head.weight[0], base.network.head.weight[base.labels.index("anger")])
    assert torch.equal(network.head.weight[1], base.network.head.weight[base.labels.index("sadness")])
    assert torch.equal(network.head.bias[:2], base.network.head.bias[[0, base.labels.index("sadness")]])
    assert not network.head.weight[2].any()
    assert network.head.bias[2] == 0
    known = base.network.state_dict()
    assert network.functionals is None  # a stage of its own gives them back
    assert all(torch.equal(v, known[k]) for k, v in network.state_dict().items() if not k.startswith(HEADS))


def test_training_starts_from_what_the_base_answers():
    """An exported base has its BatchNorms folded, a run folder does not: in training both are the same network."""
    torch.manual_seed(0)
    shape = Vit(image=(32, 24), patch=(32, 1), depth=1, heads=1, dim_head=8, embed_dim=16, mlp_dim=16, reduce=(4, 8))
    network = VisionTransformer(shape, 2)
    images = torch.rand(8, 1, 32, 24)
    network.train()(images)  # moves the running statistics
    folded = VisionTransformer(shape, 2)
    folded.load_state_dict(network.state_dict())
    assert folded.reduce is not None
    folded.reduce.fold()
    expected = network.eval()(images)[0]
    for one in (network, folded):
        started = VisionTransformer(shape, 2)
        take_over(started, ("anger", "neutral"), Base("base", one, {"labels": ["anger", "neutral"]}))
        torch.testing.assert_close(started.train()(images)[0], expected, rtol=1e-4, atol=1e-4)
        assert started.reduce is not None
        assert not any(norm.training for norm in started.reduce.norms)


def clips(*named, corpus="table"):
    return [Utterance(Path(f"{k}.wav"), emotion, corpus, speaker) for k, (emotion, speaker) in enumerate(named)]


def test_what_a_base_may_have_heard_is_no_test(base):
    heard = load_base(base)  # of emodb
    spoken = [(emotion, speaker) for speaker in "abc" for emotion in ("anger", "neutral")]
    for corpus in ("savee", "table"):
        found = clips(*spoken, corpus=corpus)
        check_unheard(heard, found, split(found, "speaker", 0, 0, ("original",)))
    found = clips(*spoken, corpus="emodb")
    sides = split(found, "speaker", 0, 0, ("original",))
    with pytest.raises(ValueError, match="was trained on emodb by another split, so it may have heard the test side"):
        check_unheard(heard, found, sides)
    check_unheard(replace(heard, card=heard.card | {"split_hash": sides.hash()}), found, sides)
    check_unheard(heard, found, split(found, "all", 0, 0, ("original",)))  # nothing is tested


@pytest.mark.parametrize(
    ("speakers", "protocol", "meaning"),
    [
        ([""], "clip", "Speakers unknown: one voice may be in training and in test"),
        (["", "b", "c", "d"], "clip", "Speakers unknown of 1 clips"),
        (["a", "b"], "clip", "Voices of the test are in training too"),
        (["a", "b", "c"], "speaker", "voices that its training has not heard"),
        (list("abcdef"), "speakers", "voices that its training has not heard"),
    ],
)
def test_the_protocol_follows_from_what_is_known_of_speakers(speakers, protocol, meaning):
    utterances = clips(*(("anger", speaker) for speaker in speakers))
    assert protocol_for(utterances) == protocol
    assert meaning in _meaning(utterances, protocol)


def test_an_emotion_of_one_voice_is_named():
    utterances = clips(("anger", "a"), ("anger", "b"), ("awe", "b"))
    assert _confounded(utterances) == [
        "awe is spoken by one speaker only: whether the emotion or the voice is recognised cannot be told."
    ]
    assert _confounded(clips(("awe", "a"), ("anger", "a"))) == []


def test_five_clips_of_each_label_are_enough():
    check_labels(clips(*[("awe", "")] * 5, *[("anger", "")] * 5))
    with pytest.raises(ValueError, match=r"too few clips of 'awe' \(4\)"):
        check_labels(clips(*[("awe", "")] * 4, *[("anger", "")] * 5))


def test_the_examples_can_be_learnt_by_other_words(tmp_path):
    rows = [
        f"{utterance.path},{'aroused' if utterance.emotion in ('anger', 'fear', 'happiness') else 'quiet'}"
        for utterance in load_corpus("table", EXAMPLES / "clips.csv")
    ]
    utterances = load_corpus("table", table(tmp_path / "arousal.csv", rows, "file,emotion"))
    check_labels(utterances)
    assert {utterance.emotion for utterance in utterances} == {"aroused", "quiet"}
