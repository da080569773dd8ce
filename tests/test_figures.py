import subprocess
import sys

import pytest

pytest.importorskip("matplotlib")

from vervet.evaluation.figures import confusion_figure, curves_figure, leakage_figure, robustness_figure
from vervet.evaluation.metrics import scores

LABELS = ["anger", "fear", "sadness"]


def words(figure) -> set[str]:
    return {text.get_text() for axes in figure.axes for text in axes.texts}


def epochs(stage, uars, **extra):
    return [
        {"stage": stage, "epoch": epoch, "train_loss": 1 / epoch, "validation_loss": 2 / epoch, "validation_uar": uar}
        | extra
        for epoch, uar in enumerate(uars, start=1)
    ]


@pytest.fixture
def three():
    return scores(["anger"] * 4 + ["fear"] * 2, ["anger", "anger", "anger", "fear", "fear", "sadness"], LABELS)


def test_confusion_says_per_cent_counts_and_protocol(three, tmp_path):
    figure = confusion_figure(three, LABELS, "EmoDB, student", "paper")
    assert figure.get_suptitle() == "EmoDB, student: protocol paper (leaky)"
    assert words(figure) == {"75%", "3", "25%", "1", "50%"}
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == LABELS
    assert [label.get_text() for label in axes.get_yticklabels()] == ["anger (4)", "fear (2)", "sadness (0)"]
    assert "WA 66.7%" in axes.get_title(loc="left")
    figure.savefig(tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").stat().st_size > 5_000


def test_honest_protocol_is_not_called_leaky(three):
    assert confusion_figure(three, LABELS, "EmoDB", "speaker").get_suptitle() == "EmoDB: protocol speaker"


def test_labels_must_fit_the_matrix(three):
    with pytest.raises(ValueError, match="2 labels for a confusion matrix of 3 x 3"):
        confusion_figure(three, LABELS[:2], "EmoDB", "clip")


def chosen(axes):
    return [
        line.get_xdata()[0] for line in axes.lines if line.get_label().startswith("_") and len(line.get_xdata()) == 2
    ]


def test_curves_mark_the_chosen_epoch(tmp_path):
    history = epochs("teacher", [0.3, 0.6, 0.6, 0.5]) + epochs("matching", [None] * 3)
    student = epochs("student", [0.3, 0.4, 0.5])
    history[1]["chosen"] = student[1]["chosen"] = True
    figure = curves_figure(history + student, "EmoDB, fold 0", "paper")
    assert figure.get_suptitle() == "EmoDB, fold 0: protocol paper (leaky)"
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in panels] == ["teacher", "matching", "student"]
    assert [chosen(axes) for axes in panels] == [[2], [], [2]]
    figure.savefig(tmp_path / "curves.png")


def test_curves_without_validation():
    history = [{"stage": "teacher", "epoch": 1, "train_loss": 1.0, "lr": 1e-4}]
    assert len(curves_figure(history, "EmoDB", "clip").axes) == 1
    with pytest.raises(ValueError, match="no epoch"):
        curves_figure([], "EmoDB", "clip")


def test_leakage(tmp_path):
    rows = [
        {"corpus": "emodb", "protocol": "speaker", "network": "student", "wa": 0.6, "wa_interval": [0.5, 0.7]},
        {"corpus": "emodb", "protocol": "paper", "network": "student", "wa": 0.98, "wa_interval": None},
        {"corpus": "emodb", "protocol": "clip", "network": "student", "wa": 0.82},
    ]
    figure = leakage_figure(rows, "One network, three protocols")
    axes = figure.axes[0]
    names = [label.get_text().split("\n")[0] for label in axes.get_xticklabels()]
    assert names == ["paper (leaky)", "clip", "speaker"]
    hatched = {round(bar.get_height()): bar.get_hatch() for bar in axes.patches if bar.get_height()}
    assert hatched == {60: None, 98: "////", 82: None}
    assert words(figure) == {"60.0", "98.0", "82.0"}
    figure.savefig(tmp_path / "leakage.png")
    with pytest.raises(ValueError, match="two rows tell of emodb, paper, student"):
        leakage_figure([*rows, rows[1]], "x")
    with pytest.raises(ValueError, match="no row"):
        leakage_figure([], "x")


def test_no_global_state():
    code = "import sys, vervet.evaluation.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_robustness_figure_shows_every_condition(tmp_path):
    rows = [
        {"kind": "original", "level": "-", "uar": 0.6}, {"kind": "noise", "level": "0 dB SNR", "uar": 0.3},
        {"kind": "noise", "level": "10 dB SNR", "uar": 0.5}, {"kind": "sex", "level": "female", "uar": 0.7},
    ]  # fmt: skip
    figure = robustness_figure(rows, "EmoDB, student", "speaker")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["", "0 dB SNR", "10 dB SNR", "female"]
    assert {"60", "30", "50", "70", "noise"} <= {text.get_text() for text in axes.texts}
    with pytest.raises(ValueError, match="no condition to draw"):
        robustness_figure([], "EmoDB", "speaker")
