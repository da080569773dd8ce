"""The second head: what it reads, what a speaker's other clips do to it, how it is fitted, the stage that adds it."""

import csv
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from test_export import CARD, waveforms

import vervet
from vervet.cli import main
from vervet.config import NETWORKS, FrontEnd, Functionals, Recipe, Vit, load_recipe
from vervet.evaluation.robustness import _check_other
from vervet.export import export
from vervet.models.checkpoint import load_network, save_network
from vervet.models.functionals import (
    DESCRIPTORS,
    FUNCTIONALS,
    FunctionalsHead,
    adapt,
    clip_statistics,
    combs,
    descriptors,
    functionals,
)
from vervet.models.patches import heard
from vervet.models.vit import VisionTransformer
from vervet.spectrogram import LogMel
from vervet.training.functionals import fit_functionals
from vervet.training.pool import Images
from vervet.training.pretrained import Base, known_functionals

BELS = torch.tensor(14.0)
FRONT_END = FrontEnd(hop_length=256, width=251, reference="full scale")


def images(count=4, height=64, width=80, sound=60):
    """Noise with a formant that moves, black from column `sound` on."""
    generator = torch.Generator().manual_seed(0)
    x = 0.4 + 0.1 * torch.rand(count, 1, height, width, generator=generator)
    for clip in range(count):
        for column in range(sound):
            x[clip, 0, (10 + 5 * clip + column // 4) % height, column] += 0.3
    x[..., sound:] = 0
    return x


def described(x):
    return descriptors(x, heard(x), BELS, combs(FrontEnd(n_mels=x.shape[2])))


def summed(x):
    return functionals(x, heard(x), BELS, combs(FrontEnd(n_mels=x.shape[2])))


def head_for(x, classes=3):
    head = FunctionalsHead(classes, x.shape[2])
    head.read(FrontEnd(n_mels=x.shape[2], reference="full scale"))
    return head


def buzz(pitch, seconds=1.5):
    """A voice-like tone: harmonics whose power falls by 6 dB per octave, in a little noise."""
    time = np.arange(round(16_000 * seconds)) / 16_000
    tone = sum(np.sin(2 * np.pi * k * pitch * time) / k for k in range(1, int(4000 / pitch)))
    noise = np.random.default_rng(0).normal(0, 1e-3, len(time))
    return (0.1 * tone + noise).astype(np.float32)


def picture(waveform):
    """(samples,) -> (1, 1, 128, 251)."""
    padded = np.pad(waveform, (0, FRONT_END.samples - len(waveform)))
    return LogMel(FRONT_END)(torch.from_numpy(padded)[None])


# --- what is read


def test_there_are_as_many_as_there_are_said_to_be():
    x = images()
    assert described(x).shape == (4, DESCRIPTORS, 80) == (4, 70, 80)
    assert summed(x).shape == (4, FUNCTIONALS) == (4, 3432)
    assert summed(x).isfinite().all()


def test_silence_stands_out_in_none_of_them():
    assert summed(torch.zeros(1, 1, 128, 251)).abs().max() < 100


def test_neither_gain_nor_padding_changes_them():
    x = images()
    louder = torch.where(x > 0, x + 0.1, 0)  # 14 dB
    torch.testing.assert_close(summed(louder), summed(x), rtol=1e-3, atol=2e-3)
    torch.testing.assert_close(summed(x[..., :60]), summed(x), rtol=1e-4, atol=1e-4)


def test_moments_and_percentiles_are_numpys():
    x = images()
    found = described(x)[:, :, :60].numpy()
    change = np.diff(found, axis=2, prepend=0)
    change[..., 0] = 0
    each, rows = summed(x).numpy(), 2 * DESCRIPTORS
    both = np.concatenate([found, change], axis=1)
    np.testing.assert_allclose(each[:, :rows], both.mean(2), atol=1e-4)
    np.testing.assert_allclose(each[:, rows : 2 * rows], np.sqrt(both.var(2) + 1e-6), atol=1e-4)
    varies = both.std(2) > 0.01
    scaled = (both - both.mean(2, keepdims=True)) / both.std(2, keepdims=True).clip(1e-9)
    np.testing.assert_allclose(each[:, 2 * rows : 3 * rows][varies], (scaled**3).mean(2)[varies], atol=5e-3)
    np.testing.assert_allclose(each[:, 3 * rows : 4 * rows][varies], (scaled**4).mean(2)[varies], rtol=5e-3)
    first = 3 * 7 * rows
    for number, percentile in enumerate((1, 10, 25, 50, 75, 90, 99)):
        part = each[:, first + number * DESCRIPTORS :][:, :DESCRIPTORS]
        np.testing.assert_allclose(part, np.percentile(found[..., ::2], percentile, axis=2), atol=1e-4)
    np.testing.assert_allclose(each[:, -1], np.log(60), atol=1e-6)


def test_voice_and_the_rest_are_summed_up_apart():
    noise = np.random.default_rng(1).normal(0, 0.01, 12_000).astype(np.float32)
    x = picture(np.concatenate([buzz(200), noise]))
    found, each, rows = described(x)[0].numpy(), summed(x)[0].numpy(), 2 * DESCRIPTORS
    voiced = found[-1] > 1.5
    sound = heard(x)[0].numpy()
    assert 0.5 < voiced[sound].mean() < 0.75  # 1.5 s of 2.25
    assert each[-2] == pytest.approx(voiced[sound].mean(), abs=1e-6)
    for number, columns in enumerate((sound, sound & voiced, sound & ~voiced)):
        part = each[7 * rows * number :]
        np.testing.assert_allclose(part[:DESCRIPTORS], found[:, columns].mean(1), atol=1e-3)
        np.testing.assert_allclose(part[rows : rows + DESCRIPTORS], found[:, columns].std(1), atol=2e-3)
        place = np.linspace(-0.5, 0.5, columns.sum() + 1)[:-1]
        if number < 2:  # these columns are neighbours
            slopes = [np.polyfit(place, row, 1)[0] for row in found[:, columns]]
            np.testing.assert_allclose(part[4 * rows : 4 * rows + DESCRIPTORS], slopes, atol=0.02, rtol=0.02)
    silent = summed(picture(noise))[0]  # a set without columns is taken to be all
    np.testing.assert_allclose(silent[7 * rows : 14 * rows], silent[: 7 * rows], atol=1e-5)


@pytest.mark.parametrize("pitch", [95, 130, 180, 260, 370])
def test_the_pitch_is_heard_whatever_the_level(pitch):
    for gain in (1.0, 0.01):
        x = picture(gain * buzz(pitch))
        found = described(x)[0][:, heard(x)[0]]
        voiced = found[-1] > 1.5
        assert voiced.float().mean() > 0.9
        assert float(found[-2][voiced].median().exp()) == pytest.approx(pitch, rel=0.05)


def test_the_descriptors_are_what_their_names_say():
    x = torch.full((1, 1, 64, 40), 0.2)
    x[0, 0, 48] = 0.9  # one band far above the others
    found = described(x)[0, :, 5]
    bands, (level, centroid, spread, entropy), shares = found[25:57], found[57:61], found[61:65]
    assert int(bands.argmax()) == 24
    assert level > 0
    assert centroid == pytest.approx(48 / 63, abs=1e-3)
    assert spread < 0.01
    assert abs(entropy) < 1e-3
    assert (shares[:3] < -4).all()  # next to nothing lies in the lower half
    assert shares[3] < -4  # nor below the band itself
    assert float(found[65]) == pytest.approx(0, abs=1e-5)  # nothing changes
    assert found[67] > 2 * found[66]  # the upper half is the one that sticks out


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_silence_and_a_steady_tone_are_finite(level):
    x = torch.full((2, 1, 64, 40), level)
    assert summed(x).isfinite().all()
    head = head_for(x)
    assert head(head.standardised(x, heard(x)))[0].isfinite().all()


# --- what a speaker's other clips do


def test_a_stranger_is_left_as_is():
    usual = torch.randn(3, FUNCTIONALS) * 0.9
    assert torch.equal(adapt(usual, None), usual)
    torch.testing.assert_close(adapt(usual, torch.zeros(3, 3, FUNCTIONALS)), usual)


def test_the_less_usual_a_recording_the_smaller_the_share_of_the_second_head():
    head, far = FunctionalsHead(3, 128), torch.full((1, FUNCTIONALS), 2.0)
    assert float(head(far / 4)[1]) == pytest.approx(0.4)
    assert float(head(far)[1]) == pytest.approx(0.4 / 4)
    known = clip_statistics(far) * 1000  # of a speaker who always sounds like this
    assert float(head(far, known)[1]) == pytest.approx(0.6, abs=0.01)


def test_the_better_a_speaker_is_known_the_less_is_left_of_the_speaker():
    generator = torch.Generator().manual_seed(0)
    voice, feeling = 2.0, 0.3 * torch.randn(200, FUNCTIONALS, generator=generator)
    clips = voice + feeling
    left = []
    for count in (1, 10, 100):
        speaker = clip_statistics(clips[:count]).sum(0, keepdim=True)
        left.append(float(adapt(clips[100:101], speaker).mean().abs()))
    assert left[0] > left[1] > left[2]
    known = adapt(clips[150:], clip_statistics(clips[:100]).sum(0, keepdim=True).expand(50, -1, -1))
    assert float(known.mean().abs()) < 0.25
    assert 0.7 < float(known.std()) < 1.2  # what was felt fills the range again


def test_the_share_grows_with_what_is_known():
    head = FunctionalsHead(2, 128)
    clips = 0.5 * torch.randn(30, FUNCTIONALS)  # nothing unusual
    shares = [head(clips[:1], clip_statistics(clips[:n]).sum(0, keepdim=True))[1] for n in (1, 3, 30)]
    assert head(clips[:1])[1] < shares[0] < shares[1] < shares[2] < 0.6
    most = FunctionalsHead(2, 128, stranger=0.8)  # more than is said about the best known
    assert float(most(clips[:1], clip_statistics(clips).sum(0, keepdim=True))[1]) == pytest.approx(0.8)


# --- in the network and its export


@pytest.fixture(scope="module")
def enrolling(tmp_path_factory):
    """A network with both heads and random weights, as if trained to enrol, and its predictor."""
    folder = tmp_path_factory.mktemp("functionals")
    torch.manual_seed(0)
    network = VisionTransformer(replace(NETWORKS["vervet"], depth=1), 3).eval()
    assert network.functionals is not None
    network.functionals.read(FRONT_END)
    network.functionals.mean.normal_()
    network.functionals.deviation.uniform_(1, 3)
    card = CARD | {"front_end": asdict(FRONT_END), "settings": {"enrol": 4}}
    save_network(folder, network, card)
    return folder, network, LogMel(FRONT_END).eval(), vervet.load(export(folder, folder / "model.onnx"))


def test_what_is_exported_answers_as_the_network(enrolling):
    _, network, log_mel, predictor = enrolling
    clips, others = waveforms(3), waveforms(5)[2:]
    with torch.inference_mode():
        mine, theirs = log_mel(torch.from_numpy(clips)), log_mel(torch.from_numpy(others))
        speaker = network.statistics(theirs, network.summary(theirs)).sum(0, keepdim=True).expand(3, -1, -1)
        stranger, known = network(mine)[0].softmax(1).numpy(), network(mine, speaker)[0].softmax(1).numpy()
    np.testing.assert_allclose(predictor.probabilities(clips), stranger, atol=1e-4)
    enrolled = predictor.enroll((clip, 16_000) for clip in others)
    np.testing.assert_allclose(enrolled.probabilities(clips), known, atol=1e-4)
    assert np.abs(known - stranger).max() > 1e-3


def test_a_short_recording_is_answered_as_when_it_is_padded(enrolling):
    predictor = enrolling[3]
    short = waveforms(1)[:, :24_000]
    padded = np.pad(short, ((0, 0), (0, 40_000)))
    (a,), (b,) = predictor((short[0], 16_000)), predictor((padded[0], 16_000))
    np.testing.assert_allclose(list(a.scores.values()), list(b.scores.values()), atol=1e-3)


def test_every_weight_of_the_head_comes_back(enrolling):
    folder, network, _, _ = enrolling
    again, _ = load_network(folder / "model.onnx")
    assert again.functionals is not None
    for name, value in network.functionals.state_dict().items():
        assert torch.equal(again.functionals.state_dict()[name], value), name


# --- fitting


def clips_of(classes=3, speakers=4, takes=5):
    """Images whose formant says the class and whose level of noise the speaker."""
    made, emotions, names = [], [], []
    generator = torch.Generator().manual_seed(0)
    for speaker in range(speakers):
        for emotion in range(classes):
            for _ in range(takes):
                x = 0.3 + 0.05 * speaker + 0.1 * torch.rand(1, 32, 50, generator=generator)
                x[0, 5 + 8 * emotion : 8 + 8 * emotion, 10:40] += 0.2
                made.append(x)
                emotions.append(emotion)
                names.append(f"s{speaker}")
    store = torch.stack(made)
    return Images(store, torch.arange(len(store))), torch.tensor(emotions), names


def test_fitting_finds_what_tells_the_classes_apart():
    x, emotions, speakers = clips_of()
    head = head_for(x.store)
    loss, l2 = fit_functionals(head, x, emotions, speakers, Functionals(told=(0, 1, 3)), True, seed=0)
    found = head.standardised(x.store, heard(x.store))
    assert loss < 0.5
    assert l2 == Functionals().l2
    assert (head(found)[0].argmax(1) == emotions).all()
    assert float(found.mean().abs()) < 0.05
    twin = head_for(x.store)
    assert fit_functionals(twin, x, emotions, speakers, Functionals(told=(0, 1, 3)), True, seed=0) == (loss, l2)
    assert torch.equal(twin.linear.weight, head.linear.weight)


def test_clips_that_count_twice_weigh_twice_in_mean_and_deviation():
    x, emotions, speakers = clips_of()
    shares = torch.tensor([2.0 if name == "s3" else 1.0 for name in speakers])
    head, twin = head_for(x.store), head_for(x.store)
    repeated = torch.arange(len(x)).repeat_interleave(shares.long())
    settings = Functionals(told=(0,))
    loss, _ = fit_functionals(head, x, emotions, speakers, settings, True, seed=0, shares=shares)
    again = Images(x.store, x.positions[repeated])
    names = [speakers[index] for index in repeated]
    repeatedly, _ = fit_functionals(twin, again, emotions[repeated], names, settings, True, seed=0)
    assert repeatedly == pytest.approx(loss, 1e-3)
    torch.testing.assert_close(head.mean, twin.mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(head.deviation, twin.deviation, rtol=1e-4, atol=1e-5)


def test_a_strong_penalty_keeps_the_weights_of_the_base_and_its_scale_counts_for_a_hundred_clips():
    x, emotions, speakers = clips_of()
    old = head_for(x.store, 2)
    old.mean.normal_(generator=torch.Generator().manual_seed(1))
    network = VisionTransformer(Vit(image=(32, 50), patch=(32, 1), depth=1, functionals=True), 2)
    network.functionals = old
    start = known_functionals(("anger", "awe", "neutral"), Base("base", network, {"labels": ["neutral", "anger"]}))
    assert start is not None
    assert torch.equal(start.linear.weight[0], old.linear.weight[1])
    assert torch.equal(start.linear.weight[2], old.linear.weight[0])
    assert not start.linear.weight[1].any()
    head = head_for(x.store)
    fit_functionals(head, x, emotions, speakers, Functionals(l2=1e6, told=(0,)), True, seed=0, start=start)
    torch.testing.assert_close(head.linear.weight, start.linear.weight, atol=1e-3, rtol=0)
    fresh = head_for(x.store)
    fit_functionals(fresh, x, emotions, speakers, Functionals(told=(0,)), True, seed=0)
    own = len(emotions) / (len(emotions) + 100)
    torch.testing.assert_close(head.mean, own * fresh.mean + (1 - own) * old.mean)
    squares = own * fresh.deviation.square() + (1 - own) * old.deviation.square()
    torch.testing.assert_close(head.deviation, squares.sqrt())
    assert known_functionals(("anger",), None) is None


# --- the stage

TINY = """
stages: [student, functionals]
front_end: {duration_s: 1.0, n_fft: 256, win_length: 256, hop_length: 128, n_mels: 32, width: 24}
augment: {versions: [original]}
teacher_network: {image: [32, 24], patch: [32, 1], position: none, stem: [], embed_dim: 16}
student_network: {image: [32, 24], patch: [32, 1], depth: 1, heads: 1, dim_head: 8, embed_dim: 16, mlp_dim: 16, \
normalise: mean, mask_padding: true}
student: {epochs: 6, lr: 1e-3, alpha: 0, enrol: 2}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_corpus):
    folder = tmp_path_factory.mktemp("stage")
    (folder / "tiny.yaml").write_text(TINY)
    words = [
        "train", str(folder / "tiny.yaml"), "--corpus", "table", "--root", str(tiny_corpus), "--protocol", "speaker",
        "--cache", str(folder / "cache"), "--cpu", "--out",
    ]  # fmt: skip
    assert main([*words, str(folder / "run")]) == 0
    return words, folder / "run"


def test_robustness_may_be_asked_of_the_validation_side(run, tiny_corpus, capsys):
    _, folder = run
    asked = ["evaluate", str(folder), "--robustness", "--root", str(tiny_corpus.parent), "--format", "json"]
    assert main([*asked, "--validation"]) == 0
    rows = json.loads(capsys.readouterr().out)
    with (folder / "split.csv").open() as split:
        clips = [row for row in csv.DictReader(split) if row["split"] == "validation" and row["version"] == "original"]
    assert len(clips) == 9
    assert rows[0]["n"] == len(clips)
    assert (folder / "robustness-validation.png").exists()
    assert not (folder / "robustness.json").exists()  # that is of the test side
    assert main([*asked, "--validation", "--model", str(folder / "model.onnx")]) == 0
    assert json.loads(capsys.readouterr().out) == rows
    assert (folder / "robustness-validation-model.png").exists()
    for option in (["--validation"], ["--model", "default"]):
        assert main(["evaluate", str(folder), *option]) != 0
        assert "goes with --robustness" in capsys.readouterr().err


def test_no_other_model_is_asked_what_it_may_have_heard():
    card = {"labels": ["anger", "fear", "neutral"], "corpora": ["cremad", "emodb"], "split_hash": "a"}
    record = {"labels": ["anger", "neutral"], "corpus": "emodb", "split_hash": "a"}
    _check_other(card, record, "default")
    _check_other(card, record | {"corpus": "savee", "split_hash": "b"}, "default")
    with pytest.raises(ValueError, match=r"default: was trained on emodb by another split, so it may have heard"):
        _check_other(card, record | {"split_hash": "b"}, "default")
    with pytest.raises(ValueError, match=r"default: does not know boredom, which the run is tested on"):
        _check_other(card, record | {"labels": ["anger", "boredom"]}, "default")


def test_the_stage_is_tested_and_published_beside_the_student(run):
    _, folder = run
    metrics = json.loads((folder / "metrics.json").read_text())
    assert [record["network"] for record in metrics] == ["student", "student+functionals"]
    assert set(metrics[1]["enrolled"]) == {"1", "3", "10", "30"}
    assert metrics[1]["uar"] > max(0.9, metrics[0]["uar"])  # tones are told apart by their spectrum
    assert metrics[1]["enrolled"]["10"]["uar"] > 0.9
    card = json.loads((folder / "model.json").read_text())
    assert card["stage"] == "functionals"
    assert card["vit"]["functionals"]
    assert {"temperature", "uncertain_below"} <= set(card)
    student, both = load_network(folder / "student")[0], load_network(folder)[0]
    for name, value in student.state_dict().items():
        assert torch.equal(both.state_dict()[name], value)
    assert vervet.load(folder).enrols


def test_the_stage_may_be_added_later_and_comes_out_the_same(run, tmp_path):
    words, folder = run
    assert main([*words, str(tmp_path / "run"), "--no-export", "--stages=student"]) == 0
    assert json.loads((tmp_path / "run" / "model.json").read_text())["stage"] == "student"
    assert main([*words, str(tmp_path / "run"), "--no-export"]) == 0
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_the_stage_needs_a_student(run, tmp_path, capsys):
    words, _ = run
    assert main([*words, str(tmp_path / "run"), "--stages=functionals"]) == 1
    assert "stage functionals needs a student" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("--functionals.l2=0", "l2 must be positive"),
        ("--functionals.share=1.5", "share must be between 0 and 1"),
        ("--student_network.share=0.5", "is set as functionals.share"),
        ("--functionals.told=[]", "told are numbers of clips"),
        ("--student_network.functionals=true", "from the stage of that name"),
        ("--stages=[functionals,student]", "in this order"),
    ],
)
def test_faulty_settings(run, setting, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(run[1].parent / "tiny.yaml", [setting])


def test_the_number_of_bands_must_fit():
    with pytest.raises(ValueError, match="multiple of 32 bands"):
        Vit(image=(40, 50), patch=(40, 1), functionals=True)
    with pytest.raises(ValueError, match="multiple of 32 bands"):
        Recipe(stages=("student", "functionals"), student_network=Vit(image=(40, 50), patch=(40, 1)))
