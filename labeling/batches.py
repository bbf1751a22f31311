"""What webhooks tell: votes in plain fields, and which batches (the comparisons of one run) are done."""

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import duckdb

from palate.data.records import Vote
from palate.data.store import Store
from palate.labeling.opening import Plan, overlap_of

_log = logging.getLogger(__name__)
REST = 20  # a look at the batches is followed by this many times as long without one: at most 5 % of a core

_COMPARISONS = """
SELECT c.id, c.run_id, c.overlap, c.reserved_for, count(v.id) AS answers
FROM comparison c
LEFT JOIN assignment a ON a.comparison_id = c.id
LEFT JOIN vote v ON v.assignment_id = a.id AND v.verdict <> 'skip' AND v.adjudicated IS NOT TRUE
     AND v.id NOT IN (SELECT supersedes FROM vote WHERE supersedes IS NOT NULL)
WHERE c.purpose IN ('train', 'random') AND c.run_id IN (SELECT unnest(?))
  AND c.id NOT IN (SELECT comparison_id FROM withheld)
GROUP BY ALL
"""

_RUNS = """
SELECT DISTINCT c.run_id FROM comparison c JOIN assignment a ON a.comparison_id = c.id
WHERE a.id IN (SELECT unnest(?)) AND c.run_id IS NOT NULL
"""

_ABOUT = """
SELECT a.id, a.comparison_id, c.prompt_id, c.run_id, c.purpose, p.messages
FROM assignment a JOIN comparison c ON c.id = a.comparison_id JOIN prompt p ON p.id = c.prompt_id
WHERE a.id IN (SELECT unnest(?))
"""

_TEXTS = """
SELECT a.id, m.id AS completion_id, m.text FROM assignment a, unnest(a.display_order) AS u(name)
JOIN completion m ON m.id = u.name WHERE a.id IN (SELECT unnest(?))
"""


def describe(store: Store, votes: Sequence[Vote], texts: bool) -> list[dict[str, Any]]:
    """Votes as a webhook tells them: no name of anybody; words of prompts, answers and people only with `texts`."""
    ids = [vote.assignment_id for vote in votes]
    about = {row["id"]: row for row in store.rows(_ABOUT, [ids])}
    found = []
    for vote in votes:
        row = about[vote.assignment_id]
        found.append(
            {
                "id": vote.id, "comparison": row["comparison_id"], "prompt": row["prompt_id"],
                "run": row["run_id"], "purpose": row["purpose"], "verdict": vote.verdict,
                "ranking": vote.ranking, "strength": vote.strength, "reason": vote.reason,
                "flags": vote.flags, "criteria": vote.criteria, "supersedes": vote.supersedes,
                "guideline_version": vote.guideline_version, "adjudicated": vote.adjudicated,
                "created_at": vote.created_at.isoformat() + "Z" if vote.created_at else None,
            }
        )  # fmt: skip
    if texts:
        answers: dict[str, dict[str, str]] = {}
        for row in store.rows(_TEXTS, [ids]):
            answers.setdefault(row["id"], {})[row["completion_id"]] = row["text"]
        for vote, one in zip(votes, found, strict=True):
            one["messages"] = json.loads(about[vote.assignment_id]["messages"])
            one["answers"] = answers.get(vote.assignment_id, {})
            one["rationale"], one["edited_text"] = vote.rationale, vote.edited_text
    return found


class Batches:
    """Tells once when every comparison of a run has its answers. Looks after votes, in a thread of its own.

    Runs that are done when the server starts are not told again; one that is done while the server is down is not
    told at all.
    """

    def __init__(self, store: Store, overlap: int, share: float) -> None:
        self._store, self._plan = store, Plan(overlap, share)
        self._voted: list[str] = []  # assignments with new votes
        self._told: set[str] = set()
        self._wake, self._ending = threading.Condition(), threading.Event()

    def watch(self, tell: Callable[[dict[str, Any]], None]) -> None:
        """From now on `tell` is called with every batch that gets done."""
        runs = [row["run_id"] for row in self._store.rows("SELECT DISTINCT run_id FROM comparison")]
        self._told = {run for run, left in self._left([run for run in runs if run]).items() if left[0] == 0}
        threading.Thread(target=self._run, args=(tell,), name="palate-batches", daemon=True).start()

    def note(self, assignments: Sequence[str]) -> None:
        """These assignments have new votes; returns at once."""
        with self._wake:
            self._voted.extend(assignments)
            self._wake.notify()

    def close(self) -> None:
        """End the thread."""
        with self._wake:
            self._ending.set()
            self._wake.notify()

    def _run(self, tell: Callable[[dict[str, Any]], None]) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._ending.is_set() or self._voted)
                if self._ending.is_set():
                    return
                voted, self._voted = self._voted, []
            began = time.monotonic()
            try:
                self._look(voted, tell)
            except duckdb.Error:
                if self._ending.is_set():
                    return
                _log.exception("a look at the batches failed; the next vote in them brings another")
            pause = REST * (time.monotonic() - began)
            self._ending.wait(pause)

    def _look(self, voted: Sequence[str], tell: Callable[[dict[str, Any]], None]) -> None:
        runs = {row["run_id"] for row in self._store.rows(_RUNS, [voted])} - self._told
        for run, (left, comparisons, answers) in self._left(sorted(runs)).items():
            if left == 0:
                self._told.add(run)
                tell({"run": run, "comparisons": comparisons, "answers": answers})

    def _left(self, runs: Sequence[str]) -> dict[str, tuple[int, int, int]]:
        """By run: comparisons that await answers, comparisons, answers."""
        found: dict[str, tuple[int, int, int]] = {}
        for row in self._store.rows(_COMPARISONS, [list(runs)]) if runs else []:
            wanted = overlap_of(self._plan, row["id"], row["overlap"], row["reserved_for"])
            left, comparisons, answers = found.get(row["run_id"], (0, 0, 0))
            missing = int(row["answers"] < wanted)
            found[row["run_id"]] = (left + missing, comparisons + 1, answers + row["answers"])
        return found
