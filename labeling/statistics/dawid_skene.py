"""What each annotator says when the consensus is a, b or a tie: Dawid and Skene's confusion matrices.

The consensus label z of a pair of completions is not observed; annotator k calls it l with probability
C[k, z, l], independently of the others (Dawid and Skene 1979, "Maximum Likelihood Estimation of Observer
Error-Rates Using the EM Algorithm", eq. 2.1-2.5). EM alternates between the consensus and the matrices.

Numbered deviations:
1. Which completion is a and which is b carries no information (they are ordered by digest), so by default calling
   a "b" is as likely as calling b "a": C is held symmetric under swapping them, and so is the share of a among the
   consensus. Half of the parameters, twice the votes for each.
2. Each row of C is shrunk towards the row of all annotators together, as if the annotator had cast `shrink` more
   votes like everybody's: thin annotators look like everybody until their votes say otherwise.

Votes are a sparse matrix per label (CSR, pairs x annotators), so an iteration is six sparse products.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from palate.labeling.statistics.grouped import Floats, Ints, sums

B_WINS, TIE, A_WINS = 0, 1, 2  # labels
CHUNK = 1 << 17  # votes at once, where each needs a row of numbers
SWAPPED = [A_WINS, TIE, B_WINS]  # the same labels with a and b exchanged


@dataclass(frozen=True)
class Votes:
    """Who called which pair of completions what. V = votes, U = pairs, K = annotators."""

    unit: Ints  # (V,) 0 <= code < units
    annotator: Ints  # (V,) 0 <= code < annotators
    label: Ints  # (V,) B_WINS, TIE or A_WINS
    weight: Floats  # (V,) > 0: 1, or less where votes depend on one another
    units: int
    annotators: int


@dataclass(frozen=True)
class Consensus:
    """What EM found."""

    posterior: Floats  # (U, 3) probability of each label; pairs without a vote have the shares of all
    shares: Floats  # (3,) of the labels among the consensus
    confusion: Floats  # (K, 3, 3) C[k, z, l]: rows sum to 1
    named: Floats  # (K,) probability of naming the consensus label; 0.5 without a vote
    low: Floats  # (K,) 95 % interval of `named`
    high: Floats
    votes: Floats  # (K,) weight of the annotator's votes
    iterations: int


def dawid_skene(
    votes: Votes, symmetric: bool = True, shrink: float = 4.0, tolerance: float = 1e-4, most: int = 100
) -> Consensus:
    """EM from the shares of votes per pair, until nobody's share of votes that name the consensus changes by more than
    `tolerance`, at most `most` times. `shrink` = 0 is maximum likelihood. There must be a vote.

    Pairs that only one annotator judged tell nothing about anybody here: leave them out, they only cost time.
    """
    matrices = _matrices(votes)
    voted = np.bincount(votes.unit, minlength=votes.units) > 0
    cast = np.stack([m.sum(1) for m in matrices], axis=1)  # (U, 3)
    posterior = cast / np.maximum(cast.sum(1, keepdims=True), 1e-300)
    weights = sums(votes.annotator, votes.weight, votes.annotators)
    hits, steps = np.zeros(votes.annotators), 0
    while True:
        steps += 1
        counts = _counts(matrices, posterior)
        shares = posterior[voted].mean(0)
        if symmetric:
            counts = (counts + counts[:, SWAPPED][:, :, SWAPPED]) / 2
            shares = (shares + shares[SWAPPED]) / 2
        confusion = _confusion(counts, shares, shrink)
        new = counts.trace(axis1=1, axis2=2) / np.maximum(weights, 1e-300)
        change, hits = np.abs(new - hits).max(), new
        posterior = _posterior(matrices, shares, confusion)
        if change < tolerance or steps >= most:
            break
    named, low, high = _named(votes, posterior, confusion)
    return Consensus(posterior, shares, confusion, named, low, high, weights, steps)


def _matrices(votes: Votes) -> list[Any]:
    """Per label, (U, K) weights of the votes, sparse."""
    from scipy.sparse import csr_array

    shape = (votes.units, votes.annotators)
    chosen = [votes.label == label for label in (B_WINS, TIE, A_WINS)]
    return [csr_array((votes.weight[c], (votes.unit[c], votes.annotator[c])), shape=shape) for c in chosen]


def _counts(matrices: list[Any], posterior: Floats) -> Floats:
    """(K, 3, 3) expected votes by annotator, consensus label and label given."""
    return np.stack([m.T @ posterior for m in matrices], axis=2)


def _confusion(counts: Floats, shares: Floats, shrink: float) -> Floats:
    """(K, 3, 3) probabilities from expected votes; a row without votes is everybody's."""
    everybody = counts.sum(0) + 1e-9
    everybody /= everybody.sum(1, keepdims=True)
    counts = counts + np.maximum(shrink * shares, 1e-9)[:, None] * everybody
    return np.asarray(counts / counts.sum(2, keepdims=True))


def _posterior(matrices: list[Any], shares: Floats, confusion: Floats) -> Floats:
    """(U, 3) the consensus given the votes (eq. 2.5)."""
    logs = np.log(np.maximum(confusion, 1e-300))
    found = np.log(np.maximum(shares, 1e-300)) + sum(
        m @ np.ascontiguousarray(logs[:, :, label]) for label, m in enumerate(matrices)
    )
    found -= found.max(1, keepdims=True)
    np.exp(found, out=found)
    found /= found.sum(1, keepdims=True)
    return np.asarray(found)


def _named(votes: Votes, posterior: Floats, confusion: Floats) -> tuple[Floats, Floats, Floats]:
    """(K,) probability of naming the consensus label, and its 95 % interval.

    Each vote is held against what the others' votes say: r = P(consensus is this label | others), e = P(this label
    | others, not the consensus). It has probability rho r + (1 - rho) e, which tells about rho as much as
    `seen` votes with a known consensus would; the interval is Jeffreys' for that many.
    """
    from scipy.special import betaincinv

    size = votes.annotators
    hits, information = np.zeros(size), np.zeros(size)
    for start in range(0, len(votes.unit), CHUNK):
        at = slice(start, start + CHUNK)
        person, label, weight = votes.annotator[at], votes.label[at], votes.weight[at]
        rows = np.arange(len(label))
        own = posterior[votes.unit[at]]
        given = np.maximum(confusion[person, :, label], 1e-12)  # P(label | consensus)
        others = own / (given if (weight == 1).all() else given ** weight[:, None])
        others /= others.sum(1, keepdims=True)
        chance = others * given
        total = chance.sum(1)
        chance /= np.maximum(1 - confusion.diagonal(axis1=1, axis2=2), 1e-12)[person]
        chance[rows, label] = 0  # what is left is e
        slope = (others[rows, label] - chance.sum(1)) / np.maximum(total, 1e-12)
        hits += sums(person, weight * own[rows, label], size)
        information += sums(person, weight * slope * slope, size)
    n = sums(votes.annotator, votes.weight, size)
    named = np.divide(hits, n, out=np.full(size, 0.5), where=n > 0)
    rho = np.clip((hits + 0.5) / (n + 1), 1e-6, 1 - 1e-6)
    seen = np.minimum(information * rho * (1 - rho), n)
    good, bad = seen * named + 0.5, seen * (1 - named) + 0.5
    return named, betaincinv(good, bad, 0.025), betaincinv(good, bad, 0.975)
