"""`palate rloo`: REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740).

    palate rloo                 or   run(Project.open(folder), RlooConfig(folder))

An answer's advantage is its reward, less what leaving the reference costs, less the mean of the prompt's other answers
(eq. 5): no value model. TRL's RLOOTrainer computes loss and steps; sampling, rewards and guards are ours
(online_trl.py), and so is the run around it (online_run.py).
"""

from typing import Any

from trl import RLOOConfig as TrlConfig
from trl import RLOOTrainer

from palate.config import RlooConfig
from palate.data.records import Run
from palate.project import Project
from palate.rl.online_run import Method, train
from palate.rl.online_trl import OwnRollouts


class Rloo(OwnRollouts, RLOOTrainer):  # type: ignore[misc]
    """TRL's trainer on our rollouts."""


def run(project: Project, asked: RlooConfig) -> Run:
    """Train a policy by what its reward says of what it writes; returns the finished run."""
    return train(project, asked, METHOD)


def settings(config: RlooConfig) -> dict[str, Any]:
    """What RLOO has for itself among TRL's settings."""
    return {"beta": config.kl, "epsilon": config.clip, "normalize_advantages": config.normalize}


METHOD = Method("rloo", Rloo, TrlConfig, settings)
