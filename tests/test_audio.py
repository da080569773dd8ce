import io
import os
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile

from vervet import audio

RATE = 16_000


def tone(hertz: float, duration_s: float, rate: int = RATE, gain: float = 0.5) -> np.ndarray:
    return (gain * np.sin(2 * np.pi * hertz * np.arange(round(duration_s * rate)) / rate)).astype(np.float32)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def written(path, waveform, rate=RATE, **kwargs):
    soundfile.write(path, waveform, rate, **kwargs)
    return path


def peak_hertz(waveform: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(spectrum.argmax() * rate / len(waveform))


# --- read


def test_sixteen_bit_samples_come_back_exactly(tmp_path):
    samples = np.array([0, 1, -1, 32767, -32768, 12345], np.int16)
    for name in ("a.wav", "a.flac"):
        waveform, rate = audio.read(written(tmp_path / name, samples))
        assert rate == RATE
        assert waveform.dtype == np.float32
        np.testing.assert_array_equal(waveform, samples / np.float32(32768))


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_every_format_holds_the_same_tone(tmp_path, suffix):
    path = written(tmp_path / f"tone.{suffix}", tone(1000, 1.0))
    waveform, rate = audio.read(path)
    assert (rate, len(waveform)) == (RATE, RATE)
    assert peak_hertz(waveform, rate) == pytest.approx(1000, abs=1)
    inner = slice(RATE // 4, -RATE // 4)  # away from the codecs' edges
    error = waveform[inner] - tone(1000, 1.0)[inner]
    assert np.sqrt(np.mean(error**2)) < (1e-4 if suffix in ("wav", "flac") else 0.02)


def test_suffix_does_not_matter_only_content_does(tmp_path):
    for name in ("tone.raw", "tone.mp3", "tone"):
        path = written(tmp_path / name, tone(440, 0.5), format="FLAC")
        assert len(audio.read(path)[0]) == RATE // 2


def test_path_string_bytes_stream_and_array_agree(tmp_path):
    path = written(tmp_path / "a.flac", noise(5000))
    expected, _ = audio.read(path)
    with path.open("rb") as stream:
        for source in (str(path), path.read_bytes(), stream, io.BytesIO(path.read_bytes()), (expected, RATE)):
            waveform, rate = audio.read(source)
            assert rate == RATE
            np.testing.assert_array_equal(waveform, expected)


def test_channels_are_mixed_to_their_mean(tmp_path):
    left, right = tone(300, 0.5), tone(700, 0.5, gain=0.25)
    path = written(tmp_path / "stereo.wav", np.stack([left, right], axis=1), subtype="FLOAT")
    waveform, _ = audio.read(path)
    assert waveform.shape == left.shape
    np.testing.assert_allclose(waveform, (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize("dtype", ["<i2", ">i2"])
def test_integer_arrays_are_taken_by_their_full_scale(dtype):
    waveform, _ = audio.read((np.array([16384, -32768] * 1000, dtype), RATE))
    np.testing.assert_array_equal(waveform[:2], np.array([0.5, -1.0], np.float32))


def test_overshoot_of_lossy_codecs_is_cut_to_full_scale():
    waveform, _ = audio.read((np.array([1.05, -1.2, 0.5], np.float32), RATE))
    np.testing.assert_array_equal(waveform, np.array([1.0, -1.0, 0.5], np.float32))


def _with(samples: np.ndarray, index: int, value: float) -> np.ndarray:
    samples[index] = value
    return samples


BAD_FILES = {
    "empty.wav": (b"", r"empty\.wav: is empty \(0 bytes\); copy or record"),
    "pointer.wav": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        r"pointer\.wav: is a Git LFS pointer.*git lfs pull",
    ),
    "text.wav": (b"these are words, no sound at all\n" * 50, r"text\.wav: not audio .*convert it"),
    "utf16.wav": (
        ("words " * 500).encode("utf-16"),
        r"utf16\.wav: not audio .*it begins like MP3, but goes on otherwise",
    ),
    "riff.wav": (b"RIFF\x24\x00\x00\x00WAVEjunk", r"riff\.wav: not audio"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_what_is_no_audio_is_named(tmp_path, name):
    content, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        audio.read(tmp_path / name)
    with pytest.raises(ValueError, match=message.split(":")[1]):
        audio.read(content)


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.wav: no such file; check"):
        audio.read(tmp_path / "gone.wav")
    with pytest.raises(ValueError, match="is a folder, not a recording"):
        audio.read(tmp_path)


def test_header_without_samples_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.wav: has a header but no samples"):
        audio.read(written(tmp_path / "none.wav", np.zeros(0, np.float32)))


def test_samples_of_which_the_header_does_not_tell_are_not_called_none(tmp_path):
    path = written(tmp_path / "crashed.wav", np.zeros(0, np.float32))
    path.write_bytes(path.read_bytes() + bytes(32_000))
    with pytest.raises(ValueError, match=r"crashed\.wav: was streamed, or its recorder stopped"):
        audio.read(path)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_that_was_cut_short_is_named(tmp_path, subtype):
    path = tmp_path / "talk.ogg"
    soundfile.write(path, noise(10 * RATE), RATE, format="OGG", subtype=subtype)
    whole = path.read_bytes()
    assert len(audio.read(path)[0]) == 10 * RATE
    pages = [at for at in range(len(whole)) if whole.startswith(b"OggS\0", at)]
    assert len(pages) > 4
    for size in (len(whole) * 6 // 10, len(whole) - 1, pages[-1] + 5, pages[-1] + 26):
        with pytest.raises(ValueError, match="<bytes>: ends in the middle of a page; it was cut short"):
            audio.read(whole[:size])
    page = whole[pages[-1] :]
    end = page[:5] + bytes([4]) + page[6:18] + (len(pages)).to_bytes(4, "little") + bytes(5)  # a page of nothing
    assert not audio._ends_within_a_page(io.BytesIO(whole + end))
    for rest in (b"TAG" + bytes(125), bytes(70_000)):  # what some programs leave behind
        assert len(audio.read(whole + rest)[0]) == 10 * RATE
    assert 0 < len(audio.read(whole[: pages[-1]])[0]) < 10 * RATE  # as a recorder that was stopped leaves it


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_found_anywhere(tmp_path, value):
    position = 3 * audio.BLOCK + 7
    samples = _with(noise(4 * audio.BLOCK), position, value)
    path = written(tmp_path / "bad.wav", samples, subtype="FLOAT")
    with pytest.raises(ValueError, match=rf"bad\.wav: holds NaN or infinite.*at {position / RATE:.3f} s"):
        audio.read(path)
    with pytest.raises(ValueError, match="<array>: holds NaN or infinite"):
        audio.read((samples, RATE))


def test_samples_on_another_scale_are_refused(tmp_path):
    path = written(tmp_path / "loud.wav", 20_000 * tone(200, 0.2), subtype="FLOAT")
    with pytest.raises(ValueError, match=r"loud\.wav: samples reach 10000, full scale is 1"):
        audio.read(path)


@pytest.mark.parametrize("suffix", ["flac", "mp3", "wav", "aiff", "au", "w64", "rf64"])
def test_a_recording_cut_short_is_refused(tmp_path, suffix):
    whole = written(tmp_path / f"whole.{suffix}", noise(5 * RATE)).read_bytes()
    path = tmp_path / f"half.{suffix}"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"half\.{suffix}: (damaged|ends) after \d"):
        audio.read(path)


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros((2, 16000)), RATE, r"shape \(2, 16000\); give \(samples,\) or \(samples, channels\)"),
        (np.zeros((2, 2, 2)), RATE, "shape"),
        (np.zeros(0, np.float32), RATE, "no samples"),
        (np.zeros(100, np.uint8), RATE, "dtype uint8"),
        (np.zeros(100), 0, "sampling rate 0"),
        (np.zeros(100), 16000.5, "sampling rate 16000.5"),
        (np.zeros(100), np.inf, "sampling rate inf"),
        (np.zeros(100), np.nan, "sampling rate nan"),
    ],
)
def test_arrays_that_could_be_misread_are_refused(samples, rate, message):
    with pytest.raises(ValueError, match=message):
        audio.read((samples, rate))


# --- files that are not what they seem


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("loop.wav", "symbolic links"),
        (f"{'x' * 300}.wav", "too long"),
        ("file.wav/talk.wav", "Not a directory"),
        ("nul\0.wav", "null byte"),
        ("\ud800.wav", "surrogates"),
    ],
)
def test_paths_that_cannot_be_opened_are_named(tmp_path, name, why):
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    (tmp_path / "file.wav").touch()
    with pytest.raises(
        ValueError, match=rf"\.wav: cannot be opened \(.*{why}.*\); check its name and permissions"
    ) as caught:
        audio.read(tmp_path / name)
    assert caught.type is ValueError


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path):
    path = written(tmp_path / "secret.wav", noise(RATE))
    path.chmod(0)
    with pytest.raises(ValueError, match=r"secret\.wav: cannot be opened \(Permission denied\)"):
        audio.read(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such files")
def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    for path in (tmp_path / "pipe.wav", "/dev/zero", "/dev/null"):
        with pytest.raises(ValueError, match=rf"{path}: is a pipe, a socket or a device; save the recording"):
            audio.read(path)


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path):
    path = written(tmp_path / "shrinks.wav", noise(40 * RATE))
    found = audio.windows(path, RATE, 4, 4)
    assert next(found).end_s == 4
    os.truncate(path, 20 * RATE)
    with pytest.raises(ValueError, match=r"shrinks\.wav: ends after \d.* promises 40\.00 s"):
        list(found)


def test_streams_are_read_from_their_beginning():
    stream = io.BytesIO()
    soundfile.write(stream, noise(RATE), RATE, format="WAV")
    assert stream.tell() > 0
    assert len(audio.read(stream)[0]) == RATE


def test_streams_that_cannot_be_rewound_or_hold_text_are_named(tmp_path):
    path = written(tmp_path / "a.wav", noise(RATE))
    reading, writing = os.pipe()
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe, path.open(encoding="latin-1") as text, path.open("rb") as closed:
        closed.close()
        for stream in (pipe, text, closed):
            with pytest.raises(ValueError, match=r": cannot be read .*; give an open binary file that can be rewound"):
                audio.read(stream)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("healthy", [1, 2, 3])
def test_a_disk_that_fails_is_named_and_nothing_else_is_printed(healthy, capfd):
    class Failing(io.BytesIO):
        reads = 0

        def read(self, size=-1):
            self.reads += 1
            if self.reads > healthy:
                raise OSError(5, "Input/output error")
            return super().read(size)

    stream = io.BytesIO()
    soundfile.write(stream, noise(RATE), RATE, format="FLAC")
    with pytest.raises(ValueError, match="<stream>: "):
        audio.read(Failing(stream.getvalue()))
    assert capfd.readouterr() == ("", "")


# --- what fuzzing found


def wav(data: bytes, *, rate: int = RATE, channels: int = 1, promised: int | None = None) -> bytes:
    """16 bit, with a header that may lie."""
    layout = struct.pack("<IHHIIHH", 16, 1, channels, rate, 2 * channels * rate % (1 << 32), 2 * channels, 16)
    size = struct.pack("<I", len(data) if promised is None else promised)
    return b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + layout + b"data" + size + data


@pytest.mark.parametrize("rate", [1, 3_999, 768_001, (1 << 31) - 1])
def test_absurd_rates_are_refused(rate):
    # one second at 1 Hz became a gigabyte, and was answered
    with pytest.raises(ValueError, match=f"<bytes>: sampling rate {rate}; give a whole number of 4000 to 768000 Hz"):
        audio.read(wav(bytes(64_000), rate=rate))


def test_absurd_channels_are_refused():
    with pytest.raises(ValueError, match="<bytes>: has 1024 channels; keep at most 64"):
        audio.read(wav(bytes(2_048_000), channels=1024))


@pytest.mark.parametrize("promised", [(1 << 32) - 1, 1 << 31, 0x7FFF_F000])
def test_a_wav_from_a_pipe_is_read_to_its_end(promised):
    # what ffmpeg, arecord and sox write when they cannot go back to the header
    assert len(audio.read(wav(bytes(32_000), promised=promised))[0]) == RATE


def test_a_header_that_counts_itself_is_forgiven():
    assert len(audio.read(wav(bytes(32_000), promised=32_044))[0]) == RATE


def test_a_header_of_three_hours_takes_neither_their_time_nor_their_memory():
    with pytest.raises(ValueError, match=r"ends after 1\.00 s, but its header promises 10800\.00 s; it was cut short"):
        audio.read(wav(bytes(32_000), promised=3 * 3600 * 32_000))


def test_segments_before_the_end_of_what_was_cut_short_are_read():
    (window,) = audio.windows(audio.Part(wav(bytes(64_000), promised=640_000), 0.5, 1.5), RATE, 4, 4)
    assert len(window.waveform) == RATE


def test_a_flac_from_a_pipe_is_refused_for_what_it_is(tmp_path):
    content = bytearray(written(tmp_path / "a.flac", noise(RATE)).read_bytes())
    content[21] &= 0xF0  # how many samples there are, in 36 bits; 0 where that was not known
    content[22:26] = bytes(4)
    with pytest.raises(
        ValueError,
        match="<bytes>: was streamed, or its recorder stopped, so its header tells no length; write it again",
    ):
        audio.read(bytes(content))


@pytest.mark.filterwarnings("error")
def test_headers_that_point_before_the_beginning_print_nothing(tmp_path, capfd):
    content = written(tmp_path / "a.aiff", noise(RATE)).read_bytes()[:30]
    with pytest.raises(ValueError, match="<bytes>: not audio"):
        audio.read(content)
    assert capfd.readouterr() == ("", "")


def test_two_bytes_do_not_make_a_recording():
    # libsndfile takes this for a file of an Akai sampler
    with pytest.raises(ValueError, match=r"<bytes>: not audio that can be decoded \(it begins like no known format\)"):
        audio.read(b"\x01\x04" + np.random.default_rng(0).bytes(20_000))


def test_an_mp3_with_a_hole_is_refused(tmp_path):
    # a decoder that ended at the hole was asked again, and gave what it had given before, until that was enough
    content = bytearray(written(tmp_path / "whole.mp3", noise(5 * RATE)).read_bytes())
    content[-1500:-800] = np.random.default_rng(4).bytes(700)
    with pytest.raises(ValueError, match=r"<bytes>: (ends|damaged) after 4\.\d\d s"):
        audio.read(bytes(content))


@pytest.mark.parametrize("rate", [4_000, 8_000, 44_100])
@pytest.mark.parametrize("duration_s", [0.1, 1.0])
def test_a_constant_offset_is_silence_at_any_rate(rate, duration_s):
    # where it begins and ends, it rings in the resampler
    (window,) = audio.windows((np.full(round(duration_s * rate), -1.0), rate), RATE, 4, 4)
    assert audio.is_silent(window.waveform)


# --- resample, fit, silence


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_resampling_keeps_tone_level_and_length(rate):
    waveform = audio.resample(tone(1000, 2.0, rate), rate, RATE)
    assert len(waveform) == pytest.approx(2 * RATE, abs=1)
    assert waveform.dtype == np.float32
    inner = slice(RATE // 2, RATE)
    np.testing.assert_allclose(waveform[inner], tone(1000, 2.0)[inner], atol=2e-3)


def test_resampling_removes_what_the_new_rate_cannot_hold():
    waveform = audio.resample(tone(12_000, 1.0, 44_100), 44_100, RATE)
    assert np.abs(waveform[1000:-1000]).max() < 1e-3


def test_same_rate_is_left_alone():
    waveform = noise(100)
    assert audio.resample(waveform, RATE, RATE) is waveform


def test_fit_pads_at_the_end_and_cuts():
    waveform = np.arange(1, 4, dtype=np.float32)
    np.testing.assert_array_equal(audio.fit(waveform, 5), [1, 2, 3, 0, 0])
    np.testing.assert_array_equal(audio.fit(waveform, 2), [1, 2])
    assert audio.fit(waveform, 5).dtype == np.float32


def test_silence_is_below_its_threshold_whatever_the_offset():
    assert audio.is_silent(np.zeros(100, np.float32))
    assert audio.is_silent(np.full(100, 0.25, np.float32))
    assert audio.is_silent(tone(500, 0.1, gain=0.9e-4))
    assert not audio.is_silent(tone(500, 0.1, gain=1.1e-4))


# --- windows


def spans(source, window_s, hop_s, **part):
    return [(w.start_s, w.end_s) for w in audio.windows(audio.Part(source, **part), RATE, window_s, hop_s)]


@pytest.mark.parametrize(
    ("duration_s", "window_s", "hop_s", "expected"),
    [
        (1.5, 4, 4, [(0, 1.5)]),
        (4, 4, 4, [(0, 4)]),
        (4, 4, 1, [(0, 4)]),
        (5, 4, 4, [(0, 4), (4, 5)]),
        (5.5, 4, 1, [(0, 4), (1, 5), (2, 5.5)]),
        (6, 4, 1, [(0, 4), (1, 5), (2, 6)]),
        (8, 4, 4, [(0, 4), (4, 8)]),
        (7, 2, 3, [(0, 2), (3, 5), (6, 7)]),
        (6, 2, 4, [(0, 2), (4, 6)]),
        (4.05, 4, 4, [(0, 4)]),  # 50 ms more are no window
        (4.1, 4, 4, [(0, 4), (4, 4.1)]),
    ],
)
def test_windows_cover_the_recording(duration_s, window_s, hop_s, expected):
    found = spans((noise(round(duration_s * RATE)), RATE), window_s, hop_s)
    assert found == [pytest.approx(span) for span in expected]
    assert found[-1][1] <= duration_s


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("hop_s", [0.25, 0.7, 1.0])
def test_windows_equal_slices_of_the_whole(tmp_path, rate, hop_s):
    path = written(tmp_path / "long.flac", noise(round(9.37 * rate)), rate)
    whole = audio.resample(*audio.read(path), RATE)
    hop = round(hop_s * RATE)
    found = list(audio.windows(path, RATE, 1.0, hop_s))
    for index, window in enumerate(found):
        expected = whole[index * hop : index * hop + RATE]
        np.testing.assert_allclose(window.waveform, expected, atol=1e-6)
    assert (len(found) - 1) * hop + RATE >= len(whole)
    assert found[-1].end_s == pytest.approx(9.37, abs=1e-9)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_segments_are_read_from_where_they_are(tmp_path, suffix):
    path = written(tmp_path / f"long.{suffix}", noise(6 * RATE))
    whole, _ = audio.read(path)
    (window,) = audio.windows(audio.Part(path, 1.25, 3.5), RATE, 4, 4)
    assert (window.start_s, window.end_s) == (1.25, 3.5)
    np.testing.assert_allclose(window.waveform, whole[20_000:56_000], atol=1e-6)


def test_windows_of_a_segment_count_from_its_start():
    assert spans((noise(10 * RATE), RATE), 2, 2, start_s=1, end_s=6) == [(1, 3), (3, 5), (5, 6)]
    assert spans((noise(3 * RATE), RATE), 2, 2, start_s=1.5) == [(1.5, 3)]


def test_an_end_rounded_up_is_brought_back_into_the_recording():
    assert spans((noise(3 * RATE), RATE), 4, 4, end_s=3.05) == [(0, 3)]


@pytest.mark.parametrize(("start_s", "end_s"), [(0, 3.5), (3.5, None), (2, 1), (-1, 2), (float("nan"), 2)])
def test_segments_outside_the_recording_are_refused(start_s, end_s):
    with pytest.raises(ValueError, match=r"<array>: segment .* is not within its 3\.00 s"):
        spans((noise(3 * RATE), RATE), 4, 4, start_s=start_s, end_s=end_s)


def test_a_part_is_read_as_what_it_is():
    call = np.stack([noise(3 * RATE), tone(300, 3)], axis=1)
    part = audio.Part((call, RATE), 0.5, 2.0, channel=1)
    waveform, rate = audio.read(part)
    assert (rate, waveform.tolist()) == (RATE, call[8_000:32_000, 1].tolist())
    with audio.opened(part) as recording:
        assert (recording.start_s, recording.duration_s, recording.channels) == (0.5, 1.5, 1)


@pytest.mark.parametrize(
    ("part", "fragment"),
    [
        ({}, ""),
        ({"end_s": 2.0}, "#t=0,2"),
        ({"start_s": 1.5}, "#t=1.5"),
        ({"channel": 0}, "#channel=0"),
        ({"start_s": 86_400.0001, "end_s": 86_401.0, "channel": 1}, "#t=86400.0001,86401&channel=1"),
    ],
)
def test_a_part_has_a_name_of_its_own(part, fragment):
    assert audio.Part("talk.wav", **part).fragment == fragment


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"start_s": None}, r"<bytes>: \[None\] are no times; give start_s and end_s in seconds"),
        ({"end_s": "2"}, r"\[0\.0, '2'\] are no times"),
        ({"channel": True}, "there is no channel True; give a number, 0 the first"),
        ({"channel": "0"}, "there is no channel '0'; give a number"),
    ],
)
def test_what_is_no_part_is_refused(part, message):
    with pytest.raises(ValueError, match=message):
        audio.Part(b"", **part)
    with pytest.raises(ValueError, match="a part of a part; give the part of the whole that is meant"):
        audio.Part(audio.Part(b""))


def test_too_little_sound_is_refused():
    with pytest.raises(ValueError, match=r"only 0\.050 s of sound, too short"):
        spans((noise(800), RATE), 4, 4)


def test_windows_must_have_a_length():
    with pytest.raises(ValueError, match="must be positive"):
        spans((noise(RATE), RATE), 1, 0)


def test_memory_does_not_grow_with_the_recording(tmp_path):
    path = tmp_path / "long.flac"
    minutes, rate = 10, 16_000
    with soundfile.SoundFile(path, "w", rate, 1) as sound:
        for minute in range(minutes):
            sound.write(noise(60 * rate, seed=minute))
    tracemalloc.start()
    try:
        count = sum(1 for _ in audio.windows(path, 8_000, 4, 4))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == minutes * 15
    whole = minutes * 60 * rate * 4
    assert peak < whole / 10, f"{peak / 1e6:.1f} MB held at once, the whole recording has {whole / 1e6:.1f} MB"


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    samples = _with(noise(40 * RATE), 39 * RATE, np.nan)
    found = audio.windows(written(tmp_path / "late.wav", samples, subtype="FLOAT"), RATE, 4, 4)
    assert next(found).end_s == 4
    with pytest.raises(ValueError, match=r"the first at 39\.000 s"):
        list(found)


def test_a_segment_of_what_cannot_be_sought_in(tmp_path):
    """Telephones write GSM 6.10, in which libsndfile cannot go to a place."""
    path = written(tmp_path / "call.wav", tone(300, 12, rate=8000), rate=8000, subtype="GSM610")
    whole, _ = audio.read(path)
    (window,) = audio.windows(audio.Part(path, 9.0, 11.0), 8000, 4, 4)
    assert np.array_equal(window.waveform, whole[72_000:88_000])
