from pathlib import Path

import pytest
from measured import LABELS, leaky, record

from vervet.cli import main
from vervet.evaluation.ablation import ablations
from vervet.evaluation.figures import ablation_figure
from vervet.evaluation.records import add, load, validate
from vervet.evaluation.report import _bars, _enrolled_lines, markdown, write
from vervet.evaluation.run import scored_answers, summary


def lines(page, section):
    return [line for line in page.split(f"## {section}")[1].split("\n## ")[0].splitlines() if line.startswith("| ")]


def test_copies_are_counted_apart():
    rows = [
        {"emotion": "anger", "predicted": said, "speaker": "", "version": version}
        for version, said in (("shift", "fear"), ("original", "anger"), ("original", "fear"), ("noise", "anger"))
    ]
    found = scored_answers(rows, LABELS)["by_version"]
    assert list(found.items()) == [
        ("original", {"wa": 0.5, "n": 2}), ("noise", {"wa": 1.0, "n": 1}), ("shift", {"wa": 0.0, "n": 1}),
    ]  # fmt: skip
    assert "by_version" not in scored_answers([row | {"version": "original"} for row in rows], LABELS)
    page = markdown([leaky(by_version=found), record()])
    (head, _, row) = [line for line in page.split("### Which copies")[1].splitlines() if line.startswith("|")][:3]
    assert head == "| corpus | protocol | network | recipe | fold | seed | original | noise | shift | all, WA |"
    assert row == "| EmoDB | `paper` (leaky) | student | `paper` | 0 | 0 | 50.0 | 100.0 | 0.0 | 85.0 |"
    told = summary([leaky(by_version=found, by_speaker={})])
    assert "Versions of clips as student hears them, fold 0\n  original      2  50.00%" in told
    assert "Which copies" not in markdown([record()])


def test_page():
    page = markdown(
        [
            leaky(seed=0), leaky(((9, 1), (1, 9)), seed=1), leaky(network="teacher"),
            *(record(fold=fold) for fold in range(3)),
            record(corpus="savee", fold="all", folds=[0, 1, 2, 3], command="vervet evaluate a | tee b"),
            record(corpus="radio", protocol="table"),
        ]
    )  # fmt: skip
    head, _, teacher, student = lines(page, "Leaky")
    assert head.startswith("| corpus | protocol | network | recipe | folds | seeds | test clips | WA |")
    assert "| EmoDB | `paper` (leaky) | teacher | `paper` | 0 (1 of 5) | 0 | 20 | 85.0 |" in teacher
    assert teacher.split(" | ")[-2] == "96.96"
    assert "| 0-1 | 20 | 87.5 ± 3.5 |" in student
    assert student.split(" | ")[-2] == "98.83"

    _, _, emodb, savee, radio = lines(page, "Honest")
    assert "`speaker` | student | `paper` | 0-2 (3 of 10) | 0 | 60 |" in emodb
    assert "published" not in lines(page, "Honest")[0]
    assert "`vervet train paper.yaml --fold 0 --seed=0` … `vervet train paper.yaml --fold 2 --seed=0`" in emodb
    assert "| all 4 |" in savee
    assert "85.0 [50.0, 90.0]" in savee
    assert r"`vervet evaluate a \| tee b`" in savee
    assert radio.startswith("| radio | `table` | student | `paper` | 0 |")

    gaps = page.split("## Not measured")[1].split("##")[0]
    assert "- EmoDB, `speaker`, student: 7 of 10 folds" in gaps
    assert "- EmoDB, `speaker`, teacher: nothing." in gaps
    assert "EmoDB, `paper`" not in gaps
    assert "SAVEE, `speaker`, student" not in gaps
    assert "WA 87.5 ± 3.5 leaky (folds 0 (1 of 5)), 85.0 on unheard speakers (folds 0-2 (3 of 10))" in page
    assert "Whisper large v3" in page.split("## References: not ours")[1]
    for table in ("Leaky", "Honest", "References"):
        assert len({line.replace(r"\|", "").count("|") for line in lines(page, table)[:3]}) == 1


def test_page_without_records():
    page = markdown([])
    assert page.count("Nothing is measured yet.") == 2
    assert "- CREMA-D, `speaker`, student: nothing." in page


def test_command_writes_the_page_beside_the_file(tmp_path, capsys):
    path = tmp_path / "results.json"
    add(path, [record()])
    assert main(["report", str(path)]) == 0
    assert str(tmp_path / "README.md") in capsys.readouterr().out
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text == markdown([record()])
    assert str(tmp_path) not in text
    with pytest.raises(OSError, match=r"none\.json"):
        write(tmp_path / "none.json")


def test_notes_beside_the_file_are_part_of_the_page(tmp_path):
    add(tmp_path / "results.json", [record()])
    (tmp_path / "notes.md").write_text("Of a noisy room.\n\n## Settled with\n\nThe door open.\n", encoding="utf-8")
    page = write(tmp_path / "results.json").read_text(encoding="utf-8")
    head, leaky_part = page.split("## Leaky")
    assert head.endswith("\n\nOf a noisy room.\n\n")
    assert "\n\n## Settled with\n\nThe door open.\n\n## Not measured\n\n" in leaky_part
    (tmp_path / "notes.md").write_text("## Settled with\n\nThe door open.\n", encoding="utf-8")
    assert write(tmp_path / "results.json").read_text(encoding="utf-8") == page.replace("Of a noisy room.\n\n", "")


def test_the_picture_has_what_ran_leaky_and_over_all_honest_folds(tmp_path):
    add(tmp_path / "results.json", [leaky(), leaky(network="teacher"), record(fold=3), record(recipe="fast")])
    assert "(leakage.png)" not in write(tmp_path / "results.json").read_text()  # one fold of ten is no comparison
    assert not (tmp_path / "leakage.png").exists()
    records = add(tmp_path / "results.json", [record(fold="all", folds=list(range(10)))])
    assert [(bar["protocol"], bar["network"]) for bar in _bars(records)] == [
        ("paper", "student (paper)"),
        ("speaker", "student (paper)"),
    ]
    assert "(leakage.png)" in write(tmp_path / "results.json").read_text()
    assert (tmp_path / "leakage.png").stat().st_size > 10_000


def test_a_changed_setting_is_held_against_the_recipe_without_it(tmp_path):
    found = [
        leaky(recipe="fast"),
        leaky(((10, 0), (2, 8)), recipe="fast --student.alpha=100"),
        *(record(recipe="fast", fold=fold) for fold in (0, 1, 2)),
        record(((7, 3), (1, 9)), recipe="fast --student.alpha=100", fold=1),
        record(((7, 3), (1, 9)), recipe="fast --student.alpha=100", fold=7),  # the recipe itself was not run on it
        record(recipe="alone --student_network.patch=[16, 16]", fold=0),
    ]
    patch, pooled, honest = ablations(found)
    assert (patch.question, patch.wa_gain) == ("Patch shape", None)
    assert (honest.protocol, honest.n_test, honest.folds, honest.wa[0]) == ("speaker", 40, (1, 7), 0.8)
    assert honest.wa_gain == (pytest.approx(0.8 - 0.85), None)
    assert (pooled.protocol, pooled.change) == ("paper", ("student.alpha=100",))
    assert pooled.wa_gain == (pytest.approx(0.05), None)
    assert pooled.uar_gain == (pytest.approx(0.05), None)
    add(tmp_path / "results.json", found)
    page = write(tmp_path / "results.json").read_text()
    table = lines(page, "Ablations")
    assert "| `student.alpha=100` | 0 (1 of 5) | 0 | 20 | 90.0 | +5.0 | 90.0 | +5.0 |" in " ".join(table)
    assert "alpha=100" not in page.split("## What the paper claims")[0]
    assert (tmp_path / "ablations-emodb.png").stat().st_size > 10_000


def test_a_change_is_held_against_the_same_recipe_with_all_its_other_changes():
    found = [
        record(recipe="small"),
        record(recipe="small --depth=2", confusion=((9, 1), (1, 9))),
        record(recipe="small --depth=2 --power=1", confusion=((7, 3), (1, 9))),
        record(recipe="large --depth=2 --power=1"),
    ]
    changes = {(one.recipe, one.change): one.wa_gain for one in ablations(found)}
    assert changes == {
        ("small", ("depth=2",)): (pytest.approx(0.05), None),
        ("small --depth=2", ("power=1",)): (pytest.approx(-0.1), None),
        ("large", ("depth=2", "power=1")): None,
    }
    found = [record(recipe=f"small{more}") for more in (" --a=1 --b=1 --c=1", " --a=1 --b=1", " --c=1")]
    long = [one | {"recipe": one["recipe"].replace("c=1", "a_long_name=1")} for one in found]
    assert ("small --a=1 --b=1", ("a_long_name=1",)) in {(one.recipe, one.change) for one in ablations(long)}


def test_a_change_of_several_seeds_has_the_spread_of_its_differences():
    confusions = {0: ((9, 1), (1, 9)), 1: ((8, 2), (1, 9)), 2: ((9, 1), (0, 10))}
    found = [record(recipe="small", seed=seed) for seed in confusions]
    found += [record(confusion, recipe="small --depth=2", seed=seed) for seed, confusion in confusions.items()]
    (one,) = ablations(found)
    assert one.wa_gain == (pytest.approx(0.05), pytest.approx(0.05))
    assert "| +5.0 ± 5.0 |" in markdown(found)


def test_a_recipe_on_other_clips_is_held_against_nothing():
    found = [record(recipe=name) for name in ("small", "small --validate=true", "small --depth=2 --validate=true")]
    changes = {(one.recipe, one.change): one.wa_gain for one in ablations(found)}
    assert changes == {("small", ("validate=true",)): None, ("small --validate=true", ("depth=2",)): (0, None)}


def test_an_image_of_other_columns_needs_other_patches_and_is_not_about_those():
    settings = [
        "front_end.width=256", "student_network.image=[128,256]", "student_network.patch=[128,2]",
        "teacher_network.image=[128,256]",
    ]  # fmt: skip
    found = [record(recipe="small"), record(recipe=" --".join(["small", *settings]))]
    (one,) = ablations(found)
    assert one.question == "Columns of the image"
    (panel,) = ablation_figure([one], "wide").axes
    assert [text.get_text() for text in panel.get_yticklabels()] == ["small, student: width 256, patch [128,2]"]


def test_a_student_of_another_teacher_is_told_from_another_student():
    found = [record(recipe="small"), record(recipe="small --teacher_network.depth=12 --teacher_network.heads=8")]
    (panel,) = ablation_figure(ablations(found), "deep").axes
    assert [text.get_text() for text in panel.get_yticklabels()] == ["small, student: teacher's depth 12, heads 8"]


def test_what_goes_on_from_another_model_with_other_settings_is_no_ablation():
    found = [record(recipe="small", fold="all"), record(recipe="small --epochs=2 from emodb", fold="all", folds=[0, 1])]
    assert ablations(found) == []
    (row,) = [line for line in markdown(found).splitlines() if "`small --epochs=2 from emodb`" in line]
    assert row.startswith("| EmoDB | `speaker` | student |")


def test_what_a_model_of_other_settings_scores_on_another_corpus_is_no_ablation():
    found = [record(recipe="small", fold="all"), record(recipe="small --epochs=2", protocol="from cremad", fold="all")]
    assert ablations(found) == []
    (row,) = [line for line in markdown(found).splitlines() if "`small --epochs=2`" in line]
    assert row.startswith("| EmoDB | `from cremad` | student |")


def test_what_confidences_are_worth_stands_on_the_page_unless_leaky():
    worth = {"ece_before": 0.3, "ece": 0.042, "answered": 0.671, "wa_answered": 0.682}
    page = markdown([record(fold="all", folds=[0, 1]) | {"calibration": worth}])
    assert "| 30.0 | 4.2 |" in page.split("## What a confidence is worth")[1]
    assert "| 67.1 | 68.2 |" in page
    assert "What a confidence is worth" not in markdown([leaky() | {"calibration": worth}, record()])


def test_answers_among_all_emotions_of_a_model_stand_in_a_table_of_their_own():
    crossed = record(fold="all", folds=[0]) | {"protocol": "from savee"}
    said = {"wa": 0.25, "answers": {"anger": {"anger": 3, "boredom": 7}, "neutral": {"boredom": 4, "neutral": 6}}}
    sure = {"answered": 0.5, "wa_answered": 0.375, "wa_enrolled": {"10": 0.125}}
    page = markdown([crossed | {"predicting": said | sure}, crossed | {"seed": 1, "predicting": said}])
    _, _, told, untold = lines(page, "As `vervet predict` answers")
    assert "| 25.0 | 50.0 | 37.5 | 12.5 | boredom 55.0, neutral 30.0 |" in told
    assert "| 25.0 |  |  |  | boredom 55.0, neutral 30.0 |" in untold
    assert "As `vervet predict`" not in markdown([crossed | {"predicting": {"wa": 0.25}}])


def test_what_it_is_worth_to_know_a_speaker_stands_in_a_table_of_its_own(tmp_path):
    def known(confusion):
        scores = record(confusion)
        return {key: scores[key] for key in (
            "wa", "uar", "macro_f1", "wa_interval", "uar_interval", "confusion", "n_test",
        )}  # fmt: skip

    told = {"1": known(((9, 1), (1, 9))), "10": known(((10, 0), (1, 9)))}
    seeds = [record(fold="all", folds=list(range(10)), seed=seed, enrolled=told) for seed in (0, 1)]
    for one in seeds:
        validate(one)
    head, _, row = lines(markdown(seeds), "Enrolled: speakers of whom something is known")
    assert "| told of none | told of 1 clip | told of 10 clips |" in head
    assert "| `speaker`, enrolled | student | `paper` | all 10 | 0-1 |" in row
    assert "| 85.0 ± 0.0 [50.0, 90.0] | 90.0 ± 0.0 [50.0, 90.0] | 95.0 ± 0.0 [50.0, 90.0] |" in row
    assert "Enrolled" not in markdown([record(fold="all", folds=[0, 1])])
    (line,) = _enrolled_lines(seeds)
    assert (line["panel"], line["name"]) == ("EmoDB, trained on other speakers", "paper")
    (line,) = _enrolled_lines([one | {"recipe": "paper --validate=true from savee"} for one in seeds])
    assert line["name"] == "paper\nfrom savee"
    for changed in ("paper --student.epochs=2", "paper --student.power=1 --validate=true from savee"):
        assert not _enrolled_lines([one | {"recipe": changed} for one in seeds])
    older, newer = ([one | {"network": f"student+functionals{end}"} for one in seeds] for end in ("-1429", ""))
    assert (len(_enrolled_lines(older)), len(_enrolled_lines(older + newer))) == (0, 1)
    assert [line[count] for count in (0, 1, 10)] == [(pytest.approx(uar), (0.5, 0.9)) for uar in (0.85, 0.9, 0.95)]
    add(tmp_path / "results.json", seeds)
    write(tmp_path / "results.json")
    assert (tmp_path / "enrolled.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="enrolled must be an object with scores for each number of clips"):
        validate(record(enrolled={"some": told["1"]}))


def test_the_page_of_results_is_what_the_records_say():
    results = Path(__file__).parents[1] / "results"
    notes = (results / "notes.md").read_text(encoding="utf-8")
    assert (results / "README.md").read_text(encoding="utf-8") == markdown(load(results / "results.json"), notes)
