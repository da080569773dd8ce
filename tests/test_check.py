import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vervet import cli
from vervet.audio import read
from vervet.corpora import load_corpus, release_of
from vervet.corpora.check import audio_facts, check, clean, contradictory_clips, duplicate_clips, silent_clips

ROOT = os.environ.get("VERVET_CORPORA")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 52000\n"


def write(path: Path, seed: int = 0, duration_s: float = 0.2, sampling_rate: int = 16_000, **how) -> Path:
    """Write noise; every seed sounds different, and lasts a little longer than the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = round(duration_s * sampling_rate) + seed
    noise = np.random.default_rng(seed).integers(-9_000, 9_000, samples, np.int16)  # exact in every lossless format
    soundfile.write(path, noise, sampling_rate, **how)
    return path


def table(folder: Path, *rows: str) -> Path:
    path = folder / "clips.csv"
    path.write_text("\n".join(["file,emotion", *rows]) + "\n")
    return path


def whole_emodb(folder: Path, **how) -> Path:
    """Make a stand-in for the release, each clip two seconds of its own noise."""
    for seed, stem in enumerate(sorted(release_of("emodb").stems)):
        write(folder / "wav" / f"{stem}.wav", seed, 2.0, **how)
    return folder


def kinds(report) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for fault in report.faults:
        found.setdefault(fault.kind, []).append(fault.file)
    return found


def test_facts_of_one_file(tmp_path):
    waveform = np.zeros(800, np.float32)
    waveform[100:104] = 1.0
    waveform[200:202] = -1.0  # two samples are a peak, not clipping
    soundfile.write(tmp_path / "a.wav", waveform, 8_000, subtype="FLOAT")
    facts = audio_facts(tmp_path / "a.wav")
    assert (facts.sampling_rate, facts.samples, facts.channels, facts.duration_s) == (8_000, 800, 1, 0.1)
    assert (facts.clipped, facts.silent, facts.problem, facts.format) == (4, False, "", "WAV")


def test_content_is_that_of_the_samples(tmp_path):
    wav, flac = write(tmp_path / "a.wav"), write(tmp_path / "a.flac")
    assert wav.read_bytes() != flac.read_bytes()
    assert audio_facts(wav).content == audio_facts(flac).content
    assert audio_facts(write(tmp_path / "b.wav", sampling_rate=8_000)).content != audio_facts(wav).content
    assert audio_facts(write(tmp_path / "c.wav", seed=1)).content != audio_facts(wav).content


def test_content_is_that_of_every_channel(tmp_path):
    left, right = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 3_200))
    for name, channels in (("a", [left, right]), ("b", [left, right]), ("c", [right, left])):
        soundfile.write(tmp_path / f"{name}.wav", np.stack(channels, axis=1), 16_000)
    a, b, c = (audio_facts(tmp_path / f"{name}.wav").content for name in "abc")
    assert a == b != c


def test_a_recording_is_known_by_what_is_in_it(tmp_path):
    facts = audio_facts(write(tmp_path / "a.wav").rename(tmp_path / "a.raw"))
    assert (facts.format, facts.samples, facts.problem) == ("WAV", 3_200, "")


def test_whole_release_has_no_faults(tmp_path):
    report = check("emodb", whole_emodb(tmp_path))
    assert report.ok
    assert report.faults == report.notes == ()
    assert (report.clips, report.sampling_rates) == (535, {16_000: 535})
    assert report.classes == report.published.classes
    assert report.to_text().endswith("No faults.")


def test_every_fault_of_a_copy_is_named(tmp_path):
    wav = whole_emodb(tmp_path) / "wav"
    (wav / "03a01Fa.wav").unlink()
    write(wav / "03a01Fz.wav", 999, 2.0)
    write(wav / "mistake.wav", 998, 2.0)
    write(wav / "03a01Nc.flac", 997, 2.0)
    (wav / "03a01Wa.wav").write_text(POINTER)
    (wav / "03a02Fc.wav").write_bytes(b"")
    soundfile.write(wav / "03a02Nc.wav", [], 16_000)
    (wav / "03a02Ta.wav").write_bytes(b"RIFF, but nothing that follows is audio")
    soundfile.write(wav / "03a02Wb.wav", [0.1, np.nan, 0.1], 16_000, subtype="FLOAT")
    soundfile.write(wav / "03a02Wc.wav", np.zeros(32_000), 16_000)
    write(wav / "03a04Ad.wav", 1, 2.0), write(wav / "03a04Fd.wav", 1, 2.0)
    write(wav / "08a01Ab.wav", 2, 2.0), write(wav / "09a04Nb.wav", 3, 2.0)
    (wav / "09a04Wa.wav").write_bytes((wav / "10a02Ab.wav").read_bytes())
    write(wav / "16b10Wb.wav", 4, 12.0)
    write(wav / "16b10Wa.wav", 5, 2.0, 22_050)
    report = check("emodb", tmp_path)
    found = kinds(report)
    assert found.pop("missing") == ["03a01Fa"]
    assert found.pop("extra") == ["wav/03a01Fz.wav"]
    assert found.pop("misnamed") == ["wav/mistake.wav"]
    assert found.pop("repeated") == ["wav/03a01Nc.wav"]
    assert found.pop("lfs-pointer") == ["wav/03a01Wa.wav"]
    assert found.pop("empty") == ["wav/03a02Fc.wav", "wav/03a02Nc.wav"]
    assert found.pop("unreadable") == ["wav/03a02Ta.wav", "wav/03a02Wb.wav"]
    assert found.pop("silent") == ["wav/03a02Wc.wav"]
    assert found.pop("contradictory") == ["wav/03a04Ad.wav", "wav/09a04Wa.wav"]
    assert sorted(found.pop("altered")) == ["wav/16b10Wa.wav", "wav/16b10Wb.wav"]
    assert not found
    assert not any(fault.known for fault in report.faults)
    text = report.to_text()
    assert "  happiness         71         71" in text  # one clip less, one more
    assert all(fault.file in text for fault in report.faults)


def test_duplicate_without_contradiction(tmp_path):
    write(tmp_path / "a.wav"), write(tmp_path / "b.flac"), write(tmp_path / "c.wav", 1)
    report = check("table", table(tmp_path, "a.wav,anger", "b.flac,angry", "c.wav,fear"))
    (fault,) = report.faults
    assert (fault.kind, fault.file) == ("duplicate", "a.wav")
    assert fault.message == "the same samples in a.wav (anger), b.flac (anger)"


def test_counts_that_differ_are_marked(tmp_path):
    write(tmp_path / "03a01Fa.wav", 0, 2.0)
    text = check("emodb", tmp_path).to_text()
    assert "1 of 535 clips, 1 of 10 speakers, 16000 Hz, 2.00 to 2.00 s" in text
    assert "  happiness          1         71  differs" in text
    assert "missing (534): in the release, not on disk" in text
    assert "16b10Wb" in text


def test_resampled_copy_is_one_fault(tmp_path):
    report = check("emodb", whole_emodb(tmp_path, sampling_rate=8_000))
    (fault,) = report.faults
    assert fault.kind == "altered"
    assert fault.message == "a resampled copy: all 535 clips are at 8000 Hz, EmoDB was published at 16000 Hz"


def test_copy_of_one_length_is_one_fault(tmp_path):
    for seed, stem in enumerate(sorted(release_of("savee").stems)):
        write(tmp_path / f"{stem}.flac", seed, 0.5 - seed / 44_100, 44_100)
    (fault,) = check("savee", tmp_path).faults
    assert fault.kind == "altered"
    assert fault.message == "cut or padded to one length: 480 of 480 clips last exactly 0.5 s"


def test_known_defects_are_faults_of_the_release(tmp_path):
    for seed, stem in enumerate(["1006_TIE_HAP_XX", "1006_TIE_NEU_XX", "1001_DFA_ANG_XX", "1001_DFA_DIS_XX"]):
        write(tmp_path / f"{stem}.wav", seed // 2 * (seed % 2), 2.0)
    write(tmp_path / "1001_DFA_ANG_XX.wav", 7, 2.0), write(tmp_path / "1001_DFA_DIS_XX.wav", 7, 2.0)
    soundfile.write(tmp_path / "1076_MTI_SAD_XX.wav", np.zeros(32_000), 16_000)
    report = check("cremad", tmp_path)
    known = {(fault.kind, fault.file): fault.known for fault in report.faults if fault.kind != "missing"}
    assert known == {
        ("silent", "1076_MTI_SAD_XX.wav"): True,
        ("contradictory", "1006_TIE_HAP_XX.wav"): True,
        ("contradictory", "1001_DFA_ANG_XX.wav"): False,
    }
    assert "1076_MTI_SAD_XX.wav: digital silence (known defect of the published release)" in report.to_text()


def test_notes_are_no_faults(tmp_path):
    write(tmp_path / "a.ogg"), write(tmp_path / "b.mp3", 1)
    square = np.where(np.arange(1_600) % 40 < 20, 1.0, -1.0)
    soundfile.write(tmp_path / "c.wav", np.stack([square, square], axis=1), 16_000)
    report = check("table", table(tmp_path, "a.ogg,anger", "b.mp3,fear", "c.wav,joy"))
    assert report.ok
    assert [(note.kind, note.file) for note in report.notes if note.kind == "clipped"] == [("clipped", "c.wav")]
    assert [note.kind for note in report.notes] == ["lossy", "lossy", "channels", "clipped"]
    assert "c.wav: 1600 of 1600 samples at full scale" in report.to_text()


def test_faulty_rows_of_a_table_are_all_named(tmp_path):
    write(tmp_path / "a.wav")
    report = check("table", table(tmp_path, "a.wav,anger", "b.wav,anger", "a.wav,fear", "c.wav,fear"))
    assert kinds(report) == {"missing": ["b.wav", "c.wav"], "repeated": ["a.wav"]}


def refused(folder: Path) -> dict[str, str]:
    """Write what `vervet.audio.read` refuses, and say how each message begins."""
    cut = write(folder / "cut.wav", duration_s=1.0)
    cut.write_bytes(cut.read_bytes()[:20_000])
    write(folder / "low.wav", 1, sampling_rate=3_000)
    soundfile.write(folder / "loud.wav", np.linspace(-9_000, 9_000, 3_200), 16_000, subtype="FLOAT")
    soundfile.write(folder / "many.wav", np.random.default_rng(0).uniform(-0.5, 0.5, (3_200, 100)), 16_000)
    return {
        "cut.wav": "ends after 0.62 s, but its header promises 1.00 s; it was cut short, copy it again",
        "loud.wav": "samples reach 9000, full scale is 1; scale them to [-1, 1]",
        "low.wav": "sampling rate 3000; give a whole number of 4000 to 768000 Hz",
        "many.wav": "has 100 channels; keep at most 64",
    }


def test_what_training_refuses_is_a_fault_of_its_file(tmp_path):
    messages = refused(tmp_path)
    write(tmp_path / "a.wav", 2), write(tmp_path / "b.flac", 2)
    path = table(tmp_path, *(f"{name},anger" for name in ("a.wav", "b.flac", *messages)))
    duplicate, *faults = sorted(check("table", path).faults, key=lambda fault: (fault.kind, fault.file))
    assert (duplicate.kind, duplicate.file) == ("duplicate", "a.wav")
    assert {fault.file: fault.message for fault in faults} == messages
    assert {fault.kind for fault in faults} == {"unreadable"}
    for name, message in messages.items():
        with pytest.raises(ValueError, match=f"^{re.escape(f'{tmp_path / name}: {message}')}$"):
            read(tmp_path / name)


def test_a_recording_that_cannot_be_rewound_is_read(tmp_path):
    write(tmp_path / "a.wav", sampling_rate=8_000, duration_s=1.0, subtype="GSM610"), write(tmp_path / "b.wav", 1)
    report = check("table", table(tmp_path, "a.wav,anger", "b.wav,fear"))
    assert report.ok
    assert report.sampling_rates == {8_000: 1, 16_000: 1}
    assert report.duration_s[2] == pytest.approx(1.0, abs=0.05)  # the format holds whole blocks of 0.04 s


def test_what_prediction_finds_too_short_is_a_fault(tmp_path):
    write(tmp_path / "a.wav", duration_s=0.05), write(tmp_path / "b.wav", duration_s=0.1)
    path = table(tmp_path, "a.wav,anger", "b.wav,fear")
    (fault,) = check("table", path).faults
    assert (fault.kind, fault.file) == ("short", "a.wav")
    assert fault.message == "only 0.050 s of sound, too short to judge; give at least 0.1 s, or leave it out"
    assert len(clean(load_corpus("table", path))[0]) == 2  # training pads them


def test_command_line(tmp_path, capsys):
    write(tmp_path / "a.wav"), write(tmp_path / "b.wav", 1)
    path = table(tmp_path, "a.wav,anger", "b.wav,fear")
    assert cli.main(["corpus", "check", "table", "--root", str(path)]) == 0
    assert capsys.readouterr().out.endswith("No faults.\n")
    (tmp_path / "b.wav").write_text(POINTER)
    assert cli.main(["corpus", "check", "table", "--root", str(path), "--format", "json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["faults"][0]["kind"] == "lfs-pointer"
    assert told["faults"][0]["file"] == "b.wav"
    assert told["duration_s"] == {"min": 0.2, "median": 0.2, "max": 0.2}
    assert (told["corpus"], told["clips"], told["classes"], told["ok"]) == ("table", 2, {"anger": 1, "fear": 1}, False)
    assert told["sampling_rates"] == {"16000": 1}


@pytest.fixture
def spoilt(tmp_path):
    write(tmp_path / "a.wav"), write(tmp_path / "b.wav"), write(tmp_path / "c.wav", 1), write(tmp_path / "d.wav", 1)
    for name in "ef":
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(500), 16_000)
    write(tmp_path / "g.wav", 2)
    rows = zip("abcdefg", ["anger", "fear", "joy", "joy", "anger", "fear", "fear"], strict=True)
    return load_corpus("table", table(tmp_path, *(f"{name}.wav,{emotion}" for name, emotion in rows)))


def names(utterances) -> str:
    return "".join(utterance.path.stem for utterance in utterances)


def test_finding_clips_that_no_label_is_right_for(spoilt):
    assert names(silent_clips(spoilt)) == "ef"
    assert [names(group) for group in duplicate_clips(spoilt)] == ["ab", "cd", "ef"]
    assert [names(group) for group in contradictory_clips(spoilt)] == ["ab", "ef"]


def test_clean_drops_every_copy_and_says_why(spoilt):
    kept, removed = clean(spoilt)
    assert names(kept) == "cdg"
    assert [(utterance.path.stem, reason) for utterance, reason in removed] == [
        ("a", "contradictory: labelled anger, the same samples as b.wav (fear)"),
        ("b", "contradictory: labelled fear, the same samples as a.wav (anger)"),
        ("e", "silent"),
        ("f", "silent"),
    ]


@pytest.mark.parametrize(
    ("silent", "contradictory", "left"),
    [("keep", "keep", "abcdefg"), ("drop", "keep", "abcdg"), ("keep", "drop", "cdg")],
)
def test_clean_as_told(spoilt, silent, contradictory, left):
    assert names(clean(spoilt, silent, contradictory)[0]) == left


def test_clean_refuses_and_names_all(spoilt):
    with pytest.raises(ValueError, match=r"(?s)e\.wav: silent\n.*f\.wav: silent\n.*set silent to drop or keep"):
        clean(spoilt, silent="error")
    with pytest.raises(
        ValueError, match=r"(?s)a\.wav: contradictory: .*b\.wav: contra.*set contradictory to drop or keep"
    ):
        clean(spoilt, contradictory="error")


def test_copies_of_one_name_are_told_apart_by_their_folders(tmp_path, capsys):
    for folder in ("anger/ann", "anger/ben", "fear/ann"):
        write(tmp_path / folder / "1.wav")
    write(tmp_path / "fear" / "no faults\x1b[31m\n.wav").write_bytes(b"")
    report = check("folders", tmp_path)
    told = next(fault.message for fault in report.faults if fault.kind == "contradictory")
    assert told == f"the same samples in {tmp_path}/anger/ann/1.wav (anger), {tmp_path}/anger/ben/1.wav (anger), " + (
        f"{tmp_path}/fear/ann/1.wav (fear)"
    )
    assert "\x1b" not in report.to_text()
    assert "no faults\n" not in report.to_text()
    (tmp_path / "fear" / "no faults\x1b[31m\n.wav").unlink()
    _, removed = clean(load_corpus("folders", tmp_path))
    assert f"the same samples as {tmp_path}/anger/ben/1.wav (anger)" in removed[0][1]


def test_clean_refuses_files_without_audio(spoilt):
    spoilt[6].path.write_text(POINTER)
    with pytest.raises(ValueError, match=r"g\.wav: a Git LFS pointer, no audio; fetch"):
        clean(spoilt)


def test_clean_refuses_what_training_cannot_read(tmp_path):
    messages = refused(tmp_path)
    clips = load_corpus("table", table(tmp_path, *(f"{name},anger" for name in messages)))
    named = "\n".join(f"{tmp_path / name}: {message}" for name, message in messages.items())
    with pytest.raises(ValueError, match=f"^{re.escape(named)}$"):
        clean(clips)


@pytest.mark.corpus
@pytest.mark.skipif(not ROOT, reason="VERVET_CORPORA is not set")
@pytest.mark.parametrize("corpus", ["emodb", "cremad"])
def test_real_corpus_has_the_defects_of_its_release_alone(corpus):
    if not Path(ROOT or "", corpus).is_dir():
        pytest.skip(f"no {corpus} in VERVET_CORPORA")
    report = check(corpus)
    assert all(fault.known for fault in report.faults)
    assert sum(fault.kind == "silent" for fault in report.faults) == len(release_of(corpus).silent)
    assert sum(fault.kind == "contradictory" for fault in report.faults) == len(release_of(corpus).contradictory)


def test_a_part_is_what_a_file_of_its_own_would_be(tiny_corpus, tiny_calls):
    files, parts = load_corpus("table", tiny_corpus), load_corpus("table", tiny_calls)
    assert [audio_facts(one.sound) for one in parts] == [audio_facts(one.sound) for one in files]
    assert check("table", tiny_calls).ok
    both = audio_facts(replace(parts[1].sound, channel=None))
    assert (both.channels, both.samples) == (2, audio_facts(files[1].sound).samples)
    beyond = replace(parts[1], sound=replace(parts[1].sound, end_s=99.0))
    assert audio_facts(beyond.sound).problem == audio_facts(replace(parts[1].sound, channel=2)).problem == "part"
    with pytest.raises(ValueError, match=r"call_0\.wav#t=.*,99&channel=1: segment .* to 99 s is not within its"):
        clean([parts[0], beyond])
