"""An annotator over real HTTP, as the ranking page behaves: asks, votes, sends again what got no answer.

    tokens = add_people(store, ["anna", "ben"])          # before the server owns the database
    with Page(server.url, tokens["anna"]) as anna:
        while anna.step() != "idle":
            ...
    assert set(anna.acknowledged) == {row["id"] for row in store.rows("SELECT id FROM vote")}

A `Page` is for one thread. `httpx.TransportError` (server gone) passes through; the ballot that was on its way stays in
`unsent`, and the next `step` sends the same ballot again, under the same vote id.
"""

import random
import ssl
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from palate.data.records import AnnotatorRole
from palate.data.store import Store
from palate.labeling.people import People

Ballot = dict[str, Any]
TLS = ssl.create_default_context()  # a client without one makes its own, which takes 20 ms
GONE = {"filled", "answered", "not_yours", "lost", "withheld"}  # 409: this item is no longer this page's
AGAIN = {
    "slow_down",
    "disk_full",
    "unavailable",
}  # 429 and 503: nothing was stored, the same ballot may come again


def add_people(store: Store, names: Sequence[str], role: AnnotatorRole = "annotator") -> dict[str, str]:
    """Accounts with a personal token each: token by name."""
    people = People(store)
    return {name: people.make_token(people.create(name, role).id, "test")[0] for name in names}


class Refused(Exception):
    """The server's answer was an error; `code` as in its JSON."""

    def __init__(self, response: httpx.Response) -> None:
        try:
            error = response.json()["error"]
        except (ValueError, KeyError, TypeError):
            error = {"code": "no_json", "message": response.text[:500]}
        self.status, self.code, self.message = response.status_code, error["code"], error["message"]
        super().__init__(f"{self.status} {self.code}: {self.message}")


class Page:
    """One annotator's page."""

    def __init__(self, url: str, token: str, seed: int = 0, timeout: float = 30.0) -> None:
        self.url, self.token, self.timeout = url, token, timeout
        self.http = self._client()
        self.rng = random.Random(seed)
        self.items: list[dict[str, Any]] = []  # held, the first is to be answered now
        self.unsent: Ballot | None = None  # on its way, without an answer so far
        self.acknowledged: dict[str, str] = {}  # vote id -> assignment, for every "saved" that came back
        self.shown: list[str] = []  # every assignment that came first, in order
        self.refusals: list[str] = []  # codes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON answer; raises Refused."""
        response = self.http.post(f"/api/v1/{path}", json=body)
        if response.status_code != 200:
            raise Refused(response)
        found: dict[str, Any] = response.json()
        return found

    def ask(self) -> list[dict[str, Any]]:
        """The items this annotator holds now; empty when there is nothing for them."""
        return self._take(self.post("next", {"have": self._have()}))

    def ballot(self, item: dict[str, Any]) -> Ballot:
        """A valid answer to an item, drawn at random, as the page would send it."""
        letters = [answer["letter"] for answer in item["answers"]]
        self.rng.shuffle(letters)
        verdict = self.rng.choice(("ranked", "ranked", "ranked", "tie", "all_bad"))
        two = verdict == "ranked" and len(letters) == 2
        return {
            "vote_id": str(uuid.UUID(int=self.rng.getrandbits(128), version=4)),
            "assignment": item["assignment"],
            "verdict": verdict,
            "ranking": {"ranked": [[x] for x in letters], "tie": [sorted(letters)], "all_bad": []}[verdict],
            "strength": self.rng.randint(1, 3) if two else None,
            "reason": None,
            "flags": [],
            "criteria": {},
            "rationale": None,
            "edit": None,
            "seconds_visible": 4.0,
            "seconds_active": 3.0,
            "guideline_version": None,
            "have": [one["assignment"] for one in self.items if one is not item],
        }

    def send(self, ballot: Ballot) -> str:
        """Send a ballot; returns the vote's id. Raises Refused, or TransportError with the ballot still in `unsent`."""
        self.unsent = ballot
        try:
            answer = self.post("votes", ballot)
        except Refused as refusal:
            self.refusals.append(refusal.code)
            if refusal.code not in AGAIN:
                self.unsent = None
                self.items = [one for one in self.items if one["assignment"] != ballot["assignment"]]
            raise
        self.unsent = None
        self.acknowledged[answer["saved"]] = ballot["assignment"]
        self.items = [one for one in self.items if one["assignment"] != ballot["assignment"]]
        self._take(answer)
        return str(answer["saved"])

    def step(self) -> str:
        """What the page does next: the unsent ballot again, else an answer to the first item, else a question.

        "voted", "gone" (others filled the item), "wait" (the server stores nothing now) or "idle" (no item).
        """
        if self.unsent is None and not self.items and not self.ask():
            return "idle"
        try:
            self.send(self.unsent or self.ballot(self.items[0]))
        except Refused as refusal:
            if refusal.code in AGAIN:
                return "wait"
            if refusal.code in GONE:
                return "gone"
            raise
        return "voted"

    def heartbeat(self) -> list[str]:
        """Tell the server that the page lives; returns the assignments that are lost, and forgets them."""
        lost: list[str] = self.post("heartbeat", {"assignments": self._have()})["lost"]
        self.items = [one for one in self.items if one["assignment"] not in lost]
        return lost

    def vanish(self) -> None:
        """The tab is closed without a word: what it held and was sending is forgotten here, not given back there."""
        self.items, self.unsent = [], None
        self.http.close()
        self.http = self._client()

    def move(self, url: str) -> None:
        """The server is at another address now; what the page holds stays."""
        self.url = url
        self.http.close()
        self.http = self._client()

    def _client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(
            base_url=self.url, headers=headers, timeout=self.timeout, trust_env=False, verify=TLS
        )

    def _have(self) -> list[str]:
        return [item["assignment"] for item in self.items]

    def _take(self, answer: dict[str, Any]) -> list[dict[str, Any]]:
        known = {item["assignment"]: item for item in self.items}
        self.items = [known.get(item["assignment"], item) for item in answer["items"]]
        if self.items:
            self.shown.append(self.items[0]["assignment"])
        return self.items
