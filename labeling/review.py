"""The Review screens, for leads: what the votes say, as one column of questions.

    GET  /review                           the overview: every question with its answer
    GET  /review/models?kind=human&...     one section; the query string says which votes
    GET  /review/models/late/bootstrap     a panel that takes longer; review.js puts it into the page
    GET  /review/models/strength/0.csv     a table as a file

A page comes at once with what is ready; a part that isn't is a stand-in that review.js asks for again (`fragment=1`:
200 and the part, or 202 and what is being done). Without scripts links do that.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response

from palate.config import UserError
from palate.data.store import Store
from palate.labeling.adjudication import Adjudicator
from palate.labeling.api_review_data import add_review_data
from palate.labeling.desk import Desk
from palate.labeling.login import Refused, require
from palate.labeling.login_pages import Entrance
from palate.labeling.review_data import Finder
from palate.labeling.review_find import add_find
from palate.labeling.review_frame import LONG, SOON, Screens
from palate.labeling.review_html import Order, Shown
from palate.labeling.review_item import add_items
from palate.labeling.review_service import Answer, Review, ready
from palate.labeling.review_tables import add_tables, asked_scope, known, scope_fields
from palate.labeling.statistics.report import MODULES, SECTIONS, query_of, scope_of
from palate.labeling.statistics.scope import Scope


def add_review(app: FastAPI, store: Store, desk: Desk, review: Review, entrance: Entrance) -> None:
    """The routes under /review; those with a name of their own come before /review/{id}."""
    screens, finder, adjudicator = Screens(review, entrance), Finder(store), Adjudicator(store, desk)
    app.state.finder = finder
    _add_assets(app, entrance.root)
    _add_overview(app, screens)
    add_find(app, screens, store, finder)
    add_items(app, screens, store, finder, adjudicator)
    add_review_data(app, store, review, finder, adjudicator)
    _add_sections(app, screens)
    add_tables(app, review)


def _add_assets(app: FastAPI, root: str) -> None:
    for name, kind in (
        ("review.css", "text/css"),
        ("review.js", "text/javascript"),
        ("adjudicate.js", "text/javascript"),
    ):
        text = files("palate.labeling").joinpath(f"assets/{name}").read_text(encoding="utf-8")

        def asset(text: str = text, kind: str = kind) -> Response:
            return Response(text, media_type=kind)

        app.get(f"/{name}", include_in_schema=False)(asset)

    @app.get("/statistics", include_in_schema=False)
    @app.get("/statistics/", include_in_schema=False)
    def statistics(request: Request) -> Response:
        require(request, "lead")
        return RedirectResponse(f"{root}/review")


def _failed(error: UserError) -> int:
    return error.status if isinstance(error, Refused) else 400


def _add_overview(app: FastAPI, screens: Screens) -> None:
    review, root = screens.review, screens.root

    @app.get("/review", include_in_schema=False)
    @app.get("/review/", include_in_schema=False)
    async def overview(request: Request) -> Response:
        me, asked = require(request, "lead"), scope_fields(request)
        try:
            scope = scope_of(asked)
        except UserError as error:
            return await screens.html(me, "review_overview", "", asked, 400, error=str(error), parts=[])
        until = time.monotonic() + SOON
        review.choices()  # for the bar; before the sections, which take longer
        waiting = {id: review.section(id, scope) for id in MODULES}
        parts = [await part_of(id, future, scope, until) for id, future in waiting.items()]
        failures = {part["failure"] for part in parts}
        if len(failures) == 1 and "" not in failures:  # all for the same reason
            return await screens.html(
                me, "review_overview", "", asked, 400, scope, error=failures.pop(), parts=[]
            )
        return await screens.html(me, "review_overview", "", asked, scope=scope, parts=parts)

    async def part_of(id: str, future: Future[Answer], scope: Scope, until: float) -> dict[str, Any]:
        """The questions of one section as they are until then."""
        query = query_of(scope)
        shown, failure = None, ""
        try:
            answer = await ready(future, max(0.0, until - time.monotonic()))
            shown = answer.shown if answer else None
        except UserError as error:
            failure = str(error)
        return {
            "id": id,
            "title": SECTIONS[id],
            "shown": shown,
            "failure": failure,
            "progress": screens.progress(),
            "address": f"{root}/review/part/{id}{query}",
            "link": f"{root}/review/{id}{query}",
        }

    @app.get("/review/part/{id}", include_in_schema=False)
    async def part(request: Request, id: str) -> Response:
        """The questions of one section, for the overview."""
        require(request, "lead")
        scope = asked_scope(request)
        answer = await ready(review.section(known(id), scope), LONG)
        query = query_of(scope)
        return await screens.fragment(
            "review_questions", answer, id=id, query=query, at=screens.at(id, query), error=""
        )


def _add_sections(app: FastAPI, screens: Screens) -> None:
    review, root = screens.review, screens.root

    async def show(
        request: Request, id: str, ask: Callable[[Scope], Future[Answer]], path: str, title: str
    ) -> Response:
        """A page, or a part of one for its script, with what `ask` answers."""
        me, asked = require(request, "lead"), scope_fields(request)
        fragment = "fragment" in request.query_params
        order = Order.read(request.query_params.get("order"))
        try:
            scope = scope_of(asked)
            answer = await ready(ask(scope), LONG if fragment else SOON)
        except UserError as error:
            if fragment:
                raise Refused(_failed(error), "invalid", str(error)) from error
            status, empty = _failed(error), Shown(id, title, ())
            return await screens.html(
                me, "review", id, asked, status, error=str(error), shown=empty, title=title
            )
        if answer is not None and answer.shown is None:
            raise Refused(404, "not_found", f"there is no such question in {title}")
        query = query_of(scope)
        if fragment:
            return await screens.fragment("review_part", answer, at=screens.at(id, query, order))
        address = f"{root}{path}{query}"
        return await screens.html(
            me,
            "review",
            id,
            asked,
            scope=scope,
            shown=answer and answer.shown,
            order=order,
            address=address,
            link=address,
            progress=screens.progress(),
            title=title,
        )

    @app.get("/review/{id}", include_in_schema=False)
    async def section(request: Request, id: str) -> Response:
        id = known(id)
        return await show(request, id, lambda scope: review.section(id, scope), f"/review/{id}", SECTIONS[id])

    @app.get("/review/{id}/late/{panel}", include_in_schema=False)
    async def late(request: Request, id: str, panel: str) -> Response:
        id, path = known(id), f"/review/{id}/late/{panel}"
        return await show(request, id, lambda scope: review.late(id, panel, scope), path, SECTIONS[id])
