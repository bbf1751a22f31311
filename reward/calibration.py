"""How sure a reward may be: temperature, reliability diagram and expected calibration error (ECE) on held-out votes.

P(a over b) = sigmoid(margin / T). T is the one at which held-out votes are most likely (Guo et al. 2017,
https://arxiv.org/abs/1706.04599, section 4.2). It is judged by cross-fitting: of two halves of the groups, each is
judged at the temperature of the other. Numbers in, numbers out, as accuracy.py.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from palate.linear_head import sigmoid
from palate.reward.accuracy import FEW_GROUPS, RESAMPLES, Estimate

FEWEST = 30  # decided or tied pairs, below which nothing is said
BINS, PER_BIN = 10, 15  # bins of equally many pairs; fewer where they would hold less than PER_BIN
COLDEST, HOTTEST = 0.05, 50.0
Row = dict[str, Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """Pairs of similar predicted probability, of the side that the reward takes."""

    predicted: float  # mean, 0.5..1
    right: float  # share, 0..1
    pairs: int


@dataclass(frozen=True)
class Calibration:
    """ECE in 0..1 with 95 % intervals over clusters; `bins` are those after."""

    temperature: float
    before: Estimate
    after: Estimate
    pairs: int
    bins: tuple[Bin, ...]

    def record(self) -> dict[str, Any]:
        """Plain values for a run's record."""
        return {key: value for key, value in asdict(self).items() if key != "bins"}

    def lines(self) -> list[str]:
        """For the terminal and the page."""
        sense = (
            "too sure"
            if self.temperature > 1.1
            else "not sure enough"
            if self.temperature < 0.9
            else "about right"
        )
        return [
            f"as trained it is {sense}: temperature {self.temperature:.2f} fits {self.pairs} held-out pairs best",
            f"expected calibration error as trained: {self.before}",
            f"expected calibration error at that temperature, cross-fitted: {self.after}",
        ]


def calibrate(
    rows: Sequence[Row], scores: Sequence[Sequence[float]], scale: float = 1.0
) -> Calibration | None:
    """From rewards per row and votes on them; `scale`: log-odds per unit of reward. None below FEWEST pairs, or where all
    are of one comparison.

    A tie is right by half. Intervals resample groups, or comparisons where groups are few.
    """
    key = "group" if len({row["group"] for row in rows}) >= FEW_GROUPS else "comparison_id"
    found = [
        (row[key], scale * (given[pair["winner"]] - given[pair["loser"]]), 0.5 if pair["tie"] else 1.0)
        for row, given in zip(rows, scores, strict=True)
        for pair in row["pairs"]
    ]
    if len(found) < FEWEST:
        return None
    names, clusters = np.unique([name for name, _, _ in found], return_inverse=True)
    if len(names) < 2:  # nothing to judge by what was not fitted
        return None
    margins = np.array([margin for _, margin, _ in found])
    won = np.array([share for _, _, share in found])
    order = np.argsort([hashlib.sha256(f"half:{name}".encode()).hexdigest() for name in names])
    halves = (np.argsort(order) % 2)[clusters]  # by turns, so that neither is empty
    judged = np.empty(len(margins))
    for half in (0, 1):
        inside, outside = halves == half, halves != half
        judged[inside] = margins[inside] / temperature(margins[outside], won[outside])
    after, bins = error(judged, won, clusters)
    return Calibration(temperature(margins, won), error(margins, won, clusters)[0], after, len(margins), bins)


def temperature(margins: Floats, won: Floats) -> float:
    """T in COLDEST..HOTTEST that maximises the likelihood of votes: margins (n,) of the winner over the loser in log-odds,
    won (n,) 1, or 0.5 after a tie."""

    def cost(logarithm: float) -> float:
        m = margins / np.exp(logarithm)
        return float((won * np.logaddexp(0, -m) + (1 - won) * np.logaddexp(0, m)).sum())

    found = minimize_scalar(cost, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded")
    return float(np.exp(found.x))


def error(
    margins: Floats, won: Floats, clusters: NDArray[np.integer], seed: int = 0
) -> tuple[Estimate, tuple[Bin, ...]]:
    """(ECE with interval, bins): mean over bins of equally many pairs of |mean confidence - share right|.

    margins, won (n,) as in `temperature`; clusters (n,) numbered from 0. The bins stay while clusters are resampled.
    """
    sure = sigmoid(np.abs(margins))
    right = np.where(margins >= 0, won, 1 - won)
    right = np.where(margins == 0, 0.5, right)
    count = max(1, min(BINS, len(margins) // PER_BIN))
    place = np.empty(len(margins), dtype=int)
    place[np.argsort(sure, kind="stable")] = np.arange(len(margins)) * count // len(margins)
    size = int(clusters.max()) + 1
    cell = clusters * count + place
    gaps, pairs, hits = (
        np.bincount(cell, values, size * count).reshape(size, count)
        for values in (sure - right, np.ones(len(margins)), right)
    )
    drawn = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), RESAMPLES)
    errors = np.abs(drawn @ gaps).sum(axis=1) / (drawn @ pairs).sum(axis=1)
    n, g = pairs.sum(axis=0), gaps.sum(axis=0)
    value = float(np.abs(g).sum() / n.sum())
    # a resample is noisier than the sample, and noise only adds to an error: that much is taken off
    low, high = np.maximum(np.quantile(errors, [0.025, 0.975]) - (errors.mean() - value), 0.0)
    bins = tuple(
        Bin(float((g[b] + hits[:, b].sum()) / n[b]), float(hits[:, b].sum() / n[b]), int(n[b]))
        for b in range(count)
    )
    return Estimate(value, float(low), float(high)), bins
