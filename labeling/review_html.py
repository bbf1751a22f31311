"""Panels as HTML: for the Review screens, and for the one file that `palate stats --html` writes.

Everything that people and models wrote is escaped by the template engine; only our own plots and style sheets
aren't. The same template draws a panel on both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from palate.labeling import strings
from palate.labeling.review_plots import draw
from palate.labeling.statistics.formatting import column_digits, digits_of, interval, number, one_line
from palate.labeling.statistics.panels import Cell, Column, Panel, Section, Table, Unit
from palate.labeling.statistics.report import scope_text
from palate.labeling.statistics.scope import Scope

ROWS = 200  # of a table on the screen; its CSV has those that were computed
BESIDE, SHORT = 4, 28  # columns of a table that stands beside a plot, characters of its cells
TEMPLATES = Environment(
    loader=PackageLoader("palate.labeling"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


@dataclass(frozen=True)
class Drawn:
    """A panel and its plots."""

    panel: Panel
    plots: tuple[Markup, ...]


@dataclass(frozen=True)
class Shown:
    """A section that needs no more computing."""

    id: str
    title: str
    panels: tuple[Drawn, ...]


@dataclass(frozen=True)
class Order:
    """How one table is sorted: `people.0.votes` means the first table of the panel `people`, by its column `votes`,
    largest first; `-people.0.votes` smallest first."""

    panel: str
    table: int
    key: str
    rising: bool

    @classmethod
    def read(cls, text: str | None) -> "Order | None":
        """The order in a query string; None where it names none."""
        parts = (text or "").removeprefix("-").split(".", 2)
        if len(parts) != 3 or not parts[1].isdigit() or len(parts[1]) > 2:
            return None
        return cls(parts[0], int(parts[1]), parts[2], (text or "").startswith("-"))


def drawn(section: Section) -> Shown:
    """A section with its plots drawn."""
    panels = tuple(
        Drawn(
            panel,
            tuple(Markup(draw(plot, f"{section.id}-{panel.id}-{i}")) for i, plot in enumerate(panel.plots)),
        )
        for panel in section.panels
    )
    return Shown(section.id, section.title, panels)


def page(template: str, **values: Any) -> str:
    """A filled template."""
    return TEMPLATES.get_template(f"{template}.html.jinja").render(
        language="en", t=partial(strings.text, "en"), **values
    )


def static_page(project: str, scope: Scope, sections: Sequence[Section], made: datetime) -> str:
    """One HTML file with everything in it: no scripts, no other files."""
    css = "\n".join(
        files("palate.labeling").joinpath(f"assets/{name}.css").read_text(encoding="utf-8")
        for name in ("people", "review")
    )
    return page(
        "review_static",
        project=project,
        scope=scope_text(scope),
        sections=[drawn(section) for section in sections],
        css=Markup(css),
        made=f"{made:%Y-%m-%d %H:%M} UTC",
        root="",
    )


def ordered(table: Table, panel: str, index: int, order: Order | None) -> Table:
    """The table with the rows that are shown, sorted as asked."""
    rows = list(table.rows)
    if order is not None and (order.panel, order.table) == (panel, index):
        known = [row for row in rows if row.get(order.key) is not None]
        empty = [row for row in rows if row.get(order.key) is None]
        known.sort(key=lambda row: _sortable(row[order.key]), reverse=not order.rising)
        rows = known + empty
    return replace(table, rows=rows[:ROWS], total=len(rows) if table.total is None else table.total)


def _sortable(value: Cell) -> tuple[int, float, str]:
    return (1, 0.0, value.casefold()) if isinstance(value, str) else (0, float(value or 0), "")


def _sorting(order: Order | None, panel: str, index: int, key: str) -> str:
    """What aria-sort says of a column; empty where the table isn't sorted by it."""
    if order is None or (order.panel, order.table, order.key) != (panel, index, key):
        return ""
    return "ascending" if order.rising else "descending"


def _sort_query(at: Mapping[str, Any], panel: str, index: int, key: str) -> str:
    """The query string that sorts a table by a column; by the same one again: the other way."""
    way = "-" if _sorting(at["order"], panel, index, key) == "descending" else ""
    return joined(f"?{urlencode({'order': f'{way}{panel}.{index}.{key}'})}", at["query"])


def joined(first: str, second: str) -> str:
    """Two query strings as one; what the first says, it says for both."""
    fields = dict(parse_qsl(second.removeprefix("?"))) | dict(parse_qsl(first.removeprefix("?")))
    return f"?{urlencode(fields)}" if fields else ""


def _key_of(columns: Sequence[Column]) -> int:
    """The column that says what a row is about: the first text."""
    return next((i for i, column in enumerate(columns) if column.unit == "text"), 0)


def _digits_by_key(table: Table) -> dict[str, int | None]:
    return {column.key: column_digits(column, table.rows) for column in table.columns}


def _beside(table: Table, plots: Sequence[Markup]) -> bool:
    """Whether a table stands in the column of words, beside the panel's only plot: when it is narrow."""
    columns = len(table.columns) + sum(1 for column in table.columns if column.low)
    cells = (row.get(column.key) for row in table.rows[:ROWS] for column in table.columns)
    longest = max((len(cell) for cell in cells if isinstance(cell, str)), default=0)
    return len(plots) == 1 and columns <= BESIDE and longest <= SHORT


def _number(value: Cell, unit: Unit, digits: int | None = None) -> str:
    """A number with its unit, never broken across lines."""
    return number(value, unit, digits).replace(" ", "\N{NO-BREAK SPACE}")


def _cell(value: Cell) -> str:
    return "" if value is None else one_line(str(value), 200)


def _shown(value: Cell, key: str) -> str:
    """A cell of a listing: models once each, times to the minute."""
    if key == "models" and value:
        return _cell(", ".join(dict.fromkeys(str(value).split(", "))))
    return _cell(value)[:16] if key in ("latest", "at") else _cell(value)


TEMPLATES.filters |= {
    "number": _number,
    "cell": _cell,
    "line": one_line,
    "pair": lambda text: (text, text),
    "shown": _shown,
}
TEMPLATES.globals |= {
    "interval": interval,
    "digits_of": digits_of,
    "digits_by_key": _digits_by_key,
    "beside": _beside,
    "ordered": ordered,
    "sorting": _sorting,
    "sort_query": _sort_query,
    "joined": joined,
    "key_of": _key_of,
}
