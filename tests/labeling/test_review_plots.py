"""Plots of panels: well-formed SVG in the page's colours, without styles of their own; extremes don't break them."""

import re
from xml.etree import ElementTree

import pytest

from palate.labeling.review_plots import draw, gist
from palate.labeling.statistics.panels import Heat, Histogram, Intervals, Lines, Plot
from tests.labeling.sample_panels import EVIL, PACE, STRENGTH

PLOTS = [*STRENGTH.plots, *PACE.plots]
EXTREMES: dict[str, Plot] = {
    "no intervals": Intervals([], [], [], [], "score"),
    "one": Intervals(["one"], [0.5], [None], [None], "won", "share", 0.5, "even"),
    "sixty": Intervals(
        [f"m{i}" for i in range(60)], [float(i) for i in range(60)], [0.0] * 60, [1.0] * 60, "s"
    ),
    "empty histogram": Histogram(
        [0.0, 1.0], {"": [0]}, "time", "seconds", log=True, mark=2.0, mark_label="m"
    ),
    "one time": Histogram([11.4, 12.6], {"": [1]}, "time", "seconds", log=True),
    "no histogram": Histogram([], {}, "time"),
    "shares": Histogram([0.0, 0.5, 1.0], {"a": [1, 2], "b": [2, 1]}, "agreement", "share"),
    "big numbers": Histogram([1.0, 10.0, 1e7], {"": [5_000_000, 1]}, "votes", "count", log=True),
    "no heat": Heat([], [], [], "won"),
    "holes": Heat(["a"], ["b", "c"], [[None, None]], "won", low=0.5, high=0.5),
    "many cells": Heat([str(i) for i in range(50)], [str(i) for i in range(50)], [[0.5] * 50] * 50, "won"),
    "counts": Heat(["a"], ["b"], [[12_345.0]], "votes", "count", 0, 20_000),
    "no days": Lines([], {}, "votes"),
    "one day": Lines(["2026-01-05"], {"": [3]}, "votes", bars=True),
    "two years": Lines(["2025-12-31", "2026-01-01", "2026-03-01"], {"a": [1, None, 2]}, "votes"),
    "numbers": Lines([0.5, 1.0], {"a": [0.1, 0.2], "b": [None, None]}, "share", "share"),
}


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [text for node in root.iter() if (text := (node.text or "").strip())]


@pytest.mark.parametrize("plot", [*PLOTS, *EXTREMES.values()])
def test_every_plot_is_an_svg_that_follows_the_page(plot: Plot) -> None:
    svg = draw(plot, "models-strength-0")
    root = ElementTree.fromstring(svg)
    assert (root.get("role"), root.get("aria-label")) == ("img", gist(plot))
    assert root.get("viewBox") and not root.get("width")
    ids = [node.get("id") for node in root.iter() if node.get("id")]
    assert len(ids) == len(set(ids)) and all(str(each).startswith("models-strength-0-") for each in ids)
    assert "style" not in svg and "<script" not in svg and "NaN" not in svg and "nan" not in svg
    colours = {
        value
        for node in root.iter()
        for name in ("fill", "stroke")
        if (value := node.get(name)) and not value.startswith("url(")
    }
    assert colours <= {"none", *(c for c in colours if re.fullmatch(r"var\(--[a-z]+(-\d+)?\)", c))}
    assert draw(plot, "models-strength-0") == svg


def test_names_are_text_and_cut() -> None:
    svg = draw(Intervals([EVIL, "x" * 99, ""], [3.0, 2.0, 1.0], [1.0] * 3, [4.0] * 3, 'a "score" <b>'), "p")
    assert "<img" not in svg
    ends = ["<img src=x", "onerror=alert(1)>\"'`{{7*7}}$x$…", "x" * 32, "…", "(no name)"]
    assert texts(svg)[-6:] == ['a "score" <b>', *ends]
    assert 'style="' not in draw(Lines([1.0], {'" style="x: y" id="z': [1.0]}, "#010203 id=x"), "p")


@pytest.mark.parametrize(
    ("plot", "said"),
    [
        (PLOTS[0], "score (1,000 is the mean), with 95 % intervals: 7 rows from gpt-large at 1,112 to tiny at 871"),
        (EXTREMES["one"], "won, with 95 % intervals: one at 50.0 %"),
        (EXTREMES["no intervals"], "score: nothing to show yet"),
        (PLOTS[1], "won by the row against the column, a table of colours with 7 rows and 7 columns, from 8.0 % to 92.0 %"),
        (PLOTS[2], "time per answer, a histogram of visible, active: most between 61 s and 82 s"),
        (EXTREMES["empty histogram"], "time, a histogram: empty"),
        (PLOTS[3], "votes per day of anna, bert, 2026-07-01 to 2026-08-28"),
        (EXTREMES["no days"], "votes"),
    ],
)  # fmt: skip
def test_what_a_plot_says_to_those_who_cannot_see_it(plot: Plot, said: str) -> None:
    assert gist(plot) == said


def test_durations_and_shares_are_written_as_people_do() -> None:
    assert {"1 s", "10 s", "1 min", "10 min", "1 h", "median 41 s"} <= set(texts(draw(PLOTS[2], "p")))
    assert {"40 %", "50 %", "60 %", "even"} <= set(
        texts(draw(Intervals(["a"], [0.5], [0.4], [0.6], "won", "share", 0.5, "even"), "p"))
    )
