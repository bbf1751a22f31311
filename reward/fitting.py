"""Fitting a reward model to rankings: weights of pairs, the loss of a micro-batch, when to stop, learning rates.

Not here: the run around it (train.py), the losses themselves (losses.py), the loop (palate.training).
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from palate.checkpoints import Checkpoints
from palate.config import RewardConfig, UserError
from palate.reward.accuracy import Row
from palate.reward.losses import (
    all_bad_loss,
    centering_penalty,
    kwise_loss,
    strength_factor,
    strength_margins,
    tie_start,
)
from palate.reward.model import Method, RewardModel
from palate.sequences import EncodedTree
from palate.training import Judge, Pairs, Stats, batches, fit, token_budget
from palate.tree_packing import micro_batches

FEW_GROUPS = 50  # below, nothing is held back to stop early: every vote is needed, and a handful says nothing
Item = TypeVar("Item")


def train_on(
    model: RewardModel,
    rows: Sequence[Row],
    trees: Sequence[EncodedTree],
    config: RewardConfig,
    log: Callable[..., None],
    checkpoints: Checkpoints | None = None,
) -> list[Stats]:
    """Fit the adapter and the head to the pairs of `rows`; returns the figures of each step. Rows that weigh nothing
    (all their votes are by annotators below chance) are passed over.

    With more than one epoch, a tenth of the groups is held back to say which epoch is best (fit's `judge`).
    """
    factor = strength_factor if config.strength == "scale" else lambda _: 1.0
    weighted = [
        [
            {**pair, "weight": pair["weight"] * factor(pair["strength"])}
            for pair in row["pairs"]
            if not (pair["tie"] and config.ties == "drop")
        ]
        for row in rows
    ]
    bad = [float(row.get("all_bad") or 0) if config.all_bad == "below" else 0.0 for row in rows]
    weights = [
        sum(pair["weight"] for pair in pairs) + more for pairs, more in zip(weighted, bad, strict=True)
    ]
    heavy = [i for i, weight in enumerate(weights) if weight > 0]
    weighted, trees, rows = pick(weighted, heavy), pick(trees, heavy), pick(rows, heavy)
    bad, weights = pick(bad, heavy), pick(weights, heavy)
    if not any(pair["weight"] > 0 and not pair["tie"] for pairs in weighted for pair in pairs):
        raise UserError(
            "no vote that counts says what is better: all are ties, or by annotators below chance "
            "(--annotator-model off takes those)"
        )
    if config.ties in ("davidson", "rao_kupper"):
        model.tie = nn.Parameter(tie_start(_tie_share(weighted)).to(model.head.weight.device))
    learned, held_back = held_back_groups(rows) if config.epochs > 1 else (list(range(len(rows))), [])

    def micro_loss(picked: list[int]) -> tuple[Tensor, Stats]:
        return _losses(model, pick(trees, picked), pick(weighted, picked), pick(bad, picked), config)

    def score() -> float:  # the log-likelihood of the votes that were held back
        groups = micro_batches(pick(trees, held_back), budget)
        with torch.no_grad():
            losses = [micro_loss([held_back[i] for i in group])[0].item() for group in groups]
        return -float(sum(losses) / sum(weights[i] for i in held_back))

    rate = config.learning_rate or default_learning_rate(model.loaded.weights, config.method, config.layers)
    budget = token_budget(model.loaded.model.config, model.loaded.hardware)
    steps = [
        [learned[i] for i in step]
        for step in batches(len(learned), config.batch_size, config.epochs, config.seed)
    ]
    judge = Judge(math.ceil(len(learned) / config.batch_size), score) if held_back else None
    return fit(
        "reward", model.modules, trees, weights, steps, micro_loss, rate, budget, log, checkpoints, judge
    )


def held_back_groups(rows: Sequence[Row]) -> tuple[list[int], list[int]]:
    """(rows to learn from, rows that say when to stop): a tenth of the groups by hash, none where groups are few."""
    groups = sorted(
        {row["group"] for row in rows}, key=lambda group: hashlib.sha256(f"stop:{group}".encode()).digest()
    )
    if len(groups) < FEW_GROUPS:
        return list(range(len(rows))), []
    back = set(groups[: len(groups) // 10])
    return (
        [i for i, row in enumerate(rows) if row["group"] not in back],
        [i for i, row in enumerate(rows) if row["group"] in back],
    )


def _losses(
    model: RewardModel,
    trees: Sequence[EncodedTree],
    rankings: Sequence[Sequence[Row]],
    bad: Sequence[float],
    config: RewardConfig,
) -> tuple[Tensor, Stats]:
    """Weighted sums over the pairs of some rankings: the loss, and what to watch. `bad`: votes that all is bad."""
    scores = model.raw_scores(trees)
    pairs = Pairs.of(rankings, [len(tree.completions) for tree in trees], scores.device)
    ahead = strength_margins(pairs.strengths) if config.strength == "margin" else None
    loss = kwise_loss(
        scores,
        pairs.winners,
        pairs.losers,
        pairs.ties,
        pairs.weights,
        pairs.flips,
        ahead,
        config.ties,
        model.tie,
    )
    penalty = centering_penalty(scores, pairs.winners, pairs.losers, pairs.weights)
    margins = (scores[pairs.winners] - scores[pairs.losers]).detach()
    right = (pairs.weights * torch.where(pairs.ties, 0.5, (margins > 0).float())).sum().item()
    if any(bad):
        shares = [
            votes / len(tree.completions)
            for votes, tree in zip(bad, trees, strict=True)
            for _ in tree.completions
        ]
        loss = loss + all_bad_loss(scores, torch.tensor(shares, dtype=scores.dtype, device=scores.device))
    return loss + config.center * penalty, {"accuracy": right}


def default_learning_rate(weights: int, method: Method, layers: int = 0) -> float:
    """Peak rate by method and the model's size; measured up to 20M weights, customary above."""
    if method == "freeze" and not layers:
        return 1e-2
    rate = 1e-3 if weights < 20e6 else 2e-4 if weights < 1e9 else 1e-4
    return rate if method == "lora" else rate / 10


def _tie_share(rankings: Sequence[Sequence[Row]]) -> float:
    """How much of the weight is tied."""
    pairs = [pair for ranking in rankings for pair in ranking]
    return float(sum(p["weight"] for p in pairs if p["tie"]) / sum(p["weight"] for p in pairs))


def pick(items: Sequence[Item], indices: Sequence[int]) -> list[Item]:
    """The items at these places."""
    return [items[i] for i in indices]
