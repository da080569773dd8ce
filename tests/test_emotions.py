import pytest

from vervet.emotions import ALIASES, EMOTIONS, canonical


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
