"""Side and length: by hand, beside scipy and statsmodels, and the coverage of intervals."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import binomtest, fisher_exact
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from palate.labeling.statistics.biases import (
    Lengths,
    by_bins,
    clustered_slope,
    even_chance,
    first_shown,
    holm,
    shares,
    slopes,
    slopes_unlike,
    unlike_others,
)
from palate.labeling.statistics.grouped import logistic

RNG = np.random.default_rng(0)
N = RNG.integers(1, 200, 40).astype(float)
HITS = RNG.binomial(N.astype(int), 0.6).astype(float)


def some_lengths(rng: np.random.Generator, n: int, slope: float, groups: int = 1) -> Lengths:
    ratio = np.abs(rng.normal(0, 0.6, n)) + 1e-3
    longer = (rng.random(n) < logistic(slope * ratio)).astype(float)
    return Lengths(rng.integers(0, groups, n), ratio, longer, np.ones(n), groups)


def test_shares_by_hand_and_as_statsmodels() -> None:
    # 8 of 10: centre (0.8 + z2/20) / (1 + z2/10), z2 = 3.8415
    found = shares(np.array([8.0, 0.0]), np.array([10.0, 0.0]))
    assert found.value.tolist() == [0.8, 0.5] and found.known.tolist() == [True, False]
    assert found.low[0] == pytest.approx(0.490162, abs=1e-6) and found.high[0] == pytest.approx(
        0.943318, abs=1e-6
    )
    assert (found.low[1], found.high[1]) == (0, 1)
    low, high = proportion_confint(HITS, N, method="wilson")
    np.testing.assert_allclose([shares(HITS, N).low, shares(HITS, N).high], [low, high], atol=1e-12)


def test_even_chance_by_hand_and_as_scipy() -> None:
    # 9 of 10: 2 (10 + 1) / 1024
    assert even_chance(np.array([9.0, 5, 0]), np.array([10.0, 10, 0])).tolist() == pytest.approx(
        [22 / 1024, 1, 1]
    )
    theirs = [binomtest(int(k), int(n)).pvalue for k, n in zip(HITS, N, strict=True)]
    np.testing.assert_allclose(even_chance(HITS, N), theirs, atol=1e-12)
    between = even_chance(np.array([8.0, 8.5, 9.0]), np.array([10.0, 10, 10]))
    assert between[0] > between[1] > between[2]


def test_unlike_others_by_hand_and_as_scipy() -> None:
    # 3 of 3 against 0 of 3: of the 20 ways to place three hits, one is so
    below, above = unlike_others(np.array([3.0, 0]), np.array([3.0, 3]))
    assert (
        above[0] == pytest.approx(1 / 20) and below[1] == pytest.approx(1 / 20) and below[0] == above[1] == 1
    )
    below, above = unlike_others(HITS, N)
    for i in range(len(N)):
        table = [[HITS[i], N[i] - HITS[i]], [HITS.sum() - HITS[i], (N - HITS).sum() - N[i] + HITS[i]]]
        assert below[i] == pytest.approx(fisher_exact(table, "less").pvalue, abs=1e-9)
        assert above[i] == pytest.approx(fisher_exact(table, "greater").pvalue, abs=1e-9)
    assert [each.tolist() for each in unlike_others(np.array([3.0, 0]), np.array([5.0, 0]))] == [
        [1, 1],
        [1, 1],
    ]


def test_holm_by_hand_and_as_statsmodels() -> None:
    assert holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])
    p = np.random.default_rng(1).random((4, 10)) ** 3
    theirs = multipletests(p.ravel(), method="holm")[1]
    np.testing.assert_allclose(holm(p).ravel(), theirs, atol=1e-12)
    assert holm(np.zeros(0)).tolist() == []


def test_slope_by_hand() -> None:
    """Twice as long wins 3 of 4: s(slope ln 2) = 3/4, so slope = ln 3 / ln 2; information 4 (3/16) (ln 2)^2."""
    found = slopes(Lengths(np.array([0]), np.array([np.log(2)]), np.array([3.0]), np.array([4.0]), 2))
    assert found.value[0] == pytest.approx(np.log(3) / np.log(2))
    half = 1.959964 / (np.sqrt(0.75) * np.log(2))
    assert found.high[0] - found.value[0] == pytest.approx(half, abs=1e-5)
    assert not found.known[1] and found.value[1] == 0 and np.isinf([found.low[1], found.high[1]]).all()


def test_slopes_as_statsmodels() -> None:
    rows = some_lengths(np.random.default_rng(2), 600, 0.8, 5)
    found = slopes(rows)
    for group in range(5):
        mine = rows.group == group
        theirs = sm.Logit(rows.longer[mine], rows.ratio[mine]).fit(disp=0)
        assert found.value[group] == pytest.approx(theirs.params[0], abs=1e-8)
        assert (found.low[group], found.high[group]) == pytest.approx(tuple(theirs.conf_int()[0]), abs=1e-6)
    cluster = np.random.default_rng(3).integers(0, 90, 600)
    together = clustered_slope(Lengths(cluster, rows.ratio, rows.longer, rows.n, 90))
    fit = sm.Logit(rows.longer, rows.ratio).fit(disp=0, cov_type="cluster", cov_kwds={"groups": cluster})
    assert together.value[0] == pytest.approx(fit.params[0], abs=1e-8)
    assert (together.low[0], together.high[0]) == pytest.approx(tuple(fit.conf_int()[0]), abs=1e-6)


def test_where_the_longer_one_always_wins_there_is_no_slope() -> None:
    for longer in (0.0, 1.0):
        rows = Lengths(np.zeros(9, int), np.full(9, 0.5), np.full(9, longer), np.ones(9), 1)
        assert not slopes(rows).known[0] and not clustered_slope(rows).known[0]
        assert slopes_unlike(rows, 0.0)[0] == pytest.approx(0.0027, abs=1e-4)  # nine of nine: z = 3


def test_bins_hardly_change_slopes() -> None:
    rows = some_lengths(np.random.default_rng(4), 60_000, 0.7, 20)
    exact, binned = slopes(rows), slopes(by_bins(rows))
    assert len(by_bins(rows).n) <= 20 * 64
    np.testing.assert_allclose(binned.value, exact.value, atol=0.01 * 0.7)
    np.testing.assert_allclose(binned.high - binned.low, exact.high - exact.low, rtol=0.01)


def test_advantage_by_hand() -> None:
    """Two equal models, six votes of eight for the first shown: s(advantage) = 3/4."""
    a, b, first = np.array([0, 0]), np.array([1, 1]), np.array([1, -1])
    found = first_shown(a, b, first, np.array([3.0, 1.0]), np.array([4.0, 4.0]), 2)
    assert found is not None and found.value == pytest.approx(np.log(3), abs=1e-6)
    assert found.high - found.value == pytest.approx(1.959964 / np.sqrt(8 * 3 / 16), abs=1e-4)
    assert first_shown(a, b, first, np.array([4.0, 0.0]), np.array([4.0, 4.0]), 2) is None
    assert first_shown(a[:0], b[:0], first[:0], np.zeros(0), np.zeros(0), 2) is None


def test_advantage_as_statsmodels() -> None:
    rng = np.random.default_rng(5)
    strength = rng.normal(0, 1, 6)
    a = rng.integers(0, 6, 900)
    b = (a + rng.integers(1, 6, 900)) % 6
    first = rng.choice([-1, 1], 900)
    won = (rng.random(900) < logistic(strength[a] - strength[b] + 0.3 * first)).astype(float)
    design = np.zeros((900, 7))
    design[np.arange(900), a] += 1
    design[np.arange(900), b] -= 1
    design[:, 6] = first
    theirs = sm.Logit(won, design[:, 1:]).fit(disp=0)
    ours = first_shown(a, b, first, won, np.ones(900), 6)
    assert ours is not None and ours.value == pytest.approx(theirs.params[-1], abs=1e-5)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.conf_int()[-1]), abs=1e-5)


def test_advantage_although_one_model_always_wins() -> None:
    a, b, first = np.array([0, 0, 1, 1]), np.array([2, 2, 2, 2]), np.array([1, -1, 1, -1])
    found = first_shown(a, b, first, np.array([5.0, 5.0, 4.0, 2.0]), np.full(4, 5.0), 3)
    assert found is not None and 0 < found.value < 2 and np.isfinite([found.low, found.high]).all()


@pytest.mark.slow
@pytest.mark.parametrize("n", [40, 200])
def test_intervals_hold_what_they_promise(n: int) -> None:
    rng = np.random.default_rng(n)
    share = rng.uniform(0.3, 0.7, 4000)
    found = shares(rng.binomial(n, share).astype(float), np.full(4000, float(n)))
    assert 0.93 <= ((found.low <= share) & (share <= found.high)).mean() <= 0.97
    slope = rng.normal(0.5, 0.5, 2000)
    group = np.repeat(np.arange(2000), n)
    ratio = np.abs(rng.normal(0, 0.6, 2000 * n)) + 1e-3
    longer = (rng.random(2000 * n) < logistic(slope[group] * ratio)).astype(float)
    each = slopes(Lengths(group, ratio, longer, np.ones(2000 * n), 2000))
    held = ((each.low <= slope) & (slope <= each.high))[each.known].mean()
    assert each.known.mean() > 0.99 and 0.93 <= held <= 0.97, held


@pytest.mark.slow
def test_clustered_interval_holds_where_votes_on_an_item_hang_together() -> None:
    held = []
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        item = np.repeat(np.arange(80), 5)
        ratio = (np.abs(rng.normal(0, 0.6, 80)) + 1e-3)[item]
        # of each item one answer is better, and four of five votes say so: a slope of 0 for the length
        better = (rng.random(80) < 0.5)[item]
        longer = (better == (rng.random(400) < 0.8)).astype(float)
        found = clustered_slope(Lengths(item, ratio, longer, np.ones(400), 80))
        held.append(found.low[0] <= 0 <= found.high[0])
    assert 0.93 <= np.mean(held) <= 0.97, np.mean(held)
