import numpy as np
import pytest

from vervet.evaluation.metrics import by_speaker, from_confusion, interval, mean_spread, scores, share_interval

LABELS = ["anger", "fear", "sadness"]
#          4 anger, 3 right      3 fear, 1 right     1 sadness, right
TRUE = ["anger"] * 4 + ["fear"] * 3 + ["sadness"]
PREDICTED = ["anger", "anger", "anger", "fear", "fear", "anger", "sadness", "sadness"]


def test_known_answers():
    got = scores(TRUE, PREDICTED, LABELS)
    assert got.confusion == [[3, 1, 0], [1, 1, 1], [0, 0, 1]]
    assert got.n == 8
    assert got.wa == pytest.approx(5 / 8, abs=1e-12)
    assert got.recall == pytest.approx({"anger": 3 / 4, "fear": 1 / 3, "sadness": 1.0}, abs=1e-12)
    assert got.uar == pytest.approx((3 / 4 + 1 / 3 + 1) / 3, abs=1e-12)
    # F1: anger 6 / (4 + 4), fear 2 / (3 + 2), sadness 2 / (1 + 2)
    assert got.macro_f1 == pytest.approx((3 / 4 + 2 / 5 + 2 / 3) / 3, abs=1e-12)


def test_class_without_true_clips_is_left_out_of_the_means():
    got = scores(["anger", "anger", "fear"], ["anger", "sadness", "fear"], LABELS)
    assert got.recall == {"anger": 0.5, "fear": 1.0, "sadness": None}
    assert got.uar == pytest.approx(0.75, abs=1e-12)
    assert got.macro_f1 == pytest.approx((2 / 3 + 1) / 2, abs=1e-12)
    assert got.wa == pytest.approx(2 / 3, abs=1e-12)


def test_order_of_labels_orders_the_matrix_only():
    forth, back = scores(TRUE, PREDICTED, LABELS), scores(TRUE, PREDICTED, LABELS[::-1])
    assert back.confusion == [row[::-1] for row in forth.confusion[::-1]]
    assert (back.wa, back.uar, back.macro_f1) == pytest.approx((forth.wa, forth.uar, forth.macro_f1))


@pytest.mark.parametrize(
    ("true", "predicted", "labels", "message"),
    [
        ([], [], LABELS, "no clip"),
        (["anger"], [], LABELS, "1 true emotions but 0 predicted"),
        (["joy"], ["anger"], LABELS, "clip 0: true emotion 'joy'"),
        (["anger", "fear"], ["anger", "joy"], LABELS, "clip 1: predicted emotion 'joy'"),
        (["anger"], ["anger"], ["anger", "anger"], "repeats"),
    ],
)
def test_bad_input_yields_no_number(true, predicted, labels, message):
    with pytest.raises(ValueError, match=message):
        scores(true, predicted, labels)


@pytest.mark.parametrize(
    ("confusion", "message"),
    [
        ([[1, 0], [0, 1]], "not 3 x 3"),
        ([[1, 0, 0], [0, 1], [0, 0, 1]], "not 3 x 3"),
        ([[1, 0, 0], [0, -1, 0], [0, 0, 1]], "whole counts"),
        ([[1, 0, 0], [0, 0.5, 0], [0, 0, 1]], "whole counts"),
        ([[0] * 3] * 3, "no clip"),
    ],
)
def test_bad_confusion(confusion, message):
    with pytest.raises(ValueError, match=message):
        from_confusion(confusion, LABELS)


def test_by_speaker():
    speakers = ["b", "b", "a", "a", "a", "a", "b", "b"]
    got = by_speaker(TRUE, PREDICTED, speakers, LABELS)
    assert list(got) == ["a", "b"]
    assert got["a"].confusion == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert got["b"].confusion == [[2, 0, 0], [0, 0, 1], [0, 0, 1]]
    assert (got["a"].wa, got["b"].wa) == (0.5, 0.75)
    assert sum(np.array(one.confusion) for one in got.values()).tolist() == scores(TRUE, PREDICTED, LABELS).confusion
    with pytest.raises(ValueError, match="8 clips but 7 speakers"):
        by_speaker(TRUE, PREDICTED, speakers[1:], LABELS)
    with pytest.raises(ValueError, match="no clip"):
        by_speaker([], [], [], LABELS)


def test_interval_of_two_opposite_speakers():
    # One speaker always right, one always wrong: a draw of two scores 0, 1/2 or 1 with chances 1/4, 1/2, 1/4.
    true, predicted = ["anger", "fear"] * 2, ["anger", "fear", "fear", "anger"]
    speakers = ["a", "a", "b", "b"]
    for measure in ("uar", "wa", "macro_f1"):
        assert interval(true, predicted, speakers, LABELS, measure) == (0.0, 1.0)
        assert interval(true, predicted, speakers, LABELS, measure, confidence=0.4) == (0.5, 0.5)


def test_draws_without_a_class_do_not_count():
    """One speaker alone has fear: without it the UAR would be that of anger."""
    true = ["anger", "anger", "anger", "fear"]
    predicted, speakers = ["fear", "fear", "fear", "fear"], ["a", "b", "c", "c"]
    assert interval(true, predicted, speakers, LABELS, "uar") == (0.5, 0.5)
    assert interval(true, predicted, speakers, LABELS, "wa") == (0.0, 0.5)


def test_interval_matches_plain_resampling_and_repeats():
    rng = np.random.default_rng(7)
    true = rng.choice(LABELS, 400).tolist()
    predicted = [name if rng.random() < 0.6 else str(rng.choice(LABELS)) for name in true]
    speakers = [f"s{index % 12}" for index in range(400)]
    first = interval(true, predicted, speakers, LABELS, "uar", seed=3)
    assert first is not None
    assert first == interval(true, predicted, speakers, LABELS, "uar", seed=3)
    assert first != interval(true, predicted, speakers, LABELS, "uar", seed=4)
    assert first[0] < scores(true, predicted, LABELS).uar < first[1]

    clips = {name: [i for i, speaker in enumerate(speakers) if speaker == name] for name in sorted(set(speakers))}
    values = []
    for _ in range(1000):  # the same, clip by clip
        drawn = [clip for name in rng.choice(list(clips), len(clips)) for clip in clips[name]]
        values.append(scores([true[i] for i in drawn], [predicted[i] for i in drawn], LABELS).uar)
    assert first == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.01)


def test_no_interval_without_known_speakers():
    assert interval(TRUE, PREDICTED, ["a"] * 8, LABELS) is None
    assert interval(TRUE, PREDICTED, [""] * 8, LABELS) is None
    assert interval(TRUE, PREDICTED, ["a"] * 4 + [""] * 4, LABELS) is None


@pytest.mark.parametrize("wrong", [{"measure": "accuracy"}, {"resamples": 0}, {"confidence": 1.0}])
def test_bad_interval(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        interval(TRUE, PREDICTED, ["a", "b"] * 4, LABELS, **wrong)


def test_mean_spread():
    assert mean_spread([0.8, 0.9, 1.0]) == pytest.approx((0.9, 0.1), abs=1e-12)
    assert mean_spread([0.8]) == (0.8, None)
    with pytest.raises(ValueError, match="no value"):
        mean_spread([])


def test_the_interval_of_a_share_is_wilsons():
    # Newcombe, Statistics in Medicine 1998, table I: 81 of 263, and none of 20
    assert share_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert share_interval(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)
    assert share_interval(20, 20)[1] == pytest.approx(1)
    with pytest.raises(ValueError, match="no share"):
        share_interval(1, 0)
