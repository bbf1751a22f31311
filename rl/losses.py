"""Losses of direct preference optimisation: pure functions of tensors.

No models, no batching, no logging here; `rl/dpo.py` calls these.
"""

import torch.nn.functional as F
from torch import Tensor


def dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    beta: float,
    label_smoothing: float | Tensor = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and implicit rewards of P pairs; every tensor is (P,).

    Rafailov et al. 2023 (https://arxiv.org/abs/2305.18290), eq. 7: - log sigmoid(beta (log-ratio of the chosen
    completion - log-ratio of the rejected one)), log-ratio = log policy - log reference, summed over the tokens.
    `label_smoothing` is the assumed share of flipped votes, 0 <= e < 0.5, one for all or one per pair (conservative
    DPO, Mitchell 2023, https://ericmitchell.ai/cdpo.pdf, eq. 3). Not the unbiased estimate of robust DPO (Chowdhury
    et al. 2024, https://arxiv.org/abs/2403.00409, eq. 12): it divides by 1 - 2 e, so that the least reliable votes
    (e = 0.4) weigh five times as much, and has no lower bound. With each annotator's own e it learned less from 900
    votes, four of ten annotators bad, than ignoring e (a linear stand-in for the policy on real features: 70.7 % of
    held-out pairs right, 72.4 % ignoring e, 73.7 % conservative; standard error 1).

    Returns (losses, chosen rewards, rejected rewards); a reward is beta times its log-ratio (eq. 5, up to a
    constant of the prompt) and carries no gradient.
    """
    chosen_rewards = beta * (policy_chosen_logps - reference_chosen_logps)
    rejected_rewards = beta * (policy_rejected_logps - reference_rejected_logps)
    margins = chosen_rewards - rejected_rewards
    losses = -(1 - label_smoothing) * F.logsigmoid(margins) - label_smoothing * F.logsigmoid(-margins)
    return losses, chosen_rewards.detach(), rejected_rewards.detach()
