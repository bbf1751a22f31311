"""Two processes fine-tune as one: the same loss curve, the same model, one run, and one that goes on in either."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from palate.hardware import probe
from palate.models import load
from palate.runs import CHECKPOINTS
from palate.sft.dataset import plan
from palate.sft.train import run
from tests.sft.test_train import config, make_project
from tests.test_checkpoints import COMMAND, killed_at
from tests.test_parallel import ACCELERATE, SOURCE, TORCHRUN, launched

# 20 rows, 7 a step: the last step has one row, and one process none
SETTINGS = {"epochs": 1.8, "batch_size": 7, "learning_rate": 1e-2}
FLAGS = ["--device", "cpu", "--dtype", "float32"]
FLAGS += [text for name, value in SETTINGS.items() for text in (f"--{name.replace('_', '-')}", str(value))]


def curve(folder: str) -> np.ndarray:
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return np.array([[line["loss"], line["grad_norm"], line["learning_rate"]] for line in lines])


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "method"), [(ACCELERATE, "full"), (TORCHRUN, "lora")])
def test_two_processes_give_the_loss_curve_of_one(
    tiny_models: dict[str, Path], tmp_path: Path, launcher: tuple[str, ...], method: str
) -> None:
    project = make_project(tmp_path / "project", tiny_models["llama"])
    alone = run(project, config(project, method=method, **SETTINGS))
    done = launched(project, "sft", "--method", method, *FLAGS, launcher=launcher)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("20 demonstrations to learn") == 1  # the first process speaks for all
    runs = project.runs()
    assert [(one.id, one.status) for one in runs] == [("sft-1", "done"), ("sft-2", "done")]
    one, two = curve(alone.path), curve(runs[1].path)
    assert one.shape == two.shape == (6, 3)
    np.testing.assert_allclose(two, one, atol=1e-4, rtol=1e-4)
    assert runs[1].metrics["validation_loss"] == pytest.approx(alone.metrics["validation_loss"], abs=1e-3)
    assert runs[1].metrics["trainable_weights"] == alone.metrics["trainable_weights"]
    assert not (Path(runs[1].path) / CHECKPOINTS).exists()


@pytest.mark.slow
def test_what_one_process_began_two_finish(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", tiny_models["qwen2"])
    settings = {**SETTINGS, "epochs": 8.0}
    alone = run(project, config(project, **settings))
    flags = [*FLAGS[:4], "--epochs", "8", *FLAGS[6:]]
    assert killed_at(project, "sft", 5, *flags) == "sft-2"
    script = tmp_path / "often.py"
    script.write_text(COMMAND)  # with a checkpoint after every step, which both processes write
    env = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *TORCHRUN, str(script), "sft", "--project", str(project.folder)]
    done = subprocess.run(
        [*command, "--resume", "sft-2", *FLAGS[:2]], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "sft-2: goes on after step" in done.stdout
    np.testing.assert_allclose(curve(project.run("sft-2").path), curve(alone.path), atol=1e-4, rtol=1e-4)
    models = [load(project, name, probe("cpu", "float32")).model for name in ("sft-1", "sft-2")]
    differences = [
        (a - b).abs().median().item()
        for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True)
    ]
    assert max(differences) < 1e-4


def test_a_plan_for_several_processes() -> None:
    lengths = [40, 10, 30, 20, 50, 60, 7]
    for processes in (1, 2, 3):
        steps = plan(lengths, batch_size=3, epochs=1, max_tokens=60, seed=0, processes=processes)
        assert [sorted(row for part in step for row in part) for step in steps] == [
            sorted(row for part in step for row in part)
            for step in plan(lengths, batch_size=3, epochs=1, max_tokens=60, seed=0)
        ]
        assert all(len(step) % processes == 0 for step in steps)
        assert len({len(step) for step in steps[:-1]}) == 1
    assert plan([5], 4, 1, 512, 0, processes=2) == [[[0], []]]
