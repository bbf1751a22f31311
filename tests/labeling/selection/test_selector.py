"""Choosing through the desk and a real database: what is given, how it is marked, when it stays by chance."""

import random
import time
from pathlib import Path

import numpy as np
import pytest

from palate.config import UserError
from palate.data import features
from palate.data.journal import Journal
from palate.data.records import Run
from palate.data.recovery import open_store
from palate.data.store import Store
from palate.labeling.ballots import Ballot
from palate.labeling.desk import Desk, annotator
from palate.labeling.journaling import VoteJournal
from palate.labeling.opening import Plan
from palate.labeling.selection import selector as selectors
from palate.labeling.selection.learner import Settings
from palate.labeling.selection.selector import Selector, check_selection
from tests.labeling.selection.world import RUN, take_turns, world

CHOOSE = Settings("information", 0.05, control=False)


def marks(store: Store) -> list[dict[str, object]]:
    return store.rows(
        "SELECT c.strategy, c.propensity FROM vote v JOIN assignment a ON a.id = v.assignment_id "
        "JOIN comparison c ON c.id = a.comparison_id ORDER BY v.created_at, v.id"
    )


def test_the_best_comes_and_how_it_came_is_stored(store: Store) -> None:
    given = world(store, n=80)
    selector = Selector(store, CHOOSE)
    with Desk(store, selector=selector) as desk:
        selector.refresh()
        anna = annotator(store, "anna").id
        assert take_turns(desk, given, anna, 60, np.random.default_rng(0)) == 60
        best = selector._ranking.ids[0]
        item = next(iter(desk.next_items(anna, random.Random(3), 1)))  # 5 % would be by chance
    found = marks(store)
    kinds = [row["strategy"] for row in found]
    assert kinds.count("information") >= 50 and kinds.count("random") + kinds.count("information") == 60
    for place, row in enumerate(found):
        by_chance = 0.05 / (80 - place)
        expected = by_chance if row["strategy"] == "random" else 0.95 + by_chance
        assert row["propensity"] == pytest.approx(expected)
    held = store.rows("SELECT comparison_id FROM assignment WHERE id = ?", [item.assignment_id])
    assert held == [{"comparison_id": best}]
    state = selector.state()
    assert (state["rule"], state["choosing"], state["votes"], state["features"]) == (
        "information",
        True,
        60,
        RUN,
    )
    assert (state["waiting"], state["without_features"], state["share_by_chance"]) == (20, 0, 0.05)
    assert selector.notice() == "Choosing what a reward model learns most from; 5 % come by chance."


def test_everything_is_answered_once_and_nothing_twice(store: Store) -> None:
    given = world(store, n=30)
    selector = Selector(store, CHOOSE)
    selector.refresh()
    with Desk(store, plan=Plan(overlap=2), selector=selector) as desk:
        people = [annotator(store, name).id for name in ("anna", "ben", "cleo")]
        rng = np.random.default_rng(0)
        done = sum(take_turns(desk, given, person, 100, rng) for person in people)
    assert done == 60
    assert store.value("SELECT max(n) FROM (SELECT count(*) AS n FROM vote v JOIN assignment a ON a.id = "
                       "v.assignment_id GROUP BY a.comparison_id)") == 2  # fmt: skip


def test_two_people_are_never_sent_the_same_way(store: Store) -> None:
    world(store, n=40)
    selector = Selector(store, CHOOSE)
    selector.refresh()
    with Desk(store, selector=selector) as desk:
        items = []
        for name in ("anna", "ben", "cleo", "dora"):
            items += desk.next_items(annotator(store, name).id, random.Random(1), 1)
            selector.refresh()
    taken = store.rows("SELECT comparison_id FROM assignment")
    assert len({row["comparison_id"] for row in taken}) == len(items) == 4


def test_priorities_and_what_others_have_begun_come_first(store: Store) -> None:
    given = world(store, n=20)
    selector = Selector(store, CHOOSE)
    selector.refresh()
    urgent = store.rows("SELECT id FROM comparison ORDER BY id LIMIT 1")[0]["id"]
    store.write("UPDATE comparison SET priority = 5 WHERE id = ?", [urgent])
    with Desk(store, plan=Plan(overlap=2), selector=selector) as desk:
        anna, ben = annotator(store, "anna").id, annotator(store, "ben").id
        rng = np.random.default_rng(0)
        assert take_turns(desk, given, anna, 1, rng) == 1
        assert store.rows("SELECT comparison_id FROM assignment") == [{"comparison_id": urgent}]
        take_turns(desk, given, ben, 1, rng)
        assert store.value("SELECT count(DISTINCT comparison_id) FROM assignment") == 1


def test_a_journal_that_is_recovered_knows_the_strategy(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    with Store(folder / "palate.duckdb") as store:
        given = world(store, n=12)
        selector = Selector(store, CHOOSE)
        selector.refresh()
        journal = Journal(folder / "votes.journal")
        with Desk(store, journal=VoteJournal(journal, store), selector=selector) as desk:
            take_turns(desk, given, annotator(store, "anna").id, 12, np.random.default_rng(0))
        journal.close()
        before = marks(store)
        assert {row["strategy"] for row in before} >= {"information"}
    (folder / "palate.duckdb").write_bytes(b"no database")
    said: list[str] = []
    with open_store(folder / "palate.duckdb", say=said.append) as store:
        assert marks(store) == before


def test_without_features_it_is_chance_and_features_are_found_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = world(store, n=10)
    kept = store.table("SELECT * FROM feature")
    store.write("DELETE FROM feature")
    monkeypatch.setattr(selectors, "POLL", 0.0)
    selector = Selector(store, CHOOSE)
    selector.refresh()
    why = "no completion has features yet (palate reward features)"
    assert (selector.missing, selector.pick("anna", random.Random(0))) == (why, None)
    assert selector.notice() == f"Comparisons come by chance: {why}."
    with Desk(store, selector=selector) as desk:
        take_turns(desk, given, annotator(store, "anna").id, 2, np.random.default_rng(0))
        assert {(row["strategy"], row["propensity"]) for row in marks(store)} == {("random", 1.0)}
        store.add_table("feature", kept)
        selector.refresh()
        assert selector.missing is None and selector.state()["votes"] == 2
        # another run's features: everything is learned again from those
        ids = [str(one) for one in kept["completion_id"].to_pylist()]
        store.put_run(Run("features-2", "features", created_at="2026-02-02"))
        features.add(
            store, "features-2", ids, np.random.default_rng(1).normal(size=(len(ids), 3)).astype(np.float32)
        )
        selector.refresh()
        assert selector.state()["features"] == "features-2" and selector.state()["votes"] == 2
        world(store, n=5, seed=4, first=100)
        selector.refresh()
        assert selector.state()["without_features"] == 5  # these have features of the older run


def test_noise_turns_it_off_and_says_so(store: Store) -> None:
    given = world(store, n=260)
    selector = Selector(store, Settings("information", 0.15))
    selector.refresh()
    with Desk(store, selector=selector) as desk:
        anna = annotator(store, "anna").id
        assert selector.notice().startswith(
            "Choosing what a reward model learns most from, 40 % by chance until 200"
        )
        take_turns(desk, given, anna, 220, np.random.default_rng(1), flips=0.5)
    state = selector.state()
    assert (state["choosing"], state["reason"], state["share_by_chance"]) == (False, "skill", 1.0)
    assert state["notice"].startswith(
        "Choosing is off, comparisons come by chance: after 220 votes they do not go where features would say ("
    )
    assert [row["strategy"] for row in marks(store)][-15:] == ["random"] * 15
    again = Selector(store, Settings("information", 0.15))
    again.refresh()
    assert again.state()["reason"] == "skill"  # a restart does not forget it


def test_the_thread_learns_by_itself_and_survives_what_goes_wrong(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given = world(store, n=40)
    monkeypatch.setattr(selectors, "POLL", 0.05)
    selector = Selector(store, CHOOSE)

    def wait_for(what: str, value: object) -> None:
        for _ in range(200):
            if selector.state().get(what) == value:
                return
            time.sleep(0.02)
        raise AssertionError(selector.state())

    with Desk(store, selector=selector) as desk:
        desk.on_votes.append(selector.heard)
        selector.start()
        wait_for("choosing", True)
        anna = annotator(store, "anna").id
        for number in range(5):
            (item,) = desk.next_items(anna, random.Random(number), 1)
            desk.cast_all(anna, [given.answer(item, f"vote-000{number}")])
        wait_for("votes", 5)
        store.write("UPDATE feature SET vector = list_transform(vector, lambda x: 'nan'::FLOAT)")
        world(store, n=1, seed=9, first=500)
        wait_for("choosing", False)
        assert "not finite numbers" in selector.notice()
        (item,) = desk.next_items(anna, random.Random(9), 1)  # people go on
        desk.cast_all(anna, [given.answer(item, "vote-0009")]) if item.answers[0][
            1
        ] in given.score else desk.cast_all(
            anna, [Ballot("tie", vote_id="vote-0009", assignment_id=item.assignment_id)]
        )
        time.sleep(20 * selectors.POLL)  # so that it has looked at all that is there
        store.write(
            "UPDATE feature SET vector = list_transform(vector, lambda x: 1::FLOAT)"
        )  # as many as before
        wait_for("choosing", True)
        selector.close()
    assert "choosing failed" in caplog.text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("information", 0.01, 0.0), "--random-share takes 0.05 to 1, got 0.01"),
        (("information", 0.2, -1.0), "--diversity takes 0 to 10, got -1.0"),
        (("dpo", 0.2, 1.0), "--diversity goes with --select information"),
    ],
)
def test_settings(settings: tuple[str, float, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_selection(*settings)
