"""The desk: hands out comparisons and takes votes. One per process; the one code path for people at the screen,
rule-based annotators and tests. It knows nothing of HTTP or of screens.

Who holds what is decided in memory (`worklist`), under one lock; a single thread makes it durable (`writer`).
An answer is acknowledged after its commit is on disk and after it stands in the journal; when that fails, the
decision is taken back and the sender may send the same ballot again.

    with Desk(store) as desk:
        item = desk.next_items(person.id, random.Random(), 1)[0]
        vote = desk.cast_all(person.id, [Ballot("ranked", (("B",), ("A",)), vote_id=new_id(), ...)])[0]
"""

import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from palate.config import UserError
from palate.data.any_store import AnyStore
from palate.data.records import Annotator, AnnotatorKind, Comparison, Vote
from palate.data.store import Store
from palate.labeling.ballots import Ballot, BallotRefused, Item, Rules, check_id
from palate.labeling.claims import Claims
from palate.labeling.holdings import Filled, Held
from palate.labeling.opening import Plan
from palate.labeling.recall import ANSWERED, FILLED
from palate.labeling.selection.selector import Selector
from palate.labeling.writer import Change, Entry, Journal, Unacknowledged, Writer


@dataclass(frozen=True)
class Progress:
    """An annotator's own figures."""

    done: int
    today: int
    left: int
    median_seconds: float | None


def annotator(store: AnyStore, name: str, kind: AnnotatorKind = "human") -> Annotator:
    """The annotator of this name and kind, known from now on. The name is 1..60 visible characters."""
    name = " ".join(name.split())
    if not 1 <= len(name) <= 60 or not name.isprintable():
        raise UserError(f"an annotator's name takes 1 to 60 visible characters, got {name[:80]!r}")
    person = Annotator(name, kind)
    store.add_annotators([person])
    return person


class Desk:
    """Decides under one lock, writes through one thread."""

    def __init__(
        self,
        store: Store,
        rules: Rules | None = None,
        plan: Plan | None = None,
        journal: Journal | None = None,
        selector: Selector | None = None,
    ) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._reading = threading.Lock()  # one at a time looks for what was added past the desk; taken first
        self.rules, self.plan = rules or Rules(), plan or Plan()
        self._claims = Claims(store, self.rules, self.plan)
        self._claims.selector = self.selector = selector
        self.recall = self._claims.recall
        self._writer = Writer(store, journal)
        self.on_votes = self._writer.on_votes  # called after votes are durable, in the writer's thread

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what waits, then end. The store stays open."""
        self._writer.close()
        self._claims.shelf.close()

    # -- what annotators do ------------------------------------------------------------------------------

    def next_items(self, person: str, rng: random.Random, limit: int = 1) -> list[Item]:
        """The items this annotator answers next, at most `limit`; none when nothing is open for them.

        What they hold comes first and unchanged, in the order already drawn, so a reload changes nothing.
        """
        items, leased = self.begin_next(person, rng, limit)
        leased.result()
        return items

    def begin_next(
        self, person: str, rng: random.Random, limit: int | None = None
    ) -> "tuple[list[Item], Future[None]]":
        """`next_items` for an event loop: the items, and when they may be shown (their leases are durable).

        Without a limit one item, and a second one ahead as long as there is plenty for everybody.
        """
        with self._lock:
            items, change = self._claims.next(person, rng, self._claims.ahead() if limit is None else limit)
            return items, self._submit(change, self._unless_opened(person, change))

    def begin_turn(
        self, person: str, ballot: Ballot, rng: random.Random
    ) -> tuple[Vote, list[Item], Future[None], Future[None]]:
        """`begin_cast` and `begin_next` in one transaction: what a page asks for when it sends an answer."""
        with self._lock, self._writer.together():
            votes, stored = self.begin_cast(person, [ballot])
            items, leased = self.begin_next(person, rng)
            return votes[0], items, stored, leased

    def cast_all(self, person: str, ballots: Sequence[Ballot], run_id: str | None = None) -> list[Vote]:
        """Store several answers of one annotator, all or none of them; they are durable when this returns.

        The same vote id again is the same vote, whatever else the second ballot says. Answering an item that
        `undo` has re-opened supersedes the vote that stands. Raises BallotRefused and stores nothing when a
        ballot is not valid for the answers shown, or the item is not the annotator's to answer; NotStored when
        the disk does not take it.
        """
        votes, done = self.begin_cast(person, ballots, run_id)
        done.result()
        return votes

    def begin_cast(
        self, person: str, ballots: Sequence[Ballot], run_id: str | None = None
    ) -> "tuple[list[Vote], Future[None]]":
        """`cast_all` for an event loop: the votes, and when they are durable."""
        with self._lock:
            change, votes, entries = Change(), list[Vote](), list[Entry]()
            earlier: Future[None] | None = None
            for ballot in ballots:
                check_id(ballot.vote_id)
                if any(entry.assignment.id == ballot.assignment_id for entry in entries):
                    raise BallotRefused("two of these ballots answer the same item", "answered")
                held = self._claims.desktop(person).held.get(ballot.assignment_id)
                known = self.recall.vote(person, ballot) if held is None else None
                if held is not None and held.pending is not None:
                    known, earlier = held.pending  # sent again while the first is on its way to the disk
                    if known.id != ballot.vote_id:
                        raise BallotRefused(ANSWERED, "answered")
                if known is None:
                    entries.append(self._entry(person, ballot, held, run_id))
                    known = entries[-1].vote
                votes.append(known)
            if not entries:
                return votes, earlier or self._writer.submit(change)  # also what the journal still lacks
            change.entries = entries
            decided = [self._claims.decide(person, entry.vote, change.stored) for entry in entries]

            def ended(failed: BaseException | None) -> None:
                with self._lock:
                    self._claims.decided(person, decided, None if _stands(failed) else failed)

            return votes, self._submit(change, ended)

    def undo(self, person: str) -> Item | None:
        """Re-open the annotator's last vote; their next answer to it supersedes it, until then it stands.

        Again: the one before. None when there is nothing to take back. Imported and simulated votes are not
        taken back here.
        """
        self._writer.flush()
        last = self.recall.last(person)
        return self.reopen(person, last) if last is not None else None

    def reopen(self, person: str, vote_id: str) -> Item:
        """Re-open one of the annotator's own standing votes."""
        self._writer.flush()
        found = self.recall.standing(person, vote_id)
        if found is None:
            raise BallotRefused(
                "this vote is not yours, or it was changed since; reload the page", "not_yours"
            )
        assignment, vote = found
        with self._lock:
            desktop = self._claims.desktop(person)
            held = Held(assignment, vote)
            item = self._claims.item(held)
            if item is None:
                raise BallotRefused("the texts of this item are gone", "not_yours")
            desktop.held = {assignment.id: held, **desktop.held}
            desktop.count(-1)
            opened = self._submit(Change(leased={assignment.id: self._claims.until()[1]}))
        opened.result()
        return item

    def heartbeat(self, person: str, assignment_ids: Sequence[str]) -> list[str]:
        """Prolong the leases of these items; returns those that are lost: others have them now."""
        with self._lock:
            desktop, lost, change = self._claims.desktop(person), [], Change()
            for name in assignment_ids:
                held = desktop.held.get(name)
                if held is None or not self._claims.renewed(person, held):
                    lost.append(name)
                if held is not None and name in lost:
                    del desktop.held[name]
                    change.released.append(name)
            self._submit(change)
        return lost

    def progress(self, person: str) -> Progress:
        """The annotator's own figures."""
        with self._lock:
            desktop = self._claims.desktop(person)
            desktop.count(0)
            median = statistics.median(desktop.seconds) if desktop.seconds else None
            return Progress(desktop.done, desktop.today, self._claims.left(person), median)

    def add(self, entry: Entry, new: bool) -> "Future[None]":
        """A vote that takes no slot (an adjudication), written as every vote is; whose it is is not asked about the
        item any more. `new`: its assignment is to be stored too."""
        with self._lock:
            shown = entry.assignment
            released = self._claims.forgone(shown.annotator_id, shown.comparison_id)
            return self._submit(Change([entry], opened=[shown] if new else [], released=released))

    # -- what the server and the stages do ------------------------------------------------------------------

    def refresh(self) -> None:
        """Look at the store again, with everybody waiting: votes were added past the desk, or much has changed."""
        with self._reading:
            while True:
                self._writer.flush()  # not under the lock: the writer takes it when it is done with an answer
                with self._lock:
                    if self._writer.idle:
                        self._claims.open()
                        return

    def admit(self, comparison_ids: Sequence[str]) -> None:
        """Comparisons were added past the desk: they wait from now on. Nobody waits while they are read.

        Only those that do not wait already are read, since nobody can answer them meanwhile.
        """
        with self._reading:
            with self._lock:
                new = [name for name in comparison_ids if not self._claims.knows(name)]
            works, gold = self._claims.read(new)
            with self._lock:
                self._claims.admit(works, gold)

    def prioritise(self, comparison_ids: Sequence[str], priority: int) -> None:
        """These come before those of a lower priority, from now on; the store knows already."""
        with self._reading, self._lock:  # not while new ones are read with the priority that they had
            for name in comparison_ids:
                self._claims.queue.prioritise(name, priority)

    def offer(self, comparison: Comparison, shown: Sequence[str] = ()) -> None:
        """A stored comparison that is reserved for one annotator: theirs next, also before what they hold.

        `shown` is the order in which they have seen its answers already; without one it is drawn.
        """
        with self._lock:
            change = self._claims.offer(comparison, shown)
            opened = self._submit(change, self._unless_opened(comparison.reserved_for, change))
        opened.result()

    def counts(self) -> dict[str, int]:
        """How the work stands."""
        rows = self._store.rows("SELECT reason, count(*) AS n FROM withheld GROUP BY reason")
        with self._lock:
            self._claims.queue.expire(time.time())
            return {
                "waiting": self._claims.queue.waiting,
                "leased": self._claims.queue.leased,
                "answers_left_out": self._claims.dropped,
                "journal_lag": self._writer.journal_lag,
                **{f"withheld_{reason}": 0 for reason in ("identity", "duplicate")},
                **{f"withheld_{row['reason']}": int(row["n"]) for row in rows},
            }

    def commit_seconds(self) -> list[float]:
        """How long the latest commits took."""
        return list(self._writer.commit_seconds)

    @property
    def writes(self) -> bool:
        """Whether the thread that makes decisions durable is alive."""
        return self._writer.alive

    def flush(self) -> None:
        """Wait until everything that was decided is durable."""
        self._writer.flush()

    @property
    def lease_seconds(self) -> float:
        """How long an item stays with a page that gives no sign of life."""
        return self._claims.plan.lease_seconds

    # -- inside ------------------------------------------------------------------------------------------

    def _entry(self, person: str, ballot: Ballot, held: Held | None, run_id: str | None) -> Entry:
        """The ballot as a vote with all it is about; nothing is decided yet."""
        if held is None:
            raise self.recall.why_not(person, ballot.assignment_id)
        try:
            return self._claims.entry(person, ballot, held, run_id)
        except Filled:
            self._submit(Change(released=[held.assignment.id]))
            raise BallotRefused(FILLED, "filled") from None

    def _unless_opened(
        self, person: str | None, change: Change
    ) -> Callable[[BaseException | None], None] | None:
        """What takes back the claims of a change that could not be stored: nobody may answer what is not there."""
        if person is None or not change.opened:
            return None

        def ended(failed: BaseException | None) -> None:
            if not _stands(failed):
                with self._lock:
                    self._claims.unopened(person, change)

        return ended

    def _submit(
        self, change: Change, then: Callable[[BaseException | None], None] | None = None
    ) -> "Future[None]":
        """Hand a change to the writer; `then` runs once it is durable or refused, before anybody is told."""
        if not change and not change.after and then is None:
            change.stored.set_result(None)
            return change.stored
        if then is not None:
            change.then = then
        return self._writer.submit(change)


def _stands(failed: BaseException | None) -> bool:
    """Whether a change is committed, acknowledged or not."""
    return failed is None or isinstance(failed, Unacknowledged)
