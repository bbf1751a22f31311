"""Bradley-Terry with reliability: by hand, beside brute force, crowd-kit and choix, and the coverage of intervals."""

from collections.abc import Callable

import choix
import numpy as np
import pandas as pd
import pytest
from crowdkit.aggregation.classification.dawid_skene import OneCoinDawidSkene
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import beta

from palate.labeling.statistics import reliability
from palate.labeling.statistics.reliability import (
    PRIOR,
    SPREAD,
    Decisions,
    Reliability,
    by_margins,
    by_models,
)
from tests.labeling.statistics.crowds import BAD, GOOD, Crowd, crowd, votes

Floats = NDArray[np.float64]


def log_posterior(who: Crowd, won: NDArray[np.bool_], eta: Floats, strengths: Floats) -> float:
    """Of the model in the docstring, pair by pair: P(votes) = s(m) prod P(vote | a) + s(-m) prod P(vote | b)."""
    margin = strengths[who.model_a] - strengths[who.model_b]
    total = (PRIOR[0] - 1) * np.log(eta).sum() + (PRIOR[1] - 1) * np.log(1 - eta).sum()
    total -= (strengths**2).sum() / (2 * SPREAD**2)
    for unit in range(len(margin)):
        mine = who.unit == unit
        if_a = np.where(won[mine], eta[who.annotator[mine]], 1 - eta[who.annotator[mine]]).prod()
        if_b = np.where(won[mine], 1 - eta[who.annotator[mine]], eta[who.annotator[mine]]).prod()
        total += np.log(expit(margin[unit]) * if_a + expit(-margin[unit]) * if_b)
    return float(total)


@pytest.mark.parametrize("overlap", [1, 3])
def test_the_mode_is_that_of_brute_force(overlap: int) -> None:
    rng = np.random.default_rng(overlap)
    who = crowd(rng, 4, 30, overlap, 1.5, models=3)
    won = votes(rng, who, np.array([0.95, 0.9, 0.7, 0.5]))
    found = by_models(who.decisions(won), who.model_a, who.model_b, 3, tolerance=1e-9)

    def loss(x: Floats) -> float:
        return -log_posterior(who, won, expit(x[:4]), x[4:])

    best = minimize(loss, np.append(logit(found.eta), found.strengths), options={"gtol": 1e-6})
    np.testing.assert_allclose(found.eta, expit(best.x[:4]), atol=1e-5)
    np.testing.assert_allclose(found.strengths, best.x[4:] - best.x[4:].mean(), atol=1e-4)
    start = np.append(np.full(4, 1.0), np.zeros(3))
    np.testing.assert_allclose(found.eta, expit(minimize(loss, start).x[:4]), atol=1e-3)


def test_one_vote_per_pair_is_crowd_bt() -> None:
    """Chen et al. 2013, eq. 5: P = eta s(m) + (1 - eta) s(-m)."""
    who = Crowd(np.arange(3), np.array([0, 1, 1]), np.array([0, 0, 1]), np.array([1, 2, 2]), np.zeros(3), 2)
    won, eta, s = np.array([True, False, True]), np.array([0.9, 0.6]), np.array([0.5, 0.0, -1.0])
    mine = eta[who.annotator]
    p = mine * expit(s[who.model_a] - s[who.model_b]) + (1 - mine) * expit(s[who.model_b] - s[who.model_a])
    prior = 7 * np.log(eta).sum() + np.log(1 - eta).sum() - (s**2).sum() / 8
    assert log_posterior(who, won, eta, s) == pytest.approx(np.log(np.where(won, p, 1 - p)).sum() + prior)


def test_known_answers_by_hand() -> None:
    """Where it is certain which one is better, 9 right of 12 are a binomial: (9 + 7) / (12 + 8) under Beta(8, 2)."""
    one = Decisions(np.arange(12), np.zeros(12, int), np.arange(12) < 9, np.ones(12), 12, 1)
    found = by_margins(one, np.full(12, 60.0))
    assert found.eta[0] == pytest.approx(16 / 20, abs=1e-6)
    assert found.votes[0] == 12 and found.told[0] == pytest.approx(12, rel=1e-3)
    np.testing.assert_allclose([found.low[0], found.high[0]], beta.ppf([0.025, 0.975], 10, 4), atol=2e-3)
    # signed root of 2 (log-likelihood at 9/12 minus that at 0.9)
    ratio = 2 * (9 * np.log(0.75 / 0.9) + 3 * np.log(0.25 / 0.1))
    assert found.evidence(0.9)[0] == pytest.approx(-np.sqrt(ratio), abs=0.02)
    assert found.evidence(0.6)[0] > 0


def test_votes_without_models_or_overlap_tell_nothing() -> None:
    one = Decisions(np.arange(50), np.zeros(50, int), np.ones(50, bool), np.ones(50), 50, 2)
    found = by_margins(one, np.zeros(50))
    assert found.told.tolist() == pytest.approx([0, 0])
    assert (found.low < 0.03).all() and (found.high > 0.97).all()
    np.testing.assert_allclose(found.eta, 7 / 8, atol=1e-3)  # the prior's mode
    np.testing.assert_allclose(found.evidence(0.9), 0, atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # of crowd-kit, about pandas
def test_without_margins_it_is_crowdkits_one_coin() -> None:
    rng = np.random.default_rng(3)
    who = crowd(rng, 6, 60, 5, 3.0)
    won = votes(rng, who, np.linspace(0.6, 0.95, 6))
    ours = by_margins(who.decisions(won), np.zeros(len(who.margin)), prior=(1, 1), tolerance=1e-9)
    # crowd-kit estimates the share of a; each pair once more with a and b exchanged makes it one half
    table = pd.DataFrame(
        {
            "task": np.append(who.unit, who.unit + len(who.margin)),
            "worker": np.tile(who.annotator, 2),
            "label": np.append(won, ~won).astype(int),
        }
    )
    theirs = OneCoinDawidSkene(n_iter=60, tol=-np.inf).fit(table)
    np.testing.assert_allclose(ours.eta, theirs.skills_.sort_index(), atol=1e-5)


def test_perfect_annotators_leave_choix_its_strengths() -> None:
    rng = np.random.default_rng(4)
    who = crowd(rng, 5, 80, 1, 1.0, models=6)
    won = votes(rng, who, np.full(5, 1.0))
    ours = by_models(who.decisions(won), who.model_a, who.model_b, 6, prior=(1e9, 1 + 1e-9), tolerance=1e-9)
    beats = [(a, b) if w else (b, a) for a, b, w in zip(who.model_a, who.model_b, won, strict=True)]
    theirs = choix.opt_pairwise(6, beats, alpha=1 / (2 * SPREAD**2), method="Newton-CG", tol=1e-12)
    np.testing.assert_allclose(ours.strengths, theirs - theirs.mean(), atol=1e-5)


def test_which_completion_is_called_a_changes_nothing() -> None:
    rng = np.random.default_rng(5)
    who = crowd(rng, 6, 60, 2, 1.5)
    won = votes(rng, who, np.full(6, 0.9))
    turned = rng.random(len(who.margin)) < 0.5
    a, b = np.where(turned, who.model_b, who.model_a), np.where(turned, who.model_a, who.model_b)
    one = by_models(who.decisions(won), who.model_a, who.model_b, 8, tolerance=1e-8)
    other = by_models(who.decisions(won ^ turned[who.unit]), a, b, 8, tolerance=1e-8)
    np.testing.assert_allclose(one.eta, other.eta, atol=1e-6)
    np.testing.assert_allclose(one.strengths, other.strengths, atol=1e-5)
    np.testing.assert_allclose([one.low, one.high], [other.low, other.high], atol=1e-5)


def test_half_a_vote_counts_half() -> None:
    rng = np.random.default_rng(6)
    who = crowd(rng, 5, 100, 1, 1.5)
    every = who.decisions(votes(rng, who, np.full(5, 0.8)))
    twice = Decisions(
        np.append(every.unit, every.unit + every.units), np.tile(every.annotator, 2), np.tile(every.a_wins, 2),
        np.full(2 * len(every.unit), 0.5), 2 * every.units, 5,
    )  # fmt: skip
    margin = who.margin * 3
    one, other = by_margins(every, margin), by_margins(twice, np.tile(margin, 2))
    np.testing.assert_allclose(one.votes, other.votes)
    # a weight tempers what a vote says about its pair, so halves are alike where pairs are clear, and nearly so here
    np.testing.assert_allclose(one.eta, other.eta, atol=0.03)


def test_a_part_of_the_pairs_is_enough_for_what_people_share(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    who = crowd(rng, 10, 3000, 1, 1.5)
    decisions = who.decisions(votes(rng, who, BAD))
    whole = by_models(decisions, who.model_a, who.model_b, 8)
    monkeypatch.setattr(reliability, "MOST", 10_000)
    part = by_models(decisions, who.model_a, who.model_b, 8)
    np.testing.assert_allclose(part.votes, whole.votes)
    np.testing.assert_allclose(part.eta, whole.eta, atol=0.03)
    np.testing.assert_allclose(part.high - part.low, whole.high - whole.low, atol=0.02)


def test_nobody_voted() -> None:
    none = Decisions(np.zeros(0, int), np.zeros(0, int), np.zeros(0, bool), np.zeros(0), 0, 2)
    found = by_models(none, np.zeros(0, int), np.zeros(0, int), 3)
    assert found.votes.tolist() == [0, 0] and found.strengths.tolist() == [0, 0, 0]
    assert found.low.max() < 0.03 and found.high.min() > 0.97


def by_models_of(who: Crowd, won: NDArray[np.bool_]) -> Reliability:
    return by_models(who.decisions(won), who.model_a, who.model_b, 8)


def by_margins_of(who: Crowd, won: NDArray[np.bool_]) -> Reliability:
    return by_margins(who.decisions(won), who.margin)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("votes_each", "overlap", "rewards", "fit"),
    [
        (60, 1, False, by_models_of),
        (600, 1, False, by_models_of),
        (60, 1, True, by_margins_of),
        (30, 3, False, by_models_of),
        (300, 3, False, by_models_of),
    ],
)
def test_intervals_hold_what_they_promise(
    votes_each: int, overlap: int, rewards: bool, fit: Callable[[Crowd, NDArray[np.bool_]], Reliability]
) -> None:
    """Annotators as the prior expects them; 10 in each of 100 crowds are 1,000 intervals."""
    inside = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        who = crowd(rng, 10, votes_each, overlap, 1.5, rewards=rewards)
        eta = rng.beta(*PRIOR, 10)
        found = fit(who, votes(rng, who, eta))
        inside.append((found.low <= eta) & (eta <= found.high))
    assert 0.93 <= np.mean(inside) <= 0.97, np.mean(inside)


@pytest.mark.slow
def test_with_overlap_intervals_hold_for_equal_annotators_too() -> None:
    inside = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        who = crowd(rng, 10, 100, 3, 1.5)
        found = by_models_of(who, votes(rng, who, np.full(10, GOOD)))
        inside.append((found.low <= GOOD) & (found.high >= GOOD))
    assert 0.93 <= np.mean(inside) <= 0.97, np.mean(inside)
