"""Ballots: what is checked, and the way from letters to completions and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.labeling.ballots import (
    FLAGS,
    LETTERS,
    Answer,
    Ballot,
    BallotRefused,
    Rules,
    checked,
    edited,
    to_answer,
    to_vote,
)

RULES = Rules(criteria=("helpful", "honest"))
ORDER = tuple(f"completion-{i}" for i in range(9))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer("ranked", (("A",), ("B",)), reason="language"), "skip's reason"),
        (Answer("skip", reason="bored"), "skip's reason"),
        (Answer("skip", flags=(("rude", None),)), "a flag is one of"),
        (Answer("skip", flags=(("unsafe", "D"),)), "a flag is one of"),
        (Answer("tie", criteria={"funny": {"A": 1}}), "'funny' is not rated here; what is: helpful, honest"),
        (Answer("tie", criteria={"honest": {"A": 6}}), "takes 1 to 5"),
        (Answer("tie", criteria={"honest": {"D": 1}}), "takes 1 to 5"),
        (Answer("tie", edit=("D", "x")), "edited answer must be one of A, B, C"),
        (Answer("tie", edit=("A", "  ")), "1 to 100,000 characters, got 2"),
        (Answer("ranked", (("A",),)), "two tiers"),
    ],
)
def test_what_is_refused(answer: Answer, why: str) -> None:
    with pytest.raises(BallotRefused, match=why):
        checked(answer, 3, RULES)


def test_a_ranking_may_leave_answers_out() -> None:
    partial = Answer("ranked", (("C",), ("A",)))
    assert checked(partial, 3, RULES).ranking == (("C",), ("A",))
    with pytest.raises(BallotRefused, match="B is missing"):
        checked(partial, 3, Rules(partial=False))
    with pytest.raises(BallotRefused, match="B is missing"):
        checked(Answer("ranked", (("A",),)), 2, RULES)


@st.composite
def answers(draw: st.DrawFn) -> tuple[int, Answer]:
    """Any valid answer to an item of 2..9 answers."""
    shown = draw(st.integers(2, 9))
    letters = LETTERS[:shown]
    verdict = draw(st.sampled_from(["ranked", "tie", "all_bad", "skip"]))
    ranking: tuple[tuple[str, ...], ...] = ()
    if verdict == "ranked":
        order = draw(st.permutations(letters))
        cut = draw(st.integers(1, shown - 1))
        ranking = (tuple(order[:cut]), tuple(order[cut:]))
    some = st.none() | st.sampled_from(letters)
    return shown, Answer(
        verdict,  # type: ignore[arg-type]
        ranking,
        draw(st.none() | st.integers(1, 3)) if verdict == "ranked" and shown == 2 else None,
        draw(st.none() | st.just("unclear")) if verdict == "skip" else None,
        tuple(draw(st.lists(st.tuples(st.sampled_from(FLAGS), some), max_size=3))),
        draw(st.dictionaries(st.sampled_from(RULES.criteria), st.dictionaries(st.sampled_from(letters), st.integers(1, 5)))),
        draw(st.none() | st.text(max_size=40)),
        draw(st.none() | st.tuples(st.sampled_from(letters), st.text(min_size=1).filter(str.strip))),
    )  # fmt: skip


@given(answers())
def test_letters_to_completions_and_back(case: tuple[int, Answer]) -> None:
    shown, answer = case
    order = ORDER[:shown]
    ballot = Ballot(**vars(answer), vote_id="0123456789", assignment_id="a")
    vote = to_vote(ballot, order, RULES, None, None)
    better = edited(ballot, order, "prompt", "anna")
    origin = better.meta["edit_of"] if better else None
    assert to_answer(vote, order, origin) == checked(answer, shown, RULES)
    assert {c for tier in vote.ranking for c in tier} <= set(order)
    if better is not None:
        assert (better.text, better.role, better.meta["author"]) == (vote.edited_text, "edit", "anna")
