"""Review, Agreement, strength: do annotators agree on how much better an answer is?"""

import numpy as np

from palate.data.facts import Facts
from palate.labeling.statistics.agreement import Ballots, Ordinal, backing, ballots, ordinal
from palate.labeling.statistics.agreement_figures import figure, said, who
from palate.labeling.statistics.formatting import number
from palate.labeling.statistics.measures import Estimate
from palate.labeling.statistics.panels import Histogram, Intervals, Panel, Plot
from palate.labeling.statistics.resampling import LEAST
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.tallies import tallies

STRENGTHS = ("much better", "better", "slightly better")  # 3, 2, 1


def strength_panel(facts: Facts, scope: Scope, whole: bool = True) -> Panel:
    """Ordinal agreement; without `whole` only how often each strength is used."""
    found, some = graded(facts, scope), who(scope)
    read = (
        "Ordinal alpha and AC2 count two votes as further apart the more of the scale lies between them, from much "
        "better over a tie to much worse: 0 is guessing, 1 is always the same."
    )
    question = f"Do {some} agree on how much better?"
    if found is None:
        why = "No vote says by how much an answer is better: the scale for two answers records it."
        return Panel("strength", question, read=read, missing=why)
    used = np.bincount(found.which, minlength=len(found.counts)) @ found.counts  # votes by grade -3..3
    by_strength = [used[3], *(used[3 - size] + used[3 + size] for size in (1, 2, 3))]
    plots: list[Plot] = [
        Histogram(
            [-0.5, 0.5, 1.5, 2.5, 3.5],
            {"votes": [float(n) for n in by_strength]},
            "strength: 0 a tie, 1 slightly better, 2 better, 3 much better",
        )
    ]
    if not whole:
        return Panel("strength", question, read=read, plots=tuple(plots), late=True)
    agreed, backed = facts.remember(("strength", scope), lambda: (ordinal(found), backing(found)))
    if any(each.value is not None for each in backed):
        plots.append(_backing_plot(backed))
    return Panel(
        "strength",
        question,
        _answer(agreed, backed, some),
        read,
        figures=(
            figure("ordinal alpha", agreed.alpha),
            figure(
                "Gwet's AC2",
                agreed.ac2,
                note="ordinal weights; hardly depends on how often each grade is used",
            ),
            *(
                figure(f"backing of “{name}”", each, "share", note="another vote names the same winner")
                for name, each in zip(STRENGTHS, backed, strict=True)
            ),
        ),
        plots=tuple(plots),
        notes=_notes(facts, scope),
        missing="" if agreed.units else _missing(some),
    )


def graded(facts: Facts, scope: Scope) -> Ballots | None:
    """Votes by grade -3..3 on items of two answers, from sources whose votes carry a strength; None: none does.

    A tie is grade 0 wherever it comes from, so sources without strengths stay out altogether: theirs would be
    ties only.
    """
    return facts.remember(("grades", scope), lambda: _graded(facts, scope))


def _graded(facts: Facts, scope: Scope) -> Ballots | None:
    found = tallies(facts, scope)
    where, params = scope.where("j")
    sql = f"SELECT DISTINCT source FROM judgement j WHERE {where} AND abs(grade) BETWEEN 1 AND 3"
    sources = facts.columns(sql, params)["source"]
    if not len(sources):
        return None
    items = facts.columns("SELECT source, answers FROM item ORDER BY code")
    fits = (items["answers"] == 2) & np.isin(items["source"], sources)
    units = np.asarray(fits)[found.item]
    return ballots(found.counts[units, 1:8], found.item[units])


def _answer(agreed: Ordinal, backed: list[Estimate], some: str) -> str:
    if agreed.alpha.value is None:
        return "" if not agreed.units else f"Not known: {agreed.alpha.why}."
    answer = f"On the whole scale alpha is {said(agreed.alpha)}"
    strong, weak = backed[0], backed[2]
    if strong.value is not None and weak.value is not None:
        answer += (
            f"; another vote names the same winner as a “much better” in {number(strong.value, 'share')} of cases, as "
            f"a “slightly better” in {number(weak.value, 'share')}"
        )
    return answer + "."


def _missing(some: str) -> str:
    return f"No item with strengths was answered by two {some} yet: {LEAST} such items give a figure and its interval."


def _backing_plot(backed: list[Estimate]) -> Intervals:
    known = [
        (name, each.value, each.low, each.high)
        for name, each in zip(STRENGTHS, backed, strict=True)
        if each.value is not None
    ]
    names, values, lows, highs = zip(*known, strict=True)
    return Intervals(
        names, values, lows, highs, "other votes on the same pair that name the same winner", "share", 0.5,
        "guessing between two answers",
    )  # fmt: skip


def _notes(facts: Facts, scope: Scope) -> tuple[str, ...]:
    where, params = scope.where("j")
    unknown = facts.value(
        f"SELECT count(*) FROM judgement j WHERE {where} AND NOT again AND NOT adjudicated AND abs(grade) = 4",
        params,
    )
    notes = ["Strengths that mean something are backed more often the stronger they are."]
    if unknown:
        notes.append(
            f"{number(unknown, 'count')} decided pairs of answers come without a strength (rankings of three or more, "
            "imported votes): they are left out here."
        )
    return tuple(notes)
