"""Disagreement: the formula against scipy's Dirichlet and by hand, the order of items, and the panels of Data."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import dirichlet

from palate.data.facts import Facts
from palate.data.records import digest
from palate.data.store import Store
from palate.labeling.statistics.data_section import panels
from palate.labeling.statistics.disagreement import Disagreement, disagreement, expected_difference, of_pairs
from palate.labeling.statistics.panels import Panel
from palate.labeling.statistics.scope import Scope
from tests.labeling.voted import ask, vote


def one(a: int, t: int, b: int) -> float:
    return float(expected_difference(*(np.array([n], np.int32) for n in (a, t, b)))[0])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "palate.duckdb") as opened:
        yield opened


def test_worked_by_hand() -> None:
    # 1:1: alpha = (1.5, 0.5, 1.5), A = 3.5; 2 (1.5 * 1.5 + 0.5 * 0.5 * 3) / (3.5 * 4.5) = 6 / 15.75
    assert one(1, 0, 1) == pytest.approx(6 / 15.75)
    # nobody: alpha = (0.5, 0.5, 0.5), A = 1.5; 2 (0.25 + 0.5 * 0.5 * 1) / (1.5 * 2.5) = 1 / 3.75
    assert one(0, 0, 0) == pytest.approx(1 / 3.75)
    # three ties: alpha = (0.5, 3.5, 0.5); 2 (0.25 + 0.5 * 3.5 * 1) / (4.5 * 5.5) = 4 / 24.75
    assert one(0, 3, 0) == pytest.approx(4 / 24.75)


def test_as_the_moments_of_a_dirichlet_say() -> None:
    rng = np.random.default_rng(0)
    for counts in rng.integers(0, 30, (40, 3)):
        alpha = counts + 0.5
        product = dirichlet.cov(alpha) + np.outer(dirichlet.mean(alpha), dirichlet.mean(alpha))
        distance = np.array([[0, 0.5, 1], [0.5, 0, 0.5], [1, 0.5, 0]])
        assert one(*counts) == pytest.approx((product * distance).sum(), abs=1e-12)


def test_as_drawing_two_votes_from_the_posterior() -> None:
    rng = np.random.default_rng(1)
    shares = rng.dirichlet([4.5, 1.5, 2.5], 200_000)
    place = np.array([0.0, 0.5, 1.0])
    two = [place[(rng.random(200_000)[:, None] > shares.cumsum(1)).sum(1)] for _ in range(2)]
    assert one(4, 1, 2) == pytest.approx(np.abs(two[0] - two[1]).mean(), abs=0.004)


def test_the_order_is_by_what_is_known_not_by_the_raw_share() -> None:
    falling = [(50, 0, 50), (5, 0, 5), (2, 0, 2), (1, 0, 1), (1, 0, 0), (2, 0, 0), (5, 0, 0), (50, 0, 0)]
    assert [one(*counts) for counts in falling] == sorted((one(*counts) for counts in falling), reverse=True)
    assert one(1, 0, 1) > one(1, 1, 0) > one(2, 0, 0)  # a tie is half a difference


def test_an_item_is_the_mean_of_its_pairs() -> None:
    ints = lambda *values: np.array(values, np.int32)
    found = of_pairs(ints(0, 1, 2, 3), ints(7, 7, 7, 4), ints(1, 2, 0, 1), ints(0, 0, 0, 0), ints(1, 0, 2, 1))
    assert found.item.tolist() == [4, 7]
    assert found.expected == pytest.approx([one(1, 0, 1), (one(1, 0, 1) + 2 * one(2, 0, 0)) / 3])
    assert found.split.tolist() == [True, True]
    assert found.votes.tolist() == [2, 2]
    assert [found.a_wins.tolist(), found.b_wins.tolist(), found.unit.tolist()] == [[1, 1], [1, 1], [3, 0]]


def test_nothing_to_order() -> None:
    none = np.empty(0, np.int32)
    assert all(len(column) == 0 for column in vars(of_pairs(none, none, none, none, none)).values())


def test_second_answers_and_adjudications_do_not_count(store: Store) -> None:
    item = ask(store, "split")
    vote(store, item, "anna", "0>1")
    again = ask(store, "split", purpose="repeat", repeats=item.id, id=digest("repeat"))
    vote(store, again, "anna", "1>0", day=1)
    vote(store, item, "lead", "1>0", assignment_id="decision", adjudicated=True)
    with Facts(store) as facts:
        facts.refresh()
        found = disagreement(facts, Scope())
        assert isinstance(found, Disagreement)
        assert (found.votes.tolist(), found.split.tolist()) == ([1], [False])


# -- panels ---------------------------------------------------------------------------------------------------------


def shown(store: Store, scope: Scope | None = None) -> dict[str, Panel]:
    with Facts(store) as facts:
        facts.refresh()
        return {panel.id: panel for panel in panels(facts, scope or Scope())}


def test_empty_and_thin(store: Store) -> None:
    for missing in (panel.missing for panel in shown(store).values()):
        assert missing
    vote(store, ask(store, "one"), "anna", "0>1")
    found = shown(store)
    assert found["split"].missing == (
        "no item was answered by two people: it takes one more vote by somebody else on an item."
    )
    assert found["where"].missing == "no item was answered by two people."
    assert found["adjudicated"].missing == "no item was adjudicated; no item is split enough to need one."


def test_which_prompts_split_people(store: Store) -> None:
    split, agreed = ask(store, "split <b>prompt</b>", tags=("hard",)), ask(store, "agreed", source="other")
    for name, said in (("anna", "0>1"), ("ben", "1>0"), ("cleo", "tie"), ("dora", "0>1")):
        vote(store, split, name, said)
        vote(store, agreed, name, "0>1")
    found = shown(store)["split"]
    low_id_first = split.completion_ids[0] < split.completion_ids[1]
    assert found.answer == "On 1 of 2 items with two or more votes (50.0 %) two people differ."
    assert list(found.tables[0].rows) == [
        {
            "prompt": "split <b>prompt</b>",
            "source": "s",
            "votes": "2 : 1 : 1" if low_id_first else "1 : 1 : 2",
            "disagreement": pytest.approx(one(2, 1, 1)),
            "href": f"?item={split.id}",
        }
    ]
    assert found.href == "?disagreement=0.3&adjudicated=no&sort=disagreement"
    where = shown(store)["where"]
    assert [(row["source"], row["items"], row["share"]) for row in where.tables[0].rows] == [
        ("s", 1, 1.0),
        ("other", 1, 0.0),
    ]
    assert [(row["tag"], row["items"], row["share"]) for row in where.tables[1].rows] == [("hard", 1, 1.0)]
    assert (
        where.answer == "No source stands out: people differ on 50.0 % of the items with two or more votes."
    )
    assert shown(store, Scope(source="other"))["split"].figures[0].value == 0


def test_what_leads_have_decided(store: Store) -> None:
    items = [ask(store, f"p{i}") for i in range(3)]
    for item in items:
        for name, said in (("anna", "0>1"), ("ben", "1>0"), ("cleo", "0>1")):
            vote(store, item, name, said)
    vote(store, items[0], "lead", "0>1", assignment_id="d0", adjudicated=True)
    vote(store, items[1], "lead", "1>0", assignment_id="d1", adjudicated=True)
    found = shown(store)["adjudicated"]
    assert found.answer == "2 items are decided; 50.0 % of the decided pairs went as most people voted."
