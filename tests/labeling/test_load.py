"""The load benchmark runs and says what it must; its figures are not judged here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_benchmark_smoke() -> None:
    command = [sys.executable, str(ROOT / "benchmarks/labeling_load.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    line = json.loads(done.stdout.strip().splitlines()[-1])
    assert line["bench"] == "labeling_load"
    assert line["settings"]["not_measured"] == ["peer"]  # said, not skipped in silence
    assert set(line["p95_ms"]) == {"1", "4"} and min(line["votes_per_second"].values()) > 0
    assert line["errors"] == {"1": 0, "4": 0}
