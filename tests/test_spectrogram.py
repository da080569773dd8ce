import numpy as np
import pytest
import torch

from vervet.config import FrontEnd
from vervet.spectrogram import LogMel, hz_to_mel, mel_filters, mel_to_hz, resize_matrix

librosa = pytest.importorskip("librosa")
WIDE = FrontEnd(width=1001)


def speechlike(seed=0, samples=64_000):
    """Noise with a moving tone and silence at the end: every part of the scale is used."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / 16_000
    wave = 0.3 * np.sin(2 * np.pi * (200 + 150 * t) * t) + 0.02 * rng.standard_normal(samples)
    wave[samples * 3 // 4 :] = 0
    return wave.astype(np.float32)


def librosa_image(waveform, config):
    mel = librosa.feature.melspectrogram(
        y=waveform, sr=config.sampling_rate, n_fft=config.n_fft, win_length=config.win_length,
        hop_length=config.hop_length, window="hamming", n_mels=config.n_mels, center=True,
        fmin=config.band_hz[0], fmax=config.band_hz[1],
    )  # fmt: skip
    return librosa.power_to_db(mel, ref=np.max, top_db=config.top_db) / config.top_db + 1


@pytest.mark.parametrize(
    "config",
    [
        WIDE,
        FrontEnd(n_fft=512, win_length=400, hop_length=160, n_mels=40, duration_s=2.0, width=201),
        FrontEnd(n_fft=1024, win_length=1024, hop_length=256, n_mels=64, width=251, top_db=60.0),
        FrontEnd(sampling_rate=22_050, duration_s=1.0, n_fft=2048, win_length=2048, hop_length=512, width=44),
        FrontEnd(n_fft=600, win_length=600, hop_length=150, n_mels=30, duration_s=0.5, width=54),  # radix 2
        FrontEnd(n_fft=512, win_length=250, hop_length=125, n_mels=20, duration_s=0.5, width=65),  # radix 1
        FrontEnd(sampling_rate=8_000, win_length=256, hop_length=128, width=251, lowest_hz=300, highest_hz=3_400),
    ],
)
def test_log_mel_agrees_with_librosa(config):
    waveform = speechlike(samples=config.samples)
    image = LogMel(config)(torch.from_numpy(waveform)[None])[0, 0].numpy()
    assert image.shape == (config.n_mels, config.frames)
    np.testing.assert_allclose(image, librosa_image(waveform, config), atol=5e-5)  # 0.004 dB


def test_mel_filters_agree_with_librosa():
    expected = librosa.filters.mel(sr=16_000, n_fft=1024, n_mels=128)
    np.testing.assert_allclose(mel_filters(16_000, 1024, 128, (0.0, 8_000.0)).T.numpy(), expected, atol=1e-7)


def test_sound_beyond_the_bands_is_not_heard():
    """So a voice over a telephone looks as it does in the room."""
    narrow = FrontEnd(sampling_rate=8_000, win_length=256, hop_length=128, width=251, lowest_hz=300, highest_hz=3_400)
    voice, t = speechlike(samples=narrow.samples), np.arange(narrow.samples) / narrow.sampling_rate
    hum = (0.1 * np.sin(2 * np.pi * 100 * t) + 0.1 * np.sin(2 * np.pi * 3_900 * t)).astype(np.float32)
    hum[len(hum) * 3 // 4 :] = 0
    alone, with_hum = (LogMel(narrow)(torch.from_numpy(wave)[None]) for wave in (voice, voice + hum))
    heard = alone > 0.6  # the flanks of a Hamming window are 40 dB down
    assert (alone - with_hum).abs()[heard].mean() < 0.01
    wide = FrontEnd(sampling_rate=8_000, win_length=256, hop_length=128, width=251)
    alone, with_hum = (LogMel(wide)(torch.from_numpy(wave)[None]) for wave in (voice, voice + hum))
    assert (alone - with_hum).abs()[:, :, :6].mean() > 0.1  # the lowest bands


@pytest.mark.parametrize("band", [{"lowest_hz": -1}, {"highest_hz": 9_000}, {"lowest_hz": 400, "highest_hz": 400}])
def test_bands_that_are_not_there_are_refused(band):
    with pytest.raises(ValueError, match="cannot be heard"):
        FrontEnd(**band)


def test_power_agrees_with_librosa():
    waveform = speechlike()
    expected = np.abs(librosa.stft(waveform, n_fft=1024, win_length=512, hop_length=64, window="hamming")) ** 2
    front_end = LogMel(WIDE)
    power = front_end.power(torch.from_numpy(waveform)[None])[0].numpy()  # (q, p, frames)
    np.testing.assert_allclose(power, expected[front_end.bins.numpy()], atol=1e-5 * expected.max())
    assert set(front_end.bins.flatten().tolist()) == set(range(513))


def test_mel_scale_goes_there_and_back():
    hz = torch.tensor([0.0, 10.0, 999.0, 1000.0, 1001.0, 8000.0], dtype=torch.float64)
    torch.testing.assert_close(mel_to_hz(hz_to_mel(hz)), hz)
    np.testing.assert_allclose(hz_to_mel(hz).numpy(), librosa.hz_to_mel(hz.numpy()), atol=1e-9)


def test_a_1_khz_tone_peaks_in_its_band():
    t = torch.arange(64_000) / 16_000
    image = LogMel(FrontEnd())(0.5 * torch.sin(2 * torch.pi * 1000 * t)[None])[0, 0]
    centres = librosa.mel_frequencies(n_mels=130, fmax=8000)[1:-1]
    band = int(image[:, 64].argmax())
    assert abs(centres[band] - 1000) == min(abs(centres - 1000))


def test_padding_is_black_and_the_loudest_point_is_one():
    image = LogMel(FrontEnd())(torch.from_numpy(speechlike())[None])[0, 0]
    assert image.shape == (128, 128)
    assert float(image[:, 100:].max()) == 0.0
    assert float(image.min()) == 0.0
    assert 0.95 < float(image.max()) <= 1.0


@pytest.mark.parametrize("gain", [1e-4, 0.1, 3.0])
def test_gain_leaves_the_image_unchanged(gain):
    waveform, front_end = torch.from_numpy(speechlike())[None], LogMel(FrontEnd())
    torch.testing.assert_close(front_end(waveform * gain), front_end(waveform), atol=1e-4, rtol=0)


def test_digital_silence_is_black():
    assert float(LogMel(FrontEnd())(torch.zeros(1, 64_000)).abs().max()) == 0.0


def test_batch_rows_do_not_see_one_another():
    waveforms = torch.from_numpy(np.stack([speechlike(0), 0.01 * speechlike(1)]))
    front_end = LogMel(FrontEnd())
    torch.testing.assert_close(front_end(waveforms)[1:], front_end(waveforms[1:]))


def test_resize_matrix_interpolates_between_neighbours():
    ramp = torch.arange(1001.0)
    resized = ramp @ resize_matrix(1001, 128, "bilinear")
    expected = (torch.arange(128) + 0.5) * 1001 / 128 - 0.5
    torch.testing.assert_close(resized, expected, atol=1e-3, rtol=0)
    for mode in ("nearest", "area", "bilinear"):
        torch.testing.assert_close(resize_matrix(1001, 128, mode).sum(0), torch.ones(128))


@pytest.mark.parametrize("halvings", [1, 3, 7])
def test_full_scale_keeps_the_level_and_the_floor_follows_the_clip(halvings):
    front_end = FrontEnd(reference="full scale", width=1001)
    time = torch.arange(front_end.samples) / front_end.sampling_rate
    sine = torch.sin(2 * torch.pi * 1000 * time)[None]
    sine[:, 40_000:] = 0
    loud, quiet = LogMel(front_end)(sine), LogMel(front_end)(sine / 2**halvings)
    assert 0.95 < float(loud.max()) <= 1
    sounding = loud > 0
    assert torch.equal(quiet > 0, sounding)  # nothing sinks below the floor, and padding stays black
    assert float(loud[sounding].min()) == pytest.approx(float(loud.max()) - 80 / 140, abs=0.01)
    whole = sounding & (loud < 1)
    expected = torch.full_like(loud[whole], -halvings * 20 * np.log10(2) / 140)
    torch.testing.assert_close((quiet - loud)[whole], expected, rtol=0, atol=1e-5)
    like_clip = LogMel(FrontEnd(width=1001))(sine)
    assert torch.equal(like_clip.amax(dim=2) > 0, loud.amax(dim=2) > 0)
