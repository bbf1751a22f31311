"""The annotator model: one step of EM by hand, its gradient, its model's limits, and what it finds in simulations."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from palate.annotator_model import LEAN, PRIOR, AnnotatorModel, Votes, _Data, _Model, fit
from palate.config import UserError
from palate.labeling.statistics.reliability import Decisions, by_margins
from palate.linear_head import LinearHead, sigmoid

GOOD_AND_BAD = np.array([0.95] * 6 + [0.75, 0.75, 0.5, 0.05])


def simulated(
    etas: np.ndarray,
    votes: int,
    size: int,
    seed: int,
    side: float = 0.0,
    length: float = 0.0,
    pairs: int | None = None,
    sharpness: float = 2.0,
) -> tuple[Votes, np.ndarray, np.ndarray, np.ndarray]:
    """(votes by the model itself, true weights, true leans to the side (K,), to length (K,)); leans have this spread."""
    rng = np.random.default_rng(seed)
    pairs = pairs or votes
    z, w = rng.normal(size=(pairs, size)), rng.normal(size=size) * sharpness / np.sqrt(size)
    pair, who = np.arange(votes) % pairs, rng.integers(0, len(etas), votes)
    first_better = (rng.random(pairs) < sigmoid(z @ w))[pair]
    first, lengths = rng.choice([-1.0, 1.0], votes), rng.normal(size=pairs)
    sides, longs = side * rng.normal(size=len(etas)), length * rng.normal(size=len(etas))
    seen = np.log(etas / (1 - etas))[who]
    lean = sides[who] * first + longs[who] * lengths[pair]
    says = rng.random(votes) < sigmoid(np.where(first_better, seen, -seen) + lean)
    return Votes(z, pair, who, says.astype(float), first, lengths), w, sides, longs


def theta_of(found: AnnotatorModel) -> np.ndarray:
    logit = np.log(found.eta / (1 - found.eta))
    return np.concatenate([found.head.mean, logit, found.side, found.length])


def accuracy(w: np.ndarray, truth: np.ndarray, seed: int = 99) -> float:
    z = np.random.default_rng(seed).normal(size=(4000, len(w)))
    return float(np.mean((z @ w > 0) == (z @ truth > 0)))


def test_one_step_by_hand() -> None:
    """Two annotators at eta 0.8, one feature at weight 1, three pairs one unit apart: all of it on paper."""
    votes = Votes(
        np.array([[1.0], [1.0], [-1.0]]), np.array([0, 1, 2]), np.array([0, 1, 1]), np.array([1.0, 0.0, 1.0])
    )
    model = _Model(_Data(votes, 2), PRIOR, 0.0, 1.0)
    p, a = 1 / (1 + np.exp(-1.0)), np.log(4.0)
    posterior, value = model._expect(np.array([1.0]), np.array([[a, a], [0, 0], [0, 0]]))
    # odds 4 for a side that has probability p, 1/4 against it, and 4 for one that has 1 - p
    up, down, against = 0.8 * p / (0.8 * p + 0.2 * (1 - p)), 0.2 * p / (0.2 * p + 0.8 * (1 - p)), 0.8 * (1 - p) / (0.8 * (1 - p) + 0.2 * p)  # fmt: skip
    assert_allclose(posterior, [up, down, against])
    likelihood = np.log(0.8 * p + 0.2 * (1 - p)) + 2 * np.log(0.2 * p + 0.8 * (1 - p))
    assert value == pytest.approx(likelihood + 2 * (8 * np.log(0.8) + 2 * np.log(0.2)) - 0.5)
    # one pair of votes cannot settle the step of eta; its mode is counted: (8 + right) / (10 + votes)
    parameters = np.array([[a, a], [0.0, 0.0], [0.0, 0.0]])
    for _ in range(30):
        parameters = parameters + model._move(parameters, posterior)
    assert_allclose(sigmoid(parameters[0]), [(8 + up) / 11, (8 + (1 - down) + against) / 12])
    # Newton's step of the weight: gradient of the expected log posterior over its curvature
    moved, _ = model.step(np.concatenate([[1.0], [a, a], np.zeros(4)]))
    gradient = (up - p) + (down - p) - (against - (1 - p)) - 1.0
    assert moved[0] == pytest.approx(1.0 + gradient / (3 * p * (1 - p) + 1.0))


def test_each_step_climbs_and_the_end_is_a_maximum() -> None:
    votes = simulated(GOOD_AND_BAD, 600, 12, 0, side=0.5, length=0.5)[0]
    votes.outcome[::15] = 0.5
    weight = np.random.default_rng(1).uniform(0.2, 1, 600)
    votes = Votes(
        votes.differences, votes.pair, votes.annotator, votes.outcome, votes.first, votes.lengths, weight
    )
    model = _Model(_Data(votes, 10), PRIOR, LEAN, 3.0)
    theta, values = np.concatenate([np.zeros(12), np.full(10, 1.4), np.zeros(20)]), []
    for _ in range(40):
        theta, value = model.step(theta)
        values.append(value)
    assert np.diff(values).min() > -1e-9
    found = fit(votes, 10, precision=3.0)
    end = theta_of(found)
    assert found.value > values[-1] - 1e-3
    step = 1e-4
    gradient = [(model.value(end + e) - model.value(end - e)) / (2 * step) for e in step * np.eye(len(end))]
    assert np.abs(gradient).max() < 0.02


def test_the_likelihood_by_brute_force() -> None:
    """Every vote's probability written out, pairs with several votes summed over which completion is better."""
    rng = np.random.default_rng(2)
    votes = simulated(GOOD_AND_BAD[[0, 6, 9]], 30, 3, 3, side=1.0, length=1.0, pairs=12)[0]
    model = _Model(_Data(votes, 3), PRIOR, 0.7, 2.0)
    theta = rng.normal(size=3 + 9)
    w, (a, s, l) = model.parts(theta)
    assert votes.first is not None and votes.lengths is not None
    total = -((s @ s) + (l @ l)) / (2 * 0.7**2) - w @ w
    total += float((8 * np.log(sigmoid(a)) + 2 * np.log(sigmoid(-a))).sum())
    for pair in range(12):
        sides = []
        for better in (1, -1):
            probability = float(sigmoid(np.array(better * votes.differences[pair] @ w)))
            for vote in np.flatnonzero(votes.pair == pair):
                k, says = votes.annotator[vote], 1 if votes.outcome[vote] == 1 else -1
                lean = s[k] * votes.first[vote] + l[k] * votes.lengths[pair]
                probability *= float(sigmoid(np.array(says * (better * a[k] + lean))))
            sides.append(probability)
        total += np.log(sum(sides))
    assert model.value(theta) == pytest.approx(total)


def test_it_agrees_with_reviews_reliability_where_the_models_coincide() -> None:
    """No leans, margins given: an almost fixed weight on one feature. Modes differ by one pseudo-vote each way."""
    votes = simulated(GOOD_AND_BAD, 400, 4, 4, pairs=160)[0]
    margin = votes.differences @ np.array([1.0, -0.5, 0.3, 0.8])
    fixed = Votes(margin[:, None] * 1e4, votes.pair, votes.annotator, votes.outcome)
    ours = fit(fixed, 10, prior=(8.0, 2.0), lean=0.0, precision=1e-12)
    decisions = Decisions(votes.pair, votes.annotator, votes.outcome == 1, np.ones(400), 160, 10)
    theirs = by_margins(decisions, margin * 1e4 * ours.head.mean[0], prior=(9.0, 3.0), tolerance=1e-7)
    assert_allclose(ours.eta, theirs.eta, atol=2e-3)
    # intervals: theirs by the likelihood alone, ours with the prior: of one kind where there are many votes
    assert_allclose(ours.high - ours.low, theirs.high - theirs.low, atol=0.13)


def test_finds_the_bad_annotators_and_a_better_reward() -> None:
    """Ten seeds, 4 of 10 bad, no pair twice: everyone in order, and a reward that pooling does not give."""
    gains = []
    for seed in range(10):
        votes, truth, _, _ = simulated(GOOD_AND_BAD, 900, 20, seed)
        found = fit(votes, 10)
        assert found.eta[9] < 0.35 and found.eta[8] < 0.72 and found.eta[:6].min() > found.eta[8:].max()
        pooled = LinearHead.by_evidence(votes.differences, votes.outcome)
        gains.append(accuracy(found.head.mean, truth) - accuracy(pooled.mean, truth))
    assert np.mean(gains) > 0.02 and min(gains) > -0.01


def test_no_harm_when_all_are_equal() -> None:
    losses = []
    for seed in range(10):
        votes, truth, _, _ = simulated(np.full(10, 0.9), 500, 30, 50 + seed)
        pooled = LinearHead.by_evidence(votes.differences, votes.outcome)
        losses.append(accuracy(pooled.mean, truth) - accuracy(fit(votes, 10).head.mean, truth))
    assert np.mean(losses) < 0.005


def test_finds_leans() -> None:
    """Leans of the size that the prior expects, within three standard deviations; others shrink towards 0."""
    votes, _, sides, longs = simulated(np.full(12, 0.85), 6000, 8, 7, side=LEAN, length=LEAN)
    found = fit(votes, 12)
    assert np.abs((found.side - sides) / found.side_sd).max() < 3
    assert np.abs((found.length - longs) / found.length_sd).max() < 3
    assert np.corrcoef(found.side, sides)[0, 1] > 0.9 and np.corrcoef(found.length, longs)[0, 1] > 0.9


def test_a_shared_taste_for_length_stays_in_the_reward() -> None:
    """All like longer answers; given length as a feature, nobody is called biased."""
    rng = np.random.default_rng(8)
    lengths, plain = rng.normal(size=1500), rng.normal(size=(1500, 5))
    votes = (rng.random(1500) < 0.9 * sigmoid(2 * lengths) + 0.1 * sigmoid(-2 * lengths)).astype(float)
    found = fit(
        Votes(np.column_stack([plain, lengths]), np.arange(1500), np.arange(1500) % 5, votes, None, lengths),
        5,
    )
    assert found.head.mean[-1] > 1.0 and (np.abs(found.length) < 2 * found.length_sd).all()


@pytest.mark.slow
def test_intervals_cover() -> None:
    """Truth drawn from the priors, with and without overlap: 95 % intervals hold it in 92 to 98 % of 640 cases."""
    for pairs in (600, 200):
        eta_in, side_in = [], []
        for seed in range(80):
            etas = np.random.default_rng(1000 + seed).beta(*PRIOR, size=8)
            votes, _, sides, _ = simulated(etas, 600, 20, seed, side=LEAN, length=LEAN, pairs=pairs)
            found = fit(votes, 8)
            eta_in += list((found.low <= etas) & (etas <= found.high))
            side_in += list(np.abs(found.side - sides) < 1.96 * found.side_sd)
        assert 0.92 < np.mean(eta_in) < 0.98, (pairs, np.mean(eta_in))
        assert 0.92 < np.mean(side_in) < 0.99, (pairs, np.mean(side_in))


def test_flips_are_the_likelihood_given_nothing_about_the_pair() -> None:
    votes = simulated(GOOD_AND_BAD, 500, 6, 9, side=1.0, length=1.0)[0]
    found = fit(votes, 10)
    flips = found.flips(votes)
    k, says = votes.annotator, np.where(votes.outcome == 1, 1.0, -1.0)
    assert votes.first is not None and votes.lengths is not None
    lean = found.side[k] * votes.first + found.length[k] * votes.lengths[votes.pair]
    a = np.log(found.eta / (1 - found.eta))[k]
    right = sigmoid(a + says * lean)
    wrong = sigmoid(-a + says * lean)
    assert_allclose(flips, wrong / (right + wrong))
    plain = Votes(votes.differences, votes.pair, k, votes.outcome)
    without = fit(plain, 10, lean=0.0)
    assert_allclose(without.flips(plain), 1 - without.eta[k], atol=1e-9)


def test_ties_and_one_annotator() -> None:
    """Only ties: margins near 0, everybody at the prior. One annotator: their eta stays what the prior says."""
    rng = np.random.default_rng(10)
    z = rng.normal(size=(200, 4))
    ties = fit(Votes(z, np.arange(200), np.arange(200) % 3, np.full(200, 0.5)), 3)
    assert_allclose(ties.eta, 0.8)
    assert np.abs(ties.head.mean).max() < 1e-6
    assert ties.votes.tolist() == [0, 0, 0]
    says = (rng.random(200) < sigmoid(z @ np.array([1.0, 0, 0, 0]))).astype(float)
    one = fit(Votes(z, np.arange(200), np.zeros(200, dtype=int), says), 1)
    assert one.low[0] < 0.85 and one.high[0] > 0.85  # a dull eye or a blurred taste: can't be told apart
    assert one.head.mean[0] > 0.5


def test_a_tie_flips_as_often_as_its_annotator_errs() -> None:
    votes = simulated(np.array([0.9, 0.6]), 300, 4, 11)[0]
    votes.outcome[:2] = 0.5
    found = fit(votes, 2)
    assert_allclose(found.flips(votes)[:2], 1 - found.eta[votes.annotator[:2]])


def test_numbers_that_are_none_are_refused() -> None:
    votes = simulated(np.array([0.9, 0.8]), 20, 2, 12)[0]
    votes.differences[3, 1] = np.nan
    with pytest.raises(UserError, match="some features of these votes are not finite"):
        fit(votes, 2)


def test_extreme_features_stay_finite() -> None:
    votes = simulated(GOOD_AND_BAD, 200, 3, 13)[0]
    votes.differences[0] *= 1e6
    found = fit(votes, 10)
    assert np.isfinite(theta_of(found)).all() and np.isfinite(found.low).all()
