"""The report on hand-worked votes; kinds never mix; names are shown as written."""

import json
import random
from typing import Any

import pytest

from palate.config import StatsConfig
from palate.data.records import Assignment, Completion, Vote, new_id
from palate.data.store import Store
from palate.labeling import voting
from palate.labeling.statistics import print_report, report, run_stats
from palate.labeling.statistics_page import as_page
from palate.labeling.voting import Ballot
from palate.project import Project
from tests.labeling.conftest import MODELS, TEXTS, fill


def vote(
    store: Store, name: str, comparison: Any, best: int, shown: tuple[int, int] = (0, 1), **fields: Any
) -> Vote:
    """A vote on two answers: which one is best (canonical index, -1 a tie), in which order they were shown."""
    kind = fields.pop("kind", "human")
    ids = comparison.completion_ids
    person = voting.annotator(store, name, kind)
    seat = Assignment(comparison.id, person.id, tuple(ids[i] for i in shown))
    store.add_assignments([seat])
    ranking = ((ids[0], ids[1]),) if best < 0 else ((ids[best],), (ids[1 - best],))
    one = Vote(seat.id, "tie" if best < 0 else "ranked", ranking, **fields)
    store.add_votes([one])
    return one


@pytest.fixture
def voted(store: Store) -> Store:
    a, b, c, d = fill(store, n=4)
    vote(store, "anna", a, 0, (0, 1), seconds_active=10.0)  # first shown wins, shorter wins, model a wins
    vote(store, "anna", b, 1, (0, 1), seconds_active=30.0)
    vote(store, "anna", c, 1, (1, 0), seconds_active=20.0)
    vote(store, "ben", a, 0, (1, 0))
    vote(store, "ben", b, 0, (0, 1))
    vote(store, "ben", c, -1, (0, 1))
    seat = Assignment(d.id, voting.annotator(store, "ben").id, d.completion_ids)
    store.add_assignments([seat])
    store.add_votes([Vote(seat.id, "skip", seconds_active=1.0)])
    vote(store, "vivid-1", d, 1, (0, 1), kind="rule")
    return store


def test_report_by_hand(voted: Store) -> None:
    found = report(voted)
    assert (found["comparisons"], found["answered"], found["votes"], found["superseded"]) == (4, 4, 8, 0)
    human, rule = found["kinds"]
    assert (human["kind"], human["votes"], rule["kind"], rule["votes"]) == ("human", 7, "rule", 1)
    assert human["verdicts"] == {"ranked": 5, "tie": 1, "all_bad": 0, "skip": 1}
    assert human["seconds"] == 20.0  # the skip's second does not count
    assert (human["first_wins"]["value"], human["first_wins"]["n"]) == (3 / 5, 5)
    assert (human["longer_wins"]["value"], human["longer_wins"]["n"]) == (2 / 5, 5)
    assert (human["agreement"]["percent"]["value"], human["agreement"]["percent"]["n"]) == (1 / 3, 3)
    assert {name: share["value"] for name, share in human["models"]} == {
        MODELS[0]: 3.5 / 6,
        MODELS[1]: 2.5 / 6,
    }
    anna = next(row for row in human["annotators"] if row["name"] == "anna")
    assert (anna["votes"], anna["seconds"], anna["first_wins"]["value"]) == (3, 20.0, 2 / 3)
    assert rule["agreement"]["percent"]["why"] == "no comparison was answered by two annotators"
    assert len(human["days"]) == 1 and human["days"][0][1] == 7


def test_a_superseded_vote_counts_once(voted: Store) -> None:
    anna = voting.annotator(voted, "anna").id
    item = voting.undo(voted, anna)
    assert item is not None
    voting.cast(voted, anna, Ballot("all_bad", vote_id=new_id(), assignment_id=item.assignment_id))
    found = report(voted)
    assert (found["votes"], found["superseded"]) == (8, 1)
    assert found["kinds"][0]["verdicts"]["all_bad"] == 1


def test_no_votes_and_one_model_say_so(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    fill(store, n=1)
    print_report(report(store))
    assert "no votes yet" in capsys.readouterr().out
    assert "No votes yet" in as_page(report(store), "x")
    store.write("UPDATE completion SET model = 'only'")
    anna = voting.annotator(store, "anna").id
    item = voting.next_item(store, anna, random.Random(0))
    assert item is not None
    voting.cast(store, anna, Ballot("tie", vote_id=new_id(), assignment_id=item.assignment_id))
    print_report(report(store))
    assert "all answers come from one model" in capsys.readouterr().out
    assert "All answers come from one model" in as_page(report(store), "x")


def test_stats_command(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with project.store() as store:
        vote(store, "anna", fill(store, n=1)[0], 0)
    run_stats(project, StatsConfig())
    text = capsys.readouterr().out
    assert "1 votes on 1 of 1 comparisons" in text
    assert "shown first wins  100.0% (95 %: 20.7 to 100.0, n = 1 pairs)" in text
    run_stats(project, StatsConfig(json=True))
    assert json.loads(capsys.readouterr().out)["kinds"][0]["annotators"][0]["name"] == "anna"


def test_the_page_shows_names_as_written(store: Store) -> None:
    comparison = fill(store, n=1)[0]
    store.write("UPDATE completion SET model = ? WHERE text = ?", ["<img src=x onerror=alert(1)>", TEXTS[0]])
    vote(store, "a|b *c* <script>alert(1)</script>", comparison, 0)
    page = as_page(report(store), "Proj <b>")
    assert "<" not in page
    assert "&lt;img src=x onerror=alert(1)>" in page
    assert r"a\|b \*c\* &lt;script>alert(1)&lt;/script>" in page


def test_equal_lengths_say_nothing_about_length(store: Store) -> None:
    comparison = fill(store, n=1, texts=("same", "size", "", ""))[0]
    vote(store, "anna", comparison, 0)
    share = report(store)["kinds"][0]["longer_wins"]
    assert (share["value"], share["n"]) == (None, 0)
    assert "different length" in share["why"]


def test_completions_of_the_same_model_say_nothing_about_models(store: Store) -> None:
    comparison = fill(store, n=1, k=4)[0]
    anna = voting.annotator(store, "anna").id
    item = voting.next_item(store, anna, random.Random(0))
    assert item is not None
    ballot = Ballot(
        "ranked", (("A",), ("B",), ("C",), ("D",)), vote_id=new_id(), assignment_id=item.assignment_id
    )
    voting.cast(store, anna, ballot)
    assert [share["n"] for _, share in report(store)["kinds"][0]["models"]] == [4, 4]
    assert len({Completion(comparison.prompt_id, text).id for text in TEXTS}) == 4
