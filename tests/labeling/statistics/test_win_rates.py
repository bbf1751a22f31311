"""Win rates with clustered intervals, and the matrix of who beats whom, by hand."""

import numpy as np
import pytest

from palate.labeling.statistics.measures import clustered_share, wilson
from palate.labeling.statistics.model_votes import Counts
from palate.labeling.statistics.win_rates import win_matrix, win_rates
from tests.labeling.statistics.model_simulation import inside, met, single_votes, strengths


def counts(models: int, *rows: tuple[int, int, float, float, float]) -> Counts:
    """From (a, b, a wins, b wins, ties)."""
    a, b, won, lost, ties = np.array(rows, dtype=float).T
    return Counts(models, a.astype(int), b.astype(int), won, lost, ties)


def test_by_hand() -> None:
    votes = counts(4, (0, 1, 3, 1, 2), (2, 0, 1, 0, 0), (1, 1, 9, 0, 0))
    found = win_rates(votes, np.array([0, 1, 2]))
    # model 0: 3 + 1 of 6, 0 of 1; model 1: 1 + 1 of 6; model 2: 1 of 1; its own pair says nothing
    assert found.share == pytest.approx([4 / 7, 2 / 6, 1, 0])
    assert (found.votes.tolist(), found.items.tolist()) == ([7, 6, 1, 0], [2, 1, 1, 0])
    assert (found.low[2], found.high[2]) == pytest.approx(wilson(1, 1))
    assert (found.low[3], found.high[3]) == (0, 0)


def test_the_same_as_the_share_of_one_list_of_clusters() -> None:
    rng = np.random.default_rng(21)
    a, b = met(3, 400, rng)
    votes, item = single_votes(strengths(3, rng), a, b, rng, nu=0.5), rng.integers(0, 60, 400)
    found = win_rates(votes, item)
    for model in range(3):
        won = np.where(
            votes.a == model, votes.a_wins, np.where(votes.b == model, votes.b_wins, 0)
        ) + np.where((votes.a == model) | (votes.b == model), votes.ties / 2, 0)
        played = ((votes.a == model) | (votes.b == model)).astype(float)
        clusters = np.stack([np.bincount(item, won, 60), np.bincount(item, played, 60)], axis=1)
        share = clustered_share(clusters, "")
        assert (found.share[model], found.low[model], found.high[model]) == pytest.approx(
            (share.value, share.low, share.high), abs=1e-12
        )


def test_no_vote() -> None:
    none = Counts(2, *(np.zeros(0, dtype=int),) * 2, *(np.zeros(0),) * 3)
    found = win_rates(none, np.zeros(0, dtype=int))
    assert (found.share.tolist(), found.votes.tolist(), found.items.tolist()) == ([0, 0],) * 3
    assert win_matrix(none)[1].tolist() == [[0, 0], [0, 0]]


def test_matrix_by_hand() -> None:
    share, votes = win_matrix(counts(3, (0, 1, 3, 1, 4), (1, 0, 2, 0, 0), (2, 2, 5, 0, 0)))
    assert votes.tolist() == [[0, 10, 0], [10, 0, 0], [0, 0, 0]]
    assert share.tolist() == [[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]]


@pytest.mark.slow
def test_intervals_cover_the_truth() -> None:
    # two votes on each item by the same law, equal in every second item
    rng = np.random.default_rng(22)
    beta = np.array([0.4, -0.4])
    covered = []
    for _ in range(1000):
        zero = np.zeros(300, dtype=int)
        votes, item = single_votes(beta, zero, zero + 1, rng), np.arange(300) // 2
        votes = votes.rows(np.where(rng.random(150)[item] < 0.5, 2 * item, np.arange(300)))
        found = win_rates(votes, item)
        covered.append(inside(found.low, np.array([1, -1]) * np.tanh(0.4) / 2 + 0.5, found.high))
    assert all(0.93 <= share <= 0.97 for share in np.mean(covered, axis=0))
