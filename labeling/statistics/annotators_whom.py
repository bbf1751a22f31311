"""Annotators, the first panel: whom should I talk to, and why."""

from collections.abc import Sequence

import numpy as np

from palate.data.facts import Facts
from palate.labeling.review_query import Query, written
from palate.labeling.statistics.agreement_figures import WHO
from palate.labeling.statistics.assessment import Assessment, assessment
from palate.labeling.statistics.biases import Estimates, shares
from palate.labeling.statistics.formatting import number
from palate.labeling.statistics.grouped import Floats
from palate.labeling.statistics.habits import Habits, habits, people, seconds
from palate.labeling.statistics.panels import Cell, Column, Figure, Intervals, Panel, Table
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.verdicts import FINE, TALK, TOO_FEW

SHOWN = 200  # annotators listed
DRAWN = 30  # annotators in the plot
LEAST = 10  # decisive votes from which on a share of one's own is shown

_NAME = Column("name", "annotator")
_QUICK = (
    Column("votes", "votes", "count"),
    Column(
        "first", "first wins", "share", "first_low", "first_high", "decisive votes for the answer shown first"
    ),
    Column("ties", "ties", "share"),
    Column("skips", "skips", "share"),
    Column("all_bad", "all bad", "share"),
    Column(
        "median", "median time", "seconds", help="of active seconds, or visible ones where those are missing"
    ),
    Column("fast", "too fast", "share", help="votes within 2 s, in which nobody reads two answers"),
    Column(
        "untouched", "left as shown", "share", help="rankings of three or more submitted in the order shown"
    ),
    Column("flags", "flags", "share", help="votes with a flag"),
    Column("reasons", "reasons", "share", help="votes with a written reason"),
)
_WHOLE = (
    _NAME,
    Column("verdict", "verdict"),
    Column(
        "reliability",
        "reliability",
        "share",
        "reliability_low",
        "reliability_high",
        "how often the better of two answers is named",
    ),
    *_QUICK[:2],
    Column(
        "slope",
        "length slope",
        "number",
        "slope_low",
        "slope_high",
        "log-odds of winning per unit of ln(longer / shorter): 0 is no leaning",
    ),
    *_QUICK[2:5],
    Column("gold", "gold right", "share", "gold_low", "gold_high"),
    *_QUICK[5:],
    Column("pace", "own / others' time", "number", help="on the same items; 1 is as fast as the others"),
    Column(
        "drift",
        "change of pace",
        "number",
        help="seconds at the last vote over the first, fitted: 0.5 is half",
    ),
    Column("why", "why"),
)
_READ = (
    "Reliability is how often someone names the better of two answers, judged by what others say about the same pair "
    "and by how the two models fare in everybody's votes; brackets hold 95 % intervals."
)


def whom_panel(facts: Facts, scope: Scope, whole: bool = True) -> Panel:
    """The verdicts and what they rest on; without `whole`, what needs no model."""
    some = WHO[scope.kind][0]
    question = "Whom should I talk to?" if scope.kind == "human" else f"Which {some} should I look at?"
    use = habits(facts, scope)
    voted = np.flatnonzero(use.votes)
    if not len(voted):
        return Panel("whom", question, missing="No vote yet: verdicts need about 30 votes of each annotator.")
    if not whole:
        order = [int(k) for k in voted[np.argsort(-use.votes[voted], kind="stable")]]
        rows = _rows(facts, scope, order, use)
        return Panel(
            "whom",
            question,
            "Verdicts follow: all votes are being compared.",
            tables=(Table((_NAME, *_QUICK), rows, len(order)),),
            notes=_notes(facts, scope, some),
            late=True,
        )
    found = assessment(facts, scope)
    order = notable(found, use.votes)
    return Panel(
        "whom",
        question,
        _answer(found, order, people(facts).name),
        _READ,
        figures=_figures(found, order),
        tables=_tables(facts, scope, found, order, use),
        plots=_plots(found, order, people(facts).name),
        notes=_notes(facts, scope, some),
    )


def notable(found: Assessment, votes: Floats) -> list[int]:
    """Codes of those who voted, worst first: whom to talk to by evidence, then by reliability."""
    p = np.array([verdict.p for verdict in found.verdicts])
    known = found.reliability.votes >= LEAST
    worst = np.lexsort((-votes, np.where(known, found.reliability.eta, 2.0), p))
    return [int(k) for k in worst[votes[worst] > 0]]


def link(scope: Scope, id: str) -> str:
    """The query string that lists somebody's votes."""
    return written(Query(scope, annotator=id, rows="votes"))


def _answer(found: Assessment, order: Sequence[int], names: list[str]) -> str:
    talk = [k for k in order if found.verdicts[k].verdict == TALK]
    few = sum(found.verdicts[k].verdict == TOO_FEW for k in order)
    fine = len(order) - few - len(talk)
    parts = [f"{number(fine, 'count')} {'is' if fine == 1 else 'are'} fine"] if fine else []
    if few:
        parts.append(f"{number(few, 'count')} {'has' if few == 1 else 'have'} too few votes for a verdict")
    rest = ", ".join(parts)
    if not talk:
        return f"{'Nobody' if fine else 'Not known yet'}: {rest}."
    shown = "; ".join(f"{names[k]} ({found.verdicts[k].why})" for k in talk[:3])
    more = f"; and {number(len(talk) - 3, 'count')} more" if len(talk) > 3 else ""
    return f"{number(len(talk), 'count')} of {number(len(order), 'count')}: {shown}{more}.{f' {rest[0].upper()}{rest[1:]}.' if rest else ''}"


def _figures(found: Assessment, order: Sequence[int]) -> tuple[Figure, ...]:
    given = [found.verdicts[k].verdict for k in order]
    known = bool((found.reliability.votes > 0).any())
    return (
        Figure("to talk to", given.count(TALK), unit="count", n=len(given), of="annotators"),
        Figure("too few votes", given.count(TOO_FEW), unit="count", n=len(given), of="annotators"),
        Figure("fine", given.count(FINE), unit="count", n=len(given), of="annotators"),
        Figure(
            "typical reliability",
            found.levels.typical if known else None,
            unit="share",
            why="" if known else "no vote names a better answer yet",
            note=f"low enough to talk about: below {number(found.levels.concern, 'share')}",
        ),
    )


def _tables(
    facts: Facts, scope: Scope, found: Assessment, order: Sequence[int], use: Habits
) -> tuple[Table, ...]:
    who, talk = people(facts), [k for k in order if found.verdicts[k].verdict == TALK]
    reasons: list[dict[str, Cell]] = [
        {"name": who.name[k], "why": found.verdicts[k].why, "href": link(scope, who.id[k])}
        for k in talk[:SHOWN]
    ]
    rows = _rows(facts, scope, order, use)
    for row, k in zip(rows, order, strict=False):
        row |= _judged(found, k)
    everybody = Table(_WHOLE, rows, len(order), "Everybody, worst first")
    if not talk:
        return (everybody,)
    return Table((_NAME, Column("why", "reasons")), reasons, len(talk), "To talk to"), everybody


def _judged(found: Assessment, k: int) -> dict[str, Cell]:
    mine, verdict = found.reliability, found.verdicts[k]
    known = mine.votes[k] >= LEAST
    return {
        "verdict": verdict.verdict,
        "why": verdict.why,
        "reliability": float(mine.eta[k]) if known else None,
        "reliability_low": float(mine.low[k]) if known else None,
        "reliability_high": float(mine.high[k]) if known else None,
        **cells("slope", found.slope, k),
        **cells("gold", found.gold_share, k),
        "pace": float(found.pace.ratio[k]) if found.pace.n[k] >= 20 else None,
        "drift": float(found.pace.drift[k]) or None,
    }


def cells(key: str, found: Estimates, k: int) -> dict[str, Cell]:
    """An estimate with its interval; nothing where it is not known."""
    if not found.known[k]:
        return {key: None, f"{key}_low": None, f"{key}_high": None}
    return {
        key: float(found.value[k]),
        f"{key}_low": float(found.low[k]),
        f"{key}_high": float(found.high[k]),
    }


def _rows(facts: Facts, scope: Scope, order: Sequence[int], use: Habits) -> list[dict[str, Cell]]:
    who, median, side = people(facts), seconds(facts, scope).median, shares(use.first, use.sided)

    def share(part: Floats, of: Floats, k: int) -> float | None:
        return float(part[k] / of[k]) if of[k] else None

    return [
        {
            "name": who.name[k],
            "href": link(scope, who.id[k]),
            "votes": int(use.votes[k]),
            **cells("first", side, k),
            "ties": share(use.ties, use.votes, k),
            "skips": share(use.skips, use.votes, k),
            "all_bad": share(use.all_bad, use.votes, k),
            "median": float(median[k]) or None,
            "fast": share(use.fast, use.timed, k),
            "untouched": share(use.untouched, use.rankings, k),
            "flags": share(use.flags, use.votes, k),
            "reasons": share(use.reasons, use.votes, k),
        }
        for k in order[:SHOWN]
    ]


def _plots(found: Assessment, order: Sequence[int], names: list[str]) -> tuple[Intervals, ...]:
    mine = found.reliability
    drawn = [k for k in order if mine.votes[k] >= LEAST][:DRAWN]
    drawn.sort(key=lambda k: -mine.eta[k])
    if not drawn:
        return ()
    return (
        Intervals(
            [names[k] for k in drawn],
            [float(mine.eta[k]) for k in drawn],
            [float(mine.low[k]) for k in drawn],
            [float(mine.high[k]) for k in drawn],
            "reliability" if len(drawn) < DRAWN else f"reliability of the {DRAWN} most notable",
            "share",
            found.levels.typical,
            "typical",
        ),
    )


def _notes(facts: Facts, scope: Scope, some: str) -> tuple[str, ...]:
    where, params = scope.where("b")
    left = int(facts.value(f"SELECT count(*) FROM ballot b WHERE {where} AND selected", params))
    chosen = f"{number(left, 'count')} such votes are" if left else "none so far is"
    return (
        (
            f"Agreement on actively selected pairs is left out of all judgements about {some}, because those pairs are hard "
            f"by construction: {chosen} left out here."
        ),
        (
            "Annotators are compared with each other, not with an ideal. If all were alike, 95 of 100 projects would name "
            "nobody: all comparisons of all annotators are held to 5 % together (Holm), and small differences don't count."
        ),
        (
            "Ties don't count for or against reliability. A vote tells most where the models are far apart or others judged "
            "the same pair; without either, an interval stays wide."
        ),
        "Where no pair is judged twice, differences between annotators are known better than the level they share.",
    )
