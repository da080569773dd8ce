import doctest
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tracemalloc
import types
from pathlib import Path

import numpy as np
import onnx_double
import pytest
import soundfile
from onnx_double import LABELS, METADATA, RATE, sine, sure

import vervet
from vervet import audio, cli, stream
from vervet.predict import Predictor
from vervet.stream import Heard, Stream

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


class Session:
    """A network that costs nothing: it finds an emotion the likelier, the louder the window is."""

    def __init__(self):
        self.windows = 0

    def get_inputs(self):
        return [types.SimpleNamespace(name="waveform")]

    def get_outputs(self):
        return [types.SimpleNamespace(name="logits")]

    def run(self, outputs, inputs):
        self.windows += len(inputs["waveform"])
        loudness = np.abs(inputs["waveform"]).mean(axis=1, keepdims=True)
        return [loudness * 100 * np.arange(len(LABELS), dtype=np.float32)]


@pytest.fixture
def session():
    return Session()


@pytest.fixture
def cheap(session):
    return Predictor(session, METADATA, "0" * 64)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return onnx_double.write(tmp_path_factory.mktemp("model") / "double.onnx")


@pytest.fixture(scope="module")
def double(model):
    return vervet.load(model, threads=1)


@pytest.fixture(scope="module")
def shipped():
    return vervet.load(threads=1)


def clips(*names: str, rate: int = RATE) -> np.ndarray:
    return np.concatenate([audio.resample(audio.read(EXAMPLES / f"{name}.flac")[0], RATE, rate) for name in names])


def noise(duration_s: float, dbfs: float, rate: int = RATE) -> np.ndarray:
    samples = np.random.default_rng(0).standard_normal(round(duration_s * rate))
    return (10 ** (dbfs / 20) * samples).astype(np.float32)


def plain(predictor, rate=RATE, **settings) -> Stream:
    """A stream that hides nothing of what the model says."""
    return Stream(predictor, rate, **{"smoothing_s": 0, "threshold": 0, "gate_db": None} | settings)


def heard(listener: Stream, waveform, size: int) -> list[Heard]:
    pieces = (waveform[start : start + size] for start in range(0, len(waveform), size))
    return list(listener.listen((piece, None) for piece in pieces))


def spans(answers) -> list[tuple[float, float]]:
    return [(answer.start_s, answer.end_s) for answer in answers]


def scores(answers) -> np.ndarray:
    return np.array([list(answer.scores.values()) for answer in answers])


def same_as_offline(answers, predictor, waveform, rate, *, window_s=4.0, hop_s=1.0):
    """Growing windows have the scores of their slices; all others are those of the offline predictor."""
    offline = predictor((waveform, rate), window_s=window_s, hop_s=hop_s)
    growing = answers[: len(answers) - len(offline)]
    assert spans(answers[len(growing) :]) == spans(offline)
    np.testing.assert_allclose(scores(answers[len(growing) :]), scores(offline), atol=1e-4)
    resampled = audio.resample(np.clip(waveform, -1, 1), rate, predictor.sampling_rate)
    for answer in growing:
        assert answer.start_s == 0
        expected = predictor.probabilities([resampled[: round(answer.end_s * predictor.sampling_rate)]])
        np.testing.assert_allclose(scores([answer]), expected, atol=1e-4)


# --- windows


@pytest.mark.parametrize("size", [1009, 16_000, 10**9])
def test_real_clips_get_the_scores_of_offline_prediction(shipped, size):
    waveform = clips("15a02Wb", "16a04Ea", "16a04Tc")
    answers = heard(plain(shipped), waveform, size)
    assert spans(answers)[:5] == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 5)]
    same_as_offline(answers, shipped, waveform, RATE)


def test_one_short_clip_gets_the_answer_of_offline_prediction(shipped):
    waveform = clips("15a02Na")
    *_, last = heard(plain(shipped), waveform, 997)
    (offline,) = shipped((waveform, RATE))
    assert (last.start_s, last.end_s, last.label) == (offline.start_s, offline.end_s, offline.label)
    np.testing.assert_allclose(scores([last]), scores([offline]), atol=1e-4)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("size", [7919, 10**9])
def test_every_rate_gets_the_scores_of_offline_prediction(double, rate, size):
    waveform = clips("15a02Ac", "16a04Fa", "15a02Ta", rate=rate)
    same_as_offline(heard(plain(double, rate), waveform, size), double, waveform, rate)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_one_sample_at_a_time(double, rate):
    waveform = clips("16a04Ab", rate=rate)[: round(1.3 * rate)]
    same_as_offline(heard(plain(double, rate), waveform, 1), double, waveform, rate, hop_s=1.0)


@pytest.mark.parametrize(("window_s", "hop_s"), [(4, 0.25), (4, 1.5), (4, 0.7), (1, 0.5), (0.5, 0.5), (2, 3), (4, 4)])
def test_every_window_and_hop(double, window_s, hop_s):
    waveform = clips("15a02Ac", "16a04Fa", "15a02Ta")
    answers = heard(plain(double, window_s=window_s, hop_s=hop_s), waveform, 3331)
    same_as_offline(answers, double, waveform, RATE, window_s=window_s, hop_s=hop_s)
    assert 1 <= answers[0].end_s < 1 + hop_s or answers[0].end_s == window_s


@pytest.mark.parametrize(
    ("duration_s", "expected"),
    [
        (0, []),
        (0.09, []),
        (0.1, [(0, 0.1)]),
        (0.5, [(0, 0.5)]),
        (1, [(0, 1)]),
        (2.05, [(0, 1), (0, 2)]),
        (2.5, [(0, 1), (0, 2), (0, 2.5)]),
        (5.5, [(0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (2, 5.5)]),
    ],
)
def test_the_rest_is_answered_at_the_end(cheap, duration_s, expected):
    assert spans(heard(plain(cheap), noise(duration_s, -20), 1000)) == expected


def test_an_answer_comes_as_soon_as_its_window_has_been_heard(cheap):
    listener = plain(cheap)
    waveform = noise(1, -20)
    assert listener.feed(waveform[:-1]) == []
    (answer,) = listener.feed(waveform[-1:])
    assert (answer.start_s, answer.end_s) == (0, 1)
    assert listener.now_s == 1


def test_a_finished_stream_can_be_fed_again(cheap):
    listener = plain(cheap)
    listener.feed(noise(1.5, -20))
    assert spans(listener.finish()) == [(0, 1.5)]
    assert listener.finish() == []
    assert spans(listener.feed(noise(1, -20))) == [(1.5, 2.5)]


@pytest.mark.slow
@pytest.mark.parametrize("rate", [16_000, 11_025])
def test_an_hour_in_constant_memory_and_without_drift(cheap, session, rate):
    # bursts of noise, so that the gate lets everything through
    second = np.concatenate([noise(0.5, -20, rate), np.zeros(rate - rate // 2, np.float32)])
    tape = np.tile(second, 2)
    listener = Stream(cheap, rate)
    size, total = 7919, 3600 * rate
    ends: list[float] = []
    tracemalloc.start()
    try:
        for start in range(0, total, size):
            if start // size == 20 * rate // size:
                settled, _ = tracemalloc.get_traced_memory()
                tracemalloc.reset_peak()
            chunk = tape[start % rate :][: min(size, total - start)]
            ends += [answer.end_s for answer in listener.feed(chunk)]
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    ends += [answer.end_s for answer in listener.finish()]
    assert ends == list(range(1, 3601))
    assert session.windows == 3600
    assert listener.now_s == 3600
    grown = now - settled - sys.getsizeof(ends) - sum(map(sys.getsizeof, ends))
    window = 4 * RATE * 4  # bytes; the hour itself has 900 of them
    assert grown < window, f"{grown} bytes more after an hour than after 20 s"
    assert peak - settled < 10 * window, f"{peak - settled} bytes at once, a window has {window}"


def test_the_ring_holds_one_window(cheap):
    cutter = audio.Cutter(RATE, RATE, 1000, 300)
    held = sum(value.nbytes for value in vars(cutter).values() if isinstance(value, np.ndarray))
    assert held == 4000
    windows = [*cutter.feed(np.arange(10_000, dtype=np.float32)), *cutter.finish()]
    assert held == sum(value.nbytes for value in vars(cutter).values() if isinstance(value, np.ndarray))
    for start, waveform in windows:
        np.testing.assert_array_equal(waveform, np.arange(start, start + 1000))
    assert [start for start, _ in windows] == list(range(0, 9001, 300))


# --- chunks


def test_arrays_and_bytes_of_every_kind_agree(double):
    waveform = np.round(clips("16a04Fa") * 32768) / np.float32(32768)
    expected = scores(heard(plain(double), waveform, 5003))
    sixteen = (waveform * 32768).astype("<i2")
    for chunks in (waveform.astype(np.float64), waveform[:, None], sixteen, sixteen.astype(np.int32) * 65536):
        np.testing.assert_allclose(scores(heard(plain(double), chunks, 5003)), expected, atol=1e-6)
    for pcm, data in (
        ("s16le", sixteen.tobytes()),
        ("s32le", (sixteen.astype("<i4") * 65536).tobytes()),
        ("f32le", waveform.astype("<f4").tobytes()),
    ):
        for size in (1, 4999) if pcm == "s16le" else (4999,):
            for kind in (bytes, bytearray, memoryview) if size > 1 else (bytes,):
                answers = heard(plain(double, pcm=pcm), kind(data), size)
                np.testing.assert_allclose(scores(answers), expected, atol=1e-6)


@pytest.mark.parametrize(("pcm", "subtype"), [("mulaw", "ULAW"), ("alaw", "ALAW")])
def test_what_telephones_send_is_heard(double, pcm, subtype):
    form = {"channels": 1, "samplerate": 16_000, "subtype": subtype, "format": "RAW"}
    file = io.BytesIO()
    soundfile.write(file, clips("16a04Fa"), 16_000, subtype=subtype, format="RAW")
    waveform, _ = soundfile.read(io.BytesIO(file.getvalue()), dtype="float32", **form)
    every, _ = soundfile.read(io.BytesIO(bytes(range(256))), dtype="int16", **form)
    assert np.array_equal(plain(double, pcm=pcm)._law, every)
    expected = scores(heard(plain(double), waveform, 5003))
    np.testing.assert_allclose(scores(heard(plain(double, pcm=pcm), file.getvalue(), 999)), expected, atol=1e-6)


def test_channels_are_mixed_to_their_mean(double):
    left, right = sine(0, 1.5), sine(2, 1.5)
    both = np.stack([left, right], axis=1)
    expected = scores(heard(plain(double), (left + right) / 2, 1000))
    np.testing.assert_allclose(scores(heard(plain(double, channels=2), both, 1000)), expected, atol=1e-6)
    data = both.astype("<f4").tobytes()
    np.testing.assert_allclose(scores(heard(plain(double, channels=2, pcm="f32le"), data, 1001)), expected, atol=1e-6)


def test_empty_chunks_are_fine(cheap):
    listener = plain(cheap, 44_100)
    for chunk in (np.empty(0, np.float32), np.empty(0, np.int16), np.empty((0, 1)), b""):
        assert listener.feed(chunk) == []
    assert listener.finish() == []


BAD = {
    "nan": (np.array([0, np.nan]), r"holds NaN or infinite samples, the first at 0\.500 s; correct them"),
    "infinite": (np.array([0, -np.inf], np.float32), "holds NaN or infinite"),
    "scale": (np.array([20_000.0]), "samples reach 20000, full scale is 1; scale them"),
    "dtype": (np.zeros(4, np.uint8), r"dtype uint8; give floating point in \[-1, 1\], int16 or int32"),
    "channels": (np.zeros((4, 2)), r"shape \(4, 2\), but the stream has channels=1: give \(samples,\)"),
    "dimensions": (np.zeros((4, 1, 1)), r"shape \(4, 1, 1\)"),
    "scalar": (np.array(0.5), r"shape \(\)"),
    "list": ([0.1, 0.2], "type list: give a NumPy array, or bytes of PCM"),
    "number": (5, "type int"),
    "half": (np.zeros(4), r"after half a sample of PCM: give the rest of the bytes first, or call gap\(0\)"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_chunk_is_named_and_leaves_the_stream_as_it_was(double, fault):
    chunk, message = BAD[fault]
    listener = plain(double)
    waveform = sine(1, 1.5)
    listener.feed(waveform[: RATE // 2])
    if fault == "half":
        listener.feed(b"\0")
    with pytest.raises(ValueError, match=message):
        listener.feed(chunk)
    assert listener.gap(0) == []
    answers = listener.feed(waveform[RATE // 2 :]) + listener.finish()
    np.testing.assert_array_equal(scores(answers), scores(heard(plain(double), waveform, 10**6)))


def test_a_mono_chunk_for_a_stream_of_two_channels_is_refused(cheap):
    with pytest.raises(ValueError, match=r"shape \(4,\), but the stream has channels=2: give \(samples, 2\)"):
        plain(cheap, channels=2).feed(np.zeros(4))


def test_pcm_that_ends_in_the_middle_of_a_sample_is_named(cheap):
    listener = plain(cheap, channels=2)
    listener.feed(b"\0" * 4803)
    with pytest.raises(ValueError, match="ends 3 bytes into a sample of 4: it was cut, or its PCM format or number"):
        listener.finish()
    assert listener.now_s == 0.075
    assert listener.finish() == []  # too little for an answer, but no longer wrong


def test_what_was_heard_before_half_a_sample_is_answered(cheap):
    listener = plain(cheap)
    answers = listener.listen([(np.full(RATE, 1000, "<i2").tobytes() + b"1", None)])
    assert next(answers).end_s == 1.0
    with pytest.raises(ValueError, match="ends 1 bytes into a sample of 2"):
        next(answers)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampling_rate": 0}, "sampling rate 0"),
        ({"sampling_rate": 16000.5}, r"sampling rate 16000\.5"),
        ({"channels": 0}, "0 channels: give 1 to 64"),
        ({"pcm": "mp3"}, "PCM format 'mp3': choose one of s16le, s32le, f32le, mulaw, alaw"),
        ({"window_s": 5.0}, "window of 5 s: this model hears 4 s"),
        ({"hop_s": 0.0}, "hop of 0 s"),
        ({"smoothing_s": -1.0}, "smoothing of -1 s"),
        ({"threshold": 1.5}, r"threshold of 1\.5"),
        ({"threshold": np.nan}, "threshold of nan"),
        ({"gate_db": -1.0}, "gate of -1 dB"),
    ],
)
def test_settings_out_of_range_are_refused(cheap, settings, message):
    with pytest.raises(ValueError, match=message):
        Stream(cheap, **{"sampling_rate": RATE} | settings)


# --- gaps and late chunks


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_gap_of_up_to_a_hop_is_filled_with_zeros(double, rate):
    before, after = sine(0, 1.25, rate), sine(3, 2, rate)
    listener = plain(double, rate)
    answers = listener.feed(before) + listener.gap(0.5) + listener.feed(after) + listener.finish()
    filled = np.concatenate([before, np.zeros(rate // 2, np.float32), after])
    assert spans(answers) == [(0, 1), (0, 2), (0, 3), (0, 3.75)]
    np.testing.assert_allclose(scores(answers), scores(heard(plain(double, rate), filled, 10**6)), atol=1e-6)


def test_after_a_longer_gap_all_begins_anew(double):
    listener = plain(double, smoothing_s=1.0)
    answers = listener.feed(sine(0, 2.5)) + listener.gap(10.25) + listener.feed(sine(3, 2))
    assert spans(answers) == [(0, 1), (0, 2), (0, 2.5), (12.75, 13.75), (12.75, 14.75)]
    assert [answer.label for answer in answers] == [LABELS[0]] * 3 + [LABELS[3]] * 2
    assert answers[-1].confidence == pytest.approx(scores(heard(plain(double), sine(3, 2), 10**6))[-1, 3])


def test_a_timestamp_says_how_long_the_gap_is(double):
    listener = plain(double)
    answers = listener.feed(sine(0, 1), at_s=0) + listener.feed(sine(3, 1), at_s=1.5)
    assert spans(answers) == [(0, 1), (0, 2)]
    assert listener.now_s == 2.5
    assert spans(listener.feed(sine(3, 1), at_s=1_700_000_000.25)) == [
        (0, 2.5),
        (1_700_000_000.25, 1_700_000_001.25),
    ]


def test_jitter_is_no_gap_and_does_not_add_up(double):
    waveform = clips("15a02Ac", "16a04Fa")
    rng = np.random.default_rng(0)
    listener, answers = plain(double), []
    for start in range(0, len(waveform), 1600):
        at_s = start / RATE + rng.uniform(-0.04, 0.04)
        answers += listener.feed(waveform[start : start + 1600], at_s)
    answers += listener.finish()
    np.testing.assert_array_equal(scores(answers), scores(heard(plain(double), waveform, 1600)))


def test_of_an_early_chunk_what_was_heard_is_left_out(double):
    waveform = clips("16a04Fa")
    listener, answers = plain(double), []
    for start in range(0, len(waveform), 3200):
        answers += listener.feed(waveform[start : start + 6400], at_s=start / RATE)  # every second sample comes twice
    answers += listener.finish()
    np.testing.assert_array_equal(scores(answers), scores(heard(plain(double), waveform, 3200)))


@pytest.mark.parametrize("at_s", [0.5, -3.0, np.nan, np.inf])
def test_a_chunk_out_of_order_is_refused(cheap, at_s):
    listener = plain(cheap)
    listener.feed(noise(2, -20))
    with pytest.raises(ValueError, match="but 2 s have been heard: give chunks in order of time"):
        listener.feed(noise(1, -20), at_s)
    assert listener.now_s == 2


@pytest.mark.parametrize("duration_s", [-0.1, np.nan, np.inf])
def test_a_gap_must_have_a_length(cheap, duration_s):
    with pytest.raises(ValueError, match="give a duration in seconds"):
        plain(cheap).gap(duration_s)


def test_after_a_gap_pcm_begins_with_a_whole_sample(double):
    data = (sine(2, 2) * 32767).astype("<i2").tobytes()
    listener = plain(double)
    listener.feed(data[:16_001])
    answers = listener.feed(data[32_000:], at_s=1.0)
    assert [answer.label for answer in answers] == [LABELS[2]] * 2
    assert listener.finish() == []


def test_a_timestamp_goes_with_samples_not_with_half_ones(cheap):
    data = (noise(1, -20) * 32767).astype("<i2").tobytes()
    listener = plain(cheap)
    listener.feed(data[:16_001], at_s=0.0)
    assert len(listener.feed(data[16_001:], at_s=0.5)) == 1


# --- smoothing, uncertainty


def weighted(rows, ages_s, half_life_s, shares):
    """The mean of rows, each weighing by its age and its share of a hop."""
    weights = np.array(shares) * 0.5 ** (np.array(ages_s) / half_life_s)
    return weights @ np.array(rows) / weights.sum()


def test_smoothing_is_a_mean_with_the_half_life_it_says(double):
    waveform = np.concatenate([sine(0, 4), sine(3, 4)])
    for half_life_s, hop_s in ((1.0, 1.0), (2.0, 1.0), (0.5, 1.0), (1.0, 0.1), (1.0, 2.5)):
        raw = heard(plain(double, hop_s=hop_s), waveform, 10**6)
        smoothed = scores(heard(plain(double, smoothing_s=half_life_s, hop_s=hop_s), waveform, 10**6))
        for last in range(len(raw) - 1):  # the last may be of a shorter step
            ages_s = [raw[last].end_s - one.end_s for one in raw[: last + 1]]
            expected = weighted(scores(raw[: last + 1]), ages_s, half_life_s, [1] * (last + 1))
            np.testing.assert_allclose(smoothed[last], expected, atol=1e-9)
    assert [one.end_s for one in raw] == [1.5, 4, 6.5, 8]  # the first comes up to a hop after 1 s


def test_a_short_rest_weighs_by_the_time_it_adds(double):
    waveform = np.concatenate([sine(0, 4), sine(3, 0.25)])
    raw = scores(heard(plain(double), waveform, 10**6))
    smoothed = scores(heard(plain(double, smoothing_s=1.0), waveform, 10**6))
    rest = (1 - 0.5**0.25) / (1 - 0.5)
    expected = weighted(raw, [3.25, 2.25, 1.25, 0.25, 0], 1.0, [1, 1, 1, 1, rest])
    np.testing.assert_allclose(smoothed[-1], expected, atol=1e-9)


def test_a_half_life_of_ages_is_the_plain_mean(double):
    waveform = np.concatenate([sine(0, 2), sine(3, 2)])
    raw = scores(heard(plain(double), waveform, 10**6))
    smoothed = scores(heard(plain(double, smoothing_s=1e300), waveform, 10**6))
    np.testing.assert_allclose(smoothed[-1], np.mean(raw, axis=0), atol=1e-9)


def test_where_no_emotion_is_likely_enough_the_answer_is_uncertain(double):
    for threshold, label in ((sure() - 0.01, LABELS[4]), (sure() + 0.01, stream.UNCERTAIN)):
        *_, answer = heard(plain(double, threshold=threshold), sine(4, 4), 10**6)
        assert answer.label == label
        assert answer.confidence == pytest.approx(sure(), abs=1e-4)


# --- speech and silence


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.flac")), ids=lambda path: path.stem)
@pytest.mark.parametrize("gain_db", [0, -20])
def test_speech_is_heard_in_every_example(cheap, path, gain_db):
    waveform, rate = audio.read(path)
    answers = heard(Stream(cheap, rate), waveform * np.float32(10 ** (gain_db / 20)), 1600)
    assert answers
    assert stream.SILENCE not in [answer.label for answer in answers]


@pytest.mark.parametrize("dbfs", [-np.inf, -90, -60, -50, -40])
def test_silence_and_steady_noise_are_no_speech_and_cost_no_network(cheap, session, dbfs):
    answers = heard(Stream(cheap, RATE), noise(20, dbfs), 1600)
    assert spans(answers)[-1] == (16, 20)
    assert {(answer.label, answer.confidence, len(answer.scores)) for answer in answers} == {(stream.SILENCE, 0, 0)}
    assert session.windows == 0


def test_noise_that_begins_is_soon_taken_for_the_room(cheap):
    waveform = np.concatenate([noise(10, -75), noise(30, -45)])
    labels = [answer.label for answer in Stream(cheap, RATE).feed(waveform)]
    assert set(labels[:10]) == set(labels[20:]) == {stream.SILENCE}


@pytest.mark.parametrize("snr_db", [40, 20, 10])
def test_speech_is_told_from_the_noise_around_it(cheap, snr_db):
    speech = clips("16a04Fa")
    pause = np.zeros(10 * RATE, np.float32)
    waveform = np.concatenate([pause, speech, pause])
    level_db = 10 * np.log10(np.mean(np.square(speech)))
    answers = Stream(cheap, RATE).feed(waveform + noise(len(waveform) / RATE, level_db - snr_db))
    speaking = [answer.end_s for answer in answers if answer.label != stream.SILENCE]
    assert set(range(11, 15)) <= set(speaking)
    assert speaking[0] >= 10
    assert speaking[-1] <= 17


def test_a_filled_gap_does_not_lower_the_noise_floor(cheap):
    listener = Stream(cheap, RATE)
    labels = [
        answer.label for answer in listener.feed(noise(8, -45)) + listener.gap(0.9) + listener.feed(noise(8, -45))
    ]
    assert set(labels) == {stream.SILENCE}


@pytest.mark.parametrize("lost", [lambda listener: listener.feed(np.zeros(20 * RATE, np.float32)),
                                  lambda listener: listener.gap(60.0)], ids=["muted", "a gap"])  # fmt: skip
def test_what_nobody_heard_does_not_move_the_noise_floor(cheap, lost):
    listener = Stream(cheap, RATE)
    listener.feed(noise(8, -60))
    floor_db = listener._gate.floor_db
    lost(listener)
    assert listener._gate.floor_db == pytest.approx(floor_db, abs=2)


def test_smoothing_forgets_what_was_before_a_silence(double):
    pause = np.zeros(6 * RATE, np.float32)
    waveform = np.concatenate([clips("15a02Wb"), pause, clips("16a04Tc")])
    settings = {"gate_db": 9.0, "window_s": 1.0}
    smoothed = heard(plain(double, smoothing_s=5.0, **settings), waveform, 10**6)
    raw = heard(plain(double, **settings), waveform, 10**6)
    labels = [answer.label == stream.SILENCE for answer in raw]
    back = labels.index(False, labels.index(True))
    np.testing.assert_array_equal(scores(smoothed[back : back + 1]), scores(raw[back : back + 1]))
    assert np.abs(scores(smoothed[back + 1 : back + 2]) - scores(raw[back + 1 : back + 2])).max() > 1e-4


def test_without_the_gate_only_digital_silence_is_silence(cheap):
    waveform = np.concatenate([np.zeros(RATE, np.float32), noise(1, -60)])
    assert [answer.label == stream.SILENCE for answer in plain(cheap).feed(waveform)] == [True, False]


# --- answers as text


ANSWERS = [
    Heard(0, 1, "silence", {}),
    Heard(0, 2, "anger", {"anger": 0.5, "fear": 0.5}),
    Heard(0, 3, "anger", {"anger": 1.0, "fear": 0.0}),
    Heard(3599.96, 3723.46, "uncertain", {"anger": 0.5, "fear": 0.5}),
]
LINES = [
    "0:00:01.0  silence",
    "0:00:02.0  anger      ████████           50%",
    "0:00:03.0  anger      ████████████████  100%",
    "1:02:03.5  uncertain  ████████           50%",
]


class Terminal(io.StringIO):
    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self):
        return True


def test_text_is_a_line_for_every_answer():
    out = io.StringIO()
    stream.show(ANSWERS, "text", out)
    assert out.getvalue().splitlines() == LINES


def test_on_a_terminal_the_line_is_redrawn_until_the_label_changes():
    out = Terminal()
    stream.show(ANSWERS, "text", out)
    assert out.getvalue() == f"{LINES[0]}\n{LINES[1]}\r{LINES[2]}\n{LINES[3]}\n"
    out = Terminal()
    stream.show([], "text", out)
    assert out.getvalue() == ""


def test_the_line_ends_when_listening_is_interrupted():
    def interrupted():
        yield ANSWERS[0]
        raise KeyboardInterrupt

    out = Terminal()
    with pytest.raises(KeyboardInterrupt):
        stream.show(interrupted(), "text", out)
    assert out.getvalue() == LINES[0] + "\n"


def test_json_is_an_object_per_line_even_on_a_terminal():
    out = Terminal()
    stream.show(ANSWERS, "json", out)
    records = [json.loads(line) for line in out.getvalue().splitlines()]
    assert records[0] == {"start_s": 0, "end_s": 1, "label": "silence", "scores": {}}
    assert [Heard(**record) for record in records] == ANSWERS


def test_doctests():
    assert doctest.testmod(stream).failed == 0


# --- the command


def listen(model, *words, **kwargs) -> subprocess.Popen:
    start = "import sys; from vervet.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "listen", "--model", str(model), *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=os.environ, **kwargs)


def test_pcm_on_standard_input_gets_the_answers_of_the_stream(model, double):
    waveform = clips("16a04Fa", "15a02Wb", rate=44_100)
    data = (np.repeat(waveform[:, None], 2, axis=1) * 32767).astype("<i2").tobytes()
    words = ["--stdin", "--rate", "44100", "--channels", "2", "--format", "json", "--hop-s", "0.5"]
    out, err = (process := listen(model, *words)).communicate(data)
    assert (process.returncode, err) == (0, b"")
    expected = heard(Stream(double, 44_100, channels=2, hop_s=0.5), data, 10**9)
    found = [Heard(**json.loads(line)) for line in out.splitlines()]
    assert spans(found) == spans(expected)
    np.testing.assert_allclose(scores(found), scores(expected), atol=1e-6)


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent in another way there")
def test_answers_come_at_once_and_ctrl_c_ends_it_in_peace(model):
    process = listen(model, "--stdin", "--pcm", "f32le", "--format", "json", "--no-gate", "--smoothing-s", "0")
    assert process.stdin is not None
    assert process.stdout is not None
    for second in range(1, 4):
        process.stdin.write(sine(second, 1).tobytes())
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["end_s"] == second  # the pipe is still open
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert process.stderr is not None
    assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("data", "words", "code", "message"),
    [
        (b"\0" * 32_001, [], 1, "the input ends 1 bytes into a sample of 2"),
        ((EXAMPLES / "16a04Fa.flac").read_bytes(), [], 1, "is an audio file, not raw PCM: give it to 'vervet predict'"),
        (b"FORM\0\0\1\0AIFF", [], 1, "is an audio file, not raw PCM"),
        (np.full(1600, np.nan, "<f4").tobytes(), ["--pcm", "f32le"], 1, "holds NaN"),
        (b"", ["--rate", "0"], 1, "sampling rate 0"),
        (None, [], 1, "standard input is closed"),
        (b"", [], 1, "the input ended before it began"),
    ],
)
def test_faults_of_the_input_are_named(model, monkeypatch, capsys, data, words, code, message):
    monkeypatch.setattr(sys, "stdin", None if data is None else io.TextIOWrapper(io.BytesIO(data)))
    assert cli.main(["listen", "--stdin", "--model", str(model), *words]) == code
    assert message in capsys.readouterr().err


# --- the microphone


class FakeSoundDevice(types.ModuleType):
    """As much of sounddevice as we use, with a device that plays blocks and then falls silent or is interrupted."""

    class PortAudioError(Exception):
        pass

    def __init__(self, blocks, rate=48_000):
        super().__init__("sounddevice")
        self.blocks, self.rate = blocks, rate
        self.opened = {}
        self.closed = False

    def query_devices(self, device, kind):
        if device == 7:
            raise self.PortAudioError("Error querying device 7")
        if device == "usb":
            raise ValueError("No input device matching 'usb'")
        assert kind == "input"
        return {"default_samplerate": float(self.rate)}

    def InputStream(self, samplerate, blocksize, device, channels, dtype, callback):
        if channels > 2:
            raise self.PortAudioError("Invalid number of channels")
        self.opened = {"rate": samplerate, "block": blocksize, "device": device, "channels": channels, "dtype": dtype}
        self.callback = callback
        return self

    def __enter__(self):
        buffer = np.empty((self.opened["block"], self.opened["channels"]), np.float32)
        for block in self.blocks:
            buffer[:] = block  # PortAudio uses its buffer again
            self.callback(buffer, len(buffer), None, None)
        return self

    def __exit__(self, *_):
        self.closed = True


@pytest.fixture
def plug_in(monkeypatch):
    def fake(blocks=(), **kwargs):
        module = FakeSoundDevice(blocks, **kwargs)
        monkeypatch.setitem(sys.modules, "sounddevice", module)
        monkeypatch.setattr(stream, "DEAF_S", 0.05)
        return module

    return fake


def test_the_microphone_is_heard_at_its_own_rate(plug_in, double):
    waveform = sine(5, 3, 48_000)
    device = plug_in(waveform.reshape(-1, 4800, 1))
    rate, chunks = stream.microphone()
    assert device.opened == {"rate": 48_000, "block": 4800, "device": None, "channels": 1, "dtype": "float32"}
    answers = []
    with pytest.raises(OSError, match=r"delivered nothing for 0\.05 s; see whether it is still connected"):
        answers += plain(double, rate).listen(chunks)
    assert device.closed
    rate, chunks = stream.microphone("3", 16_000, 2)
    assert rate == device.opened["rate"] == 16_000
    assert (device.opened["device"], device.opened["channels"]) == (3, 2)


def test_the_command_listens_to_the_microphone(plug_in, model, capsys, monkeypatch):
    waveform = sine(5, 3, 48_000)
    device = plug_in(waveform.reshape(-1, 4800, 1))
    assert cli.main(["listen", "--model", str(model), "--no-gate", "--threshold", "0"]) == 1
    captured = capsys.readouterr()
    assert [line.split()[:2] for line in captured.out.splitlines()] == [
        ["0:00:01.0", LABELS[5]],
        ["0:00:02.0", LABELS[5]],
    ]
    assert captured.err.startswith("vervet listen: the microphone is open; Ctrl-C ends it\n")
    assert "delivered nothing" in captured.err

    def interrupted():
        yield waveform.reshape(-1, 4800, 1)[0]
        raise KeyboardInterrupt

    device.blocks = interrupted()
    assert cli.main(["listen", "--model", str(model)]) == 0


def test_what_the_listener_is_too_slow_for_becomes_a_gap(plug_in, double, monkeypatch):
    monkeypatch.setattr(stream, "PATIENCE_S", 2.0)
    waveform = sine(5, 5)
    device = plug_in(waveform.reshape(-1, 1600, 1), rate=RATE)
    _, chunks = stream.microphone()
    first = next(chunks)  # the device delivers all its blocks before this one is taken
    for block in waveform.reshape(-1, 1600, 1)[:3]:
        device.callback(block, 1600, None, None)
    times = [first[1]]
    with pytest.raises(OSError, match="delivered nothing"):
        times += (at_s for _, at_s in chunks)
    assert len(times) == 1 + 19 + 1
    assert times[:20] == [index / 10 for index in range(20)]
    assert times[20] == 5.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "7"], "no microphone: Error querying device 7; connect one"),
        (["--device", "usb"], "no microphone: No input device matching 'usb'; connect one"),
        (["--channels", "3"], "no microphone: Invalid number of channels; connect one"),
    ],
)
def test_a_missing_device_is_named(plug_in, model, capsys, words, message):
    plug_in()
    assert cli.main(["listen", "--model", str(model), *words]) == 1
    assert message in capsys.readouterr().err


def test_a_missing_package_or_library_is_named(monkeypatch, model, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert cli.main(["listen", "--model", str(model)]) == 1
    assert "needs sounddevice, which is not installed: pip install 'vervet[mic]'" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "sounddevice")
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.syspath_prepend(tmp_path)
    assert cli.main(["listen", "--model", str(model)]) == 1
    assert "PortAudio library not found; install it" in capsys.readouterr().err


def test_listening_imports_sounddevice_only_for_the_microphone(model):
    script = (
        "import sys\nsys.modules['sounddevice'] = None\nfrom vervet import cli\n"
        f"code = cli.main(['listen', '--stdin', '--model', {str(model)!r}])\n"
        "sys.exit(code or 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], input=b"\0" * 64_000, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (
        0,
        b"0:00:01.0  silence\n0:00:02.0  silence\n".replace(b"\n", os.linesep.encode()),
    )


# --- the page


PAGE = (ROOT / "docs" / "streaming.md").read_text(encoding="utf-8")


def test_commands_on_the_page_are_known():
    found = re.findall(r"vervet (listen[^|>\n]*)", "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.S)))
    assert found
    for command in found:
        cli._parser().parse_args(shlex.split(command, comments=True))


def test_python_on_the_page_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "docs/streaming.md", "exec"), {})
