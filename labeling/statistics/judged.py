"""What one annotator said about one pair of completions: the rows that judgements about people start from.

Left out: the same annotator's second answer to an item, adjudications (whose lead saw the others' votes), and pairs
that were chosen actively, because those are hard by construction, and who got more of them would look worse.
"""

from dataclasses import dataclass

import numpy as np

from palate.data.facts import Facts
from palate.labeling.statistics import dawid_skene, reliability
from palate.labeling.statistics.biases import Lengths, by_bins
from palate.labeling.statistics.grouped import Floats, Ints, sums
from palate.labeling.statistics.scope import Scope

COUNTED = "NOT j.again AND NOT j.adjudicated AND NOT j.selected"
EXACT = 500_000  # votes up to which lengths are not binned

_JUDGED = """
SELECT j.annotator, j.unit, sign(j.grade)::TINYINT AS won, j.of,
       CASE WHEN j.a_first IS NULL THEN 0 WHEN j.a_first THEN 1 ELSE -1 END::TINYINT AS first
FROM judgement j WHERE {where} AND {counted}
"""


@dataclass(frozen=True)
class Units:
    """All pairs of completions, by code. U = pairs."""

    item: Ints  # (U,)
    model_a: Ints  # (U,) codes
    model_b: Ints
    log_length: Floats  # (U,) ln of the lengths' ratio, a over b
    models: list[str]  # names by code


@dataclass(frozen=True)
class Judged:
    """Judgements by annotators of one scope. V = judgements, K = annotators."""

    annotator: Ints  # (V,) codes
    unit: Ints  # (V,) codes
    won: Ints  # (V,) 1 a, 0 tie, -1 b
    first: Ints  # (V,) 1 a was shown first, -1 b, 0 unknown
    of: Ints  # (V,) pairs that the vote decided
    annotators: int

    @property
    def weight(self) -> Floats:
        """(V,) 1; in a ranking of n completions, whose pairs hang together, n - 1 over all of them."""
        return weight_of(self.of)


def units(facts: Facts) -> Units:
    """The pairs there are; read once until a vote comes in."""
    return facts.remember(("judged units",), lambda: _units(facts))


def judged(facts: Facts, scope: Scope) -> Judged:
    """The judgements of a scope; read once until a vote comes in."""
    return facts.remember(("judged", scope), lambda: _judged(facts, scope))


def _units(facts: Facts) -> Units:
    found = facts.columns("SELECT item, model_a, model_b, log_length FROM unit ORDER BY code")
    names = [str(row["name"]) for row in facts.rows("SELECT name FROM model ORDER BY code")]
    lengths = np.ma.filled(found["log_length"], 0.0).astype(np.float64)
    return Units(found["item"], found["model_a"], found["model_b"], lengths, names)


def _judged(facts: Facts, scope: Scope) -> Judged:
    where, params = scope.where("j")
    found = facts.columns(_JUDGED.format(where=where, counted=COUNTED), params)
    people = int(facts.value("SELECT count(*) FROM annotator"))
    return Judged(found["annotator"], found["unit"], found["won"], found["first"], found["of"], people)


def weight_of(pairs: Ints) -> Floats:
    """(V,) what a judgement counts by the pairs that its vote decides: n completions make n (n - 1) / 2 pairs, but
    only n - 1 independent decisions."""
    return np.asarray(4 / (1 + np.sqrt(1 + 8.0 * np.arange(37))))[pairs]


def dense(codes: Ints, size: int) -> tuple[Ints, Ints]:
    """((V,) codes without gaps, (U,) the codes they had)."""
    kept = np.flatnonzero(np.bincount(codes, minlength=size))
    new = np.zeros(size, dtype=np.int32)
    new[kept] = np.arange(len(kept), dtype=np.int32)
    return new[codes], kept


def reliabilities(facts: Facts, scope: Scope) -> reliability.Reliability:
    """Of the annotators of a scope, by the models that their votes link and the pairs that they share."""
    return facts.remember(("reliability", scope), lambda: _reliabilities(facts, scope))


def _reliabilities(facts: Facts, scope: Scope) -> reliability.Reliability:
    every, pairs = judged(facts, scope), units(facts)
    decided = every.won != 0
    unit, kept = dense(every.unit[decided], len(pairs.item))
    votes = reliability.Decisions(
        unit,
        every.annotator[decided],
        every.won[decided] > 0,
        weight_of(every.of[decided]),
        len(kept),
        every.annotators,
    )
    return reliability.by_models(votes, pairs.model_a[kept], pairs.model_b[kept], len(pairs.models))


def consensus(facts: Facts, scope: Scope) -> dawid_skene.Consensus | None:
    """Dawid and Skene's, over the pairs that two or more annotators judged; None when there is none."""
    return facts.remember(("consensus", scope), lambda: _consensus(facts, scope))


def _consensus(facts: Facts, scope: Scope) -> dawid_skene.Consensus | None:
    every, pairs = judged(facts, scope), units(facts)
    several = (np.bincount(every.unit, minlength=len(pairs.item)) > 1)[every.unit]
    if not several.any():
        return None
    unit, kept = dense(every.unit[several], len(pairs.item))
    votes = dawid_skene.Votes(
        unit,
        every.annotator[several],
        every.won[several] + 1,
        weight_of(every.of[several]),
        len(kept),
        every.annotators,
    )
    return dawid_skene.dawid_skene(votes)


def lengths(facts: Facts, scope: Scope, group: str) -> Lengths:
    """Decisive votes on completions of different length, grouped by "annotator" or by "item"; binned when many."""
    every, pairs = judged(facts, scope), units(facts)
    ratio = pairs.log_length[every.unit]
    used = np.flatnonzero((every.won != 0) & (ratio != 0))
    ratio = ratio[used]
    longer = (every.won[used] > 0) == (ratio > 0)
    weight = weight_of(every.of[used])
    if group == "annotator":
        rows = Lengths(every.annotator[used], np.abs(ratio), longer * weight, weight, every.annotators)
        return by_bins(rows) if len(used) > EXACT else rows
    # votes on one pair have one ratio: a row per pair
    pair = every.unit[used]
    n = sums(pair, weight, len(pairs.item))
    kept = np.flatnonzero(n)
    won = sums(pair, longer * weight, len(pairs.item))[kept]
    return Lengths(
        pairs.item[kept], np.abs(pairs.log_length[kept]), won, n[kept], int(pairs.item.max(initial=-1)) + 1
    )
