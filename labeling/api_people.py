"""/api/v1 routes for people, invitations and one's own tokens: what the pages do, for scripts."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, FastAPI, Request
from pydantic import AfterValidator, Field

from palate.data.records import AnnotatorRole
from palate.labeling import credentials
from palate.labeling.api import Body
from palate.labeling.invitations import Invitation
from palate.labeling.login import Refused, require
from palate.labeling.login_pages import Entrance
from palate.labeling.people import Person
from palate.labeling.people_pages import SHORT, invite_url, listed, token_row, until_of

Name = Annotated[str, Field(min_length=1, max_length=60)]
# the database keeps UTC without a zone; said without one, programs elsewhere would take it for their own time
Moment = Annotated[datetime, AfterValidator(lambda moment: moment.replace(tzinfo=UTC))]


class NewPerson(Body):
    """An account to be made."""

    name: Name
    role: AnnotatorRole = "annotator"
    password: Annotated[str | None, Field(min_length=10, max_length=1000)] = None


class Change(Body):
    """What is to be different about an account; what is left out stays."""

    role: AnnotatorRole | None = None
    active: bool | None = None


class NewInvitation(Body):
    """A link to be made."""

    role: AnnotatorRole = "annotator"
    name: Annotated[str, Field(max_length=60, description="Fixed; empty: the invited person chooses")] = ""
    uses: Annotated[int, Field(ge=1, le=1000)] = 1
    days: Annotated[int, Field(ge=1, le=365)] = 7


class NewToken(Body):
    """A token to be made."""

    name: Name
    days: Annotated[int, Field(ge=0, le=3650, description="0: without end")] = 90


class PersonOut(Body):
    """An account."""

    id: str
    name: str
    role: AnnotatorRole
    active: bool
    has_password: bool
    last_seen: Moment | None
    votes: int


class LinkOut(Body):
    """A link that is out; `url` only in the answer to whoever made it. Role "password": sets a new password."""

    id: str
    role: str
    name: str | None
    uses_left: int
    expires_at: Moment
    url: str | None = None


class TokenOut(Body):
    """A token; `token` only in the answer to whoever made it."""

    id: str
    name: str
    created_at: Moment
    expires_at: Moment | None
    last_used: Moment | None
    token: str | None = None


class PeopleOut(Body):
    """Everybody."""

    people: list[PersonOut]


class LinksOut(Body):
    """The links that are out."""

    invitations: list[LinkOut]


class TokensOut(Body):
    """One's own tokens."""

    tokens: list[TokenOut]


class Gone(Body):
    """What is no more."""

    revoked: str


def add_people_api(app: FastAPI, entrance: Entrance) -> None:
    """The routes."""
    routes = APIRouter(prefix="/api/v1", tags=["people"])
    _add_accounts(routes, entrance)
    _add_links(routes, entrance)
    _add_tokens(routes, entrance)
    app.include_router(routes)


def _add_accounts(routes: APIRouter, entrance: Entrance) -> None:
    people = entrance.people

    def found(annotator_id: str) -> PersonOut:
        row = next(row for row in listed(people) if row["id"] == annotator_id)
        return PersonOut(**{name: row[name] for name in PersonOut.model_fields})

    @routes.get("/people")
    def everybody(request: Request) -> PeopleOut:
        """Everybody who can log in. For leads."""
        require(request, "lead")
        names = PersonOut.model_fields
        return PeopleOut(people=[PersonOut(**{name: row[name] for name in names}) for row in listed(people)])

    @routes.post("/people", status_code=201)
    async def make(request: Request, body: NewPerson) -> PersonOut:
        """A new account; without a password only a link lets the person in. For admins."""
        require(request, "admin")
        password = body.password and credentials.checked(body.password, body.name)
        hashed = await entrance.hashed(password) if password else None
        person = await asyncio.to_thread(people.create, body.name, body.role, hashed)
        return await asyncio.to_thread(found, person.id)

    @routes.patch("/people/{annotator_id}")
    def change(request: Request, annotator_id: str, body: Change) -> PersonOut:
        """Change a role, disable or enable. The last admin can't be lost. For admins."""
        require(request, "admin")
        if body.active is not None:
            people.set_active(annotator_id, body.active)
        if body.role is not None:
            people.set_role(annotator_id, body.role)
        people.account(annotator_id)
        return found(annotator_id)

    @routes.post("/people/{annotator_id}/password-link", status_code=201)
    def link(request: Request, annotator_id: str) -> LinkOut:
        """A link by which this person sets a new password. For admins."""
        code, made = entrance.invitations.for_password(require(request, "admin"), annotator_id)
        return _link(made, invite_url(request, code))


def _add_links(routes: APIRouter, entrance: Entrance) -> None:
    links = entrance.invitations

    @routes.get("/invitations")
    def every_link(request: Request) -> LinksOut:
        """The links that still work. For leads."""
        require(request, "lead")
        return LinksOut(invitations=[_link(found) for found in links.open()])

    @routes.post("/invitations", status_code=201)
    def invite(request: Request, body: NewInvitation) -> LinkOut:
        """A link that makes accounts: leads invite annotators, admins anybody."""
        code, made = links.invite(require(request, "lead"), body.role, body.name, body.uses, body.days)
        return _link(made, invite_url(request, code))

    @routes.delete("/invitations/{link_id}")
    def revoke(request: Request, link_id: str) -> Gone:
        """Take a link back. For leads."""
        links.revoke(require(request, "lead"), link_id)
        return Gone(revoked=link_id)


def _add_tokens(routes: APIRouter, entrance: Entrance) -> None:
    people = entrance.people

    def found(person: Person, token_id: str, token: str | None = None) -> TokenOut:
        row = token_row(token_id, people, person.id)
        return TokenOut(token=token, **{name: row[name] for name in TokenOut.model_fields if name in row})

    @routes.get("/tokens")
    def tokens(request: Request) -> TokensOut:
        """Your own tokens."""
        me = require(request)
        return TokensOut(tokens=[found(me, grant.id) for grant in people.tokens(me.id)])

    @routes.post("/tokens", status_code=201)
    def make_token(request: Request, body: NewToken) -> TokenOut:
        """A new token of yours. Only a session can: a token that was stolen must not have children."""
        me = require(request)
        if me.via == "token":
            raise Refused(403, "session_needed", "tokens are made by people who are logged in, not by tokens")
        token, grant = people.make_token(me.id, body.name, until_of(body.days))
        return found(me, grant.id, token)

    @routes.delete("/tokens/{token_id}")
    def revoke_token(request: Request, token_id: str) -> Gone:
        """End one of your tokens."""
        people.revoke_token(require(request).id, token_id)
        return Gone(revoked=token_id)


def _link(link: Invitation, url: str | None = None) -> LinkOut:
    return LinkOut(
        id=link.id[:SHORT], role=link.role, name=link.name, uses_left=link.uses_left,
        expires_at=link.expires_at, url=url,
    )  # fmt: skip
