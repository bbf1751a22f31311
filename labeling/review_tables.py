"""A table of Review as a file: GET /review/models/strength/0.csv, with the scope in the query string.

The rows that the screen has, with numbers unrounded.
"""

import csv
import io

from fastapi import FastAPI, Request
from fastapi.responses import Response

from palate.config import UserError
from palate.labeling.login import Refused, require
from palate.labeling.review_service import Answer, Review, ready
from palate.labeling.statistics.formatting import one_line
from palate.labeling.statistics.panels import Cell, Column, Panel, Table
from palate.labeling.statistics.report import MODULES, scope_of
from palate.labeling.statistics.scope import Scope

WAIT = 60.0  # seconds that a file is waited for
FIELDS = ("kind", "source", "tag", "since", "until")


def scope_fields(request: Request) -> dict[str, str]:
    """What the query string says of the scope."""
    return {name: one_line(request.query_params.get(name, ""), 300) for name in FIELDS}


def asked_scope(request: Request) -> Scope:
    """The scope in the query string; Refused when it is none."""
    try:
        return scope_of(scope_fields(request))
    except UserError as error:
        raise Refused(400, "invalid", str(error)) from error


def known(id: str) -> str:
    """A section's id; Refused when there is no such section."""
    if id not in MODULES:
        raise Refused(404, "not_found", f"there is no section {one_line(id, 40)!r} in Review")
    return id


def add_tables(app: FastAPI, review: Review) -> None:
    """The route."""

    @app.get("/review/{id}/{panel}/{index}.csv", include_in_schema=False)
    async def table(request: Request, id: str, panel: str, index: int) -> Response:
        """A table as it stands on the screen, with its numbers unrounded."""
        require(request, "lead")
        scope = asked_scope(request)
        answer = await ready(review.section(known(id), scope), WAIT)
        found = _panel(answer, panel)
        if found is not None and found.late:
            found = _panel(await ready(review.late(id, panel, scope), WAIT), panel) or found
        if found is None or not 0 <= index < len(found.tables):
            raise Refused(404, "not_found", "there is no such table")
        name = f"{id}-{panel}-{index + 1}.csv"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(as_csv(found.tables[index]), media_type="text/csv; charset=utf-8", headers=headers)


def _panel(answer: Answer | None, id: str) -> Panel | None:
    if answer is None:
        raise Refused(503, "busy", "the figures are still being computed; ask again in a minute")
    panels = answer.shown.panels if answer.shown else ()
    return next((drawn.panel for drawn in panels if drawn.panel.id == id), None)


def as_csv(table: Table) -> str:
    """The rows under their columns' names; an interval stands in two columns of its own.

    A text that a spreadsheet would compute is led by an apostrophe.
    """
    keys = [(key, name) for column in table.columns for key, name in _columns_of(column)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([name for _, name in keys])
    writer.writerows([[_csv_cell(row.get(key)) for key, _ in keys] for row in table.rows])
    return out.getvalue()


def _columns_of(column: Column) -> list[tuple[str, str]]:
    ends = [(column.low, f"{column.label}, 95 % from"), (column.high, f"{column.label}, 95 % to")]
    return [(column.key, column.label), *(end for end in ends if column.low)]


def _csv_cell(value: Cell) -> Cell:
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return "" if value is None else value
