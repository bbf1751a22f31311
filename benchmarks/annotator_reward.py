"""What is it worth to know who can be trusted? Ten simulated annotators, no pair labelled twice, no gold questions.

`bad`: six annotators err on 5 % of pairs, two on 25 %, one answers at random, one says the contrary (95 % wrong).
`equal`: all ten err on 15 %. On top of that all see answers with a judgement error of 0.3 of the taste's spread, as
`palate simulate` has it. Hidden tastes judge completions of the fine-tuned built-in model; features are its last
hidden states, and the length. Accuracy is against the noiseless taste on prompts that nobody voted on.

EM from N votes (palate.annotator_model) stands beside the same Bayesian head on all votes as they are (pooled) from N
and from 1.6 N votes, and beside EM that is told everybody's share of errors: what there is to gain. A ratio is the votes that pooling needs for EM's accuracy at N, over N: on the mean curve, 3 where
even three times as many do not reach it. Intervals: 95 %, over seeds (the mean of the tastes is one number).

    OPENBLAS_NUM_THREADS=1 python benchmarks/annotator_reward.py [--quick] [--seeds 10] [--size 64]
"""

import argparse
from typing import Any

import candidate_pool
import numpy as np
from common import finish
from scipy.stats import t as student
from tqdm import tqdm

from palate.annotator_model import Votes, fit
from palate.linear_head import LinearHead

CROWDS = {"bad": np.array([0.05] * 6 + [0.25] * 2 + [0.5, 0.95]), "equal": np.full(10, 0.15)}
BAD, WORST = np.arange(10) >= 6, np.arange(10) >= 8
SURE = 1e4  # votes that the prior counts as, where the errors are told
TIMES = (1.0, 1.3, 1.6, 2.0, 2.5, 3.0)  # as many votes for pooling
CLAIMED = TIMES.index(1.6)
NOISE = 0.3  # of the taste's spread
HELD_OUT = 0.3  # of the prompts
Figures = dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run: small, proves nothing")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--size", type=int, default=64)
    given = parser.parse_args()
    prompts, budgets = 1000, (300, 600, 1200)
    if given.quick:
        prompts, budgets, given.seeds, given.size = 120, (60,), 2, 8
    pool = candidate_pool.load(prompts, 4, given.size)
    ratios: dict[str, float] = {}
    ours: dict[str, Any] = {}
    peer: dict[str, Any] = {}
    total = len(CROWDS) * len(budgets) * given.seeds * len(pool.tastes)
    with tqdm(total=total, unit="run", disable=None, leave=False) as bar:
        for crowd, errors in CROWDS.items():
            for budget in budgets:
                runs = []
                for seed in range(given.seeds):
                    one = []
                    for taste in pool.tastes:
                        one.append(run(pool, taste, errors, budget, seed))
                        bar.update()
                    runs.append({name: np.mean([r[name] for r in one], axis=0) for name in one[0]})
                case = f"{crowd}_{budget}"
                ratios[case], ours[case], peer[case] = summary(runs, crowd == "bad")
    for case in ratios:
        told(case, ours[case], peer[case])
    finish("annotator_reward", ratios, ours, peer, vars(given))


def run(pool: candidate_pool.Pool, taste: str, errors: np.ndarray, budget: int, seed: int) -> Figures:
    """Accuracy of EM (), told the errors (), of pooling at each of TIMES (T,); how well eta tells bad from good ()."""
    rng = np.random.default_rng([seed, sorted(pool.tastes).index(taste)])
    likes = pool.tastes[taste]
    order = rng.permutation(len(likes))
    held = round(HELD_OUT * len(likes))
    lengths = np.log1p(pool.words)
    lengths = (lengths - lengths.mean()) / lengths.std()
    features = np.concatenate([pool.features, lengths[:, :, None]], axis=-1)
    prompt, one, other = pairs_of(order[held:], likes.shape[1])
    picked = rng.permutation(len(prompt))[: round(TIMES[-1] * budget)]
    prompt, one, other = prompt[picked], one[picked], other[picked]
    seen = likes + rng.normal(0, NOISE * likes.std(), likes.shape)
    who = rng.permutation(np.arange(len(prompt)) % len(errors))
    who[:budget] = rng.permutation(np.arange(budget) % len(errors))  # as many votes of each
    right = seen[prompt, one] > seen[prompt, other]
    says = (right ^ (rng.random(len(prompt)) < errors[who])).astype(float)
    z = features[prompt, one] - features[prompt, other]
    first = rng.choice([-1.0, 1.0], len(prompt))
    n = np.arange(budget)
    votes = Votes(z[n], n, who[n], says[n], first[n], z[n, -1])
    found = fit(votes, len(errors))
    known = fit(votes, len(errors), prior=(SURE * (1 - errors), SURE * errors), lean=0.0)
    tested, a, b = pairs_of(order[:held], likes.shape[1])
    gap = likes[tested, a] - likes[tested, b]
    differences, gap = (features[tested, a] - features[tested, b])[gap != 0], gap[gap != 0]

    def accuracy(head: LinearHead) -> float:
        return float(np.mean((differences @ head.mean > 0) == (gap > 0)))

    pooled = [
        accuracy(LinearHead.by_evidence(z[: round(times * budget)], says[: round(times * budget)]))
        for times in TIMES
    ]
    good = found.eta[~BAD]
    auc = {
        name: np.mean(found.eta[some][:, None] < good) for name, some in (("auc", BAD), ("auc_worst", WORST))
    }
    heads = {"em": np.array(accuracy(found.head)), "known": np.array(accuracy(known.head))}
    return {**heads, "pooled": np.array(pooled), **auc}


def pairs_of(prompts: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(prompt, completion, other completion) of every pair."""
    one, other = np.triu_indices(k, 1)
    return np.repeat(prompts, len(one)), np.tile(one, len(prompts)), np.tile(other, len(prompts))


def summary(runs: list[Figures], bad: bool) -> tuple[float, dict[str, float], dict[str, float]]:
    """(ratio of votes, EM's figures, pooling's figures) of one case; one entry of `runs` per seed."""
    em, pooled = np.array([r["em"] for r in runs]), np.array([r["pooled"] for r in runs])
    curve = np.maximum.accumulate(pooled.mean(0))
    ratio = float(np.interp(em.mean(), curve, TIMES, left=0.0, right=TIMES[-1]))
    ours = {"accuracy": float(em.mean()), "told_the_errors": float(np.mean([r["known"] for r in runs]))}
    for name, column in (("over_pooled", 0), ("over_pooled_1_6", CLAIMED)):
        gain = em - pooled[:, column]
        half = float(student.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain)))
        ours |= {name: float(gain.mean()), f"{name}_low": float(gain.mean()) - half, f"{name}_high": float(gain.mean()) + half}  # fmt: skip
    if bad:
        ours["auc_of_bad"] = float(np.mean([r["auc"] for r in runs]))
        ours["auc_of_worst"] = float(np.mean([r["auc_worst"] for r in runs]))
    peer = {f"accuracy_{times:g}n": float(pooled[:, at].mean()) for at, times in enumerate(TIMES)}
    return ratio, {k: round(v, 4) for k, v in ours.items()}, {k: round(v, 4) for k, v in peer.items()}


def told(case: str, ours: dict[str, float], peer: dict[str, float]) -> None:
    """One line of the table that people read."""
    gains = ", ".join(
        f"{says} {100 * ours[name]:+.1f} [{100 * ours[name + '_low']:+.1f}, {100 * ours[name + '_high']:+.1f}]"
        for name, says in (("over_pooled", "over pooled"), ("over_pooled_1_6", "over pooled 1.6 N"))
    )
    auc = ""
    if "auc_of_bad" in ours:
        auc = f", AUC of the four bad {ours['auc_of_bad']:.2f}, of the worst two {ours['auc_of_worst']:.2f}"
    print(
        f"{case}: EM {100 * ours['accuracy']:.1f} % (told the errors {100 * ours['told_the_errors']:.1f} %), pooled {100 * peer['accuracy_1n']:.1f} %, pooled 1.6 N "
        f"{100 * peer['accuracy_1.6n']:.1f} %; points {gains}{auc}"
    )


if __name__ == "__main__":
    main()
