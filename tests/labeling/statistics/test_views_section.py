"""Review, Training: every saved view in one table beside what training takes without one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from palate.data.facts import Facts
from palate.data.records import Annotator
from palate.data.store import Store
from palate.data.training_views import Definition
from palate.labeling.statistics import views_section
from palate.labeling.statistics.panels import Panel, Section
from palate.labeling.statistics.plain import as_plain
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.terminal import section_text
from tests.data.test_training_views import Ballots, fill


@pytest.fixture
def ballots(tmp_path: Path) -> Iterator[Ballots]:
    with Store(tmp_path / "palate.duckdb") as store:
        yield Ballots(store)


@pytest.fixture
def facts(ballots: Ballots) -> Iterator[Facts]:
    with Facts(ballots.store) as opened:
        yield opened


def panel(facts: Facts) -> Panel:
    facts.refresh()
    (found,) = views_section.panels(facts, Scope())
    assert found == views_section.LATE["views"](facts, Scope()) and not found.late
    as_text = section_text(Section("training", "Training", (found,)))
    assert found.question in as_text
    json.dumps(as_plain(Scope(), [Section("training", "Training", (found,))]), allow_nan=False)
    return found


def rows(found: Panel) -> list[dict[str, Any]]:
    return [dict(row) for row in found.tables[0].rows]


def test_no_vote_and_one(ballots: Ballots, facts: Facts) -> None:
    empty = panel(facts)
    assert empty.missing.startswith("No vote yet that training could take") and not empty.answer
    assert empty.tables == ()
    ballots.store.put_view("m", Definition("majority").as_dict(), None, None)
    assert [row["votes"] for row in rows(panel(facts))] == [0, 0]
    ballots.vote(ballots.compare("one"), "0>1")
    one = panel(facts)
    assert (
        one.answer == "Without a view, training takes 1 vote on 1 comparison; m keeps 100.0 % of these votes."
    )
    assert rows(one)[0] == {
        "view": "without a view", "does": "each vote as it is", "comparisons": 1, "pairs": 1, "votes": 1,
        "agreement": None, "longer": None,
    }  # fmt: skip
    assert "Where agreement is missing, no two completions have two votes that count." in one.notes
    assert "Where the last column is missing, no decided pair has two lengths." in one.notes


def test_every_view_is_a_row(ballots: Ballots, facts: Facts) -> None:
    fill(ballots)
    none = panel(facts)
    assert none.answer == "Without a view, training takes 11 votes on 5 comparisons; no view is saved."
    assert any("palate view NAME" in note for note in none.notes)
    store = ballots.store
    careful = Definition("majority", ties=False, min_agreement=0.6, exclude=(Annotator("cy").id,))
    store.put_view("careful", careful.as_dict(), None, None)
    store.put_view("nobody", Definition(source="elsewhere").as_dict(), None, None)
    store.put_view("trusted", Definition("reliability").as_dict(), {Annotator("cy").id: 1.0}, None)
    found = panel(facts)
    # careful leaves out cy's votes, then the single one, the split and the tie
    assert [(row["view"], row["comparisons"], row["pairs"], row["votes"]) for row in rows(found)] == [
        ("without a view", 5, 13, 11), ("careful", 2, 2, 4), ("nobody", 0, 0, 0), ("trusted", 5, 13, 11)
    ]  # fmt: skip
    # of the pairs of votes on one pair: 1 of 3, 0 of 1, 1 of 3, and 1 of 1; careful: 1 of 1 and 1 of 1
    assert [row["agreement"] for row in rows(found)] == [3 / 8, 1.0, None, 3 / 8]
    assert (
        rows(found)[1]["does"] == "the majority on each pair, no ties, agreement of 60 % or more, without cy"
    )
    assert found.answer == (
        "Without a view, training takes 11 votes on 5 comparisons; careful keeps 36.4 % of these votes, nobody keeps "
        "0.0 % of these votes, trusted keeps 100.0 % of these votes."
    )
    assert "A view that keeps no vote can't be trained on." in found.notes
    assert any("--refresh renews them" in note for note in found.notes)


def test_with_many_votes_the_figures_follow(
    ballots: Ballots, facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(ballots)
    whole = panel(facts)
    monkeypatch.setattr(views_section, "BIG", 3)
    (quick,) = views_section.panels(facts, Scope())
    assert (quick.late, quick.answer, quick.id) == (True, "", whole.id)
    assert [row["votes"] for row in rows(quick)] == [None]
    assert views_section.LATE["views"](facts, Scope()) == whole
