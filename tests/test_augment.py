import librosa
import numpy as np
import pytest

from vervet.augment import add_noise, shift, stretch, version
from vervet.config import Augment, FrontEnd

RATE = 16_000


def tone(hz, seconds):
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(RATE * seconds)) / RATE)).astype(np.float32)


def peak_hz(waveform):
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return spectrum.argmax() * RATE / len(waveform)


@pytest.mark.parametrize("speed", [0.8, 0.9, 1.1, 1.2])
def test_stretch_changes_length_and_keeps_pitch(speed):
    result = stretch(tone(440, 2), speed)
    assert len(result) == round(2 * RATE / speed)
    assert result.dtype == np.float32
    assert abs(peak_hz(result) - 440) < 1
    assert abs(np.abs(result[RATE // 2 : RATE]).max() - 0.5) < 0.05


def test_stretch_agrees_with_librosa():
    rng = np.random.default_rng(0)
    waveform = (tone(300, 1) + tone(1200, 1) + 0.01 * rng.standard_normal(RATE)).astype(np.float32)
    expected = librosa.effects.time_stretch(waveform, rate=1.2)
    result = stretch(waveform, 1.2)
    assert len(result) == len(expected)
    assert np.corrcoef(result, expected)[0, 1] > 0.99


def test_stretch_by_one_gives_the_waveform_back():
    waveform = tone(300, 1)
    np.testing.assert_allclose(stretch(waveform, 1.0)[2000:-2000], waveform[2000:-2000], atol=1e-3)


def test_stretch_refuses_no_speed():
    with pytest.raises(ValueError, match="speed must be positive, not 0"):
        stretch(tone(300, 1), 0)


def test_noise_has_its_strength():
    noisy = add_noise(np.zeros(100_000, np.float32), 0.005, np.random.default_rng(0))
    assert abs(noisy.std() - 0.005) < 1e-4
    assert abs(noisy.mean()) < 1e-4


def test_shift_moves_by_whole_samples():
    waveform = tone(300, 1)
    shifted = shift(waveform, 1.25, RATE)
    assert not shifted[:20_000].any()
    np.testing.assert_array_equal(shifted[20_000:], waveform)


@pytest.mark.parametrize("name", ["original", "speed", "noise", "shift"])
@pytest.mark.parametrize("seconds", [1.0, 6.0])
def test_every_version_is_as_long_as_an_image(name, seconds):
    result = version(tone(300, seconds), name, Augment(), FrontEnd(), np.random.default_rng(0))
    assert result.shape == (64_000,)
    assert result.dtype == np.float32
    assert np.isfinite(result).all()


def test_noise_fills_the_padded_zone_and_the_rest_stays_black():
    made = {
        name: version(tone(300, 1), name, Augment(), FrontEnd(), np.random.default_rng(0))
        for name in ("original", "speed", "noise", "shift")
    }
    assert 0.004 < made["noise"][RATE * 2 :].std() < 0.006
    assert not made["original"][RATE:].any()
    assert not made["shift"][: int(1.25 * RATE)].any()


def test_noise_may_be_as_loud_as_the_clip():
    made = {}
    for relative in (False, True):
        augment = Augment(noise_relative=relative)
        made[relative] = [
            version(gain * tone(300, 1), "noise", augment, FrontEnd(), np.random.default_rng(0)) for gain in (1.0, 0.1)
        ]
    assert made[False][0][RATE * 2 :].std() == pytest.approx(made[False][1][RATE * 2 :].std())
    np.testing.assert_allclose(made[True][1], 0.1 * made[True][0], atol=1e-6)
    peak = float(np.abs(tone(300, 1)).max())
    assert made[True][0][RATE * 2 :].std() == pytest.approx(0.005 * peak, rel=0.02)


def test_unknown_version():
    with pytest.raises(ValueError, match="unknown version 'echo'; known are original, speed, noise, shift"):
        version(tone(300, 1), "echo", Augment(), FrontEnd(), np.random.default_rng(0))
