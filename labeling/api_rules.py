"""Rule-based annotators on another machine: items out, votes in, through the desk as everybody's.

Only annotators of kind `rule` or `model` can be named here, and their votes carry the run that cast them, so nobody votes
in a person's place. `palate.labeling.remote_desk` is the other end. For leads.
"""

import random
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Request
from fastapi import Path as PathValue
from pydantic import Field

from palate.data.store import Store
from palate.labeling.api import Body
from palate.labeling.api_rank import BallotBody
from palate.labeling.desk import Desk
from palate.labeling.login import Refused, require

MOST = 256  # items at once
AnnotatorId = Annotated[str, PathValue(min_length=1, max_length=200)]


class Want(Body):
    """How many items; `seed` decides the order of their answers."""

    limit: int = Field(ge=1, le=MOST)
    seed: int | None = Field(None, ge=0, lt=2**63)


class Ballots(Body):
    """Answers to items, and the run that gave them."""

    run_id: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,99}$")
    ballots: list[BallotBody] = Field(min_length=1, max_length=MOST)


class Items(Body):
    """Items with their answers under letters, in the order in which they are shown."""

    items: list[dict[str, Any]]


class Saved(Body):
    """The ids of the votes, in the order of the ballots."""

    saved: list[str]


def add_rules(app: FastAPI, store: Store, desk: Desk) -> None:
    """The routes."""
    routes = APIRouter(prefix="/api/v1/rule-annotators", tags=["rules"])

    @routes.post("/{annotator_id}/next")
    def following(request: Request, annotator_id: AnnotatorId, body: Want) -> Items:
        """The items this rule-based annotator answers next; for leads."""
        require(request, "lead")
        _check(store, annotator_id)
        found = desk.next_items(annotator_id, random.Random(body.seed), body.limit)
        items = [
            {
                "assignment": item.assignment_id,
                "messages": list(item.messages),
                "answers": [{"letter": letter, "text": text} for letter, text in item.answers],
            }
            for item in found
        ]
        return Items(items=items)

    @routes.post("/{annotator_id}/votes")
    def votes(request: Request, annotator_id: AnnotatorId, body: Ballots) -> Saved:
        """Store the answers of a rule-based annotator, all or none of them; for leads."""
        require(request, "lead")
        _check(store, annotator_id)
        cast = desk.cast_all(annotator_id, [ballot.ballot() for ballot in body.ballots], body.run_id)
        return Saved(saved=[vote.id for vote in cast])

    app.include_router(routes)


def _check(store: Store, annotator_id: str) -> None:
    kind = store.value("SELECT kind FROM annotator WHERE id = ?", [annotator_id])
    if kind not in ("rule", "model"):
        raise Refused(403, "not_a_rule", f"{annotator_id[:80]!r} is no rule-based annotator and no model")
