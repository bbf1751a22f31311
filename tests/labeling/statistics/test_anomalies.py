"""The anomaly test: by hand, beside scipy, and whether its false alarms stay below its level."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import combine_pvalues, kstest

from palate.labeling.statistics.anomalies import FIRST, anomalous, unusual
from palate.labeling.statistics.biases import holm

Ints = NDArray[np.int64]


def honest(
    rng: np.random.Generator, annotators: int, each: int, models: int = 8, ties: float = 0.15
) -> tuple[Ints, Ints, Ints]:
    """(annotator, pair of models, outcome) of votes that depend on the models alone."""
    n, strength = annotators * each, rng.normal(0, 1.5, models)
    a = rng.integers(0, models - 1, n)
    b = a + 1 + (rng.random(n) * (models - 1 - a)).astype(int)
    won = np.where(rng.random(n) < 1 / (1 + np.exp(strength[b] - strength[a])), 1, -1)
    return (
        rng.permuted(np.repeat(np.arange(annotators), each)),
        a * models + b,
        np.where(rng.random(n) < ties, 0, won),
    )


def test_p_values_by_hand() -> None:
    # one pair of models; the first wins, wins, loses, ties, wins
    won, half = np.array([1, 1, -1, 0, 1]), np.full(5, 0.5)
    found = unusual(np.zeros(5, int), won, half)
    # 1: alone. 2: two alike. 3: the first loss, 0 more unusual, 1 alike, of 3. 4: a loss is more unusual, 1 tie, of 4.
    # 5: one loss and one tie are more unusual, three wins alike, of 5
    np.testing.assert_allclose(found, [0.5, 0.5, 0.5 / 3, 1.5 / 4, 3.5 / 5])
    # who is called first changes nothing where one of them leads
    np.testing.assert_allclose(unusual(np.zeros(5, int), -won, half)[1:], found[1:])


def test_pairs_of_models_have_their_own_history() -> None:
    pair, won = np.array([7, 3, 7, 3, 7]), np.array([1, -1, 1, -1, -1])
    luck = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    found = unusual(pair, won, luck)
    np.testing.assert_allclose(found[pair == 7], unusual(np.zeros(3, int), won[pair == 7], luck[pair == 7]))
    np.testing.assert_allclose(found[pair == 3], unusual(np.zeros(2, int), won[pair == 3], luck[pair == 3]))
    assert unusual(np.zeros(0, int), np.zeros(0, int), np.zeros(0)).tolist() == []


def test_fishers_method_as_scipy() -> None:
    rng = np.random.default_rng(0)
    person, p = rng.permuted(np.repeat([0, 1, 2], [10, 30, 60])), rng.random(100) ** 1.5
    found, n = anomalous(person, p, 4)
    assert n.tolist() == [10, 30, 60, 0]
    first, second = p[person == 1][:FIRST], p[person == 2]
    assert found[1] == pytest.approx(min(1, 2 * combine_pvalues(first).pvalue))
    looks = [2 * combine_pvalues(second[:25]).pvalue, 6 * combine_pvalues(second[:50]).pvalue]
    assert found[2] == pytest.approx(min(1, *looks))
    assert found[0] == found[3] == 1


def test_p_values_are_uniform_when_votes_are_exchangeable() -> None:
    found = []
    for seed in range(50):
        rng = np.random.default_rng(seed)
        _, pair, won = honest(rng, 10, 60)
        found.append(unusual(pair, won, rng.random(600)))
    assert kstest(np.concatenate(found), "uniform").pvalue > 0.01
    # nor do neighbours depend on each other
    p = np.stack(found)
    assert abs(np.corrcoef(p[:, :-1].ravel(), p[:, 1:].ravel())[0, 1]) < 0.02


def test_false_alarms_stay_below_the_level_and_adversaries_are_found() -> None:
    alone, family, adversary = [], [], []
    for seed in range(500):
        rng = np.random.default_rng(seed)
        person, pair, won = honest(rng, 10, 60)
        luck = rng.random(600)
        p, _ = anomalous(person, unusual(pair, won, luck), 10)
        alone.append(p < 0.05)
        family.append((holm(p) < 0.05).any())
        turned = np.where(person == 0, -won, won)
        adversary.append(holm(anomalous(person, unusual(pair, turned, luck), 10)[0])[0] < 0.05)
    assert np.mean(alone) <= 0.05 and np.mean(family) <= 0.05
    assert np.mean(adversary) > 0.5


def test_the_published_code_is_no_test_when_there_are_ties() -> None:
    """prod 1 / (2 p), p = P(a vote at least as unusual): its mean for votes like everybody's should be at most 1."""
    loses, ties, wins = 0.1, 0.4, 0.5
    mean = loses / (2 * loses) + ties / (2 * (loses + ties)) + wins / 2
    assert mean == pytest.approx(1.15)
    assert mean**25 > 20  # after 25 honest votes it is expected to be above 1 / 0.05, where it would accuse
