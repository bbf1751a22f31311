"""Plots as SVG text that follows the page: its font, its colours, light or dark. Shared by the report and Review.

matplotlib draws with stand-in colours, each of which is replaced by a CSS variable of the page. The ids inside
each SVG get a prefix of their own, because a page holds several. Nothing here is random or dated: the same
figures give the same bytes.

    with style():
        figure = Figure(figsize=(WIDTH, 3), layout="constrained")
        ...
        svg = as_svg(figure, "win")
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any
from warnings import catch_warnings, filterwarnings

INK, MUTED, RULE = "#010203", "#040506", "#070809"  # stand-ins: no plot uses these colours for real
SERIES = tuple(f"#0a0b{index:02x}" for index in range(6))
HEAT = tuple(f"#0c0d{index:02x}" for index in range(11))  # from low over middle to high
WIDTH = 5.4  # inches; the page scales it to its column
_VARIABLES = (
    {INK: "--ink", MUTED: "--muted", RULE: "--rule"}
    | {colour: f"--series-{index}" for index, colour in enumerate(SERIES)}
    | {colour: f"--heat-{index}" for index, colour in enumerate(HEAT)}
)
_COLOUR = re.compile("|".join(_VARIABLES))
_STYLE = {
    "svg.fonttype": "none",  # text stays text: selectable, and in the page's font
    "svg.hashsalt": "palate",
    "text.parse_math": False,  # a model's name may hold dollar signs
    "font.size": 12,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "lines.solid_capstyle": "round",
}
_drawing = Lock()  # matplotlib's settings belong to the whole process


@contextmanager
def style() -> Iterator[None]:
    """Drawing in the page's manner; one thread at a time."""
    import matplotlib

    with _drawing, catch_warnings(), matplotlib.rc_context(_STYLE):
        filterwarnings("ignore", "Glyph")  # its own font lacks it; the page's font draws the text
        yield


def as_svg(figure: Any, prefix: str) -> str:
    """The figure as an <svg> element without inline styles, which a page may forbid.

    `prefix` is unique on its page and safe in an id.
    """
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<[a-z][^<>]*>", lambda tag: _own(tag[0], prefix), text)  # never in the texts themselves
    return text.replace('width="', 'data-width="', 1).replace('height="', 'data-height="', 1)


def _own(tag: str, prefix: str) -> str:
    """A tag with ids and colours of the page, and what it says about style as attributes."""
    tag = re.sub(r'\b(id|xlink:href|clip-path)="(#|url\(#)?', rf'\1="\2{prefix}-', tag)
    tag = re.sub(r' style="([^"]*)"', lambda found: _attributes(found[1]), tag)
    return _COLOUR.sub(lambda colour: f"var({_VARIABLES[colour[0]]})", tag)


def _attributes(rules: str) -> str:
    pairs = [rule.partition(":") for rule in rules.split(";") if ":" in rule]
    return "".join(
        f' {name.strip()}="{value.strip()}"' for name, _, value in pairs if name.strip() != "font-family"
    )
