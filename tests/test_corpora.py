import os
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vervet.audio import Part
from vervet.corpora import CORPORA, OWN, load_corpus, release_of

ROOT = os.environ.get("VERVET_CORPORA")


def touch(folder: Path, *names: str) -> Path:
    """Make files with a name and nothing in them: a corpus is listed without decoding its audio."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def table(folder: Path, *lines: str) -> Path:
    path = folder / "clips.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_emodb_names(tmp_path):
    touch(tmp_path, "wav/16b10Wb.wav", "wav/03a01Fa.WAV", "wav/._03a01Fa.wav", "wav/notes.txt", "erkennung.txt")
    happy, angry = load_corpus("emodb", tmp_path)
    assert happy.path == tmp_path / "wav/03a01Fa.WAV"
    assert (happy.emotion, happy.speaker, happy.sentence, happy.sex) == ("happiness", "03", "a01", "male")
    assert (angry.emotion, angry.speaker, angry.sentence, angry.sex) == ("anger", "16", "b10", "female")
    assert {happy.corpus, happy.split} == {"emodb", ""}


def test_several_corpora_as_one(tmp_path, monkeypatch):
    touch(tmp_path, "emodb/wav/03a01Fa.wav", "savee/DC_a01.wav")
    for root in (tmp_path, None):
        monkeypatch.setenv("VERVET_CORPORA", str(tmp_path))
        assert [utterance.corpus for utterance in load_corpus("savee+emodb", root)] == ["savee", "emodb"]
    for name, message in (
        ("emodb+emodb", "name each corpus once"),
        ("emodb+table", "'table' cannot be joined with others; these can: emodb, savee, cremad"),
        ("emodb+berlin", "'berlin' cannot be joined"),
    ):
        with pytest.raises(ValueError, match=message):
            load_corpus(name, tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        load_corpus("savee+cremad", tmp_path)


def test_folder_of_clips_is_a_root_too(tmp_path):
    touch(tmp_path, "wav/03a01Fa.flac")
    assert load_corpus("emodb", tmp_path / "wav") == load_corpus("emodb", tmp_path)


@pytest.mark.parametrize("layout", ["{}_{}.wav", "{}/{}.wav", "AudioData/{}/{}.wav"])
def test_savee_layouts(tmp_path, layout):
    touch(tmp_path, *(layout.format(*clip) for clip in [("DC", "a01"), ("JE", "sa15"), ("KL", "n30"), ("JK", "su03")]))
    found = {utterance.speaker: utterance for utterance in load_corpus("savee", tmp_path)}
    assert {speaker: found[speaker].emotion for speaker in found} == {
        "DC": "anger",
        "JE": "sadness",
        "KL": "neutral",
        "JK": "surprise",
    }
    # Numbers 01 to 03 are the same sentences in all emotions, the others belong to one.
    assert {speaker: found[speaker].sentence for speaker in found} == {
        "DC": "01",
        "JE": "sa15",
        "KL": "n30",
        "JK": "03",
    }
    assert {utterance.sex for utterance in found.values()} == {"male"}


def test_cremad_names_and_sexes(tmp_path):
    touch(tmp_path, "AudioWAV/1001_IEO_ANG_LO.wav", "AudioWAV/1002_DFA_NEU_XX.ogg")
    low, neutral = load_corpus("cremad", tmp_path)
    assert (low.emotion, low.speaker, low.sentence, low.sex) == ("anger", "1001", "IEO", "")
    (tmp_path / "VideoDemographics.csv").write_text('"ActorID","Age","Sex"\n1001,51,"Male"\n1002,21,"Female"\n')
    low, neutral = load_corpus("cremad", tmp_path)
    assert (low.sex, neutral.sex, neutral.emotion) == ("male", "female", "neutral")


def test_demographics_that_are_another_table(tmp_path):
    touch(tmp_path, "AudioWAV/1001_IEO_ANG_LO.wav")
    (tmp_path / "VideoDemographics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"VideoDemographics\.csv: no column ActorID and no column Sex"):
        load_corpus("cremad", tmp_path)
    for row in ("1001,51,", "1001,51,Mail"):
        (tmp_path / "VideoDemographics.csv").write_text(f"ActorID,Age,Sex\n{row}\n")
        with pytest.raises(
            ValueError, match=r"VideoDemographics\.csv, line 2: unknown sex .*; take the file of the release"
        ):
            load_corpus("cremad", tmp_path)


def test_what_lies_in_hidden_folders_is_no_clip(tmp_path):
    touch(tmp_path, "DC/a01.wav", ".Trash/DC_a02.wav")
    assert [utterance.path.name for utterance in load_corpus("savee", tmp_path)] == ["a01.wav"]


@pytest.mark.parametrize(
    ("corpus", "name"),
    [
        ("emodb", "03a01Xa.wav"),
        ("emodb", "04a01Fa.wav"),
        ("emodb", "03a03Fa.wav"),
        ("savee", "DC_b01.wav"),
        ("savee", "XX/a01.wav"),
        ("cremad", "1092_DFA_ANG_XX.wav"),
        ("cremad", "1001_DFA_ANG.wav"),
        ("cremad", "1001_DFA_SUR_XX.wav"),
    ],
)
def test_misnamed_file_is_named(tmp_path, corpus, name):
    touch(tmp_path, name)
    with pytest.raises(ValueError, match=f"{name}: not the name of a clip of {release_of(corpus).title}, such as "):
        load_corpus(corpus, tmp_path)


def test_many_misnamed_files_are_counted(tmp_path):
    touch(tmp_path, *(f"x{i}.wav" for i in range(8)))
    with pytest.raises(ValueError, match=r"(?s)x0\.wav: .*x4\.wav: .*\nand 3 more; `vervet corpus check emodb` names"):
        load_corpus("emodb", tmp_path)


def test_one_clip_in_two_files(tmp_path):
    touch(tmp_path, "03a01Fa.flac", "03a01Fa.wav")
    with pytest.raises(ValueError, match=r"03a01Fa\.wav: clip 03a01Fa is also .*03a01Fa\.flac; keep one"):
        load_corpus("emodb", tmp_path)


def test_one_clip_in_both_layouts(tmp_path):
    touch(tmp_path, "DC/a01.wav", "DC_a01.wav")
    with pytest.raises(ValueError, match="clip DC_a01 is also"):
        load_corpus("savee", tmp_path)


def test_empty_and_missing_folders(tmp_path):
    with pytest.raises(ValueError, match=r"no audio files \(\.wav, \.wave, \.flac, \.ogg, "):
        load_corpus("emodb", tmp_path)
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        load_corpus("savee", tmp_path / "nowhere")
    file = touch(tmp_path, "file") / "file"
    with pytest.raises(ValueError, match="file: not a folder"):
        load_corpus("emodb", file)


def test_unknown_corpus_lists_the_known():
    with pytest.raises(ValueError, match="unknown corpus 'iemocap'; known are emodb, savee, cremad, folders, table"):
        load_corpus("iemocap")


def test_default_place(tmp_path, monkeypatch):
    monkeypatch.delenv("VERVET_CORPORA", raising=False)
    with pytest.raises(ValueError, match="set the environment variable VERVET_CORPORA"):
        load_corpus("emodb")
    with pytest.raises(ValueError, match="to the folder that holds cremad/ and emodb/"):
        load_corpus("cremad+emodb")
    with pytest.raises(ValueError, match="give the path of the CSV file"):
        load_corpus("table")
    monkeypatch.setenv("VERVET_CORPORA", str(touch(tmp_path, "emodb/wav/03a01Fa.wav")))
    assert [utterance.speaker for utterance in load_corpus("emodb")] == ["03"]


def test_table(tmp_path):
    touch(tmp_path, "b.wav", "sub/a.mp3")
    path = table(
        tmp_path,
        "file,emotion,speaker,sex,split,note",
        "sub/a.mp3,Angry,anna,F,dev,loud",
        "b.wav, joy ,,,TRAIN,",
    )
    happy, angry = load_corpus("table", path)
    assert (happy.path, happy.emotion, happy.speaker, happy.split) == (tmp_path / "b.wav", "happiness", "", "train")
    assert (angry.path, angry.emotion, angry.sex, angry.split) == (
        tmp_path / "sub/a.mp3",
        "anger",
        "female",
        "validation",
    )
    assert (angry.sentence, angry.corpus) == ("", "table")
    path = table(tmp_path, "file,emotion,speaker,sex,split", "b.wav,joy,nan,NaN,<NA>", "sub/a.mp3,anger,Nan,,")
    assert [(one.speaker, one.sex, one.split) for one in load_corpus("table", path)] == [("", "", ""), ("Nan", "", "")]
    with pytest.raises(ValueError, match="no emotion is named"):
        load_corpus("table", table(tmp_path, "file,emotion", "b.wav,nan"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["file,label", "a.wav,anger"], "no column emotion; the first line has file, label"),
        (["path"], "no column file and no column emotion"),
        ([""], "the first line has nothing"),
        (["file,emotion"], "no rows"),
        (
            ["file,emotion", "a.wav,anger", "b.wav,angr"],
            r"b\.wav: line 3 of clips\.csv: unknown emotion 'angr'; did you mean 'angry'",
        ),
        (
            ["file,emotion", "a.wav,Bliss", "b.wav,bliss"],
            "line 3 of clips.csv: one emotion is written 'Bliss' and 'bliss'",
        ),
        (["file,emotion", "a.wav,"], "line 2 of clips.csv: no emotion is named"),
        (["file,emotion", "a.wav,speaker"], "cannot be called 'speaker'"),
        (["file,emotion", "c.wav,anger"], r"c\.wav: line 2 of clips\.csv: no such file"),
        (["file,emotion", ",anger"], "line 2 of clips.csv: no such file"),
        (["file,emotion", "a.wav,anger", "./a.wav,fear"], r"line 3 of clips\.csv: already on line 2; keep one"),
        (
            ["file,emotion,end", "a.wav,anger,2", "a.wav,anger,2.0"],
            r"line 3 of clips\.csv: already on line 2; keep one",
        ),
        (["file,emotion,start,end", "a.wav,anger,2,1"], r"line 2 of clips\.csv: ends at 1 s, and begins at 2 s"),
        (["file,emotion,start", "a.wav,anger,soon"], r"line 2 of clips\.csv: 'soon' is not a time; write seconds"),
        (
            ["file,emotion,channel", "a.wav,anger,-1"],
            r"line 2 of clips\.csv: channel '-1' is not a number, 0 the first",
        ),
        (["file,emotion,split", "a.wav,fear,exam"], "line 2 of clips.csv: unknown split 'exam'; known are train, "),
        (["file,emotion,sex", "a.wav,fear,x"], "unknown sex 'x'; known are female"),
    ],
)
def test_faulty_table(tmp_path, rows, message):
    touch(tmp_path, "a.wav", "b.wav")
    with pytest.raises(ValueError, match=message):
        load_corpus("table", table(tmp_path, *rows))


def test_a_table_may_have_emotions_of_its_own(tmp_path):
    touch(tmp_path, "a.wav", "b.wav", "c.wav", "d.wav")
    path = table(tmp_path, "file,emotion", "a.wav,calm", "b.wav,Neutral", "c.wav,stage fright", "d.wav,Happy")
    assert [u.emotion for u in load_corpus("table", path)] == ["calm", "neutral", "stage fright", "happiness"]


def test_a_table_names_parts_of_files(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    path = table(
        tmp_path, "file,emotion,start,end,channel", "b.wav,fear,10,12.5,1", "b.wav,anger,9,12.5,0",
        "b.wav,neutral,0 days 00:00:02,NaT,", "a.wav,anger,0 days 00:00:00,NaT,",
    )  # fmt: skip
    found = load_corpus("table", path)
    assert [u.name for u in found] == ["a.wav", "b.wav#t=2", "b.wav#t=9,12.5&channel=0", "b.wav#t=10,12.5&channel=1"]
    assert [u.sound for u in found] == [
        tmp_path / "a.wav", Part(tmp_path / "b.wav", 2.0), Part(tmp_path / "b.wav", 9.0, 12.5, 0),
        Part(tmp_path / "b.wav", 10.0, 12.5, 1),
    ]  # fmt: skip


def test_folders(tmp_path):
    touch(tmp_path, "Angry/2.wav", "Angry/ann/1.flac", "lampenfieber/1.MP3", "readme.txt", ".hidden/1.wav")
    touch(tmp_path, "Angry/.DS_Store", "Angry/notes.txt")
    found = [(u.path.relative_to(tmp_path).as_posix(), u.emotion, u.speaker) for u in load_corpus("folders", tmp_path)]
    assert found == [
        ("Angry/2.wav", "anger", ""), ("Angry/ann/1.flac", "anger", "ann"), ("lampenfieber/1.MP3", "lampenfieber", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a.wav"], "no folders in it; give each emotion a folder of its own"),
        (["anger/a.wav", "fear/notes.txt"], r"fear: no audio files \(\.wav"),
        (["anger/ann/monday/a.wav", "anger/b.wav"], "monday: a folder inside that of a speaker"),
        (["anger/a.wav", "sadnes/a.wav"], "unknown emotion 'sadnes'; did you mean 'sadness'"),
        (["anger/a.wav", "b.wav"], "b.wav: beside the folders of emotions"),
        (["anger/a.wav", "anger/b.m4a"], "b.m4a: .m4a is not decoded here; convert it to WAV or FLAC"),
        (["ann/angry/a.wav", "ann/awe/b.wav", "ben/Sad/a.wav"], r"speakers \(ann\) with folders of emotions \(angry\)"),
    ],
)
def test_faulty_folders(tmp_path, files, message):
    touch(tmp_path, *files)
    with pytest.raises(ValueError, match=message):
        load_corpus("folders", tmp_path)


def test_an_emotion_that_a_table_has_twice_is_none(tmp_path):
    touch(tmp_path, "a.wav")
    (tmp_path / "t.csv").write_text("file,note,emotion,note,emotion\na.wav,x,anger,y,fear\n")
    with pytest.raises(ValueError, match=r"t\.csv: two columns have the same name, emotion; rename one"):
        load_corpus("table", tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("file,note,emotion,note\na.wav,x,anger,y\n")
    assert [utterance.emotion for utterance in load_corpus("table", tmp_path / "t.csv")] == ["anger"]


def test_one_voice_in_two_forms_of_its_name_is_one(tmp_path):
    decomposed, composed = (unicodedata.normalize(form, "José") for form in ("NFD", "NFC"))
    touch(tmp_path, "a.wav", "b.wav", f"clips/anger/{decomposed}/a.wav")
    (tmp_path / "t.csv").write_text(f"file,emotion,speaker\na.wav,anger,{decomposed}\nb.wav,fear,{composed} \n")
    assert {utterance.speaker for utterance in load_corpus("table", tmp_path / "t.csv")} == {composed}
    assert {utterance.speaker for utterance in load_corpus("folders", tmp_path / "clips")} == {composed}


def test_table_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="a folder; give the CSV file with the columns file, emotion"):
        load_corpus("table", tmp_path)
    with pytest.raises(ValueError, match=r"none\.csv: no such table"):
        load_corpus("table", tmp_path / "none.csv")
    soundfile.write(tmp_path / "a.wav", np.full(99, -0.3), 16_000)
    with pytest.raises(ValueError, match=r"a\.wav: not a CSV file in UTF-8"):
        load_corpus("table", tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('b.wav,"fear\nc.wav,anger\n', r"t\.csv: the row of line 3 is not CSV \(unexpected end of data\)"),
        ("b.wav,fear,c.wav,anger\n", r"t\.csv: line 3: 4 values under 2 columns; quote those that hold a comma"),
        ("b.wav\n", r"t\.csv: line 3: 1 values under 2 columns; leave none out, not even an empty one"),
    ],
)
def test_no_row_of_a_table_is_taken_for_a_part_of_another(tmp_path, row, message):
    (tmp_path / "t.csv").write_text(f"file , emotion\na.wav,anger\n{row}")
    with pytest.raises(ValueError, match=message):
        load_corpus("table", tmp_path / "t.csv")


@pytest.mark.parametrize(("corpus", "clips", "speakers"), [("emodb", 535, 10), ("savee", 480, 4), ("cremad", 7442, 91)])
def test_releases_add_up(corpus, clips, speakers):
    release = release_of(corpus)
    assert len(release.stems) == sum(release.classes.values()) == sum(release.speakers.values()) == clips
    assert len(release.speakers) == speakers
    assert release.silent <= release.stems.keys()
    assert all(group <= release.stems.keys() for group in release.contradictory)


def test_published_classes():
    assert release_of("emodb").classes == {
        "anger": 127,
        "boredom": 81,
        "disgust": 46,
        "fear": 69,
        "happiness": 71,
        "neutral": 79,
        "sadness": 62,
    }
    cremad = dict.fromkeys(("anger", "disgust", "fear", "happiness", "sadness"), 1271) | {"neutral": 1087}
    assert release_of("cremad").classes == cremad
    assert release_of("savee").classes["neutral"] == 120


@pytest.mark.corpus
@pytest.mark.skipif(not ROOT, reason="VERVET_CORPORA is not set")
@pytest.mark.parametrize("corpus", [name for name in CORPORA if name not in OWN])
def test_real_corpus(corpus):
    if not Path(ROOT or "", corpus).is_dir():
        pytest.skip(f"no {corpus} in VERVET_CORPORA")
    utterances = load_corpus(corpus)
    assert Counter(utterance.emotion for utterance in utterances) == release_of(corpus).classes
    assert Counter(utterance.speaker for utterance in utterances) == release_of(corpus).speakers
    assert utterances == sorted(utterances, key=lambda utterance: utterance.path)
