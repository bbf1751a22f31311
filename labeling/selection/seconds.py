"""How many seconds a comparison takes: ridge regression of log seconds on words shown and completions, learned online.

    log seconds = a + b log(1 + words) + c log(K - 1) + noise

Before any vote a comparison of two takes 3 s and a word a quarter of a second (240 words a minute); the prior counts
as PRIOR votes. Votes of more than ten minutes, or of no measured time, are somebody's coffee and left out.
"""

import numpy as np
from numpy.typing import NDArray

from palate.linear_head import Floats

PRIOR = 20.0  # votes that the starting values count for
DECISION, PER_WORD, PER_MORE = 3.0, 0.25, 0.7  # seconds, seconds, power of K - 1
SHORTEST, LONGEST = 0.5, 600.0  # seconds that are believed
_WORDS, _SIZES = np.meshgrid([10.0, 30.0, 100.0, 300.0, 1000.0], [2.0, 3.0, 4.0, 6.0])


class Seconds:
    """The regression's sufficient statistics: `add` a vote, `predict` comparisons. One for the project, or one each."""

    def __init__(self) -> None:
        x = _design(_WORDS.ravel(), _SIZES.ravel())
        y = np.log(DECISION * (_SIZES.ravel() - 1) ** PER_MORE + PER_WORD * _WORDS.ravel())
        self._information = x.T @ x * (PRIOR / len(x))
        self._moment = x.T @ y * (PRIOR / len(x))
        self._weights = np.linalg.solve(self._information, self._moment)
        self.votes = 0

    def add(self, words: float, size: int, seconds: float | None) -> None:
        """One vote: words of all texts shown, completions shown, active seconds."""
        if seconds is None or not SHORTEST <= seconds <= LONGEST or not np.isfinite(words):
            return
        x = _design(np.array([words]), np.array([size]))[0]
        self._information += np.outer(x, x)
        self._moment += x * np.log(seconds)
        self._weights = np.linalg.solve(self._information, self._moment)
        self.votes += 1

    def predict(self, words: NDArray[np.floating], sizes: NDArray[np.number]) -> Floats:
        """(n,) seconds, SHORTEST..LONGEST, for words (n,) and completions (n,) shown."""
        logs = _design(np.asarray(words, dtype=np.float64), np.asarray(sizes)) @ self._weights
        return np.asarray(np.clip(np.exp(np.clip(logs, -10, 10)), SHORTEST, LONGEST))


def _design(words: NDArray[np.floating], sizes: NDArray[np.number]) -> Floats:
    logs = np.log1p(np.maximum(words, 0.0))
    return np.asarray(np.stack([np.ones(len(logs)), logs, np.log(np.maximum(sizes, 2) - 1.0)], axis=1))
