"""What more votes would buy: accuracy of a linear head after 10, 20, 40 and 80 % of the votes, and where that leads.

The curve a - b n^-c (Hestness et al. 2017, https://arxiv.org/abs/1712.00409, section 3) goes through means over random
subsets of the groups of prompts. Its interval is 1.96 standard deviations of what single subsets say, each judged on
held-out groups drawn with replacement: a mean of subsets that overlap is not much surer than one of them. The head learns from frozen features in
milliseconds; the trained model is better than the head, but what it lacks is mostly what the head lacks: votes. It is an
extrapolation, and says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.linear_head import LinearHead

SHARES = (0.1, 0.2, 0.4, 0.8)
ORDERS = 24  # random orders of the groups
FEWEST_GROUPS, FEWEST_PAIRS = 16, 80  # to learn from; below, a curve is noise
FEWEST_JUDGED = 40  # held-out pairs
MORE = 500  # votes
EXPONENTS = np.linspace(0.2, 2.0, 10)
Row = dict[str, Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LearningCurve:
    """Accuracies 0..1 at numbers of votes, and the gain in points (of 100) by MORE votes with its 95 % interval."""

    votes: tuple[int, ...]
    accuracy: tuple[float, ...]
    gain: float
    low: float
    high: float
    doubled: float  # points by as many votes again
    total: int  # votes there are

    def ahead(self, votes: Sequence[float]) -> list[float]:
        """Accuracies 0..1 that the curve says at numbers of votes."""
        a, b, c = curve(np.array(self.votes, np.float64), np.array(self.accuracy))
        return [float(a - b * n**-c) for n in votes]

    def record(self) -> dict[str, Any]:
        """Plain values for a run's record."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For the terminal and the page."""
        points = ", ".join(
            f"{100 * a:.1f} % after {n}" for n, a in zip(self.votes, self.accuracy, strict=True)
        )
        if self.low <= 0:
            said = f"no gain by {MORE} more votes is to be seen: {self.gain:+.1f} points [{self.low:.1f}, {self.high:.1f}]"
        else:
            said = (
                f"{MORE} more votes would buy about {self.gain:.1f} points [{self.low:.1f}, {self.high:.1f}]"
            )
        return [
            said + f"; twice as many votes {self.doubled:+.1f}",
            f"a linear head on frozen features: {points} votes; an extrapolation, for votes of the same kind",
        ]


def learning_curve(
    learned: Sequence[Row], held: Sequence[Row], features: Mapping[str, NDArray[np.floating]], seed: int = 0
) -> LearningCurve | None:
    """From rows to learn from and rows to judge by (data.preferences), with features (D,) by completion id; None where
    there is too little of either."""
    z, weight, group, votes = _pairs(learned, features)
    judged, _, judged_group, _ = _pairs(held, features)
    groups = np.unique(group)
    if len(groups) < FEWEST_GROUPS or len(z) < FEWEST_PAIRS or len(judged) < FEWEST_JUDGED:
        return None
    rng = np.random.default_rng(seed)
    total = len(set(votes))
    found, resampled = np.empty((ORDERS, len(SHARES))), np.empty((ORDERS, len(SHARES)))
    _, clusters = np.unique(judged_group, return_inverse=True)
    count = int(clusters.max()) + 1
    for row in range(ORDERS):
        order = rng.permutation(groups)
        times = rng.multinomial(count, np.full(count, 1 / count))[clusters]
        for column, share in enumerate(SHARES):
            some = np.isin(group, order[: max(2, round(share * len(groups)))])
            right = _right(z[some], weight[some], judged)
            found[row, column], resampled[row, column] = (
                right.mean(),
                (right * times).sum() / max(times.sum(), 1),
            )
    sizes, mean = np.array([share * total for share in SHARES]), found.mean(axis=0)
    gain = _gain(sizes, mean, total, total + MORE)
    spread = 1.96 * float(np.std([_gain(sizes, one, total, total + MORE) for one in resampled], ddof=1))
    return LearningCurve(
        tuple(round(n) for n in sizes), tuple(float(a) for a in mean),
        gain, gain - spread, gain + spread, _gain(sizes, mean, total, 2 * total), total,
    )  # fmt: skip


def curve(sizes: Floats, found: Floats) -> tuple[float, float, float]:
    """(a, b, c) of a - b n^-c by least squares, c in 0.2..2, a <= 1, b of any sign."""
    best, least = (float(found.mean()), 0.0, 1.0), np.inf
    for c in EXPONENTS:
        x = sizes**-c
        slope, a = np.polyfit(x, found, 1)
        if a > 1:
            a = 1.0
            slope = float((x @ (found - 1)) / (x @ x))
        cost = float(((a + slope * x - found) ** 2).sum())
        if cost < least:
            best, least = (float(a), float(-slope), float(c)), cost
    return best


def _gain(sizes: Floats, found: Floats, here: float, there: float) -> float:
    """Points that the curve rises between two numbers of votes."""
    _, b, c = curve(sizes, found)
    return float(100 * b * (here**-c - there**-c))


def _right(z: Floats, weight: Floats, judged: Floats) -> Floats:
    """(n,) 1 where a head that learned from z orders a judged pair as its vote."""
    head = LinearHead.by_evidence(z, np.ones(len(z)), weight)
    margin = judged @ head.mean
    return np.asarray((margin > 0) + 0.5 * (margin == 0), dtype=np.float64)


def _pairs(
    rows: Sequence[Row], features: Mapping[str, NDArray[np.floating]]
) -> tuple[Floats, Floats, NDArray[np.str_], list[str]]:
    """(differences (n, D) winner less loser, weights (n,), groups (n,), vote ids) of the decided pairs."""
    picked = [
        (row, pair) for row in rows for pair in row["pairs"]
        if not pair["tie"] and pair["weight"] > 0 and all(one in features for one in row["completion_ids"])
    ]  # fmt: skip
    z = [
        np.asarray(features[row["completion_ids"][pair["winner"]]], np.float64)
        - features[row["completion_ids"][pair["loser"]]]
        for row, pair in picked
    ]
    return (
        np.array(z), np.array([pair["weight"] for _, pair in picked]), np.array([row["group"] for row, _ in picked]),
        [pair["vote_id"] for _, pair in picked],
    )  # fmt: skip
