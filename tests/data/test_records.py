"""Records: ids are content, splits go by group, comparisons hold 2 to 9 different completions."""

import json
from collections import Counter
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data.records import (
    Annotator,
    Assignment,
    Comparison,
    Completion,
    Message,
    Prompt,
    Vote,
    canonical,
    digest,
    split_of,
)

HELLO: tuple[Message, ...] = ({"role": "user", "content": "Hello"},)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(JSON)
def test_canonical_json_is_json(value: Any) -> None:
    assert json.loads(canonical(value)) == value
    assert canonical(value) == canonical(json.loads(canonical(value)))


def test_digests_are_stable() -> None:
    """Ids are in people's databases: a change here would make every known record new again."""
    assert digest("a", ["b", 1, None, {"y": "é", "x": 2.5}]) == "65c0328dc0ea1a8fe38c"
    assert digest("a", ("b",)) == digest("a", ["b"])
    assert digest("ab", "c") != digest("a", "bc")
    assert digest({"x": 1, "y": 2}) == digest({"y": 2, "x": 1})
    assert len(digest("half a character \ud83d")) == 20


def test_equal_content_has_equal_ids() -> None:
    prompt = Prompt(HELLO, source="one", tags=("x",))
    assert prompt.id == Prompt(HELLO, source="two", meta={"lang": "en"}).id
    assert prompt.id != Prompt(({"role": "user", "content": "hello"},)).id

    sample = Completion(prompt.id, "Hi", "model-1")
    assert sample.id == Completion(prompt.id, "Hi", "model-1", seed=3, finish_reason="stop").id
    assert (
        len(
            {
                sample.id,
                Completion(prompt.id, "Hi", "model-2").id,
                Completion(prompt.id, "Hi", "model-1", role="edit").id,
            }
        )
        == 3
    )

    assert Comparison("p", ("a", "b")).id == Comparison("p", ("b", "a"), strategy="active").id
    assert Comparison("p", ("a", "b")).id != Comparison("p", ("a", "b"), purpose="gold").id
    assert Assignment("c", "n", ("a", "b")).id == Assignment("c", "n", ("b", "a")).id
    assert Annotator("ann").id != Annotator("ann", "model").id
    assert Vote("a", "skip").id != Vote("a", "skip").id  # a person may say the same thing twice


@pytest.mark.parametrize("ids", [(), ("a",), ("a", "a"), tuple("abcdefghij")])
def test_comparisons_that_make_no_sense(ids: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="2 to 9 different completions"):
        Comparison("p", ids)


def test_splits_go_by_group_and_hold_out_a_tenth() -> None:
    drawn = Counter(split_of(f"prompt {i}") for i in range(20_000))
    assert 0.09 < drawn["test"] / 20_000 < 0.11
    for i in range(50):
        prompts = [
            Prompt(({"role": "user", "content": f"{i}/{j}"},), meta={"group": f"g{i}"}) for j in range(4)
        ]
        assert {prompt.split for prompt in prompts} == {split_of(f"g{i}")}
    assert Prompt(HELLO, split="test").split == "test"
    assert Prompt(HELLO).split == split_of(Prompt(HELLO).id)


def test_times_stay_as_given() -> None:
    assert Vote("a", "skip", created_at=datetime(2025, 1, 2)).created_at == datetime(2025, 1, 2)
