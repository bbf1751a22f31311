"""Review, Annotators: its panels with no vote, one vote and many; and that the queries count what they say."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palate.data.facts import Facts
from palate.data.records import (
    Annotator,
    AnnotatorRole,
    Assignment,
    Comparison,
    Completion,
    Prompt,
    Purpose,
    Vote,
)
from palate.data.store import Store
from palate.labeling.statistics import annotators_section, assessment
from palate.labeling.statistics.assessment import odd
from palate.labeling.statistics.habits import gold, habits, pace, people, seconds
from palate.labeling.statistics.judged import consensus, judged, lengths, reliabilities, weight_of
from palate.labeling.statistics.panels import Panel, Section
from palate.labeling.statistics.plain import as_plain
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.terminal import section_text
from tests.labeling.statistics.crowds import BAD, crowd, put, votes

NOON = datetime(2026, 3, 10, 12)
IDS = ["whom", "bias", "gold", "speed", "odd", "consensus"]


@dataclass
class Ballots:
    """Votes on comparisons made by hand, a minute apart."""

    store: Store
    made: dict[str, Comparison] = field(default_factory=dict)
    count: int = 0

    def compare(
        self,
        name: str,
        lengths: tuple[int, ...] = (10, 20),
        purpose: Purpose = "train",
        strategy: str = "random",
    ) -> None:
        prompt = Prompt(({"role": "user", "content": name},))
        answers = [
            Completion(prompt.id, f"{name} {i} ".ljust(n, "x"), model=f"m{i}") for i, n in enumerate(lengths)
        ]
        comparison = Comparison(prompt.id, tuple(a.id for a in answers), purpose=purpose, strategy=strategy)
        self.store.add_prompts([prompt])
        self.store.add_completions(answers)
        self.store.add_comparisons([comparison])
        self.made[name] = comparison

    def vote(
        self, who: str, on: str, said: str, shown: str = "", role: AnnotatorRole = "annotator", **more: Any
    ) -> None:
        """`said` is a ranking by place, "0>1" or "0=1", or a verdict; `shown` the places in the order shown."""
        comparison, person = self.made[on], Annotator(who, role=role)
        ids = comparison.completion_ids
        order = tuple(ids[int(place)] for place in shown) or ids
        assignment = Assignment(comparison.id, person.id, order)
        verdict = said if said in ("skip", "all_bad") else "tie" if ">" not in said else "ranked"
        tiers = [] if said in ("skip", "all_bad") else [tier.split("=") for tier in said.split(">")]
        ranking = tuple(tuple(ids[int(place)] for place in tier) for tier in tiers)
        self.count += 1
        self.store.add_annotators([person])
        self.store.add_assignments([assignment])
        at = NOON + timedelta(minutes=self.count)
        given = {"id": f"v{self.count}", "created_at": at, **more}
        self.store.add_votes([Vote(assignment.id, verdict, ranking, **given)])  # type: ignore[arg-type]


@pytest.fixture
def ballots(tmp_path: Path) -> Iterator[Ballots]:
    with Store(tmp_path / "palate.duckdb") as store:
        yield Ballots(store)


@pytest.fixture
def facts(ballots: Ballots) -> Iterator[Facts]:
    with Facts(ballots.store) as opened:
        yield opened


def panels(facts: Facts) -> dict[str, Panel]:
    """All panels by id; they can be shown, hold no NaN, and nothing is left to later."""
    found = annotators_section.panels(facts, Scope())
    section = Section("annotators", "Annotators", tuple(found))
    text = section_text(section)
    json.dumps(as_plain(Scope(), [section]), allow_nan=False)
    for panel in found:
        assert panel.question in text and bool(panel.answer) != bool(panel.missing) and not panel.late
    for id, late in annotators_section.LATE.items():
        assert late(facts, Scope()) == next(panel for panel in found if panel.id == id)
    assert [panel.id for panel in found] == IDS
    return {panel.id: panel for panel in found}


def by_name(panel: Panel, table: int = -1) -> dict[str, dict[str, Any]]:
    return {str(row["name"]): dict(row) for row in panel.tables[table].rows}


def test_no_vote(facts: Facts) -> None:
    found = panels(facts)
    assert found["whom"].missing == "No vote yet: verdicts need about 30 votes of each annotator."
    assert found["bias"].missing.startswith("No decisive vote whose display order or lengths are known yet")
    assert found["gold"].missing.startswith("No gold item has a vote yet")
    assert found["speed"].missing.startswith("No vote has measured seconds yet")
    assert found["odd"].missing.endswith("the most so far are 0.")
    assert found["consensus"].missing.startswith("No pair was judged by two annotators")


def test_one_vote(ballots: Ballots, facts: Facts) -> None:
    ballots.compare("one")
    ballots.vote("ann", "one", "0>1", seconds_active=30.0)
    facts.refresh()
    found = panels(facts)
    assert found["whom"].answer == "Not known yet: 1 has too few votes for a verdict."
    row = by_name(found["whom"])["ann"]
    assert row["verdict"] == "too few votes" and row["votes"] == 1 and row["median"] == 30
    assert row["href"] == f"?annotator={Annotator('ann').id}&rows=votes"
    assert found["bias"].answer.startswith("Position: too few votes to tell")
    assert found["speed"].answer.startswith("Half of the votes take less than 3")
    assert found["odd"].missing.endswith("the most so far are 1.")


def test_habits_are_counted_by_hand(ballots: Ballots, facts: Facts) -> None:
    for name in ("p", "q", "r"):
        ballots.compare(name)
    ballots.compare("three", (5, 10, 15))
    ballots.vote("ann", "p", "0>1", "01", seconds_active=1.0, flags=("unclear",))
    ballots.vote("ann", "q", "0>1", "10", seconds_visible=9.0, rationale="because")
    ballots.vote("ann", "r", "0=1", seconds_active=30.0)
    ballots.vote("ann", "three", "2>0>1", "201", seconds_active=25.0)
    ballots.vote("bob", "p", "skip", seconds_active=1.0)
    ballots.vote("bob", "q", "all_bad", seconds_active=5.0)
    ballots.vote("bob", "three", "0>1=2", "201")
    ballots.vote("lea", "p", "1>0", role="lead", adjudicated=True, seconds_active=100.0)
    facts.refresh()
    who, use = people(facts).name, habits(facts, Scope())
    ann, bob, lea = (who.index(name) for name in ("ann", "bob", "lea"))
    assert use.votes[[ann, bob, lea]].tolist() == [4, 3, 0]
    assert (use.ties[ann], use.skips[bob], use.all_bad[bob], use.flags[ann], use.reasons[ann]) == (
        1,
        1,
        1,
        1,
        1,
    )
    assert use.rankings[[ann, bob]].tolist() == [1, 1] and use.untouched[[ann, bob]].tolist() == [1, 0]
    assert use.timed[[ann, bob]].tolist() == [4, 1] and use.fast[[ann, bob]].tolist() == [1, 0]
    # ann: p for the first, q for the second, three pairs of a ranking as shown, which count 2 together; bob: 0 was shown
    # second and beats 1, shown last, and 2, shown first
    assert use.sided[[ann, bob]].tolist() == pytest.approx([4, 4 / 3])
    assert use.first[[ann, bob]].tolist() == pytest.approx([3, 2 / 3])
    assert seconds(facts, Scope()).median[[ann, bob, lea]].tolist() == [17, 5, 0]
    assert weight_of(np.array([1, 3, 6, 36])).tolist() == pytest.approx([1, 2 / 3, 2 / 4, 2 / 9])


def test_what_is_never_counted_about_people(ballots: Ballots, facts: Facts) -> None:
    for name in ("p", "q"):
        ballots.compare(name)
    ballots.compare("hard", strategy="uncertainty")
    ballots.vote("ann", "p", "0>1")
    ballots.vote("bob", "p", "1>0")
    ballots.vote("ann", "q", "0>1")
    ballots.vote("ann", "q", "1>0", id="again")
    ballots.vote("ann", "hard", "0>1")
    ballots.vote("bob", "hard", "1>0")
    ballots.vote("lea", "p", "1>0", role="lead", adjudicated=True)
    facts.refresh()
    assert len(judged(facts, Scope()).unit) == 3  # not: hard twice, the second of q, the adjudicated
    found = consensus(facts, Scope())
    assert found is not None and found.votes.sum() == 2
    note = panels(facts)["whom"].notes[0]
    assert note.startswith("Agreement on actively selected pairs is left out of all judgements about people")
    assert note.endswith("2 such votes are left out here.")
    assert reliabilities(facts, Scope()).votes.sum() == 3
    assert len(judged(facts, Scope(kind="rule")).unit) == 0


def test_gold_answers_come_from_leads(ballots: Ballots, facts: Facts) -> None:
    for name in ("p", "q", "open"):
        ballots.compare(name, purpose="gold")
    ballots.vote("ann", "p", "0>1")
    facts.refresh()
    assert panels(facts)["gold"].missing == (
        "1 gold items have votes but no known answer: a lead's vote, or an adjudicated one, makes it."
    )
    ballots.vote("lea", "p", "0>1", role="lead")
    ballots.vote("lea", "q", "0>1", role="lead")
    ballots.vote("max", "q", "0=1", adjudicated=True)
    for who, on, said in (
        ("ann", "q", "0=1"),
        ("bob", "p", "1>0"),
        ("bob", "q", "0>1"),
        ("bob", "open", "0>1"),
    ):
        ballots.vote(who, on, said)
    facts.refresh()
    who, found = people(facts).name, gold(facts, Scope())
    ann, bob, lea = (who.index(name) for name in ("ann", "bob", "lea"))
    # q is a tie, says the adjudicated vote, so the lead is measured there; p has the lead's own vote
    assert found.n[[ann, bob, lea]].tolist() == [2, 2, 1] and found.right[[ann, bob, lea]].tolist() == [
        2,
        0,
        0,
    ]
    panel = panels(facts)["gold"]
    assert panel.answer.startswith("40.0 % of 5 answers to gold items are right")
    assert by_name(panel)["bob"]["right"] == 0 and panel.figures[0].value == pytest.approx(0.4)


def test_lengths_and_pace(ballots: Ballots, facts: Facts) -> None:
    for i in range(25):
        ballots.compare(f"p{i}", (10, 40))
        ballots.vote("slow", f"p{i}", "0>1", seconds_active=40.0)
        ballots.vote("quick", f"p{i}", "1>0" if i % 5 else "0>1", seconds_active=10.0)
    facts.refresh()
    speed, who = pace(facts, Scope()), people(facts).name
    assert speed.ratio[who.index("quick")] == pytest.approx(0.25, rel=1e-5)
    assert speed.ratio[who.index("slow")] == pytest.approx(4, rel=1e-5)
    assert speed.drift[who.index("slow")] == pytest.approx(1)
    rows = lengths(facts, Scope(), "annotator")
    mine = rows.group == who.index("quick")
    assert rows.longer[mine].sum() == 20 and rows.n[mine].sum() == 25
    np.testing.assert_allclose(rows.ratio, np.log(41 / 11), rtol=1e-5)
    together = lengths(facts, Scope(), "item")
    assert together.n.tolist() == [2] * 25 and together.longer.sum() == 20


def test_four_bad_of_ten_and_other_reasons(facts: Facts) -> None:
    rng = np.random.default_rng(1)
    who = crowd(rng, 10, 200, 3, 1.5)
    a_wins = votes(rng, who, BAD)
    won = np.where(rng.random(len(a_wins)) < 0.1, 0, np.where(a_wins, 1, -1))
    first = rng.random(len(won)) < np.where(who.annotator == 2, 0.85, 0.5)
    active = rng.lognormal(3, 0.5, len(won)) * np.where(who.annotator == 3, 0.2, 1)
    put(facts, who, won, a_first=np.where(first, won > 0, won <= 0), active=active)
    found = panels(facts)
    rows = by_name(found["whom"])
    assert {name for name, row in rows.items() if row["verdict"] == "talk to"} == {
        f"Person {k}" for k in (2, 3, 6, 7, 8, 9)
    }
    assert (
        "the answer shown first" in rows["Person 2"]["why"]
        and "of the time that others take" in rows["Person 3"]["why"]
    )
    assert "votes against the run" in rows["Person 9"]["why"] and "typical is 9" in rows["Person 8"]["why"]
    assert list(rows)[:1] == ["Person 9"] and all(row["verdict"] == "fine" for row in list(rows.values())[6:])
    assert found["whom"].answer.startswith("6 of 10: Person 9 (names the better answer in")
    assert found["whom"].answer.endswith("; and 3 more. 4 are fine.")
    plot = found["whom"].plots[0]
    assert list(plot.values) == sorted(plot.values, reverse=True) and len(plot.labels) == 10
    assert by_name(found["consensus"])["Person 9"]["named"] < 0.2
    assert found["odd"].answer == "Person 9 votes against the run of everybody's votes."
    assert [figure.value for figure in found["whom"].figures[:3]] == [6, 0, 4]
    expected, drawn = (
        found["bias"].plots[0].series["expected by chance"],
        found["bias"].plots[0].series["annotators"],
    )
    assert sum(drawn) == 10 and sum(expected) == pytest.approx(10, abs=0.1)


def test_many_votes_leave_what_takes_longer_to_later(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    who = crowd(rng, 12, 100, 2, 1.5)
    put(facts, who, np.where(votes(rng, who, np.full(12, 0.9)), 1, -1))
    monkeypatch.setattr(annotators_section, "BIG", 1000)
    found = {panel.id: panel for panel in annotators_section.panels(facts, Scope())}
    assert {id for id, panel in found.items() if panel.late} == set(annotators_section.LATE)
    assert len(found["whom"].tables[0].rows) == 12 and "verdict" not in found["whom"].tables[0].rows[0]
    assert found["bias"].answer.startswith("Position: ") and "Length" not in found["bias"].answer
    whole = annotators_section.LATE["whom"](facts, Scope())
    assert whole.answer.startswith("Nobody: ") and not whole.late
    assert section_text(Section("annotators", "Annotators", tuple(found.values())))


def test_a_part_of_the_items_shows_the_same_oddities(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    who = crowd(rng, 6, 800, 3, 1.5)
    put(facts, who, np.where(votes(rng, who, np.array([0.95] * 5 + [0.1])), 1, -1))
    whole = odd(facts, Scope())
    monkeypatch.setattr("palate.labeling.statistics.habits.MOST", 2000)
    facts.version += "part"
    part = odd(facts, Scope())
    assert part.n.sum() < 0.4 * whole.n.sum() and whole.n.sum() == len(who.unit)
    assert (part.p[5] < 1e-6 and whole.p[5] < 1e-6) and part.p[:5].min() > 0.005 and whole.p[:5].min() > 0.005


def test_at_most_two_hundred_are_listed(facts: Facts) -> None:
    rng = np.random.default_rng(4)
    who = crowd(rng, 210, 10, 3, 1.5)
    put(facts, who, np.where(votes(rng, who, np.full(210, 0.9)), 1, -1))
    found = panels(facts)["whom"]
    assert (
        len(found.tables[-1].rows) == 200
        and found.tables[-1].total == 210
        and len(found.plots[0].labels) == 30
    )
    assert len(assessment.assessment(facts, Scope()).verdicts) == 210
