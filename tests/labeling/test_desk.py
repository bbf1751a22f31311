"""One code path for people and rules: slots, leases, order, idempotent votes, undo, refusals, what is withheld."""

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from palate.config import UserError
from palate.data.records import Comparison, Completion, Prompt, Vote, new_id
from palate.data.store import Store
from palate.labeling.ballots import Answer, Ballot, BallotRefused, Item, Rules, checked
from palate.labeling.desk import Desk, Progress, annotator
from palate.labeling.opening import Plan
from palate.labeling.writer import NotStored
from tests.labeling.conftest import MODELS, TEXTS, fill


def vote_for(item: Item, *tiers: str, vote_id: str = "", **fields: object) -> Ballot:
    """A ballot that ranks by letters: vote_for(item, "B", "AC") is B > A = C."""
    ranking = tuple(tuple(tier) for tier in tiers)
    return Ballot("ranked", ranking, vote_id=vote_id or new_id(), assignment_id=item.assignment_id, **fields)  # type: ignore[arg-type]


@pytest.fixture
def desk(store: Store) -> Iterator[Desk]:
    with Desk(store) as opened:
        yield opened


def stock(store: Store, desk: Desk, *args: Any, **kwargs: Any) -> list[Comparison]:
    """`fill`, and the desk knows of it."""
    made = fill(store, *args, **kwargs)
    desk.refresh()
    return made


def next_item(desk: Desk, person: str, seed: int = 0) -> Item | None:
    return next(iter(desk.next_items(person, random.Random(seed))), None)


def take(desk: Desk, person: str, seed: int = 0) -> Item:
    item = next_item(desk, person, seed)
    assert item is not None
    return item


def cast(desk: Desk, person: str, ballot: Ballot, run_id: str | None = None) -> Vote:
    return desk.cast_all(person, [ballot], run_id)[0]


def test_a_reload_shows_the_same_item_in_the_same_order(store: Store, desk: Desk) -> None:
    stock(store, desk, n=5, k=4)
    anna = annotator(store, "anna").id
    first = take(desk, anna, seed=1)
    assert take(desk, anna, seed=2) == first
    assert [letter for letter, _ in first.answers] == ["A", "B", "C", "D"]
    assert sorted(text for _, text in first.answers) == sorted(TEXTS)


def test_the_order_is_drawn_at_random_and_stored(store: Store, desk: Desk) -> None:
    stock(store, desk, n=40, k=2)
    anna = annotator(store, "anna").id
    shown_first = []
    for seed in range(40):
        item = take(desk, anna, seed)
        shown_first.append(item.answers[0][1])
        cast(desk, anna, vote_for(item, "A", "B"))
    assert 8 < shown_first.count(TEXTS[0]) < 32
    order = store.rows(
        "SELECT a.display_order, v.ranking FROM vote v JOIN assignment a ON a.id = v.assignment_id"
    )
    assert all(row["ranking"] == [[row["display_order"][0]], [row["display_order"][1]]] for row in order)


def test_letters_become_completions(store: Store, desk: Desk) -> None:
    comparison = stock(store, desk, n=1, k=4)[0]
    anna = annotator(store, "anna").id
    item = take(desk, anna, seed=3)
    vote = cast(desk, anna, vote_for(item, "C", "AD", "B", rationale=" clearer ", seconds_visible=12.345))
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
    assert next_item(desk, anna) is None
    assert set(comparison.completion_ids) == {c for tier in vote.ranking for c in tier}


def test_an_item_names_no_model(store: Store, desk: Desk) -> None:
    stock(store, desk, n=1, k=9)
    item = take(desk, annotator(store, "anna").id)
    assert len(item.answers) == 9
    assert not any(model in repr(item) for model in MODELS)
    assert not any(row["id"] in repr(item) for row in store.rows("SELECT id FROM completion"))


def test_the_same_vote_twice_is_one_vote(store: Store, desk: Desk) -> None:
    stock(store, desk, n=2)
    anna, ben = (annotator(store, name).id for name in ("anna", "ben"))
    item = take(desk, anna)
    ballot = vote_for(item, "A", "B", vote_id="0123456789abcdef")
    assert cast(desk, anna, ballot) == cast(desk, anna, ballot)
    other = vote_for(take(desk, anna), "A", "B", vote_id=ballot.vote_id)
    with pytest.raises(BallotRefused, match="another vote"):
        cast(desk, anna, other)
    with pytest.raises(BallotRefused, match="not given to you"):
        cast(desk, ben, ballot)
    assert store.value("SELECT count(*) FROM vote") == 1


def test_a_second_tab_cannot_answer_twice(store: Store, desk: Desk) -> None:
    stock(store, desk, n=1)
    anna = annotator(store, "anna").id
    item = take(desk, anna)
    cast(desk, anna, vote_for(item, "A", "B"))
    with pytest.raises(BallotRefused, match="already"):
        cast(desk, anna, vote_for(item, "B", "A"))


def test_undo_supersedes_and_keeps_the_old_vote(store: Store, desk: Desk) -> None:
    stock(store, desk, n=3)
    anna = annotator(store, "anna").id
    first = take(desk, anna)
    old = cast(desk, anna, vote_for(first, "A", "B", strength=3))
    second = take(desk, anna)
    again = desk.undo(anna)
    assert again is not None
    assert (again.assignment_id, again.answers) == (first.assignment_id, first.answers)
    assert again.earlier == Answer("ranked", (("A",), ("B",)), 3)
    assert store.value("SELECT id FROM current_vote") == old.id  # it stands until the next answer
    assert take(desk, anna).assignment_id == first.assignment_id
    new = cast(desk, anna, Ballot("tie", vote_id=new_id(), assignment_id=first.assignment_id))
    assert new.supersedes == old.id
    assert [row["id"] for row in store.rows("SELECT id FROM current_vote")] == [new.id]
    assert store.value("SELECT count(*) FROM vote") == 2
    assert take(desk, anna).assignment_id == second.assignment_id


def test_undo_goes_back_step_by_step(store: Store, desk: Desk) -> None:
    stock(store, desk, n=2)
    anna = annotator(store, "anna").id
    items = []
    for _ in range(2):
        items.append(take(desk, anna))
        cast(desk, anna, vote_for(items[-1], "A", "B"))
    back = [desk.undo(anna), desk.undo(anna), desk.undo(anna)]
    assert [item and item.assignment_id for item in back] == [
        items[1].assignment_id,
        items[0].assignment_id,
        None,
    ]


def test_imported_votes_are_not_taken_back(store: Store, desk: Desk) -> None:
    stock(store, desk, n=1)
    anna = annotator(store, "anna").id
    cast(desk, anna, vote_for(take(desk, anna), "A", "B"), run_id="import-1")
    assert desk.undo(anna) is None


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
    anna = annotator(store, "anna").id
    with Desk(store, Rules(partial=False)) as desk:
        item = take(desk, anna)
        ballot = Ballot(
            answer.verdict,
            answer.ranking,
            answer.strength,
            vote_id=new_id(),
            assignment_id=item.assignment_id,
        )
        with pytest.raises(BallotRefused, match=why):
            cast(desk, anna, ballot)
        assert take(desk, anna) == item
    assert store.value("SELECT count(*) FROM vote") == 0


@pytest.mark.parametrize("strength", [0, 4, -1])
def test_strength_between_two_answers_is_1_to_3(strength: int) -> None:
    with pytest.raises(BallotRefused, match="strength"):
        checked(Answer("ranked", (("A",), ("B",)), strength), 2, Rules())


def test_a_tie_is_stored_with_every_answer(store: Store, desk: Desk) -> None:
    assert checked(Answer("tie"), 3, Rules()) == Answer("tie", (("A", "B", "C"),), None)
    assert checked(Answer("tie", (("B", "A"),)), 2, Rules()) == Answer("tie", (("A", "B"),), 0)


@pytest.mark.parametrize("vote_id", ["", "short", "x" * 65, "../../etc/passwd", "a b c d e f"])
def test_strange_vote_ids_are_refused(store: Store, desk: Desk, vote_id: str) -> None:
    with pytest.raises(BallotRefused, match="id must be"):
        cast(desk, "anyone", Ballot("skip", vote_id=vote_id, assignment_id="x"))


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 1e9])
def test_nonsense_durations_are_unknown(store: Store, desk: Desk, seconds: float) -> None:
    stock(store, desk, n=1)
    anna = annotator(store, "anna").id
    vote = cast(
        desk, anna, vote_for(take(desk, anna), "A", "B", seconds_active=seconds, seconds_visible=seconds)
    )
    assert (vote.seconds_active, vote.seconds_visible) == (None, None)


@pytest.mark.parametrize("overlap", [1, 3])
def test_the_last_slot_is_never_given_twice(tmp_path: Path, overlap: int) -> None:
    with Store(tmp_path / "race.duckdb") as store:
        fill(store, n=4, overlap=overlap)
        desk = Desk(store)
        people = [annotator(store, f"annotator {i}").id for i in range(12)]
        barrier = threading.Barrier(len(people))

        def work(person: str) -> None:
            barrier.wait()
            while item := next_item(desk, person, hash(person)):
                cast(desk, person, vote_for(item, "A", "B"))

        with ThreadPoolExecutor(len(people)) as pool:
            list(pool.map(work, people))  # raises what a thread has raised
        desk.close()
        counts = store.rows("SELECT comparison_id, count(*) AS n FROM current_vote GROUP BY comparison_id")
        assert [row["n"] for row in counts] == [overlap] * 4


def test_a_retry_in_two_threads_is_one_vote(store: Store, desk: Desk) -> None:
    stock(store, desk, n=1)
    anna = annotator(store, "anna").id
    ballot = vote_for(take(desk, anna), "A", "B")
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(cast(desk, anna, ballot).id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [ballot.vote_id] * 8
    assert store.value("SELECT count(*) FROM vote") == 1


def test_a_skipped_item_goes_to_somebody_else(store: Store, desk: Desk) -> None:
    stock(store, desk, n=1)
    anna, ben = (annotator(store, name).id for name in ("anna", "ben"))
    item = take(desk, anna)
    assert next_item(desk, ben) is None  # it is in anna's hands
    cast(desk, anna, Ballot("skip", vote_id=new_id(), assignment_id=item.assignment_id))
    assert next_item(desk, anna) is None
    assert take(desk, ben).messages == item.messages


def test_a_lease_that_ran_out_frees_the_item(store: Store) -> None:
    fill(store, n=1)
    anna, ben = (annotator(store, name).id for name in ("anna", "ben"))
    with Desk(store, plan=Plan(lease_seconds=0.2)) as desk:
        item = take(desk, anna)
        assert next_item(desk, ben) is None
        time.sleep(0.1)
        assert desk.heartbeat(anna, [item.assignment_id]) == []
        time.sleep(0.15)
        assert next_item(desk, ben) is None  # the heartbeat has prolonged it
        time.sleep(0.1)
        taken = take(desk, ben)
        assert desk.heartbeat(anna, [item.assignment_id]) == [item.assignment_id]
        with pytest.raises(BallotRefused, match="enough others") as refused:
            cast(desk, anna, vote_for(item, "A", "B"))
        assert refused.value.code == "filled"
        cast(desk, ben, vote_for(taken, "A", "B"))
    assert store.value("SELECT count(*) FROM current_vote") == 1


def test_a_late_vote_counts_while_its_slot_is_free(store: Store) -> None:
    fill(store, n=1)
    anna = annotator(store, "anna").id
    with Desk(store, plan=Plan(lease_seconds=0.05)) as desk:
        item = take(desk, anna)
        time.sleep(0.1)
        cast(desk, anna, vote_for(item, "A", "B"))
    assert store.value("SELECT count(*) FROM current_vote") == 1


def test_after_a_restart_everybody_has_their_items_and_no_answered_one(store: Store) -> None:
    fill(store, n=4, overlap=2)
    anna, ben = (annotator(store, name).id for name in ("anna", "ben"))
    with Desk(store) as desk:
        answered = take(desk, anna)
        cast(desk, anna, vote_for(answered, "A", "B"))
        held = take(desk, anna)
        others = take(desk, ben)
    with Desk(store) as desk:
        assert take(desk, anna) == held
        assert take(desk, ben) == others
        shown = {held.messages[0]["content"]}
        while item := next_item(desk, anna):
            shown.add(item.messages[0]["content"])
            cast(desk, anna, vote_for(item, "A", "B"))
        assert answered.messages[0]["content"] not in shown
        assert len(shown) == 3


def test_after_a_restart_items_keep_their_order(store: Store) -> None:
    made = fill(store, n=60)
    anna = annotator(store, "anna").id
    with Desk(store) as desk:
        items = desk.next_items(anna, random.Random(0), 8)
        cast(desk, anna, vote_for(items[3], "A", "B"))
        live = Comparison(made[0].prompt_id, made[0].completion_ids, strategy="live", reserved_for=anna)
        store.add_comparisons([live])
        desk.offer(live, live.completion_ids)
        desk.undo(anna)
        before = desk.next_items(anna, random.Random(0), 9)
    assert before[0].assignment_id == items[3].assignment_id
    with Desk(store) as desk:
        assert desk.next_items(anna, random.Random(1), 9) == before


def test_the_plan_raises_the_overlap_on_a_share(store: Store) -> None:
    fill(store, n=200)
    people = [annotator(store, name).id for name in ("anna", "ben", "cleo")]
    with Desk(store, plan=Plan(overlap=3, overlap_share=0.25)) as desk:
        for person in people:
            while items := desk.next_items(person, random.Random(0), 64):
                desk.cast_all(person, [vote_for(item, "A", "B") for item in items])
    counts = store.rows("SELECT count(*) AS n FROM current_vote GROUP BY comparison_id")
    assert {row["n"] for row in counts} == {1, 3}
    assert 30 <= sum(row["n"] == 3 for row in counts) <= 70


def test_nobody_ranks_their_own_text(store: Store, desk: Desk) -> None:
    anna, ben = (annotator(store, name).id for name in ("anna", "ben"))
    stock(store, desk, n=1)
    item = take(desk, anna)
    cast(desk, anna, vote_for(item, "A", "B", edit=("B", "a much better text")))
    edit = store.rows("SELECT * FROM completion WHERE role = 'edit'")[0]
    assert (edit["text"], edit["model"]) == ("a much better text", "person")
    other = store.value("SELECT id FROM completion WHERE role = 'sample' LIMIT 1")
    store.add_comparisons([Comparison(edit["prompt_id"], (edit["id"], other))])
    by_name = Completion(edit["prompt_id"], "written by anna", "anna", role="demonstration")
    store.add_completions([by_name])
    store.add_comparisons([Comparison(edit["prompt_id"], (by_name.id, other))])
    desk.refresh()
    assert next_item(desk, anna) is None
    assert len(desk.next_items(ben, random.Random(0), 5)) == 2


def test_what_is_withheld_is_counted(store: Store, desk: Desk) -> None:
    anna = annotator(store, "anna").id
    prompt = Prompt(({"role": "user", "content": "who are you"},))
    texts = ("I am ChatGPT, at your service", "a friendly helper", "a  Friendly helper", "someone else")
    completions = [Completion(prompt.id, text, f"model {i}") for i, text in enumerate(texts)]
    a, b, c, d = (completion.id for completion in completions)
    store.add_prompts([prompt])
    store.add_completions(completions)
    store.add_comparisons([Comparison(prompt.id, ids) for ids in ((a, b), (b, c), (b, c, d))])
    desk.refresh()
    items = desk.next_items(anna, random.Random(0), 5)
    assert [sorted(text for _, text in item.answers) for item in items] == [sorted((texts[1], texts[3]))]
    desk.flush()
    counts = desk.counts()
    assert (counts["withheld_identity"], counts["withheld_duplicate"], counts["answers_left_out"]) == (
        1,
        1,
        1,
    )
    cast(desk, anna, vote_for(items[0], "A", "B"))
    with Desk(store) as again:
        assert next_item(again, annotator(store, "ben").id) is None


def test_hidden_repeats_come_in_reversed_order(store: Store) -> None:
    fill(store, n=40)
    anna = annotator(store, "anna").id
    with Desk(store, plan=Plan(repeat_share=0.4)) as desk:
        while item := next_item(desk, anna, random.randrange(10**6)):
            assert not hasattr(item, "purpose")
            cast(desk, anna, vote_for(item, "A", "B"))
    rows = store.rows(
        "SELECT a.display_order AS first, b.display_order AS second, b.annotator_id FROM comparison r "
        "JOIN assignment b ON b.comparison_id = r.id JOIN assignment a ON a.comparison_id = r.repeats "
        "WHERE r.purpose = 'repeat' AND a.annotator_id = b.annotator_id"
    )
    assert len(rows) >= 3
    assert all(row["second"] == row["first"][::-1] and row["annotator_id"] == anna for row in rows)
    assert (
        store.value(
            "SELECT max(n) FROM (SELECT count(*) n FROM comparison GROUP BY repeats HAVING repeats IS NOT NULL)"
        )
        == 1
    )
    assert store.value("SELECT count(*) FROM current_vote WHERE purpose = 'train'") == 40


def test_gold_is_served_at_its_share_to_everybody_once(store: Store) -> None:
    made = fill(store, n=30)
    gold = [Comparison(c.prompt_id, c.completion_ids, purpose="gold") for c in made[:3]]
    store.add_comparisons(gold)
    people = [annotator(store, name).id for name in ("anna", "ben")]
    with Desk(store, plan=Plan(gold_share=0.5, overlap=2)) as desk:
        for person in people:
            while item := next_item(desk, person, random.randrange(10**6)):
                cast(desk, person, vote_for(item, "A", "B"))
    counts = store.rows(
        "SELECT annotator_id, count(*) AS n FROM current_vote WHERE purpose = 'gold' GROUP BY 1"
    )
    assert [row["n"] for row in counts] == [3, 3]


def test_a_reserved_comparison_is_next_for_its_annotator_only(store: Store, desk: Desk) -> None:
    made = stock(store, desk, n=3)
    anna, ben = (annotator(store, name).id for name in ("anna", "ben"))
    live = Comparison(made[0].prompt_id, made[0].completion_ids, strategy="live", reserved_for=anna)
    store.add_comparisons([live])
    desk.offer(live)
    assert len(desk.next_items(ben, random.Random(0), 9)) == 3
    item = take(desk, anna)
    cast(desk, anna, vote_for(item, "A", "B"))
    assert store.value("SELECT strategy FROM current_vote") == "live"


def test_everything_said_is_stored_and_comes_back(store: Store) -> None:
    fill(store, n=1, k=3)
    anna = annotator(store, "anna").id
    with Desk(store, Rules(criteria=("helpful",))) as desk:
        item = take(desk, anna)
        said = Answer(
            "ranked",
            (("C",), ("A",)),
            flags=(("personal", None), ("unsafe", "B")),
            criteria={"helpful": {"A": 4, "C": 5}},
            rationale="short and right",
            edit=("A", "better"),
        )
        ballot = vote_for(item, "C", "A", flags=said.flags, criteria=said.criteria, rationale=said.rationale,
                          edit=said.edit, guideline_version=3)  # fmt: skip
        vote = cast(desk, anna, ballot)
        shown = dict(zip("ABC", store.value("SELECT display_order FROM assignment"), strict=True))
        assert vote.flags == ("personal", f"unsafe:{shown['B']}")
        assert vote.criteria == {"helpful": {shown["A"]: 4, shown["C"]: 5}}
        assert (vote.edited_text, vote.guideline_version) == ("better", 3)
        again = desk.reopen(anna, vote.id)
        assert again.earlier == said
        skipped = Ballot("skip", reason="expertise", vote_id=new_id(), assignment_id=item.assignment_id)
        assert cast(desk, anna, skipped).supersedes == vote.id
        assert desk.counts()["waiting"] == 1  # a skip gives the slot back
        assert next_item(desk, anna) is None
        assert desk.reopen(anna, skipped.vote_id).earlier == Answer("skip", reason="expertise")
        cast(desk, anna, vote_for(item, "A", "B", "C"))
        assert desk.counts()["waiting"] == 0
    with pytest.raises(BallotRefused, match="not yours"), Desk(store) as desk:
        desk.reopen(annotator(store, "ben").id, vote.id)


def test_a_skip_can_not_become_an_answer_when_others_filled_the_item(store: Store, desk: Desk) -> None:
    stock(store, desk, n=1)
    anna, ben = (annotator(store, name).id for name in ("anna", "ben"))
    item = take(desk, anna)
    cast(desk, anna, Ballot("skip", vote_id=new_id(), assignment_id=item.assignment_id))
    cast(desk, ben, vote_for(take(desk, ben), "A", "B"))
    desk.undo(anna)
    with pytest.raises(BallotRefused, match="enough others"):
        cast(desk, anna, vote_for(item, "A", "B"))


def test_gold_without_a_share_and_eval_items_are_not_served(store: Store, desk: Desk) -> None:
    first = stock(store, desk, n=1)[0]
    for purpose in ("gold", "eval"):
        store.add_comparisons([Comparison(first.prompt_id, first.completion_ids, purpose=purpose)])  # type: ignore[arg-type]
    desk.refresh()
    anna = annotator(store, "anna").id
    cast(desk, anna, vote_for(take(desk, anna), "A", "B"))
    assert next_item(desk, anna) is None
    assert desk.progress(anna) == Progress(1, 1, 0, None)


def test_priority_comes_first(store: Store, desk: Desk) -> None:
    urgent = stock(store, desk, n=9)[4]
    store.write("UPDATE comparison SET priority = 5 WHERE id = ?", [urgent.id])
    desk.refresh()
    anna = annotator(store, "anna").id
    assert take(desk, anna).messages[0]["content"] == "idea 4 of 2"
    assert desk.progress(anna) == Progress(0, 0, 9, None)


def test_a_batch_is_all_or_nothing(store: Store, desk: Desk) -> None:
    stock(store, desk, n=3)
    rule = annotator(store, "rule", "rule").id
    items = desk.next_items(rule, random.Random(0), 10)
    assert len(items) == 3
    good = [vote_for(item, "A", "B") for item in items]
    with pytest.raises(BallotRefused):
        desk.cast_all(rule, [*good[:2], vote_for(items[2], "A")])
    assert store.value("SELECT count(*) FROM vote") == 0
    assert [vote.id for vote in desk.cast_all(rule, good)] == [ballot.vote_id for ballot in good]


@pytest.mark.parametrize("name", ["", "   ", "x" * 61, "a\x00b"])
def test_names_are_checked(store: Store, desk: Desk, name: str) -> None:
    with pytest.raises(UserError, match="1 to 60"):
        annotator(store, name)


def test_a_name_is_one_annotator(store: Store, desk: Desk) -> None:
    assert annotator(store, " Anna  B ") == annotator(store, "Anna B")
    assert annotator(store, "Anna B", "rule") != annotator(store, "Anna B")


def test_what_others_have_begun_comes_before_what_is_new(store: Store, desk: Desk) -> None:
    stock(store, desk, n=30, overlap=2)
    anna, ben = (annotator(store, name).id for name in ("anna", "ben"))
    begun = set()
    for _ in range(3):
        item = take(desk, anna)
        begun.add(item.messages[0]["content"])
        cast(desk, anna, vote_for(item, "A", "B"))
    for _ in range(3):
        item = take(desk, ben)
        begun.remove(item.messages[0]["content"])
        cast(desk, ben, vote_for(item, "A", "B"))


def test_what_could_not_be_leased_is_nobodys(store: Store) -> None:
    fill(store, n=1)
    anna, ben = (annotator(store, name).id for name in ("anna", "ben"))
    with Desk(store) as desk:
        for person in (anna, ben):
            desk.progress(person)  # from the tables that are away in a moment
        store.write("ALTER TABLE assignment RENAME TO away")
        with pytest.raises(NotStored):
            next_item(desk, anna)
        store.write("ALTER TABLE away RENAME TO assignment")
        assert desk.counts()["leased"] == 0
        cast(desk, ben, vote_for(take(desk, ben), "A", "B"))
    assert store.value("SELECT count(*) FROM current_vote") == 1


def test_an_item_is_shown_when_it_is_durable_that_it_is_theirs(store: Store) -> None:
    """A second tab asks while the first one's lease is on its way to the disk, and the disk does not take it."""
    fill(store, n=1)
    anna = annotator(store, "anna").id
    with Desk(store) as desk:
        desk.progress(anna)
        store.write("ALTER TABLE assignment RENAME TO away")
        with store.transaction():  # the writer waits for it
            first, leased = desk.begin_next(anna, random.Random(0), 1)
            second, again = desk.begin_next(anna, random.Random(1), 1)
            assert first == second and not leased.done() and not again.done()
        for future in (leased, again):
            with pytest.raises(NotStored):
                future.result()
        store.write("ALTER TABLE away RENAME TO assignment")
        cast(desk, anna, vote_for(take(desk, anna), "A", "B"))
    assert store.value("SELECT count(*) FROM current_vote") == 1


def test_two_ballots_for_one_item_are_refused_and_the_desk_goes_on(store: Store, desk: Desk) -> None:
    stock(store, desk, n=2)
    anna = annotator(store, "anna").id
    item = take(desk, anna)
    with pytest.raises(BallotRefused, match="the same item") as refused:
        desk.cast_all(anna, [vote_for(item, "A", "B"), vote_for(item, "B", "A")])
    assert refused.value.code == "answered"
    cast(desk, anna, vote_for(item, "A", "B"))
    assert store.value("SELECT count(*) FROM vote") == 1


def test_a_waiter_who_goes_away_stops_nothing(store: Store, desk: Desk) -> None:
    stock(store, desk, n=3)
    anna = annotator(store, "anna").id
    items, leased = desk.begin_next(anna, random.Random(0), 1)
    assert leased.cancel() is False
    _, stored = desk.begin_cast(anna, [vote_for(items[0], "A", "B")])
    assert stored.cancel() is False
    desk.flush()
    assert desk.writes and store.value("SELECT count(*) FROM current_vote") == 1


def test_looking_again_revives_no_lease(store: Store) -> None:
    fill(store, n=1)
    anna, ben = (annotator(store, name).id for name in ("anna", "ben"))
    with Desk(store, plan=Plan(lease_seconds=2)) as desk:
        gone = take(desk, anna)
        for _ in range(5):  # more often than leases end
            time.sleep(0.5)
            desk.refresh()
        item = take(desk, ben)
        desk.refresh()
        assert next_item(desk, anna) is None
        assert desk.heartbeat(ben, [item.assignment_id]) == []
        assert desk.heartbeat(anna, [gone.assignment_id]) == [gone.assignment_id]
        cast(desk, ben, vote_for(item, "A", "B"))
    assert store.value("SELECT count(*) FROM current_vote") == 1


def test_looking_again_leaves_a_free_item_with_who_has_it(store: Store) -> None:
    fill(store, n=1)
    anna = annotator(store, "anna").id
    with Desk(store, plan=Plan(lease_seconds=0.1)) as desk:
        item = take(desk, anna)
        time.sleep(0.2)
        desk.refresh()
        assert take(desk, anna) == item  # nobody else has asked
        cast(desk, anna, vote_for(item, "A", "B"))


def test_after_a_restart_a_slot_is_with_who_was_given_it_last(store: Store) -> None:
    fill(store, n=1)
    anna, ben = (annotator(store, name).id for name in ("anna", "ben"))
    with Desk(store, plan=Plan(lease_seconds=0.1)) as desk:
        take(desk, anna)
        time.sleep(0.2)
        held = take(desk, ben)
    with Desk(store) as desk:
        assert next_item(desk, anna) is None
        assert take(desk, ben) == held


def test_new_comparisons_are_admitted_once(store: Store, desk: Desk) -> None:
    anna, ben = (annotator(store, name).id for name in ("anna", "ben"))
    ids = [comparison.id for comparison in fill(store, n=2)]
    desk.admit(ids)
    desk.admit(ids)
    assert desk.counts()["waiting"] == 2
    for _ in range(2):
        cast(desk, anna, vote_for(take(desk, anna), "A", "B"))
    desk.admit(ids)  # answered meanwhile
    assert desk.counts()["waiting"] == 0
    assert next_item(desk, ben) is None
    desk.admit([])
    made = fill(store, n=4)[2:]
    desk.admit([made[0].id])
    held = take(desk, anna)
    desk.admit([comparison.id for comparison in made])  # one of them is before somebody
    assert (desk.counts()["waiting"], desk.counts()["leased"]) == (1, 1)
    cast(desk, anna, vote_for(held, "A", "B"))
    cast(desk, ben, vote_for(take(desk, ben), "A", "B"))
    assert next_item(desk, ben) is None
    store.add_comparisons([Comparison(c.prompt_id, c.completion_ids, purpose="gold", id=f"gold-{c.id}")
                           for c in fill(store, n=1, k=3)])  # fmt: skip
    desk.admit(
        [
            "gold-"
            + store.value("SELECT id FROM comparison WHERE len(completion_ids) = 3 AND purpose <> 'gold'")
        ]
    )
    assert next_item(desk, ben) is None  # without a share gold is not served


def test_a_priority_counts_at_once(store: Store, desk: Desk) -> None:
    made = stock(store, desk, n=5)
    anna = annotator(store, "anna").id
    desk.prioritise([made[3].id, "unknown"], 7)
    first = take(desk, anna)
    assert (
        store.value("SELECT comparison_id FROM assignment WHERE id = ?", [first.assignment_id]) == made[3].id
    )


def test_a_better_answer_survives_two_changes(store: Store, desk: Desk) -> None:
    stock(store, desk, n=1)
    anna = annotator(store, "anna").id
    item = take(desk, anna)
    for tiers in (("A", "B"), ("B", "A"), ("A", "B")):
        vote = cast(desk, anna, vote_for(item, *tiers, edit=("B", "a better one")))
        earlier = desk.reopen(anna, vote.id).earlier
        assert earlier is not None and earlier.edit == ("B", "a better one")
    assert store.value("SELECT count(*) FROM completion WHERE role = 'edit'") == 1
