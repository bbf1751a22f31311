"""What choosing comparisons has come to: for leads, and for whoever watches over an experiment."""

from typing import Any

from fastapi import APIRouter, FastAPI, Request

from palate.labeling.api import Body
from palate.labeling.desk import Desk
from palate.labeling.login import require


class SelectionState(Body):
    """`rule`: random, information or dpo. `choosing`: comparisons are chosen now. `notice`: why, or why not. Figures of
    the control (docs/selection.md): `skill` in standard errors, `gain` and its lower bound over chance."""

    rule: str
    choosing: bool
    notice: str
    share_by_chance: float
    waiting: int | None = None
    without_features: int | None = None
    features: str | None = None
    votes: int | None = None
    reason: str | None = None
    skill: float | None = None
    gain: float | None = None
    gain_low: float | None = None
    annotators_known: int | None = None


def add_selection(app: FastAPI, desk: Desk) -> None:
    """The route."""
    routes = APIRouter(prefix="/api/v1", tags=["selection"])

    @routes.get("/selection")
    def selection(request: Request) -> SelectionState:
        """How the next comparison is found, and whether that helps; for leads."""
        require(request, "lead")
        found: dict[str, Any] = {"rule": "random", "choosing": False, "share_by_chance": 1.0,
                                 "notice": "Comparisons come by chance (palate label --select)."}  # fmt: skip
        return SelectionState(**(found if desk.selector is None else desk.selector.state()))

    app.include_router(routes)
