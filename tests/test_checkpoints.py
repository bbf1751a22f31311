"""Training that is killed goes on as if nothing had happened; a run that can't go on says why."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from palate.checkpoints import Checkpoints, State
from palate.config import DpoConfig, PpoConfig, RewardConfig, UserError
from palate.project import Project
from palate.reward import train
from palate.rl import dpo, ppo_train
from palate.runs import CHECKPOINT, file_hash

Make = Callable[..., Project]
SETTINGS = {"epochs": 8.0, "batch_size": 3, "device": "cpu", "dtype": "float32"}

# the command, with a checkpoint after every step
COMMAND = """
import sys
import torch
from palate import checkpoints, cli
torch.set_num_threads(1)
checkpoints.EVERY = 0.0
cli.main(sys.argv[1:])
"""


def killed_at(project: Project, stage: str, step: int, *flags: str) -> str:
    """Run the stage's command until it has logged this step, kill -9 it there; returns the run's id."""
    arguments = [sys.executable, "-c", COMMAND, stage, "--project", str(project.folder), *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    process = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )
    runs = project.folder / "runs"
    resumed = flags[flags.index("--resume") + 1] if "--resume" in flags else None
    others = {path.name for path in runs.glob("*")} - {resumed}
    for _ in range(6000):
        if process.poll() is not None:
            assert process.stderr is not None
            raise AssertionError(f"the command ended too early: {process.stderr.read()[-2000:]}")
        for log in runs.glob(f"{stage}-*/metrics.jsonl"):
            if log.parent.name not in others and len(log.read_text().splitlines()) > step:
                process.send_signal(signal.SIGKILL)
                process.wait()
                return log.parent.name
        time.sleep(0.01)
    process.kill()
    raise AssertionError("the step was never logged")


def made(project: Project, run_id: str) -> tuple[dict[str, str], list[dict[str, float]]]:
    """Hashes of what a run made, and its log without times."""
    folder = project.folder / "runs" / run_id
    files = {path.name: file_hash(path) for path in sorted(folder.rglob("*.safetensors"))}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return files, [{name: x for name, x in row.items() if not name.endswith("_seconds")} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["reward", "dpo"])
def test_kill_and_resume_is_bit_for_bit_the_uninterrupted_run(ranked_project: Make, stage: str) -> None:
    project = ranked_project(prompts=20, held_out=4)
    flags = ["--epochs", "8", "--batch-size", "3", "--device", "cpu", "--dtype", "float32"]
    torch.set_num_threads(1)
    run = {"reward": train.run, "dpo": dpo.run}[stage]
    kind = {"reward": RewardConfig, "dpo": DpoConfig}[stage]
    expected = made(project, run(project, kind(project.folder, **SETTINGS)).id)  # type: ignore[operator]
    assert len(expected[1]) == 48 and expected[0]

    one = killed_at(project, stage, 2, *flags)
    assert [r.status for r in project.runs() if r.id == one] == ["interrupted"]
    assert killed_at(project, stage, 30, "--resume", one) == one  # and once more, later
    resumed = run(project, kind(project.folder, resume=one, device="cpu"))  # type: ignore[operator]
    assert (resumed.id, resumed.status, resumed.error) == (one, "done", None)
    assert made(project, one) == expected
    assert not (project.folder / "runs" / one / CHECKPOINT).exists()
    assert resumed.config["epochs"] == 8 and resumed.config["resume"] is None


@pytest.mark.slow
def test_ppo_goes_on_bit_for_bit_with_values_optimisers_coefficient_and_guard(ranked_project: Make) -> None:
    project = ranked_project()
    train.run(project, RewardConfig(project.folder, device="cpu", dtype="float32", learning_curve=False))
    settings = {"steps": 12, "batch_size": 8, "max_new_tokens": 6, "kl_target": 0.5, "kl_horizon": 50, "keep_every": 2,
                "learning_rate": 0.01, "best_of": 0, "guard": "warn", "device": "cpu", "dtype": "float32"}  # fmt: skip
    flags = [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    torch.set_num_threads(1)
    expected = made(project, ppo_train.run(project, PpoConfig(project.folder, **settings)).id)  # type: ignore[arg-type]
    assert len(expected[1]) == 12 and len({row["kl_coefficient"] for row in expected[1]}) > 5
    one = killed_at(project, "ppo", 3, *flags)
    assert killed_at(project, "ppo", 8, "--resume", one) == one
    assert (project.folder / "runs" / one / "snapshots").is_dir()
    resumed = ppo_train.run(project, PpoConfig(project.folder, resume=one, device="cpu"))
    assert made(project, one) == expected
    assert (resumed.status, resumed.metrics["kept_step"]) == (
        "done",
        project.run("ppo-1").metrics["kept_step"],
    )
    assert not (project.folder / "runs" / one / "snapshots").exists()


def test_what_can_not_be_resumed_says_why(ranked_project: Make) -> None:
    project = ranked_project(prompts=6, held_out=1)
    done = train.run(project, RewardConfig(project.folder, device="cpu", dtype="float32"))
    with pytest.raises(UserError, match="reward-1 is done: there is nothing to resume"):
        train.run(project, RewardConfig(project.folder, resume=done.id))
    with pytest.raises(UserError, match="reward-1 is a run of reward: palate reward --resume reward-1"):
        dpo.run(project, DpoConfig(project.folder, resume=done.id))
    with pytest.raises(UserError, match="there is no run 'reward-9'"):
        train.run(project, RewardConfig(project.folder, resume="reward-9"))
    with project.start("reward", {"view": None, "base": project.base}) as active:
        with pytest.raises(
            UserError, match=f"reward-2 is still running \\(process {os.getpid()}\\): stop it first"
        ):
            train.run(project, RewardConfig(project.folder, resume=active.id))
        active.update(pid=None)
    assert project.run("reward-2").status == "done"
    with pytest.raises(RuntimeError), project.start("reward", {"view": None, "base": project.base}):
        raise RuntimeError
    with pytest.raises(UserError, match="reward-3 was stopped before it had its rankings: begin anew"):
        train.run(project, RewardConfig(project.folder, resume="reward-3"))


def test_a_checkpoint_is_whole_and_cuts_the_log(ranked_project: Make) -> None:
    project = ranked_project(prompts=2, held_out=0)
    with project.start("reward", {}) as active:
        checkpoints = Checkpoints(active)
        for step in range(4):
            active.log(step, loss=float(step))
        assert not checkpoints.due()
        checkpoints.save(
            State(2, {"w": torch.tensor([1.5])}, {"state": {}, "param_groups": []}, [{"loss": 0.0}])
        )
        (active.path / "metrics.jsonl").open("a").write('{"step": 4, "lo')  # cut off by the kill
        state = checkpoints.load()
        assert state is not None
        assert (state.step, state.weights["w"].item(), state.history) == (2, 1.5, [{"loss": 0.0}])
        active.log(2, loss=9.0)
        lines = [json.loads(line) for line in (active.path / "metrics.jsonl").read_text().splitlines()]
        assert [(line["step"], line["loss"]) for line in lines] == [(0, 0.0), (1, 1.0), (2, 9.0)]
        (active.path / CHECKPOINT).write_bytes(b"no checkpoint")
        with pytest.raises(UserError, match="can't be read"):
            checkpoints.load()
        assert (active.path / CHECKPOINT).exists()
    assert not (active.path / CHECKPOINT).exists()
