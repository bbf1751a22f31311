"""Review, Progress: how far the work is, who does it, who holds what, and how long answers take.

The panels of this section: how-far, per-day (here), by-source, by-tag, leases (`progress_where`), people, times, drift
(`progress_people`).
"""

import datetime
from collections.abc import Callable, Sequence

import numpy as np

from palate.data.facts import Facts
from palate.labeling.review_query import Query, written
from palate.labeling.statistics.formatting import number
from palate.labeling.statistics.measures import Estimate
from palate.labeling.statistics.pace import daily_mean, days_left
from palate.labeling.statistics.panels import Cell, Column, Figure, Lines, Panel, Table
from palate.labeling.statistics.progress_people import BIG, drift_panel, people_panel, times_panel, votes_in
from palate.labeling.statistics.progress_where import by_source_panel, by_tag_panel, leases_panel
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.work import Work, work_left

VERDICTS = ("ranked", "tie", "all_bad", "skip")
VERDICT_NAMES = {"ranked": "ranked", "tie": "tie", "all_bad": "all bad", "skip": "skipped"}
PACE_DAYS = 14  # whole days that the pace is taken from, at most
DAYS_APART, WEEKS_APART = 120, 800  # days up to which a bar is a day, and up to which it is a week


def panels(facts: Facts, scope: Scope) -> list[Panel]:
    """All panels; where there are many votes, times and tags are left to `LATE`."""
    whole = votes_in(facts, scope) <= BIG
    today = datetime.datetime.now(datetime.UTC).date()

    def made() -> tuple[list[Panel], list[Panel]]:
        before = [
            how_far_panel(facts, scope, today),
            per_day_panel(facts, scope),
            by_source_panel(facts, scope),
            by_tag_panel(facts, scope, whole),
            people_panel(facts, scope, whole),
        ]
        return before, [times_panel(facts, scope, whole), drift_panel(facts, scope, whole)]

    before, after = facts.remember(("progress", scope, today, facts.overlap), made)
    return [*before, leases_panel(facts, scope), *after]  # who holds what changes without a vote


LATE: dict[str, Callable[[Facts, Scope], Panel]] = {
    "people": lambda facts, scope: people_panel(facts, scope, whole=True),
    "by-tag": by_tag_panel,
    "times": times_panel,
    "drift": lambda facts, scope: drift_panel(facts, scope, whole=True),
}

# -- how far ---------------------------------------------------------------------------------------------------


def how_far_panel(facts: Facts, scope: Scope, today: datetime.date | None = None) -> Panel:
    """What is answered, what is awaited, and when that is done at the present pace. `today` is a day in UTC."""
    today = today or datetime.datetime.now(datetime.UTC).date()
    question, found = "How far are we?", work_left(facts, scope)
    open_to_all = [one for one in found if one.withheld is None and one.sort != "reserved"]
    if not open_to_all:
        return Panel(
            "how-far", question, missing="No comparison asks for answers: `palate sample` makes some.",
            tables=(_work_table(found),) if found else (),
        )  # fmt: skip
    given, awaited = sum(one.given for one in open_to_all), sum(one.awaited for one in open_to_all)
    pace = daily_mean(_recent_days(facts, scope, today))
    left = days_left(awaited, pace)
    figures = (
        Figure(
            "answered", given / (given + awaited), n=given + awaited, of="answers asked for", unit="share"
        ),
        Figure("answers awaited", awaited, unit="count"),
        _estimated(
            "answers per day", pace, "whole days", note="what people answered lately, empty days included"
        ),
        _estimated("days left", left, "whole days"),
    )
    return Panel(
        "how-far",
        question,
        _how_far(awaited, given, left, today),
        "An answer is a vote that is no skip; a comparison awaits as many as its overlap says, from different people.",
        figures,
        (_work_table(found),),
        notes=_how_far_notes(found, pace),
    )


def _recent_days(facts: Facts, scope: Scope, today: datetime.date) -> list[int]:
    """People's answers to what is open to all, by day: the latest whole days, from the first that has any."""
    where, params = Scope("human", scope.source, scope.tag).where("b")
    found = facts.rows(
        f"SELECT day, count(*) AS n FROM ballot b WHERE {where} AND verdict <> 3 AND NOT adjudicated "
        "AND purpose <= 1 GROUP BY day",
        params,
    )
    by_day = {row["day"]: int(row["n"]) for row in found}
    first = max(min(by_day, default=today), today - datetime.timedelta(PACE_DAYS))
    return [by_day.get(first + datetime.timedelta(i), 0) for i in range((today - first).days)]


def _how_far(awaited: int, given: int, left: Estimate, today: datetime.date) -> str:
    share = number(given / (given + awaited), "share")
    if awaited == 0:
        return f"Everything that was asked for is answered: {given:,} answers."
    said = f"{share} of the answers that were asked for are there, {awaited:,} are still awaited"
    if left.value is None:
        return f"{said}; when they will be there is not known: {left.why}."
    days = max(1, round(left.value))
    when = _after(today, left.value)
    return f"{said}; at the present pace that takes {'a day' if days == 1 else f'{days:,} days'} more{when}."


def _after(today: datetime.date, days: float) -> str:
    return f", until {today + datetime.timedelta(days)}" if days < 3650 else ""


def _how_far_notes(found: list[Work], pace: Estimate) -> tuple[str, ...]:
    notes = []
    withheld = sum(one.comparisons for one in found if one.withheld is not None)
    if withheld:
        notes.append(
            f"{withheld:,} comparisons are withheld, since an answer says who wrote it or the answers are the same; "
            "they await nothing."
        )
    if any(one.sort == "reserved" and one.awaited for one in found):
        notes.append(
            "What is reserved for one person (live questions, hidden repeats) is not in these figures."
        )
    if pace.n:
        notes.append(
            f"The pace is that of the latest {pace.n} whole days (UTC); whether people will go on like that is not "
            "in the interval."
        )
    return tuple(notes)


def _work_table(found: list[Work]) -> Table:
    """One row per sort of comparison and reason to withhold it."""
    names = {
        "train": "for training",
        "random": "drawn at random, for fair comparisons",
        "reserved": "reserved for one person",
    }
    sums: dict[tuple[str, str | None], list[int]] = {}
    for one in found:
        row = sums.setdefault((one.sort, one.withheld), [0, 0, 0, 0])
        for place, count in enumerate((one.comparisons, one.done, one.given, one.awaited)):
            row[place] += count
    rows: list[dict[str, Cell]] = [
        {
            "sort": names[sort] + (f", withheld: {withheld}" if withheld else ""),
            "comparisons": comparisons,
            "done": done,
            "given": given,
            "awaited": None if withheld else awaited,
        }
        for (sort, withheld), (comparisons, done, given, awaited) in sums.items()
    ]
    return Table(
        (
            Column("sort", "comparisons"),
            Column("comparisons", "there are", "count"),
            Column("done", "complete", "count", help="They have all the answers that they ask for."),
            Column("given", "answers given", "count"),
            Column("awaited", "answers awaited", "count"),
        ),
        rows,
    )


def _estimated(label: str, value: Estimate, of: str, note: str = "") -> Figure:
    return Figure(label, value.value, value.low, value.high, value.n, of, why=value.why, note=note)


# -- votes by day -----------------------------------------------------------------------------------


def per_day_panel(facts: Facts, scope: Scope) -> Panel:
    """Votes by day and verdict."""
    question, where, params = "How many votes come in?", *scope.where("b")
    found = facts.columns(
        f"SELECT day, verdict, count(*) AS n FROM ballot b WHERE {where} GROUP BY ALL ORDER BY ALL", params
    )
    if not len(found["day"]):
        return Panel("per-day", question, missing="no vote yet: the first one is shown here.")
    days, n = found["day"].astype("datetime64[D]"), found["n"]
    begin, end = days.min(), days.max()
    span = int((end - begin).astype(int)) + 1
    unit = "day" if span <= DAYS_APART else "week" if span <= WEEKS_APART else "month"
    starts, places = _binned(days, begin, end, unit)
    series: dict[str, Sequence[float | None]] = {}
    for code, verdict in enumerate(VERDICTS):
        chosen = found["verdict"] == code
        if chosen.any():
            counts = np.bincount(places[chosen], n[chosen], len(starts))
            series[VERDICT_NAMES[verdict]] = [float(count) for count in counts]
    total = int(n.sum())
    voted = len(np.unique(days))
    on_days = "one day" if voted == 1 else f"{voted:,} days"
    return Panel(
        "per-day",
        question,
        f"{total:,} {'vote' if total == 1 else 'votes'} on {on_days}, the latest on {end}.",
        f"A bar is one {unit} (UTC); its parts are what people said: a ranking, a tie, all answers bad, or a skip.",
        tables=(_verdict_table(found, scope, total),),
        plots=(Lines([str(start) for start in starts], series, f"votes per {unit}", bars=True),),
        href=written(Query(scope, rows="votes")),
    )


def _binned(
    days: np.ndarray, begin: np.datetime64, end: np.datetime64, unit: str
) -> tuple[np.ndarray, np.ndarray]:
    """(first days of the bars without a gap between them, the bar of each day)."""
    if unit == "month":
        first = begin.astype("datetime64[M]")
        places = (days.astype("datetime64[M]") - first).astype(int)
        return np.arange(first, end.astype("datetime64[M]") + 1).astype("datetime64[D]"), places
    step = 7 if unit == "week" else 1
    first = begin - ((begin.astype(int) + 3) % 7 if unit == "week" else 0)  # 1970-01-01 was a Thursday
    return np.arange(first, end + 1, step), (days - first).astype(int) // step


def _verdict_table(found: dict[str, np.ndarray], scope: Scope, total: int) -> Table:
    rows: list[dict[str, Cell]] = []
    for code, verdict in enumerate(VERDICTS):
        n = int(found["n"][found["verdict"] == code].sum())
        if n:
            href = written(Query(scope, verdict=verdict, rows="votes"))  # type: ignore[arg-type]
            rows.append({"verdict": VERDICT_NAMES[verdict], "votes": n, "share": n / total, "href": href})
    columns = (
        Column("verdict", "verdict"),
        Column("votes", "votes", "count"),
        Column("share", "share", "share"),
    )
    return Table(columns, rows)
