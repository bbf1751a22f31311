"""Guards of online training: live signs of trouble, and the point from which more reward is no longer to be believed.

Over-optimisation (Gao et al. 2023, https://arxiv.org/abs/2210.10760): along a run the learned reward rises for ever, what
people would say rises and then falls. In d = sqrt(KL(policy || start)) the second follows R(d) = d (a - b log d)
(section 3.2, reinforcement learning). A learned reward with a Bayesian last layer says how unsure it is of the mean gain of
a whole batch: sd(d). The curve is fitted to the gain less CAUTION sd(d); its top, exp(a / b - 1), is where to stop.

    guard = Guard(mode, keep_every, folder, uncertainty)
    guard.see(step, experience, roles)         # before the updates of a step
    guard.stops()                              # whether to end
    guard.end(roles)                           # put the weights of the chosen checkpoint back
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from palate.reward.uncertainty import Uncertainty
from palate.rl.roles import POLICY, Roles
from palate.rl.rollouts import Experience, Figures

CAUTION = 1.0  # standard deviations of the mean gain taken off it
FEWEST = 6  # points of the path before the curve is believed
PAST = 1.15  # d beyond so many times the top's: over-optimised


class Point(NamedTuple):
    """The policy before the updates of `step`: nats per completion from the start, mean reward, how unsure of the gain."""

    step: int
    kl: float
    reward: float
    sd: float  # of the gain over the first point; 0 where the reward does not know


class Curve(NamedTuple):
    """R(d) = d (a - b log d)."""

    a: float
    b: float

    def at(self, d: float) -> float:
        """The gain at distance d >= 0."""
        return d * (self.a - self.b * math.log(d)) if d > 0 else 0.0

    @property
    def top(self) -> float:
        """The distance of the largest gain; infinite where the curve only rises."""
        return math.exp(min(self.a / self.b - 1.0, 50.0)) if self.b > 0 else math.inf


@dataclass
class Guard:
    """Watches the path of one run."""

    mode: Literal["stop", "warn", "off"]
    keep_every: int
    folder: Path | None  # where checkpoints of the policy lie meanwhile; None: a process that keeps no books
    uncertainty: Uncertainty | None = None
    scale: float = 1.0  # log-odds per unit of reward
    start: Tensor | None = None  # (D,) mean state of the first rollout
    path: list[Point] = field(default_factory=list)
    chosen: int | None = None  # the step whose weights were put back; None: the last

    def see(self, step: int, experience: Experience, roles: Roles) -> None:
        """Take a point of the path, and keep the policy now and then."""
        gain = experience.gain
        if self.start is None and gain.states is not None:
            self.start = gain.states
        sd = 0.0
        if self.uncertainty is not None and gain.states is not None and self.start is not None:
            moved = (gain.states - self.start).numpy()[None]
            sd = float(self.uncertainty.margin_sd(moved)[0]) / self.scale
        self.path.append(Point(step, experience.kl, gain.reward, sd))
        if self.mode != "off" and self.folder is not None and step % self.keep_every == 0:
            self.folder.mkdir(exist_ok=True)
            weights = {
                name: one.detach().cpu().contiguous() for name, one in roles.parameters(POLICY).items()
            }
            save_file(weights, self._file(step))

    def stops(self) -> bool:
        """Whether the path is past the top, so that going on makes it worse."""
        if self.mode != "stop":
            return False
        curve = fit(self.path)
        return curve is not None and math.sqrt(max(self.path[-1].kl, 0.0)) > PAST * curve.top

    def end(self, roles: Roles) -> None:
        """Put the kept policy nearest to the top back, where the run went past it."""
        curve = fit(self.path) if self.mode != "off" else None
        if curve is None or math.sqrt(max(self.path[-1].kl, 0.0)) <= curve.top:
            return
        kept = [point for point in self.path if point.step % self.keep_every == 0]
        best = max(kept, key=lambda point: curve.at(math.sqrt(max(point.kl, 0.0))))
        self.chosen = best.step
        if self.folder is None:
            return
        weights = load_file(self._file(best.step))
        with torch.no_grad():
            for name, parameter in roles.parameters(POLICY).items():
                parameter.copy_(weights[name])

    def sentence(self) -> str:
        """What the guard did, and why; empty where it had nothing to do."""
        if self.chosen is None:
            return ""
        curve = fit(self.path)
        kept = next(point for point in self.path if point.step == self.chosen)
        assert curve is not None
        return (
            f"kept the policy of step {self.chosen} ({kept.kl:.1f} nats, reward {kept.reward:+.2f}): beyond "
            f"{curve.top**2:.1f} nats the reward's gain less its uncertainty falls, so what it still gains is not to be believed"
        )

    def record(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"start": self.start, "path": [list(point) for point in self.path], "chosen": self.chosen}

    def resume(self, record: dict[str, Any]) -> None:
        """What `record` kept."""
        self.start, self.chosen = record["start"], record["chosen"]
        self.path = [Point(int(p[0]), *p[1:]) for p in record["path"]]

    def _file(self, step: int) -> Path:
        assert self.folder is not None
        return self.folder / f"policy-{step:05d}.safetensors"


def fit(path: Sequence[Point]) -> Curve | None:
    """Least squares of the careful gain on d (a - b log d); None while there are too few points away from the start."""
    away = [point for point in path if point.kl > 0.01]
    if len(away) < FEWEST:
        return None
    d = np.sqrt([point.kl for point in away])
    y = np.array([point.reward - path[0].reward - CAUTION * point.sd for point in away])
    (a, b), *_ = np.linalg.lstsq(np.stack([d, -d * np.log(d)], 1), y, rcond=None)
    return Curve(float(a), float(b))


def warnings(history: Sequence[Figures]) -> list[str]:
    """Sentences about what looks wrong at the end of a run, from its first and last tenth."""
    if not history:
        return []
    size = max(1, len(history) // 10)
    first, last = (
        {name: sum(row.get(name, 0.0) for row in rows) / len(rows) for name in rows[0]}
        for rows in (history[:size], history[-size:])
    )
    found = []
    if last["stop_rate"] < min(0.9, first["stop_rate"] - 0.05):
        found.append(
            f"answers that end by themselves fell from {first['stop_rate']:.0%} to {last['stop_rate']:.0%}: raise "
            "--missing-eos-penalty or --max-new-tokens"
        )
    if last["length"] > 1.5 * first["length"]:
        found.append(
            f"answers grew from {first['length']:.0f} to {last['length']:.0f} tokens: the reward may like length more than "
            "people do (compare length-matched in palate eval), --overlong-buffer limits it"
        )
    if last["entropy"] < 0.4 * first["entropy"]:
        found.append(
            f"the policy's entropy fell from {first['entropy']:.2f} to {last['entropy']:.2f} nats: it says the same again and "
            "again; raise --kl or lower --learning-rate"
        )
    if last["distinct_2"] < 0.5 * first["distinct_2"]:
        found.append(
            f"different word pairs fell from {first['distinct_2']:.0%} to {last['distinct_2']:.0%} of all: raise --kl"
        )
    if last.get("clip_share", 0.0) > 0.3:
        found.append(
            f"{last['clip_share']:.0%} of the tokens were clipped: lower --learning-rate or --ppo-epochs"
        )
    if last["reward_sd"] < 0.05 * max(first["reward_sd"], 1e-9):
        found.append("all answers get the same reward by now: nothing is left to learn from")
    if last["reward"] - first["reward"] < 0.05 * max(first["reward_sd"], 1e-9):
        found.append("the reward hardly rose: raise --learning-rate or --steps, or lower --kl")
    return found
