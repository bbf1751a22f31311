"""Review, Models: what rankings of three or more answers say, beside the pairs that they are cut into elsewhere."""

import numpy as np

from palate.data.facts import Facts
from palate.labeling.statistics.formatting import interval, number
from palate.labeling.statistics.model_votes import Ints
from palate.labeling.statistics.panels import Cell, Column, Figure, Intervals, Panel, Table
from palate.labeling.statistics.plackett_luce import PlackettLuce, Rankings, plackett_luce
from palate.labeling.statistics.resampling import LEAST
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.standing import Scores, Standing, of_fit, scores, standing

QUESTION = "What do whole rankings say?"
READ = (
    "Each ranking of three or more is one statement here, not as many as it has pairs (Plackett-Luce). The scale is that "
    "of the scores above: where both orders agree, cutting rankings into pairs does no harm."
)
COUNTED = "NOT r.again AND NOT r.adjudicated"
LONGEST = 9  # answers in a comparison
SHOWN = 40  # models in the plot


def rankings(facts: Facts, scope: Scope) -> int:
    """How many there are."""
    where, params = scope.where("r")
    return int(facts.value(f"SELECT count(*) FROM ranking r WHERE {where} AND {COUNTED}", params))


def rankings_stand_in(count: int) -> Panel:
    """What is there while all rankings are fitted."""
    return Panel("rankings", QUESTION, "The fit of all rankings follows.", READ, (_count(count),), late=True)


def rankings_panel(facts: Facts, scope: Scope) -> Panel:
    """Strengths by Plackett-Luce beside those by pairs."""
    found = standing(facts, scope)
    known = facts.remember(("models rankings", scope), lambda: _fitted(facts, scope, found))
    if known is None:
        return Panel("rankings", QUESTION, read=READ, missing="No vote ranks three or more answers yet.")
    fit, count, items = known
    figures = [_count(count)]
    if fit.why:
        return Panel(
            "rankings", QUESTION, read=READ, figures=tuple(figures), missing=f"Not known yet: {fit.why}."
        )
    figures += [
        Figure(
            f"chance of a tie of {size} against one of them",
            delta / (size + delta),
            unit="share",
            note="equal answers",
        )
        for size, delta in fit.deltas.items()
        if size == 2
    ]
    sure = fit.scored & (items >= LEAST)
    points = scores(fit.beta, fit.low, fit.high, fit.scored, sure)
    order = [int(one) for one in np.argsort(-fit.beta, kind="stable") if fit.scored[one]]
    return Panel(
        "rankings",
        QUESTION,
        _answer(found, points, order),
        READ,
        tuple(figures),
        (_table(found, points, order),),
        (_plot(found, points, order[:SHOWN]),),
        tuple(_notes(found, fit, sure)),
    )


def _count(count: int) -> Figure:
    return Figure("rankings of three or more", count, unit="count")


def _fitted(facts: Facts, scope: Scope, found: Standing) -> tuple[PlackettLuce, int, Ints] | None:
    """(the fit, rankings, items per model), or None without any ranking."""
    where, params = scope.where("r")
    places = ", ".join(f"coalesce(places[{at}], 0)::TINYINT AS p{at}" for at in range(1, LONGEST + 1))
    models = ", ".join(f"coalesce(models[{at}], -1)::INTEGER AS m{at}" for at in range(1, LONGEST + 1))
    sql = f"SELECT item, {places}, {models} FROM ranking r WHERE {where} AND {COUNTED}"
    columns = facts.columns(sql, params)
    item = np.asarray(columns["item"]).astype(np.int64)
    if not len(item):
        return None
    used = [at for at in range(1, LONGEST + 1) if np.any(columns[f"p{at}"])]
    place = np.stack([np.asarray(columns[f"p{at}"]).astype(np.int64) for at in used], axis=1)
    code = np.full(max(int(found.code.max()), *(int(columns[f"m{at}"].max()) for at in used)) + 2, -1)
    code[found.code] = np.arange(len(found.code))
    model = code[np.stack([np.asarray(columns[f"m{at}"]) for at in used], axis=1)]
    place = np.where(model >= 0, place, 0)  # a model that is left out says nothing
    rankings = Rankings(len(found.names), np.maximum(model, 0), place)
    where_met = np.unique((item[:, None] * len(found.names) + rankings.model)[place > 0])
    items = np.bincount(where_met % len(found.names), minlength=len(found.names))
    return plackett_luce(rankings, item), len(item), items


def _answer(found: Standing, points: Scores, order: list[int]) -> str:
    top = order[0]
    first = found.order[0] if found.order else top
    span = interval(points.low[top], points.high[top])
    score = number(points.value[top]) + (f" (95 %: {span})" if span else "")
    told = f"Rankings put {found.named(top)} first with {score}"
    if first == top:
        return f"{told}, as all pairs do."
    return f"{told}, all pairs {found.named(first)}."


def _table(found: Standing, points: Scores, order: list[int]) -> Table:
    pairs = of_fit(found)
    columns = (
        Column("rank", "rank", "count", "rank_best", "rank_worst"),
        Column("model", "model"),
        Column("score", "score by rankings", "number", "score_low", "score_high"),
        Column("pairs", "score by pairs", "number", "pairs_low", "pairs_high"),
    )
    rows: list[dict[str, Cell]] = [
        {
            "rank": rank,
            "model": found.named(model),
            **points.ranks(model),
            **points.cells(model),
            **(pairs.cells(model, "pairs") if found.fit.scored[model] else {"pairs": None}),
            "href": found.href(model),
        }
        for rank, model in enumerate(order, 1)
    ]
    return Table(columns, rows, caption="Models by rankings, best first")


def _plot(found: Standing, points: Scores, best: list[int]) -> Intervals:
    return Intervals(
        [found.named(one) for one in best],
        [points.value[one] for one in best],
        [points.low[one] for one in best],
        [points.high[one] for one in best],
        "score in points, by rankings",
        reference=1000.0,
        reference_label="average",
    )


def _notes(found: Standing, fit: PlackettLuce, sure: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[str]:
    notes = []
    if fit.deltas:
        notes.append("Tied answers are one choice of several at once (Davidson-Luce, arXiv:1909.07123).")
    notes.append("Answers that a ranking leaves out say nothing.")
    if fit.apart.any():
        notes.append(
            "Some model won or lost every ranking: each has half a win and half a loss against an average one."
        )
    if (fit.scored & ~sure).any():
        notes.append(f"A model ranked on fewer than {LEAST} items has no interval.")
    return notes
