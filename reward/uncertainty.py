"""How sure a reward is of each score: a Laplace approximation of its last layer, or an ensemble of last layers.

The score is w . h of the decoder's state h. Given the states, the votes' likelihood has curvature

    H = sum of c z z' + precision I,    z = h_winner - h_loser,    c = weight [(1 - 2 e) p (1 - p)]^2 / [q (1 - q)]

at the trained w (Daxberger et al. 2021, https://arxiv.org/abs/2106.14806, last-layer Laplace; e the vote's flip rate, p the
probability of its winner, q = (1 - e) p + e (1 - p)); a score's variance is (h - mean h)' H^-1 (h - mean h), in log-odds
squared. The precision is what explains the votes best (evidence of a linear head on the same states). The ensemble
refits the linear head on groups of prompts drawn with replacement, each member around a prior mean of its own; the spread
of its members is the standard deviation.
Both work on the first principal components of the states, so they take seconds whatever the width of the model.

    found = fit(states, rows, trained, "laplace"); found.sd(states); found.save(folder); load(folder)
    check(found, fit(states, rows, trained, "ensemble"), ...)         # do the two agree, does sd foretell errors
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy.stats import spearmanr

from palate.linear_head import LinearHead, sigmoid

FILE = "uncertainty.safetensors"
COMPONENTS = 256  # of the states, at most
MEMBERS = 16
FEWEST = 30  # pairs, below which the check says nothing
Row = dict[str, Any]
Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Uncertainty:
    """sd(h) = |(h - mean) ways root|, in log-odds: the margin to an answer of the mean state, or of two answers."""

    mean: Matrix  # (H,)
    ways: Matrix  # (H, D)
    root: Matrix  # (D, R): the covariance of the last layer is root root'

    def sd(self, states: NDArray[np.floating]) -> Floats:
        """(n,) standard deviations of the scores of states (n, H)."""
        return _lengths(((states - self.mean) @ self.ways) @ self.root)

    def margin_sd(self, differences: NDArray[np.floating]) -> Floats:
        """(n,) standard deviations of margins, for differences of states (n, H)."""
        return _lengths((differences @ self.ways) @ self.root)

    def save(self, folder: Path) -> None:
        """Beside the head."""
        tensors = {"mean": self.mean, "ways": self.ways, "root": self.root}
        save_file(
            {name: np.ascontiguousarray(one, np.float32) for name, one in tensors.items()}, folder / FILE
        )


@dataclass(frozen=True)
class Check:
    """Standard deviations of held-out margins by both ways, in log-odds, and accuracies 0..1 on those pairs."""

    how: str
    pairs: int
    mean_sd: float
    other_mean_sd: float
    rank_correlation: float | None  # Spearman's, of the two ways over pairs; None where one is constant
    surer: float  # accuracy on the half of pairs with the larger |margin| / sd, ties by half
    by_margin: float  # the same with the larger |margin|, which needs no standard deviation

    def record(self) -> dict[str, Any]:
        """Plain values for a run's record."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For the page and the report."""
        other = "ensemble" if self.how == "laplace" else "laplace"
        alike = "" if self.rank_correlation is None else f"; rank correlation {self.rank_correlation:.2f}"
        gain = 100 * (self.surer - self.by_margin)
        first = (
            f"on the half of {self.pairs} held-out pairs whose margin is the most standard deviations it is right in "
            f"{100 * self.surer:.1f} %; on the half of the largest margins, without standard deviations, in "
            f"{100 * self.by_margin:.1f} % ({gain:+.1f} points)"
        )
        second = (
            f"a margin's standard deviation is {self.mean_sd:.2f} log-odds on average ({self.how}), "
            f"{self.other_mean_sd:.2f} by the other way ({other}){alike}"
        )
        return [first, second]


def check(
    found: Uncertainty,
    other: Uncertainty,
    how: str,
    states: Sequence[Matrix],
    rows: Sequence[Row],
    trained: Matrix,
) -> Check | None:
    """From the states (K, H) of held-out rows, their votes, and the trained last layer (H,); `other` is the other way than
    `how`. None below FEWEST decided pairs."""
    pairs = [
        (index, pair["winner"], pair["loser"])
        for index, row in enumerate(rows) for pair in row["pairs"] if not pair["tie"]
    ]  # fmt: skip
    if len(pairs) < FEWEST:
        return None
    z = np.array([states[i][w] - states[i][l] for i, w, l in pairs], np.float64)
    margin, sd, theirs = z @ trained, found.margin_sd(z), other.margin_sd(z)
    right = 0.5 * (1 + np.sign(margin))
    alike = spearmanr(sd, theirs).statistic if sd.std() > 0 and theirs.std() > 0 else None
    surer, by_margin = (
        float(right[np.argsort(by, kind="stable")[len(pairs) // 2 :]].mean())
        for by in (np.abs(margin) / np.maximum(sd, 1e-12), np.abs(margin))
    )
    return Check(
        how, len(pairs), float(sd.mean()), float(theirs.mean()), None if alike is None else float(alike), surer, by_margin
    )  # fmt: skip


def load(folder: Path) -> Uncertainty | None:
    """What `save` wrote; None where there is nothing."""
    if not (folder / FILE).exists():
        return None
    read = load_file(folder / FILE)
    return Uncertainty(read["mean"], read["ways"], read["root"])


def fit(
    states: Sequence[NDArray[np.floating]],
    rows: Sequence[Row],
    trained: NDArray[np.floating],
    how: Literal["laplace", "ensemble"],
    seed: int = 0,
) -> Uncertainty | None:
    """From the states (K, H) of each row's completions, its votes (data.preferences), and the trained last layer (H,).

    None where no vote that counts prefers an answer.
    """
    flat = np.concatenate([np.asarray(one, np.float64) for one in states])
    mean = flat.mean(axis=0)
    _, _, directions = np.linalg.svd(flat - mean, full_matrices=False)
    ways = directions[: min(COMPONENTS, len(flat) - 1)].T
    pairs = [
        (index, pair["winner"], pair["loser"], pair["weight"], pair.get("flip", 0.0), row["group"])
        for index, row in enumerate(rows) for pair in row["pairs"] if pair["weight"] > 0 and not pair["tie"]
    ]  # fmt: skip
    if not pairs:
        return None
    z = np.array([states[i][w] - states[i][l] for i, w, l, *_ in pairs], np.float64) @ ways
    weights, flips = np.array([p[3] for p in pairs]), np.array([p[4] for p in pairs])
    if how == "ensemble":
        root = _ensemble(z, weights * (1 - 2 * flips), np.array([p[5] for p in pairs]), seed)
    else:
        precision = LinearHead.by_evidence(z, np.ones(len(z)), weights * (1 - 2 * flips)).precision
        root = _laplace(z, z @ (ways.T @ trained), weights, flips, precision)
    return Uncertainty(mean.astype(np.float32), ways.astype(np.float32), root.astype(np.float32))


def _laplace(z: Floats, margins: Floats, weights: Floats, flips: Floats, precision: float) -> Floats:
    """(D, D) root of the inverse of the curvature at the trained margins (n,)."""
    p = np.clip(sigmoid(margins), 1e-6, 1 - 1e-6)
    q = (1 - flips) * p + flips * (1 - p)
    curvature = weights * ((1 - 2 * flips) * p * (1 - p)) ** 2 / (q * (1 - q))
    information = (z * curvature[:, None]).T @ z + precision * np.eye(z.shape[1])
    return np.asarray(np.linalg.inv(np.linalg.cholesky(information)).T)


def _ensemble(z: Floats, weights: Floats, groups: NDArray[np.str_], seed: int) -> Floats:
    """(D, MEMBERS) deviations of the members from their mean, over sqrt(MEMBERS - 1); one precision for all."""
    # each member has a prior mean of its own (Osband et al. 2018, https://arxiv.org/abs/1806.03335, section 3): with one for
    # all they would agree where votes say nothing
    rng = np.random.default_rng(seed)
    names, clusters = np.unique(groups, return_inverse=True)
    precision = LinearHead.by_evidence(z, np.ones(len(z)), weights).precision
    members = []
    for _ in range(MEMBERS):
        times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)))[clusters]
        prior = rng.normal(size=z.shape[1]) / np.sqrt(precision)
        found = LinearHead.fit(z, np.ones(len(z)), weights * times, z @ prior, precision)
        members.append(prior + found.mean)
    deviations = np.array(members) - np.mean(members, axis=0)
    return np.asarray(deviations.T / np.sqrt(MEMBERS - 1))


def _lengths(vectors: NDArray[np.floating]) -> Floats:
    return np.asarray(np.sqrt((np.asarray(vectors, np.float64) ** 2).sum(axis=1)))
