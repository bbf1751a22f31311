"""The linear head against scikit-learn, finite differences and brute force; what a vote at a time adds up to."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from palate.config import UserError
from palate.linear_head import LinearHead, sigmoid


def drawn(votes: int, size: int, seed: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(differences, outcomes, true weights) of votes by a linear taste."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, scale, size)
    z = rng.normal(size=(votes, size))
    return z, (rng.random(votes) < sigmoid(z @ truth)).astype(float), truth


def log_posterior(
    z: np.ndarray, t: np.ndarray, c: np.ndarray, o: np.ndarray, w: np.ndarray, prior: float
) -> float:
    p = 1 / (1 + np.exp(-(z @ w + o)))
    return float((c * (t * np.log(p) + (1 - t) * np.log(1 - p))).sum() - 0.5 * prior * w @ w)


def test_the_mode_is_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression

    z, t, _ = drawn(200, 7, 0)
    c = np.random.default_rng(1).uniform(0.1, 2, 200)
    peer = LogisticRegression(C=1 / 0.7, fit_intercept=False, tol=1e-12, max_iter=10_000).fit(z, t, c)
    head = LinearHead.fit(z, t, c, precision=0.7)
    assert_allclose(head.mean, peer.coef_[0], atol=1e-7)
    assert (head.votes, head.precision) == (200, 0.7)


def test_gradient_is_zero_and_covariance_is_the_inverse_curvature() -> None:
    rng = np.random.default_rng(2)
    z, t, _ = drawn(60, 4, 2)
    t[:10] = 0.5  # ties
    t[10:20] = rng.random(10)  # believed so far
    c, o = rng.uniform(0, 2, 60), rng.normal(0, 0.5, 60)
    head = LinearHead.fit(z, t, c, o, precision=1.3)
    step, value = 1e-4, lambda w: log_posterior(z, t, c, o, w, 1.3)
    eye = step * np.eye(4)
    gradient = [(value(head.mean + e) - value(head.mean - e)) / (2 * step) for e in eye]
    assert_allclose(gradient, 0, atol=1e-6)
    curvature = [
        [
            (
                value(head.mean + a + b)
                - value(head.mean + a - b)
                - value(head.mean - a + b)
                + value(head.mean - a - b)
            )
            / (4 * step**2)
            for a in eye
        ]
        for b in eye
    ]
    assert_allclose(head.covariance @ -np.array(curvature), np.eye(4), atol=1e-5)
    assert_allclose(head.covariance, head.covariance.T)


def test_evidence_by_integration() -> None:
    """One weight: the integral of prior times likelihood, on a fine grid. Laplace is close with 40 votes."""
    z, t, _ = drawn(40, 1, 3)
    grid = np.linspace(-6, 8, 20_001)
    likelihood = np.array([log_posterior(z, t, np.ones(40), np.zeros(40), np.array([w]), 0.0) for w in grid])
    density = np.exp(likelihood - 0.5 * 2.0 * grid**2) * np.sqrt(2.0 / (2 * np.pi))
    assert LinearHead.fit(z, t, precision=2.0).evidence == pytest.approx(
        np.log(np.trapezoid(density, grid)), abs=0.02
    )


@pytest.mark.parametrize(("size", "spread", "scale"), [(5, 1.0, 1.0), (30, 0.3, 1.0), (30, 1.0, 100.0)])
def test_precision_by_evidence(size: int, spread: float, scale: float) -> None:
    """The best of a fine grid, to a few hundredths of a nat, whatever the scale of the features."""
    z, t, _ = drawn(300, size, 4, spread)
    found = LinearHead.by_evidence(z * scale, t)
    grid = [
        LinearHead.fit(z * scale, t, precision=p * scale**2).evidence for p in np.geomspace(0.01, 1e4, 60)
    ]
    assert found.evidence > max(grid) - 0.05
    assert found.precision / scale**2 == pytest.approx(1 / spread**2, rel=0.8)


def test_precision_without_signal_is_high_and_with_one_vote_finite() -> None:
    rng = np.random.default_rng(5)
    z = rng.normal(size=(400, 20))
    nothing = LinearHead.by_evidence(z, rng.integers(0, 2, 400).astype(float))
    assert np.abs(nothing.margin(z)[0]).max() < 0.6
    assert np.isfinite(LinearHead.by_evidence(z[:1], np.ones(1)).mean).all()
    assert np.isfinite(LinearHead.by_evidence(np.zeros((3, 4)), np.ones(3)).evidence)


def test_predicts_better_with_evidence_than_with_a_careless_precision() -> None:
    """60 weights of which few matter, 150 votes: over 10 seeds the held-out loss is lower than at precision 0.01."""
    gains = []
    for seed in range(10):
        z, t, _ = drawn(1150, 60, 10 + seed, 0.15)
        fits = LinearHead.by_evidence(z[:150], t[:150]), LinearHead.fit(z[:150], t[:150], precision=0.01)
        p = [np.clip(head.probability(z[150:]), 1e-9, 1 - 1e-9) for head in fits]
        loss = [-np.mean(t[150:] * np.log(q) + (1 - t[150:]) * np.log(1 - q)) for q in p]
        gains.append(loss[1] - loss[0])
    assert min(gains) > 0


def test_vote_by_vote_comes_near_all_at_once() -> None:
    z, t, _ = drawn(400, 10, 6, 0.5)
    online, batch = LinearHead.prior(10), LinearHead.fit(z, t)
    for difference, outcome in zip(z, t, strict=True):
        online.update(difference, outcome)
    sd = np.sqrt(np.diag(batch.covariance))
    assert np.abs((online.mean - batch.mean) / sd).max() < 1.0
    assert_allclose(np.sqrt(np.diag(online.covariance)), sd, rtol=0.15)
    assert online.votes == 400


def test_an_update_is_one_newton_step() -> None:
    head, z = LinearHead.prior(3, 2.0), np.array([1.0, -0.5, 2.0])
    head.update(z, 1.0, weight=0.5)
    information = 2 * np.eye(3) + 0.5 * 0.25 * np.outer(z, z)
    assert_allclose(head.covariance, np.linalg.inv(information))
    assert_allclose(head.mean, np.linalg.solve(information, 0.5 * 0.5 * z))


@pytest.mark.parametrize(("eta", "moves"), [(1.0, 1), (0.8, 1), (0.5, 0), (0.2, -1)])
def test_an_update_believes_its_annotator_by_eta(eta: float, moves: int) -> None:
    head = LinearHead.prior(2)
    head.update(np.array([1.0, 0.0]), 1.0, eta=eta)
    assert np.sign(round(head.mean[0], 12)) == moves
    assert head.covariance[0, 0] <= 1.0


def test_far_votes_stay_finite() -> None:
    head = LinearHead.fit(1e4 * np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([1.0, 0.0]))
    for outcome in (0.0, 1.0, 0.5):
        for eta in (1.0, 0.9, 0.0):
            head.update(np.array([1e4, 1.0]), outcome, eta=eta)
    assert np.isfinite(head.mean).all() and np.isfinite(head.covariance).all()
    assert np.linalg.eigvalsh(head.covariance).min() > -1e-12


def test_ten_thousand_updates_keep_the_covariance_positive() -> None:
    z, t, _ = drawn(10_000, 64, 7, 0.3)
    head = LinearHead.prior(64)
    for difference, outcome in zip(z, t, strict=True):
        head.update(difference, outcome)
    assert np.linalg.eigvalsh(head.covariance).min() > 0
    assert_allclose(head.covariance, head.covariance.T)


def test_a_start_changes_nothing_and_a_bias_is_an_offset() -> None:
    z, t, _ = drawn(100, 5, 8)
    plain = LinearHead.fit(z, t)
    assert_allclose(LinearHead.fit(z, t, start=np.full(5, 9.0)).mean, plain.mean, atol=1e-7)
    side = np.where(np.arange(100) % 2, 1.0, -1.0)
    with_column = LinearHead.fit(np.column_stack([z, side]), t)
    moved = LinearHead.fit(z, t, offsets=side * with_column.mean[-1])
    assert_allclose(moved.mean, with_column.mean[:-1], atol=1e-6)


def test_scores_are_calibrated_under_its_own_model() -> None:
    """True margins fall into the 90 % interval in 90 % of cases, over draws of the truth from the prior."""
    inside = []
    for seed in range(60):
        z, t, truth = drawn(80, 6, 100 + seed)
        mean, sd = LinearHead.fit(z[:70], t[:70]).margin(z[70:])
        inside += list(np.abs(z[70:] @ truth - mean) < 1.645 * sd)
    assert 0.85 < np.mean(inside) < 0.95


def test_no_votes_are_the_prior() -> None:
    head = LinearHead.fit(np.zeros((0, 3)), np.zeros(0), precision=4.0)
    assert_allclose(head.mean, 0)
    assert_allclose(head.covariance, np.eye(3) / 4)
    assert head.evidence == pytest.approx(0)


def test_numbers_that_are_none_are_refused() -> None:
    z, t = np.ones((3, 2)), np.ones(3)
    z[1, 0] = np.nan
    with pytest.raises(UserError, match="1 of 3 votes have features that are not finite"):
        LinearHead.fit(z, t)
    with pytest.raises(UserError, match="2 of 3 votes have outcomes"):
        LinearHead.by_evidence(np.ones((3, 2)), np.array([1, np.inf, np.nan]))
    with pytest.raises(UserError, match="not finite"):
        LinearHead.prior(2).update(z[1], 1.0)
