"""The cluster bootstrap: against a plain one, in odd corners, and by simulation."""

from collections.abc import Callable

import numpy as np
import pytest

from palate.labeling.statistics.bradley_terry import Strengths, bradley_terry, clustered, davidson
from palate.labeling.statistics.cluster_bootstrap import _poisson_table, resample
from palate.labeling.statistics.model_votes import Counts
from tests.labeling.statistics.model_simulation import inside, met, single_votes, strengths


def correlated(
    beta: np.ndarray, items: int, each: int, rng: np.random.Generator, nu: float
) -> tuple[Counts, np.ndarray]:
    """`each` votes on each item by the same law, of which in every second item all repeat the first."""
    a, b = (np.repeat(end, each) for end in met(len(beta), items, rng))
    votes, item = single_votes(beta, a, b, rng, nu), np.repeat(np.arange(items), each)
    repeats = rng.random(items)[item] < 0.5
    return votes.rows(np.where(repeats, item * each, np.arange(len(a)))), item


def plain_bootstrap(votes: Counts, item: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """(resamples, M) fits of whole items drawn with replacement, each from scratch."""
    rows = [np.flatnonzero(item == one) for one in np.unique(item)]
    found = []
    for _ in range(resamples):
        drawn = np.concatenate([rows[one] for one in rng.integers(0, len(rows), len(rows))])
        found.append(davidson(votes.rows(drawn)).beta)
    return np.array(found)


def test_weights_are_poisson_of_mean_one() -> None:
    table = _poisson_table()
    assert len(table) == 2**16
    assert np.mean(table) == pytest.approx(1, abs=1e-4)
    assert np.var(table) == pytest.approx(1, abs=1e-3)
    assert np.mean(table == 0) == pytest.approx(np.exp(-1), abs=1e-4)


def test_like_drawing_items_one_by_one() -> None:
    rng = np.random.default_rng(4)
    votes, item = correlated(strengths(4, rng), 300, 3, rng, nu=0.5)
    found = resample(davidson(votes), votes, item, 1000)
    low, high = np.quantile(plain_bootstrap(votes, item, 400, rng), (0.025, 0.975), axis=0)
    width = (high - low).mean()
    assert found.low == pytest.approx(low, abs=0.1 * width)
    assert found.high == pytest.approx(high, abs=0.1 * width)
    assert found.resamples == 1000


def test_like_the_clustered_sandwich_on_many_items() -> None:
    rng = np.random.default_rng(5)
    votes, item = correlated(strengths(6, rng), 4000, 3, rng, nu=0.0)
    fit = clustered(bradley_terry(votes), votes, item)
    found = resample(fit, votes, item, 1000)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * fit.se, rel=0.12)
    assert (found.high + found.low) / 2 == pytest.approx(fit.beta, abs=0.2 * fit.se.max())
    assert found.best.sum() == pytest.approx(1)
    assert found.best.argmax() == fit.beta.argmax()


def test_the_same_votes_give_the_same_intervals_in_any_order() -> None:
    rng = np.random.default_rng(6)
    votes, item = correlated(strengths(4, rng), 100, 2, rng, nu=0.5)
    order = rng.permutation(len(item))
    one, other = (
        resample(davidson(v), v, i, 200) for v, i in ((votes, item), (votes.rows(order), item[order]))
    )
    assert one.low == pytest.approx(other.low, abs=1e-6)
    assert one.best.tolist() == other.best.tolist()


@pytest.mark.parametrize("fit", [bradley_terry, davidson])
def test_few_and_one_way_votes_stay_finite(fit: Callable[[Counts], Strengths]) -> None:
    for rows in (
        [(0, 1, 5, 0, 0), (1, 2, 3, 1, 0)],  # a model that won everything
        [(0, 1, 2, 1, 0), (1, 2, 1, 1, 1), (0, 2, 0, 1, 3), (3, 4, 1, 1, 0)],  # two that met nobody else
        [(0, 1, 1, 1, 8)],
    ):
        a, b, won, lost, ties = np.array(rows, dtype=float).T
        votes = Counts(6, a.astype(int), b.astype(int), won, lost, ties)
        fitted = fit(votes)
        found = resample(fitted, votes, np.arange(len(votes.a)), 200)
        assert np.isfinite(found.low).all() and np.isfinite(found.high).all()
        assert np.all(found.low <= found.high)
        assert found.best.sum() == pytest.approx(1)
        assert found.best[~fitted.scored].tolist() == [0] * (~fitted.scored).sum()


@pytest.mark.slow
def test_intervals_by_item_cover_the_truth_and_naive_ones_do_not() -> None:
    rng = np.random.default_rng(7)
    beta, nu = strengths(4, rng), 0.5
    boot, sandwich, naive = [], [], []
    for seed in range(1000):
        votes, item = correlated(beta, 250, 4, rng, nu)
        fit = davidson(votes)
        robust, found = clustered(fit, votes, item), resample(fit, votes, item, 200, seed)
        naive.append(inside(fit.low, beta, fit.high))
        sandwich.append(inside(robust.low, beta, robust.high))
        boot.append(inside(found.low, beta, found.high))
    assert all(0.93 <= share <= 0.97 for share in np.mean(boot, axis=0))
    assert all(0.93 <= share <= 0.97 for share in np.mean(sandwich, axis=0))
    assert np.mean(naive) < 0.88
