"""The live screen's routes: its page, what it may continue from, and the stream of a question's answers.

GET  /live           the page; /live.js and /live.css go with it
GET  /api/v1/live    what this person can do: ask, rank what they asked last, or continue from it
POST /api/v1/live    a question in, answers as lines of JSON out, until they are complete or the page goes away
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict, Field

from palate.config import LabelConfig
from palate.data.store import Store
from palate.labeling import strings
from palate.labeling.aliases import Aliases, key_of
from palate.labeling.endpoints import endpoints_of
from palate.labeling.live import LONGEST_QUESTION, Live
from palate.labeling.login import require
from palate.labeling.pacing import Event
from palate.project import Project

USUAL = 4  # answers that are asked for unless the person says otherwise
LINES = "application/x-ndjson"
# the page is ours alone: scripts and styles from files, nothing inline, nothing from elsewhere
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TEMPLATES = Environment(
    loader=PackageLoader("palate.labeling"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


class Asking(BaseModel):
    """A question, as the page sends it."""

    model_config = ConfigDict(extra="forbid", strict=True)
    text: Annotated[str, Field(min_length=1, max_length=LONGEST_QUESTION)]
    after: Annotated[str, Field(max_length=64)] | None = None  # continue from this assignment's best answer
    answers: Annotated[int, Field(ge=2, le=9)] | None = None


def add_live(app: FastAPI, store: Store, project: Project, config: LabelConfig) -> None:
    """The live screen on an app that has a desk; `app.state.live` says whether there is anyone to ask."""
    live = Live(store, app.state.desk.offer, endpoints_of(config.endpoints, project.folder))
    app.state.live = live
    aliases = Aliases(key_of(store.path.parent))

    @app.get("/live", include_in_schema=False)
    def page(request: Request) -> Response:
        require(request)
        root = request.scope.get("root_path", "")
        language = strings.language_of(request, config.language)
        shown = _TEMPLATES.get_template("live.html.jinja").render(
            project=project.name, root=root, language=language, t=_words(language)
        )
        return HTMLResponse(shown, headers={"Content-Security-Policy": POLICY})

    @app.get("/live.js", include_in_schema=False)
    def behaviour() -> Response:
        return Response(_asset("live.js"), media_type="text/javascript")

    @app.get("/live.css", include_in_schema=False)
    def looks() -> Response:
        return Response(_asset("live.css"), media_type="text/css")

    @app.get("/api/v1/live", tags=["live"])
    def state(request: Request) -> dict[str, Any]:
        """What this person can do: ask, rank the answers to their last question, or continue from it."""
        return _state(live, aliases, require(request).id)

    @app.post("/api/v1/live", tags=["live"], responses={200: {"content": {LINES: {}}}})
    async def ask(asking: Asking, request: Request) -> StreamingResponse:
        """Ask; the answers arrive as lines of JSON, blind and in one rhythm, and are then the person's next item."""
        person = require(request).id
        after = None if asking.after is None else aliases.opened(asking.after)
        question = await run_in_threadpool(live.question, person, asking.text, after, asking.answers)
        events = live.ask(person, question)
        first = await anext(events)  # a refusal is a status, not a line
        headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
        return StreamingResponse(_lines(aliases, first, events), media_type=LINES, headers=headers)


async def _lines(aliases: Aliases, first: Event, events: AsyncGenerator[Event]) -> AsyncIterator[str]:
    # when the page goes away, so does every request: now, and not when memory is tidied
    async with aclosing(events):
        yield json.dumps(first) + "\n"
        async for event in events:
            if "assignment" in event:
                event["assignment"] = aliases.of(event["assignment"])
            yield json.dumps(event, ensure_ascii=False) + "\n"


def _state(live: Live, aliases: Aliases, person: str) -> dict[str, Any]:
    latest = live.asked(person) if live.endpoints else None
    return {
        "answers": {"most": live.most, "usual": min(USUAL, live.most)},
        "longest": LONGEST_QUESTION,
        "latest": latest
        and {
            "assignment": aliases.of(latest.assignment),
            "messages": latest.messages,
            "vote": latest.vote,
            "preferred": latest.preferred,
        },
    }


def _words(language: str) -> dict[str, str]:
    """The interface strings of this page."""
    return {key: text for key, text in strings.bundle(language).items() if key.startswith(("live.", "role."))}


def _asset(name: str) -> str:
    return files("palate.labeling").joinpath(f"assets/{name}").read_text(encoding="utf-8")
