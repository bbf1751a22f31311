"""What the panels about agreement share: whose votes they are, estimates as figures and in sentences."""

from typing import Literal

from palate.labeling.statistics.formatting import interval, number
from palate.labeling.statistics.measures import Estimate
from palate.labeling.statistics.panels import Figure, Unit
from palate.labeling.statistics.scope import Kind, Scope
from palate.labeling.statistics.tallies import Tallies

# who votes: several, one of them
WHO: dict[Kind, tuple[str, str]] = {
    "human": ("people", "person"),
    "rule": ("rules", "rule"),
    "model": ("models", "model"),
}
BIG = 500_000  # judgements; from here on what takes longer follows after the page stands


def who(scope: Scope) -> str:
    """`people`."""
    return WHO[scope.kind][0]


def is_big(found: Tallies) -> bool:
    """Whether bootstraps over these take longer than a page may."""
    return int(found.counts.sum()) > BIG


def figure(label: str, found: Estimate, unit: Unit = "number", of: str = "items", note: str = "") -> Figure:
    """An estimate as a figure."""
    return Figure(label, found.value, found.low, found.high, found.n, of, unit, found.why, note)


def said(found: Estimate, unit: Literal["share", "number"] = "number") -> str:
    """`71.2 % (95 %: 69.4 to 73.0)`, without the bracket where there is no interval."""
    span = interval(found.low, found.high, unit)
    return number(found.value, unit) + (f" (95 %: {span})" if span else "")
