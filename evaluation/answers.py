"""What each model answers to the same prompts, how likely its answers are, and how judges score them.

One model is in memory at a time: a model samples and scores its own answers in one visit, then the baseline
scores everybody's, then the reward model. Not here: choosing the models (evaluate.py), figures (summary.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from palate.config import EvalConfig, UserError
from palate.data.records import Message, digest
from palate.evaluation.metrics import Array
from palate.evaluation.summary import Judge
from palate.generation import Sampled, sample
from palate.hardware import Hardware
from palate.models import Loaded, load
from palate.project import Project
from palate.sequences import EncodedTree
from palate.training import token_budget
from palate.tree import TreeForward
from palate.tree_packing import micro_batches

Prompts = Sequence[Sequence[Message]]


@dataclass(frozen=True)
class Answers:
    """S answers of one model to each of P prompts."""

    samples: list[list[Sampled]]
    logprobs: Array  # (P, S) log p(answer | prompt), summed over its tokens, stop token included
    tokenizer: str  # a hash: models with the same one give comparable log-probabilities

    @property
    def texts(self) -> list[list[str]]:
        """P lists of S texts."""
        return [[one.text for one in row] for row in self.samples]

    @property
    def tokens(self) -> Array:
        """(P, S) generated tokens, stop token included."""
        return np.array([[float(len(one.token_ids)) for one in row] for row in self.samples])

    @property
    def finished(self) -> Array:
        """(P, S) 1 where the model ended the answer itself, 0 where the limit did."""
        return np.array([[float(one.finish_reason == "stop") for one in row] for row in self.samples])


def answer(
    project: Project,
    ref: str,
    prompts: Prompts,
    config: EvalConfig,
    hardware: Hardware,
    stream: int,
    progress: Callable[[int], object] | None = None,
) -> Answers:
    """Sample from a model and keep how likely it found its own answers.

    `stream` sets this model's random numbers apart from the others': with the same ones, two near models would
    give coupled answers, and a win rate over such pairs is not the win rate of two answers given independently.
    """
    loaded = load(project, ref, hardware)
    samples = sample(
        loaded, prompts, config.samples, config.temperature, max_new_tokens=config.max_new_tokens,
        seed=int(digest("eval", config.seed, stream)[:12], 16), batch_size=config.batch_size, progress=progress,
    )  # fmt: skip
    return Answers(samples, log_probabilities(loaded, prompts, samples, config.max_new_tokens), _hash(loaded))


def baseline_log_probabilities(
    project: Project,
    baseline: str,
    prompts: Prompts,
    answers: Mapping[str, Answers],
    config: EvalConfig,
    hardware: Hardware,
) -> dict[str, Array]:
    """For each model with the baseline's tokens, (P, S) log p(its answers) under the baseline."""
    same = {ref: found for ref, found in answers.items() if found.tokenizer == answers[baseline].tokenizer}
    if len(same) == 1:
        return {}
    loaded = load(project, baseline, hardware)
    return {
        ref: log_probabilities(loaded, prompts, found.samples, config.max_new_tokens)
        for ref, found in same.items()
        if ref != baseline
    }


def log_probabilities(
    loaded: Loaded, prompts: Prompts, samples: Sequence[Sequence[Sampled]], max_new_tokens: int
) -> Array:
    """(P, S) float64 log p(answer | prompt) of the very tokens that were sampled, in float32 arithmetic.

    KL is a small difference of large sums, so it is not left to bfloat16.
    """
    context = getattr(loaded.model.config, "max_position_embeddings", None)
    room = (
        None if context is None else max_new_tokens - context
    )  # as sampling cuts a long prompt: at its start
    trees = [
        EncodedTree(loaded.encoder.prompt(prompt)[room:], [one.token_ids for one in row], 0, 0)
        for prompt, row in zip(prompts, samples, strict=True)
    ]
    exact = replace(loaded.hardware, dtype=torch.float32)
    loaded.model.requires_grad_(False)
    forward = TreeForward.of(loaded.model, exact)
    found = np.zeros((len(trees), len(samples[0])))
    with torch.no_grad():
        for group in micro_batches(trees, token_budget(loaded.model.config, exact)):
            for index, sums in zip(group, forward.logprobs([trees[i] for i in group]), strict=True):
                found[index] = sums.double().cpu().numpy()
    return found


def score(
    project: Project, judge: Judge, prompts: Prompts, answers: Mapping[str, Answers], hardware: Hardware
) -> dict[str, Array]:
    """(P, S) scores of every model's answers by one judge, higher is better."""
    if judge.kind == "reward":
        return _rewards(project, judge.name, prompts, answers, hardware)
    from palate.data.taste import TASTES

    taste = TASTES[judge.name].score
    asked = [next((m["content"] for m in reversed(p) if m["role"] == "user"), "") for p in prompts]
    return {
        ref: np.array(
            [[taste(text, one.text) for one in row] for text, row in zip(asked, found.samples, strict=True)]
        )
        for ref, found in answers.items()
    }


def _rewards(
    project: Project, run_id: str, prompts: Prompts, answers: Mapping[str, Answers], hardware: Hardware
) -> dict[str, Array]:
    from palate.reward.model import load_reward

    model = load_reward(project, run_id, hardware)
    scores = {}
    for ref, found in answers.items():
        flat = [(prompt, one) for prompt, row in zip(prompts, found.samples, strict=True) for one in row]
        given = model.score(
            [prompt for prompt, _ in flat],
            [one.text for _, one in flat],
            [one.finish_reason for _, one in flat],
        )
        scores[ref] = np.array(given, dtype=np.float64).reshape(len(prompts), -1)
        if not np.isfinite(scores[ref]).all():
            raise UserError(
                f"{run_id} gives scores that are no numbers to answers of {ref}; train the reward again"
            )
    return scores


def _hash(loaded: Loaded) -> str:
    return digest("tokenizer", sorted(loaded.tokenizer.get_vocab().items()), loaded.encoder.stop_ids)
