"""Figures of an evaluation: confusion matrix, training curves, what each protocol makes of the same network.

Each function returns a matplotlib Figure and touches no global state; `figure.savefig(path)` writes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator

from vervet.evaluation.ablation import Ablation
from vervet.evaluation.metrics import Scores

# Blue, orange and vermilion of Okabe & Ito ("Color universal design", 2008), told apart by colour-blind readers.
BLUE, ORANGE, VERMILION = "#0072B2", "#E69F00", "#D55E00"
BARS = (BLUE, ORANGE, "#009E73", "#CC79A7", VERMILION, "#56B4E9")  # all of Okabe & Ito's
INK, MUTED, FAINT, PAPER = "#22262b", "#6b7280", "#e5e7eb", "#ffffff"
DPI = 160
LETTERS_PER_INCH = 8  # of a title

PROTOCOLS = {  # the honest ones after the leaky one, stricter and stricter
    "paper": "paper (leaky)\nversions pooled,\nthen split",
    "clip": "clip\nclips split\nfirst",
    "sentence": "sentence\nunheard\nwords",
    "speaker": "speaker\nunheard\nspeakers",
}

_BLUES = LinearSegmentedColormap.from_list("vervet", [PAPER, "#cfe3f1", "#6aaed6", BLUE, "#003f63"])


def protocol_title(title: str, protocol: str) -> str:
    """Name the protocol in a title, and say `leaky` where it is.

    Parameters
    ----------
    title : str
        What the figure shows.
    protocol : str
        The protocol's name; `paper` is the leaky one.

    Returns
    -------
    str
        For example "EmoDB, student: protocol paper (leaky)".
    """
    return f"{title}: protocol {protocol}{' (leaky)' if protocol == 'paper' else ''}"


def confusion_figure(scores: Scores, labels: Sequence[str], title: str, protocol: str) -> Figure:
    """Draw a confusion matrix: per cent of each true emotion, and the counts.

    Parameters
    ----------
    scores : Scores
        From `vervet.evaluation.metrics`.
    labels : sequence of str
        The emotion of each row and column of `scores.confusion`.
    title : str
        What was recognised by what, for example "EmoDB, student". The protocol is added to it.
    protocol : str
        How test clips were set apart.

    Returns
    -------
    Figure
        Rows are true, columns recognised emotions.

    Raises
    ------
    ValueError
        When there is not one label per row.
    """
    counts = np.array(scores.confusion)
    if counts.shape != (len(labels), len(labels)):
        raise ValueError(f"{len(labels)} labels for a confusion matrix of {' x '.join(map(str, counts.shape))}")
    totals = counts.sum(1, keepdims=True)
    percent = np.divide(100 * counts, totals, out=np.zeros(counts.shape), where=totals > 0)

    side = max(4.5, 1.9 + 0.72 * len(labels))
    figure = new_figure(side + 0.6, side + 0.5)
    axes = figure.add_subplot()
    axes.imshow(percent, cmap=_BLUES, vmin=0, vmax=100)
    for row, column in np.ndindex(counts.shape):
        _confusion_cell(axes, row, column, float(percent[row, column]), int(counts[row, column]))
    labels = [label.replace("$", r"\$") for label in labels]  # no mathematics
    names = [f"{label} ({total})" for label, total in zip(labels, totals[:, 0], strict=True)]
    axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), names)
    axes.set_xlabel("recognised")
    axes.set_ylabel("true (clips)")
    axes.set_xticks(np.arange(1, len(labels)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(labels)) - 0.5, minor=True)
    axes.grid(which="minor", color=PAPER, linewidth=2)
    axes.spines[:].set_visible(False)
    axes.tick_params(which="both", length=0)
    summary = f"WA {scores.wa:.1%}   UAR {scores.uar:.1%}   macro-F1 {scores.macro_f1:.1%}   {scores.n:,} clips"
    axes.set_title(summary, loc="left", fontsize=9.5, color=MUTED)
    titles(figure, protocol_title(title, protocol))
    return figure


def curves_figure(history: Sequence[Mapping[str, Any]], title: str, protocol: str) -> Figure:
    """Draw the losses and the validation UAR of each training stage, and the epoch that was chosen.

    Parameters
    ----------
    history : sequence of mapping
        One per epoch, in the order they ran: stage (str), epoch (int), train_loss (float), and where they were measured
        validation_loss and validation_uar (float, fractions of 1; None or missing otherwise) and lr. A true `chosen`
        marks the epoch whose weights were kept.
    title : str
        What was trained on what, for example "EmoDB, fold 0". The protocol is added to it.
    protocol : str
        How test clips were set apart.

    Returns
    -------
    Figure
        One panel per stage: losses on a logarithmic scale at the left, UAR at the right.

    Raises
    ------
    ValueError
        When the history is empty.
    """
    if not history:
        raise ValueError("there is no epoch to draw")
    stages = list(dict.fromkeys(row["stage"] for row in history))
    figure = new_figure(max(6.0, 0.9 + 3.7 * len(stages)), 3.9)
    panels = figure.subplots(1, len(stages), squeeze=False)[0]
    lines = {}
    for axes, stage in zip(panels, stages, strict=True):
        lines |= _stage_panel(axes, [row for row in history if row["stage"] == stage])
        axes.set_title(stage, loc="left", fontsize=10.5, fontweight="bold", color=INK)
    panels[0].set_ylabel("loss")
    figure.legend(
        list(lines.values()), list(lines), loc="outside lower center", ncols=len(lines), frameon=False, fontsize=9
    )
    titles(figure, protocol_title(title, protocol))
    return figure


def leakage_figure(rows: Sequence[Mapping[str, Any]], title: str, measure: str = "wa") -> Figure:
    """Draw what the same network scores under each protocol.

    Parameters
    ----------
    rows : sequence of mapping
        One per corpus, protocol and network: corpus, protocol, network (str), the measure (float, a fraction of 1) and
        where known `<measure>_interval` (low, high).
    title : str
        What the figure shows.
    measure : str
        Key of the score, "wa" or "uar".

    Returns
    -------
    Figure
        One panel per corpus, a bar per protocol and network; leaky bars are hatched and named.

    Raises
    ------
    ValueError
        When there is no row, or two rows tell of the same corpus, protocol and network.
    """
    if not rows:
        raise ValueError("there is no row to draw")
    keys = [(row["corpus"], row["protocol"], row["network"]) for row in rows]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"two rows tell of {', '.join(key)}")
    corpora, networks = list(dict.fromkeys(key[0] for key in keys)), list(dict.fromkeys(key[2] for key in keys))
    protocols = sorted({key[1] for key in keys}, key=lambda name: ([*PROTOCOLS, name].index(name), name))
    figure = new_figure(max(9.0, 2.6 + len(corpora) * (0.9 + 1.05 * len(protocols))), 4.3)
    panels = figure.subplots(1, len(corpora), squeeze=False, sharey=True)[0]
    for axes, corpus in zip(panels, corpora, strict=True):
        _protocol_panel(axes, [row for row in rows if row["corpus"] == corpus], protocols, networks, measure)
        axes.set_title(corpus, loc="left", fontsize=10.5, fontweight="bold", color=INK)
    panels[0].set_ylabel(f"{measure.upper()}, %")
    handles, names = panels[0].get_legend_handles_labels()
    if len(networks) > 1:
        figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=9)
    titles(figure, title, "Hatched: leaky, the test holds other versions of training clips. Lines: 95 % by speaker.")
    return figure


def enrolled_figure(rows: Sequence[Mapping[str | int, Any]], title: str) -> Figure:
    """Draw what it is worth to know a speaker.

    Parameters
    ----------
    rows : sequence of mapping
        One per line: `name`, which has one colour; whether it is `dashed`; `panel`, the title above the lines that are
        drawn together; and by the number of other clips of the speaker that the network was told of, 0 among them,
        (UAR, its interval or None), fractions of 1.
    title : str
        What the figure shows.

    Returns
    -------
    Figure
        UAR over the number of clips; a line each, with its 95 % interval by speaker where it is not dashed.

    Raises
    ------
    ValueError
        When there is no row.
    """
    if not rows:
        raise ValueError("there is no row to draw")
    counts = sorted({key for row in rows for key in row if isinstance(key, int)})
    panels = list(dict.fromkeys(row["panel"] for row in rows))
    heights = []  # inches; every line must find its name beside it
    for panel in panels:
        names = {row["name"] for row in rows if row["panel"] == panel}
        heights.append(max(1.9, 0.5 + sum(0.07 + 0.16 * len(name.splitlines()) for name in names)))
    figure = new_figure(8.0, 1.2 + sum(heights))
    columns = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for axes, panel in zip(columns, panels, strict=True):
        lines = [row for row in rows if row["panel"] == panel]
        lines.sort(key=lambda row: row["dashed"])
        solid = [row for row in lines if not row["dashed"]]
        names, named = sorted({row["name"] for row in lines}), set()
        for row in lines:
            told = [count for count in counts if count in row]
            values = np.array([100 * row[count][0] for count in told])
            cycle, place = divmod(names.index(row["name"]), len(BARS))
            name = None if row["name"] in named else row["name"]
            look = {"color": BARS[place], "marker": "os^D"[cycle % 4], "label": name}
            named.add(row["name"])
            if row["dashed"]:  # its interval stands in the table: two sets of bars could not be told apart
                axes.plot([counts.index(count) for count in told], values, "--", markersize=3.5, linewidth=1.1, **look)
                continue
            places = [counts.index(count) + 0.06 * (solid.index(row) - (len(solid) - 1) / 2) for count in told]
            low, high = np.array([row[count][1] or (row[count][0],) * 2 for count in told]).T
            reach = np.maximum([values - 100 * low, 100 * high - values], 0)
            axes.errorbar(places, values, yerr=reach, markersize=5, linewidth=1.8, elinewidth=1.1, capsize=3, **look)
        axes.set_xticks(range(len(counts)), [str(count) for count in counts])
        _plain(axes)
        axes.set_title(panel, loc="left", size=9.5)
        axes.set_ylabel("UAR, %")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    columns[-1].set_xlabel("other clips of the same unheard speaker that the network is told of")
    titles(
        figure,
        title,
        "Of unknown emotion; none is the clip that is scored. Bars: 95 % by speaker. Dashed: without a second head.\n"
        "The table under the picture has the intervals of these, changed settings, and older second heads.",
    )
    return figure


def ablation_figure(changes: Sequence[Ablation], title: str) -> Figure:
    """Draw what each changed setting does to WA, leaky and honest beside each other.

    Parameters
    ----------
    changes : sequence of Ablation
        Of one corpus, each with a `wa_gain`.
    title : str
        What the figure shows.

    Returns
    -------
    Figure
        A row per recipe, network and change, grouped by question; a panel per protocol; dots, in points of WA, with
        the spread of the differences where there are several seeds.

    Raises
    ------
    ValueError
        When there is no change.
    """
    if not changes:
        raise ValueError("there is no change to draw")
    row_of = {
        one: (one.question, one.network, one.change, one.telling, one.kept, one.recipe.partition(" ")[0])
        for one in changes
    }
    rows = list(dict.fromkeys(row_of.values()))
    protocols = sorted({one.protocol for one in changes}, key=lambda name: ([*PROTOCOLS, name].index(name), name))
    figure = new_figure(5.0 + 3.2 * len(protocols), 1.5 + 0.3 * len(rows))
    panels = figure.subplots(1, len(protocols), squeeze=False, sharey=True)[0]
    gains = {one: [100 * (value or 0) for value in one.wa_gain or (0, 0)] for one in changes}
    widest = max(abs(gain) + spread for gain, spread in gains.values()) + 2
    for axes, protocol in zip(panels, protocols, strict=True):
        leaky = protocol == "paper"
        axes.axvline(0, color=MUTED, linewidth=1)
        for one in changes:
            if one.protocol == protocol:
                (gain, spread), y = gains[one], rows.index(row_of[one])
                side = 1 if gain >= 0 else -1
                axes.plot([0, gain], [y, y], color=FAINT, linewidth=3, solid_capstyle="round", zorder=1)
                axes.plot([gain - spread, gain + spread], [y, y], color=BLUE, linewidth=1, zorder=1)
                axes.plot(gain, y, "o", color=BLUE, markerfacecolor=PAPER if leaky else BLUE, markersize=6)
                axes.annotate(
                    f"{gain:+.1f}", (gain + side * spread, y), (7 * side, 0), textcoords="offset points",
                    ha="left" if side > 0 else "right", va="center", fontsize=8, color=INK,
                )  # fmt: skip
        axes.set_title(f"{protocol}{' (leaky)' if leaky else ''}", loc="left", fontsize=10, fontweight="bold")
        axes.set_xlim(-1.35 * widest, 1.35 * widest)
        axes.set_xlabel("change of WA, points")
        _plain(axes)
    names = [
        f"{recipe}, {network}: {_listed(telling, network)}" + (f" (with {_listed(kept, network)})" if kept else "")
        for _, network, _, telling, kept, recipe in rows
    ]
    panels[0].set_yticks(range(len(rows)), names)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    starts = [y for y, row in enumerate(rows) if y and row[0] != rows[y - 1][0]]
    for axes in panels:
        for y in starts:
            axes.axhline(y - 0.5, color=FAINT, linewidth=0.8)
    titles(
        figure,
        title,
        "Against the same recipe, folds and seeds without the change. Hollow: leaky. Lines: spread over seeds.",
    )
    return figure


def _listed(settings: Sequence[str], network: str) -> str:
    """Settings without the parts of the recipe that they belong to; but a student's may be its teacher's."""
    pairs = (setting.partition("=") for setting in settings)
    listed = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, _, value in pairs)
    lent = network.startswith("student") and all(setting.startswith("teacher_network.") for setting in settings)
    return f"teacher's {listed}" if lent else listed


def robustness_figure(rows: Sequence[Mapping[str, Any]], title: str, protocol: str) -> Figure:
    """Draw the UAR under every condition, beside that of the untouched recordings.

    Parameters
    ----------
    rows : sequence of mapping
        From `vervet.evaluation.robustness.robustness`: kind, level, uar (fraction of 1); the untouched ones first.
    title : str
        What was recognised by what. The protocol is added to it.
    protocol : str
        How test clips were set apart.

    Returns
    -------
    Figure
        One group of bars per kind of condition.

    Raises
    ------
    ValueError
        When there is no row.
    """
    if not rows:
        raise ValueError("there is no condition to draw")
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    figure = new_figure(11, 3.9)
    axes = figure.add_subplot()
    _plain(axes)
    places, names, x = [], [], 0.0
    for kind in kinds:
        group = [row for row in rows if row["kind"] == kind]
        colour = {"original": INK, "sex": MUTED, "corpus": MUTED}.get(kind, BLUE)
        for row in group:
            axes.bar(x, 100 * row["uar"], 0.8, color=colour)
            axes.text(
                x, 100 * row["uar"] - 1, f"{100 * row['uar']:.0f}", ha="center", va="top", fontsize=8, color=PAPER
            )
            places.append(x)
            names.append("" if row["level"] == "-" else row["level"])
            x += 1
        axes.text(x - len(group) / 2 - 0.5, 103, kind, ha="center", fontsize=9, fontweight="bold", color=INK)
        x += 0.7
    axes.axhline(100 * rows[0]["uar"], color=VERMILION, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_ylim(0, 110)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("UAR, %")
    titles(figure, protocol_title(title, protocol))
    return figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches in the style of all others."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
    FigureCanvasAgg(figure)
    return figure


def titles(figure: Figure, title: str, note: str = "") -> None:
    """Write a bold line above the whole figure, and a quiet one below it."""
    size = 12 * min(1, LETTERS_PER_INCH * figure.get_figwidth() / len(title))  # a long one is written smaller
    figure.suptitle(title, x=0.02, ha="left", fontsize=size, fontweight="bold", color=INK)
    if note:
        figure.supxlabel(note, x=0.02, ha="left", fontsize=8.5, color=MUTED)


def _plain(axes: Axes) -> None:
    """Light axes: a faint horizontal grid, no box."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


def _confusion_cell(axes: Axes, row: int, column: int, percent: float, count: int) -> None:
    if not count:
        return
    colour = PAPER if percent > 55 else INK
    weight = "bold" if row == column else "normal"
    axes.text(column, row - 0.1, f"{percent:.0f}%", ha="center", va="center", color=colour, fontsize=11, weight=weight)
    axes.text(column, row + 0.24, f"{count:,}", ha="center", va="center", color=colour, fontsize=7.5)


def _known(value: float | None) -> bool:
    """Whether something was validated: NaN stands where nothing was."""
    return value is not None and math.isfinite(value)


def _stage_panel(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Draw one stage; return its lines by their name in the legend."""
    _plain(axes)
    axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_locator(NullLocator())
    lines = {}
    for name, key, colour in (("training loss", "train_loss", MUTED), ("validation loss", "validation_loss", ORANGE)):
        points = [(row["epoch"], row[key]) for row in rows if _known(row.get(key))]
        if points:
            (lines[name],) = axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.8)
    points = [(row["epoch"], 100 * row["validation_uar"]) for row in rows if _known(row.get("validation_uar"))]
    if points:
        right = axes.twinx()
        _plain(right)
        right.grid(visible=False)
        right.set_ylim(0, 100)
        right.set_ylabel("validation UAR, %", color=BLUE)
        right.tick_params(axis="y", colors=BLUE)
        (lines["validation UAR"],) = right.plot(*zip(*points, strict=True), color=BLUE, linewidth=1.8)
    for chosen in (row["epoch"] for row in rows if row.get("chosen")):
        lines["chosen epoch"] = axes.axvline(chosen, color=VERMILION, linewidth=1.2, linestyle=(0, (4, 3)))
    return lines


def _protocol_panel(
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    protocols: Sequence[str],
    networks: Sequence[str],
    measure: str,
) -> None:
    """Draw one corpus: groups of bars by protocol, one bar per network."""
    _plain(axes)
    width = 0.8 / len(networks)
    for place, network in enumerate(networks):
        colour = BARS[place % len(BARS)]
        axes.bar(0, 0, color=colour, label=network)  # for the legend: a bar without hatching
        for row in rows:
            if row["network"] == network:
                x = protocols.index(row["protocol"]) + (place - (len(networks) - 1) / 2) * width
                _bar(axes, x, width, row, measure, colour)
    axes.set_xticks(range(len(protocols)), [PROTOCOLS.get(name, name) for name in protocols], fontsize=8)
    axes.set_xlim(-0.6, len(protocols) - 0.4)
    axes.set_ylim(0, 109)
    axes.set_yticks(range(0, 101, 20))


def _bar(axes: Axes, x: float, width: float, row: Mapping[str, Any], measure: str, colour: str) -> None:
    score, limits = 100 * row[measure], row.get(f"{measure}_interval")
    hatch = {"hatch": "////", "edgecolor": PAPER, "linewidth": 0} if row["protocol"] == "paper" else {}
    axes.bar(x, score, width * 0.9, color=colour, **hatch)
    top = score
    if limits:
        low, high = (100 * limit for limit in limits)
        top = max(score, high)
        axes.errorbar(x, score, [[max(0, score - low)], [max(0, high - score)]], color=INK, linewidth=1.2, capsize=3)
    axes.text(x, top + 1.5, f"{score:.1f}", ha="center", va="bottom", fontsize=9, color=INK)
