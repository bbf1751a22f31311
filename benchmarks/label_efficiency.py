"""How many votes does live selection save? Simulated annotators with hidden tastes; real features of the built-in model.

Random's accuracy on held-out prompts after `--votes` votes is the target; a ratio is the votes random needs for it over
the votes live selection needs (over 1: fewer; 1.82 is 55 %, 1.43 is 70 %). 0 where it is not reached in as many votes.
Live selection is all of it: its 15 % by chance, its control's experiment, and chance again where the control turns
choosing off. `uniform` prompts are all different; `zipf` prompts repeat a few kinds, as real logs do. Intervals by the
bootstrap over seeds. Also how often the control turns choosing off by 200 votes, and p95 of update and choice.

    OPENBLAS_NUM_THREADS=1 python benchmarks/label_efficiency.py [--quick] [--seeds 10] [--votes 600] [--states last]
"""

import argparse
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import candidate_pool
import numpy as np
from common import finish
from selection_runs import Curve, Task, interval, reached, run, task

from palate.labeling.selection.learner import Learner, Settings
from palate.labeling.selection.pool import Candidate, Cast, Pool

FLIPS = (0.0, 0.1, 0.25)
BY = 200  # votes by which the control has to decide
Z95 = 1.96


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run: small, proves nothing")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--votes", type=int, default=600)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument(
        "--states", default="last+mean", help="features: last, mean or last+mean of the hidden states"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="of the pool of completions; 0 was used to choose the rule"
    )
    parser.add_argument(
        "--first", type=int, default=1000, help="the first task's seed; those below 100 likewise"
    )
    parser.add_argument("--runs", type=int, default=100, help="of the control, per case")
    parser.add_argument("--kinds", nargs="+", default=["uniform", "zipf"], choices=["uniform", "zipf"])
    given = parser.parse_args()
    prompts = 1000
    if given.quick:
        prompts, given.seeds, given.votes, given.runs, given.size = 120, 2, 100, 4, 16
    pool = candidate_pool.load(prompts, 4, given.size, given.seed, tuple(given.states.split("+")))
    ratios: dict[str, float] = {}
    ours: dict[str, Any] = {}
    # live selection first, then what it is made of
    for name, rule in (("", "unsure"), ("_uncontrolled", "unsure"), ("_d_optimal", "information")):
        for kind in given.kinds:
            for flips in FLIPS:
                case = f"{'' if kind == 'uniform' else kind + '_'}flips_{round(100 * flips)}{name}"
                ratios[case], ours[case] = compare(
                    pool, kind == "zipf", flips, rule, name == "", given.seeds, given.votes, given.first
                )
    control = switch_off(pool, given.runs, given.first)
    finish("label_efficiency", ratios, ours, {}, vars(given), control=control, p95_ms=speed())


def compare(
    pool: candidate_pool.Pool,
    redundant: bool,
    flips: float,
    rule: str,
    controlled: bool,
    seeds: int,
    votes: int,
    start: int,
) -> tuple[float, dict[str, float]]:
    """(random's votes / ours, with interval and accuracies); all tastes together."""
    tasks = [task(pool, taste, start + seed, redundant) for seed in range(seeds) for taste in pool.tastes]
    by = [start + number // len(pool.tastes) for number in range(len(tasks))]
    chance = by_chance(tasks, by, redundant, flips, votes)
    chosen = []
    for one, seed in zip(tasks, by, strict=True):
        chosen.append(run(one, flips, seed, True, votes, controlled=controlled, choose_by=rule))
    shape = (seeds, len(pool.tastes), -1)
    a, b = (np.array([c.accuracy for c in curves]).reshape(shape).mean(axis=1) for curves in (chance, chosen))
    at = np.array(chance[0].votes, dtype=np.float64)

    def ratio(rows: np.ndarray) -> float:
        target = float(a[rows].mean(axis=0)[-1])
        needed = reached(at, b[rows].mean(axis=0), target)
        return reached(at, a[rows].mean(axis=0), target) / needed

    low, high = interval(ratio, seeds)
    figures = {"low": low, "high": high, "accuracy": float(b[:, -1].mean()), "random": float(a[:, -1].mean())}
    difference = b[:, -1] - a[:, -1]
    figures["difference_error"] = float(difference.std(ddof=1) / seeds**0.5)
    figures["off"] = float(np.mean([curve.off_at is not None for curve in chosen]))
    print(
        f"  {'zipf' if redundant else 'uniform'}, flips {flips}, {rule}, controlled {controlled}: "
        f"{ratio(np.arange(seeds)):.2f} {figures}",
        flush=True,
    )
    return ratio(np.arange(seeds)), figures


_CHANCE: dict[tuple[bool, float], list[Curve]] = {}  # the control, once for all rules


def by_chance(tasks: list[Task], seeds: list[int], redundant: bool, flips: float, votes: int) -> list[Curve]:
    if (redundant, flips) not in _CHANCE:
        _CHANCE[redundant, flips] = [
            run(one, flips, seed, False, votes) for one, seed in zip(tasks, seeds, strict=True)
        ]
    return _CHANCE[redundant, flips]


def switch_off(pool: candidate_pool.Pool, runs: int, start: int) -> dict[str, Any]:
    """Shares of runs in which choosing is off after BY votes, by case, with Wilson's 95 % interval and the reasons."""
    found: dict[str, Any] = {}
    names = list(pool.tastes)
    for case, flips, by in (
        ("uninformative", 0.0, "unsure"), ("noise", 0.5, "unsure"), ("a_a", 0.1, "chance"),
        ("flips_0", 0.0, "unsure"), ("flips_10", 0.1, "unsure"), ("flips_25", 0.25, "unsure"),
    ):  # fmt: skip
        ended: list[Curve] = []
        for seed in range(start, start + runs):
            one = task(pool, names[seed % len(names)], seed)
            one = shuffled(one, seed) if case == "uninformative" else one
            ended.append(run(one, flips, seed, True, BY, choose_by=by))
        off = [curve for curve in ended if curve.verdict is not None and not curve.verdict.on]
        low, high = wilson(len(off), runs)
        reasons = Counter(curve.verdict.reason for curve in off if curve.verdict is not None)
        found[case] = {"off": len(off) / runs, "low": low, "high": high, "reasons": dict(reasons)}
        print(f"  control, {case}: {found[case]}", flush=True)
    return found


def shuffled(one: Task, seed: int) -> Task:
    """The same with features that belong to other completions."""
    flat = one.pairs.reshape(-1, one.pairs.shape[-1])
    order = np.random.default_rng(seed).permutation(len(flat))
    return replace(one, pairs=flat[order].reshape(one.pairs.shape))


def wilson(hits: int, count: int) -> tuple[float, float]:
    share = hits / count
    middle = share + Z95**2 / (2 * count)
    half = Z95 * (share * (1 - share) / count + Z95**2 / (4 * count**2)) ** 0.5
    return (middle - half) / (1 + Z95**2 / count), (middle + half) / (1 + Z95**2 / count)


def speed(size: int = 256, waiting: int = 1500, times: int = 200) -> dict[str, float]:
    """p95 in ms of learning from a vote and ranking all that wait, and of refits, by completions shown (synthetic)."""
    found = {}
    for k in (2, 4):
        rng = np.random.default_rng(k)
        matrix = rng.normal(size=((waiting + times) * k, size)).astype(np.float32)
        rows = [tuple(range(k * i, k * i + k)) for i in range(waiting + times)]
        every = [Candidate(f"c{i}", f"p{i}", one, 40.0 + i % 50) for i, one in enumerate(rows)]
        pool = Pool("features", {}, np.ones(len(matrix)), matrix, tuple(every), (), 0, False)
        learner, taken, refits = Learner(pool, Settings("information")), [], []
        taste = rng.normal(size=size) / size**0.5
        for i in range(times):
            order = sorted(rows[i], key=lambda row: -float(matrix[row] @ taste))
            pairs = tuple((a, b, 1.0) for place, a in enumerate(order) for b in order[place + 1 :])
            best, worst = rows[i].index(order[0]), rows[i].index(order[-1])
            vote = Cast(f"a{i}", "one", f"c{i}", f"p{i}", rows[i], pairs, best, worst, i % 3 > 0, 40.0, 6.0)
            begun = time.perf_counter()
            learner.learn(vote)
            learner.ranking(every[times:], every[i + 1 : i + 4])
            taken.append(1000 * (time.perf_counter() - begun))
            if learner.due:  # the server does it once the ranking stands
                begun = time.perf_counter()
                learner.refit()
                refits.append(1000 * (time.perf_counter() - begun))
        found[f"k{k}_refit"] = float(np.quantile(refits, 0.95))
        found[f"k{k}"] = float(np.quantile(taken, 0.95))
    return found


if __name__ == "__main__":
    main()
