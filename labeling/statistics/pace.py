"""How long answers take, how that changes, and when the work will be done. Pure functions, no store.

Millions of times are given as their different values with counts: the same figures, from a few thousand numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.labeling.statistics.measures import Estimate

LEVEL = 0.95
FEWEST_DAYS = 3  # whole days from which the spread of a daily pace is estimated
FEWEST_PEOPLE = 6  # below this the sign test can't exclude anything at 5 %

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Times:
    """Durations as their different values, ascending, with how often each occurred."""

    seconds: Floats  # (V,)
    counts: Ints  # (V,)

    @property
    def n(self) -> int:
        """How many durations there are."""
        return int(self.counts.sum())


def quantiles(times: Times, shares: Sequence[float]) -> list[float]:
    """Quantiles as numpy's `quantile` of all single values gives them (linear between neighbours). n > 0."""
    below = np.cumsum(times.counts)  # values up to and with each
    found = []
    for share in shares:
        place = share * (below[-1] - 1)
        low = times.seconds[np.searchsorted(below, math.floor(place), side="right")]
        high = times.seconds[np.searchsorted(below, math.ceil(place), side="right")]
        found.append(float(low + (high - low) * (place - math.floor(place))))
    return found


def by_doubling(times: Sequence[Times], per_doubling: int = 2) -> tuple[list[float], list[list[int]]]:
    """(edges, counts of each) of histograms whose bins grow by a constant factor; all of them share the edges.

    Nothing is cut off: the first edge is at or below the smallest value, the last above the largest. Values below
    a tenth of a second count as that, since 0 has no logarithm.
    """
    every = np.concatenate([one.seconds[one.counts > 0] for one in times])
    if not len(every):
        return [1.0, 2.0], [[0] for _ in times]
    logs = np.log2(np.maximum([every.min(), every.max()], 0.1)) * per_doubling
    low, high = math.floor(logs[0]), math.floor(logs[1]) + 1
    edges = 2.0 ** (np.arange(low, high + 1) / per_doubling)
    counted = []
    for one in times:
        bins = np.clip(
            np.searchsorted(edges, np.maximum(one.seconds, 0.1), side="right") - 1, 0, high - low - 1
        )
        counted.append(np.bincount(bins, one.counts, high - low).astype(int).tolist())
    return edges.tolist(), counted


def daily_mean(answers: Sequence[int]) -> Estimate:
    """Answers per day with a 95 % interval, from the answers of whole days (days without any are among them).

    Student's t over days. Days count as alike and independent: a project that speeds up or a team that works in turns
    makes the interval too narrow.
    """
    from scipy.special import stdtrit

    n = len(answers)
    if n == 0:
        return Estimate(None, None, None, 0, "no whole day of voting has passed yet")
    mean = float(np.mean(answers))
    if n < FEWEST_DAYS:
        return Estimate(mean, None, None, n, f"an interval needs {FEWEST_DAYS} whole days of voting")
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2) * np.std(answers, ddof=1) / math.sqrt(n))
    return Estimate(mean, max(0.0, mean - half), mean + half, n)


def days_left(awaited: int, pace: Estimate) -> Estimate:
    """Days until so many answers are given at this pace; its interval is that of the pace turned over.

    `high` is None, with a reason, when the interval of the pace reaches down to standing still.
    """
    if awaited == 0:
        return Estimate(0.0, 0.0, 0.0, pace.n)
    if not pace.value:
        why = (
            pace.why
            if pace.value is None
            else "nobody answered anything in the days that the pace is taken from"
        )
        return Estimate(None, None, None, pace.n, why)
    days = awaited / pace.value
    if pace.low is None or pace.high is None:
        return Estimate(days, None, None, pace.n, pace.why)
    if pace.low == 0:
        why = "days differ so much that there is no upper end"
        return Estimate(days, awaited / pace.high, None, pace.n, why)
    return Estimate(days, awaited / pace.high, awaited / pace.low, pace.n)


def change(first: Floats, latest: Floats) -> Estimate:
    """By which factor people's times have changed: the median over people of latest / first, (P,) each.

    The interval is that of the sign test, made exact by interpolating between order statistics (Hettmansperger and
    Sheather 1986, "Confidence intervals based on interpolated order statistics"), on a logarithmic scale; it assumes
    nothing of how people's changes are distributed. n counts people.
    """
    from scipy.special import bdtr

    kept = (first > 0) & (latest > 0)
    logs = np.sort(np.log(latest[kept] / first[kept]))
    n = len(logs)
    if n == 0:
        return Estimate(None, None, None, 0, "nobody has given enough timed answers")
    middle = float(np.exp(np.median(logs)))
    if n < FEWEST_PEOPLE:
        return Estimate(
            middle, None, None, n, f"an interval needs {FEWEST_PEOPLE} people with enough answers"
        )
    # between the d-th smallest and the d-th largest lies the median with probability 1 - 2 P(X < d), X ~ B(n, 1/2);
    # d is the largest for which that is at least 95 %
    d = max(1, int(n / 2 - math.sqrt(n)))
    while 1 - 2 * bdtr(d, n, 0.5) >= LEVEL:
        d += 1
    wide, narrow = (1 - 2 * float(bdtr(k - 1, n, 0.5)) for k in (d, d + 1))
    part = (wide - LEVEL) / (wide - narrow)
    weight = (n - d) * part / (d + (n - 2 * d) * part)
    low = (1 - weight) * logs[d - 1] + weight * logs[d]
    high = (1 - weight) * logs[n - d] + weight * logs[n - d - 1]
    return Estimate(middle, float(np.exp(low)), float(np.exp(high)), n)
