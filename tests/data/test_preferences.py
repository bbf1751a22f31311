"""Votes as training rows: the preference view and `rankings`, with ties, skips, corrections and weights."""

import json
from pathlib import Path
from typing import Any

import pytest

from palate.config import UserError
from palate.data.preferences import SCHEMA, rankings
from palate.data.records import (
    Annotator,
    AnnotatorKind,
    Assignment,
    Comparison,
    Completion,
    Prompt,
    Purpose,
    Verdict,
    Vote,
    split_of,
)
from palate.data.store import Store


class Desk:
    """Makes comparisons and votes on them, in few words."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.votes = 0

    def compare(self, text: str, k: int, purpose: Purpose = "train", source: str = "test") -> Comparison:
        prompt = Prompt(({"role": "user", "content": text},), source)
        completions = [Completion(prompt.id, f"{text} / answer {i}", finish_reason="stop") for i in range(k)]
        comparison = Comparison(prompt.id, tuple(c.id for c in completions), purpose=purpose)
        self.store.add_prompts([prompt])
        self.store.add_completions(completions)
        self.store.add_comparisons([comparison])
        return comparison

    def vote(
        self, on: Comparison, tiers: list[list[int]], name: str = "ann", kind: AnnotatorKind = "human",
        verdict: Verdict = "ranked", supersedes: str | None = None, strength: int | None = None,
    ) -> str:  # fmt: skip
        annotator = Annotator(name, kind)
        assignment = Assignment(on.id, annotator.id, on.completion_ids[::-1])  # shown in reverse
        self.votes += 1
        ranking = tuple(tuple(on.completion_ids[i] for i in tier) for tier in tiers)
        vote = Vote(assignment.id, verdict, ranking, strength, supersedes=supersedes, id=f"v{self.votes}")
        self.store.add_annotators([annotator])
        self.store.add_assignments([assignment])
        self.store.add_votes([vote])
        return vote.id

    def pairs(self, on: Comparison) -> list[tuple[str, int, int, bool]]:
        """(vote, winner, loser, tie) of the view, by place in the comparison; ties with the smaller place first."""
        place = on.completion_ids.index
        found = []
        for row in self.store.rows("SELECT * FROM preference WHERE comparison_id = ?", [on.id]):
            one, other = place(row["winner"]), place(row["loser"])
            if row["tie"]:
                one, other = sorted((one, other))
            found.append((row["vote_id"], one, other, row["tie"]))
        return sorted(found)


@pytest.fixture
def desk(tmp_path: Path) -> Any:
    with Store(tmp_path / "palate.duckdb") as store:
        yield Desk(store)


def test_a_ranking_decides_every_pair(desk: Desk) -> None:
    four = desk.compare("four", 4)
    desk.vote(four, [[2], [0, 3], [1]], strength=1)
    assert desk.pairs(four) == [
        ("v1", 0, 1, False),
        ("v1", 0, 3, True),
        ("v1", 2, 0, False),
        ("v1", 2, 1, False),
        ("v1", 2, 3, False),
        ("v1", 3, 1, False),
    ]


def test_ties_skips_and_all_bad(desk: Desk) -> None:
    pair = desk.compare("pair", 2)
    desk.vote(pair, [[0, 1]], "ann", verdict="tie")
    desk.vote(pair, [], "bob", verdict="skip")
    desk.vote(pair, [], "cy", verdict="all_bad")
    assert desk.pairs(pair) == [("v1", 0, 1, True)]
    assert desk.store.value("SELECT count(*) FROM current_vote") == 3


def test_only_current_votes_count(desk: Desk) -> None:
    pair = desk.compare("pair", 2)
    old = desk.vote(pair, [[0], [1]])
    newer = desk.vote(pair, [[1], [0]], supersedes=old)
    assert desk.pairs(pair) == [("v2", 1, 0, False)]
    desk.vote(pair, [], verdict="skip", supersedes=newer)
    assert desk.pairs(pair) == []
    assert rankings(desk.store).num_rows == 0


def test_who_was_shown_first(desk: Desk) -> None:
    pair = desk.compare("pair", 2)
    desk.vote(pair, [[0], [1]], "ann")
    desk.vote(pair, [[1], [0]], "bob")
    found = desk.store.rows("SELECT vote_id, winner_shown_first AS first FROM preference ORDER BY vote_id")
    assert [row["first"] for row in found] == [False, True]


def test_rankings_are_rows_per_comparison(desk: Desk) -> None:
    three = desk.compare("three", 3)
    desk.vote(three, [[1], [2], [0]], "ann", strength=2)
    desk.vote(three, [[1], [0, 2]], "bob")
    desk.compare("nobody voted on this", 2)
    table = rankings(desk.store)
    assert table.schema == SCHEMA
    (row,) = table.to_pylist()
    ann, bob = Annotator("ann").id, Annotator("bob").id
    assert {key: value for key, value in row.items() if key != "pairs"} == {
        "comparison_id": three.id,
        "prompt_id": three.prompt_id,
        "group": three.prompt_id,
        "split": split_of(three.prompt_id),
        "messages": json.dumps([{"content": "three", "role": "user"}], separators=(",", ":")),
        "completion_ids": list(three.completion_ids),
        "completions": [f"three / answer {i}" for i in range(3)],
        "finish_reasons": ["stop"] * 3,
    }

    def pair(winner: int, loser: int, tie: bool, strength: int | None, vote: str, who: str) -> dict[str, Any]:
        return {
            "winner": winner, "loser": loser, "tie": tie, "strength": strength, "weight": pytest.approx(1 / 3),
            "vote_id": vote, "annotator_id": who, "shown_first": winner > loser, "adjudicated": False,
        }  # fmt: skip

    tied = sorted((0, 2), key=lambda place: three.completion_ids[place])
    expected = [
        pair(1, 2, False, 2, "v1", ann), pair(1, 0, False, 2, "v1", ann), pair(2, 0, False, 2, "v1", ann),
        pair(1, 0, False, None, "v2", bob), pair(1, 2, False, None, "v2", bob),
        pair(tied[0], tied[1], True, None, "v2", bob),
    ]  # fmt: skip
    key = lambda p: (p["vote_id"], p["winner"], p["loser"])
    assert sorted(row["pairs"], key=key) == sorted(expected, key=key)
    assert sum(p["weight"] for p in row["pairs"]) == pytest.approx(2)  # one per vote


def test_filters(desk: Desk) -> None:
    for number, purpose in enumerate(("train", "random", "repeat", "gold", "eval")):
        desk.vote(desk.compare(f"p{number}", 2, purpose, source=f"s{number % 2}"), [[0], [1]])
    desk.vote(desk.compare("rule", 2), [[0], [1]], "rule", "rule")
    assert rankings(desk.store).num_rows == 4
    assert rankings(desk.store, "human").num_rows == 3
    assert rankings(desk.store, "rule").num_rows == 1
    assert rankings(desk.store, "model").num_rows == 0
    assert rankings(desk.store, source="s0").num_rows == 2
    assert rankings(desk.store, source="nothing").num_rows == 0


def test_split_by(desk: Desk) -> None:
    for topic in range(30):
        for number in range(2):
            desk.vote(desk.compare(f"Topic {topic}: number {number}", 2), [[0], [1]])
    rows = rankings(desk.store, split_by=r"Topic (\d+)").to_pylist()
    assert {(row["group"], row["split"]) for row in rows} == {(str(i), split_of(str(i))) for i in range(30)}
    whole = rankings(desk.store, split_by=r"Topic \d+").to_pylist()
    assert {row["group"] for row in whole} == {f"Topic {i}" for i in range(30)}
    with pytest.raises(UserError, match="does not match the prompt 'Topic"):
        rankings(desk.store, split_by="Chapter")
    with pytest.raises(UserError, match="is not a regular expression"):
        rankings(desk.store, split_by="(")


def test_all_bad_is_a_count_beside_the_rankings(desk: Desk) -> None:
    both, bad, ranked = desk.compare("both", 2), desk.compare("bad", 3), desk.compare("ranked", 2)
    desk.vote(both, [[0], [1]], "ann")
    desk.vote(both, [], "bob", verdict="all_bad")
    first = desk.vote(bad, [], "ann", verdict="all_bad")
    desk.vote(bad, [], "bob", verdict="all_bad")
    desk.vote(bad, [], "cy", verdict="skip")
    desk.vote(ranked, [[0], [1]], "ann")
    plain = rankings(desk.store)
    table = rankings(desk.store, all_bad=True)
    assert table.drop_columns("all_bad").slice(0, 2).equals(plain)
    found = {row["comparison_id"]: (row["all_bad"], len(row["pairs"])) for row in table.to_pylist()}
    assert found == {both.id: (1, 1), bad.id: (2, 0), ranked.id: (0, 1)}
    assert table.to_pylist()[2]["completions"] == [f"bad / answer {i}" for i in range(3)]
    desk.vote(bad, [[0], [1], [2]], "ann", supersedes=first)
    again = rankings(desk.store, all_bad=True).to_pylist()
    assert {row["comparison_id"]: row["all_bad"] for row in again} == {both.id: 1, bad.id: 1, ranked.id: 0}
    assert rankings(desk.store, "rule", all_bad=True).num_rows == 0
