"""Everything that is known about each annotator of a scope, and the verdicts that follow."""

from dataclasses import dataclass

import numpy as np

from palate.data.facts import Facts
from palate.labeling.statistics import anomalies, biases, verdicts
from palate.labeling.statistics.formatting import seconds as duration
from palate.labeling.statistics.grouped import Floats, Ints, sums
from palate.labeling.statistics.habits import FLOOR, Gold, Habits, Pace, gold, habits, pace, part_of
from palate.labeling.statistics.judged import COUNTED, lengths, reliabilities, units
from palate.labeling.statistics.reliability import Reliability
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.verdicts import Comparison, Levels, Verdict, percent

# how far from the others a figure is before anybody is told about it
FAR_SIDE = 0.10  # share of votes for the answer shown first: from one half, and from the others
FAR_SLOPE = 0.7  # of the length: odds change by 1.6 where one answer is twice as long
FAR_GOLD = 0.15  # share of gold items right
FAR_RATE = 0.20  # share of ties, of skips, of rankings left as shown; and at least twice the others'
FAR_FAST = 0.10  # share of votes below the floor
FAR_PACE = 1 / 3  # of the others' seconds on the same items
FAR_SURPRISE = 1.2  # mean of -ln p, which is 1 for votes like everybody's

# the hash of a vote is as good as a random number; rows come in order of arrival
_VOTES = """
SELECT j.annotator, j.unit, sign(j.grade)::TINYINT AS won, ((j.vote >> 40) / 16777216)::REAL AS luck, j.of = 1 AS single,
       j.rowid::INTEGER AS place
FROM judgement j WHERE {where} AND {counted} AND j.item % {every} = 0
"""


@dataclass(frozen=True)
class Odd:
    """Votes against the run of everybody's. K = annotators."""

    p: Floats  # (K,)
    n: Floats  # (K,) votes that were looked at
    surprise: Floats  # (K,) mean of -ln p; 0 without votes


@dataclass(frozen=True)
class Assessment:
    """What the panels of the section show. K = annotators, by code."""

    reliability: Reliability
    levels: Levels
    side: biases.Estimates
    slope: biases.Estimates
    gold: Gold
    gold_share: biases.Estimates
    pace: Pace
    odd: Odd
    verdicts: list[Verdict]


def assessment(facts: Facts, scope: Scope) -> Assessment:
    """Computed once until a vote comes in."""
    return facts.remember(("assessment", scope), lambda: _assessment(facts, scope))


def odd(facts: Facts, scope: Scope) -> Odd:
    """The anomaly test of everybody; beyond two million votes, on a part of the items."""
    return facts.remember(("odd", scope), lambda: _odd(facts, scope))


def slopes(facts: Facts, scope: Scope) -> tuple[biases.Estimates, Floats, float]:
    """((K,) slopes of the length, (K,) p-values that they are the common one, the common one)."""

    def make() -> tuple[biases.Estimates, Floats, float]:
        rows = lengths(facts, scope, "annotator")
        common = float(biases.slopes(_together(rows)).value[0])
        return biases.slopes(rows), biases.slopes_unlike(rows, common), common

    return facts.remember(("slopes", scope), make)


def _together(rows: biases.Lengths) -> biases.Lengths:
    return biases.Lengths(np.zeros(len(rows.n), np.int64), rows.ratio, rows.longer, rows.n, 1)


def _assessment(facts: Facts, scope: Scope) -> Assessment:
    found, use, test = reliabilities(facts, scope), habits(facts, scope), odd(facts, scope)
    key, speed = gold(facts, scope), pace(facts, scope)
    at = verdicts.levels(found)
    slope, unlike, common = slopes(facts, scope)
    comparisons = [
        verdicts.less_reliable(found, at),
        _of_side(use),
        Comparison(
            "length",
            slope.n > 0,
            unlike,
            ~slope.known | (np.abs(slope.value - common) >= FAR_SLOPE),
            lambda k: _say_length(slope, common, k),
        ),
        _of_gold(key),
        _of_rate("ties", use.ties, use.votes, FAR_RATE, "calls {own} of pairs a tie, the others {others}"),
        _of_rate("skips", use.skips, use.votes, FAR_RATE, "skips {own} of items, the others {others}"),
        _of_rate(
            "fast",
            use.fast,
            use.timed,
            FAR_FAST,
            f"votes within {duration(FLOOR)} in {{own}} of cases, the others in {{others}}",
        ),
        _of_rate(
            "untouched",
            use.untouched,
            use.rankings,
            FAR_RATE,
            "leaves {own} of rankings as they were shown, the others {others}",
        ),
        Comparison(
            "pace",
            speed.n >= 20,
            speed.p,
            speed.ratio <= FAR_PACE,
            lambda k: f"takes {percent(speed.ratio[k])} of the time that others take on the same items",
        ),
        Comparison(
            "odd",
            test.n >= anomalies.FIRST,
            test.p,
            test.surprise >= FAR_SURPRISE,
            lambda k: "votes against the run of everybody's votes on the same models",
        ),
    ]
    return Assessment(
        found,
        at,
        biases.shares(use.first, use.sided),
        slope,
        key,
        biases.shares(key.right, key.n),
        speed,
        test,
        verdicts.verdicts(found, at, comparisons),
    )


def _others(hits: Floats, n: Floats) -> Floats:
    """(K,) share of everybody else."""
    return np.asarray((hits.sum() - hits) / np.maximum(n.sum() - n, 1e-9))


def _of_side(use: Habits) -> Comparison:
    """Against one half and against the others: where all lean to one side, the screen is to blame."""
    share, others = use.first / np.maximum(use.sided, 1e-9), _others(use.first, use.sided)
    below, above = biases.unlike_others(use.first, use.sided)
    alone = use.sided >= use.sided.sum() - 1e-9
    unlike = np.where(alone, 0.0, np.minimum(1.0, 2 * np.minimum(below, above)))
    p = np.maximum(biases.even_chance(use.first, use.sided), unlike)
    far = (np.abs(share - 0.5) >= FAR_SIDE) & (alone | (np.abs(share - others) >= FAR_SIDE))

    def say(k: int) -> str:
        first = share[k] > 0.5
        most, name = (share[k], "first") if first else (1 - share[k], "last")
        return f"votes for the answer shown {name} in {percent(most)} of cases"

    return Comparison("side", use.sided > 0, p, far, say)


def _of_gold(key: Gold) -> Comparison:
    share, others = key.right / np.maximum(key.n, 1e-9), _others(key.right, key.n)
    below, _ = biases.unlike_others(key.right, key.n)

    def say(k: int) -> str:
        return f"{percent(share[k])} of {key.n[k]:.0f} gold answers right, the others {percent(others[k])}"

    return Comparison("gold", (key.n > 0) & (key.n < key.n.sum()), below, share <= others - FAR_GOLD, say)


def _of_rate(name: str, hits: Floats, n: Floats, far: float, words: str) -> Comparison:
    """More often than the others: Fisher's exact test, one tail."""
    own, others = hits / np.maximum(n, 1e-9), _others(hits, n)
    _, above = biases.unlike_others(hits, n)
    much = (own >= others + far) & (own >= 2 * others)
    return Comparison(
        name,
        (n > 0) & (n < n.sum()),
        above,
        much,
        lambda k: words.format(own=percent(own[k]), others=percent(others[k])),
    )


def _say_length(slope: biases.Estimates, common: float, k: int) -> str:
    if not slope.known[k]:
        return "votes for the longer answer always, or never"
    word = "longer" if slope.value[k] > common else "shorter"
    return (
        f"leans to {word} answers more than others do (slope {slope.value[k]:.1f}, all together {common:.1f})"
    )


def _odd(facts: Facts, scope: Scope) -> Odd:
    where, params = scope.where("j")
    pairs, models = units(facts), len(units(facts).models)
    found = facts.columns(_VOTES.format(where=where, counted=COUNTED, every=part_of(facts, scope)), params)
    people = int(facts.value("SELECT count(*) FROM annotator"))
    a, b = pairs.model_a.astype(np.int64), pairs.model_b.astype(np.int64)
    code = _narrow(np.minimum(a, b) * models + np.maximum(a, b))
    # the pairs of a ranking hang together: of each only the first is taken
    leads = np.append(True, pairs.item[1:] != pairs.item[:-1])[: len(pairs.item)]
    unit = found["unit"]
    used = (found["single"].astype(bool) | leads[unit]) & (a != b)[unit]
    arrived = _by_place(found["place"])
    arrived = arrived[used[arrived]]
    unit, person = unit[arrived], found["annotator"][arrived]
    won = np.where((a > b)[unit], -found["won"][arrived], found["won"][arrived])
    p = anomalies.unusual(code[unit], won, found["luck"][arrived])
    tail, n = anomalies.anomalous(_narrow(person), p, people)
    return Odd(tail, n, sums(person, -np.log(p), people) / np.maximum(n, 1))


def _by_place(place: Ints) -> Ints:
    """(V,) rows in ascending order of their places, which are different numbers >= 0, nearly without gaps."""
    at = np.full(int(place.max(initial=-1)) + 1, -1, dtype=np.int32)
    at[place] = np.arange(len(place), dtype=np.int32)
    return at[at >= 0]


def _narrow(codes: Ints) -> Ints:
    """The same codes in 16 bits where they fit, in the same order: sorting is ten times as fast."""
    size = int(codes.max(initial=-1)) + 1
    if size <= 1 << 16:
        return codes.astype(np.uint16)
    kept = np.flatnonzero(np.bincount(codes, minlength=size))
    new = np.zeros(size, dtype=np.int64)
    new[kept] = np.arange(len(kept))
    return new[codes] if len(kept) >= 1 << 16 else new.astype(np.uint16)[codes]
