"""What the Review screens ask: figures of the votes as they are now, computed once for all who ask.

Two threads compute, one what is quick and one what takes longer, so that a page never waits for somebody else's
bootstrap. Who asks for the same thing meanwhile gets the same answer. An answer is shown again while it is young; after that
(seconds, or minutes where computing takes its time) the new votes are taken in, and it is computed anew if there were
any. Voting is never waited for, and hardly waits: the facts are a database of their own, and these threads stand back.
"""

import asyncio
import logging
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import duckdb

from palate.config import UserError
from palate.data.facts import Facts
from palate.data.store import Store
from palate.labeling import review_plots
from palate.labeling.login import Refused
from palate.labeling.review_html import Shown, drawn
from palate.labeling.statistics import report
from palate.labeling.statistics.panels import Panel, Section
from palate.labeling.statistics.scope import Scope

YOUNG = 5.0  # seconds for which an answer is shown again whatever has been voted meanwhile
REST = 10  # times as long as it has computed, a process leaves the votes as they are: at most a tenth goes into figures
KEPT = 64  # answers
NICE = 10  # of the threads that compute
PATIENCE = 2.0  # seconds that closing waits
_log = logging.getLogger(__name__)


def _nothing() -> None:
    """Nothing else has to be loaded."""


@dataclass(frozen=True)
class Answer:
    """A section, drawn, as of a version of the facts."""

    shown: Any
    version: str
    at: float  # time.monotonic() when it was last known to be right


class Review:
    """The figures of one store. Facts are opened when somebody first asks."""

    def __init__(self, store: Store, overlap: tuple[int, float] = (1, 1.0)) -> None:
        self.notice: Callable[[], str] = str  # what leads are told above every page; nothing
        self._store, self._overlap = store, overlap  # see Facts.overlap
        self._facts: Facts | None = None
        self._busy, self._beginning = 0, threading.Lock()  # computations that read the facts now
        self._lock = threading.Lock()  # of what follows
        self._known: OrderedDict[tuple[Any, ...], Answer] = OrderedDict()
        self._asked: dict[tuple[Any, ...], Future[Answer]] = {}
        self._quick = ThreadPoolExecutor(1, "review", _stand_back)
        self._late = ThreadPoolExecutor(1, "review-late", _stand_back)
        self._refreshed, self._spent = -YOUNG, 0.0  # when votes were taken in; seconds computed since then
        self._closed, self._changes = False, 0
        self.reading: tuple[int, int] | None = None  # (votes taken in, votes in all) while they are

    def warm_up(self, also: Callable[[], None] = _nothing) -> None:
        """Load what takes a while to load, before anybody asks."""
        self._quick.submit(_warm_up)
        self._quick.submit(also)

    def close(self) -> None:
        """Give the facts back; what is being computed is waited for a little."""
        self._closed = True
        for pool in (self._quick, self._late):
            pool.shutdown(wait=False, cancel_futures=True)
        wait(list(self._asked.values()), PATIENCE)
        if self._facts is not None:
            with suppress(duckdb.Error):  # somebody is still reading: the end of the process closes it
                self._facts.close()

    # -- asking ----------------------------------------------------------------------------------------

    def section(self, id: str, scope: Scope) -> "Future[Answer]":
        """A section with what is quick; `shown` is a review_html.Shown."""
        return self.quick(("section", id, scope), lambda facts: _section(facts, id, scope))

    def late(self, id: str, panel: str, scope: Scope) -> "Future[Answer]":
        """The whole of a late panel, as a section of its own; `shown` is None when there is no such panel."""
        return self.slow(("late", id, panel, scope), lambda facts: _late(facts, id, panel, scope))

    def whole(self, id: str, scope: Scope) -> "Future[Answer]":
        """A section with its late panels, for scripts; `shown` is a Section."""
        return self.slow(("whole", id, scope), lambda facts: _whole(facts, id, scope))

    def choices(self) -> "Future[Answer]":
        """What votes can be narrowed to; `shown` is (sources, tags)."""
        return self.quick(("choices",), lambda facts: (report.sources(facts), report.tags(facts)))

    def quick(self, key: tuple[Any, ...], make: Callable[[Facts], Any]) -> "Future[Answer]":
        """What `make` returns, in the thread for what takes a second at most. The key says all it depends on."""
        return self._ask(self._quick, key, make)

    def slow(self, key: tuple[Any, ...], make: Callable[[Facts], Any]) -> "Future[Answer]":
        """The same for what takes longer: a page that is asked for meanwhile need not wait for it."""
        return self._ask(self._late, key, make)

    def forget(self) -> None:
        """Compute anew whatever is asked next: something else than the votes has changed."""
        with self._lock:
            self._known.clear()
            self._changes += 1

    def look(self, make: Callable[[Facts], Any]) -> "Future[Answer]":
        """What `make` returns, not kept: for what has a memory of its own."""
        return self._quick.submit(self._once, make)

    def gather(self, make: Callable[[Facts], Any]) -> "Future[Answer]":
        """The same for what takes longer, or is large."""
        return self._late.submit(self._once, make)

    def _ask(
        self, pool: ThreadPoolExecutor, key: tuple[Any, ...], make: Callable[[Facts], Any]
    ) -> "Future[Answer]":
        with self._lock:
            known = self._known.get(key)
            if known is not None and time.monotonic() - known.at < YOUNG:
                done: Future[Answer] = Future()
                done.set_result(known)
                return done
            if key not in self._asked:
                self._asked[key] = pool.submit(self._answer, key, make)
            return self._asked[key]

    # -- answering, in a thread of ours ----------------------------------------------------------------

    def _once(self, make: Callable[[Facts], Any]) -> Answer:
        facts = self._begin()
        try:
            return Answer(make(facts), facts.version, time.monotonic())
        except UserError:
            raise
        except Exception:
            if not self._closed:
                _log.exception("review can't find what was asked for")
            raise
        finally:
            self._end()

    def _answer(self, key: tuple[Any, ...], make: Callable[[Facts], Any]) -> Answer:
        try:
            facts = self._begin()
            start = time.monotonic()
            try:
                with self._lock:
                    known, changes = self._known.get(key), self._changes
                if known is not None and known.version == facts.version:
                    answer = replace(known, at=time.monotonic())
                else:
                    answer = Answer(make(facts), facts.version, time.monotonic())
            finally:
                self._end(time.monotonic() - start)
            if changes == self._changes:  # else it may be about what was before
                self._keep(key, answer)
            return answer
        except UserError:
            raise
        except Exception:
            if not self._closed:  # else it has only lost its facts
                _log.exception("review can't compute %s", key)
            raise
        finally:
            with self._lock:
                self._asked.pop(key, None)

    def _begin(self) -> Facts:
        """The facts with the votes of the last seconds, for one computation.

        They stay as they are while another computation reads them: its queries must fit each other.
        """
        with self._beginning:
            if self._closed:
                raise UserError("the server is shutting down")
            if self._facts is None:
                self._facts = Facts(self._store)
                self._facts.overlap = self._overlap
            if not self._busy and time.monotonic() - self._refreshed >= max(YOUNG, REST * self._spent):
                try:
                    self._facts.refresh(self._progress)
                finally:
                    self.reading = None
                self._refreshed, self._spent = time.monotonic(), 0.0
            self._busy += 1
            return self._facts

    def _end(self, seconds: float = 0.0) -> None:
        with self._beginning:
            self._busy -= 1
            self._spent += seconds

    def _keep(self, key: tuple[Any, ...], answer: Answer) -> None:
        with self._lock:
            self._known[key] = answer
            self._known.move_to_end(key)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)

    def _progress(self, done: int, total: int) -> None:
        self.reading = (done, total)


async def ready(asked: "Future[Answer]", seconds: float) -> Answer | None:
    """The answer if it comes within so many seconds; the computing goes on in any case."""
    waited = asyncio.wrap_future(asked)
    waited.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, whoever asks for it
    await asyncio.wait({waited}, timeout=seconds)
    try:
        return waited.result() if waited.done() else None
    except UserError:
        raise
    except Exception as error:  # it is in the log
        raise Refused(500, "failed", "the figures can't be computed; the server's log says why") from error


def _stand_back() -> None:
    """Let whoever votes go first: Linux has a priority for each thread, and DuckDB's threads inherit it."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


def _warm_up() -> None:
    for name in ("pyarrow.compute", "scipy.sparse.csgraph", "scipy.special", "scipy.stats"):
        import_module(name)
    report.load()
    review_plots.warm_up()


def _section(facts: Facts, id: str, scope: Scope) -> Shown:
    report.check_scope(facts, scope)
    return drawn(report.section(facts, scope, id))


def _late(facts: Facts, id: str, panel: str, scope: Scope) -> Shown | None:
    report.check_scope(facts, scope)
    made: Panel | None = report.late(facts, scope, id, panel)
    return None if made is None else drawn(Section(id, report.SECTIONS[id], (made,)))


def _whole(facts: Facts, id: str, scope: Scope) -> Section:
    report.check_scope(facts, scope)
    return report.whole(facts, scope, id)
