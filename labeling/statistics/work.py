"""How much work is left, and who holds what now: read from the project's database, since open items are no facts.

What awaits answers is what the queue hands out (`labeling.opening`): comparisons for training and random checks, and
those reserved for one person, that are not withheld and have fewer answers than their overlap. An answer is a
standing vote of whatever kind of annotator but a skip; an adjudication fills no slot.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
import pyarrow as pa

from palate.data.facts import Facts
from palate.labeling.statistics.scope import Scope

Sort = Literal["train", "random", "reserved"]

# ids meet as their hashes, which the two databases compute alike. The share is opening.overlap_of's.
_WORK = """
WITH work AS (
    SELECT q.source, CASE WHEN c.reserved_for IS NOT NULL THEN 'reserved' ELSE c.purpose END AS sort, w.reason,
           CASE WHEN c.reserved_for IS NULL AND ($share >= 1 OR
                     ('0x' || sha256('overlap:' || c.id)[1:8])::UBIGINT / 4294967295 < $share)
                THEN greatest(c.overlap, $overlap) ELSE c.overlap END AS wanted, coalesce(a.answers, 0) AS answers
    FROM comparison c
    JOIN prompt q ON q.id = c.prompt_id
    LEFT JOIN answered a ON a.code = hash(c.id)
    LEFT JOIN withheld w ON w.comparison_id = c.id
    WHERE (c.purpose IN ('train', 'random') OR c.reserved_for IS NOT NULL)
      AND ($source IS NULL OR q.source = $source) AND ($tag IS NULL OR list_contains(q.tags, $tag))
)
SELECT source, sort, reason, count(*) AS comparisons, count(*) FILTER (answers >= wanted) AS done,
       sum(least(answers, wanted))::BIGINT AS given, sum(wanted - least(answers, wanted))::BIGINT AS awaited
FROM work GROUP BY ALL ORDER BY ALL
"""

_ANSWERS = "SELECT item FROM ballot WHERE verdict <> 3 AND NOT adjudicated"
_OPEN = "SELECT count(*) FROM assignment WHERE state = 'open'"

_LEASES = """
SELECT n.name AS annotator, c.id AS comparison, c.purpose, q.source, q.messages ->> '$[#-1].content' AS prompt,
       s.created_at AS opened, s.leased_until AS until, s.annotator_id AS who
FROM (SELECT * FROM assignment WHERE state = 'open') s
JOIN annotator n ON n.id = s.annotator_id
JOIN comparison c ON c.id = s.comparison_id
JOIN prompt q ON q.id = c.prompt_id
WHERE ($1 IS NULL OR q.source = $1) AND ($2 IS NULL OR list_contains(q.tags, $2))
ORDER BY s.created_at DESC, n.name, c.id
"""

# of these people and items, who has a standing vote on which: it was taken back and waits for the new one
_CHANGING = """
SELECT DISTINCT n.id AS who, i.id AS comparison FROM ballot b
JOIN (SELECT code, id FROM annotator WHERE id IN (SELECT unnest(?::VARCHAR[]))) n ON n.code = b.annotator
JOIN (SELECT code, id FROM item WHERE id IN (SELECT unnest(?::VARCHAR[]))) i ON i.code = b.item
WHERE NOT b.adjudicated
"""


@dataclass(frozen=True)
class Work:
    """Comparisons of one source and sort; `withheld` says why these are not shown."""

    source: str
    sort: Sort
    withheld: str | None
    comparisons: int
    done: int  # of them have all answers
    given: int  # answers that fill a slot
    awaited: int  # answers that are still missing


@dataclass(frozen=True)
class Lease:
    """An item that somebody has before them."""

    annotator: str
    comparison: str
    purpose: str
    source: str
    prompt: str
    opened: datetime  # UTC
    until: (
        datetime | None
    )  # as stored when the item was handed out; a page that is alive prolongs it in memory
    changing: bool  # its vote was taken back and stands until it is answered anew


def work_left(facts: Facts, scope: Scope) -> list[Work]:
    """How far the comparisons of a scope's source and tag are. Days and kinds of annotators make no difference."""
    key = ("work_left", scope.source, scope.tag, facts.overlap)
    return facts.remember(key, lambda: _work_left(facts, scope))


def _work_left(facts: Facts, scope: Scope) -> list[Work]:
    codes = facts.columns("SELECT hash(id) AS code FROM item ORDER BY item.code")["code"]
    answers = np.bincount(
        facts.columns(_ANSWERS)["item"], minlength=len(codes)
    )  # half the time of a GROUP BY
    answered = pa.table({"code": codes, "answers": answers})
    asked = {"overlap": facts.overlap[0], "share": facts.overlap[1], "source": scope.source, "tag": scope.tag}
    with facts.store.reader() as cursor:
        cursor.register("answered", answered)
        rows = cursor.execute(_WORK, asked).fetchall()
        cursor.unregister("answered")
    return [Work(*row) for row in rows]


def leases(facts: Facts, scope: Scope | None = None) -> list[Lease]:
    """Who holds which item now, the latest first, on prompts of the scope's source and tag."""
    scope, store = scope or Scope(), facts.store
    if not store.value(_OPEN):  # where nobody holds anything, no vote need be looked at
        return []
    held = store.rows(_LEASES, [scope.source, scope.tag])
    asked = [[row["who"] for row in held], [row["comparison"] for row in held]]
    changing = {(row["who"], row["comparison"]) for row in facts.rows(_CHANGING, asked)}
    for row in held:
        row["changing"] = (row.pop("who"), row["comparison"]) in changing
    return [Lease(**row) for row in held]
