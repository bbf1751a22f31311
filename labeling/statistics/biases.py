"""Does the place on the screen, or the length, decide? And is one annotator unlike the others? Arrays in, arrays out.

Side      share of decisive votes won by the completion shown first; Wilson's interval, exact binomial test
Length    slope of winning on the log of the lengths' ratio: P(the longer wins) = s(slope * ln(longer / shorter)), s the
          logistic function; there is no intercept, since which of two completions is called a says nothing
Both      Bradley-Terry with an advantage for the one shown first: P(a wins) = s(beta_a - beta_b +- advantage)

Annotators are compared with the others, whatever the others do, and Holm's procedure (1979, Scand. J. Stat. 6) keeps
the chance of accusing anybody wrongly, over all annotators and all kinds of comparison together, below 5 %.
Benjamini and Hochberg's would only bound the share of wrong accusations, which is not what the accused cares about.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.labeling.statistics.grouped import Z95, Floats, Ints, logistic, sums


@dataclass(frozen=True)
class Estimates:
    """One estimate per group with its 95 % interval; where `n` is 0 or `known` is false they are the widest."""

    value: Floats  # (G,)
    low: Floats
    high: Floats
    n: Floats  # (G,) weight of the votes
    known: NDArray[np.bool_]  # (G,) whether there is an estimate


@dataclass(frozen=True)
class Advantage:
    """What being shown first is worth in Bradley-Terry, in log-odds, with its 95 % interval."""

    value: float
    low: float
    high: float


def shares(hits: Floats, n: Floats) -> Estimates:
    """hits (G,) of n (G,), which may be fractional, as shares with Wilson's score interval (1927)."""
    size = np.maximum(n, 1e-12)
    p, z2 = hits / size, Z95 * Z95
    centre = (p + z2 / (2 * size)) / (1 + z2 / size)
    half = Z95 * np.sqrt(p * (1 - p) / size + z2 / (4 * size * size)) / (1 + z2 / size)
    known = n > 0
    return Estimates(
        np.where(known, p, 0.5),
        np.where(known, np.maximum(centre - half, 0), 0.0),
        np.where(known, np.minimum(centre + half, 1), 1.0),
        n,
        known,
    )


def even_chance(hits: Floats, n: Floats) -> Floats:
    """(G,) p-values of the exact two-sided binomial test against one half; 1 where n is 0. Fractional counts take the
    binomial's tail as the incomplete beta function that it is for whole ones."""
    from scipy.special import betainc

    fewer = np.minimum(hits, n - hits)
    tail = np.where(n > 0, betainc(np.maximum(n - fewer, 1e-12), fewer + 1, 0.5), 1.0)
    return np.asarray(np.minimum(1.0, 2 * tail))


def unlike_others(hits: Floats, n: Floats) -> tuple[Floats, Floats]:
    """(G,) p-values that a group's share is (below, above) that of all others together: Fisher's exact test, one
    tail each. Counts are rounded to whole ones. 1 where a group, or everybody else, has none."""
    from scipy.stats import hypergeom

    k, m = np.rint(hits), np.rint(n)
    every, marked = m.sum(), k.sum()
    able = (m > 0) & (m < every)
    below, above = np.ones(len(m)), np.ones(len(m))
    below[able] = hypergeom.cdf(k[able], every, marked, m[able])
    above[able] = hypergeom.sf(k[able] - 1, every, marked, m[able])
    return below, above


def holm(p: Floats) -> Floats:
    """p-values (any shape) adjusted by Holm's step-down procedure: those below 0.05 are kept with a chance of 5 % for
    any wrong one among them."""
    flat = p.ravel()
    order = np.argsort(flat)
    stepped = np.maximum.accumulate(flat[order] * np.arange(len(flat), 0, -1))
    adjusted = np.empty(len(flat))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.reshape(p.shape)


@dataclass(frozen=True)
class Lengths:
    """Votes by how much longer the longer completion was. R = rows, G = groups."""

    group: Ints  # (R,) 0 <= code < groups
    ratio: Floats  # (R,) ln(longer / shorter), > 0
    longer: Floats  # (R,) weight of the votes for the longer one
    n: Floats  # (R,) weight of all votes, >= longer
    groups: int


def by_bins(rows: Lengths, width: float = 1 / 16, most: int = 64) -> Lengths:
    """The same votes with ratios rounded to their mean in bins of `width`, the last of which is open: at most
    groups * most rows, and slopes within 1 %."""
    place = np.minimum((rows.ratio / width).astype(np.int64), most - 1)
    cell = rows.group.astype(np.int64) * most + place
    size = rows.groups * most
    n = sums(cell, rows.n, size)
    used = np.flatnonzero(n)
    mean = sums(cell, rows.n * rows.ratio, size)[used] / n[used]
    return Lengths(used // most, mean, sums(cell, rows.longer, size)[used], n[used], rows.groups)


def slopes(rows: Lengths) -> Estimates:
    """(G,) logistic slopes by Newton's method, with Wald intervals. Where the longer one always won, or never, there
    is no finite slope."""
    g, x, size = rows.group, rows.ratio, rows.groups
    n, won = sums(g, rows.n, size), sums(g, rows.longer, size)
    known = (won > 0) & (won < n)
    slope = np.zeros(size)
    for _ in range(50):
        p = logistic(slope[g] * x)
        pull = sums(g, x * (rows.longer - rows.n * p), size)
        stiffness = sums(g, x * x * rows.n * p * (1 - p), size)
        move = np.where(known, pull / np.maximum(stiffness, 1e-300), 0.0)
        slope = slope + np.clip(move, -1.0, 1.0)
        if not size or np.abs(move).max() < 1e-10:
            break
    error = Z95 / np.sqrt(np.maximum(stiffness, 1e-300))
    nowhere = np.full(size, np.inf)
    return Estimates(
        np.where(known, slope, 0.0),
        np.where(known, slope - error, -nowhere),
        np.where(known, slope + error, nowhere),
        n,
        known,
    )


def slopes_unlike(rows: Lengths, slope: float) -> Floats:
    """(G,) two-sided p-values of the score test that a group's slope is `slope`; 1 without votes."""
    from scipy.special import ndtr

    p = logistic(slope * rows.ratio)
    pull = sums(rows.group, rows.ratio * (rows.longer - rows.n * p), rows.groups)
    stiffness = sums(rows.group, rows.ratio**2 * rows.n * p * (1 - p), rows.groups)
    return np.asarray(2 * ndtr(-np.abs(pull) / np.sqrt(np.maximum(stiffness, 1e-300))))


def clustered_slope(rows: Lengths) -> Estimates:
    """One slope over all rows, whose interval lets the votes of one group (an item) hang together: sandwich with
    scores summed within groups (Liang and Zeger 1986), times C / (C - 1)."""
    every = slopes(Lengths(np.zeros(len(rows.ratio), np.int64), rows.ratio, rows.longer, rows.n, 1))
    if not every.known[0]:
        return every
    p = logistic(every.value[0] * rows.ratio)
    score = sums(rows.group, rows.ratio * (rows.longer - rows.n * p), rows.groups)
    clusters = int((sums(rows.group, rows.n, rows.groups) > 0).sum())
    stiffness = (rows.ratio**2 * rows.n * p * (1 - p)).sum()
    error = Z95 * np.sqrt((score**2).sum() * clusters / max(clusters - 1, 1)) / stiffness
    return Estimates(every.value, every.value - error, every.value + error, every.n, every.known)


def first_shown(
    model_a: Ints, model_b: Ints, a_first: Ints, a_wins: Floats, n: Floats, models: int
) -> Advantage | None:
    """Bradley-Terry with an advantage for the completion shown first; a tie is half a win.

    Rows (R,): codes of the models, whether a was shown first (1) or b (-1), wins of a among n votes; rows of one model
    against itself count, too. None when the votes can't tell: none at all, or the first (or the second) always won.
    """
    first = np.where(a_first > 0, a_wins, n - a_wins).sum()
    if not 0 < first < n.sum():
        return None
    a, b, side = model_a.astype(np.int64), model_b.astype(np.int64), a_first.astype(np.float64)
    beta, advantage = np.zeros(models), 0.0
    at = np.arange(models)
    for _ in range(50):
        p = logistic(beta[a] - beta[b] + advantage * side)
        score, weight = a_wins - n * p, n * p * (1 - p)
        pull = np.append(sums(a, score, models) - sums(b, score, models), (side * score).sum())
        matrix = np.zeros((models + 1, models + 1))
        off = sums(a * models + b, weight, models * models).reshape(models, models)
        off = off + off.T
        matrix[:models, :models] = np.diag(off.sum(1)) - off
        matrix[:models, models] = sums(a, weight * side, models) - sums(b, weight * side, models)
        matrix[models, :models] = matrix[:models, models]
        matrix[models, models] = weight.sum()
        # strengths are known up to a constant, and a model that won everything has none: hold them, barely
        matrix[at, at] += 1e-8 * (1 + weight.sum())
        move = np.linalg.solve(matrix, pull)
        beta, advantage = (
            beta + np.clip(move[:models], -2, 2),
            advantage + float(np.clip(move[models], -2, 2)),
        )
        if abs(float(move[models])) < 1e-10 and np.abs(move).max() < 1e-6:
            break
    error = Z95 * float(np.sqrt(np.linalg.inv(matrix)[models, models]))
    return Advantage(advantage, advantage - error, advantage + error)
