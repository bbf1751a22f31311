"""The whole circle through the command line, on models of other architectures than the built-in one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

COLOURS, THINGS = ("red", "blue", "grey", "golden", "green"), ("boat", "lamp", "cat", "door", "tree", "hat")


def palate(project: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "palate", *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"palate {' '.join(arguments)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt2", "qwen2"])
def test_the_loop_on_a_local_model_folder(
    tiny_models: dict[str, Path], tmp_path: Path, architecture: str
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    rows = [
        {
            "prompt": f"Write an image prompt for: a {colour} {thing}",
            "completion": f"a {colour} {thing} in soft light",
            "split": "test" if thing == "hat" else "train",
        }
        for colour in COLOURS
        for thing in THINGS
    ]
    (project / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    palate(project, "init", ".", "--base", str(tiny_models[architecture]))
    palate(project, "import", "rows.jsonl")
    palate(project, "sft", "--epochs", "1", "--method", "lora")
    palate(project, "sample", "-k", "3", "--max-new-tokens", "12", "--split", "all")
    palate(project, "simulate", "--taste", "terse")
    palate(project, "reward")
    palate(project, "dpo", "--epochs", "1")
    palate(project, "eval", "--prompts", "5", "--max-new-tokens", "12", "--taste", "terse")

    runs = json.loads(palate(project, "runs", "--json"))
    stages = [(run["stage"], run["status"]) for run in runs]
    order = ("import", "sft", "sample", "features", "simulate", "reward", "dpo", "eval")
    assert stages == [(stage, "done") for stage in order]
    shown = palate(project, "runs", "show", "dpo-1")
    for name in ("sft-1", "sample-1", "simulate-1", "import-1", "rows.jsonl", str(tiny_models[architecture])):
        assert name in shown
