"""The pages by which people come in: /login with a name and a password, /invite with a link from a lead, /start
with the link that the terminal prints; and /logout. They hold no scripts, and everything that people wrote is
escaped by the template engine.
"""

import asyncio
import hmac
import math
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from palate.config import UserError
from palate.data.store import now
from palate.labeling import credentials, strings
from palate.labeling.credentials import brought, sha256
from palate.labeling.invitations import Invitations
from palate.labeling.login import Refused, clear_cookie, local_path, refuse, set_cookie
from palate.labeling.people import People, Person, clean_name
from palate.labeling.throttle import Throttle, network_of

START = timedelta(hours=24)  # so long the link in the terminal is good
HASHES = 2  # passwords checked at once: each takes 16 MB and a core
WAIT = 15 * 60.0  # seconds until somebody with too many failures may try again
# no scripts at all on these pages
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_TEMPLATES = Environment(
    loader=PackageLoader("palate.labeling"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


@dataclass
class StartLink:
    """The one-time link that lets in whoever started the process: they own the database anyway."""

    name: str | None = None  # whom it logs in; None: it asks
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    until: datetime = field(default_factory=lambda: now() + START)
    used: bool = False

    @property
    def path(self) -> str:
        """What follows the server's address."""
        return f"/start?code={self.secret}"

    def fits(self, code: str) -> bool:
        """Whether this is the code, still good."""
        same = hmac.compare_digest(sha256(code), sha256(self.secret))
        return same and not self.used and now() < self.until


@dataclass
class Entrance:
    """What the pages share: who is known, how often somebody may try, how passwords are checked."""

    people: People
    project: str
    invitations: Invitations
    root: str = ""
    start: StartLink | None = None
    failures: Throttle = field(default_factory=lambda: Throttle(10, WAIT))  # per account
    senders: Throttle = field(
        default_factory=lambda: Throttle(50, WAIT)
    )  # per address: a class may share one
    pace: Throttle = field(default_factory=lambda: Throttle(60, 60.0))  # requests per address
    language: str = "en"  # of pages, where a browser has not chosen another
    hashes: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(HASHES))

    def page(
        self, template: str, /, status: int = 200, *, request: Request | None = None, **values: Any
    ) -> HTMLResponse:
        """A filled template, in the language that the request's browser has chosen."""
        language = strings.language_of(request, self.language) if request else "en"
        text = _TEMPLATES.get_template(f"{template}.html.jinja").render(
            project=self.project,
            root=self.root,
            language=language,
            t=partial(strings.text, language),
            **values,
        )
        return HTMLResponse(text, status, {"Content-Security-Policy": POLICY})

    def told(self, request: Request, error: UserError) -> str:
        """What went wrong, in the browser's language where there are words for it."""
        key = f"door.{error.code}" if isinstance(error, Refused) else ""
        language = strings.language_of(request, self.language)
        return (
            str(error)
            if language == "en" or key not in strings.bundle(language)
            else strings.text(language, key)
        )

    def to(self, path: str) -> RedirectResponse:
        """A redirect to a page of the app."""
        return RedirectResponse(self.root + path, 303)

    def enter(self, request: Request, person: Person, path: str = "/") -> Response:
        """Open a session for somebody and send them on."""
        response = self.to(path)
        set_cookie(request, response, self.people, self.people.open_session(person.id))
        return response

    def slow_down(self, request: Request) -> None:
        """Refuse a sender that comes too often."""
        sender = sender_of(request)
        if self.pace.wait(sender) > 0:
            raise Refused(429, "slow_down", "too many requests from your address; wait a minute")
        self.pace.mark(sender)

    async def check(self, request: Request, name: str, password: str) -> Person:
        """The person who has this name and password; Refused, after the same time, for every other reason."""
        sender, account = sender_of(request), self.people.find(name)
        key = name.casefold() if account is None else account.person.id
        wait = max(self.failures.wait(key), self.senders.wait(sender))
        if wait > 0:
            minutes = math.ceil(wait / 60)
            raise Refused(429, "locked", f"too many wrong passwords; try again in {minutes} min")
        self.failures.mark(key)  # before the check, so that attempts at the same time count too
        self.senders.mark(sender)
        stored = account.password if account is not None and account.active else None
        async with self.hashes:
            right = await asyncio.to_thread(credentials.verify, password, stored)
        if account is None or not right:
            raise Refused(401, "wrong", "this name and this password don't belong together")
        self.failures.clear(key)
        self.senders.forgive(sender)
        return account.person

    async def hashed(self, password: str) -> str:
        """The password's hash."""
        async with self.hashes:
            return await asyncio.to_thread(credentials.hashed, password)


def sender_of(request: Request) -> str:
    """The address a request comes from, as limits count it."""
    return network_of(request.client.host if request.client else "")


async def form(request: Request) -> dict[str, str]:
    """The fields of a sent form; files are not taken."""
    fields = await request.form(max_files=0, max_fields=20)
    return {name: value for name, value in fields.items() if isinstance(value, str)}


def twice(sent: dict[str, str], name: str) -> str:
    """The new password in a form that asks for it twice; a UserError when it can't be taken."""
    password = credentials.checked(sent.get("password", ""), name)
    if password != sent.get("again", ""):
        raise UserError("the two passwords differ; type them once more")
    return password


def add_login(app: FastAPI, entrance: Entrance) -> None:
    """The routes /login, /logout, /invite, /start and the style sheet; how refusals look everywhere."""
    _add_refusals(app, entrance)
    _add_start(app, entrance)
    _add_invite(app, entrance)
    people = entrance.people
    css = files("palate.labeling").joinpath("assets/people.css").read_text(encoding="utf-8")

    @app.get("/people.css", include_in_schema=False)
    async def looks() -> Response:
        return Response(css, media_type="text/css", headers={"Cache-Control": "max-age=300"})

    @app.get("/login", include_in_schema=False)
    async def ask(request: Request, next: str = "/") -> Response:
        return entrance.page("login", request=request, error="", name="", next=local_path(next))

    @app.post("/login", include_in_schema=False)
    async def log_in(request: Request) -> Response:
        sent = await form(request)
        name, there = sent.get("name", "")[:60], local_path(sent.get("next"))
        try:
            entrance.slow_down(request)
            person = await entrance.check(request, name, sent.get("password", "")[:1000])
        except Refused as error:
            said = entrance.told(request, error)
            return entrance.page("login", error.status, request=request, error=said, name=name, next=there)
        return await asyncio.to_thread(entrance.enter, request, person, there)

    @app.post("/logout", include_in_schema=False)
    def log_out(request: Request) -> Response:
        secret = brought(request.scope, people.cookie)[1]
        if secret:
            people.close_session(secret)
        response = entrance.to("/login")
        clear_cookie(request, response, people)
        return response


def _add_refusals(app: FastAPI, entrance: Entrance) -> None:
    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        path = request.scope["path"].removeprefix(entrance.root)
        if path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
            return refuse(error.status, error.code, error.message)
        said = entrance.told(request, error)
        return entrance.page("notice", error.status, request=request, text=said)


def _add_invite(app: FastAPI, entrance: Entrance) -> None:
    used = Refused(403, "used", "this link was used, taken back or is too old; ask for a new one")

    def show(request: Request, code: str, status: int = 200, error: str = "", name: str = "") -> Response:
        link = entrance.invitations.find(code)
        if link is None:
            raise used
        values = {"fixed": link.name, "role": link.role, "name": name, "error": error}
        return entrance.page("invite", status, request=request, code=code, **values)

    @app.get("/invite", include_in_schema=False)
    async def invited(request: Request, code: str = "") -> Response:
        entrance.slow_down(request)
        return show(request, code)

    @app.post("/invite", include_in_schema=False)
    async def accept(request: Request) -> Response:
        sent = await form(request)
        entrance.slow_down(request)
        code = sent.get("code", "")
        link = entrance.invitations.find(code)
        if link is None:  # before the hash, which is dear
            raise used
        name = link.name or sent.get("name", "")
        try:
            if link.name is None and await asyncio.to_thread(entrance.people.taken, clean_name(name)):
                raise UserError(f"the name {clean_name(name)!r} is taken; choose another one")
            hashed = await entrance.hashed(twice(sent, clean_name(name)))
            person = await asyncio.to_thread(entrance.invitations.accept, code, name, hashed)
        except UserError as error:
            status = error.status if isinstance(error, Refused) else 400
            return show(request, code, status, entrance.told(request, error), name[:60])
        return await asyncio.to_thread(entrance.enter, request, person)


def _add_start(app: FastAPI, entrance: Entrance) -> None:
    people = entrance.people
    used = Refused(403, "used", "this link was used or is too old; start the server again for a new one")

    @app.get("/start", include_in_schema=False)
    def begin(request: Request, code: str = "") -> Response:
        link = entrance.start
        entrance.slow_down(request)
        person = people.person_of(request)
        if person and (person.name == link.name if link and link.name else person.may("admin")):
            return entrance.to("/")  # in already: the link stays good for another browser
        if link is None or not link.fits(code):
            raise used
        if link.name:
            return entrance.enter(request, _starter(people, link, link.name))
        admins = [a.person.name for a in people.accounts() if a.active and a.person.role == "admin"]
        name = admins[0] if len(admins) == 1 else ""
        return entrance.page("start", request=request, code=code, error="", name=name)

    @app.post("/start", include_in_schema=False)
    async def started(request: Request) -> Response:
        sent = await form(request)
        link, code, name = entrance.start, sent.get("code", ""), sent.get("name", "")
        entrance.slow_down(request)
        if link is None or link.name or not link.fits(code):
            raise used
        try:
            person = await asyncio.to_thread(_starter, people, link, name)
        except UserError as error:
            said = entrance.told(request, error)
            return entrance.page("start", 400, request=request, code=code, error=said, name=name[:60])
        return await asyncio.to_thread(entrance.enter, request, person)


def _starter(people: People, link: StartLink, name: str) -> Person:
    """Who comes in by the start link: the account of that name, or a new admin."""
    with people.lock:
        if link.used:  # two browsers at once: one of them
            raise UserError("this link was used; start the server again for a new one")
        account = people.find(clean_name(name))
        if account is not None and not account.active:
            raise UserError(
                f"the account {account.person.name!r} is disabled; start with another --annotator"
            )
        person = account.person if account is not None else people.create(name, "admin")
        link.used = True
    return person
