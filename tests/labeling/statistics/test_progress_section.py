"""Progress: paces and their intervals against numpy, statsmodels and simulation; every panel on small projects."""

import datetime
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom
from statsmodels.stats.descriptivestats import sign_test
from statsmodels.stats.weightstats import DescrStatsW

from palate.data.facts import Facts
from palate.data.records import Annotator, Assignment
from palate.data.store import Store
from palate.labeling.opening import Plan, works_of
from palate.labeling.statistics.measures import Estimate
from palate.labeling.statistics.pace import Times, by_doubling, change, daily_mean, days_left, quantiles
from palate.labeling.statistics.panels import Histogram, Lines, Panel
from palate.labeling.statistics.progress_people import drift_panel, people_panel, times_panel
from palate.labeling.statistics.progress_section import LATE, how_far_panel, panels, per_day_panel
from palate.labeling.statistics.progress_where import by_source_panel, by_tag_panel, leases_panel
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.work import leases, work_left
from tests.labeling.voted import START, ask, ask_all, asked, made, vote, votes

ALL = Scope()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "palate.duckdb") as opened:
        yield opened


@pytest.fixture
def facts(store: Store) -> Iterator[Facts]:
    with Facts(store) as opened:
        yield opened


def test_quantiles_as_numpy_gives_them() -> None:
    values = np.round(np.random.default_rng(0).lognormal(3, 1, 999), 1)
    times = Times(*np.unique(values, return_counts=True))
    shares = [0, 0.25, 0.5, 0.75, 0.95, 1]
    assert quantiles(times, shares) == pytest.approx(np.quantile(values, shares).tolist(), abs=1e-9)
    assert quantiles(Times(np.array([2.0, 4.0]), np.array([1, 1])), [0.5]) == [3.0]


def test_a_histogram_loses_nothing() -> None:
    values = np.concatenate([np.random.default_rng(1).lognormal(3, 2, 500), [0.0, 64.0]])
    edges, (counts, few) = by_doubling(
        [Times(*np.unique(values, return_counts=True)), Times(np.array([64.0]), np.array([3]))]
    )
    assert counts == np.histogram(np.maximum(values, 0.1), edges)[0].tolist() and sum(counts) == 502
    assert sum(few) == 3 and edges[few.index(3)] == pytest.approx(64.0)
    assert by_doubling([Times(np.empty(0), np.empty(0, int))]) == ([1.0, 2.0], [[0]])


def test_a_pace_as_statsmodels_and_by_hand() -> None:
    days = [10, 14, 9, 20, 0, 12, 5]
    low, high = DescrStatsW(np.array(days, float)).tconfint_mean()
    assert daily_mean(days) == Estimate(10.0, pytest.approx(low), pytest.approx(high), 7)
    # 2, 4, 6: mean 4, deviation 2, t(0.975, 2) = 4.302653: 4 -+ 4.302653 * 2 / sqrt(3)
    assert daily_mean([2, 4, 6]).high == pytest.approx(4 + 4.302653 * 2 / 3**0.5, abs=1e-6)
    assert daily_mean([5, 7]) == Estimate(6.0, None, None, 2, "an interval needs 3 whole days of voting")
    assert daily_mean([]).value is None


def test_days_left() -> None:
    assert days_left(100, Estimate(10.0, 5.0, 20.0, 7)) == Estimate(10.0, 5.0, 20.0, 7)
    assert days_left(0, Estimate(None, None, None, 0, "x")).value == 0
    assert (
        days_left(100, Estimate(10.0, 0.0, 20.0, 7)).why == "days differ so much that there is no upper end"
    )
    assert days_left(9, Estimate(0.0, 0.0, 0.0, 14)).why == (
        "nobody answered anything in the days that the pace is taken from"
    )
    assert days_left(9, daily_mean([])).why == "no whole day of voting has passed yet"


@pytest.mark.slow
def test_days_left_cover_what_they_should() -> None:
    rng = np.random.default_rng(2)
    for n in (5, 14):
        hits = 0
        for _ in range(1000):
            left = days_left(1000, daily_mean(rng.negative_binomial(20, 20 / 60, n).tolist()))
            assert left.low is not None
            hits += left.low <= 1000 / 40 <= (left.high or np.inf)
        assert 930 <= hits <= 970


def test_a_change_is_the_median_of_ratios() -> None:
    first, latest = np.array([10.0, 20, 30, 40, 50, 60]), np.array([5.0, 20, 33, 20, 25, 120])
    found = change(first, latest)  # ratios 0.5, 1, 1.1, 0.5, 0.5, 2
    assert found.value == pytest.approx((0.5 * 1.0) ** 0.5) and found.n == 6
    assert found.low is not None and found.high is not None and found.low < found.value < found.high
    # of six, [smallest, largest] covers with 1 - 2/64 and [second, second largest] with 1 - 14/64
    part = (1 - 2 / 64 - 0.95) / (12 / 64)
    weight = 5 * part / (1 + 4 * part)
    assert np.log(found.high) == pytest.approx((1 - weight) * np.log(2) + weight * np.log(1.1))
    assert change(first[:5], latest[:5]).why == "an interval needs 6 people with enough answers"
    assert change(np.empty(0), np.empty(0)).value is None


def test_the_interval_lies_between_those_of_the_sign_test() -> None:
    rng = np.random.default_rng(3)
    for n in (12, 57, 400):
        latest = rng.lognormal(0.2, 1, n)
        found = change(np.ones(n), latest)
        ordered, d = np.sort(latest), int(binom.ppf(0.025, n, 0.5))
        assert found.low is not None and found.high is not None
        assert ordered[d - 1] <= found.low <= ordered[d] and ordered[-d - 1] <= found.high <= ordered[-d]
        assert sign_test(latest, ordered[d - 1] - 1e-9)[1] <= 0.05 < sign_test(latest, ordered[d] + 1e-9)[1]


@pytest.mark.slow
def test_changes_cover_what_they_should() -> None:
    rng = np.random.default_rng(4)
    for n in (10, 40, 300):
        hits = 0
        for _ in range(1000):
            found = change(np.ones(n), np.exp(0.3 + rng.laplace(size=n)))
            assert found.low is not None and found.high is not None
            hits += found.low <= np.exp(0.3) <= found.high
        assert 930 <= hits <= 970


# -- panels ----------------------------------------------------------------------------------------------------------


def test_nothing_there_yet(facts: Facts) -> None:
    for panel in panels(facts, ALL):
        assert panel.missing or panel.answer == "Nobody holds an item.", panel.id
    assert set(LATE) == {"by-tag", "people", "times", "drift"}


def test_what_awaits_answers_is_what_the_queue_hands_out(store: Store, facts: Facts) -> None:
    items = [ask(store, f"p{i}", overlap=1 + i % 3, source=f"s{i % 2}", purpose="random" if i == 4 else "train")
             for i in range(30)]  # fmt: skip
    ask(store, "gold", purpose="gold", overlap=9)
    ask(store, "mine", reserved_for="anna", overlap=4)
    for i, item in enumerate(items):
        for name in ("anna", "ben", "cleo")[: i % 4]:
            vote(store, item, name, "skip" if i == 7 else "0>1")
    vote(store, items[0], "lead", "0>1", assignment_id="decision", adjudicated=True)
    store.write("INSERT INTO withheld VALUES (?, 'identity', 'x', now()::TIMESTAMP)", [items[8].id])
    facts.refresh()
    for overlap, share in ((1, 1.0), (3, 1.0), (3, 0.4)):
        works, _ = works_of(store, Plan(overlap, share))
        facts.overlap = (overlap, share)
        shown = [one for one in work_left(facts, ALL) if one.withheld is None]
        assert sum(one.awaited for one in shown) == sum(w.overlap - w.answers for w in works.values())
        assert sum(one.comparisons - one.done for one in shown) == len(works)
    facts.overlap = (1, 1.0)
    assert {(one.source, one.sort, one.withheld) for one in work_left(facts, Scope(source="s0"))} == {
        ("s0", "train", None), ("s0", "train", "identity"), ("s0", "random", None),
    }  # fmt: skip


def test_how_far_and_until_when(store: Store, facts: Facts) -> None:
    items = [ask(store, f"p{i}") for i in range(40)]
    for i, item in enumerate(
        items[:20]
    ):  # ten a day: on the third, fourth and last day but one of the window
        vote(store, item, "anna", "0>1", day=(0, 1, 1, 3)[i % 4])
    facts.refresh()
    today = (START + timedelta(days=4)).date()
    found = how_far_panel(facts, ALL, today)
    share, awaited, pace, left = found.figures
    assert (share.value, share.n, awaited.value) == (0.5, 40, 20)
    assert (pace.value, pace.n) == (5.0, 4)  # 5, 10, 0 and 5 on four whole days
    assert (left.value, left.high, left.why) == (4.0, None, "days differ so much that there is no upper end")
    assert found.answer == (
        "50.0 % of the answers that were asked for are there, 20 are still awaited; at the present pace that takes "
        "4 days more, until 2026-03-10."
    )
    assert list(found.tables[0].rows) == [
        {"sort": "for training", "comparisons": 40, "done": 20, "given": 20, "awaited": 20}
    ]
    on_the_first_day = how_far_panel(facts, ALL, START.date())
    assert on_the_first_day.answer.endswith("is not known: no whole day of voting has passed yet.")
    much_later = how_far_panel(facts, ALL, datetime.date(2027, 1, 1))
    assert much_later.figures[3].why.startswith("nobody answered anything")


def test_votes_by_day_week_and_month(store: Store, facts: Facts) -> None:
    item = ask(store, "p", overlap=9)
    for day, name, said in ((0, "anna", "0>1"), (0, "ben", "tie"), (2, "cleo", "skip")):
        vote(store, item, name, said, day=day)
    facts.refresh()
    found = per_day_panel(facts, ALL)
    assert found.answer == "3 votes on 2 days, the latest on 2026-03-04."
    assert found.plots == (
        Lines(
            ["2026-03-02", "2026-03-03", "2026-03-04"],
            {"ranked": [1, 0, 0], "tie": [1, 0, 0], "skipped": [0, 0, 1]},
            "votes per day",
            bars=True,
        ),
    )
    assert [(row["verdict"], row["votes"]) for row in found.tables[0].rows] == [
        ("ranked", 1),
        ("tie", 1),
        ("skipped", 1),
    ]
    assert found.tables[0].rows[2]["href"] == "?verdict=skip&rows=votes"
    vote(store, item, "dora", "0>1", day=200)
    facts.refresh()
    weeks = per_day_panel(facts, ALL).plots[0]
    assert isinstance(weeks, Lines) and weeks.axis == "votes per week" and len(weeks.x) == 29
    assert (weeks.x[0], weeks.x[-1], sum(v or 0 for v in weeks.series["ranked"])) == (
        "2026-03-02",
        "2026-09-14",
        2,
    )
    vote(store, item, "eve", "0>1", day=1000)
    facts.refresh()
    months = per_day_panel(facts, ALL).plots[0]
    assert isinstance(months, Lines) and months.x[0] == "2026-03-01" and months.x[-1] == "2028-11-01"
    assert months.series["ranked"][-1] == 1 and len(months.x) == 33


def test_by_source_and_tag(store: Store, facts: Facts) -> None:
    one, two = ask(store, "p", tags=("a", "b")), ask(store, "q", source="other <i>")
    ask(store, "r", source="unvoted", overlap=2)
    vote(store, one, "anna", "0>1")
    vote(store, one, "ben", "0>1")
    vote(store, two, "anna", "0>1")
    facts.refresh()
    found = by_source_panel(facts, ALL)
    assert found.answer == "From 3 sources; s brought 66.7 % of the votes."
    assert [(r["source"], r["votes"], r["comparisons"], r["done"], r["awaited"]) for r in found.tables[0].rows] == [
        ("s", 2, 1, 1, 0), ("other <i>", 1, 1, 1, 0), ("unvoted", 0, 1, 0, 2),
    ]  # fmt: skip
    assert found.tables[0].rows[1]["href"] == "?source=other+%3Ci%3E"
    tags = by_tag_panel(facts, ALL)
    assert [(row["tag"], row["votes"], row["share"]) for row in tags.tables[0].rows] == [
        ("a", 2, 2 / 3),
        ("b", 2, 2 / 3),
    ]


def test_who_votes(store: Store, facts: Facts) -> None:
    for i in range(10):
        item = ask(store, f"p{i}")
        vote(store, item, "anna & co", ("0>1", "tie", "skip", "all_bad", "0>1")[i % 5], seconds_active=10.0 + i,
             rationale="why" if i == 0 else None)  # fmt: skip
        if i < 2:
            vote(store, item, "ben", "0>1", day=3)
    facts.refresh()
    found = people_panel(facts, ALL, whole=True)
    assert found.answer == "2 annotators gave 12 votes; 1 of them gave 80 % of these."
    assert found.tables[0].rows[0] == {
        "name": "anna & co", "votes": 10, "share": 10 / 12, "ties": 0.2, "all_bad": 0.2, "skips": 0.2, "reasons": 0.1,
        "active": 14.5, "latest": "2026-03-02", "href": "?rows=votes&annotator=anna+%26+co",
    }  # fmt: skip
    assert found.tables[0].rows[1]["active"] is None
    quick = people_panel(facts, ALL, whole=False)
    assert quick.late and "active" not in [column.key for column in quick.tables[0].columns]


def test_who_holds_what(store: Store, facts: Facts) -> None:
    first, second = ask(store, "a long prompt " * 30), ask(store, "again")
    people = [Annotator(name) for name in ("anna", "ben")]
    store.add_annotators(people)
    until = START + timedelta(minutes=10)
    store.add_assignments([Assignment(first.id, people[0].id, first.completion_ids, leased_until=until)])
    vote(store, second, "ben", "0>1")
    store.write("UPDATE assignment SET state = 'open' WHERE comparison_id = ?", [second.id])
    facts.refresh()
    found = leases_panel(facts, ALL)
    assert found.answer == "2 people hold 2 items."
    by_name = {str(row["annotator"]): row for row in found.tables[0].rows}
    assert (by_name["anna"]["until"], by_name["anna"]["why"]) == ("2026-03-02 00:10", "to answer it")
    assert len(str(by_name["anna"]["prompt"])) <= 120 and by_name["anna"]["href"] == f"?item={first.id}"
    assert by_name["ben"]["why"] == "to change their vote"
    assert leases(facts, Scope(source="nowhere")) == []


def test_how_long_answers_take(store: Store, facts: Facts) -> None:
    for i in range(8):
        vote(store, ask(store, f"p{i}"), "anna", "0>1", seconds_active=2.0**i, seconds_visible=3.0 * 2**i)
    vote(store, ask(store, "skipped"), "anna", "skip", seconds_active=999.0)
    vote(store, ask(store, "unmeasured"), "anna", "tie")
    facts.refresh()
    found = times_panel(facts, ALL)
    assert found.answer == (
        "Half of the answers take less than 12 s of active time; the middle half takes 3.5 s to 40 s."
    )
    visible, active = found.tables[0].rows
    assert (visible["votes"], visible["median"], active["votes"], active["median"]) == (8, 36.0, 8, 12.0)
    plot = found.plots[0]
    assert isinstance(plot, Histogram) and plot.log and plot.mark == 12.0
    assert {name: sum(counts) for name, counts in plot.series.items()} == {"visible": 8, "active": 8}


def test_first_answers_against_the_latest(store: Store, facts: Facts) -> None:
    items, cast = ask_all(store, [asked(f"p{i}") for i in range(120)]), []
    for n, name in enumerate(("anna", "ben", "cleo", "dora", "eve", "fred", "gus")):
        for i, item in enumerate(items[: 99 if name == "gus" else 120]):
            seconds = (40.0 if i < 50 else 20.0 if i >= 70 else 30.0) + n
            cast.append(made(item, name, "0>1", i / 10, seconds_active=seconds))
    votes(store, cast)
    facts.refresh()
    found = drift_panel(facts, ALL, whole=True)
    factor = found.figures[0]
    ratios = [(20 + n) / (40 + n) for n in range(6)]
    assert (factor.value, factor.n) == (pytest.approx(np.exp(np.median(np.log(ratios)))), 6)
    assert (
        found.answer == "Yes: the latest answers take 0.53 times as long as the first (median of 6 people)."
    )
    assert found.tables[0].rows[0] == {
        "name": "anna", "votes": 120, "first": 40.0, "latest": 20.0, "ratio": 0.5, "href": "?annotator=anna&rows=votes",
    }  # fmt: skip
    weeks = found.plots[0]
    assert isinstance(weeks, Lines) and weeks.x == ["2026-03-02", "2026-03-09"]
    assert drift_panel(facts, ALL, whole=False).late


def test_nobody_has_voted_enough_for_a_change(store: Store, facts: Facts) -> None:
    vote(store, ask(store, "p"), "anna", "0>1", seconds_active=5.0)
    facts.refresh()
    found: Panel = drift_panel(facts, ALL, whole=True)
    assert (found.answer, found.missing) == (
        "", "It takes 100 timed answers of one person; nobody has given enough timed answers.",
    )  # fmt: skip
