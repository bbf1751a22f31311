"""Long PPO against a reward that a quarter of its votes misled: does the guard stop where the hidden taste is best?

For every seed, on the fine-tuned built-in model: 300 rankings of four answers, half of them given at random (25 % of the pairs
point the wrong way), a reward from them, PPO without a KL penalty for `--steps` rollouts. Every `keep_every` rollouts the
policy's answers to 64 prompts are judged by the hidden taste (gold), which neither reward nor guard know. A run over-optimises
when its last gold is at least 10 % of the best gain below it. Of these runs, the guard passes where the gain at the checkpoint
that it keeps is at least 97 % of the best on the path; beside it: always the last checkpoint, always the middle one.
Gold is smoothed over three checkpoints, since its own noise would choose the best.

The learning rate is half of the default's, so that the path has more checkpoints: at the default gold rises from nothing to its
best within five of them, and neighbours differ by a tenth of it, more than the 3 % that are asked about.

    python benchmarks/over_optimisation.py [--quick] [--seeds 5] [--steps 80] [--log FILE]

Finished runs are kept in --log.
"""

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import finish, in_a_folder, kept
from one_hour import start

from palate.config import PpoConfig, RewardConfig, SimulateConfig
from palate.data.taste import TASTES
from palate.generation import sample
from palate.hardware import probe
from palate.labeling import simulate
from palate.models import load
from palate.reward import train as reward
from palate.rl.guards import Guard, Point
from palate.rl.ppo import Ppo
from palate.rl.ppo_train import Task, prepare
from palate.rl.roles import Roles

TASTE = "vivid"
MEASURED = 64  # prompts
ANSWERS = 8
LOST, KEPT, SHARE = 0.10, 0.97, 0.80


class Watching(Guard):
    """The guard itself, and what the hidden taste says of the checkpoints it could keep."""

    gold: list[dict[str, Any]]
    every: list[Point]  # of each rollout, so that other rules can be tried on the same run
    prompts: list[Any]
    roles: Roles

    def see(self, step: int, kl: float, reward: float, states: Any, weights: Any) -> None:
        """The same, then gold."""
        assert self.belief is not None
        here = states()
        self.every.append(Point(step, kl, reward, *self.belief.gain(here)))
        super().see(step, kl, reward, lambda: here, weights)
        if step % self.keep_every:
            return
        with self.roles.writing() as policy:
            answers = sample(policy, self.prompts, ANSWERS, max_new_tokens=96, seed=1)
        score = TASTES[TASTE].score
        values = [
            float(np.mean([score(prompt[-1]["content"], one.text) for one in row]))
            for prompt, row in zip(self.prompts, answers, strict=True)
        ]
        self.gold.append(
            {"step": step, "gold": float(np.mean(values)), "se": float(np.std(values) / len(values) ** 0.5)}
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run: small, proves nothing")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--first", type=int, default=0, help="the first seed; settings were chosen on seeds 100 and up"
    )
    parser.add_argument("--steps", type=int, default=90)
    parser.add_argument(
        "--learning-rate", type=float, default=5e-4, help="half of `palate ppo`'s: see docstring"
    )
    parser.add_argument("--votes", type=int, default=300)
    parser.add_argument(
        "--log", type=Path, default=Path(tempfile.gettempdir()) / "palate-over-optimisation.jsonl"
    )
    given = parser.parse_args()
    if given.quick:
        given.seeds, given.steps, given.votes = 1, 11, 16
        given.log = Path(tempfile.mkdtemp()) / "log.jsonl"
    seeds = range(given.first, given.first + given.seeds)
    report(
        [
            kept(
                given.log,
                {
                    "seed": seed,
                    "steps": given.steps,
                    "votes": given.votes,
                    "learning_rate": given.learning_rate,
                },
                partial(in_a_folder, one_run, seed, given),
            )
            for seed in seeds
        ],
        given,
    )


def one_run(place: Path, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Path, gold along it, and what was kept."""
    folder = place / "project"
    project = start(folder, given.votes, 4, seed, given.quick)
    simulate.run(project, SimulateConfig(folder, TASTE, laziness=0.5, noise=0.0, overlap=0.0, seed=seed))
    reward.run(project, RewardConfig(folder, seed=seed, learning_curve=False))
    config = PpoConfig(
        folder, base="sft-1", reward=("reward-1",), steps=given.steps, learning_rate=given.learning_rate, kl=0.0,
        seed=seed, guard="warn",
        batch_size=16 if given.quick else 128, source="ideas.jsonl",
    )  # fmt: skip
    loaded = load(project, "sft-1", probe())
    with project.store() as store:
        rows = store.rows("SELECT messages FROM prompt WHERE source = 'ideas.jsonl' ORDER BY id")
    prompts = [json.loads(row["messages"]) for row in rows]
    ppo = prepare(project, Task(config, prompts, folder / "snapshots"), loaded)
    watched(ppo, prompts[: 8 if given.quick else MEASURED])
    history = ppo.optimise(lambda *_, **__: None)
    guard = ppo.guard
    assert isinstance(guard, Watching)
    figures = judged(guard.gold, guard.chosen)
    return {
        "path": [list(point) for point in guard.path], "every": [list(point) for point in guard.every], "gold": guard.gold, "chosen": guard.chosen, **figures,
        "reward_accuracy": project.run("reward-1").metrics["votes"]["scores"]["value"] if project.run("reward-1").metrics.get("votes") else None,
        "watched": [{name: row[name] for name in ("entropy", "distinct_2", "length", "reward_sd")} for row in history],
    }  # fmt: skip


def watched(ppo: Ppo, prompts: list[Any]) -> None:
    """Put the watching guard in the place of the plain one."""
    guard = Watching(**{name: value for name, value in vars(ppo.guard).items()})
    guard.gold, guard.every, guard.prompts, guard.roles = [], [], prompts, ppo.roles
    ppo.guard = guard


def judged(gold: list[dict[str, Any]], chosen: int | None) -> dict[str, float]:
    """Gains over the start: the best on the path, and what is kept by the guard, by the last and by the middle one."""
    raw = np.array([one["gold"] for one in gold])
    smooth = np.array([raw[max(0, i - 1) : i + 2].mean() for i in range(len(raw))])
    gains = smooth - raw[0]
    steps = [one["step"] for one in gold]
    at = len(steps) - 1 if chosen is None else steps.index(chosen)
    best = float(gains.max())
    return {
        "best_gain": best, "kept": float(gains[at]) / best, "last": float(gains[-1]) / best,
        "middle": float(gains[len(gains) // 2]) / best,
    }  # fmt: skip


def report(done: list[dict[str, Any]], given: argparse.Namespace) -> None:
    """Shares of over-optimising runs in which each rule keeps enough."""
    lost = [one for one in done if one["last"] <= 1 - LOST]
    shares = {
        rule: float(np.mean([one[rule] >= KEPT for one in lost])) if lost else float("nan")
        for rule in ("kept", "last", "middle")
    }
    ours = {
        "runs": len(done), "over_optimised": len(lost), "share_kept": shares["kept"],
        "kept": [round(one["kept"], 3) for one in lost], "kept_of_others": [round(one["kept"], 3) for one in done if one not in lost],
    }  # fmt: skip
    peer = {
        "share_last": shares["last"],
        "share_middle": shares["middle"],
        "last": [round(one["last"], 3) for one in lost],
    }
    ratios = {"guard": shares["kept"] / SHARE} if lost else {}
    finish(
        "over_optimisation", ratios, {"guard": ours}, {"guard": peer}, {**vars(given), "log": str(given.log)}
    )


if __name__ == "__main__":
    main()
