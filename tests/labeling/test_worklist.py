"""The queue against a plain model of it: slots, leases, priorities, counts, whatever happens in whatever order."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from palate.labeling.worklist import Queue, Work

PEOPLE = ("anna", "ben", "cleo", "dan")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["claim", "answer", "skip", "fail", "release", "wait", "shut", "renew", "remove"]),
        st.sampled_from(PEOPLE),
        st.integers(0, 10**6),
    ),
    max_size=60,
)


def consistent(queue: Queue, works: list[Work], now: float) -> None:
    """What the queue counts is what its works say."""
    queue.expire(now)
    waiting = [w for w in works if w.id in queue and w.taken < w.overlap and w.reserved_for is None]
    assert queue.waiting == len(waiting)
    for person in PEOPLE:
        mine = [w for w in works if w.reserved_for == person and w.id in queue and w.taken < w.overlap]
        open_ = [w for w in [*waiting, *mine] if not w.closed_to(person)]
        assert queue.left(person) == len(open_)
    assert queue.leased == sum(len(w.leases or ()) for w in works if w.id in queue)
    assert all(len(w.leases or ()) + w.answers <= w.overlap for w in works if w.id in queue)
    assert all(until > now for w in works if w.id in queue for until in (w.leases or {}).values())


@settings(max_examples=200, deadline=None)
@given(STEPS, st.integers(1, 3), st.integers(0, 10**6))
def test_any_sequence_keeps_the_books(steps: list[tuple[str, str, int]], overlap: int, seed: int) -> None:
    rng = random.Random(seed)
    works = [Work(f"w{i}", priority=i % 2, overlap=overlap, authors=frozenset(PEOPLE[:1]) if i == 3 else frozenset())
             for i in range(6)]  # fmt: skip
    works.append(Work("mine", reserved_for="ben"))
    queue, now = Queue(works), 1000.0
    for name, person, number in steps:
        held = [w for w in works if w.leases and person in w.leases and w.id in queue]
        work = held[number % len(held)] if held else None
        if name == "wait":
            now += number % 40
        elif name == "claim":
            expected = [w for w in works if w.id in queue and w.reserved_for in (None, person)]
            queue.expire(now)
            expected = [w for w in expected if w.taken < w.overlap and not w.closed_to(person)]
            got = queue.claim(person, rng, now, now + 30)
            assert (got is None) == (not expected)
            if got is not None:
                assert got in expected
                if got.reserved_for is None:
                    assert got.priority == max(w.priority for w in expected if w.reserved_for is None)
        elif work is None:
            continue
        elif name in ("answer", "skip"):
            queue.answered(work, person, counts=name == "answer")
        elif name == "fail":
            queue.answered(work, person, counts=True)
            queue.unanswered(work, person, counts=True, until=now + 30)
        elif name == "release":
            queue.release(work, person)
        elif name == "shut":
            queue.shut(work, person)
        elif name == "renew":
            queue.expire(now)
            free = (work.leases and person in work.leases) or work.taken < work.overlap
            assert queue.renew(work, person, now, now + 30) == bool(free)
        elif name == "remove":
            queue.remove(work)
        consistent(queue, works, now)


def test_begun_works_come_first_and_priority_before_that() -> None:
    works = [Work(f"w{i}", overlap=2) for i in range(50)] + [Work("urgent", priority=3, overlap=2)]
    queue, rng = Queue(works), random.Random(0)
    first = queue.claim("anna", rng, 0.0, 60.0)
    assert first is not None
    assert first.id == "urgent"
    begun = queue.claim("anna", rng, 0.0, 60.0)
    assert begun is not None
    assert [w.id for w in (queue.claim("ben", rng, 0.0, 60.0), queue.claim("ben", rng, 0.0, 60.0)) if w] == [
        "urgent",
        begun.id,
    ]


def test_someone_who_has_seen_nearly_all_still_finds_the_rest() -> None:
    works = [Work(f"w{i}", seen={"anna"}) for i in range(5000)]
    works[17].seen = None
    queue = Queue(works)
    assert queue.left("anna") == 1
    assert queue.claim("anna", random.Random(0), 0.0, 1.0) is works[17]
    assert queue.claim("anna", random.Random(0), 0.5, 1.0) is None


def test_draws_are_spread() -> None:
    queue, rng = Queue(Work(f"w{i}") for i in range(64)), random.Random(1)
    drawn = [queue.claim(f"p{i}", rng, 0.0, 9.0) for i in range(64)]
    assert len({w.id for w in drawn if w}) == 64
    assert [w.id for w in drawn if w] != [f"w{i}" for i in range(64)]
