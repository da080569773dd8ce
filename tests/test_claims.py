import numpy as np
import pytest

from vervet.evaluation.claims import CLAIMS, Claim, between, evidence
from vervet.evaluation.metrics import from_confusion
from vervet.evaluation.report import _published_evidence, markdown

LABELS = ["anger", "neutral"]


def record(recipe, right, n, network="student", fold=0, seed=0, protocol="paper"):
    confusion = [[right, n - right], [0, n]]
    scores = from_confusion(confusion, LABELS)
    return {
        "corpus": "emodb", "protocol": protocol, "leaky": protocol == "paper", "network": network, "recipe": recipe,
        "seed": seed, "fold": fold, "wa": scores.wa, "uar": scores.uar, "macro_f1": scores.macro_f1,
        "wa_interval": None, "uar_interval": None, "confusion": confusion, "labels": LABELS, "n_test": 2 * n,
        "epochs": 1, "split_hash": "x", "commit": "x", "machine": "x", "minutes": 1, "command": "vervet train x",
    }  # fmt: skip


CLAIM = Claim("a is better than b", ((("student", "a"), ("student", "b")),))


def test_a_difference_by_hand():
    (found,) = evidence(CLAIM, [record("a", 90, 100), record("b", 50, 100)])
    assert found.gain == pytest.approx(0.95 - 0.75)
    assert found.margin == pytest.approx(2 * ((0.95 * 0.05 + 0.75 * 0.25) / 200) ** 0.5)
    assert (found.n_test, found.seeds, found.verdict) == (200, 1, "holds")


@pytest.mark.parametrize(("right", "verdict"), [(88, "within chance"), (100, "the opposite holds"), (20, "holds")])
def test_verdicts(right, verdict):
    (found,) = evidence(CLAIM, [record("a", 80, 100), record("b", right, 100)])
    assert found.verdict == verdict


def test_by_unheard_speakers_these_are_what_might_have_been_others():
    def of(recipe, *shares, seed=0):
        known = {name: {"wa": share, "uar": share, "n": 50} for name, share in zip("xyz", shares, strict=True)}
        return record(recipe, 50, 75, protocol="speaker", seed=seed) | {"by_speaker": known}

    runs = [
        of("a", 0.9, 0.8, 0.7),
        of("b", 0.7, 0.7, 0.7),
        of("a", 0.9, 0.8, 0.9, seed=1),
        of("b", 0.7, 0.7, 0.9, seed=1),
    ]
    (found,) = evidence(CLAIM, runs)
    gains = [0.2, 0.1, 0]
    assert found.margin == pytest.approx(4.30 * np.std(gains, ddof=1) / 3**0.5)
    assert found.speakers == 3
    (alike,) = evidence(CLAIM, [of("a", 0.9, 0.9, 0.9), of("b", 0.5, 0.5, 0.5)])
    assert alike.margin == pytest.approx(0)


def test_only_what_both_sides_ran_on_counts():
    runs = [record("a", 90, 100, seed=0), record("a", 10, 100, seed=1), record("b", 50, 100, seed=0)]
    runs += [record("a", 90, 100, protocol="speaker"), record("b", 90, 100, protocol="clip")]
    (found,) = evidence(CLAIM, runs)
    assert (found.seeds, found.gain) == (1, pytest.approx(0.2))


@pytest.mark.parametrize("right", [0, 50, 100])
def test_two_that_are_alike_cannot_be_told_apart(right):
    (found,) = evidence(CLAIM, [record("a", right, 100), record("b", right, 100)])
    assert found.verdict == "within chance"


def test_folds_are_pooled_and_seeds_averaged():
    runs = [record("a", right, 100, fold=fold, seed=seed) for seed, fold, right in ((0, 0, 90), (0, 1, 70), (1, 0, 60))]
    runs += [record("b", 50, 100, fold=fold, seed=seed) for seed, fold in ((0, 0), (0, 1), (1, 0))]
    (found,) = evidence(CLAIM, runs)
    assert found.gain == pytest.approx(0.9 - 0.75)  # the second seed lacks a fold that the first has
    assert (found.seeds, found.n_test) == (1, 400)
    runs += [record("a", 60, 100, fold=1, seed=1), record("b", 50, 100, fold=1, seed=1)]
    (found,) = evidence(CLAIM, runs)
    assert found.gain == pytest.approx((0.9 + 0.8) / 2 - 0.75)
    assert (found.seeds, found.n_test) == (2, 400)


def test_the_published_differences_of_the_small_corpora_are_within_chance():
    verdicts = {one.corpus: one.verdict for one in _published_evidence()}
    assert verdicts == {"emodb": "within chance", "savee": "within chance", "cremad": "holds"}


def test_every_claim_stands_on_the_page():
    page = markdown([record("fast", 90, 100), record("alone", 50, 100)])
    for claim in CLAIMS:
        assert f"### {claim.text}" in page
    assert (
        "| EmoDB | `paper` (leaky) | student, `fast` | student, `alone` | 1 | 200 clips | +20.0 ± 6.9 | holds |" in page
    )


def test_the_first_table_counts_comparisons():
    runs = [record("fast", 90, 100), record("alone", 50, 100)]
    runs += [record("alone --student_network.patch=[16,16]", 30, 100)]
    runs += [record("alone --student_network.patch=[1,128]", 49, 100)]
    page = markdown(runs)
    assert "| claim | `paper` (leaky) | `clip` | `speaker` |" in page
    assert "than learning on its own. | holds, 1 of 1 |  |  |" in page
    assert "square and horizontal ones. | holds in 1 of 2, cannot be told in 1 |  |  |" in page


def test_shares_of_no_difference_are_chance():
    assert between("emodb", "paper", CLAIM.pairs[0], 1, 100, 1.0, 0.9).verdict == "holds"
    assert between("emodb", "paper", CLAIM.pairs[0], 1, 100, 0.5, 0.5).verdict == "within chance"
