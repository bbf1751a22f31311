"""The cluster bootstrap: what is drawn, against drawing items one by one, scipy's BCa and the normal limit."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtr, stdtrit

from palate.labeling.statistics import resampling
from palate.labeling.statistics.measures import Estimate
from palate.labeling.statistics.resampling import (
    NO_SPREAD,
    TOO_FEW,
    Clusters,
    Floats,
    Sums,
    clusters,
    distinct,
    estimate,
    resample,
    weights,
)


def ratio(sums: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        found: Floats = sums[..., 0] / sums[..., 1]
    return found


def test_distinct_rows() -> None:
    which, first = distinct(np.array([[0, 2], [1, 0], [0, 2], [2, 0]]))
    assert which.tolist() == [0, 1, 0, 2]
    assert first.tolist() == [0, 1, 3]
    assert [part.tolist() for part in distinct(np.zeros((0, 3), dtype=int))] == [[], []]


def test_distinct_rows_of_large_numbers() -> None:
    """Sixteen columns up to 1,000 make numbers of 160 bits."""
    rows = np.random.default_rng(0).integers(0, 1001, (200, 16))
    rows = rows[np.random.default_rng(1).integers(0, 200, 1000)]
    which, first = distinct(rows)
    assert len(first) == len(np.unique(rows, axis=0))
    assert np.array_equal(rows[first][which], rows)


def test_units_of_an_item_add_up() -> None:
    """Items 5 and 9 have one unit of kind 0 each, item 7 has two of kinds 0 and 1; in any order."""
    rows = np.array([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]])
    found = clusters(rows, np.array([0, 0, 0, 1]), np.array([7, 5, 9, 7]))
    assert found.rows.tolist() == [[1.0, 2.0], [11.0, 22.0]]
    assert found.copies.tolist() == [2, 1]
    assert found.total.tolist() == [13.0, 26.0]
    nothing = clusters(rows, np.zeros(0, dtype=int), np.zeros(0, dtype=int))
    assert (nothing.rows.shape, resample(nothing).total.tolist()) == ((0, 2), [0.0, 0.0])


@pytest.mark.parametrize("copies", [[300, 5, 1, 1, 40], [3, 5, 1, 1, 4], [30, 50, 10, 20, 40]])
def test_weights_are_multinomial(copies: list[int]) -> None:
    """Mean n p, variance n p (1 - p), covariance -n p q, whichever way they are drawn."""
    number = np.array(copies)
    drawn = np.concatenate(list(weights(number, 40_000, np.random.default_rng(3))))
    n, p = number.sum(), number / number.sum()
    assert (drawn.sum(1) == n).all()
    assert drawn.mean(0) == pytest.approx(n * p, rel=0.03)
    assert np.cov(drawn.T) == pytest.approx(n * (np.diag(p) - np.outer(p, p)), rel=0.05, abs=0.02 * n)


def test_interval_against_scipy_bca() -> None:
    """Student's quantile is the normal one of a wider level; scipy draws 20,000 samples of single items."""
    rng = np.random.default_rng(5)
    below = rng.integers(1, 6, 60).astype(float)
    above = rng.binomial(below.astype(int), 0.8).astype(float)
    found = Clusters(np.stack([above, below], axis=1), np.ones(60, dtype=int))
    ours = estimate(ratio, resample(found, draws=20_000), 60, "")
    level = 1 - 2 * float(ndtr(stdtrit(59, 0.025)))
    theirs = stats.bootstrap(
        (above, below),
        lambda a, b, axis: a.sum(axis) / b.sum(axis),
        paired=True,
        n_resamples=20_000,
        confidence_level=level,
        method="BCa",
        rng=rng,
    ).confidence_interval
    assert ours.value == pytest.approx(above.sum() / below.sum())
    width = theirs.high - theirs.low
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02 * width)


def test_many_distinct_rows_take_the_normal_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    below = rng.gamma(2.0, 1.0, 12_000)
    found = Clusters(np.stack([below * rng.random(12_000), below], axis=1), rng.integers(1, 3, 12_000))
    normal = estimate(ratio, resample(found, 4000), 18_000, "")
    monkeypatch.setattr(resampling, "MANY", 10**9)
    exact = estimate(ratio, resample(found, 4000), 18_000, "")
    assert None not in (normal.low, exact.low, exact.high)
    width = exact.high - exact.low  # type: ignore[operator]
    assert (normal.low, normal.high) == pytest.approx((exact.low, exact.high), abs=0.04 * width)


def test_an_interval_that_can_not_be_drawn_says_why() -> None:
    rows, ones = np.array([[1.0, 2.0]]), np.array([30])
    assert estimate(ratio, Sums(np.array([0.0, 0.0])), 0, "nothing") == Estimate(
        None, None, None, 0, "nothing"
    )
    assert estimate(ratio, resample(Clusters(rows, ones)), 30, "") == Estimate(0.5, None, None, 30, NO_SPREAD)
    few = Clusters(np.array([[1.0, 2.0], [2.0, 2.0]]), np.array([4, 5]))
    assert estimate(ratio, resample(few), 9, "") == Estimate(14 / 18, None, None, 9, TOO_FEW)
    assert estimate(ratio, resample(few, draws=0), 9, "") == Estimate(14 / 18, None, None, 9)
