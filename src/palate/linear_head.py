"""A Bayesian linear reward head on frozen features: it learns from a vote in a millisecond, and knows what it does not.

    P(a better than b) = sigmoid(w . (phi_a - phi_b)),    w ~ N(0, I / precision)

The posterior is the Laplace approximation at its mode. numpy only, so that the labeling server can use it between two
votes; `palate reward` uses the same code on all votes at once. It knows nothing of annotators, texts or databases.

    head = LinearHead.fit(differences, outcomes)          # V votes at once, Newton's method
    head.update(difference, 1.0)                          # one more, a rank-one step
    mean, sd = head.score(features)                       # rewards of completions
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STEPS = 50  # of Newton's method, at most; it takes 5 to 10
CLOSE = 1e-8  # largest change of a weight at which it ends


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
        the margins (a bias of the side, say); `start` (D,) is where Newton's method begins.
        """
        z = np.asarray(differences, dtype=np.float64)
        t = np.asarray(outcomes, dtype=np.float64)
        c: Floats = np.ones(len(t)) if weights is None else np.asarray(weights, dtype=np.float64)
        o: Floats = np.zeros(len(t)) if offsets is None else np.asarray(offsets, dtype=np.float64)
        size = z.shape[1]
        w: Floats = np.zeros(size) if start is None else np.array(start, dtype=np.float64)
        value = _objective(z @ w + o, t, c, w, precision)
        for _ in range(STEPS):
            p = sigmoid(z @ w + o)
            gradient = z.T @ (c * (t - p)) - precision * w
            step = np.linalg.solve(_information(z, c, p, precision), gradient)
            scale = 1.0
            while scale > 1e-6:  # the objective is concave: halving always ends
                moved = w + scale * step
                better = _objective(z @ moved + o, t, c, moved, precision)
                if better >= value - 1e-12:
                    break
                scale /= 2
            w, value = np.asarray(moved), better
            if np.abs(scale * step).max(initial=0.0) < CLOSE:
                break
        information = _information(z, c, sigmoid(z @ w + o), precision)
        logdet = float(np.linalg.slogdet(information)[1])
        evidence = value + 0.5 * size * float(np.log(precision)) - 0.5 * logdet
        covariance = np.asarray(np.linalg.inv(information), dtype=np.float64)
        return cls(w, covariance, precision, len(t), evidence)

    def update(
        self, difference: NDArray[np.floating], outcome: float, weight: float = 1.0, eta: float = 1.0
    ) -> None:
        """One more vote, by one Newton step on its own term: O(D^2).

        `eta` is the probability that its annotator names the better one: q = eta p + (1 - eta)(1 - p).
        """
        z = np.asarray(difference, dtype=np.float64)
        direction = self.covariance @ z
        p = float(sigmoid(z @ self.mean))
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


def sigmoid(x: NDArray[np.floating]) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * np.asarray(x, dtype=np.float64))))


def _objective(margins: Floats, t: Floats, c: Floats, w: Floats, precision: float) -> float:
    """Weighted log-likelihood plus the log prior, up to a constant."""
    likelihood = -(c * (t * np.logaddexp(0.0, -margins) + (1 - t) * np.logaddexp(0.0, margins))).sum()
    return float(likelihood - 0.5 * precision * (w @ w))


def _information(z: Floats, c: Floats, p: Floats, precision: float) -> Floats:
    return np.asarray((z * (c * p * (1 - p))[:, None]).T @ z + precision * np.eye(z.shape[1]))
