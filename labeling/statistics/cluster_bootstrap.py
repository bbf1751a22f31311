"""Intervals of strengths by resampling whole clusters of votes (items), so that votes which hang together stay so.

Each resample gives every cluster a Poisson(1) weight (the bootstrap of large data, Chamandy et al. 2012), adds the
votes up by one product of a sparse matrix, and refits from the fit of all votes. Newton runs for many resamples at
once; the few that it doesn't bring home, or in which some model won or lost everything, are refitted one by one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, factorial, log

import numpy as np

from palate.labeling.statistics.bradley_terry import Strengths, chances, refit
from palate.labeling.statistics.model_votes import Bools, Counts, Floats, Ints, restrict

_WEIGHTS = 12_500_000  # drawn at once: 50 MB
_CELLS = 1_000_000  # numbers per table of the resamples that are refitted at once
_MANY = 40  # models, beyond which solving for each resample takes longer than more steps do
_STEPS = 15  # it takes 2 to 8
_TOLERANCE = 1e-4  # of beta, at the last step; what is left is smaller by far


@dataclass(frozen=True)
class Resampled:
    """What the resamples say. M = models; zeros where a model has no score."""

    low: Floats  # (M,) 2.5 % quantile of beta
    high: Floats  # (M,) 97.5 %
    best: Floats  # (M,) share of resamples in which the model is the best
    resamples: int


def resample(fit: Strengths, counts: Counts, cluster: Ints, resamples: int, seed: int = 0) -> Resampled:
    """Percentile intervals of `fit`, which was fitted to `counts`; cluster: (R,) codes >= 0, rows in one each."""
    keep = fit.scored[counts.a] & fit.scored[counts.b] & (counts.a != counts.b)
    counts, cluster = restrict(counts.rows(keep), fit.scored), cluster[keep]
    found = np.concatenate(list(_refitted(fit, counts, cluster, resamples, seed)))
    # the (n + 1) p-th smallest: unbiased for few resamples
    low, high = np.quantile(found, (0.025, 0.975), axis=0, method="weibull")
    best = np.bincount(found.argmax(1), minlength=found.shape[1]) / resamples
    return Resampled(_whole(low, fit.scored), _whole(high, fit.scored), _whole(best, fit.scored), resamples)


def affordable(rows: int, models: int, seconds: float) -> int:
    """Resamples that take about so many seconds of a core, 200 to 1,000: 200 take 1.7 s at 500,000 rows and 200
    models."""
    return int(np.clip(seconds / (1.2e-8 * rows + 6e-8 * models**2), 200, 1000))


def _refitted(fit: Strengths, counts: Counts, cluster: Ints, resamples: int, seed: int) -> Iterator[Floats]:
    """(some, M) beta of the resamples, in parts."""
    from scipy.sparse import csr_array

    models = counts.models
    swap = counts.a > counts.b
    keys, pair = np.unique(
        np.where(swap, counts.b * models + counts.a, counts.a * models + counts.b), return_inverse=True
    )
    a_wins, b_wins = (
        np.where(swap, counts.b_wins, counts.a_wins),
        np.where(swap, counts.a_wins, counts.b_wins),
    )
    votes = np.concatenate([a_wins, b_wins, counts.ties])
    names, item = np.unique(cluster, return_inverse=True)
    some = votes > 0
    at = np.concatenate([pair + outcome * len(keys) for outcome in range(3)])[some], np.tile(item, 3)[some]
    cells = csr_array((votes[some].astype(np.float32), at), (3 * len(keys), len(names)))
    draw, rng = _poisson_table(), np.random.default_rng(seed)
    step = max(1, min(_WEIGHTS // len(names), _CELLS // max(len(keys), models**2)))
    for first in range(0, resamples, step):
        size = min(step, resamples - first)
        weights = draw[rng.integers(0, len(draw), (len(names), size), dtype=np.uint16)]
        # whole numbers below 2^24 are exact in float32
        drawn = (cells @ weights).astype(np.float64).reshape(3, len(keys), size)
        yield _refits(fit, keys // models, keys % models, drawn)


def _refits(fit: Strengths, a: Ints, b: Ints, drawn: Floats) -> Floats:
    """(R, M) beta of R resamples; a, b: (P,) pairs of models; drawn: (3, P, R) votes for a, for b, for neither."""
    models, resamples = int(fit.scored.sum()), drawn.shape[2]
    beta = np.repeat(fit.beta[fit.scored][:, None], resamples, axis=1)
    theta = np.full(resamples, log(fit.nu) if fit.nu else 0.0)
    known = np.append(fit.scored, True)
    inverse = fit.inverse[np.ix_(known, known)] if models > _MANY else None
    usual = _finite(fit, a, b, drawn)
    rest, unfinished = np.flatnonzero(~usual), np.flatnonzero(usual)
    for _ in range(_STEPS):
        if not len(unfinished):
            break
        steps = _steps(
            fit.nu > 0, a, b, drawn[:, :, unfinished], beta[:, unfinished], theta[unfinished], inverse
        )
        beta[:, unfinished] += steps[:, :-1].T
        theta[unfinished] += steps[:, -1]
        unfinished = unfinished[np.abs(steps).max(1) > _TOLERANCE]
    for number in np.append(rest, unfinished):
        one = Counts(models, a, b, drawn[0, :, number], drawn[1, :, number], drawn[2, :, number])
        beta[:, number] = refit(fit, one.rows(one.votes > 0), tolerance=_TOLERANCE)
    return np.asarray((beta - beta.mean(0)).T)


def _steps(
    ties: bool, a: Ints, b: Ints, votes: Floats, beta: Floats, theta: Floats, inverse: Floats | None
) -> Floats:
    """(R, M + 1) steps of (beta, ln nu) from beta (M, R) and theta (R,), at most 2 long.

    inverse: (M + 1, M + 1) of all votes, which serves every resample where there are many models; None: its own.
    """
    models, resamples = beta.shape
    n = votes.sum(0)
    lead, tie = chances(beta[a] - beta[b], np.exp(theta) if ties else np.zeros(resamples))
    gradient = np.zeros((resamples, models + 2))
    gradient[:, :models] = _per_model(a, b, (votes[0] - votes[1] - n * lead) / 2, models)
    if ties:
        gradient[:, models] = (votes[2] - n * tie).sum(0)
    if inverse is not None:
        steps = gradient[:, :-1] @ inverse
    else:
        border = np.zeros((resamples, models + 2, models + 2))
        border[:, a, b] = border[:, b, a] = -(n * (1 - tie - lead * lead) / 4).T
        diagonal = np.arange(models)
        border[:, diagonal, diagonal] = -border[:, :models, :models].sum(2)
        border[:, -1, :models] = border[:, :models, -1] = border[:, models, models] = 1
        if ties:
            border[:, models, models] = (n * tie * (1 - tie)).sum(0)
            cross = _per_model(a, b, -n * lead * tie / 2, models)
            border[:, models, :models] = border[:, :models, models] = cross
        steps = np.linalg.solve(border, gradient[:, :, None])[:, :-1, 0]
    longest = np.abs(steps).max(1, keepdims=True)
    return np.asarray(steps * np.minimum(1.0, 2.0 / np.maximum(longest, 1e-300)))


def _per_model(a: Ints, b: Ints, value: Floats, models: int) -> Floats:
    """(R, M) sums of value (P, R) times (e_a - e_b)."""
    from scipy.sparse import csr_array

    pairs = np.arange(len(a))
    signs = np.repeat([1.0, -1.0], len(a))
    ends = csr_array((signs, (np.append(a, b), np.append(pairs, pairs))), (models, len(a)))
    return np.asarray((ends @ value).T)


def _finite(fit: Strengths, a: Ints, b: Ints, drawn: Floats) -> Bools:
    """(R,) whether a resample has a finite maximum without a prior: from one model, wins lead to all and back."""
    models, resamples = int(fit.scored.sum()), drawn.shape[2]
    if fit.apart.any():
        return np.zeros(resamples, dtype=np.bool_)
    half = 0 if fit.nu else drawn[2]
    beats = np.zeros((resamples, models, models), dtype=np.float32)
    beats[:, a, b], beats[:, b, a] = (drawn[0] + half > 0).T, (drawn[1] + half > 0).T
    fine = drawn[2].sum(0) > 0 if fit.nu else np.ones(resamples, dtype=np.bool_)
    for graph in (beats, beats.transpose(0, 2, 1)):
        reached = np.zeros((resamples, 1, models), dtype=np.float32)
        reached[:, 0, 0], count = 1, 0.0
        while reached.sum() > count:
            count = reached.sum()
            reached = np.minimum(reached + reached @ graph, 1)
        fine &= reached.all((1, 2))
    return fine


def _poisson_table() -> Floats:
    """(2^16,) values of a Poisson(1) by their shares, to draw from by a random index."""
    shares = np.array([exp(-1) / factorial(k) for k in range(10)])
    edges = np.round(np.cumsum(shares) / shares.sum() * 2**16).astype(int)
    return np.searchsorted(edges, np.arange(2**16), side="right").astype(np.float32)


def _whole(part: Floats, scored: Bools) -> Floats:
    whole = np.zeros(len(scored))
    whole[scored] = part
    return whole
