"""One verdict per annotator for the lead: fine, too few votes, or talk to, with the reasons in words.

Every comparison gives each annotator a p-value against the others (not against an ideal: what everybody does is a
matter of the guidelines) and says whether the difference is large enough to matter. Holm's procedure runs over all
annotators and comparisons together. "Talk to" needs both: an adjusted p-value below 5 % and a difference that matters.
So among annotators who are all alike, in 95 of 100 projects nobody is to be talked to.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.labeling.statistics.biases import holm
from palate.labeling.statistics.grouped import Floats
from palate.labeling.statistics.reliability import Reliability

Bools = NDArray[np.bool_]

LEVEL = 0.05
FINE, TOO_FEW, TALK = "fine", "too few votes", "talk to"
LEAST_TOLD = 10.0  # votes with a known answer from which someone's reliability counts for what is typical
NOTHING_TOLD = 0.02  # of a vote with a known answer: below this a vote tells nothing about who gave it


@dataclass(frozen=True)
class Comparison:
    """One way in which annotators may differ from the others. K = annotators."""

    name: str
    able: Bools  # (K,) whether there is anything to compare
    p: Floats  # (K,)
    far: Bools  # (K,) the difference is large enough to matter
    say: Callable[[int], str]  # the reason in words, by the annotator's code


@dataclass(frozen=True)
class Verdict:
    """What the lead is told about one annotator."""

    verdict: str  # FINE, TOO_FEW or TALK
    why: str
    more: (
        int | None
    )  # votes that are missing for a verdict; None where no number of votes would do, and for the others
    p: float  # the smallest adjusted p-value among the reasons; 1 without one


@dataclass(frozen=True)
class Levels:
    """What is typical, and what is low enough to be talked about."""

    typical: float
    concern: float  # a third of the way from typical to chance


def percent(share: float) -> str:
    """`94 %`."""
    return f"{100 * share:.0f} %"


def levels(found: Reliability) -> Levels:
    """From the median annotator, among those of whom enough is known."""
    known = found.told >= LEAST_TOLD
    some = found.eta[known] if known.any() else found.eta[found.votes > 0]
    typical = max(0.5, float(np.median(some))) if len(some) else 0.5
    return Levels(typical, typical - (typical - 0.5) / 3)


def less_reliable(found: Reliability, at: Levels) -> Comparison:
    """Naming the better completion less often than is typical: likelihood ratio, one-sided."""
    from scipy.special import ndtr

    def say(k: int) -> str:
        return (
            f"names the better answer in {percent(found.eta[k])} of cases "
            f"(95 %: {percent(found.low[k])} to {percent(found.high[k])}), typical is {percent(at.typical)}"
        )

    p = ndtr(found.evidence(at.typical))
    return Comparison("reliability", found.told > 0.5, p, found.eta < at.concern, say)


def verdicts(found: Reliability, at: Levels, comparisons: Sequence[Comparison]) -> list[Verdict]:
    """One per annotator, by code."""
    able = np.stack([one.able for one in comparisons])
    adjusted = np.ones(able.shape)
    adjusted[able] = holm(np.stack([one.p for one in comparisons])[able])
    adjusted[~np.stack([one.far for one in comparisons])] = 1.0
    smallest = adjusted.min(0, initial=1.0)
    talk = smallest < LEVEL
    fine = ~talk & (found.low >= at.concern) & (found.votes > 0)
    more = _more(found, at)
    made = []
    for k in range(len(found.eta)):
        if talk[k]:
            order = np.argsort(adjusted[:, k], kind="stable")
            reasons = [comparisons[i].say(k) for i in order if adjusted[i, k] < LEVEL]
            made.append(Verdict(TALK, "; ".join(reasons), None, float(smallest[k])))
        elif fine[k]:
            made.append(Verdict(FINE, "", None, 1.0))
        else:
            made.append(Verdict(TOO_FEW, _missing(more[k]), more[k], 1.0))
    return made


def _more(found: Reliability, at: Levels) -> list[int | None]:
    """Votes missing until a 95 % interval would be clear of the level of concern, at what votes have told so far."""
    total = found.votes.sum()
    usual = float(found.told.sum() / total) if total else 0.0
    rate = np.where(found.votes >= 5, found.told / np.maximum(found.votes, 1e-9), usual)
    eta = np.where(found.votes >= 5, found.eta, at.typical)
    gap = np.maximum(np.abs(eta - at.concern), (at.typical - at.concern) / 2)
    with np.errstate(divide="ignore"):
        needed = 3.84 * eta * (1 - eta) / gap**2
        more = np.where(rate >= NOTHING_TOLD, (needed - found.told) / rate, np.inf)
    return [max(1, math.ceil(each)) if np.isfinite(each) else None for each in more]


def _missing(more: int | None) -> str:
    if more is None:
        return "needs items that others answer, too"
    return f"{more:,} more needed"
