import pytest

from vervet.emotions import ALIASES, EMOTIONS, LOOSE, RESERVED, canonical, in_order, label_of


def test_canonical_names_stand_for_themselves():
    assert [canonical(emotion) for emotion in EMOTIONS] == list(EMOTIONS)
    assert list(EMOTIONS) == sorted(EMOTIONS)


@pytest.mark.parametrize(
    ("label", "emotion"),
    [
        ("ANG", "anger"),
        (" Happy ", "happiness"),
        ("calm", "neutral"),
        ("Angst", "fear"),
        ("pleasant surprise", "surprise"),
    ],
)
def test_aliases(label, emotion):
    assert canonical(label) == emotion


def test_no_alias_means_two_emotions():
    aliases = [alias for emotion in EMOTIONS for alias in ALIASES[emotion]]
    assert len(aliases) == len(set(aliases))
    assert not set(aliases) & set(EMOTIONS)


@pytest.mark.parametrize("label", ["", "contempt", "angr"])
def test_unknown_label_lists_the_known(label):
    with pytest.raises(ValueError, match=rf"unknown emotion {label!r}; known are anger \(angry, .*surprise"):
        canonical(label)


@pytest.mark.parametrize(
    ("name", "among", "label"),
    [
        ("Angry", ["Angry", "anger", "sad"], "anger"),
        (" calm", ["calm", "happy"], "neutral"),
        ("Calm", ["Calm", "neutral"], "calm"),
        ("neutral", ["calm", "neutral"], "neutral"),
        ("calm", ["calm", "CALM "], "neutral"),
        ("Stage Fright ", ["Stage Fright", "calm"], "Stage Fright"),
        ("A\u0308rger", ["A\u0308rger"], "anger"),
        ("Bo\u0308e", ["Bo\u0308e", "B\u00f6e"], "B\u00f6e"),
        ("unhappiness", ["unhappiness", "happiness"], "unhappiness"),
    ],
)
def test_labels_of_a_corpus(name, among, label):
    assert label_of(name, among) == label


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (" ", "no emotion is named"),
        ("happines", "did you mean 'happiness'"),
        ("ssadness", "did you mean 'sadness'"),
        ("Uncertain", "cannot be called 'Uncertain'"),
        ("bliss", "one emotion is written 'Bliss' and 'bliss'"),
    ],
)
def test_names_that_cannot_be_labels(name, message):
    with pytest.raises(ValueError, match=message):
        label_of(name, [name, "Bliss", "anger"])


def test_own_labels_stand_behind_the_canonical_ones():
    assert in_order(["zeal", "sadness", "awe", "anger", "awe"]) == ("anger", "sadness", "awe", "zeal")


def test_loose_aliases_are_aliases_and_no_label_is_a_column():
    assert set(LOOSE) <= {alias for aliases in ALIASES.values() for alias in aliases}
    assert not set(RESERVED) & {*EMOTIONS, *(alias for aliases in ALIASES.values() for alias in aliases)}
