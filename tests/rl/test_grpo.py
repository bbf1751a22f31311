"""`palate grpo` learns through TRL's own trainer, whatever the loss averages over."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from palate.config import GrpoConfig, UserError
from palate.hardware import probe
from palate.models import load
from palate.project import Project
from palate.rl import grpo

Make = Callable[..., Project]


def config(project: Project, taste: str = "letters", **changes: object) -> GrpoConfig:
    file = project.folder / "taste.py"
    if not file.exists():
        file.write_text("def letters(prompts, texts):\n    return [float('e' in text) for text in texts]\n")
    plain: dict[str, object] = {
        "reward": (f"{file}:{taste}",), "steps": 3, "batch_size": 16, "learning_rate": 3e-2,
        "max_new_tokens": 6, "missing_eos_penalty": 0.0, "best_of": 4, "device": "cpu", "dtype": "float32",
    }  # fmt: skip
    return GrpoConfig(project.folder, **{**plain, **changes})  # type: ignore[arg-type]


@pytest.mark.slow
def test_learns_what_the_reward_says(writing_project: Project) -> None:
    project = writing_project
    some = config(
        project, "brief", steps=20, batch_size=32, passes=2, kl=0.0, learning_rate=2e-3, max_new_tokens=48
    )
    run = grpo.run(project, some)
    assert run.status == "done" and run.artefact == {
        "kind": "adapter",
        "path": "adapter",
        "base": project.base,
    }
    rows = [json.loads(line) for line in (Path(run.path) / "metrics.jsonl").read_text().splitlines()]
    first, last = (sum(row["reward"] for row in part) / 3 for part in (rows[:3], rows[-3:]))
    assert last > first + 0.4 and run.metrics["reward"] > run.metrics["reward_before"] + 0.4
    assert len(rows) == 20 and rows[0].keys() >= {"reward", "entropy", "clipped", "grad_norm", "length"}
    load(project, run.id, probe("cpu", "float32"))


@pytest.mark.parametrize(("loss", "scale"), [("dapo", "batch"), ("dr_grpo", "none"), ("grpo", "group")])
def test_every_loss_and_scale_runs_and_starts_at_its_reference(
    ranked_project: Make, loss: str, scale: str
) -> None:
    project = ranked_project()
    run = grpo.run(project, config(project, steps=2, kl=0.1, loss=loss, scale=scale))
    rows = [json.loads(line) for line in (Path(run.path) / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["kl"] < rows[1]["kl"]


def test_clip_high_must_be_above_zero(ranked_project: Make) -> None:
    project = ranked_project()
    with pytest.raises(UserError, match="--clip-high must be above 0"):
        grpo.run(project, config(project, clip_high=-0.1))
    assert project.runs() == []
