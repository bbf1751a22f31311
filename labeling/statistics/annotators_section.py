"""Review, Annotators: whom to talk to, whether position or length decides, gold items, speed, and what is odd.

The panels of this section: whom, bias, gold, speed, odd, consensus. Agreement on actively selected pairs is left out
of everything here that judges people.
"""

from collections.abc import Callable

import numpy as np

from palate.data.facts import Facts
from palate.labeling.statistics import anomalies, biases
from palate.labeling.statistics.agreement_figures import WHO
from palate.labeling.statistics.annotators_bias import bias_panel
from palate.labeling.statistics.annotators_whom import LEAST, SHOWN, cells, link, whom_panel
from palate.labeling.statistics.assessment import odd
from palate.labeling.statistics.dawid_skene import A_WINS, B_WINS, TIE
from palate.labeling.statistics.formatting import interval, number
from palate.labeling.statistics.formatting import seconds as duration
from palate.labeling.statistics.habits import FLOOR, Gold, gold, habits, part_of, people, seconds
from palate.labeling.statistics.judged import consensus
from palate.labeling.statistics.panels import Cell, Column, Figure, Histogram, Intervals, Panel, Table
from palate.labeling.statistics.scope import Scope

BIG = 200_000  # votes; from here on what takes longer follows after the page stands
DRAWN = 30  # annotators in a plot


def panels(facts: Facts, scope: Scope) -> list[Panel]:
    """All panels; where there are many votes, what takes longer is left to `LATE`."""
    whole = float(habits(facts, scope).votes.sum()) <= BIG
    return [
        whom_panel(facts, scope, whole),
        bias_panel(facts, scope, whole),
        gold_panel(facts, scope),
        speed_panel(facts, scope),
        odd_panel(facts, scope) if whole else _later("odd", _ODD),
        consensus_panel(facts, scope) if whole else _later("consensus", _CONSENSUS),
    ]


def _later(id: str, question: str) -> Panel:
    return Panel(id, question, "This follows: all votes are being compared.", late=True)


# -- gold ------------------------------------------------------------------------------------------------------


def gold_panel(facts: Facts, scope: Scope) -> Panel:
    """Answers to gold items beside the known ones."""
    question = f"Do {WHO[scope.kind][0]} get the gold items right?"
    found, who = gold(facts, scope), people(facts)
    if not found.n.sum():
        return Panel("gold", question, missing=_no_gold(found))
    every = biases.shares(np.array([found.right.sum()]), np.array([found.n.sum()]))
    each = biases.shares(found.right, found.n)
    some = np.flatnonzero(found.n)
    some = some[np.argsort(each.high[some], kind="stable")]
    rows: list[dict[str, Cell]] = [
        {
            "name": who.name[k],
            "n": round(float(found.n[k])),
            **cells("right", each, k),
            "href": link(scope, who.id[k]),
        }
        for k in some[:SHOWN]
    ]
    columns = (
        Column("name", "annotator"),
        Column("right", "right", "share", "right_low", "right_high"),
        Column("n", "gold answers", "count"),
    )
    drawn = sorted(some[:DRAWN], key=lambda k: -each.value[k])
    value, low, high = (float(side[0]) for side in (every.value, every.low, every.high))
    return Panel(
        "gold",
        question,
        f"{number(value, 'share')} of {number(round(float(every.n[0])), 'count')} answers to gold items are right "
        f"(95 %: {interval(low, high, 'share')}).",
        "Right is what a lead or an adjudication said; intervals are Wilson's. Few gold answers make wide intervals.",
        figures=(Figure("right", value, low, high, round(float(every.n[0])), "gold answers", "share"),),
        tables=(Table(columns, rows, len(some), "Lowest upper end first"),),
        plots=(
            Intervals(
                [who.name[k] for k in drawn],
                [float(each.value[k]) for k in drawn],
                [float(each.low[k]) for k in drawn],
                [float(each.high[k]) for k in drawn],
                "gold items right",
                "share",
                value,
                "everybody",
            ),
        ),
        notes=(
            (
                f"{number(found.known, 'count')} pairs have a known answer: the last adjudicated vote on it, else the last "
                "vote of a lead or an admin, who is not measured by it."
            ),
        ),
    )


def _no_gold(found: Gold) -> str:
    if not found.items:
        return (
            "No gold item has a vote yet: comparisons with the purpose gold are mixed in when `palate label` runs with "
            "--gold-share."
        )
    if not found.known:
        return f"{found.items} gold items have votes but no known answer: a lead's vote, or an adjudicated one, makes it."
    return "Nobody but those who gave the known answers has voted on a gold item yet."


# -- speed -----------------------------------------------------------------------------------------------------


def speed_panel(facts: Facts, scope: Scope) -> Panel:
    """How long votes take, and who takes less than reading does."""
    question = "How fast are the votes?"
    use, time, who = habits(facts, scope), seconds(facts, scope), people(facts)
    if not time.counts.sum():
        return Panel(
            "speed", question, missing="No vote has measured seconds yet; imported votes seldom have."
        )
    timed, fast = float(use.timed.sum()), float(use.fast.sum())
    mass = time.counts.cumsum()
    middle = float(np.sqrt(np.prod(time.edges[[(at := int((mass < mass[-1] / 2).sum())), at + 1]])))
    some = np.flatnonzero(time.median)
    some = some[np.lexsort((time.median[some], -(use.fast[some] / np.maximum(use.timed[some], 1)).round(2)))]
    rows: list[dict[str, Cell]] = [
        {
            "name": who.name[k],
            "median": float(time.median[k]),
            "fast": float(use.fast[k] / use.timed[k]) if use.timed[k] else None,
            "timed": int(use.timed[k]),
            "href": link(scope, who.id[k]),
        }
        for k in some[:SHOWN]
    ]
    columns = (
        Column("name", "annotator"),
        Column("median", "median time", "seconds"),
        Column("fast", f"within {duration(FLOOR)}", "share"),
        Column("timed", "timed votes", "count"),
    )
    plot = Histogram(
        time.edges.tolist(),
        {"votes": time.counts.tolist()},
        "seconds per vote",
        "seconds",
        log=True,
        mark=FLOOR,
        mark_label="too fast to have read",
    )
    return Panel(
        "speed",
        question,
        f"Half of the votes take less than {duration(middle)}; {number(fast / timed, 'share')} take less than "
        f"{duration(FLOOR)}, in which nobody reads a prompt and two answers.",
        "Active seconds, or visible ones where activity was not measured; skips are left out.",
        figures=(
            Figure("median time", middle, n=round(timed), unit="seconds", note="to 5 %"),
            Figure(f"within {duration(FLOOR)}", fast / timed, n=round(timed), unit="share"),
        ),
        tables=(Table(columns, rows, len(some), "Most votes that are too fast first"),),
        plots=(plot,),
        notes=(
            "Being quick is no fault: the first panel names only who is far quicker than others on the same items.",
        ),
    )


# -- odd -------------------------------------------------------------------------------------------------------

_ODD = "Anything odd?"


def odd_panel(facts: Facts, scope: Scope) -> Panel:
    """Who votes against the run of everybody's votes."""
    found, who = odd(facts, scope), people(facts)
    able = np.flatnonzero(found.n >= anomalies.FIRST)
    if not len(able):
        most = int(found.n.max(initial=0))
        missing = (
            f"The test starts at {anomalies.FIRST} votes of one annotator on answers of two different models; the most so "
            f"far are {most}."
        )
        return Panel("odd", _ODD, missing=missing)
    adjusted = biases.holm(found.p[able])
    order = np.argsort(adjusted, kind="stable")
    rows: list[dict[str, Cell]] = [
        {
            "name": who.name[able[i]],
            "p": float(adjusted[i]),
            "surprise": float(found.surprise[able[i]]),
            "n": int(found.n[able[i]]),
            "href": link(scope, who.id[able[i]]),
        }
        for i in order[:SHOWN]
    ]
    flagged = [str(row["name"]) for row in rows if float(row["p"] or 0) < 0.05]
    number_of = int((adjusted < 0.05).sum())
    named = ", ".join(flagged[:5]) + (" and others" if number_of > 5 else "")
    verb = "votes" if number_of == 1 else "vote"
    columns = (
        Column("name", "annotator"),
        Column("p", "adjusted p", "number", help="below 0.05 is odd; Holm over annotators"),
        Column(
            "surprise", "surprise", "number", help="mean of -ln p of the votes: 1 for votes like everybody's"
        ),
        Column("n", "votes tested", "count"),
    )
    return Panel(
        "odd",
        _ODD,
        f"{named} {verb} against the run of everybody's votes."
        if number_of
        else f"No: the votes of all {number(len(able), 'count')} annotators tested look like everybody's.",
        "Each vote is compared with earlier votes on the same two models; many votes for the usual loser add up.",
        figures=(Figure("odd", number_of, n=len(able), of="annotators tested", unit="count"),),
        tables=(Table(columns, rows, len(able)),),
        notes=_odd_notes(part_of(facts, scope)),
    )


def _odd_notes(every: int) -> tuple[str, ...]:
    notes = (
        (
            "After Chiang et al. 2024 (Chatbot Arena): Fisher's combination of each vote's p-value, looked at after 25, 50, "
            "100, ... votes with a level that covers all looks."
        ),
        "A taste of one's own, or prompts of another kind than the others', are odd, too: a reason to ask, not a fault.",
    )
    return notes if every == 1 else (*notes, f"Votes are many: one item in {every} is looked at.")


# -- consensus -------------------------------------------------------------------------------------------------

_CONSENSUS = "What does each annotator say when the consensus is clear?"


def consensus_panel(facts: Facts, scope: Scope) -> Panel:
    """Dawid and Skene's confusion matrices, folded: right, tie, opposite."""
    found, who = consensus(facts, scope), people(facts)
    if found is None:
        missing = "No pair was judged by two annotators: an overlap of 2 or more gives items to several."
        return Panel("consensus", _CONSENSUS, missing=missing)
    everybody = np.flatnonzero(found.votes)
    pooled = float(np.average(found.named[everybody], weights=found.votes[everybody]))
    some = everybody[found.votes[everybody] >= LEAST]  # what three votes say about a person is mostly chance
    some = some[np.argsort(found.named[some], kind="stable")]
    rows: list[dict[str, Cell]] = [
        {
            "name": who.name[k],
            "named": float(found.named[k]),
            "named_low": float(found.low[k]),
            "named_high": float(found.high[k]),
            "tie": float(found.confusion[k, A_WINS, TIE]),
            "opposite": float(found.confusion[k, A_WINS, B_WINS]),
            "both": float(found.confusion[k, TIE, TIE]),
            "n": round(float(found.votes[k])),
            "href": link(scope, who.id[k]),
        }
        for k in some[:SHOWN]
    ]
    columns = (
        Column("name", "annotator"),
        Column("named", "names the consensus", "share", "named_low", "named_high"),
        Column("tie", "calls a winner a tie", "share"),
        Column("opposite", "names the loser", "share"),
        Column("both", "calls a tie a tie", "share"),
        Column("n", "shared votes", "count"),
    )
    lowest = ""
    if len(some):
        least = number(float(found.named[some[0]]), "share")
        lowest = f"; of those with {LEAST} such votes least often {who.name[some[0]]}, in {least}"
    return Panel(
        "consensus",
        _CONSENSUS,
        f"Together they name it in {number(pooled, 'share')} of votes on shared pairs{lowest}.",
        "The consensus is weighed by who is usually right (Dawid and Skene); naming the loser is an error, ties are often "
        "only a habit.",
        figures=(
            Figure(
                "name the consensus",
                pooled,
                n=round(float(found.votes.sum())),
                of="shared votes",
                unit="share",
            ),
            Figure("consensus is a tie", float(found.shares[TIE]), unit="share"),
        ),
        tables=(Table(columns, rows, len(some), f"With {LEAST} shared votes or more, lowest first"),),
        notes=("Thin annotators are drawn towards everybody's habits until their votes say otherwise.",),
    )


LATE: dict[str, Callable[[Facts, Scope], Panel]] = {
    "whom": whom_panel,
    "bias": bias_panel,
    "odd": odd_panel,
    "consensus": consensus_panel,
}
