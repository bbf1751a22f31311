"""Review, Models: which model is better, how sure that is, and what it hangs on.

The panels of this section: better and matrix (here), style, one-percent, more-votes, rankings. Second answers to the
same item and adjudications are left out. Scores are Davidson's Bradley-Terry on the scale of chess ratings; intervals
let the votes on one item hang together.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from palate.data.facts import Facts
from palate.labeling.statistics.annotator_clusters import by_annotator
from palate.labeling.statistics.bradley_terry import ELO, chances, elo
from palate.labeling.statistics.cluster_bootstrap import Resampled, affordable, resample
from palate.labeling.statistics.formatting import interval, number
from palate.labeling.statistics.measures import Z95
from palate.labeling.statistics.models_doubt import more_votes_panel, one_percent_panel
from palate.labeling.statistics.models_rankings import rankings, rankings_panel, rankings_stand_in
from palate.labeling.statistics.models_style import style_panel, style_stand_in
from palate.labeling.statistics.panels import Cell, Column, Figure, Heat, Intervals, Panel, Table
from palate.labeling.statistics.resampling import LEAST
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.standing import Scores, Standing, listed, missing, of_fit, standing, strengths
from palate.labeling.statistics.win_rates import win_matrix

SHOWN = 40  # models in the plot of intervals
CELLS = 25  # models in the matrix
SECONDS = 2.5  # that resampling may take
AT_ONCE = 20_000  # pairs of completions that are resampled without the page having to wait
LARGE_MISS = (
    4.0  # standard errors between two models' votes and what their scores say: chance does that hardly ever
)

BETTER = "Which model is better, how sure?"


def panels(facts: Facts, scope: Scope) -> list[Panel]:
    """All panels; where there are many votes, what takes longer is left to `LATE`."""
    found = standing(facts, scope)
    quick = len(found.item) <= AT_ONCE
    made = [
        better_panel(facts, scope) if quick else _better(found, None),
        style_panel(facts, scope) if quick else style_stand_in(found),
    ]
    if missing(found):  # once is enough
        return made
    made += [
        matrix_panel(facts, scope),
        one_percent_panel(facts, scope),
        more_votes_panel(facts, scope),
    ]
    if count := rankings(facts, scope):
        made.append(rankings_panel(facts, scope) if quick else rankings_stand_in(count))
    return made


# -- which is better -------------------------------------------------------------------------------------------


def better_panel(facts: Facts, scope: Scope) -> Panel:
    """Scores with both kinds of intervals."""
    found = standing(facts, scope)
    if missing(found):
        return _better(found, None)
    panel = _better(found, _resampled(facts, scope, found))
    return replace(panel, figures=(*panel.figures, *_other_people(facts, scope, found)))


def _resampled(facts: Facts, scope: Scope, found: Standing) -> Resampled | None:
    """The bootstrap over items; None where there are too few."""
    items = len(np.unique(found.item))
    if items < LEAST:
        return None
    times = affordable(len(found.item), len(found.names), SECONDS)
    return facts.remember(
        ("models resampled", scope), lambda: resample(found.fit, found.votes, found.item, times)
    )


def _other_people(facts: Facts, scope: Scope, found: Standing) -> tuple[Figure, ...]:
    """The lead of the first model in points, as sure as it is over items, and over annotators."""
    top, second = found.order[:2]
    again, people = facts.remember(("models people", scope), lambda: by_annotator(facts, scope, found))
    figures = []
    for fit, which, n, of in (
        (found.fit, "other items", len(np.unique(found.item)), "items"),
        (again, "other annotators", people, "annotators"),
    ):
        ahead, se = fit.difference(top, second)
        label = f"lead of the first, with {which}"
        if n < LEAST:
            figures.append(Figure(label, ELO * ahead, n=n, of=of, why=f"an interval needs {LEAST} {of}"))
        else:
            low, high = ELO * (ahead - Z95 * se), ELO * (ahead + Z95 * se)
            figures.append(Figure(label, ELO * ahead, low, high, n, of))
    return tuple(figures)


def _better(found: Standing, drawn: Resampled | None) -> Panel:
    lacking = missing(found)
    read = (
        "1,000 is the average of these models, and 100 points more win 64 % of the votes that are no ties. Models whose "
        "intervals overlap may stand the other way round; the range of ranks says how far."
    )
    if lacking:
        return Panel("better", BETTER, read=read, missing=lacking)
    points = of_fit(found)
    return Panel(
        "better",
        BETTER,
        _answer(found, points),
        read,
        _figures(found),
        (_table(found, points, drawn),),
        (_plot(found, points),),
        tuple(_notes(found, drawn)),
        late=drawn is None and len(found.item) > AT_ONCE,
    )


def _answer(found: Standing, points: Scores) -> str:
    top, second = found.order[:2]
    name, score = found.named(top), number(points.value[top])
    if not found.sure[top]:
        lacking = LEAST - int(found.won.items[top])
        return (
            f"{name} leads with {score} points, but its votes are on {number(int(found.won.items[top]))} items: "
            f"{number(lacking)} more give an interval."
        )
    told = f"{name}, with {score} points (95 %: {interval(points.low[top], points.high[top])})"
    rivals = [one for one in found.order if one != top and (points.best[one] or 1) == 1]
    ahead, se = found.fit.difference(top, second)
    span = interval(ELO * (ahead - Z95 * se), ELO * (ahead + Z95 * se))
    gap = f"{number(ELO * ahead)} points ahead of {found.named(second)} (95 %: {span})"
    if not rivals:
        return f"{told}: it is {gap}, and no other model's interval reaches its own."
    names = listed([found.named(one) for one in rivals])
    return f"Most likely {told}, {gap}; first place is open to {names} too."


def _figures(found: Standing) -> tuple[Figure, ...]:
    ties = float(found.pairs.ties.sum())
    return (
        Figure("models compared", int(found.fit.scored.sum()), of="models", unit="count"),
        Figure("votes between two models", found.between, unit="count"),
        Figure(
            "ties among them",
            ties / found.between,
            n=found.between,
            unit="share",
            note="a parameter of their own (Davidson 1970), so they don't pull scores together"
            if ties
            else "",
        ),
    )


def _table(found: Standing, points: Scores, drawn: Resampled | None) -> Table:
    columns = [
        Column(
            "rank", "rank", "count", "rank_best", "rank_worst", "the range is what the intervals leave open"
        ),
        Column("model", "model"),
        Column(
            "score", "score", "number", "score_low", "score_high", "95 % interval by the sandwich estimator"
        ),
    ]
    columns += [
        Column(
            "won",
            "won",
            "share",
            "won_low",
            "won_high",
            "of its votes; a tie is half a win; whom it met matters",
        ),
        Column("votes", "votes", "count", help="on pairs of its answers and another model's"),
    ]
    if drawn:
        help = f"95 % interval from {number(drawn.resamples)} resamples of whole items"
        columns += [
            Column("drawn", "resampled", "number", "drawn_low", "drawn_high", help),
            Column("first", "first in", "share", help="the share of resamples in which the model is first"),
        ]
    columns.append(Column("items", "items", "count"))
    rows = [_row(found, points, drawn, rank, model) for rank, model in enumerate(found.order, 1)]
    rest = [int(one) for one in np.argsort(-found.won.votes, kind="stable") if not found.fit.scored[one]]
    rows += [_row(found, points, None, None, model) for model in rest]
    return Table(tuple(columns), rows, total=len(rows) + found.left_out, caption="All models, best first")


def _row(
    found: Standing, points: Scores, drawn: Resampled | None, rank: int | None, model: int
) -> dict[str, Cell]:
    won, known = found.won, bool(found.won.votes[model])
    row: dict[str, Cell] = {"rank": rank, "model": found.named(model), "href": found.href(model)}
    if rank:
        row |= points.ranks(model) | points.cells(model)
    else:
        row |= {"score": None}
    if drawn:
        low, high = float(elo(drawn.low)[model]), float(elo(drawn.high)[model])
        sure = found.sure[model]
        row |= {
            "drawn": points.value[model],
            "drawn_low": low if sure else None,
            "drawn_high": high if sure else None,
        }
        row |= {"first": float(drawn.best[model])}
    return row | {
        "won": float(won.share[model]) if known else None,
        "won_low": float(won.low[model]) if known else None,
        "won_high": float(won.high[model]) if known else None,
        "votes": int(won.votes[model]),
        "items": int(won.items[model]),
    }


def _plot(found: Standing, points: Scores) -> Intervals:
    best = found.order[:SHOWN]
    return Intervals(
        [found.named(one) for one in best],
        [points.value[one] for one in best],
        [points.low[one] for one in best],
        [points.high[one] for one in best],
        "score in points",
        reference=1000.0,
        reference_label="average",
    )


def _notes(found: Standing, drawn: Resampled | None) -> list[str]:
    names = [found.named(one) for one in range(len(found.names))]
    apart = [names[one] for one in np.flatnonzero(found.fit.apart)]
    alone = [names[one] for one in np.flatnonzero(~found.fit.scored)]
    few = [names[one] for one in np.flatnonzero(found.fit.scored & ~found.sure)]
    same = int(found.votes.votes.sum()) - found.between
    notes = []
    if apart:
        notes.append(
            f"Won or lost everything against the rest: {listed(apart)}. Votes alone would put them endlessly far away, so "
            "each model is given half a win and half a loss against an average one."
        )
    if alone:
        notes.append(f"Without a score, as no chain of votes links them to the others: {listed(alone)}.")
    if few:
        notes.append(f"Without an interval, as their votes are on fewer than {LEAST} items: {listed(few)}.")
    if same:
        notes.append(f"{number(same)} votes compare two answers of one model and say nothing here.")
    if found.left_out:
        notes.append(f"The {number(found.left_out)} models with fewest votes are left out.")
    if drawn:
        notes.append(
            "Both kinds of intervals let the votes on one item hang together; where they differ much, trust the wider."
        )
    if np.bincount(found.item).max() > 1:
        notes.append("A vote that ranks several answers counts once for each pair of them.")
    return notes


# -- who beats whom --------------------------------------------------------------------------------------------


def matrix_panel(facts: Facts, scope: Scope) -> Panel:
    """The share of votes that each model wins against each other one."""
    found = standing(facts, scope)
    question, read = (
        "Who beats whom?",
        "The share of its votes that the row's model wins against the column's; a tie is half a win.",
    )
    if lacking := missing(found):
        return Panel("matrix", question, read=read, missing=lacking)
    shown = found.order[:CELLS]
    share, votes = win_matrix(found.pairs)
    values = [[float(share[i, j]) if votes[i, j] else None for j in shown] for i in shown]
    names = [found.named(one) for one in shown]
    met, possible = len(found.pairs.a), len(found.order) * (len(found.order) - 1) // 2
    order = np.where(votes > 0, (share - 0.5) * np.sqrt(votes), -1)
    winner, loser = (int(one) for one in np.unravel_index(int(order.argmax()), order.shape))
    answer = (
        f"The clearest of all pairs: {found.named(winner)} wins {number(float(share[winner, loser]), 'share')} of "
        f"{number(int(votes[winner, loser]))} votes against {found.named(loser)}."
    )
    figures = (Figure("pairs of models with votes", met, unit="count", note=f"of {number(possible)}"),)
    notes = [f"The {CELLS} best models are shown."] if len(found.order) > CELLS else []
    notes += _miss(found)
    return Panel(
        "matrix",
        question,
        answer,
        read,
        figures,
        plots=(Heat(names, names, values, "won against"),),
        notes=tuple(notes),
    )


def _miss(found: Standing) -> list[str]:
    """Where one number per model does not do: the pair whose votes are farthest from what the scores say."""
    pairs = found.pairs.rows(found.fit.scored[found.pairs.a] & found.fit.scored[found.pairs.b])
    lead, tie = chances(found.fit.beta[pairs.a] - found.fit.beta[pairs.b], found.fit.nu)
    difference = (pairs.a_wins - pairs.b_wins) - pairs.votes * lead
    errors = difference / np.sqrt(np.maximum(pairs.votes * (1 - tie - lead**2), 1e-9))
    errors[pairs.votes < 20] = 0
    at = int(np.abs(errors).argmax())
    if abs(errors[at]) < LARGE_MISS:
        return []
    a, b = found.named(int(pairs.a[at])), found.named(int(pairs.b[at]))
    votes = float(pairs.votes[at])
    got, expected = float(pairs.a_wins[at] + pairs.ties[at] / 2) / votes, float(1 + lead[at]) / 2
    told = (
        f"One score per model does not explain everything: {a} wins {number(got, 'share')} against {b}, where the scores "
        f"say {number(expected, 'share')}."
    )
    return [told]


__all__ = ["LATE", "panels", "strengths"]
LATE: dict[str, Callable[[Facts, Scope], Panel]] = {
    "better": better_panel,
    "style": style_panel,
    "rankings": rankings_panel,
}
