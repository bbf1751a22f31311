"""The SFT benchmarks run and say what they must; their figures are not judged here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_benchmark_smoke() -> None:
    command = [sys.executable, str(ROOT / "benchmarks/sft_speed.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    line = json.loads(done.stdout.strip().splitlines()[-1])
    assert set(line) == {"bench", "ratios", "ours", "peer", "settings"}
    assert (line["bench"], list(line["ratios"])) == ("sft_speed", ["default"])
    assert line["settings"]["loss_difference"] < 1e-2


@pytest.mark.slow
def test_methods_smoke() -> None:
    command = [sys.executable, str(ROOT / "benchmarks/sft_methods.py"), "--quick", "--only", "rslora", "head"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "| freeze, head | 786,432 |" in done.stdout
    line = json.loads(done.stdout.strip().splitlines()[-1])
    assert (line["bench"], list(line["figures"])) == ("sft_methods", ["rslora, rank 64", "freeze, head"])
    assert all(run["after"] < run["before"] for runs in line["figures"].values() for run in runs)
