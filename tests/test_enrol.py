"""What is known of a speaker goes from recordings into the answers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_export import CARD, waveforms

import vervet
from vervet.config import NETWORKS, FrontEnd
from vervet.export import export
from vervet.models.checkpoint import save_network
from vervet.models.patches import heard, statistics
from vervet.models.vit import VisionTransformer
from vervet.spectrogram import LogMel


@pytest.fixture(scope="module")
def enrolling(tmp_path_factory):
    """A network with random weights, as if trained to enrol, and its predictor."""
    folder = tmp_path_factory.mktemp("enrol")
    torch.manual_seed(0)
    shape = replace(NETWORKS["student"], depth=1, normalise="deviation", mask_padding=True, time_convs=1)
    network = VisionTransformer(shape, 3).eval()
    save_network(folder, network, CARD | {"settings": {"enrol": 4}})
    return network, vervet.load(export(folder, folder / "model.onnx"))


def told(network, clips, others):
    """Probabilities of clips, given other clips of their speaker."""
    log_mel = LogMel(FrontEnd())
    with torch.inference_mode():
        known = log_mel(torch.from_numpy(others))
        speaker = statistics(known, heard(known)).sum(0, keepdim=True).expand(len(clips), -1, -1)
        return network(log_mel(torch.from_numpy(clips)), speaker)[0].softmax(1).numpy()


def test_an_enrolled_speaker_is_normalised_by_all_recordings(enrolling):
    network, predictor = enrolling
    speech = waveforms(5)
    known = predictor.enroll((clip, 16_000) for clip in speech[2:])
    np.testing.assert_allclose(known.probabilities(speech[:2]), told(network, speech[:2], speech[2:]), atol=1e-4)
    np.testing.assert_allclose(predictor.probabilities(speech[:2]), told(network, speech[:2], speech[:0]), atol=1e-4)
    assert np.abs(known.probabilities(speech[:2]) - predictor.probabilities(speech[:2])).max() > 1e-3


def test_speakers_get_known_bit_by_bit(enrolling):
    _, predictor = enrolling
    speech = waveforms(4)
    at_once = predictor.enroll((clip, 16_000) for clip in speech[1:])
    one_by_one = predictor
    for clip in speech[1:]:
        one_by_one = one_by_one.enroll([(clip, 16_000)])
    np.testing.assert_allclose(one_by_one.probabilities(speech), at_once.probabilities(speech), atol=1e-6)
    (prediction,) = at_once((speech[0], 16_000))
    np.testing.assert_allclose(list(prediction.scores.values()), at_once.probabilities(speech[:1])[0], atol=1e-6)


def test_a_short_recording_says_as_much_as_when_it_is_padded(enrolling):
    _, predictor = enrolling
    speech = waveforms(2)
    short = speech[1, :20_000]
    padded = np.pad(short, (0, 44_000))
    ways = [predictor.enroll([(clip, 16_000)]).probabilities(speech[:1]) for clip in (short, padded)]
    np.testing.assert_allclose(*ways, atol=1e-5)


def test_who_cannot_be_enrolled(enrolling):
    _, predictor = enrolling
    with pytest.raises(ValueError, match="there is no recording, or all are silent"):
        predictor.enroll([(np.zeros(16_000, np.float32), 16_000)])
    with pytest.raises(ValueError, match="there is no recording"):
        predictor.enroll([])
    with pytest.raises(ValueError, match=r"was not trained to enrol speakers; its recipe needs student\.enrol"):
        vervet.load().enroll([])
