"""The DPO loss by hand, by finite differences, and in its limits."""

import math

import pytest
import torch

from palate.rl.losses import dpo_loss


def test_by_hand() -> None:
    losses, chosen, rejected = dpo_loss(
        torch.tensor([-10.0, -20.0]), torch.tensor([-12.0, -18.0]), torch.tensor([-11.0, -20.0]), torch.tensor([-11.0, -20.0]), beta=0.5
    )  # fmt: skip
    assert chosen.tolist() == [0.5, 0.0] and rejected.tolist() == [-0.5, 1.0]
    assert losses.tolist() == pytest.approx([math.log1p(math.exp(-1.0)), math.log1p(math.exp(1.0))], abs=1e-6)


def test_a_policy_equal_to_its_reference_costs_ln_2() -> None:
    policy = torch.tensor([-3.0, -70.0, -0.1])
    for smoothing in (0.0, 0.2):
        losses, _, _ = dpo_loss(policy, policy - 1, policy, policy - 1, beta=0.3, label_smoothing=smoothing)
        assert losses.tolist() == pytest.approx([math.log(2)] * 3, abs=1e-6)


def test_smoothing_is_the_expectation_over_flips() -> None:
    terms = torch.tensor([-5.0]), torch.tensor([-9.0]), torch.tensor([-6.0]), torch.tensor([-7.0])
    right, wrong = (
        dpo_loss(*terms, beta=0.4)[0],
        dpo_loss(terms[1], terms[0], terms[3], terms[2], beta=0.4)[0],
    )
    smoothed = dpo_loss(*terms, beta=0.4, label_smoothing=0.25)[0]
    torch.testing.assert_close(smoothed, 0.75 * right + 0.25 * wrong)


def test_gradient_by_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    terms = [torch.randn(5, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(4)]
    assert torch.autograd.gradcheck(lambda *t: dpo_loss(*t, beta=0.7, label_smoothing=0.1)[0], terms)


def test_smoothing_pair_by_pair_is_smoothing_each() -> None:
    terms = [torch.randn(3, generator=torch.Generator().manual_seed(1)) for _ in range(4)]
    shares = [0.0, 0.25, 0.4]
    each = [dpo_loss(*(t[i : i + 1] for t in terms), 0.5, share)[0] for i, share in enumerate(shares)]
    torch.testing.assert_close(dpo_loss(*terms, 0.5, torch.tensor(shares))[0], torch.cat(each))


def test_the_margin_that_a_smoothed_vote_asks_for_is_the_log_odds_of_its_being_right() -> None:
    for share in (0.1, 0.4):
        best = torch.tensor([math.log((1 - share) / share)], requires_grad=True)
        zero = torch.zeros(1)
        dpo_loss(best, zero, zero, zero, 1.0, share)[0].sum().backward()
        assert best.grad is not None and best.grad.item() == pytest.approx(0, abs=1e-6)
