"""Losses of the reward model: pure functions of tensors.

No models, no batching here; `reward/train.py` calls these. Deliberate choices:
1. How much better the winner was (strength) scales a pair's weight, as in the scaled Bradley-Terry loss of
   HelpSteer2-Preference (Wang et al. 2024, https://arxiv.org/abs/2410.01257, section 3.2), where it beat a margin; a
   margin can be asked for.
2. A tie counts as half a win each way unless a model of ties is asked for: with few ties its parameter is not worth
   its data.
3. A vote that is wrong with probability e has likelihood (1 - e) P(win) + e P(loss), which no vote can make smaller than
   about e: a wrong one pulls less the surer the others are. Label smoothing would pull all margins together instead.
4. "All bad" orders nothing; it is a loss of every answer against an average one, not a tie.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Ties = Literal["half", "davidson", "rao_kupper", "drop"]
FEWEST_TIES, MOST_TIES = 0.01, 0.9  # shares between which a model of ties starts


def kwise_loss(
    scores: Tensor,
    winners: Tensor,
    losers: Tensor,
    ties: Tensor,
    weights: Tensor,
    flips: Tensor | None = None,
    margins: Tensor | None = None,
    rule: Ties = "half",
    tie: Tensor | None = None,
) -> Tensor:
    """Weighted sum of the negative log-likelihoods of P pairs among K scored completions.

    scores (K,); winners, losers (P,) indices into them; ties (P,) True = equally good; weights (P,) >= 0; flips (P,)
    0 <= e < 0.5: how likely a vote names the wrong one; margins (P,) >= 0: what a winner must be ahead by (Touvron et al.
    2023, https://arxiv.org/abs/2307.09288, eq. 2); `rule` and `tie` as in `outcomes`.
    Ouyang et al. 2022 (https://arxiv.org/abs/2203.02155), eq. 1: all C(K, 2) pairs of one ranking come from one
    forward pass, - log sigmoid(score of the winner - score of the loser), each weighted by 1 / C(K, 2).
    Rankings of several prompts may be concatenated, with indices moved accordingly.
    """
    found = scores[winners] - scores[losers]
    ahead = torch.zeros_like(found) if margins is None else margins
    believed, equal, _ = outcomes(found - ahead, rule, tie)
    if flips is not None:
        reverse = outcomes(found + ahead, rule, tie)[2]
        believed = torch.logaddexp(torch.log1p(-flips) + believed, torch.log(flips) + reverse)
    if margins is not None:
        equal = outcomes(found, rule, tie)[1]
    return (weights * -believed.where(~ties, equal)).sum()


def all_bad_loss(scores: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum over K completions of votes that found them bad: scores (K,), weights (K,) >= 0.

    Each loses, by Bradley-Terry, to an imagined answer of score 0: - log sigmoid(-score). Pairs fix scores up to a
    constant, and centring keeps their mean near 0; these votes say which prompts lie below it as a whole.
    """
    return (weights * F.softplus(scores)).sum()


def outcomes(
    margins: Tensor, rule: Ties = "half", tie: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities (win, tie, loss) of one completion against another, by margins m (P,) of their scores.

    half: Bradley-Terry, a tie is half a win and half a loss. davidson (1970, J. Am. Stat. Assoc. 65, eq. 2.3): win, tie
    and loss as e^(m/2) : nu : e^(-m/2), `tie` = log nu. rao_kupper (1967, J. Am. Stat. Assoc. 62, eq. 2.2): a win takes
    log theta more, P(win) = sigmoid(m - log theta), theta = 1 + e^`tie`.
    """
    if rule == "davidson":
        assert tie is not None
        parts = torch.stack([margins / 2, tie.expand_as(margins), -margins / 2])
        win, equal, loss = parts - parts.logsumexp(0)
        return win, equal, loss
    if rule == "rao_kupper":
        assert tie is not None
        lead = F.softplus(tie)  # log theta
        win, loss = F.logsigmoid(margins - lead), F.logsigmoid(-margins - lead)
        return win, torch.log(torch.expm1(2 * lead)) + win + loss, loss
    win, loss = F.logsigmoid(margins), F.logsigmoid(-margins)
    return win, 0.5 * (win + loss), loss


def tie_start(share: float) -> Tensor:
    """The parameter `tie` at which equal completions tie as often as `share` (0..1) of the votes do, in either model:
    nu / (2 + nu) = share, (theta - 1) / (theta + 1) = share."""
    share = min(max(share, FEWEST_TIES), MOST_TIES)
    return torch.tensor(2 * share / (1 - share)).log()


def centering_penalty(scores: Tensor, winners: Tensor, losers: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum over P pairs of (score of one + score of the other)^2; shapes as in `kwise_loss`.

    Preferences fix scores only up to a constant; this pulls the constant towards zero (Eisenstein et al. 2023,
    https://arxiv.org/abs/2312.09244, section 2).
    """
    return (weights * (scores[winners] + scores[losers]).square()).sum()


def strength_factor(strength: int | None) -> float:
    """What a pair's weight is multiplied by: 0.5 (hardly better), 1, 1.5, 2 (much better); 1 when not asked."""
    return 1.0 if strength is None else (1 + strength) / 2


def strength_margins(strengths: Tensor) -> Tensor:
    """(P,) margins of strengths 0..3: 0, 1/3, 2/3, 1, the "small" margins of Touvron et al. 2023, table 27; 0 where
    nobody said (NaN)."""
    return strengths.nan_to_num(0.0) / 3
