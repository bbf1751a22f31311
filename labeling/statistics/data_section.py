"""Review, Data: which prompts split people, where they do, and what leads have decided.

The panels of this section: split, where, adjudicated. Search, filters and exports are in `labeling.review_data`.
"""

from collections.abc import Callable, Sequence

import numpy as np

from palate.data.facts import Facts
from palate.labeling.review_query import Query, written
from palate.labeling.statistics.disagreement import WORTH, Disagreement, disagreement
from palate.labeling.statistics.formatting import number, one_line
from palate.labeling.statistics.measures import wilson
from palate.labeling.statistics.panels import Cell, Column, Figure, Histogram, Panel, Table
from palate.labeling.statistics.scope import Scope

SHOWN = 20  # items listed
BINS = 25
LATE: dict[str, Callable[[Facts, Scope], Panel]] = {}

_PROMPTS = """
SELECT c.id, q.messages ->> '$[#-1].content' AS prompt, q.source
FROM comparison c JOIN prompt q ON q.id = c.prompt_id WHERE c.id IN (SELECT unnest(?))
"""


def panels(facts: Facts, scope: Scope) -> list[Panel]:
    """All panels."""
    return [split_panel(facts, scope), where_panel(facts, scope), adjudicated_panel(facts, scope)]


def queue_of(scope: Scope) -> Query:
    """What awaits a lead's decision, the most split first."""
    return Query(scope, disagreement=WORTH, adjudicated=False, sort="disagreement")


# -- which prompts -------------------------------------------------------------------------------------------------


def split_panel(facts: Facts, scope: Scope) -> Panel:
    """The items on which the next two people are expected to differ most."""
    question, found = "Which prompts split people?", disagreement(facts, scope)
    several = found.votes >= 2
    if not several.any():
        more = (
            "one more vote by somebody else on an item"
            if len(found.item)
            else "an item that two people answer"
        )
        return Panel("split", question, missing=f"no item was answered by two people: it takes {more}.")
    shared, split = int(several.sum()), int(found.split.sum())
    share = split / shared
    low, high = wilson(split, shared)
    return Panel(
        "split",
        question,
        f"On {split:,} of {shared:,} items with two or more votes ({number(share, 'share')}) two people differ.",
        "Disagreement is how much the next two people to answer are expected to differ: 0 not at all, 1 always; a tie "
        "lies halfway, 0.27 is expected of an item that nobody has answered yet, and 0.5 is an even split.",
        (
            Figure("items on which people differ", share, low, high, shared, "items with two or more votes", "share"),
            Figure(
                f"items at {WORTH} or more", int((found.expected >= WORTH).sum()), n=len(found.item), of="items",
                unit="count", note="worth a lead's decision",
            ),
        ),
        (_items(facts, scope, found),),
        (_histogram(found, several),),
        notes=(
            "The more votes, the surer: 5 : 5 stands before 1 : 1, though both are halves.",
            "Taste, an unclear guideline and a careless annotator all split votes; the reasons people give tell which.",
        ),
        href=written(queue_of(scope)),
    )  # fmt: skip


def _items(facts: Facts, scope: Scope, found: Disagreement) -> Table:
    """The first items with their prompts."""
    first = np.flatnonzero(found.split)[:SHOWN]
    sql = "SELECT code, id FROM item WHERE code IN (SELECT unnest(?::INTEGER[]))"
    ids = {row["code"]: row["id"] for row in facts.rows(sql, [found.item[first].tolist()])}
    about = {row["id"]: row for row in facts.store.rows(_PROMPTS, [list(ids.values())])}
    rows: list[dict[str, Cell]] = []
    for i in first.tolist():
        name = ids[int(found.item[i])]
        row = about.get(name, {"prompt": "", "source": ""})
        rows.append(
            {
                "prompt": one_line(row["prompt"] or "", 160),
                "source": row["source"],
                "votes": f"{found.a_wins[i]} : {found.ties[i]} : {found.b_wins[i]}",
                "disagreement": float(found.expected[i]),
                "href": written(Query(Scope(scope.kind), item=name)),
            }
        )
    columns = (
        Column("prompt", "prompt"),
        Column("source", "source"),
        Column(
            "votes", "votes", help="For one, ties, for the other; of the pair of answers that splits most."
        ),
        Column("disagreement", "disagreement", "number"),
    )
    return Table(columns, rows, int(found.split.sum()), "The most split first")


def _histogram(found: Disagreement, several: np.ndarray) -> Histogram:
    counts, edges = np.histogram(found.expected[several], BINS, (0.0, max(0.5, float(found.expected.max()))))
    series: dict[str, Sequence[float]] = {"items": [float(n) for n in counts]}
    return Histogram(
        edges.tolist(), series, "disagreement of items with two or more votes", mark=WORTH, mark_label=""
    )


# -- where ---------------------------------------------------------------------------------------------------------


def where_panel(facts: Facts, scope: Scope) -> Panel:
    """The share of items on which people differ, by source and by tag."""
    question, found = "Where do people differ most?", disagreement(facts, scope)
    several = found.votes >= 2
    item, split = found.item[several], found.split[several]
    if not len(item):
        return Panel("where", question, missing="no item was answered by two people.")
    codes = facts.columns("SELECT source FROM item ORDER BY code")["source"][item]
    names = [str(row["name"]) for row in facts.rows("SELECT name FROM source ORDER BY code")]
    by_source = [(names[code], split[codes == code]) for code in np.unique(codes).tolist()]
    tables = [_table("source", by_source, lambda name: written(_within(scope, source=name)))]
    tagged = facts.columns("SELECT item, tag FROM item_tag ORDER BY tag")
    if len(tagged["item"]):
        place = np.full(max(int(item.max()), int(tagged["item"].max())) + 1, -1)
        place[item] = np.arange(len(item))
        at = place[tagged["item"]]
        tags, which = np.unique(tagged["tag"][at >= 0].astype(str), return_inverse=True)
        there = at[at >= 0]
        by_tag = [(str(tag), split[there[which == i]]) for i, tag in enumerate(tags)]
        tables.append(_table("tag", by_tag, lambda name: written(_within(scope, tag=name))))
    overall = float(split.mean())
    first = tables[0].rows[0]
    clear = [row for row in tables[0].rows if row["low"] is not None and float(str(row["low"])) > overall]
    answer = (
        f"On prompts of {one_line(str(first['source']), 40) or 'no source'}: people differ on "
        f"{number(first['share'], 'share')} of the items, against {number(overall, 'share')} of all."
        if clear
        else f"No source stands out: people differ on {number(overall, 'share')} of the items with two or more votes."
    )
    read = "A share of items, with its 95 % interval (Wilson); more votes on an item make a difference more likely."
    return Panel("where", question, answer, read, tables=tuple(table for table in tables if table.rows))


def _within(scope: Scope, source: str | None = None, tag: str | None = None) -> Query:
    narrowed = Scope(scope.kind, source or scope.source, tag or scope.tag, scope.since, scope.until)
    return Query(narrowed, disagreement=WORTH, sort="disagreement")


def _table(key: str, groups: list[tuple[str, np.ndarray]], href: Callable[[str], str]) -> Table:
    rows: list[dict[str, Cell]] = []
    for name, split in groups:
        n, differ = len(split), int(split.sum())
        if n:
            low, high = wilson(differ, n)
            rows.append(
                {key: name, "items": n, "share": differ / n, "low": low, "high": high, "href": href(name)}
            )
    rows.sort(key=lambda row: (-float(str(row["low"])), str(row[key])))  # those that surely differ come first
    columns = (
        Column(key, key),
        Column("items", "items", "count"),
        Column("share", "people differ on", "share", "low", "high"),
    )
    return Table(columns, rows)


# -- what is decided -----------------------------------------------------------------------------------------------


def adjudicated_panel(facts: Facts, scope: Scope) -> Panel:
    """How many items leads have decided, and whether as most people voted."""
    question, where, params = "What have leads decided?", *Scope("human", scope.source, scope.tag).where("b")
    done = int(facts.value(f"SELECT count(*) FROM ballot b WHERE {where} AND adjudicated", params))
    waiting = int((disagreement(facts, scope).expected >= WORTH).sum())
    href = written(queue_of(scope))
    if not done:
        left = f"{waiting:,} items are worth a decision" if waiting else "no item is split enough to need one"
        return Panel("adjudicated", question, missing=f"no item was adjudicated; {left}.", href=href)
    with_most, decided = _with_most(facts, scope)
    figures = [Figure("items decided", done, unit="count")]
    said = f"{done:,} {'item is' if done == 1 else 'items are'} decided"
    if decided:
        low, high = wilson(with_most, decided)
        figures.append(
            Figure(
                "decided as most people voted",
                with_most / decided,
                low,
                high,
                decided,
                "decided pairs",
                "share",
            )
        )
        said += f"; {number(with_most / decided, 'share')} of the decided pairs went as most people voted"
    read = (
        "A decision is a vote of its own kind: a lead saw the others' votes, so it never counts as agreement."
    )
    return Panel("adjudicated", question, f"{said}.", read, tuple(figures), href=href)


def _with_most(facts: Facts, scope: Scope) -> tuple[int, int]:
    """(decided pairs that went as most people voted, decided pairs that have such a majority)."""
    where, params = Scope("human", scope.source, scope.tag).where("j")
    found = facts.rows(
        f"""
        WITH decided AS (SELECT unit, sign(grade) AS way FROM judgement j WHERE {where} AND adjudicated),
        people AS (
            SELECT unit, sign(sum(sign(grade))) AS way FROM judgement j
            WHERE {where} AND NOT adjudicated AND NOT again AND unit IN (SELECT unit FROM decided) GROUP BY unit
        )
        SELECT count(*) FILTER (d.way = p.way) AS same, count(*) AS n
        FROM decided d JOIN people p ON p.unit = d.unit WHERE p.way <> 0 AND d.way <> 0
        """,
        [*params, *params],
    )[0]
    return int(found["same"]), int(found["n"])
