"""One picture of a prediction run: what the model saw, where it looked, what it concluded. Needs the extra `plot`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle

from vervet import audio
from vervet.batch import Answer, Item
from vervet.output import mark
from vervet.predict import Prediction, Predictor
from vervet.terminal import one_line

MOST_WINDOWS = 14  # more would be too small to read
CELL_INCHES = 7.0, 1.75
HEAD_INCHES = 0.8  # for the title
MARGIN = 0.0425  # of the width of two cells
INK, FAINT = "#22262b", "#8a9099"
RIGHT, WRONG, OTHER = "#0b7a75", "#c8553d", "#d5d9de"  # of the bars
ATTENTION = "#e08e0b"
PADDING = "#eff1f3"  # black to the network
MEL_COLOURS = "magma"


def check(path: Path) -> None:
    """Make the folder of a picture, before the work that it is to show.

    Parameters
    ----------
    path : pathlib.Path
        As for `draw`.

    Raises
    ------
    ValueError
        If its name ends in what is no picture.
    OSError
        If the folder cannot be made.
    """
    if path.suffix and path.suffix[1:].casefold() not in FigureCanvasBase.get_supported_filetypes():
        raise ValueError(f"{path}: a picture's name ends in .png, .svg or .pdf, not in {path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)


def draw(predictor: Predictor, answers: Sequence[Answer], path: Path) -> int:
    """Draw the first windows of a run into one PNG.

    Each cell has the log-Mel image the network saw, the attention of its last block over time above it, and the
    probabilities beside it; the true emotion is marked where it is known.

    Parameters
    ----------
    predictor : Predictor
        The model that gave the answers.
    answers : sequence of Answer
        From `vervet.batch.predict_many`; recordings are read again, so they must still be there.
    path : pathlib.Path
        The PNG to write, or SVG or PDF; its folder is made.

    Returns
    -------
    int
        Number of windows drawn, at most `MOST_WINDOWS`.

    Raises
    ------
    ValueError
        If there is nothing to draw, or the model has no `attention` or `log_mel` output.
    """
    check(path)
    pairs = [(answer.item, prediction) for answer in answers for prediction in answer.predictions]
    shown = pairs[:MOST_WINDOWS]
    if not shown:
        raise ValueError(f"{path}: nothing was predicted, so there is nothing to draw")
    waveforms = [_heard(predictor, item, prediction) for item, prediction in shown]
    views = predictor.run(waveforms, ("attention", "log_mel"))
    columns = 1 if len(shown) < 4 else 2
    rows = -(-len(shown) // columns)
    heights = HEAD_INCHES, CELL_INCHES[1] * rows
    figure = Figure(figsize=(CELL_INCHES[0] * columns, sum(heights)), dpi=110)
    parts = figure.add_gridspec(2, 1, height_ratios=heights)
    _title(figure.add_subfigure(parts[0]), predictor, len(shown), len(pairs))
    body = figure.add_subfigure(parts[1])
    grid = body.add_gridspec(rows, columns)
    for index, (item, prediction) in enumerate(shown):
        cell = body.add_subfigure(grid[index // columns, index % columns])
        _cell(cell, predictor, item, prediction, views["attention"][index], views["log_mel"][index])
    figure.savefig(path)
    return len(shown)


def _heard(predictor: Predictor, item: Item, prediction: Prediction) -> np.ndarray:
    """Read the samples of one window again."""
    length_s = predictor.duration_s
    window = replace(item.part, start_s=prediction.start_s, end_s=prediction.end_s)
    return next(audio.windows(window, predictor.sampling_rate, length_s, length_s)).waveform


def _title(head: SubFigure, predictor: Predictor, shown: int, total: int) -> None:
    card = predictor.card
    corpora = ", ".join(card.get("corpora") or ["unknown corpora"])
    facts = [f"{card.get('network', 'network')} trained on {corpora}", f"protocol: {card.get('protocol', 'unknown')}"]
    if card.get("leaky"):
        facts.append("leaky: its own test score says little about unheard speakers")
    if shown < total:
        facts.append(f"the first {shown} of {total} windows")
    left = MARGIN if head.bbox.width > 1.5 * CELL_INCHES[0] * head.figure.dpi else 2 * MARGIN
    head.text(left, 0.66, f"Vervet {card.get('vervet_version', '')}", size=17, weight="bold", color=INK, va="center")
    head.text(left, 0.28, "  ·  ".join(facts), size=10, color=FAINT, va="center")


def _cell(
    cell: SubFigure, predictor: Predictor, item: Item, prediction: Prediction, attention: np.ndarray, image: np.ndarray
) -> None:
    grid = cell.add_gridspec(
        2,
        2,
        height_ratios=(1, 3.4),
        width_ratios=(2.3, 1),
        left=2 * MARGIN,
        right=0.965,
        bottom=0.2,
        top=0.86,
        hspace=0.04,
        wspace=0.36,
    )
    look, mel, bars = (cell.add_subplot(place) for place in (grid[0, 0], grid[1, 0], grid[:, 1]))
    _attention(look, prediction, predictor.duration_s, attention)
    _mel(mel, prediction, predictor, image)
    _bars(bars, prediction, item.truth(predictor.labels), predictor.labels)


def _literal(text: str) -> str:
    """As it is written: matplotlib takes what stands between dollars for mathematics, and refuses broken UTF-8."""
    return one_line(text).encode("utf-8", "backslashreplace").decode().replace("$", r"\$")


def _attention(axes: Axes, prediction: Prediction, duration_s: float, attention: np.ndarray) -> None:
    edges_s = prediction.start_s + np.linspace(0, duration_s, len(attention) + 1)
    axes.stairs(attention, edges_s, fill=True, color=ATTENTION, alpha=0.85, linewidth=0)
    # what a network that looks everywhere alike would give each patch
    axes.axhline(attention.mean(), color="white", linewidth=0.8, linestyle=(0, (2, 2)))
    axes.set(xlim=(edges_s[0], edges_s[-1]), ylim=(0, attention.max() * 1.05))
    axes.set_axis_off()
    axes.set_title(_literal(Path(prediction.file).name), loc="left", size=9.5, weight="bold", color=INK, pad=3)
    axes.set_title("attention", loc="right", size=7.5, color=ATTENTION, pad=3)


def _mel(axes: Axes, prediction: Prediction, predictor: Predictor, image: np.ndarray) -> None:
    axes.set_facecolor(PADDING)
    start_s, stop_s = prediction.start_s, prediction.start_s + predictor.duration_s
    extent = start_s, stop_s, 0, len(image)
    quiet, loud = image[image > 0].min(), image.max()  # padding is 0
    view = axes.imshow(image, origin="lower", aspect="auto", extent=extent, cmap=MEL_COLOURS, vmin=quiet, vmax=loud)
    if prediction.end_s < stop_s:
        heard = Rectangle((start_s, 0), prediction.end_s - start_s, len(image), transform=axes.transData)
        view.set_clip_path(heard)
        if stop_s - prediction.end_s > 0.15 * predictor.duration_s:
            middle = (prediction.end_s + stop_s) / 2, len(image) / 2
            axes.text(*middle, "padding", size=7.5, color=FAINT, ha="center", va="center")
    axes.set_yticks([0, len(image)])
    axes.set_ylabel("Mel band", size=7.5, color=FAINT, labelpad=-6)
    axes.tick_params(labelsize=7.5, colors=FAINT, length=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} s")
    axes.spines[:].set_visible(False)


def _bars(axes: Axes, prediction: Prediction, truth: str, labels: Sequence[str]) -> None:
    said = mark(prediction.label, truth, labels) if truth else ""
    winner = WRONG if said == "✗" else RIGHT
    colours = [winner if label == prediction.label else OTHER for label in labels]
    shares = [prediction.scores[label] for label in labels]
    axes.barh(range(len(labels)), shares, color=colours, height=0.72)
    axes.set(xlim=(0, 1), ylim=(len(labels) - 0.4, -0.6), xticks=[])
    axes.set_yticks(range(len(labels)), [_literal(label) for label in labels])
    axes.tick_params(axis="y", labelsize=8, colors=INK, length=0)
    for tick, label in zip(axes.get_yticklabels(), labels, strict=True):
        tick.set_fontweight("bold" if label == truth else "normal")
    best = labels.index(prediction.label)
    inside = shares[best] > 0.75
    axes.text(
        shares[best] + (-0.03 if inside else 0.03),
        best,
        f"{shares[best]:.0%}",
        size=8,
        weight="bold",
        color="white" if inside else winner,
        ha="right" if inside else "left",
        va="center_baseline",
    )
    words = prediction.label + " ?" * prediction.uncertain + f" {said}"
    title = axes.set_title(_literal(words), loc="left", size=9.5, weight="bold", color=winner, pad=3)
    title.set_x(-0.46)  # where the names begin
    if said not in ("", "✓"):
        axes.set_title(_literal(f"true: {truth}"), loc="right", size=8.5, color=INK, pad=3)
    axes.spines[:].set_visible(False)
    axes.spines["left"].set(visible=True, color=FAINT)
