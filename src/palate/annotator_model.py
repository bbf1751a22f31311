"""How far to trust each annotator, found out together with what they prefer: no gold questions, no pair seen twice.

Of each pair one completion is the better one: the first with probability sigmoid(w . z), z the difference of the two
completions' features (linear_head.py). Annotator k sees it with log-odds a_k, leans to the completion shown first by
s_k and to the longer one by l_k:

    P(k says first | the first is better)  = sigmoid( a_k + s_k x + l_k d)        x = 1 where the first is shown first,
    P(k says first | the second is better) = sigmoid(-a_k + s_k x + l_k d)        -1 where last, 0 where nobody knows

d is the difference of their log lengths, in standard deviations. eta_k = sigmoid(a_k) is how often k names the better
one where neither side nor length pulls. Without the two leans this is Crowd-BT (Chen et al. 2013, WSDM, eq. 5) with a
Bayesian linear reward in place of one strength per item; several votes on a pair share its better completion, as in
Dawid and Skene (1979).

    found = fit(votes, annotators=10)       # expectation-maximisation; 10,000 votes on 256 features in seconds
    found.eta, found.low, found.high        # (K,) with 95 % intervals
    found.flips(votes)                      # (V,) how likely each vote names the wrong one, leans included

Deliberate choices:
1. A Beta(8, 2) prior on eta: most people are right most of the time. It decides the sign too: the majority is right, and
   an annotator may end below a half (eta < 0.5: the contrary of what they say is better).
2. A taste for length that all share is taste, not bias: give the difference of log lengths as a column of z as well,
   and l_k is what is k's own.
3. A tie says that the two are about as good: half a vote each way for w, nothing about its annotator.
4. A vote's weight is how much it counts, not how sure it is: it scales the vote's log-likelihood, not its odds.
5. The mode is taken in log-odds, which is where Laplace's approximation is good; for eta that is the prior's mean
   (0.8) without votes, not its mode (0.875).
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from palate.config import UserError
from palate.linear_head import Floats, LinearHead, mode, sigmoid

Ints = NDArray[np.integer]

PRIOR = (8.0, 2.0)  # of eta
LEAN = 0.5  # standard deviation of the leans, in log-odds (per standard deviation of length)
TOLERANCE = 1e-4  # largest change of a parameter at which EM ends
MOST = 120  # steps of EM
ROUNDS = 5  # of finding the prior's precision again, given how reliable the votes are
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Votes:
    """V votes on U pairs of completions, D features."""

    differences: Floats  # (U, D) features of the first completion less those of the second
    pair: Ints  # (V,) 0 <= row of `differences`
    annotator: Ints  # (V,) 0 <= code
    outcome: Floats  # (V,) 1 the first won, 0 the second, 0.5 a tie
    first: Floats | None = None  # (V,) 1 the first completion was shown first, -1 last, 0 unknown
    lengths: Floats | None = None  # (U,) difference of log lengths in standard deviations
    weight: Floats | None = None  # (V,) >= 0


@dataclass(frozen=True)
class AnnotatorModel:
    """What was found out. K annotators, D features."""

    head: LinearHead  # the reward, given how reliable everybody is
    eta: Floats  # (K,) probability of naming the better completion
    low: Floats  # (K,) 95 % interval, everything else unknown too (Laplace)
    high: Floats
    side: Floats  # (K,) log-odds for the completion shown first
    side_sd: Floats
    length: Floats  # (K,) log-odds per standard deviation of log length
    length_sd: Floats
    votes: Floats  # (K,) decided votes
    iterations: int
    value: float = field(repr=False)  # log posterior at the mode, up to a constant

    def flips(self, votes: Votes) -> Floats:
        """(V,) how likely a vote names the wrong completion when nothing is known about the pair: b / (a + b), where
        a, b are the probabilities that its annotator gives this very vote if it is right, or wrong.

        With it, (1 - flip) sigmoid(margin) + flip sigmoid(-margin) is the vote's likelihood up to a constant, leans
        included. A tie's is 1 - eta.
        """
        data = _Data(votes, len(self.eta))
        logit = np.log(self.eta) - np.log1p(-self.eta)
        parameters = np.stack([logit, self.side, self.length])
        found = 1 - self.eta[np.asarray(votes.annotator)]
        found[data.decided] = sigmoid(-data.evidence(parameters)[0])
        return found


def fit(
    votes: Votes,
    annotators: int,
    prior: tuple[float, float] | tuple[Floats, Floats] = PRIOR,
    lean: float = LEAN,
    precision: float | None = None,
) -> AnnotatorModel:
    """The mode of everything at once, by EM with SQUAREM (Varadhan and Roland 2008, Scand. J. Stat. 35, scheme S3).

    `prior` is the Beta prior on eta, one for all or (K,) each; `lean` 0 leaves the leans out; `precision` is that of the prior on w, None finds it out: by evidence from the votes
    as they are, then again with each vote's Fisher information given its annotator (MacKay 1992, eq. 4.8).
    Raises UserError where a number is not finite.
    """
    data = _Data(votes, annotators)
    if precision is None:
        every = LinearHead.by_evidence(data.z, data.share, data.unit_weight)
        used, rounds = every.precision, ROUNDS
    else:
        every = LinearHead.fit(data.z, data.share, data.unit_weight, precision=precision)
        used, rounds = precision, 1
    logit = np.log(prior[0] / prior[1]) + np.zeros(annotators)
    theta = np.concatenate([every.mean, logit, np.zeros(2 * annotators)])
    iterations = 0
    while True:
        model = _Model(data, prior, lean, used)
        theta, steps = model.run(theta)
        iterations, rounds = iterations + steps, rounds - 1
        w, parameters = model.parts(theta)
        covariance, spread = model.laplace(w, parameters)
        effective = len(w) - used * float(np.trace(covariance))
        better = float(
            np.clip(effective / max(float(w @ w), 1e-300), every.precision / 30, every.precision * 30)
        )
        if not rounds or abs(np.log(better / used)) < 0.1 or effective <= 0:
            break
        used = better
    value = model.value(theta)
    evidence = value + 0.5 * len(w) * float(np.log(used)) + 0.5 * float(np.linalg.slogdet(covariance)[1])
    head = LinearHead(w, covariance, used, len(data.decided), evidence)
    low, high = (sigmoid(parameters[0] + sign * Z95 * spread[0]) for sign in (-1, 1))
    return AnnotatorModel(
        head, sigmoid(parameters[0]), low, high, parameters[1], spread[1], parameters[2], spread[2],
        np.bincount(data.annotator, minlength=annotators).astype(np.float64), iterations, value,
    )  # fmt: skip


class _Data:
    """The votes in the form that EM needs; everything per vote is of decided votes."""

    def __init__(self, votes: Votes, annotators: int) -> None:
        outcome, pair = np.asarray(votes.outcome, dtype=np.float64), np.asarray(votes.pair)
        count = len(outcome)
        self.z, units = np.asarray(votes.differences, dtype=np.float64), len(votes.differences)
        weight = _given(votes.weight, np.ones(count))
        first, lengths = _given(votes.first, np.zeros(count)), _given(votes.lengths, np.zeros(units))
        for name, values in (
            ("features", self.z), ("outcomes", outcome), ("weights", weight), ("sides", first), ("lengths", lengths)
        ):  # fmt: skip
            if not np.isfinite(values).all():
                raise UserError(f"some {name} of these votes are not finite numbers: make them again")
        self.decided = outcome != 0.5
        self.annotators, self.units = annotators, units
        self.annotator, self.pair = np.asarray(votes.annotator)[self.decided], pair[self.decided]
        self.sign = np.where(outcome[self.decided] > 0.5, 1.0, -1.0)
        self.x, self.d = first[self.decided], lengths[self.pair]
        # a pair's weight is the mean of its votes': they share its better completion
        votes_on = np.bincount(self.pair, minlength=units)
        self.c = _sums(self.pair, weight[self.decided], units) / np.maximum(votes_on, 1)
        self.c_vote = self.c[self.pair]
        self.ties = _sums(pair[~self.decided], weight[~self.decided], units)
        # for the first guess, votes as they are
        self.unit_weight = _sums(pair, weight, units)
        self.share = _sums(pair, weight * outcome, units) / np.where(
            self.unit_weight > 0, self.unit_weight, 1
        )

    def sums(self, value: Floats) -> Floats:
        """(K,) sums of (V,) values by annotator."""
        return _sums(self.annotator, value, self.annotators)

    def evidence(self, parameters: Floats) -> tuple[Floats, Floats, Floats]:
        """((V,) log-odds a vote adds to its own side being better, log-odds of the vote if that is so, if not)."""
        a, s, l = parameters[:, self.annotator]
        lean = self.sign * (s * self.x + l * self.d)
        right, wrong = a + lean, lean - a
        return np.logaddexp(0, -wrong) - np.logaddexp(0, -right), right, wrong


class _Model:
    """One posterior: the votes, the priors, and EM on theta = (w, a, s, l), (D + 3 K,)."""

    def __init__(
        self, data: _Data, prior: tuple[float, float] | tuple[Floats, Floats], lean: float, precision: float
    ) -> None:
        self.data, self.prior, self.precision = data, prior, precision
        self.lean = lean if lean > 0 else 1e-6

    def parts(self, theta: Floats) -> tuple[Floats, Floats]:
        """(w (D,), parameters (3, K)): of each annotator log-odds of eta, lean to the side, lean to length."""
        size = self.data.z.shape[1]
        return theta[:size], theta[size:].reshape(3, -1)

    def value(self, theta: Floats) -> float:
        """Log posterior up to a constant."""
        return self._expect(*self.parts(theta))[1]

    def run(self, theta: Floats) -> tuple[Floats, int]:
        """(the mode reached from theta, steps of EM)."""
        steps = 0
        while True:
            one, _ = self.step(theta)
            two, between = self.step(one)
            steps += 2
            first, second = one - theta, two - one
            if np.abs(second).max() < TOLERANCE or steps >= MOST:
                return two, steps
            bend = second - first
            length = max(1.0, float(np.linalg.norm(first)) / max(float(np.linalg.norm(bend)), 1e-300))
            far = theta + 2 * length * first + length**2 * bend
            found, value = self.step(far)  # extrapolated; taken back where that is worse
            steps += 1
            theta = found if np.isfinite(value) and value >= between else two

    def step(self, theta: Floats) -> tuple[Floats, float]:
        """(theta after one step of EM, the log posterior before it)."""
        w, parameters = self.parts(theta)
        posterior, value = self._expect(w, parameters)
        data = self.data
        weight = data.c + data.ties
        target = (data.c * posterior + 0.5 * data.ties) / np.where(weight > 0, weight, 1)
        w, _, _ = mode(data.z, target, weight, np.zeros(data.units), self.precision, w, steps=1)
        for _ in range(2):  # nearly quadratic this close to the last maximum
            parameters = parameters + self._move(parameters, posterior)
        return np.concatenate([w, parameters.ravel()]), value

    def _expect(self, w: Floats, parameters: Floats) -> tuple[Floats, float]:
        """((U,) probability that the first is better given the votes on the pair, log posterior of everything)."""
        data, margin = self.data, self.data.z @ w
        evidence, _, wrong = data.evidence(parameters)
        odds = margin + _sums(data.pair, data.sign * evidence, data.units)
        # log P(votes) = log(e^margin P(votes | first) + P(votes | second)) - log(1 + e^margin), P(a vote for the
        # first | second) = sigmoid(wrong), and of a vote for the second sigmoid(right) = sigmoid(wrong) e^evidence
        second = -np.logaddexp(0, -wrong) + np.where(data.sign < 0, evidence, 0.0)
        value = float((data.c_vote * second).sum())
        value += float((data.c * (np.logaddexp(0, odds) - np.logaddexp(0, margin))).sum())
        value -= 0.5 * float((data.ties * (np.logaddexp(0, margin) + np.logaddexp(0, -margin))).sum())
        a, s, l = parameters
        value -= float((self.prior[0] * np.logaddexp(0, -a) + self.prior[1] * np.logaddexp(0, a)).sum())
        value -= float((s @ s + l @ l) / (2 * self.lean**2) + 0.5 * self.precision * (w @ w))
        return sigmoid(odds), value

    def _move(self, parameters: Floats, posterior: Floats) -> Floats:
        """(3, K) Newton's step of every annotator's own logistic regression on what is now believed of the pairs."""
        data = self.data
        _, right, wrong = data.evidence(parameters)
        believed = posterior[data.pair]
        believed = np.where(data.sign > 0, believed, 1 - believed)  # that this vote is right
        if_right, if_wrong = data.c_vote * believed, data.c_vote * (1 - believed)
        up, down = if_right * sigmoid(-right), if_wrong * sigmoid(-wrong)
        lean = data.sign * (up + down)
        a, s, l = parameters
        pull = np.stack(
            [
                data.sums(up - down) + self.prior[0] * sigmoid(-a) - self.prior[1] * sigmoid(a),
                data.sums(lean * data.x) - s / self.lean**2,
                data.sums(lean * data.d) - l / self.lean**2,
            ]
        )
        curve_right, curve_wrong = up * sigmoid(right), down * sigmoid(wrong)
        both, apart = curve_right + curve_wrong, data.sign * (curve_right - curve_wrong)
        held = self._held(parameters) + self._blocks(both, apart, both)
        return np.clip(np.linalg.solve(held, pull.T[:, :, None])[:, :, 0].T, -1, 1)

    def _held(self, parameters: Floats) -> Floats:
        """(K, 3, 3) curvature of the priors."""
        a = parameters[0]
        held = np.zeros((len(a), 3, 3))
        held[:, 0, 0] = (self.prior[0] + self.prior[1]) * sigmoid(a) * sigmoid(-a)
        held[:, 1, 1] = held[:, 2, 2] = 1 / self.lean**2
        return held

    def _blocks(self, aa: Floats, ab: Floats, bb: Floats) -> Floats:
        """(K, 3, 3) sums over votes of the curvature in (a, lean) as one in (a, s, l)."""
        data = self.data
        made = np.empty((data.annotators, 3, 3))
        for (i, j), value in {
            (0, 0): aa, (0, 1): ab * data.x, (0, 2): ab * data.d,
            (1, 1): bb * data.x**2, (1, 2): bb * data.x * data.d, (2, 2): bb * data.d**2,
        }.items():  # fmt: skip
            made[:, i, j] = made[:, j, i] = data.sums(value)
        return made

    def laplace(self, w: Floats, parameters: Floats) -> tuple[Floats, Floats]:
        """(covariance (D, D) of w, standard deviations (3, K)), each with everything else unknown too.

        By the expected information of each vote, given what the other votes on its pair say: with q the probability
        of the vote's side, (dq)(dq)' / (q (1 - q)). The annotators' blocks are eliminated first (Schur complement).
        """
        data = self.data
        evidence, right, wrong = data.evidence(parameters)
        odds = data.z @ w + _sums(data.pair, data.sign * evidence, data.units)
        own = np.where(data.sign > 0, 1.0, -1.0)
        p = sigmoid(own * odds[data.pair] - evidence)  # this vote's side is better, by everything but itself
        a, b = sigmoid(right), sigmoid(wrong)
        q = np.clip(p * a + (1 - p) * b, 1e-9, 1 - 1e-9)
        scale = data.c_vote / (q * (1 - q))
        by_margin = own * p * (1 - p) * (a - b)
        by_a = p * a * (1 - a) - (1 - p) * b * (1 - b)
        by_lean = own * (p * a * (1 - a) + (1 - p) * b * (1 - b))
        blocks = self._held(parameters) + self._blocks(
            scale * by_a**2, scale * by_a * by_lean, scale * by_lean**2
        )
        per_unit = _sums(data.pair, scale * by_margin**2, data.units)
        middle = sigmoid(data.z @ w)
        # votes on one pair tell no more about w together than its better completion would
        per_unit = np.minimum(per_unit, data.c * middle * (1 - middle)) + data.ties * middle * (1 - middle)
        rooted = data.z * np.sqrt(per_unit)[:, None]
        information = rooted.T @ rooted + self.precision * np.eye(len(w))
        order = np.argsort(data.annotator, kind="stable")
        ends = np.searchsorted(data.annotator[order], np.arange(data.annotators + 1))
        ways = np.stack([by_a, by_lean * data.x, by_lean * data.d]) * scale * by_margin
        cross = np.zeros((data.annotators, 3, len(w)))
        for k in range(data.annotators):
            mine = order[ends[k] : ends[k + 1]]
            cross[k] = ways[:, mine] @ data.z[data.pair[mine]]
        inverse = np.linalg.inv(blocks)
        through = np.einsum("kij,kjd->kid", inverse, cross)
        information -= np.einsum("kid,kie->de", cross, through, optimize=True)
        covariance = np.linalg.inv(information)
        added = np.einsum("kid,de,kie->ki", through, covariance, through, optimize=True)
        spread = np.sqrt(np.maximum(np.einsum("kii->ki", inverse) + added, 0)).T
        return 0.5 * (covariance + covariance.T), spread


def _sums(group: Ints, value: Floats, groups: int) -> Floats:
    """(G,) sums of values by group, 0 <= group < groups."""
    return np.asarray(np.bincount(group, value, groups), dtype=np.float64)


def _given(values: Floats | None, default: Floats) -> Floats:
    return default if values is None else np.asarray(values, dtype=np.float64)
