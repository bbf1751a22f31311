"""The Agreement section on votes made by hand: what it says, and what it says is missing."""

import json
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from palate import importing
from palate.config import ImportConfig
from palate.data.facts import Facts
from palate.data.records import (
    Annotator,
    AnnotatorKind,
    Assignment,
    Comparison,
    Completion,
    Prompt,
    Vote,
    digest,
)
from palate.data.store import Store
from palate.labeling.statistics import agreement_figures, agreement_section
from palate.labeling.statistics.measures import wilson
from palate.labeling.statistics.panels import Heat, Histogram, Intervals, Panel, Section
from palate.labeling.statistics.plain import as_plain
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.terminal import section_text
from palate.project import Project

IDS = ["does-agree", "strength", "rankings", "pairs", "repeats", "triads"]
START = datetime(2026, 3, 1)


class Votes:
    """Makes comparisons and votes in few words, and puts them into a store at once."""

    def __init__(self) -> None:
        self.prompts: list[Prompt] = []
        self.completions: list[Completion] = []
        self.comparisons: list[Comparison] = []
        self.annotators: dict[str, Annotator] = {}
        self.assignments: list[Assignment] = []
        self.votes: list[Vote] = []

    def prompt(self, text: str, answers: int = 2, source: str = "test") -> list[str]:
        """The ids of a new prompt's completions, in the order of the facts; model m0 made the first of them."""
        prompt = Prompt(({"role": "user", "content": text},), source)
        self.prompts.append(prompt)
        ids = sorted(digest(text, place) for place in range(answers))
        self.completions += [
            Completion(prompt.id, f"answer {place}", f"m{place}", id=id) for place, id in enumerate(ids)
        ]
        return ids

    def compare(self, ids: list[str], strategy: str = "random", **fields: Any) -> Comparison:
        made = Comparison(self.prompts[-1].id, tuple(ids), strategy, **fields)
        self.comparisons.append(made)
        return made

    def vote(
        self, on: Comparison, said: str, name: str = "anna", strength: int | None = None,
        kind: AnnotatorKind = "human", swapped: bool = False, **fields: Any,
    ) -> None:  # fmt: skip
        """`said` ranks by place among the sorted ids: "0>1", "1=2>0"."""
        person = self.annotators.setdefault(name, Annotator(name, kind))
        ids = sorted(on.completion_ids)
        seat = Assignment(on.id, person.id, tuple(reversed(ids)) if swapped else tuple(ids))
        ranking = tuple(tuple(ids[int(place)] for place in tier.split("=")) for tier in said.split(">"))
        verdict = "tie" if len(ranking) == 1 else "ranked"
        at = START + timedelta(minutes=len(self.votes))
        self.assignments.append(seat)
        self.votes.append(Vote(seat.id, verdict, ranking, strength, created_at=at, **fields))

    def put(self, store: Store) -> None:
        store.add_prompts(self.prompts)
        store.add_completions(self.completions)
        store.add_comparisons(self.comparisons)
        store.add_annotators(list(self.annotators.values()))
        store.add_assignments(self.assignments)
        store.add_votes(self.votes)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "palate.duckdb") as opened:
        yield opened


def shown(store: Store, scope: Scope | None = None) -> dict[str, Panel]:
    """The panels by id, after what holds for all of them was checked."""
    scope = scope or Scope()
    with Facts(store) as facts:
        facts.refresh()
        found = agreement_section.panels(facts, scope)
        assert [panel.id for panel in found] == IDS == list(agreement_section.LATE)
        for panel in found:
            assert not panel.late  # few votes: everything is quick
            assert bool(panel.answer) != bool(panel.missing)
            assert panel.read and panel.question.endswith("?")
            assert agreement_section.LATE[panel.id](facts, scope) == panel
    section = Section("agreement", "Agreement", tuple(found))
    json.dumps(as_plain(scope, [section]), allow_nan=False)
    assert all(panel.question in section_text(section) for panel in found)
    return {panel.id: panel for panel in found}


def figures(panel: Panel) -> dict[str, float | None]:
    return {figure.label: figure.value for figure in panel.figures}


def two_people(
    votes: Votes, items: int, alike: int, strategy: str = "random", source: str = "test"
) -> list[Comparison]:
    """Anna and ben on `items` pairs, of which they agree on the first `alike`; both names win equally often."""
    made = []
    for number in range(items):
        on = votes.compare(votes.prompt(f"{strategy} {source} {number}", source=source), strategy)
        first = "0>1" if number % 2 else "1>0"
        votes.vote(on, first, "anna", strength=3 if number < alike else 1)
        votes.vote(on, first if number < alike else first[::-1], "ben", strength=2)
        made.append(on)
    return made


def test_no_votes_and_one(store: Store) -> None:
    for panel in shown(store).values():
        assert panel.missing and not panel.figures and not panel.plots and not panel.tables
    votes = Votes()
    votes.vote(votes.compare(votes.prompt("a")), "0>1")
    votes.put(store)
    found = shown(store)
    assert found["does-agree"].missing.startswith(
        "No item was answered by two people yet: 20 such items give"
    )
    assert found["strength"].missing.startswith("No vote says by how much")
    assert found["rankings"].missing == "No vote ranks three or more answers."
    assert found["pairs"].missing == "No two people have judged 10 of the same pairs of answers yet."
    assert found["repeats"].missing.startswith("No item came back to the person who had answered it")
    assert found["triads"].missing.startswith("No person has judged all pairs of three answers")


def test_agreement_by_hand(store: Store) -> None:
    """30 pairs, 24 alike: 80 %. Each name wins half of the votes, so alpha is 1 - 59/60 x 0.4, kappa 0.6."""
    votes = Votes()
    two_people(votes, 30, 24)
    votes.put(store)
    panel = shown(store)["does-agree"]
    assert figures(panel) == {
        "percent agreement": 0.8,
        "Krippendorff's alpha": pytest.approx(1 - 59 / 60 * 0.4),
        "Fleiss' kappa": pytest.approx(0.6),
        "Gwet's AC1": pytest.approx(0.6),
        "Cohen's kappa": pytest.approx(0.6),
    }
    assert all(figure.n == 30 and figure.low is not None for figure in panel.figures)
    assert panel.answer.startswith(
        "Yes: two people who judge the same pair of answers agree in 80.0 % (95 %: "
    )
    assert [row["votes"] for row in panel.tables[0].rows] == ["all votes"]
    (plot,) = panel.plots
    assert isinstance(plot, Intervals)
    assert list(plot.labels) == [
        "people here, all votes", "InstructGPT, held-out labelers", "InstructGPT, training labelers",
        "Anthropic HH, researchers and crowd",
    ]  # fmt: skip
    assert (plot.values[1:], plot.lows[3], plot.reference) == ((0.773, 0.726, 0.63), None, 0.5)


def test_guessing_is_not_shown_to_be_more(store: Store) -> None:
    votes = Votes()
    two_people(votes, 40, 20)
    votes.put(store)
    assert shown(store)["does-agree"].answer.startswith("Not shown: two people who judge")


def test_few_items_have_no_interval(store: Store) -> None:
    votes = Votes()
    two_people(votes, 4, 3)
    votes.put(store)
    panel = shown(store)["does-agree"]
    assert panel.answer.endswith("(an interval needs 20 items).")
    assert panel.notes[-1] == "16 more items that two people answer give intervals."
    assert {figure.why for figure in panel.figures} == {"an interval needs 20 items"}


def test_ties_are_left_out_in_two_ways(store: Store) -> None:
    """Cleo calls everything a tie: left out, anna and ben's 80 % stand; pairs without any tie are the other ten."""
    votes = Votes()
    made = two_people(votes, 30, 24)
    for on in made[:20]:
        votes.vote(on, "0=1", "cleo")
    votes.put(store)
    rows = {row["votes"]: row for row in shown(store)["does-agree"].tables[0].rows}
    assert {name: (row["percent"], row["items"]) for name, row in rows.items()} == {
        "all votes": (pytest.approx(24 / 70), 30),
        "tie votes left out": (pytest.approx(0.8), 30),
        "pairs that nobody called a tie": (pytest.approx(0.4), 10),
    }


def test_second_answers_and_adjudications_do_not_count(store: Store) -> None:
    votes = Votes()
    on = two_people(votes, 20, 20)[0]
    votes.vote(on, "0>1", "lead", adjudicated=True)
    again = Comparison(
        on.prompt_id, on.completion_ids, "repeat", purpose="repeat", reserved_for="anna", repeats=on.id
    )
    votes.comparisons.append(again)
    votes.vote(again, "0>1", "anna", swapped=True)
    votes.put(store)
    panel = shown(store)["does-agree"]
    assert (panel.figures[0].value, panel.tables[0].rows[0]["pairs"]) == (1.0, 20)
    assert (panel.figures[0].low, panel.figures[0].high) == (wilson(20, 20)[0], 1.0)


def test_actively_selected_pairs_stand_apart(store: Store) -> None:
    votes = Votes()
    two_people(votes, 20, 18)
    two_people(votes, 20, 10, strategy="d-optimal")
    votes.put(store)
    found = shown(store)
    assert figures(found["does-agree"])["percent agreement"] == pytest.approx(28 / 40)
    assert figures(found["does-agree"])["percent agreement, random pairs"] == pytest.approx(0.9)
    assert any("on random pairs" in note for note in found["does-agree"].notes)
    assert [row["percent"] for row in found["pairs"].tables[0].rows] == [
        0.9,
        0.9,
    ]  # people: random pairs only
    with Store(store.path.with_name("active.duckdb")) as only:
        votes = Votes()
        two_people(votes, 20, 10, strategy="d-optimal")
        votes.put(only)
        found = shown(only)
    assert any(note.startswith("All pairs were chosen actively") for note in found["does-agree"].notes)
    assert found["pairs"].missing


def test_kinds_never_mix(store: Store) -> None:
    votes = Votes()
    on = votes.compare(votes.prompt("a"))
    votes.vote(on, "0>1", "anna")
    votes.vote(on, "0>1", "rule-1", kind="rule")
    votes.vote(on, "1>0", "rule-2", kind="rule")
    votes.put(store)
    assert shown(store)["does-agree"].missing
    found = shown(store, Scope("rule"))["does-agree"]
    assert found.question == "Do rules agree, more than chance?"
    assert figures(found)["percent agreement"] == 0.0


def test_strength_by_hand(store: Store) -> None:
    """Anna is sure where ben agrees: a much better is backed always, a slightly better never, ben's better in 24 of 30.
    Votes of a source without strengths, and their ties, stay out."""
    votes = Votes()
    two_people(votes, 30, 24)
    for number in range(5):
        on = votes.compare(votes.prompt(f"unknown {number}", source="file"))
        votes.vote(on, "0=1", "anna")
        votes.vote(on, "0>1", "ben")
    votes.put(store)
    panel = shown(store)["strength"]
    assert [figures(panel)[f"backing of “{name}”"] for name in ("much better", "better", "slightly better")] == [
        1.0, 0.8, 0.0,
    ]  # fmt: skip
    histogram, intervals = panel.plots
    assert isinstance(histogram, Histogram) and list(histogram.series["votes"]) == [0, 6, 30, 24]
    assert isinstance(intervals, Intervals) and list(intervals.values) == [1.0, 0.8, 0.0]
    alpha = figures(panel)["ordinal alpha"]
    assert alpha is not None and 0.5 < alpha < 0.7
    assert panel.notes[1].startswith("5 decided pairs of answers come without a strength")
    assert "names the same winner as a “much better” in 100.0 % of cases" in panel.answer


def test_strengths_that_nobody_shares(store: Store) -> None:
    votes = Votes()
    votes.vote(votes.compare(votes.prompt("a")), "0>1", strength=2)
    votes.put(store)
    panel = shown(store)["strength"]
    assert panel.missing.startswith("No item with strengths was answered by two people yet")
    assert isinstance(panel.plots[0], Histogram)


def test_rankings_by_hand(store: Store) -> None:
    """Items of three, where ben swaps the last two (tau 1/3), and of four, where both say the same (tau 1)."""
    votes = Votes()
    for number in range(24):
        on = votes.compare(votes.prompt(f"three {number}", 3))
        votes.vote(on, "0>1>2", "anna")
        votes.vote(on, "0>2>1", "ben")
        on = votes.compare(votes.prompt(f"four {number}", 4))
        votes.vote(on, "3>1=2>0", "anna")
        votes.vote(on, "3>1=2>0", "ben")
    votes.put(store)
    panel = shown(store)["rankings"]
    assert figures(panel) == {
        "Kendall's tau_b": pytest.approx(2 / 3),
        "Kendall's W": pytest.approx((0.75 + 1) / 2),
        "W beyond chance": pytest.approx(0.75),
    }
    assert [(row["answers"], row["tau"], row["rankings"]) for row in panel.tables[0].rows] == [
        (3, pytest.approx(1 / 3), 48),
        (4, pytest.approx(1.0), 48),
    ]
    assert "is the same verdict on 83.3 % of all pairs of answers" in panel.answer


def test_rankings_that_nobody_shares(store: Store) -> None:
    votes = Votes()
    votes.vote(votes.compare(votes.prompt("three", 3)), "0>1>2")
    votes.put(store)
    assert shown(store)["rankings"].missing.startswith("No item with three or more answers was ranked by two")


def test_pairs_by_hand(store: Store) -> None:
    """Cleo judges as anna does, ben agrees with both on 8 of 10."""
    votes = Votes()
    for number, on in enumerate(two_people(votes, 30, 24)):
        votes.vote(on, "0>1" if number % 2 else "1>0", "cleo")
    votes.vote(votes.compare(votes.prompt("alone")), "0>1", "dan")
    votes.put(store)
    panel = shown(store)["pairs"]
    percent, kappa = panel.plots
    assert isinstance(percent, Heat) and isinstance(kappa, Heat)
    assert list(percent.rows) == ["anna", "ben", "cleo"]
    assert percent.values == [[None, 0.8, 1.0], [0.8, None, 0.8], [1.0, 0.8, None]]
    assert [[None if v is None else round(v, 9) for v in row] for row in kappa.values] == [
        [None, 0.6, 1.0],
        [0.6, None, 0.6],
        [1.0, 0.6, None],
    ]
    assert figures(panel) == {"Cohen's kappa, mean": pytest.approx(2.2 / 3)}
    least = panel.tables[0].rows[0]
    assert (least["name"], least["shared"]) == ("ben", 60)
    assert "from 0.60 (anna and ben)" in panel.answer and "to 1.00 (anna and cleo)" in panel.answer


def test_repeats_by_hand(store: Store) -> None:
    """Anna sees 12 items again with sides swapped: 6 times the same winner, 6 times the first place."""
    votes = Votes()
    for number in range(12):
        on = votes.compare(votes.prompt(f"p{number}"))
        votes.vote(on, "0>1", "anna")
        again = votes.compare(
            list(on.completion_ids), "repeat", purpose="repeat", reserved_for="anna", repeats=on.id
        )
        votes.vote(again, "0>1" if number < 6 else "1>0", "anna", swapped=True)
    votes.put(store)
    panel = shown(store)["repeats"]
    assert [(figure.value, figure.low, figure.n) for figure in panel.figures] == [
        (0.5, pytest.approx(wilson(6, 12)[0]), 12),
        (0.5, pytest.approx(wilson(6, 12)[0]), 12),
        (1.0, pytest.approx(wilson(6, 6)[0]), 6),
    ]
    assert panel.answer.endswith("where the same side won twice, it was the one shown first in 100.0 %.")
    assert [(row["name"], row["same"], row["pairs"]) for row in panel.tables[0].rows] == [("anna", 0.5, 12)]


def test_triads_by_hand(store: Store) -> None:
    """Anna's three pairs of one prompt run in a circle, ben's don't; rankings of three can't. By majority the models
    are in a circle: m0 over m1, m1 over m2, m2 over m0 (2 : 1, 3 : 0, 2 : 1)."""
    votes = Votes()
    ids = votes.prompt("p", 3)
    one, two, three = (votes.compare([ids[i], ids[j]]) for i, j in ((0, 1), (1, 2), (0, 2)))
    for name, said in (
        ("anna", ("0>1", "0>1", "1>0")),
        ("ben", ("1>0", "0>1", "1>0")),
        ("cleo", ("0>1", "0>1", "0>1")),
    ):
        for on, what in zip((one, two, three), said, strict=True):
            votes.vote(on, what, name)
    votes.put(store)
    panel = shown(store)["triads"]
    assert [(figure.value, figure.n) for figure in panel.figures] == [(pytest.approx(1 / 3), 3), (1.0, 1)]
    people, models = panel.tables
    assert [(row["name"], row["circular"]) for row in people.rows] == [
        ("anna", 1.0),
        ("ben", 0.0),
        ("cleo", 0.0),
    ]
    assert [tuple(row.values()) for row in models.rows] == [("m0", "m1", "m2")]
    assert panel.notes[0].startswith("In 0 of the 1 circles of models")


def test_many_votes_leave_the_slow_part_to_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    votes = Votes()
    two_people(votes, 30, 24)
    votes.put(store)
    whole = shown(store)
    monkeypatch.setattr(agreement_figures, "BIG", 59)
    with Facts(store) as facts:
        quick = {panel.id: panel for panel in agreement_section.panels(facts, Scope())}
        assert {id: panel.late for id, panel in quick.items()} == {
            "does-agree": True, "strength": True, "rankings": False, "pairs": True, "repeats": True, "triads": True,
        }  # fmt: skip
        assert quick["does-agree"].answer == whole["does-agree"].answer
        for id, panel in quick.items():
            assert agreement_section.LATE[id](facts, Scope()) == whole[id]
            assert panel.question == whole[id].question


def test_random_votes_show_every_panel(store: Store) -> None:
    """Names that try to break out, partial rankings, ties, skips: nothing is NaN, nothing fails."""
    rng, votes = random.Random(0), Votes()
    for number in range(60):
        answers = rng.choice([2, 2, 3, 5])
        on = votes.compare(
            votes.prompt(f"p{number // 4} {number}", answers), rng.choice(["random", "d-optimal"])
        )
        for name in rng.sample(["anna", "<b>\x1b[31m", "", "x" * 60, "dan"], 3):
            order = rng.sample(range(answers), rng.randint(2, answers))
            said = rng.choice(">>=").join(map(str, order))
            votes.vote(
                on, said, name, strength=rng.choice([1, 2, 3]) if answers == 2 and "=" not in said else None
            )
    votes.put(store)
    for scope in (
        Scope(),
        Scope(since=START.date()),
        Scope(source="nowhere"),
        Scope(tag="none"),
        Scope("model"),
    ):
        shown(store, scope)


@pytest.mark.slow
def test_pandalm(tmp_path: Path, shared_data: Path) -> None:
    """Three annotators on 999 comparisons, counted here straight from the file: with ties they agree on 92.0 % and
    alpha is .86; without tie votes on 94.7 %, and alpha is .90."""
    file = shared_data / "pandalm_testset-v1.json"
    rows = [[row[f"annotator{n}"] for n in (1, 2, 3)] for row in json.loads(file.read_text(encoding="utf-8"))]
    alike = both = decided = decided_both = 0
    for row in rows:
        for one, other in ((0, 1), (0, 2), (1, 2)):
            alike, both = alike + (row[one] == row[other]), both + 1
            if row[one] and row[other]:
                decided, decided_both = decided + (row[one] == row[other]), decided_both + 1
    project = Project.create(tmp_path / "project")
    importing.run(project, ImportConfig((file,)))
    with project.store() as opened:
        assert isinstance(opened, Store)
        found = shown(opened)
    table = {row["votes"]: row for row in found["does-agree"].tables[0].rows}
    whole, untied = table["all votes"], table["tie votes left out"]
    assert (whole["percent"], whole["items"]) == (pytest.approx(alike / both), 999)
    assert (untied["percent"], untied["items"]) == (pytest.approx(decided / decided_both), 894)
    assert [round(row[key], 3) for row in (whole, untied) for key in ("percent", "alpha")] == [  # type: ignore[arg-type, type-var]
        0.920, 0.865, 0.947, 0.896,
    ]  # fmt: skip
