"""What is known of a speaker goes from recordings into the answers."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from test_export import CARD, waveforms

import vervet
from vervet.cli import main
from vervet.config import NETWORKS, FrontEnd, Vit
from vervet.export import export
from vervet.models.checkpoint import save_network
from vervet.models.patches import heard, statistics
from vervet.models.vit import VisionTransformer
from vervet.spectrogram import LogMel
from vervet.stream import Stream
from vervet.training.enrol import met, statistics_of
from vervet.training.pool import Images


@pytest.fixture(scope="module")
def enrolling(tmp_path_factory):
    """A network with random weights, as if trained to enrol, its predictor and its ONNX file."""
    folder = tmp_path_factory.mktemp("enrol")
    torch.manual_seed(0)
    shape = replace(NETWORKS["student"], depth=1, normalise="deviation", mask_padding=True, time_convs=1)
    network = VisionTransformer(shape, 3).eval()
    save_network(folder, network, CARD | {"settings": {"enrol": 4}})
    return network, vervet.load(export(folder, folder / "model.onnx")), folder / "model.onnx"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A model that was not trained to enrol."""
    folder = tmp_path_factory.mktemp("plain")
    torch.manual_seed(0)
    save_network(folder, VisionTransformer(replace(NETWORKS["student"], depth=1), 3).eval(), CARD)
    return export(folder, folder / "model.onnx")


def told(network, clips, others):
    """Probabilities of clips, given other clips of their speaker."""
    log_mel = LogMel(FrontEnd())
    with torch.inference_mode():
        known = log_mel(torch.from_numpy(others))
        speaker = statistics(known, heard(known)).sum(0, keepdim=True).expand(len(clips), -1, -1)
        return network(log_mel(torch.from_numpy(clips)), speaker)[0].softmax(1).numpy()


def test_an_enrolled_speaker_is_normalised_by_all_recordings(enrolling):
    network, predictor, _ = enrolling
    speech = waveforms(5)
    known = predictor.enroll((clip, 16_000) for clip in speech[2:])
    np.testing.assert_allclose(known.probabilities(speech[:2]), told(network, speech[:2], speech[2:]), atol=1e-4)
    np.testing.assert_allclose(predictor.probabilities(speech[:2]), told(network, speech[:2], speech[:0]), atol=1e-4)
    assert np.abs(known.probabilities(speech[:2]) - predictor.probabilities(speech[:2])).max() > 1e-3


def test_speakers_get_known_bit_by_bit(enrolling):
    _, predictor, _ = enrolling
    speech = waveforms(4)
    at_once = predictor.enroll((clip, 16_000) for clip in speech[1:])
    one_by_one = predictor
    for clip in speech[1:]:
        one_by_one = one_by_one.enroll([(clip, 16_000)])
    np.testing.assert_allclose(one_by_one.probabilities(speech), at_once.probabilities(speech), atol=1e-6)
    (prediction,) = at_once((speech[0], 16_000))
    np.testing.assert_allclose(list(prediction.scores.values()), at_once.probabilities(speech[:1])[0], atol=1e-6)


def test_a_short_recording_says_as_much_as_when_it_is_padded(enrolling):
    _, predictor, _ = enrolling
    speech = waveforms(2)
    short = speech[1, :20_000]
    padded = np.pad(short, (0, 44_000))
    ways = [predictor.enroll([(clip, 16_000)]).probabilities(speech[:1]) for clip in (short, padded)]
    np.testing.assert_allclose(*ways, atol=1e-5)


def test_who_cannot_be_enrolled(enrolling, plain):
    _, predictor, _ = enrolling
    with pytest.raises(ValueError, match="there is no recording, or all are silent"):
        predictor.enroll([(np.zeros(16_000, np.float32), 16_000)])
    with pytest.raises(ValueError, match="there is no recording"):
        predictor.enroll([])
    with pytest.raises(ValueError, match=r"was not trained to enrol speakers; its recipe needs student\.enrol"):
        vervet.load(plain).enroll([])


# --- live


def test_a_stream_gets_to_know_its_speaker(enrolling):
    _, predictor, _ = enrolling
    speech = np.concatenate(waveforms(4))  # 16 s
    stream = Stream(predictor, 16_000, hop_s=2.0, smoothing_s=0.0, threshold=0.0, gate_db=None, adapt=True)
    answers = {heard.end_s: heard for heard in stream.feed(speech)}
    first, second, third = (speech[at : at + 64_000] for at in (0, 64_000, 128_000))
    after_one = predictor.enroll([(first, 16_000)])
    for end_s, knowing, start in (
        (4, predictor, 0), (6, predictor, 32_000), (8, after_one, 64_000), (10, after_one, 96_000),
        (12, after_one.enroll([(second, 16_000)]), 128_000),
    ):  # fmt: skip
        expected = knowing.probabilities([speech[start : start + 64_000]])[0]
        np.testing.assert_allclose(list(answers[end_s].scores.values()), expected, atol=1e-5)
    assert np.abs(after_one.probabilities([third]) - predictor.probabilities([third])).max() > 1e-3
    stream.finish()
    everything = after_one.enroll([(second, 16_000), (third, 16_000), (speech[192_000:], 16_000)])
    knows, expected = (one.probabilities([first]) for one in (stream.predictor, everything))
    np.testing.assert_allclose(knows, expected, atol=1e-5)
    stream.gap(60.0)
    (again,) = stream.feed(first)[-1:]
    assert np.abs(list(again.scores.values()) - predictor.probabilities([first])[0]).max() > 1e-3  # it does not forget


def test_a_stream_adapts_only_with_a_model_that_enrols(plain):
    with pytest.raises(ValueError, match="was not trained to enrol speakers"):
        Stream(vervet.load(plain), 16_000, adapt=True)


# --- when a network is tested


def test_each_clip_is_told_of_others_by_the_same_speaker_and_never_of_itself():
    numbers = torch.arange(1, 8, dtype=torch.float32)  # the brightness says which clip it is, as a bit
    store = (2**numbers / 256)[:, None, None, None].expand(7, 1, 4, 3)
    speakers = ["ann", "ben", "ann", "ann", "ben", "ann", "carl"]
    network = VisionTransformer(Vit(image=(4, 3), patch=(4, 1), depth=1), 2)
    known_of = statistics_of(network, Images(store, torch.arange(7)))
    for count in (1, 3, 10):
        told = met(known_of, speakers, count, seed=0)
        assert told.shape == (7, 3, 4)
        for clip, sums in enumerate(told):
            bits = round(float(sums[0, 0]) / 3 * 256)
            known = [other for other in range(7) if bits >> (other + 1) & 1]
            others = [other for other in range(7) if speakers[other] == speakers[clip] and other != clip]
            assert set(known) <= set(others)
            assert len(known) == min(count, len(others)) == int(sums[2, 0]) // 3
    few, more = (met(known_of, speakers, count, seed=1)[:, 0, 0] for count in (1, 3))
    assert (few <= more).all()


# --- from the command line


@pytest.fixture
def table(enrolling, tmp_path):
    """Four recordings of two speakers and one of nobody, in a table."""
    rows = ["file,speaker"]
    for number, clip in enumerate(waveforms(5)):
        soundfile.write(tmp_path / f"{number}.wav", clip, 16_000, subtype="FLOAT")
        rows.append(f"{number}.wav,{('ann', 'ann', 'ben', 'ben', '')[number]}")
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    return tmp_path / "clips.csv"


@pytest.fixture
def model(enrolling):
    return enrolling[2]


def test_each_speaker_is_known_from_all_own_recordings(enrolling, model, table, capsys):
    _, predictor, _ = enrolling
    assert main(["predict", str(table), "--model", str(model), "--speaker", "speaker", "--format", "json"]) == 0
    found = [list(record["scores"].values()) for record in json.loads(capsys.readouterr().out)]
    speech = [(clip, 16_000) for clip in waveforms(5)]
    ann, ben = predictor.enroll(speech[:2]), predictor.enroll(speech[2:4])
    for scores, knowing, clip in zip(found, (ann, ann, ben, ben, predictor), speech, strict=True):
        np.testing.assert_allclose(scores, list(knowing(clip)[0].scores.values()), atol=1e-5)


@pytest.mark.parametrize("nobody", ["nan", "NaN", "<NA>", " "])
def test_who_is_not_named_is_nobody(model, table, capsys, nobody):
    """Pandas writes `nan` where a cell is empty; two such clips are of two people."""
    words = ["predict", str(table), "--model", str(model), "--speaker", "speaker", "--format", "json"]
    found, text = [], table.read_text()
    for name in ("", nobody):
        table.write_text(text.replace("ben", name))
        assert main(words) == 0
        found.append([record["scores"] for record in json.loads(capsys.readouterr().out)])
    assert found[0] == found[1]


@pytest.mark.parametrize("statistics", [5, np.zeros((3, 1)), np.zeros((2, 3, 8)), "nan"])
def test_what_no_speaker_has_is_not_known(enrolling, statistics):
    _, predictor, _ = enrolling
    if isinstance(statistics, str):
        statistics = predictor.statistics((waveforms(1)[0], 16_000)) * np.nan
    with pytest.raises(ValueError, match="this model takes finite statistics of shape"):
        predictor.knowing(statistics)


def test_an_output_is_continued_with_the_same_speakers_only(model, table, tmp_path, capsys):
    words = ["predict", str(table), "--model", str(model), "--out", str(tmp_path / "out.csv")]
    assert main([*words, "--speaker", "speaker"]) == 0
    assert main([*words, "--speaker", "speaker"]) == 0
    assert main(words) == 1
    assert "begun with speaker speaker, not without speaker" in capsys.readouterr().err
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *reversed(rows)]) + "\n")
    assert main([*words, "--speaker", "speaker"]) == 0
    assert "known from other recordings" not in capsys.readouterr().err
    table.write_text("\n".join([header, *rows[:-2]]) + "\n")
    assert main([*words, "--speaker", "speaker"]) == 0
    assert "out.csv: was begun when speakers were known from other recordings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--speaker", "who"], "no recording names its speaker in a column 'who'"),
        (["--speaker", "speaker", "--picture", "x.png"], "leave out --speaker"),
        (["--speaker", "speaker", "--cluster"], "on this machine alone"),
    ],
)
def test_speakers_that_cannot_be_met(more, message, model, table, capsys):
    assert main(["predict", str(table), "--model", str(model), *more]) == 1
    assert message in capsys.readouterr().err


def test_recordings_that_name_a_speaker_and_cannot_be_read_are_named(model, tmp_path, capsys):
    (tmp_path / "clips.csv").write_text("file,speaker\nnone.wav,ann\n")
    words = ["predict", str(tmp_path / "clips.csv"), "--model", str(model), "--speaker", "speaker"]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "no recording that names its speaker can be read, the first: " in error
    assert "none.wav: no such file" in error
    assert main([*words, "--jobs", "0"]) == 1
    assert "0 jobs: give at least 1" in capsys.readouterr().err


def test_a_model_that_cannot_says_so(table, plain, capsys):
    assert main(["predict", str(table), "--model", str(plain), "--speaker", "speaker"]) == 1
    assert "was not trained to enrol speakers" in capsys.readouterr().err


def test_the_shipped_model_enrols(table, capsys):
    answers = []
    for more in ([], ["--speaker", "speaker"]):
        assert main(["predict", str(table), "--format", "json", *more]) == 0
        answers.append([list(record["scores"].values()) for record in json.loads(capsys.readouterr().out)])
    without, told = np.array(answers)
    assert (np.abs(told - without).max(axis=1) > 1e-3).tolist() == [True] * 4 + [False]


def test_no_output_is_begun_where_speakers_cannot_be_met(table, plain, tmp_path, capsys):
    words = ["predict", str(table), "--model", str(plain), "--speaker", "speaker"]
    assert main([*words, "--out", str(tmp_path / "new" / "out.csv")]) == 1
    assert "was not trained to enrol speakers" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
