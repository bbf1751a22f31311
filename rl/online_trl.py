"""What TRL's online trainers get from us: sampling, rewards, and checks of what goes wrong silently in them.

    class Rloo(OwnRollouts, RLOOTrainer): ...
    fit(Rloo, arguments, rollouts, guard, prompts, updates, log, folder)

TRL decodes answers and tokenises them again for a reward model, with an end of turn that a cut answer never had; its
reference is a copied adapter, which copies some kinds wrongly; its defaults are bfloat16 and gradient checkpointing on any
machine; positions of padded prompts count from the padding; its orders depend on how often they were asked for. Here
answers are sampled by palate.generation, from a seed of their own in every rollout; rewards get text and how it ended; the
reference is the start itself, adapter off; and all that is checked where training begins (each has a test that is named
after it). Not here: which prompts and rewards, and the run (online_run.py).
"""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from peft.helpers import disable_input_dtype_casting
from torch import Tensor
from tqdm import tqdm
from transformers import TrainerCallback

from palate import trainers
from palate.data.records import Message
from palate.doctor import DoctorError, check_dtype, check_finite
from palate.generation import Sampled, sample
from palate.models import Loaded, quiet_libraries
from palate.rl.belief import mean_states
from palate.rl.guards import Figures, Guard
from palate.rl.prompted import step_seed
from palate.rl.rewards import Rewards
from palate.rl.rollouts import GENERATED_AT_ONCE, scored, written
from palate.sequences import EncodedTree
from palate.training import token_budget
from palate.tree import TreeForward
from palate.tree_packing import micro_batches

SAMPLER_GAP = {
    torch.float32: 1e-3,
    torch.bfloat16: 0.1,
}  # nats per token between sampling and scoring, at most
Prompts = Sequence[Sequence[Message]]
GUARD = "guard.pt"  # in a checkpoint, what the guard has seen


@dataclass
class Rollouts:
    """Where answers come from and what they are worth; `figures` are those of the last rollout."""

    loaded: Loaded  # with the policy as its model
    rewards: Rewards
    k: int
    temperature: float
    max_new_tokens: int
    seed: int
    reward_clip: float | None
    missing_eos_penalty: float
    rows: list[list[Sampled]] = field(default_factory=list)  # answers, prompt by prompt
    figures: Figures = field(default_factory=dict)

    @property
    def answers(self) -> list[Sampled]:
        """All of them."""
        return [one for row in self.rows for one in row]

    def write(self, prompts: Prompts, step: int) -> list[list[int]]:
        """k answers to each prompt as token ids, prompt by prompt; another seed in each step, the same in each attempt."""
        began = time.perf_counter()
        self.rows = sample(
            self.loaded, prompts, self.k, self.temperature, 1.0, self.max_new_tokens, step_seed(self.seed, step),
            GENERATED_AT_ONCE,
        )  # fmt: skip
        self.figures = {"rollout_seconds": time.perf_counter() - began}
        return [list(one.token_ids) for one in self.answers]

    def judge(self, prompts: Prompts) -> list[float]:
        """One reward per answer, clipped, less the penalty of those that did not end by themselves."""
        began = time.perf_counter()
        answers = self.answers
        texts, reasons = [one.text for one in answers], [one.finish_reason for one in answers]
        rewards = torch.tensor(self.rewards.score(prompts, texts, reasons))
        scores, figures = scored(answers, rewards, self.reward_clip, self.missing_eos_penalty)
        self.figures |= figures | {
            "reread": sum(map(self._reread, answers)) / len(answers),
            "scoring_seconds": time.perf_counter() - began,
        }
        return [float(score) for score in scores]

    def _reread(self, one: Sampled) -> bool:
        """Whether the text, which rewards get, is cut into other tokens than were written."""
        written = one.token_ids[:-1] if one.finish_reason == "stop" else one.token_ids
        return self.loaded.encoder.completion(one.text, "length") != written


class OwnRollouts:
    """To stand before RLOOTrainer or GRPOTrainer: its prompts, answers and rewards are ours."""

    rollouts: Rollouts
    updates: int  # optimiser steps per rollout
    trees: TreeForward
    guard: Guard

    def _tokenize_prompts(self: Any, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        k = self.rollouts.k
        self.asked = prompts[::k]
        assert all(prompt == self.asked[i // k] for i, prompt in enumerate(prompts)), (
            "answers of a prompt lie together"
        )
        return [self.rollouts.loaded.encoder.prompt(prompt) for prompt in prompts], None, {}

    def _generate_single_turn(self: Any, *_: Any, **__: Any) -> Any:
        self.rollouts.loaded.model.eval()
        found = self.rollouts.write(self.asked, self.state.global_step // self.updates)
        self.model.train()
        return found

    def _calculate_rewards(
        self: Any, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> Tensor:
        assert completion_ids_list == [list(one.token_ids) for one in self.rollouts.answers]
        rewards = self.rollouts.judge(prompts)
        return torch.tensor(rewards, device=self.accelerator.device)[:, None]

    def _get_per_token_logps_and_entropies(
        self: Any,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        *_: Any,
        **__: Any,
    ) -> tuple[Tensor, Tensor, None]:
        """(B, logits_to_keep) log-probabilities of the completions' tokens and entropies, zero on padding."""
        logprobs, entropies = padded_tokens(
            self.trees, input_ids, attention_mask, logits_to_keep, self.temperature
        )
        return logprobs, entropies, None

    def _generate_and_score_completions(self: Any, inputs: Any) -> dict[str, Any]:
        before = [parameter.dtype for parameter in self.model.parameters()]
        found: dict[str, Any] = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        check_dtype(self.model, before)
        if self.state.global_step == 0:
            check_start(self, found)
        step = self.state.global_step // self.updates
        if self.guard.due(step):
            self._watch(step)
        return found

    @torch.no_grad()
    def _watch(self: Any, step: int) -> None:
        """A point of the guard's path: how far this rollout is from the start, and what the start reads in it."""
        rollouts, policy = self.rollouts, self.rollouts.loaded.model
        trees, weights = written(rollouts.loaded, self.asked, rollouts.rows), trained(policy)
        with policy.disable_adapter():  # which switches the adapter's gradients off too
            self.guard.see(
                step, distance(rollouts, self.trees, trees), rollouts.figures["reward"],
                lambda: mean_states(rollouts.loaded, self.trees, trees), weights,
            )  # fmt: skip


def check_start(trainer: Any, batch: dict[str, Tensor]) -> None:
    """Before the first step: what was sampled from is what is scored, and the policy is its reference."""
    rows = min(len(trainer.rollouts.answers), 16)
    ids, mask = (
        torch.cat([batch[f"prompt_{name}"][:rows], batch[f"completion_{name}"][:rows]], 1)
        for name in ("ids", "mask")
    )
    real = batch["completion_mask"][:rows].bool()
    keep = real.shape[1]
    with torch.no_grad():
        scored = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, keep)[0][real]
        with trainer.accelerator.unwrap_model(trainer.model).disable_adapter():
            reference = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, keep)[0][real]
    drawn = torch.tensor([x for one in trainer.rollouts.answers[:rows] for x in one.logprobs]).to(
        scored.device
    )
    loaded = trainer.rollouts.loaded
    most = SAMPLER_GAP.get(loaded.hardware.dtype, 0.1)
    gap = float((drawn - scored).abs().mean())
    if gap > most:
        raise DoctorError(
            f"the probabilities that {loaded.ref} was sampled from differ from those that are trained by {gap:.3f} nats a "
            "token: every step would be wrong; try --dtype float32"
        )
    gap = float((reference - scored).abs().max())
    if gap > most:
        raise DoctorError(
            f"before the first step the policy differs from its reference by {gap:.3f} nats: the KL penalty would mean "
            "something else"
        )


@torch.no_grad()
def distance(rollouts: Rollouts, start: TreeForward, trees: Sequence[EncodedTree]) -> float:
    """Nats per answer (k1) between what `rollouts` has written and the start, which `start` computes."""
    loaded, reference = rollouts.loaded, 0.0
    for group in micro_batches(trees, token_budget(loaded.model.config, loaded.hardware)):
        reference += float(start.tokens([trees[i] for i in group], rollouts.temperature)[0].sum())
    answers = rollouts.answers
    return (sum(sum(one.logprobs) for one in answers) - reference) / len(answers)


def trained(policy: Any) -> dict[str, Tensor]:
    """What training changes, by name."""
    return {name: one for name, one in policy.named_parameters() if one.requires_grad}


def padded_tokens(
    forward: TreeForward, ids: Tensor, mask: Tensor, keep: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """What TRL asks of a padded batch: log-probabilities and entropies of its last `keep` columns, (B, keep) each.

    `ids`, `mask` (B, P + keep), prompts padded on the left, completions on the right. Rows of the same prompt become one
    tree, the output head runs on completions alone, and positions count from the first real token.
    """
    split = ids.shape[1] - keep
    groups: dict[tuple[int, ...], list[int]] = {}
    rows, real = ids.tolist(), mask.bool().tolist()
    for row, (tokens, kept) in enumerate(zip(rows, real, strict=True)):
        prompt = tuple(token for token, one in zip(tokens[:split], kept[:split], strict=True) if one)
        groups.setdefault(prompt, []).append(row)
    trees = [
        EncodedTree(
            list(prompt),
            [[t for t, one in zip(rows[row][split:], real[row][split:], strict=True) if one] for row in some],
            0, 0,
        )
        for prompt, some in groups.items()
    ]  # fmt: skip
    logprobs, entropies = forward.tokens(trees, temperature)
    order = [row for some in groups.values() for row in some]
    places = torch.cat([row * keep + mask[row, split:].bool().nonzero()[:, 0] for row in order])
    empty = logprobs.new_zeros(len(rows) * keep)
    return tuple(empty.index_put((places,), flat).view(len(rows), keep) for flat in (logprobs, entropies))  # type: ignore[return-value]


def fit(
    trainer_class: Any,
    arguments: Any,
    rollouts: Rollouts,
    guard: Guard,
    prompts: Prompts,
    updates: int,
    log: Callable[..., None],
    folder: Path | None = None,
) -> None:
    """Train `rollouts.loaded.model`, a PeftModel, on `prompts` (those of all rollouts, in order), to the end or where `guard`
    stops. `folder`: of checkpoints, the last of which is gone on from."""
    from datasets import Dataset

    policy, loaded = rollouts.loaded.model, rollouts.loaded
    checkpoint = None if folder is None else trainers.latest(folder)
    done = 0
    if checkpoint is not None:
        done = trainers.step_of(checkpoint) // updates
        guard.resume(torch.load(checkpoint / GUARD, weights_only=True))
    with ExitStack() as stack:
        stack.enter_context(quiet_libraries())
        bar = stack.enter_context(
            tqdm(
                total=arguments.max_steps // updates, initial=done, unit="step", file=sys.stderr, leave=False, disable=None
            )
        )  # fmt: skip
        trainer = trainer_class(
            model=policy, reward_funcs=_named, args=arguments, processing_class=loaded.tokenizer,
            train_dataset=Dataset.from_list([{"prompt": [dict(message) for message in prompt]} for prompt in prompts]),
            callbacks=[_Progress(rollouts, guard, updates, log, bar)],
        )  # fmt: skip
        reference_is_start(policy)
        trainer.rollouts, trainer.updates, trainer.guard = rollouts, updates, guard
        trainer.trees = TreeForward.of(policy, loaded.hardware)
        stack.enter_context(disable_input_dtype_casting(policy))
        trainers.train(trainer, folder, checkpoint, lambda place: torch.save(guard.record(), place / GUARD))
    policy.eval()
    policy.set_adapter("default")
    guard.end(trained(policy))


def reference_is_start(policy: Any) -> None:
    """TRL copies the adapter to be the reference, and copies token embeddings and trained token rows wrongly (they end in
    `.default`). Without the copy it switches the adapter off, which is the start whatever the adapter holds."""
    if "ref" in policy.peft_config:
        policy.set_adapter("default")
        policy.delete_adapter("ref")


def _named(**_: Any) -> list[float]:
    """TRL wants a function; the rewards are those of OwnRollouts."""
    raise AssertionError("rewards come from OwnRollouts")


class _Progress(TrainerCallback):  # type: ignore[misc]
    """Our bar and our log: a row of figures per rollout."""

    def __init__(
        self, rollouts: Rollouts, guard: Guard, updates: int, log: Callable[..., None], bar: Any
    ) -> None:
        self._rollouts, self._guard, self._updates = rollouts, guard, updates
        self._log, self._bar = log, bar
        self._since = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """TRL's averages over the updates of a rollout, beside the rollout's own figures; ends the run where the guard says so."""
        if not logs or "loss" not in logs:  # the summary at the end
            return
        step = state.global_step // self._updates - 1
        check_finite(float(logs["loss"]) + float(logs["grad_norm"]), step)
        figures = dict(self._rollouts.figures)
        spent = time.perf_counter() - self._since
        figures |= {
            "loss": float(logs["loss"]),
            "grad_norm": float(logs["grad_norm"]),
            "learning_rate": float(logs["learning_rate"]),
            "entropy": float(logs["entropy"]),
            "clipped": float(logs["clip_ratio/region_mean"]),
            "update_seconds": spent - figures["rollout_seconds"] - figures["scoring_seconds"],
        }
        if logs.get("kl") is not None:
            figures["kl"] = float(logs["kl"]) * figures["length"]  # nats per completion
        self._since = time.perf_counter()
        self._log(step, **figures)
        control.should_training_stop |= self._guard.stops()
        self._bar.update()
        self._bar.set_postfix(reward=f"{figures['reward']:+.2f}", kl=f"{figures.get('kl', 0.0):.1f}")


def with_policy(loaded: Loaded, policy: Any) -> Loaded:
    """The same, writing as `policy`."""
    return replace(loaded, model=policy)
