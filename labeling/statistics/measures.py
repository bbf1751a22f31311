"""Estimates with intervals, and Wilson's interval for shares. Pure functions, no store.

A figure that can't be computed is None beside a sentence that says why; nothing here returns NaN.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054  # the normal quantile of a two-sided 95 % interval


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % interval; `value` is None when there is nothing to compute it from."""

    value: float | None
    low: float | None
    high: float | None
    n: int  # what was counted
    why: str = ""  # why the value, or the interval, is undefined


Share = Estimate  # an estimate between 0 and 1


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval for a share (Wilson 1927). `n` > 0 may be an effective, fractional count."""
    p, z2 = successes / n, Z95 * Z95
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def clustered_share(clusters: Sequence[tuple[float, int]] | NDArray[np.float64], nothing: str) -> Share:
    """A share with Wilson's interval, from (successes, trials) per vote.

    The pairs of one ranking are not independent, so the interval counts an effective n: trials divided by
    Kish's design effect, the cluster-robust variance over the binomial one. With one pair per vote it is
    Wilson's interval itself. `nothing` says why there may be nothing to count.
    """
    k, m = np.asarray(clusters, dtype=float).reshape(-1, 2).T
    n = int(m.sum())
    if n == 0:
        return Share(None, None, None, 0, nothing)
    p = float(k.sum() / n)
    binomial = p * (1 - p) / n
    robust = float(((k - p * m) ** 2).sum()) / n**2
    # all one way: the pairs show no variance to measure, so count votes instead
    effective = float((m > 0).sum()) if binomial == 0 else n / max(1.0, robust / binomial)
    low, high = wilson(p * effective, effective)
    return Share(p, low, high, n)
