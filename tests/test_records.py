import json

import pytest
from measured import leaky, record

from vervet.evaluation.records import add, load, summarise, validate


def test_good_records():
    validate(record())
    validate(leaky())
    validate(record(fold="all", folds=[0, 1, 2]))
    validate(record(wa=round(record()["wa"], 4)))


def test_keys_are_exact():
    short = record()
    del short["commit"], short["seed"]
    with pytest.raises(ValueError, match="missing key: commit, seed"):
        validate(short)
    with pytest.raises(ValueError, match="unknown key: accuracy; known are corpus"):
        validate(record(accuracy=0.5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wa": 85.0}, "wa must be a fraction of 1, not 85.0"),
        ({"uar": float("nan")}, "uar must be a fraction"),
        ({"uar": True}, "uar must be a fraction"),
        ({"wa": 0.8}, "wa is 0.8, its confusion matrix gives 0.850000"),
        ({"macro_f1": 0.2}, "macro_f1 is 0.2"),
        ({"n_test": 19}, "confusion sums to 20, n_test is 19"),
        ({"confusion": [[8, 2]]}, "not 2 x 2"),
        ({"confusion": [[8.0, 2], [1, 9]]}, "confusion must be rows of whole counts"),
        ({"labels": ["anger", "anger"]}, "labels must be"),
        ({"by_version": {"original": {"wa": 0.5}}}, "by_version must be an object with wa and n of each version"),
        ({"protocol": "paper"}, "leaky is False under protocol 'paper'"),
        ({"leaky": 0}, "leaky must be true or false"),
        ({"fold": "each"}, 'fold must be a whole number, 0 or more, or "all"'),
        ({"fold": -1}, "fold must be"),
        ({"seed": None}, "seed must be"),
        ({"folds": [0, 1]}, 'folds belongs to fold "all"'),
        ({"fold": "all", "folds": [0, 0]}, "folds must be different"),
        ({"uar_interval": [0.9, 0.5]}, "uar_interval must be"),
        ({"uar_interval": [0.5]}, "uar_interval must be"),
        ({"command": " "}, "command must be"),
        ({"minutes": float("inf")}, "minutes must be"),
    ],
)
def test_faults_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        validate(record() | changes)


def test_a_matched_student_is_not_filed_again_where_only_later_settings_changed(tmp_path):
    changed = "fast --student.alpha=0"
    filed = add(
        tmp_path / "results.json",
        [
            record(network="student-matched", recipe="fast"),
            record(network="student-matched", recipe=changed),
            record(network="student", recipe=changed),
            record(network="student-matched", recipe=f"{changed} --student_network.depth=2"),
        ],
    )
    assert [(one["network"], one["recipe"]) for one in filed if one["recipe"] == changed] == [("student", changed)]
    assert len(filed) == 3
    kept = [record(network="student-matched", recipe=f"fast --seed=1{more}") for more in ("", " --student.epochs=50")]
    assert add(tmp_path / "kept.json", kept) == kept[:1]  # settings of earlier stages stay
    alone = add(tmp_path / "other.json", [record(network="student-matched", recipe=changed)])
    assert len(alone) == 1  # nothing else says how it does


def test_add_merges_replaces_and_sorts(tmp_path):
    path = tmp_path / "results" / "results.json"
    add(path, [record(fold=10), record(fold="all"), record(fold=2)])
    better = record(((10, 0), (0, 10)), fold=2)
    merged = add(path, [better, leaky()])
    assert [(one["protocol"], one["fold"]) for one in merged] == [
        ("paper", 0), ("speaker", 2), ("speaker", 10), ("speaker", "all"),
    ]  # fmt: skip
    assert merged[1] == better
    assert load(path) == merged
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def test_a_pooled_record_goes_when_one_of_its_folds_is_filed_anew(tmp_path):
    path = tmp_path / "results.json"
    right, wrong = ((5, 0), (0, 5)), ((0, 5), (5, 0))
    pooled = record(((10, 0), (0, 10)), fold="all", folds=[0, 1])
    add(path, [record(right, fold=0), record(right, fold=1), pooled])
    assert [one["fold"] for one in add(path, [record(right, fold=1, minutes=1.0)])] == [0, 1, "all"]
    assert [one["fold"] for one in add(path, [record(wrong, fold=1)])] == [0, 1]
    (row,) = summarise(load(path))
    assert row["wa"] == (0.5, None)


def test_a_fault_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "results.json"
    add(path, [record()])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="new records: record 1: wa must be"):
        add(path, [record(fold=1), record(fold=2) | {"wa": 2.0}])
    assert path.read_bytes() == before


def test_files_at_fault(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"results\.json: is not JSON"):
        load(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="not a list"):
        load(path)
    path.write_text(json.dumps([record(), {}]))
    with pytest.raises(ValueError, match="record 1: missing key"):
        load(path)


def test_folds_without_a_pooled_record_are_pooled_here():
    (row,) = summarise([record(((8, 2), (1, 9)), fold=0), record(((0, 0), (5, 5)), fold=2)])
    assert row["folds"] == (0, 2)
    assert row["n_test"] == [30]
    assert row["wa"] == (pytest.approx(22 / 30), None)
    assert row["uar"] == (pytest.approx((8 / 10 + 14 / 20) / 2), None)  # not the mean of the folds' 0.85 and 0.5
    assert row["uar_interval"] is None
    assert len(row["commands"]) == 2


def test_pooled_record_is_the_headline_unless_it_lacks_a_fold():
    folds = [record(fold=fold) for fold in range(3)]
    pooled = record(((20, 10), (3, 27)), fold="all", folds=[0, 1, 2], uar_interval=[0.7, 0.8])
    (row,) = summarise([*folds, pooled])
    assert row["n_test"] == [60]
    assert row["uar_interval"] == (0.7, 0.8)
    (row,) = summarise([*folds, record(fold=3), pooled])
    assert row["folds"] == (0, 1, 2, 3)
    assert row["n_test"] == [80]


def test_seeds_are_averaged_over_the_same_folds_only():
    rows = summarise(
        [
            record(((8, 2), (2, 8)), seed=0, uar_interval=[0.4, 0.9]),
            record(((9, 1), (1, 9)), seed=1, uar_interval=[0.6, 1.0]),
            record(seed=2, fold="all"),
        ]
    )
    assert [(row["folds"], row["seeds"]) for row in rows] == [(tuple(range(10)), [2]), ((0,), [0, 1])]
    assert rows[1]["uar"] == pytest.approx((0.85, 0.0707106781))
    assert rows[1]["uar_interval"] == pytest.approx((0.5, 0.95))


def test_folds_with_different_labels_do_not_pool():
    with pytest.raises(ValueError, match="emodb, speaker, student, paper, 0 have different labels"):
        summarise([record(fold=0), record(fold=1, labels=["fear", "anger"])])


def test_a_pooled_record_gives_way_to_none_of_fewer_folds(tmp_path):
    path, whole = tmp_path / "results.json", record(fold="all", folds=[0, 1, 2])
    add(path, [whole])
    assert add(path, [record(fold="all", folds=[0, 2], seed=whole["seed"])]) == [whole]
    more = record(fold="all", folds=[0, 1, 2, 3])
    assert add(path, [more]) == [more]


def test_another_table_is_not_filed_under_the_same_name(tmp_path):
    path, one = tmp_path / "results.json", record(corpus="table")
    add(path, [one])
    add(path, [one])
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"table, protocol speaker, recipe .*: filed already, of other clips"):
        add(path, [record(corpus="table", split_hash="f" * 16)])
    assert path.read_bytes() == before
    add(path, [record(), record(split_hash="f" * 16)])  # the splits of published corpora are ours
