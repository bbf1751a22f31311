"""`palate loop`: rounds of sampling, votes, reward and policy, each on what the last one learned.

    palate loop --rounds 3                       people vote: it stops after sampling and says what to do
    palate loop --resume loop-1                  goes on where it was, whenever that was
    palate loop --rounds 2 --taste vivid         rule annotators vote; it runs through

Each step of a round is an ordinary run, made by the same functions as its command. What the loop itself knows is one small
file in its run's folder, written anew after each step: which run did which step of which round. A step that was interrupted
is resumed where its stage can be resumed, and done again where it can't.
"""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from palate.config import (
    DpoConfig,
    EvalConfig,
    GrpoConfig,
    LoopConfig,
    Paused,
    PpoConfig,
    RewardConfig,
    RlooConfig,
    SampleConfig,
    SimulateConfig,
    UserError,
    as_dict,
    from_mapping,
    of_run,
)
from palate.data.records import Run
from palate.project import Project
from palate.runs import CHECKPOINT, CHECKPOINTS, ActiveRun

STATE = "rounds.json"
Rounds = list[dict[str, str]]  # per round: run ids by step

_VOTED = """
SELECT count(DISTINCT c.id) FROM comparison c JOIN assignment a ON a.comparison_id = c.id JOIN current_vote v ON v.assignment_id = a.id
WHERE c.run_id = ?
"""
_OFFERED = "SELECT count(*) FROM comparison WHERE run_id = ?"


def run(project: Project, asked: LoopConfig) -> Run:
    """All rounds, or as many steps as can be done without people; returns the loop's run."""
    _check(asked)
    if asked.resume is not None:
        with project.resume(asked.resume, "loop") as active:
            _go(project, of_run(active.record.config, asked, active.id), active)
        return active.record
    start = asked.base or getattr(project.latest("sft"), "id", None) or project.base
    with project.start("loop", {**as_dict(asked), "base": start}, (), asked.seed) as active:
        _go(project, from_mapping(LoopConfig, dict(active.record.config), active.id), active)
    return active.record


def _go(project: Project, config: LoopConfig, active: ActiveRun) -> None:
    rounds = read(active.path)
    for number in range(config.rounds):
        if number == len(rounds):
            rounds.append({})
        found = rounds[number]
        policy = rounds[number - 1]["policy"] if number else str(config.base)
        for step, do in _steps(project, config, number, policy, found).items():
            if step in found and project.run(found[step]).status == "done":
                continue
            if step == "votes" and config.taste is None:
                _wait_for_people(project, config, active, found["sample"], number)
                continue
            print(f"\n[round {number + 1} of {config.rounds}] {step}", flush=True)
            found[step] = do(
                _unfinished(project, config.policy if step == "policy" else step, found.get("sample"))
            ).id
            _write(active.path, rounds)
    ids = [run_id for found in rounds for run_id in found.values()]
    active.update(parents=tuple(dict.fromkeys(ids)))
    active.metrics(rounds=rounds, policy=rounds[-1]["policy"])
    print(f"\n{active.id}: {config.rounds} rounds; the policy is {rounds[-1]['policy']}")
    for number, found in enumerate(rounds, 1):
        print(f"  round {number}: {', '.join(f'{step} {run_id}' for step, run_id in found.items())}")
    print("next: palate label (rank the new policy's answers), or palate runs")


def _steps(
    project: Project, config: LoopConfig, number: int, policy: str, found: dict[str, str]
) -> dict[str, Callable[[str | None], Run]]:
    """What a round does, in order; each takes the id of its interrupted run, if there is one to resume."""
    from palate import lineage, sampling
    from palate.evaluation import evaluate
    from palate.labeling import simulate
    from palate.reward import features
    from palate.reward import train as reward
    from palate.rl import dpo, grpo, ppo_train, rloo

    online: dict[str, tuple[type, Callable[..., Run]]] = {
        "ppo": (PpoConfig, ppo_train.run),
        "rloo": (RlooConfig, rloo.run),
        "grpo": (GrpoConfig, grpo.run),
    }
    seed = config.seed + number

    def settings(kind: type, name: str, **changes: Any) -> Any:
        """A command's settings: the project's section of its name, and what the loop decides."""
        section = project.settings.get(name) or {}
        where = {"project": config.project, "device": config.device, "dtype": config.dtype}
        return replace(
            from_mapping(kind, section, f"palate.yaml, section {name}"), **{**where, "seed": seed, **changes}
        )

    def learned(make: Callable[..., Run], some: Any) -> Callable[[str | None], Run]:
        def do(unfinished: str | None) -> Run:
            made = make(project, replace(some, resume=unfinished))
            lineage.write_card(project, made)
            return made

        return do

    def sampled(_: str | None) -> Run:
        models = (config.server or policy,)
        made = sampling.run(
            project,
            settings(SampleConfig, "sample", k=config.k, models=models, limit=config.prompts, source=config.source, split="train"),
        )  # fmt: skip
        if config.select != "random":
            features.add_missing(project, config.device, config.dtype)
        return made

    def voted(_: str | None) -> Run:
        some = SimulateConfig(
            config.project, str(config.taste), annotators=config.annotators, votes=config.votes, select=config.select, seed=seed
        )  # fmt: skip
        return simulate.run(project, some)

    def moved(unfinished: str | None) -> Run:
        if config.policy == "dpo":
            return learned(dpo.run, settings(DpoConfig, "dpo", base=policy))(unfinished)
        kind, make = online[config.policy]
        some = settings(kind, config.policy, base=policy, reward=(found["reward"],), source=config.source)
        return learned(make, some)(unfinished)

    steps: dict[str, Callable[[str | None], Run]] = {
        "sample": sampled,
        "votes": voted,
        "reward": learned(reward.run, settings(RewardConfig, "reward", base=str(config.base))),
        "policy": moved,
    }
    if config.eval:
        steps["eval"] = lambda _: evaluate.run(
            project,
            settings(
                EvalConfig, "eval", models=tuple(dict.fromkeys((str(config.base), policy, found["policy"]))),
                baseline=str(config.base), reward=found["reward"], taste=config.taste, source=config.source, seed=config.seed,
            ),
        )  # fmt: skip
    return steps


def _wait_for_people(
    project: Project, config: LoopConfig, active: ActiveRun, sample: str, number: int
) -> None:
    """Return when enough of the round's comparisons have a vote; else end the command, to be resumed."""
    with project.store() as store:
        voted, offered = store.value(_VOTED, [sample]), store.value(_OFFERED, [sample])
    if not offered:
        raise UserError(
            f"{sample} brought no new comparison to vote on: its answers were known; take another --seed"
        )
    wanted = offered if config.votes is None else min(config.votes, offered)
    if voted >= wanted:
        print(
            f"\n[round {number + 1} of {config.rounds}] votes: {voted} of {offered} comparisons of {sample}"
        )
        return
    label = "palate label" if config.select == "random" else f"palate label --select {config.select}"
    raise Paused(
        f"{voted} of {wanted} comparisons of {sample} have a vote: rank them ({label}), then go on: "
        f"palate loop --resume {active.id}"
    )


def _unfinished(project: Project, stage: str, sample: str | None) -> str | None:
    """The run of this stage that was interrupted in this round, where it can be resumed."""
    runs = project.runs()
    if sample is None or not (of_stage := [run for run in runs if run.stage == stage]):
        return None
    began = project.run(sample).created_at
    last = of_stage[-1]
    folder = Path(last.path)
    kept = (folder / CHECKPOINT).exists() or any((folder / CHECKPOINTS).glob("step-*"))
    unfinished = kept and last.status not in ("done", "running") and last.created_at > began
    return last.id if unfinished else None


def read(folder: Path) -> Rounds:
    """What was done so far."""
    path = folder / STATE
    found: Rounds = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return found


def _write(folder: Path, rounds: Rounds) -> None:
    partial = (folder / STATE).with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(rounds, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / STATE)


def _check(config: LoopConfig) -> None:
    if config.rounds < 1:
        raise UserError(f"--rounds must be at least 1, got {config.rounds}")
    if not 2 <= config.k <= 9:
        raise UserError(f"-k {config.k}: a comparison takes 2 to 9 completions")
    if config.votes is not None and config.votes < 1:
        raise UserError(f"--votes must be at least 1, got {config.votes}")
