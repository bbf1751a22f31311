"""The figures of an evaluation as pure functions of numpy arrays.

P prompts, S samples of one model per prompt; a judge's scores of a model are (P, S), higher is better. Samples
of one prompt resemble each other, so every interval resamples prompts, never samples (cluster bootstrap; Miller
2024, https://arxiv.org/abs/2411.00640, section 2.2). Nothing here loads a model or reads a file.
"""

from dataclasses import dataclass
from math import comb, log

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
RESAMPLES = 2_000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, and over how many prompts."""

    mean: float
    low: float
    high: float
    prompts: int


def estimate(totals: Array, counts: Array | None = None, seed: int = 0) -> Estimate | None:
    """sum(totals) / sum(counts) with a percentile bootstrap over prompts; None when nothing was counted.

    `totals` (P,) adds up each prompt's values and `counts` (P,) says how many there are (default: one each),
    so that prompts with more pairs weigh more. With few prompts the interval is too narrow: see `FEW_PROMPTS`
    in verdict.py.
    """
    counts = np.ones_like(totals) if counts is None else counts
    kept = counts > 0
    totals, counts = totals[kept], counts[kept]
    prompts = len(totals)
    if prompts == 0:
        return None
    rng = np.random.default_rng(seed)
    chunk = max(1, min(RESAMPLES, 20_000_000 // prompts))  # (chunk, P) times drawn
    means = []
    for start in range(0, RESAMPLES, chunk):
        drawn = rng.multinomial(prompts, np.full(prompts, 1 / prompts), min(chunk, RESAMPLES - start))
        means.append((drawn @ totals) / (drawn @ counts))
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(np.concatenate(means), [tail, 100 - tail])
    return Estimate(float(totals.sum() / counts.sum()), float(low), float(high), prompts)


def mean_over_prompts(values: Array, seed: int = 0) -> Estimate | None:
    """The mean of `values` (P, S) with its interval."""
    return estimate(values.sum(1), np.full(len(values), float(values.shape[1])), seed)


def outcomes(scores: Array, baseline: Array) -> Array:
    """(P, S, B): 1 where a sample of the model beats a sample of the baseline, 0.5 where they are equal.

    `scores` (P, S), `baseline` (P, B); every sample meets every one, which wastes none of them.
    """
    margin = scores[:, :, None] - baseline[:, None, :]
    return (np.sign(margin) + 1) / 2


def win_rate(scores: Array, baseline: Array, kept: Array | None = None, seed: int = 0) -> Estimate | None:
    """The share of pairs that the model wins against the baseline, ties half.

    `scores` (P, S), `baseline` (P, B); `kept` (P, S, B) is 1 for pairs that count, e.g. those of similar length.
    """
    won = outcomes(scores, baseline)
    kept = np.ones_like(won) if kept is None else kept
    return estimate((won * kept).sum((1, 2)), kept.sum((1, 2)), seed)


def similar_length(lengths: Array, baseline: Array, tolerance: float = 0.1) -> Array:
    """(P, S, B): 1 where the lengths (P, S) and (P, B) differ by at most `tolerance` of the longer one."""
    mine, theirs = lengths[:, :, None], baseline[:, None, :]
    close = np.abs(mine - theirs) <= tolerance * np.maximum(mine, theirs)
    return close.astype(np.float64)


def longer_wins(
    scores: Array, baseline: Array, lengths: Array, baseline_lengths: Array, seed: int = 0
) -> Estimate | None:
    """How often a judge prefers the longer answer of a pair, over pairs of unequal length; ties half."""
    won = outcomes(scores, baseline)
    longer = outcomes(lengths, baseline_lengths)
    return estimate(
        np.where(longer == 1, won, 1 - won).sum((1, 2), where=longer != 0.5),
        (longer != 0.5).sum((1, 2)).astype(np.float64),
        seed,
    )


def accuracy(predicted: Array, gold: Array, seed: int = 0) -> Estimate | None:
    """How often `predicted` (P, S) orders two samples of one prompt as `gold` (P, S) does.

    Pairs that gold calls equal are left out; a prediction of equal is half right.
    """
    first, second = np.triu_indices(gold.shape[1], 1)
    truth = np.sign(gold[:, first] - gold[:, second])  # (P, pairs)
    guess = np.sign(predicted[:, first] - predicted[:, second])
    right = (guess * truth + 1) / 2
    return estimate(right.sum(1, where=truth != 0), (truth != 0).sum(1).astype(np.float64), seed)


def kl(logprobs: Array, baseline_logprobs: Array, seed: int = 0) -> Estimate | None:
    """KL(model || baseline) in nats per answer, from the model's own samples.

    `logprobs` and `baseline_logprobs` (P, S) are log p(answer | prompt), summed over its tokens, under the model
    that sampled it and under the baseline. Plain Monte Carlo (k1 in Schulman 2020,
    http://joschu.net/blog/kl-approx.html): unbiased, so an estimate may come out below zero.
    """
    return mean_over_prompts(logprobs - baseline_logprobs, seed)


def kl_per_token(logprobs: Array, baseline_logprobs: Array, tokens: Array, seed: int = 0) -> Estimate | None:
    """The same in nats per generated token; `tokens` (P, S) counts them, stop token included."""
    return estimate((logprobs - baseline_logprobs).sum(1), tokens.sum(1), seed)


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
