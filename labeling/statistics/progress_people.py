"""Progress, people: who has voted how much, how long an answer takes, and whether people get faster.

Times are the browser's: visible is how long the item was on the screen, active how long of that somebody moved,
typed or scrolled. Skips and second answers to an item are left out of times; adjudications are too.
"""

from urllib.parse import quote_plus

import numpy as np

from palate.data.facts import Facts, filled
from palate.labeling.review_query import Query, written
from palate.labeling.statistics.formatting import number, seconds
from palate.labeling.statistics.measures import Estimate
from palate.labeling.statistics.pace import Times, by_doubling, change, quantiles
from palate.labeling.statistics.panels import Cell, Column, Figure, Histogram, Lines, Panel, Table
from palate.labeling.statistics.scope import Scope

BIG = 500_000  # votes above which the times of single people come later
RUN = 50  # timed answers at the beginning and at the end that are compared
SHOWN = 200  # people listed with a change of pace
_TIMED = "verdict <> 3 AND NOT again AND NOT adjudicated"


def votes_in(facts: Facts, scope: Scope) -> int:
    """How many votes a scope has."""
    where, params = scope.where("b")
    sql = f"SELECT count(*) FROM ballot b WHERE {where}"
    return facts.remember(("votes_in", scope), lambda: int(facts.value(sql, params)))


# -- who votes ---------------------------------------------------------------------------------------------------


def people_panel(facts: Facts, scope: Scope, whole: bool) -> Panel:
    """One row per annotator, the busiest first; `whole` with their median times."""
    question, where, params = "Who votes?", *scope.where("b")
    median = f"median(active) FILTER ({_TIMED})" if whole else "NULL"
    found = facts.rows(
        f"""
        SELECT a.id, a.name, b.* EXCLUDE annotator FROM (
            SELECT annotator, count(*) AS votes, count(*) FILTER (verdict = 1) / count(*) AS ties,
                   count(*) FILTER (verdict = 2) / count(*) AS all_bad, count(*) FILTER (verdict = 3) / count(*) AS skips,
                   count(*) FILTER (rationale) / count(*) AS reasons, {median} AS active, max(day) AS latest
            FROM ballot b WHERE {where} GROUP BY annotator
        ) b JOIN annotator a ON a.code = b.annotator ORDER BY votes DESC, a.name, a.id
        """,
        params,
    )
    if not found:
        return Panel("people", question, missing="nobody has voted yet.")
    total, votes_of = sum(row["votes"] for row in found), written(Query(scope, rows="votes"))
    rows: list[dict[str, Cell]] = [
        {
            **{key: row[key] for key in ("name", "votes", "ties", "all_bad", "skips", "reasons", "active")},
            "share": row["votes"] / total,
            "latest": str(row["latest"]),
            "href": f"{votes_of}&annotator={quote_plus(row['name'])}",
        }
        for row in found
    ]
    columns = (
        Column("name", "annotator"),
        Column("votes", "votes", "count"),
        Column("share", "of all", "share"),
        Column("ties", "ties", "share"),
        Column("all_bad", "all bad", "share"),
        Column("skips", "skips", "share"),
        Column("reasons", "with a reason", "share"),
        Column("active", "median time", "seconds", help="Active seconds per answer."),
        Column("latest", "latest vote"),
    )
    return Panel(
        "people",
        question,
        _who(found, total),
        "Whether somebody's votes can be trusted is another question; the section on annotators asks it.",
        tables=(Table(columns if whole else tuple(c for c in columns if c.key != "active"), rows),),
        late=not whole,
    )


def _who(found: list[dict[str, object]], total: int) -> str:
    if len(found) == 1:
        return f"One annotator gave all {total:,} votes."
    votes = np.cumsum([int(str(row["votes"])) for row in found])
    few = int(np.searchsorted(votes, 0.8 * total)) + 1
    return f"{len(found):,} annotators gave {total:,} votes; {few:,} of them gave 80 % of these."


# -- how long ----------------------------------------------------------------------------------------------------


def _times(facts: Facts, scope: Scope, column: str) -> Times:
    """All durations of a scope, to a hundredth of a second as the browser sends them."""
    where, params = scope.where("b")
    found = facts.columns(
        f"SELECT round({column} * 100)::BIGINT AS value, count(*) AS n FROM ballot b "
        f"WHERE {where} AND {_TIMED} AND {column} IS NOT NULL GROUP BY ALL ORDER BY ALL",
        params,
    )
    return Times(found["value"] / 100.0, found["n"].astype(np.int64))


def times_panel(facts: Facts, scope: Scope, whole: bool = True) -> Panel:
    """The distribution of visible and of active seconds; else a stand-in."""
    question = "How long does an answer take?"
    if not whole:
        return Panel("times", question, late=True)
    times = {"visible": _times(facts, scope, "visible"), "active": _times(facts, scope, "active")}
    measured = {name: one for name, one in times.items() if one.n}
    if not measured:
        why = "no vote in here has a time: imported and simulated votes often have none."
        return Panel("times", question, missing=why)
    rows: list[dict[str, Cell]] = []
    for name, one in measured.items():
        q = quantiles(one, (0.25, 0.5, 0.75, 0.95))
        cells = dict(zip(("quarter", "median", "three_quarters", "most"), q, strict=True))
        rows.append({"time": name, "votes": one.n, **cells})
    main = rows[-1]  # active, where it was measured
    edges, counts = by_doubling(list(measured.values()))
    columns = (
        Column("time", "time"),
        Column("votes", "votes", "count"),
        Column("quarter", "a quarter take less than", "seconds"),
        Column("median", "half take less than", "seconds"),
        Column("three_quarters", "three quarters take less than", "seconds"),
        Column("most", "95 % take less than", "seconds"),
    )
    middle = float(str(main["median"]))
    return Panel(
        "times",
        question,
        f"Half of the answers take less than {seconds(middle)} of {main['time']} time; the middle half takes "
        f"{seconds(float(str(main['quarter'])))} to {seconds(float(str(main['three_quarters'])))}.",
        "Visible time is how long an item was on the screen, active time how long of that somebody did something; the "
        "axis is logarithmic, so equal steps are equal factors.",
        tables=(Table(columns, rows),),
        plots=(
            Histogram(
                edges,
                {name: [float(n) for n in made] for name, made in zip(measured, counts, strict=True)},
                "time per answer",
                "seconds",
                log=True,
                mark=middle,
                mark_label=f"median {seconds(middle)}",
            ),
        ),
        notes=("Skips, second answers to the same item and adjudications are left out.",),
    )


# -- faster or slower --------------------------------------------------------------------------------------------


def drift_panel(facts: Facts, scope: Scope, whole: bool) -> Panel:
    """Median active seconds by week, and each person's first answers against their latest; else a stand-in."""
    question = "Do people get faster?"
    if not whole:
        return Panel("drift", question, read=_DRIFT, late=True)
    weeks = _by_week(facts, scope)
    if not weeks:
        return Panel("drift", question, missing="no vote in here has a time.")
    plots = (
        Lines(
            [week for week, _, _ in weeks], {"median": [m for _, m, _ in weeks]}, "active seconds", "seconds"
        ),
    )
    table, factor = _people(facts, scope)
    return Panel(
        "drift",
        question,
        _drifted(factor),
        _DRIFT,
        (
            Figure(
                "latest over first answers", factor.value, factor.low, factor.high, factor.n, "people", why=factor.why,
                note="1 is no change; 0.5 is twice as fast",
            ),
        ),
        (table,) if table.rows else (),
        plots if len(weeks) > 1 else (),
        ("The weeks compare different people and prompts; the table compares each person with themselves.",),
        missing="" if factor.value is not None else f"It takes {2 * RUN} timed answers of one person; {factor.why}.",
    )  # fmt: skip


_DRIFT = (
    f"A person's median time of the latest {RUN} answers over that of the first {RUN}: learning makes it fall somewhat, "
    "loss of care too, so look at what somebody answers who got much faster."
)


def _drifted(factor: Estimate) -> str:
    if factor.value is None:
        return ""
    size = f"{number(factor.value)} times as long as the first (median of {factor.n:,} people)"
    if factor.low is None or factor.high is None or factor.low <= 1 <= factor.high:
        return f"Not clearly: the latest answers take {size}."
    return f"{'Yes' if factor.high < 1 else 'No, slower'}: the latest answers take {size}."


def _by_week(facts: Facts, scope: Scope) -> list[tuple[str, float, int]]:
    """(first day, median active seconds, answers) of the weeks that have timed answers, in order."""
    where, params = scope.where("b")
    found = facts.columns(
        f"SELECT date_trunc('week', day)::DATE AS week, round(active * 10)::BIGINT AS value, count(*) AS n "
        f"FROM ballot b WHERE {where} AND {_TIMED} AND active IS NOT NULL GROUP BY ALL ORDER BY ALL",
        params,
    )
    week = found["week"].astype("datetime64[D]")
    if not len(week):
        return []
    starts = np.flatnonzero(np.r_[True, week[1:] != week[:-1]])
    made = []
    for low, high in zip(starts, [*starts[1:], len(week)], strict=True):
        times = Times(found["value"][low:high] / 10.0, found["n"][low:high].astype(np.int64))
        made.append((str(week[low]), quantiles(times, (0.5,))[0], times.n))
    return made


def _people(facts: Facts, scope: Scope) -> tuple[Table, Estimate]:
    """(who changed most, how people change): the first answers of each against their latest."""
    where, params = scope.where("b")
    found = facts.columns(
        f"""
        SELECT a.name, p.n, list_median(p.first)::DOUBLE AS first, list_median(p.latest)::DOUBLE AS latest
        FROM (SELECT annotator, count(*) AS n, min_by(active, moment, {RUN}) AS first,
                     max_by(active, moment, {RUN}) AS latest
              FROM ballot b WHERE {where} AND {_TIMED} AND active IS NOT NULL GROUP BY annotator
              HAVING count(*) >= {2 * RUN}) p
        JOIN annotator a ON a.code = p.annotator ORDER BY a.name, a.id
        """,
        params,
    )
    first, latest = filled(found["first"]), filled(found["latest"])
    factor = change(first, latest)
    ratio = np.where(first > 0, latest / np.maximum(first, 1e-9), 1.0)
    order = np.argsort(-np.abs(np.log(np.maximum(ratio, 1e-9))), kind="stable")[:SHOWN]
    rows: list[dict[str, Cell]] = [
        {
            "name": str(found["name"][i]),
            "votes": int(found["n"][i]),
            "first": float(first[i]),
            "latest": float(latest[i]),
            "ratio": float(ratio[i]),
            "href": written(Query(scope, annotator=str(found["name"][i]), rows="votes")),
        }
        for i in order
    ]
    columns = (
        Column("name", "annotator"),
        Column("votes", "timed answers", "count"),
        Column("first", f"first {RUN}", "seconds"),
        Column("latest", f"latest {RUN}", "seconds"),
        Column("ratio", "latest over first", "number"),
    )
    return Table(columns, rows, len(first), "Those who changed most come first"), factor
