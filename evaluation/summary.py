"""From judged samples to the figures of a report: a plain dictionary, as summary.json holds it.

Pure: arrays in, numbers out. metrics.py has the formulas, evaluate.py makes the samples, verdict.py puts the
figures into sentences.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from palate.evaluation import metrics
from palate.evaluation.metrics import Array
from palate.reward.accuracy import Estimate

BEST_OF = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Judge:
    """Who says which of two answers is better."""

    name: str  # a reward run's id, or a taste
    kind: str  # "reward" or "taste"

    @property
    def label(self) -> str:
        """As a reader should meet it."""
        return f"learned reward ({self.name})" if self.kind == "reward" else f"hidden taste ({self.name})"


@dataclass(frozen=True)
class Judged:
    """S samples of one model for each of P prompts, and what is known of them. All arrays are (P, S)."""

    name: str  # run id, folder or hub id
    texts: list[list[str]]
    tokens: Array  # stop token included
    characters: Array
    finished: Array  # 1 where the model ended the answer itself
    scores: dict[str, Array]  # by judge
    logprobs: Array | None = None  # summed over the answer's tokens, under this model
    baseline_logprobs: Array | None = None  # and under the baseline; None: other tokens, no KL


def summarise(models: Sequence[Judged], baseline: str, judges: Sequence[Judge], seed: int) -> dict[str, Any]:
    """Every figure with its interval; `baseline` is the name of one of the models."""
    base = next(model for model in models if model.name == baseline)
    return {
        "baseline": baseline,
        "candidate": next((m.name for m in reversed(models) if m.name != baseline), None),
        "prompts": len(base.texts),
        "samples": len(base.texts[0]),
        "judges": [{**asdict(judge), "label": judge.label} for judge in judges],
        "models": [
            {**_model(model, base, judges, seed), "label": label}
            for model, label in zip(models, labels([m.name for m in models]), strict=True)
        ],
        "best_of_n": _best_of_n(base, judges, seed),
        "reward_accuracy": _reward_accuracy(base, judges, seed),
    }


def labels(names: Sequence[str]) -> list[str]:
    """Names short enough for a plot: the last part of a path or hub id, where that is still unique."""
    short = [name.rstrip("/").rpartition("/")[2] for name in names]
    return [s if short.count(s) == 1 else name for s, name in zip(short, names, strict=True)]


def _model(model: Judged, base: Judged, judges: Sequence[Judge], seed: int) -> dict[str, Any]:
    against: dict[str, Any] = {}
    if model is not base:
        alike = metrics.similar_length(model.characters, base.characters)
        for judge in judges:
            mine, theirs = model.scores[judge.name], base.scores[judge.name]
            against[judge.name] = {
                "win_rate": _plain(metrics.win_rate(mine, theirs, seed=seed)),
                "win_rate_similar_length": _plain(metrics.win_rate(mine, theirs, alike, seed)),
                "similar_length_share": float(alike.mean()),
                "longer_wins": _plain(
                    metrics.longer_wins(mine, theirs, model.characters, base.characters, seed)
                ),
            }
    return {
        "name": model.name,
        "scores": {j.name: _plain(metrics.estimate(model.scores[j.name], seed=seed)) for j in judges},
        "against_baseline": against,
        **_divergence(model, base, seed),
        "tokens": _plain(metrics.estimate(model.tokens, seed=seed)),
        "characters": _plain(metrics.estimate(model.characters, seed=seed)),
        "finished": _plain(metrics.estimate(model.finished, seed=seed)),
        "distinct": metrics.distinct_share(model.texts),
    }


def _divergence(model: Judged, base: Judged, seed: int) -> dict[str, Any]:
    if model is base or model.logprobs is None or model.baseline_logprobs is None:
        return {"kl": None, "kl_per_token": None}
    found = metrics.kl(model.logprobs, model.baseline_logprobs, seed)
    return {"kl": _plain(found), "kl_per_token": found.value / float(model.tokens.mean()) if found else None}


def _best_of_n(base: Judged, judges: Sequence[Judge], seed: int) -> list[dict[str, Any]]:
    """What picking the baseline's best of n by the learned reward reaches: the bar a tuned model has to beat."""
    reward = next((judge for judge in judges if judge.kind == "reward"), None)
    if reward is None:
        return []
    found = []
    for n in BEST_OF:
        if n > len(base.texts[0]):
            break
        scores = {
            judge.name: _plain(
                metrics.estimate(
                    metrics.best_of_n(base.scores[judge.name], base.scores[reward.name], n), seed=seed
                )
            )
            for judge in judges
        }
        found.append({"n": n, "kl": metrics.best_of_n_kl(n), "scores": scores})
    return found


def _reward_accuracy(base: Judged, judges: Sequence[Judge], seed: int) -> dict[str, Any] | None:
    """Does the learned reward order the baseline's samples as the taste does, and better than their length?"""
    reward = next((judge for judge in judges if judge.kind == "reward"), None)
    taste = next((judge for judge in judges if judge.kind == "taste"), None)
    if reward is None or taste is None or len(base.texts[0]) < 2:
        return None
    gold = base.scores[taste.name]
    first, second = np.triu_indices(gold.shape[1], 1)
    return {
        "against": taste.name,
        "pairs": int((gold[:, first] != gold[:, second]).sum()),
        "scores": _plain(metrics.accuracy(base.scores[reward.name], gold, seed)),
        "longer": _plain(metrics.accuracy(base.characters, gold, seed)),
    }


def _plain(found: Estimate | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)
