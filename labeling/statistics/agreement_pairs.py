"""Review, Agreement, pairs: how far each two of the busiest annotators agree.

This says something about people, so pairs that were chosen actively, which are hard on purpose, are left out.
"""

from dataclasses import dataclass

import numpy as np

from palate.data.facts import Facts
from palate.labeling.statistics.agreement_figures import figure, said, who
from palate.labeling.statistics.formatting import number, one_line
from palate.labeling.statistics.measures import Estimate
from palate.labeling.statistics.pair_agreement import Between, between
from palate.labeling.statistics.panels import Cell, Column, Heat, Panel, Table
from palate.labeling.statistics.scope import Scope

MOST = 12  # annotators
ENOUGH = 10  # pairs of answers that two annotators must share before their cell says something

# those who answered most items that somebody else answered too
_BUSIEST = """
WITH counted AS (
    SELECT annotator, item FROM ballot b
    WHERE {where} AND verdict IN (0, 1) AND NOT again AND NOT adjudicated AND NOT selected
), shared AS (SELECT item FROM counted GROUP BY item HAVING count(*) > 1)
SELECT c.annotator, any_value(a.name) AS name, count(*) AS items
FROM counted c JOIN shared s ON s.item = c.item JOIN annotator a ON a.code = c.annotator
GROUP BY c.annotator ORDER BY items DESC, c.annotator LIMIT {most}
"""

_VOTES = """
SELECT unit, item, annotator, (sign(grade) + 1)::TINYINT AS label FROM judgement j
WHERE {where} AND NOT again AND NOT adjudicated AND NOT selected AND annotator IN ({codes})
"""


@dataclass(frozen=True)
class Busiest:
    """The busiest annotators and what lies between each two of them."""

    names: list[str]
    between: Between

    @property
    def mean(self) -> Estimate:
        """Cohen's kappa, the mean over all two of them."""
        return self.between.mean


def busiest(facts: Facts, scope: Scope) -> Busiest:
    """Computed once until a vote comes in."""
    return facts.remember(("pairs", scope), lambda: _busiest(facts, scope))


def _busiest(facts: Facts, scope: Scope) -> Busiest:
    where, params = scope.where("b")
    people = facts.rows(_BUSIEST.format(where=where, most=MOST), params)
    codes = [int(row["annotator"]) for row in people]
    where, params = scope.where("j")
    votes = facts.columns(_VOTES.format(where=where, codes=", ".join(map(str, codes)) or "NULL"), params)
    rank = np.zeros(max(codes, default=0) + 1, dtype=np.int64)
    rank[codes] = np.arange(len(codes))
    found = between(votes["unit"], votes["item"], rank[votes["annotator"]], votes["label"], len(codes))
    return Busiest([one_line(str(row["name"]), 40) for row in people], found)


def pairs_panel(facts: Facts, scope: Scope, whole: bool = True) -> Panel:
    """Heat maps of percent agreement and kappa; without `whole` a stand-in."""
    some = who(scope)
    question = f"Which {some} agree with which?"
    read = (
        "Each cell is one pair of the busiest annotators: how often they say the same about the same pair of answers, "
        f"and Cohen's kappa, which is 0 for guessing; cells of fewer than {ENOUGH} shared pairs of answers stay empty."
    )
    if not whole:
        return Panel("pairs", question, read=read, late=True)
    found = busiest(facts, scope)
    shared = np.triu(found.between.shared)
    if not (shared >= ENOUGH).any():
        most = int(shared.max(initial=0))
        missing = f"No two {some} have judged {ENOUGH} of the same pairs of answers yet"
        missing += f" (the most that two share is {most})." if most else "."
        return Panel("pairs", question, read=read, missing=missing)
    percent, kappa = (
        _enough(found.between, values) for values in (found.between.percent, found.between.kappa)
    )
    return Panel(
        "pairs",
        question,
        _answer(found, kappa, some),
        read,
        figures=(figure("Cohen's kappa, mean", found.mean, note="each two weigh by what they share"),),
        tables=(_table(found, percent, kappa),),
        plots=(
            Heat(found.names, found.names, percent, "percent agreement", "share", 0.0, 1.0),
            Heat(found.names, found.names, kappa, "Cohen's kappa", "number", -1.0, 1.0),
        ),
        notes=(
            f"These are the {len(found.names)} {some} with the most items that somebody else answered too.",
            "Actively selected pairs are hard to tell apart on purpose, so they don't count here.",
        ),
    )


def _enough(found: Between, values: list[list[float | None]]) -> list[list[float | None]]:
    return [
        [value if n >= ENOUGH else None for value, n in zip(row, counts, strict=True)]
        for row, counts in zip(values, found.shared.tolist(), strict=True)
    ]


def _answer(found: Busiest, kappa: list[list[float | None]], some: str) -> str:
    if found.mean.value is None:
        return f"Not known: {found.mean.why}."
    cells = [
        (value, row, column)
        for row, values in enumerate(kappa)
        for column, value in enumerate(values)
        if row < column and value is not None
    ]
    text = f"Each two of the busiest {some} agree with a mean kappa of {said(found.mean)}"
    if len(cells) < 2:
        return f"{text}."
    low, high = min(cells), max(cells)
    return f"{text}, from {_pair(found, low)} to {_pair(found, high)}."


def _pair(found: Busiest, cell: tuple[float, int, int]) -> str:
    value, one, other = cell
    return f"{number(value)} ({found.names[one]} and {found.names[other]})"


def _table(found: Busiest, percent: list[list[float | None]], kappa: list[list[float | None]]) -> Table:
    columns = (
        Column("name", "annotator"),
        Column(
            "percent", "agrees with the others", "share", help="the mean over the others, by what they share"
        ),
        Column("kappa", "kappa with the others", "number"),
        Column("shared", "shared", "count", help="pairs of answers, counted once for each other annotator"),
    )
    rows: list[dict[str, Cell]] = []
    for place, name in enumerate(found.names):
        weights = found.between.shared[place]
        rows.append(
            {
                "name": name,
                "percent": _mean(percent[place], weights.tolist()),
                "kappa": _mean(kappa[place], weights.tolist()),
                "shared": int(weights.sum()),
            }
        )
    rows.sort(key=lambda row: (row["kappa"] is None, row["kappa"]))
    return Table(columns, rows, caption="Who agrees least with the others stands first")


def _mean(values: list[float | None], weights: list[int]) -> float | None:
    known = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None
