"""A reward from words alone: n-grams, length and a few surface figures. What every learned reward should beat.

    baseline = LexicalReward.fit(rows)           # rows of data.preferences; seconds, no model
    scores = baseline.scores(rows)               # [[...], ...], one list per row

Unigrams and bigrams are hashed, weighed by log frequency and rarity, and projected on the principal directions of the
training texts (latent semantic analysis, Deerwester et al. 1990). A Bayesian linear head learns from differences; how
much the n-grams count beside the surface figures is chosen by the evidence of the training votes.
"""

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds

from palate.config import UserError
from palate.linear_head import LinearHead

Floats = NDArray[np.float64]
Row = dict[str, Any]
BUCKETS = 2**16
DIRECTIONS = 200
SHARES = (0.0, 0.3, 1.0, 3.0)  # of the n-grams beside the surface figures, looked at by evidence
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?|[!?.,;:]")


@dataclass(frozen=True)
class LexicalFeatures:
    """How texts become vectors; everything here was learned from the training texts alone."""

    rarity: Floats  # (BUCKETS,)
    directions: Floats  # (BUCKETS, D)
    mean: Floats  # (F,) of the surface figures
    std: Floats  # (F,)

    @classmethod
    def fit(cls, texts: Sequence[str], directions: int = DIRECTIONS) -> "LexicalFeatures":
        """From n texts, at least one."""
        counts = _counts(texts)
        seen = np.bincount(counts.indices, minlength=BUCKETS)
        rarity = np.log((1 + len(texts)) / (1 + seen)) + 1
        weighed = _normed(counts.multiply(rarity).tocsr())
        size = min(directions, len(texts) - 1)
        found = np.zeros((BUCKETS, 0))
        if size > 0:
            start = np.random.default_rng(0).normal(size=min(weighed.shape))
            found = svds(weighed, k=size, v0=start)[2].T
        surface = _surface(texts)
        return cls(rarity, found, surface.mean(axis=0), np.maximum(surface.std(axis=0), 1e-9))

    def ngrams(self, texts: Sequence[str]) -> Floats:
        """(n, D), at most of length one."""
        return np.asarray(_normed(_counts(texts).multiply(self.rarity).tocsr()) @ self.directions)

    def surface(self, texts: Sequence[str]) -> Floats:
        """(n, F) in standard deviations of the training texts, cut at 5."""
        return np.clip((_surface(texts) - self.mean) / self.std, -5, 5)


@dataclass(frozen=True)
class LexicalReward:
    """The features, and the head on them."""

    features: LexicalFeatures
    share: float
    head: LinearHead

    @classmethod
    def fit(cls, rows: Sequence[Row]) -> "LexicalReward":
        """From the votes of `rows`; raises UserError where they hold none."""
        texts = sorted({text for row in rows for text in row["completions"]})
        if not any(row["pairs"] for row in rows):
            raise UserError("the n-gram baseline needs votes, these rows hold none")
        features = LexicalFeatures.fit(texts)
        index = {text: i for i, text in enumerate(texts)}
        winners, losers, outcomes, weights = _votes(rows, index)
        ngrams, surface = features.ngrams(texts), features.surface(texts)
        best: LexicalReward | None = None
        for share in SHARES:
            matrix = _joined(ngrams, surface, share)
            head = LinearHead.by_evidence(matrix[winners] - matrix[losers], outcomes, weights)
            if best is None or head.evidence > best.head.evidence:
                best = cls(features, share, head)
        assert best is not None
        return best

    def vectors(self, texts: Sequence[str]) -> Floats:
        """(n, D + F)."""
        return _joined(self.features.ngrams(texts), self.features.surface(texts), self.share)

    def scores(self, rows: Sequence[Row]) -> list[list[float]]:
        """Rewards up to a constant, in log-odds, for every completion of every row."""
        texts = sorted({text for row in rows for text in row["completions"]})
        if not texts:
            return [[] for _ in rows]
        found = dict(zip(texts, self.head.score(self.vectors(texts))[0].tolist(), strict=True))
        return [[found[text] for text in row["completions"]] for row in rows]


def _votes(rows: Sequence[Row], index: dict[str, int]) -> tuple[list[int], list[int], Floats, Floats]:
    """(winners, losers, outcomes, weights), same votes on the same two texts put together."""
    total: Counter[tuple[int, int, float]] = Counter()
    for row in rows:
        places = [index[text] for text in row["completions"]]
        for pair in row["pairs"]:
            won = places[pair["winner"]], places[pair["loser"]]
            total[(*won, 0.5 if pair["tie"] else 1.0 - (pair.get("flip") or 0.0))] += pair["weight"]
    keys = sorted(total)
    outcomes = np.array([key[2] for key in keys])
    return [k[0] for k in keys], [k[1] for k in keys], outcomes, np.array([total[key] for key in keys])


def _joined(ngrams: Floats, surface: Floats, share: float) -> Floats:
    return np.concatenate([share * np.sqrt(surface.shape[1]) * ngrams, surface], axis=1)


def _counts(texts: Sequence[str]) -> csr_matrix:
    """(n, BUCKETS) with 1 + log count of each hashed word and pair of words."""
    rows, columns, values = [], [], []
    for row, text in enumerate(texts):
        words = _WORD.findall(text.lower())
        grams = Counter(words) + Counter(f"{a} {b}" for a, b in pairwise(words))
        buckets: Counter[int] = Counter()
        for gram, count in grams.items():
            buckets[zlib.crc32(gram.encode()) % BUCKETS] += count
        for bucket in sorted(buckets):
            rows.append(row)
            columns.append(bucket)
            values.append(1 + np.log(buckets[bucket]))
    return csr_matrix((values, (rows, columns)), shape=(len(texts), BUCKETS), dtype=np.float64)


def _normed(matrix: csr_matrix) -> csr_matrix:
    lengths = np.sqrt(matrix.multiply(matrix).sum(axis=1)).A1
    return csr_matrix(matrix.multiply(1 / np.maximum(lengths, 1e-12)[:, None]))


def _surface(texts: Sequence[str]) -> Floats:
    """(n, F): how long, how varied, how it is written. No language is assumed beyond letters and punctuation."""
    made = []
    for text in texts:
        words = _WORD.findall(text.lower())
        letters = sum(c.isalpha() for c in text)
        size = max(len(text), 1)
        made.append(
            [
                np.log1p(len(text)),
                np.log1p(len(words)),
                np.log1p(len(set(words))),
                np.mean([len(word) for word in words]) if words else 0.0,
                np.log1p(len(re.findall(r"[.!?]+", text))),
                np.log1p(text.count("\n")),
                sum(c.isupper() for c in text) / max(letters, 1),
                sum(c.isdigit() for c in text) / size,
                text.count(",") / size,
                np.log1p(text.count("!") + text.count("?")),
                float(text[:1].isupper()),
                float(text.rstrip()[-1:] in (".", "!", "?", '"')),
            ]
        )
    return np.array(made, dtype=np.float64)
