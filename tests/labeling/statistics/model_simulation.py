"""Votes drawn from known strengths, and the same votes in the shapes that other packages take."""

import numpy as np
from numpy.typing import NDArray

from palate.labeling.statistics.model_votes import Counts

Array = NDArray[np.float64]


def strengths(models: int, rng: np.random.Generator, sd: float = 0.6) -> Array:
    """(M,) with mean 0."""
    beta = rng.normal(0, sd, models)
    return beta - beta.mean()


def met(models: int, votes: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two different models per vote."""
    a = rng.integers(0, models, votes)
    return a, (a + rng.integers(1, models, votes)) % models


def single_votes(
    beta: Array, a: NDArray[np.int64], b: NDArray[np.int64], rng: np.random.Generator, nu: float = 0.0
) -> Counts:
    """One vote per row, by Davidson's model in its own words."""
    strong, weak = np.exp(beta[a]), np.exp(beta[b])
    total = strong + weak + nu * np.sqrt(strong * weak)
    drawn = rng.random(len(a))
    won, lost = drawn < strong / total, drawn > 1 - weak / total
    return Counts(len(beta), a, b, won * 1.0, lost * 1.0, ~(won | lost) * 1.0)


def design(counts: Counts) -> Array:
    """(R, M - 1) +1 for a, -1 for b, without the last model's column."""
    rows = np.arange(len(counts.a))
    matrix = np.zeros((len(rows), counts.models))
    matrix[rows, counts.a] += 1
    matrix[rows, counts.b] -= 1
    return matrix[:, :-1]


def centred(coefficients: Array, cov: Array) -> tuple[Array, Array]:
    """(beta with mean 0, its covariance) from the coefficients of M - 1 models beside a last one at 0."""
    models = len(coefficients) + 1
    turn = np.vstack([np.eye(models - 1), np.zeros(models - 1)]) - 1 / models
    return turn @ coefficients, turn @ cov @ turn.T


def inside(low: Array, truth: Array | float, high: Array) -> NDArray[np.bool_]:
    """Whether intervals hold the truth."""
    return np.asarray((low <= truth) & (truth <= high))
