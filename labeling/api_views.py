"""/api/v1/views: saved views of the votes for training, and what a definition would keep.

    PUT  /api/v1/views/careful    {"aggregation": "majority", "min_agreement": 0.6}     save, or put in its place
    POST /api/v1/views/preview    the same body; nothing is saved

For leads. Weights of reliability are computed here when a view is saved, from the votes there are then.
"""

import datetime
import json
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Request
from fastapi import Path as PathValue
from pydantic import Field

from palate.data.facts import Facts
from palate.data.records import AnnotatorKind, new_id
from palate.data.store import Store
from palate.data.training_views import (
    PURPOSES,
    Aggregation,
    Definition,
    TrainingPurpose,
    View,
    annotator_ids,
    view,
    views,
)
from palate.labeling.api import Body
from palate.labeling.login import Refused, require
from palate.labeling.review_service import Review
from palate.labeling.statistics.view_effects import Effect, effect
from palate.labeling.statistics.weights import save_view, view_weights

Ask = Callable[[tuple[Any, ...], Callable[[Facts], Any]], Any]  # see `asking`
Name = Annotated[str, PathValue(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Text = Annotated[str | None, Field(max_length=400)]
LONGEST = 550.0  # seconds; a client of ours waits a little longer
People = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=10_000)]


class DefinitionBody(Body):
    """Which votes count, and how they become labels. What is left out takes all."""

    aggregation: Aggregation = "vote"
    min_strength: int | None = Field(None, ge=1, le=3, description="1 slightly, 2 better, 3 much better")
    unknown_strength: bool = Field(False, description="With min_strength: keep pairs without one")
    ties: bool = True
    min_agreement: float | None = Field(None, gt=0, le=1, description="Share of a pair's votes, two or more")
    keep_single: bool = Field(False, description="With min_agreement: keep pairs with one vote")
    exclude: People = Field([], description="Annotators, by id or name")
    kinds: list[AnnotatorKind] = Field([], max_length=3)
    source: Text = None
    tag: Text = None
    purposes: list[TrainingPurpose] = Field(list(PURPOSES), min_length=1, max_length=4)
    since: datetime.date | None = Field(None, description="The first day that counts (UTC)")
    until: datetime.date | None = Field(None, description="The last day that counts (UTC)")

    def definition(self, store: Store) -> Definition:
        """With annotators by id; a UserError where it makes no sense."""
        values = self.model_dump(mode="json")
        return Definition.of({**values, "exclude": annotator_ids(store, self.exclude)})


class KeptBody(Body):
    """What training takes. Shares are from 0 to 1; null: there is nothing to tell it from."""

    comparisons: int
    pairs: int
    votes: int
    agreement: float | None
    agreed_on: int
    longer: float | None
    longer_of: int


class Preview(Body):
    """What training takes without a view, and under the definition."""

    before: KeptBody
    after: KeptBody


class ViewBody(DefinitionBody):
    """A saved view."""

    name: str
    saved_at: str
    created_by: str | None


class WholeView(ViewBody, Preview):
    """A saved view and what it does; `weights` by annotator id, where votes are weighted by reliability."""

    weights: dict[str, float] | None


class ViewList(Body):
    """Every saved view, by name."""

    views: list[ViewBody]


class Forgotten(Body):
    """What is no more."""

    deleted: str


def asking(review: Review) -> Ask:
    """What a function makes of the facts, in the thread in which Review does what takes longer. The key says all that
    it depends on."""

    def ask(key: tuple[Any, ...], make: Callable[[Facts], Any]) -> Any:
        try:
            return review.slow(key, make).result(LONGEST).shown
        except TimeoutError as error:
            message = "the figures are still being computed; ask again in a minute"
            raise Refused(503, "busy", message) from error

    return ask


def _nothing() -> None:
    """Nobody has to hear of it."""


def add_views(app: FastAPI, store: Store, ask: Ask, changed: Callable[[], None] = _nothing) -> None:
    """The routes; `changed` hears of every view that was saved or forgotten."""
    routes = APIRouter(prefix="/api/v1/views", tags=["views"])

    @routes.get("")
    def listed(request: Request) -> ViewList:
        """The saved views; for leads."""
        require(request, "lead")
        return ViewList(views=[ViewBody(**_plain(one)) for one in views(store)])

    @routes.post("/preview")
    def preview(request: Request, body: DefinitionBody) -> Preview:
        """What a definition would keep, and what that does to agreement and length; for leads."""
        require(request, "lead")
        wanted = body.definition(store)
        key = ("view", "preview", json.dumps(wanted.as_dict()))
        found: Effect = ask(key, lambda facts: effect(facts, View("", wanted, view_weights(facts, wanted))))
        return Preview(before=KeptBody(**vars(found.before)), after=KeptBody(**vars(found.after)))

    @routes.get("/{name}")
    def one(request: Request, name: Name) -> WholeView:
        """A view, what it keeps now, and what that does to agreement and length; for leads."""
        require(request, "lead")
        return _whole(_known(store, name), ask)

    @routes.put("/{name}")
    def put(request: Request, name: Name, body: DefinitionBody) -> WholeView:
        """Save a view, or put it in another's place, with weights from the votes there are now; for leads."""
        person = require(request, "lead")
        wanted = body.definition(store)
        key = ("view", "saved", new_id())  # never twice
        saved: View = ask(key, lambda facts: save_view(store, facts, name, wanted, person.id))
        changed()
        return _whole(_known(store, saved.name), ask)

    @routes.delete("/{name}")
    def delete(request: Request, name: Name) -> Forgotten:
        """Forget a view; runs that took it keep its definition. For leads."""
        require(request, "lead")
        _known(store, name)
        store.delete_view(name)
        changed()
        return Forgotten(deleted=name)

    app.include_router(routes)


def _known(store: Store, name: str) -> View:
    if not any(one.name == name for one in views(store)):
        raise Refused(404, "not_found", f"there is no view '{name}'; GET /api/v1/views lists them")
    return view(store, name)


def _whole(known: View, ask: Ask) -> WholeView:
    key = ("view", known.name, known.created_at)
    found: Effect = ask(key, lambda facts: effect(facts, known))
    weights = None if known.weights is None else dict(known.weights)
    return WholeView(
        **_plain(known),
        weights=weights,
        before=KeptBody(**vars(found.before)),
        after=KeptBody(**vars(found.after)),
    )


def _plain(known: View) -> dict[str, Any]:
    return {**known.record(), "created_by": known.created_by}
