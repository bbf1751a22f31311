"""Best of n is the highest of n samples, reproducibly, and says how far from the model it may be."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from palate.config import RewardBestConfig, RewardConfig, UserError
from palate.hardware import probe
from palate.models import load
from palate.project import Project
from palate.reward import best, train
from palate.reward.scorers import open_scorer

Make = Callable[..., Project]
QUESTION = [{"role": "user", "content": "where is 5?"}]


def test_the_best_is_the_highest_of_n(
    ranked_project: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = ranked_project(prompts=8, held_out=3)
    train.run(project, RewardConfig(project.folder, device="cpu", dtype="float32"))
    hardware = probe("cpu", "float32")
    loaded, (scorer, _) = load(project, project.base, hardware), open_scorer(project, None, hardware)
    found = best.of(loaded, scorer, [QUESTION], n=6, max_new_tokens=8, seed=3)
    assert found == best.of(loaded, scorer, [QUESTION], n=6, max_new_tokens=8, seed=3)
    assert len(found[0].rewards) == 6 and found[0].reward == max(found[0].rewards)

    capsys.readouterr()
    out = tmp_path / "best.jsonl"
    best.run(
        project,
        RewardBestConfig(
            n=4, out=out, project=project.folder, max_new_tokens=8, device="cpu", dtype="float32"
        ),
    )
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 3 and all(row["reward"] == max(row["rewards"]) for row in rows)
    said = capsys.readouterr()
    assert said.out == "" and "at most 0.64 nats" in said.err

    careful, _ = open_scorer(project, None, hardware, pessimism=2.0)
    unsure = best.of(loaded, careful, [QUESTION], n=6, max_new_tokens=8, seed=3)[0]
    assert all(low < plain for low, plain in zip(unsure.rewards, found[0].rewards, strict=True))
    assert unsure.reward == max(unsure.rewards)

    asked = tmp_path / "prompts.jsonl"
    asked.write_text('{"prompt": "where is 5?"}\n{"prompt": ""}\n')
    with pytest.raises(UserError, match="prompts.jsonl, row 2: the prompt is empty"):
        best.run(project, RewardBestConfig(asked, project=project.folder))
    with pytest.raises(UserError, match="-n must be at least 1, got 0"):
        best.run(project, RewardBestConfig(n=0, project=project.folder))


def test_the_bound_by_hand() -> None:
    assert best.kl_bound(1) == 0
    assert best.kl_bound(16) == pytest.approx(math.log(16) - 15 / 16)
