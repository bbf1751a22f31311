"""Best of n as the bar: the unbiased mean of the largest, and its distance."""

from itertools import combinations

import numpy as np
import pytest

from palate.rl.best_of_n import frontier


def test_frontier_is_the_mean_over_all_subsets() -> None:
    rewards = np.random.default_rng(0).normal(size=(3, 6))
    found = frontier(rewards)
    assert found.n == (1, 2, 4, 6)
    for n, value in zip(found.n, found.reward, strict=True):
        expected = np.mean([np.mean([max(s) for s in combinations(row, n)]) for row in rewards])
        assert value == pytest.approx(expected)
    assert found.kl == pytest.approx([np.log(n) - (n - 1) / n for n in found.n])


def test_bar_at_a_distance_and_its_sentence() -> None:
    found = frontier([[0.0, 1.0], [0.0, 1.0]])
    assert found.reward == (0.5, 1.0)
    far = found.kl[1]
    assert found.at_kl(0.0) == 0.5 and found.at_kl(100.0) == 1.0
    assert found.at_kl(far / 4) == pytest.approx(0.75)
    assert found.sentence(2.0, 5.0) == "best of 2 has +1.00 at no more than 0.2 nats; the policy has more"
    assert "choosing among answers would do as well" in found.sentence(0.9, 5.0)
    assert found.sentence(0.9, far / 4).endswith("has +0.75; the policy has more")
    assert found.record() == {"n": [1, 2], "kl": list(found.kl), "reward": [0.5, 1.0]}
