"""Two processes train as one: the same loss curve, the same scores, one run."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from palate import cli
from palate.config import DpoConfig, PpoConfig, RewardConfig
from palate.hardware import probe
from palate.parallel import Team
from palate.project import Project
from palate.reward import train
from palate.reward.model import load_reward
from palate.rl import dpo, ppo_train

Make = Callable[..., Project]
SOURCE = str(Path(__file__).parents[1] / "src")
FLAGS = {"epochs": 2, "batch_size": 5, "learning_rate": 1e-2, "device": "cpu", "dtype": "float32"}


def launched(
    project: Project, *command: str, launcher: tuple[str, ...], python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [python, "-m", *launcher, "-m", "palate", *command, "--project", str(project.folder)],
        env=env, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


def curve(run_folder: Path) -> np.ndarray:
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    return np.array([[line["loss"], line["accuracy"], line["grad_norm"]] for line in lines if "loss" in line])


TORCHRUN = ("torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--standalone")
ACCELERATE = ("accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
              "--dynamo_backend", "no", "--cpu", "--main_process_port", "0")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_two_processes_give_the_loss_curve_of_one(ranked_project: Make, launcher: tuple[str, ...]) -> None:
    project = ranked_project()
    alone = train.run(project, replace(RewardConfig(project.folder), **FLAGS))  # type: ignore[arg-type]
    flags = [text for name, value in FLAGS.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    done = launched(project, "reward", *flags, launcher=launcher)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("18 rankings to learn from") == 1  # the first process speaks for all
    runs = project.runs()
    assert [(run.id, run.status) for run in runs] == [("reward-1", "done"), ("reward-2", "done")]
    one, two = curve(Path(alone.path)), curve(Path(runs[1].path))
    assert one.shape == two.shape == (8, 3)
    np.testing.assert_allclose(two, one, atol=1e-4, rtol=1e-4)
    texts = ["the mat 77", "a cat 77 sat down"]
    asked = [[{"role": "user", "content": "where is 77?"}]] * 2
    scores = [load_reward(project, run.id, probe("cpu", "float32")).score(asked, texts) for run in runs]
    np.testing.assert_allclose(scores[1], scores[0], atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_dpo_in_two_processes_gives_the_curve_of_one(ranked_project: Make, launcher: tuple[str, ...]) -> None:
    project = ranked_project()
    settings = {**FLAGS, "ties": "davidson", "sft_weight": 0.1}
    alone = dpo.run(project, DpoConfig(project.folder, **settings))  # type: ignore[arg-type]
    flags = [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    done = launched(project, "dpo", *flags, launcher=launcher)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("DPO on") == 1 and project.run("dpo-2").status == "done"
    one, two = curve(Path(alone.path)), curve(Path(project.run("dpo-2").path))
    assert one.shape == two.shape == (8, 3)
    np.testing.assert_allclose(two, one, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_ppo_in_two_processes_gives_the_curve_of_one(ranked_project: Make) -> None:
    project = ranked_project()
    train.run(project, RewardConfig(project.folder, device="cpu", dtype="float32", learning_curve=False))
    settings = {"steps": 5, "batch_size": 12, "max_new_tokens": 6, "learning_rate": 0.005, "value_learning_rate": 0.001, "value_warmup": 1, "best_of": 0,
                "guard": "warn", "keep_every": 2, "device": "cpu", "dtype": "float32"}  # fmt: skip
    alone = ppo_train.run(project, PpoConfig(project.folder, **settings))  # type: ignore[arg-type]
    flags = [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    done = launched(project, "ppo", *flags, launcher=TORCHRUN)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("PPO on") == 1
    two = project.run("ppo-2")
    assert two.status == "done"
    names = (
        "reward",
        "kl",
        "policy_loss",
        "value_loss",
        "policy_grad_norm",
        "value_grad_norm",
        "ratio",
        "entropy",
        "length",
    )
    curves = [
        [[json.loads(line).get(name, 0.0) for name in names] for line in (Path(run.path) / "metrics.jsonl").read_text().splitlines()]
        for run in (alone, two)
    ]  # fmt: skip
    assert np.shape(curves[0]) == (5, len(names))
    np.testing.assert_allclose(curves[1], curves[0], atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_an_error_ends_all_of_them(ranked_project: Make) -> None:
    project = ranked_project(prompts=4, held_out=4)
    done = launched(project, "reward", launcher=TORCHRUN)
    assert done.returncode != 0
    assert "all votes are on held-out (test) prompts" in done.stderr


@pytest.mark.slow
def test_what_can_not_be_done_together_says_so(ranked_project: Make) -> None:
    project = ranked_project(prompts=4, held_out=2)
    done = launched(project, "eval", launcher=TORCHRUN)
    assert done.returncode != 0
    assert "it runs in one process: start it without accelerate launch or torchrun" in done.stderr


@pytest.mark.parametrize("kind", ["FSDP", "DeepSpeed"])
@pytest.mark.parametrize("command", ["reward", "dpo", "ppo"])
def test_parts_of_a_model_are_refused_in_one_sentence(
    ranked_project: Make,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    kind: str,
) -> None:
    project = ranked_project(prompts=4, held_out=2)
    monkeypatch.setenv(f"ACCELERATE_USE_{kind.upper()}", "true")
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--project", str(project.folder)])
    assert ended.value.code == 1 and not project.runs()
    assert capsys.readouterr().err == (
        f"palate {command}: {kind} cuts a model into parts, which only palate sft can work with: here every process holds a "
        "whole base and its adapters, so launch with recipes/accelerate/ddp.yaml\n"
    )


def test_alone_nothing_is_done() -> None:
    team = Team()
    rows, figures = [3, 1, 2], {"loss": 1.0}
    assert (
        team.first and team.share(rows) is rows and team.sums(figures) is figures and team.same(rows) is rows
    )
    team.tell("nobody listens")
    shares = [list(Team(rank, 3).share(list(range(8)))) for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4, 7], [2, 5]]
