"""kill -9 at random moments of a training's whole life: what is resumed must be, to the bit, what was never interrupted.

    python benchmarks/kill_anywhere.py --stage sft --kills 20      # or reward, dpo, ppo; about 6 minutes on one core
    python benchmarks/kill_anywhere.py --quick                     # 2 kills

A small project of the demo's kind is made by the product's own commands. One run of the stage is left alone; the others are
killed after a time drawn uniformly from how long that one took, start and end included, and resumed. The weights' files and
the log must be the same, no step twice, and `palate runs` must say `interrupted` after the kill and `done` at the end.
Checkpoints are made as often as they can, so that many kills hit the writing of one.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from palate.project import Project
from palate.runs import file_hash

COMMAND = """
import sys
import torch
from palate import checkpoints, cli
torch.set_num_threads(1)
checkpoints.EVERY = 0.0
cli.main(sys.argv[1:])
"""
FLAGS = ["--device", "cpu", "--dtype", "float32"]
STAGES = {
    "sft": ["--method", "lora", "--epochs", "3"],
    "reward": ["--epochs", "3", "--uncertainty", "off", "--no-learning-curve", "--annotator-model", "off"],
    "dpo": ["--epochs", "3"],
    "ppo": [
        "--steps",
        "10",
        "--batch-size",
        "16",
        "--max-new-tokens",
        "24",
        "--kl-target",
        "1",
        "--best-of",
        "0",
    ],
}


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command, as a user starts it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments, "--project", str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def finish(folder: Path, *arguments: str) -> str:
    """Run a command to its end; returns what went wrong, nothing when nothing did."""
    process = start(folder, *arguments)
    _, said = process.communicate()
    return "" if process.returncode == 0 else said.strip()[-500:]


def made(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Hashes of the weights a run has made, and its log without times."""
    files = {path.name: file_hash(path) for path in sorted(folder.rglob("*.safetensors"))}
    rows = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    timeless = [{name: value for name, value in row.items() if not name.endswith("_seconds")} for row in rows]
    return files, [json.dumps(row) for row in timeless]


def prepare(folder: Path, stage: str) -> Project:
    """A project with what the stage learns from."""
    from palate.data.demo import demonstrations

    project = Project.create(folder)
    shown = folder / "demonstrations.jsonl"
    rows = [{"prompt": prompt, "completion": answer} for prompt, answer in demonstrations(90, 0)]
    shown.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    steps = [["import", str(shown)]]
    if stage != "sft":
        steps += [["sft", "--epochs", "1", *FLAGS], ["sample", *FLAGS], ["simulate", "--taste", "vivid"]]
    if stage == "ppo":
        steps += [["reward", *STAGES["reward"], *FLAGS]]
    for step in steps:
        if wrong := finish(folder, *step):
            raise SystemExit(f"palate {' '.join(step)}: {wrong}")
    return project


def killed(project: Project, stage: str, after: float) -> str | None:
    """Start the stage and kill it after so many seconds; the new run, None when there is none yet."""
    known = {run.id for run in project.runs()}
    process = start(project.folder, stage, *STAGES[stage], *FLAGS)
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return next((run.id for run in project.runs() if run.id not in known), None)


def main() -> None:
    """Kill, resume, compare; one JSON line, and exit status 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--stage", choices=list(STAGES), default="sft")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="2 kills")
    given = parser.parse_args()
    stage, rng, outcomes, wrong = given.stage, random.Random(given.seed), Counter[str](), list[str]()
    with tempfile.TemporaryDirectory() as scratch:
        project = prepare(Path(scratch) / "project", stage)
        began = time.perf_counter()
        if problem := finish(project.folder, stage, *STAGES[stage], *FLAGS):
            raise SystemExit(problem)
        seconds = time.perf_counter() - began
        whole = project.runs()[-1]
        expected = made(Path(whole.path))
        print(f"{whole.id}: {len(expected[1])} lines of log in {seconds:.1f} s")
        for number in range(2 if given.quick else given.kills):
            after = rng.uniform(0, seconds)
            one = killed(project, stage, after)
            if one is None:
                outcomes["before there was a run"] += 1
                continue
            run = project.run(one)
            lines = len((Path(run.path) / "metrics.jsonl").read_text().splitlines())
            print(
                f"  {number}: {one} killed after {after:.2f} s, {lines} lines, status {run.status}",
                flush=True,
            )
            if run.status == "done":
                outcomes["after its end"] += 1
            elif run.status != "interrupted":
                wrong.append(f"{one} is said to be {run.status}")
            else:
                problem = finish(project.folder, stage, "--resume", one, *FLAGS[:2])
                if "begin anew" in problem:
                    outcomes["before it had its rows"] += 1
                    continue
                outcomes["at a step" if 0 < lines < len(expected[1]) else "before or after the steps"] += 1
                wrong += [problem] if problem else []
            if made(Path(run.path)) != expected or project.run(one).status != "done":
                wrong.append(f"{one} is not the uninterrupted run")
    print(json.dumps({"bench": "kill_anywhere", "stage": stage, "outcomes": dict(outcomes), "wrong": wrong}))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
