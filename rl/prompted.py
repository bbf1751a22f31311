"""What the runs share whose model learns from its own answers: prompts and their order, what judges, what is said at the end.

    with started(project, asked, "ppo") as (active, config, prompts): ...

Not here: the loops (ppo.py, online_trl.py) and what each of them needs besides (ppo_train.py, online_run.py).
"""

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from palate.config import UserError, as_dict, from_mapping, of_run
from palate.data.records import Message, digest
from palate.models import Loaded, is_run
from palate.project import Project
from palate.rl.belief import Belief
from palate.rl.best_of_n import Frontier, Standing
from palate.rl.guards import Figures, Guard, fit, warnings
from palate.rl.rewards import Part, parse
from palate.runs import ActiveRun
from palate.training import starting_point, token_budget
from palate.tree import TreeForward

BAR_PROMPTS = 64  # held-out prompts on which the policy is held against best of n
SNAPSHOTS = "snapshots"  # of the policy along the way, among which the guard chooses
LONGEST = 1024  # tokens of a ranked answer and its prompt, for the guard
_PROMPTS = "SELECT id AS prompt_id, messages FROM prompt WHERE split = ? AND (? IS NULL OR source = ?) ORDER BY id LIMIT ?"
Prompts = list[list[Message]]


@contextmanager
def started(project: Project, asked: Any, stage: str) -> Iterator[tuple[ActiveRun, Any, Prompts]]:
    """A new run with its prompts frozen; or, with `--resume`, that run with its own prompts and settings.

    In the settings base and reward are then the very runs that are used.
    """
    if asked.resume is not None:
        with project.resume(asked.resume, stage) as active:
            file = active.path / "data" / "prompts.parquet"
            if not file.exists():
                raise UserError(f"{active.id} was stopped before it had its prompts: begin anew")
            print(f"{active.id} goes on")
            yield active, of_run(active.record.config, asked, active.id), _messages(pq.read_table(file))
        return
    ref, parents = starting_point(project, asked.base)
    names = asked.reward or (_latest_reward(project),)
    judges = tuple(part.name for part in map(parse, names) if is_run(project, part.name))
    table = _prompts(project, "train", asked.source, asked.limit)
    if not table.num_rows:
        where = f" from source '{asked.source}'" if asked.source else ""
        raise UserError(f"there are no training prompts{where}; palate import FILE brings some")
    settings = {**as_dict(asked), "base": ref, "reward": list(names)}
    with project.start(stage, settings, tuple(dict.fromkeys((*parents, *judges))), asked.seed) as active:
        active.freeze("prompts", table)
        yield active, from_mapping(type(asked), settings, active.id), _messages(table)


def _prompts(project: Project, split: str, source: str | None, limit: int | None) -> pa.Table:
    with project.store() as store:
        return store.table(_PROMPTS, [split, source, source, 2**62 if limit is None else limit])


def _messages(table: pa.Table) -> Prompts:
    return [json.loads(messages) for messages in table["messages"].to_pylist()]


def _latest_reward(project: Project) -> str:
    latest = project.latest("reward")
    if latest is None:
        raise UserError(
            "there is no reward run yet: palate reward makes one, or name another source: --reward"
        )
    return latest.id


def room(loaded: Loaded, prompts: Prompts, max_new_tokens: int) -> Prompts:
    """Those prompts that leave room in the model's context for an answer."""
    context = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
    if context is None:
        return prompts
    return [p for p in prompts if len(loaded.encoder.prompt(p)) + max_new_tokens <= context]


def fitting(prompts: Prompts, loaded: Loaded, max_new_tokens: int) -> Prompts:
    """The same of the prompts to train on; says how many are left out."""
    kept = room(loaded, prompts, max_new_tokens)
    if not kept:
        raise UserError(f"no prompt leaves room for --max-new-tokens {max_new_tokens} in the model's context")
    if len(kept) < len(prompts):
        print(
            f"  {len(prompts) - len(kept)} prompts leave no room for {max_new_tokens} tokens and are left out"
        )
    return kept


def held_out(project: Project, config: Any, loaded: Loaded, trained: Prompts) -> tuple[Prompts, str]:
    """Prompts that nothing was trained on, where there are some; and what they are called."""
    every = _messages(_prompts(project, "test", config.source, BAR_PROMPTS))
    found = room(loaded, every, config.max_new_tokens)
    if found:
        return found, f"{len(found)} held-out prompts"
    return trained[:BAR_PROMPTS], "training prompts (there are no held-out ones)"


def drawn(count: int, seed: int, start: int, stop: int) -> Iterator[int]:
    """Places start..stop of an endless sequence of permutations of 0..count-1."""
    for place in range(start, stop):
        cycle, at = divmod(place, count)
        if at == 0 or place == start:
            order = random.Random(f"{seed}/prompts/{cycle}").sample(range(count), count)
        yield order[at]


def step_seed(seed: int, step: int) -> int:
    """Of a rollout's samples: another one in each step, the same in each attempt at it."""
    return int(digest(seed, "rollout", step)[:12], 16)


def default_learning_rate(weights: int, method: str = "lora") -> float:
    """Peak rate by size and method; measured on the built-in model, customary above 20M weights."""
    small = weights < 20_000_000
    if method == "lora":
        return 1e-3 if small else 1e-5
    return 1e-4 if small else 1e-6


def judged_by(parts: Sequence[Part]) -> str:
    """The sources of reward in words."""
    return " + ".join(f"{p.weight:g} {p.name}" if p.weight != 1 else p.name for p in parts)


def belief(project: Project, parts: Sequence[Part], loaded: Loaded, start: TreeForward) -> Belief | None:
    """What the votes of the first reward run among the sources say, in the features of the start, which `start` reads."""
    for part in parts:
        if not is_run(project, part.name):
            continue
        file = Path(project.run(part.name).path) / "data/train.parquet"
        if file.exists():
            rows = pq.read_table(file).to_pylist()
            trees = [
                loaded.encoder.tree(
                    json.loads(row["messages"]), row["completions"], row["finish_reasons"], LONGEST
                )
                for row in rows
            ]
            return Belief.of(start, rows, trees, token_budget(loaded.model.config, loaded.hardware))
    return None


def report(
    active: ActiveRun,
    config: Any,
    history: Sequence[Figures],
    guard: Guard,
    own: Standing,
    bar: Frontier,
    where: str,
    more: Sequence[str] = (),
) -> None:
    """Final figures to the record and the terminal, with what they mean; `more`: sentences of this method alone."""
    episodes, size = len(history) * config.batch_size, max(1, len(history) // 10)
    seconds = {
        name: sum(row[f"{name}_seconds"] for row in history) for name in ("rollout", "scoring", "update")
    }
    at_end = [
        name
        for name in ("reward", "kl", "entropy", "explained_variance")
        if all(name in row for row in history)
    ]
    active.metrics(
        steps=len(history), episodes=episodes, kept_step=guard.chosen, reward_before=bar.reward[0], reward=own.reward,
        kl=own.kl, length=own.length, stop_rate=own.stop_rate, best_of_n=bar.record(), gao_curve=fit(guard.path),
        seconds={name: round(value, 1) for name, value in seconds.items()},
        **{f"train_{name}": sum(row[name] for row in history[-size:]) / size for name in at_end},
    )  # fmt: skip
    total = sum(seconds.values())
    shares = ", ".join(f"{name} {value / total:.0%}" for name, value in seconds.items())
    print(f"  {episodes} answers in {total:.0f} s ({shares})")
    print(
        f"  {where}: reward {bar.reward[0]:+.2f} -> {own.reward:+.2f}, {own.kl:.1f} nats from {config.base}, "
        f"{own.length:.0f} tokens, {own.stop_rate:.0%} end by themselves"
    )
    if config.best_of > 1:
        print(f"  {bar.sentence(own.reward, own.kl)}")
    if kept := guard.sentence():
        print(f"  {kept}")
    for sentence in (*more, *warnings(history)):
        print(f"  warning: {sentence}")
    print(f"made {active.path / str(active.record.artefact['path'])}")
    print("next: palate eval")
