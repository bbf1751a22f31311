"""What is read from the store: who waits, what was voted, by rows of features."""

import random

import numpy as np
import pytest

from palate.data.records import Annotator, Comparison, Completion, Prompt
from palate.data.store import Store
from palate.labeling.ballots import Ballot
from palate.labeling.desk import Desk, annotator
from palate.labeling.selection import pool as pools
from palate.labeling.selection.pool import Pool, cast, read, votes_of
from tests.labeling.selection.world import RUN, world


def row(**changes: object) -> dict[str, object]:
    return {
        "assignment_id": "a1", "annotator_id": "anna", "comparison_id": "c1", "prompt_id": "p1", "verdict": "ranked",
        "ranking": [["x"], ["y"]], "completion_ids": ["x", "y"], "strategy": "random", "seconds_active": 4.0, **changes,
    }  # fmt: skip


SMALL = Pool(
    RUN, {"x": 0, "y": 1, "z": 2}, np.array([3.0, 5.0, 7.0]), np.eye(3, dtype=np.float32), (), (), 0, False
)


def test_a_vote_by_rows() -> None:
    found = cast(SMALL, row())
    assert found is not None
    assert (found.rows, found.pairs, found.best, found.worst) == ((0, 1), ((0, 1, 1.0),), 0, 1)
    assert (found.words, found.seconds, found.selected) == (8.0, 4.0, False)
    turned = cast(SMALL, row(ranking=[["y"], ["x"]], strategy="information"))
    assert turned is not None and (turned.pairs, turned.best, turned.selected) == (((1, 0, 1.0),), 1, True)


def test_ties_and_tiers() -> None:
    tie = cast(SMALL, row(verdict="tie", ranking=[["x", "y"]]))
    assert tie is not None and (tie.pairs, tie.best, tie.worst) == (((0, 1, 0.5),), None, None)
    three = cast(SMALL, row(completion_ids=["x", "y", "z"], ranking=[["z"], ["x", "y"]]))
    assert three is not None
    assert set(three.pairs) == {(2, 0, 1.0), (2, 1, 1.0), (0, 1, 0.5)}
    assert (three.best, three.worst) == (2, 1)
    partial = cast(SMALL, row(completion_ids=["x", "y", "z"], ranking=[["z"], ["x"]]))
    assert partial is not None and partial.pairs == ((2, 0, 1.0),)


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "skip", "ranking": []},
        {"verdict": "all_bad", "ranking": []},
        {"completion_ids": ["x", "unknown"]},
    ],
)
def test_what_says_nothing(changes: dict[str, object]) -> None:
    assert cast(SMALL, row(**changes)) is None


def test_who_waits_and_what_was_voted(store: Store) -> None:
    given = world(store, n=6, k=2)
    prompt = Prompt(({"role": "user", "content": "without features"},))
    bare = [Completion(prompt.id, text, model="m") for text in ("one answer", "another answer")]
    store.add_prompts([prompt])
    store.add_completions(bare)
    store.add_comparisons([Comparison(prompt.id, tuple(c.id for c in bare))])
    with Desk(store) as desk:
        anna = annotator(store, "anna").id
        seen = []
        while len(seen) < 3:
            (item,) = desk.next_items(anna, random.Random(0), 1)
            if item.answers[0][1] in given.score:
                seen.append(desk.cast_all(anna, [given.answer(item, f"vote-00{len(seen)}")])[0])
            else:
                desk.cast_all(
                    anna, [Ballot("skip", (), vote_id="skipped-1", assignment_id=item.assignment_id)]
                )
    found = read(store, RUN)
    assert (found.run_id, found.matrix.shape, found.more) == (RUN, (12, 8), False)
    answered = {vote.comparison for vote in found.votes}
    assert len(found.votes) == 3 and len(found.waiting) + found.missing in (3, 4)
    assert not answered & {one.id for one in found.waiting}
    assert {one.words for one in found.waiting} == {
        4.0 + 5.0
    }  # "word of answer 0.0", "word word of answer 0.1"
    assert all(vote.annotator == anna and len(vote.pairs) == 1 for vote in found.votes)
    assert [r["assignment_id"] for r in votes_of(store, [seen[1].id])] == [seen[1].assignment_id]


def test_a_changed_vote_counts_once_and_adjudications_do_not(store: Store) -> None:
    given = world(store, n=1)
    with Desk(store) as desk:
        anna = annotator(store, "anna").id
        (item,) = desk.next_items(anna, random.Random(0), 1)
        desk.cast_all(anna, [given.answer(item, "first-vote")])
        again = desk.undo(anna)
        assert again is not None
        desk.cast_all(anna, [given.answer(again, "second-vote", flip=True)])
    (vote,) = read(store, RUN).votes
    best = vote.rows[vote.best or 0]
    assert best == vote.pairs[0][0]
    assert votes_of(store, ["first-vote"]) == []  # it does not stand
    store.add_annotators([Annotator("lead")])
    store.write("UPDATE vote SET adjudicated = true")
    assert read(store, RUN).votes == ()


def test_no_more_than_fits(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "LARGEST", 4)
    world(store, n=9)
    found = read(store, RUN)
    assert len(found.waiting) == 4 and found.more and found.matrix.shape == (8, 8)
