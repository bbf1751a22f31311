"""Who is voting: a name asked for once, kept in a signed cookie. A courtesy, not a login with passwords.

The cookie is HttpOnly, SameSite=Lax and signed with a key of the project, so a page or another person's
script can't vote under somebody else's name by guessing; whoever can type the name can.
"""

import hashlib
import hmac
import html
import os
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from palate.config import UserError
from palate.data.store import Store
from palate.labeling import voting
from palate.labeling.screen import style

OPEN_PATHS = ("/login", "/healthz", "/favicon.ico", "/manifest.json")
# Gradio's routes that store, serve or fetch files, run code or keep histories: this app needs none of them
SHUT = ("upload", "file", "proxy", "stream", "custom_component", "deep_link", "process_recording", "vibe",
        "undo-vibe", "run-history", "runs", "dev", "openapi", "info", "call", "component_server")  # fmt: skip
YEAR = 365 * 24 * 3600
# Gradio needs inline scripts and builds functions from strings; nothing may come from, or go to, elsewhere
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff",
           "Referrer-Policy": "same-origin", "Cache-Control": "no-store"}  # fmt: skip


class Door:
    """Signs and reads the cookie, and stands in front of every route."""

    def __init__(self, folder: Path, store: Store, default: str | None) -> None:
        self._store = store
        self._known: set[str] = set()
        self.default = default  # the annotator given on the command line, for a browser without a cookie
        self._key = _key(folder / "label.key")
        self.cookie = "palate-" + hashlib.sha256(str(folder).encode()).hexdigest()[:10]  # ports share cookies

    def sign(self, person: str) -> str:
        """The cookie's value for an annotator's id."""
        return f"{person}.{hmac.new(self._key, person.encode(), hashlib.sha256).hexdigest()}"

    def person(self, request: Request) -> str | None:
        """The annotator's id in a request's cookie; None when there is none, it is forged, or nobody has it."""
        value = request.cookies.get(self.cookie, "")
        person = value.partition(".")[0]
        if not person or not hmac.compare_digest(value.encode(), self.sign(person).encode()):
            return None
        if person not in self._known:  # a cookie may outlive the database it was made for
            if not self._store.value("SELECT 1 FROM annotator WHERE id = ?", [person]):
                return None
            self._known.add(person)
        return person

    def admit(self, response: Response, person: str) -> Response:
        """The response with the cookie set."""
        response.set_cookie(self.cookie, self.sign(person), max_age=YEAR, httponly=True, samesite="lax")
        return response

    async def guard(self, request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        """Every request: same origin, an annotator, no closed route; every response: the policy's headers."""
        response = self._refusal(request) or await go_on(request)
        assets = "/assets/" in request.url.path or "/static/" in request.url.path
        for name, value in HEADERS.items():
            if not (name == "Cache-Control" and assets):
                response.headers[name] = value
        return response

    def _refusal(self, request: Request) -> Response | None:
        path, origin = request.url.path, request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            return PlainTextResponse("requests from other sites are refused", 403)
        _, inside, route = path.partition("/gradio_api/")
        if (inside and route.startswith(SHUT)) or path.startswith(
            ("/file", "/monitoring", "/proxy", "/stream")
        ):
            return PlainTextResponse("not found", 404)
        if path in OPEN_PATHS or self.person(request) is not None:
            return None
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            if self.default is not None:
                return self.admit(RedirectResponse(str(request.url.path), 303), self.default)
            return RedirectResponse("/login", 303)
        return PlainTextResponse("say who you are at /login first", 401)


def add_login(app: FastAPI, store: Store, project: str, door: Door) -> None:
    """The page that asks for a name, and where it is sent."""

    @app.get("/login")
    def ask() -> HTMLResponse:
        return HTMLResponse(_page(project, ""))

    @app.post("/login")
    async def enter(request: Request) -> Response:
        body = (await request.body())[:4096].decode("utf-8", "replace")
        try:
            person = voting.annotator(store, parse_qs(body).get("name", [""])[0])
        except UserError as error:
            return HTMLResponse(_page(project, str(error)), 400)
        return door.admit(RedirectResponse("/", 303), person.id)


def _page(project: str, error: str) -> str:
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{html.escape(project)} · Palate</title>
<style>{style()}</style></head><body class="p-login"><main><h1>{html.escape(project)}</h1>
<p>You will see a prompt and two or more answers to it. Say which answer serves the prompt better.
Every answer is saved at once, and you can take it back.</p>
<form method="post" action="/login"><label for="name">Your name, as it stands on your votes</label>
<input id="name" name="name" autofocus required maxlength="60" autocomplete="nickname">
<button>Start</button><p class="p-bad" role="alert">{html.escape(error)}</p></form></main></body></html>"""


def _key(path: Path) -> bytes:
    """The project's signing key, made on first use and readable by the owner only."""
    with suppress(FileExistsError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(32))
    return path.read_bytes()
