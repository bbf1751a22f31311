"""Agreement between rankings of the same completions: Kendall's tau_b and his coefficient of concordance W.

Both are computed per item and averaged over items, so an item counts once, whoever ranked it.

tau_b of two rankings (Kendall 1945, "The treatment of ties in ranking problems") is the cosine of their vectors of
signs: one entry per pair of completions, 1 or -1 for which stands higher, 0 for a tie. So the mean over all pairs of
m rankings follows from the length of the sum of their m normed vectors, without looking at any pair of rankings:
(|sum|^2 - m) / (m (m - 1)). Only rankings that leave completions out are compared one by one, on what both ranked.

W corrected for ties (Kendall & Babington Smith 1939; Siegel & Castellan 1988, eq. 9.16) needs complete rankings. Its
value for people who guess is 1 / m, so beside it stands W corrected for chance, (W - 1/m) / (1 - 1/m), which is 0 for
guessing (and without ties is the mean Spearman correlation between two rankings).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.labeling.statistics.measures import Estimate
from palate.labeling.statistics.resampling import (
    DRAWS,
    Clusters,
    Floats,
    Ints,
    Statistic,
    estimate,
    resample,
)

NO_ITEM = "no item was ranked by two annotators"
ALL_TIED = "no two annotators ranked the same item without calling everything a tie"
NO_COMPLETE = "no item was ranked completely by two annotators who did not call everything a tie"
CHUNK = 2_000_000  # cells worked on at a time


@dataclass(frozen=True)
class Items:
    """Agreement per item. I = items that two or more ranked; NaN where an item has no value."""

    tau: Floats  # (I,) mean tau_b over its pairs of rankings
    w: Floats  # (I,) 0..1
    chance: Floats  # (I,) W of guessing, 1 / m
    beyond: Floats  # (I,) W corrected for chance
    rankings: int  # on these items


@dataclass(frozen=True)
class Concordance:
    """Agreement of rankings over all items."""

    tau: Estimate  # n = items
    w: Estimate
    beyond: Estimate  # W corrected for chance
    chance: float | None  # W of guessing
    items: int
    rankings: int


def rankings_of_items(places: Ints, item: Ints) -> Items:
    """From rankings (R, K) of K completions (1 = best, equal = tied, 0 = not ranked), ordered by `item` (R,)."""
    starts = np.flatnonzero(np.r_[True, item[1:] != item[:-1]]) if len(item) else np.zeros(0, dtype=np.int64)
    sizes = np.diff(np.r_[starts, len(item)])
    several = np.repeat(sizes > 1, sizes)
    places, sizes = places[several].astype(np.int8), sizes[sizes > 1]
    if not len(sizes):
        nothing = np.zeros(0)
        return Items(nothing, nothing, nothing, nothing, 0)
    starts = np.r_[0, np.cumsum(sizes)[:-1]]
    partial = np.logical_or.reduceat((places == 0).any(1), starts)
    tau = _tau_of_complete(places, starts)
    rows = np.repeat(partial, sizes)
    tau[partial] = _tau_of_partial(places[rows], sizes[partial])
    w, chance = _w(places, starts, sizes, partial)
    return Items(tau, w, chance, (w - chance) / (1 - chance), len(places))


def concordance(found: list[Items], draws: int = DRAWS) -> Concordance:
    """The means over all items, with bootstrap intervals over items; `draws` = 0 leaves those out."""
    tau, w, chance, beyond = (
        np.concatenate([np.zeros(0), *(getattr(each, name) for each in found)])
        for name in ("tau", "w", "chance", "beyond")
    )
    values = np.stack([tau, w, beyond], axis=1)
    known = np.isfinite(values)
    rows = np.hstack([np.where(known, values, 0), known])
    sums = resample(Clusters(rows, np.ones(len(rows), dtype=np.int64)), draws)
    counts = [int(count) for count in known.sum(0)]
    whys = (ALL_TIED, NO_COMPLETE, NO_COMPLETE) if len(tau) else (NO_ITEM,) * 3
    means = [estimate(_mean(place), sums, counts[place], whys[place]) for place in range(3)]
    guess = float(chance[known[:, 1]].mean()) if counts[1] else None
    return Concordance(means[0], means[1], means[2], guess, len(tau), sum(each.rankings for each in found))


def _mean(place: int) -> Statistic:
    def mean(sums: Floats) -> Floats:
        n = sums[..., 3 + place]
        with np.errstate(divide="ignore", invalid="ignore"):
            value: Floats = np.where(n > 0, sums[..., place] / n, np.nan)
        return value

    return mean


def _signs(places: Ints) -> Ints:
    """(R, K (K - 1) / 2) for each pair of completions: 1 when the first stands higher, -1 when the second does."""
    first, second = np.triu_indices(places.shape[1], 1)
    signs: Ints = np.sign(places[:, second] - places[:, first])
    return signs


def _tau_of_complete(places: Ints, starts: Ints) -> Floats:
    """(I,) mean tau_b per item; NaN where fewer than two rankings tell anything apart."""
    signs = _signs(places).astype(np.float64)
    length = np.sqrt((signs * signs).sum(1, keepdims=True))
    signs /= np.maximum(length, 1)
    m = np.add.reduceat((length[:, 0] > 0).astype(np.int64), starts)
    along = (np.add.reduceat(signs, starts, axis=0) ** 2).sum(1)
    return np.where(m > 1, (along - m) / np.maximum(m * (m - 1), 1), np.nan)


def _tau_of_partial(places: Ints, sizes: Ints) -> Floats:
    """(I,) mean tau_b per item over its pairs of rankings, each on the completions that both ranked."""
    total, count = np.zeros(len(sizes)), np.zeros(len(sizes))
    first, second = np.triu_indices(places.shape[1], 1)
    signs = _signs(places).astype(np.float32)
    known = ((places[:, first] > 0) & (places[:, second] > 0)).astype(np.float32)
    signs *= known
    for one, other, item in _pairs(sizes, CHUNK // signs.shape[1] + 1):
        x, y = signs[one] * known[other], signs[other] * known[one]
        length = np.sqrt((x * x).sum(1, dtype=np.float64) * (y * y).sum(1, dtype=np.float64))
        cosine = (x * y).sum(1, dtype=np.float64) / np.maximum(length, 1)
        total += np.bincount(item, weights=cosine, minlength=len(sizes))
        count += np.bincount(item, weights=length > 0, minlength=len(sizes))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _pairs(sizes: Ints, most: int) -> Iterator[tuple[Ints, Ints, Ints]]:
    """All pairs of rows within groups of consecutive rows, about `most` at a time: (one, other, group)."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    end = np.repeat(np.cumsum(sizes), sizes)
    later = end - np.arange(len(end)) - 1  # rows after this one in its group
    part = np.cumsum(later) // most
    for number in np.unique(part):
        rows = np.flatnonzero(part == number)
        one = np.repeat(rows, later[rows])
        offset = np.arange(len(one)) - np.repeat(np.cumsum(later[rows]) - later[rows], later[rows])
        yield one, one + 1 + offset, group[one]


def _w(places: Ints, starts: Ints, sizes: Ints, partial: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """((I,) W, (I,) 1 / m); NaN where a ranking is partial or all tie everything."""
    k = places.shape[1]
    higher = np.zeros(places.shape, dtype=np.int16)  # twice the midrank, less k + 1
    group = np.zeros(places.shape, dtype=np.int16)  # the size of each completion's tie
    for other in range(k):
        higher += np.sign(places - places[:, other, None])
        group += places == places[:, other, None]
    ranks = np.add.reduceat(higher, starts, axis=0, dtype=np.float64) / 2  # sums of ranks, less their mean
    # t^3 - t over groups of t tied completions is t^2 - 1 over the completions in them
    ties = np.add.reduceat((group.astype(np.int64) ** 2 - 1).sum(1), starts)
    m = sizes.astype(np.float64)
    below = m * m * (k**3 - k) - m * ties
    w = np.where((below > 0) & ~partial, 12 * (ranks**2).sum(1) / np.maximum(below, 1), np.nan)
    return w, 1 / m
