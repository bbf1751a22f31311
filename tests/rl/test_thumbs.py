"""What is a thumb: rankings, votes that all is bad, files; and their order in batches."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from palate.config import UserError
from palate.doctor import DoctorError
from palate.rl.thumbs import balanced, check_order, from_files, thumbs, weights


def row(votes: dict[str, list[list[int]]], count: int = 4, all_bad: int = 0) -> dict[str, Any]:
    """A row of data.preferences, from each vote's tiers."""
    pairs = []
    for vote, tiers in votes.items():
        place = {one: number for number, tier in enumerate(tiers) for one in tier}
        for first, second in combinations(place, 2):  # tier by tier, so the first is no worse
            tie = place[first] == place[second]
            pairs.append({"winner": first, "loser": second, "tie": tie, "vote_id": vote})
    return {"completions": ["x"] * count, "pairs": pairs, "all_bad": all_bad}


@pytest.mark.parametrize(
    ("votes", "all_bad", "expected"),
    [
        ({"v": [[0], [1, 2], [3]]}, 0, [True, None, None, False]),
        ({"v": [[0, 1], [2, 3]]}, 0, [True, True, False, False]),
        ({"v": [[0, 1, 2, 3]]}, 0, [None] * 4),  # a tie of all says nothing
        ({}, 2, [False] * 4),
        ({"v": [[0], [1, 2, 3]]}, 1, [None, False, False, False]),  # one for, one against
        ({"v": [[0], [1], [2], [3]], "w": [[3], [1], [2], [0]]}, 0, [None] * 4),
        ({"v": [[0], [1], [2], [3]], "w": [[0], [3], [2], [1]]}, 0, [True, False, None, False]),
    ],
)
def test_top_tier_up_bottom_tier_down(votes: Any, all_bad: int, expected: list[bool | None]) -> None:
    assert thumbs(row(votes, all_bad=all_bad)) == expected


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "thumbs.jsonl"
    messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
    rows = [
        {"prompt": "hi", "completion": "hello", "label": True},
        {"prompt": messages, "completion": [{"role": "assistant", "content": "hey"}], "label": 0},
        {"prompt": "hi", "completion": "go away", "label": "down"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    found = from_files([path]).to_pylist()
    assert [one["label"] for one in found] == [True, False, False]
    assert [one["completion"] for one in found] == ["hello", "hey", "go away"]
    assert json.loads(found[1]["messages"]) == messages
    assert found[0]["prompt_id"] == found[2]["prompt_id"] and found[0]["split"] == found[2]["split"]


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "thumbs.csv"
    path.write_text("prompt,completion,label\nhi,hello,True\nhi,go away,0\n")
    assert [one["label"] for one in from_files([path]).to_pylist()] == [True, False]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"prompt": "hi", "completion": "x"}', "there is no 'label'"),
        ('{"prompt": "hi", "completion": "x", "label": "good"}', "the label is 'good'"),
        ('{"prompt": "hi", "completion": "x", "label": 0.5}', "the label is 0.5"),
        ('{"prompt": "hi", "completion": "  ", "label": true}', "the completion is no text"),
        ('{"prompt": [], "completion": "x", "label": true}', "neither a text nor a list"),
        ('{"prompt": [{"role": "user"}], "completion": "x", "label": true}', "no content"),
        (
            '{"prompt": [{"role": "assistant", "content": "y"}], "completion": "x", "label": true}',
            "does not end with a user turn",
        ),
        ("[1, 2]", "a JSON list, not an object"),
        ('{"prompt": "hi"', "not JSON"),
    ],
)
def test_bad_rows_are_named_in_one_line(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "thumbs.jsonl"
    good = '{"prompt": "hi", "completion": "x", "label": true}'
    path.write_text(f"{good}\n{line}\n{good}\n{line}\n")
    with pytest.raises(UserError, match=says) as error:
        from_files([path])
    said = str(error.value)
    assert f"{path}, row 2: " in said and said.endswith("(and 1 more rows)") and "\n" not in said


@pytest.mark.parametrize(("good", "bad"), [(50, 50), (90, 15), (7, 33), (3, 2), (1, 1)])
def test_order_of_all_good_then_all_bad(good: int, bad: int) -> None:
    """KTO's defect: in their own order no batch has both; here all have, no row twice an epoch, every epoch another order."""
    labels = [True] * good + [False] * bad
    size = min(8, len(labels))
    in_order = [list(range(i, i + size)) for i in range(0, len(labels) - size + 1, size)]
    if len(in_order) > 4:
        with pytest.raises(DoctorError, match="one kind and then the other"):
            check_order(in_order, labels)
    steps = balanced(labels, 8, 2, 0)
    check_order(steps, labels)
    assert all(len(step) == size for step in steps) and len(steps) == 2 * (len(labels) // size)
    first = [i for step in steps[: len(steps) // 2] for i in step]
    assert len(set(first)) == len(first)
    ups = [sum(labels[i] for i in step) for step in steps]
    assert max(ups) - min(ups) <= 1
    if len(labels) > 10:
        assert steps[: len(steps) // 2] != steps[len(steps) // 2 :]
    assert steps == balanced(labels, 8, 2, 0)


def test_the_rarer_kind_weighs_more() -> None:
    assert weights([True] * 3 + [False]) == (1.0, 3.0)
    assert weights([True] + [False] * 4) == (4.0, 1.0)


def test_too_few_of_a_kind_for_the_batches() -> None:
    labels = [True] * 98 + [False] * 2
    with pytest.raises(DoctorError, match="raise --batch-size"):
        check_order(balanced(labels, 8, 1, 0), labels)
    check_order(balanced(labels, 50, 1, 0), labels)
