"""The SFT benchmark runs and says what it must; its figures are not judged here."""

import json
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
