"""FSDP and DeepSpeed: two processes that hold a part each fine-tune as one process does, and leave a whole model."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from common import own_environment

from palate.config import UserError
from palate.hardware import probe
from palate.models import load
from palate.runs import CHECKPOINTS
from palate.sft import sharded
from palate.sft.train import run
from tests.sft.test_parallel import FLAGS, SETTINGS, curve
from tests.sft.test_train import config, make_project
from tests.test_parallel import SOURCE, launched

RECIPES = Path(__file__).parents[2] / "recipes/accelerate"
FSDP, DEEPSPEED = (
    ("accelerate.commands.launch", "--config_file", str(RECIPES / name), "--main_process_port", "0")
    for name in ("fsdp.yaml", "deepspeed.yaml")
)


@pytest.fixture(scope="session")
def deepspeed() -> str:
    """An interpreter that has DeepSpeed too. Ours has none: accelerate imports it wherever it is there."""
    packages = (
        "deepspeed==0.19.8",
        "hjson==3.1.0",
        "msgpack==1.1.2",
        "py-cpuinfo==9.0.0",
        "einops==0.8.1",
        "ninja==1.13.0",
    )
    return str(own_environment("deepspeed", *packages))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "method", "more"),
    [("gpt2", "full", []), ("llama", "lora", ["--gradient-checkpointing", "False"]), ("qwen2", "freeze", [])],
)
def test_two_halves_give_the_loss_curve_of_one_process(
    tiny_models: dict[str, Path], tmp_path: Path, name: str, method: str, more: list[str]
) -> None:
    project = make_project(tmp_path / "project", tiny_models[name])
    alone = run(project, config(project, method=method, **SETTINGS))
    done = launched(project, "sft", "--method", method, *more, *FLAGS, launcher=FSDP)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("FSDP: each process held 50% of the weights") == 1
    two = project.run("sft-2")
    np.testing.assert_allclose(curve(two.path), curve(alone.path), atol=1e-4, rtol=1e-4)
    for figure in ("validation_loss_before", "validation_loss"):
        assert two.metrics[figure] == pytest.approx(alone.metrics[figure], abs=1e-3)
    assert two.metrics["trainable_weights"] == alone.metrics["trainable_weights"]
    assert two.artefact == alone.artefact and not (Path(two.path) / CHECKPOINTS).exists()
    models = [load(project, id, probe("cpu", "float32")).model.state_dict() for id in ("sft-1", "sft-2")]
    assert models[0].keys() == models[1].keys()
    # Adam makes a full step of a gradient that is nought but for rounding: nearly all weights, not all
    apart = torch.cat([(models[0][key] - models[1][key]).abs().flatten() for key in models[0]])
    assert apart.quantile(0.99) < 1e-4


@pytest.mark.slow
def test_two_halves_compute_in_bfloat16_as_one_process_does(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    project = make_project(tmp_path / "project", tiny_models["llama"])
    losses = [
        curve(run(project, config(project, dtype=dtype, **SETTINGS)).path)[:, 0]
        for dtype in ("bfloat16", "float32")
    ]
    done = launched(project, "sft", *FLAGS, "--dtype", "bfloat16", launcher=FSDP)
    assert done.returncode == 0, done.stderr[-3000:]
    found = curve(project.run("sft-3").path)[:, 0]
    # sums are rounded in another order, which is far less than what bfloat16 rounds
    assert abs(found - losses[0]).max() < 1e-3 < abs(found - losses[1]).max()


# as tests.test_checkpoints.COMMAND; the first process is killed when it logs step 4
KILLED = """
import os, sys
from palate import checkpoints, cli, doctor
checkpoints.EVERY = 0.0
check = doctor.check_finite
def killed(loss, step):
    check(loss, step)
    if step == 4 and "--resume" not in sys.argv:
        os.kill(os.getpid(), 9)
doctor.check_finite = killed
cli.main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "method"), [("FSDP", "full"), ("FSDP", "lora"), ("DeepSpeed", "full")])
def test_parts_that_were_killed_go_on(
    tiny_models: dict[str, Path], tmp_path: Path, deepspeed: str, kind: str, method: str
) -> None:
    project = make_project(tmp_path / "project", tiny_models["qwen2"])
    alone = run(project, config(project, method=method, **SETTINGS))
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    env = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
    launcher = {"FSDP": FSDP, "DeepSpeed": DEEPSPEED}[kind]
    command = [
        deepspeed if kind == "DeepSpeed" else sys.executable,
        "-m",
        *launcher,
        str(script),
        "sft",
        "--project",
        str(project.folder),
    ]
    killed = subprocess.run(
        [*command, "--method", method, *FLAGS], env=env, capture_output=True, text=True, check=False
    )
    assert killed.returncode != 0 and project.run("sft-2").status == "interrupted", killed.stderr[-3000:]
    recipe = rf"its checkpoint is in {kind}'s parts: resume it with recipes/accelerate/{kind.lower()}\.yaml$"
    with pytest.raises(UserError, match=recipe):
        run(project, config(project, resume="sft-2"))
    done = subprocess.run(
        [*command, "--resume", "sft-2", *FLAGS[:2]], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "sft-2: goes on after step 3" in done.stdout
    np.testing.assert_allclose(curve(project.run("sft-2").path), curve(alone.path), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_deepspeed_gives_the_loss_curve_of_one_process(
    tiny_models: dict[str, Path], tmp_path: Path, deepspeed: str, method: str
) -> None:
    project = make_project(tmp_path / "project", tiny_models["llama"])
    alone = run(project, config(project, method=method, **SETTINGS))
    done = launched(project, "sft", "--method", method, *FLAGS, launcher=DEEPSPEED, python=deepspeed)
    assert done.returncode == 0, done.stderr[-3000:]
    two = project.run("sft-2")
    np.testing.assert_allclose(curve(two.path), curve(alone.path), atol=1e-4, rtol=1e-4)
    assert two.metrics["validation_loss"] == pytest.approx(alone.metrics["validation_loss"], abs=1e-3)


FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
ZERO2 = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}


@pytest.mark.parametrize(
    ("variables", "settings", "message"),
    [
        (FSDP2, {"method": "qlora"}, "--method qlora is not supported with FSDP: use --method lora, or launch with recipes/accelerate/ddp.yaml"),
        (ZERO2, {"method": "qlora"}, "--method qlora is not supported with DeepSpeed: use --method lora, or launch with recipes/accelerate/ddp.yaml"),
        ({**FSDP2, "FSDP_VERSION": "1"}, {}, "only FSDP 2 is supported: set fsdp_version: 2, as in recipes/accelerate/fsdp.yaml"),
        ({**FSDP2, "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, {}, "every process looks at the whole model before it is cut: set fsdp_cpu_ram_efficient_loading: false"),
        ({**ZERO2, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, {}, "of DeepSpeed, ZeRO 1 and 2 are supported: set zero_stage: 2, or take recipes/accelerate/fsdp.yaml"),
        (ZERO2, {"dtype": "bfloat16"}, "with DeepSpeed the weights would become bfloat16: add --dtype float32, or take recipes/accelerate/fsdp.yaml"),
    ],
)  # fmt: skip
def test_what_can_not_be_cut_is_said_before_anything_is_written(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str], settings: dict[str, str], message: str,
) -> None:  # fmt: skip
    project = make_project(tmp_path / "project", tiny_models["llama"])
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as caught:
        run(project, config(project, **settings))
    assert str(caught.value) == message and not project.runs()


def test_a_checkpoint_without_parts_is_not_gone_on_with_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.safetensors").touch()
    sharded.check_checkpoint(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError) as caught:
        sharded.check_checkpoint(tmp_path)
    assert str(caught.value) == "its checkpoint was written without FSDP: resume it without"


@pytest.mark.parametrize("name", ["ddp", "fsdp", "deepspeed"])
def test_the_recipes_are_what_accelerate_takes(name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    taken = load_config_from_file(str(RECIPES / f"{name}.yaml"))
    written = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    assert written["distributed_type"] == taken.distributed_type.value
    for key in ("mixed_precision", "num_machines", "machine_rank", "num_processes"):
        assert getattr(taken, key) == written[key]
    assert taken.fsdp_config == written.get("fsdp_config", {})
    assert taken.deepspeed_config == written.get("deepspeed_config", {})
