"""Each figure against values worked out by hand, and the interval against the coverage it promises."""

from itertools import combinations
from math import log

import numpy as np
import pytest

from palate.evaluation import metrics


def array(*rows: list[float]) -> metrics.Array:
    return np.array(rows, dtype=np.float64)


def test_outcomes_pair_every_sample_with_every_one() -> None:
    found = metrics.outcomes(array([1, 3]), array([2, 3]))
    assert found.tolist() == [[[0.0, 0.0], [1.0, 0.5]]]


def test_win_rate_by_hand() -> None:
    # first prompt: 1 of 4 and half of one; second: 4 of 4
    found = metrics.win_rate(array([1, 3], [9, 8]), array([2, 3], [1, 0]))
    assert found is not None
    assert found.value == (1.5 + 4) / 8
    assert found.low == pytest.approx(1.5 / 4)  # only the first prompt drawn
    assert found.high == 1.0


def test_a_model_against_itself_wins_half() -> None:
    scores = np.random.default_rng(0).normal(size=(50, 4))
    found = metrics.win_rate(scores, scores)
    assert found is not None
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_win_rate_over_nothing_is_none() -> None:
    scores = array([1.0])
    assert metrics.win_rate(scores, scores, np.zeros((1, 1, 1), bool)) is None


def test_similar_length() -> None:
    found = metrics.similar_length(array([100, 50]), array([90, 89]))
    assert found.tolist() == [[[True, False], [False, False]]]


def test_longer_wins_by_hand() -> None:
    scores, lengths = array([2, 0]), array([10, 20])
    baseline, theirs = array([1, 0]), array([5, 20])
    # pairs: 2>1 longer 10>5 right; 2>0 shorter 10<20 wrong; 0<1 longer 20>5 wrong; 0=0 same length: left out
    found = metrics.longer_wins(scores, baseline, lengths, theirs)
    assert found is not None
    assert found.value == pytest.approx(1 / 3)


def test_accuracy_by_hand() -> None:
    gold = array([1, 2, 2], [5, 5, 5])  # the second prompt has no decided pair
    predicted = array([0, 1, 0], [1, 2, 3])  # 0<1 right, 0=0 half, 1>0 on a gold tie: left out
    found = metrics.accuracy(predicted, gold)
    assert found is not None
    assert found.value == 0.75


def test_kl_by_hand() -> None:
    found = metrics.kl(array([-1.0, -2.0], [-3.0, -4.0]), array([-2.0, -2.0], [-5.0, -5.0]))
    assert found is not None
    assert found.value == (1 + 0 + 2 + 1) / 4


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_best_of_n_averages_over_all_subsets(n: int) -> None:
    rng = np.random.default_rng(n)
    chosen_by, judged = rng.normal(size=(3, 5)), rng.normal(size=(3, 5))
    expected = [
        np.mean([j[max(s, key=lambda i: c[i])] for s in combinations(range(5), n)])
        for c, j in zip(chosen_by, judged, strict=True)
    ]
    assert metrics.best_of_n(judged, chosen_by, n) == pytest.approx(expected)


def test_best_of_n_kl() -> None:
    assert metrics.best_of_n_kl(1) == 0
    assert metrics.best_of_n_kl(16) == pytest.approx(log(16) - 15 / 16)


def test_distinct_share_is_counted_within_a_prompt() -> None:
    assert metrics.distinct_share([["a", "a"], ["a", "b"]]) == 0.75


def test_interval_resamples_prompts_not_samples() -> None:
    """Ten copies of each prompt's value tell nothing new: the interval must not shrink."""
    values = np.random.default_rng(0).normal(size=(40, 1))
    once, often = metrics.estimate(values), metrics.estimate(np.repeat(values, 10, axis=1))
    assert once is not None and often is not None
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_interval_is_seeded() -> None:
    values = np.random.default_rng(0).normal(size=(20, 2))
    assert metrics.estimate(values, seed=3) == metrics.estimate(values, seed=3)
    assert metrics.estimate(values, seed=3) != metrics.estimate(values, seed=4)


def test_interval_covers_what_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(100):  # win rates of 0.6 whose level differs by prompt, 100 prompts, 2 x 2 pairs
        level = rng.beta(6, 4, size=(100, 1, 1))
        won = (rng.random((100, 2, 2)) < level).astype(float)
        found = metrics.estimate(won)
        assert found is not None
        hits += found.low <= 0.6 <= found.high
    assert 88 <= hits <= 100
