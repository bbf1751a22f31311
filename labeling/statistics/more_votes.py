"""What more votes would buy: how far the interval of a difference between two models would narrow.

Spread over all pairs as the votes so far, n more votes on top of N shrink it by sqrt(N / (N + n)). All given to the
two models, each adds the information w of one vote at their difference, so the variance V becomes V / (1 + n w k),
where k is the variance by inverse information (the formula of a matrix with one row added, Sherman and Morrison
1950); the design effect V / k stays.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import ceil, sqrt

import numpy as np

from palate.labeling.statistics.bradley_terry import Strengths, chances
from palate.labeling.statistics.measures import Z95


@dataclass(frozen=True)
class Doubt:
    """Two models whose order is asked about."""

    better: int  # model
    worse: int
    difference: float  # of beta
    se: float
    votes: float  # that were fitted
    gain: float  # w k: the information of one more vote between the two, relative to what is there

    @property
    def settled(self) -> bool:
        """The 95 % interval of the difference leaves out 0."""
        return self.difference > Z95 * self.se

    def spread(self, more: float) -> float:
        """Half the interval's width when `more` votes are spread as those so far."""
        return Z95 * self.se * sqrt(self.votes / (self.votes + more))

    def focused(self, more: float) -> float:
        """Half the interval's width when `more` votes are all between the two."""
        return Z95 * self.se / sqrt(1 + more * self.gain)

    @property
    def needed_spread(self) -> int | None:
        """Votes, spread, that would settle the order were the difference as found; None if it is 0."""
        return ceil(self.votes * self._lacking) if self.difference > 0 else None

    @property
    def needed_focused(self) -> int | None:
        """Votes between the two that would settle it."""
        return ceil(self._lacking / self.gain) if self.difference > 0 else None

    @property
    def _lacking(self) -> float:
        return max(0.0, (Z95 * self.se / self.difference) ** 2 - 1)


def doubt(fit: Strengths, better: int, worse: int, votes: float) -> Doubt:
    """About two scored models."""
    difference, se = fit.difference(better, worse)
    lead, tie = chances(np.array([difference]), fit.nu)
    information = float(1 - tie[0] - lead[0] ** 2) / 4
    inverse = fit.inverse
    k = float(inverse[better, better] + inverse[worse, worse] - 2 * inverse[better, worse])
    return Doubt(better, worse, difference, se, votes, information * k)


def open_order(fit: Strengths, order: list[int], votes: float) -> Doubt | None:
    """The first two neighbours in the ranking whose order isn't settled; None if all are.

    order: scored models, best first.
    """
    for better, worse in pairwise(order):
        found = doubt(fit, better, worse, votes)
        if not found.settled:
            return found
    return None
