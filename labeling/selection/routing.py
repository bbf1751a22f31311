"""Which comparison for whom: hard ones to the reliable, easy ones to everybody else.

A vote of an annotator of reliability eta is worth c_k z' S z, and c_k falls off faster where the comparison is close
(p = 1/2): c at eta 0.7 is 0.16 of c at 1 there, and more of it where p is far from 1/2 is lost as well. So each
person's own scores decide what they get (`information.gains(..., eta=reliability)`), and among those of about equal
score `advantage` keeps for others what others would do better.
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
