"""Review, Agreement, rankings: do annotators order three or more answers alike?"""

import numpy as np

from palate.data.facts import Facts
from palate.labeling.statistics.agreement_figures import figure, said, who
from palate.labeling.statistics.formatting import number
from palate.labeling.statistics.panels import Cell, Column, Panel, Table
from palate.labeling.statistics.rank_agreement import Concordance, Items, concordance, rankings_of_items
from palate.labeling.statistics.resampling import LEAST
from palate.labeling.statistics.scope import Scope

SIZES = range(3, 10)  # answers of an item


def rankings_panel(facts: Facts, scope: Scope, whole: bool = True) -> Panel:
    """Kendall's tau_b and W; without `whole` a stand-in."""
    some = who(scope)
    question = f"Do {some} put three or more answers into the same order?"
    read = (
        "tau_b compares two rankings of the same answers: 1 is the same order, 0 is what guessing gives, −1 the "
        "reverse. W looks at all rankings of an item at once, from 0 to 1, and its value for guessing is not 0 but 1 "
        "divided by the number of rankings."
    )
    where, params = scope.where("r")
    ranked = facts.value(f"SELECT count(*) FROM ranking r WHERE {where}", params)
    if not ranked:
        return Panel("rankings", question, read=read, missing="No vote ranks three or more answers.")
    if not whole:
        return Panel("rankings", question, read=read, late=True)
    found = facts.remember(("rankings", scope), lambda: _found(facts, scope))
    every = found[0]
    if not every.items:
        why = f"No item with three or more answers was ranked by two {some} yet: {LEAST} such items give a figure and "
        return Panel("rankings", question, read=read, missing=f"{why}its interval.")
    return Panel(
        "rankings",
        question,
        _answer(every, some),
        read,
        figures=(
            figure(
                "Kendall's tau_b",
                every.tau,
                note="mean over the pairs of rankings of an item, then over items",
            ),
            figure(
                "Kendall's W", every.w, note=f"guessing gives {number(every.chance)}" if every.chance else ""
            ),
            figure("W beyond chance", every.beyond, note="0 is guessing, 1 is always the same order"),
        ),
        tables=(_table(found[1]),) if len(found[1]) > 1 else (),
        notes=(
            "Each item counts once, whoever ranked it; intervals come from resampling items.",
            "A ranking that calls everything a tie has no order, so it has no tau_b.",
            "Answers that were not ranked are left out of tau_b, and items with such answers out of W.",
        ),
    )


def _found(facts: Facts, scope: Scope) -> tuple[Concordance, dict[int, Concordance]]:
    """(over all items, by how many answers an item has)."""
    items = {size: _items(facts, scope, size) for size in SIZES}
    there = {size: each for size, each in items.items() if each.rankings}
    return concordance(list(there.values())), {size: concordance([each]) for size, each in there.items()}


def _items(facts: Facts, scope: Scope, size: int) -> Items:
    where, params = scope.where("r")
    places = ", ".join(f"coalesce(places[{place}], 0) AS p{place}" for place in range(1, size + 1))
    sql = f"""
    WITH counted AS (SELECT * FROM ranking r WHERE {where} AND len(places) = {size} AND NOT again AND NOT adjudicated)
    SELECT item, {places} FROM counted
    WHERE item IN (SELECT item FROM counted GROUP BY item HAVING count(*) > 1) ORDER BY item
    """
    found = facts.columns(sql, params)
    return rankings_of_items(
        np.stack([found[f"p{place}"] for place in range(1, size + 1)], axis=1), found["item"]
    )


def _answer(every: Concordance, some: str) -> str:
    if every.tau.value is None:
        return f"Not known: {every.tau.why}."
    text = f"Two {some}'s orders of the same answers correlate with a tau_b of {said(every.tau)}"
    if every.tau.low is not None and every.tau.low <= 0:
        return f"Not shown: {text[0].lower()}{text[1:]}, and guessing gives 0."
    alike = number((1 + every.tau.value) / 2, "share")
    return f"{text}: without ties that is the same verdict on {alike} of all pairs of answers."


def _table(by_size: dict[int, Concordance]) -> Table:
    columns = (
        Column("answers", "answers", "count"),
        Column("items", "items", "count"),
        Column("rankings", "rankings", "count"),
        Column("tau", "tau_b", "number", "tau_low", "tau_high"),
        Column("w", "W", "number", "w_low", "w_high"),
        Column("chance", "W of guessing", "number"),
    )
    rows: list[dict[str, Cell]] = [
        {
            "answers": size,
            "items": each.items,
            "rankings": each.rankings,
            "tau": each.tau.value,
            "tau_low": each.tau.low,
            "tau_high": each.tau.high,
            "w": each.w.value,
            "w_low": each.w.low,
            "w_high": each.w.high,
            "chance": each.chance,
        }
        for size, each in by_size.items()
    ]
    return Table(columns, rows, caption="By how many answers an item has")
