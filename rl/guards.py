"""Guards of online training: live signs of trouble, and the point from which more reward is no longer to be believed.

Over-optimisation (Gao et al. 2023, https://arxiv.org/abs/2210.10760): along a run the learned reward rises for ever, what
people would say rises and then falls. In people's place stands what the votes say of the gain with some certainty: its mean less
CAUTION standard deviations, by a Bayesian head on frozen features (belief.py). Distance has a price too, as a policy that goes
on for little gain mostly grows monotonous: PRICE of the largest gain per nat. The policy is kept where the rest is largest, and
training ends when it has been materially below that for PATIENCE points. Both numbers were chosen on seeds that
benchmarks/over_optimisation.py does not report.

The curve of Gao et al. in d = sqrt(KL(policy || start)), R(d) = d (a - b log d), is fitted to the same points and reported. It
does not choose: a policy that collapses comes back nearer to its start, so the distance alone does not tell before from after.

    guard = Guard(mode, keep_every, folder, belief)
    guard.see(step, kl, reward, states, weights)   # before the updates of a step
    guard.stops()                                  # whether to end
    guard.end(weights)                             # put the weights of the chosen checkpoint back
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from palate.rl.belief import Belief

CAUTION = 0.5  # standard deviations taken off the mean gain
PRICE = 0.025  # of the largest certain gain, per nat
PATIENCE = 4  # points that all have to be worse before training ends
MATERIAL = 0.1  # of the largest certain gain: what has to be lost
STILL = 0.01  # nats per token: no change
DRIFT = -0.5  # nats per token below the reference at which chosen answers are being unlearned too
FEWEST = 5  # points away from the start before the curve is fitted


Figures = dict[str, float]


class Point(NamedTuple):
    """The policy before the updates of `step`."""

    step: int
    kl: float  # nats per completion from the start
    reward: float  # mean, of the learned reward
    gain: float  # over the start, as the votes have it, log-odds
    sd: float  # its standard deviation

    @property
    def d(self) -> float:
        """sqrt(KL)."""
        return math.sqrt(max(self.kl, 0.0))

    @property
    def certain(self) -> float:
        """The gain less its uncertainty."""
        return self.gain - CAUTION * self.sd


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
    """Watches the path of one run, every `keep_every` steps."""

    mode: Literal["stop", "warn", "off"]
    keep_every: int
    folder: Path | None  # where checkpoints of the policy lie meanwhile; None: a process that keeps no books
    belief: Belief | None = None  # None: no votes to hold the policy against, so nothing is chosen
    path: list[Point] = field(default_factory=list)
    chosen: int | None = None  # the step whose weights were put back; None: the last

    def due(self, step: int) -> bool:
        """Whether the path has a point at this step."""
        return self.mode != "off" and self.belief is not None and step % self.keep_every == 0

    def see(
        self,
        step: int,
        kl: float,
        reward: float,
        states: Callable[[], NDArray[np.floating]],
        weights: Mapping[str, Tensor],
    ) -> None:
        """Take a point of the path where one is due, and keep the policy, whose trained `weights` these are.

        `kl` is in nats per answer from the start; `states` gives the mean (H,) of what the start reads in the answers.
        """
        if not self.due(step):
            return
        assert self.belief is not None
        self.path.append(Point(step, kl, reward, *self.belief.gain(states())))
        if self.folder is not None:
            self.folder.mkdir(exist_ok=True)
            kept = {name: one.detach().cpu().contiguous() for name, one in weights.items()}
            save_file(kept, self._file(step))

    def stops(self) -> bool:
        """Whether the path has been materially worse than at its best for a while."""
        if self.mode != "stop" or len(self.path) <= PATIENCE:
            return False
        best, lost = losses(self.path)
        return best < len(self.path) - PATIENCE and all(one > MATERIAL for one in lost[-PATIENCE:])

    def end(self, weights: Mapping[str, Tensor]) -> None:
        """Put the best of the kept policies back into `weights`, where the last one is materially worse."""
        if not self.path:
            return
        best, lost = losses(self.path)
        if lost[-1] <= MATERIAL:
            return
        self.chosen = self.path[best].step
        if self.folder is None:
            return
        kept = load_file(self._file(self.chosen))
        with torch.no_grad():
            for name, parameter in weights.items():
                parameter.copy_(kept[name])

    def sentence(self) -> str:
        """What the guard did, and why; empty where it had nothing to do."""
        if self.mode != "off" and self.belief is None:
            return "no reward run among the sources, so no votes to hold the policy against: nothing guards against over-optimisation"
        if self.chosen is None:
            return ""
        kept = next(point for point in self.path if point.step == self.chosen)
        last = self.path[-1]
        return (
            f"kept the policy of step {self.chosen} ({kept.kl:.1f} nats, reward {kept.reward:+.2f}): from there to step "
            f"{last.step} ({last.kl:.1f} nats) the reward went to {last.reward:+.2f}, but what the votes say with some certainty "
            f"went from {kept.certain:+.2f} to {last.certain:+.2f} log-odds, too little for the distance"
        )

    def record(self) -> dict[str, Any]:
        """For a checkpoint."""
        start = (
            None if self.belief is None or self.belief.start is None else torch.from_numpy(self.belief.start)
        )
        return {"start": start, "path": [list(point) for point in self.path], "chosen": self.chosen}

    def resume(self, record: dict[str, Any]) -> None:
        """What `record` kept."""
        if self.belief is not None and record["start"] is not None:
            self.belief.start = record["start"].numpy()
        self.chosen = record["chosen"]
        self.path = [Point(int(p[0]), *p[1:]) for p in record["path"]]

    def _file(self, step: int) -> Path:
        assert self.folder is not None
        return self.folder / f"policy-{step:05d}.safetensors"


def losses(path: Sequence[Point]) -> tuple[int, list[float]]:
    """(the place of the best point, what every point is worth less than it, in shares of the largest certain gain).

    A point is worth its certain gain less the price of its distance, averaged with its neighbours': a batch is noisy. While
    nothing is gained with certainty, nothing can be lost: the last point is the best.
    """
    certain = np.array([point.certain for point in path])
    largest = float(certain.max())
    if largest <= 0:
        return len(path) - 1, [0.0] * len(path)
    worth = certain / largest - PRICE * np.array([max(point.kl, 0.0) for point in path])
    smooth = np.array([worth[max(0, i - 1) : i + 2].mean() for i in range(len(worth))])
    return int(smooth.argmax()), (smooth.max() - smooth).tolist()


def fit(path: Sequence[Point]) -> Curve | None:
    """Least squares of the certain gain on d (a - b log d); None while there are too few points away from the start."""
    away = [point for point in path if point.kl > 0.01]
    if len(away) < FEWEST:
        return None
    d = np.array([point.d for point in away])
    y = np.array([point.certain for point in away])
    (a, b), *_ = np.linalg.lstsq(np.stack([d, -d * np.log(d)], 1), y, rcond=None)
    return Curve(float(a), float(b))


def likelihood_verdict(chosen: float, rejected: float) -> str:
    """What became of the answers that DPO learned from, in nats per token against the reference; a plain sentence.

    A margin can grow while both become less likely: the probability then goes to answers that nobody has ranked.
    """
    if rejected > STILL and rejected >= chosen:
        return (
            "verdict: rejected answers rose at least as much as chosen ones, so the votes were not learned: raise "
            "--learning-rate or --epochs, or look at palate stats for votes that contradict each other"
        )
    if chosen >= -STILL:
        fate = "rose" if chosen > STILL else "stayed as likely as they were"
        others = "fell" if rejected < -STILL else "rose less" if rejected > STILL else "hardly moved"
        learned = (
            ": as it should be" if chosen > STILL or rejected < -STILL else ", so hardly anything was learned"
        )
        return f"verdict: chosen answers {fate}, rejected ones {others}{learned}"
    if rejected >= chosen:
        return (
            "verdict: chosen answers became less likely, rejected ones not more so, so the votes were not learned: lower "
            "--learning-rate, or look at palate stats for votes that contradict each other"
        )
    if chosen < DRIFT:
        return (
            "verdict: chosen answers became much less likely too, so the model writes what nobody has ranked: lower "
            "--learning-rate or --epochs, raise --beta, or hold them with --sft-weight 0.1"
        )
    return (
        "verdict: chosen answers became a little less likely, rejected ones more so: usual, and harmless if palate eval says "
        "so; --sft-weight holds them"
    )


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
