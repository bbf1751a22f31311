"""`palate grpo`: group relative policy optimisation (Shao et al. 2024, https://arxiv.org/abs/2402.03300).

    palate grpo                 or   run(Project.open(folder), GrpoConfig(folder))

An answer's advantage is its reward less the mean over the prompt's answers, in standard deviations (eq. in section 4.1.2);
each token has a clipped ratio of its own, and the distance from the reference is part of the loss. TRL's GRPOTrainer
computes that; sampling, rewards and guards are ours (online_trl.py), and so is the run around it (online_run.py).
"""

from typing import Any

from trl import GRPOConfig as TrlConfig
from trl import GRPOTrainer

from palate.config import GrpoConfig, UserError
from palate.data.records import Run
from palate.project import Project
from palate.rl.online_run import Method, train
from palate.rl.online_trl import OwnRollouts


class Grpo(OwnRollouts, GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer on our rollouts."""

    def _generate_single_turn(self, *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        return super()._generate_single_turn(), None


def run(project: Project, asked: GrpoConfig) -> Run:
    """Train a policy by what its reward says of what it writes; returns the finished run."""
    if asked.clip_high is not None and asked.clip_high <= 0:
        raise UserError(f"--clip-high must be above 0, got {asked.clip_high}")
    return train(project, asked, METHOD)


def settings(config: GrpoConfig) -> dict[str, Any]:
    """What GRPO has for itself among TRL's settings."""
    return {
        "beta": config.kl,
        "epsilon": config.clip,
        "epsilon_high": config.clip_high,
        "loss_type": config.loss,
        "scale_rewards": config.scale,
    }


METHOD = Method("grpo", Grpo, TrlConfig, settings)
