"""Invitations: links that make accounts, and links by which somebody sets a new password.

A link's secret is shown once, to whoever makes it; only its SHA-256 is kept. A link is worth what its maker may
give at the moment it is used: disable or demote them, and their links are void.
"""

import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from palate.data.records import AnnotatorRole
from palate.data.store import now
from palate.labeling.credentials import sha256
from palate.labeling.people import People, Person, Refused, clean_name

DAYS = (1, 365)  # how long a link may be good
USES = (1, 1000)  # how many accounts one link may make


@dataclass(frozen=True)
class Invitation:
    """A link that is out."""

    id: str  # SHA-256 of its secret
    role: AnnotatorRole | Literal["password"]  # "password": `name` has an account and sets a new password
    name: str | None  # a name that can't be changed; None: the invited person chooses
    created_by: str | None
    created_at: datetime
    expires_at: datetime
    uses_left: int


class Invitations:
    """The links of one project; in memory and in the table `invitation`, like `People`."""

    def __init__(self, people: People) -> None:
        self._people, self._store = people, people.store
        self._lock = people.lock  # one lock for both: using a link changes accounts
        self._store.write("DELETE FROM invitation WHERE expires_at < ? OR uses_left < 1", [now()])
        names = ("id", "role", "name", "created_by", "created_at", "expires_at", "uses_left")
        rows = self._store.rows("SELECT * FROM invitation")
        self._links = {row["id"]: Invitation(*(row[name] for name in names)) for row in rows}

    def open(self) -> list[Invitation]:
        """The links that still work, the latest first."""
        good = [link for link in self._links.values() if self._good(link)]
        return sorted(good, key=lambda link: link.created_at, reverse=True)

    def invite(
        self, by: Person, role: AnnotatorRole = "annotator", name: str = "", uses: int = 1, days: int = 7
    ) -> tuple[str, Invitation]:
        """A link for new people: (its secret, what is kept of it). Leads invite annotators, admins anybody."""
        _may_give(by, role)
        fixed = clean_name(name) if name.strip() else None
        if not USES[0] <= uses <= USES[1] or (fixed and uses > 1):
            raise Refused(
                400, "invalid", f"a link makes {USES[0]} to {USES[1]} accounts, with a fixed name only one"
            )
        if fixed and self._people.find(fixed):
            raise Refused(409, "taken", f"the name {fixed!r} is taken; choose another one")
        return self._make(by, role, fixed, uses, days)

    def for_password(self, by: Person, annotator_id: str, days: int = 2) -> tuple[str, Invitation]:
        """A link by which somebody who has an account sets a new password. Admins only; earlier ones end."""
        _may_give(by, "admin")
        name = self._people.account(annotator_id).person.name
        for link in [link for link in self.open() if link.role == "password" and link.name == name]:
            self.revoke(by, link.id)
        return self._make(by, "password", name, 1, days)

    def find(self, code: str) -> Invitation | None:
        """The invitation that a link's secret stands for, if it still works."""
        link = self._links.get(sha256(code))
        return link if link is not None and self._good(link) else None

    def accept(self, code: str, name: str, password: str) -> Person:
        """Use a link: a new account, or a new password (`password` is a hash). One use less, at once."""
        with self._lock:
            link = self.find(code)
            if link is None:
                raise Refused(403, "used", "this link was used, taken back or is too old; ask for a new one")
            # the account first: should the process die in between, the link works once more, and nobody is lost
            person = self._use(link, name, password)
            left = replace(link, uses_left=link.uses_left - 1)
            self._store.write("UPDATE invitation SET uses_left = ? WHERE id = ?", [left.uses_left, link.id])
            self._links[link.id] = left
        return person

    def _use(self, link: Invitation, name: str, password: str) -> Person:
        if link.role == "password":
            account = self._people.find(link.name or "")
            if account is None or not account.active:
                raise Refused(403, "used", "this account is gone or disabled; ask whoever sent the link")
            self._people.set_password(account.person.id, password)
            return account.person
        if link.name is None and self._people.taken(clean_name(name)):
            raise Refused(409, "taken", f"the name {clean_name(name)!r} is taken; choose another one")
        return self._people.create(link.name or name, link.role, password)

    def revoke(self, by: Person, link_id: str) -> None:
        """Take a link back, named by the first 16 or more digits of its id."""
        with self._lock:
            for link in self.open():
                if len(link_id) >= 16 and link.id.startswith(link_id):
                    _may_give(by, "admin" if link.role == "password" else link.role)
                    self._store.write("DELETE FROM invitation WHERE id = ?", [link.id])
                    del self._links[link.id]
                    return
        raise Refused(404, "unknown", f"there is no open invitation {link_id[:40]!r}; reload the page")

    def _make(
        self, by: Person, role: AnnotatorRole | Literal["password"], name: str | None, uses: int, days: int
    ) -> tuple[str, Invitation]:
        if not DAYS[0] <= days <= DAYS[1]:
            raise Refused(400, "invalid", f"a link is good for {DAYS[0]} to {DAYS[1]} days, got {days}")
        if (
            self._people.person(by.id) is None
        ):  # a command on this machine is nobody a link could be traced to
            raise Refused(403, "forbidden", "links are made by people who have an account")
        code, moment = secrets.token_urlsafe(32), now()
        link = Invitation(sha256(code), role, name, by.id, moment, moment + timedelta(days=days), uses)
        with self._lock:
            self._store.write(
                "INSERT INTO invitation (id, role, name, created_by, created_at, expires_at, uses_left) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                [link.id, role, name, by.id, moment, link.expires_at, uses],
            )
            self._links[link.id] = link
        return code, link

    def _good(self, link: Invitation) -> bool:
        maker = self._people.person(link.created_by)
        needed = _needed("admin" if link.role == "password" else link.role)
        return link.uses_left > 0 and link.expires_at > now() and maker is not None and maker.may(needed)


def _needed(role: AnnotatorRole) -> AnnotatorRole:
    """The role it takes to hand `role` out."""
    return "lead" if role == "annotator" else "admin"


def _may_give(by: Person, role: AnnotatorRole) -> None:
    """Refuse whoever may not hand `role` out."""
    if not by.may(_needed(role)):
        raise Refused(403, "forbidden", f"this takes the role {_needed(role)}; {by.name} is {by.role}")
