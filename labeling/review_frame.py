"""What the Review screens share: the frame with the sections and the bar that says which votes; parts that follow."""

import asyncio
from typing import Any

from fastapi.responses import HTMLResponse, PlainTextResponse, Response

from palate.labeling.login_pages import Entrance
from palate.labeling.people import Person
from palate.labeling.review_html import Order, page
from palate.labeling.review_service import Answer, Review, ready
from palate.labeling.statistics.report import SECTIONS, query_of, scope_text
from palate.labeling.statistics.scope import Scope

SOON = 1.2  # seconds that a page waits for its figures before it stands without them
LONG = 10.0  # seconds that a part is waited for until the script is told that it takes longer
PAGES = {"": "Overview", **SECTIONS}
KIND_NAMES = {"human": "people", "rule": "rules", "model": "models as judges"}
# scripts and styles from files of ours, nothing inline, nothing from elsewhere
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class Screens:
    """What the routes share: whom they show what."""

    def __init__(self, review: Review, entrance: Entrance) -> None:
        self.review, self.entrance = review, entrance

    @property
    def root(self) -> str:
        """What stands before every address of ours."""
        return self.entrance.root

    async def html(
        self,
        me: Person,
        template: str,
        section: str,
        asked: dict[str, str],
        status: int = 200,
        scope: Scope | None = None,
        **values: Any,
    ) -> Response:
        """A page of Review in its frame, with the bar that says which votes."""
        choices = await ready(self.review.choices(), SOON)
        sources, tags = choices.shown if choices else ([], [])
        query = query_of(scope) if scope else ""
        found = {
            "error": "",
            "done": "",
            "me": me,
            "pages": PAGES,
            "kinds": KIND_NAMES,
            "sources": sources,
            "tags": tags,
            "asked": asked,
            "query": query,
            "scope": scope_text(scope or Scope()),
            "notice": self.review.notice(),
            "at": self.at(section, query, values.pop("order", None)),
        }
        whole = {"project": self.entrance.project, "root": self.root, **found, **values}
        text = await asyncio.to_thread(page, template, **whole)  # long tables take a while
        return HTMLResponse(text, status, {"Content-Security-Policy": POLICY})

    def at(self, section: str, query: str, order: Order | None = None) -> dict[str, Any]:
        """Where a panel is drawn, for its links."""
        return {"root": self.root, "section": section, "query": query, "order": order, "links": True}

    def progress(self) -> str:
        """What is being done, for who waits."""
        reading = self.review.reading
        if reading is None:
            return "Computing"
        return f"Reading the votes: {reading[0]:,} of {reading[1]:,}"

    async def fragment(self, template: str, answer: Answer | None, **values: Any) -> Response:
        """A part of a page for its script: the part, or that it takes longer."""
        if answer is None:
            return PlainTextResponse(self.progress(), 202)
        whole = {"project": "", "root": self.root, "shown": answer.shown, **values}
        text = await asyncio.to_thread(page, template, **whole)
        return HTMLResponse(text, headers={"Content-Security-Policy": POLICY})
