"""Which pairs DPO learns most from: a large gap that is certain. Not those that a reward model learns most from.

    score = |mean| - k sd        of the margin; seconds do not matter much, certainty does

the pessimistic gap: its lower bound. Large-gap rules lead for DPO and trail for reward models (ActiveUltraFeedback,
arXiv 2603.09692: DeltaUCB); the lower bound keeps the head's ignorance from passing as a gap.
"""

import numpy as np
from numpy.typing import NDArray

from palate.labeling.selection.information import checked
from palate.linear_head import Floats, LinearHead

PESSIMISM = 1.0  # standard deviations


def pessimistic_gaps(
    head: LinearHead, differences: NDArray[np.floating], pessimism: float = PESSIMISM
) -> Floats:
    """(n,) lower bound of the gap of each pair, in log-odds, for differences (n, D); below 0: the head cannot tell."""
    z = checked(differences)
    if z.size == 0:
        return np.zeros(len(z))
    mean, sd = head.margin(z)
    return np.asarray(np.abs(mean) - pessimism * sd)


def best_pair(head: LinearHead, features: NDArray[np.floating]) -> tuple[int, int, float] | None:
    """(better, worse, lower bound of the gap) of the pair with the largest one among a prompt's M completions (M, D);
    None where there are fewer than two."""
    x = checked(features)
    if len(x) < 2:
        return None
    first, second = np.triu_indices(len(x), 1)
    bounds = pessimistic_gaps(head, x[first] - x[second])
    place = int(np.argmax(bounds))
    a, b = int(first[place]), int(second[place])
    mean = float((x[a] - x[b]) @ head.mean)
    return (a, b, float(bounds[place])) if mean >= 0 else (b, a, float(bounds[place]))
