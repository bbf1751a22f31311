"""Which comparison waits for whom: the queue in memory. It knows nothing of the database, of HTTP or of texts.

Every claim is one step under the caller's lock, so two people never get the last slot both. A slot is taken by
an answer, or by a lease that has not run out by the clock; a lease that runs out frees its slot by itself.
Works that wait stand in buckets by (priority, slots taken): the highest priority first, then those that others
have begun, so that agreement is known early.
"""

import heapq
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

WINDOW = 128  # works at a bucket's end among which one is drawn: few enough that their texts stay at hand


@dataclass(slots=True, eq=False)
class Work:
    """A comparison that awaits answers."""

    id: str
    priority: int = 0
    overlap: int = 1
    answers: int = 0  # standing votes but skips
    seen: set[str] | None = None  # annotators who are not asked (again): answered, skipped, came too late
    authors: frozenset[str] = frozenset()  # who wrote one of the answers
    leases: dict[str, float] | None = None  # annotator -> when the lease runs out (seconds since the epoch)
    reserved_for: str | None = None
    bucket: tuple[int, int] | None = field(default=None, repr=False)  # where it stands while it waits
    place: int = -1

    @property
    def taken(self) -> int:
        """Slots that are answered or being answered."""
        return self.answers + len(self.leases or ())

    def closed_to(self, person: str) -> bool:
        """Whether this annotator is not asked: has answered, is answering, or wrote one of the texts."""
        return (
            (self.seen is not None and person in self.seen)
            or (self.leases is not None and person in self.leases)
            or person in self.authors
        )


class Queue:
    """All works that are not finished, and who holds what. Not thread-safe: its owner locks."""

    def __init__(self, works: Iterable[Work] = ()) -> None:
        self._works: dict[str, Work] = {}
        self._buckets: dict[tuple[int, int], list[Work]] = {}
        self._reserved: dict[str, list[Work]] = {}
        self._expiry: list[tuple[float, str, str]] = []  # heap of (when, work, annotator)
        self._shut: Counter[str] = Counter()  # annotator -> waiting works that are closed to them
        self.waiting = 0  # works with a free slot
        self.leased = 0  # leases that run
        for work in works:
            self.add(work)

    def __contains__(self, work_id: str) -> bool:
        return work_id in self._works

    def get(self, work_id: str) -> Work | None:
        """The work of this comparison, if it is not finished."""
        return self._works.get(work_id)

    def add(self, work: Work) -> None:
        """A new work, or one that has a free slot again."""
        self._works[work.id] = work
        for person, until in (work.leases or {}).items():
            heapq.heappush(self._expiry, (until, work.id, person))
            self.leased += 1
        if work.reserved_for is not None:
            self._reserved.setdefault(work.reserved_for, []).append(work)
        else:
            self._settle(work)

    def running(self, now: float) -> dict[tuple[str, str], float]:
        """When the leases end that have not run out, by (work, annotator)."""
        self.expire(now)
        return {
            (work.id, person): until
            for work in self._works.values()
            for person, until in (work.leases or {}).items()
        }

    def prioritise(self, work_id: str, priority: int) -> None:
        """Move a work to where its new priority belongs."""
        work = self._works.get(work_id)
        if work is not None:
            self._leave(work)
            work.priority = priority
            self._settle(work)

    def remove(self, work: Work) -> None:
        """Take a work out: it is withheld, or finished."""
        if self._works.pop(work.id, None) is not None:
            self.leased -= len(work.leases or ())
        if work.reserved_for is not None:
            mine = self._reserved.get(work.reserved_for, [])
            self._reserved[work.reserved_for] = [w for w in mine if w is not work]
        self._leave(work)

    def claim(
        self, person: str, rng: random.Random, now: float, until: float, preferred: Sequence[str] = ()
    ) -> Work | None:
        """The next work for this annotator, leased until `until`; None when nothing is open for them.

        Among works that nobody has begun the first of `preferred` is taken that is open to them; priorities, and works
        that others have begun, come before.
        """
        self.expire(now)
        work = self._for(person, rng, preferred)
        if work is not None:
            self._lease(work, person, until)
        return work

    def renew(self, work: Work, person: str, now: float, until: float) -> bool:
        """Prolong a lease, or take it again after it ran out when a slot is still free; whether it is held now."""
        self.expire(now)
        if (work.leases is None or person not in work.leases) and work.taken >= work.overlap:
            return False
        self._lease(work, person, until)
        return True

    def release(self, work: Work, person: str) -> None:
        """Give a lease back."""
        self._leave(work)
        self._give_back(work, person)
        self._settle(work)

    def answered(self, work: Work, person: str, counts: bool) -> None:
        """The annotator has answered (a skip does not count); their lease ends and they are not asked again."""
        self._leave(work)
        self._give_back(work, person)
        work.seen = work.seen or set()
        work.seen.add(person)
        work.answers += counts
        self._settle(work)

    def unanswered(self, work: Work, person: str, counts: bool, until: float) -> None:
        """Undo `answered`: the vote could not be stored. The annotator holds the lease again."""
        self._leave(work)
        work.answers -= counts
        (work.seen or set()).discard(person)
        self._lease(work, person, until)

    def recount(self, work: Work, change: int) -> None:
        """A standing vote was changed from a skip to an answer (+1) or back (-1)."""
        self._leave(work)
        work.answers += change
        self._settle(work)

    def shut(self, work: Work, person: str) -> None:
        """The annotator is not asked about this work (again)."""
        self.answered(work, person, counts=False)

    def upcoming(self, person: str, limit: int) -> list[Work]:
        """Works that this annotator will probably draw soon: what is open to them, nearest to where they draw."""
        open_to = (
            work
            for key in sorted(self._buckets)
            for work in reversed(self._buckets[key])
            if not work.closed_to(person)
        )
        return list(islice(open_to, limit))

    def left(self, person: str) -> int:
        """Works that wait for this annotator."""
        return self.waiting - self._shut[person] + len(self._open_reserved(person))

    def expire(self, now: float) -> None:
        """Free the slots whose lease has run out by the clock."""
        while self._expiry and self._expiry[0][0] <= now:
            _, work_id, person = heapq.heappop(self._expiry)
            work = self._works.get(work_id)
            until = work.leases.get(person) if work is not None and work.leases else None
            if work is None or until is None:
                continue
            if until > now:  # prolonged meanwhile
                heapq.heappush(self._expiry, (until, work_id, person))
                continue
            self.release(work, person)

    # -- inside ------------------------------------------------------------------------------------------

    def _for(self, person: str, rng: random.Random, preferred: Sequence[str]) -> Work | None:
        mine = self._open_reserved(person)
        if mine:
            return mine[0]
        if self._shut[person] >= self.waiting:
            return None
        for key in sorted(self._buckets):
            for name in preferred if key[1] == 0 else ():
                wanted = self._works.get(name)
                if wanted is not None and wanted.bucket == key and not wanted.closed_to(person):
                    return wanted
            stack = self._buckets[key]
            window = min(WINDOW, len(stack))
            start = rng.randrange(window)
            for step in range(window):  # a random start at the end of the stack ...
                work = stack[len(stack) - 1 - (start + step) % window]
                if not work.closed_to(person):
                    return work
            for place in range(len(stack) - window - 1, -1, -1):  # ... then what lies deeper
                if not stack[place].closed_to(person):
                    return stack[place]
        return None

    def _open_reserved(self, person: str) -> list[Work]:
        works = self._reserved.get(person)
        return [w for w in works if w.taken < w.overlap and not w.closed_to(person)] if works else []

    def _lease(self, work: Work, person: str, until: float) -> None:
        if work.leases is not None and person in work.leases:
            work.leases[person] = until  # the heap learns of it when the old time comes
            return
        self._leave(work)
        work.leases = work.leases or {}
        work.leases[person] = until
        self.leased += 1
        heapq.heappush(self._expiry, (until, work.id, person))
        self._settle(work)

    def _give_back(self, work: Work, person: str) -> None:
        if work.leases is not None and work.leases.pop(person, None) is not None:
            self.leased -= 1

    def _settle(self, work: Work) -> None:
        """Put a work that stands nowhere into the bucket of its free slots, if it has any."""
        if work.reserved_for is not None or work.bucket is not None:
            return
        if work.taken >= work.overlap or work.id not in self._works:
            return
        key = (-work.priority, -work.taken)
        stack = self._buckets.setdefault(key, [])
        work.bucket, work.place = key, len(stack)
        stack.append(work)
        self.waiting += 1
        self._shut.update(self._closed(work))

    def _leave(self, work: Work) -> None:
        """Take a work out of its bucket, before anything about it changes."""
        if work.bucket is None:
            return
        stack = self._buckets[work.bucket]
        last = stack.pop()
        if last is not work:
            stack[work.place] = last
            last.place = work.place
        if not stack:
            del self._buckets[work.bucket]
        work.bucket, work.place = None, -1
        self.waiting -= 1
        self._shut.subtract(self._closed(work))

    @staticmethod
    def _closed(work: Work) -> set[str]:
        return (work.seen or set()) | set(work.leases or ()) | work.authors
