"""What rows mean: every format with small rows of its own, and the reasons when a row can't be used."""

from datetime import UTC, datetime
from typing import Any

import pytest

from palate.data.formats import shape_of
from palate.data.formats_item import Answer, BadRow, Item, Judgement
from palate.data.formats_votes import moment

Row = dict[str, Any]
USER = {"role": "user", "content": "Name a fruit."}
PEAR = {"role": "assistant", "content": "A pear."}
BRICK = {"role": "assistant", "content": "A brick."}
FIRST_WINS = [Judgement(((0,), (1,)))]


def items(row: Row) -> list[Item]:
    return shape_of(row).items(row)


def item(row: Row) -> Item:
    (found,) = items(row)
    return found


def demonstration(text: str = "A pear.", model: str = "") -> list[Answer]:
    return [Answer(text, model, "demonstration")]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Name a fruit."},
        {"instruction": "Name a fruit."},
        {"instruction": "Name a fruit.", "input": ""},
        {"question": "Name a fruit."},
        {"prompt": [USER]},
        {"prompt": '[{"role": "user", "content": "Name a fruit."}]'},
        {"messages": [USER]},
        {"conversations": [{"from": "human", "value": "Name a fruit."}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Name a fruit."}]}]},
        {"prompt": "Name a fruit.", "response": None},
        {"prompt": "Name a fruit.", "completion": float("nan")},
        {"prompt": "\n\nHuman: Name a fruit.\n\nAssistant:"},
    ],
)
def test_prompts(row: Row) -> None:
    assert item(row) == Item((USER,))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Name a fruit.", "completion": "A pear."},
        {"prompt": "Name a fruit.", "response": "A pear."},
        {"prompt": [USER], "completion": [PEAR]},
        {"instruction": "Name a fruit.", "input": "", "output": "A pear."},
        {"question": "Name a fruit.", "answer": "A pear."},
        {"messages": [USER, PEAR]},
        {"conversations": [{"from": "human", "value": "Name a fruit."}, {"from": "gpt", "value": "A pear."}]},
    ],
)
def test_demonstrations(row: Row) -> None:
    assert shape_of(row).kind == "demonstrations"
    assert item(row) == Item((USER,), demonstration())


def test_alpaca_joins_input_system_and_history() -> None:
    row = {
        "instruction": "Translate.", "input": "good day", "output": "guten Tag", "system": "Be brief.",
        "history": [["Hi", "Hello"]],
    }  # fmt: skip
    messages = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Translate.\n\ngood day"},
    )
    assert item(row) == Item(messages, demonstration("guten Tag"))


def test_further_columns_go_to_meta_tags_split_and_source() -> None:
    row = {
        "prompt": "Name a fruit.", "response": "A pear.", "written_by": "Ada", "split": "validation",
        "source": "orchard", "tags": ["short"], "group": 7, "category": "food", "score": float("nan"),
        "when": datetime(2025, 1, 2), "deep": {"a": [1, float("inf")], "b": None},
    }  # fmt: skip
    assert item(row) == Item(
        (USER,),
        demonstration(model="Ada"),
        meta={"group": "7", "category": "food", "when": "2025-01-02 00:00:00", "deep": {"a": [1, "inf"]}},
        tags=("short",),
        split="test",
        source="orchard",
    )


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Name a fruit.", "chosen": "A pear.", "rejected": "A brick."},
        {"prompt": [USER], "chosen": [PEAR], "rejected": [BRICK]},
        {"chosen": [USER, PEAR], "rejected": [USER, BRICK]},
        {
            "prompt": "Name a fruit.",
            "chosen": [USER, PEAR],
            "rejected": [USER, BRICK],
        },  # the prompt three times
        {"prompt": "Name a fruit.", "chosen": [PEAR], "rejected": [BRICK], "messages": [USER, PEAR]},
        {
            "chosen": "\n\nHuman: Name a fruit.\n\nAssistant: A pear.",
            "rejected": "\n\nHuman: Name a fruit.\n\nAssistant: A brick.",
        },
        {"input": {"messages": [USER]}, "preferred_output": [PEAR], "non_preferred_output": [BRICK]},
        {
            "conversations": [{"from": "human", "value": "Name a fruit."}],
            "chosen": {"from": "gpt", "value": "A pear."},
            "rejected": {"from": "gpt", "value": "A brick."},
        },
        {"instruction": "Name a fruit.", "input": "", "output": ["A pear.", "A brick."]},
    ],
)
def test_preferences(row: Row) -> None:
    assert shape_of(row).kind == "preferences"
    assert item(row) == Item((USER,), [Answer("A pear."), Answer("A brick.")], True, False, FIRST_WINS)


def test_prompt_inside_plain_texts_ends_with_a_whole_word() -> None:
    found = item({"chosen": "The sky is blue.", "rejected": "The sky is black."})
    assert found.messages == ({"role": "user", "content": "The sky is"},)
    assert [answer.text for answer in found.answers] == ["blue.", "black."]


def test_several_turns_of_a_transcript() -> None:
    start = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Name a fruit.\n\nAssistant:"
    found = item({"chosen": f"{start} A pear.", "rejected": f"{start} A brick."})
    assert [m["role"] for m in found.messages] == ["user", "assistant", "user"]
    assert [answer.text for answer in found.answers] == ["A pear.", "A brick."]


def test_preference_with_who_when_and_why() -> None:
    found = item(
        {
            "prompt": "Name a fruit.", "chosen": "A pear.", "rejected": "A brick.", "annotator": "judge-7b",
            "annotator_kind": "model", "time": "2025-03-01T12:00:00+02:00", "seconds": "12.5", "strength": "2",
            "reason": "edible", "chosen_model": "new", "rejected_model": "old", "id": 5, "lang": "en",
        }
    )  # fmt: skip
    judged = Judgement(
        ((0,), (1,)), annotator="judge-7b", kind="model", time=datetime(2025, 3, 1, 10), strength=2,
        rationale="edible", seconds_visible=12.5,
    )  # fmt: skip
    answers = [Answer("A pear.", "new"), Answer("A brick.", "old")]
    assert found == Item((USER,), answers, True, False, [judged], meta={"lang": "en"}, dropped=("id",))


TIE = Judgement(((0, 1),), "tie")
SECOND = Judgement(((1,), (0,)))


@pytest.mark.parametrize(
    ("columns", "judged"),
    [
        ({"a": "A pear.", "b": "A brick.", "choice": "a"}, FIRST_WINS[0]),
        ({"a": "A pear.", "b": "A brick.", "preference": "B"}, SECOND),
        ({"a": "A pear.", "b": "A brick.", "choice": "tie"}, TIE),
        ({"a": "A pear.", "b": "A brick.", "choice": "skip"}, Judgement(verdict="skip")),
        ({"response_a": "A pear.", "response_b": "A brick.", "winner": "response_b"}, SECOND),
        ({"response_a": "A pear.", "response_b": "A brick.", "winner": "model_a"}, FIRST_WINS[0]),
        ({"response_a": "A pear.", "response_b": "A brick.", "winner": "tie (bothbad)"}, Judgement(verdict="all_bad")),
        ({"output_1": "A pear.", "output_2": "A brick.", "preference": 2.0}, SECOND),
        ({"output_1": "A pear.", "output_2": "A brick.", "preference": "1.5"}, TIE),
        ({"conversation_a": [USER, PEAR], "conversation_b": [USER, BRICK], "winner": "model_b"}, SECOND),
    ],
)  # fmt: skip
def test_side_by_side(columns: Row, judged: Judgement) -> None:
    found = item({"prompt": "Name a fruit.", **columns})
    assert found == Item((USER,), [Answer("A pear."), Answer("A brick.")], True, True, [judged])


def test_one_column_per_annotator() -> None:
    row = {
        "instruction": "Name a fruit.", "input": "", "response1": True, "response2": "A brick.",
        "cmp_key": "model-x_model-y", "annotator1": 1, "annotator2": "2", "annotator3": 0, "annotator10": None,
    }  # fmt: skip
    found = item(row)
    assert found.answers == [Answer("True", "model-x"), Answer("A brick.", "model-y")]
    assert [(j.annotator, j.verdict, j.tiers) for j in found.judgements] == [
        ("annotator1", "ranked", ((0,), (1,))),
        ("annotator2", "ranked", ((1,), (0,))),
        ("annotator3", "tie", ((0, 1),)),
    ]
    assert (
        item({**row, "cmp_key": "model_x_model_y"}).answers[0].model == ""
    )  # which of three names is whose?


def test_judgements_of_several_annotators() -> None:
    said = [
        {
            "annotator": "ann",
            "choice": "left one",
            "time": "2025-03-01T12:00:00Z",
            "seconds": 9,
            "reason": "ok",
        },
        {"annotator": "bob", "choice": "tie", "strength": 0},
        {"annotator": "cy", "kind": "rule", "choice": "r"},
        {"annotator": "dee", "choice": "both_bad"},
    ]
    row = {
        "prompt": "Name a fruit.", "responses": [{"id": "left one", "text": "A pear."}, {"id": "r", "text": "A brick."}],
        "judgements": said, "gold": "r", "group": "food",
    }  # fmt: skip
    assert item(row) == Item(
        (USER,), [Answer("A pear."), Answer("A brick.")], True, True,
        [
            Judgement(((0,), (1,)), annotator="ann", time=datetime(2025, 3, 1, 12), rationale="ok", seconds_visible=9.0),
            Judgement(((0, 1),), "tie", "bob", strength=0),
            Judgement(((1,), (0,)), annotator="cy", kind="rule"),
            Judgement(verdict="all_bad", annotator="dee"),
        ],
        meta={"group": "food"}, dropped=("gold",),
    )  # fmt: skip


ABC = ["A pear.", "A plum.", "A brick."]


@pytest.mark.parametrize(
    ("column", "tiers"),
    [
        ({"ranking": [1, 0, 2]}, ((1,), (0,), (2,))),
        ({"ranking": [2, 1, 3]}, ((1,), (0,), (2,))),  # counted from 1
        ({"ranking": [[0, 1], [2]]}, ((0, 1), (2,))),
        ({"ranking": ["b", ["a", "c"]]}, ((1,), (0, 2))),
        ({"ranking": [2, 0]}, ((2,), (0,))),  # a partial ranking says nothing of the third
        ({"ranks": [1, 1, 2]}, ((0, 1), (2,))),
        ({"ranks": ["2", "1", None]}, ((1,), (0,))),
        ({"scores": [7.5, 9, 7.5]}, ((1,), (0, 2))),
    ],
)
def test_rankings(column: Row, tiers: tuple[tuple[int, ...], ...]) -> None:
    row = {"prompt": "Name a fruit.", "completions": ABC, **column}
    assert item(row) == Item((USER,), [Answer(text) for text in ABC], True, True, [Judgement(tiers)])


def test_all_equal_is_a_tie() -> None:
    found = item({"prompt": "Name a fruit.", "completions": ABC, "ranks": [1, 1, 1]})
    assert found.judgements == [Judgement(((0, 1, 2),), "tie")]


def test_candidates_without_a_ranking_await_one() -> None:
    row = {"messages": [USER], "responses": [{"text": "A pear.", "model": "x", "score": 3}, "A brick."]}
    assert "candidates" in shape_of(row).says
    assert item(row) == Item(
        (USER,), [Answer("A pear.", "x", meta={"score": 3.0}), Answer("A brick.")], True, True
    )


def reply(text: str, rank: int | None = None, **more: Any) -> Row:
    return {"message_id": text[2:], "text": text, "role": "assistant", "rank": rank, "replies": [], **more}


def test_trees() -> None:
    follow_up = {"text": "Another?", "role": "prompter", "replies": [reply("A fig.", synthetic=False)]}
    tree = {
        "message_tree_id": "t1",
        "prompt": {
            "text": "Name a fruit.", "role": "prompter", "lang": "en",
            "replies": [
                reply("A brick.", 2, model_name="m"),
                reply("A pear.", 0, replies=[follow_up]),
                reply("A plum.", 0),
                reply("A wall.", 1, deleted=True, replies=[follow_up]),
                reply("A kiwi."),
            ],
        },
    }  # fmt: skip
    first, second, third = items(tree)
    meta = {"tree": "t1", "group": "t1", "lang": "en"}
    answers = [
        Answer("A brick.", "m", meta={"message_id": "brick."}),
        Answer("A pear.", meta={"message_id": "pear."}),
        Answer("A plum.", meta={"message_id": "plum."}),
    ]
    assert first == Item((USER,), answers, True, False, [Judgement(((1, 2), (0,)))], meta=meta)
    assert second == Item((USER,), [Answer("A kiwi.", meta={"message_id": "kiwi."})], meta=meta)
    assert third == Item(
        (USER, PEAR, {"role": "user", "content": "Another?"}),
        [Answer("A fig.", "human", meta={"message_id": "fig."})],
        meta=meta,
    )


def test_a_tree_keeps_the_nine_best() -> None:
    tree = {
        "prompt": {"text": "Name a fruit.", "replies": [reply(f"A pear {i}.", 11 - i) for i in range(12)]}
    }
    ranked, rest = items(tree)
    assert [len(ranked.answers), len(rest.answers)] == [9, 3]
    assert ranked.answers[ranked.judgements[0].tiers[0][0]].text == "A pear 11."


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"text": "only text"}, "no known shape: text; known are prompt"),
        ({}, "no known shape: no columns"),
        ({"prompt": "  "}, "the prompt is empty"),
        ({"prompt": None}, "the prompt is missing"),
        ({"prompt": "half \ud83d"}, "half a character"),
        ({"prompt": {"image": "x.png"}}, "the prompt is missing"),
        ({"prompt": [USER, PEAR]}, "must end with a user turn, it ends with assistant"),
        ({"prompt": "x", "completion": ""}, "the answer is empty"),
        ({"prompt": "x", "completion": "y", "label": True}, "thumbs up or down"),
        ({"messages": "hello"}, "messages is no list of messages"),
        ({"messages": [PEAR]}, "must end with a user turn, it ends with nobody"),
        ({"messages": [USER, {"role": "tool", "content": "42"}]}, "a turn by 'tool'"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [1]}]}, "tool calls"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "is not text"),
        ({"prompt": "x", "chosen": "same", "rejected": "same "}, "the same text: nothing to prefer"),
        ({"prompt": "x", "chosen": "y", "rejected": None}, "rejected is missing"),
        ({"chosen": "yes", "rejected": "no"}, "no prompt: neither a column"),
        ({"chosen": [USER, PEAR], "rejected": [PEAR, BRICK]}, "part before the last answer"),
        ({"chosen": [USER], "rejected": [USER]}, "chosen must end with an assistant turn"),
        ({"prompt": "x", "a": "y", "b": "z"}, "no column says which of a and b is better"),
        ({"prompt": "x", "a": "y", "b": "z", "choice": "c"}, "choice 'c' is none of a, b, tie"),
        ({"prompt": "x", "a": "y", "b": "z", "choice": 1}, "choice '1' is none of a, b, tie"),  # 0-based or 1-based?
        ({"prompt": "x", "chosen": "y", "rejected": "z", "strength": 9}, "strength '9' is not one of"),
        ({"prompt": "x", "chosen": "y", "rejected": "z", "seconds": "soon"}, "seconds 'soon' is not a number"),
        ({"prompt": "x", "chosen": "y", "rejected": "z", "seconds": -1}, "negative"),
        ({"prompt": "x", "chosen": "y", "rejected": "z", "time": "May"}, "neither ISO 8601 nor Unix"),
        ({"prompt": "x", "chosen": "y", "rejected": "z", "annotator_kind": "cat"}, "annotator kind 'cat'"),
        ({"prompt": "x", "completions": ["y"], "ranking": [0]}, "1 answers to compare; it takes 2 to 9"),
        ({"prompt": "x", "completions": list("abcdefghij"), "ranking": [0, 1]}, "10 answers to compare"),
        ({"prompt": "x", "completions": ABC, "ranking": [0, 5]}, "does not name the answers (a, b, c)"),
        ({"prompt": "x", "completions": ABC, "ranking": [0, 0, 1]}, "names an answer twice"),
        ({"prompt": "x", "completions": ABC, "ranking": [1]}, "must name at least two answers"),
        ({"prompt": "x", "completions": ABC, "ranks": [1, 2]}, "one number for each of the 3 answers"),
        ({"prompt": "x", "completions": ABC, "scores": [1, 2, "x"]}, "scores 'x' is not a number"),
        ({"prompt": "x", "responses": ABC, "judgements": [{"choice": "a"}]}, "does not say how the other 2 rank"),
        ({"prompt": "x", "responses": ABC, "judgements": [{}]}, "needs a choice (a, b, c or tie)"),
        ({"prompt": "x", "responses": ABC, "judgements": ["a"]}, "must hold objects"),
        ({"prompt": "x", "responses": ["y", None], "judgements": []}, "responses[1] is missing"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used(row: Row, says: str) -> None:
    with pytest.raises(BadRow) as error:
        items(row)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "value",
    [
        "2025-03-01T12:00:00Z",
        "2025-03-01 13:00:00+01:00",
        "2025-03-01T12:00:00",
        1740830400,
        1740830400.0,
        "1740830400",
        1740830400000,
        datetime(2025, 3, 1, 12, tzinfo=UTC),
        datetime(2025, 3, 1, 12),
    ],
)
def test_points_in_time(value: Any) -> None:
    assert moment(value) == datetime(2025, 3, 1, 12)
