"""The requests of the ranking page: next items, votes, undo, own votes, heartbeat.

Everything an annotator does goes through these routes, from the page and from programs alike; who is asking is
read from the session or token, never from the body. Responses carry texts under letters and nothing about where
they came from: no model names, no completion ids, no strategy, no purpose; items have aliases.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace
from datetime import UTC, datetime
from random import Random
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from palate.data.records import Vote
from palate.data.store import Store
from palate.labeling import guidelines
from palate.labeling.aliases import Aliases, key_of
from palate.labeling.ballots import Ballot, BallotRefused, Item, answer_json
from palate.labeling.desk import Desk
from palate.labeling.login import require
from palate.labeling.recall import Recall
from palate.labeling.writer import NotStored

_RANDOM = Random()  # of the order on the screen
_STATUS = {"invalid": 400, "filled": 409, "answered": 409, "not_yours": 409, "nothing_to_undo": 409}

Letter = Annotated[str, Field(min_length=1, max_length=1)]
Id = Annotated[str, Field(min_length=1, max_length=64)]
Ids = Annotated[list[Id], Field(max_length=32)]


class Body(BaseModel):
    """A request's body: unknown fields are refused, since a misspelt one would be lost in silence."""

    model_config = ConfigDict(extra="forbid")


class Have(Body):
    """What the page holds already."""

    have: Ids = []


class Flag(Body):
    """A mark on an answer, or on the whole item (no letter)."""

    flag: str = Field(max_length=32)
    letter: Letter | None = None


class Edit(Body):
    """A better text for one of the answers."""

    letter: Letter
    text: str = Field(max_length=200_000)


class AnswerBody(Body):
    """What is said about an item, in the item's letters. `vote_id` is made by the sender: sent again, it is the same
    vote."""

    vote_id: Id
    verdict: Literal["ranked", "tie", "all_bad", "skip"]
    ranking: list[list[Letter]] = Field([], max_length=9, description="Tiers of letters, best first")
    strength: int | None = Field(None, description="Two answers: 1 slightly, 2 better, 3 much better")
    reason: str | None = Field(None, max_length=32, description="Of a skip")
    flags: list[Flag] = Field([], max_length=50)
    criteria: dict[str, dict[Letter, int]] = Field({}, max_length=20)
    rationale: str | None = Field(None, max_length=20_000)
    edit: Edit | None = None
    seconds_visible: float | None = None
    seconds_active: float | None = None

    def ballot(self) -> Ballot:
        """The ballot that is checked and stored."""
        return Ballot(
            verdict=self.verdict,
            ranking=tuple(tuple(tier) for tier in self.ranking),
            strength=self.strength,
            reason=self.reason,
            flags=tuple((flag.flag, flag.letter) for flag in self.flags),
            criteria=self.criteria,
            rationale=self.rationale,
            edit=(self.edit.letter, self.edit.text) if self.edit else None,
            vote_id=self.vote_id,
            seconds_visible=self.seconds_visible,
            seconds_active=self.seconds_active,
        )


class BallotBody(AnswerBody):
    """An annotator's answer to one item, in the item's letters. `vote_id` is made by the sender: sent again, it
    is the same vote."""

    assignment: Id
    guideline_version: int | None = Field(None, ge=0, le=2**31 - 1)
    have: Ids = Field([], description="Items the page holds already; their texts are not sent again")

    def ballot(self) -> Ballot:
        """The ballot that the desk takes."""
        return replace(
            super().ballot(), assignment_id=self.assignment, guideline_version=self.guideline_version
        )


class Beat(Body):
    """Items whose page is alive."""

    assignments: Ids


def add_ranking(app: FastAPI, store: Store, desk: Desk, about: dict[str, Any]) -> None:
    """The routes; `about` is what every page knows: project, language, criteria, partial, live."""
    routes = APIRouter(prefix="/api/v1", tags=["ranking"])
    recall, aliases = Recall(store), Aliases(key_of(store.path.parent))

    @routes.get("/me")
    def me(request: Request) -> Response:
        """Who is asking, and what this project asks for."""
        person = require(request)
        version = guidelines.current(store).version
        return _json({"name": person.name, "role": person.role, **about, "guideline_version": version})

    @routes.post("/next")
    async def following(request: Request, body: Have) -> Response:
        """The items the annotator holds, in the order to show them; a new one is leased when there is none."""
        person = require(request)
        items, leased = desk.begin_next(person.id, _RANDOM)
        await asyncio.wrap_future(leased)
        return _json(_page(desk, aliases, person.id, items, body.have))

    @routes.post("/votes")
    async def vote(request: Request, body: BallotBody) -> Response:
        """Store one answer and bring the next items. Answered after the vote is on disk and in the journal."""
        person = require(request)
        ballot = replace(body.ballot(), assignment_id=aliases.opened(body.assignment))
        cast, items, stored, leased = desk.begin_turn(person.id, ballot, _RANDOM)
        await _both(stored, leased)
        return _json({"saved": cast.id, **_page(desk, aliases, person.id, items, body.have)})

    @routes.post("/undo")
    def undo(request: Request) -> Response:
        """Take the annotator's last vote back; it stands until they answer again."""
        person = require(request)
        item = desk.undo(person.id)
        if item is None:
            raise BallotRefused("there is no vote of yours to take back", "nothing_to_undo")
        return _reopened(desk, aliases, person.id, item)

    @routes.post("/votes/{vote_id}/reopen")
    def reopen(request: Request, vote_id: str) -> Response:
        """Take one of the annotator's own votes back; it stands until they answer again."""
        person = require(request)
        return _reopened(desk, aliases, person.id, desk.reopen(person.id, vote_id))

    @routes.get("/votes/mine")
    def mine(
        request: Request, limit: Annotated[int, Query(ge=1, le=200)] = 50, before: datetime | None = None
    ) -> Response:
        """The annotator's own standing votes, newest first."""
        person = require(request)
        if before is not None and before.tzinfo is not None:
            before = before.astimezone(UTC).replace(tzinfo=None)
        votes = recall.mine(person.id, limit, before)
        return _json({"votes": [{**vote, "assignment": aliases.of(vote["assignment"])} for vote in votes]})

    @routes.post("/heartbeat")
    async def heartbeat(request: Request, body: Beat) -> Response:
        """Prolong the leases of items whose page is alive; says which are lost to others."""
        person = require(request)
        names = {alias: aliases.opened(alias) for alias in body.assignments}
        gone = desk.heartbeat(person.id, list(names.values()))
        lost = [alias for alias, name in names.items() if name in gone]
        return _json({"lost": lost, "lease_seconds": desk.lease_seconds})

    @app.exception_handler(BallotRefused)
    async def refused(_: Request, error: BallotRefused) -> Response:
        return _error(_STATUS.get(error.code, 400), error.code, str(error))

    @app.exception_handler(NotStored)
    async def not_stored(_: Request, error: NotStored) -> Response:
        return _error(503, error.code, str(error))

    app.include_router(routes)


async def _both(stored: "Future[None]", leased: "Future[None]") -> None:
    """Wait for the vote and for the next lease; the vote's failure is what counts."""
    try:
        await asyncio.wrap_future(stored)
    finally:
        await asyncio.wait([asyncio.wrap_future(leased)])
    leased.result()


def _reopened(desk: Desk, aliases: Aliases, person: str, item: Item) -> Response:
    items, leased = desk.begin_next(person, _RANDOM)
    leased.result()
    have = [aliases.of(item.assignment_id)]
    return _json({"item": _item(desk, aliases, item), **_page(desk, aliases, person, items, have)})


def _page(
    desk: Desk, aliases: Aliases, person: str, items: Sequence[Item], have: Sequence[str]
) -> dict[str, Any]:
    """Items and the annotator's own figures; what the page has is only named."""
    shown = [
        {"assignment": alias} if alias in have else _item(desk, aliases, item)
        for item, alias in ((item, aliases.of(item.assignment_id)) for item in items)
    ]
    return {"items": shown, "progress": asdict(desk.progress(person))}


def _item(desk: Desk, aliases: Aliases, item: Item) -> dict[str, Any]:
    earlier = None
    if item.earlier is not None:
        earlier = {"vote_id": item.standing, **answer_json(item.earlier)}
    return {
        "assignment": aliases.of(item.assignment_id),
        "messages": item.messages,
        "answers": [{"letter": letter, "text": text} for letter, text in item.answers],
        "earlier": earlier,
        "lease_seconds": desk.lease_seconds,
    }


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS), media_type="application/json")


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status)


__all__ = ["BallotBody", "Vote", "add_ranking"]
