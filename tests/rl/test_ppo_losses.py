"""PPO's losses, worked by hand; names carry the number of the detail in rl/ppo.py."""

import math

import pytest
import torch

from palate.rl.ppo_losses import explained_variance, policy_loss, value_loss


def test_detail_17_ratios_are_clipped_on_the_side_that_gains() -> None:
    old = torch.zeros(4)
    new = torch.tensor([1.5, 0.5, 1.5, 0.5]).log().requires_grad_()
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0])
    found = policy_loss(new, old, advantages, 0.2, 0.2)
    # min(r A, clip(r) A): 1.2, 0.5, -1.5, -0.8
    assert found.loss.item() == pytest.approx(-(1.2 + 0.5 - 1.5 - 0.8))
    assert found.clipped.item() == 2
    assert found.ratio.item() == pytest.approx(4.0)
    found.loss.backward()
    # no gradient where the clip holds; else -A r
    torch.testing.assert_close(new.grad, torch.tensor([0.0, -0.5, 1.5, 0.0]))


def test_clip_higher_and_dual_clip() -> None:
    new, old = torch.tensor([1.5, 5.0]).log(), torch.zeros(2)
    advantages = torch.tensor([1.0, -1.0])
    assert policy_loss(new, old, advantages, 0.2, 0.4).loss.item() == pytest.approx(-1.4 + 5.0)
    assert policy_loss(new, old, advantages, 0.2, 0.2, 3.0).loss.item() == pytest.approx(-1.2 + 3.0)


def test_approx_kl_is_that_of_the_old_policy_to_the_new() -> None:
    torch.manual_seed(1)
    old, new = torch.randn(6).log_softmax(0), torch.randn(6).log_softmax(0)
    exact = float((old.exp() * (old - new)).sum())
    drawn = torch.multinomial(old.exp(), 200_000, replacement=True)
    found = policy_loss(new[drawn], old[drawn], torch.zeros(len(drawn)))
    assert found.approx_kl.item() / len(drawn) == pytest.approx(exact, rel=0.03)


def test_detail_16_value_loss_is_halved_and_the_larger_of_two() -> None:
    values = torch.tensor([1.0, 0.1], requires_grad=True)
    loss, clipped = value_loss(values, torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0]), 0.2)
    # plain errors 0, 0.81; with values held at 0.2 and 0.1: 0.64, 0.81
    assert loss.item() == pytest.approx(0.5 * (0.64 + 0.81))
    assert clipped.item() == 1
    loss.backward()
    torch.testing.assert_close(values.grad, torch.tensor([0.0, -0.9]))
    free, none = value_loss(values.detach(), torch.zeros(2), torch.ones(2), None)
    assert free.item() == pytest.approx(0.405) and none.item() == 0


def test_gradients_agree_with_finite_differences() -> None:
    torch.manual_seed(0)
    old, advantages = torch.randn(5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    new = (old + 0.1 * torch.randn(5, dtype=torch.float64)).requires_grad_()
    torch.autograd.gradcheck(lambda x: policy_loss(x, old, advantages, 0.2, 0.3, 3.0).loss, (new,))
    torch.autograd.gradcheck(lambda x: value_loss(x, old, advantages, 0.2)[0], (new,))


def test_detail_21_explained_variance() -> None:
    returns = torch.tensor([1.0, 2.0, 3.0])
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(torch.full((3,), 2.0), returns) == pytest.approx(0.0)
    assert explained_variance(-returns, returns) == pytest.approx(-3.0)
    assert explained_variance(returns, torch.ones(3)) == 0.0 and math.isfinite(
        explained_variance(returns, returns)
    )
