"""The gate, and what of a recording is left out; `test_stream.py` hears it at work on live audio."""

import numpy as np
import pytest
from onnx_double import RATE, sine

from vervet import audio
from vervet.speech import Gate, Pauses, levels


def noise(duration_s: float, dbfs: float) -> np.ndarray:
    samples = np.random.default_rng(0).standard_normal(round(duration_s * RATE))
    return (10 ** (dbfs / 20) * samples).astype(np.float32)


def windows(waveform: np.ndarray) -> list[audio.Window]:
    return list(audio.windows((waveform, RATE), RATE, 4.0, 4.0))


def test_levels_of_known_sounds():
    np.testing.assert_allclose(levels(sine(4, 1) / np.float32(0.3), RATE), -3.01, atol=0.3)
    np.testing.assert_allclose(levels(np.zeros(RATE, np.float32), RATE), -120)
    hum = np.sin(2 * np.pi * 50 * np.arange(RATE) / RATE).astype(np.float32)
    assert levels(hum, RATE).max() < -30
    assert levels(np.full(RATE, 0.5, np.float32), RATE).max() < -60
    assert len(levels(sine(4, 0.05), RATE)) == 2


def test_the_floor_follows_noise_that_grows_and_falls_at_once():
    gate, faint, loud = Gate(RATE), noise(4, -70), noise(4, -50)
    heard = []
    for _ in range(5):
        gate.lets_through(loud, 4.0)
    known_db = gate.floor_db
    gate.lets_through(faint, 4.0)
    assert gate.floor_db == pytest.approx(known_db - 20, abs=0.5)
    for _ in range(5):
        gate.lets_through(loud, 1.0)
        heard.append(gate.floor_db)
    np.testing.assert_allclose(np.diff(heard)[:3], 5, atol=0.5)  # dB a second
    assert heard[-1] == pytest.approx(known_db, abs=0.5)


@pytest.mark.parametrize("gate_db", [-1.0, float("nan"), float("inf")])
def test_a_gate_is_so_many_decibels(gate_db):
    with pytest.raises(ValueError, match="gate of"):
        Gate(RATE, gate_db)


def test_silent_stretches_are_named_neighbours_joined():
    pauses = Pauses(RATE)
    silence = np.zeros(8 * RATE, np.float32)
    skipped = [pauses.skip(window) for window in windows(np.concatenate([silence, noise(4, -60), silence[:RATE]]))]
    assert skipped == [True, True, False, True]
    assert "silent (below -80 dBFS) in 0.00 to 8.00 s, 12.00 to 13.00 s; no answer there" in pauses.problem("a", True)
    pauses.skip(windows(noise(4, -60))[0])
    assert Pauses(RATE).problem("a", True) == ""


def test_of_many_silent_stretches_a_few_are_named():
    pauses = Pauses(RATE)
    for window in windows(np.concatenate([noise(4, -60), np.zeros(4 * RATE, np.float32)] * 12)):
        pauses.skip(window)
    told = pauses.problem("a", True)
    assert "36.00 to 40.00 s and 7 more, 48 s in all; no answer there" in told
    assert told.count(" to ") == 5


def test_pauses_between_speech_are_no_problem_but_nobody_is():
    pauses = Pauses(RATE, speech_only=True)
    hush = noise(4, -50)
    found = windows(np.concatenate([hush, sine(1, 4.0), hush, 0 * hush, sine(1, 1.0)]))
    assert [pauses.skip(window) for window in found] == [True, False, True, True, False]
    assert pauses.problem("a", True) == ""
    assert "a: nobody speaks in it (nothing rises 9 dB above the noise); no answer" in pauses.problem("a", False)


@pytest.mark.parametrize(("hop_s", "rise_db"), [(1.0, 5), (4.0, 20)])
def test_the_noise_floor_rises_by_the_time_between_windows(hop_s, rise_db):
    pauses, waveform = Pauses(RATE, speech_only=True), np.concatenate([noise(4, -70), noise(4, -40)])
    first, *_, last = audio.windows((waveform, RATE), RATE, 4.0, hop_s)
    floors = []
    for window in audio.windows((waveform, RATE), RATE, 4.0, hop_s):
        pauses.skip(window)
        floors.append(pauses._gate.floor_db)
    assert (first.start_s, last.start_s) == (0, 4)
    assert floors[-1] - floors[0] == pytest.approx(rise_db, abs=1)
