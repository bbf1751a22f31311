"""One item with all its votes (/review/item), and the same with a decision to make (/review/adjudicate).

Adjudication walks through what people differ on, the most split first: the query string says among what. Answers
stand under letters, and nothing says which model wrote what until it is decided.
"""

import asyncio
import re
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.responses import Response
from markupsafe import Markup

from palate.config import UserError
from palate.data.records import new_id
from palate.data.store import Store
from palate.labeling.adjudication import Adjudicator, Case, Cast, NoSuchItem
from palate.labeling.ballots import Answer, Ballot, BallotRefused
from palate.labeling.guidelines import as_html
from palate.labeling.login import Refused, require
from palate.labeling.login_pages import form
from palate.labeling.people import Person
from palate.labeling.review_data import Finder, Listing
from palate.labeling.review_find import asked_fields
from palate.labeling.review_frame import LONG, Screens
from palate.labeling.review_query import Query, read, written
from palate.labeling.review_service import ready
from palate.labeling.statistics.disagreement import WORTH
from palate.labeling.statistics.formatting import one_line
from palate.labeling.writer import NotStored

# the scale between two answers: the same keys as on the ranking page
SCALE = {
    "1": "A much better",
    "2": "A better",
    "3": "A slightly better",
    "4": "Tie",
    "5": "B slightly better",
    "6": "B better",
    "7": "B much better",
    "x": "Both bad",
}
STRENGTHS = {1: "slightly better", 2: "better", 3: "much better"}
SKIPPED = 10_000  # items that one can have left for later
_TIERS = re.compile(r"\s*>\s*")


def add_items(app: FastAPI, screens: Screens, store: Store, finder: Finder, adjudicator: Adjudicator) -> None:
    """The routes of one item."""
    _add_item(app, screens, store, adjudicator)
    _add_adjudication(app, screens, finder, adjudicator)


def _add_item(app: FastAPI, screens: Screens, store: Store, adjudicator: Adjudicator) -> None:
    @app.get("/review/item", include_in_schema=False)
    async def item(request: Request, id: str = "") -> Response:
        me = require(request, "lead")
        try:
            case = await asyncio.to_thread(adjudicator.case, id[:400], me.id)
        except NoSuchItem as error:
            raise Refused(404, "not_found", str(error)) from error
        models = await asyncio.to_thread(_models, store, case)
        return await _show(screens, me, {}, case=_as_page(case, models), deciding=False, title="One item")


def _add_adjudication(app: FastAPI, screens: Screens, finder: Finder, adjudicator: Adjudicator) -> None:
    review = screens.review

    async def listed(query: Query, page: int) -> Listing:
        asked = review.look(lambda facts: finder.page(facts, query, page))
        answer = await ready(asked, LONG)
        if answer is None:
            raise Refused(503, "busy", f"{screens.progress()}; ask again in a minute")
        found: Listing = answer.shown
        return found

    async def following(query: Query, skipped: int) -> str | None:
        """The item to decide next: the most split one, after those that were left for later."""
        decided = adjudicator.decided_since_start()
        left, page = skipped, 1
        while True:
            found = await listed(query, page)
            open_items = [str(row["item"]) for row in found.rows if row["item"] not in decided]
            if left < len(open_items):
                return open_items[left]
            if page >= found.pages:
                return None
            left, page = left - len(open_items), page + 1

    async def show(request: Request, me: Person, status: int = 200, **values: Any) -> Response:
        asked, skipped = asked_fields(request), _skipped(request)
        query, one = _queue_of(asked), asked["item"]
        id = one or await following(query, skipped)
        later = None if one else _with_skipped(query, skipped + 1)
        if id is None:
            empty = "Nothing is left to decide: nobody differs on what has no decision yet."
            if skipped:
                empty = f"That was the last one; {skipped} are left for later."
            values = {"case": None, "empty": empty, **values}
        else:
            try:
                case = await asyncio.to_thread(adjudicator.case, id, me.id)
            except NoSuchItem as error:
                raise Refused(404, "not_found", str(error)) from error
            values = {"case": _as_page(case, {}), **values}
        here = f"?{urlencode({'item': id})}" if one else _with_skipped(query, skipped)
        return await _show(
            screens, me, asked, status, deciding=True, title="Adjudicate", next=later, action=here, **values
        )

    @app.get("/review/adjudicate", include_in_schema=False)
    async def decide(request: Request, decided: str = "") -> Response:
        me = require(request, "lead")
        try:
            return await show(request, me, last=one_line(decided, 400))
        except Refused:
            raise
        except UserError as error:
            raise Refused(400, "invalid", str(error)) from error

    @app.post("/review/adjudicate", include_in_schema=False)
    async def decided(request: Request) -> Response:
        me, sent = require(request, "lead"), await form(request)
        id, asked = sent.get("item", ""), asked_fields(request)
        try:
            ballot = _ballot(sent)
            replaces = sent.get("replaces") or None
            await asyncio.to_thread(adjudicator.decide, me.id, id, ballot, replaces)
        except NoSuchItem as error:
            raise Refused(404, "not_found", str(error)) from error
        except BallotRefused as error:
            return await show(
                request, me, 409 if error.code == "answered" else 400, error=str(error), typed=sent
            )
        except NotStored as error:
            return await show(request, me, 503, error=str(error), typed=sent)
        if asked["item"]:
            return screens.entrance.to(f"/review/item?{urlencode({'id': asked['item']})}")
        there = _with_skipped(_queue_of(asked), _skipped(request))
        return screens.entrance.to(
            f"/review/adjudicate{there}{'&' if there else '?'}{urlencode({'decided': id})}"
        )


async def _show(
    screens: Screens, me: Person, asked: dict[str, str], status: int = 200, **values: Any
) -> Response:
    filled = {
        "vote_id": new_id(), "scale": SCALE.items(), "next": None, "action": "", "typed": {}, "worth": WORTH, "empty": "", "last": "", **values,
    }  # fmt: skip
    return await screens.html(me, "review_item", "data", asked, status, **filled)


def _queue_of(asked: dict[str, str]) -> Query:
    """Which items the queue is about: those of the query string, as far as people differ on them."""
    fields = {name: value for name, value in asked.items() if value and name != "item"}
    fields = {"disagreement": str(WORTH), "adjudicated": "no", "sort": "disagreement", **fields}
    return read(fields)


def _skipped(request: Request) -> int:
    text = request.query_params.get("later", "0")
    return min(int(text), SKIPPED) if text.isascii() and text.isdigit() and len(text) < 6 else 0


def _with_skipped(query: Query, skipped: int) -> str:
    base = written(query)
    return f"{base}{'&' if base else '?'}later={skipped}" if skipped else base


# -- a decision as it is sent -----------------------------------------------------------------------------------


def _ballot(sent: dict[str, str]) -> Ballot:
    """The decision in a form, or BallotRefused."""
    common = {"vote_id": sent.get("vote_id", ""), "rationale": sent.get("rationale")}
    choice = sent.get("choice", "")
    if choice in SCALE:
        return _of_pair(choice, common)
    text = " ".join(sent.get("ranking", "").upper().split())
    if text in ("TIE", "ALL BAD", "X"):
        return Ballot("tie" if text == "TIE" else "all_bad", **common)  # type: ignore[arg-type]
    tiers = tuple(tuple(part.replace("=", " ").replace(",", " ").split()) for part in _TIERS.split(text))
    if len(tiers) == 1 and len(tiers[0]) > 1:
        return Ballot("tie", tiers, **common)  # type: ignore[arg-type]
    if not all(tiers):
        raise BallotRefused(f"a ranking reads like C > A = D > B, got {one_line(text, 60)!r}")
    return Ballot("ranked", tiers, **common)  # type: ignore[arg-type]


def _of_pair(choice: str, common: dict[str, Any]) -> Ballot:
    if choice == "x":
        return Ballot("all_bad", **common)
    if choice == "4":
        return Ballot("tie", **common)
    place = int(choice)
    first, second = ("A", "B") if place < 4 else ("B", "A")
    return Ballot("ranked", ((first,), (second,)), strength=abs(4 - place), **common)


# -- a case as it is shown --------------------------------------------------------------------------------------


def said(answer: Answer) -> str:
    """A vote in words: `A > B = C`, `B much better`, `tie`, `all bad`, `skipped: unclear`."""
    if answer.verdict == "skip":
        return f"skipped: {answer.reason}" if answer.reason else "skipped"
    if answer.verdict != "ranked":
        return "tie" if answer.verdict == "tie" else "all bad"
    order = " > ".join(" = ".join(tier) for tier in answer.ranking)
    strength = STRENGTHS.get(answer.strength or 0)
    return f"{order} ({strength})" if strength else order


def _as_page(case: Case, models: dict[str, str]) -> dict[str, Any]:
    tags = f", tags {', '.join(one_line(tag, 60) for tag in case.tags)}" if case.tags else ""
    source = one_line(case.source, 80) or "no source"
    return {
        "id": case.comparison_id,
        "prompt": case.prompt_id,
        "about": f"{case.purpose}, {source}{tags}",
        "messages": [{"role": turn["role"], "html": _html(turn["content"])} for turn in case.messages],
        "answers": [
            {"letter": letter, "html": _html(text), "model": models.get(letter, "")}
            for letter, text in case.answers
        ],
        "letters": "".join(letter for letter, _ in case.answers),
        "votes": [_cast(vote) for vote in case.votes],
        "decision": _cast(case.decision) if case.decision else None,
    }


def _cast(vote: Cast) -> dict[str, Any]:
    flags = (f"{name} {letter}" if letter else name for name, letter in vote.answer.flags)
    return {
        "id": vote.id,
        "annotator": f"{vote.annotator} (you)" if vote.by_me else vote.annotator,
        "kind": vote.kind,
        "said": said(vote.answer),
        "flags": ", ".join(flags),
        "seconds": vote.seconds_active,
        "at": f"{vote.at:%Y-%m-%d %H:%M}",
        "rationale": vote.answer.rationale,
    }


def _html(text: str) -> Markup:
    """Markdown of a prompt or an answer; no HTML of theirs passes."""
    return Markup(as_html(text))


def _models(store: Store, case: Case) -> dict[str, str]:
    """Which model wrote what, by letter."""
    ids = store.value("SELECT completion_ids FROM comparison WHERE id = ?", [case.comparison_id]) or []
    rows = store.rows("SELECT text, model FROM completion WHERE list_contains(?::VARCHAR[], id)", [list(ids)])
    return {
        letter: ", ".join(sorted({row["model"] or "(no name)" for row in rows if row["text"] == text}))
        for letter, text in case.answers
    }
