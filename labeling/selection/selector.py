"""Choosing while people vote: a thread learns from each vote and keeps a ranking; a claim takes its best.

    selector = Selector(store, Settings("information"))
    selector.start(); desk.on_votes.append(selector.heard)     # the server: nobody waits for what is computed
    selector.learn(votes); selector.refresh()                  # a simulation: the same, at once

    pick = selector.pick(person, random.Random(), at_work)     # None: by chance, as without a selector
    content = pick.given(content, waiting)                     # it is out: the next ranking counts it as answered

Whatever goes wrong here is logged and told (`state`), and comparisons come by chance: nobody is kept from voting.
"""

import logging
import random
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from palate.config import UserError
from palate.data import features
from palate.data.records import Vote
from palate.data.store import Store
from palate.labeling.contents import Content
from palate.labeling.selection import pool as pools
from palate.labeling.selection.control import LATEST
from palate.labeling.selection.learner import Learner, Ranking, Settings

_log = logging.getLogger(__name__)
LEAST_RANDOM = 0.05  # by chance at least: what is known about people and models rests on it
POLL = 20.0  # seconds between two looks whether there are new comparisons or features
FORGOTTEN = 3600.0  # seconds after which a comparison that is out counts as not answered after all


# no repeats and no live comparisons, of which there is a new one at any time
_SIZES = """
SELECT (SELECT count(*) FROM comparison WHERE purpose IN ('train', 'random') AND reserved_for IS NULL) AS comparisons,
       (SELECT count(*) FROM feature) AS features
"""


@dataclass(frozen=True)
class Pick:
    """Comparison ids, best first; empty: one by chance. `share` of all are given by chance, of `waiting`."""

    order: tuple[str, ...]
    strategy: str
    share: float
    taken: Callable[[str], None] = lambda _: None  # told the comparison that was given

    def given(self, content: Content, waiting: int) -> Content:
        """The comparison with how it came to be given, for the first time: by strategy or by chance, and with which
        probability at this moment, of all `waiting` comparisons."""
        name, by_chance = content.comparison.id, self.share / max(waiting, 1)
        chosen = name in self.order
        propensity = min(1.0, 1 - self.share + by_chance) if chosen else by_chance
        marked = replace(
            content.comparison, strategy=self.strategy if chosen else "random", propensity=propensity
        )
        self.taken(name)
        return replace(content, comparison=marked)


class Selector:
    """Owns the learner; everything but `_learner` may be used from any thread."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.settings = settings
        self._store = store
        self._learner: Learner | None = None
        self._pool: pools.Pool | None = None
        self._waiting: dict[str, pools.Candidate] = {}
        self._ranking = Ranking()
        self._share = 1.0
        self._why_not = "the completions are being read"
        self._sizes = (-1, -1)  # comparisons and features when the pool was read
        self._look_at = 0.0  # when to look at them again
        self._lock = threading.Lock()  # of the four below
        self._heard: list[str] = []  # votes that nothing was learned from yet
        self._out: OrderedDict[str, float] = OrderedDict()
        self._stale = True
        self._closed = False
        self._wake = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self.milliseconds: deque[float] = deque(maxlen=500)  # of learning from one vote and ranking anew

    # -- from the desk and the writer ------------------------------------------------------------------------

    def pick(self, person: str, rng: random.Random, at_work: Sequence[str] = ()) -> Pick | None:
        """How the next comparison of this annotator is found; None while nothing can be chosen."""
        learner, share, ranking = self._learner, self._share, self._ranking
        if learner is None or share >= 1 or not ranking.ids:
            return None
        if rng.random() < share:
            return Pick((), self.settings.rule, share, self.taken)
        return Pick(learner.routed(ranking, person, at_work), self.settings.rule, share, self.taken)

    def taken(self, comparison_id: str) -> None:
        """Somebody has it before them."""
        with self._wake:
            self._out[comparison_id] = time.monotonic()
            self._stale = True
            self._wake.notify()

    def heard(self, votes: Sequence[Vote]) -> None:
        """Votes are durable; a listener of the desk."""
        with self._wake:
            self._heard += [vote.id for vote in votes]
            self._wake.notify()

    # -- the work --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Learn and rank in a thread from now on."""
        self._thread = threading.Thread(target=self._run, name="palate-selector", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread. The store may be closed then."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()

    def refresh(self) -> None:
        """Learn from what was heard and rank anew, now. Raises what the store or the features raise."""
        if self._grown():
            self._open()
        with self._lock:
            heard, self._heard = self._heard, []
            old = time.monotonic() - FORGOTTEN
            self._out = OrderedDict((name, when) for name, when in self._out.items() if when > old)
            stale, self._stale = self._stale or bool(heard), False
        learner, pool = self._learner, self._pool
        if learner is None or pool is None or not stale:
            return
        began = time.perf_counter()
        for row in pools.votes_of(self._store, heard) if heard else ():
            vote = pools.cast(pool, row)
            with self._lock:
                self._out.pop(row["comparison_id"], None)
            self._waiting.pop(row["comparison_id"], None)
            if vote is not None:
                learner.learn(vote)
        self._rank(learner)
        self.milliseconds.append(1000 * (time.perf_counter() - began))
        if learner.due:  # takes longer, and meanwhile there is a ranking
            learner.refit()
            self._rank(learner)

    @property
    def missing(self) -> str | None:
        """Why nothing can be chosen, whatever votes say; None when it can."""
        return self._why_not if self._learner is None else None

    def state(self) -> dict[str, Any]:
        """For leads: what is done and why, and the figures of the control."""
        learner, pool = self._learner, self._pool
        found = {"rule": self.settings.rule, "choosing": learner is not None and self._share < 1,
                 "notice": self.notice(), "share_by_chance": self._share, "waiting": len(self._waiting),
                 "without_features": pool.missing if pool else 0, "features": pool.run_id if pool else None}  # fmt: skip
        if learner is not None:
            verdict = learner.verdict
            found |= {"votes": learner.votes, "reason": verdict.reason, "skill": verdict.skill,
                      "gain": verdict.gain, "gain_low": verdict.gain_low, "annotators_known": len(learner.eta)}  # fmt: skip
        return found

    def notice(self) -> str:
        """One or two sentences on what is going on."""
        learner = self._learner
        if learner is None:
            return f"Comparisons come by chance: {self._why_not}."
        verdict, share = learner.verdict, round(100 * self._share)
        if self.settings.control and not verdict.on:
            return f"Choosing is off, comparisons come by chance: {_REASONS[verdict.reason].format(verdict=verdict)}"
        what = (
            "what a reward model learns most from" if self.settings.rule == "information" else "pairs for DPO"
        )
        if self.settings.control and verdict.votes < LATEST:
            return (
                f"Choosing {what}, {share} % by chance until {LATEST} votes ({verdict.votes} so far) have shown "
                "whether that helps."
            )
        return f"Choosing {what}; {share} % come by chance."

    # -- inside ----------------------------------------------------------------------------------------------

    def _rank(self, learner: Learner) -> None:
        with self._lock:
            out = dict.fromkeys(self._out)
        self._share = learner.share
        if self._share < 1:
            waiting = [one for one in self._waiting.values() if one.id not in out]
            self._ranking = learner.ranking(
                waiting, [self._waiting[name] for name in out if name in self._waiting]
            )

    def _run(self) -> None:
        while True:
            try:
                self.refresh()
            except Exception as error:  # noqa: BLE001 - whatever it is, people go on voting
                why = str(error) if isinstance(error, UserError) else "choosing failed, see the log"
                if not self._closed and why != self._why_not:  # once, not at every look
                    _log.exception("choosing failed, comparisons come by chance")
                self._learner, self._share, self._why_not = None, 1.0, why
                self._sizes = (-1, -1)  # it may be put right without a change of how many there are
            with self._wake:
                if not (self._closed or self._heard or self._stale):
                    self._wake.wait(POLL)
                if self._closed:
                    return
                if self._learner is None:
                    self._wake.wait(POLL)  # nothing can be learned: look again later, whatever is heard

    def _grown(self) -> bool:
        """Whether there are comparisons or features that the pool has not, or it has run low; now and then."""
        if time.monotonic() < self._look_at:
            return False
        self._look_at = time.monotonic() + POLL
        row = self._store.rows(_SIZES)[0]
        sizes = (int(row["comparisons"]), int(row["features"]))
        low = self._pool is not None and self._pool.more and len(self._waiting) < pools.LARGEST // 4
        grown = sizes != self._sizes or low
        self._sizes = sizes
        return grown

    def _open(self) -> None:
        """Read all of it and learn from every vote that there is."""
        run_id = features.latest(self._store)
        if run_id is None:
            self._learner, self._share = None, 1.0
            self._why_not = "no completion has features yet (palate reward features)"
            return
        with self._lock:
            self._heard = []  # they are in what is read now
        pool = pools.read(self._store, run_id)
        learner = Learner(pool, self.settings)
        self._pool, self._waiting = pool, {one.id: one for one in pool.waiting}
        self._learner, self._share, self._why_not = learner, learner.share, ""
        with self._lock:
            self._stale = True


def check_selection(rule: str, random_share: float, diversity: float) -> None:
    """Whether these settings make sense; a UserError says which does not."""
    if not LEAST_RANDOM <= random_share <= 1:
        raise UserError(f"--random-share takes {LEAST_RANDOM} to 1, got {random_share}")
    if not 0 <= diversity <= 10:
        raise UserError(f"--diversity takes 0 to 10, got {diversity}")
    if diversity and rule != "information":
        raise UserError("--diversity goes with --select information")


_REASONS = {
    "skill": "after {verdict.votes} votes they do not go where features would say ({verdict.skill:.1f} standard errors).",
    "yield": "chosen comparisons were not more open than others ({verdict.gain:.2f} times, at least {verdict.gain_low:.2f}).",
    "harm": "votes on chosen comparisons foretell other votes worse than votes by chance do.",
}
