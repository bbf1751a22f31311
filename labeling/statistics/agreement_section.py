"""Review, Agreement: do people agree with each other and with themselves, and how much of that is chance.

The panels of this section: does-agree (here), strength, rankings, pairs, repeats, triads. Second answers to the same
item and adjudications are never part of agreement.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from palate.data.facts import Facts
from palate.labeling.statistics.agreement import Nominal, ballots, nominal
from palate.labeling.statistics.agreement_figures import figure, is_big, said, who
from palate.labeling.statistics.agreement_pairs import busiest, pairs_panel
from palate.labeling.statistics.agreement_rankings import rankings_panel
from palate.labeling.statistics.agreement_self import repeats_panel, triads_panel
from palate.labeling.statistics.agreement_strength import strength_panel
from palate.labeling.statistics.formatting import number
from palate.labeling.statistics.measures import Estimate
from palate.labeling.statistics.panels import Cell, Column, Figure, Intervals, Panel, Table
from palate.labeling.statistics.resampling import LEAST, Ints
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.tallies import tallies

# Bai et al. 2022, arXiv:2204.05862, section 2.1; Ouyang et al. 2022, arXiv:2203.02155, section 3.4
ANCHORS = (
    ("InstructGPT, held-out labelers", 0.773, 0.013),
    ("InstructGPT, training labelers", 0.726, 0.015),
    ("Anthropic HH, researchers and crowd", 0.63, None),
)


def panels(facts: Facts, scope: Scope) -> list[Panel]:
    """All panels; where there are many votes, what takes longer is left to `LATE`."""
    big = is_big(tallies(facts, scope))
    return [
        does_agree_panel(facts, scope, whole=not big),
        strength_panel(facts, scope, whole=not big),
        rankings_panel(facts, scope, whole=not big),
        pairs_panel(facts, scope, whole=not big),
        repeats_panel(facts, scope, whole=not big),
        triads_panel(facts, scope, whole=not big),
    ]


# -- do people agree -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Overall:
    """Agreement on who won, with and without what makes it hard."""

    whole: Nominal
    decided: Nominal  # tie votes left out
    two_way: Nominal  # only pairs of completions that nobody called a tie
    random: Nominal | None  # only pairs that were not chosen actively; None: all were, or none
    active: bool  # some pairs were chosen actively
    tied: bool  # somebody voted a tie


def overall(facts: Facts, scope: Scope) -> Overall:
    """All votes of a scope; computed once until a vote comes in."""
    return facts.remember(("agreement", scope), lambda: _overall(facts, scope))


def _overall(facts: Facts, scope: Scope) -> Overall:
    found = tallies(facts, scope)
    votes = ballots(np.stack([found.b_wins, found.ties, found.a_wins], axis=1), found.item)
    where, params = scope.where("j")
    sql = (
        f"SELECT DISTINCT item FROM judgement j WHERE {where} AND selected AND NOT again AND NOT adjudicated"
    )
    random = ~np.isin(found.item, facts.columns(sql, params)["item"])
    return Overall(
        nominal(votes),
        nominal(votes.counted(lambda counts: counts[:, [0, 2]])),
        nominal(votes.counted(_undisputed)),
        nominal(votes.of(random)) if random.any() and not random.all() else None,
        not random.all(),
        bool(found.ties.any()),
    )


def _undisputed(counts: Ints) -> Ints:
    """Votes for b and a where nobody voted a tie, no votes elsewhere."""
    untied: Ints = np.where(counts[:, 1:2] == 0, counts[:, [0, 2]], 0)
    return untied


def does_agree_panel(facts: Facts, scope: Scope, whole: bool = True) -> Panel:
    """Percent agreement and what is left of it beyond chance; Cohen's kappa only in the whole panel."""
    found, some = overall(facts, scope), who(scope)
    question = f"Do {some} agree, more than chance?"
    read = (
        "Percent agreement: of two votes on the same pair of answers, how often both say the same. Alpha, the kappas "
        "and AC1 take away what guessing would give: 0 is guessing, 1 is always the same."
    )
    if not found.whole.percent.n:
        missing = (
            f"No item was answered by two {some} yet: {LEAST} such items give a figure and its interval. An overlap of "
            "2 or more gives items to several annotators."
        )
        return Panel("does-agree", question, read=read, missing=missing)
    cohen = busiest(facts, scope).mean if whole else None
    return Panel(
        "does-agree",
        question,
        _answer(found.whole, some),
        read,
        figures=tuple(_figures(found, cohen)),
        tables=(_table(found),),
        plots=(_plot(found, some),),
        notes=tuple(_notes(found, some)),
        late=not whole,
    )


def _answer(found: Nominal, some: str) -> str:
    one = f"Two {some} who judge the same pair of answers agree in {said(found.percent, 'share')} of cases"
    guessing = f"guessing would give {number(found.chance, 'share')}"
    if found.alpha.value is None:
        return f"{one}; {guessing}, and alpha is not defined: {found.alpha.why}."
    if found.alpha.low is None:
        return f"{one}; {guessing}, and alpha is {said(found.alpha)} ({found.alpha.why})."
    if found.alpha.low <= 0:
        return f"Not shown: {one[0].lower()}{one[1:]}, and {guessing}; alpha is {said(found.alpha)}."
    return f"Yes: {one[0].lower()}{one[1:]}, and {guessing}; alpha is {said(found.alpha)}."


def _figures(found: Overall, cohen: Estimate | None) -> list[Figure]:
    every = found.whole
    published = "published: 63 % (Anthropic HH), 72.6 ± 1.5 % and 77.3 ± 1.3 % (InstructGPT)"
    figures = [
        figure("percent agreement", every.percent, "share", "items that two or more answered", published)
    ]
    if found.random:
        note = "without actively selected pairs"
        figures.append(figure("percent agreement, random pairs", found.random.percent, "share", note=note))
    figures += [
        figure(
            "Krippendorff's alpha", every.alpha, note="the published figures are 0.26, 0.45 and 0.55 in alpha"
        ),
        figure("Fleiss' kappa", every.fleiss),
        figure("Gwet's AC1", every.ac1, note="hardly depends on how often each verdict is used"),
    ]
    if cohen:
        note = "mean over each two of the busiest, weighted by what they share"
        figures.append(figure("Cohen's kappa", cohen, note=note))
    return figures


def _rows(found: Overall) -> list[tuple[str, Nominal]]:
    rows = [("all votes", found.whole)]
    if found.tied:
        rows += [("tie votes left out", found.decided), ("pairs that nobody called a tie", found.two_way)]
    if found.random:
        rows.append(("random pairs only", found.random))
    return rows


def _table(found: Overall) -> Table:
    columns = (
        Column("votes", "votes counted"),
        Column("percent", "agree", "share", "percent_low", "percent_high"),
        Column(
            "chance", "guessing", "share", help="what guessing with the same shares of verdicts would give"
        ),
        Column("alpha", "alpha", "number", "alpha_low", "alpha_high"),
        Column("ac1", "AC1", "number", "ac1_low", "ac1_high"),
        Column("pairs", "pairs of answers", "count", help="that two or more decided"),
        Column("items", "items", "count", help="that two or more answered"),
    )
    rows: list[dict[str, Cell]] = [
        {
            "votes": label,
            "chance": each.chance,
            "pairs": each.units,
            "items": each.percent.n,
            **_cells("percent", each.percent),
            **_cells("alpha", each.alpha),
            **_cells("ac1", each.ac1),
        }
        for label, each in _rows(found)
    ]
    return Table(columns, rows, caption="What ties do to it" if found.tied else "")


def _cells(key: str, found: Estimate) -> dict[str, Cell]:
    return {key: found.value, f"{key}_low": found.low, f"{key}_high": found.high}


def _plot(found: Overall, some: str) -> Intervals:
    ours = [
        (f"{some} here, {label}", each.percent.value, each.percent.low, each.percent.high)
        for label, each in _rows(found)
        if each.percent.value is not None
    ]
    theirs = [
        (label, value, *((value - half, value + half) if half else (None, None)))
        for label, value, half in ANCHORS
    ]
    labels, values, lows, highs = zip(*sorted([*ours, *theirs], key=lambda row: -row[1]), strict=True)
    return Intervals(
        labels, values, lows, highs, "percent agreement", "share", 0.5, "guessing between two answers"
    )


def _notes(found: Overall, some: str) -> list[str]:
    scale = (
        "For two answers without ties alpha is about 2 × percent − 1, so thresholds such as 0.67 or 0.8, made for "
        "labels with one right answer, don't fit preferences."
    )
    notes = [scale, "Intervals come from resampling whole items."]
    if found.random:
        notes.append(
            "Some pairs were chosen actively because they are hard to tell apart: agreement on them is lower by "
            f"construction, so the figure of {some} to set beside published ones is that on random pairs."
        )
    elif found.active:
        notes.append(
            "All pairs were chosen actively because they are hard to tell apart: agreement on them is lower by "
            "construction, so it can't be set beside published figures, which are about random pairs."
        )
    if found.whole.percent.n < LEAST:
        notes.append(f"{LEAST - found.whole.percent.n} more items that two {some} answer give intervals.")
    return notes


LATE: dict[str, Callable[[Facts, Scope], Panel]] = {
    "does-agree": does_agree_panel,
    "strength": strength_panel,
    "rankings": rankings_panel,
    "pairs": pairs_panel,
    "repeats": repeats_panel,
    "triads": triads_panel,
}
