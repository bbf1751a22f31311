"""Confident mistakes, leans and the majority rule, on rows small enough to count by hand."""

import json
from typing import Any

from palate.reward.accuracy import Estimate
from palate.reward.mistakes import Leans, Mistake, leans, majority_rule, mistakes


def row(pairs: list[dict[str, Any]], texts: tuple[str, ...] = ("longer", "short")) -> dict[str, Any]:
    return {
        "group": "g",
        "comparison_id": "c",
        "messages": json.dumps([{"role": "user", "content": "which?"}]),
        "completions": list(texts),
        "pairs": pairs,
    }


def pair(winner: int, tie: bool = False, first: bool | None = None) -> dict[str, Any]:
    return {"winner": winner, "loser": 1 - winner, "tie": tie, "shown_first": first}


def test_the_surest_mistake_comes_first_and_even_votes_are_none() -> None:
    wrong = row([pair(0), pair(0), pair(1)])
    even = row([pair(0), pair(1)])
    scores = [[0.0, 1.0], [0.0, 9.0], [0.0, 2.0], [1.0, 0.0]]
    assert mistakes([wrong, even, wrong, wrong], scores) == [
        Mistake("which?", "longer", "short", 2.0, 2, 1),
        Mistake("which?", "longer", "short", 1.0, 2, 1),
    ]


def test_leans_count_each_decided_vote_and_half_an_undecided_reward() -> None:
    rows = [row([pair(0, first=True), pair(1, first=True), pair(0, tie=True)]), row([pair(0)])]
    assert leans(rows, [[1.0, 0.0], [0.5, 0.5]]) == Leans(
        leans(rows, [[1.0, 0.0], [0.5, 0.5]]).reward_length, 2 / 3, 2.5 / 3, 1.0, 0.5
    )


def test_nothing_decided_gives_nothing() -> None:
    rows = [row([pair(0, tie=True)])]
    assert leans(rows, [[1.0, 0.0]]) == Leans(None, None, None, None, None)
    assert (mistakes(rows, [[0.0, 1.0]]), majority_rule(rows)) == ([], None)


def test_majority_rule_holds_each_vote_against_the_others() -> None:
    """Of 2 to 1: the two face one each way (half right), the single one faces two against it (wrong)."""
    found = majority_rule([row([pair(0), pair(0), pair(1)])])
    assert found == (Estimate(1 / 3, 1 / 3, 1 / 3), 3)
    assert majority_rule([row([pair(0)])]) is None
