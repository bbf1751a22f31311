"""How strong each model is, from rankings of three or more: Plackett-Luce, with Davidson-Luce's way of ties.

A ranking is a sequence of choices: from the completions not yet placed, those of the next tier are chosen,
P(C from A) = delta_|C| * (product of alpha_i over C)^(1/|C|) / sum of the same over all subsets of A whose size some
tier has; alpha = exp(beta), delta_1 = 1            Firth, Kosmidis and Turner 2019, arXiv:1909.07123, eq. 3
Without ties that is Plackett-Luce (Luce 1959, Plackett 1975); for rankings of two it is Davidson's Bradley-Terry.
Completions that a ranking leaves out say nothing: the ranking is of those that it places.

Intervals are sandwich intervals, with the rankings of one item as a cluster. Deviations 1 and 2 of bradley_terry.py
hold here too.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

from palate.labeling.statistics.bradley_terry import groups
from palate.labeling.statistics.comparable import apart, linked
from palate.labeling.statistics.measures import Z95
from palate.labeling.statistics.model_votes import (
    Bools,
    Counts,
    Floats,
    Ints,
    by_pair,
    restrict,
    squared_sums,
)

_STEPS = 100
_TOLERANCE = 1e-7  # of the last Newton step, whose error is its square
_SAMPLE = 20_000  # rankings that the first guess is made from
_CHUNK = 2_000_000  # numbers held at once per subset table


@dataclass(frozen=True)
class Rankings:
    """N rankings of up to K completions; a model may stand in one ranking twice."""

    models: int  # codes run from 0 to models - 1
    model: Ints  # (N, K) codes; anything where place is 0
    place: Ints  # (N, K) 1 = best, equal = tied, 0 = not ranked or no such completion

    def __len__(self) -> int:
        return len(self.place)


@dataclass(frozen=True)
class PlackettLuce:
    """A fit. M = models; zeros where a model has no score."""

    beta: Floats  # (M,) log-odds of being chosen, mean 0 over the scored
    cov: Floats  # (M, M)
    scored: Bools  # (M,)
    apart: Bools  # (M,) won or lost everything against the rest; if any is, the prior was used
    deltas: dict[int, float]  # size of a tie -> delta
    why: str = ""  # why nothing is known

    @property
    def se(self) -> Floats:
        """(M,) standard errors of beta."""
        return np.sqrt(np.clip(np.diag(self.cov), 0, None))

    @property
    def low(self) -> Floats:
        """(M,) lower end of the 95 % interval of beta."""
        return self.beta - Z95 * self.se

    @property
    def high(self) -> Floats:
        """(M,) upper end."""
        return self.beta + Z95 * self.se


@dataclass(frozen=True)
class _Stage:
    """Choices of one size from one place on: rankings `rows`, columns first to first + size of the sorted."""

    rows: Ints  # (n,)
    first: int
    size: int
    chosen: Ints  # (n,) size of the tier


def plackett_luce(rankings: Rankings, cluster: Ints) -> PlackettLuce:
    """Fit by Newton. cluster: (N,) codes >= 0 of items."""
    pairs = as_pairs(rankings)
    scored = linked(rankings.models, pairs.a, pairs.b, pairs.votes)
    if not scored.any():
        return _unknown(scored, "no ranking holds answers of two different models")
    part = restrict(pairs, scored)
    if not (part.a_wins + part.b_wins).any():
        return _unknown(scored, "every ranking is one tie")
    used, keep = _among(rankings, scored)
    cluster, group = cluster[keep], groups(part, ties=True)
    stages, sizes = _stages(used.place), _tie_sizes(used.place)
    prior = float(group.any())
    guess = np.zeros(used.models + len(sizes))
    if len(used) > _SAMPLE:
        some = np.random.default_rng(0).permutation(len(used))[:_SAMPLE]
        sample = Rankings(used.models, used.model[some], used.place[some])
        guess = _newton(sample, _stages(sample.place), sizes, 1.0, guess, 1e-3)[0]
    point, information = _newton(used, stages, sizes, prior, guess, _TOLERANCE)
    middle = _middle(used, stages, sizes, point, cluster)
    if prior:
        first = group[used.model[:, 0]][:, None]
        mixed = ((group[used.model] != first) & (used.place > 0)).any(1)
        one_way = Rankings(used.models, used.model[mixed], used.place[mixed])
        middle += _derivatives(one_way, _stages(one_way.place), sizes, prior, point)[2][:-1, :-1]
    inverse = np.linalg.inv(information)[:-1, :-1]
    cov = np.zeros((rankings.models, rankings.models))
    cov[np.ix_(scored, scored)] = (inverse @ middle @ inverse)[: used.models, : used.models]
    beta, outside = np.zeros(rankings.models), np.zeros(rankings.models, dtype=np.bool_)
    beta[scored], outside[scored] = point[: used.models], apart(group)
    deltas = dict(zip(sizes, np.exp(point[used.models :]).tolist(), strict=True))
    return PlackettLuce(beta, cov, scored, outside, deltas)


def as_pairs(rankings: Rankings) -> Counts:
    """Every pair that a ranking decides, added up by pair of models."""
    models, place, model = rankings.models, rankings.place, rankings.model
    first, second = np.triu_indices(place.shape[1], 1)
    wins, ties = np.zeros(models**2), np.zeros(models**2)
    for i, j in zip(first, second, strict=True):
        both = (place[:, i] > 0) & (place[:, j] > 0)
        a, b, lead = model[both, i], model[both, j], place[both, j] - place[both, i]
        key = np.where(lead >= 0, a * models + b, b * models + a)
        wins += np.bincount(key[lead != 0], minlength=models**2)
        ties += np.bincount(key[lead == 0], minlength=models**2)
    a, b = np.divmod(np.flatnonzero(wins + ties), models)
    at = a * models + b
    return by_pair(Counts(models, a, b, wins[at], np.zeros(len(at)), ties[at]))


def _among(rankings: Rankings, scored: Bools) -> tuple[Rankings, Ints]:
    """(the rankings of scored models, numbered anew, best first, which they are)."""
    place = np.where(scored[rankings.model], rankings.place, 0)
    keep = np.flatnonzero((place > 0).sum(1) > 1)
    place, model = place[keep], (np.cumsum(scored) - 1)[rankings.model[keep]]
    order = np.argsort(np.where(place > 0, place, 127), axis=1, kind="stable")
    place = np.take_along_axis(place, order, 1)
    model = np.where(place > 0, np.take_along_axis(model, order, 1), 0)
    return Rankings(int(scored.sum()), model, place), keep


def _stages(place: Ints) -> list[_Stage]:
    """All choices that rankings with sorted places are made of."""
    columns, ranked, stages = place.shape[1], (place > 0).sum(1), []
    for first in range(columns - 1):
        starts = place[:, first] > (place[:, first - 1] if first else 0)
        for size in range(2, columns - first + 1):
            rows = np.flatnonzero(starts & (ranked == first + size))
            if len(rows):
                same = place[rows, first : first + size] == place[rows, first][:, None]
                stages.append(_Stage(rows, first, size, same.sum(1)))
    return stages


def _tie_sizes(place: Ints) -> tuple[int, ...]:
    """The sizes of tiers beyond one completion, ascending."""
    return tuple(sorted({int(size) for stage in _stages(place) for size in np.unique(stage.chosen)} - {1}))


@lru_cache(maxsize=64)
def _subsets(size: int, ties: tuple[int, ...]) -> tuple[Floats, Ints]:
    """(Q, size) the sets that may be chosen, each member weighing 1 / set size; (Q,) 0 or 1 + index of the tie size."""
    sets, kinds = [], []
    for kind, count in enumerate((1, *ties)):
        for members in combinations(range(size), count):
            sets.append([float(column in members) / count for column in range(size)])
            kinds.append(kind)
    return np.array(sets), np.array(kinds)


def _chunks(stages: list[_Stage], ties: tuple[int, ...]) -> list[_Stage]:
    """The stages cut so that no table of subsets grows large."""
    parts = []
    for stage in stages:
        step = max(1, _CHUNK // max(len(_subsets(stage.size, ties)[0]), stage.size**2))
        for start in range(0, len(stage.rows), step):
            cut = slice(start, start + step)
            parts.append(_Stage(stage.rows[cut], stage.first, stage.size, stage.chosen[cut]))
    return parts


def _chances(
    rankings: Rankings, stage: _Stage, ties: tuple[int, ...], point: Floats
) -> tuple[Ints, Floats, Floats, float]:
    """((n, k) models to choose from, (n, Q) chance of each set, (n, k) chosen minus expected, log-likelihood)."""
    sets, kinds = _subsets(stage.size, ties)
    models = rankings.model[stage.rows, stage.first : stage.first + stage.size]
    log_delta = np.append(0.0, point[rankings.models :])
    beta = point[models]
    logits = beta @ sets.T + log_delta[kinds]
    top = logits.max(1, keepdims=True)
    chance = np.exp(logits - top)
    total = chance.sum(1, keepdims=True)
    chance /= total
    chosen = (np.arange(stage.size) < stage.chosen[:, None]) / stage.chosen[:, None]
    kind = np.searchsorted((1, *ties), stage.chosen)
    value = (chosen * beta).sum() + log_delta[kind].sum() - (top + np.log(total)).sum()
    return models, chance, chosen - chance @ sets, float(value)


def _derivatives(
    rankings: Rankings, stages: list[_Stage], ties: tuple[int, ...], prior: float, point: Floats
) -> tuple[float, Floats, Floats]:
    """Log-likelihood, gradient and information of (beta, ln delta, the multiplier that holds beta's mean at 0)."""
    models, size = rankings.models, len(point) + 1
    beta = point[:models]
    even = np.tanh(beta / 2)
    value = -prior * (np.abs(beta) / 2 + np.log1p(np.exp(-np.abs(beta)))).sum()
    gradient, border = np.zeros(size), np.zeros((size, size))
    gradient[:models] = -prior * even / 2
    square = np.zeros(models * models)
    for stage in _chunks(stages, ties):
        sets, kinds = _subsets(stage.size, ties)
        model, chance, score, part = _chances(rankings, stage, ties, point)
        value += part
        gradient[:models] += np.bincount(model.ravel(), score.ravel(), models)
        mean = chance @ sets
        products = (sets[:, :, None] * sets[:, None, :]).reshape(len(sets), -1)
        spread = chance @ products - (mean[:, :, None] * mean[:, None, :]).reshape(len(mean), -1)
        keys = (model[:, :, None] * models + model[:, None, :]).ravel()
        square += np.bincount(keys, spread.ravel(), models * models)
        tied = np.stack([chance[:, kinds == 1 + at].sum(1) for at in range(len(ties))] or [[]], axis=1)
        for at, count in enumerate(ties):
            gradient[models + at] += (stage.chosen == count).sum() - tied[:, at].sum()
            of = kinds == 1 + at
            cross = chance[:, of] @ sets[of] - tied[:, at, None] * mean
            border[models + at, :models] += np.bincount(model.ravel(), cross.ravel(), models)
        if ties:
            border[models:-1, models:-1] += np.diag(tied.sum(0)) - tied.T @ tied
    border[:models, models:-1] = border[models:-1, :models].T
    border[:models, :models] = square.reshape(models, models) + np.diag(prior * (1 - even * even) / 4)
    border[-1, :models] = border[:models, -1] = 1
    return float(value), gradient, border


def _newton(
    rankings: Rankings,
    stages: list[_Stage],
    ties: tuple[int, ...],
    prior: float,
    point: Floats,
    tolerance: float,
) -> tuple[Floats, Floats]:
    """(beta and ln delta where the likelihood is highest, information there)."""
    value, gradient, border = _derivatives(rankings, stages, ties, prior, point)
    for _ in range(_STEPS):
        step = np.linalg.solve(border, gradient)[:-1]
        size = float(np.abs(step).max())
        if size < tolerance:
            return point + step, border
        scale = min(1.0, 5.0 / size)
        while True:
            new = point + scale * step
            found, gradient, border = _derivatives(rankings, stages, ties, prior, new)
            if found >= value - 1e-9 * abs(value) or scale < 1e-6:
                break
            scale /= 2
        point, value = new, found
    return point, border


def _middle(
    rankings: Rankings, stages: list[_Stage], ties: tuple[int, ...], point: Floats, cluster: Ints
) -> Floats:
    """(M + T, M + T) S of the sandwich: squared sums of scores within clusters, times C / (C - 1)."""
    models = rankings.models
    scores, extra = np.zeros(rankings.place.shape), np.zeros((len(rankings), len(ties)))
    for stage in _chunks(stages, ties):
        kinds = _subsets(stage.size, ties)[1]
        _, chance, score, _ = _chances(rankings, stage, ties, point)
        scores[stage.rows, stage.first : stage.first + stage.size] += score
        for at, count in enumerate(ties):
            extra[stage.rows, at] += (stage.chosen == count) - chance[:, kinds == 1 + at].sum(1)
    middle = np.zeros((len(point), len(point)))
    middle[:models, :models] = squared_sums(rankings.model, scores, cluster, models)
    sums = [np.bincount(cluster, column) for column in extra.T]
    for at, column in enumerate(sums, models):
        weight = (scores * column[cluster][:, None]).ravel()
        middle[at, :models] = middle[:models, at] = np.bincount(rankings.model.ravel(), weight, models)
    middle[models:, models:] = [[(one * other).sum() for other in sums] for one in sums]
    number = int((np.bincount(cluster) > 0).sum())
    return middle * (number / max(number - 1, 1))


def _unknown(scored: Bools, why: str) -> PlackettLuce:
    models = len(scored)
    nobody = np.zeros(models, dtype=np.bool_)
    return PlackettLuce(np.zeros(models), np.zeros((models, models)), nobody, nobody, {}, why)
