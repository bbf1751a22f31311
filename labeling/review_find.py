"""/review/data: what was asked, answered and voted, found by words and conditions; every item opens.

The query string is the query (review_query.py), so a link to what was found is a link to what will be found.
"""

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from palate.config import UserError
from palate.data.facts import Facts
from palate.data.store import Store
from palate.labeling import tags
from palate.labeling.ballots import FLAGS
from palate.labeling.login import Refused, require
from palate.labeling.login_pages import form
from palate.labeling.review_data import Finder, Listing
from palate.labeling.review_frame import LONG, SOON, Screens
from palate.labeling.review_html import Order, Shown, joined
from palate.labeling.review_query import FIELDS, Query, read, written
from palate.labeling.review_service import Review, ready
from palate.labeling.statistics.disagreement import WORTH
from palate.labeling.statistics.formatting import one_line
from palate.labeling.statistics.panels import Column
from palate.labeling.statistics.scope import Scope

# what a row shows, as far as it fits on a screen; exports have all columns
SHOWN = {
    "items": (
        "prompt",
        "source",
        "models",
        "votes",
        "split",
        "disagreement",
        "adjudicated",
        "latest",
        "found",
    ),
    "votes": ("prompt", "annotator", "verdict", "ranking", "strength", "rationale", "flags", "active", "at"),
}
WAIT = 60.0  # seconds that it is looked for what is to be tagged
PURPOSES = ("train", "random", "gold", "repeat", "eval")


def add_find(app: FastAPI, screens: Screens, store: Store, finder: Finder) -> None:
    """The routes of the list, and of the form that tags what is in it; exports are in api_review_data.py."""
    _add_list(app, screens, finder)
    _add_tags(app, screens, store, finder)


def _add_list(app: FastAPI, screens: Screens, finder: Finder) -> None:
    review, root = screens.review, screens.root

    @app.get("/review/data", include_in_schema=False)
    async def listed(request: Request) -> Response:
        me, asked = require(request, "lead"), asked_fields(request)
        fragment = "fragment" in request.query_params
        number = _page_number(request)
        try:
            query = read({name: value for name, value in asked.items() if value})
            future = review.look(lambda facts: finder.page(facts, query, number))
            names = review.quick(("names", query.scope.kind), lambda facts: _names(facts, query.scope.kind))
            answer = await ready(future, LONG if fragment else SOON)
            known = await ready(names, SOON)
        except UserError as error:
            status = error.status if isinstance(error, Refused) else 400
            if fragment:
                raise Refused(status, "invalid", str(error)) from error
            values = _values(asked, None, Query(), ([], []))
            return await screens.html(me, "review_data", "data", asked, status, error=str(error), **values)
        values = _values(asked, answer.shown if answer else None, query, known.shown if known else ([], []))
        here = joined(written(query), f"page={number}") if number > 1 else written(query)
        values["address"] = f"{root}/review/data{here}"
        values["progress"] = screens.progress()
        if fragment:
            return await screens.fragment("review_results", answer, **values)
        done = _tagged(request)
        # where nothing is looked for yet, what the data are like
        values["shown"] = await _questions(review, query.scope) if query == Query(query.scope) else None
        values["order"] = Order.read(request.query_params.get("order"))
        return await screens.html(me, "review_data", "data", asked, 200, query.scope, done=done, **values)


async def _questions(review: Review, scope: Scope) -> Shown | None:
    """The section's questions with their answers; None while they aren't ready, or where there are no votes."""
    with suppress(UserError):
        answer = await ready(review.section("data", scope), SOON)
        return answer.shown if answer else None
    return None


def _add_tags(app: FastAPI, screens: Screens, store: Store, finder: Finder) -> None:
    @app.post("/review/data/tags", include_in_schema=False)
    async def tag(request: Request) -> Response:
        """Give a tag to, or take it from, the prompts of all rows that are found."""
        me, sent, asked = require(request, "lead"), await form(request), asked_fields(request)
        name, remove = sent.get("name", ""), sent.get("do") == "remove"
        try:
            query = read({field: value for field, value in asked.items() if value})
            answer = await ready(screens.review.gather(lambda facts: finder.prompts(facts, query)), WAIT)
            if answer is None:
                raise Refused(503, "busy", "it is still being looked for; ask again in a minute")
            names = ([], [name]) if remove else ([name], [])
            done = await asyncio.to_thread(tags.change, store, answer.shown, *names)
        except UserError as error:
            status = error.status if isinstance(error, Refused) else 400
            values = _values(asked, None, Query(), ([], []))
            return await screens.html(me, "review_data", "data", asked, status, error=str(error), **values)
        finder.forget()
        screens.review.forget()
        query_string = written(query)
        did = f"tagged={'-' if remove else ''}{done.changed}"
        return screens.entrance.to(f"/review/data{query_string}{'&' if query_string else '?'}{did}")


def _tagged(request: Request) -> str:
    """What was done to tags, as the redirect tells it."""
    text = request.query_params.get("tagged", "")
    if not re.fullmatch(r"-?\d{1,9}", text):
        return ""
    n = int(text.removeprefix("-"))
    prompts = "one prompt" if n == 1 else f"{n:,} prompts"
    return f"The tag was {'taken from' if text.startswith('-') else 'added to'} {prompts}."


def asked_fields(request: Request) -> dict[str, str]:
    """The fields of a query in the query string; those that aren't there are empty."""
    return {name: one_line(request.query_params.get(name, ""), 600) for name in FIELDS}


def _page_number(request: Request) -> int:
    text = request.query_params.get("page", "1")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 1


def _names(facts: Facts, kind: str) -> tuple[list[str], list[str]]:
    """(models, annotators of this kind) with votes, by name."""
    models = facts.rows("SELECT name FROM model WHERE name <> '' ORDER BY name")
    people = facts.rows("SELECT DISTINCT name FROM annotator WHERE kind = ? ORDER BY name", [kind])
    return [row["name"] for row in models], [row["name"] for row in people]


def _values(
    asked: dict[str, str], listing: Listing | None, query: Query, names: tuple[list[str], list[str]]
) -> dict[str, Any]:
    """What the template is filled with."""
    base = written(query)
    paged: Callable[[int], str] = lambda number: f"{base}{'&' if base else '?'}page={number}"
    own = ("model", "annotator", "verdict", "flag", "purpose", "disagreement", "rationale", "adjudicated", "answered",
           "item", "prompt")  # fmt: skip
    narrowed = [f"{name} {one_line(asked[name], 40)}" for name in own if asked[name]]
    return {
        "listing": listing,
        "columns": _shown(listing),
        "asked_query": base,
        "paged": paged,
        "models": names[0],
        "people": names[1],
        "flags": [("any", "any flag"), *((name, name) for name in FLAGS)],
        "worth": str(WORTH),
        "purposes": [(name, name) for name in PURPOSES],
        "conditions": ", ".join(narrowed),
        "more": bool(narrowed),
        "queue": written(_queue(query)),
        "exports": (("csv", "CSV"), ("parquet", "Parquet")),
        "tagging": True,
        "shown": None,
        "address": "",
        "progress": "",
    }


def _queue(query: Query) -> Query:
    """What people differ on, among what is asked for."""
    return Query(query.scope, query.text, query.model, disagreement=WORTH, adjudicated=False,
                 sort="disagreement")  # fmt: skip


def _shown(listing: Listing | None) -> list[Column]:
    if listing is None:
        return []
    return [column for column in listing.columns if column.key in SHOWN[listing.query.rows]]
