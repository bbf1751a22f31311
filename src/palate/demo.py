"""`palate demo`: the whole loop on the built-in model, by the same commands that real files go through.

Demonstrations and ideas are written to files, imported, trained on, sampled from; rule-based annotators with
a taste that no training stage can read rank the samples; reward and DPO learn from their votes alone; the
evaluation, and only it, asks the hidden taste again. What it prints is what a newcomer can do by hand.
"""

import json
import os
import resource
import shutil
import sys
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path

import yaml

from palate.config import (
    DemoConfig,
    DpoConfig,
    EvalConfig,
    ImportConfig,
    RewardConfig,
    SampleConfig,
    SftConfig,
    SimulateConfig,
    UserError,
)
from palate.data.records import Run
from palate.project import Project

TASTE = "vivid"
HELD_OUT = 200  # ideas that only the evaluation samples from; their rankings test the reward


def run(config: DemoConfig) -> Run:
    """The whole loop; returns the evaluation's run. Progress and figures are printed."""
    start = time.perf_counter()
    share = 10 if config.quick else 1
    project = _fresh_project(config.folder, config.seed)
    files = _write_files(
        project.folder,
        config.demonstrations // share,
        config.prompts // share,
        HELD_OUT // share,
        config.seed,
    )
    folder, seed = project.folder, config.seed
    print(f"The demo's project is {folder}; every step below is a command you can type there.\n")

    from palate import importing, lineage, sampling
    from palate.evaluation import evaluate
    from palate.labeling import simulate
    from palate.reward import train as reward
    from palate.rl import dpo
    from palate.sft import train as sft

    # `palate eval --taste` is the only step that is told the taste; votes are all that training sees of it
    steps: list[tuple[str, Callable[[], Run]]] = [
        ("import demonstrations.jsonl ideas.jsonl", lambda: importing.run(project, ImportConfig(files, project=folder))),
        ("sft", lambda: sft.run(project, SftConfig(folder, seed=seed))),
        ("sample -k 4 --split all", lambda: sampling.run(project, SampleConfig(folder, k=4, split="all", source="ideas.jsonl", seed=seed))),
        (f"simulate --taste {TASTE}", lambda: simulate.run(project, SimulateConfig(folder, TASTE, seed=seed))),
        ("reward", lambda: reward.run(project, RewardConfig(folder, seed=seed))),
        ("dpo", lambda: dpo.run(project, DpoConfig(folder, seed=seed))),
        (f"eval --taste {TASTE}", lambda: evaluate.run(project, EvalConfig(folder, taste=TASTE, source="ideas.jsonl", seed=seed))),
    ]  # fmt: skip
    last: Run | None = None
    for number, (command, step) in enumerate(steps, 1):
        began = time.perf_counter()
        print(f"[{number}/{len(steps)}] palate {command}", flush=True)
        last = step()
        if last.artefact:
            lineage.write_card(project, last)
        print(f"      {time.perf_counter() - began:.0f} s\n", flush=True)
    assert last is not None
    report = Path(last.path) / "report.html"
    print(f"The loop took {time.perf_counter() - start:.0f} s and {_peak_gigabytes():.1f} GB at its peak.")
    print(f"report:  {report}")
    print(f"figures: {Path(last.path) / 'summary.json'}")
    print(f"next:    cd {config.folder} && palate label     (rank this model's answers yourself)")
    if config.browser and _desktop():
        webbrowser.open(report.as_uri())
    return last


def _fresh_project(folder: Path, seed: int) -> Project:
    """An empty project, marked as a demo; an older demo there is replaced, anything else is left alone."""
    marker = folder / "palate.yaml"
    if marker.exists():
        if "demo" not in Project.open(folder).settings:
            raise UserError(
                f"{folder} holds a project that is not a demo; choose another folder: palate demo FOLDER"
            )
        Project.open(folder).own_store().close()  # says so when a label server is running on it
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; choose another folder: palate demo FOLDER")
    Project.create(folder, name="Palate demo")
    with marker.open("a", encoding="utf-8") as file:
        file.write(yaml.safe_dump({"demo": {"seed": seed}}))
    return Project.open(folder)


def _write_files(
    folder: Path, demonstrations: int, prompts: int, held_out: int, seed: int
) -> tuple[Path, ...]:
    """demonstrations.jsonl (instruction and image prompt) and ideas.jsonl (prompts to rank answers to)."""
    from palate.data import demo

    shown, ranked = folder / "demonstrations.jsonl", folder / "ideas.jsonl"
    with shown.open("w", encoding="utf-8") as file:
        for prompt, completion in demo.demonstrations(demonstrations, seed):
            file.write(json.dumps({"prompt": prompt, "completion": completion}) + "\n")
    with ranked.open("w", encoding="utf-8") as file:
        for number, idea in enumerate(demo.ideas(prompts + held_out, seed)):
            split = "train" if number < prompts else "test"
            file.write(json.dumps({"prompt": demo.instruction(idea), "split": split}) + "\n")
    return shown, ranked


def _peak_gigabytes() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _desktop() -> bool:
    return sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
