"""Guidelines over HTTP: what the panel of the ranking page reads, and /guidelines, where leads write them.

The editor needs no script: writing, looking at it and saving are one form. A version is never changed; going back
to an old one makes a new one.
"""

from importlib.resources import files
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from palate.config import UserError
from palate.data.store import Store
from palate.labeling import guidelines
from palate.labeling.guidelines import Guidelines
from palate.labeling.login import Refused, require
from palate.labeling.login_pages import Entrance, form

Version = Annotated[int | None, Query(ge=1, le=2**31 - 1)]


class NewGuidelines(BaseModel):
    """Instructions in Markdown."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field(max_length=200_000)


def add_guidelines(app: FastAPI, store: Store, entrance: Entrance) -> None:
    """The routes /api/v1/guidelines and /guidelines."""
    _add_routes(app, store)
    _add_editor(app, store, entrance)


def _add_routes(app: FastAPI, store: Store) -> None:
    @app.get("/api/v1/guidelines", tags=["ranking"])
    def read(request: Request, since: Version = None) -> Response:
        """The instructions in force; with `since`, also the lines that changed after that version."""
        require(request)
        found = guidelines.current(store)
        before = guidelines.find(store, since) if since is not None and since != found.version else None
        changes = guidelines.changes(before.text, found.text) if before else []
        return _json({**_as_json(found), "html": guidelines.as_html(found.text), "changes": changes})

    @app.put("/api/v1/guidelines", tags=["ranking"])
    def write(request: Request, body: NewGuidelines) -> Response:
        """A new version of the instructions; the one in force when nothing differs. For leads."""
        person = require(request, "lead")
        return _json(_as_json(guidelines.add(store, body.text, person.id)))

    @app.get("/api/v1/guidelines/history", tags=["ranking"])
    def versions(request: Request) -> Response:
        """All versions, newest first, with their authors. For leads."""
        require(request, "lead")
        return _json({"versions": [_as_json(v) | {"by": v.created_by} for v in guidelines.history(store)]})


def _as_json(found: Guidelines) -> dict[str, Any]:
    at = found.created_at.isoformat() if found.created_at else None
    return {"version": found.version, "text": found.text, "created_at": at}


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")


def _add_editor(app: FastAPI, store: Store, entrance: Entrance) -> None:
    css = files("palate.labeling").joinpath("assets/guidelines.css").read_text(encoding="utf-8")

    def show(request: Request, status: int = 200, **found: Any) -> Response:
        versions = guidelines.history(store)
        values = {
            "draft": versions[0].text if versions else "",
            "preview": None,
            "error": "",
            "saved": None,
            "versions": _with_changes(versions),
        }
        return entrance.page("guidelines", status, request=request, **(values | found))

    @app.get("/guidelines.css", include_in_schema=False)
    def looks() -> Response:
        return Response(css, media_type="text/css")

    @app.get("/guidelines", include_in_schema=False)
    def editor(request: Request, saved: Version = None) -> Response:
        require(request, "lead")
        return show(request, saved=saved)

    @app.post("/guidelines", include_in_schema=False)
    async def edited(request: Request) -> Response:
        person = require(request, "lead")
        sent = await form(request)
        text = sent.get("text", "").replace("\r\n", "\n")
        if sent.get("do") == "preview":
            preview = guidelines.as_html(text[: guidelines.LONGEST])
            return await run_in_threadpool(show, request, draft=text, preview=preview)
        try:
            if sent.get("do") == "restore":
                text = await run_in_threadpool(_text_of, store, sent.get("version", ""))
            new = await run_in_threadpool(guidelines.add, store, text, person.id)
        except Refused:
            raise
        except UserError as error:
            return await run_in_threadpool(show, request, 400, draft=text, error=str(error))
        return entrance.to(f"/guidelines?saved={new.version}")


def _text_of(store: Store, version: str) -> str:
    found = (
        guidelines.find(store, int(version))
        if version.isascii() and version.isdigit() and len(version) < 10
        else None
    )
    if found is None:
        raise Refused(404, "unknown", f"there is no version {version[:20]!r} of the guidelines")
    return found.text


def _with_changes(versions: list[Guidelines]) -> list[dict[str, Any]]:
    """Versions for the page: when, by whom, and what each changed."""
    return [
        {
            "version": v.version,
            "by": v.created_by,
            "at": f"{v.created_at:%Y-%m-%d %H:%M}",
            "changes": guidelines.changes(old, v.text),
        }
        for v, old in zip(versions, [*(v.text for v in versions), ""][1:], strict=False)
    ]
