"""How far each two of a few annotators agree: percent and Cohen's kappa, and the mean kappa over all of them.

For the busiest dozen or so: every two of them have their own table of who chose what. Cohen 1960, "A Coefficient of
Agreement for Nominal Scales", eq. 1: kappa = (p_o - p_e) / (1 - p_e), p_e from both annotators' own shares.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from palate.labeling.statistics.measures import Estimate
from palate.labeling.statistics.resampling import DRAWS, MANY, Floats, Ints, Sums, distinct, estimate, weights

NOBODY_BOTH = "no two of these annotators answered the same item"
ALL_ONE = "each two of these annotators gave one and the same answer everywhere"
WORK = 2e9  # multiplications a bootstrap may take: some seconds
FEWEST = 200  # draws


@dataclass(frozen=True)
class Between:
    """Agreement between each two of A annotators; the matrices are symmetric, None on the diagonal."""

    shared: Ints  # (A, A) pairs of completions that both decided
    percent: list[list[float | None]]  # None: nothing shared
    kappa: list[list[float | None]]  # None: nothing shared, or chance agreement is complete
    mean: Estimate  # kappa, weighted by what is shared; n = items that two or more of them answered


def between(unit: Ints, item: Ints, annotator: Ints, label: Ints, size: int, draws: int = DRAWS) -> Between:
    """From one row per vote and pair of completions: codes of the pair and of its item, `annotator` 0..size-1,
    `label` 0..2 (the winner, or a tie). An annotator judges a unit once. `draws` = 0: no interval."""
    codes, row = np.unique(unit, return_inverse=True)
    grid = np.zeros((len(codes), size), dtype=np.int64)  # 0: not answered
    grid[row, annotator] = label + 1
    of = np.zeros(len(codes), dtype=np.int64)
    of[row] = item
    keep = (grid > 0).sum(1) >= 2
    grid, of = grid[keep], of[keep]
    which, first = distinct(grid)
    kinds, copies = grid[first], np.bincount(which, minlength=len(first))
    pairs = list(combinations(range(size), 2))
    tables = np.zeros((len(pairs), 9))
    for number, cells, units in _cells(kinds, pairs):
        tables[number] = np.bincount(cells, weights=copies[units], minlength=9)
    shared, percent, kappa = _matrices(tables.reshape(-1, 3, 3), pairs, size)
    items = len(np.unique(of))
    sums = _resampled(kinds, which, of, pairs, tables, draws if items else 0)
    return Between(
        shared, percent, kappa, estimate(_mean_kappa, sums, items, ALL_ONE if items else NOBODY_BOTH)
    )


def _cells(kinds: Ints, pairs: list[tuple[int, int]]) -> Iterator[tuple[int, Ints, Ints]]:
    """For each two annotators: (their number, the cell of their table 0..8, the kind of unit) where both answered."""
    for number, (one, other) in enumerate(pairs):
        units = np.flatnonzero((kinds[:, one] > 0) & (kinds[:, other] > 0))
        yield number, 3 * (kinds[units, one] - 1) + kinds[units, other] - 1, units


def _kappas(tables: Floats) -> tuple[Floats, Floats, Floats]:
    """(units (...), share alike (...), kappa (...)) of tables (..., 3, 3); NaN where undefined."""
    n = tables.sum((-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        alike = np.trace(tables, axis1=-2, axis2=-1) / n
        chance = (tables.sum(-1) * tables.sum(-2)).sum(-1) / n**2
        kappa = np.where(1 - chance > 1e-12, (alike - chance) / (1 - chance), np.nan)
    return n, alike, kappa


def _mean_kappa(sums: Floats) -> Floats:
    """(..., pairs * 9) -> (...): pairs of annotators weigh by what they share."""
    n, _, kappa = _kappas(sums.reshape(*sums.shape[:-1], -1, 3, 3))
    known = np.isfinite(kappa)
    weight = (n * known).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean: Floats = np.where(weight > 0.5, np.where(known, n * kappa, 0).sum(-1) / weight, np.nan)
    return mean


def _matrices(
    tables: Floats, pairs: list[tuple[int, int]], size: int
) -> tuple[Ints, list[list[float | None]], list[list[float | None]]]:
    shared = np.zeros((size, size), dtype=np.int64)
    percent: list[list[float | None]] = [[None] * size for _ in range(size)]
    kappa: list[list[float | None]] = [[None] * size for _ in range(size)]
    for (one, other), n, alike, beyond in zip(pairs, *_kappas(tables), strict=True):
        for row, column in ((one, other), (other, one)):
            shared[row, column] = n
            percent[row][column] = float(alike) if n else None
            kappa[row][column] = float(beyond) if np.isfinite(beyond) else None
    return shared, percent, kappa


def _resampled(
    kinds: Ints, which: Ints, item: Ints, pairs: list[tuple[int, int]], tables: Floats, draws: int
) -> Sums:
    """The tables over resamples of the items. A unit fills few of the cells, so the product is sparse."""
    total = tables.reshape(-1)
    if not draws:
        return Sums(total)
    from scipy.sparse import coo_array, csr_array

    found = list(_cells(kinds, pairs))
    cell = np.concatenate([9 * number + cells for number, cells, _ in found])
    unit = np.concatenate([units for _, _, units in found])
    fill: Any = csr_array(coo_array((np.ones(len(cell)), (unit, cell)), shape=(len(kinds), len(total))))
    codes, of = np.unique(item, return_inverse=True)
    if len(codes) == len(item):
        copies = np.bincount(which, minlength=len(kinds))
    else:  # items of several units: their cells together
        fill = csr_array(coo_array((np.ones(len(of)), (of, which)), shape=(len(codes), len(kinds)))) @ fill
        copies = np.ones(len(codes), dtype=np.int64)
    return _drawn(fill, copies, total, int(max(FEWEST, min(draws, WORK / max(1, fill.nnz)))))


def _drawn(fill: Any, copies: Ints, total: Floats, draws: int) -> Sums:
    chunks = weights(copies, draws, np.random.default_rng(0))
    drawn = np.concatenate([(fill.T @ times.T).T for times in chunks])
    few = fill.shape[0] <= MANY  # else the skewness is not worth its time
    return Sums(total, drawn, total - fill.toarray() if few else None, copies if few else None)
