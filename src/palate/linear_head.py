"""A Bayesian linear reward head on frozen features: it learns from a vote in a millisecond, and knows what it does not.

    P(a better than b) = sigmoid(w . (phi_a - phi_b)),    w ~ N(0, I / precision)

The posterior is the Laplace approximation at its mode. numpy only, so that the labeling server can use it between two
votes; `palate reward` uses the same code on all votes at once. It knows nothing of annotators, texts or databases.

    head = LinearHead.fit(differences, outcomes)          # V votes at once, Newton's method
    head = LinearHead.by_evidence(differences, outcomes)  # the same, with the precision that explains them best
    head.update(difference, 1.0)                          # one more, a rank-one step
    mean, sd = head.score(features)                       # rewards of completions
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.config import UserError

Floats = NDArray[np.float64]

STEPS = 50  # of Newton's method, at most; it takes 5 to 10
CLOSE = 1e-8  # largest change of a weight at which it ends
WIDEST, NARROWEST = 1e-4, 1e6  # precisions that are looked at, in units of the mean square of a difference
FACTOR = 4.0  # between the precisions that are looked at first
SURE = (
    1e-9  # a probability this close to 0 or 1 counts as that close, where something is divided by p (1 - p)
)


@dataclass
class LinearHead:
    """Mean (D,) and covariance (D, D) of the weights; `precision` is the prior's."""

    mean: Floats
    covariance: Floats
    precision: float
    votes: int = 0
    evidence: float = 0.0  # log marginal likelihood at the last `fit`, Laplace

    @classmethod
    def prior(cls, size: int, precision: float = 1.0) -> "LinearHead":
        """Nothing learned yet."""
        return cls(np.zeros(size), np.eye(size) / precision, precision)

    @classmethod
    def fit(
        cls,
        differences: NDArray[np.floating],
        outcomes: NDArray[np.floating],
        weights: NDArray[np.floating] | None = None,
        offsets: NDArray[np.floating] | None = None,
        precision: float = 1.0,
        start: Floats | None = None,
    ) -> "LinearHead":
        """The posterior after V votes.

        differences (V, D): features of one completion less those of the other; outcomes (V,) in 0..1: 1 the first
        won, 0 the second, 0.5 a tie, in between: believed so far (EM); weights (V,) >= 0; offsets (V,) are added to
        the margins (a bias of the side, say); `start` (D,) is where Newton's method begins. Raises UserError where
        a number is not finite.
        """
        z, t, c, o = _checked(differences, outcomes, weights, offsets)
        start = np.zeros(z.shape[1]) if start is None else start
        w, value, information = mode(z, t, c, o, precision, start)
        covariance, logdet = _inverse(information)
        evidence = value + 0.5 * len(w) * float(np.log(precision)) - 0.5 * logdet
        return cls(w, covariance, precision, len(t), evidence)

    @classmethod
    def by_evidence(
        cls,
        differences: NDArray[np.floating],
        outcomes: NDArray[np.floating],
        weights: NDArray[np.floating] | None = None,
        offsets: NDArray[np.floating] | None = None,
    ) -> "LinearHead":
        """`fit` with the precision at which the votes are most probable, the weights integrated out (MacKay 1992,
        Neural Computation 4, p. 720), so that nobody has to know the scale of the features.

        Climbs in steps of FACTOR from 1 / (mean square of a difference), then goes to the top of the parabola
        through the three best. Votes that say nothing end at a narrow prior and margins near 0.
        """
        z, t, c, o = _checked(differences, outcomes, weights, offsets)
        unit = max(float(np.mean(z * z)) if z.size else 1.0, 1e-12)
        low, high = np.log(WIDEST * unit), np.log(NARROWEST * unit)
        tried: dict[int, LinearHead] = {}

        def at(place: int) -> LinearHead:
            if place not in tried:
                logarithm = float(np.clip(np.log(unit) + place * np.log(FACTOR), low, high))
                nearest = min(tried, key=lambda other: abs(other - place), default=None)
                start = None if nearest is None else tried[nearest].mean
                tried[place] = cls.fit(z, t, c, o, float(np.exp(logarithm)), start)
            return tried[place]

        best, steps = (
            0,
            range(*np.ceil([low - np.log(unit), high - np.log(unit)] / np.log(FACTOR)).astype(int)),
        )
        while True:
            near = [place for place in (best - 1, best + 1) if place in steps]
            better = max(near, key=lambda place: at(place).evidence)
            if at(better).evidence <= at(best).evidence:
                break
            best = better
        if best - 1 not in steps or best + 1 not in steps:
            return at(best)
        below, middle, above = (at(place).evidence for place in (best - 1, best, best + 1))
        bend = below - 2 * middle + above
        shift = 0.5 * (below - above) / bend if bend < 0 else 0.0
        precision = at(best).precision * FACTOR**shift
        return cls.fit(z, t, c, o, precision, at(best).mean)

    def update(
        self, difference: NDArray[np.floating], outcome: float, weight: float = 1.0, eta: float = 1.0
    ) -> None:
        """One more vote, by one Newton step on its own term: O(D^2).

        `eta` is the probability that its annotator names the better one: q = eta p + (1 - eta)(1 - p).
        """
        z = np.asarray(difference, dtype=np.float64)
        if not np.isfinite(z).all():
            raise UserError("features of this comparison are not finite numbers: make the features again")
        direction = self.covariance @ z
        p = float(np.clip(sigmoid(z @ self.mean), SURE, 1 - SURE))
        slope, q = (2 * eta - 1) * p * (1 - p), eta * p + (1 - eta) * (1 - p)
        fisher = weight * slope**2 / (q * (1 - q))
        gradient = weight * slope * (outcome - q) / (q * (1 - q))
        shrink = 1.0 + fisher * float(z @ direction)
        self.mean = self.mean + direction * (gradient / shrink)
        self.covariance = self.covariance - np.outer(direction, direction) * (fisher / shrink)
        self.votes += 1

    def margin(self, differences: NDArray[np.floating]) -> tuple[Floats, Floats]:
        """(mean (n,), standard deviation (n,)) of the margins of `differences` (n, D), in log-odds."""
        z = np.asarray(differences, dtype=np.float64)
        variance = np.einsum("nd,nd->n", z @ self.covariance, z)
        return z @ self.mean, np.sqrt(np.maximum(variance, 0.0))

    score = margin  # of completions' own features: rewards up to a constant

    def probability(self, differences: NDArray[np.floating]) -> Floats:
        """(n,) P(first better), averaged over the posterior (MacKay 1992, Neural Computation 4, eq. 13)."""
        mean, sd = self.margin(differences)
        return sigmoid(mean / np.sqrt(1.0 + np.pi * sd**2 / 8.0))


def mode(
    z: Floats, t: Floats, c: Floats, o: Floats, precision: float, start: Floats, steps: int = STEPS
) -> tuple[Floats, float, Floats]:
    """(weights (D,), objective, information (D, D)) after at most `steps` of Newton's method; none lowers the
    objective. Arguments as of `LinearHead.fit`. The information belongs to the weights where the steps were enough.
    """
    w = np.array(start, dtype=np.float64)
    margins = z @ w + o
    value = _objective(margins, t, c, w, precision)
    information = _information(z, c, sigmoid(margins), precision)
    for _ in range(steps):
        gradient = z.T @ (c * (t - sigmoid(margins))) - precision * w
        step = np.linalg.solve(information, gradient)
        along, scale = z @ step, 1.0
        while scale > 1e-6:  # the objective is concave: halving always ends
            better = _objective(margins + scale * along, t, c, w + scale * step, precision)
            if better >= value - 1e-12 * abs(value):
                break
            scale /= 2
        w, margins, value = w + scale * step, margins + scale * along, better
        if np.abs(scale * step).max(initial=0.0) < CLOSE:
            break
        information = _information(z, c, sigmoid(margins), precision)
    return w, value, information


def sigmoid(x: NDArray[np.floating]) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * np.asarray(x, dtype=np.float64))))


def _checked(
    differences: NDArray[np.floating],
    outcomes: NDArray[np.floating],
    weights: NDArray[np.floating] | None,
    offsets: NDArray[np.floating] | None,
) -> tuple[Floats, Floats, Floats, Floats]:
    """All as float64, with defaults in place."""
    z, t = np.asarray(differences, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    c: Floats = np.ones(len(t)) if weights is None else np.asarray(weights, dtype=np.float64)
    o: Floats = np.zeros(len(t)) if offsets is None else np.asarray(offsets, dtype=np.float64)
    for name, values in (("features", z), ("outcomes", t), ("weights", c), ("offsets", o)):
        odd = (
            int((~np.isfinite(values)).any(axis=-1).sum())
            if values.ndim > 1
            else int((~np.isfinite(values)).sum())
        )
        if odd:
            raise UserError(
                f"{odd} of {len(t)} votes have {name} that are not finite numbers: make them again"
            )
    return z, t, c, o


def _objective(margins: Floats, t: Floats, c: Floats, w: Floats, precision: float) -> float:
    """Weighted log-likelihood plus the log prior, up to a constant."""
    likelihood = -(c * (t * np.logaddexp(0.0, -margins) + (1 - t) * np.logaddexp(0.0, margins))).sum()
    return float(likelihood - 0.5 * precision * (w @ w))


def _information(z: Floats, c: Floats, p: Floats, precision: float) -> Floats:
    rooted = z * np.sqrt(c * p * (1 - p))[:, None]
    return np.asarray(rooted.T @ rooted + precision * np.eye(z.shape[1]))  # A'A: half the work of A'B


def _inverse(information: Floats) -> tuple[Floats, float]:
    """(symmetric inverse, log-determinant) of a positive definite matrix, by its Cholesky factor."""
    factor = np.linalg.cholesky(information)
    root = np.linalg.solve(factor, np.eye(len(information)))
    return np.asarray(root.T @ root), float(2 * np.log(np.diag(factor)).sum())
