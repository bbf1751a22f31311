"""From scores to advantages: the arithmetic of PPO's rewards, as pure functions of tensors.

Everything is (B, T): B completions, T response tokens, right-padded, with a mask that is 1 on real tokens (the stop
token is one of them). Numbers in brackets are those of the 21 details in ppo.py.
"""

import torch
from torch import Tensor

LONGEST_RATIO = (
    10.0  # nats a log-ratio counts at most, in the estimators: exp of more is no estimate of anything
)
ADAPT_AT_MOST = 0.2  # of the adaptive coefficient, per horizon


def kl_rewards(logprobs: Tensor, reference: Tensor, coefficient: float, mask: Tensor) -> Tensor:
    """(B, T) minus `coefficient` (log policy - log reference) on every token [11]; Ziegler et al. 2019
    (https://arxiv.org/abs/1909.08593), eq. 2, token by token."""
    return -coefficient * (logprobs - reference) * mask


def add_scores(rewards: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
    """`rewards` (B, T) with `scores` (B,) added at each completion's last token [8, 11]."""
    last = mask.sum(1).long() - 1
    result = rewards.clone()
    result[torch.arange(len(scores), device=rewards.device), last] += scores
    return result


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """(advantages, returns), both (B, T) and 0 where the mask is [14, 15].

    Schulman et al. 2016 (https://arxiv.org/abs/1506.02438), eqs. 11 and 16: delta_t = r_t + gamma V_{t+1} - V_t and
    A_t = delta_t + gamma lam A_{t+1}; the value after the last token is 0. Returns are A + V, before any whitening.
    """
    rewards, values = rewards * mask, values * mask
    following = torch.zeros_like(rewards[:, 0])
    advantages = torch.zeros_like(rewards)
    for step in reversed(range(rewards.shape[1])):
        after = values[:, step + 1] if step + 1 < rewards.shape[1] else torch.zeros_like(following)
        delta = rewards[:, step] + gamma * after - values[:, step]
        following = (delta + gamma * lam * following) * mask[:, step]
        advantages[:, step] = following
    return advantages, (advantages + values) * mask


def whiten(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """Standard deviation 1 over the real tokens, and mean 0 if `shift_mean` [13]; biased variance, 0 under the mask."""
    count = mask.sum()
    mean = (values * mask).sum() / count
    variance = ((values - mean).square() * mask).sum() / count
    whitened = (values - mean) * torch.rsqrt(variance + 1e-8)
    return (whitened if shift_mean else whitened + mean) * mask


def overlong_penalty(lengths: Tensor, longest: int, buffer: int) -> Tensor:
    """(B,) in -1..0: falls linearly over the last `buffer` of `longest` tokens (Yu et al. 2025, DAPO,
    https://arxiv.org/abs/2503.14476, eq. 13). 0 for buffer 0."""
    if buffer <= 0:
        return torch.zeros_like(lengths, dtype=torch.float32)
    return ((longest - buffer - lengths) / buffer).clamp(-1.0, 0.0)


def kl_estimates(log_ratio: Tensor) -> tuple[Tensor, Tensor]:
    """(k1, k3) per token of KL(policy || reference), `log_ratio` = log policy - log reference at sampled tokens.

    k1 is unbiased and can be negative; k3 = exp(-x) - 1 + x is unbiased, never negative and, near the reference, of
    lower variance (Schulman 2020, http://joschu.net/blog/kl-approx.html) [21].
    """
    x = log_ratio.clamp(-LONGEST_RATIO, LONGEST_RATIO)
    return x, torch.expm1(-x) + x


def adapted(coefficient: float, kl: float, target: float, episodes: int, horizon: int) -> float:
    """The KL coefficient after a batch of `episodes` whose sequences were `kl` nats from the reference [12].

    Ziegler et al. 2019, section 2.2: beta (1 + clip(kl / target - 1, -0.2, 0.2) episodes / horizon).
    """
    error = min(max(kl / target - 1.0, -ADAPT_AT_MOST), ADAPT_AT_MOST)
    return coefficient * (1.0 + error * episodes / horizon)
