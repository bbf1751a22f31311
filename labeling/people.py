"""People: accounts with roles, their sessions and tokens. Who may come in by a link is in `invitations.py`.

The tables are mirrored in memory, written through: this process owns the database, and telling who is asking
must cost microseconds. Secrets are random 256 bits; only their SHA-256 is kept, here and in the database.
Nothing here knows of pages: `login.py` stands in front of the routes and asks `person_of`.

    people = People(store, "palate-cookie")
    anna = people.create("Anna", "admin")
    secret = people.open_session(anna.id)
"""

import secrets
import threading
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from starlette.requests import HTTPConnection

from palate.config import UserError
from palate.data.records import Annotator, AnnotatorRole
from palate.data.store import Store, now
from palate.labeling.credentials import brought, sha256

ROLES: tuple[AnnotatorRole, ...] = ("annotator", "lead", "admin")  # each may do what those before it may
SESSION = timedelta(days=30)  # since the day on which it was last used
RENEW = timedelta(days=1)  # a session's end is moved at most so often
SEEN = timedelta(minutes=5)  # so exact is the time at which somebody was last seen
TOKEN = "palate_"  # what a token begins with: scanners for leaked secrets know it by that


class Refused(UserError):
    """What may not be: told as `{"error": {"code", "message"}}` to programs, as a page to people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True)
class Person:
    """Who is asking, and how that is known."""

    id: str
    name: str
    role: AnnotatorRole
    via: Literal["session", "token"] = "session"

    def may(self, role: AnnotatorRole) -> bool:
        """Whether this person's role includes `role`."""
        return ROLES.index(self.role) >= ROLES.index(role)


COMMAND = Person("command", "a command on this machine", "lead", "token")  # has no account


@dataclass(frozen=True)
class Account:
    """A person who can log in."""

    person: Person
    password: str | None  # its hash; None: only links and tokens let this person in
    active: bool
    created_at: datetime


@dataclass(frozen=True)
class Grant:
    """What a secret gives to whom: a session, or a token with a name."""

    id: str  # SHA-256 of the secret
    annotator_id: str
    created_at: datetime
    expires_at: datetime | None  # as granted; a session's end moves, see People.expires
    name: str = ""


def clean_name(text: str) -> str:
    """A name as it is stored; a UserError when it is empty, too long or holds invisible characters."""
    name = " ".join(unicodedata.normalize("NFKC", text[:500]).split())
    if not 1 <= len(name) <= 60 or not name.isprintable():
        raise UserError(f"a name takes 1 to 60 visible characters, got {text[:80]!r}")
    return name


class People:
    """The accounts of one project, and what lets them in. Threads may share it.

    Changes take the lock and are on disk when they return; looking up takes no lock and never waits.
    """

    def __init__(self, store: Store, cookie: str = "palate") -> None:
        self.store, self.cookie = store, cookie
        self.lock = threading.RLock()
        self._lent: str | None = None  # what is kept of the token that `lend` gave
        with store.transaction():
            for table in ("login_session", "access_token"):
                store.write(f"DELETE FROM {table} WHERE expires_at < ?", [now()])
        rows = store.rows("SELECT a.*, n.name, n.role FROM account a JOIN annotator n ON n.id = annotator_id")
        self._accounts = {
            r["annotator_id"]: Account(
                Person(r["annotator_id"], r["name"], r["role"]), r["password"], r["active"], r["created_at"]
            )
            for r in rows
        }
        self._seen: dict[str, datetime] = {r["annotator_id"]: r["last_seen"] for r in rows if r["last_seen"]}
        self._sessions = self._grants("SELECT *, '' AS name FROM login_session")
        self._tokens = self._grants("SELECT * FROM access_token")
        self._until = {id: grant.expires_at for id, grant in {**self._sessions, **self._tokens}.items()}
        self._seen |= {
            row["id"]: row["last_used"]
            for row in store.rows("SELECT id, last_used FROM access_token WHERE last_used IS NOT NULL")
        }

    def _grants(self, sql: str) -> dict[str, Grant]:
        names = ("id", "annotator_id", "created_at", "expires_at", "name")
        rows = self.store.rows(sql)
        return {row["id"]: Grant(*(row[name] for name in names)) for row in rows}

    # -- who is asking ---------------------------------------------------------------------------------

    def person(self, annotator_id: str | None) -> Person | None:
        """The person with this id; None when there is no such account or it is disabled."""
        account = self._accounts.get(annotator_id or "")
        return account.person if account and account.active else None

    def person_of(self, request: HTTPConnection | Mapping[str, Any]) -> Person | None:
        """Who sends a request (or an ASGI scope): by the token when it brings one, else by the cookie."""
        scope = request.scope if isinstance(request, HTTPConnection) else request
        token, secret = brought(scope, self.cookie)
        return self.by_token(token) if token is not None else self.by_session(secret)

    def by_session(self, secret: str | None) -> Person | None:
        """Whose session a cookie's secret is."""
        return self._holder(self._sessions, secret)

    def lend(self) -> str:
        """A lead's token for commands on this machine; it stands in no database and ends with this process."""
        token = TOKEN + secrets.token_urlsafe(32)
        self._lent = sha256(token)
        return token

    def by_token(self, token: str | None) -> Person | None:
        """Whose token this is."""
        if token and self._lent and secrets.compare_digest(sha256(token), self._lent):
            return COMMAND
        person = self._holder(self._tokens, token)
        return replace(person, via="token") if person else None

    def _holder(self, grants: dict[str, Grant], secret: str | None) -> Person | None:
        grant = grants.get(sha256(secret)) if secret else None
        if grant is None:
            return None
        until = self._until.get(grant.id)
        return None if until is not None and until < now() else self.person(grant.annotator_id)

    def touch(self, person: Person, secret: str) -> tuple[bool, Callable[[], None] | None]:
        """Note that somebody is here: (whether their cookie is to be renewed, what is to be written if anything).

        Called for every request on the event loop, so the writing is left to the caller's worker thread.
        """
        moment, grant_id = now(), sha256(secret)
        mark = grant_id if person.via == "token" else person.id
        due = mark not in self._seen or self._seen[mark] < moment - SEEN
        until = self._until.get(grant_id)
        renew = person.via == "session" and until is not None and until < moment + SESSION - RENEW
        if not due and not renew:
            return False, None
        self._seen[mark] = self._seen[person.id] = moment
        if renew:
            self._until[grant_id] = moment + SESSION

        def save() -> None:
            with self.store.transaction():
                self.store.write(
                    "UPDATE account SET last_seen = ? WHERE annotator_id = ?", [moment, person.id]
                )
                if person.via == "token":
                    self.store.write("UPDATE access_token SET last_used = ? WHERE id = ?", [moment, grant_id])
                if renew:
                    until = moment + SESSION
                    self.store.write(
                        "UPDATE login_session SET expires_at = ? WHERE id = ?", [until, grant_id]
                    )

        return renew, save

    # -- accounts --------------------------------------------------------------------------------------

    def accounts(self) -> list[Account]:
        """Everybody, in the order in which they came."""
        return sorted(self._accounts.values(), key=lambda account: account.created_at)

    def account(self, annotator_id: str) -> Account:
        """One account; a UserError when there is none."""
        try:
            return self._accounts[annotator_id]
        except KeyError:
            raise Refused(404, "unknown", f"there is no account {annotator_id[:40]!r}") from None

    def find(self, name: str) -> Account | None:
        """The account with this name; capital letters make no difference."""
        wanted = " ".join(unicodedata.normalize("NFKC", name[:500]).split()).casefold()
        found = [a for a in self._accounts.values() if a.person.name.casefold() == wanted]
        return next((a for a in found if a.person.name == name), found[0] if found else None)

    def taken(self, name: str) -> bool:
        """Whether votes or an account stand under this name already: a newcomer must not inherit them."""
        known = self.store.value(
            "SELECT 1 FROM annotator WHERE kind = 'human' AND lower(name) = lower(?)", [name]
        )
        return known is not None or self.find(name) is not None

    def create(self, name: str, role: AnnotatorRole = "annotator", password: str | None = None) -> Person:
        """A new account (`password` is a hash). Its votes stand under the annotator of that name."""
        person = Person(Annotator(clean_name(name)).id, clean_name(name), role)
        account = Account(person, password, True, now())
        with self.lock:
            if self.find(person.name) is not None:
                raise Refused(409, "taken", f"the name {person.name!r} is taken; choose another one")
            with self.store.transaction():
                self.store.add_annotators([Annotator(person.name, role=role)])
                self.store.write("UPDATE annotator SET role = ? WHERE id = ?", [role, person.id])
                self.store.write(
                    "INSERT INTO account (annotator_id, password, active, created_at) VALUES (?, ?, true, ?)",
                    [person.id, password, account.created_at],
                )
            self._accounts[person.id] = account
        return person

    def set_role(self, annotator_id: str, role: AnnotatorRole) -> None:
        """Change what somebody may do."""
        with self.lock:
            account = self.account(annotator_id)
            if role != "admin":
                self._keep_an_admin(account)
            self.store.write("UPDATE annotator SET role = ? WHERE id = ?", [role, annotator_id])
            self._accounts[annotator_id] = replace(account, person=replace(account.person, role=role))

    def set_active(self, annotator_id: str, active: bool) -> None:
        """Let somebody in again, or shut them out at once: every session and token of theirs ends."""
        with self.lock:
            account = self.account(annotator_id)
            if not active:
                self._keep_an_admin(account)
            with self.store.transaction():
                self.store.write(
                    "UPDATE account SET active = ? WHERE annotator_id = ?", [active, annotator_id]
                )
                if not active:
                    self.store.write("DELETE FROM access_token WHERE annotator_id = ?", [annotator_id])
                    self.store.write("DELETE FROM login_session WHERE annotator_id = ?", [annotator_id])
            self._accounts[annotator_id] = replace(account, active=active)
            if not active:
                self._forget(self._sessions, annotator_id)
                self._forget(self._tokens, annotator_id)

    def set_password(self, annotator_id: str, password: str) -> None:
        """A new password (its hash). Every session ends; the caller opens one for whoever is here."""
        with self.lock:
            account = self.account(annotator_id)
            with self.store.transaction():
                self.store.write(
                    "UPDATE account SET password = ? WHERE annotator_id = ?", [password, annotator_id]
                )
                self.store.write("DELETE FROM login_session WHERE annotator_id = ?", [annotator_id])
            self._accounts[annotator_id] = replace(account, password=password)
            self._forget(self._sessions, annotator_id)

    def _keep_an_admin(self, account: Account) -> None:
        person = account.person
        others = [
            a for a in self._accounts.values() if a.active and a.person.role == "admin" and a != account
        ]
        if person.role == "admin" and account.active and not others:
            raise Refused(
                409, "last_admin", f"{person.name} is the last admin; make somebody else admin first"
            )

    def admin_with_password(self) -> bool:
        """Whether some admin can log in without a link."""
        return any(a.active and a.person.role == "admin" and a.password for a in self._accounts.values())

    def last_seen(self, mark: str) -> datetime | None:
        """When a person (or a token, by its id) was last here, to about five minutes."""
        return self._seen.get(mark)

    # -- sessions and tokens ---------------------------------------------------------------------------

    def open_session(self, annotator_id: str) -> str:
        """A new session; returns the secret for the cookie."""
        secret, moment = secrets.token_urlsafe(32), now()
        grant = Grant(sha256(secret), annotator_id, moment, moment + SESSION)
        with self.lock:
            self.store.write(
                "INSERT INTO login_session (id, annotator_id, created_at, expires_at) VALUES (?, ?, ?, ?)",
                [grant.id, annotator_id, moment, grant.expires_at],
            )
            self._sessions[grant.id], self._until[grant.id] = grant, grant.expires_at
        return secret

    def close_session(self, secret: str) -> None:
        """Log one browser out."""
        with self.lock:
            self.store.write("DELETE FROM login_session WHERE id = ?", [sha256(secret)])
            self._sessions.pop(sha256(secret), None)

    def close_sessions(self, annotator_id: str) -> None:
        """Log somebody out everywhere."""
        with self.lock:
            self.store.write("DELETE FROM login_session WHERE annotator_id = ?", [annotator_id])
            self._forget(self._sessions, annotator_id)

    def tokens(self, annotator_id: str) -> list[Grant]:
        """Somebody's tokens, oldest first; those that have expired too, so that one sees why a script stopped."""
        mine = [grant for grant in self._tokens.values() if grant.annotator_id == annotator_id]
        return sorted(mine, key=lambda grant: grant.created_at)

    def make_token(
        self, annotator_id: str, name: str, expires_at: datetime | None = None
    ) -> tuple[str, Grant]:
        """A new token for scripts: (the token, which is never known again; what is kept of it)."""
        token = TOKEN + secrets.token_urlsafe(32)
        grant = Grant(sha256(token), annotator_id, now(), expires_at, clean_name(name))
        with self.lock:
            self.store.write(
                "INSERT INTO access_token (id, annotator_id, name, created_at, expires_at) "
                "VALUES (?, ?, ?, ?, ?)",
                [grant.id, annotator_id, grant.name, grant.created_at, expires_at],
            )
            self._tokens[grant.id], self._until[grant.id] = grant, expires_at
        return token, grant

    def revoke_token(self, annotator_id: str, token_id: str) -> None:
        """End one of somebody's own tokens, named by the first 16 or more digits of its id."""
        with self.lock:
            for grant in self.tokens(annotator_id):
                if len(token_id) >= 16 and grant.id.startswith(token_id):
                    self.store.write("DELETE FROM access_token WHERE id = ?", [grant.id])
                    del self._tokens[grant.id]
                    return
        raise Refused(404, "unknown", f"you have no token {token_id[:40]!r}")

    @staticmethod
    def _forget(grants: dict[str, Grant], annotator_id: str) -> None:
        for id in [grant.id for grant in grants.values() if grant.annotator_id == annotator_id]:
            del grants[id]
