from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from vervet.audio import Part
from vervet.corpora import Utterance
from vervet.evaluation.protocols import Sample, split

VERSIONS = ("original", "speed", "noise", "shift")


def corpus(speakers=("03", "08", "09", "10", "11"), name="emodb", clips=20, root="/data"):
    emotions = ("anger", "fear", "neutral", "sadness")
    return [
        Utterance(Path(root) / f"{speaker}_{k:02d}.wav", emotions[k % 4], name, speaker, sentence=f"s{k}")
        for speaker in speakers
        for k in range(clips)
    ]


def sources(samples):
    return {sample.utterance for sample in samples}


@pytest.mark.parametrize("protocol", ["paper", "clip"])
def test_folds_of_the_random_protocols_test_everything_once(protocol):
    utterances, tested = corpus(), Counter()
    for fold in range(5):
        made = split(utterances, protocol, fold, 0, VERSIONS)
        assert made.folds == 5
        everything = [*made.train, *made.test, *(made.validation if protocol == "clip" else ())]
        assert len(everything) == len(set(everything)) == {"paper": 400, "clip": 316}[protocol]
        tested.update(made.test)
    expected = VERSIONS if protocol == "paper" else ("original",)
    assert tested == Counter(Sample(utterance, version) for utterance in utterances for version in expected)


def test_paper_pools_versions_and_is_leaky():
    made = split(corpus(), "paper", 0, 0, VERSIONS)
    assert made.leaky
    assert (len(made.train), len(made.validation), len(made.test)) == (320, 8, 80)
    assert set(made.validation) < set(made.train)
    shared = sum(sample.utterance in sources(made.train) for sample in made.test)
    assert shared / len(made.test) > 0.9


@pytest.mark.parametrize(("clips", "test"), [(480, 384), (535, 428), (7442, 5954)])
def test_paper_test_sides_are_as_large_as_the_published_ones(clips, test):
    utterances = [Utterance(Path(f"/{k}.wav"), ("anger", "fear")[k % 2], "emodb", "03") for k in range(clips)]
    assert len(split(utterances, "paper", 0, 0, VERSIONS).test) == test


def test_clip_keeps_a_clip_on_one_side_and_tests_originals():
    made = split(corpus(), "clip", 1, 0, VERSIONS)
    assert not made.leaky
    assert not sources(made.train) & (sources(made.test) | sources(made.validation))
    assert {sample.version for sample in (*made.test, *made.validation)} == {"original"}
    assert Counter(sample.version for sample in made.train) == dict.fromkeys(VERSIONS, 72)


@pytest.mark.parametrize("protocol", ["paper", "clip"])
def test_random_protocols_are_stratified_and_follow_the_seed(protocol):
    made = split(corpus(), protocol, 0, 0, VERSIONS)
    counts = Counter(sample.utterance.emotion for sample in made.test)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert split(corpus(), protocol, 0, 0, VERSIONS) == made
    assert split(corpus(), protocol, 0, 1, VERSIONS).hash() != made.hash()


def test_speaker_leaves_one_out_and_validates_on_another():
    for fold, speaker in enumerate(("03", "08", "09", "10", "11")):
        made = split(corpus(), "speaker", fold, 0, VERSIONS)
        heard, validating, tested = (
            {sample.utterance.speaker for sample in side} for side in (made.train, made.validation, made.test)
        )
        assert tested == {speaker}
        assert len(validating) == 1
        assert not heard & validating
        assert heard | validating | tested == {"03", "08", "09", "10", "11"}
        assert {sample.version for sample in (*made.test, *made.validation)} == {"original"}


def test_sentence_keeps_a_sentence_on_one_side():
    tested = Counter()
    for fold in range(5):
        made = split(corpus(), "sentence", fold, 0, VERSIONS)
        sides = [{sample.utterance.sentence for sample in side} for side in (made.train, made.validation, made.test)]
        assert [len(side) for side in sides] == [14, 2, 4]
        assert len(set.union(*sides)) == 20
        tested.update(sides[2])
    assert set(tested.values()) == {1}


def test_speaker_uses_blocks_of_actors_on_cremad():
    actors = tuple(str(actor) for actor in range(1001, 1092))
    utterances = corpus(actors, "cremad", clips=4)
    sizes = []
    for fold in range(5):
        made = split(utterances, "speaker", fold, 0, VERSIONS)
        tested = sorted({sample.utterance.speaker for sample in made.test})
        sizes.append((tested[0], tested[-1], len(tested)))
        assert len({sample.utterance.speaker for sample in made.validation}) == 8
    assert sizes == [
        ("1001", "1018", 18), ("1019", "1036", 18), ("1037", "1054", 18), ("1055", "1072", 18), ("1073", "1091", 19),
    ]  # fmt: skip


def test_table_follows_its_split_column():
    sides = ["train"] * 60 + ["validation"] * 20 + ["test"] * 20
    utterances = [Utterance(u.path, u.emotion, "table", split=side) for u, side in zip(corpus(), sides, strict=True)]
    made = split(utterances, "table", 0, 0, VERSIONS)
    assert (len(made.train), len(made.validation), len(made.test)) == (240, 20, 20)
    unvalidated = [u for u in utterances if u.split != "validation"]
    made = split(unvalidated, "table", 0, 0, VERSIONS)
    assert (len(made.train), len(made.validation), len(made.test)) == (216, 6, 20)


def test_the_hash_does_not_depend_on_where_the_corpus_lies():
    here = split(corpus(root="/here"), "speaker", 0, 0, VERSIONS)
    there = split(corpus(root="/there/deep"), "speaker", 0, 0, VERSIONS)
    assert here.hash() == there.hash()
    assert here.hash() != split(corpus(root="/here"), "speaker", 1, 0, VERSIONS).hash()


def test_rows_are_relative_to_the_root():
    row = split(corpus(), "paper", 0, 0, VERSIONS).rows(Path("/"))[0]
    assert set(row) == {"file", "source", "version", "split", "emotion", "speaker", "sentence", "corpus"}
    assert row["file"] == f"data/{row['source']}.wav"


def test_a_number_behind_a_dot_is_part_of_a_name():
    clips = [replace(one, sound=Path(f"/data/talk.{number:03}")) for number, one in enumerate(corpus())]
    assert len({row["source"] for row in split(clips, "speaker", 0, 0, ("original",)).rows()}) == len(clips)


def test_rows_of_recordings_outside_the_root(monkeypatch):
    monkeypatch.chdir("/")
    row = split(corpus(root="/elsewhere"), "paper", 0, 0, VERSIONS).rows(Path("data"))[0]
    assert row["file"] == f"../elsewhere/{row['source']}.wav"


@pytest.mark.parametrize(
    ("protocol", "fold", "utterances", "message"),
    [
        (
            "random",
            0,
            corpus(),
            "unknown protocol 'random'; known are paper, clip, sentence, speaker, speakers, table, all",
        ),
        ("paper", 5, corpus(), "protocol paper has folds 0 to 4 here, not 5"),
        ("speaker", 5, corpus(), "protocol speaker has folds 0 to 4 here, not 5"),
        ("speaker", 0, corpus(("03", "08")), "needs at least 3 speakers, this corpus has 2"),
        ("speaker", 0, corpus(("",)), "needs the speaker of every utterance"),
        ("table", 0, corpus(), "needs a split"),
        ("sentence", 0, corpus(name="savee"), "SAVEE's neutral clips repeat sentences"),
        ("clip", 0, corpus(("03",), clips=1), "the training side is empty"),
    ],
)
def test_impossible_splits_are_refused(protocol, fold, utterances, message):
    with pytest.raises(ValueError, match=message):
        split(utterances, protocol, fold, 0, VERSIONS)


def test_speakers_tests_every_voice_once_in_five_folds():
    utterances, tested = corpus(speakers=[f"{k:02d}" for k in range(12)]), Counter()
    for fold in range(5):
        made = split(utterances, "speakers", fold, 0, VERSIONS)
        assert made.folds == 5
        voices = [{utterance.speaker for utterance in sources(side)} for side in made.sides.values()]
        assert not voices[0] & voices[1]
        assert not voices[2] & (voices[0] | voices[1])
        tested.update(voices[2])
    assert tested == Counter(f"{k:02d}" for k in range(12))


def test_all_trains_on_everything_and_tests_nothing():
    made = split(corpus(), "all", 0, 0, VERSIONS)
    assert (made.folds, len(made.train), made.validation, made.test, made.leaky) == (1, 400, (), (), False)
    with pytest.raises(ValueError, match="the training side is empty"):
        split([], "all", 0, 0, VERSIONS)


@pytest.mark.parametrize("clips", [14, 96, 101, 103])
def test_by_clip_every_clip_is_tested_once_whatever_their_number(clips):
    utterances = [Utterance(Path(f"/{k}.wav"), ("anger", "fear")[k % 2], "table") for k in range(clips)]
    tested = [
        utterance for fold in range(5) for utterance in sources(split(utterances, "clip", fold, 0, VERSIONS).test)
    ]
    assert Counter(tested) == Counter(utterances)


def test_several_corpora_are_split_one_by_one():
    german = corpus()
    english = corpus([str(number) for number in range(1001, 1092, 3)], name="cremad", clips=4, root="/other")
    for fold in range(5):
        made = split([*english, *german], "speaker", fold, 0, VERSIONS)
        alone = [split(part, "speaker", fold, 0, VERSIONS) for part in (english, german)]
        assert made.folds == 5
        for name, side in made.sides.items():
            assert side == alone[0].sides[name] + alone[1].sides[name]
    four = corpus(["DC", "JE", "JK", "KL"], name="savee")
    last = split([*four, *german], "speaker", 4, 0, VERSIONS)  # beyond the folds of the smaller one
    assert {sample.utterance.speaker for sample in last.test} == {"DC", "11"}
    with pytest.raises(ValueError, match="these corpora together have folds 0 to 4, not 5"):
        split([*four, *german], "speaker", 5, 0, VERSIONS)


@pytest.mark.parametrize("protocol", ["clip", "speaker", "paper"])
def test_what_validates_may_train_as_well_and_the_test_stays_as_it_is(protocol):
    made = split(corpus(), protocol, 1, 0, VERSIONS)
    more = made.without_validation(VERSIONS)
    assert (more.validation, more.test) == ((), made.test)
    if protocol == "paper":  # there it trains already, and other versions of its clips are tested
        assert more.train == made.train
    else:
        assert sources(more.train) == sources(made.train) | sources(made.validation)
        assert Counter(sample.version for sample in more.train) == dict.fromkeys(VERSIONS, len(sources(more.train)))
        assert more.hash() != made.hash()


def parts(hop_s, speakers=5):
    """Forty parts of four seconds from a call of each speaker."""
    return [
        Utterance(Part(Path(f"/{speaker}.wav"), hop_s * k, hop_s * k + 4), "anger", "table", str(speaker))
        for speaker in range(speakers)
        for k in range(40)
    ]


def test_parts_that_overlap_stay_together_or_are_refused():
    split(parts(hop_s=4), "clip", 0, 0, ("original",))
    split(parts(hop_s=3.1), "clip", 0, 0, ("original",))
    split(parts(hop_s=1), "speaker", 0, 0, ("original",))
    assert split(parts(hop_s=1), "paper", 0, 0, ("original",)).leaky
    message = r"protocol clip, fold 0: \d+ of 40 tested clips are for half or .* the first .*\.wav#t=.* \(\d+%\)"
    with pytest.raises(ValueError, match=message):
        split(parts(hop_s=1), "clip", 0, 0, ("original",))


def test_a_part_of_a_recording_and_all_of_it_stay_together_too():
    whole = Utterance(Path("/0.wav"), "anger", "table", split="train")
    part, other = (Utterance(Part(Path(f"/{k}.wav"), 0, 4), "anger", "table", split="test") for k in (0, 1))
    with pytest.raises(ValueError, match=r"1 of 2 tested clips .*, the first 0\.wav#t=0,4 \(100%\)"):
        split([whole, replace(whole, sound=Path("/2.wav")), part, other], "table", 0, 0, ("original",))


def test_a_split_names_parts():
    whole = [Utterance(Path(f"/{speaker}.wav"), "anger", "table", str(speaker)) for speaker in range(5)]
    plain = split(whole, "speaker", 0, 0, ("original",))
    assert "start" not in plain.rows()[0]
    named = split([*whole[1:], *parts(hop_s=4, speakers=1)], "speaker", 0, 0, ("original",))
    row = next(row for row in named.rows() if row["source"] == "0#t=4,8")
    assert (row["file"], row["start"], row["end"], row["channel"]) == ("0.wav", "4", "8", "")
    assert len({row["source"] for row in named.rows()}) == 44
    assert named.hash() != plain.hash()
