"""Two rounds against one, for the same votes: is it worth asking again about what the new policy writes?

For every seed, on the fine-tuned built-in model, by the hidden taste's rule annotators: `palate loop --rounds 2` with
`--votes` rankings of four a round, and as the control one round with twice as many. Figures are win rates against the
fine-tuned model by that taste on 200 held-out prompts; `gain` is the second round's less the control's, on the same prompts.

    python benchmarks/rounds.py [--quick] [--seeds 3] [--votes 150] [--policy dpo] [--log FILE]

Finished seeds are kept in --log.
"""

import argparse
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import finish, in_a_folder, kept
from one_hour import fine_tuned, wins

from palate import loop
from palate.config import LoopConfig
from palate.project import Project

TASTE = "vivid"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run: small, proves nothing")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--votes", type=int, default=150, help="rankings in each of two rounds")
    parser.add_argument("--policy", choices=["dpo", "ppo"], default="dpo")
    parser.add_argument("--log", type=Path, default=Path(tempfile.gettempdir()) / "palate-rounds.jsonl")
    given = parser.parse_args()
    if given.quick:
        given.seeds, given.votes, given.log = 1, 8, Path(tempfile.mkdtemp()) / "log.jsonl"
    wanted = [
        kept(
            given.log,
            {"seed": seed, "votes": given.votes, "policy": given.policy},
            partial(in_a_folder, one_seed, seed, given),
        )
        for seed in range(given.first, given.first + given.seeds)
    ]
    names = ("first", "second", "control")
    means = {name: float(np.mean([one[name]["value"] for one in wanted])) for name in names}
    gains = [one["second"]["value"] - one["control"]["value"] for one in wanted]
    ours = {
        **{name: means[name] for name in ("first", "second")},
        "gain": float(np.mean(gains)),
        "least_gain": min(gains),
    }
    finish(
        "rounds", {"second": means["second"] / means["control"]}, {"second": ours}, {"second": {"control": means["control"]}},
        {**vars(given), "log": str(given.log)},
    )  # fmt: skip


def one_seed(place: Path, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Win rates of both rounds' policies and of the control's."""
    start = fine_tuned(place / "start", 2 * given.votes, seed, given.quick)
    found: dict[str, Any] = {}
    for arm, rounds, prompts in (("rounds", 2, given.votes), ("control", 1, 2 * given.votes)):
        folder = place / arm
        shutil.copytree(start.folder, folder)
        project = Project.open(folder)
        ran = loop.run(
            project,
            LoopConfig(
                folder, base="sft-1", rounds=rounds, prompts=prompts, taste=TASTE, policy=given.policy, eval=False,
                source="ideas.jsonl", seed=seed,
            ),
        )  # fmt: skip
        policies = [one["policy"] for one in ran.metrics["rounds"]]
        models = (
            {"control": policies[0]} if arm == "control" else {"first": policies[0], "second": policies[1]}
        )
        found |= wins(project, models, TASTE, seed, given.quick)
    return found


if __name__ == "__main__":
    main()
