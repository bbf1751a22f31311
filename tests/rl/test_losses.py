"""The DPO loss by hand, by finite differences, and in its limits."""

import math

import pytest
import torch

from palate.rl.losses import Loss, implicit_rewards, pair_losses, plackett_luce_losses


def dpo_loss(
    chosen: torch.Tensor, rejected: torch.Tensor, reference_chosen: torch.Tensor, reference_rejected: torch.Tensor,
    beta: float, label_smoothing: float | torch.Tensor = 0.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """(losses, rewards of the chosen, rewards of the rejected)."""
    won, lost = (
        implicit_rewards(chosen, reference_chosen, beta),
        implicit_rewards(rejected, reference_rejected, beta),
    )
    return pair_losses(won - lost, flips=label_smoothing), won.detach(), lost.detach()


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


M = torch.tensor([0.0, 1.0, -2.0, 0.4])


def logistic(x: float) -> float:
    return math.log1p(math.exp(-x))


def test_robust_by_hand_and_unbiased() -> None:
    expected = [(0.8 * logistic(m) - 0.2 * logistic(-m)) / 0.6 for m in M.tolist()]
    assert pair_losses(M, "robust", 0.2).tolist() == pytest.approx(expected, abs=1e-6)
    # over flips its mean is the loss without any
    mean = 0.8 * pair_losses(M, "robust", 0.2) + 0.2 * pair_losses(-M, "robust", 0.2)
    torch.testing.assert_close(mean, pair_losses(M))
    torch.testing.assert_close(pair_losses(M, "robust"), pair_losses(M))


def test_hinge_and_ipo_by_hand() -> None:
    assert pair_losses(M, "hinge").tolist() == pytest.approx([1.0, 0.0, 3.0, 0.6])
    assert pair_losses(M, "ipo").tolist() == pytest.approx([0.25, 0.25, 6.25, 0.01])
    assert pair_losses(M, "hinge", 0.25).tolist() == pytest.approx([1.0, 0.5, 2.25, 0.8])
    ties = torch.tensor([True] * 4)
    assert pair_losses(M, "hinge", ties=ties).tolist() == pytest.approx([1.0, 1.0, 1.5, 1.0])
    assert pair_losses(M, "ipo", ties=ties).tolist() == pytest.approx([0.0, 1.0, 4.0, 0.16])


def test_a_winner_has_to_be_ahead_by_its_strength() -> None:
    ahead = torch.tensor([0.0, 1.0, 0.0, 1.0])
    expected = [logistic(m - a) for m, a in zip(M.tolist(), ahead.tolist(), strict=True)]
    assert pair_losses(M, ahead=ahead).tolist() == pytest.approx(expected, abs=1e-6)
    assert pair_losses(M, "hinge", ahead=ahead).tolist() == pytest.approx([1.0, 1.0, 3.0, 1.6])
    assert pair_losses(M, "ipo", ahead=ahead).tolist() == pytest.approx([0.25, 0.25, 6.25, 1.21])


def test_ties_have_a_probability() -> None:
    ties, nu = torch.tensor([True, False, True, False]), torch.tensor(0.0)  # Davidson's nu is 1
    found = pair_losses(M, ties=ties, rule="davidson", tie=nu)
    total = [math.exp(m / 2) + 1 + math.exp(-m / 2) for m in M.tolist()]
    expected = [math.log(total[0]), math.log(total[1]) - 0.5, math.log(total[2]), math.log(total[3]) - 0.2]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    half = pair_losses(M, ties=ties)
    assert half[2].item() == pytest.approx(0.5 * (logistic(-2.0) + logistic(2.0)), abs=1e-6)
    sharper = pair_losses(M, ties=ties, rule="rao_kupper", tie=torch.tensor(-20.0))  # theta near 1: no ties
    torch.testing.assert_close(sharper[~ties], pair_losses(M)[~ties], atol=1e-5, rtol=1e-5)


def test_length_normalised_rewards_are_of_means_over_tokens() -> None:
    policy, reference, lengths = (
        torch.tensor([-10.0, -40.0]),
        torch.tensor([-12.0, -36.0]),
        torch.tensor([4, 8]),
    )
    assert implicit_rewards(policy, reference, 0.5).tolist() == [1.0, -2.0]
    assert implicit_rewards(policy, reference, 0.5, lengths).tolist() == [0.25, -0.25]


def test_plackett_luce_by_hand() -> None:
    rewards = torch.tensor([1.0, 0.0, 2.0, -1.0])
    # 2 before 0 before {1, 3}, which are equal: three terms, none between 1 and 3
    found = plackett_luce_losses(rewards, [(2, [0, 1, 3]), (0, [1, 3])])
    e = [math.exp(r) for r in rewards.tolist()]
    assert found.tolist() == pytest.approx(
        [math.log(sum(e) / e[2]), math.log((e[0] + e[1] + e[3]) / e[0])], abs=1e-6
    )
    # of two it is the pair
    assert plackett_luce_losses(rewards, [(0, [1])]).item() == pytest.approx(
        pair_losses(rewards[:1]).item(), abs=1e-6
    )


@pytest.mark.parametrize("loss", ["sigmoid", "robust", "hinge", "ipo"])
def test_gradients_of_every_loss_by_finite_differences(loss: Loss) -> None:
    generator = torch.Generator().manual_seed(2)
    margins = torch.randn(6, dtype=torch.float64, generator=generator, requires_grad=True)
    ahead = torch.rand(6, dtype=torch.float64, generator=generator)
    ties = torch.tensor([False, True, False, False, True, False])
    nu = torch.tensor(-0.5, dtype=torch.float64, requires_grad=True)
    rule = "davidson" if loss in ("sigmoid", "robust") else "half"
    assert torch.autograd.gradcheck(
        lambda m, t: pair_losses(m, loss, 0.2, ahead, ties, rule, t), (margins, nu)
    )  # type: ignore[arg-type]
    terms = [(0, [1, 2]), (3, [4, 5, 0])]
    assert torch.autograd.gradcheck(lambda m: plackett_luce_losses(m, terms), (margins,))
