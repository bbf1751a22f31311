"""Which items split people: how probable it is that the next two people to answer an item would disagree.

Two votes on a pair of completions differ by 1 when they prefer different ones, by 1/2 when one of them is a tie
(an ordinal distance: a tie lies halfway). The raw share of disagreement among an item's votes can't order items: with
two votes it is 0 or 1, so every 1:1 would come before a 5:5 of ten, of which far more is known. So the shares of the
three verdicts are taken as unknown, with Jeffreys' prior, Dirichlet(1/2, 1/2, 1/2), and what counts is the
expectation of the difference after the votes (`expected`). By the prior alone it is 0.27, close to the 0.23 to 0.37 by
which published preference data differ (agreement of 77 to 63 %), so an item nobody has voted on counts as an ordinary
one. 1:1 makes 0.38, 2:2 0.42, 5:5 0.46, any number of equal halves towards 0.5; five alike make 0.17.

What people disagree about may be a matter of taste or a poor guideline; this does not tell the two apart. Nor does
it tell a hard item from a careless annotator: the section on annotators does.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.data.facts import Facts
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.tallies import Tallies, tallies

PRIOR = 0.5  # votes of each verdict that are known beforehand: Jeffreys' prior for shares
TIE = 0.5  # how much a tie and a preference differ
WORTH = 0.3  # from here on an item is worth a lead's decision: more than a single vote makes (0.29), less than 1:1

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Disagreement:
    """One row per item that has a judgement, the most split first. I = items."""

    item: Ints  # (I,) codes
    expected: Floats  # (I,) in 0..1: the expected difference of two further votes, mean over its pairs
    votes: Ints  # (I,) judgements on the pair of its completions that has most
    split: NDArray[np.bool_]  # (I,) whether two votes on a pair differ
    a_wins: Ints  # (I,) of the pair that splits most
    ties: Ints
    b_wins: Ints
    unit: Ints  # (I,) code of that pair


def expected_difference(a_wins: Ints, ties: Ints, b_wins: Ints) -> Floats:
    """(U,) The expected difference of two further votes, from (U,) counts of votes for a, for neither and for b.

    With x ~ Dirichlet(alpha), A = sum(alpha): E[x_i x_j] = alpha_i alpha_j / (A (A + 1)) for i != j, and two votes of
    verdicts i and j can come in two orders.
    """
    a, t, b = (np.asarray(counts, dtype=np.float64) + PRIOR for counts in (a_wins, ties, b_wins))
    total = a + t + b
    return np.asarray(2 * (a * b + TIE * t * (a + b)) / (total * (total + 1)))


def disagreement(facts: Facts, scope: Scope) -> Disagreement:
    """How split the items of a scope are; computed once until a vote comes in."""
    return facts.remember(("disagreement", scope), lambda: by_item(tallies(facts, scope)))


def by_item(found: Tallies) -> Disagreement:
    """The disagreement of every item of the tallies."""
    return of_pairs(found.unit, found.item, found.a_wins, found.ties, found.b_wins)


def of_pairs(unit: Ints, item: Ints, a_wins: Ints, ties: Ints, b_wins: Ints) -> Disagreement:
    """The disagreement of every item, from (U,) pairs of completions with the item that each belongs to.

    The most split item comes first, of equally split ones the one with more votes.
    """
    n = a_wins + ties + b_wins
    differ = expected_difference(a_wins, ties, b_wins)
    order = np.lexsort((unit, -n, -differ, item))  # of each item, the pair that splits most first
    item = item[order]
    starts = np.flatnonzero(np.r_[True, item[1:] != item[:-1]]) if len(item) else np.empty(0, np.int64)
    first, sizes = order[starts], np.diff(np.r_[starts, len(item)])
    mean = np.add.reduceat(differ[order], starts) / sizes if len(item) else np.empty(0)
    votes = np.maximum.reduceat(n[order], starts) if len(item) else np.empty(0, np.int32)
    mixed = np.maximum(np.maximum(a_wins, ties), b_wins) < n
    split = np.logical_or.reduceat(mixed[order], starts) if len(item) else np.empty(0, bool)
    rank = np.lexsort((item[starts], -votes, -mean))
    first = first[rank]
    return Disagreement(
        item[starts][rank].astype(np.int32),
        mean[rank],
        votes[rank].astype(np.int32),
        split[rank],
        a_wins[first],
        ties[first],
        b_wins[first],
        unit[first],
    )
