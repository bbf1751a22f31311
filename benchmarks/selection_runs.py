"""One annotator with a hidden taste votes on pairs of a pool, chosen live or by chance: the curve of accuracy.

The loop is the labeling server's: the head learns from each vote by a rank-one step, is refitted by evidence every
REFIT votes, and the next pair is the best of CANDIDATES drawn from those not asked yet.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from candidate_pool import Floats, Pool

from palate.labeling.selection.control import Control, Verdict
from palate.labeling.selection.information import diversity, gains, unsure
from palate.linear_head import LinearHead

CANDIDATES = 1500
REFIT = 20


@dataclass(frozen=True)
class Task:
    """What one annotator is asked, and by what it is judged. Pairs of the train prompts; all test pairs."""

    pairs: Floats  # (N, 2, D)
    better: Floats  # (N,) 1 the first, 0 the second, 0.5 as good
    prompt: Floats  # (N, D) the prompt's mean completion
    judged: Floats  # (M, D) differences, better less worse


@dataclass(frozen=True)
class Curve:
    votes: list[int]
    accuracy: list[float]  # on held-out prompts, against the taste itself
    seconds: list[float]  # of update and choice, each vote
    verdict: Verdict | None  # of the control, at the end
    off_at: int | None  # votes when choosing went off


def task(pool: Pool, taste: str, seed: int, redundant: bool = False) -> Task:
    """A fifth of the prompts is held out. `redundant`: train prompts are drawn by Zipf's law, so that a few kinds make
    up most of the pool (each prompt's copies are prompts of the same kind, nearest in features)."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pool.features))
    test, train = order[: len(order) // 5], order[len(order) // 5 :]
    if redundant:
        train = _by_zipf(pool.features.mean(axis=1), train, rng)
    scores = pool.tastes[taste]
    first, second = np.array(list(combinations(range(pool.features.shape[1]), 2))).T
    x, s = pool.features[train], scores[train]
    pairs = np.stack([x[:, first], x[:, second]], axis=2).reshape(-1, 2, x.shape[-1])
    gap = (s[:, first] - s[:, second]).ravel()
    prompt = np.repeat(x.mean(axis=1), len(first), axis=0)
    tx, ts = pool.features[test], scores[test]
    tz = (tx[:, first] - tx[:, second]).reshape(-1, x.shape[-1])
    tgap = (ts[:, first] - ts[:, second]).ravel()
    return Task(pairs, 0.5 + 0.5 * np.sign(gap), prompt, (tz * np.sign(tgap)[:, None])[tgap != 0])


def run(
    given: Task,
    flips: float,
    seed: int,
    live: bool,
    votes: int,
    random_share: float = 0.15,
    controlled: bool = True,
    beta: float = 0.0,
    choose_by: str = "unsure",
    every: int = 20,
) -> Curve:
    """Ask for `votes` votes; `choose_by` "information" is D-optimal; "chance" with live: the control is told of choices that are none (A/A)."""
    rng = np.random.default_rng([seed, int(live)])
    size = given.pairs.shape[-1]
    z = given.pairs[:, 0] - given.pairs[:, 1]
    left = np.ones(len(z), dtype=bool)
    head = LinearHead.prior(size, precision=float(np.mean(z * z)) * size)
    control = Control(given.pairs[rng.permutation(len(z))[:1024]], random_share, seed)
    asked: list[int] = []
    outcomes: list[float] = []
    curve = Curve([], [], [], None, None)
    verdict, off_at = None, None
    for number in range(1, votes + 1):
        begun = time.perf_counter()
        share = (control.share if controlled else random_share) if live else 1.0
        chosen = live and rng.random() >= share
        options = np.flatnonzero(left)
        if chosen and choose_by != "chance":
            options = rng.choice(options, min(CANDIDATES, len(options)), replace=False)
            score = {"unsure": unsure, "information": gains}[choose_by](head, given.pairs[options])
            if beta and asked:
                score = score * np.exp(beta * diversity(given.prompt[options], given.prompt[asked]))
            picked = int(options[np.argmax(score)])
        else:
            picked = int(rng.choice(options))
        left[picked] = False
        truth = given.better[picked] if given.better[picked] != 0.5 else float(rng.random() < 0.5)
        outcome = 1 - truth if rng.random() < flips else truth
        if live and controlled:
            best, worst = (0, 1) if outcome == 1 else (1, 0)
            verdict = control.add(head, given.pairs[picked], best, worst, chosen)
            if not verdict.on and off_at is None:
                off_at = number
        asked.append(picked)
        outcomes.append(outcome)
        if number % REFIT == 0:
            head = LinearHead.by_evidence(z[asked], np.array(outcomes))
        else:
            head.update(z[picked], outcome)
        curve.seconds.append(time.perf_counter() - begun)
        if number % every == 0:
            curve.votes.append(number)
            curve.accuracy.append(accuracy(head, given.judged))
    return Curve(curve.votes, curve.accuracy, curve.seconds, verdict, off_at)


def accuracy(head: LinearHead, judged: Floats) -> float:
    """Share of held-out pairs on which the head agrees with the taste."""
    margin = judged @ head.mean
    return float(np.mean((margin > 0) + 0.5 * (margin == 0)))


def votes_needed(curves: Sequence[Curve], target: float, smooth: int = 3) -> float:
    """Votes at which the mean curve, as a moving mean of `smooth` points, first reaches `target`; inf if it never does."""
    mean = np.mean([curve.accuracy for curve in curves], axis=0)
    kernel = np.ones(smooth)
    mean = np.convolve(mean, kernel, "same") / np.convolve(np.ones(len(mean)), kernel, "same")
    at = np.array(curves[0].votes, dtype=np.float64)
    above = np.flatnonzero(mean >= target)
    if len(above) == 0:
        return float("inf")
    place = int(above[0])
    if place == 0:
        return float(at[0])
    below = mean[place - 1]
    return float(
        at[place - 1] + (target - below) / max(mean[place] - below, 1e-12) * (at[place] - at[place - 1])
    )


def _by_zipf(means: Floats, train: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many train prompts, drawn without replacement where it can be: kind r (of 20, nearest centres) with 1 / r."""
    centres = means[rng.choice(train, 20, replace=False)]
    kind = np.argmin(((means[train][:, None] - centres[None]) ** 2).sum(axis=2), axis=1)
    weight = 1.0 / (1 + rng.permutation(20))[kind]
    return np.asarray(rng.choice(train, len(train), replace=True, p=weight / weight.sum()))


def reached(at: Floats, curve: Floats, target: float) -> float:
    """Where a curve (n,) over `at` (n,) first reaches `target`, linear in between; inf if it never does."""
    above = np.flatnonzero(curve >= target)
    if len(above) == 0:
        return float("inf")
    place = int(above[0])
    if place == 0:
        return float(at[0])
    share = (target - curve[place - 1]) / max(curve[place] - curve[place - 1], 1e-12)
    return float(at[place - 1] + share * (at[place] - at[place - 1]))


def interval(figure: Callable[[np.ndarray], float], seeds: int, draws: int = 1000) -> tuple[float, float]:
    """95 % interval of a figure of seeds (their numbers, an array), by the bootstrap over seeds."""
    rng = np.random.default_rng(0)
    found = [figure(rng.integers(0, seeds, seeds)) for _ in range(draws)]
    low, high = np.quantile(found, [0.025, 0.975], method="nearest")
    return float(low), float(high)
