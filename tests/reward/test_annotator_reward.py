"""benchmarks/annotator_reward.py --quick: it runs, and prints the JSON line that others read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_benchmark_runs() -> None:
    command = [sys.executable, str(ROOT / "benchmarks/annotator_reward.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    told = json.loads(lines[-1])
    assert told["bench"] == "annotator_reward" and set(told["ratios"]) == {"bad_60", "equal_60"}
    for case, ours in told["ours"].items():
        assert (
            0 < ours["accuracy"] < 1
            and ours["over_pooled_low"] <= ours["over_pooled"] <= ours["over_pooled_high"]
        )
        assert ("auc_of_bad" in ours) == case.startswith("bad")
        assert set(told["peer"][case]) == {
            f"accuracy_{times}n" for times in ("1", "1.3", "1.6", "2", "2.5", "3")
        }
    assert any(line.startswith("bad_60: EM ") for line in lines)
