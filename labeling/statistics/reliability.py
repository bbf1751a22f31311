"""How reliable each annotator is, whether or not two of them ever saw the same pair: Bradley-Terry with reliability.

Of each pair (a, b) one completion is the better one: a with probability s(margin), s the logistic function and margin
the models' difference in strength (estimated here, by Bradley-Terry) or a reward's difference in score (given).
Annotator k names the better one with probability eta_k. A pair with one vote so has

    P(k says a) = eta_k s(margin) + (1 - eta_k) s(-margin)          Crowd-BT: Chen et al. 2013, WSDM, eq. 5

and votes on the same pair share its better completion, as in Dawid and Skene (1979). So both what others said about
the pair and what is known about its models, or its scores, tell how reliable an annotator is.

Numbered deviations:
1. Crowd-BT takes votes on the same pair as independent given the strengths. Here a pair may be a clear case though
   its models are alike.
2. Ties are left out: how often someone says "tie" is a habit, not an error. What remains is Davidson's model (1970)
   given that there is no tie.
3. Expectation-maximisation to the mode, with a Beta(8, 2) prior on eta and a normal prior on strengths, sped up by
   SQUAREM (Varadhan and Roland 2008, Scand. J. Stat. 35, scheme S3) instead of online moment matching.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from palate.labeling.statistics.grouped import Floats, Ints, logistic, sums

Bools = NDArray[np.bool_]

PRIOR = (8.0, 2.0)  # of eta: most people are right most of the time
SPREAD = 2.0  # standard deviation of strengths, in log-odds: wide
GRID = (np.arange(400) + 0.5) / 400  # values of eta at which likelihoods are looked at
_BINS = 128  # of how sure everybody else is, in log-odds
_SURE = 9.0  # log-odds beyond which it makes no difference
CHUNK = 1 << 17  # votes at once, so that what is computed on the way stays small
MOST = 2_000_000  # pairs that EM looks at; beyond that, it looks at an even part of them


@dataclass(frozen=True)
class Decisions:
    """Votes for one of two completions. V = votes, U = pairs, K = annotators."""

    unit: Ints  # (V,) 0 <= code < units
    annotator: Ints  # (V,) 0 <= code < annotators
    a_wins: Bools  # (V,)
    weight: Floats  # (V,) > 0: 1, or less where votes depend on one another
    units: int
    annotators: int


@dataclass(frozen=True)
class Reliability:
    """What was found out about each annotator. K = annotators, M = models, G = grid."""

    eta: Floats  # (K,) probability of naming the better completion; the prior's mode without a vote
    low: Floats  # (K,) 95 % interval, by the likelihood alone
    high: Floats
    votes: Floats  # (K,) weight of the annotator's votes
    told: Floats  # (K,) how many votes with a known answer would tell as much
    likelihood: Floats = field(repr=False)  # (K, G) log-likelihood of eta on GRID, everybody else held fixed
    strengths: Floats  # (M,) of the models, log-odds, mean 0; empty when margins were given
    iterations: int

    def evidence(self, eta: float) -> Floats:
        """(K,) signed root of the likelihood ratio against `eta`: about standard normal if it is true, below 0 when
        the annotator does worse."""
        at = min(int(eta * len(GRID)), len(GRID) - 1)
        best = self.likelihood.argmax(1)
        ratio = 2 * (self.likelihood.max(1) - self.likelihood[:, at])
        return np.asarray(np.sign(best - at) * np.sqrt(np.maximum(ratio, 0)))


def by_margins(
    votes: Decisions, margin: Floats, prior: tuple[float, float] = PRIOR, tolerance: float = 1e-5
) -> Reliability:
    """With `margin` (U,) known: score of a minus score of b in log-odds; zeros where nothing is known, which leaves
    Dawid and Skene's model with one coin per annotator."""
    nobody = np.zeros(votes.units, dtype=np.int64)
    return _fit(votes, margin, _Pairs(votes, nobody, nobody, 0), prior, tolerance)


def by_models(
    votes: Decisions,
    model_a: Ints,
    model_b: Ints,
    models: int,
    prior: tuple[float, float] = PRIOR,
    tolerance: float = 1e-5,
) -> Reliability:
    """With the strengths of the models estimated along: model_a, model_b (U,) codes below `models`."""
    return _fit(votes, np.zeros(votes.units), _Pairs(votes, model_a, model_b, models), prior, tolerance)


def _fit(
    votes: Decisions, margin: Floats, pairs: "_Pairs", prior: tuple[float, float], tolerance: float
) -> Reliability:
    """`margin` (U,) is what is known beforehand; the models' strengths add to it."""
    signs, size = _Signs(votes, prior), votes.annotators
    every = max(1, -(-votes.units // MOST))
    theta, steps = _em(*_part(signs, margin, pairs, every), tolerance)
    strengths = theta[size:]
    margin = margin + pairs.margin(strengths)
    likelihood, curve, cross, square = signs.likelihood(theta[:size], margin, pairs)
    eta = np.clip(logistic(theta[:size]), 1e-9, 1 - 1e-9)
    if every > 1:  # the mode given what EM has found out about everything else
        eta = GRID[(likelihood + _log_prior(np.log(GRID / (1 - GRID)), prior)).argmax(1)]
    # what is not known about the strengths widens everybody's interval (Schur complement of the joint information)
    held = curve + (prior[0] - 1) / eta**2 + (prior[1] - 1) / (1 - eta) ** 2
    information = square + np.eye(pairs.models) / SPREAD**2 - cross.T @ (cross / held[:, None])
    wider = 1 + (cross * np.linalg.solve(information, cross.T).T).sum(1) / held
    low, high = _interval(likelihood / wider[:, None])
    # the prior may draw an estimate of few votes out of it
    low, high = np.minimum(low, eta), np.maximum(high, eta)
    told = np.clip(curve * eta * (1 - eta) / wider, 0, signs.n)
    if pairs.models:
        strengths = strengths - strengths.mean()
    return Reliability(eta, low, high, signs.n, told, likelihood, strengths, steps)


def _part(signs: "_Signs", margin: Floats, pairs: "_Pairs", every: int) -> tuple["_Signs", Floats, "_Pairs"]:
    """Every n-th pair of completions."""
    if every == 1:
        return signs, margin, pairs
    votes = signs.votes
    kept = votes.unit % every == 0
    few = Decisions(
        votes.unit[kept] // every,
        votes.annotator[kept],
        votes.a_wins[kept],
        votes.weight[kept],
        -(-votes.units // every),
        votes.annotators,
    )
    return (
        _Signs(few, signs.prior),
        margin[::every],
        _Pairs(few, pairs.a[::every], pairs.b[::every], pairs.models),
    )


def _em(signs: "_Signs", margin: Floats, pairs: "_Pairs", tolerance: float) -> tuple[Floats, int]:
    """((K + M,) log-odds of eta and strengths at the mode, steps)."""
    size = signs.votes.annotators

    def step(theta: Floats) -> tuple[Floats, float]:
        logit, strengths = theta[:size], theta[size:]
        posterior, value = signs.posterior(logit, margin + pairs.margin(strengths))
        value += float(_log_prior(logit, signs.prior).sum() - (strengths**2).sum() / (2 * SPREAD**2))
        return np.append(signs.etas(posterior), pairs.strengths(posterior, strengths)), value

    strengths = pairs.strengths(signs.shares(), np.zeros(pairs.models))
    return _squarem(step, np.append(np.full(size, np.log(4.0)), strengths), tolerance)


class _Signs:
    """The votes as a sparse matrix, pairs x annotators: its weight where one says a, minus its weight for b."""

    def __init__(self, votes: Decisions, prior: tuple[float, float]) -> None:
        from scipy.sparse import csr_array

        self.votes, self.prior = votes, prior
        signed = np.where(votes.a_wins, votes.weight, -votes.weight)
        self.matrix = csr_array(
            (signed, (votes.unit, votes.annotator)), shape=(votes.units, votes.annotators)
        )
        self.n = sums(votes.annotator, votes.weight, votes.annotators)
        self.per_unit = sums(votes.unit, votes.weight, votes.units)

    def shares(self) -> Floats:
        """(U,) votes for a: where EM starts."""
        return np.asarray((self.matrix.sum(1) / np.maximum(self.per_unit, 1e-300) + 1) / 2)

    def posterior(self, logit: Floats, margin: Floats) -> tuple[Floats, float]:
        """(U,) probability that a is better given all votes, and the log-likelihood of the votes."""
        odds = margin + self.matrix @ logit
        tail = np.exp(-np.abs(odds))
        total = np.maximum(odds, 0) + np.log1p(tail)
        # log P(votes) = log(e^odds + 1) - log(e^margin + 1) + sum of w log(1 - eta) over votes for a,
        # w log eta over votes for b; the last two in terms of all votes of k and those for b
        value = total.sum() - (np.maximum(margin, 0) + np.log1p(np.exp(-np.abs(margin)))).sum()
        for_b = (self.n - self.matrix.sum(0)) / 2
        value += (for_b * logit).sum() - (self.n * np.logaddexp(0, logit)).sum()
        return np.where(odds >= 0, 1.0, tail) / (1 + tail), float(value)

    def etas(self, posterior: Floats) -> Floats:
        """(K,) log-odds of the mode of eta given the posterior."""
        right = self.n / 2 + self.matrix.T @ (posterior - 0.5)
        wrong = self.n - right + self.prior[1] - 1
        # a flat prior may leave nothing wrong at all
        return np.asarray(np.log(np.maximum(right + self.prior[0] - 1, 1e-9) / np.maximum(wrong, 1e-9)))

    def likelihood(
        self, logit: Floats, margin: Floats, pairs: "_Pairs"
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """((K, G) log-likelihood on GRID, (K,) information on eta, (K, M) cross and (M, M) information of strengths).

        A vote is held against r, the probability of its side by everything but itself: it has probability
        eta r + (1 - eta)(1 - r). The votes are counted by r in narrow bins of its log-odds.
        """
        votes, size, models = self.votes, self.votes.annotators, pairs.models
        odds = margin + self.matrix @ logit
        surprise = logistic(odds) - logistic(margin)  # (U,) derivative of the log-likelihood by the margin
        eta = logistic(logit)
        counts, middles = np.zeros(size * _BINS), np.zeros(_BINS)
        curve, cross = np.zeros(size), np.zeros(size * models)
        for start in range(0, len(votes.unit), CHUNK):
            at = slice(start, start + CHUNK)
            unit, person, weight = votes.unit[at], votes.annotator[at].astype(np.int64), votes.weight[at]
            others = np.where(votes.a_wins[at], odds[unit], -odds[unit]) - weight * logit[person]
            others = np.clip(others, -_SURE, _SURE)
            r = logistic(others)
            place = np.minimum(((others + _SURE) * (_BINS / (2 * _SURE))).astype(np.int64), _BINS - 1)
            counts += sums(person * _BINS + place, weight, size * _BINS)
            middles += sums(place, weight * r, _BINS)
            slope = (2 * r - 1) / (eta[person] * r + (1 - eta[person]) * (1 - r))
            curve += sums(person, weight * slope * slope, size)
            if models:
                score = weight * slope * surprise[unit]
                cross += sums(person * models + pairs.a[unit], score, size * models)
                cross -= sums(person * models + pairs.b[unit], score, size * models)
        table = counts.reshape(size, _BINS)
        r = middles / np.maximum(table.sum(0), 1e-300)
        likelihood = table @ np.log(np.outer(r, GRID) + np.outer(1 - r, 1 - GRID) + 1e-300)
        return likelihood, curve, cross.reshape(size, models), pairs.square(surprise)


class _Pairs:
    """Which models meet in which pair of completions; pairs without a vote, or of one model, tell nothing."""

    def __init__(self, votes: Decisions, model_a: Ints, model_b: Ints, models: int) -> None:
        self.models, self.a, self.b = models, model_a.astype(np.int64), model_b.astype(np.int64)
        counts = (np.bincount(votes.unit, minlength=votes.units) > 0) & (self.a != self.b)
        self.used = counts
        code = np.minimum(self.a, self.b) * models + np.maximum(self.a, self.b)
        self.flipped = self.a > self.b
        self.code = np.where(counts, code, 0)
        found = np.bincount(code[counts], minlength=models * models)
        self.met = np.flatnonzero(found)
        self.n = found[self.met].astype(np.float64)
        self.i, self.j = self.met // max(models, 1), self.met % max(models, 1)

    def margin(self, strengths: Floats) -> Floats:
        """(U,) strength of a minus strength of b."""
        return strengths[self.a] - strengths[self.b] if self.models else np.zeros(len(self.a))

    def strengths(self, posterior: Floats, start: Floats) -> Floats:
        """(M,) Bradley-Terry's mode given how probably a is better in each pair: a few steps of Newton's method."""
        wins = np.where(self.flipped, 1 - posterior, posterior) * self.used
        share = sums(self.code, wins, self.models**2)[self.met] / self.n
        strengths = start
        for _ in range(8):
            p = logistic(strengths[self.i] - strengths[self.j])
            pull = self._per_model(self.n * (share - p)) - strengths / SPREAD**2
            move = np.linalg.solve(self._matrix(self.n * p * (1 - p)) + np.eye(self.models) / SPREAD**2, pull)
            strengths = strengths + np.clip(move, -2, 2)
            if not len(move) or np.abs(move).max() < 1e-9:
                break
        return strengths

    def square(self, surprise: Floats) -> Floats:
        """(M, M) sum of surprise^2 (e_a - e_b)(e_a - e_b)' over pairs."""
        return self._matrix(sums(self.code, surprise**2 * self.used, self.models**2)[self.met])

    def _per_model(self, value: Floats) -> Floats:
        return sums(self.i, value, self.models) - sums(self.j, value, self.models)

    def _matrix(self, weight: Floats) -> Floats:
        off = np.zeros((self.models, self.models))
        off[self.i, self.j] = off[self.j, self.i] = weight
        return np.diag(off.sum(1)) - off


def _log_prior(logit: Floats, prior: tuple[float, float]) -> Floats:
    """Log density of the Beta prior at eta, up to a constant."""
    return np.asarray((prior[0] - 1) * logit - (prior[0] + prior[1] - 2) * np.logaddexp(0, logit))


def _squarem(
    step: Callable[[Floats], tuple[Floats, float]], theta: Floats, tolerance: float, most: int = 200
) -> tuple[Floats, int]:
    """(the fixed point of `step`, how often it was called). `step` also returns the value at where it started, which
    never falls; extrapolations that lower it are taken back."""
    steps, value = 0, -np.inf
    while True:
        one, _ = step(theta)
        two, between = step(one)
        steps += 2
        first, second = one - theta, two - one
        if not len(theta) or np.abs(second).max() < tolerance or steps >= most:
            return two, steps
        bend = second - first
        length = max(1.0, float(np.linalg.norm(first)) / max(float(np.linalg.norm(bend)), 1e-300))
        far = theta + 2 * length * first + length**2 * bend
        found, value = step(far)
        steps += 1
        theta = found if np.isfinite(value) and value >= between else two


def _interval(likelihood: Floats) -> tuple[Floats, Floats]:
    """(K,) ends of the 95 % interval: the middle of the likelihood taken as a density over 0..1."""
    mass = np.exp(likelihood - likelihood.max(1, keepdims=True)).cumsum(1)
    mass /= mass[:, -1:]
    return _quantile(mass, 0.025), _quantile(mass, 0.975)


def _quantile(mass: Floats, share: float) -> Floats:
    """(K,) where the cumulated (K, G) mass passes a share, interpolated within the cell."""
    at = (mass < share).sum(1)
    rows = np.arange(len(mass))
    below = np.where(at > 0, mass[rows, np.maximum(at - 1, 0)], 0.0)
    return np.asarray((at + (share - below) / np.maximum(mass[rows, at] - below, 1e-300)) / len(GRID))
