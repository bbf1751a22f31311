"""The figures of an evaluation as pure functions of numpy arrays.

P prompts, S samples of one model per prompt; a judge's scores of a model are (P, S), higher is better. Samples
of one prompt resemble each other, so every interval resamples prompts, never samples (cluster bootstrap; Miller
2024, https://arxiv.org/abs/2411.00640, section 2.2). Nothing here loads a model or reads a file.
"""

from math import comb, log

import numpy as np
import numpy.typing as npt

from palate.reward.accuracy import Estimate, cluster_bootstrap

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def estimate(values: Array, kept: Mask | None = None, seed: int = 0) -> Estimate | None:
    """The mean of `values` (P, ...) with its 95 % interval over prompts; None when nothing is kept.

    `kept`, of the same shape, is true for the values that count; prompts with more of them weigh more. With few
    prompts the interval is too narrow: see FEW_PROMPTS in verdict.py.
    """
    counted = np.ones(values.shape, bool) if kept is None else np.asarray(kept, bool)
    if not counted.any():
        return None
    _, prompts = np.unique(np.nonzero(counted)[0], return_inverse=True)
    return cluster_bootstrap(values[counted], prompts, seed)


def outcomes(scores: Array, baseline: Array) -> Array:
    """(P, S, B): 1 where a sample of the model beats a sample of the baseline, 0.5 where they are equal.

    `scores` (P, S), `baseline` (P, B); every sample meets every one, which wastes none of them.
    """
    margin = scores[:, :, None] - baseline[:, None, :]
    return (np.sign(margin) + 1) / 2


def win_rate(scores: Array, baseline: Array, kept: Mask | None = None, seed: int = 0) -> Estimate | None:
    """The share of pairs that the model wins against the baseline, ties half.

    `scores` (P, S), `baseline` (P, B); `kept` (P, S, B) is true for pairs that count, e.g. of similar length.
    """
    return estimate(outcomes(scores, baseline), kept, seed)


def similar_length(lengths: Array, baseline: Array, tolerance: float = 0.1) -> Mask:
    """(P, S, B): true where the lengths (P, S) and (P, B) differ by at most `tolerance` of the longer one."""
    mine, theirs = lengths[:, :, None], baseline[:, None, :]
    close: Mask = np.abs(mine - theirs) <= tolerance * np.maximum(mine, theirs)
    return close


def longer_wins(
    scores: Array, baseline: Array, lengths: Array, baseline_lengths: Array, seed: int = 0
) -> Estimate | None:
    """How often a judge prefers the longer answer of a pair, over pairs of unequal length; ties half."""
    won, longer = outcomes(scores, baseline), outcomes(lengths, baseline_lengths)
    return estimate(np.where(longer == 1, won, 1 - won), longer != 0.5, seed)


def accuracy(predicted: Array, gold: Array, seed: int = 0) -> Estimate | None:
    """How often `predicted` (P, S) orders two samples of one prompt as `gold` (P, S) does.

    Pairs that gold calls equal are left out; a prediction of equal is half right.
    """
    first, second = np.triu_indices(gold.shape[1], 1)
    truth = np.sign(gold[:, first] - gold[:, second])  # (P, pairs)
    guess = np.sign(predicted[:, first] - predicted[:, second])
    return estimate((guess * truth + 1) / 2, truth != 0, seed)


def kl(logprobs: Array, baseline_logprobs: Array, seed: int = 0) -> Estimate | None:
    """KL(model || baseline) in nats per answer, from the model's own samples.

    `logprobs` and `baseline_logprobs` (P, S) are log p(answer | prompt), summed over its tokens, under the model
    that sampled it and under the baseline. Plain Monte Carlo (k1 in Schulman 2020,
    http://joschu.net/blog/kl-approx.html): unbiased, so an estimate may come out below zero.
    """
    return estimate(logprobs - baseline_logprobs, seed=seed)


def best_of_n(judged: Array, chosen_by: Array, n: int) -> Array:
    """(P,) expected score `judged` of the best of n samples, where `chosen_by` picks the best.

    Both (P, S) with S >= n. Averages over all subsets of n of the S samples (Nakano et al. 2021,
    https://arxiv.org/abs/2112.09332, appendix I): the i-th lowest is the best of comb(i, n - 1) of them.
    """
    samples = judged.shape[1]
    order = np.argsort(chosen_by, axis=1, kind="stable")
    weights = np.array([comb(i, n - 1) for i in range(samples)], dtype=np.float64) / comb(samples, n)
    picked: Array = np.take_along_axis(judged, order, axis=1) @ weights
    return picked


def best_of_n_kl(n: int) -> float:
    """KL of best-of-n from the model it samples: log n - (n - 1) / n nats (Stiennon et al. 2020, appendix G.3).

    An upper bound (Beirami et al. 2024, https://arxiv.org/abs/2401.01879), close to exact for long answers.
    """
    return log(n) - (n - 1) / n


def distinct_share(texts: list[list[str]]) -> float:
    """Different answers among all answers, counted within each prompt: 1 / S when a model always says the same."""
    return sum(len(set(row)) for row in texts) / max(1, sum(len(row) for row in texts))
