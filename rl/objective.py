"""What `palate dpo` minimises: the loss of rankings, from one forward pass over their prompt trees.

objective = Objective(beta=0.3)
loss, stats = objective.sums(forward, known, rows)         # weighted sums over the pairs of these rows
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from palate.reward.losses import Ties, strength_factor, strength_margins
from palate.rl.losses import Loss, implicit_rewards, pair_losses, plackett_luce_losses
from palate.sequences import EncodedTree
from palate.training import Pairs, Stats
from palate.tree import TreeForward

Pair = dict[str, Any]


@dataclass(frozen=True)
class Preferences:
    """Rankings ready for DPO, row by row: trees, the pairs that count, what the reference thinks of the completions."""

    trees: list[EncodedTree]
    pairs: list[list[Pair]]
    reference: list[Tensor]  # (K,) log-probabilities

    def weights(self) -> list[float]:
        """What each ranking adds to a batch's weight."""
        return [sum(pair["weight"] for pair in pairs) for pairs in self.pairs]


@dataclass(frozen=True)
class Objective:
    """See the settings of the same names (config.DpoConfig)."""

    beta: float
    loss: Loss = "sigmoid"
    label_smoothing: float = 0.0
    ties: Ties = "drop"
    strength: Literal["ignore", "scale", "margin"] = "ignore"
    length_normalised: bool = False
    sft_weight: float = 0.0
    plackett_luce: bool = False
    tie: nn.Parameter | None = None  # of the model of ties

    def counting(self, pairs: Sequence[Pair]) -> list[Pair]:
        """The pairs of a row that the loss is of, with the weight that strength gives them."""
        kept = [pair for pair in pairs if not (pair["tie"] and self.ties == "drop")]
        if self.strength != "scale":
            return kept
        return [{**pair, "weight": pair["weight"] * strength_factor(pair.get("strength"))} for pair in kept]

    def sums(self, forward: TreeForward, known: Preferences, rows: Sequence[int]) -> tuple[Tensor, Stats]:
        """Weighted sums over the pairs of `rows`: the loss, and what to watch."""
        trees = [known.trees[row] for row in rows]
        policy = torch.cat(forward.logprobs(trees))
        reference = torch.cat([known.reference[row] for row in rows])
        lengths = torch.tensor([len(c) for tree in trees for c in tree.completions], device=policy.device)
        sizes = [len(tree.completions) for tree in trees]
        some = [known.pairs[row] for row in rows]
        pairs = Pairs.of(some, sizes, policy.device)
        by_token = self.length_normalised or self.loss == "ipo"
        rewards = implicit_rewards(policy, reference, self.beta, lengths if by_token else None)
        if self.plackett_luce:
            loss = _ranked(rewards, some, sizes)
        else:
            loss = (pairs.weights * self._pairs(rewards, pairs)).sum()
        if self.sft_weight:
            loss = loss + self.sft_weight * _imitation(policy / lengths, some, sizes)
        return loss, self._watched(policy.detach() - reference, rewards.detach(), lengths, pairs)

    def start(self, known: Preferences, rows: Sequence[int]) -> float:
        """The loss of `rows` per weight where the policy is its reference, less the imitation of --sft-weight."""
        sizes = [len(known.trees[row].completions) for row in rows]
        some = [known.pairs[row] for row in rows]
        rewards = torch.zeros(sum(sizes))
        pairs = Pairs.of(some, sizes, rewards.device)
        tie = None if self.tie is None else self.tie.detach().cpu()
        with torch.no_grad():
            each = (
                _ranked(rewards, some, sizes)
                if self.plackett_luce
                else (pairs.weights * self._pairs(rewards, pairs, tie)).sum()
            )
        return float(each) / sum(known.weights()[row] for row in rows)

    def _pairs(self, rewards: Tensor, pairs: Pairs, tie: Tensor | None = None) -> Tensor:
        """(P,)."""
        margins = rewards[pairs.winners] - rewards[pairs.losers]
        ahead = strength_margins(pairs.strengths) if self.strength == "margin" else None
        rule: Ties = "half" if self.ties == "drop" else self.ties
        tie = self.tie if tie is None else tie
        if self.loss == "ipo":  # its margins aim at 1 / (2 beta) before they are multiplied by beta
            return (
                pair_losses(margins, "ipo", pairs.flips.clamp(min=self.label_smoothing), ahead, pairs.ties)
                / self.beta**2
            )
        return pair_losses(
            margins, self.loss, pairs.flips.clamp(min=self.label_smoothing), ahead, pairs.ties, rule, tie
        )

    def _watched(self, ratios: Tensor, rewards: Tensor, lengths: Tensor, pairs: Pairs) -> Stats:
        won, lost = pairs.winners, pairs.losers
        equal = pairs.ties | (rewards[won] == rewards[lost])
        watched = torch.stack(
            [
                torch.where(equal, 0.5, (rewards[won] > rewards[lost]).float()),
                rewards[won] - rewards[lost],
                ratios[won] / lengths[won],
                ratios[lost] / lengths[lost],
                ratios[won].abs(),
            ]
        )
        names = ("accuracy", "margin", "chosen_nats_per_token", "rejected_nats_per_token", "distance")
        return dict(zip(names, (pairs.weights * watched).sum(1).tolist(), strict=True))


def _ranked(rewards: Tensor, rows: Sequence[Sequence[Pair]], sizes: Sequence[int]) -> Tensor:
    """Plackett-Luce over the rankings of all votes; a vote's terms share its weight."""
    terms: list[tuple[int, list[int]]] = []
    weights: list[float] = []
    offset = 0
    for pairs, size in zip(rows, sizes, strict=True):
        for vote in dict.fromkeys(pair["vote_id"] for pair in pairs):
            own = [pair for pair in pairs if pair["vote_id"] == vote and not pair["tie"]]
            below: dict[int, list[int]] = {}
            for pair in own:
                below.setdefault(pair["winner"], []).append(offset + pair["loser"])
            terms += [(offset + winner, losers) for winner, losers in below.items()]
            weights += [sum(pair["weight"] for pair in own) / len(below)] * len(below)
        offset += size
    losses = plackett_luce_losses(rewards, terms)
    return (torch.tensor(weights, device=rewards.device) * losses).sum()


def _imitation(mean_logprobs: Tensor, rows: Sequence[Sequence[Pair]], sizes: Sequence[int]) -> Tensor:
    """Negative log-likelihood per token of what no vote puts below anything, weighed like its row (Pang et al. 2024, Iterative
    RPO, https://arxiv.org/abs/2404.19733, eq. 1)."""
    total = torch.zeros((), device=mean_logprobs.device)
    offset = 0
    for pairs, size in zip(rows, sizes, strict=True):
        decided = [pair for pair in pairs if not pair["tie"]]
        lost, won = {pair["loser"] for pair in decided}, {pair["winner"] for pair in decided}
        top = sorted(won - lost) or sorted(won)
        if top:
            weight = sum(pair["weight"] for pair in pairs)
            total = total - weight * mean_logprobs[[offset + place for place in top]].mean()
        offset += size
    return total
