"""Who holds which item: claims and answers decided in memory. Its owner, the desk, locks and makes durable.

What has to be written is collected in a `Change`; a decision that can't be stored is taken back.
"""

import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial

from palate.data.records import Assignment, Comparison, Vote
from palate.data.store import Store
from palate.labeling import opening
from palate.labeling.ballots import LETTERS, Ballot, Item, Rules, edited, to_answer, to_vote
from palate.labeling.contents import Content, Shelf
from palate.labeling.holdings import REMEMBERED, Desktop, Filled, Held, today
from palate.labeling.opening import Plan
from palate.labeling.recall import Recall
from palate.labeling.selection.selector import Selector
from palate.labeling.worklist import WINDOW, Queue, Work
from palate.labeling.writer import Change, Entry

AHEAD = 3  # the next item is leased ahead while this many waiting works come on each active annotator
RECOUNT = 20  # answers after which the number of items left is put right
REPEAT_AFTER = 10  # an annotator's item is shown once more at the earliest after so many others


Decision = tuple[Held, Vote, Work | None, int]  # the work whose count of answers changed, and by how much


class Claims:
    """The queue and everybody's items. Not thread-safe: its owner locks."""

    def __init__(self, store: Store, rules: Rules, plan: Plan) -> None:
        self.plan, self._store, self._rules = plan, store, rules
        self.shelf, self.recall = Shelf(store), Recall(store)
        self.desktops: dict[str, Desktop] = {}
        self.dropped = 0  # answers left out of an item since they repeat another
        self.selector: Selector | None = None
        self.queue, self.gold = Queue(), dict[str, Work]()
        self._admit_all(None)

    def open(self) -> None:
        """Read everything again; a lease that has run out stays so, whatever the store says of the item."""
        self._admit_all(self.queue.running(time.time()))

    def _admit_all(self, running: Mapping[tuple[str, str], float] | None) -> None:
        found = opening.read(self._store, self.plan, running)
        self.queue, self.gold = Queue(found.works), found.gold
        for desktop in self.desktops.values():
            desktop.held = {}
        for person, held in found.held.items():
            self.desktop(person).held = {assignment.id: Held(assignment, vote) for assignment, vote in held}

    def knows(self, comparison_id: str) -> bool:
        """Whether it waits already."""
        return comparison_id in self.queue or comparison_id in self.gold

    def read(self, comparison_ids: Sequence[str]) -> tuple[list[Work], list[Work]]:
        """Comparisons that the store has and that wait for answers, and gold questions. Needs no lock."""
        works, gold = opening.works_of(self._store, self.plan, comparison_ids)
        return list(works.values()), list(gold.values())

    def admit(self, works: Sequence[Work], gold: Sequence[Work]) -> None:
        """New works; what waits already stays as it is."""
        for work in works:
            if not self.knows(work.id):
                self.queue.add(work)
        self.gold = {**{work.id: work for work in gold}, **self.gold}

    def unopened(self, person: str, change: Change) -> None:
        """Take back what `next` or `offer` opened: it could not be stored."""
        desktop = self.desktop(person)
        repeats = {comparison.id for comparison in change.comparisons}
        for assignment in change.opened:
            desktop.held.pop(assignment.id, None)
            name = assignment.comparison_id
            work = self.gold.get(name) or self.queue.get(name)
            if name in self.gold and work is not None:
                (work.seen or set()).discard(person)
            elif name in repeats and work is not None:
                self.queue.remove(work)
            elif work is not None:
                self.queue.release(work, person)

    def desktop(self, person: str) -> Desktop:
        if person not in self.desktops:
            done, done_today, seconds = self.recall.pace(person)
            self.desktops[person] = Desktop({}, done, done_today, today(), deque(seconds, REMEMBERED))
        return self.desktops[person]

    def until(self) -> tuple[float, datetime]:
        until = time.time() + self.plan.lease_seconds
        return until, datetime.fromtimestamp(until, UTC).replace(tzinfo=None)

    def ahead(self) -> int:
        """How many items a page holds: the next one ahead, unless few are left for many."""
        return 2 if self.queue.waiting > AHEAD * len(self._at_work()) else 1

    def _at_work(self) -> list[str]:
        return [name for name, desktop in self.desktops.items() if desktop.held]

    def next(self, person: str, rng: random.Random, limit: int) -> tuple[list[Item], Change]:
        change, items = Change(), list[Item]()
        desktop = self.desktop(person)
        for name, held in list(desktop.held.items()):
            if held.pending is not None:
                continue
            if len(items) == limit:
                break
            item = self.item(held) if self.renewed(person, held) else None
            if item is None:
                del desktop.held[name]
                change.released.append(name)
            else:
                items.append(item)
                if held.opening is not None and not held.opening.done():
                    change.after.append(
                        held.opening
                    )  # asked for twice at once: shown when both know that it is theirs
        while len(items) < limit:
            new = self._claim(person, rng, change)
            item = self.item(new) if new is not None else None
            if new is None or item is None:
                break
            desktop.held[new.assignment.id] = new
            items.append(item)
        return items, change

    def offer(self, comparison: Comparison, shown: Sequence[str]) -> Change:
        """A comparison reserved for one annotator; with `shown` it is opened at once, in front of what they hold."""
        change, person = Change(), comparison.reserved_for
        if comparison.id in self.queue:
            return change
        work = Work(comparison.id, comparison.priority, comparison.overlap, reserved_for=person)
        if shown and person is not None:
            until, lease = self.until()
            work.leases = {person: until}
            assignment = Assignment(comparison.id, person, tuple(shown), leased_until=lease)
            change.opened.append(assignment)
            desktop = self.desktop(person)
            desktop.held = {assignment.id: Held(assignment, opening=change.stored), **desktop.held}
        self.queue.add(work)
        return change

    def forgone(self, person: str, comparison_id: str) -> list[str]:
        """This annotator is not asked about the comparison (again); the ids of what they had open of it."""
        desktop, work = self.desktop(person), self.gold.get(comparison_id) or self.queue.get(comparison_id)
        names = [
            name
            for name, held in desktop.held.items()
            if held.assignment.comparison_id == comparison_id
            and held.pending is None
            and held.standing is None
        ]
        for name in names:
            del desktop.held[name]
        if work is not None and comparison_id in self.gold:
            work.seen = {*(work.seen or ()), person}
        elif work is not None:
            self.queue.shut(work, person)
        return names

    def renewed(self, person: str, held: Held) -> bool:
        """Whether the item is still theirs; its lease is prolonged.

        In memory only: the time in the database matters at a start, which prolongs every lease.
        """
        comparison_id = held.assignment.comparison_id
        if held.standing is not None or held.pending is not None or comparison_id in self.gold:
            return True  # no slot is at stake
        work = self.queue.get(comparison_id)
        if work is None:
            return False
        if not self.queue.renew(work, person, time.time(), self.until()[0]):
            self.queue.shut(work, person)
            return False
        return True

    def _claim(self, person: str, rng: random.Random, change: Change) -> Held | None:
        """Take a slot of an open comparison and draw the order of its answers."""
        special = self._special(person, rng, change)
        if special is not None:
            return special
        while True:
            until, lease = self.until()
            pick = self.selector.pick(person, rng, self._at_work()) if self.selector is not None else None
            order = pick.order if pick is not None else ()
            work = self.queue.claim(person, rng, time.time(), until, order)
            if work is None:
                return None
            self.shelf.ahead(partial(self._soon, person, order))
            content = self.shelf.get(work.id)
            if content is None or content.withheld is not None:
                reason, detail = (content.withheld if content else None) or (
                    "broken",
                    "its texts are missing",
                )
                change.withheld.append({"id": work.id, "reason": reason, "detail": detail})
                self.queue.remove(work)
                continue
            if pick is not None and work.taken == 1 and work.reserved_for is None:  # nobody had it before
                content = pick.given(content, self.queue.waiting + 1)
                self.shelf.put(content)
                change.chosen.append(content.comparison)
            return self._opened(content, person, rng, lease, change)

    def _soon(self, person: str, order: Sequence[str]) -> list[str]:
        return [*order[:WINDOW], *(work.id for work in self.queue.upcoming(person, 2 * WINDOW))]

    def _opened(
        self, content: Content, person: str, rng: random.Random, lease: datetime, change: Change
    ) -> Held:
        order = list(content.shown)
        rng.shuffle(order)
        self.dropped += len(content.completions) - len(order)
        assignment = Assignment(content.comparison.id, person, tuple(order), leased_until=lease)
        change.opened.append(assignment)
        return Held(assignment, opening=change.stored)

    def _special(self, person: str, rng: random.Random, change: Change) -> Held | None:
        """At the configured shares: a gold question, or an own item once more in reversed order."""
        _, lease = self.until()
        if self.gold and rng.random() < self.plan.gold_share:
            unseen = [work for work in self.gold.values() if not work.closed_to(person)]
            if unseen:
                work = rng.choice(unseen)
                work.seen = {*(work.seen or ()), person}
                content = self.shelf.get(work.id)
                if content is not None:
                    return self._opened(content, person, rng, lease, change)
        if self.plan.repeat_share and rng.random() < self.plan.repeat_share:
            again = self.recall.to_repeat(person, REPEAT_AFTER)
            if again is not None:
                comparison, order = again
                change.comparisons.append(comparison)
                assignment = Assignment(comparison.id, person, order, leased_until=lease)
                change.opened.append(assignment)
                self.queue.add(Work(comparison.id, reserved_for=person, leases={person: self.until()[0]}))
                origin = self.shelf.get(comparison.repeats or "")
                if origin is not None:
                    completions = tuple(c for c in origin.completions if c.id in order)
                    self.shelf.put(Content(comparison, origin.prompt, completions, order, None))
                return Held(assignment, opening=change.stored)
        return None

    def item(self, held: Held) -> Item | None:
        content = self.shelf.get(held.assignment.comparison_id)
        if content is None:
            return None
        texts = content.texts()
        order = held.assignment.display_order
        answers = tuple((LETTERS[i], texts.get(name, "")) for i, name in enumerate(order))
        earlier = None
        if held.standing is not None:
            earlier = to_answer(held.standing, order, self.recall.edit_of(held.standing))
        standing = held.standing.id if held.standing is not None else None
        return Item(held.assignment.id, content.messages, answers, earlier, standing)

    # -- inside: answers ---------------------------------------------------------------------------------

    def entry(self, person: str, ballot: Ballot, held: Held, run_id: str | None) -> Entry:
        """The ballot as a vote with all it is about; nothing is decided yet."""
        order = held.assignment.display_order
        vote = to_vote(ballot, order, self._rules, held.standing.id if held.standing else None, run_id)
        if not self.slot(person, held, vote):
            del self.desktop(person).held[held.assignment.id]
            raise Filled
        content = self.shelf.get(held.assignment.comparison_id)
        better = edited(ballot, order, content.prompt.id, person) if content is not None else None
        return Entry(vote, held.assignment, content, better)

    def slot(self, person: str, held: Held, vote: Vote) -> bool:
        """Whether this answer has a slot: the annotator's lease runs, or one is still free."""
        counted = held.standing is not None and held.standing.verdict != "skip"
        if vote.verdict == "skip" or counted or held.assignment.comparison_id in self.gold:
            return True
        work = self.work(held.assignment.comparison_id)
        if work is None or not self.queue.renew(work, person, time.time(), self.until()[0]):
            if work is not None:
                self.queue.shut(work, person)
            return False
        return True

    def work(self, comparison_id: str) -> Work | None:
        """The work of a comparison, read again when it had left the queue."""
        work = self.queue.get(comparison_id)
        if work is None:
            work = opening.read_one(self._store, self.plan, comparison_id)
            if work is not None:
                self.queue.add(work)
        return work

    def decide(self, person: str, vote: Vote, stored: "Future[None]") -> Decision:
        """The item is answered; what `_decided` needs to confirm that or to take it back."""
        held = self.desktop(person).held[vote.assignment_id]
        before = int(held.standing is not None and held.standing.verdict != "skip")
        change = int(vote.verdict != "skip") - before
        work = None
        if held.assignment.comparison_id not in self.gold and (change or held.standing is None):
            work = self.work(held.assignment.comparison_id)
        if work is not None and held.standing is None:
            self.queue.answered(work, person, bool(change))
        elif work is not None:
            self.queue.release(work, person)
            self.queue.recount(work, change)
        held.pending = (vote, stored)
        return held, vote, work, change

    def decided(self, person: str, decisions: Sequence[Decision], failed: BaseException | None) -> None:
        """The writer is done with these answers: they are durable, or their decision is taken back."""
        desktop = self.desktop(person)
        for held, vote, work, change in decisions:
            held.pending = None
            if failed is None:
                desktop.held.pop(held.assignment.id, None)
                desktop.count(1)
                if vote.seconds_active is not None and vote.run_id is None:
                    desktop.seconds.append(vote.seconds_active)
                if work is not None and work.answers >= work.overlap and not work.leases:
                    self.queue.remove(work)
            elif work is not None and held.standing is None:
                self.queue.unanswered(work, person, bool(change), self.until()[0])
            elif work is not None:
                self.queue.recount(work, -change)

    def left(self, person: str) -> int:
        """How many items wait for this annotator, as they are told.

        With gold questions or repeats the exact number stands still at each of them, which would tell them
        apart: then it goes down by one per answer and is put right every RECOUNT answers.
        """
        desktop = self.desktop(person)
        waiting = sum(held.pending is None and held.standing is None for held in desktop.held.values())
        exact = self.queue.left(person) + waiting
        if not (self.plan.gold_share or self.plan.repeat_share):
            return exact
        left, since = desktop.told[0], desktop.done - desktop.told[1]
        if not waiting or left - since <= waiting or abs(since) >= RECOUNT:
            desktop.told = (exact, desktop.done)
            return exact
        return left - since
