"""How strong each model is, from votes on pairs: Bradley-Terry by Newton's method, with sandwich intervals.

P(a beats b) = 1 / (1 + exp(beta_b - beta_a))                      Bradley and Terry 1952; a tie is half a win each
P(a beats b) = e^(d/2) / (e^(d/2) + e^(-d/2) + nu), d = beta_a - beta_b; P(tie) = nu / (the same)
                                                                   Davidson 1970, JASA 65, 317-328, eq. 2.5

beta is in log-odds and its mean over the models is 0. Both are exponential families with a concave likelihood, and
the first is the second with nu = 0, so one Newton solves both: from the votes counted by pair of models it takes
milliseconds, however many votes there are.

Numbered deviations:
1. Models that no chain of votes links to the largest group (by votes) get no score.
2. Where a model, or a group, won everything or lost everything against the rest there is no finite maximum (Ford
   1957). Only then each model is given half a win and half a loss against an average model (Jeffreys' prior on that
   win rate), and votes that went all one way count by the model's variance in the sandwich, as they show none.
"""

from dataclasses import dataclass, replace
from math import log

import numpy as np

from palate.labeling.statistics.comparable import apart, linked, strong_groups
from palate.labeling.statistics.measures import Z95
from palate.labeling.statistics.model_votes import (
    Bools,
    Counts,
    Floats,
    Ints,
    by_pair,
    clustered_middle,
    laplacian,
    per_model,
    restrict,
)

ELO = 400 / log(10)  # points per unit of beta: 400 points are odds of 10 to 1
_STEPS = 200  # Newton takes 5 to 10


@dataclass(frozen=True)
class Strengths:
    """What a fit found. M = models. Models without a score hold zeros."""

    beta: Floats  # (M,) log-odds, mean 0 over the scored
    cov: Floats  # (M, M) of beta
    scored: Bools  # (M,)
    nu: float  # Davidson's tie parameter: 2 P(tie) / P(no tie) of equal models; 0 when ties are half wins
    log_nu_se: float | None  # standard error of ln nu
    apart: Bools  # (M,) won or lost everything against the rest; if any is, the prior was used (deviation 2)
    inverse: Floats  # (M + 1, M + 1) inverse information of (beta, ln nu), beta held to mean 0
    floor: Floats  # (M + 1, M + 1) what the prior and one-way votes add to the middle of the sandwich
    why: str = ""  # why no model is scored

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

    def difference(self, a: int, b: int) -> tuple[float, float]:
        """(beta_a - beta_b, its standard error)."""
        variance = self.cov[a, a] + self.cov[b, b] - 2 * self.cov[a, b]
        return float(self.beta[a] - self.beta[b]), float(np.sqrt(max(variance, 0.0)))


def elo(beta: Floats) -> Floats:
    """On the scale of chess ratings: 1000 is the average model, 400 points more are odds of 10 to 1."""
    return np.asarray(1000 + ELO * beta)


def ranks(low: Floats, high: Floats) -> tuple[Ints, Ints]:
    """(best, worst) rank by intervals, both (M,): best = 1 + models whose whole interval lies above this one's
    (Chiang et al. 2024, arXiv:2403.04132, section 5), worst = M - models whose whole interval lies below."""
    best = 1 + (low[None, :] > high[:, None]).sum(1)
    worst = len(low) - (high[None, :] < low[:, None]).sum(1)
    return best, worst


def bradley_terry(counts: Counts) -> Strengths:
    """Bradley-Terry; a tie is half a win for each. Intervals take votes as independent: see `clustered`."""
    return _strengths(by_pair(counts), ties=False)


def davidson(counts: Counts) -> Strengths:
    """Bradley-Terry with Davidson's parameter for ties; without any tie it is Bradley-Terry itself."""
    return _strengths(by_pair(counts), ties=bool(counts.ties.any()))


def clustered(fit: Strengths, counts: Counts, cluster: Ints) -> Strengths:
    """The same fit with intervals that let the votes of one cluster hang together.

    counts: the votes that were fitted, in rows that each lie in one cluster; cluster: (R,) codes >= 0. The middle of
    the sandwich sums scores within clusters before squaring (Liang and Zeger 1986), times C / (C - 1).
    """
    used = fit.scored[counts.a] & (counts.a != counts.b)
    counts, cluster = counts.rows(used), cluster[used]
    lead, tie = chances(fit.beta[counts.a] - fit.beta[counts.b], fit.nu)
    score = (counts.a_wins - counts.b_wins - counts.votes * lead) / 2
    of_ties = counts.ties - counts.votes * tie if fit.nu else np.zeros(len(tie))
    cov = fit.inverse @ (clustered_middle(counts, score, of_ties[:, None], cluster) + fit.floor) @ fit.inverse
    log_nu_se = _root(cov[-1, -1]) if fit.nu else None
    return replace(fit, cov=cov[:-1, :-1], log_nu_se=log_nu_se)


def chances(d: Floats, nu: float | Floats) -> tuple[Floats, Floats]:
    """(P(a wins) - P(b wins), P(tie)) at differences `d` of beta, of any size; `nu` broadcasts over them."""
    u = np.exp(-0.5 * np.abs(d))
    z = 1 + u * u + nu * u
    return np.copysign((1 - u * u) / z, d), nu * u / z


def maximise(
    pairs: Counts, ties: bool, prior: float, beta: Floats, theta: float, tolerance: float = 1e-10
) -> tuple[Floats, float]:
    """Newton from (beta, theta = ln nu) to where the likelihood is highest.

    `prior` is how many votes, half won and half lost, each model has against the average one; it must be positive
    unless a finite maximum exists. beta keeps its mean of 0. `tolerance` is that of beta and theta.
    """
    value = _likelihood(pairs, ties, prior, beta, theta)
    for _ in range(_STEPS):
        gradient, border = _derivatives(pairs, ties, prior, beta, theta)
        step = np.linalg.solve(border, gradient)
        size = float(np.abs(step[: pairs.models + 1]).max())
        scale = (
            min(1.0, 5.0 / size) if size else 1.0
        )  # a first step from far away must not jump to where all is flat
        while True:
            new, new_theta = beta + scale * step[: pairs.models], theta + scale * step[pairs.models]
            found = _likelihood(pairs, ties, prior, new, new_theta)
            if found >= value - 1e-9 * abs(value) or scale < 1e-6:
                break
            scale /= 2
        beta, theta, value = new, float(new_theta), found
        if size * scale < tolerance:
            break
    return beta - beta.mean(), theta


def inverse_information(pairs: Counts, ties: bool, prior: float, beta: Floats, theta: float) -> Floats:
    """(M + 1, M + 1) of (beta, ln nu), beta held to its mean; without ties the last row and column are 0."""
    inverse = np.linalg.inv(_derivatives(pairs, ties, prior, beta, theta)[1])[:-1, :-1]
    if not ties:
        inverse[-1, :] = inverse[:, -1] = 0
    return np.asarray(inverse, dtype=np.float64)


def _strengths(pairs: Counts, ties: bool) -> Strengths:
    models = pairs.models
    scored = linked(models, pairs.a, pairs.b, pairs.votes)
    if not scored.any():
        return _unknown(models, "no vote on answers of two different models")
    if not (pairs.a_wins + pairs.b_wins)[scored[pairs.a]].any():
        return _unknown(models, "every vote is a tie")
    part = restrict(pairs, scored)
    group = groups(part, ties)
    prior = float(group.any())
    beta, theta = maximise(part, ties, prior, np.zeros(part.models), tie_start(part))
    inverse = inverse_information(part, ties, prior, beta, theta)
    nu = float(np.exp(theta)) if ties else 0.0
    floor = np.zeros_like(inverse)
    if prior:
        one_way = part.rows(group[part.a] != group[part.b])
        floor = _derivatives(one_way, ties, prior, beta, theta)[1][:-1, :-1]
    cov = inverse @ (_middle(part, beta, nu) + floor) @ inverse
    at = np.append(np.flatnonzero(scored), models)
    outside = np.zeros(models, dtype=np.bool_)
    outside[scored] = apart(group)
    return Strengths(
        _spread(beta, at[:-1], models),
        _spread(cov[:-1, :-1], at[:-1], models),
        scored,
        nu,
        _root(cov[-1, -1]) if ties else None,
        outside,
        _spread(inverse, at, models + 1),
        _spread(floor, at, models + 1),
    )


def refit(fit: Strengths, pairs: Counts, tolerance: float = 1e-10) -> Floats:
    """(M,) beta of other votes on the scored models, numbered from 0, by Newton from a fit of the same kind."""
    start = fit.beta[fit.scored]
    if not (pairs.a_wins + pairs.b_wins).any():
        return np.zeros(len(start))  # nothing but ties, or nothing at all: everybody is equal
    ties = fit.nu > 0 and bool(pairs.ties.any())
    prior = float(fit.apart.any() or groups(pairs, ties).any())
    theta = float(np.log(fit.nu)) if ties else 0.0
    return maximise(pairs, ties, prior, start, theta, tolerance)[0]


def groups(pairs: Counts, ties: bool) -> Ints:
    """(M,) strong groups. A half win counts as a win; Davidson's ties, which nu explains, don't."""
    half = 0 if ties else pairs.ties
    up, down = pairs.a_wins + half > 0, pairs.b_wins + half > 0
    return strong_groups(
        pairs.models, np.append(pairs.a[up], pairs.b[down]), np.append(pairs.b[up], pairs.a[down])
    )


def tie_start(pairs: Counts) -> float:
    """ln nu, were all models equal."""
    share = min(float(pairs.ties.sum() / pairs.votes.sum()), 0.99)
    return float(np.log(2 * share / (1 - share))) if share else 0.0


def _unknown(models: int, why: str) -> Strengths:
    nobody, square = np.zeros(models, dtype=np.bool_), np.zeros((models + 1, models + 1))
    nothing = np.zeros(models)
    return Strengths(nothing, square[:-1, :-1], nobody, 0.0, None, nobody, square, square, why)


def _spread(part: Floats, at: Ints, size: int) -> Floats:
    """The values of some, among zeros."""
    whole = np.zeros((size,) * part.ndim)
    whole[np.ix_(*[at] * part.ndim)] = part
    return whole


def _likelihood(pairs: Counts, ties: bool, prior: float, beta: Floats, theta: float) -> float:
    d = beta[pairs.a] - beta[pairs.b]
    half = np.abs(d) / 2
    nu = np.exp(theta) if ties else 0.0
    logs = half + np.log1p(np.exp(-2 * half) + nu * np.exp(-half))
    value = ((pairs.a_wins - pairs.b_wins) * d / 2 - pairs.votes * logs).sum()
    if ties:
        value += pairs.ties.sum() * theta
    if prior:
        value -= prior * (np.abs(beta) / 2 + np.log1p(np.exp(-np.abs(beta)))).sum()
    return float(value)


def _derivatives(
    pairs: Counts, ties: bool, prior: float, beta: Floats, theta: float
) -> tuple[Floats, Floats]:
    """Gradient (M + 2,) and information (M + 2, M + 2) of (beta, theta, the multiplier that holds the mean at 0)."""
    models, n = pairs.models, pairs.votes
    lead, tie = chances(beta[pairs.a] - beta[pairs.b], float(np.exp(theta)) if ties else 0.0)
    gradient, border = np.zeros(models + 2), np.zeros((models + 2, models + 2))
    gradient[:models] = per_model(pairs, (pairs.a_wins - pairs.b_wins - n * lead) / 2)
    border[:models, :models] = laplacian(pairs, n * (1 - tie - lead * lead) / 4)
    border[models + 1, :models] = border[:models, models + 1] = 1
    border[models, models] = 1  # theta stays where it is
    if ties:
        gradient[models] = (pairs.ties - n * tie).sum()
        border[models, models] = (n * tie * (1 - tie)).sum()
        border[models, :models] = border[:models, models] = per_model(pairs, -n * lead * tie / 2)
    if prior:
        even = np.tanh(beta / 2)
        gradient[:models] -= prior * even / 2
        border[np.arange(models), np.arange(models)] += prior * (1 - even * even) / 4
    return gradient, border


def _middle(pairs: Counts, beta: Floats, nu: float) -> Floats:
    """(M + 1, M + 1) the votes' squared scores, each vote on its own: S of the sandwich H^-1 S H^-1."""
    lead, tie = chances(beta[pairs.a] - beta[pairs.b], nu)
    decisive = pairs.a_wins + pairs.b_wins
    squares = (pairs.a_wins * (1 - lead) ** 2 + pairs.b_wins * (1 + lead) ** 2 + pairs.ties * lead**2) / 4
    middle = np.zeros((pairs.models + 1, pairs.models + 1))
    middle[:-1, :-1] = laplacian(pairs, squares)
    if nu:
        cross = (pairs.b_wins * (1 + lead) - pairs.a_wins * (1 - lead)) * tie - pairs.ties * lead * (1 - tie)
        middle[-1, :-1] = middle[:-1, -1] = per_model(pairs, cross / 2)
        middle[-1, -1] = (decisive * tie**2 + pairs.ties * (1 - tie) ** 2).sum()
    return middle


def _root(variance: float) -> float:
    return float(np.sqrt(max(variance, 0.0)))
