"""Which comparison for whom: by comparative advantage.

A vote by an annotator of reliability eta has Fisher information c(eta, p) = [(2 eta - 1) p (1 - p)]^2 / [q (1 - q)] on
the margin, q = eta p + (1 - eta)(1 - p). For eta = 1 that is p (1 - p); for a flip rate above 0 it falls with the square
of p (1 - p) once the margin is large, since a rare answer is then more likely an error than news. So the unreliable lose
least where the order is open, and the rest is worth more with the reliable. It is a small effect: openness decides first.
"""

import numpy as np
from numpy.typing import NDArray

from palate.labeling.selection.information import pair_information
from palate.linear_head import Floats

LEAST = 0.55  # an annotator below it is treated as this reliable: everybody gets comparisons
FEW = 20  # votes before which nobody is told apart


def reliability(eta: NDArray[np.floating], votes: NDArray[np.number], typical: float = 0.9) -> Floats:
    """(K,) what to reckon with: eta (K,) once there are FEW votes (K,), moving there from `typical`, LEAST..1."""
    known = np.clip(np.asarray(votes, dtype=np.float64) / FEW, 0, 1)
    eta = np.where(np.isfinite(eta), eta, typical)
    return np.clip(known * eta + (1 - known) * typical, LEAST, 1.0)


def advantage(
    mean: NDArray[np.floating], sd: NDArray[np.floating], mine: float, others: NDArray[np.floating]
) -> Floats:
    """(n,) this annotator's information on each margin (mean (n,), sd (n,)) over the mean of all who are at work,
    `others` (K,) without this one; 1 where they are alone or as good as the rest."""
    everybody = np.append(np.asarray(others, dtype=np.float64), mine)
    usual = np.mean([pair_information(mean, sd, eta) for eta in everybody], axis=0)
    return np.asarray(pair_information(mean, sd, mine) / np.maximum(usual, 1e-12))
