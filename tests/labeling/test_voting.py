"""One code path for people and rules: slots, order, idempotent votes, undo, refusals."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from palate.config import UserError
from palate.data.records import Comparison, new_id
from palate.data.store import Store, now
from palate.labeling import voting
from palate.labeling.voting import Answer, Ballot, BallotRefused, Item, cast, next_item, undo
from tests.labeling.conftest import MODELS, TEXTS, fill


def vote_for(item: Item, *tiers: str, vote_id: str = "", **fields: object) -> Ballot:
    """A ballot that ranks by letters: vote_for(item, "B", "AC") is B > A = C."""
    ranking = tuple(tuple(tier) for tier in tiers)
    return Ballot("ranked", ranking, vote_id=vote_id or new_id(), assignment_id=item.assignment_id, **fields)  # type: ignore[arg-type]


def take(store: Store, person: str, seed: int = 0) -> Item:
    item = next_item(store, person, random.Random(seed))
    assert item is not None
    return item


def test_a_reload_shows_the_same_item_in_the_same_order(store: Store) -> None:
    fill(store, n=5, k=4)
    anna = voting.annotator(store, "anna").id
    first = take(store, anna, seed=1)
    assert take(store, anna, seed=2) == first
    assert [letter for letter, _ in first.answers] == ["A", "B", "C", "D"]
    assert sorted(text for _, text in first.answers) == sorted(TEXTS)


def test_the_order_is_drawn_at_random_and_stored(store: Store) -> None:
    fill(store, n=40, k=2)
    anna = voting.annotator(store, "anna").id
    shown_first = []
    for seed in range(40):
        item = take(store, anna, seed)
        shown_first.append(item.answers[0][1])
        cast(store, anna, vote_for(item, "A", "B"))
    assert 8 < shown_first.count(TEXTS[0]) < 32
    order = store.rows(
        "SELECT a.display_order, v.ranking FROM vote v JOIN assignment a ON a.id = v.assignment_id"
    )
    assert all(row["ranking"] == [[row["display_order"][0]], [row["display_order"][1]]] for row in order)


def test_letters_become_completions(store: Store) -> None:
    comparison = fill(store, n=1, k=4)[0]
    anna = voting.annotator(store, "anna").id
    item = take(store, anna, seed=3)
    vote = cast(store, anna, vote_for(item, "C", "AD", "B", rationale=" clearer ", seconds_visible=12.345))
    texts = {row["id"]: row["text"] for row in store.rows("SELECT id, text FROM completion")}
    shown = dict(item.answers)
    assert [[texts[c] for c in tier] for tier in vote.ranking] == [
        [shown["C"]],
        [shown["A"], shown["D"]],
        [shown["B"]],
    ]
    assert (vote.rationale, vote.seconds_visible, vote.strength, vote.supersedes) == (
        "clearer",
        12.35,
        None,
        None,
    )
    assert store.value("SELECT count(*) FROM preference") == 6
    assert next_item(store, anna, random.Random()) is None
    assert set(comparison.completion_ids) == {c for tier in vote.ranking for c in tier}


def test_an_item_names_no_model(store: Store) -> None:
    fill(store, n=1, k=9)
    item = take(store, voting.annotator(store, "anna").id)
    assert len(item.answers) == 9
    assert not any(model in repr(item) for model in MODELS)
    assert not any(row["id"] in repr(item) for row in store.rows("SELECT id FROM completion"))


def test_the_same_vote_twice_is_one_vote(store: Store) -> None:
    fill(store, n=2)
    anna, ben = (voting.annotator(store, name).id for name in ("anna", "ben"))
    item = take(store, anna)
    ballot = vote_for(item, "A", "B", vote_id="0123456789abcdef")
    assert cast(store, anna, ballot) == cast(store, anna, ballot)
    other = vote_for(take(store, anna), "A", "B", vote_id=ballot.vote_id)
    with pytest.raises(BallotRefused, match="another vote"):
        cast(store, anna, other)
    with pytest.raises(BallotRefused, match="not given to you"):
        cast(store, ben, ballot)
    assert store.value("SELECT count(*) FROM vote") == 1


def test_a_second_tab_cannot_answer_twice(store: Store) -> None:
    fill(store, n=1)
    anna = voting.annotator(store, "anna").id
    item = take(store, anna)
    cast(store, anna, vote_for(item, "A", "B"))
    with pytest.raises(BallotRefused, match="already"):
        cast(store, anna, vote_for(item, "B", "A"))


def test_undo_supersedes_and_keeps_the_old_vote(store: Store) -> None:
    fill(store, n=3)
    anna = voting.annotator(store, "anna").id
    first = take(store, anna)
    old = cast(store, anna, vote_for(first, "A", "B", strength=3))
    second = take(store, anna)
    again = undo(store, anna)
    assert again is not None
    assert (again.assignment_id, again.answers) == (first.assignment_id, first.answers)
    assert again.earlier == Answer("ranked", (("A",), ("B",)), 3)
    assert store.value("SELECT id FROM current_vote") == old.id  # it stands until the next answer
    assert take(store, anna).assignment_id == first.assignment_id
    new = cast(store, anna, Ballot("tie", vote_id=new_id(), assignment_id=first.assignment_id))
    assert new.supersedes == old.id
    assert [row["id"] for row in store.rows("SELECT id FROM current_vote")] == [new.id]
    assert store.value("SELECT count(*) FROM vote") == 2
    assert take(store, anna).assignment_id == second.assignment_id


def test_undo_goes_back_step_by_step(store: Store) -> None:
    fill(store, n=2)
    anna = voting.annotator(store, "anna").id
    items = []
    for _ in range(2):
        items.append(take(store, anna))
        cast(store, anna, vote_for(items[-1], "A", "B"))
    back = [undo(store, anna), undo(store, anna), undo(store, anna)]
    assert [item and item.assignment_id for item in back] == [
        items[1].assignment_id,
        items[0].assignment_id,
        None,
    ]


def test_imported_votes_are_not_taken_back(store: Store) -> None:
    fill(store, n=1)
    anna = voting.annotator(store, "anna").id
    cast(store, anna, vote_for(take(store, anna), "A", "B"), run_id="import-1")
    assert undo(store, anna) is None


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer("ranked", (("A",), ("B",))), "C is missing"),
        (Answer("ranked", (("A",), ("B", "C"), ("A",))), "twice"),
        (Answer("ranked", (("A",), ("B",), ("D",))), "'D' was not shown"),
        (Answer("ranked", (("A", "B", "C"),)), "two tiers"),
        (Answer("ranked", (("A",), (), ("B", "C"))), "two tiers"),
        (Answer("ranked", (("A",), ("B",), ("C",)), 2), "strength"),
        (Answer("ranked"), "A, B, C is missing"),
        (Answer("tie", (("A", "B"),)), "one tier with every answer"),
        (Answer("all_bad", (("A",),)), "no ranking"),
        (Answer("skip", (), 1), "no ranking"),
        (Answer("best"), "verdict"),  # type: ignore[arg-type]
    ],
)
def test_bad_ballots_are_refused_and_store_nothing(store: Store, answer: Answer, why: str) -> None:
    fill(store, n=1, k=3)
    anna = voting.annotator(store, "anna").id
    item = take(store, anna)
    ballot = Ballot(answer.verdict, answer.ranking, answer.strength, new_id(), item.assignment_id)
    with pytest.raises(BallotRefused, match=why):
        cast(store, anna, ballot)
    assert store.value("SELECT count(*) FROM vote") == 0
    assert take(store, anna) == item


@pytest.mark.parametrize("strength", [0, 4, -1])
def test_strength_between_two_answers_is_1_to_3(strength: int) -> None:
    with pytest.raises(BallotRefused, match="strength"):
        voting.checked(Answer("ranked", (("A",), ("B",)), strength), 2)


def test_a_tie_is_stored_with_every_answer(store: Store) -> None:
    assert voting.checked(Answer("tie"), 3) == Answer("tie", (("A", "B", "C"),), None)
    assert voting.checked(Answer("tie", (("B", "A"),)), 2) == Answer("tie", (("A", "B"),), 0)


@pytest.mark.parametrize("vote_id", ["", "short", "x" * 65, "../../etc/passwd", "a b c d e f"])
def test_strange_vote_ids_are_refused(store: Store, vote_id: str) -> None:
    with pytest.raises(BallotRefused, match="id must be"):
        cast(store, "anyone", Ballot("skip", vote_id=vote_id, assignment_id="x"))


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 1e9])
def test_nonsense_durations_are_unknown(store: Store, seconds: float) -> None:
    fill(store, n=1)
    anna = voting.annotator(store, "anna").id
    vote = cast(
        store, anna, vote_for(take(store, anna), "A", "B", seconds_active=seconds, seconds_visible=seconds)
    )
    assert (vote.seconds_active, vote.seconds_visible) == (None, None)


@pytest.mark.parametrize("overlap", [1, 3])
def test_the_last_slot_is_never_given_twice(tmp_path: Path, overlap: int) -> None:
    with Store(tmp_path / "race.duckdb") as store:
        fill(store, n=4, overlap=overlap)
        people = [voting.annotator(store, f"annotator {i}").id for i in range(12)]
        barrier = threading.Barrier(len(people))

        def work(person: str) -> None:
            barrier.wait()
            rng = random.Random(person)
            while item := next_item(store, person, rng):
                cast(store, person, vote_for(item, "A", "B"))

        with ThreadPoolExecutor(len(people)) as pool:
            list(pool.map(work, people))  # raises what a thread has raised
        counts = store.rows("SELECT comparison_id, count(*) AS n FROM current_vote GROUP BY comparison_id")
        assert [row["n"] for row in counts] == [overlap] * 4


def test_a_retry_in_two_threads_is_one_vote(store: Store) -> None:
    fill(store, n=1)
    anna = voting.annotator(store, "anna").id
    ballot = vote_for(take(store, anna), "A", "B")
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(cast(store, anna, ballot).id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [ballot.vote_id] * 8
    assert store.value("SELECT count(*) FROM vote") == 1


def test_a_skipped_item_goes_to_somebody_else(store: Store) -> None:
    fill(store, n=1)
    anna, ben = (voting.annotator(store, name).id for name in ("anna", "ben"))
    item = take(store, anna)
    assert next_item(store, ben, random.Random()) is None  # it is in anna's hands
    cast(store, anna, Ballot("skip", vote_id=new_id(), assignment_id=item.assignment_id))
    assert next_item(store, anna, random.Random()) is None
    assert take(store, ben).messages == item.messages


def test_an_abandoned_item_is_offered_again(store: Store) -> None:
    fill(store, n=1)
    anna, ben = (voting.annotator(store, name).id for name in ("anna", "ben"))
    item = take(store, anna)
    store.write("UPDATE assignment SET leased_until = ?", [now() - timedelta(minutes=1)])
    taken = take(store, ben)
    assert next_item(store, anna, random.Random()) is None  # ben holds it now
    store.write("UPDATE assignment SET leased_until = ?", [now() - timedelta(minutes=1)])
    assert take(store, anna) == item  # neither answered: anna's order is the one already drawn
    cast(store, ben, vote_for(taken, "A", "B"))  # late work is kept
    cast(store, anna, vote_for(item, "A", "B"))
    assert store.value("SELECT count(*) FROM current_vote") == 2


def test_gold_and_eval_items_are_not_served(store: Store) -> None:
    first = fill(store, n=1)[0]
    for purpose in ("gold", "eval"):
        store.add_comparisons([Comparison(first.prompt_id, first.completion_ids, purpose=purpose)])  # type: ignore[arg-type]
    anna = voting.annotator(store, "anna").id
    cast(store, anna, vote_for(take(store, anna), "A", "B"))
    assert next_item(store, anna, random.Random()) is None
    assert voting.progress(store, anna) == (1, 0)


def test_priority_comes_first(store: Store) -> None:
    urgent = fill(store, n=9)[4]
    store.write("UPDATE comparison SET priority = 5 WHERE id = ?", [urgent.id])
    anna = voting.annotator(store, "anna").id
    assert take(store, anna).messages[0]["content"] == "idea 4 of 2"
    assert voting.progress(store, anna) == (0, 8)


def test_a_batch_is_all_or_nothing(store: Store) -> None:
    fill(store, n=3)
    rule = voting.annotator(store, "rule", "rule").id
    items = voting.next_items(store, rule, random.Random(0), 10)
    assert len(items) == 3
    good = [vote_for(item, "A", "B") for item in items]
    with pytest.raises(BallotRefused):
        voting.cast_all(store, rule, [*good[:2], vote_for(items[2], "A")])
    assert store.value("SELECT count(*) FROM vote") == 0
    assert [vote.id for vote in voting.cast_all(store, rule, good)] == [ballot.vote_id for ballot in good]


@pytest.mark.parametrize("name", ["", "   ", "x" * 61, "a\x00b"])
def test_names_are_checked(store: Store, name: str) -> None:
    with pytest.raises(UserError, match="1 to 60"):
        voting.annotator(store, name)


def test_a_name_is_one_annotator(store: Store) -> None:
    assert voting.annotator(store, " Anna  B ") == voting.annotator(store, "Anna B")
    assert voting.annotator(store, "Anna B", "rule") != voting.annotator(store, "Anna B")


def test_what_others_have_begun_comes_before_what_is_new(store: Store) -> None:
    fill(store, n=30, overlap=2)
    anna, ben = (voting.annotator(store, name).id for name in ("anna", "ben"))
    begun = set()
    for _ in range(3):
        item = take(store, anna)
        begun.add(item.messages[0]["content"])
        cast(store, anna, vote_for(item, "A", "B"))
    for _ in range(3):
        item = take(store, ben)
        begun.remove(item.messages[0]["content"])
        cast(store, ben, vote_for(item, "A", "B"))
