"""Review, Agreement, repeats and triads: do annotators agree with themselves?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.data.facts import Facts
from palate.labeling.statistics.agreement_figures import WHO, figure, said, who
from palate.labeling.statistics.consistency import (
    CHANCE,
    NO_TRIAD,
    Repeats,
    Rounds,
    Triads,
    circular_share,
    may_close,
    repeats,
    rounds,
    triads,
)
from palate.labeling.statistics.formatting import number, one_line
from palate.labeling.statistics.measures import Share
from palate.labeling.statistics.panels import Cell, Column, Panel, Table
from palate.labeling.statistics.resampling import Ints
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.tallies import tallies

SHOWN = 20  # annotators, those with the most to go by

# second answers beside first ones, pair by pair: a repeat is an item of its own with the pairs of its root
_REPEATS = """
SELECT s.annotator, s.vote, sign(f.grade)::TINYINT AS before, sign(s.grade)::TINYINT AS after,
       coalesce(f.a_first::TINYINT, -1) AS first_before, coalesce(s.a_first::TINYINT, -1) AS first_after,
       f.selected OR s.selected AS selected
FROM (
    SELECT j.*, o.first_unit + j.unit - i.first_unit AS origin
    FROM judgement j JOIN item i ON i.code = j.item JOIN item o ON o.code = i.root
    WHERE {where} AND j.again AND NOT j.adjudicated
) s
JOIN judgement f ON f.unit = s.origin AND f.annotator = s.annotator AND NOT f.again AND NOT f.adjudicated
"""
# pairs of completions of prompts that have three or more such items: only those can close a triad
_PAIRS = """
WITH prompts AS (
    SELECT prompt, row_number() OVER () AS number FROM item WHERE answers = 2 GROUP BY prompt HAVING count(*) > 2
)
SELECT u.code, p.number, hash(u.a) AS a, hash(u.b) AS b
FROM unit u JOIN item i ON i.code = u.item JOIN prompts p ON p.prompt = i.prompt WHERE i.answers = 2
"""
_JUDGED = """
SELECT annotator, unit, sign(grade)::TINYINT AS sign, selected FROM judgement j
WHERE {where} AND NOT again AND NOT adjudicated
"""


# -- repeats ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Again:
    """Repeats of everybody, and of the annotators with the most; the latter without actively selected pairs."""

    every: Repeats
    people: list[tuple[str, Repeats]]  # by name
    annotators: int


def repeats_panel(facts: Facts, scope: Scope, whole: bool = True) -> Panel:
    """Hidden repeats; without `whole` a stand-in."""
    some, one = WHO[scope.kind]
    question = f"Do {some} decide the same when an item comes back?"
    read = (
        "Hidden repeats show an item again, later, with its sides swapped: who judges the answers names the same winner "
        "again, who picks by place names the same side; guessing between two answers repeats itself half of the time."
    )
    if not whole:
        return Panel("repeats", question, read=read, late=True)
    found = facts.remember(("repeats", scope), lambda: _again(facts, scope))
    if not found.every.same.n:
        missing = f"No item came back to the {one} who had answered it: a share of hidden repeats is set for the queue."
        return Panel("repeats", question, read=read, missing=missing)
    every = found.every
    return Panel(
        "repeats",
        question,
        _repeats_answer(every),
        read,
        figures=(
            figure("same winner twice", every.same, "share", "pairs of answers seen twice"),
            figure("same side twice", every.same_side, "share", "of them decided twice, sides swapped"),
            figure(
                "of these, the side shown first",
                every.first_side,
                "share",
                "same side twice",
                "50 % is carelessness, anything else a pull of the place",
            ),
        ),
        tables=(_repeats_table(found),),
        notes=(
            "How consistent people are with themselves is the most that they can agree with others.",
            "Actively selected pairs don't count in the rows about one annotator: they are hard on purpose.",
        ),
    )


def _again(facts: Facts, scope: Scope) -> Again:
    where, params = scope.where("j")
    found = facts.columns(_REPEATS.format(where=where), params)
    columns = [found[name] for name in ("vote", "before", "after", "first_before", "first_after")]
    fair = ~found["selected"].astype(bool)
    people = _most(found["annotator"][fair])
    names = _names(facts, people)
    rows = [(names[code], _of(columns, fair & (found["annotator"] == code))) for code in people[:SHOWN]]
    return Again(repeats(*columns), rows, len(people))


def _of(columns: list[Ints], keep: NDArray[np.bool_]) -> Repeats:
    vote, before, after, first_before, first_after = (column[keep] for column in columns)
    return repeats(vote, before, after, first_before, first_after)


def _most(annotator: Ints) -> list[int]:
    """Annotators by how many rows they have, most first."""
    codes, counts = np.unique(annotator, return_counts=True)
    return [int(code) for code in codes[np.argsort(-counts, kind="stable")]]


def _names(facts: Facts, codes: list[int]) -> dict[int, str]:
    wanted = ", ".join(map(str, codes[:SHOWN])) or "NULL"
    rows = facts.rows(f"SELECT code, name FROM annotator WHERE code IN ({wanted})")
    return {int(row["code"]): one_line(str(row["name"]), 40) for row in rows}


def _repeats_answer(every: Repeats) -> str:
    text = f"The same winner comes out in {said(every.same, 'share')} of repeated pairs"
    first = every.first_side
    if not first.n:
        return f"{text}."
    if first.low is None or first.high is None or first.low <= 0.5 <= first.high:
        return f"{text}; where the winner changes, there is no sign that the place decides."
    side = "first" if first.low > 0.5 else "last"
    return f"{text}; where the same side won twice, it was the one shown {side} in {number(first.value, 'share')}."


def _repeats_table(found: Again) -> Table:
    columns = (
        Column("name", "annotator"),
        Column("same", "same winner twice", "share", "same_low", "same_high"),
        Column("pairs", "pairs seen twice", "count"),
        Column("side", "same side twice", "share", "side_low", "side_high"),
        Column("first", "of these, shown first", "share"),
    )
    rows: list[dict[str, Cell]] = [
        {
            "name": name,
            **_cells("same", each.same),
            "pairs": each.same.n,
            **_cells("side", each.same_side),
            "first": each.first_side.value,
        }
        for name, each in found.people
    ]
    return Table(
        columns, rows, found.annotators if found.annotators > len(rows) else None, "Most repeats first"
    )


def _cells(key: str, found: Share) -> dict[str, Cell]:
    return {key: found.value, f"{key}_low": found.low, f"{key}_high": found.high}


# -- triads -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Circles:
    """Circular triads of annotators, and of models by majority."""

    every: Share
    people: list[tuple[str, Share]]  # without actively selected pairs
    annotators: int
    models: Rounds
    names: list[str]  # of models, by code


def triads_panel(facts: Facts, scope: Scope, whole: bool = True) -> Panel:
    """Circular triads; without `whole` a stand-in."""
    some = who(scope)
    question = f"Do the preferences of {some} run in circles?"
    read = (
        "A over B, B over C and C over A is a circle: nobody who judges by one yardstick makes them, and who guesses "
        "makes 25 % of all triads circular; only pairs count that were judged in separate comparisons."
    )
    if not whole:
        return Panel("triads", question, read=read, late=True)
    found = facts.remember(("triads", scope), lambda: _circles(facts, scope))
    if not found.every.n and not found.models.closed:
        missing = f"No {WHO[scope.kind][1]} has judged all pairs of three answers to one prompt in separate comparisons, "
        return Panel(
            "triads", question, read=read, missing=f"{missing}and no three models were all compared."
        )
    tables = [_people_table(found)] if found.people else []
    if found.models.worst:
        tables.append(_models_table(found))
    return Panel(
        "triads",
        question,
        _triads_answer(found, some),
        read,
        figures=(
            figure(
                "circular, of annotators' triads", found.every, "share", "closed triads", "guessing: 25 %"
            ),
            figure("circular, of models' triads", _models_share(found.models), "share", "triples of models"),
        ),
        tables=tuple(tables),
        notes=(_doubt(found.models),) if found.models.circular else (),
    )


def _doubt(found: Rounds) -> str:
    return (
        f"In {number(found.sure, 'count')} of the {number(found.circular, 'count')} circles of models each of the three "
        "wins is beyond doubt (95 %); the others may be chance in few votes."
    )


def _circles(facts: Facts, scope: Scope) -> Circles:
    every, fair = _triads(facts, scope)
    person = fair.group >> 32
    people = _by_size(person, fair.closed)
    names = _names(facts, people)
    rows = []
    for code in people[:SHOWN]:
        mine = person == code
        rows.append(
            (names[code], circular_share(Triads(fair.group[mine], fair.closed[mine], fair.circular[mine])))
        )
    models = [str(row["name"]) for row in facts.rows("SELECT name FROM model ORDER BY code")]
    return Circles(circular_share(every), rows, len(people), rounds(_wins(facts, scope, len(models))), models)


def _triads(facts: Facts, scope: Scope) -> tuple[Triads, Triads]:
    """(of all judgements, without actively selected pairs); a group is an annotator's code and a prompt's number."""
    pairs = facts.columns(_PAIRS)
    if not len(pairs["code"]):
        nothing = np.zeros(0, dtype=np.int64)
        return (triads(nothing, nothing, nothing, nothing),) * 2
    where, params = scope.where("j")
    judged = facts.columns(_JUDGED.format(where=where), params)
    place = np.full(max(int(pairs["code"].max()), int(judged["unit"].max(initial=0))) + 1, -1)
    place[pairs["code"]] = np.arange(len(pairs["code"]))
    at = place[judged["unit"]]
    group = (judged["annotator"].astype(np.int64) << 32) | pairs["number"][at]
    keep = np.flatnonzero(at >= 0)
    keep = keep[may_close(group[keep])]
    group, at, sign, fair = (
        group[keep],
        at[keep],
        judged["sign"][keep],
        ~judged["selected"][keep].astype(bool),
    )
    a, b = pairs["a"][at], pairs["b"][at]
    return triads(group, a, b, sign), triads(group[fair], a[fair], b[fair], sign[fair])


def _by_size(person: Ints, closed: Ints) -> list[int]:
    """Annotators by closed triads, most first."""
    codes, number = np.unique(person, return_inverse=True)
    return [int(code) for code in codes[np.argsort(-np.bincount(number, weights=closed), kind="stable")]]


def _wins(facts: Facts, scope: Scope, models: int) -> NDArray[np.float64]:
    """(models, models) votes for the row's model against the column's, a tie half a vote for each."""
    found = tallies(facts, scope)
    wins = np.zeros((models, models))
    np.add.at(wins, (found.model_a, found.model_b), found.a_wins + found.ties / 2)
    np.add.at(wins, (found.model_b, found.model_a), found.b_wins + found.ties / 2)
    np.fill_diagonal(wins, 0)
    return wins


def _models_share(found: Rounds) -> Share:
    if not found.closed:
        return Share(None, None, None, 0, "no three models were all compared with each other")
    return Share(
        found.circular / found.closed, None, None, found.closed, "all triples are counted, none is drawn"
    )


def _triads_answer(found: Circles, some: str) -> str:
    if found.every.value is None:
        return f"Not known for {some}: {NO_TRIAD}."
    text = f"{said(found.every, 'share')} of triads are circular, where guessing gives 25 %"
    if found.every.high is not None and found.every.high < CHANCE:
        few = "Hardly" if found.every.value < 0.05 else "Less than guesses would"
        return f"{few}: {text}."
    return f"No less than guesses would, or too few to tell: {text}."


def _people_table(found: Circles) -> Table:
    columns = (
        Column("name", "annotator"),
        Column("circular", "circular", "share", "circular_low", "circular_high"),
        Column("triads", "closed triads", "count"),
    )
    rows: list[dict[str, Cell]] = [
        {"name": name, **_cells("circular", each), "triads": each.n} for name, each in found.people
    ]
    more = found.annotators if found.annotators > len(rows) else None
    return Table(columns, rows, more, "Most triads first; without actively selected pairs")


def _models_table(found: Circles) -> Table:
    rows: list[dict[str, Cell]] = [
        {
            place: one_line(found.names[code] or "(no name)", 40)
            for place, code in zip("xyz", circle, strict=True)
        }
        for circle in found.models.worst
    ]
    columns = (Column("x", "beats the next"), Column("y", "beats the next"), Column("z", "beats the first"))
    return Table(columns, rows, found.models.circular, "Circles of models, the firmest first")
