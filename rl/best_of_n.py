"""Best of n as the bar for every policy: what choosing by the same reward among n answers of the start would give.

It needs no training, and its distance from the start is known: at most log n - (n - 1) / n nats. A policy that is further
away and scores less has learned nothing worth having.

    found = frontier(rewards)                     # (P, N) rewards of N answers to each of P prompts
    found.at_kl(3.2)                              # the mean reward that best of n has at this distance
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.generation import Sampled
from palate.reward.best import kl_bound


@dataclass(frozen=True)
class Frontier:
    """Mean reward of the best of n, for n = 1, 2, 4, ... N, and its distance in nats (an upper bound)."""

    n: tuple[int, ...]
    kl: tuple[float, ...]
    reward: tuple[float, ...]

    def at_kl(self, kl: float) -> float:
        """Mean reward at `kl` nats, linear in sqrt(KL) between the n; beyond the largest n its own, so a lower bound."""
        root = [math.sqrt(one) for one in self.kl]
        return float(np.interp(math.sqrt(max(kl, 0.0)), root, self.reward))

    def sentence(self, reward: float, kl: float) -> str:
        """How a policy of this reward and distance stands against it."""
        bar, n, far = self.at_kl(kl), self.n[-1], self.kl[-1]
        if kl > far:
            verdict = "more" if reward > bar else "no more: choosing among answers would do as well"
            return f"best of {n} has {bar:+.2f} at no more than {far:.1f} nats; the policy has {verdict}"
        verdict = "the policy has more" if reward > bar else "the policy has no more"
        return f"at {kl:.1f} nats choosing the best of several answers has {bar:+.2f}; {verdict}"

    def record(self) -> dict[str, list[float]]:
        """Plain values for a run's record."""
        return {"n": list(self.n), "kl": list(self.kl), "reward": list(self.reward)}


@dataclass(frozen=True)
class Standing:
    """A policy on some prompts."""

    reward: float
    kl: float
    length: float
    stop_rate: float

    @classmethod
    def of(
        cls,
        answers: Sequence[Sequence[Sampled]],
        rewards: Sequence[Sequence[float]] | NDArray[np.floating],
        kl: float,
    ) -> "Standing":
        """From its answers and their rewards, prompt by prompt; `kl` in nats per answer."""
        flat = [one for row in answers for one in row]
        return cls(
            float(np.mean(rewards)), kl, sum(len(one.token_ids) for one in flat) / len(flat),
            sum(one.finish_reason == "stop" for one in flat) / len(flat),
        )  # fmt: skip


def frontier(rewards: Sequence[Sequence[float]] | NDArray[np.floating]) -> Frontier:
    """From (P, N) rewards; the mean over all subsets of size n of their largest, without bias (as pass@k, Chen et al. 2021,
    https://arxiv.org/abs/2107.03374, eq. 1)."""
    ranked = np.sort(np.asarray(rewards, dtype=np.float64), axis=1)
    total = ranked.shape[1]
    sizes = [n for n in (2**power for power in range(12)) if n <= total]
    sizes += [total] if total not in sizes else []
    means = []
    for n in sizes:
        # the i-th smallest of N is the largest of a subset in C(i, n - 1) of C(N, n) cases
        weights = np.array([math.comb(i, n - 1) / math.comb(total, n) for i in range(total)])
        means.append(float((ranked @ weights).mean()))
    return Frontier(tuple(sizes), tuple(kl_bound(n) for n in sizes), tuple(means))
