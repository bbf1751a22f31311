"""Does somebody vote against the run of everybody's votes? A test that assumes nothing about models or annotators.

Each vote gets a p-value: how unusual it is among the earlier votes on the same two models. If all votes on two models
are exchangeable these are independent and uniform (conformal p-values; Vovk et al. 2005, "Algorithmic Learning in a
Random World", prop. 2.8), so Fisher's -2 sum log p of one annotator is chi-square. Chiang et al. 2024
(arXiv:2403.04132, section 5.4) find anomalous users so.

Numbered deviations:
1. A vote is the more unusual the more it favours the model that usually loses; in the paper, the model named second.
2. Equal votes share their rank at random (a fixed hash of the vote), else almost every p-value would be 1 and the test
   would see little: three outcomes are all there are.
3. The paper looks at 5 random moments among the first 100 votes, each at a fifth of the level. Here it is after 25, 50,
   100, 200, ... votes, the i-th at 1 / (i (i + 1)) of the level, so that it can go on for ever.
4. The published code multiplies 1 / (2 p) instead. That is no test at its stated level when there are ties: the
   product may grow with votes like everybody's (see the test of this file).
"""

import numpy as np
from numpy.typing import NDArray

from palate.labeling.statistics.grouped import Floats, Ints

FIRST = 25  # votes at which it is first looked


def unusual(pair: Ints, outcome: Ints, luck: Floats) -> Floats:
    """(V,) p-values of votes in order of arrival: small = against the run of earlier votes on the same pair of models.

    pair (V,): code >= 0 of two models, sorted fastest as 16 bits; outcome (V,): 1 the first of them won, 0 tie, -1 the
    second; luck (V,): in 0..1, uniform and fixed for each vote.
    """
    order = np.argsort(pair, kind="stable")
    runs, won = pair[order], outcome[order]
    starts = np.flatnonzero(np.append(True, runs[1:] != runs[:-1])[: len(runs)])
    sizes = np.diff(np.append(starts, len(order)))
    # this vote included
    total = np.arange(1, len(order) + 1, dtype=np.int32) - np.repeat(starts, sizes).astype(np.int32)
    first = _until_now(won > 0, starts, sizes)
    ties = _until_now(won == 0, starts, sizes)
    # against whom a vote goes is judged by the votes up to and with this one: swapping any of them changes nothing
    ahead = 2 * first >= total - ties
    against = np.where(ahead, total - ties - first, first)
    leaning = np.where(ahead, won, -won)  # 1 for the usual winner, 0 a tie, -1 against
    more = np.where(leaning < 0, 0, np.where(leaning == 0, against, against + ties))
    same = np.where(leaning < 0, against, np.where(leaning == 0, ties, total - against - ties))
    p = np.empty(len(order))
    p[order] = (more + luck[order] * same) / total
    return np.maximum(p, 1e-12)


def anomalous(annotator: Ints, p: Floats, annotators: int) -> tuple[Floats, Floats]:
    """((K,) p-values that the annotator votes like everybody, (K,) votes): Fisher's method at the set moments.

    annotator (V,), p (V,): the votes in order of arrival, as from `unusual`. Fewer than 25 votes: p-value 1.
    """
    from scipy.special import gammaincc

    order = np.argsort(annotator, kind="stable")
    n = np.bincount(annotator, minlength=annotators)
    starts = np.cumsum(n) - n
    run = np.append(0.0, -np.log(p[order]).cumsum())
    found = np.ones(annotators)
    look, at = 1, FIRST
    while at <= n.max(initial=0):
        able = np.flatnonzero(n >= at)
        surprise = run[starts[able] + at] - run[starts[able]]
        # -2 sum log p is chi-square with 2 j degrees of freedom: its upper tail at 2 s is Q(j, s)
        found[able] = np.minimum(found[able], look * (look + 1) * gammaincc(at, surprise))
        look, at = look + 1, 2 * at
    return found, n.astype(np.float64)


def _until_now(marked: NDArray[np.bool_], starts: Ints, sizes: Ints) -> NDArray[np.int32]:
    """(V,) marked votes of the same run up to each, itself included."""
    total = np.cumsum(marked, dtype=np.int32)
    before = total[starts] - marked[starts]
    return total - np.repeat(before, sizes).astype(np.int32)
