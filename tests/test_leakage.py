import json

import numpy as np
import pytest
import soundfile

from vervet import cli
from vervet.audio import Part
from vervet.corpora import Utterance
from vervet.evaluation.leakage import audit, count_heard, heard_shares, read_split, voices_of


def row(file: str, split: str, **columns: str) -> dict[str, str]:
    return {"file": file, "split": split} | columns


def told(finding) -> str:
    return " ".join(finding.verdict)


def write(path, seed: int):
    soundfile.write(path, np.random.default_rng(seed).integers(-9_000, 9_000, 400, np.int16), 16_000)


def test_versions_of_a_clip_on_both_sides_are_a_leak():
    rows = [row("a.wav", "train", version="original"), row("a.wav", "test", version="noise"), row("b.wav", "test")]
    finding = audit(rows)
    assert finding.leaky
    pair = finding.between("train", "test")
    assert (pair.clips, pair.siblings, pair.items, pair.share) == (("a.wav",), 1, 2, 0.5)
    assert finding.verdict[0].startswith(
        "LEAKY: 1 of 2 (50.0%) test items are versions or copies of clips in training."
    )


def test_source_tells_versions_in_files_of_their_own():
    rows = [row("a.wav", "train", source="a"), row("a_fast.wav", "test", source="a")]
    assert audit(rows).leaky
    assert not audit([row("a.wav", "train"), row("a_fast.wav", "test")]).leaky


def test_one_file_in_two_spellings_is_one_clip():
    assert audit([row("a.wav", "train"), row("./a.wav", "test")]).leaky


def test_a_speaker_that_a_table_calls_nan_is_unknown(tmp_path):
    (tmp_path / "s.csv").write_text("file,split,speaker\na.wav,train,nan\nb.wav,test,1\nc.wav,train,NaN\n")
    finding = audit(read_split(tmp_path / "s.csv"))
    assert "Speaker-independent" not in told(finding)


def test_copies_under_another_name_are_found_by_their_samples(tmp_path):
    write(tmp_path / "a.wav", 0), write(tmp_path / "copy.flac", 0), write(tmp_path / "b.wav", 1)
    rows = [row("a.wav", "train"), row("copy.flac", "test"), row("b.wav", "test")]
    finding = audit(rows, tmp_path)
    assert finding.leaky
    assert (finding.files_read, finding.files) == (3, 3)
    assert finding.between("train", "test").duplicates == (("a.wav", "copy.flac"),)
    assert finding.between("train", "test").clips == ()
    assert "all 3 files were compared sample by sample" in told(finding)


def test_files_not_at_hand_are_not_called_clean(tmp_path, monkeypatch):
    monkeypatch.delenv("VERVET_CORPORA", raising=False)
    rows = [row("a.wav", "train", corpus="mine"), row("b.wav", "test", corpus="mine")]
    assert "not checked, none of the 2 files can be read" in told(audit(rows, tmp_path))
    write(tmp_path / "a.wav", 0)
    assert "checked for 1 of 2 files only" in told(audit(rows, tmp_path))
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine/b.wav", 0)
    monkeypatch.setenv("VERVET_CORPORA", str(tmp_path))
    assert audit(rows).leaky
    assert audit([row(str(tmp_path / "a.wav"), "train"), row(str(tmp_path / "mine/b.wav"), "test")]).leaky


def test_speakers_and_sentences_on_both_sides():
    rows = [
        row("a.wav", "train", speaker="1", sentence="x"),
        row("b.wav", "validation", speaker="2", sentence="y"),
        row("c.wav", "test", speaker="2", sentence="z"),
        row("d.wav", "test", speaker="3", sentence="x"),
    ]
    finding = audit(rows)
    assert (finding.leaky, finding.speaker_independent, finding.sentence_independent) == (False, False, False)
    assert finding.between("train", "test").speakers == ()
    assert finding.between("validation", "test").speakers == ("2",)
    assert finding.between("train", "test").sentences == ("x",)
    assert "1 of 2 test speakers are heard in training or validation" in told(finding)
    assert "1 test sentence(s) are spoken in training or validation too" in told(finding)


def test_independent_split_is_said_to_be_so():
    rows = [
        row("a.wav", "train", speaker="1", sentence="x"),
        row("b.wav", "validation", speaker="1", sentence="x"),
        row("c.wav", "test", speaker="2", sentence="z"),
    ]
    finding = audit(rows)
    assert (finding.leaky, finding.speaker_independent, finding.sentence_independent) == (False, True, True)
    assert "Speaker-independent: the score tells about new speakers, from 1 speaker." in told(finding)
    assert "Validation speakers are heard in training" in told(finding)
    assert "Sentence-independent" in told(finding)


def test_what_is_unknown_is_not_called_independent():
    finding = audit([row("a.wav", "train", speaker="1"), row("b.wav", "test")])
    assert (finding.speaker_independent, finding.sentence_independent) == (None, None)
    assert "must not be called speaker-independent" in told(finding)


def test_speakers_of_two_corpora_are_not_confused():
    rows = [row("a.wav", "train", speaker="1", corpus="x"), row("b.wav", "test", speaker="1", corpus="y")]
    assert audit(rows).speaker_independent


def test_leak_through_validation():
    rows = [row("a.wav", "train"), row("b.wav", "validation"), row("b.wav", "test"), row("a.wav", "validation")]
    finding = audit(rows)
    assert finding.leaky
    assert finding.between("train", "test").siblings == 0
    assert "on which epochs and settings are chosen" in told(finding)
    assert "1 of 2 (50.0%) validation items" in told(finding)


def test_contradictory_labels(tmp_path):
    write(tmp_path / "a.wav", 0), write(tmp_path / "b.wav", 0)
    rows = [row("a.wav", "train", emotion="anger"), row("b.wav", "test", emotion="fear")]
    assert audit(rows, tmp_path).contradictory == (("a.wav (anger)", "b.wav (fear)"),)
    same = [row("a.wav", "train", emotion="ANG"), row("a.wav", "test", emotion="angry")]
    assert audit(same).contradictory == ()
    beyond = [row("a.wav", "train", emotion="envy"), row("a.wav", "test", emotion="pride")]
    assert audit(beyond).contradictory == (("a.wav (envy)", "a.wav (pride)"),)


def test_one_sided_split():
    with pytest.raises(ValueError, match="no row with split test"):
        audit([row("a.wav", "train")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,fold\na.wav,1\n", r"split\.csv: no column split; the first line has file, fold"),
        ("name\na.wav\n", "no column file and no column split"),
        ("file,split\na.wav,train\nb.wav,tset\n", r"split\.csv, line 3: unknown split 'tset'; known are train"),
        ("file,split\n,train\n", "line 2: the column file is empty"),
        ("file,split\n", "no rows"),
    ],
)
def test_faulty_split(tmp_path, text, message):
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_split(tmp_path / "split.csv")


def test_command_line(tmp_path, capsys):
    write(tmp_path / "a.wav", 0), write(tmp_path / "b.wav", 0)
    (tmp_path / "split.csv").write_text("file,split,speaker\na.wav,Train,1\nb.wav,dev,2\nb.wav,test,1\n")
    assert cli.main(["audit", str(tmp_path / "split.csv")]) == 0
    text = capsys.readouterr().out
    assert text.startswith("1 train, 1 validation, 1 test\n\n- LEAKY: ")
    assert "  exact copies of other clips      1  a.wav = b.wav" in text
    assert cli.main(["audit", str(tmp_path / "split.csv"), "--format", "json"]) == 0
    finding = json.loads(capsys.readouterr().out)
    assert (finding["leaky"], finding["speaker_independent"]) == (True, False)
    assert [shared["sides"] for shared in finding["shared"]] == [
        ["train", "validation"],
        ["train", "test"],
        ["validation", "test"],
    ]
    assert finding["shared"][1]["share"] == 1.0
    (tmp_path / "bad.csv").write_text("file\na.wav\n")
    assert cli.main(["audit", str(tmp_path / "bad.csv")]) == 1
    assert "bad.csv: no column split" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("one", "other", "leaks"),
    [
        ({"start": "0", "end": "4"}, {"start": "4", "end": "8"}, False),
        ({"start": "0", "end": "4"}, {"start": "2.1", "end": "6.1"}, False),
        ({"start": "0", "end": "4"}, {"start": "1.9", "end": "5.9"}, True),
        ({"start": "0", "end": "4", "channel": "0"}, {"start": "0", "end": "4", "channel": "1"}, False),
        ({"start": "0", "end": "4", "channel": "0"}, {"start": "0", "end": "4"}, True),
        ({"start": "0", "end": "9"}, {"start": "2", "end": "3"}, True),
        ({"start": "2", "end": "3"}, {"start": "0", "end": "9"}, False),  # a word within what is tested
        ({}, {"start": "2", "end": "3"}, True),
        ({"start": "0", "end": "2"}, {"start": "2"}, False),
        ({"start": "0", "end": "2.5"}, {"start": "2"}, True),
    ],
)
def test_parts_that_overlap_are_a_leak(one, other, leaks):
    finding = audit([row("call.wav", "train", **one), row("call.wav", "test", **other), row("b.wav", "test")])
    assert finding.leaky is leaks
    pair = finding.between("train", "test")
    assert (pair.siblings, len(pair.overlaps), pair.clips) == (leaks, leaks, ())
    assert finding.to_text().count("parts that overlap") == leaks


def test_what_is_heard_of_a_part_is_summed_up_over_all_others():
    rows = [row("call.wav", "train", start=s, end=e) for s, e in (("0", "3"), ("5", "8"), ("1", "2"))]
    assert audit([*rows, row("call.wav", "test", start="2", end="6")]).leaky
    assert audit([*rows, row("./call.wav", "test", start="2", end="6")]).leaky
    assert not audit([*rows, row("call.wav", "test", start="2.1", end="6")]).leaky


def test_shares_are_as_if_every_tenth_of_a_second_was_counted():
    rng = np.random.default_rng(0)
    starts, lengths = rng.integers(0, 1000, 300), rng.choice([10, 40, 300], 300)
    files, channels = rng.choice(["a", "b"], 300), rng.choice([None, 0, 1], 300)
    parts = [
        Part(file, start / 10, (start + length) / 10, channel)
        for file, start, length, channel in zip(files, starts, lengths, channels, strict=True)
    ]
    known, asked = parts[:40], parts[40:]

    def tenths(part):
        return set(range(round(10 * part.start_s), round(10 * part.end_s)))

    def alike(one, other):
        return one.sound == other.sound and (one.channel == other.channel or None in (one.channel, other.channel))

    heard = [set().union(*(tenths(one) for one in known if alike(one, part))) & tenths(part) for part in asked]
    expected = [len(own) / len(tenths(part)) for own, part in zip(heard, asked, strict=True)]
    assert 50 < sum(0 < share < 1 for share in expected) < 260
    assert heard_shares(known, asked) == pytest.approx(expected)


def test_parts_of_a_file_are_clips_of_their_own(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.arange(3_200, dtype=np.int16), 16_000)
    soundfile.write(tmp_path / "copy.wav", np.arange(1_600, dtype=np.int16), 16_000)
    (tmp_path / "split.csv").write_text(
        "file,split,start,end\na.wav,train,0,0.1\na.wav,test,0.1,0.2\ncopy.wav,test,,\n"
    )
    finding = audit(read_split(tmp_path / "split.csv"), tmp_path)
    assert finding.between("train", "test").duplicates == (("a.wav#t=0,0.1", "copy.wav"),)
    assert (finding.files_read, finding.files, finding.between("train", "test").siblings) == (2, 2, 1)
    (tmp_path / "split.csv").write_text("file,split,start\na.wav,train,late\na.wav,test,\n")
    with pytest.raises(ValueError, match=r"split\.csv, line 2: 'late' is not a time"):
        read_split(tmp_path / "split.csv")


def test_clips_of_a_corpus_are_known_by_name_and_speaker(tmp_path):
    names = ["1001_DFA_ANG_XX.ogg", "1055_DFA_ANG_XX.mp3", "DC/a01.wav", "JK_a01.wav", "1001_DFA_ANG.wav", "a01.wav"]
    own = [Utterance(tmp_path / name, "anger", "table") for name in names]
    card = {"corpora": ["cremad", "savee", "table"], "voices": {"cremad": ["1001"], "savee": ["DC"]}}
    assert [count_heard(card, [one]) for one in own] == [1, 0, 1, 0, 0, 0]
    assert count_heard(card, [Utterance(tmp_path / names[0], "anger", "cremad")]) == 0  # whose split tells
    older = {"corpora": ["emodb", "savee"]}
    assert {corpus: len(speakers) for corpus, speakers in voices_of(older).items()} == {"emodb": 10, "savee": 4}
    assert count_heard(older, own) == 2
