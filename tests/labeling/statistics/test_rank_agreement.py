"""tau_b against scipy, ranking by ranking; W against Friedman's test, which is the same number; and by hand."""

import warnings
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, kendalltau, rankdata

from palate.labeling.statistics.measures import Estimate
from palate.labeling.statistics.rank_agreement import (
    ALL_TIED,
    NO_COMPLETE,
    NO_ITEM,
    Concordance,
    concordance,
    rankings_of_items,
)
from palate.labeling.statistics.resampling import TOO_FEW, Floats, Ints


def drawn(
    rng: np.random.Generator, rankings: int, answers: int, noise: float, missing: float
) -> tuple[Ints, Ints]:
    """Rankings of about a third as many items, with ties."""
    item = np.sort(rng.integers(0, rankings // 3, rankings))
    worth = rng.standard_normal((rankings, answers))[item]
    seen = np.round(2 * (worth + noise * rng.standard_normal((rankings, answers))))
    places = np.stack([rankdata(-row, "dense") for row in seen]).astype(np.int64)
    places[rng.random(places.shape) < missing] = 0
    return places, item


def taus(places: Ints, item: Ints) -> Floats:
    """The mean tau_b per item with two or more rankings, pair by pair through scipy."""
    means = []
    for number in np.unique(item):
        mine = places[item == number]
        if len(mine) > 1:
            found = []
            for one, other in combinations(mine, 2):
                both = (one > 0) & (other > 0)
                if both.sum() > 1:
                    found.append(kendalltau(one[both], other[both]).statistic)
            known = [value for value in found if np.isfinite(value)]
            means.append(np.mean(known) if known else np.nan)
    return np.array(means)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("answers", [3, 4, 9])
@pytest.mark.parametrize("missing", [0.0, 0.15])
def test_tau_against_scipy(answers: int, missing: float) -> None:
    places, item = drawn(np.random.default_rng(answers), 150, answers, 1.0, missing)
    found = rankings_of_items(places, item)
    assert found.tau == pytest.approx(taus(places, item), abs=1e-12, nan_ok=True)
    assert found.rankings == sum(n for n in np.bincount(item) if n > 1)


def test_w_against_friedman() -> None:
    """Friedman's statistic, ties included, is m (K - 1) W."""
    places, item = drawn(np.random.default_rng(1), 90, 5, 0.7, 0.0)
    found = rankings_of_items(places, item)
    theirs = []
    for number in np.unique(item):
        mine = places[item == number]
        if len(mine) > 1:
            with warnings.catch_warnings(action="ignore"):
                theirs.append(friedmanchisquare(*mine.T).statistic / (len(mine) * 4))
    assert found.w == pytest.approx(np.array(theirs), abs=1e-12)


def test_by_hand() -> None:
    """Three answers. Item 0: 1 2 3, 1 2 3 and 1 3 2: tau_b 1, 1/3, 1/3; rank sums 3, 7, 8, so W = 12 x 14 / (9 x 24).
    Item 1: 1 2 3 and 3 2 1: tau_b -1, rank sums 4, 4, 4. Item 2 was ranked once."""
    places = np.array([[1, 2, 3], [1, 2, 3], [1, 3, 2], [1, 2, 3], [3, 2, 1], [1, 2, 3]])
    found = rankings_of_items(places, np.array([0, 0, 0, 1, 1, 2]))
    w = 12 * 14 / (9 * 24)
    assert found.tau == pytest.approx(np.array([5 / 9, -1.0]))
    assert found.w == pytest.approx(np.array([w, 0.0]))
    assert found.chance == pytest.approx(np.array([1 / 3, 1 / 2]))
    assert found.beyond == pytest.approx(np.array([(3 * w - 1) / 2, -1.0]))
    assert concordance([found]) == Concordance(
        Estimate(pytest.approx((5 / 9 - 1) / 2), None, None, 2, TOO_FEW),
        Estimate(pytest.approx(w / 2), None, None, 2, TOO_FEW),
        Estimate(pytest.approx(((3 * w - 1) / 2 - 1) / 2), None, None, 2, TOO_FEW),
        pytest.approx(5 / 12),
        2,
        5,
    )


def test_ties_by_hand() -> None:
    """1 1 2 against 1 2 2: of three pairs one is alike, two are tied by one of them: 1 / sqrt(2 x 2)."""
    found = rankings_of_items(np.array([[1, 1, 2], [1, 2, 2]]), np.zeros(2, dtype=int))
    assert found.tau == pytest.approx(np.array([0.5]))


def test_what_tells_nothing_apart_is_left_out() -> None:
    """Everything tied has no tau_b; who left answers out has no W."""
    tied = rankings_of_items(np.array([[1, 1, 1], [1, 2, 3], [1, 1, 1]]), np.array([0, 0, 0]))
    assert np.isnan(tied.tau).all()
    assert concordance([tied]).tau == Estimate(None, None, None, 0, ALL_TIED)
    partial = rankings_of_items(np.array([[1, 2, 0], [1, 2, 3]]), np.array([0, 0]))
    assert (partial.tau.tolist(), np.isnan(partial.w).tolist()) == ([1.0], [True])
    assert concordance([partial]).w == Estimate(None, None, None, 0, NO_COMPLETE)
    nothing = concordance([rankings_of_items(np.zeros((0, 3), dtype=int), np.zeros(0, dtype=int))])
    none = Estimate(None, None, None, 0, NO_ITEM)
    assert nothing == Concordance(none, none, none, None, 0, 0) == concordance([])


@pytest.mark.slow
def test_intervals_cover() -> None:
    def item_rankings(items: int) -> tuple[Ints, Ints]:
        worth = rng.standard_normal((items, 1, 4))
        places = np.argsort(np.argsort(worth + rng.standard_normal((items, 3, 4)))) + 1
        there = np.arange(3) < rng.integers(2, 4, items)[:, None]
        return places[there], np.repeat(np.arange(items), there.sum(1))

    rng = np.random.default_rng(8)
    truth = concordance([rankings_of_items(*item_rankings(400_000))], draws=0)
    held = {"tau": 0, "w": 0, "beyond": 0}
    for _ in range(1000):
        found = concordance([rankings_of_items(*item_rankings(60))])
        for name in held:
            each = getattr(found, name)
            held[name] += each.low <= getattr(truth, name).value <= each.high
    assert {name: 930 <= n <= 970 for name, n in held.items()} == dict.fromkeys(held, True), held
