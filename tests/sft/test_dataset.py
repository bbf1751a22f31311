"""Rows come from demonstrations or from what votes put first, are cut by one rule, and dealt evenly."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from palate.config import UserError
from palate.data.records import Annotator, Assignment, Comparison, Completion, Prompt, Vote
from palate.data.store import Store
from palate.sequences import Encoder
from palate.sft.dataset import Row, encode, pack, plan, read_rows

QUESTION = Prompt(({"role": "user", "content": "where is the key"},), split="train")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "palate.duckdb")
    store.add_prompts([QUESTION])
    return store


def vote(
    store: Store, answers: list[Completion], name: str, *tiers: list[int], verdict: str = "ranked"
) -> Vote:
    """One annotator's ranking of `answers`, given by their places."""
    comparison = Comparison(QUESTION.id, tuple(a.id for a in answers))
    annotator = Annotator(name)
    assignment = Assignment(comparison.id, annotator.id, comparison.completion_ids)
    store.add_completions(answers)
    store.add_comparisons([comparison])
    store.add_annotators([annotator])
    store.add_assignments([assignment])
    given = Vote(assignment.id, verdict, tuple(tuple(answers[i].id for i in tier) for tier in tiers))  # type: ignore[arg-type]
    store.add_votes([given])
    return given


def answers(*texts: str) -> list[Completion]:
    return [Completion(QUESTION.id, text, "sft-1", finish_reason="stop") for text in texts]


def test_demonstrations_come_first(store: Store) -> None:
    shown = Completion(QUESTION.id, "under the mat", role="demonstration")
    store.add_completions([shown])
    vote(store, answers("a", "b"), "anna", [0], [1])
    table, source = read_rows(store, "auto")
    assert source == "demonstrations"
    (row,) = table.to_pylist()
    assert [{**row, "messages": json.loads(row["messages"])}] == [
        {
            "completion_id": shown.id,
            "prompt_id": QUESTION.id,
            "split": "train",
            "messages": list(QUESTION.messages),
            "completion": "under the mat",
            "finish_reason": None,
            "vote_ids": [],
        }
    ]
    assert read_rows(store, "best_ranked")[1] == "best_ranked"


def test_what_an_annotator_made_better_is_a_demonstration_while_the_vote_stands(store: Store) -> None:
    given = vote(store, answers("a", "b"), "anna", [0], [1])
    edit = Completion(
        QUESTION.id, "better", "person", role="edit", meta={"vote_id": given.id, "author": "anna"}
    )
    store.add_completions([edit])
    table, source = read_rows(store, "auto")
    assert (source, table["completion"].to_pylist()) == ("best_ranked", ["a", "better"])
    table, source = read_rows(store, "demonstrations")
    assert (source, table["completion"].to_pylist(), table["vote_ids"].to_pylist()) == (
        "demonstrations", ["better"], [[given.id]],
    )  # fmt: skip
    store.add_votes([Vote(given.assignment_id, "skip", supersedes=given.id)])
    with pytest.raises(UserError, match="there is nothing to train on"):
        read_rows(store, "auto")


def test_best_ranked_needs_a_majority(store: Store) -> None:
    clear, split, tied = answers("a", "b"), answers("c", "d"), answers("e", "f")
    votes = [vote(store, clear, name, [i], [1 - i]) for name, i in (("anna", 0), ("ben", 0), ("cleo", 1))]
    vote(store, split, "anna", [0], [1])
    vote(store, split, "ben", [1], [0])
    vote(store, tied, "anna", [0, 1])
    table, source = read_rows(store, "auto")
    assert source == "best_ranked"
    assert table.select(["completion", "vote_ids"]).to_pylist() == [
        {"completion": "a", "vote_ids": sorted(v.id for v in votes[:2])}
    ]


def test_only_current_votes_count(store: Store) -> None:
    pair = answers("a", "b")
    old = vote(store, pair, "anna", [0], [1])
    new = Vote(old.assignment_id, "ranked", tuple(reversed(old.ranking)), supersedes=old.id)
    store.add_votes([new])
    assert read_rows(store, "best_ranked")[0]["completion"].to_pylist() == ["b"]


def test_nothing_to_train_on(store: Store) -> None:
    with pytest.raises(UserError, match="there is nothing to train on"):
        read_rows(store, "auto")
    with pytest.raises(UserError, match="--data best_ranked: there are none"):
        read_rows(store, "best_ranked")


def test_only_the_answer_is_learned_and_cuts_are_marked(store: Store, tiny_models: dict[str, Path]) -> None:
    encoder = Encoder(AutoTokenizer.from_pretrained(tiny_models["qwen2"]))
    texts = [("short", None), ("cut by sampling", "length"), ("cat " * 60, "stop")]
    store.add_completions(
        [Completion(QUESTION.id, t, role="demonstration", finish_reason=r) for t, r in texts]
    )
    table, _ = read_rows(store, "auto")
    rows = {r["completion"]: e for r, e in zip(table.to_pylist(), encode(table, encoder, 64), strict=True)}
    prompt, short = encoder.prompt(QUESTION.messages), encoder.completion("short")
    assert rows["short"] == Row(prompt + short, [-100] * len(prompt) + short, False, False)
    sampled = rows["cut by sampling"]
    assert sampled.cut_end
    assert encoder.stop_id not in sampled.labels
    long = rows["cat " * 60]
    assert (long.cut_prompt, long.cut_end, len(long.input_ids)) == (True, True, 64)


@pytest.mark.parametrize("epochs", [0.5, 1.0, 2.4])
def test_plan_uses_every_row_equally_often(epochs: float) -> None:
    lengths = [10 * (i % 7 + 1) for i in range(50)]
    steps = plan(lengths, batch_size=8, epochs=epochs, max_tokens=120, seed=3)
    used = [row for step in steps for part in step for row in part]
    assert len(used) == round(50 * epochs)
    counts = [used.count(row) for row in range(50)]
    assert max(counts) - min(counts) <= 1
    assert len({len(step) for step in steps[:-1]}) == 1  # gradient accumulation is one number
    assert all(sum(len(part) for part in step) == 8 for step in steps[:-1])
    assert all(part for step in steps for part in step)
    assert plan(lengths, 8, epochs, 120, seed=3) == steps != plan(lengths, 8, epochs, 120, seed=4)


def test_plan_deals_evenly() -> None:
    lengths = [400, 100, 100, 100, 100, 50, 50, 300]
    (step,) = plan(lengths, batch_size=8, epochs=1, max_tokens=400, seed=0)
    assert sorted(sum(lengths[i] for i in part) for part in step) == [400, 400, 400]


def test_tiny_data_and_one_row_at_a_time() -> None:
    assert plan([5], 16, 0.1, 512, 0) == [[[0]]]
    assert sorted(plan([5, 6, 7], 2, 1, 1, 0)[0]) != []
    assert all(len(part) == 1 for step in plan([5] * 9, 4, 2, 1, 0) for part in step)


def test_pack() -> None:
    rows = [Row([1, 2, 3], [-100, 2, 3], False, False), Row([4, 5], [-100, 5], False, False)]
    assert pack(rows) == {
        "input_ids": [1, 2, 3, 4, 5],
        "labels": [-100, 2, 3, -100, 5],
        "seq_lengths": [3, 2],
    }
