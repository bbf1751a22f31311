"""How each annotator goes about it: ties, skips, flags, reasons, seconds, gold items, rankings left as they were shown.

Everything by code of the annotator, from a few grouped queries; seconds are the active ones, or the visible ones where
activity was not measured.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.data.facts import Facts
from palate.labeling.statistics.grouped import Floats, Ints, sums
from palate.labeling.statistics.judged import weight_of
from palate.labeling.statistics.scope import Scope

FLOOR = 2.0  # seconds in which nobody reads a prompt and two answers
BIN = 0.05  # of the logarithm of seconds: medians of many votes are good to 5 %
EXACT = 500_000  # votes up to which medians are exact
MOST = 2_000_000  # votes that coarse comparisons look at: beyond that, those on an even part of the items

_HABITS = """
SELECT annotator, count(*) AS votes, count(*) FILTER (verdict = 1) AS ties, count(*) FILTER (verdict = 2) AS all_bad,
       count(*) FILTER (verdict = 3) AS skips, count(*) FILTER (flagged) AS flags, count(*) FILTER (rationale) AS reasons,
       count(untouched) AS rankings, count(*) FILTER (untouched) AS untouched,
       count(coalesce(active, visible)) FILTER (verdict <> 3) AS timed,
       count(*) FILTER (coalesce(active, visible) < {floor} AND verdict <> 3) AS fast
FROM ballot b WHERE {where} AND NOT adjudicated GROUP BY annotator
"""

_SIDES = """
SELECT annotator, a_first = (grade > 0) AS first_won, of, count(*) AS n FROM judgement j
WHERE {where} AND NOT j.again AND NOT j.adjudicated AND NOT j.selected AND grade <> 0 AND a_first IS NOT NULL GROUP BY ALL
"""

_TIMED = "FROM ballot b WHERE {where} AND NOT adjudicated AND verdict <> 3 AND coalesce(active, visible) > 0"
_SECONDS = f"""
SELECT annotator, floor(ln(coalesce(active, visible)) / {{bin}})::INTEGER AS place, count(*) AS n {_TIMED} GROUP BY ALL
"""
_MEDIANS = f"SELECT annotator, median(coalesce(active, visible)) AS middle {_TIMED} GROUP BY annotator"
_DRIFT = f"""
SELECT annotator, regr_slope(ln(coalesce(active, visible)), epoch(moment)) * (max(epoch(moment)) - min(epoch(moment)))
       AS drift {_TIMED} GROUP BY annotator HAVING count(*) >= 20
"""
_PACE = (
    f"SELECT annotator, item, ln(coalesce(active, visible))::REAL AS log {_TIMED} AND b.item % {{every}} = 0"
)

# the known answer of a gold item: the last adjudicated vote, else the last vote of a lead
_GOLD_KEY = """
SELECT j.unit, sign(j.grade)::TINYINT AS won, j.annotator FROM judgement j JOIN annotator a ON a.code = j.annotator
WHERE j.purpose = 2 AND j.kind = 0 AND (j.adjudicated OR a.role IN ('lead', 'admin'))
QUALIFY row_number() OVER (PARTITION BY j.unit ORDER BY j.adjudicated DESC, j.rowid DESC) = 1
"""
_GOLD = f"""
SELECT j.annotator, j.of, j.grade AS won, sign(j.grade) = k.won AS right, count(*) AS n
FROM judgement j JOIN ({_GOLD_KEY}) k ON k.unit = j.unit AND k.annotator <> j.annotator
WHERE {{where}} AND j.purpose = 2 AND NOT j.again AND NOT j.adjudicated GROUP BY ALL
"""


@dataclass(frozen=True)
class People:
    """Who there is, by code. K = annotators."""

    id: list[str]
    name: list[str]


@dataclass(frozen=True)
class Habits:
    """Counts of votes. Without votes they are 0."""

    votes: Floats  # (K,)
    ties: Floats
    all_bad: Floats
    skips: Floats
    flags: Floats
    reasons: Floats
    rankings: Floats  # of three or more, whose order on the screen is known
    untouched: Floats  # of these, submitted as they were shown
    timed: Floats  # votes with measured seconds; skips left out
    fast: Floats  # of these, faster than FLOOR
    first: Floats  # weight of decisive votes for the completion shown first
    sided: Floats  # weight of decisive votes whose order on the screen is known


@dataclass(frozen=True)
class Seconds:
    """How long votes took."""

    median: Floats  # (K,) seconds; 0 without a measured vote
    counts: NDArray[np.int64]  # (B,) votes of everybody in bins of the logarithm
    edges: Floats  # (B + 1,) seconds


@dataclass(frozen=True)
class Pace:
    """Seconds beside the others' on the same items."""

    ratio: Floats  # (K,) geometric mean of own over others' seconds; 1 where unknown
    p: Floats  # (K,) one-sided p-value that they are as slow as the others (Student's t on logs); 1 where unknown
    n: Floats  # (K,) votes compared
    drift: Floats  # (K,) factor from the first to the last vote, fitted; 0 with fewer than 20 votes


@dataclass(frozen=True)
class Gold:
    """Answers to gold items beside the known one."""

    right: Floats  # (K,) weight
    n: Floats  # (K,) weight
    items: int  # gold items that were voted on
    known: int  # pairs of these with a known answer


def people(facts: Facts) -> People:
    """Everybody there is."""

    def read() -> People:
        rows = facts.rows("SELECT id, name FROM annotator ORDER BY code")
        return People([str(row["id"]) for row in rows], [str(row["name"]) for row in rows])

    return facts.remember(("people",), read)


def habits(facts: Facts, scope: Scope) -> Habits:
    """Of the annotators of a scope; counted once until a vote comes in."""
    return facts.remember(("habits", scope), lambda: _habits(facts, scope))


def seconds(facts: Facts, scope: Scope) -> Seconds:
    """Of the annotators of a scope; counted once until a vote comes in."""
    return facts.remember(("seconds", scope), lambda: _seconds(facts, scope))


def pace(facts: Facts, scope: Scope) -> Pace:
    """Of the annotators of a scope; beyond two million votes, on a part of the items."""
    return facts.remember(("pace", scope), lambda: _pace(facts, scope))


def gold(facts: Facts, scope: Scope) -> Gold:
    """Of the annotators of a scope; counted once until a vote comes in."""
    return facts.remember(("gold", scope), lambda: _gold(facts, scope))


def part_of(facts: Facts, scope: Scope) -> int:
    """n where only every n-th item is looked at, so that there are at most `MOST` votes."""
    return max(1, -(-int(habits(facts, scope).votes.sum()) // MOST))


def _by_person(facts: Facts, codes: Ints, values: Ints) -> Floats:
    return sums(codes, np.ma.filled(np.ma.asarray(values).astype(np.float64), 0.0), len(people(facts).id))


def _habits(facts: Facts, scope: Scope) -> Habits:
    where, params = scope.where("b")
    found = facts.columns(_HABITS.format(where=where, floor=FLOOR), params)
    names = (
        "votes",
        "ties",
        "all_bad",
        "skips",
        "flags",
        "reasons",
        "rankings",
        "untouched",
        "timed",
        "fast",
    )
    counts = {name: _by_person(facts, found["annotator"], found[name]) for name in names}
    where, params = scope.where("j")
    sides = facts.columns(_SIDES.format(where=where), params)
    weight = weight_of(sides["of"]) * sides["n"]
    return Habits(
        **counts,
        first=_by_person(facts, sides["annotator"], weight * sides["first_won"]),
        sided=_by_person(facts, sides["annotator"], weight),
    )


def _seconds(facts: Facts, scope: Scope) -> Seconds:
    where, params = scope.where("b")
    found = facts.columns(_SECONDS.format(where=where, bin=BIN), params)
    size = len(people(facts).id)
    if not len(found["place"]):
        return Seconds(np.zeros(size), np.zeros(0, np.int64), np.zeros(0))
    lowest = int(found["place"].min())
    place, width = found["place"] - lowest, int(found["place"].max()) - lowest + 1
    counts = sums(place, found["n"], width)
    edges = np.exp((lowest + np.arange(width + 1)) * BIN)
    if counts.sum() <= EXACT:
        exact = facts.columns(_MEDIANS.format(where=where), params)
        middle = _by_person(facts, exact["annotator"], exact["middle"])
    else:
        table = sums(found["annotator"].astype(np.int64) * width + place, found["n"], size * width)
        mass = table.reshape(size, width).cumsum(1)
        at = (mass < mass[:, -1:] / 2).sum(1)
        middle = np.where(mass[:, -1] > 0, np.sqrt(edges[at] * edges[np.minimum(at + 1, width)]), 0.0)
    return Seconds(middle, counts.astype(np.int64), edges)


def _pace(facts: Facts, scope: Scope) -> Pace:
    from scipy.special import stdtr

    where, params = scope.where("b")
    size = len(people(facts).id)
    votes = facts.columns(_PACE.format(where=where, every=part_of(facts, scope)), params)
    person, item, log = votes["annotator"], votes["item"], votes["log"].astype(np.float64)
    items = int(item.max(initial=-1)) + 1
    others_n = np.bincount(item, minlength=items)[item] - 1
    shared = others_n > 0
    person, item, log, others_n = person[shared], item[shared], log[shared], others_n[shared]
    gap = log - (sums(item, log, items)[item] - log) / others_n
    n = sums(person, np.ones(len(person)), size)
    mean = sums(person, gap, size) / np.maximum(n, 1)
    spread = sums(person, (gap - mean[person]) ** 2, size)
    error = np.sqrt(spread / np.maximum(n - 1, 1) / np.maximum(n, 1))
    known = n >= 20
    p = np.where(known, stdtr(np.maximum(n - 1, 1), mean / np.maximum(error, 1e-9)), 1.0)
    slope = facts.columns(_DRIFT.format(where=where), params)
    drift = np.zeros(size)
    drift[slope["annotator"]] = np.exp(np.clip(np.ma.filled(slope["drift"], 0.0), -5, 5))
    return Pace(np.where(known, np.exp(mean), 1.0), p, n, drift)


def _gold(facts: Facts, scope: Scope) -> Gold:
    where, params = scope.where("j")
    found = facts.columns(_GOLD.format(where=where), params)
    weight = weight_of(found["of"]) * found["n"]
    items = facts.value(
        f"SELECT count(DISTINCT item) FROM judgement j WHERE {where} AND j.purpose = 2", params
    )
    return Gold(
        _by_person(facts, found["annotator"], weight * found["right"]),
        _by_person(facts, found["annotator"], weight),
        int(items),
        int(facts.value(f"SELECT count(*) FROM ({_GOLD_KEY})")),
    )
