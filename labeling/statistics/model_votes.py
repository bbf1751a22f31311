"""Votes between models, counted, and the sums that every fit makes of them: gradients, information, sandwiches."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Counts:
    """Votes between models; a row may be a pair of models, or of completions. R = rows."""

    models: int  # codes run from 0 to models - 1
    a: Ints  # (R,) codes
    b: Ints  # (R,)
    a_wins: Floats  # (R,) votes, >= 0
    b_wins: Floats
    ties: Floats

    @property
    def votes(self) -> Floats:
        """(R,) votes per row."""
        return self.a_wins + self.b_wins + self.ties

    def rows(self, keep: Bools | Ints) -> "Counts":
        """Some of the rows."""
        return Counts(
            self.models, self.a[keep], self.b[keep], self.a_wins[keep], self.b_wins[keep], self.ties[keep]
        )


def by_pair(counts: Counts) -> Counts:
    """The votes added up: one row per pair of different models, a < b."""
    swap = counts.a > counts.b
    low, high = np.where(swap, counts.b, counts.a), np.where(swap, counts.a, counts.b)
    key = low.astype(np.int64) * counts.models + high
    size = counts.models**2
    wins = np.bincount(key, np.where(swap, counts.b_wins, counts.a_wins), size).astype(np.float64)
    losses = np.bincount(key, np.where(swap, counts.a_wins, counts.b_wins), size).astype(np.float64)
    ties = np.bincount(key, counts.ties, size).astype(np.float64)  # bincount of nothing is of integers
    found = np.flatnonzero(wins + losses + ties)
    a, b = found // counts.models, found % counts.models
    different = a != b
    a, b, found = a[different], b[different], found[different]
    return Counts(counts.models, a, b, wins[found], losses[found], ties[found])


def restrict(pairs: Counts, keep: Bools) -> Counts:
    """The votes among some of the models, numbered anew from 0."""
    rows = pairs.rows(keep[pairs.a] & keep[pairs.b])
    code = np.cumsum(keep) - 1
    return Counts(int(keep.sum()), code[rows.a], code[rows.b], rows.a_wins, rows.b_wins, rows.ties)


def per_model(pairs: Counts, value: Floats) -> Floats:
    """(M,) sum of value * (e_a - e_b)."""
    ups, downs = (np.bincount(end, value, pairs.models) for end in (pairs.a, pairs.b))
    return np.asarray(ups - downs, dtype=np.float64)


def laplacian(pairs: Counts, weight: Floats) -> Floats:
    """(M, M) sum of weight * (e_a - e_b)(e_a - e_b)'."""
    models = pairs.models
    off = np.bincount(pairs.a * models + pairs.b, weight, models * models).reshape(models, models)
    off = off + off.T
    return np.asarray(np.diag(off.sum(1)) - off, dtype=np.float64)


def clustered_middle(counts: Counts, score: Floats, extra: Floats, cluster: Ints) -> Floats:
    """(M + E, M + E) S of the sandwich: squared sums of scores within clusters, times C / (C - 1).

    score: (R,) derivative by beta_a (by beta_b: minus that); extra: (R, E) derivatives by further parameters.
    """
    models, sizes = counts.models, np.bincount(cluster)
    alone = sizes[cluster] == 1  # the square of one row needs no matrix of clusters
    middle = np.zeros((models + extra.shape[1], models + extra.shape[1]))
    middle[:models, :models] = laplacian(counts.rows(alone), score[alone] ** 2)
    ends, signed = np.stack([counts.a, counts.b], axis=1)[~alone], np.outer(score[~alone], [1.0, -1.0])
    middle[:models, :models] += squared_sums(ends, signed, cluster[~alone], models)
    sums = [np.bincount(cluster, column) for column in extra.T]
    for at, column in enumerate(sums, models):
        middle[at, :models] = middle[:models, at] = per_model(counts, score * column[cluster])
    middle[models:, models:] = [[(one * other).sum() for other in sums] for one in sums]
    number = int((sizes > 0).sum())
    return middle * (number / max(number - 1, 1))


def squared_sums(columns: Ints, values: Floats, cluster: Ints, size: int) -> Floats:
    """(size, size) sum over clusters of s s', where s adds up each row's values at its columns, both (R, k)."""
    from scipy.sparse import csr_array

    order = np.argsort(cluster, kind="stable")
    starts = np.append(0, np.cumsum(columns.shape[1] * np.bincount(cluster)))
    at = (values[order].ravel(), columns[order].ravel(), starts)
    sums = csr_array(at, (len(starts) - 1, size))
    return np.asarray((sums.T @ sums).toarray())
