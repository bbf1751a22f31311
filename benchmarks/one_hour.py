"""One person's hour: 150 comparisons by one consistent taste, then reward, then DPO. Does the model get what they like?

For every hidden taste and seed, on the fine-tuned built-in model, by the product's own commands:

    palate simulate --annotators 1 --votes 150 [--select information]      # random beside it
    palate reward;  palate dpo                                             # `alone`: DPO on the 150 votes
    palate reward score --comparisons;  palate simulate --scores reward-1  # `labelled`: the reward votes on the rest,
    palate dpo                                                             # and DPO learns from both

A figure is the tuned model's win rate against the fine-tuned one by that taste on 200 held-out prompts, with a 95 %
interval over prompts; the bar is a lower bound above 55 % for every taste, seeds pooled. `hours` is what reading takes
by the stated timing model (240 words a minute, 3 s (K - 1)^0.7 to decide).

    python benchmarks/one_hour.py [--quick] [--seeds 3] [--k 4] [--prompts 600] [--tastes terse] [--log FILE]

Finished arms are kept in --log, so that a run that was stopped goes on.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from common import finish, kept

from palate import importing, sampling
from palate.config import (
    DpoConfig,
    EvalConfig,
    ImportConfig,
    RewardConfig,
    RewardScoreConfig,
    SampleConfig,
    SftConfig,
    SimulateConfig,
)  # fmt: skip
from palate.data.demo import demonstrations, ideas, instruction
from palate.evaluation import evaluate
from palate.labeling import simulate
from palate.project import Project
from palate.reward import features, scoring
from palate.reward import train as reward
from palate.rl import dpo
from palate.sft import train as sft

BAR = 0.55
SELECTIONS = ("information", "random")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run: small, proves nothing")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed; settings were chosen on seed 7")
    parser.add_argument("--votes", type=int, default=150)
    parser.add_argument("--k", type=int, default=2, help="completions per comparison, of four sampled")
    parser.add_argument(
        "--prompts", type=int, default=200, help="training prompts with four completions each"
    )
    parser.add_argument("--tastes", nargs="+", default=["terse", "no_cliches", "camera"])
    parser.add_argument("--log", type=Path, default=Path(tempfile.gettempdir()) / "palate-one-hour.jsonl")
    given = parser.parse_args()
    if given.quick:
        given.seeds, given.votes, given.tastes, given.prompts = 1, 12, given.tastes[:1], 16
        given.log = Path(tempfile.mkdtemp()) / "log.jsonl"
    done = []
    for seed in range(given.first, given.first + given.seeds):
        with tempfile.TemporaryDirectory() as place:
            made = cache(partial(start, Path(place) / "start", given.prompts, given.k, seed, given.quick))
            for taste in given.tastes:
                for select in SELECTIONS:
                    key = {"seed": seed, **settings(given, taste, select)}
                    make = partial(arm, made, taste, select, given.votes, seed, given.quick)
                    done.append(kept(given.log, key, make))
    report(done, given)


def settings(given: argparse.Namespace, taste: str, select: str) -> dict[str, Any]:
    """What an arm is known by in the log, beside its seed."""
    return {"taste": taste, "select": select, "k": given.k, "votes": given.votes, "prompts": given.prompts}


def report(done: list[dict[str, Any]], given: argparse.Namespace) -> None:
    """By taste, selection and kind of DPO: win rate over seeds, with an interval over all prompts of all seeds."""
    ratios, ours = {}, {}
    for taste in given.tastes:
        for select in SELECTIONS:
            arms = [
                one for one in done
                if settings(given, taste, select).items() <= one.items()
                and given.first <= one["seed"] < given.first + given.seeds
            ]  # fmt: skip
            for kind in ("alone", "labelled"):
                wins = [one[kind] for one in arms]
                value = float(np.mean([w["value"] for w in wins]))
                # seeds have prompts of their own: their intervals are independent
                half = float(np.sqrt(np.sum([((w["high"] - w["low"]) / 2) ** 2 for w in wins])) / len(wins))
                name = f"{taste}_{select}_{kind}"
                ratios[name] = value / BAR
                ours[name] = {
                    "win_rate": value, "low": value - half, "high": value + half, "lowest_seed": min(w["low"] for w in wins),
                    "reward_accuracy": float(np.mean([one["reward"] for one in arms])),
                    "hours": float(np.mean([one["hours"] for one in arms])),
                }  # fmt: skip
    finish("one_hour", ratios, ours, {}, {**vars(given), "log": str(given.log)})


def start(folder: Path, prompts: int, k: int, seed: int, quick: bool) -> Project:
    """Fine-tuned, sampled, with features; train prompts have comparisons of `k`, test prompts none."""
    project = fine_tuned(folder, prompts, seed, quick)
    sampling.run(
        project, SampleConfig(folder, k=4, rank=(k,), split="train", source="ideas.jsonl", seed=seed)
    )
    features.add_missing(project, "auto", "auto")
    return project


def fine_tuned(folder: Path, prompts: int, seed: int, quick: bool) -> Project:
    """A project with an SFT run, `prompts` training prompts and 200 held-out ones, nothing sampled yet."""
    Project.create(folder)
    project = Project.open(folder)
    shown, asked = folder / "demonstrations.jsonl", folder / "ideas.jsonl"
    pairs = demonstrations(60 if quick else 800, seed)
    shown.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in pairs))
    judged = 8 if quick else 200
    rows = [
        {"prompt": instruction(idea), "split": "train" if place < prompts else "test"}
        for place, idea in enumerate(ideas(prompts + judged, seed))
    ]
    asked.write_text("".join(json.dumps(row) + "\n" for row in rows))
    importing.run(project, ImportConfig((shown, asked), project=folder))
    sft.run(project, SftConfig(folder, seed=seed, limit=60 if quick else None))
    return project


def arm(
    base: Callable[[], Project], taste: str, select: str, votes: int, seed: int, quick: bool
) -> dict[str, Any]:
    """Win rates of both kinds of DPO, the reward's accuracy by the taste, and the hours of reading."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "arm"
        shutil.copytree(base().folder, folder)
        project = Project.open(folder)
        who = SimulateConfig(
            folder, taste=taste, annotators=1, votes=votes, overlap=0.0, noise=0.0, seed=seed
        )
        simulate.run(project, SimulateConfig(**{**vars(who), "select": select}))
        hours = reading(project)
        learned = reward.run(project, RewardConfig(folder, seed=seed))
        alone = dpo.run(project, DpoConfig(folder, seed=seed))
        scoring.run(project, RewardScoreConfig(comparisons=True, project=folder))
        simulate.run(project, SimulateConfig(folder, scores=learned.id, seed=seed))
        both = dpo.run(project, DpoConfig(folder, seed=seed))
        found = wins(project, {"alone": alone.id, "labelled": both.id}, taste, seed, quick)
        return {**found, "reward": agreement(project, learned.id, taste), "hours": hours}


def wins(
    project: Project, models: dict[str, str], taste: str, seed: int, quick: bool
) -> dict[str, dict[str, float]]:
    """Of each model against the fine-tuned one by the taste, with intervals over prompts."""
    run = evaluate.run(
        project,
        EvalConfig(
            project.folder,
            models=("sft-1", *models.values()),
            baseline="sft-1",
            taste=taste,
            prompts=8 if quick else 200,
            seed=seed,
        ),
    )
    summary = json.loads((Path(run.path) / "summary.json").read_text())
    known = {one["name"]: one["against_baseline"] for one in summary["models"] if one["name"] != "sft-1"}
    return {
        kind: {name: float(known[model][taste]["win_rate"][name]) for name in ("value", "low", "high")}
        for kind, model in models.items()
    }


def agreement(project: Project, run_id: str, taste: str) -> float:
    """Share of pairs of the sampled completions that the reward orders as the taste does."""
    from palate.data.taste import TASTES

    with project.store() as store:
        rows = store.rows(
            "SELECT p.id, p.messages, m.text, s.mean FROM score s JOIN completion m ON m.id = s.completion_id "
            "JOIN prompt p ON p.id = m.prompt_id WHERE s.run_id = ? ORDER BY p.id, m.id", [run_id]
        )  # fmt: skip
    scored: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        asked = json.loads(row["messages"])[-1]["content"]
        scored.setdefault(row["id"], []).append((TASTES[taste].score(asked, row["text"]), row["mean"]))
    right = [
        float((a[1] - b[1]) * (a[0] - b[0]) > 0)
        for group in scored.values() for i, a in enumerate(group) for b in group[i + 1 :] if a[0] != b[0]
    ]  # fmt: skip
    return float(np.mean(right))


def reading(project: Project) -> float:
    """Hours that the votes took, by the stated timing model."""
    with project.store() as store:
        rows = store.rows(
            "SELECT v.id, len(any_value(v.completion_ids)) AS k, sum(len(string_split(m.text, ' '))) AS words "
            "FROM current_vote v, unnest(v.completion_ids) u(one) JOIN completion m ON m.id = u.one GROUP BY v.id"
        )
    return float(sum(row["words"] / 4 + 3 * (row["k"] - 1) ** 0.7 for row in rows) / 3600)


if __name__ == "__main__":
    main()
