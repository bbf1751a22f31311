"""Accuracy beside the length rule, counted by hand; intervals that cover what they should."""

from typing import Any

import numpy as np
import pytest

from palate.reward.accuracy import accuracy, cluster_bootstrap, length_correlation


def row(number: int, texts: list[str], votes: list[tuple[int, int, bool]]) -> dict[str, Any]:
    pairs = [{"winner": w, "loser": l, "tie": t} for w, l, t in votes]
    return {"comparison_id": f"c{number}", "group": f"g{number}", "completions": texts, "pairs": pairs}


def test_votes_and_majorities_by_hand() -> None:
    rows = [
        row(0, ["long text", "short"], [(0, 1, False), (0, 1, False), (1, 0, False)]),  # majority: 0
        row(1, ["ab", "abc"], [(0, 1, False), (0, 1, True)]),  # the tied vote is left out
        row(2, ["same", "size"], [(0, 1, False), (1, 0, False)]),  # no majority
    ]
    scores = [[2.0, 1.0], [0.0, 5.0], [1.0, 1.0]]
    votes = accuracy(rows, scores)
    assert votes is not None
    assert (votes.pairs, votes.clusters, votes.clustered_by) == (6, 3, "comparisons")
    assert votes.scores.value == pytest.approx(
        (1 + 1 + 0 + 0 + 0.5 + 0.5) / 6
    )  # equal scores are right by half
    assert votes.longer.value == pytest.approx((1 + 1 + 0 + 0 + 0.5 + 0.5) / 6)
    assert votes.difference.value == pytest.approx(0.0)
    majority = accuracy(rows, scores, majority=True)
    assert majority is not None
    assert (majority.pairs, majority.scores.value, majority.longer.value) == (2, 0.5, 0.5)


def test_nothing_decided_is_none() -> None:
    assert accuracy([], []) is None
    assert accuracy([row(0, ["a", "b"], [(0, 1, True)])], [[1.0, 0.0]]) is None


def test_groups_are_the_clusters_when_there_are_enough() -> None:
    rows = [row(i, ["aa", "b"], [(0, 1, False)]) for i in range(12)]
    found = accuracy(rows, [[1.0, 0.0]] * 12)
    assert found is not None
    assert found.clustered_by == "groups"
    assert (found.scores.value, found.scores.low, found.scores.high) == (1.0, 1.0, 1.0)


def test_the_interval_covers_the_truth_and_knows_about_clusters() -> None:
    rng, covered, widths = np.random.default_rng(0), 0, []
    clusters = np.repeat(np.arange(60), 5)
    for _ in range(200):
        values = (rng.random(60) < 0.7).astype(float)[clusters]  # five copies of each answer
        found = cluster_bootstrap(values, clusters)
        covered += found.low <= 0.7 <= found.high
        widths.append(found.high - found.low)
    assert 0.90 <= covered / 200 <= 0.99
    naive = cluster_bootstrap(values, np.arange(300))
    assert np.mean(widths) > 1.8 * (naive.high - naive.low)  # sqrt(5) = 2.2


def test_length_correlation() -> None:
    rows = [row(0, ["a", "bb", "ccc"], [])]
    assert length_correlation(rows, [[1.0, 2.0, 3.0]]) == pytest.approx(1.0)
    assert length_correlation(rows, [[1.0, 1.0, 1.0]]) is None
