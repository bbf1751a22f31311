"""The figures behind Review: computed once for all who ask, shown again while they are young, never in anybody's way."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from palate.config import UserError
from palate.data.facts import Facts
from palate.data.records import Assignment, Comparison, Vote
from palate.data.store import Store
from palate.labeling import review_service
from palate.labeling.desk import annotator
from palate.labeling.review_service import Review
from tests.labeling.conftest import fill

PATIENCE = 30


@pytest.fixture
def review(store: Store) -> Iterator[Review]:
    opened = Review(store)
    yield opened
    opened.close()


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are young for a moment only."""
    monkeypatch.setattr(review_service, "YOUNG", 0.05)
    monkeypatch.setattr(review_service, "REST", 0)


def vote(store: Store, comparison: Comparison, name: str = "anna") -> None:
    seat = Assignment(comparison.id, annotator(store, name).id, comparison.completion_ids)
    store.add_assignments([seat])
    store.add_votes([Vote(seat.id, "tie", (comparison.completion_ids,))])


class Count:
    """Counts votes, and how often it was asked to; waits when told to."""

    def __init__(self) -> None:
        self.times, self.go = 0, threading.Event()
        self.go.set()

    def __call__(self, facts: Facts) -> Any:
        self.times += 1
        assert self.go.wait(PATIENCE)
        return facts.value("SELECT count(*) FROM ballot")


def test_two_who_ask_at_once_wait_for_one_computation(review: Review, store: Store) -> None:
    count = Count()
    count.go.clear()
    asked = [review.quick(("votes",), count) for _ in range(3)]
    count.go.set()
    assert [one.result(PATIENCE).shown for one in asked] == [0, 0, 0]
    assert count.times == 1


def test_an_answer_is_shown_again_while_it_is_young(review: Review, store: Store) -> None:
    count, comparisons = Count(), fill(store)
    assert review.quick(("votes",), count).result(PATIENCE).shown == 0
    vote(store, comparisons[0])
    assert review.quick(("votes",), count).result(0).shown == 0
    assert count.times == 1


def test_a_vote_is_seen_once_the_answer_is_old(review: Review, store: Store, briefly: None) -> None:
    count, comparisons = Count(), fill(store)
    assert review.quick(("votes",), count).result(PATIENCE).shown == 0
    time.sleep(0.1)
    assert review.quick(("votes",), count).result(PATIENCE).shown == 0
    assert count.times == 1  # looked, and nothing had changed
    vote(store, comparisons[0])
    time.sleep(0.1)
    assert review.quick(("votes",), count).result(PATIENCE).shown == 1
    assert count.times == 2


def test_after_long_computing_the_votes_stay_as_they_are_for_longer(
    review: Review, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review_service, "YOUNG", 0.0)

    def slow(facts: Facts) -> Any:
        time.sleep(0.3)
        return facts.value("SELECT count(*) FROM ballot")

    comparisons = fill(store)
    assert review.quick(("slow",), slow).result(PATIENCE).shown == 0
    vote(store, comparisons[0])
    assert review.quick(("other",), Count()).result(PATIENCE).shown == 0  # 3 s have not passed
    monkeypatch.setattr(review_service, "REST", 0)
    assert review.quick(("third",), Count()).result(PATIENCE).shown == 1


def test_what_takes_longer_is_in_nobodys_way_and_keeps_its_votes(
    review: Review, store: Store, briefly: None
) -> None:
    slow, quick, comparisons = Count(), Count(), fill(store)
    slow.go.clear()
    asked = review.slow(("slow",), slow)
    while not slow.times:
        time.sleep(0.01)
    vote(store, comparisons[0])
    time.sleep(0.1)
    assert (
        review.quick(("quick",), quick).result(PATIENCE).shown == 0
    )  # the facts wait for who is reading them
    slow.go.set()
    assert asked.result(PATIENCE).shown == 0
    time.sleep(0.1)
    assert review.quick(("quick",), quick).result(PATIENCE).shown == 1


def test_a_failure_is_told_and_tried_again(
    review: Review, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(facts: Facts) -> Any:
        raise ZeroDivisionError("no votes")

    def refused(facts: Facts) -> Any:
        raise UserError("there is no such source")

    with pytest.raises(ZeroDivisionError):
        review.quick(("a",), broken).result(PATIENCE)
    assert "review can't compute ('a',)" in caplog.text
    caplog.clear()
    with pytest.raises(UserError):
        review.quick(("a",), refused).result(PATIENCE)
    assert not caplog.records
    assert review.quick(("a",), lambda facts: 7).result(PATIENCE).shown == 7


def test_only_the_latest_answers_are_kept(
    review: Review, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review_service, "KEPT", 2)
    count = Count()
    for key in ("a", "b", "c", "a"):
        review.quick((key,), count).result(PATIENCE)
    assert count.times == 4


def test_it_closes_while_it_computes(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    review, count = Review(store), Count()
    count.go.clear()
    asked = review.quick(("a",), count)
    while not count.times:
        time.sleep(0.01)
    waiting = review.quick(("b",), count)
    start = time.monotonic()
    review.close()
    assert time.monotonic() - start < 5
    count.go.set()
    with pytest.raises(Exception, match=r"(?i)closed"):
        asked.result(PATIENCE)
    assert waiting.cancelled() and not caplog.records


def test_nobody_asks_and_no_facts_are_made(store: Store) -> None:
    review = Review(store)
    review.warm_up()
    review.close()
    assert not store.path.with_name("statistics.duckdb").exists()
