"""What Review shows: panels. A panel answers one question with figures, tables and plots, as plain values.

The terminal, the screens, the API and the static page draw the same panels, so none of them computes anything. A
figure that can't be computed is None beside a sentence that says why; nothing here holds NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Unit = Literal["share", "number", "count", "seconds", "date", "text"]
Cell = str | int | float | None


@dataclass(frozen=True)
class Figure:
    """One named number with its 95 % interval."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None  # what was counted
    of: str = "votes"  # what n counts
    unit: Unit = "number"
    why: str = ""  # why value, or the interval, is None
    note: str = ""  # a published anchor, a caveat: half a sentence


@dataclass(frozen=True)
class Column:
    """A column of a table; `low` and `high` name the columns that hold its interval, which is shown beside it."""

    key: str
    label: str
    unit: Unit = "text"
    low: str = ""
    high: str = ""
    help: str = ""  # one sentence, shown on demand


@dataclass(frozen=True)
class Table:
    """Rows by column key. A row's `href` (a query string of the Data section, "?...") opens what is behind it."""

    columns: tuple[Column, ...]
    rows: Sequence[dict[str, Cell]]
    total: int | None = None  # rows there are, when only the first are here
    caption: str = ""


@dataclass(frozen=True)
class Intervals:
    """Points with intervals, one line each, best first; `reference` is drawn as a line across."""

    labels: Sequence[str]
    values: Sequence[float]
    lows: Sequence[float | None]
    highs: Sequence[float | None]
    axis: str  # what is measured
    unit: Unit = "number"
    reference: float | None = None
    reference_label: str = ""


@dataclass(frozen=True)
class Histogram:
    """Counts between edges (one more than counts); `series` overlays several, by name."""

    edges: Sequence[float]
    series: dict[str, Sequence[float]]
    axis: str
    unit: Unit = "number"
    log: bool = False  # a logarithmic horizontal axis
    mark: float | None = None
    mark_label: str = ""


@dataclass(frozen=True)
class Heat:
    """A matrix of numbers in cells, None where there is nothing; colours run from low over middle to high."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    axis: str
    unit: Unit = "share"
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Lines:
    """Series over days (ISO dates) or over numbers."""

    x: Sequence[str] | Sequence[float]
    series: dict[str, Sequence[float | None]]
    axis: str
    unit: Unit = "count"
    bars: bool = False  # drawn as bars, stacked


Plot = Intervals | Histogram | Heat | Lines


@dataclass(frozen=True)
class Panel:
    """A question, its answer in one sentence, what supports it, and how to read that."""

    id: str  # unique within its section: letters, digits, hyphens
    question: str  # "Do people agree, more than chance?"
    answer: str = ""  # one sentence with the figure in it; empty when `missing` says why there is none
    read: str = ""  # "how to read this", one sentence
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    notes: tuple[str, ...] = ()  # caveats, one sentence each
    missing: str = (
        ""  # what is needed for an answer: "no vote yet: ..." or "12 more items that two people answer"
    )
    late: bool = False  # a stand-in: the whole panel takes longer, and follows
    href: str = ""  # a query string of the Data section that lists the rows behind the answer


@dataclass(frozen=True)
class Section:
    """One screen of Review."""

    id: str
    title: str
    panels: tuple[Panel, ...] = field(default=())
