"""What the votes alone say about how much better a policy's answers have become, and how unsure that is.

A learned reward is exact where it was trained and guesses elsewhere, and a policy goes where the guesses are best. A Bayesian
linear head on *frozen* features of the start, fitted to the same votes, moves with nothing that is trained: its mean is a second
opinion, and its standard deviation grows as answers leave what people have ranked.

    belief = Belief.of(forward, rows, trees, budget)      # forward: the start; None where no vote decides
    belief.gain(states)                                   # (mean, standard deviation) over the first states it saw, log-odds
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.linear_head import LinearHead
from palate.models import Loaded
from palate.reward.features import Projection, states
from palate.sequences import EncodedTree
from palate.training import token_budget
from palate.tree import TreeForward

SIZE = 256  # principal components


@dataclass
class Belief:
    """A linear head on projected features; `start` are the mean features of the start's own answers."""

    projection: Projection
    head: LinearHead
    start: NDArray[np.float32] | None = None

    @classmethod
    def of(
        cls, forward: TreeForward, rows: Sequence[dict[str, Any]], trees: Sequence[EncodedTree], budget: int
    ) -> "Belief | None":
        """From rankings (rows of data.preferences) and their trees, read by the start's model."""
        pairs = [
            (index, pair) for index, row in enumerate(rows) for pair in row["pairs"]
            if pair["weight"] > 0 and not pair["tie"]
        ]  # fmt: skip
        if not pairs:
            return None
        raw = states(forward, trees, budget)
        projection = Projection.fit(np.concatenate(raw), SIZE)
        found = [projection.apply(one) for one in raw]
        differences = np.array([found[i][pair["winner"]] - found[i][pair["loser"]] for i, pair in pairs])
        weights = np.array([pair["weight"] * (1 - 2 * pair.get("flip", 0.0)) for _, pair in pairs])
        return cls(projection, LinearHead.by_evidence(differences, np.ones(len(pairs)), weights))

    def gain(self, raw: NDArray[np.floating]) -> tuple[float, float]:
        """(mean, standard deviation) in log-odds of how much better answers of mean states (H,) are than the first ones."""
        here = self.projection.apply(np.asarray(raw)[None])[0]
        if self.start is None:
            self.start = here
        mean, sd = self.head.margin((here - self.start)[None])
        return float(mean[0]), float(sd[0])


def mean_states(loaded: Loaded, start: TreeForward, trees: Sequence[EncodedTree]) -> NDArray[np.float32]:
    """(H,) mean over all completions of what the start's model reads in them."""
    found = states(start, trees, token_budget(loaded.model.config, loaded.hardware))
    mean: NDArray[np.float32] = np.concatenate(found).mean(axis=0)
    return mean
