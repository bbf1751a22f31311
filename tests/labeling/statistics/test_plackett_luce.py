"""Plackett-Luce against choix, and with ties against Davidson and a plain likelihood; by hand; by simulation."""

from itertools import combinations

import choix
import numpy as np
import pytest
from scipy.optimize import minimize
from statsmodels.tools.numdiff import approx_fprime_cs, approx_hess_cs

from palate.labeling.statistics.bradley_terry import davidson
from palate.labeling.statistics.plackett_luce import Rankings, as_pairs, plackett_luce
from tests.labeling.statistics.model_simulation import centred, inside, strengths


def drawn(beta: np.ndarray, rankings: int, size: int, rng: np.random.Generator) -> Rankings:
    """Rankings of different models without ties, by Gumbel noise (Yellott 1977)."""
    model = np.argsort(rng.random((rankings, len(beta))), axis=1)[:, :size]
    worth = beta[model] + rng.gumbel(size=model.shape)
    return Rankings(len(beta), model, np.argsort(np.argsort(-worth, axis=1), axis=1) + 1)


def drawn_with_ties(beta: np.ndarray, delta: float, rankings: int, rng: np.random.Generator) -> Rankings:
    """Rankings of three with ties of two at most, choice by choice as the model has it."""
    model = np.argsort(rng.random((rankings, len(beta))), axis=1)[:, :3]
    worth = np.exp(beta[model])
    sets = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]
    weights = np.stack(
        [worth[:, s].prod(1) ** (1 / len(s)) * (delta if len(s) == 2 else 1) for s in sets], axis=1
    )
    first = (weights.cumsum(1) < rng.random((rankings, 1)) * weights.sum(1, keepdims=True)).sum(1)
    place = np.full((rankings, 3), 2)
    for kind, members in enumerate(sets):
        rows = np.flatnonzero(first == kind)
        place[rows[:, None], list(members)] = 1
        if len(members) == 2:
            continue
        left, right = (at for at in range(3) if at not in members)
        one, other = worth[rows, left], worth[rows, right]
        tie = delta * np.sqrt(one * other)
        u = rng.random(len(rows)) * (one + other + tie)
        place[rows, right] += u < one
        place[rows, left] += (u >= one) & (u < one + other)
    return Rankings(len(beta), model, place)


def test_three_answers_by_hand() -> None:
    # every order of three models once, and A > B > C once more: equal but for one ranking
    orders = [(1, 2, 3), (1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1), (1, 2, 3)]
    found = plackett_luce(Rankings(3, np.tile(np.arange(3), (7, 1)), np.array(orders)), np.arange(7))
    alpha = np.exp(found.beta)
    # the likelihood is highest where each model's wins are what is expected: of 7 first and 7 second choices
    expected = 7 * alpha / alpha.sum()
    for place in orders:
        left = alpha.copy()
        left[place.index(1)] = 0
        expected += left / left.sum()
    chosen = [sum(place[model] <= 2 for place in orders) for model in range(3)]
    assert expected == pytest.approx(chosen, abs=1e-9)
    assert (found.deltas, found.apart.any(), found.why) == ({}, False, "")


@pytest.mark.parametrize("size", [2, 4, 6])
def test_without_ties_against_choix(size: int) -> None:
    rng = np.random.default_rng(13)
    rankings = drawn(strengths(8, rng), 200, size, rng)
    data = [
        tuple(int(m) for m in model[np.argsort(place)])
        for model, place in zip(rankings.model, rankings.place, strict=True)
    ]
    found = plackett_luce(rankings, np.arange(200))
    theirs = choix.ilsr_rankings(8, data)
    assert found.beta == pytest.approx(theirs - theirs.mean(), abs=1e-6)
    if size == 2:  # it takes long
        theirs = choix.opt_rankings(8, data, alpha=0)
        assert found.beta == pytest.approx(theirs - theirs.mean(), abs=1e-6)


def test_partial_rankings_against_choix() -> None:
    rng = np.random.default_rng(14)
    full = drawn(strengths(6, rng), 600, 5, rng)
    place = np.where(rng.random(full.place.shape) < 0.3, 0, full.place)  # left out, wherever they stood
    data = []
    for model, places in zip(full.model, place, strict=True):
        order = [int(m) for _, m in sorted((p, m) for p, m in zip(places, model, strict=True) if p)]
        if len(order) > 1:
            data.append(tuple(order))
    theirs = choix.ilsr_rankings(6, data)
    found = plackett_luce(Rankings(6, full.model, place), np.arange(600))
    assert found.beta == pytest.approx(theirs - theirs.mean(), abs=1e-6)


def test_rankings_of_two_are_davidson() -> None:
    rng = np.random.default_rng(15)
    rankings = drawn(strengths(5, rng), 800, 2, rng)
    place = np.where(rng.random((800, 1)) < 0.2, 1, rankings.place)
    rankings = Rankings(5, rankings.model, place)
    found, pairs = plackett_luce(rankings, np.arange(800)), davidson(as_pairs(rankings))
    assert found.beta == pytest.approx(pairs.beta, abs=1e-8)
    assert found.deltas == {2: pytest.approx(pairs.nu, abs=1e-8)}
    assert found.cov == pytest.approx(pairs.cov * 800 / 799, abs=1e-8)


def log_chance(point: np.ndarray, rankings: Rankings, ties: list[int]) -> np.ndarray:
    """(N,) log-probability of rankings in the paper's words: products, roots and all subsets, one by one."""
    models = rankings.models
    alpha = np.exp(np.append(point[: models - 1], 0 * point[0]))
    delta = {1: 1.0, **dict(zip(ties, np.exp(point[models - 1 :]), strict=True))}

    def worth(members: list[int]) -> complex:
        return delta.get(len(members), 0.0) * np.prod(alpha[members]) ** (1 / len(members))

    found = []
    for model, place in zip(rankings.model, rankings.place, strict=True):
        total = 0 * point[0]
        for tier in sorted(set(place[place > 0])):
            left = [int(m) for m, p in zip(model, place, strict=True) if p >= tier]
            chosen = [int(m) for m, p in zip(model, place, strict=True) if p == tier]
            if len(left) > 1:
                sets = [list(s) for n in range(1, len(left) + 1) for s in combinations(left, n)]
                total = total + np.log(worth(chosen)) - np.log(sum(worth(s) for s in sets))
        found.append(total)
    return np.array(found)


def test_ties_and_sandwich_against_a_plain_likelihood() -> None:
    rng = np.random.default_rng(16)
    full = drawn(strengths(4, rng), 80, 4, rng)
    # some places fall together, some completions are left out, and one model may stand there twice
    place = np.minimum(full.place, rng.integers(1, 5, (80, 1)))
    place = np.where(rng.random((80, 4)) < 0.1, 0, place)
    model = np.where(rng.random((80, 4)) < 0.1, 2, full.model)
    rankings, cluster = Rankings(4, model, place), np.arange(80) // 2
    found = plackett_luce(rankings, cluster)
    ties = list(found.deltas)
    assert ties == [2, 3, 4]
    start = np.zeros(6)
    theirs = minimize(
        lambda point: -log_chance(point, rankings, ties).sum().real,
        start,
        method="BFGS",
        options={"gtol": 1e-6},
    )
    beta = np.append(theirs.x[:3], 0)
    assert found.beta == pytest.approx(beta - beta.mean(), abs=1e-5)
    assert np.log(list(found.deltas.values())) == pytest.approx(theirs.x[3:], abs=1e-5)
    point = np.append((found.beta - found.beta[-1])[:-1], np.log(list(found.deltas.values())))
    scores = approx_fprime_cs(point, log_chance, args=(rankings, ties))
    assert scores.sum(0) == pytest.approx(np.zeros(6), abs=1e-6)
    inverse = np.linalg.inv(-approx_hess_cs(point, lambda x: log_chance(x, rankings, ties).sum()))
    sums = np.stack([np.bincount(cluster, column) for column in scores.T], axis=1)
    cov = inverse @ sums.T @ sums @ inverse * 40 / 39
    assert found.cov == pytest.approx(centred(point[:3], cov[:3, :3])[1], abs=1e-6)


def test_many_rankings_start_from_a_sample_and_end_at_the_same_place() -> None:
    rng = np.random.default_rng(17)
    rankings = drawn_with_ties(strengths(5, rng), 0.3, 30_000, rng)
    half = Rankings(5, rankings.model[:15_000], rankings.place[:15_000])
    twice = Rankings(5, np.tile(half.model, (2, 1)), np.tile(half.place, (2, 1)))
    found, other = plackett_luce(half, np.arange(15_000)), plackett_luce(twice, np.arange(30_000))
    assert found.beta == pytest.approx(other.beta, abs=1e-9)
    assert found.deltas == {2: pytest.approx(other.deltas[2], abs=1e-9)}


def test_undefined_says_why() -> None:
    model = np.array([[0, 0, 0], [1, 1, 1]])
    found = plackett_luce(Rankings(2, model, np.array([[1, 2, 3], [1, 2, 3]])), np.arange(2))
    assert found.why == "no ranking holds answers of two different models"
    found = plackett_luce(Rankings(3, np.array([[0, 1, 2]]), np.array([[1, 1, 1]])), np.arange(1))
    assert (found.why, found.scored.any(), found.beta.tolist()) == (
        "every ranking is one tie",
        False,
        [0, 0, 0],
    )
    none = Rankings(3, np.zeros((0, 3), dtype=int), np.zeros((0, 3), dtype=int))
    assert plackett_luce(none, np.arange(0)).why == "no ranking holds answers of two different models"


def test_one_way_rankings_and_strangers_stay_finite() -> None:
    model = np.array([[0, 1, 2]] * 6 + [[3, 4, 3]])
    place = np.array([[1, 2, 3], [1, 3, 2]] * 3 + [[1, 2, 3]])
    found = plackett_luce(Rankings(5, model, place), np.arange(7))
    assert found.scored.tolist() == [True, True, True, False, False]
    assert found.apart.tolist() == [True, False, False, False, False]
    assert np.isfinite(found.beta).all() and np.isfinite(found.cov).all()
    assert found.beta[0] > found.beta[1] == pytest.approx(found.beta[2])
    assert found.se[0] > 0.5  # six rankings, all one way, are not sure


@pytest.mark.slow
def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(18)
    beta = strengths(5, rng)
    plain, tied = [], []
    for _ in range(1000):
        found = plackett_luce(drawn(beta, 300, 4, rng), np.arange(300))
        plain.append(inside(found.low, beta, found.high))
        found = plackett_luce(drawn_with_ties(beta, 0.4, 400, rng), np.arange(400))
        tied.append(inside(found.low, beta, found.high))
    for covered in (plain, tied):
        assert all(0.93 <= share <= 0.97 for share in np.mean(covered, axis=0))
