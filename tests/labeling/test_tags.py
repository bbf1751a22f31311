"""Tags: added and removed on any number of prompts, once, and never by halves."""

import numpy as np
import pytest
from numpy.typing import NDArray

from palate.config import UserError
from palate.data.facts import Facts
from palate.data.store import Store
from palate.labeling import tags
from palate.labeling.tags import Tagged
from tests.labeling.voted import ask, ask_all, asked, vote


def codes(store: Store, where: str = "true") -> NDArray[np.uint64]:
    found: NDArray[np.uint64] = store.table(f"SELECT hash(id) AS code FROM prompt WHERE {where}")[
        "code"
    ].to_numpy()
    return found


def all_tags(store: Store) -> list[list[str]]:
    return [row["tags"] for row in store.rows("SELECT tags FROM prompt ORDER BY messages")]


def test_added_and_removed_once(store: Store) -> None:
    ask_all(store, [asked("a", tags=("x", "old")), asked("b"), asked("c", tags=("new", "old"))])
    assert tags.change(store, codes(store), add=[" new "], remove=["old", "unknown"]) == Tagged(3, 3)
    assert all_tags(store) == [["new", "x"], ["new"], ["new"]]
    assert tags.change(store, codes(store), add=["new"], remove=["old"]) == Tagged(3, 0)
    assert tags.change(store, codes(store, "messages LIKE '%b%'"), remove=["new"]) == Tagged(1, 1)
    assert all_tags(store) == [["new", "x"], [], ["new"]] and tags.known(store) == ["new", "x"]
    assert tags.change(store, codes(store), add=["both"], remove=["both"]) == Tagged(
        3, 3
    )  # what is added stays


def test_many_prompts_in_several_transactions(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "AT_ONCE", 7)
    ask_all(store, [asked(f"p{i}") for i in range(40)])
    assert tags.change(store, codes(store), add=["t"]) == Tagged(40, 40)
    assert all_tags(store) == [["t"]] * 40


def test_the_facts_learn_of_it(store: Store) -> None:
    vote(store, ask(store, "a"), "anna", "0>1")
    with Facts(store) as facts:
        facts.refresh()
        tags.change(store, codes(store), add=["new"])
        facts.refresh()
        assert facts.rows("SELECT tag FROM item_tag") == [{"tag": "new"}]


def test_everything_else_of_a_prompt_stays(store: Store) -> None:
    ask(store, "a", tags=("x",))
    rest = "SELECT * EXCLUDE (tags) FROM prompt"
    before = store.rows(rest)
    tags.change(store, codes(store), add=["y"])
    assert store.rows(rest) == before and store.value("SELECT count(*) FROM prompt") == 1


@pytest.mark.parametrize("bad", ["", "  ", "x" * 61, "a\x00b", "a\u202eb"])
def test_what_is_no_tag(store: Store, bad: str) -> None:
    ask(store, "a", tags=("x",))
    with pytest.raises(UserError, match="1 to 60 visible characters"):
        tags.change(store, codes(store), add=[bad])
    assert all_tags(store) == [["x"]]


def test_not_too_many_and_not_none(store: Store) -> None:
    ask(store, "a", tags=tuple(f"t{i}" for i in range(50)))
    with pytest.raises(UserError, match="at most 50 tags; one would get 51"):
        tags.change(store, codes(store), add=["one more"])
    with pytest.raises(UserError, match="name a tag"):
        tags.change(store, codes(store))
    assert tags.change(store, np.empty(0, np.uint64), add=["x"]) == Tagged(0, 0)
