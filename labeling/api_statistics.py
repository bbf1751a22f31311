"""GET /api/v1/statistics: what the Review screens show, as JSON; for leads and their scripts."""

import asyncio
import datetime
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request

from palate.config import UserError
from palate.labeling.login import Refused, require
from palate.labeling.review_service import Review, ready
from palate.labeling.statistics.plain import as_plain
from palate.labeling.statistics.report import MODULES, scope_of
from palate.labeling.statistics.scope import Kind

Text = Annotated[str | None, Query(max_length=400)]
Section = Literal["progress", "agreement", "annotators", "models", "data", "training"]
LONGEST = 550.0  # seconds; a client of ours waits a little longer


def add_statistics(app: FastAPI, review: Review) -> None:
    """The route; it computes in the same threads as the screens."""

    @app.get("/api/v1/statistics", tags=["statistics"])
    async def statistics(
        request: Request,
        section: Section | None = None,
        kind: Kind = "human",
        source: Text = None,
        tag: Text = None,
        since: datetime.date | None = None,
        until: datetime.date | None = None,
    ) -> dict[str, Any]:
        """What the votes say: questions with their answers, figures, tables and plots; for leads.

        Nothing is left out that takes longer: with millions of votes all sections take a minute. A figure that can't
        be computed is null, and says why.
        """
        require(request, "lead")
        days = {"since": str(since or ""), "until": str(until or "")}
        try:
            scope = scope_of({"kind": kind, "source": source, "tag": tag, **days})
            wanted = [section] if section else list(MODULES)
            asked = [review.whole(id, scope) for id in wanted]
            answers = await asyncio.gather(*(ready(future, LONGEST) for future in asked))
        except Refused:
            raise
        except UserError as error:
            raise Refused(400, "invalid", str(error)) from error
        found = [answer.shown for answer in answers if answer is not None]
        if len(found) < len(wanted):
            raise Refused(503, "busy", "the figures are still being computed; ask again in a minute")
        return await asyncio.to_thread(as_plain, scope, found)
