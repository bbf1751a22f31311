"""What a saved view keeps of the votes, and what that does to agreement and to length: figures from the facts.

The same rules as `palate.data.view_rows`, which makes the rows that training takes, over the facts: quick with ten
million votes. Agreement is the share of pairs of votes on the same two completions that say the same; second answers
of an annotator and adjudicated votes are no part of it. The share won by the longer one is over the pairs that are
decided, as training weighs them.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from palate.data.facts import Facts
from palate.data.training_views import KINDS, Definition, View
from palate.data.view_rows import CLOSE, mean_and_best

PURPOSES = ("train", "random", "gold", "repeat", "eval")  # their codes in the facts: 0 to 4


@dataclass(frozen=True)
class Kept:
    """What training takes: rows, and how they are."""

    comparisons: int
    pairs: int  # that have a label; one per vote, or under `majority` one per pair of completions
    votes: int  # that gave a label
    agreement: float | None  # 0..1; None: no pair of completions has two votes
    agreed_on: int  # pairs of votes on the same two completions
    longer: float | None  # 0..1, weighted; None: no decided pair of different lengths
    longer_of: int  # decided pairs of different lengths


@dataclass(frozen=True)
class Effect:
    """A view beside what training takes without one."""

    before: Kept
    after: Kept


def effect(facts: Facts, view: View) -> Effect:
    """What a view keeps; each side is computed once until a vote comes in."""
    return Effect(kept(facts, View("")), kept(facts, view))


def kept(facts: Facts, view: View) -> Kept:
    """What training takes under a view."""
    made = json.dumps([view.definition.as_dict(), view.weights and dict(view.weights)], sort_keys=True)
    key = hashlib.sha256(made.encode()).hexdigest()
    return facts.remember(("view", key), lambda: _kept(facts, view))


_COUNTING = """
counting AS (
    SELECT j.unit, j.item, j.vote, j.of, j.grade, j.adjudicated, j.again OR j.adjudicated AS apart, {weight} AS weight
    FROM judgement j{join} WHERE {where}
)"""
_UNITS = """
units AS (
    SELECT unit, any_value(item) AS item, count(*) FILTER (grade > 0) AS a, count(*) FILTER (grade < 0) AS b,
           count(*) FILTER (grade = 0) AS t, bool_or(adjudicated) AS adjudicated{more}
    FROM counting GROUP BY unit
)"""
_WEIGHTS = """, coalesce(sum(weight / of) FILTER (grade > 0), 0) AS weight_a,
           coalesce(sum(weight / of) FILTER (grade < 0), 0) AS weight_b"""
_OWN = """, count(*) FILTER (grade > 0 AND NOT apart) AS own_a, count(*) FILTER (grade < 0 AND NOT apart) AS own_b,
           count(*) FILTER (grade = 0 AND NOT apart) AS own_t"""
_BY_VOTE = """
kept AS (
    SELECT unit, item, a + b + {t} AS pairs, a + b AS decided, a + b + {t} AS votes, weight_a, weight_b, {own}
    FROM units WHERE {where}
)"""
# the label of a pair: 1 a, -1 b, 0 a tie
_BY_MAJORITY = """
labelled AS (
    SELECT *, CASE WHEN a > greatest(b, t) THEN 1 WHEN b > greatest(a, t) THEN -1 ELSE 0 END AS label,
           t > greatest(a, b) AS tied, 1.0 / count(*) OVER (PARTITION BY item) AS part
    FROM units
),
kept AS (
    SELECT unit, item, 1 AS pairs, abs(label) AS decided,
           CASE WHEN label > 0 THEN a WHEN label < 0 THEN b WHEN tied THEN t ELSE a + b + t END AS votes,
           part * (label > 0)::INTEGER AS weight_a, part * (label < 0)::INTEGER AS weight_b, {own}, label, tied
    FROM labelled WHERE {where}
)"""
_SUMS = """
SELECT coalesce(sum(k.pairs), 0)::BIGINT AS pairs, count(DISTINCT k.item) FILTER (k.pairs > 0) AS comparisons,
       coalesce(sum(k.votes) FILTER (i.answers = 2), 0)::BIGINT AS votes,
       coalesce(sum(own_a * (own_a - 1) + own_b * (own_b - 1) + own_t * (own_t - 1)), 0)::BIGINT AS alike,
       coalesce(sum((own_a + own_b + own_t) * (own_a + own_b + own_t - 1)), 0)::BIGINT AS compared,
       sum(CASE WHEN u.log_length > 0 THEN k.weight_a WHEN u.log_length < 0 THEN k.weight_b END) AS longer,
       sum(CASE WHEN u.log_length <> 0 THEN k.weight_a + k.weight_b END) AS uneven,
       coalesce(sum(CASE WHEN u.log_length <> 0 THEN k.decided END), 0)::BIGINT AS uneven_pairs
FROM kept k JOIN unit u ON u.code = k.unit JOIN item i ON i.code = k.item
"""
_LARGE = "j.item IN (SELECT code FROM item WHERE answers > 2)"  # where a vote may decide several pairs
_VOTES = "SELECT count(DISTINCT c.vote) FROM counting c JOIN kept k ON k.unit = c.unit WHERE {behind}"


def _kept(facts: Facts, view: View) -> Kept:
    asked = view.definition
    enough, level = _agreeing(asked)
    # where an annotator's first answer alone counts, only an adjudicated one is no part of agreement
    own = ", ".join(
        f"CASE WHEN adjudicated THEN 0 ELSE {name} END AS own_{name}" if asked.decided else f"own_{name}"
        for name in "abt"
    )
    more = "" if asked.decided else _OWN
    if asked.aggregation == "majority":
        ties = "" if asked.ties else " AND label <> 0"
        step = _BY_MAJORITY.format(where=enough + ties, own=own)
        behind = "CASE WHEN k.label <> 0 THEN sign(c.grade) = k.label ELSE c.grade = 0 OR NOT k.tied END"
    else:
        more += _WEIGHTS
        if not asked.ties:
            own = own.rpartition(", ")[0] + ", 0 AS own_t"
        step = _BY_VOTE.format(where=enough, own=own, t="t" if asked.ties else "0")
        behind = "true" if asked.ties else "c.grade <> 0"
    steps = f",{_UNITS.format(more=more)},{step}"
    counting, params = _counting(view)
    row = facts.rows(f"WITH {counting}{steps}{_SUMS}", [*params, *level])[0]
    votes = int(row["votes"])
    if facts.value("SELECT count(*) FROM item WHERE answers > 2"):
        counting, params = _counting(view, _LARGE)
        votes += facts.value(f"WITH {counting}{steps}{_VOTES.format(behind=behind)}", [*params, *level])
    return Kept(
        int(row["comparisons"]), int(row["pairs"]), votes,
        row["alike"] / row["compared"] if row["compared"] else None, int(row["compared"]) // 2,
        float(row["longer"] or 0) / float(row["uneven"]) if row["uneven"] else None, int(row["uneven_pairs"]),
    )  # fmt: skip


def _counting(view: View, among: str = "true") -> tuple[str, list[Any]]:
    """The judgements that count, `among` those that this condition leaves, and the parameters of that."""
    asked = view.definition
    where, values = _votes(asked, "j")
    where.append(among)
    join, weight, given = "", "1.0", list[Any]()
    if asked.aggregation == "reliability" and view.weights:
        mean, best = mean_and_best(view.weights)
        table = "SELECT unnest(?::VARCHAR[]) AS id, unnest(?::DOUBLE[]) AS weight"
        join = (
            f" LEFT JOIN (SELECT n.code, w.weight FROM ({table}) w JOIN annotator n ON n.id = w.id) w"
            " ON w.code = j.annotator"
        )
        weight = (
            f"CASE WHEN j.adjudicated THEN {best!r}::DOUBLE ELSE coalesce(w.weight, {mean!r}::DOUBLE) END"
        )
        given = [list(view.weights), list(view.weights.values())]
        where.append(f"{weight} > 0")
    if asked.min_strength is not None:
        unknown = " OR abs(j.grade) = 4" if asked.unknown_strength else ""
        where.append(f"(j.grade = 0 OR abs(j.grade) BETWEEN {asked.min_strength:d} AND 3{unknown})")
    if asked.decided:
        conditions, also = _votes(asked, "b")
        decided = f"SELECT b.item FROM ballot b WHERE b.adjudicated AND b.verdict <> 3 AND {' AND '.join(conditions)}"
        where.append(f"(j.adjudicated OR (NOT j.again AND j.item NOT IN ({decided})))")
        values += also
    return _COUNTING.format(weight=weight, join=join, where=" AND ".join(where)), [*given, *values]


def _votes(asked: Definition, table: str) -> tuple[list[str], list[Any]]:
    """Which votes count, for an alias of judgement or ballot: (conditions, the values of their question marks)."""
    conditions = [f"{table}.purpose IN ({', '.join(str(PURPOSES.index(one)) for one in asked.purposes)})"]
    values = list[Any]()
    if asked.kinds:
        conditions.append(f"{table}.kind IN ({', '.join(str(KINDS.index(one)) for one in asked.kinds)})")
    if asked.exclude:
        codes = "SELECT code FROM annotator WHERE id IN (SELECT unnest(?::VARCHAR[]))"
        conditions.append(f"{table}.annotator NOT IN ({codes})")
        values.append(list(asked.exclude))
    for column, codes, value in (
        ("source", "SELECT code FROM source WHERE name = ?", asked.source),
        ("item", "SELECT item FROM item_tag WHERE tag = ?", asked.tag),
    ):
        if value is not None:
            conditions.append(f"{table}.{column} IN ({codes})")
            values.append(value)
    for sign, day in ((">=", asked.since), ("<=", asked.until)):
        if day is not None:
            conditions.append(f"{table}.day {sign} ?::DATE")
            values.append(day.isoformat())
    return conditions, values


def _agreeing(asked: Definition) -> tuple[str, list[Any]]:
    """Which pairs are agreed on enough, of `units`. Where a vote decides, there is nothing to agree on."""
    if asked.min_agreement is None:
        return "true", []
    others = (" OR a + b + t = 1" if asked.keep_single else "") + (" OR adjudicated" if asked.decided else "")
    return (
        f"((greatest(a, b, t) / (a + b + t) >= ? AND a + b + t > 1){others})",
        [asked.min_agreement - CLOSE],
    )
