"""Losses of the reward model: pure functions of tensors.

No models, no batching here; `reward/train.py` calls these. Deliberate choices:
1. A tie counts as half a win each way (Rao & Kupper's extra parameter is not worth its data here).
2. How much better the winner was (strength) scales a pair's weight, as in the scaled Bradley-Terry loss of
   HelpSteer2-Preference (Wang et al. 2024, https://arxiv.org/abs/2410.01257, section 3.2), where it beat a margin.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def kwise_loss(
    scores: Tensor,
    winners: Tensor,
    losers: Tensor,
    ties: Tensor,
    weights: Tensor,
    flips: Tensor | None = None,
) -> Tensor:
    """Weighted sum of Bradley-Terry losses over P pairs among K scored completions.

    scores (K,); winners, losers (P,) indices into them; ties (P,) True = equally good; weights (P,) >= 0; flips (P,)
    0 <= e < 0.5: how likely a vote names the wrong one. Its likelihood is then (1 - e) sigmoid(m) + e sigmoid(-m) for
    the margin m, which no vote can make smaller than e: a wrong one pulls less the surer the others are, where label
    smoothing would pull all margins together.
    Ouyang et al. 2022 (https://arxiv.org/abs/2203.02155), eq. 1: all C(K, 2) pairs of one ranking come from one
    forward pass, - log sigmoid(score of the winner - score of the loser), each weighted by 1 / C(K, 2).
    Rankings of several prompts may be concatenated, with indices moved accordingly.
    """
    margins = scores[winners] - scores[losers]
    wins, reverse = F.logsigmoid(margins), F.logsigmoid(-margins)
    believed = (
        wins if flips is None else torch.logaddexp(torch.log1p(-flips) + wins, torch.log(flips) + reverse)
    )
    losses = -believed.where(~ties, 0.5 * (wins + reverse))
    return (weights * losses).sum()


def centering_penalty(scores: Tensor, winners: Tensor, losers: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum over P pairs of (score of one + score of the other)^2; shapes as in `kwise_loss`.

    Preferences fix scores only up to a constant; this pulls the constant towards zero (Eisenstein et al. 2023,
    https://arxiv.org/abs/2312.09244, section 2).
    """
    return (weights * (scores[winners] + scores[losers]).square()).sum()


def strength_factor(strength: int | None) -> float:
    """What a pair's weight is multiplied by: 0.5 (hardly better), 1, 1.5, 2 (much better); 1 when not asked."""
    return 1.0 if strength is None else (1 + strength) / 2
