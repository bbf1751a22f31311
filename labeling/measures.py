"""The maths of vote statistics: intervals for shares, agreement between annotators. Pure functions, no store.

A figure that can't be computed is None beside a sentence that says why; nothing here returns NaN.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

Z95 = 1.959963984540054  # the normal quantile of a two-sided 95 % interval


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval; `value` is None when there is nothing to share out."""

    value: float | None
    low: float | None
    high: float | None
    n: int  # what was counted
    why: str = ""  # why it is undefined


@dataclass(frozen=True)
class Agreement:
    """How often annotators agree on the same pairs of completions, raw and beyond chance."""

    percent: Share  # n = comparisons; interval by bootstrap over comparisons
    alpha: float | None  # Krippendorff's, nominal: 1 = perfect, 0 = chance
    alpha_why: str  # why alpha is undefined, else empty
    pairs: int  # pairs of completions that two or more annotators decided
    annotators: int


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval for a share (Wilson 1927). `n` > 0 may be an effective, fractional count."""
    p, z2 = successes / n, Z95 * Z95
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def clustered_share(clusters: Sequence[tuple[float, int]], nothing: str) -> Share:
    """A share with Wilson's interval, from (successes, trials) per vote.

    The pairs of one ranking are not independent, so the interval counts an effective n: trials divided by
    Kish's design effect, the cluster-robust variance over the binomial one. With one pair per vote it is
    Wilson's interval itself. `nothing` says why there may be nothing to count.
    """
    k = np.array([cluster[0] for cluster in clusters], dtype=float)
    m = np.array([cluster[1] for cluster in clusters], dtype=float)
    n = int(m.sum())
    if n == 0:
        return Share(None, None, None, 0, nothing)
    p = float(k.sum() / n)
    binomial = p * (1 - p) / n
    robust = float(((k - p * m) ** 2).sum()) / n**2
    # all one way: the pairs show no variance to measure, so count votes instead
    effective = float((m > 0).sum()) if binomial == 0 else n / max(1.0, robust / binomial)
    low, high = wilson(p * effective, effective)
    return Share(p, low, high, n)


def krippendorff_alpha(units: Sequence[Sequence[str]]) -> tuple[float | None, str]:
    """Krippendorff's alpha for nominal labels: (alpha, why it is undefined).

    Each unit holds the labels that annotators gave it; units with fewer than two don't count. alpha =
    1 - D_o / D_e (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C).
    """
    pairable = [Counter(unit) for unit in units if len(unit) >= 2]
    if not pairable:
        return None, "no pair was decided by two annotators"
    totals: Counter[str] = Counter()
    observed = 0.0  # disagreeing ordered pairs of labels within units, each unit weighing by its labels
    for unit in pairable:
        size = sum(unit.values())
        observed += (size * size - sum(count * count for count in unit.values())) / (size - 1)
        totals += unit
    n = sum(totals.values())
    expected = (n * n - sum(count * count for count in totals.values())) / (n - 1)
    if expected == 0:
        return None, "everyone gave the same label everywhere, so chance agreement is already complete"
    return 1 - observed / expected, ""


def agreement(labels: Sequence[tuple[str, str, str, str]], seed: int = 0, resamples: int = 1000) -> Agreement:
    """Agreement from (comparison, pair, annotator, label) rows; a label must not depend on the order shown.

    Raw percent: over all pairs of annotators who decided the same pair of completions. Its 95 % interval
    resamples whole comparisons, because the pairs of one comparison hang together.
    """
    units: dict[tuple[str, str], dict[str, str]] = {}
    for comparison, pair, person, label in labels:
        units.setdefault((comparison, pair), {})[person] = label
    shared = {key: unit for key, unit in units.items() if len(unit) >= 2}
    same: Counter[str] = Counter()
    both: Counter[str] = Counter()
    for (comparison, _), unit in shared.items():
        for one, other in combinations(unit.values(), 2):
            both[comparison] += 1
            same[comparison] += one == other
    people = {person for unit in shared.values() for person in unit}
    alpha, why = krippendorff_alpha([list(unit.values()) for unit in shared.values()])
    if not both:
        percent = Share(None, None, None, 0, "no comparison was answered by two annotators")
        return Agreement(percent, None, why, 0, 0)
    names = list(both)
    hits, trials = np.array([same[c] for c in names]), np.array([both[c] for c in names])
    value = float(hits.sum() / trials.sum())
    if len(names) < 2:
        percent = Share(value, None, None, 1, "an interval needs two comparisons")
    else:
        draws = np.random.default_rng(seed).integers(0, len(names), (resamples, len(names)))
        low, high = np.quantile(hits[draws].sum(1) / trials[draws].sum(1), (0.025, 0.975))
        percent = Share(value, float(low), float(high), len(names))
    return Agreement(percent, alpha, why, len(shared), len(people))
