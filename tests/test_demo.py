"""`palate demo` at a tenth of its size: every stage runs, the figures are there, a second demo replaces it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def palate(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "palate", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_quick_demo(tmp_path: Path) -> None:
    done = palate(tmp_path, "demo", "--quick", "--no-browser")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    summary = json.loads((tmp_path / "demo/runs/eval-1/summary.json").read_text())
    assert summary["baseline"] == "sft-1"
    report = (tmp_path / "demo/runs/eval-1/report.html").read_text()
    assert "http://" not in report.replace("http://www.w3.org", "")  # self-contained
    for line in ("[7/7] palate eval", "report:", "next:"):
        assert line in done.stdout

    stages = {path.parent.name for path in (tmp_path / "demo/runs").glob("*/run.json")}
    assert stages == {"import-1", "sft-1", "sample-1", "simulate-1", "reward-1", "dpo-1", "eval-1"}


def test_demo_leaves_other_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/thesis.tex").write_text("years of work")
    done = palate(tmp_path, "demo", "--no-browser")
    assert (done.returncode, (tmp_path / "demo/thesis.tex").read_text()) == (1, "years of work")
    assert "not empty" in done.stderr

    palate(tmp_path, "init", "mine")
    done = palate(tmp_path, "demo", "mine", "--no-browser")
    assert done.returncode == 1
    assert "not a demo" in done.stderr
