"""Cohen's kappa between each two annotators, against statsmodels and by hand, and its mean's interval."""

import numpy as np
import pytest
from statsmodels.stats.inter_rater import cohens_kappa

from palate.labeling.statistics.measures import Estimate
from palate.labeling.statistics.pair_agreement import ALL_ONE, NOBODY_BOTH, Between, between
from palate.labeling.statistics.resampling import TOO_FEW, Floats, Ints


def long(table: Ints, units_per_item: int = 1) -> tuple[Ints, Ints, Ints, Ints]:
    """(unit, item, annotator, label) rows of a table (units, annotators) with -1 for missing."""
    unit, annotator = np.nonzero(table >= 0)
    return unit + 70, unit // units_per_item, annotator, table[unit, annotator]


def drawn(rng: np.random.Generator, units: int, annotators: int = 4) -> Ints:
    """Everybody sees the right label in 7 of 10 cases and guesses else; a third is missing."""
    right = rng.integers(0, 3, (units, 1))
    seen = np.where(rng.random((units, annotators)) < 0.7, right, rng.integers(0, 3, (units, annotators)))
    return np.where(rng.random(seen.shape) < 2 / 3, seen, -1)


def test_by_hand() -> None:
    """Of 4 shared, anna and ben agree on 3: anna says 0 0 2 2, ben 0 0 2 1. Chance: (2 x 2 + 0 x 1 + 2 x 1) / 16.
    Nobody shares with cleo."""
    table = np.array([[0, 0, -1], [0, 0, -1], [2, 2, -1], [2, 1, -1], [-1, -1, 1]])
    kappa = (3 / 4 - 6 / 16) / (1 - 6 / 16)
    found = between(*long(table), 3)
    assert found.shared.tolist() == [[0, 4, 0], [4, 0, 0], [0, 0, 0]]
    assert found.percent == [[None, 0.75, None], [0.75, None, None], [None, None, None]]
    assert found.kappa == [[None, kappa, None], [kappa, None, None], [None, None, None]]
    assert found.mean == Estimate(kappa, None, None, 4, TOO_FEW)


def test_against_statsmodels() -> None:
    table = drawn(np.random.default_rng(0), 300)
    found = between(*long(table), 4)
    total = weight = 0.0
    for one in range(4):
        for other in range(one + 1, 4):
            both = (table[:, one] >= 0) & (table[:, other] >= 0)
            cross = np.zeros((3, 3))
            np.add.at(cross, (table[both, one], table[both, other]), 1)
            theirs = cohens_kappa(cross, return_results=False)
            assert found.kappa[one][other] == pytest.approx(theirs, abs=1e-12)
            assert found.kappa[other][one] == found.kappa[one][other]
            total, weight = total + theirs * both.sum(), weight + both.sum()
    assert found.mean.value == pytest.approx(total / weight, abs=1e-12)
    assert found.mean.n == (((table >= 0).sum(1)) > 1).sum()


def test_items_of_several_units() -> None:
    """The same tables, but an interval from a third of the clusters; cloned units triple nothing but the counts."""
    table = drawn(np.random.default_rng(1), 90)
    one, three = between(*long(table), 4), between(*long(np.repeat(table, 3, axis=0), 3), 4)
    assert (three.shared == 3 * one.shared).all()
    assert (three.percent, three.kappa) == (one.percent, one.kappa)
    assert three.mean.n == one.mean.n
    assert three.mean.value == pytest.approx(one.mean.value)
    # resampling items of three clones is resampling single units
    width = one.mean.high - one.mean.low  # type: ignore[operator]
    assert (three.mean.low, three.mean.high) == pytest.approx((one.mean.low, one.mean.high), abs=0.1 * width)


def test_undefined_says_why() -> None:
    none: Ints = np.zeros(0, dtype=int)
    empty = between(none, none, none, none, 0)
    assert (empty.mean, empty.percent) == (Estimate(None, None, None, 0, NOBODY_BOTH), [])
    alone = between(*long(np.array([[0, -1], [-1, 1]])), 2)
    assert alone.mean == Estimate(None, None, None, 0, NOBODY_BOTH)
    same = between(*long(np.zeros((30, 2), dtype=int)), 2)
    assert same.mean == Estimate(None, None, None, 30, ALL_ONE)
    assert (same.percent[0][1], same.kappa[0][1]) == (1.0, None)


@pytest.mark.slow
def test_the_interval_of_the_mean_covers() -> None:
    rng = np.random.default_rng(4)
    truth = between(*long(drawn(rng, 200_000)), 4, draws=0).mean.value
    assert truth is not None
    found: list[Between] = [between(*long(drawn(rng, 100)), 4) for _ in range(1000)]
    bounds: Floats = np.array([[each.mean.low, each.mean.high] for each in found], dtype=float)
    held = ((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])).sum()
    assert 930 <= held <= 970
