"""Numbers as people read them, the same in the terminal, on the screens and in plots.

number(0.7261, "share")      72.6 %
number(24943, "count")       24,943
number(95, "seconds")        95 s
interval(0.68, 0.74, "share")    68.0 to 74.0
"""

import datetime
from collections.abc import Iterable, Sequence

from palate.labeling.statistics.panels import Cell, Column, Unit

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0  # seconds
NONE = "\N{EN DASH}"


def number(value: Cell, unit: Unit = "number", digits: int | None = None) -> str:
    """A value in its unit; an en dash for None. A text stays what it is.

    `digits` behind the point, for numbers that stand beside others (see `digits_of`).
    """
    if value is None:
        return NONE
    if isinstance(value, str):
        return value
    if unit == "share":
        return f"{_share(value)} %"
    if unit == "seconds":
        return seconds(value)
    if unit == "count":
        return f"{value:,.0f}"
    if unit == "date":
        return day(value)
    return _plain(value) if digits is None else _signed(f"{value:,.{digits}f}")


def interval(low: Cell, high: Cell, unit: Unit = "number", digits: int | None = None) -> str:
    """`68.1 to 74.3`, without the unit where it is a percent sign; empty when there is none."""
    if low is None or high is None:
        return ""
    if unit == "share" and not isinstance(low, str) and not isinstance(high, str):
        return f"{_share(low)} to {_share(high)}"
    first, second = number(low, unit, digits), number(high, unit, digits)
    if unit == "seconds" and first.split(" ")[-1] == second.split(" ")[-1]:
        first = first.split(" ")[0]
    return f"{first} to {second}"


def digits_of(values: Iterable[Cell], unit: Unit = "number") -> int | None:
    """How many digits behind the point suit numbers that are read together; None where each is written by itself."""
    known = [abs(value) for value in values if isinstance(value, int | float)]
    if unit != "number" or not known or max(known) < 0.01:
        return None
    if all(isinstance(value, int) for value in known):
        return 0
    return next(digits for least, digits in ((100, 0), (10, 1), (0.1, 2), (0.01, 3)) if max(known) >= least)


def column_digits(column: Column, rows: Sequence[dict[str, Cell]]) -> int | None:
    """`digits_of` a column of a table with its intervals."""
    keys = [key for key in (column.key, column.low, column.high) if key]
    return digits_of((row.get(key) for row in rows for key in keys), column.unit)


def seconds(value: float) -> str:
    """A duration in the unit that suits it: `0.8 s`, `41 s`, `3.5 min`, `12 h`, `4 days`."""
    size = abs(value)
    for limit, per, name in ((2 * MINUTE, 1.0, "s"), (2 * HOUR, MINUTE, "min"), (2 * DAY, HOUR, "h")):
        if size < limit:
            shown = value / per
            return (
                f"{shown:.0f} {name}"
                if abs(shown) >= 9.95 or shown == round(shown)
                else f"{shown:.1f} {name}"
            )
    return f"{value / DAY:,.0f} days"


def day(value: float) -> str:
    """A day from the seconds since 1970 (UTC)."""
    return datetime.datetime.fromtimestamp(value, datetime.UTC).date().isoformat()


def one_line(text: str, most: int = 1000) -> str:
    """A text that others wrote on one line, without characters that move a cursor; cut with an ellipsis."""
    flat = "".join(mark if mark.isprintable() else " " for mark in text)
    flat = " ".join(flat.split())
    return flat if len(flat) <= most else flat[: most - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def _share(value: float) -> str:
    percent = 100 * value
    return "<0.1" if 0 < percent < 0.05 else f"{percent:.1f}"


def _plain(value: float) -> str:
    size = abs(value)
    if isinstance(value, int):
        return f"{value:,}"
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 0.01 or size == 0:
        return f"{value:.2f}"
    return f"{value:.2g}" if size >= 1e-4 else "<0.0001" if value > 0 else "0.00"


def _signed(text: str) -> str:
    """Without the sign of what was rounded to zero."""
    return text[1:] if text.startswith("-") and not text.strip("-0.,") else text
