"""How much style decides: Bradley-Terry with the answers' length, headers, lists and bold beside the models.

logit P(a beats b) = beta_a - beta_b + gamma' z, z = (f_a - f_b) / (f_a + f_b + 1) over its root mean square
where answers differ; a tie is half a win each. As FastChat's `rating_systems.py` and lmsys.org/blog/2024-08-28-style-control, with these
numbered deviations:

1. z is scaled, not centred: which answer is called a is arbitrary, and swapping them must change nothing.
2. Pairs of answers from one model count for gamma too.
3. Intervals are sandwich intervals whose clusters are items, not bootstrapped.
4. A feature gets no gamma that can't be told from the models and the features before it, that differs on few items,
   or that every vote goes with.
"""

from dataclasses import dataclass, replace

import numpy as np

from palate.labeling.statistics.bradley_terry import Strengths
from palate.labeling.statistics.measures import Z95
from palate.labeling.statistics.model_votes import (
    Bools,
    Counts,
    Floats,
    Ints,
    clustered_middle,
    laplacian,
    per_model,
    restrict,
)
from palate.labeling.statistics.resampling import LEAST

_STEPS = 50  # Newton takes about 6
_TOLERANCE = 1e-8
_SAME = 1e-6  # share of a feature's information that is its own, below which it can't be told from the rest
_ENDLESS = 12.0  # log-odds that only votes which go one way without exception lead to
SAME = "no two answers that were compared differ in it"
FEW = f"answers differ in it on fewer than {LEAST} items"
CONFOUNDED = "it can't be told from the models or the features above"
ENDLESS = "every vote goes with it, so its effect has no finite size yet"


@dataclass(frozen=True)
class Style:
    """A fit. M = models, F = features; zeros where a model has no score or a feature no gamma."""

    gamma: Floats  # (F,) log-odds per `scale` of a feature
    gamma_se: Floats  # (F,)
    scale: Floats  # (F,) root mean square of (f_a - f_b) / (f_a + f_b + 1) where it isn't 0: one unit of z
    differs: Floats  # (F,) the share of pairs of answers that differ in the feature
    reasons: tuple[str, ...]  # (F,) why there is no gamma; empty where there is one
    beta: Floats  # (M,) log-odds at equal style, mean 0 over the scored
    se: Floats  # (M,)
    scored: Bools  # (M,)

    @property
    def known(self) -> list[int]:
        """The features that have a gamma."""
        return [at for at, reason in enumerate(self.reasons) if not reason]

    @property
    def gamma_low(self) -> Floats:
        """(F,) lower end of the 95 % interval."""
        return self.gamma - Z95 * self.gamma_se

    @property
    def gamma_high(self) -> Floats:
        """(F,) upper end."""
        return self.gamma + Z95 * self.gamma_se


def style_control(plain: Strengths, counts: Counts, style: Floats, cluster: Ints) -> Style:
    """The fit beside `plain`: Bradley-Terry of the same votes, which says which models have scores.

    style: (R, F) in -1..1, a minus b over their sum + 1; cluster: (R,) codes >= 0 of items.
    """
    rows, keep = _between(plain, counts)
    cluster, style = cluster[keep], style[keep]
    some = style != 0
    scale = np.sqrt((style**2).sum(0) / np.maximum(some.sum(0), 1))
    reasons = [_too_few(cluster[column]) for column in some.T]
    beta = plain.beta[plain.scored] if plain.scored.any() else np.zeros(1)
    prior = float(plain.apart.any())
    reasons = _told_apart(rows, style, scale, reasons, prior, beta)
    while True:
        known = [at for at, reason in enumerate(reasons) if not reason]
        z = np.asfortranarray(style[:, known] / scale[known])  # its columns are read one by one
        fitted, gamma, information = _newton(rows, z, prior, beta)
        largest = int(np.abs(gamma).argmax()) if known else 0
        if known and abs(gamma[largest]) > _ENDLESS:
            reasons[known[largest]] = ENDLESS
        elif np.abs(fitted).max() > _ENDLESS and not prior:
            prior = 1.0  # at equal style some model won or lost everything
        else:
            break
    inverse = np.linalg.inv(information)[:-1, :-1]
    score = _score(rows, np.tanh(_logits(rows, z, fitted, gamma) / 2))
    middle = clustered_middle(rows, score, score[:, None] * z, cluster)
    models = rows.models
    if plain.scored.any():
        middle[:models, :models] += plain.floor[:-1, :-1][np.ix_(plain.scored, plain.scored)]
    if prior and not plain.apart.any():
        middle[:models, :models] += np.diag(_prior_information(prior, fitted))
    se = np.sqrt(np.clip(np.diag(inverse @ middle @ inverse), 0, None))
    whole, features = np.zeros((2, len(plain.scored))), np.zeros((2, len(scale)))
    whole[:, plain.scored] = (fitted, se[:models]) if plain.scored.any() else 0.0
    features[:, known] = gamma, se[models:]
    share = some.mean(0) if len(some) else np.zeros(len(scale))
    return Style(features[0], features[1], scale, share, tuple(reasons), whole[0], whole[1], plain.scored)


def _too_few(items: Ints) -> str:
    """Why the items on which answers differ are too few; empty when they aren't."""
    number = len(np.unique(items))
    return "" if number >= LEAST else FEW if number else SAME


def _told_apart(
    rows: Counts, style: Floats, scale: Floats, reasons: list[str], prior: float, beta: Floats
) -> list[str]:
    """The reasons, also of features of which models and the features before hold all the information."""
    known = [at for at, reason in enumerate(reasons) if not reason]
    z = np.asfortranarray(style[:, known] / scale[known])
    border = _information(rows, z, np.tanh((beta[rows.a] - beta[rows.b]) / 2), prior, beta)
    before, told = [*range(rows.models), len(border) - 1], list(reasons)
    for number, feature in enumerate(known, rows.models):
        column = border[before, number]
        own = border[number, number] - column @ np.linalg.solve(border[np.ix_(before, before)], column)
        if own > _SAME * border[number, number]:
            before.append(number)
        else:
            told[feature] = CONFOUNDED
    return told


def _between(plain: Strengths, counts: Counts) -> tuple[Counts, Bools]:
    """The rows that count, with models numbered anew, and which they are."""
    if plain.scored.any():
        keep = plain.scored[counts.a] & plain.scored[counts.b]
        return restrict(counts.rows(keep), plain.scored), keep
    keep = counts.a == counts.b  # no two models are linked, so votes within models are all there is
    same = counts.rows(keep)
    return replace(same, models=1, a=np.zeros_like(same.a), b=np.zeros_like(same.b)), keep


def _newton(rows: Counts, z: Floats, prior: float, beta: Floats) -> tuple[Floats, Floats, Floats]:
    """(beta, gamma, information) where the likelihood is highest; it ends early where that is endlessly far."""
    models, gamma = rows.models, np.zeros(z.shape[1])
    logit = _logits(rows, z, beta, gamma)
    value = _likelihood(rows, logit, prior, beta)
    for _ in range(_STEPS):
        lead = np.tanh(logit / 2)
        score = _score(rows, lead)
        border = _information(rows, z, lead, prior, beta)
        gradient = [per_model(rows, score) - prior * np.tanh(beta / 2) / 2, score @ z, np.zeros(1)]
        step, scale = np.linalg.solve(border, np.concatenate(gradient))[:-1], 1.0
        if np.abs(step).max() < _TOLERANCE:
            return beta + step[:models], gamma + step[models:], border
        while True:
            new, slopes = beta + scale * step[:models], gamma + scale * step[models:]
            logit = _logits(rows, z, new, slopes)
            reached = _likelihood(rows, logit, prior, new)
            if reached >= value - 1e-9 * abs(value) or scale < 1e-6:
                break
            scale /= 2
        beta, gamma, value = new, slopes, reached
        if np.abs(gamma).max(initial=0) > _ENDLESS or (not prior and np.abs(beta).max() > _ENDLESS):
            break
    return beta, gamma, border


def _logits(rows: Counts, z: Floats, beta: Floats, gamma: Floats) -> Floats:
    return beta[rows.a] - beta[rows.b] + z @ gamma


def _score(rows: Counts, lead: Floats) -> Floats:
    """(R,) wins of a minus those expected: the likelihood's derivative by the logit; lead = P(a) - P(b)."""
    return (rows.a_wins - rows.b_wins - rows.votes * lead) / 2


def _likelihood(rows: Counts, logit: Floats, prior: float, beta: Floats) -> float:
    half = np.abs(logit) / 2
    value = (
        (rows.a_wins - rows.b_wins) * logit / 2 - rows.votes * (half + np.log1p(np.exp(-2 * half)))
    ).sum()
    return float(value - prior * (np.abs(beta) / 2 + np.log1p(np.exp(-np.abs(beta)))).sum())


def _information(rows: Counts, z: Floats, lead: Floats, prior: float, beta: Floats) -> Floats:
    """(M + F + 1, M + F + 1) of (beta, gamma, the multiplier that holds beta's mean at 0)."""
    models, features = rows.models, z.shape[1]
    weight = rows.votes * (1 - lead * lead) / 4
    weighted = weight[:, None] * z
    border = np.zeros((models + features + 1, models + features + 1))
    border[:models, :models] = laplacian(rows, weight) + np.diag(_prior_information(prior, beta))
    for at, column in enumerate(weighted.T, models):
        border[at, :models] = border[:models, at] = per_model(rows, column)
    border[models:-1, models:-1] = z.T @ weighted
    border[-1, :models] = border[:models, -1] = 1
    return border


def _prior_information(prior: float, beta: Floats) -> Floats:
    """(M,) of half a win and half a loss against the average, times `prior`."""
    return np.asarray(prior * (1 - np.tanh(beta / 2) ** 2) / 4)
