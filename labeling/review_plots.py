"""The plots of panels as SVG text that follows the page, light or dark, on paper and at 375 pixels.

    svg = draw(Intervals(...), "models-strength-0")

Each says its gist in an aria-label; the figures themselves stand in the panel's tables.
"""

import datetime
from collections.abc import Sequence
from html import escape
from textwrap import wrap
from typing import Any

import numpy as np

from palate.labeling.statistics.formatting import number, one_line
from palate.labeling.statistics.panels import Heat, Histogram, Intervals, Lines, Plot, Unit
from palate.plots import HEAT, INK, MUTED, RULE, SERIES, WIDTH, as_svg, style

ROWS = 40  # intervals that are drawn; the table has all of them
CELLS = 12  # columns of a heat map up to which every cell says its number
SIDE = 40  # rows and columns of a heat map that are drawn
LABEL, SHORT = 32, 22  # characters of a name; of one at a heat map
# where a logarithmic axis of seconds has its marks
DURATIONS = (0.1, 0.3, 1, 3, 10, 30, 60, 180, 600, 1800, 3600, 10_800, 36_000, 86_400, 604_800)


def draw(plot: Plot, prefix: str) -> str:
    """An <svg> element; `prefix` is unique on its page: letters, digits, hyphens."""
    with style():
        if isinstance(plot, Intervals):
            figure = _intervals(plot)
        elif isinstance(plot, Histogram):
            figure = _histogram(plot)
        elif isinstance(plot, Heat):
            figure = _heat(plot)
        else:
            figure = _lines(plot)
        svg = as_svg(figure, prefix)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(gist(plot))}" ', 1)


def warm_up() -> None:
    """Load matplotlib and its fonts, which takes most of a second, before somebody waits for it."""
    draw(Lines([0.0, 1.0], {"": [0.0, 1.0]}, "x"), "warm")


def gist(plot: Plot) -> str:
    """What a plot shows, in one sentence, for those who can't see it."""
    if isinstance(plot, Intervals):
        if not plot.labels:
            return f"{plot.axis}: nothing to show yet"
        ends = [f"{_label(plot.labels[i])} at {number(plot.values[i], plot.unit)}" for i in (0, -1)]
        between = ends[0] if len(plot.labels) == 1 else f"{len(plot.labels)} rows from {ends[0]} to {ends[1]}"
        return f"{plot.axis}, with 95 % intervals: {between}"
    if isinstance(plot, Histogram):
        return f"{plot.axis}, a histogram{_named(list(plot.series))}: {_most(plot)}"
    if isinstance(plot, Heat):
        known = [value for row in plot.values for value in row if value is not None]
        span = f", from {number(min(known), plot.unit)} to {number(max(known), plot.unit)}" if known else ""
        return f"{plot.axis}, a table of colours with {len(plot.rows)} rows and {len(plot.columns)} columns{span}"
    span = f", {_x(plot.x[0])} to {_x(plot.x[-1])}" if len(plot.x) else ""
    return f"{plot.axis}{_named(list(plot.series))}{span}"


def _named(names: list[str]) -> str:
    shown = [_label(name) for name in names if name]
    return f" of {', '.join(shown)}" if shown else ""


def _most(plot: Histogram) -> str:
    """Where a histogram is highest."""
    values = next(iter(plot.series.values()), [])
    if not len(values) or not max(values):
        return "empty"
    top = int(np.argmax(values))
    return f"most between {number(plot.edges[top], plot.unit)} and {number(plot.edges[top + 1], plot.unit)}"


def _x(value: str | float) -> str:
    return value if isinstance(value, str) else number(value)


def _label(text: str) -> str:
    return one_line(text, LABEL) or "(no name)"


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


# -- intervals --------------------------------------------------------------------------------------------------


def _intervals(plot: Intervals) -> Any:
    labels = [_in_lines(label) for label in plot.labels[:ROWS]]
    figure, axes = _figure(
        0.62 + (0.41 if any("\n" in label for label in labels) else 0.26) * max(1, len(labels))
    )
    values = np.array([_at(v, plot.unit) for v in plot.values[:ROWS]], dtype=float)
    for place, value in enumerate(values):
        low, high = plot.lows[place], plot.highs[place]
        if low is not None and high is not None:
            ends = [_at(low, plot.unit), _at(high, plot.unit)]
            axes.plot(ends, [place, place], color=SERIES[0], linewidth=3.2, alpha=0.55)
        axes.plot(value, place, "o", color=SERIES[0], markersize=6)
    if plot.reference is not None:
        axes.axvline(_at(plot.reference, plot.unit), color=MUTED, linewidth=1.2, zorder=0)
        if plot.reference_label:
            _above(axes, plot.reference_label, _at(plot.reference, plot.unit), MUTED)
    longest = max((len(line) for label in labels for line in label.split("\n")), default=0)
    axes.set_yticks(range(len(labels)), labels, fontsize=12 if longest < 20 else 10.5, linespacing=0.95)
    axes.set_ylim(max(1, len(labels)) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    _numbers(axes.xaxis, plot.unit)
    axes.set_xlabel(plot.axis)
    return figure


def _in_lines(text: str) -> str:
    """A name on one line, or on two where it is long."""
    return (
        "\n".join(wrap(one_line(text), LABEL, max_lines=2, placeholder="\N{HORIZONTAL ELLIPSIS}"))
        or "(no name)"
    )


def _above(axes: Any, text: str, x: float, colour: str) -> None:
    """A word over the plot, at a line in it."""
    axes.annotate(text, (x, 1), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
                  ha="center", color=colour, fontsize=10.5)  # fmt: skip


def _at(value: float, unit: Unit) -> float:
    """Shares are drawn as percent."""
    return 100 * value if unit == "share" else value


def _numbers(axis: Any, unit: Unit, bins: int = 5) -> None:
    """Few round marks on an axis, written as everywhere else."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(bins, steps=[1, 2, 2.5, 5, 10], integer=unit == "count"))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _mark(float(value), unit)))


def _mark(value: float, unit: Unit) -> str:
    if unit == "share":
        return f"{value:g} %"
    if unit == "seconds":
        return _duration(value)
    if abs(value) >= 10_000:
        return f"{value / 1000:,g} k" if abs(value) < 1e6 else f"{value / 1e6:,g} M"
    return f"{value:,g}".replace("-", "\N{MINUS SIGN}")


# -- histograms -------------------------------------------------------------------------------------------------


def _histogram(plot: Histogram) -> Any:
    figure, axes = _figure(2.7)
    edges = np.array([_at(edge, plot.unit) for edge in plot.edges], dtype=float)
    for place, (name, counts) in enumerate(plot.series.items()):
        colour = SERIES[place % len(SERIES)]
        heights = np.asarray(counts, dtype=float)
        if place == 0:
            axes.stairs(heights, edges, fill=True, color=colour, alpha=0.3)
        axes.stairs(heights, edges, color=colour, linewidth=1.6, label=_label(name))
    if plot.mark is not None and len(edges) and plot.edges[0] <= plot.mark <= plot.edges[-1]:
        axes.axvline(_at(plot.mark, plot.unit), color=INK, linewidth=1.2)
        _above(axes, plot.mark_label, _at(plot.mark, plot.unit), INK)
    if plot.log and len(edges) and edges[-1] > 0:
        _logarithmic(axes, edges, plot.unit)
    else:
        _numbers(axes.xaxis, plot.unit)
    _numbers(axes.yaxis, "number", 4)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    axes.tick_params(axis="y", labelcolor=MUTED)
    axes.set_xlabel(plot.axis)
    _legend(axes, list(plot.series), lift=0 if plot.mark is None else 0.1)
    return figure


def _logarithmic(axes: Any, edges: Any, unit: Unit) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    low = float(edges[edges > 0].min())
    axes.set_xlim(low, max(float(edges[-1]), 1.01 * low))
    axes.xaxis.set_minor_locator(NullLocator())
    if unit == "seconds":
        marks = [mark for mark in DURATIONS if low <= mark <= edges[-1]]
        if len(marks) < 2:
            marks = [low, float(edges[-1])]
        marks = marks[:: 1 + (len(marks) - 1) // 7]
        axes.set_xticks(marks, [_duration(mark) for mark in marks])
    else:
        axes.xaxis.set_major_locator(LogLocator(10, numticks=7))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _mark(float(value), unit)))


def _duration(mark: float) -> str:
    """A round duration: `30 s`, `1 min`, `3 h`."""
    for per, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if mark >= per:
            return f"{mark / per:.3g} {name}"
    return f"{mark:.3g} s"


def _legend(axes: Any, names: Sequence[str], lift: float = 0) -> None:
    """Above the plot, where it covers nothing; `lift` makes room for a word between them."""
    if sum(1 for name in names if name) > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1 + lift), ncols=3, frameon=False, fontsize=10.5,
                    handlelength=1.2, columnspacing=1.2, borderaxespad=0.2)  # fmt: skip


# -- heat maps --------------------------------------------------------------------------------------------------


def _heat(plot: Heat) -> Any:
    rows, columns = plot.rows[:SIDE], plot.columns[:SIDE]
    written = len(columns) <= CELLS
    height = max(0.24 if written else 0.16, 3.4 / max(1, len(columns)) if written else 0) if rows else 0.3
    figure, axes = _figure(0.9 + min(height, 0.42) * max(1, len(rows)))
    known = [
        (i, j, value)
        for i, values in enumerate(plot.values[:SIDE])
        for j, value in enumerate(values[:SIDE])
        if value is not None
    ]
    axes.add_collection(_cells(known, plot))
    for i, j, value in known if written else []:
        shown = f"{100 * value:.0f}" if plot.unit == "share" else number(value, plot.unit)
        axes.text(j, i, shown, ha="center", va="center", fontsize=10.5 if len(columns) <= 9 else 9)
    axes.set_xlim(-0.5, max(1, len(columns)) - 0.5)
    axes.set_ylim(max(1, len(rows)) - 0.5, -0.5)
    names = [one_line(name, SHORT) or "(no name)" for name in columns]
    turned = sum(len(name) for name in names) > 44 or not written
    axes.set_xticks(range(len(names)), names, rotation=40 if turned and written else 90 if turned else 0,
                    ha="left" if turned and written else "center", fontsize=10.5 if written else 8)  # fmt: skip
    axes.set_yticks(
        range(len(rows)),
        [one_line(name, SHORT) or "(no name)" for name in rows],
        fontsize=10.5 if written else 8,
    )
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[["left", "bottom", "top", "right"]].set_visible(False)
    axes.set_xlabel(plot.axis + (" (%)" if plot.unit == "share" else ""))
    return figure


def _cells(known: Sequence[tuple[int, int, float]], plot: Heat) -> Any:
    """Rectangles at (row, column), coloured by value."""
    from matplotlib.collections import PolyCollection

    corners = np.array([(-0.47, -0.46), (0.47, -0.46), (0.47, 0.46), (-0.47, 0.46)])
    shapes = [corners + (j, i) for i, j, _ in known]
    shares = [(value - plot.low) / ((plot.high - plot.low) or 1.0) for _, _, value in known]
    steps = (np.clip(shares, 0, 1) * (len(HEAT) - 1) + 0.5).astype(int)
    return PolyCollection(shapes, facecolors=[HEAT[step] for step in steps], edgecolors="none")


# -- lines over days or numbers ---------------------------------------------------------------------------------


def _lines(plot: Lines) -> Any:
    figure, axes = _figure(2.7)
    days = bool(len(plot.x)) and isinstance(plot.x[0], str)
    x = np.array([_ordinal(str(v)) if days else float(v) for v in plot.x], dtype=float)
    below = np.zeros(len(x))
    width = 0.9 * float(np.diff(x).min()) if len(x) > 1 else 0.9
    for place, (name, values) in enumerate(plot.series.items()):
        colour = SERIES[place % len(SERIES)]
        y = np.array([np.nan if v is None else _at(float(v), plot.unit) for v in values], dtype=float)
        if plot.bars:
            heights = np.nan_to_num(y)
            axes.bar(x, heights, width, below, color=colour, label=_label(name), linewidth=0)
            below += heights
        else:
            axes.plot(x, y, color=colour, linewidth=2, label=_label(name))
            if len(x) <= 31:
                axes.plot(x, y, ".", color=colour, markersize=6)
    if days:
        _days(axes, x)
    elif len(x):
        _numbers(axes.xaxis, "number", 6)
    _numbers(axes.yaxis, plot.unit, 4)
    if plot.bars:
        axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.02)
    axes.tick_params(axis="y", labelcolor=MUTED)
    lines = wrap(one_line(plot.axis), 58)
    several = sum(1 for name in plot.series if name) > 1
    axes.set_title("\n".join(lines), loc="left", fontsize=12, color=MUTED, pad=8)
    _legend(axes, list(plot.series), lift=0.09 + 0.1 * len(lines) if several else 0)
    return figure


def _ordinal(day: str) -> float:
    return float(datetime.date.fromisoformat(day).toordinal())


def _days(axes: Any, x: Any) -> None:
    """At most six days, written as one would: the year once."""
    span = x[-1] - x[0]
    places = np.unique(np.linspace(x[0], x[-1], min(6, int(span) + 1)).round()) if span else x
    shown = [datetime.date.fromordinal(int(place)) for place in places]
    years = len({day.year for day in shown}) > 1
    texts = [
        f"{day.day} {day:%b}" + (f"\n{day.year}" if years or i == 0 else "") for i, day in enumerate(shown)
    ]
    axes.set_xticks(places, texts)
    if len(x) == 1:
        axes.set_xlim(x[0] - 3, x[0] + 3)
