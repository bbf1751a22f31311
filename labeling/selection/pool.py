"""What choosing works on, read from the store: comparisons that wait, votes that were given, features of both.

    pool = read(store, run_id)                  # the newest features run; data.features.latest says which
    one = cast(pool, row)                       # a row of `votes`, as the learner takes it; None: it says nothing

Rows of features, not vectors, go around: a comparison of four is four numbers. Not here: what is made of it (learner.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.data import features
from palate.data.any_store import AnyStore

LARGEST = 20_000  # comparisons that are looked at; more come in as these are answered
REMEMBERED = 5_000  # votes that the head is made from, the latest
STRATEGIES = ("information", "dpo")  # what chosen comparisons are marked with
# characters that separate words, near enough for seconds
_WORDS = "length(m.text) - length(replace(m.text, ' ', '')) + 1"

_CANDIDATES = """
SELECT c.id, c.prompt_id, c.completion_ids
FROM comparison c
WHERE c.purpose IN ('train', 'random') AND c.reserved_for IS NULL
  AND c.id NOT IN (SELECT comparison_id FROM withheld)
  AND c.id NOT IN (SELECT comparison_id FROM assignment WHERE state = 'done')
ORDER BY c.priority DESC, md5(c.id) LIMIT ?
"""

_VOTES = """
WITH latest AS ({latest})
SELECT v.assignment_id, a.annotator_id, v.verdict, v.ranking, v.seconds_active,
       c.id AS comparison_id, c.prompt_id, c.completion_ids, c.strategy
FROM latest v JOIN assignment a ON a.id = v.assignment_id JOIN comparison c ON c.id = a.comparison_id
WHERE v.adjudicated IS NOT TRUE AND c.purpose IN ('train', 'random')
  AND v.id NOT IN (SELECT supersedes FROM vote WHERE supersedes IS NOT NULL)
ORDER BY v.created_at, v.id
"""
_LATEST = f"SELECT * FROM vote ORDER BY created_at DESC, id LIMIT {REMEMBERED}"
_THESE = "SELECT * FROM vote WHERE id IN (SELECT unnest(?::VARCHAR[]))"


@dataclass(frozen=True)
class Candidate:
    """A comparison that waits; `rows` of the features, in the order of its completions."""

    id: str
    prompt: str
    rows: tuple[int, ...]
    words: float  # of the completions


@dataclass(frozen=True)
class Cast:
    """A vote. `pairs`: (row of the winner, row of the loser, 1.0, or 0.5 after a tie)."""

    assignment: str
    annotator: str
    comparison: str
    prompt: str
    rows: tuple[int, ...]
    pairs: tuple[tuple[int, int, float], ...]
    best: int | None  # place in `rows`; None after a tie
    worst: int | None
    selected: bool
    words: float
    seconds: float | None


@dataclass(frozen=True)
class Pool:
    """Features (N, D) of completions, by their row; who waits and what was voted, oldest first."""

    run_id: str
    row: Mapping[str, int]
    words: NDArray[np.float64]  # (N,) of each completion
    matrix: NDArray[np.float32]
    waiting: tuple[Candidate, ...]
    votes: tuple[Cast, ...]
    missing: int  # comparisons that wait, but have a completion without features
    more: bool  # there are more than LARGEST


def read(store: AnyStore, run_id: str) -> Pool:
    """All of it; a few seconds where there is much."""
    waiting = store.rows(_CANDIDATES, [LARGEST])
    voted = store.rows(_VOTES.format(latest=_LATEST))
    wanted = sorted({one for row in (*waiting, *voted) for one in row["completion_ids"]})
    ids, matrix = features.read(store, run_id, wanted)
    counted = store.rows(
        f"SELECT m.id, {_WORDS} AS words FROM completion m WHERE m.id IN (SELECT unnest(?::VARCHAR[]))", [ids]
    )
    words = {row["id"]: float(row["words"]) for row in counted}
    row_of = {one: place for place, one in enumerate(ids)}
    shown = np.array([words.get(one, 0.0) for one in ids])
    known = [row for row in waiting if all(one in row_of for one in row["completion_ids"])]
    pool = Pool(
        run_id,
        row_of,
        shown,
        matrix,
        tuple(_candidate(row, row_of, shown) for row in known),
        (),
        len(waiting) - len(known),
        len(waiting) == LARGEST,
    )
    votes = tuple(one for row in voted if (one := cast(pool, row)) is not None)
    return Pool(**{**vars(pool), "votes": votes})


def votes_of(store: AnyStore, vote_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Rows for `cast`, of these votes as far as they stand."""
    return store.rows(_VOTES.format(latest=_THESE), [list(vote_ids)])


def cast(pool: Pool, row: Mapping[str, Any]) -> Cast | None:
    """A vote by rows of features; None where it orders nothing (skip, all bad) or a completion has no features."""
    if row["verdict"] not in ("ranked", "tie") or any(one not in pool.row for one in row["completion_ids"]):
        return None
    rows = tuple(pool.row[one] for one in row["completion_ids"])
    tiers = [[pool.row[one] for one in tier if one in pool.row] for tier in row["ranking"]]
    if row["verdict"] == "tie":
        tiers = [list(rows)]
    pairs = [
        (winner, loser, 1.0)
        for place, tier in enumerate(tiers)
        for worse in tiers[place + 1 :]
        for winner in tier
        for loser in worse
    ]
    pairs += [(a, b, 0.5) for tier in tiers for place, a in enumerate(tier) for b in tier[place + 1 :]]
    if not pairs:
        return None
    decided = len(tiers) > 1
    return Cast(
        row["assignment_id"], row["annotator_id"], row["comparison_id"], row["prompt_id"], rows, tuple(pairs),
        rows.index(tiers[0][0]) if decided else None, rows.index(tiers[-1][-1]) if decided else None,
        row["strategy"] in STRATEGIES, float(pool.words[list(rows)].sum()), row["seconds_active"],
    )  # fmt: skip


def _candidate(row: Mapping[str, Any], row_of: Mapping[str, int], words: NDArray[np.float64]) -> Candidate:
    rows = tuple(row_of[one] for one in row["completion_ids"])
    return Candidate(row["id"], row["prompt_id"], rows, float(words[list(rows)].sum()))
