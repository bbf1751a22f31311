"""What is open when the server starts: the queue and everybody's items, read from the store."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from palate.data.records import Assignment, Vote
from palate.data.store import Store
from palate.labeling.recall import to_vote_record
from palate.labeling.worklist import Work


@dataclass(frozen=True)
class Plan:
    """How work is handed out."""

    overlap: int = 1  # answers per comparison, at least ...
    overlap_share: float = 1.0  # ... on this share of them, chosen by hash; the others keep their own number
    lease_seconds: float = 600.0
    repeat_share: float = 0.0
    gold_share: float = 0.0


@dataclass(frozen=True)
class Opening:
    """What `read` finds."""

    works: list[Work]
    gold: dict[str, Work]
    held: dict[str, list[tuple[Assignment, Vote | None]]]  # annotator -> open items, oldest first


_STANDING = "v.id NOT IN (SELECT supersedes FROM vote WHERE supersedes IS NOT NULL)"

# comparisons that may still await answers: `$1` is the overlap that the plan asks for
_WORKS = f"""
WITH voted AS (
    SELECT a.comparison_id, count(*) AS answers
    FROM vote v JOIN assignment a ON a.id = v.assignment_id
    WHERE v.verdict <> 'skip' AND v.adjudicated IS NOT TRUE AND {_STANDING}
    GROUP BY a.comparison_id
)
SELECT c.id, c.priority, c.overlap, c.purpose, c.reserved_for, coalesce(v.answers, 0) AS answers
FROM comparison c LEFT JOIN voted v ON v.comparison_id = c.id
WHERE c.id NOT IN (SELECT comparison_id FROM withheld)
  AND (c.purpose = 'gold'
       OR ((c.purpose IN ('train', 'random') OR c.reserved_for IS NOT NULL)
           AND coalesce(v.answers, 0) < greatest(c.overlap, $1)))
  AND ($2 IS NULL OR c.id IN (SELECT unnest($2::VARCHAR[])))
ORDER BY md5(c.id)
"""

_GIVEN = "SELECT comparison_id, annotator_id FROM assignment WHERE comparison_id IN (SELECT unnest(?)) AND state <> ?"

_HELD = f"""
SELECT a.*, v AS vote
FROM assignment a
LEFT JOIN vote v ON v.assignment_id = a.id AND {_STANDING}
JOIN comparison c ON c.id = a.comparison_id
WHERE a.state = 'open'
ORDER BY v.id IS NULL, c.strategy <> 'live', a.created_at, a.rowid -- as they were: taken back, live, then as leased
"""

_AUTHORS = """
SELECT DISTINCT c.id, coalesce(n.id, m.meta ->> '$.author') AS author
FROM comparison c, unnest(c.completion_ids) AS u(completion_id)
JOIN completion m ON m.id = u.completion_id AND m.role IN ('demonstration', 'edit')
LEFT JOIN annotator n ON n.name = m.model OR n.id = m.meta ->> '$.author'
WHERE c.id IN (SELECT unnest(?)) AND coalesce(n.id, m.meta ->> '$.author') IS NOT NULL
"""


def read(store: Store, plan: Plan, running: Mapping[tuple[str, str], float] | None = None) -> Opening:
    """All that is open now.

    At a start every lease of the database is prolonged, so that a restart takes nobody's item away. Later `running`
    says which leases run, by (comparison, annotator), and to when: others have run out, and the slot of such an item is
    free until somebody takes it, perhaps the same annotator.
    """
    works, gold = works_of(store, plan)
    rows = [{**row, "vote": to_vote_record(row["vote"]) if row["vote"] and row["vote"]["id"] else None}
            for row in store.rows(_HELD)]  # fmt: skip
    _lease(works, [row for row in rows if row["vote"] is None], time.time() + plan.lease_seconds, running)
    held: dict[str, list[tuple[Assignment, Vote | None]]] = {}
    for row in rows:
        vote = row["vote"]
        work = works.get(row["comparison_id"])
        if row["comparison_id"] in gold:
            _see(gold[row["comparison_id"]], row["annotator_id"])
        elif vote is None and work is None:
            continue  # others have filled it meanwhile
        elif vote is None and work is not None and _too_late(work, row["annotator_id"]):
            _see(work, row["annotator_id"])
            continue
        assignment = Assignment(
            row["comparison_id"], row["annotator_id"], tuple(row["display_order"]), "open", row["leased_until"],
            id=row["id"],
        )  # fmt: skip
        held.setdefault(row["annotator_id"], []).append((assignment, vote))
    return Opening(list(works.values()), gold, held)


def works_of(
    store: Store, plan: Plan, comparison_ids: Sequence[str] | None = None
) -> tuple[dict[str, Work], dict[str, Work]]:
    """(comparisons that await answers, gold questions) by id: all of them, or of these."""
    found = store.rows(_WORKS, [plan.overlap, None if comparison_ids is None else list(comparison_ids)])
    works = {row["id"]: _work(row, plan) for row in found}
    gold = {row["id"]: works.pop(row["id"]) for row in found if row["purpose"] == "gold"}
    works = {name: work for name, work in works.items() if work.answers < work.overlap}
    _shut(store, {**works, **gold}, given_but="open")
    return works, gold


def _lease(
    works: Mapping[str, Work],
    rows: list[dict[str, Any]],
    until: float,
    running: Mapping[tuple[str, str], float] | None,
) -> None:
    """Who holds a slot of which work; where there are more who were given an item than slots, who was given it last."""
    rows = sorted(rows, key=lambda row: row["leased_until"] or datetime.min, reverse=True)
    for row in rows:
        work, person = works.get(row["comparison_id"]), row["annotator_id"]
        end = until if running is None else running.get((row["comparison_id"], person))
        if work is not None and end is not None and work.taken < work.overlap:
            work.leases = {**(work.leases or {}), person: end}


def read_one(store: Store, plan: Plan, comparison_id: str) -> Work | None:
    """The work of one comparison that had left the queue; None when it awaits nothing."""
    rows = store.rows(_WORKS, [max(plan.overlap, 10**6), [comparison_id]])
    if not rows:
        return None
    work = _work(rows[0], plan)
    _shut(store, {work.id: work}, given_but="")
    return work


def overlap_of(plan: Plan, comparison_id: str, own: int, reserved_for: str | None) -> int:
    """How many answers a comparison awaits: its own number, or the plan's when that is more and it is chosen."""
    chosen = reserved_for is None and _share(comparison_id) < plan.overlap_share
    return max(own, plan.overlap) if chosen else own


def _work(row: dict[str, object], plan: Plan) -> Work:
    name, own = str(row["id"]), int(str(row["overlap"]))
    reserved = str(row["reserved_for"]) if row["reserved_for"] is not None else None
    overlap = overlap_of(plan, name, own, reserved)
    return Work(name, int(str(row["priority"])), overlap, int(str(row["answers"])), reserved_for=reserved)


def _shut(store: Store, works: dict[str, Work], given_but: str) -> None:
    """Note on every work who is not asked: who was given it (but in state `given_but`), who wrote an answer."""
    names = list(works)
    if not names:
        return
    for row in store.rows(_GIVEN, [names, given_but]):
        _see(works[row["comparison_id"]], row["annotator_id"])
    for row in store.rows(_AUTHORS, [names]):
        work = works[row["id"]]
        work.authors = work.authors | {row["author"]}


def _too_late(work: Work, person: str) -> bool:
    """Whether others have all slots."""
    return person not in (work.leases or ()) and work.taken >= work.overlap


def _see(work: Work, person: str) -> None:
    work.seen = {*(work.seen or ()), person}


def _share(name: str) -> float:
    """A number in 0..1 by hash: which comparisons get the plan's overlap does not depend on their order."""
    return int(hashlib.sha256(f"overlap:{name}".encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
