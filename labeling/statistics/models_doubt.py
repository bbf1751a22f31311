"""Review, Models: whether few votes hold the top up, and what more votes would buy."""

from collections.abc import Sequence

from palate.data.facts import Facts
from palate.labeling.statistics.bradley_terry import ELO
from palate.labeling.statistics.formatting import number
from palate.labeling.statistics.more_votes import Doubt, doubt, open_order
from palate.labeling.statistics.panels import Cell, Column, Figure, Lines, Panel, Table
from palate.labeling.statistics.resampling import LEAST
from palate.labeling.statistics.robustness import MOST, Dropped, Flip, smallest_flip
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.standing import Standing, missing, standing

ONE = 0.01  # the share of votes that is asked about
KINDS = 10  # kinds of votes that are listed
AMONG = 10  # places, from the first, whose order is asked about
STEPS = (
    0.0,
    0.02,
    0.05,
    0.1,
    0.2,
    0.35,
    0.5,
    0.75,
    1.0,
)  # more votes in the plot, as shares of the largest number

FOUND = (
    "Found by how much each vote moves the two scores, and confirmed by fitting what is left (arXiv:2508.11847); a "
    "slightly smaller removal may exist."
)


# -- one per cent ----------------------------------------------------------------------------------------------


def one_percent_panel(facts: Facts, scope: Scope) -> Panel:
    """The smallest removal of votes that changes the top."""
    found = standing(facts, scope)
    question = "Would 1 % of the votes change the top?"
    read = (
        "The votes left out are those that hold the first model up most, so this is the worst that a few votes can do, "
        "not what chance does: a top that 1 % of votes decide should be called shared."
    )
    if lacking := missing(found):
        return Panel("one-percent", question, read=read, missing=lacking)
    if found.between * ONE < 1:
        needed = number(round(1 / ONE) - found.between)
        lacking = f"1 % of the votes between models is less than one vote: {needed} more are needed."
        return Panel("one-percent", question, read=read, missing=lacking)
    flip = facts.remember(("models flip", scope), lambda: smallest_flip(found.fit, found.pairs))
    if flip is None:
        top = found.named(found.order[0])
        answer = (
            f"No: even without any {number(MOST, 'share')} of the votes that were tried, {top} stays first."
        )
        return Panel("one-percent", question, answer, read)
    return Panel(
        "one-percent",
        question,
        _flip_answer(found, flip),
        read,
        figures=(
            Figure(
                "smallest removal that changes the top",
                flip.share,
                unit="share",
                note=f"{number(flip.votes)} votes",
            ),
        ),
        tables=(_dropped_table(found, flip),),
        notes=(FOUND,),
    )


def _flip_answer(found: Standing, flip: Flip) -> str:
    top, other = found.named(flip.top), found.named(flip.other)
    votes = "vote" if flip.votes == 1 else "votes"
    which = f"{number(flip.votes)} {votes} of {number(round(flip.votes / flip.share))} ({number(flip.share, 'share')})"
    first = flip.dropped[0]
    most = f"most of them, {number(first.votes)}, are {_said(found, first)}" if len(flip.dropped) > 1 else ""
    if flip.votes > 1 and not most:
        most = f"all of them {_said(found, first)}"
    if flip.share <= ONE:
        return f"Yes: without {which} {other} would come first instead of {top}" + (
            f"; {most}." if most else "."
        )
    return f"No: it takes {which} to put {other} in the place of {top}" + (f"; {most}." if most else ".")


def _said(found: Standing, kind: Dropped) -> str:
    winner, loser = found.named(kind.winner), found.named(kind.loser)
    return f"ties of {winner} and {loser}" if kind.tie else f"for {winner} over {loser}"


def _dropped_table(found: Standing, flip: Flip) -> Table:
    columns = (
        Column("winner", "voted for"),
        Column("loser", "over"),
        Column("tie", "tie"),
        Column("votes", "votes left out", "count"),
    )
    rows: list[dict[str, Cell]] = [
        {
            "winner": found.named(kind.winner),
            "loser": found.named(kind.loser),
            "tie": "yes" if kind.tie else "no",
            "votes": kind.votes,
            "href": found.href(kind.winner),
        }
        for kind in flip.dropped[:KINDS]
    ]
    return Table(columns, rows, len(flip.dropped), "The votes that the top hangs on")


# -- more votes ------------------------------------------------------------------------------------------------


def more_votes_panel(facts: Facts, scope: Scope) -> Panel:
    """How far the interval of the first open difference narrows with more votes."""
    found = standing(facts, scope)
    question = "What would more votes buy?"
    read = (
        "Half the width of the 95 % interval of the difference between the two models: spread over all models as now it "
        "shrinks with the square root of all votes, between the two it shrinks fastest."
    )
    if lacking := missing(found):
        return Panel("more-votes", question, read=read, missing=lacking)
    if items := [LEAST - int(found.won.items[one]) for one in found.order[:2] if not found.sure[one]]:
        lacking = (
            f"{number(max(items))} more items for one of the first two models: both need votes on {LEAST}."
        )
        return Panel("more-votes", question, read=read, missing=lacking)
    votes = float(found.between)
    sure = found.sure
    unsettled = open_order(found.fit, [one for one in found.order[:AMONG] if sure[one]], votes)
    asked = unsettled or doubt(found.fit, found.order[0], found.order[1], votes)
    more = _more(asked)
    axis = f"points, {found.named(asked.better)} against {found.named(asked.worse)}, by number of more votes"
    series: dict[str, Sequence[float | None]] = {
        "spread as now": [ELO * asked.spread(n) for n in more],
        "all between the two": [ELO * asked.focused(n) for n in more],
    }
    return Panel(
        "more-votes",
        question,
        _more_answer(found, asked, more[2]),
        read,
        figures=_more_figures(found, asked),
        plots=(Lines([float(n) for n in more], series, axis, "number"),),
        notes=("What would settle it assumes that the difference is as found; it may be smaller.",)
        if unsettled
        else (),
    )


def _more(asked: Doubt) -> list[int]:
    """Numbers of more votes worth looking at: up to what settles it, or as many again."""
    needed = asked.needed_spread
    most = max(200, min(2 * needed, 4 * int(asked.votes)) if needed else int(asked.votes))
    return sorted({int(round(share * most, -1 if most < 10_000 else -2)) for share in STEPS})


def _more_answer(found: Standing, asked: Doubt, some: int) -> str:
    better, worse = found.named(asked.better), found.named(asked.worse)
    now = f"{number(ELO * asked.difference)} \N{PLUS-MINUS SIGN} {number(ELO * asked.spread(0))} points"
    if asked.settled:
        return f"Little: the order of the first {number(min(AMONG, len(found.order)))} is settled; {better} leads {worse} by {now}."
    narrower = (
        f"{number(some)} more votes would narrow that to \N{PLUS-MINUS SIGN} {number(ELO * asked.focused(some))} if all are "
        f"between these two, to \N{PLUS-MINUS SIGN} {number(ELO * asked.spread(some))} if spread as now"
    )
    opens = f"The first open question is {better} against {worse}, {now} apart: {narrower}"
    if asked.needed_focused is None:
        return f"{opens}."
    return f"{opens}; about {number(_about(asked.needed_focused))} between them would settle it."


def _about(votes: int) -> int:
    """Two digits: more would promise what nobody knows."""
    return int(float(f"{votes:.2g}"))


def _more_figures(found: Standing, asked: Doubt) -> tuple[Figure, ...]:
    label = f"{found.named(asked.better)} minus {found.named(asked.worse)}, in points"
    value, half = ELO * asked.difference, ELO * asked.spread(0)
    figures = [Figure(label, value, value - half, value + half, int(asked.votes))]
    if not asked.settled:
        same = "the two have the same score"
        for where, needed in (
            ("between the two", asked.needed_focused),
            ("spread as now", asked.needed_spread),
        ):
            figures.append(
                Figure(
                    f"votes that would settle it, {where}",
                    None if needed is None else _about(needed),
                    unit="count",
                    why=same if needed is None else "",
                )
            )
    return tuple(figures)
