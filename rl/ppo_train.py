"""`palate ppo`: which prompts, rewards and models; the run around the loop of ppo.py, and what is said of it.

palate ppo                  or   run(Project.open(folder), PpoConfig(folder))
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from palate.checkpoints import Checkpoints
from palate.config import PpoConfig, UserError, as_dict, from_mapping
from palate.data.records import Message, Run
from palate.doctor import check_frozen, check_moved, check_template, weights_hash
from palate.hardware import probe
from palate.models import Loaded, is_run, load, save_adapter, save_model
from palate.parallel import team
from palate.project import Project
from palate.rl.belief import Belief
from palate.rl.best_of_n import against_best_of_n
from palate.rl.guards import Guard, fit, warnings
from palate.rl.ppo import Ppo
from palate.rl.rewards import Part, open_rewards, parse
from palate.rl.roles import POLICY, REFERENCE, VALUE, Roles
from palate.runs import ActiveRun
from palate.training import starting_point, token_budget

BAR_PROMPTS = 64  # held-out prompts on which the policy is held against best of n
SNAPSHOTS = "snapshots"
LONGEST = 1024  # tokens of a ranked answer and its prompt, for the guard
_PROMPTS = "SELECT id AS prompt_id, messages FROM prompt WHERE split = 'train' AND (? IS NULL OR source = ?) ORDER BY id LIMIT ?"


class Task(NamedTuple):
    """What all processes of a run need to know."""

    config: PpoConfig
    ref: str
    prompts: list[list[Message]]
    parts: tuple[Part, ...]
    snapshots: Path | None  # of the policy along the way; None: another process keeps them


def run(project: Project, asked: PpoConfig) -> Run:
    """Train a policy by what its reward says of what it writes; returns the finished run."""
    _check(asked)
    with _started(project, asked) as (active, task):
        config = task.config
        hardware = probe(config.device, config.dtype)
        loaded = load(project, task.ref, hardware)
        check_template(project.known(active.record.parents), loaded.encoder.template_hash)
        active.update(template_hash=loaded.encoder.template_hash)
        task = task._replace(prompts=fitting(task.prompts, loaded, config.max_new_tokens))
        names = " + ".join(f"{p.weight:g} {p.name}" if p.weight != 1 else p.name for p in task.parts)
        print(
            f"{active.id}: PPO on {task.ref}, {len(task.prompts)} prompts, judged by {names}; {config.steps} rollouts of "
            f"{config.batch_size} answers ({hardware})"
        )
        team().tell(task)
        ppo = prepare(project, task, loaded)
        frozen, before = weights_hash(ppo.roles.frozen().items()), _trained(ppo.roles)
        ppo.optimise(active.log, Checkpoints(active))
        check_moved(before, _trained(ppo.roles))
        check_frozen(frozen, weights_hash(ppo.roles.frozen().items()))  # [20]
        _save(active, ppo, task.ref)
        _report(project, active, ppo, task)
    return active.record


def follow(project: Project) -> None:
    """Help to train what the first process tells (palate.parallel)."""
    task: Task = team().hear()
    loaded = load(project, task.ref, probe(task.config.device, task.config.dtype))
    prepare(project, task._replace(snapshots=None), loaded).optimise(lambda *_, **__: None)


def prepare(project: Project, task: Task, loaded: Loaded) -> Ppo:
    """Roles, rewards and guard for a task."""
    config = task.config
    on_base = None if config.method == "full" else shares_base(project, task.parts, task.ref)
    folder = (
        None
        if on_base is None
        else Path(project.run(on_base).path) / str(project.run(on_base).artefact["path"])
    )
    roles = (
        Roles.full(loaded)
        if config.method == "full"
        else Roles.adapters(loaded, config.lora_rank, config.seed, folder)
    )
    if (
        on_base is not None
        and config.pessimism
        and roles.reward is not None
        and roles.reward.uncertainty is None
    ):
        raise UserError(
            f"{on_base} does not know how sure it is (--uncertainty off): train it again, or --pessimism 0"
        )
    rewards = open_rewards(project, task.parts, loaded.hardware, config.pessimism, on_base)
    default = default_learning_rate(loaded.weights, config.method)
    policy = config.learning_rate or default
    rates = {POLICY: policy, VALUE: config.value_learning_rate or policy}
    belief = None if config.guard == "off" else _belief(project, task, roles)
    guard = Guard(config.guard, config.keep_every, task.snapshots, belief)
    return Ppo(roles, rewards, task.prompts, config, rates, guard)


def _belief(project: Project, task: Task, roles: Roles) -> Belief | None:
    """What the votes of the first reward run among the sources say, in the start's own features."""
    loaded = roles.loaded
    for part in task.parts:
        file = (
            Path(project.run(part.name).path) / "data/train.parquet" if is_run(project, part.name) else None
        )
        if file is not None and file.exists():
            rows = pq.read_table(file).to_pylist()
            trees = [
                loaded.encoder.tree(
                    json.loads(row["messages"]), row["completions"], row["finish_reasons"], LONGEST
                )
                for row in rows
            ]
            with roles.reference():
                return Belief.of(
                    roles.forwards[REFERENCE], rows, trees, token_budget(loaded.model.config, loaded.hardware)
                )
    return None


def default_learning_rate(weights: int, method: str) -> float:
    """Peak rate by size and method; measured on the built-in model, customary above 20M weights."""
    small = weights < 20_000_000
    if method == "lora":
        return 1e-3 if small else 1e-5
    return 1e-4 if small else 1e-6


def shares_base(project: Project, parts: Sequence[Part], ref: str) -> str | None:
    """The first reward run among `parts` that is an adapter (or a head) on the policy's own base."""
    for part in parts:
        if is_run(project, part.name):
            run = project.run(part.name)
            place = Path(run.path) / str(run.artefact.get("path", ""))
            if run.artefact.get("base") == ref and not (place / "weights.safetensors").exists():
                return part.name
    return None


def fitting(prompts: list[list[Message]], loaded: Loaded, max_new_tokens: int) -> list[list[Message]]:
    """Those that leave room in the model's context for an answer; says how many don't."""
    context = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
    if context is None:
        return prompts
    kept = [p for p in prompts if len(loaded.encoder.prompt(p)) + max_new_tokens <= context]
    if len(kept) < len(prompts):
        print(
            f"  {len(prompts) - len(kept)} prompts leave no room for {max_new_tokens} tokens in {context} and are left out"
        )
    if not kept:
        raise UserError(
            f"no prompt leaves room for --max-new-tokens {max_new_tokens} in the model's {context} tokens"
        )
    return kept


@contextmanager
def _started(project: Project, asked: PpoConfig) -> Iterator[tuple[ActiveRun, Task]]:
    """A new run with its prompts frozen; or, with `--resume`, that run with its own prompts and settings."""
    if asked.resume is not None:
        with project.resume(asked.resume, "ppo") as active:
            file = active.path / "data" / "prompts.parquet"
            if not file.exists():
                raise UserError(f"{active.id} was stopped before it had its prompts: begin anew")
            settings = dict(active.record.config)
            config = from_mapping(PpoConfig, settings, active.id)
            config = replace(config, project=asked.project, recipe=None, device=asked.device)
            print(f"{active.id} goes on")
            yield active, _task(active, config, pq.read_table(file))
        return
    ref, parents = starting_point(project, asked.base)
    names = asked.reward or _latest_reward(project)
    parts = [parse(name) for name in names]
    runs = tuple(part.name for part in parts if is_run(project, part.name))
    with project.store() as store:
        table = store.table(
            _PROMPTS, [asked.source, asked.source, 2**62 if asked.limit is None else asked.limit]
        )
    if not table.num_rows:
        where = f" from source '{asked.source}'" if asked.source else ""
        raise UserError(f"there are no training prompts{where}; palate import FILE brings some")
    settings = {**as_dict(asked), "base": ref, "reward": list(names)}
    with project.start("ppo", settings, tuple(dict.fromkeys((*parents, *runs))), asked.seed) as active:
        active.freeze("prompts", table)
        yield active, _task(active, from_mapping(PpoConfig, settings, active.id), table)


def task_of(config: PpoConfig, ref: str, prompts: list[list[Message]], snapshots: Path) -> Task:
    """What `config` asks for, of a model and prompts."""
    return Task(config, ref, prompts, tuple(parse(name) for name in config.reward), snapshots)


def _task(active: ActiveRun, config: PpoConfig, table: pa.Table) -> Task:
    assert config.base is not None
    prompts = [json.loads(messages) for messages in table["messages"].to_pylist()]
    return task_of(config, config.base, prompts, active.path / SNAPSHOTS)


def _latest_reward(project: Project) -> tuple[str, ...]:
    latest = project.latest("reward")
    if latest is None:
        raise UserError(
            "there is no reward run yet: palate reward makes one, or name another source: --reward"
        )
    return (latest.id,)


def _check(config: PpoConfig) -> None:
    """Settings that can't be, said before anything is made."""
    if config.k < 1 or config.batch_size < 2 or config.batch_size % config.k:
        raise UserError(
            f"--batch-size {config.batch_size} must be a multiple of -k {config.k}, and at least 2"
        )
    if config.batch_size // config.k < config.minibatches or config.minibatches < 1 or config.ppo_epochs < 1:
        raise UserError(
            f"--minibatches {config.minibatches}: a rollout has {config.batch_size // config.k} prompts to divide, and at "
            "least one minibatch and one pass"
        )
    if config.steps < 1 or config.keep_every < 1 or config.max_new_tokens < 1:
        raise UserError("--steps, --keep-every and --max-new-tokens must be at least 1")
    if config.value_warmup >= config.steps:
        raise UserError(
            f"--value-warmup {config.value_warmup} of {config.steps} --steps leaves none to the policy"
        )
    if config.temperature <= 0:
        raise UserError(f"--temperature must be above 0, got {config.temperature}: PPO learns from chance")
    if not 0 < config.lam <= 1 or not 0 < config.gamma <= 1 or not 0 < config.clip < 1 or config.kl < 0:
        raise UserError("--lam and --gamma take 0 to 1, --clip 0 to 1 (without the ends), --kl 0 or more")
    if config.kl_target is not None and (config.kl_target <= 0 or config.kl <= 0):
        raise UserError("--kl-target needs a target and a first coefficient (--kl) above 0")


def _trained(roles: Roles) -> str:
    return weights_hash(roles.parameters(POLICY).items())


def _save(active: ActiveRun, ppo: Ppo, ref: str) -> None:
    """The policy as a run's artefact, which every other stage can start from."""
    if ppo.roles.shared:
        save_adapter(ppo.roles.policy, active.path / "adapter")
        active.update(artefact={"kind": "adapter", "path": "adapter", "base": ref})
    else:
        save_model(ppo.roles.loaded, active.path / "model")
        active.update(artefact={"kind": "model", "path": "model", "base": ref})
    shutil.rmtree(active.path / SNAPSHOTS, ignore_errors=True)


def _report(project: Project, active: ActiveRun, ppo: Ppo, task: Task) -> None:
    """Final figures to the record and the terminal, with what they mean."""
    config, history = task.config, ppo.history
    prompts, where = _held_out(project, task, ppo.roles.loaded)
    own, bar = against_best_of_n(ppo, prompts, config)
    size = max(1, len(history) // 10)
    seconds = {
        name: sum(row[f"{name}_seconds"] for row in history) for name in ("rollout", "scoring", "update")
    }
    active.metrics(
        steps=len(history), episodes=len(history) * config.batch_size, kept_step=ppo.guard.chosen,
        reward_before=bar.reward[0], reward=own.reward, kl=own.kl, length=own.length, stop_rate=own.stop_rate,
        best_of_n=bar.record(), gao_curve=fit(ppo.guard.path), seconds={name: round(value, 1) for name, value in seconds.items()},
        **{f"train_{name}": sum(row[name] for row in history[-size:]) / size
           for name in ("reward", "kl", "entropy", "explained_variance")},
    )  # fmt: skip
    total = sum(seconds.values())
    shares = ", ".join(f"{name} {value / total:.0%}" for name, value in seconds.items())
    print(f"  {len(history) * config.batch_size} answers in {total:.0f} s ({shares})")
    print(
        f"  {where}: reward {bar.reward[0]:+.2f} -> {own.reward:+.2f}, {own.kl:.1f} nats from {task.ref}, "
        f"{own.length:.0f} tokens, {own.stop_rate:.0%} end by themselves"
    )
    if config.best_of > 1:
        print(f"  {bar.sentence(own.reward, own.kl)}")
    for sentence in (ppo.guard.sentence(), *warnings(history)):
        if sentence:
            print(f"  {sentence}")
    print(f"made {active.path / str(active.record.artefact['path'])}")
    print("next: palate eval")


def _held_out(project: Project, task: Task, loaded: Loaded) -> tuple[list[list[Message]], str]:
    """Prompts that nothing was trained on, where there are some."""
    with project.store() as store:
        rows = store.rows(
            "SELECT messages FROM prompt WHERE split = 'test' ORDER BY id LIMIT ?", [BAR_PROMPTS]
        )
    found = (
        fitting([json.loads(row["messages"]) for row in rows], loaded, task.config.max_new_tokens)
        if rows
        else []
    )
    if found:
        return found, f"{len(found)} held-out prompts"
    return task.prompts[:BAR_PROMPTS], "training prompts (there are no held-out ones)"
