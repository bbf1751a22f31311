"""How much a reward model would learn from a comparison: D-optimal design, one step ahead.

A comparison shows K completions with features F (K, D); its annotator ranks them. By Plackett and Luce, the ranking's
Fisher information about their rewards is J (K, K), about the weights F' J F. With posterior covariance S the vote is
worth

    gain = 1/2 log det(S^-1 + F' J F) - 1/2 log det(S^-1) = 1/2 log det(I + R' F S F' R),    R R' = J

nats. For a pair that is 1/2 log(1 + c z' S z), c = p (1 - p): Fisher information of the last layer, ARM-FI (Shen et
al. 2025, arXiv 2502.04354). An annotator who names the better one with probability eta < 1 tells less,
c = [(2 eta - 1) p (1 - p)]^2 / [q (1 - q)], q = eta p + (1 - eta)(1 - p).

    scores = unsure(head, features) / seconds                     # what proved best where tastes are not linear
    scores = (gains(head, features) + beta * diversity(prompts, asked)) / seconds      # per second of reading
    ahead  = expected(head, out)                                  # those out count as answered, or all get the same

Pure variance and pure closeness (p = 1/2) are worse than chance for a reward model; this is the product of both.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from palate.config import UserError
from palate.linear_head import Floats, LinearHead, sigmoid

NEIGHBOURS = 13  # k of the distance to asked prompts (BAL-PM, Melo et al. 2024, arXiv 2406.10023)


def gains(head: LinearHead, features: NDArray[np.floating], eta: float = 1.0) -> Floats:
    """(n,) nats that each of n comparisons of K completions would teach; features (n, K, D), n and K >= 0.

    Fewer than two completions teach nothing. Raises UserError where a feature is not a finite number.
    """
    x = checked(features)
    if x.ndim != 3 or x.shape[0] == 0 or x.shape[1] < 2:
        return np.zeros(len(x))
    if x.shape[1] == 2:
        z = x[:, 0] - x[:, 1]
        mean, sd = head.margin(z)
        return np.asarray(0.5 * np.log1p(pair_information(mean, sd, eta) * sd**2))
    rooted = _rooted(head, x, eta)  # (n, D, K)
    inner = np.swapaxes(rooted, 1, 2) @ (head.covariance @ rooted)
    return np.asarray(0.5 * np.linalg.slogdet(np.eye(x.shape[1]) + inner)[1])


def pair_information(
    mean: NDArray[np.floating],
    sd: NDArray[np.floating] | float = 0.0,
    eta: float | NDArray[np.floating] = 1.0,
) -> Floats:
    """Fisher information about a margin (any shape) in log-odds, of a vote by an annotator of reliability `eta`.

    The margin is known as mean +- sd; p is averaged over that (MacKay 1992, eq. 13).
    """
    p = sigmoid(np.asarray(mean) / np.sqrt(1.0 + np.pi * np.square(sd) / 8.0))
    variance = np.maximum(p * (1 - p), 1e-12)
    q = eta * p + (1 - np.asarray(eta)) * (1 - p)
    return np.asarray(((2 * np.asarray(eta) - 1) * variance) ** 2 / np.maximum(q * (1 - q), 1e-12))


def ranking_information(rewards: NDArray[np.floating]) -> Floats:
    """(n, K, K) expected Fisher information about `rewards` (n, K) of a whole ranking by Plackett and Luce.

    Exact: the sum over subsets of P(they are left at some point) times the covariance of choosing among them;
    2^K - K - 1 subsets, K <= 9.
    """
    r = np.asarray(rewards, dtype=np.float64)
    count, size = r.shape
    weight = np.exp(r - r.max(axis=1, keepdims=True, initial=-np.inf))
    weight = np.maximum(weight, 1e-30)
    reached = {tuple(range(size)): np.ones(count)}
    information = np.zeros((count, size, size))
    for left in range(size, 1, -1):
        for subset in combinations(range(size), left):
            share = weight[:, subset] / weight[:, subset].sum(axis=1, keepdims=True)
            here = reached[subset]
            covariance = -share[:, :, None] * share[:, None, :]
            covariance[:, range(left), range(left)] += share
            information[np.ix_(range(count), subset, subset)] += here[:, None, None] * covariance
            for place in range(left):
                rest = subset[:place] + subset[place + 1 :]
                reached[rest] = reached.get(rest, np.zeros(count)) + here * share[:, place]
    return information


def expected(head: LinearHead, out: Iterable[NDArray[np.floating]], eta: float = 1.0) -> LinearHead:
    """The head as certain as it will be once the comparisons that are out (each (K, D)) are answered.

    Its mean stays: nobody knows the answers. A copy; the covariance is the posterior's exactly, with the information
    at the mean that is known now.
    """
    ahead = LinearHead(head.mean, head.covariance.copy(), head.precision, head.votes, head.evidence)
    for features in out:
        x = checked(features)
        if len(x) >= 2:
            ahead.covariance = _reduced(ahead.covariance, _rooted(ahead, x[None], eta)[0])
    return ahead


def observe(head: LinearHead, features: NDArray[np.floating], ranking: Sequence[int]) -> None:
    """Learn from one ranking of features (K, D), best first, strictly and not necessarily of all: one Newton step of
    Plackett and Luce. For a pair the same as `LinearHead.update`. O(K D^2)."""
    x = checked(features)[list(ranking)]
    if len(x) < 2:
        return
    rewards = x @ head.mean
    weight = np.exp(rewards - rewards.max())
    gradient, curvature = np.zeros(len(x)), np.zeros((len(x), len(x)))
    for place in range(len(x) - 1):
        share = weight[place:] / weight[place:].sum()
        gradient[place] += 1
        gradient[place:] -= share
        curvature[place:, place:] += np.diag(share) - np.outer(share, share)
    head.covariance = _reduced(head.covariance, x.T @ _root(curvature[None])[0])
    head.mean = head.mean + head.covariance @ (x.T @ gradient)
    head.votes += 1


def unsure(head: LinearHead, features: NDArray[np.floating]) -> Floats:
    """(n,) 0..1 how open the order of K completions (n, K, D) is: 1 where the head has no idea, mean over pairs of

        2 Phi(-|mean| / sd)        of the margin, approximated by 2 sigmoid(-1.702 |mean| / sd)

    Unlike `gains` it does not grow with the distance of the completions in feature space. A taste is never quite linear
    in the features, and the far pairs that D-optimal design asks for are where a linear head is wrong.
    """
    x = checked(features)
    if x.ndim != 3 or len(x) == 0 or x.shape[1] < 2:
        return np.zeros(len(x))
    return np.asarray(openness(*margins(head, x)).mean(axis=1))


def openness(mean: Floats, sd: Floats) -> Floats:
    """0..1 of margins of any shape: 2 Phi(-|mean| / sd), approximated as in `unsure`."""
    return np.asarray(np.where(sd > 0, 2 * sigmoid(-1.702 * np.abs(mean) / np.maximum(sd, 1e-12)), 0.0))


def margins(head: LinearHead, features: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """(mean (n, P), sd (n, P)) of the margins of the P = K (K - 1) / 2 pairs of n comparisons (n, K, D), in the precision
    of the features: float32 is twice as fast, and enough to rank."""
    first, second = np.triu_indices(features.shape[1], 1)
    kind = features.dtype
    w, s = head.mean.astype(kind), head.covariance.astype(kind)
    if features.shape[1] == 2:
        z = features[:, 0] - features[:, 1]
        mean, variance = (z @ w)[:, None], np.einsum("nd,nd->n", z @ s, z)[:, None]
    else:  # through the covariance of rewards: K products, not P
        rewards = features @ w
        around = features - features.mean(
            axis=1, keepdims=True
        )  # what all share cancels anyhow, and would round
        shared = (around @ s) @ around.swapaxes(1, 2)
        alone = np.einsum("nkk->nk", shared)
        mean = rewards[:, first] - rewards[:, second]
        variance = alone[:, first] + alone[:, second] - 2 * shared[:, first, second]
    return np.asarray(mean, np.float64), np.sqrt(np.maximum(variance, 0)).astype(np.float64)


def diversity(prompts: NDArray[np.floating], asked: NDArray[np.floating], k: int = NEIGHBOURS) -> Floats:
    """(n,) log distance of each prompt (n, P) to its k-th nearest among those asked already (m, P), BAL-PM eq. 6, less
    the mean of all n; zeros where nothing was asked."""
    p, a = checked(prompts), checked(asked)
    if len(a) == 0 or len(p) == 0:
        return np.zeros(len(p))
    squared = (p**2).sum(axis=1)[:, None] + (a**2).sum(axis=1)[None] - 2 * p @ a.T
    nearest = np.partition(squared, min(k, len(a)) - 1, axis=1)[:, min(k, len(a)) - 1]
    found = 0.5 * np.log(np.maximum(nearest, 1e-12))
    return np.asarray(found - found.mean())


def checked(features: NDArray[np.floating]) -> Floats:
    """As float64; raises UserError where a number is not finite."""
    x = np.asarray(features, dtype=np.float64)
    if not np.isfinite(x).all():
        odd = int((~np.isfinite(x)).sum())
        raise UserError(f"{odd} features of these comparisons are not finite numbers: palate reward features")
    return x


def _rooted(head: LinearHead, x: Floats, eta: float) -> Floats:
    """(n, D, K) F' R, with R R' = J at the head's mean for features (n, K, D)."""
    size = x.shape[1]
    if size == 2:
        z = x[:, 0] - x[:, 1]
        half = np.sqrt(pair_information(*head.margin(z), eta) / 2)
        return np.asarray((z * half[:, None])[:, :, None] * np.array([1.0, -1.0]))
    rewards = x @ head.mean
    information = ranking_information(rewards)
    if eta < 1:  # as its pairs' information shrinks, on average; exact for a pair
        first, second = np.triu_indices(size, 1)
        margins = rewards[:, first] - rewards[:, second]
        shrink = pair_information(margins, 0.0, eta).sum(axis=1) / pair_information(margins).sum(axis=1)
        information = information * shrink[:, None, None]
    return np.asarray(np.swapaxes(x, 1, 2) @ _root(information))


def _root(information: Floats) -> Floats:
    """(n, K, K) symmetric square roots; the matrices are singular (rewards have no zero point)."""
    values, vectors = np.linalg.eigh(information)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0))[..., None, :])


def _reduced(covariance: Floats, rooted: Floats) -> Floats:
    """(S^-1 + B B')^-1 for B (D, K), by Woodbury's identity."""
    through = covariance @ rooted
    inner = np.eye(rooted.shape[1]) + rooted.T @ through
    reduced = covariance - through @ np.linalg.solve(inner, through.T)
    return np.asarray(0.5 * (reduced + reduced.T))
