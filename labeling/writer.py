"""The one thread that writes votes: many answers, one transaction, one fsync.

A commit costs a few milliseconds whatever is in it, so answers that arrive while one commit runs go together
into the next. An answer is acknowledged only after its commit is on disk and after it stands in the journal.
"""

import errno
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import Any

import duckdb

from palate.config import UserError
from palate.data.records import Assignment, Comparison, Completion, Vote
from palate.data.store import Store
from palate.labeling.ballots import BallotRefused
from palate.labeling.contents import Content

_log = logging.getLogger(__name__)
LARGEST_BATCH = 256  # changes in one transaction


@dataclass(frozen=True)
class Entry:
    """A vote with all it is about, for the journal."""

    vote: Vote
    assignment: Assignment
    content: Content | None
    edit: Completion | None = None  # the better answer that came with it


Journal = Callable[[Sequence[Entry]], None]  # append these votes, with what they need, and fsync


class NotStored(UserError):
    """Nothing was stored and the same ballot may be sent again. `code`: disk_full | unavailable."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class Unacknowledged(NotStored):
    """Committed, but the journal did not take it: it stands, and is acknowledged once it is sent again."""


@dataclass
class Change:
    """What one answer or claim changes, all or nothing."""

    entries: list[Entry] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)  # hidden repeats
    opened: list[Assignment] = field(default_factory=list)
    chosen: list[Comparison] = field(default_factory=list)  # stored ones, with how they were chosen
    leased: dict[str, datetime] = field(default_factory=dict)  # assignments opened again -> lease
    released: list[str] = field(default_factory=list)
    withheld: list[dict[str, Any]] = field(default_factory=list)
    stored: "Future[None]" = field(default_factory=Future)
    after: "list[Future[None]]" = field(default_factory=list)  # earlier changes: when one fails, so does this
    then: Callable[[BaseException | None], None] | None = (
        None  # runs before `stored` ends, in the writer's thread
    )

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in _PARTS)

    def end(self, error: BaseException | None) -> None:
        """Durable, or refused: tell whoever waits. What was submitted earlier has ended."""
        error = error or next((why for earlier in self.after if (why := earlier.exception())), None)
        if self.then is not None:
            self.then(error)
        if error is None:
            self.stored.set_result(None)
        else:
            self.stored.set_exception(error)


_PARTS = ("entries", "comparisons", "opened", "chosen", "leased", "released", "withheld")


class Writer:
    """Writes changes in the order in which they were submitted."""

    def __init__(self, store: Store, journal: Journal | None) -> None:
        self._store = store
        self._journal = journal
        self._waiting: SimpleQueue[list[Change] | None] = SimpleQueue()
        self._unjournaled: list[Entry] = []  # committed, but the journal could not take them: nothing else is
        self._doubtful: set[str] = set()  # votes whose commit failed: the database may have them all the same
        self.commit_seconds: deque[float] = deque(maxlen=1000)  # of the latest commits, for whoever measures
        self.on_votes: list[Callable[[Sequence[Vote]], None]] = []
        self._pending = 0
        self._gathered: list[Change] | None = None
        self._count = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="palate-writer", daemon=True)
        self._thread.start()

    @property
    def journal_lag(self) -> int:
        """Committed votes that are not in the journal."""
        return len(self._unjournaled)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is being written."""
        return self._pending == 0

    def submit(self, change: Change) -> "Future[None]":
        """Queue a change; the future ends when it is durable, or with the reason why it is not stored.

        It can't be cancelled: who waits may go away, what was decided is written all the same.
        """
        change.stored.set_running_or_notify_cancel()
        with self._count:
            self._pending += 1
            if not self._closed:
                if self._gathered is not None:
                    self._gathered.append(change)
                else:
                    self._waiting.put([change])
                return change.stored
        self._end(change, _closing())
        return change.stored

    @contextmanager
    def together(self) -> Iterator[None]:
        """Changes submitted inside go into one transaction (and to nobody who submits meanwhile is that a loss)."""
        with self._count:
            self._gathered = []
        try:
            yield
        finally:
            with self._count:
                changes, self._gathered = self._gathered or [], None
                closed = self._closed
                if changes and not closed:
                    self._waiting.put(changes)
            for change in changes if closed else ():  # closed meanwhile: nobody would come to these
                self._end(change, _closing())

    def flush(self) -> None:
        """Wait until everything that was submitted is written."""
        self.submit(Change()).result()

    def close(self) -> None:
        """Write what waits, then end."""
        with self._count:
            self._closed = True
            self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            batch = [self._waiting.get()]
            try:
                while len(batch) < LARGEST_BATCH:
                    batch.append(self._waiting.get_nowait())
            except Empty:
                pass
            self._store_all([change for part in batch if part is not None for change in part])
            if batch[-1] is None:  # nothing is queued after `close`
                return

    def _end(self, change: Change, error: BaseException | None) -> None:
        try:
            change.end(error)
        except Exception:  # noqa: BLE001 - whatever it is, this thread goes on for the others
            _log.exception("the end of a change could not be told")
            if not change.stored.done():
                change.stored.set_exception(NotStored("something went wrong; send it again", "unavailable"))
        finally:
            with self._count:
                self._pending -= 1

    def _store_all(self, changes: Sequence[Change]) -> None:
        """One transaction for all; when it fails, one for each, so that one bad change harms no other."""
        start = time.perf_counter()
        try:
            self._catch_up()
            if any(changes):
                self._commit(changes, again=False)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must be told
            for change in changes:
                self._store_one(change, error)
            return
        self.commit_seconds.append(time.perf_counter() - start)
        for change in changes:
            self._end(change, None)
        self._tell([entry.vote for change in changes for entry in change.entries])

    def _store_one(self, change: Change, error: Exception) -> None:
        """A change whose batch failed: a transaction of its own, unless the disk was what failed."""
        if not isinstance(error, duckdb.FatalException | OSError | Unacknowledged):
            try:
                self._commit([change], again=True)
            except Exception as reason:  # noqa: BLE001
                error = reason
            else:
                self._end(change, None)
                self._tell([entry.vote for entry in change.entries])
                return
        self._end(change, _explained(error))

    def _tell(self, votes: Sequence[Vote]) -> None:
        """Listeners learn of votes that are durable; what goes wrong with them is not the voter's concern."""
        for listener in self.on_votes if votes else ():
            try:
                listener(votes)
            except Exception:  # noqa: BLE001
                _log.exception("a listener to votes failed")

    def _commit(self, changes: Sequence[Change], again: bool) -> None:
        """One transaction. Unless `again`, nothing in it may be stored already: looking is left to the second try."""
        parts: dict[str, list[Any]] = {
            name: [x for change in changes for x in getattr(change, name)]
            for name in _PARTS
            if name != "leased"
        }
        leased = {name: until for change in changes for name, until in change.leased.items()}
        entries: list[Entry] = parts["entries"]
        try:
            with self._store.transaction():
                new = _new(self._store, entries) if again and entries else entries
                for records in ([e.edit for e in new if e.edit], parts["comparisons"], parts["opened"]):
                    if records:
                        self._store.insert(records, again)
                if new:
                    self._store.insert([entry.vote for entry in new], again)
                    self._set_state("done", [entry.vote.assignment_id for entry in new])
                if parts["chosen"]:
                    self._store.write(
                        "UPDATE comparison SET strategy = u.strategy, propensity = u.propensity FROM (SELECT "
                        "unnest(?) AS id, unnest(?) AS strategy, unnest(?) AS propensity) u WHERE comparison.id = u.id",
                        [
                            [getattr(one, name) for one in parts["chosen"]]
                            for name in ("id", "strategy", "propensity")
                        ],
                    )
                if leased:
                    self._store.write(
                        "UPDATE assignment SET state = 'open', leased_until = u.until "
                        "FROM (SELECT unnest(?) AS id, unnest(?) AS until) u WHERE assignment.id = u.id",
                        [list(leased), list(leased.values())],
                    )
                if parts["released"]:
                    self._set_state("released", parts["released"])
                for row in parts["withheld"]:
                    self._store.write(
                        "INSERT INTO withheld VALUES (?, ?, ?, now()::TIMESTAMP) ON CONFLICT DO NOTHING",
                        list(row.values()),
                    )
        except duckdb.ConstraintException:
            raise  # something in it is stored already: known, not doubtful
        except duckdb.Error:
            self._doubtful.update(entry.vote.id for entry in entries)
            raise
        new = [*new, *(e for e in entries if e not in new and e.vote.id in self._doubtful)]
        self._doubtful.difference_update(entry.vote.id for entry in entries)
        self._unjournaled += [entry for entry in new if entry.vote.run_id is None]
        try:
            self._catch_up()
        except Exception as error:
            code = _code(error)
            why = "the server's disk is full" if code == "disk_full" else f"the journal refuses ({error})"
            raise Unacknowledged(
                f"{why}: your answer is not safe yet. It is kept here; it can be sent again when there is space"
                if code == "disk_full"
                else f"{why}: your answer is not safe yet; send it again",
                code,
            ) from error

    def _set_state(self, state: str, assignment_ids: Sequence[str]) -> None:
        ids = ", ".join("?" * len(assignment_ids))
        self._store.write(f"UPDATE assignment SET state = ? WHERE id IN ({ids})", [state, *assignment_ids])

    def _catch_up(self) -> None:
        """Bring the journal up to what is committed; raises while it can't be written."""
        if self._journal is None:
            self._unjournaled = []
        if self._unjournaled and self._journal is not None:
            self._journal(self._unjournaled)
            self._unjournaled = []


def _closing() -> NotStored:
    return NotStored("the server is closing; send it again later", "unavailable")


def _new(store: Store, entries: Sequence[Entry]) -> list[Entry]:
    """The votes that are not stored yet. One whose id is known on the same assignment is the same vote sent again
    (its commit was not acknowledged); an id that another vote has is refused, never overwritten."""
    ids = [entry.vote.id for entry in entries]
    rows = store.rows("SELECT id, assignment_id FROM vote WHERE id IN (SELECT unnest(?))", [ids])
    known = {row["id"]: row["assignment_id"] for row in rows}
    new: list[Entry] = []
    for entry in entries:
        vote = entry.vote
        if known.get(vote.id, vote.assignment_id) != vote.assignment_id:
            raise BallotRefused("this vote's id belongs to another vote; reload the page")
        if vote.id not in known:
            new.append(entry)
            known[vote.id] = vote.assignment_id
    return new


# a full disk, a quota, a limit on the size of files: in DuckDB's words and in the system's
_FULL = ("no space left", "not enough disk", "quota exceeded", "file too large")


def _code(error: Exception) -> str:
    """The kind of a failure: disk_full | unavailable."""
    full = getattr(error, "errno", None) == errno.ENOSPC or any(sign in str(error).lower() for sign in _FULL)
    return "disk_full" if full else "unavailable"


def _explained(error: Exception) -> Exception:
    """The failure in words for the annotator."""
    if isinstance(error, BallotRefused | NotStored):
        return error
    text = str(error) or type(error).__name__
    if _code(error) == "disk_full":
        return NotStored(
            "the server's disk is full: nothing was stored. Your answer is kept here; it can be sent again "
            "when there is space",
            "disk_full",
        )
    return NotStored(
        f"the vote could not be stored ({text.splitlines()[0][:160]}); send it again", "unavailable"
    )
