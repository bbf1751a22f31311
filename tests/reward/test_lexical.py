"""The n-gram baseline learns a word, a length, or nothing, and says so when there is nothing to learn from."""

from typing import Any

import numpy as np
import pytest

from palate.config import UserError
from palate.reward.accuracy import accuracy
from palate.reward.lexical import LexicalFeatures, LexicalReward

WORDS = ("red", "blue", "tall", "small", "quick", "slow", "warm", "cold", "old", "new", "loud", "calm")


def rows(n: int, seed: int, informative: bool = True) -> list[dict[str, Any]]:
    """The answer with `please` wins; both have as many words."""
    random = np.random.default_rng(seed)
    made = []
    for i in range(n):
        good, bad = (" ".join(random.choice(WORDS, 5)) for _ in range(2))
        winner = 0 if informative or random.random() < 0.5 else 1
        pair = {"winner": winner, "loser": 1 - winner, "tie": False, "weight": 1.0}
        texts = [f"{good} please", f"{bad} thanks"]
        made.append({"group": f"{i}", "comparison_id": f"{i}", "completions": texts, "pairs": [pair]})
    return made


def test_it_learns_a_word_and_keeps_it_for_new_texts() -> None:
    held = rows(60, 1)
    found = accuracy(held, LexicalReward.fit(rows(150, 0)).scores(held))
    assert found is not None and found.scores.value > 0.95


def test_votes_by_coin_teach_it_next_to_nothing() -> None:
    scores = LexicalReward.fit(rows(150, 0, informative=False)).scores(rows(60, 1))
    assert np.ptp(np.concatenate(scores)) < 2


def test_odd_texts_have_finite_features() -> None:
    texts = ["", "!!!", "\u65e5\u672c\u8a9e", "a " * 50_000]
    features = LexicalFeatures.fit(texts)
    assert np.isfinite(features.surface(texts)).all() and np.isfinite(features.ngrams(texts)).all()


def test_without_votes_it_says_so() -> None:
    with pytest.raises(UserError, match="needs votes"):
        LexicalReward.fit([])
