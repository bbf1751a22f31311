"""The run around TRL's online trainers: prompts, rewards, settings, report. `palate rloo` and `palate grpo` are this.

    train(project, RlooConfig(folder), rloo.METHOD)

Not here: what of a trainer is ours (online_trl.py), what a method has for itself (rloo.py, grpo.py).
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from palate import trainer_checkpoints
from palate.config import UserError, as_dict, from_mapping
from palate.data.records import Message, Run
from palate.doctor import check_frozen, check_moved, check_template, check_trainable, fingerprint
from palate.generation import Sampled, sample
from palate.hardware import probe
from palate.models import Loaded, is_run, load, lora, quiet_libraries, save_adapter
from palate.project import Project
from palate.rl.best_of_n import Standing, frontier
from palate.rl.guards import warnings
from palate.rl.online_trl import Figures, Rollouts, fit, with_policy
from palate.rl.ppo_train import BAR_PROMPTS, fitting
from palate.rl.rewards import Rewards, open_rewards, parse
from palate.runs import CHECKPOINTS, ActiveRun
from palate.sequences import EncodedTree
from palate.training import starting_point, token_budget
from palate.tree import TreeForward, micro_batches

REREAD = 0.1  # share of answers above which it is said
_PROMPTS = "SELECT id AS prompt_id, messages FROM prompt WHERE split = ? AND (? IS NULL OR source = ?) ORDER BY id LIMIT ?"
Prompts = list[list[Message]]


class Method(NamedTuple):
    """What tells one online method from another."""

    stage: str
    config: type
    trainer: Any  # OwnRollouts before a trainer of TRL
    arguments: Any  # that trainer's class of settings
    settings: Callable[[Any], dict[str, Any]]


def train(project: Project, asked: Any, method: Method) -> Run:
    """Train a policy by what its reward says of what it writes; returns the finished run."""
    _check(asked)
    with _started(project, asked, method) as (active, config, every):
        hardware = probe(config.device, config.dtype)
        loaded = load(project, config.base, hardware)
        check_template(project.known(active.record.parents), loaded.encoder.template_hash)
        active.update(template_hash=loaded.encoder.template_hash)
        prompts = fitting(every, loaded, config.max_new_tokens)
        parts = [parse(name) for name in config.reward]
        print(
            f"{active.id}: {method.stage.upper()} on {config.base}, {len(prompts)} prompts, judged by "
            f"{' + '.join(f'{p.weight:g} {p.name}' if p.weight != 1 else p.name for p in parts)}; {config.steps} rollouts of {config.batch_size} answers ({hardware})"
        )
        rewards = open_rewards(project, parts, hardware, config.pessimism)
        policy = lora(loaded.model, config.lora_rank, 2 * config.lora_rank, config.seed)
        check_trainable(policy)
        frozen, before = fingerprint(policy, trainable=False), fingerprint(policy)
        rollouts = Rollouts(
            with_policy(loaded, policy), rewards, config.k, config.temperature, config.max_new_tokens, config.seed,
            config.reward_clip, config.missing_eos_penalty,
        )  # fmt: skip
        updates, folder = config.passes * config.minibatches, active.path / CHECKPOINTS
        folder.mkdir(exist_ok=True)
        checkpoint = trainer_checkpoints.latest(folder)
        active.rewind(0 if checkpoint is None else trainer_checkpoints.step_of(checkpoint) // updates)
        planned = plan(prompts, config.steps * config.batch_size // config.k, config.seed)
        with quiet_libraries():
            arguments = method.arguments(
                output_dir=str(trainer_checkpoints.writing(folder)),
                **common(loaded, planned, config), **method.settings(config),
            )  # fmt: skip
            fit(method.trainer, arguments, rollouts, planned, updates, active.log, folder)
        policy.set_adapter("default")
        check_moved(before, fingerprint(policy))
        check_frozen(frozen, fingerprint(policy, trainable=False))
        save_adapter(policy, active.path / "adapter")
        active.update(artefact={"kind": "adapter", "path": "adapter", "base": config.base})
        _report(project, active, rollouts, config, prompts)
    return active.record


def plan(prompts: Sequence[Any], wanted: int, seed: int) -> list[Any]:
    """The prompts of all rollouts: all of them in a new order, again and again."""
    order: list[int] = []
    cycle = 0
    while len(order) < wanted:
        order += random.Random(f"{seed}/prompts/{cycle}").sample(range(len(prompts)), len(prompts))
        cycle += 1
    return [prompts[i] for i in order[:wanted]]


def common(loaded: Loaded, prompts: Sequence[Sequence[Message]], config: Any) -> dict[str, Any]:
    """TRL's settings that all online methods share."""
    hardware = loaded.hardware
    rows = config.batch_size // config.minibatches
    longest = max(len(loaded.encoder.prompt(prompt)) for prompt in prompts) + config.max_new_tokens
    at_once = max(1, token_budget(loaded.model.config, hardware) // longest)
    size = max(n for n in range(1, rows + 1) if rows % n == 0 and n <= at_once)
    updates = config.passes * config.minibatches
    return {
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": rows // size,
        "generation_batch_size": config.batch_size,
        "num_generations": config.k,
        "num_iterations": config.passes,
        "max_steps": config.steps * updates,
        "shuffle_dataset": False,  # the plan has an order, which a resumed run finds again
        "max_completion_length": config.max_new_tokens,
        "temperature": config.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "repetition_penalty": 1.0,
        "disable_dropout": True,
        "learning_rate": config.learning_rate or default_learning_rate(loaded.weights),
        "lr_scheduler_type": "linear",
        "adam_epsilon": 1e-5,
        "bf16": hardware.dtype == torch.bfloat16,
        "use_cpu": hardware.device.type == "cpu",
        "gradient_checkpointing": False,
        "dataloader_pin_memory": hardware.device.type == "cuda",
        "logging_steps": updates,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": config.seed,
    }


def default_learning_rate(weights: int) -> float:
    """Peak rate for LoRA by the model's size; measured on the built-in model, customary above 20M weights."""
    return 1e-3 if weights < 20_000_000 else 1e-5


@contextmanager
def _started(project: Project, asked: Any, method: Method) -> Iterator[tuple[ActiveRun, Any, Prompts]]:
    """A new run with its prompts frozen; or, with `--resume`, that run with its own prompts and settings."""
    if asked.resume is not None:
        with project.resume(asked.resume, method.stage) as active:
            file = active.path / "data" / "prompts.parquet"
            if not file.exists():
                raise UserError(f"{active.id} was stopped before it had its prompts: begin anew")
            config: Any = from_mapping(method.config, dict(active.record.config), active.id)
            config = replace(config, project=asked.project, recipe=None, device=asked.device)
            print(f"{active.id} goes on")
            yield active, config, _messages(pq.read_table(file))
        return
    ref, parents = starting_point(project, asked.base)
    names = asked.reward or (_latest_reward(project),)
    runs = tuple(part.name for part in map(parse, names) if is_run(project, part.name))
    with project.store() as store:
        limit = 2**62 if asked.limit is None else asked.limit
        table = store.table(_PROMPTS, ["train", asked.source, asked.source, limit])
    if not table.num_rows:
        where = f" from source '{asked.source}'" if asked.source else ""
        raise UserError(f"there are no training prompts{where}; palate import FILE brings some")
    settings = {**as_dict(asked), "base": ref, "reward": list(names)}
    parents = tuple(dict.fromkeys((*parents, *runs)))
    with project.start(method.stage, settings, parents, asked.seed) as active:
        active.freeze("prompts", table)
        yield active, from_mapping(method.config, settings, active.id), _messages(table)


def _messages(table: pa.Table) -> Prompts:
    return [json.loads(messages) for messages in table["messages"].to_pylist()]


def _latest_reward(project: Project) -> str:
    latest = project.latest("reward")
    if latest is None:
        raise UserError(
            "there is no reward run yet: palate reward makes one, or name another source: --reward"
        )
    return latest.id


def _check(config: Any) -> None:
    """Settings that can't be, said before anything is made."""
    if config.k < 2 or config.batch_size < 2 or config.batch_size % config.k:
        raise UserError(
            f"--batch-size {config.batch_size} must be a multiple of -k {config.k}, and -k at least 2: answers of a prompt "
            "are compared with each other"
        )
    if config.minibatches < 1 or config.passes < 1 or config.batch_size % config.minibatches:
        raise UserError(f"--minibatches {config.minibatches} must divide --batch-size {config.batch_size}")
    if config.steps < 1 or config.max_new_tokens < 1:
        raise UserError("--steps and --max-new-tokens must be at least 1")
    if config.temperature <= 0:
        raise UserError(f"--temperature must be above 0, got {config.temperature}: it learns from chance")
    if not 0 < config.clip < 1 or config.kl < 0:
        raise UserError("--clip takes 0 to 1 (without the ends), --kl 0 or more")


def _report(project: Project, active: ActiveRun, rollouts: Rollouts, config: Any, prompts: Prompts) -> None:
    """Final figures to the record and the terminal, with what they mean."""
    history = logged(active)
    held_out, where = _held_out(project, rollouts.loaded, config, prompts)
    own, start = standing(rollouts, held_out, config.seed + 2), bar(rollouts, held_out, config)
    found = frontier(start)
    names = ("rollout", "scoring", "update")
    seconds = {name: sum(row[f"{name}_seconds"] for row in history) for name in names}
    size = max(1, len(history) // 10)
    active.metrics(
        steps=len(history), episodes=len(history) * config.batch_size, reward_before=found.reward[0], reward=own.reward,
        kl=own.kl, length=own.length, stop_rate=own.stop_rate, best_of_n=found.record(),
        seconds={name: round(value, 1) for name, value in seconds.items()},
        **{f"train_{name}": sum(row[name] for row in history[-size:]) / size for name in ("reward", "entropy")},
    )  # fmt: skip
    total = sum(seconds.values())
    shares = ", ".join(f"{name} {value / total:.0%}" for name, value in seconds.items())
    print(f"  {len(history) * config.batch_size} answers in {total:.0f} s ({shares})")
    print(
        f"  {where}: reward {found.reward[0]:+.2f} -> {own.reward:+.2f}, {own.kl:.1f} nats from {config.base}, "
        f"{own.length:.0f} tokens, {own.stop_rate:.0%} end by themselves"
    )
    if config.best_of > 1:
        print(f"  {found.sentence(own.reward, own.kl)}")
    reread = max(row["reread"] for row in history)
    if reread > REREAD:
        print(
            f"  warning: the reward read up to {reread:.0%} of a rollout's answers as other tokens than were written: the same "
            "text, cut otherwise, as training goes to unusual tokens; raise --kl"
        )
    for sentence in warnings(history):
        print(f"  warning: {sentence}")
    print(f"made {active.path / 'adapter'}")
    print("next: palate eval")


def logged(active: ActiveRun) -> list[Figures]:
    """Rows of metrics.jsonl, of earlier attempts too."""
    lines = (active.path / "metrics.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _held_out(project: Project, loaded: Loaded, config: Any, prompts: Prompts) -> tuple[Prompts, str]:
    """Prompts that nothing was trained on, where there are some."""
    with project.store() as store:
        table = store.table(_PROMPTS, ["test", config.source, config.source, BAR_PROMPTS])
    if table.num_rows:
        found = fitting(_messages(table), loaded, config.max_new_tokens)
        return found, f"{len(found)} held-out prompts"
    return prompts[:BAR_PROMPTS], "training prompts (there are no held-out ones)"


def bar(rollouts: Rollouts, prompts: Prompts, config: Any) -> np.ndarray[Any, Any]:
    """(P, N) rewards of N answers of the start to each prompt."""
    with rollouts.loaded.model.disable_adapter():
        return _judged(rollouts, prompts, max(1, config.best_of), config.seed + 1)[1]


def standing(rollouts: Rollouts, prompts: Prompts, seed: int) -> Standing:
    """The policy on some prompts: reward, distance from the start in nats (k1), length, share that ends by itself."""
    answers, rewards = _judged(rollouts, prompts, rollouts.k, seed)
    loaded = rollouts.loaded
    trees = [
        EncodedTree(loaded.encoder.prompt(prompt), [list(one.token_ids) for one in row], 0, 0)
        for prompt, row in zip(prompts, answers, strict=True)
    ]
    forward, distance = TreeForward.of(loaded.model, loaded.hardware), 0.0
    with torch.no_grad():
        for group in micro_batches(trees, token_budget(loaded.model.config, loaded.hardware)):
            some = [trees[i] for i in group]
            own = forward.tokens(some, rollouts.temperature)[0].sum()
            with loaded.model.disable_adapter():
                distance += float(own - forward.tokens(some, rollouts.temperature)[0].sum())
    flat = [one for row in answers for one in row]
    return Standing(
        float(rewards.mean()), distance / len(flat), sum(len(one.token_ids) for one in flat) / len(flat),
        sum(one.finish_reason == "stop" for one in flat) / len(flat),
    )  # fmt: skip


def _judged(
    rollouts: Rollouts, prompts: Prompts, k: int, seed: int
) -> tuple[list[list[Sampled]], np.ndarray[Any, Any]]:
    answers = sample(rollouts.loaded, prompts, k, rollouts.temperature, 1.0, rollouts.max_new_tokens, seed)
    flat = [one for row in answers for one in row]
    asked = [prompt for prompt in prompts for _ in range(k)]
    texts, reasons = [one.text for one in flat], [one.finish_reason for one in flat]
    scores: Rewards = rollouts.rewards
    return answers, np.array(scores.score(asked, texts, reasons)).reshape(len(prompts), k)
