"""Many annotators at once over real HTTP, who vanish, resend, come late and race: nothing is lost, nothing is over."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from palate.project import Project
from tests.labeling.annotator_client import Page, Refused, add_people
from tests.labeling.conftest import Server, fill

pytestmark = pytest.mark.slow
Serve = Callable[..., Server]
CROWD, ITEMS, OVERLAP = 25, 200, 3
LEASE = 3.0  # seconds; --lease-minutes 0.05
NAMES = [f"annotator {i}" for i in range(CROWD)]

STANDING = (
    "SELECT comparison_id, annotator_id, count(*) AS n FROM current_vote WHERE verdict <> 'skip' GROUP BY ALL"
)


class Member(Page):
    """An annotator of the crowd, who does what people and their networks do."""

    sent: set[str]

    def live(self, stop: threading.Event) -> "Member":
        """Until everything is answered."""
        self.sent = set()
        while not stop.is_set():
            time.sleep(self.rng.uniform(0, 0.04))
            chosen = self.rng.choices(
                (self.vote, self.leave, self.lose_the_answer, self.repeat, self.come_late), (80, 5, 6, 6, 2)
            )[0]
            if self.unsent is not None:
                chosen = self.vote  # what is on its way comes first, as in the page
            if not self.unsent and not self.items and not self.ask():
                stop.wait(0.3)  # others hold what is left, or all is done
                continue
            chosen()
        return self

    def send(self, ballot: dict[str, Any]) -> str:
        """As a page does, and remember what was sent."""
        self.sent.add(ballot["vote_id"])
        return super().send(ballot)

    def vote(self) -> None:
        """An answer, or the unsent one again."""
        assert self.step() in ("voted", "gone")

    def leave(self) -> None:
        """Claimed, and gone without a word."""
        self.vanish()

    def lose_the_answer(self) -> None:
        """The connection breaks while the server stores the vote; the page sends it again later."""
        ballot = self.ballot(self.items[0])
        self.sent.add(ballot["vote_id"])
        self.unsent = ballot
        try:
            self.http.post("/api/v1/votes", json=ballot, timeout=httpx.Timeout(5, read=0.002))
        except httpx.TimeoutException:
            return

    def repeat(self) -> None:
        """The same ballot twice is one vote."""
        ballot = self.ballot(self.items[0])
        try:
            first = self.send(ballot)
        except Refused:
            return
        assert self.send(ballot) == first

    def come_late(self) -> None:
        """Vote after the lease has ended: stored when there is still a slot, refused when others filled it."""
        item = self.items[0]
        time.sleep(LEASE + self.rng.uniform(0.1, 0.5))
        try:
            self.send(self.ballot(item))
        except Refused as refusal:
            assert refusal.code == "filled", refusal


def test_a_crowd_ends_with_three_votes_of_different_people_on_every_item(
    project: Project, serve: Serve
) -> None:
    with project.own_store() as store:
        fill(store, ITEMS, overlap=OVERLAP)
        tokens = add_people(store, NAMES)
    server = serve(project.folder, "--lease-minutes", str(LEASE / 60))
    stop = threading.Event()
    crowd = [Member(server.url, tokens[name], seed) for seed, name in enumerate(NAMES)]
    with ThreadPoolExecutor(CROWD) as pool:
        lives = [pool.submit(member.live, stop) for member in crowd]
        limit = time.monotonic() + 90
        while (
            sum(len(member.acknowledged) for member in crowd) < ITEMS * OVERLAP and time.monotonic() < limit
        ):
            assert not [life.exception() for life in lives if life.done()]
            time.sleep(0.2)
        time.sleep(LEASE)  # whoever comes late is refused now
        stop.set()
        for life in lives:
            life.result()
    server.stop()
    with project.own_store() as store:
        rows = store.rows(STANDING)
        stored = {row["id"]: row["annotator_id"] for row in store.rows("SELECT * FROM current_vote")}
        votes = store.value("SELECT count(*) FROM vote")
    assert {row["n"] for row in rows} == {1}  # nobody answered an item twice
    assert Counter(Counter(row["comparison_id"] for row in rows).values()) == {OVERLAP: ITEMS}
    assert votes == len(stored) == ITEMS * OVERLAP
    acknowledged = [vote for member in crowd for vote in member.acknowledged]
    assert len(acknowledged) == len(set(acknowledged))
    assert set(acknowledged) <= set(stored) <= {vote for member in crowd for vote in member.sent}


def test_after_a_restart_nobody_is_shown_what_they_have_answered(project: Project, serve: Serve) -> None:
    people, items = NAMES[:5], 20
    with project.own_store() as store:
        fill(store, items, overlap=len(people))
        tokens = add_people(store, people)
    server = serve(project.folder)
    pages = [Page(server.url, tokens[name], seed) for seed, name in enumerate(people)]
    for number, page in enumerate(pages):
        for _ in range(8 + number):
            assert page.step() == "voted"
        page.ask()  # everybody holds an item when the server ends
    answered = [set(page.acknowledged.values()) for page in pages]
    held = [[item["assignment"] for item in page.items] for page in pages]
    shown = [
        {item["assignment"]: [a["text"] for a in item["answers"]] for item in page.items} for page in pages
    ]
    server.stop()
    again = serve(project.folder)
    for page, before, mine, texts in zip(pages, answered, held, shown, strict=True):
        page.vanish()
        page.move(again.url)
        page.shown = []
        page.ask()
        first = page.items[0]
        assert first["assignment"] == mine[0]  # they go on where they were
        assert [answer["text"] for answer in first["answers"]] == texts[mine[0]]  # in the order already drawn
        while page.step() == "voted":
            pass
        assert not before & set(page.shown)
        assert len(page.acknowledged) == len(set(page.acknowledged.values())) == items


def test_the_last_slot_goes_to_one(project: Project, serve: Serve) -> None:
    slots = 8
    with project.own_store() as store:
        fill(store, slots)
        tokens = add_people(store, NAMES)
    server = serve(project.folder, "--lease-minutes", "0.02")
    pages = [Page(server.url, tokens[name], seed) for seed, name in enumerate(NAMES)]
    together = threading.Barrier(CROWD)

    def ask(page: Page) -> int:
        together.wait()
        return len(page.ask())

    def answer(page: Page) -> str:
        ballot = page.ballot(page.items[0]) if page.items else None
        together.wait()
        try:
            return "saved" if ballot and page.send(ballot) else "nothing"
        except Refused as refusal:
            return str(refusal.code)

    with ThreadPoolExecutor(CROWD) as pool:
        assert sum(pool.map(ask, pages)) == slots
        first = [page for page in pages if page.items]
        time.sleep(1.5)  # 0.02 minutes: every lease ends, and every item is offered to somebody else
        later = [page for page in pages if page not in first]
        for page in later:
            page.ask()
        assert sum(len(page.items) for page in later) == slots
        said = Counter(pool.map(answer, random.Random(0).sample(pages, CROWD)))
        for page in pages:  # those who held two answer the second one
            while page.items and page.step():
                pass
    server.stop()
    assert set(said) <= {"saved", "filled", "nothing"} and said["filled"]
    with project.own_store() as store:
        assert store.rows("SELECT count(*) AS n, count(DISTINCT comparison_id) AS c FROM current_vote") == [
            {"n": slots, "c": slots}
        ]
