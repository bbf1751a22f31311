"""The arithmetic of rewards and advantages, worked by hand; names carry the number of the detail in rl/ppo.py."""

import math

import pytest
import torch

from palate.rl.advantages import (
    adapted,
    add_scores,
    gae,
    kl_estimates,
    kl_rewards,
    overlong_penalty,
    whiten,
)

MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])


def test_detail_11_kl_penalty_on_every_token_and_score_on_the_last() -> None:
    logprobs = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, 9.0, 9.0]])
    reference = torch.tensor([[-1.5, -2.0, -1.0], [-2.0, 0.0, 0.0]])
    rewards = kl_rewards(logprobs, reference, 0.1, MASK)
    torch.testing.assert_close(rewards, torch.tensor([[-0.05, 0.0, 0.2], [-0.1, 0.0, 0.0]]))
    found = add_scores(rewards, torch.tensor([2.0, -1.0]), MASK)
    torch.testing.assert_close(found, torch.tensor([[-0.05, 0.0, 2.2], [-1.1, 0.0, 0.0]]))


def test_detail_14_advantages_over_the_answer_alone_with_value_0_behind_it() -> None:
    rewards = torch.tensor([[0.0, 0.0, 1.0], [2.0, 50.0, 50.0]])
    values = torch.tensor([[0.5, 0.25, 0.125], [1.0, 70.0, 70.0]])
    advantages, returns = gae(rewards, values, MASK, gamma=1.0, lam=0.5)
    # deltas of the first: -0.25, -0.125, 0.875; A2 = .875, A1 = -.125 + .4375, A0 = -.25 + .15625
    torch.testing.assert_close(advantages, torch.tensor([[-0.09375, 0.3125, 0.875], [1.0, 0.0, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[0.40625, 0.5625, 1.0], [2.0, 0.0, 0.0]]))


def test_detail_15_returns_are_of_advantages_before_whitening() -> None:
    rewards, values = torch.tensor([[0.0, 0.0, 3.0]]), torch.zeros(1, 3)
    advantages, returns = gae(rewards, values, torch.ones(1, 3), 1.0, 1.0)
    torch.testing.assert_close(returns, torch.full((1, 3), 3.0))
    assert whiten(advantages, torch.ones(1, 3)).abs().max() < 1e-3  # all equal: nothing stands out


def test_discount_and_lambda_1_are_discounted_sums() -> None:
    rewards, values = torch.tensor([[1.0, 1.0, 1.0]]), torch.tensor([[0.3, 0.2, 0.1]])
    _, returns = gae(rewards, values, torch.ones(1, 3), gamma=0.5, lam=1.0)
    torch.testing.assert_close(returns, torch.tensor([[1.75, 1.5, 1.0]]))


def test_detail_13_whitening_under_the_mask_with_biased_variance() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0], [6.0, 100.0, -100.0]])
    found = whiten(values, MASK)
    mean, deviation = 3.0, math.sqrt((4 + 1 + 0 + 9) / 4)
    wanted = torch.tensor([[-2.0, -1.0, 0.0], [3.0, 0.0, 0.0]]) / deviation
    torch.testing.assert_close(found, wanted)
    kept = whiten(values, MASK, shift_mean=False)
    torch.testing.assert_close(kept, (wanted + mean) * MASK)


def test_detail_12_adaptive_coefficient() -> None:
    assert adapted(0.1, kl=6.0, target=6.0, episodes=100, horizon=10_000) == pytest.approx(0.1)
    assert adapted(0.1, kl=6.6, target=6.0, episodes=100, horizon=10_000) == pytest.approx(0.1 * 1.001)
    assert adapted(0.1, kl=60.0, target=6.0, episodes=100, horizon=10_000) == pytest.approx(0.1 * 1.002)
    assert adapted(0.1, kl=0.0, target=6.0, episodes=100, horizon=10_000) == pytest.approx(0.1 * 0.998)


def test_overlong_penalty_falls_over_the_buffer() -> None:
    lengths = torch.tensor([60, 80, 90, 100])
    torch.testing.assert_close(overlong_penalty(lengths, 100, 20), torch.tensor([0.0, 0.0, -0.5, -1.0]))
    assert overlong_penalty(lengths, 100, 0).abs().max() == 0


def test_detail_21_kl_estimates_are_unbiased_and_k3_is_never_negative() -> None:
    torch.manual_seed(0)
    policy, reference = torch.randn(8).log_softmax(0), torch.randn(8).log_softmax(0)
    exact = float((policy.exp() * (policy - reference)).sum())
    drawn = torch.multinomial(policy.exp(), 200_000, replacement=True)
    k1, k3 = kl_estimates((policy - reference)[drawn])
    assert float(k1.mean()) == pytest.approx(exact, abs=0.02)
    assert float(k3.mean()) == pytest.approx(exact, abs=0.02)
    assert float(k3.min()) >= 0
    near = (policy + 0.1 * torch.randn(8)).log_softmax(0)
    k1, k3 = kl_estimates((policy - near)[drawn])
    assert float(k3.std()) < 0.2 * float(k1.std())
    assert torch.isfinite(kl_estimates(torch.tensor([-500.0, 500.0]))[1]).all()
