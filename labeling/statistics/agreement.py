"""Agreement of annotators on pairs of completions: raw, and corrected for chance.

Everything starts from votes counted per pair of completions and category, so ten million votes are a table of a few
hundred thousand rows. Categories name a completion or a tie, never a side of the screen. As the order of two
completions in the facts is that of their ids, which are digests, it says nothing about them: two people who guess
between two answers agree half of the time.

Notation: U pairs of completions ("units"), C categories in order, n_uc votes, n_u = sum of n_uc over c.

    percent   sum_u sum_c n_uc (n_uc - 1) / sum_u n_u (n_u - 1): of two votes on the same unit, how often both agree
    alpha     Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", sections C and D
    fleiss    Fleiss 1971, generalised to any number of votes per unit as in Gwet 2014, "Handbook of Inter-Rater
              Reliability", 4th ed., chapter 2
    AC1, AC2  Gwet 2008, "Computing inter-rater reliability and its variance in the presence of high agreement",
              eq. 13 and 14; AC2 with ordinal weights as in Gwet 2014, chapter 3

As published, alpha drops units with one vote, while Fleiss and Gwet let them count for how often each category is
used. Categories that nobody used don't count as categories.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from palate.labeling.statistics.measures import Estimate, wilson
from palate.labeling.statistics.resampling import (
    DRAWS,
    Floats,
    Ints,
    Sums,
    clusters,
    distinct,
    estimate,
    resample,
)

NOBODY = "no item was answered by two annotators"
ONE_ANSWER = "everybody gave the same answer everywhere, so guessing would agree as often"
ROWS = 10_000  # rows worked on at a time, so that they stay in the cache


@dataclass(frozen=True)
class Ballots:
    """Votes per unit: distinct rows of counts, and which one each unit has. V = rows."""

    counts: Ints  # (V, C)
    which: Ints  # (U,) 0..V-1
    item: Ints  # (U,) the comparison that each unit belongs to

    def counted(self, recount: Callable[[Ints], Ints]) -> "Ballots":
        """The same units, their votes counted anew: `recount` maps (V, C) to (V, D)."""
        return Ballots(recount(self.counts), self.which, self.item)

    def of(self, units: NDArray[np.bool_]) -> "Ballots":
        """Only some units: `units` is (U,), True = counts."""
        return Ballots(self.counts, self.which[units], self.item[units])


def ballots(counts: Ints, item: Ints) -> Ballots:
    """`counts` (U, C) votes per unit and category, `item` (U,) the comparison of each unit."""
    which, first = distinct(counts)
    return Ballots(counts[first], which, item)


@dataclass(frozen=True)
class Nominal:
    """Agreement on who won, categories being equally far apart."""

    percent: Estimate  # n = items that two or more answered
    chance: float | None  # the percent agreement of guessing with everybody's shares of the categories
    alpha: Estimate
    fleiss: Estimate
    ac1: Estimate
    units: int  # pairs of completions that two or more decided
    votes: int  # on those


@dataclass(frozen=True)
class Ordinal:
    """Agreement on ordered categories: far apart is worse than next to each other."""

    alpha: Estimate  # n = items that two or more answered
    ac2: Estimate
    units: int
    votes: int


def nominal(found: Ballots, draws: int = DRAWS) -> Nominal:
    """Agreement on the categories as such; `draws` = 0 leaves out the intervals."""
    found, q = _in_use(found)
    sums, items = _evidence(found, np.eye(q), draws)
    tell = _Layout(q)

    def percent(sums: Floats) -> Floats:
        return _ratio(sums[..., tell.alike], sums[..., tell.pairs])

    def alpha(sums: Floats) -> Floats:
        return tell.alpha(sums, _nominal_distance)

    def fleiss(sums: Floats) -> Floats:
        shares = tell.shares(sums)
        return _beyond(tell.observed(sums), (shares * shares).sum(-1))

    def ac1(sums: Floats) -> Floats:
        shares = tell.shares(sums)
        return _beyond(tell.observed(sums), (shares * (1 - shares)).sum(-1) / (q - 1 or np.nan))

    units, votes = tell.extent(sums.total)
    why = ONE_ANSWER if units else NOBODY
    raw = estimate(percent, sums, items, NOBODY)
    if raw.value == 1.0 and draws:  # no disagreement to resample: Wilson's interval of n out of n
        raw = replace(raw, low=wilson(items, items)[0], high=1.0, why="")
    marginals = tell.coincidences(sums.total).sum(-1)
    n = float(marginals.sum())
    chance = float((marginals * (marginals - 1)).sum() / (n * (n - 1))) if units else None
    return Nominal(
        raw,
        chance,
        estimate(alpha, sums, items, why),
        estimate(fleiss, sums, items, why),
        estimate(ac1, sums, items, why),
        units,
        votes,
    )


def ordinal(found: Ballots, draws: int = DRAWS) -> Ordinal:
    """Agreement on categories in order; `draws` = 0 leaves out the intervals."""
    found, q = _in_use(found)
    weights = ordinal_weights(q)
    sums, items = _evidence(found, weights, draws)
    tell = _Layout(q)

    def alpha(sums: Floats) -> Floats:
        return tell.alpha(sums, _ordinal_distance)

    def ac2(sums: Floats) -> Floats:
        shares = tell.shares(sums)
        chance = weights.sum() / (q * (q - 1) or np.nan) * (shares * (1 - shares)).sum(-1)
        return _beyond(tell.observed(sums), chance)

    units, votes = tell.extent(sums.total)
    why = ONE_ANSWER if units else NOBODY
    return Ordinal(estimate(alpha, sums, items, why), estimate(ac2, sums, items, why), units, votes)


def ordinal_weights(q: int) -> Floats:
    """(q, q) how far two of q ordered categories agree, 0..1: 1 minus the pairs of categories that lie within the
    stretch between them, over those within the whole scale (Gwet 2014, table 3.3)."""
    apart = np.abs(np.subtract.outer(np.arange(q), np.arange(q)))
    weights: Floats = 1 - apart * (apart + 1) / max(1, q * (q - 1))
    return weights


@dataclass(frozen=True)
class _Layout:
    """Where each sum stands in a row of S = 6 + q + q (q + 1) / 2: see `_rows`. Leading dimensions are free."""

    q: int
    pairs = 0  # ordered pairs of votes within units
    alike = 1  # of them, of the same category
    agreed = 2  # sum over units of the weighted share of pairs that agree
    shared = 3  # units with two or more votes
    voted = 4  # units with a vote
    votes = 5  # on shared units

    def shares(self, sums: Floats) -> Floats:
        """(..., q) how often each category is used: the mean of units' shares."""
        return _ratio(sums[..., 6 : 6 + self.q], sums[..., self.voted, None])

    def observed(self, sums: Floats) -> Floats:
        """(...) the mean over units of the weighted share of pairs of votes that agree."""
        return _ratio(sums[..., self.agreed], sums[..., self.shared])

    def coincidences(self, sums: Floats) -> Floats:
        """(..., q, q) Krippendorff's coincidence matrix."""
        low, high = np.triu_indices(self.q)
        matrix = np.zeros((*sums.shape[:-1], self.q, self.q))
        matrix[..., low, high] = matrix[..., high, low] = sums[..., 6 + self.q :]
        return matrix

    def alpha(self, sums: Floats, distance: Callable[[Floats], Floats]) -> Floats:
        """(...) 1 - D_o / D_e; `distance` maps marginals (..., q) to squared distances (..., q, q)."""
        matrix = self.coincidences(sums)
        marginals = matrix.sum(-1)
        apart = distance(marginals)
        observed = (matrix * apart).sum((-2, -1))
        expected = (marginals[..., :, None] * marginals[..., None, :] * apart).sum((-2, -1))
        return 1 - _ratio(observed * (marginals.sum(-1) - 1), expected)

    def extent(self, sums: Floats) -> tuple[int, int]:
        """(shared units, votes on them)."""
        return int(sums[self.shared]), int(sums[self.votes])


def _rows(counts: Ints, weights: Floats) -> Floats:
    """(V, S) what a unit with each row of `counts` (V, q) contributes, in the order of `_Layout`."""
    n = counts.astype(np.float64)
    votes = n.sum(1, keepdims=True)
    shared = votes >= 2
    pairs = votes * (votes - 1)
    own = n * (n - 1)
    agreed = (n * (n @ weights - 1)).sum(1, keepdims=True) / np.maximum(pairs, 1)
    low, high = np.triu_indices(counts.shape[1])
    coincide = np.where(low == high, own[:, low], n[:, low] * n[:, high]) / np.maximum(votes - 1, 1)
    return np.hstack(
        [
            pairs,
            own.sum(1, keepdims=True),
            agreed * shared,
            shared,
            votes > 0,
            votes * shared,
            n / np.maximum(votes, 1),
            coincide * shared,
        ]
    )


def _evidence(found: Ballots, weights: Floats, draws: int) -> tuple[Sums, int]:
    """(the sums, resampled; items with a shared unit)."""
    rows = np.empty((len(found.counts), 6 + len(weights) + len(weights) * (len(weights) + 1) // 2))
    for start in range(0, len(rows), ROWS):
        rows[start : start + ROWS] = _rows(found.counts[start : start + ROWS], weights)
    by_item = clusters(rows, found.which, found.item)
    return resample(by_item, draws), int(by_item.copies[by_item.rows[:, _Layout.shared] > 0].sum())


def _in_use(found: Ballots) -> tuple[Ballots, int]:
    """Without the categories that no unit has a vote for; and how many are left, at least one."""
    copies = np.bincount(found.which, minlength=len(found.counts))
    used = (copies @ found.counts) > 0
    used[0] |= not used.any()
    return found.counted(lambda counts: counts[:, used]), int(used.sum())


def _nominal_distance(marginals: Floats) -> Floats:
    return 1 - np.eye(marginals.shape[-1])


def _ordinal_distance(marginals: Floats) -> Floats:
    """Squared: (votes from category c to category k, their own counted half)^2 (Krippendorff 2011, section D)."""
    middle = np.cumsum(marginals, -1) - marginals / 2
    distance: Floats = (middle[..., :, None] - middle[..., None, :]) ** 2
    return distance


def _beyond(observed: Floats, chance: Floats) -> Floats:
    """(observed - chance) / (1 - chance), NaN where chance is complete, or unknown."""
    return _ratio(observed - chance, 1 - chance)


def _ratio(above: Floats, below: Floats) -> Floats:
    """above / below, NaN where that is nothing over nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = np.where(np.abs(below) > 1e-12, above / below, np.nan)
    return ratio


def backing(found: Ballots, draws: int = DRAWS) -> list[Estimate]:
    """How often another vote on the same pair names the same winner, by the strength of a vote: 3, 2, 1.

    `found` counts votes by grade -3..3. A tie names no winner. n = items on which such a vote has another beside it.
    """
    n = found.counts.astype(np.float64)
    others = np.maximum(n.sum(1) - 1, 0)
    alike = np.stack([n[:, :3].sum(1), n[:, 4:].sum(1)], axis=1) - 1  # other votes for b, for a
    columns = [
        part
        for strength in (3, 2, 1)
        for part in (
            n[:, 3 - strength] * alike[:, 0] + n[:, 3 + strength] * alike[:, 1],
            (n[:, 3 - strength] + n[:, 3 + strength]) * others,
        )
    ]
    by_item = clusters(np.stack(columns, axis=1), found.which, found.item)
    sums = resample(by_item, draws)

    def share(place: int) -> Estimate:
        items = int(by_item.copies[by_item.rows[:, place + 1] > 0].sum())
        return estimate(lambda s: _ratio(s[..., place], s[..., place + 1]), sums, items, NOBODY)

    return [share(place) for place in (0, 2, 4)]
