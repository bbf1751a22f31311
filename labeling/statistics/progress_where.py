"""Progress, where: votes by source and tag, and who holds what now."""

import datetime

from palate.data.facts import Facts
from palate.labeling.review_query import Query, written
from palate.labeling.statistics.formatting import number, one_line
from palate.labeling.statistics.panels import Cell, Column, Panel, Table
from palate.labeling.statistics.progress_people import votes_in
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.work import leases, work_left

SHOWN = 100  # leases listed


def by_source_panel(facts: Facts, scope: Scope) -> Panel:
    """Votes and awaited answers by the prompts' source."""
    question, where, params = "Where do the prompts come from?", *scope.where("b")
    votes = {
        row["name"]: int(row["n"])
        for row in facts.rows(
            f"SELECT s.name, count(*) AS n FROM ballot b JOIN source s ON s.code = b.source WHERE {where} GROUP BY ALL",
            params,
        )
    }
    sums: dict[str, list[int]] = {name: [0, 0, 0] for name in votes}
    for one in work_left(facts, scope):
        row = sums.setdefault(one.source, [0, 0, 0])
        if one.withheld is None:
            row[0] += one.comparisons
            row[1] += one.done
            row[2] += one.awaited
    if not sums:
        return Panel("by-source", question, missing="there is no comparison yet.")
    rows: list[dict[str, Cell]] = [
        {
            "source": name, "votes": votes.get(name, 0), "comparisons": comparisons, "done": done, "awaited": awaited,
            "href": written(Query(Scope(scope.kind, name, scope.tag, scope.since, scope.until))),
        }
        for name, (comparisons, done, awaited) in sums.items()
    ]  # fmt: skip
    rows.sort(key=lambda row: (-int(row["votes"] or 0), str(row["source"])))
    total, first = sum(votes.values()), rows[0]
    name = one_line(str(first["source"]), 40) or "(no source)"
    most = (
        f"; {name} brought {number(votes[str(first['source'])] / total, 'share')} of the votes"
        if total
        else ""
    )
    count = "one source" if len(rows) == 1 else f"{len(rows):,} sources"
    columns = (
        Column("source", "source"),
        Column("votes", "votes", "count"),
        Column("comparisons", "comparisons", "count", help="What awaits or has answers and is not withheld."),
        Column("done", "complete", "count"),
        Column("awaited", "answers awaited", "count"),
    )
    read = "A source is the file or the generator that brought a prompt."
    return Panel("by-source", question, f"From {count}{most}.", read, tables=(Table(columns, rows),))


def by_tag_panel(facts: Facts, scope: Scope, whole: bool = True) -> Panel:
    """Votes by the prompts' tags; else a stand-in."""
    question, where, params = "What are the prompts about?", *scope.where("b")
    if not whole:
        return Panel("by-tag", question, late=True)
    found = facts.rows(
        "SELECT t.tag, count(*) AS votes FROM ballot b JOIN item_tag t ON t.item = b.item "
        f"WHERE {where} GROUP BY t.tag ORDER BY votes DESC, t.tag",
        params,
    )
    if not found:
        why = "no vote is on a prompt with a tag; tags come with imported prompts, or are given under Data."
        return Panel("by-tag", question, missing=why)
    total = votes_in(facts, scope)
    rows: list[dict[str, Cell]] = [
        {
            **row, "share": row["votes"] / total,
            "href": written(Query(Scope(scope.kind, scope.source, row["tag"], scope.since, scope.until))),
        }
        for row in found
    ]  # fmt: skip
    first = found[0]
    answer = f"{number(first['votes'] / total, 'share')} of the votes are on prompts tagged {one_line(first['tag'], 40)}."
    columns = (
        Column("tag", "tag"),
        Column("votes", "votes", "count"),
        Column("share", "share", "share"),
    )
    read = "A prompt may have several tags, or none: the shares need not add up to 100 %."
    return Panel("by-tag", question, answer, read, tables=(Table(columns, rows),))


# -- leases ------------------------------------------------------------------------------------------------------


def leases_panel(facts: Facts, scope: Scope) -> Panel:
    """Who holds which item now, straight from the project's database."""
    question, found = "Who holds what now?", leases(facts, scope)
    if not found:
        return Panel("leases", question, "Nobody holds an item.", _LEASED)
    people = len({one.annotator for one in found})
    rows: list[dict[str, Cell]] = [
        {
            "annotator": one.annotator,
            "prompt": one_line(one.prompt, 120),
            "source": one.source,
            "since": one.opened.replace(tzinfo=datetime.UTC).strftime("%Y-%m-%d %H:%M"),
            "until": "" if one.until is None else one.until.strftime("%Y-%m-%d %H:%M"),
            "why": "to change their vote" if one.changing else "to answer it",
            "href": written(Query(item=one.comparison)),
        }
        for one in found[:SHOWN]
    ]
    who = "One person holds" if people == 1 else f"{people:,} people hold"
    what = "one item" if len(found) == 1 else f"{len(found):,} items"
    columns = (
        Column("annotator", "annotator"),
        Column("prompt", "prompt"),
        Column("source", "source"),
        Column("since", "since (UTC)"),
        Column(
            "until", "lent until (UTC)", help="As of when it was handed out; a page that is open prolongs it."
        ),
        Column("why", "for"),
    )
    return Panel("leases", question, f"{who} {what}.", _LEASED, tables=(Table(columns, rows, len(found)),))


_LEASED = (
    "An item is lent to one person for some minutes; when the page is closed, its slot goes to somebody else."
)
