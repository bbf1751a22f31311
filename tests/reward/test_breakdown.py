"""Accuracy by kind of pair, and annotators whom the others don't foretell."""

from typing import Any

import numpy as np

from palate.reward.breakdown import MOST_CELLS, breakdown, leave_out

Row = dict[str, Any]


def row(
    i: int, winner: int = 0, by: str = "anna", lengths: tuple[int, int] = (10, 10), strength: int | None = 2
) -> Row:
    pair = {"winner": winner, "loser": 1 - winner, "tie": False, "strength": strength, "annotator_id": by,
            "weight": 1.0, "vote_id": f"v{i}{by}"}  # fmt: skip
    return {"group": f"g{i}", "comparison_id": f"c{i}", "prompt_id": f"p{i}", "completion_ids": [f"{i}a", f"{i}b"],
            "completions": ["x" * n for n in lengths], "pairs": [pair]}  # fmt: skip


def test_cells() -> None:
    rows = [
        row(i, by="anna" if i % 2 else "ben", lengths=(30, 10) if i < 20 else (10, 30)) for i in range(40)
    ]
    scores = [[1.0, 0.0] if i < 30 else [0.0, 1.0] for i in range(40)]
    sources = {f"p{i}": "a.jsonl" if i < 36 else "b.jsonl" for i in range(40)}
    found = breakdown(rows, scores, sources, sorts={"anna": "human", "ben": "model"})
    assert found is not None
    said = {
        (cell.by, cell.name): (cell.pairs, cell.found and cell.found.scores.value) for cell in found.cells
    }
    assert said["source", "a.jsonl"] == (36, 30 / 36)
    assert said["source", "b.jsonl"] == (4, None)
    assert said["length of the preferred answer", "much longer (over 1.5 times)"] == (20, 1.0)
    assert said["length of the preferred answer", "much shorter"] == (20, 0.5)
    assert said["annotator", "anna"] == said["kind of annotator", "human"] == (20, 0.75)
    lines = found.lines()
    assert lines[0] == "by source" and any("too few pairs (4)" in line for line in lines)
    assert len(found.record()["cells"]) == len(found.cells) == 8


def test_one_source_is_no_breakdown_and_many_are_merged() -> None:
    rows = [row(i, by=f"person {i % 20:02}") for i in range(400)]
    found = breakdown(rows, [[1.0, 0.0]] * 400, {f"p{i}": "only" for i in range(400)})
    assert found is not None
    people = [cell.name for cell in found.cells if cell.by == "annotator"]
    assert len(people) == MOST_CELLS and people[-1] == "all others"
    assert {cell.by for cell in found.cells} == {"annotator"}  # one cell says no more than the whole
    assert breakdown([{**row(0), "pairs": []}], [[1.0, 0.0]], {}) is None


def test_an_outsider_is_not_foretold_by_the_others() -> None:
    rng = np.random.default_rng(0)
    taste, own = rng.normal(size=6), rng.normal(size=6)
    features, rows = {}, []
    for i in range(600):
        x = rng.normal(size=(2, 6))
        features[f"{i}a"], features[f"{i}b"] = x
        by = ("anna", "ben", "odd")[i % 3]
        margin = (x[0] - x[1]) @ (own if by == "odd" else taste) * 2
        rows.append(row(i, int(rng.random() > 1 / (1 + np.exp(-margin))), by))
    found = {one.name: one for one in leave_out(rows, features)}
    assert {name: one.votes for name, one in found.items()} == {"anna": 200, "ben": 200, "odd": 200}
    assert min(found["anna"].without, found["ben"].without) > 0.62
    assert found["odd"].without < 0.6
    assert found["odd"].among > found["odd"].without + 0.05
    only = [one for one in rows if one["pairs"][0]["annotator_id"] == "anna"]
    assert leave_out(only, features) == () and leave_out([], features) == ()


def test_nobody_is_judged_where_all_prompts_are_in_one_group() -> None:
    rng = np.random.default_rng(0)
    features = {f"{i}{side}": rng.normal(size=4) for i in range(60) for side in "ab"}
    rows = [{**row(i, by=("anna", "ben")[i % 2]), "group": "one"} for i in range(60)]
    assert leave_out(rows, features) == ()
