"""Losses of direct preference optimisation: pure functions of tensors.

A completion's implicit reward is beta times its log-ratio, log policy - log reference (Rafailov et al. 2023,
https://arxiv.org/abs/2305.18290, eq. 5, up to a constant of the prompt). Everything here is about margins between such
rewards. No models, no batching, no logging; `rl/objective.py` calls these.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from palate.reward.losses import Ties, outcomes

Loss = Literal["sigmoid", "ipo", "hinge", "robust"]


def implicit_rewards(policy: Tensor, reference: Tensor, beta: float, lengths: Tensor | None = None) -> Tensor:
    """(K,) from log-probabilities (K,) summed over tokens. With `lengths` (K,) tokens: of the mean over tokens instead, so
    that a long completion moves a margin no more than a short one (LN-DPO; Ahrabian et al. 2024,
    https://arxiv.org/abs/2411.04282 report it; as SimPO's eq. 4, Meng et al. 2024, but with a reference)."""
    ratio = policy - reference
    return beta * (ratio if lengths is None else ratio / lengths)


def pair_losses(
    margins: Tensor,
    loss: Loss = "sigmoid",
    flips: float | Tensor = 0.0,
    ahead: Tensor | None = None,
    ties: Tensor | None = None,
    rule: Ties = "half",
    tie: Tensor | None = None,
) -> Tensor:
    """(P,) losses of pairs by the margins (P,) of winner over loser.

    sigmoid: - (1 - e) log P(win) - e log P(loss), eq. 7 of Rafailov et al.; e = `flips`, 0 <= e < 0.5, the assumed share of
      flipped votes, one for all or one per pair (conservative DPO, Mitchell 2023, https://ericmitchell.ai/cdpo.pdf, eq. 3).
    robust: (- (1 - e) log P(win) + e log P(loss)) / (1 - 2 e), the unbiased estimate (Chowdhury et al. 2024,
      https://arxiv.org/abs/2403.00409, eq. 12). It divides by 1 - 2 e, so that the least reliable votes (e = 0.4) weigh five
      times as much, and has no lower bound. With each annotator's own e it learned less from 900 votes, four of ten
      annotators bad, than ignoring e (a linear stand-in for the policy on real features: 70.7 % of held-out pairs right,
      72.4 % ignoring e, 73.7 % conservative; standard error 1).
    hinge: max(0, 1 - margin) (SLiC, Zhao et al. 2023, https://arxiv.org/abs/2305.10425, eq. 2 on log-ratios).
    ipo: (margin - 1/2)^2, which is beta^2 times eq. 17 of Azar et al. 2023 (https://arxiv.org/abs/2310.12036; their tau is
      beta); margins are of means over tokens, as its authors told TRL's: pass rewards with lengths.

    `ahead` (P,) >= 0: what a winner has to be ahead by (ODPO, Amini et al. 2024, https://arxiv.org/abs/2402.10571, eq. 3).
    `ties` (P,) True = equally good, with a probability by `rule` and `tie` (reward.losses.outcomes); half a win and half a
    loss where the loss is not of probabilities (hinge, ipo).
    """
    e = torch.as_tensor(flips, dtype=margins.dtype, device=margins.device)
    lead = torch.zeros_like(margins) if ahead is None else ahead
    equal_to = torch.zeros_like(margins, dtype=torch.bool) if ties is None else ties
    if loss in ("sigmoid", "robust"):
        win, loses = outcomes(margins - lead, rule, tie)[0], outcomes(margins + lead, rule, tie)[2]
        sign = 1.0 if loss == "sigmoid" else -1.0
        found = -(1 - e) * win - sign * e * loses
        found = found if loss == "sigmoid" else found / (1 - 2 * e)
        return torch.where(equal_to, -outcomes(margins, rule, tie)[1], found)
    if loss == "hinge":
        right, wrong, even = F.relu(1 - margins + lead), F.relu(1 + margins + lead), F.relu(1 - margins)
        return torch.where(equal_to, 0.5 * (even + F.relu(1 + margins)), (1 - e) * right + e * wrong)
    target = 0.5 + lead
    found = (1 - e) * (margins - target).square() + e * (margins + target).square()
    return torch.where(equal_to, margins.square(), found)


def plackett_luce_losses(rewards: Tensor, terms: Sequence[tuple[int, Sequence[int]]]) -> Tensor:
    """(T,) - log P(chosen from itself and those below): rewards (K,), terms of (its place, the places it was put above).

    Plackett 1975 and Luce 1959 as a sequence of choices (Rafailov et al. 2023, eq. 18, appendix A.3): a ranking of K has
    K - 1 terms. Equal ones are no choice between each other; each of them is chosen from itself and what is below both.
    """
    width = max(len(below) for _, below in terms)
    places = torch.tensor([[chosen, *below, *[-1] * (width - len(below))] for chosen, below in terms])
    places = places.to(rewards.device)
    offered = torch.where(places >= 0, rewards[places.clamp(min=0)], -torch.inf)
    return offered.logsumexp(1) - offered[:, 0]
