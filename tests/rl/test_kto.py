"""`palate kto` from votes and from files, through TRL's own trainer, with its defects guarded."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from palate import checkpoints
from palate.config import KtoConfig, UserError
from palate.doctor import DoctorError
from palate.hardware import probe
from palate.models import load, lora
from palate.project import Project
from palate.rl import kto
from palate.runs import ActiveRun

Make = Callable[..., Project]


def config(project: Project, **changes: object) -> KtoConfig:
    plain = KtoConfig(
        project.folder, epochs=8, learning_rate=3e-2, batch_size=6, beta=0.3, device="cpu", dtype="float32"
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.mark.slow
def test_learns_from_rankings(ranked_project: Make, capsys: pytest.CaptureFixture[str]) -> None:
    project = ranked_project()
    run = kto.run(project, config(project))
    folder = Path(run.path)
    assert run.status == "done" and run.artefact == {
        "kind": "adapter",
        "path": "adapter",
        "base": project.base,
    }
    rows = pq.read_table(folder / "data/train.parquet").to_pylist()
    assert (
        sum(row["label"] for row in rows) == 24 and len(rows) == 3 * 24
    )  # best one up, two tied last ones down
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == 8 * 9 and steps[0]["kl"] == 0.0
    assert steps[0]["loss"] == pytest.approx(0.5 * (2 * 2.0 + 4 * 1.0) / 6, abs=1e-4)  # good ones weigh twice
    assert run.metrics["margin"] > 0.3 and run.metrics["held_out"]["value"] > 0.8  # chance: 0.5
    said = capsys.readouterr().out
    assert "kto-1: KTO on" in said and "18 good and 36 bad answers" in said and "next: palate eval" in said
    load(project, run.id, probe("cpu", "float32"))


def test_learns_from_a_file_of_thumbs(ranked_project: Make, tmp_path: Path) -> None:
    project = ranked_project()
    path = tmp_path / "thumbs.jsonl"
    rows = [
        {"prompt": f"where is {i}?", "completion": text, "label": text == "the mat"}
        for i in range(30)
        for text in ("the mat", "a red ball")
    ]
    path.write_text("\n".join(map(json.dumps, sorted(rows, key=lambda row: not row["label"]))))
    run = kto.run(project, config(project, data=(path,), epochs=4))
    assert run.metrics["margin"] > 0.3 and project.run("kto-1").config["data"] == [str(path)]


@pytest.mark.slow
def test_a_stopped_run_ends_as_the_uninterrupted_one(
    ranked_project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = ranked_project()
    whole = kto.run(project, config(project, epochs=1))
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    logged = ActiveRun.log

    def stopping(self: ActiveRun, step: int, **figures: float) -> None:
        if step == 5:
            raise KeyboardInterrupt
        logged(self, step, **figures)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(ActiveRun, "log", stopping)
        kto.run(project, config(project, epochs=1))
    assert project.run("kto-2").status == "stopped"
    resumed = kto.run(project, replace(config(project), resume="kto-2"))
    first, second = ((Path(run.path) / "metrics.jsonl").read_text() for run in (whole, resumed))
    assert first == second
    parts = [
        torch.cat(
            [p.detach().flatten() for p in load(project, run.id, probe("cpu", "float32")).model.parameters()]
        )
        for run in (whole, resumed)
    ]
    assert parts[0].equal(parts[1])


def test_policy_that_does_not_start_as_its_reference(
    ranked_project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(*arguments: Any) -> Any:
        policy = lora(*arguments)
        with torch.no_grad():
            for name, one in policy.named_parameters():
                if "lora_B" in name:
                    one.add_(0.3)
        return policy

    project = ranked_project()
    monkeypatch.setattr(kto, "lora", moved)
    with pytest.raises(DoctorError, match="the policy does not start as its reference"):
        kto.run(project, config(project))


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"batch_size": 1}, "--batch-size must be at least 2"), ({"source": "nowhere"}, "nowhere")],
)
def test_what_cannot_be_leaves_no_run(ranked_project: Make, changes: dict[str, object], says: str) -> None:
    project = ranked_project()
    with pytest.raises(UserError, match=says):
        kto.run(project, config(project, **changes))
    assert project.runs() == []


def test_one_kind_alone_is_refused(ranked_project: Make, tmp_path: Path) -> None:
    project = ranked_project()
    path = tmp_path / "up.jsonl"
    path.write_text(
        "\n".join(json.dumps({"prompt": f"{i}", "completion": "x", "label": 1}) for i in range(9))
    )
    with pytest.raises(UserError, match="KTO needs good and bad ones"):
        kto.run(project, config(project, data=(path,)))
