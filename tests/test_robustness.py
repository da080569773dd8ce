import numpy as np
import pytest
import soundfile

from vervet.evaluation.robustness import (
    RATE,
    Clip,
    add_noise_at,
    amplify,
    conditions,
    recode,
    robustness,
    summary,
    telephone,
)

LABELS = ("anger", "sadness")


def tone(hz, seconds=1.0, level=0.3):
    return (level * np.sin(2 * np.pi * hz * np.arange(int(RATE * seconds)) / RATE)).astype(np.float32)


def level_at(waveform, hz):
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)))) / len(waveform) * 4
    return spectrum[round(hz * len(waveform) / RATE)]


@pytest.mark.parametrize("snr_db", [30, 10, 0])
def test_noise_is_as_loud_as_asked(snr_db):
    clean = tone(300, 4)
    noise = add_noise_at(clean, snr_db, np.random.default_rng(0)) - clean
    measured = 10 * np.log10(np.mean(clean**2) / np.mean(noise**2))
    assert measured == pytest.approx(snr_db, abs=0.1)


@pytest.mark.parametrize(("codec", "snr_db"), [("ULAW", 35), ("GSM610", 15)])
def test_codecs_of_telephones_add_what_they_lose(codec, snr_db):
    plain = telephone(tone(1000))
    coded = telephone(tone(1000), codec)
    assert len(coded) == len(plain)
    lost = np.mean(np.square(plain)) / np.mean(np.square(coded - plain))
    assert snr_db < 10 * np.log10(lost) < snr_db + 15


def test_a_telephone_passes_its_band_alone():
    passed = telephone(tone(1000) + tone(100) + tone(3800) + tone(6000))
    assert len(passed) == RATE
    assert level_at(passed, 1000) == pytest.approx(0.3, rel=0.02)
    assert max(level_at(passed, hz) for hz in (100, 3800, 6000)) < 0.003


def test_gain_is_in_decibels_and_clips():
    np.testing.assert_allclose(amplify(tone(300), -20), tone(300) / 10, atol=1e-6)
    assert amplify(tone(300, level=0.9), 6).max() == 1.0


@pytest.mark.parametrize(("format", "subtype"), [("MP3", "MPEG_LAYER_III"), ("OGG", "OPUS")])
def test_codecs_lose_something_and_not_everything(format, subtype):
    clean = tone(440, 2)
    coded = recode(clean, format, subtype, 0.95)
    assert len(coded) == len(clean)
    assert not np.array_equal(coded, clean)
    assert level_at(coded, 440) == pytest.approx(0.3, rel=0.2)


def test_every_condition_gives_a_waveform():
    rng, names = np.random.default_rng(0), set()
    for condition in conditions():
        degraded = condition.degrade(tone(440, 1.5), rng)
        assert degraded.ndim == 1
        assert degraded.dtype == np.float32
        assert np.isfinite(degraded).all()
        assert len(degraded) >= RATE
        names.add((condition.kind, condition.level))
    assert len(names) == len(conditions())


def listen(waveforms):
    """A model that hears anger below 1 kHz, by zero crossings: noise misleads it, gain does not."""
    crossings = np.array([np.mean(np.diff(np.signbit(w)) != 0) * RATE / 2 for w in waveforms])
    angry = (crossings < 1000).astype(float)
    return np.stack([angry, 1 - angry], axis=1)


def test_rows_show_where_a_model_breaks(tmp_path):
    clips = []
    for name, hz, emotion, sex in (("a", 300, "anger", "male"), ("b", 2000, "sadness", "female")):
        soundfile.write(tmp_path / f"{name}.wav", tone(hz), RATE)
        clips.append(Clip(tmp_path / f"{name}.wav", emotion, sex))
    rows = {(row["kind"], row["level"]): row for row in robustness([(listen, clips)], LABELS)}
    folds = [(listen, clips[:1]), (listen, clips[1:])]
    assert robustness(folds, LABELS) == list(rows.values())
    assert rows["original", "-"]["wa"] == 1.0
    assert rows["gain", "-20 dB"]["wa"] == 1.0
    assert rows["noise", "0 dB SNR"]["wa"] == 0.5
    assert (rows["sex", "male"]["wa"], rows["sex", "female"]["n"]) == (1.0, 1)
    text = summary(list(rows.values()))
    assert "noise 0 dB SNR" in text
    assert "-50.0" in text


def test_each_corpus_is_scored_apart_where_there_are_several(tmp_path):
    clips = []
    for corpus, hz, emotion in (("emodb", 300, "anger"), ("cremad", 2000, "anger")):
        soundfile.write(tmp_path / f"{corpus}.wav", tone(hz), RATE)
        clips.append(Clip(tmp_path / f"{corpus}.wav", emotion, corpus=corpus))
    found = {row["level"]: row["wa"] for row in robustness([(listen, clips)], LABELS) if row["kind"] == "corpus"}
    assert found == {"cremad": 0.0, "emodb": 1.0}
    assert not [row for row in robustness([(listen, clips[:1])], LABELS) if row["kind"] == "corpus"]


def test_nothing_to_test():
    with pytest.raises(ValueError, match="at least one test recording"):
        robustness([(listen, [])], LABELS)
