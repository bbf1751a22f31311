"""The run around TRL's online trainers: settings, guard, report. `palate rloo` and `palate grpo` are this.

    train(project, RlooConfig(folder), rloo.METHOD)

Not here: what of a trainer is ours (online_trl.py), what a method has for itself (rloo.py, grpo.py), what PPO shares
(prompted.py).
"""

import json
import shutil
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from palate import trainers
from palate.config import UserError
from palate.data.records import Message, Run
from palate.doctor import check_frozen, check_moved, check_template, check_trainable, fingerprint
from palate.generation import Sampled, sample
from palate.hardware import probe
from palate.models import Loaded, load, lora, quiet_libraries, save_adapter
from palate.project import Project
from palate.rl import prompted
from palate.rl.best_of_n import Frontier, Standing, frontier
from palate.rl.guards import Figures, Guard
from palate.rl.online_trl import Rollouts, distance, fit, with_policy
from palate.rl.prompted import SNAPSHOTS, Prompts
from palate.rl.rewards import open_rewards, parse
from palate.rl.rollouts import written
from palate.runs import CHECKPOINTS, ActiveRun
from palate.training import token_budget
from palate.tree import TreeForward

REREAD = 0.1  # share of answers above which it is said


class Method(NamedTuple):
    """What tells one online method from another."""

    stage: str
    trainer: Any  # OwnRollouts before a trainer of TRL
    arguments: Any  # that trainer's class of settings
    settings: Callable[[Any], dict[str, Any]]


def train(project: Project, asked: Any, method: Method) -> Run:
    """Train a policy by what its reward says of what it writes; returns the finished run."""
    _check(asked)
    with prompted.started(project, asked, method.stage) as (active, config, every):
        hardware = probe(config.device, config.dtype)
        loaded = load(project, config.base, hardware)
        check_template(project.known(active.record.parents), loaded.encoder.template_hash)
        active.update(template_hash=loaded.encoder.template_hash)
        prompts = prompted.fitting(every, loaded, config.max_new_tokens)
        parts = [parse(name) for name in config.reward]
        print(
            f"{active.id}: {method.stage.upper()} on {config.base}, {len(prompts)} prompts, judged by "
            f"{prompted.judged_by(parts)}; {config.steps} rollouts of {config.batch_size} answers ({hardware})"
        )
        rewards = open_rewards(project, parts, hardware, config.pessimism)
        start, belief = TreeForward.of(loaded.model, hardware), None
        if config.guard != "off":
            belief = prompted.belief(project, parts, loaded, start)
        guard = Guard(config.guard, config.keep_every, active.path / SNAPSHOTS, belief)
        policy = lora(loaded.model, config.lora_rank, 2 * config.lora_rank, config.seed)
        check_trainable(policy)
        frozen, before = fingerprint(policy, trainable=False), fingerprint(policy)
        rollouts = Rollouts(
            with_policy(loaded, policy), rewards, config.k, config.temperature, config.max_new_tokens, config.seed,
            config.reward_clip, config.missing_eos_penalty,
        )  # fmt: skip
        _optimise(active, method, config, rollouts, guard, prompts)
        check_moved(before, fingerprint(policy))
        check_frozen(frozen, fingerprint(policy, trainable=False))
        save_adapter(policy, active.path / "adapter")
        active.update(artefact={"kind": "adapter", "path": "adapter", "base": config.base})
        shutil.rmtree(active.path / SNAPSHOTS, ignore_errors=True)
        _report(project, active, rollouts, guard, config, prompts)
    return active.record


def _optimise(
    active: ActiveRun, method: Method, config: Any, rollouts: Rollouts, guard: Guard, prompts: Prompts
) -> None:
    """All steps, or the rest of them after the last checkpoint."""
    updates, folder = config.passes * config.minibatches, active.path / CHECKPOINTS
    folder.mkdir(exist_ok=True)
    checkpoint = trainers.latest(folder)
    active.rewind(0 if checkpoint is None else trainers.step_of(checkpoint) // updates)
    wanted = config.steps * config.batch_size // config.k
    planned = [prompts[i] for i in prompted.drawn(len(prompts), config.seed, 0, wanted)]
    with quiet_libraries():
        arguments = method.arguments(
            output_dir=str(trainers.writing(folder)),
            **common(rollouts.loaded, planned, config), **method.settings(config),
        )  # fmt: skip
        fit(method.trainer, arguments, rollouts, guard, planned, updates, active.log, folder)


def common(loaded: Loaded, prompts: Sequence[Sequence[Message]], config: Any) -> dict[str, Any]:
    """TRL's settings that all online methods share."""
    rows = config.batch_size // config.minibatches
    longest = max(len(loaded.encoder.prompt(prompt)) for prompt in prompts) + config.max_new_tokens
    at_once = max(1, token_budget(loaded.model.config, loaded.hardware) // longest)
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
        "learning_rate": config.learning_rate or prompted.default_learning_rate(loaded.weights),
        "lr_scheduler_type": "linear",
        "adam_epsilon": 1e-5,
        "gradient_checkpointing": False,
        "logging_steps": updates,
        "seed": config.seed,
        **trainers.machine(loaded.hardware),
    }


def _check(config: Any) -> None:
    """Settings that can't be, said before anything is made."""
    if config.k < 2 or config.batch_size < 2 or config.batch_size % config.k:
        raise UserError(
            f"--batch-size {config.batch_size} must be a multiple of -k {config.k}, and -k at least 2: answers of a prompt "
            "are compared with each other"
        )
    if config.minibatches < 1 or config.passes < 1 or config.batch_size % config.minibatches:
        raise UserError(f"--minibatches {config.minibatches} must divide --batch-size {config.batch_size}")
    if config.steps < 1 or config.keep_every < 1 or config.max_new_tokens < 1:
        raise UserError("--steps, --keep-every and --max-new-tokens must be at least 1")
    if config.temperature <= 0:
        raise UserError(f"--temperature must be above 0, got {config.temperature}: it learns from chance")
    if not 0 < config.clip < 1 or config.kl < 0:
        raise UserError("--clip takes 0 to 1 (without the ends), --kl 0 or more")


def _report(
    project: Project, active: ActiveRun, rollouts: Rollouts, guard: Guard, config: Any, prompts: Prompts
) -> None:
    """Final figures to the record and the terminal, with what they mean."""
    history = logged(active)
    found, where = prompted.held_out(project, config, rollouts.loaded, prompts)
    own, bar = against_best_of_n(rollouts, found, config)
    reread, more = max(row["reread"] for row in history), []
    if reread > REREAD:
        more.append(
            f"the reward read up to {reread:.0%} of a rollout's answers as other tokens than were written: the same text, cut "
            "otherwise, as training goes to unusual tokens; raise --kl"
        )
    prompted.report(active, config, history, guard, own, bar, where, more)


def logged(active: ActiveRun) -> list[Figures]:
    """Rows of metrics.jsonl, of earlier attempts too."""
    lines = (active.path / "metrics.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def against_best_of_n(rollouts: Rollouts, prompts: Prompts, config: Any) -> tuple[Standing, Frontier]:
    """The trained policy, and best of n of the start, on the same prompts by the same reward."""
    policy = rollouts.loaded.model
    with policy.disable_adapter():
        bar = frontier(_judged(rollouts, prompts, max(1, config.best_of), config.seed + 1)[1])
    rollouts.rows, rewards = _judged(rollouts, prompts, config.k, config.seed + 2)
    trees = written(rollouts.loaded, prompts, rollouts.rows)
    with policy.disable_adapter():
        kl = distance(rollouts, TreeForward.of(policy, rollouts.loaded.hardware), trees)
    return Standing.of(rollouts.rows, rewards, kl), bar


def _judged(
    rollouts: Rollouts, prompts: Prompts, k: int, seed: int
) -> tuple[list[list[Sampled]], np.ndarray[Any, Any]]:
    """k answers to each prompt and their rewards (P, k)."""
    answers = sample(rollouts.loaded, prompts, k, rollouts.temperature, 1.0, rollouts.max_new_tokens, seed)
    flat = [one for row in answers for one in row]
    asked = [prompt for prompt in prompts for _ in range(k)]
    texts, reasons = [one.text for one in flat], [one.finish_reason for one in flat]
    scores = rollouts.rewards.score(asked, texts, reasons)
    return answers, np.array(scores).reshape(len(prompts), k)
