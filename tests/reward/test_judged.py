"""What a run says beside its accuracy, put together from a real store; the linear head with and without annotators."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palate.data.records import Annotator, Prompt
from palate.data.store import Store
from palate.reward.annotators import estimate
from palate.reward.judged import judged, with_and_without

Row = dict[str, Any]


def crowd(count: int, seed: int, prefix: str) -> tuple[list[Row], dict[str, np.ndarray]]:
    """`count` comparisons, each voted on by two who share a taste and one who says the reverse."""
    rng, taste = np.random.default_rng([seed, ord(prefix)]), np.random.default_rng(7).normal(size=6) * 1.5
    rows, features = [], {}
    for i in range(count):
        names = [f"{prefix}{i}a", f"{prefix}{i}b"]
        x = rng.normal(size=(2, 6))
        features.update(zip(names, x, strict=True))
        pairs = []
        for who in ("anna", "ben", "odd"):
            margin = (x[0] - x[1]) @ taste * (-1 if who == "odd" else 1)
            won = int(rng.random() > 1 / (1 + np.exp(-margin)))
            pairs.append({"winner": won, "loser": 1 - won, "tie": False, "weight": 1.0, "strength": None,
                          "annotator_id": who, "vote_id": f"{prefix}{i}{who}"})  # fmt: skip
        rows.append({"group": f"{prefix}{i}", "comparison_id": f"c{prefix}{i}", "prompt_id": f"p{prefix}{i}",
                     "messages": '[{"role": "user", "content": "?"}]', "completion_ids": names,
                     "completions": ["yes", "no no"], "pairs": pairs})  # fmt: skip
    return rows, features


def test_telling_annotators_apart_helps_where_one_says_the_reverse() -> None:
    rows, features = crowd(60, 0, "t")
    held, more = crowd(200, 0, "h")
    friends = [{**row, "pairs": row["pairs"][:2]} for row in held]
    every = {**features, **more}
    found = estimate(rows, every)
    assert found is not None and found.people["odd"].eta < 0.5
    pair = with_and_without(rows, found.applied(rows, "flips"), friends, every)
    assert pair is not None and pair[0].pairs == pair[1].pairs == 400
    assert pair[1].scores.value > pair[0].scores.value
    nobody = [{**row, "pairs": [{**one, "weight": 0.0} for one in row["pairs"]]} for row in rows]
    assert with_and_without(rows, nobody, friends, every) is None
    assert with_and_without(rows, rows, [], every) is None


@pytest.mark.parametrize("features_known", [True, False])
def test_all_parts(tmp_path: Path, features_known: bool) -> None:
    rows, features = crowd(60, 1, "t")
    held, more = crowd(40, 1, "h")
    person, rule = Annotator("anna"), Annotator("odd", kind="rule")
    prompts = [Prompt(({"role": "user", "content": f"{i}?"},), source="ab"[i % 2]) for i in range(len(held))]
    with Store(tmp_path / "store.duckdb") as store:
        store.add_annotators([person, rule])
        store.add_prompts(prompts)
        renamed = {"anna": person.id, "odd": rule.id, "ben": "nobody"}
        for row, prompt in zip(held, prompts, strict=True):
            row["prompt_id"] = prompt.id
            for pair in row["pairs"]:
                pair["annotator_id"] = renamed[pair["annotator_id"]]
        scores = [[0.1 * i, 0.0] for i in range(len(held))]
        parts = judged(store, rows, held, scores, 1.0, {**features, **more} if features_known else None)
    assert parts["used"] == {
        "rankings": 60,
        "pairs": 180,
        "votes": 180,
        "annotators": 3,
        "held-out rankings": 40,
    }
    cells = {(cell.by, cell.name): cell.pairs for cell in parts["breakdown"].cells}
    assert {name: n for (by, name), n in cells.items() if by == "source"} == {"a": 60, "b": 60}
    assert {name: n for (by, name), n in cells.items() if by == "kind of annotator"} == {
        "human": 40, "rule": 40, "several": 40
    }  # fmt: skip
    assert parts["calibration"].pairs == 120 and parts["reliability"] == parts["calibration"].bins
    assert (parts["learning_curve"] is not None) == bool(parts["breakdown"].outsiders) == features_known
