"""How often scores agree with votes, beside the rule "the longer one wins", with intervals.

Works on rows of data.preferences and on any scores (a reward, an implicit reward of DPO): numbers in, numbers
out, no models. Intervals resample whole clusters (groups of prompts, or comparisons where groups are few),
because votes on one prompt are not independent.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

RESAMPLES = 2000
FEW_GROUPS = 10  # below, clusters are comparisons: a handful of groups says nothing about their spread
Row = dict[str, Any]


@dataclass(frozen=True)
class Estimate:
    """A mean over pairs and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class Accuracy:
    """Agreement with votes, of scores and of the length rule, on the same pairs."""

    scores: Estimate
    longer: Estimate  # the completion with more characters wins
    difference: Estimate  # scores - longer
    pairs: int
    clusters: int
    clustered_by: str

    def __str__(self) -> str:
        return (
            f"{self.scores}; the longer one wins: {self.longer}; difference {self.difference} "
            f"({self.pairs} pairs in {self.clusters} {self.clustered_by})"
        )

    def metrics(self) -> dict[str, Any]:
        """Plain values for a run's record."""
        return asdict(self)


def accuracy(
    rows: Sequence[Row], scores: Sequence[Sequence[float]], majority: bool = False, seed: int = 0
) -> Accuracy | None:
    """Agreement of `scores[row][completion]` with the votes of `rows`; None when no pair is decided.

    Each vote's winner is one pair; with `majority`, each pair of completions counts once, for the side that more
    votes chose. Tied votes and tied majorities are left out; equal scores or lengths are right by half.
    """
    by_group = len({row["group"] for row in rows}) >= FEW_GROUPS
    outcomes: list[tuple[str, float, float]] = []
    for row, row_scores in zip(rows, scores, strict=True):
        cluster = row["group" if by_group else "comparison_id"]
        lengths = [float(len(text)) for text in row["completions"]]
        for winner, loser in _majorities(row) if majority else _wins(row):
            outcomes.append((cluster, _right(row_scores, winner, loser), _right(lengths, winner, loser)))
    if not outcomes:
        return None
    _, clusters = np.unique([cluster for cluster, _, _ in outcomes], return_inverse=True)
    ours, longer = np.array([(a, b) for _, a, b in outcomes]).T
    return Accuracy(
        cluster_bootstrap(ours, clusters, seed),
        cluster_bootstrap(longer, clusters, seed),
        cluster_bootstrap(ours - longer, clusters, seed),
        len(outcomes),
        int(clusters.max()) + 1,
        "groups" if by_group else "comparisons",
    )


def cluster_bootstrap(values: np.ndarray, clusters: np.ndarray, seed: int = 0) -> Estimate:
    """Mean of `values` (N,) with a 95 % percentile interval over resampled `clusters` (N,) numbered from 0."""
    count = int(clusters.max()) + 1
    sums, sizes = np.bincount(clusters, values, count), np.bincount(clusters, minlength=count)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    means = (drawn @ sums) / (drawn @ sizes)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high))


def length_correlation(rows: Sequence[Row], scores: Sequence[Sequence[float]]) -> float | None:
    """Pearson's r between scores and characters over all completions; None when either is constant."""
    flat = np.array([score for row_scores in scores for score in row_scores])
    lengths = np.array([len(text) for row in rows for text in row["completions"]])
    if len(flat) < 3 or flat.std() == 0 or lengths.std() == 0:
        return None
    return float(np.corrcoef(flat, lengths)[0, 1])


def _wins(row: Row) -> Iterator[tuple[int, int]]:
    """(winner, loser) of each vote that is no tie."""
    return ((pair["winner"], pair["loser"]) for pair in row["pairs"] if not pair["tie"])


def _majorities(row: Row) -> Iterator[tuple[int, int]]:
    """(winner, loser) of each pair of completions on which one side has more votes."""
    counts = Counter(_wins(row))
    for (winner, loser), votes in counts.items():
        if votes > counts[loser, winner]:
            yield winner, loser


def _right(scores: Sequence[float], winner: int, loser: int) -> float:
    return 0.5 * float(1 + np.sign(scores[winner] - scores[loser]))
