"""The mathematics of choosing a comparison, against brute force."""

from itertools import combinations, permutations

import numpy as np
import pytest

from palate.config import UserError
from palate.labeling.selection import dpo_pairs, information, routing
from palate.labeling.selection.seconds import Seconds
from palate.linear_head import LinearHead, sigmoid


@pytest.fixture
def head() -> LinearHead:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(60, 6))
    return LinearHead.fit(z, (rng.random(60) < sigmoid(z @ rng.normal(size=6))).astype(float), precision=0.7)


def log_likelihood(rewards: np.ndarray, order: tuple[int, ...]) -> float:
    left = rewards[list(order)]
    return float(sum(left[i] - np.log(np.exp(left[i:]).sum()) for i in range(len(left) - 1)))


@pytest.mark.parametrize("size", [2, 3, 4])
def test_information_of_a_ranking_is_the_expected_hessian(size: int) -> None:
    rewards, step = np.random.default_rng(size).normal(size=size), 1e-4
    hessian = np.zeros((size, size))
    for order in permutations(range(size)):
        share = np.exp(log_likelihood(rewards, order))
        for i in range(size):
            for j in range(size):
                moved = [
                    log_likelihood(rewards + step * (a * np.eye(size)[i] + b * np.eye(size)[j]), order)
                    for a, b in ((1, 1), (1, -1), (-1, 1), (-1, -1))
                ]
                hessian[i, j] -= share * (moved[0] - moved[1] - moved[2] + moved[3]) / (4 * step**2)
    np.testing.assert_allclose(information.ranking_information(rewards[None])[0], hessian, atol=1e-6)


def test_the_gain_of_a_set_is_the_log_determinant(head: LinearHead) -> None:
    features = np.random.default_rng(1).normal(size=(5, 4, 6))
    before = np.linalg.slogdet(np.linalg.inv(head.covariance))[1]
    wanted = []
    for f in features:
        j = information.ranking_information((f @ head.mean)[None])[0]
        wanted.append(0.5 * (np.linalg.slogdet(np.linalg.inv(head.covariance) + f.T @ j @ f)[1] - before))
    np.testing.assert_allclose(information.gains(head, features), wanted, rtol=1e-8)


def test_a_vote_updates_the_covariance_as_the_refit_at_that_mode(head: LinearHead) -> None:
    z = np.random.default_rng(2).normal(size=6)
    p = float(sigmoid(z @ head.mean))
    wanted = np.linalg.inv(np.linalg.inv(head.covariance) + p * (1 - p) * np.outer(z, z))
    other = LinearHead(head.mean, head.covariance.copy(), head.precision)
    head.update(z, 1.0)
    information.observe(other, np.stack([z, np.zeros(6)]), [0, 1])
    np.testing.assert_allclose(head.covariance, wanted, atol=1e-12)
    np.testing.assert_allclose(other.covariance, wanted, atol=1e-12)
    np.testing.assert_allclose(other.mean, head.mean, atol=1e-12)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_those_that_are_out_count_as_answered(head: LinearHead, size: int) -> None:
    out = np.random.default_rng(3).normal(size=(3, size, 6))
    ahead = information.expected(head, out)
    wanted = np.linalg.inv(head.covariance)
    reference = LinearHead(head.mean, head.covariance.copy(), head.precision)
    for f in out:
        if size == 2:
            z = f[0] - f[1]
            mean, sd = reference.margin(z[None])
            wanted = wanted + information.pair_information(mean, sd)[0] * np.outer(z, z)
            reference.covariance = np.linalg.inv(wanted)
        else:
            wanted = wanted + f.T @ information.ranking_information((f @ head.mean)[None])[0] @ f
    np.testing.assert_allclose(ahead.covariance, np.linalg.inv(wanted), atol=1e-10)
    np.testing.assert_array_equal(ahead.mean, head.mean)
    assert information.gains(ahead, out)[0] < information.gains(head, out)[0]


def test_open_orders_do_not_depend_on_the_distance(head: LinearHead) -> None:
    rng = np.random.default_rng(4)
    pairs = rng.normal(size=(3, 2, 6))
    np.testing.assert_allclose(
        information.unsure(head, pairs), information.unsure(head, 5 * pairs), rtol=1e-9
    )
    np.testing.assert_array_equal(information.unsure(LinearHead.prior(6), pairs), np.ones(3))
    three = rng.normal(size=(1, 3, 6))
    each = [information.unsure(head, three[:, [i, j]])[0] for i, j in combinations(range(3), 2)]
    np.testing.assert_allclose(information.unsure(head, three), [np.mean(each)])
    np.testing.assert_array_equal(information.unsure(head, np.ones((2, 1, 6))), np.zeros(2))


def test_an_unreliable_annotator_tells_less_and_half_tells_nothing() -> None:
    told = [float(information.pair_information(0.8, 0.0, eta)) for eta in (1.0, 0.8, 0.6, 0.5)]
    assert told == sorted(told, reverse=True)
    assert told[0] == pytest.approx(float(sigmoid(0.8) * sigmoid(-0.8)))
    assert told[-1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(head: LinearHead, bad: float) -> None:
    features = np.zeros((2, 2, 6))
    features[1, 0, 3] = bad
    for call in (
        lambda: information.gains(head, features),
        lambda: information.expected(head, features),
        lambda: information.observe(head, features[1], [0, 1]),
        lambda: dpo_pairs.pessimistic_gaps(head, features[:, 0]),
    ):
        with pytest.raises(UserError, match="not finite"):
            call()


def test_nothing_to_choose_from_scores_nothing(head: LinearHead) -> None:
    assert information.gains(head, np.zeros((0, 2, 6))).shape == (0,)
    np.testing.assert_array_equal(information.gains(head, np.ones((3, 1, 6))), np.zeros(3))
    np.testing.assert_array_equal(information.gains(head, np.ones((1, 2, 6))), [0.0])
    np.testing.assert_array_equal(information.diversity(np.ones((1, 4)), np.zeros((0, 4))), [0.0])
    assert dpo_pairs.best_pair(head, np.ones((1, 6))) is None
    information.observe(head, np.ones((1, 6)), [0])
    assert head.votes == 60


def test_prompts_far_from_those_asked_are_more_diverse() -> None:
    asked = np.zeros((3, 2))
    found = information.diversity(np.array([[1.0, 0], [4, 0]]), asked, k=2)
    np.testing.assert_allclose(found, [-np.log(4) / 2, np.log(4) / 2])


def test_dpo_takes_the_certain_gap_over_the_large_guess() -> None:
    head = LinearHead(np.array([1.0, 2.0]), np.diag([0.01, 9.0]), 1.0)
    differences = np.array([[1.0, 0], [0, 1], [-1, 0]])
    np.testing.assert_allclose(dpo_pairs.pessimistic_gaps(head, differences), [0.9, -1.0, 0.9])
    better, worse, bound = dpo_pairs.best_pair(head, np.array([[0.0, 0], [1, 0], [0, 1]])) or (0, 0, 0.0)
    assert (better, worse, bound) == (1, 0, pytest.approx(0.9))


def test_the_reliable_are_worth_more() -> None:
    mean, sd = np.array([0.0, 3.0]), np.zeros(2)
    assert routing.advantage(mean, sd, 0.95, np.array([0.7]))[0] > 1
    assert routing.advantage(mean, sd, 0.7, np.array([0.95]))[0] < 1
    np.testing.assert_allclose(routing.advantage(mean, sd, 0.8, np.array([])), [1, 1])
    np.testing.assert_allclose(
        routing.reliability(np.array([0.2, 0.7, np.nan]), np.array([500, 10, 50])), [0.55, 0.8, 0.9]
    )


def test_seconds_start_sensible_and_learn_from_votes() -> None:
    seconds = Seconds()
    before = seconds.predict(np.array([20.0, 200.0]), np.array([2, 2]))
    assert 4 < before[0] < 15 and 30 < before[1] < 90
    rng = np.random.default_rng(0)
    for _ in range(400):
        words, size = int(rng.integers(10, 300)), int(rng.integers(2, 5))
        seconds.add(words, size, float(0.5 * words**0.7 * (size - 1) ** 0.5 * np.exp(0.3 * rng.normal())))
    for words, size in ((30, 2), (200, 4)):
        wanted = 0.5 * words**0.7 * (size - 1) ** 0.5
        assert seconds.predict(np.array([words]), np.array([size]))[0] == pytest.approx(wanted, rel=0.15)


def test_a_coffee_break_and_a_missing_time_teach_nothing() -> None:
    seconds, untouched = Seconds(), Seconds()
    for odd in (None, 0.0, -1.0, 4000.0, float("nan")):
        seconds.add(30, 2, odd)
    assert seconds.votes == 0
    words = np.array([30.0])
    np.testing.assert_array_equal(
        seconds.predict(words, np.array([2])), untouched.predict(words, np.array([2]))
    )


def test_pairs_are_sets_of_two(head: LinearHead) -> None:
    rewards = np.array([[0.3, -0.5, 1.1]])
    for i, j in combinations(range(3), 2):
        p = float(sigmoid(rewards[0, i] - rewards[0, j]))
        np.testing.assert_allclose(
            information.ranking_information(rewards[:, [i, j]])[0],
            p * (1 - p) * np.array([[1, -1], [-1, 1]]),
            atol=1e-12,
        )


@pytest.mark.parametrize("size", [2, 3, 5])
def test_margins_of_all_pairs_in_both_precisions(size: int) -> None:
    rng = np.random.default_rng(size)
    x, z = rng.normal(size=(7, size, 6)) + 3.0, rng.normal(size=(40, 6))
    head = LinearHead.fit(z, rng.integers(0, 2, 40).astype(float))
    first, second = np.triu_indices(size, 1)
    mean, sd = head.margin((x[:, first] - x[:, second]).reshape(-1, 6))
    for kind, close in ((np.float64, 1e-10), (np.float32, 2e-4)):
        found = information.margins(head, x.astype(kind))
        np.testing.assert_allclose(found[0].ravel(), mean, atol=close)
        np.testing.assert_allclose(found[1].ravel(), sd, rtol=close * 5)
