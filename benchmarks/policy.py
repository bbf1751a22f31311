"""PPO, DPO and RLOO from the same fine-tuned model and reward, best of 16 beside them: which pleases the hidden taste?

For every seed a demo project (fine-tuned built-in model, 300 rankings by rule annotators, a reward), then `palate dpo`, `ppo`,
`rloo` with their defaults, each timed. Figures are win rates against the fine-tuned model by the taste on 200 held-out prompts,
two answers each, with 95 % intervals over prompts; KL in nats per answer. `best_of_16` chooses among the fine-tuned model's
own answers by the learned reward: it costs no training and is at most 1.84 nats away.

    python benchmarks/policy.py [--quick] [--seeds 3] [--methods dpo ppo rloo] [--log FILE]

Finished seeds are kept in --log.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import finish, in_a_folder, kept

from palate import demo
from palate.config import DemoConfig, DpoConfig, EvalConfig, PpoConfig, RlooConfig
from palate.data.records import Run
from palate.data.taste import TASTES
from palate.evaluation import evaluate
from palate.evaluation.metrics import win_rate
from palate.generation import sample
from palate.hardware import probe
from palate.models import load
from palate.project import Project
from palate.reward import best
from palate.reward.scorers import open_scorer

BAR = 0.60
TASTE = demo.TASTE


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run: small, proves nothing")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--methods", nargs="+", default=["dpo", "ppo", "rloo"])
    parser.add_argument("--log", type=Path, default=Path(tempfile.gettempdir()) / "palate-policy.jsonl")
    given = parser.parse_args()
    if given.quick:
        given.seeds, given.log = 1, Path(tempfile.mkdtemp()) / "log.jsonl"
    wanted = [
        kept(given.log, {"seed": seed, "methods": given.methods}, partial(in_a_folder, one_seed, seed, given))
        for seed in range(given.first, given.first + given.seeds)
    ]
    ratios, ours = {}, {}
    for name in [*given.methods, "best_of_16"]:
        lows = [one[name]["low"] for one in wanted]
        ratios[name] = min(lows) / BAR
        ours[name] = {
            "win_rate": float(np.mean([one[name]["value"] for one in wanted])), "lowest": min(lows),
            "kl": float(np.mean([one[name]["kl"] for one in wanted])),
            "seconds": float(np.mean([one[name]["seconds"] for one in wanted])),
        }  # fmt: skip
    finish("policy", ratios, ours, {}, {**vars(given), "log": str(given.log)})


def one_seed(place: Path, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Win rates of every method and of best of 16."""
    folder = place / "demo"
    demo.run(DemoConfig(folder, seed=seed, quick=given.quick, browser=False))
    project = Project.open(folder)
    seconds = {name: trained(project, name, seed, given.quick) for name in given.methods}
    latest = {name: project.latest(name) for name in given.methods}
    models = {name: run.id for name, run in latest.items() if run is not None}
    run = evaluate.run(
        project,
        EvalConfig(
            folder,
            models=("sft-1", *models.values()),
            baseline="sft-1",
            taste=TASTE,
            source="ideas.jsonl",
            seed=seed,
        ),
    )
    summary = json.loads((Path(run.path) / "summary.json").read_text())
    known = {one["name"]: one for one in summary["models"]}
    found: dict[str, Any] = {}
    for name, model in models.items():
        rate = known[model]["against_baseline"][TASTE]["win_rate"]
        found[name] = {key: float(rate[key]) for key in ("value", "low", "high")}
        found[name] |= {
            "kl": float(known[model]["kl"]["value"]),
            "seconds": seconds[name],
        }
    return {**found, "best_of_16": chosen(project, seed, given.quick)}


def trained(project: Project, name: str, seed: int, quick: bool) -> float:
    """Seconds of one method; DPO's run of the demo is made again, to be timed alike."""
    from palate.rl import dpo, ppo_train, rloo

    few = {"steps": 4} if quick else {}
    runs: dict[str, Callable[[], Run]] = {
        "dpo": lambda: dpo.run(project, DpoConfig(project.folder, seed=seed)),
        "ppo": lambda: ppo_train.run(project, PpoConfig(project.folder, seed=seed, **few)),
        "rloo": lambda: rloo.run(project, RlooConfig(project.folder, seed=seed, **few)),
    }
    began = time.perf_counter()
    runs[name]()
    return time.perf_counter() - began


def chosen(project: Project, seed: int, quick: bool) -> dict[str, float]:
    """The best of 16 of the start by the learned reward, judged by the taste against other answers of the start."""
    hardware = probe()
    loaded = load(project, "sft-1", hardware)
    scorer, _ = open_scorer(project, None, hardware)
    with project.store() as store:
        rows = store.rows(
            "SELECT messages FROM prompt WHERE split = 'test' AND source = 'ideas.jsonl' ORDER BY id"
        )
    prompts = [json.loads(row["messages"]) for row in rows][: 8 if quick else 200]
    began = time.perf_counter()
    tops = best.of(loaded, scorer, prompts, 16, seed=seed)
    seconds = time.perf_counter() - began
    others = sample(loaded, prompts, 2, seed=seed + 1)
    score = TASTES[TASTE].score
    mine = [[score(p[-1]["content"], top.text)] for p, top in zip(prompts, tops, strict=True)]
    theirs = [
        [score(p[-1]["content"], one.text) for one in row] for p, row in zip(prompts, others, strict=True)
    ]
    rate = win_rate(np.array(mine), np.array(theirs), seed=seed)
    return {
        "value": rate.value,
        "low": rate.low,
        "high": rate.high,
        "kl": best.kl_bound(16),
        "seconds": seconds,
    }


if __name__ == "__main__":
    main()
