"""How many completions should one comparison show? Accuracy of a reward per second of an annotator's time, K = 2, 3, 4, 6.

Simulated: completions of the fine-tuned built-in model, hidden tastes as annotators, rankings with noise (Plackett and
Luce) as large as to get `--flips` of random pairs wrong. The timing model is an assumption, stated, and varied:

    seconds = words shown * --per-word + --decision * (K - 1) ** --power

Each comparison shows K of a prompt's six completions, drawn by chance; the reward is the linear head on all C(K, 2)
pairs of each ranking, weighted by 2 / K. A figure is the time that K = 2 takes over the time that K takes to reach the
accuracy K = 2 has after the whole time (over 1: K is faster), with a 95 % interval over seeds.

    python benchmarks/k_lever.py [--quick] [--minutes 60] [--per-word .25] [--decision 3] [--power .7] [--flips .1]
"""

import argparse
from itertools import combinations

import candidate_pool
import numpy as np
from candidate_pool import Floats
from common import finish
from selection_runs import interval, reached

from palate.linear_head import LinearHead

SIZES = (2, 3, 4, 6)
POINTS = 12  # of each curve


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run: small, proves nothing")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument(
        "--per-word", type=float, default=0.25, help="seconds to read a word (240 words a minute)"
    )
    parser.add_argument("--decision", type=float, default=3.0, help="seconds to decide between two")
    parser.add_argument("--power", type=float, default=0.7, help="of K - 1, by which deciding gets longer")
    parser.add_argument("--flips", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--size", type=int, default=64)
    given = parser.parse_args()
    prompts, seeds = (40, 2) if given.quick else (600, given.seeds)
    pool = candidate_pool.load(prompts, 6, given.size)
    budget = np.linspace(0, given.minutes * 60, POINTS + 1)[1:]
    timings = {
        "stated": (given.per_word, given.decision, given.power),
        "slow_readers": (2 * given.per_word, given.decision, given.power),
        "slow_deciders": (given.per_word, 2 * given.decision, given.power),
        "linear_deciding": (given.per_word, given.decision, 1.0),
    }
    ratios, ours = {}, {}
    for name, timing in timings.items():
        curves = {
            size: np.array([
                curve(pool, taste, size, timing, given.flips, seed, budget)
                for seed in range(seeds) for taste in pool.tastes
            ]).reshape(seeds, len(pool.tastes), -1).mean(axis=1)
            for size in SIZES
        }  # fmt: skip
        for size in SIZES[1:]:

            def ratio(rows: np.ndarray, size: int = size, curves: dict[int, Floats] = curves) -> float:
                target = curves[2][rows].mean(axis=0)[-1]
                return float(budget[-1] / reached(budget, curves[size][rows].mean(axis=0), target))

            low, high = interval(ratio, seeds)
            ratios[f"{name}_k{size}"] = ratio(np.arange(seeds))
            ours[f"{name}_k{size}"] = {
                "low": low,
                "high": high,
                "accuracy": float(curves[size][:, -1].mean()),
            }
        ours[f"{name}_k2"] = {"accuracy": float(curves[2][:, -1].mean())}
    finish("k_lever", ratios, ours, {}, vars(given) | {"prompts": prompts, "tastes": list(pool.tastes)})


def curve(
    pool: candidate_pool.Pool, taste: str, size: int, timing: tuple[float, float, float], flips: float, seed: int,
    budget: Floats,
) -> list[float]:  # fmt: skip
    """Accuracy on a fifth of the prompts after each of `budget` seconds."""
    rng = np.random.default_rng([seed, size])
    order = np.random.default_rng(seed).permutation(len(pool.words))
    test, train = order[: len(order) // 5], order[len(order) // 5 :]
    scores = pool.tastes[taste]
    noise = noise_of(scores[train], flips)
    first, second = np.array(list(combinations(range(pool.words.shape[1]), 2))).T
    gap = scores[test][:, first] - scores[test][:, second]
    judged = (pool.features[test][:, first] - pool.features[test][:, second]) * np.sign(gap)[..., None]
    judged = judged[gap != 0]
    won: list[Floats] = []
    seconds, found, place = 0.0, [], 0
    while place < len(budget):
        prompt = rng.choice(train)
        shown = rng.choice(pool.words.shape[1], size, replace=False)
        seconds += float(pool.words[prompt, shown].sum()) * timing[0] + timing[1] * (size - 1) ** timing[2]
        while place < len(budget) and seconds > budget[place]:
            z = np.array(won) if won else np.zeros((1, pool.features.shape[-1]))
            head = LinearHead.by_evidence(z, np.ones(len(z)), np.full(len(z), 2 / size))
            margin = judged @ head.mean
            found.append(float(np.mean((margin > 0) + 0.5 * (margin == 0))))
            place += 1
        ranking = shown[np.argsort(-(scores[prompt, shown] + noise * rng.gumbel(size=size)), kind="stable")]
        x = pool.features[prompt][ranking]
        won.extend(x[i] - x[j] for i, j in combinations(range(size), 2))
    return found


def noise_of(scores: Floats, flips: float) -> float:
    """Scale of Gumbel noise at which `flips` (0..0.5) of the pairs of (P, K) scores are ranked the wrong way round."""
    if flips <= 0:
        return 1e-9
    first, second = np.triu_indices(scores.shape[1], 1)
    gap = np.abs(scores[:, first] - scores[:, second])
    gap = gap[gap > 0]
    low, high = 1e-4, 1e4
    for _ in range(60):
        scale = (low * high) ** 0.5
        wrong = float(np.mean(0.5 - 0.5 * np.tanh(np.minimum(0.5 * gap / scale, 300))))
        low, high = (scale, high) if wrong < flips else (low, scale)
    return scale


if __name__ == "__main__":
    main()
