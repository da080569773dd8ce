import numpy as np
import pytest

from vervet.evaluation.calibration import _threshold, calibrate, calibration_error, rejection, reliability, softmax


def drawn(clips: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `spread` times as far apart as they should be, and emotions drawn by their true odds."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(clips, 5)) * 2
    true = np.array([rng.choice(5, p=row) for row in softmax(logits)])
    return logits * spread, true


@pytest.mark.parametrize("spread", [0.5, 1.0, 4.0])
def test_the_temperature_undoes_what_was_done_to_the_logits(spread):
    assert calibrate(*drawn(4000, spread)).temperature == pytest.approx(spread, rel=0.08)


def test_calibrated_confidence_is_how_often_it_is_right():
    logits, true = drawn(4000, 4.0)
    fitted = calibrate(*drawn(4000, 4.0, seed=1))
    errors = []
    for temperature in (1.0, fitted.temperature):
        p = softmax(logits / temperature)
        errors.append(calibration_error(p.max(1), p.argmax(1) == true))
    assert errors[0] > 0.15
    assert errors[1] < 0.03


def test_an_answer_is_uncertain_where_it_is_more_likely_wrong_than_right():
    assert calibrate(*drawn(20_000, 3.0)).uncertain_below == pytest.approx(0.5, abs=0.06)  # costs are flat there


def test_nothing_is_uncertain_where_all_is_right_and_all_where_all_is_wrong():
    logits, right = np.eye(4) * 3, np.arange(4)
    assert calibrate(logits, right).uncertain_below == 0
    assert calibrate(logits, (right + 1) % 4).uncertain_below == 1


def test_answers_that_are_equally_sure_are_withheld_together():
    sure, unsure = [60.0, 0.0], [2.2, 0.0]
    logits = np.array([unsure] * 10 + [sure] * 62)
    assert _threshold(softmax(logits).max(1), np.arange(72) // 10 != 1) == 0  # 10 wrong, as sure as 52 that are right


def test_few_clips_that_are_all_right_do_not_make_it_sure_of_everything():
    few = calibrate(np.eye(3), np.arange(3)).temperature
    many = calibrate(np.tile(np.eye(3), (100, 1)), np.tile(np.arange(3), 100)).temperature
    assert 0.05 < many < few < 1


def test_clips_are_needed_and_numbers():
    with pytest.raises(ValueError, match="at least one clip"):
        calibrate(np.zeros((0, 3)), [])
    with pytest.raises(ValueError, match="NaN"):
        calibrate([[0.0, np.nan]], [0])


def test_reliability_by_hand():
    bins = reliability([0.15, 0.19, 0.95, 1.0], [False, True, True, True])
    assert [(one.clips, one.accuracy) for one in bins] == [(2, 0.5), (2, 1.0)]
    assert [one.confidence for one in bins] == pytest.approx([0.17, 0.975])
    error = calibration_error([0.15, 0.19, 0.95, 1.0], [False, True, True, True])
    assert error == pytest.approx((2 * 0.33 + 2 * 0.025) / 4)


def test_rejection_by_hand():
    curve = rejection([0.9, 0.3, 0.6, 0.6], [True, False, True, False])
    # of the two that are equally sure the wrong one counts first
    assert curve == [(0.25, 1.0), (0.5, 0.5), (0.75, pytest.approx(2 / 3)), (1.0, 0.5)]
