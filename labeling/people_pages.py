"""/people, where leads invite and admins change what people may do, and /account, everybody's own page.

Forms without scripts: each press is a POST that answers with the page again. A link or a token is shown in that
answer and never again.
"""

import asyncio
from datetime import datetime, timedelta
from typing import Any, get_args

from fastapi import FastAPI, Request
from fastapi.responses import Response

from palate.config import UserError
from palate.data.records import AnnotatorRole
from palate.data.store import now
from palate.labeling.invitations import Invitation
from palate.labeling.login import Refused, clear_cookie, require, set_cookie
from palate.labeling.login_pages import Entrance, form, twice
from palate.labeling.people import ROLES, People, Person

SHORT = 16  # digits of a secret's hash by which pages and routes name it


def add_people(app: FastAPI, entrance: Entrance) -> None:
    """The routes /people and /account with what their forms send."""
    _add_people(app, entrance)
    _add_account(app, entrance)


def _add_people(app: FastAPI, entrance: Entrance) -> None:
    people, links = entrance.people, entrance.invitations

    def show(me: Person, status: int = 200, **values: Any) -> Response:
        found = {"error": "", "done": "", "link": "", "link_for": "", **values}
        rows = sorted(listed(people), key=lambda row: (not row["active"], row["name"].casefold()))
        roles = [role for role in ROLES if me.role == "admin" or role == "annotator"]
        open_links = [_as_row(link, people) for link in links.open()]
        return entrance.page("people", status, me=me, rows=rows, roles=roles, links=open_links, **found)

    @app.get("/people", include_in_schema=False)
    def everybody(request: Request) -> Response:
        return show(require(request, "lead"))

    def change(me: Person, request: Request, action: str, sent: dict[str, str]) -> Response:
        """Do what a form asks; leads are held to inviting by the invitations themselves."""
        id = sent.get("id", "")
        if action == "invite":
            role, days, uses = role_of(sent), whole(sent, "days", 7), whole(sent, "uses", 1)
            code, link = links.invite(me, role, sent.get("name", ""), uses, days)
            return show(me, link=invite_url(request, code), link_for=_purpose(link))
        if action == "revoke":
            links.revoke(me, id)
            return show(me, done="The link is taken back.")
        if not me.may("admin"):
            raise Refused(403, "forbidden", f"this takes the role admin; {me.name} is {me.role}")
        name = people.account(id).person.name
        if action == "password":
            code, link = links.for_password(me, id)
            return show(me, link=invite_url(request, code), link_for=_purpose(link))
        if action == "role":
            people.set_role(id, role_of(sent))
            me = people.person(me.id) or me
            if not me.may("lead"):
                return entrance.to("/")
            return show(me, done=f"{name} is now {role_of(sent)}.")
        if action == "active":
            active = sent.get("active") == "yes"
            people.set_active(id, active)
            return show(
                me, done=f"{name} can log in again." if active else f"{name} is logged out and disabled."
            )
        raise Refused(404, "not_found", "there is no such page")

    @app.post("/people/{action}", include_in_schema=False)
    async def act(request: Request, action: str) -> Response:
        me, sent = require(request, "lead"), await form(request)
        try:
            return await asyncio.to_thread(change, me, request, action, sent)
        except UserError as error:
            if isinstance(error, Refused) and error.status in (403, 404):
                raise
            status = error.status if isinstance(error, Refused) else 400
            return await asyncio.to_thread(show, me, status, error=str(error))


def _add_account(app: FastAPI, entrance: Entrance) -> None:
    people = entrance.people

    def show(me: Person, status: int = 200, **values: Any) -> Response:
        found = {"error": "", "done": "", "token": "", **values}
        tokens = [token_row(grant.id, people, me.id) for grant in people.tokens(me.id)]
        has_password = people.account(me.id).password is not None
        return entrance.page("account", status, me=me, tokens=tokens, has_password=has_password, **found)

    async def new_password(me: Person, request: Request, sent: dict[str, str]) -> Response:
        if people.account(me.id).password is not None:
            await entrance.check(request, me.name, sent.get("current", "")[:1000])
        hashed = await entrance.hashed(twice(sent, me.name))
        await asyncio.to_thread(people.set_password, me.id, hashed)
        done = "The password is set; every other device is logged out."
        response = await asyncio.to_thread(show, me, done=done)
        set_cookie(request, response, people, await asyncio.to_thread(people.open_session, me.id))
        return response

    @app.get("/account", include_in_schema=False)
    def own(request: Request) -> Response:
        return show(require(request))

    def change(me: Person, request: Request, action: str, sent: dict[str, str]) -> Response:
        if action == "tokens":
            token, _ = people.make_token(
                me.id, sent.get("name", ""), until_of(whole(sent, "days", 90, most=3650))
            )
            return show(me, token=token)
        if action == "revoke":
            people.revoke_token(me.id, sent.get("id", ""))
            return show(me, done="The token is revoked; it opens nothing from now on.")
        if action == "logout":
            people.close_sessions(me.id)
            response: Response = entrance.to("/login")
            clear_cookie(request, response, people)
            return response
        raise Refused(404, "not_found", "there is no such page")

    @app.post("/account/{action}", include_in_schema=False)
    async def act(request: Request, action: str) -> Response:
        me, sent = require(request), await form(request)
        try:
            if action == "password":
                return await new_password(me, request, sent)
            return await asyncio.to_thread(change, me, request, action, sent)
        except UserError as error:
            status = error.status if isinstance(error, Refused) else 400
            text = "the current password is wrong" if status == 401 else str(error)
            return await asyncio.to_thread(show, me, 403 if status == 401 else status, error=text)


def listed(people: People) -> list[dict[str, Any]]:
    """Everybody with what leads see of them."""
    votes = {
        row["annotator_id"]: row["n"]
        for row in people.store.rows("SELECT annotator_id, count(*) AS n FROM current_vote GROUP BY ALL")
    }
    return [
        {
            "id": account.person.id,
            "name": account.person.name,
            "role": account.person.role,
            "active": account.active,
            "has_password": account.password is not None,
            "last_seen": people.last_seen(account.person.id),
            "ago": ago(people.last_seen(account.person.id)),
            "votes": votes.get(account.person.id, 0),
        }
        for account in people.accounts()
    ]


def token_row(token_id: str, people: People, owner: str) -> dict[str, Any]:
    """What somebody sees of one of their tokens."""
    grant = next(grant for grant in people.tokens(owner) if grant.id == token_id)
    used = people.last_seen(grant.id)
    over = grant.expires_at is not None and grant.expires_at < now()
    return {"id": grant.id[:SHORT], "name": grant.name, "created_at": grant.created_at, "over": over,
            "expires_at": grant.expires_at, "last_used": used, "ago": ago(used)}  # fmt: skip


def invite_url(request: Request, code: str) -> str:
    """The address of an invitation, as the sender of the request reaches this server."""
    return f"{str(request.base_url).rstrip('/')}/invite?code={code}"


def until_of(days: int) -> datetime | None:
    """When something made now ends; 0 days: never."""
    return now() + timedelta(days=days) if days else None


def role_of(sent: dict[str, str]) -> AnnotatorRole:
    """The role in a form."""
    role = sent.get("role", "annotator")
    if role not in get_args(AnnotatorRole):
        raise UserError(f"a role is one of {', '.join(ROLES)}, got {role[:40]!r}")
    return role  # type: ignore[return-value]


def whole(sent: dict[str, str], name: str, default: int, most: int = 1000) -> int:
    """A whole number in a form."""
    text = sent.get(name, "").strip() or str(default)
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= most):
        raise UserError(f"{name} takes a whole number up to {most}, got {text[:20]!r}")
    return int(text)


def ago(moment: datetime | None) -> str:
    """How long ago, in words."""
    if moment is None:
        return "never"
    minutes = int((now() - moment).total_seconds() // 60)
    if minutes < 6:
        return "now"  # it is only known to five minutes
    if minutes < 60:
        return f"{minutes} min ago"
    return f"{minutes // 60} h ago" if minutes < 24 * 60 else moment.strftime("%-d %b %Y")


def _purpose(link: Invitation) -> str:
    until = link.expires_at.strftime("%-d %b %Y")
    if link.role == "password":
        return f"{link.name} sets a new password with it, once, until {until}"
    who = link.name or ("one person" if link.uses_left == 1 else f"up to {link.uses_left} people")
    return f"{who} can join with it as {link.role} until {until}"


def _as_row(link: Invitation, people: People) -> dict[str, Any]:
    maker = people.person(link.created_by)
    return {"id": link.id[:SHORT], "purpose": _purpose(link), "by": maker.name if maker else "",
            "role": link.role}  # fmt: skip
