"""Charts of a report as SVG text: sharp at any size, coloured by the page's style sheet.

Every chart has a text alternative; what is hovered over tells its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from vervet.evaluation.calibration import Bin

MOST_POINTS = 400  # of a line; more cannot be told apart
SIDE = 330  # of a square chart, in its own units
Scale = Callable[[float], float]
Point = tuple[float, float]


@dataclass(frozen=True)
class Frame:
    """The plotting area: where values of x and y come to lie."""

    width: float
    height: float
    x: Scale
    y: Scale
    left: float
    right: float
    top: float
    bottom: float


def percent(value: float) -> str:
    """A fraction of 1 as text, such as "62.5 %", with a space that does not break."""
    return f"{100 * value:.1f}\u00a0%"


def points(value: float) -> str:
    """A fraction of 1 in points: "62.5"."""
    return f"{100 * value:.1f}"


def change(value: float) -> str:
    """A difference of two fractions in points, with its sign: "−6.7", "+1.1", "0.0"."""
    text = f"{100 * value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "\u2212")


def _linear(low: float, high: float, start: float, stop: float) -> Scale:
    return lambda value: start + (value - low) / ((high - low) or 1) * (stop - start)


def _logarithmic(low: float, high: float, start: float, stop: float) -> Scale:
    exponent = _linear(math.log(low), math.log(high), start, stop)
    return lambda value: exponent(math.log(value))


def _frame(width: float, height: float, x: tuple[float, float], y: tuple[float, float], log: bool = False) -> Frame:
    left, right, top, bottom = 36.0, width - 12, 24.0, height - 38
    rising = _logarithmic if log else _linear
    return Frame(width, height, _linear(*x, left, right), rising(*y, bottom, top), left, right, top, bottom)


def _svg(frame: Frame, label: str, parts: Iterable[Markup]) -> Markup:
    opening = Markup('<svg class="chart" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">')
    return opening.format(frame.width, frame.height, label) + Markup("").join(parts) + Markup("</svg>")


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(kind, x1, y1, x2, y2)


def _text(kind: str, x: float, y: float, text: str, anchor: str = "middle") -> Markup:
    made = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    return made.format(kind, x, y, anchor, text)


def _dot(kind: str, x: float, y: float, radius: float, told: str) -> Markup:
    made = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"><title>{}</title></circle>')
    return made.format(kind, x, y, radius, told)


def _path(kind: str, frame: Frame, points: Sequence[Point]) -> Markup:
    step = max(1, len(points) // MOST_POINTS)
    kept = [*points[:-1:step], points[-1]]
    way = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in kept)
    return Markup('<polyline class="{}" points="{}"/>').format(kind, way)


def _axes(
    frame: Frame, x_ticks: Iterable[tuple[float, str]], y_ticks: Iterable[tuple[float, str]], x_name: str, y_name: str
) -> list[Markup]:
    parts = []
    for value, name in y_ticks:
        y = frame.y(value)
        parts += [_line("grid", frame.left, y, frame.right, y), _text("tick", frame.left - 6, y + 3.5, name, "end")]
    for value, name in x_ticks:
        parts.append(_text("tick", frame.x(value), frame.bottom + 15, name))
    parts.append(_text("axis", (frame.left + frame.right) / 2, frame.height - 5, x_name))
    return [*parts, _text("axis", 0, 10, y_name, "start")]


def _shares() -> list[tuple[float, str]]:
    return [(share / 100, str(share)) for share in (0, 25, 50, 75, 100)]


def reliability_chart(before: Sequence[Bin], after: Sequence[Bin]) -> Markup:
    """How often answers are right against how sure they are, before and after calibration."""
    frame = _frame(SIDE, SIDE, (0, 1), (0, 1))
    most = max(one.clips for one in (*before, *after))
    parts = _axes(frame, _shares(), _shares(), "confidence, %", "right, %")
    parts.append(_line("diagonal", frame.x(0), frame.y(0), frame.x(1), frame.y(1)))
    for kind, bins in (("before", before), ("after", after)):
        parts.append(_path(f"line {kind}", frame, [(one.confidence, one.accuracy) for one in bins]))
        for one in bins:
            told = f"{one.clips} clips, {kind} calibration: confidence {percent(one.confidence)}, "
            told += f"right {percent(one.accuracy)}"
            radius = 2.5 + 5 * math.sqrt(one.clips / most)
            parts.append(_dot(f"dot {kind}", frame.x(one.confidence), frame.y(one.accuracy), radius, told))
    label = "; ".join(
        f"{kind} calibration, confidence and share right: "
        + ", ".join(f"{percent(one.confidence)} {percent(one.accuracy)}" for one in bins)
        for kind, bins in (("before", before), ("after", after))
    )
    return _svg(frame, f"Reliability diagram. {label}.", parts)


def rejection_chart(curve: Sequence[Point], answered: float, right: float | None, overall: float) -> Markup:
    """Accuracy against the share of clips answered, with the share that is not `uncertain`."""
    frame = _frame(SIDE, SIDE, (0, 1), (0, 1))
    edge = frame.x(answered)
    shade = Markup('<rect class="uncertain" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
    parts = [shade.format(edge, frame.top, frame.right - edge, frame.bottom - frame.top)]
    parts += _axes(frame, _shares(), _shares(), "clips answered, the surest first, %", "right of these, %")
    parts.append(_line("diagonal", frame.left, frame.y(overall), frame.right, frame.y(overall)))
    parts.append(_path("line after", frame, curve))
    parts.append(_line("edge", edge, frame.top, edge, frame.bottom))
    room = answered < 0.75
    parts.append(
        _text("note", edge + (5 if room else -5), frame.bottom - 8, "uncertain" if room else "certain",
              "start" if room else "end")
    )  # fmt: skip
    label = f"Accuracy against share answered: {percent(overall)} of all answers are right; "
    label += f"{percent(answered)} are not uncertain"
    if right is not None:
        told = f"{percent(answered)} of clips are not uncertain; {percent(right)} of these are right"
        parts.append(_dot("dot chosen", edge, frame.y(right), 5.5, told))
        label += f", of these {percent(right)} are right"
    return _svg(frame, f"{label}.", parts)


def curve_chart(folds: Sequence[Sequence[dict[str, Any]]], stage: str, what: str) -> Markup:
    """One stage over its epochs: what="loss" for training and validation, "uar" for validation; a line per fold."""
    keys = {"loss": ("train_loss", "validation_loss"), "uar": ("validation_uar",)}[what]
    rows = [[row for row in fold if row["stage"] == stage] for fold in folds]
    lines = [
        (key, [(row["epoch"] + 1.0, row[key]) for row in fold if _drawable(row, key, what)])
        for fold in rows
        for key in keys
    ]
    lines = [(key, points) for key, points in lines if points]
    if not lines:
        return Markup("")
    values = [value for _, points in lines for _, value in points]
    last = max(epoch for _, points in lines for epoch, _ in points)
    low, high = (0.0, 1.0) if what == "uar" else (min(values) / 1.15, max(values) * 1.15)
    frame = _frame(280, 180, (1, max(last, 2)), (low, high), log=what == "loss")
    y_ticks = _shares() if what == "uar" else [(value, f"{value:g}") for value in _log_ticks(low, high)]
    parts = _axes(frame, [(epoch, str(epoch)) for epoch in _epochs(int(last))], y_ticks, "epoch",
                  "loss" if what == "loss" else "validation UAR, %")  # fmt: skip
    for key, points in lines:
        kind = "before" if key == "train_loss" else "after"
        parts.append(_path(f"line {kind}{' many' if len(folds) > 1 else ''}", frame, points))
        if len(points) == 1:
            parts.append(_dot(f"dot {kind}", frame.x(points[0][0]), frame.y(points[0][1]), 3, f"{points[0][1]:.3g}"))
    for epoch in sorted({row["epoch"] + 1 for fold in rows for row in fold if row["chosen"]}):
        parts.append(_line("edge", frame.x(epoch), frame.top, frame.x(epoch), frame.bottom))
    ends = "; ".join(f"{key.replace('_', ' ')} ends at {points[-1][1]:.3g}" for key, points in lines[:4])
    return _svg(frame, f"Stage {stage} over {last:.0f} epochs: {ends}.", parts)


def _drawable(row: dict[str, Any], key: str, what: str) -> bool:
    value = row.get(key)
    return value is not None and math.isfinite(value) and (value > 0 or what == "uar")


def _epochs(last: int) -> list[int]:
    step = max(1, math.ceil(last / 6))
    return sorted({1, *range(step, last + 1, step)} - ({step} if 1 < step < 2 else set()))


def _log_ticks(low: float, high: float) -> list[float]:
    if high < 5 * low:  # hardly bent: even steps
        size = 10 ** math.floor(math.log10(high - low))
        step = next(step * size for step in (0.2, 0.5, 1, 2, 5) if (high - low) / (step * size) <= 5)
        return [round(step * count, 9) for count in range(math.ceil(low / step), math.floor(high / step) + 1)]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1,) if high > 50 * low else (1, 2, 5)
    return [digit * 10.0**decade for decade in decades for digit in digits if low <= digit * 10.0**decade <= high]


def strip_chart(values: Sequence[tuple[str, float]], overall: float) -> Markup:
    """One dot per speaker above a line from 0 to 100 %, where they are too many for a table at first sight."""
    columns: dict[int, list[tuple[str, float]]] = {}
    for name, value in values:
        columns.setdefault(round(100 * value), []).append((name, value))
    frame = _frame(2 * SIDE, 75 + 7 * max(map(len, columns.values())), (0, 1), (0, 1))
    parts = _axes(frame, _shares(), [], "WA of each speaker, %", "")
    parts.append(_line("grid", frame.left, frame.bottom, frame.right, frame.bottom))
    parts.append(_line("edge", frame.x(overall), frame.top, frame.x(overall), frame.bottom))
    for column, speakers in columns.items():
        for height, (name, value) in enumerate(speakers):
            told = f"speaker {name}: {percent(value)}"
            parts.append(_dot("dot after", frame.x(column / 100), frame.bottom - 5 - 7 * height, 3, told))
    (low, lowest), (high, highest) = (pick(values, key=lambda one: one[1]) for pick in (min, max))
    label = f"WA of {len(values)} speakers, from {percent(lowest)} ({low}) to {percent(highest)} ({high})"
    return _svg(frame, f"{label}.", parts)


def clip_chart(picture: str, attention: Sequence[float], end_s: float, window_s: float, name: str) -> Markup:
    """The log-Mel image of a clip with the attention of the last block over its columns.

    Parameters
    ----------
    picture : str
        The image as a data URI, high bands at the top.
    attention : sequence of float
        Of each patch, in order of time.
    end_s, window_s : float
        Where the recording ends, and the window that the network hears.
    name : str
        Of the clip, for the text alternative.
    """
    width, strip, tall = 400.0, 34.0, 118.0
    frame = Frame(width, strip + tall + 20, _linear(0, window_s, 0, width), float, 0, width, strip, strip + tall)
    image = Markup('<image href="{}" x="0" y="{}" width="{:.1f}" height="{}" preserveAspectRatio="none"/>')
    end = frame.x(min(end_s, window_s))
    most, count = max(attention) or 1.0, len(attention)
    edge = [
        f"{width * x / count:.1f},{strip - 2 - (strip - 4) * value / most:.1f}"
        for i, value in enumerate(attention)
        for x in (i, i + 1)
    ]
    area = Markup('<polygon class="attention" points="0,{0} {1} {2},{0}"/>').format(strip - 2, " ".join(edge), width)
    parts = [area, image.format(picture, strip, width, tall)]
    if end < width:
        cover = Markup('<rect class="padding" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>')
        parts.append(cover.format(end, strip, width - end, tall))
        if width - end > 70:
            parts.append(_text("tick", (end + width) / 2, strip + tall / 2, "padding"))
    for second in range(math.floor(window_s) + 1):
        anchor = "start" if second == 0 else "end" if second >= window_s else "middle"
        parts.append(_text("tick", frame.x(second), strip + tall + 15, f"{second} s", anchor))
    peak = (max(range(count), key=lambda index: attention[index]) + 0.5) * window_s / count
    label = f"Log-Mel image of {name}, {min(end_s, window_s):.2f} s; attention is strongest at {peak:.2f} s."
    return _svg(frame, label, parts)
