"""Losses of proximal policy optimisation: pure functions of tensors over N response tokens.

Schulman et al. 2017 (https://arxiv.org/abs/1707.06347). Sums, not means: a minibatch is computed in micro-batches, and
divided by its number of tokens once (the token-level loss of DAPO, Yu et al. 2025, https://arxiv.org/abs/2503.14476,
eq. 8). Numbers in brackets are those of the 21 details in ppo.py.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class PolicyLoss(NamedTuple):
    """Sums over tokens; all but `loss` without gradient."""

    loss: Tensor
    clipped: Tensor  # tokens whose ratio was outside the clip range and whose gradient was cut
    ratio: Tensor
    ratio_squared: Tensor
    approx_kl: Tensor  # k3 of KL(old || new), of samples from the old


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
) -> PolicyLoss:
    """Clipped surrogate, eq. 7, negated and summed [17]; every tensor is (N,).

    `dual_clip` > 1: where an advantage is negative, the loss is at most `dual_clip` times its size (Ye et al. 2020,
    https://arxiv.org/abs/1912.09729, eq. 5).
    """
    log_ratio = logprobs - old_logprobs
    ratio = log_ratio.exp()
    plain = -advantages * ratio
    cut = -advantages * ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    losses = torch.maximum(plain, cut)
    if dual_clip is not None:
        losses = torch.where(advantages < 0, torch.minimum(losses, -dual_clip * advantages), losses)
    with torch.no_grad():
        clipped = (cut > plain).float().sum()
        approx_kl = (torch.expm1(log_ratio) - log_ratio).sum()
        sums = ratio.sum(), ratio.square().sum()
    return PolicyLoss(losses.sum(), clipped, *sums, approx_kl)


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None
) -> tuple[Tensor, Tensor]:
    """(half the squared error summed, number of clipped tokens); every tensor is (N,) [16].

    The larger of the plain error and that of values kept within `clip` of the old ones (the PPO2 code of OpenAI
    baselines); None: the plain one.
    """
    plain = (values - returns).square()
    if clip is None:
        return 0.5 * plain.sum(), torch.zeros((), device=values.device)
    near = old_values + (values - old_values).clamp(-clip, clip)
    kept = (near - returns).square()
    return 0.5 * torch.maximum(plain, kept).sum(), (kept > plain).float().sum().detach()


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over (N,) tokens: 1 is perfect, 0 no better than a constant [21]."""
    spread = float(returns.var(correction=0))
    return 1.0 - float((returns - values).var(correction=0)) / spread if spread > 0 else 0.0
