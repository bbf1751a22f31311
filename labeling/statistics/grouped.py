"""Sums by group and the logistic function: what counting votes by annotator, pair or model takes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[Any]  # codes, of any width

Z95 = 1.959963984540054  # the normal quantile of a two-sided 95 % interval


def sums(group: Ints, value: Floats, groups: int) -> Floats:
    """(G,) sums of values (R,) by group (R,), 0 <= group < groups."""
    return np.asarray(np.bincount(group, value, groups), dtype=np.float64)


def logistic(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), of any x without overflow."""
    tail = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, tail) / (1 + tail))
