"""Where a reward contradicts the votes most surely, what it and the votes lean to, and how far people agree.

Works on rows of data.preferences and scores per row, as accuracy.py does: numbers in, numbers out, no models.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from palate.reward.accuracy import FEW_GROUPS, Estimate, cluster_bootstrap, length_correlation

Row = dict[str, Any]
SHOWN = 10


@dataclass(frozen=True)
class Mistake:
    """One pair of answers that the reward orders against most of its votes."""

    prompt: str  # the last turn
    preferred: str  # by the votes
    rewarded: str  # by the reward
    margin: float  # reward of the second less that of the first, > 0
    votes_for: int  # the preferred one
    votes_against: int


@dataclass(frozen=True)
class Leans:
    """Pearson's r of rewards with length, and how often votes and rewards take the longer or the first shown.

    None where nothing varies, or no vote says which answer was shown first. Shares are of decided pairs, 0..1.
    """

    reward_length: float | None
    votes_longer: float | None
    reward_longer: float | None
    votes_first: float | None
    reward_first: float | None  # the reward never sees the order: this is what chance and content give

    def record(self) -> dict[str, Any]:
        """Plain values for a run's record."""
        return asdict(self)


def mistakes(rows: Sequence[Row], scores: Sequence[Sequence[float]], most: int = SHOWN) -> list[Mistake]:
    """The pairs that the reward is surest of and most voters contradict, the surest first; ties of votes left out."""
    found = []
    for row, given in zip(rows, scores, strict=True):
        counts = _decided(row)
        for (winner, loser), votes in counts.items():
            margin = given[loser] - given[winner]
            if votes > counts[loser, winner] and margin > 0:
                asked = json.loads(row["messages"])[-1]["content"]
                texts = row["completions"]
                found.append(
                    Mistake(asked, texts[winner], texts[loser], margin, votes, counts[loser, winner])
                )
    return sorted(found, key=lambda one: (-one.margin, one.prompt, one.preferred))[:most]


def leans(rows: Sequence[Row], scores: Sequence[Sequence[float]]) -> Leans:
    """What rewards and votes lean to, on the same decided pairs."""
    longer: list[tuple[float, float]] = []
    first: list[tuple[float, float]] = []
    for row, given in zip(rows, scores, strict=True):
        for pair in row["pairs"]:
            if pair["tie"]:
                continue
            winner, loser = pair["winner"], pair["loser"]
            side = 0.5 * (1 + float(np.sign(given[winner] - given[loser])))  # 1: the reward takes the winner
            length = float(np.sign(len(row["completions"][winner]) - len(row["completions"][loser])))
            if length:
                longer.append((float(length > 0), side if length > 0 else 1 - side))
            if pair.get("shown_first") is not None:
                shown = bool(pair["shown_first"])
                first.append((float(shown), side if shown else 1 - side))
    by_length = np.mean(longer, axis=0).tolist() if longer else [None, None]
    by_side = np.mean(first, axis=0).tolist() if first else [None, None]
    return Leans(length_correlation(rows, scores), *by_length, *by_side)


def majority_rule(rows: Sequence[Row]) -> tuple[Estimate, int] | None:
    """How often a vote agrees with the majority of the *other* votes on its pair, and on how many votes that is.

    The annotators' ceiling: no reward that learns from such votes can be expected to foretell single ones much more
    often. An even split of the others is right by half. None when no pair has two decided votes.
    """
    by_group = len({row["group"] for row in rows}) >= FEW_GROUPS
    outcomes: list[float] = []
    names: list[str] = []
    for row in rows:
        counts = _decided(row)
        for (winner, loser), votes in counts.items():
            others = votes - 1 - counts[loser, winner]
            if votes + counts[loser, winner] > 1:
                outcomes += [0.5 * (1 + float(np.sign(others)))] * votes
                names += [row["group" if by_group else "comparison_id"]] * votes
    if not outcomes:
        return None
    _, clusters = np.unique(names, return_inverse=True)
    return cluster_bootstrap(np.array(outcomes), clusters), len(outcomes)


def _decided(row: Row) -> Counter[tuple[int, int]]:
    """Votes by (winner, loser), ties left out."""
    return Counter((pair["winner"], pair["loser"]) for pair in row["pairs"] if not pair["tie"])
