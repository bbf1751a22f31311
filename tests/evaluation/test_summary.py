"""Figures of three small models by hand, and the sentences that they lead to."""

import json
from typing import Any

import numpy as np
import pytest

from palate.evaluation import verdict
from palate.evaluation.summary import Judge, Judged, labels, summarise

REWARD, TASTE = Judge("reward-1", "reward"), Judge("vivid", "taste")


def judged(
    name: str, level: float, prompts: int = 60, characters: float = 100.0, spread: float = 1.0, **changes: Any
) -> Judged:
    """A model whose answers score around `level` by both judges."""
    rng = np.random.default_rng(sum(map(ord, name)))
    scores = rng.normal(level, spread, (prompts, 2))
    values: dict[str, Any] = {
        "name": name,
        "texts": [[f"{name} {p} {s}" for s in range(2)] for p in range(prompts)],
        "tokens": np.full((prompts, 2), characters / 4),
        "characters": np.full((prompts, 2), characters),
        "finished": np.ones((prompts, 2)),
        "scores": {"reward-1": scores, "vivid": scores + rng.normal(0, 0.1, scores.shape)},
        "logprobs": np.full((prompts, 2), -10.0),
        "baseline_logprobs": np.full((prompts, 2), -12.5),
    }
    return Judged(**{**values, **changes})


def summary(*models: Judged, judges: tuple[Judge, ...] = (REWARD, TASTE)) -> dict[str, Any]:
    return summarise(models, "sft-1", judges, seed=0)


def test_figures_of_a_model() -> None:
    found = summary(judged("sft-1", 0.0), judged("dpo-1", 5.0, characters=120))
    baseline, tuned = found["models"]
    assert (found["candidate"], found["prompts"], found["samples"]) == ("dpo-1", 60, 2)
    assert baseline["against_baseline"] == {}
    assert baseline["kl"] is None
    assert tuned["kl"] == {"value": 2.5, "low": 2.5, "high": 2.5}
    assert tuned["kl_per_token"] == 2.5 / 30
    assert tuned["against_baseline"]["vivid"]["win_rate"]["value"] > 0.99
    assert tuned["against_baseline"]["vivid"]["similar_length_share"] == 0
    assert tuned["against_baseline"]["vivid"]["win_rate_similar_length"] is None
    assert [bar["n"] for bar in found["best_of_n"]] == [1, 2]
    assert found["best_of_n"][0]["scores"]["vivid"]["value"] == pytest.approx(
        baseline["scores"]["vivid"]["value"]
    )
    assert found["best_of_n"][1]["scores"]["vivid"]["value"] > baseline["scores"]["vivid"]["value"]
    assert json.loads(json.dumps(found)) == found  # plain values: summary.json holds all of it


def test_other_tokens_have_no_kl() -> None:
    found = summary(judged("sft-1", 0.0), judged("other/model", 0.0, baseline_logprobs=None))
    assert found["models"][1]["kl"] is None
    assert found["models"][1]["label"] == "model"


def test_labels_stay_unique() -> None:
    assert labels(["a/x", "b/x", "sft-1", "/runs/y/"]) == ["a/x", "b/x", "sft-1", "y"]


@pytest.mark.parametrize(
    ("level", "prompts", "outcome", "words"),
    [
        (1.0, 60, "better", "dpo-1 is better than sft-1: it wins"),
        (-1.0, 60, "worse", "dpo-1 is worse than sft-1"),
        (0.03, 60, "undecided", "can't be told apart from sft-1 on 60 prompts"),
        (1.0, 20, "too few prompts", "20 held-out prompts are too few"),
    ],
)
def test_verdict(level: float, prompts: int, outcome: str, words: str) -> None:
    found = summary(judged("sft-1", 0.0, prompts), judged("dpo-1", level, prompts))
    said, sentence = verdict.verdict(found)
    assert (said, words in sentence) == (outcome, True), sentence
    assert "hidden taste (vivid)" in sentence  # the judge that was not trained on decides


def test_nothing_to_compare() -> None:
    assert verdict.verdict(summary(judged("sft-1", 0.0)))[0] == "nothing to compare"
    assert verdict.cautions(summary(judged("sft-1", 0.0))) == []


def test_a_clean_result_needs_no_caution() -> None:
    assert verdict.cautions(summary(judged("sft-1", 0.0), judged("dpo-1", 1.0))) == []


def test_the_learned_reward_alone_is_named_as_such() -> None:
    found = summary(judged("sft-1", 0.0), judged("dpo-1", 1.0), judges=(REWARD,))
    assert ["The only judge is the learned reward" in c for c in verdict.cautions(found)] == [True]


def test_disagreeing_judges() -> None:
    rng = np.random.default_rng(1)
    scores = {"reward-1": rng.normal(2, 1, (60, 2)), "vivid": rng.normal(-2, 1, (60, 2))}
    cautions = verdict.cautions(summary(judged("sft-1", 0.0), judged("dpo-1", 0.0, scores=scores)))
    assert "learned reward (reward-1) says better; the hidden taste (vivid) says worse" in cautions[0]


def test_a_reward_no_better_than_length() -> None:
    rng = np.random.default_rng(1)
    weak = judged(
        "sft-1", 0.0, scores={"reward-1": rng.normal(size=(60, 2)), "vivid": rng.normal(size=(60, 2))}
    )
    cautions = verdict.cautions(summary(weak, judged("dpo-1", 0.0)))
    assert any(c.startswith("The learned reward orders") for c in cautions), cautions


def test_longer_cut_and_repeated_answers() -> None:
    same = [["the same", "the same"]] * 60
    changed = judged("dpo-1", 1.0, characters=150, texts=same, finished=np.zeros((60, 2)))
    cautions = verdict.cautions(summary(judged("sft-1", 0.0), changed))
    assert [c.split(":")[0].split(" of ")[0] for c in cautions] == [
        "Its answers are 50 % longer.",
        "It ends 0 %",
        "It repeats itself",
    ]


def test_prompts_seen_in_training() -> None:
    found = summary(judged("sft-1", 0.0), judged("dpo-1", 1.0))
    found["seen_in_training"] = {"sft-1": 0, "reward-1": 7}
    assert verdict.cautions(found) == ["7 of the 60 prompts were among the training rows of reward-1."]
