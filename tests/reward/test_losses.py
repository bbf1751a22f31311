"""The k-wise loss by hand, against explicit pairs, and by finite differences."""

import math
from itertools import combinations

import pytest
import torch

from palate.reward.losses import (
    Ties,
    all_bad_loss,
    centering_penalty,
    kwise_loss,
    outcomes,
    strength_factor,
    strength_margins,
    tie_start,
)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_by_hand() -> None:
    scores = torch.tensor([2.0, 1.0, -1.0])
    winners, losers = torch.tensor([0, 2, 1]), torch.tensor([1, 0, 2])
    ties, weights = torch.tensor([False, False, True]), torch.tensor([1.0, 0.5, 2.0])
    expected = softplus(-1) + 0.5 * softplus(3) + 2.0 * 0.5 * (softplus(-2) + softplus(2))
    assert kwise_loss(scores, winners, losers, ties, weights).item() == pytest.approx(expected, abs=1e-6)
    assert centering_penalty(scores, winners, losers, weights).item() == pytest.approx(9 + 0.5 * 1 + 0)


def test_a_full_ranking_is_the_mean_of_its_pairs() -> None:
    scores = torch.tensor([0.3, -1.2, 0.8, 0.1])
    pairs = torch.tensor(list(combinations(range(4), 2)))
    found = kwise_loss(
        scores, pairs[:, 0], pairs[:, 1], torch.zeros(6, dtype=torch.bool), torch.full((6,), 1 / 6)
    )
    one_by_one = [softplus(scores[b].item() - scores[a].item()) for a, b in pairs.tolist()]
    assert found.item() == pytest.approx(sum(one_by_one) / 6, abs=1e-6)


def test_a_tie_pulls_scores_together() -> None:
    scores = torch.tensor([1.0, -1.0], requires_grad=True)
    index = torch.tensor([0])
    kwise_loss(scores, index, index + 1, torch.tensor([True]), torch.ones(1)).backward()
    assert scores.grad is not None
    assert scores.grad[0] > 0 > scores.grad[1]
    assert scores.grad.sum().abs() < 1e-6


def test_gradient_by_finite_differences() -> None:
    scores = torch.tensor([0.3, -0.4, 1.1], dtype=torch.float64, requires_grad=True)
    winners, losers = torch.tensor([0, 1, 0]), torch.tensor([1, 2, 2])
    ties, weights = torch.tensor([False, True, False]), torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: kwise_loss(s, winners, losers, ties, weights), [scores])
    assert torch.autograd.gradcheck(lambda s: centering_penalty(s, winners, losers, weights), [scores])


def test_strength_scales_around_one() -> None:
    assert [strength_factor(s) for s in (None, 0, 1, 2, 3)] == [1.0, 0.5, 1.0, 1.5, 2.0]


def test_a_flip_rate_by_hand_and_without_effect_at_zero() -> None:
    scores, first, second = torch.tensor([-2.0, 1.0]), torch.tensor([0]), torch.tensor([1])
    no, one = torch.tensor([False]), torch.ones(1)
    plain = kwise_loss(scores, first, second, no, one)
    assert kwise_loss(scores, first, second, no, one, torch.zeros(1)).item() == plain.item()
    likelihood = 0.8 / (1 + math.exp(3)) + 0.2 / (1 + math.exp(-3))
    found = kwise_loss(scores, first, second, no, one, torch.tensor([0.2])).item()
    assert found == pytest.approx(-math.log(likelihood), abs=1e-6)


@pytest.mark.parametrize("flips", [None, [0.0, 0.1, 0.4]])
@pytest.mark.parametrize("margins", [None, [0.0, 1 / 3, 1.0]])
@pytest.mark.parametrize("rule", ["half", "davidson", "rao_kupper"])
def test_gradients_by_finite_differences(
    rule: Ties, margins: list[float] | None, flips: list[float] | None
) -> None:
    scores = torch.tensor([0.4, -1.1, 2.0], dtype=torch.float64, requires_grad=True)
    tie = torch.tensor(-0.7, dtype=torch.float64, requires_grad=rule != "half")
    winners, losers = torch.tensor([0, 2, 1]), torch.tensor([1, 0, 2])
    ties = torch.tensor([False, False, True])
    weights = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    e, ahead = (None if x is None else torch.tensor(x, dtype=torch.float64) for x in (flips, margins))

    def loss(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        value = kwise_loss(s, winners, losers, ties, weights, e, ahead, rule, t)
        return value + centering_penalty(s, winners, losers, weights)

    assert torch.autograd.gradcheck(loss, (scores, tie))


@pytest.mark.parametrize("rule", ["davidson", "rao_kupper"])
def test_models_of_ties_are_distributions_and_start_at_the_share_of_ties(rule: Ties) -> None:
    margins = torch.linspace(-6, 6, 25, dtype=torch.float64)
    tie = tie_start(0.3).double()
    win, equal, loss = outcomes(margins, rule, tie)
    assert torch.allclose(win.exp() + equal.exp() + loss.exp(), torch.ones_like(margins))
    assert torch.allclose(win, loss.flip(0)) and torch.allclose(equal, equal.flip(0))
    assert equal[12].exp().item() == pytest.approx(0.3) and int(equal.argmax()) == 12


def test_ties_by_hand() -> None:
    margin = torch.tensor([1.0])
    nu, theta = 0.5, 1.5
    davidson = outcomes(margin, "davidson", torch.tensor(nu).log())
    whole = math.exp(0.5) + nu + math.exp(-0.5)
    assert [p.exp().item() for p in davidson] == pytest.approx(
        [math.exp(0.5) / whole, nu / whole, math.exp(-0.5) / whole]
    )
    rao = outcomes(margin, "rao_kupper", torch.tensor(theta - 1).log())
    win, loss = math.e / (math.e + theta), 1 / (1 + theta * math.e)
    assert [p.exp().item() for p in rao] == pytest.approx([win, (theta**2 - 1) * win * loss, loss])
    assert [tie_start(share).item() for share in (0.0, 0.3, 1.0)] == pytest.approx(
        [math.log(0.02 / 0.99), math.log(0.6 / 0.7), math.log(18)]
    )


def test_margins_by_hand() -> None:
    strengths = torch.tensor([0.0, 1.0, 3.0, math.nan])
    assert strength_margins(strengths).tolist() == pytest.approx([0, 1 / 3, 1, 0])
    scores, first = torch.tensor([2.0, 1.0]), torch.tensor([0])
    found = kwise_loss(
        scores,
        first,
        first + 1,
        torch.tensor([False]),
        torch.ones(1),
        margins=strength_margins(torch.tensor([3.0])),
    )
    assert found.item() == pytest.approx(math.log(2))  # ahead by just what is wanted


def test_all_bad_is_a_loss_against_nothing() -> None:
    scores = torch.tensor([0.0, 2.0, -3.0], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    loss = all_bad_loss(scores, weights)
    assert loss.item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(1 + math.exp(2)))
    loss.backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == pytest.approx([0.25, 0.5 / (1 + math.exp(-2)), 0.0])
    assert torch.autograd.gradcheck(lambda s: all_bad_loss(s, weights), scores)
