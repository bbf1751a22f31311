"""The cluster bootstrap, exactly and fast: intervals for any statistic of sums over items.

The votes on one item hang together, so whole items are drawn. A statistic here is a function of sums of what each
item contributes; so a resample is a weight per item, and a thousand resamples are one matrix product. Items that
contribute the same are exchangeable: it is enough to draw how often each distinct contribution comes up, which is
multinomial. Ten million votes on items with two or three kinds of answer are a few thousand distinct rows.

One deliberate deviation: beyond 10,000 distinct rows (so at least as many items) the sums are drawn from the normal
distribution that has their exact mean and covariance. By then the two differ less than two seeds do.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.labeling.statistics.measures import Estimate

Floats = NDArray[np.float64]
Ints = NDArray[np.integer]
Statistic = Callable[[Floats], Floats]  # sums (..., S) -> values (...), NaN where undefined

DRAWS = 1000
LEAST = 20  # items; with fewer, resampling does not tell how far off the sample may be
CHUNK = 4_000_000  # weights held at a time: 32 MB
MANY = 10_000  # distinct rows
FEW_COPIES = 10  # items with the same row

TOO_FEW = f"an interval needs {LEAST} items"
NO_SPREAD = "all items say the same, so resampling them can't show how sure this is"


@dataclass(frozen=True)
class Clusters:
    """What items contribute to the sums: distinct rows, and how many items have each. V = rows, S = sums."""

    rows: Floats  # (V, S)
    copies: Ints  # (V,) positive

    @property
    def total(self) -> Floats:
        """(S,) the sums over all items."""
        total: Floats = self.copies @ self.rows
        return total


def distinct(counts: Ints) -> tuple[Ints, Ints]:
    """(which (N,), first (V,)): the number of each row's distinct value, and a row that has that value.

    `counts` is (N, C), integers from 0. Rows are compared as one number each, digit by digit; where that number
    would not fit into 63 bits, what came before is numbered anew.
    """
    key, size = np.zeros(len(counts), dtype=np.int64), 1
    for column in counts.T:
        span = int(column.max(initial=0)) + 1
        if size * span >= 2**62:
            _, key = np.unique(key, return_inverse=True)
            size = int(key.max(initial=0)) + 1
        key = key * span + column
        size *= span
    _, first, which = np.unique(key, return_index=True, return_inverse=True)
    return which, first


def clusters(rows: Floats, which: Ints, item: Ints) -> Clusters:
    """Clusters from units: `rows` (V, S) is what each kind of unit contributes, `which` (U,) the kind of each unit,
    `item` (U,) the item that each belongs to."""
    order = np.argsort(item, kind="stable") if np.any(item[1:] < item[:-1]) else slice(None)
    item, which = item[order], which[order]
    starts = np.flatnonzero(np.r_[True, item[1:] != item[:-1]]) if len(item) else np.zeros(0, dtype=np.int64)
    sizes = np.diff(np.r_[starts, len(item)])
    copies = np.bincount(which[starts[sizes == 1]], minlength=len(rows))
    found, numbers = [rows[copies > 0]], [copies[copies > 0]]
    if (sizes > 1).any():
        several = np.repeat(sizes > 1, sizes)
        sums = np.add.reduceat(
            rows[which[several]], np.r_[0, np.cumsum(sizes[sizes > 1])[:-1]], axis=0, dtype=np.float64
        )
        found.append(sums)
        numbers.append(np.ones(len(sums), dtype=copies.dtype))
    return Clusters(np.concatenate(found), np.concatenate(numbers))


@dataclass(frozen=True)
class Sums:
    """The sums over all items, and over resamples of them."""

    total: Floats  # (S,)
    drawn: Floats | None = None  # (draws, S); None: no intervals
    without: Floats | None = None  # (V, S) one item of each distinct row left out; None: too many to matter
    copies: Ints | None = None  # (V,)


def resample(found: Clusters, draws: int = DRAWS, seed: int = 0) -> Sums:
    """Sums over `draws` resamples of the items, each as many as there are, with replacement; 0: no resamples."""
    if not draws or not len(found.copies):
        return Sums(found.total)
    rng = np.random.default_rng(seed)
    if len(found.copies) > MANY:
        return Sums(found.total, _normal(found, draws, rng))
    drawn = np.concatenate([times @ found.rows for times in weights(found.copies, draws, rng)])
    return Sums(found.total, drawn, found.total - found.rows, found.copies)


def weights(copies: Ints, draws: int, rng: np.random.Generator) -> Iterator[Floats]:
    """How often each row comes up in each resample, (some draws, V) at a time.

    Rows of many items take a binomial each; the items of all others take a random number each, which is less work.
    """
    items, kinds = int(copies.sum()), len(copies)
    many = np.flatnonzero(copies >= FEW_COPIES)
    other = np.repeat(np.arange(kinds), np.where(copies >= FEW_COPIES, 0, copies))
    shares = np.append(copies[many], len(other)) / items
    for start in range(0, draws, max(1, CHUNK // kinds)):
        size = min(max(1, CHUNK // kinds), draws - start)
        often = rng.multinomial(items, shares, size)
        times = np.empty((size, kinds))
        for row, left in zip(times, often[:, -1], strict=True):
            row[:] = np.bincount(other[rng.integers(0, max(1, len(other)), left)], minlength=kinds)
        times[:, many] = often[:, :-1]
        yield times


def _normal(found: Clusters, draws: int, rng: np.random.Generator) -> Floats:
    many = int(found.copies.sum())
    mean = found.total / many
    off = found.rows - mean
    variances, axes = np.linalg.eigh((off * found.copies[:, None]).T @ off)
    along = rng.standard_normal((draws, len(mean))) * np.sqrt(np.maximum(variances, 0))
    sums: Floats = found.total + along @ axes.T
    return sums


def estimate(statistic: Statistic, sums: Sums, n: int, undefined: str) -> Estimate:
    """The statistic of all items with its interval; `n` is how many items bear on it, `undefined` says why there may
    be no value.

    The interval is BCa (Efron 1987, "Better Bootstrap Confidence Intervals", eq. 2.3 and 6.6) with the quantiles of
    Student's t in place of the normal's, which makes up for the spread that few items lack (Hesterberg 2015, "What
    Teachers Should Know About the Bootstrap", section 5.3). In simulations of agreement it held the truth in 93 to 97 %
    of samples of 20 to 30 items, and in 94 to 96 % of samples of 80.
    """
    value = float(statistic(sums.total))
    if not np.isfinite(value):
        return Estimate(None, None, None, n, undefined)
    if sums.drawn is None:
        return Estimate(value, None, None, n)
    if n < LEAST:
        return Estimate(value, None, None, n, TOO_FEW)
    values = statistic(sums.drawn)
    values = values[np.isfinite(values)]
    if len(values) < 0.95 * len(sums.drawn) or np.ptp(values) < 1e-12:
        return Estimate(value, None, None, n, NO_SPREAD)
    low, high = np.quantile(values, _levels(statistic, sums, value, values, n))
    return Estimate(value, float(low), float(high), n)


def _levels(statistic: Statistic, sums: Sums, value: float, values: Floats, items: int) -> Floats:
    """The two quantiles of the resampled values that bound the interval."""
    from scipy.special import ndtr, ndtri, stdtrit

    below = np.mean(values < value - 1e-12) + np.mean(np.abs(values - value) <= 1e-12) / 2
    bias = ndtri(np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values)))
    skew = 0.0
    if sums.without is not None and sums.copies is not None:
        without = statistic(sums.without)
        known = np.isfinite(without)
        copies, without = sums.copies[known], without[known]
        off = copies @ without / copies.sum() - without
        if off.any():
            skew = float(copies @ off**3 / (6 * (copies @ off**2) ** 1.5))
    z = stdtrit(items - 1, np.array([0.025, 0.975]))
    levels: Floats = ndtr(bias + (bias + z) / (1 - skew * (bias + z)))
    return levels
