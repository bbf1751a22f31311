"""Direct preference optimisation (Rafailov et al. 2023): LoRA on the SFT model, which is also the reference.

    palate dpo                  or   run(Project.open(folder), DpoConfig(folder))

Every decided pair of a ranking comes from one forward pass over its prompt tree. The reference's
log-probabilities are computed once, before any adapter exists, so it can't drift. Not here: the loss (losses.py),
the loop (training.py), the tree (tree.py).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from palate.checkpoints import Checkpoints
from palate.config import DpoConfig, UserError
from palate.data.records import Run
from palate.doctor import check_moved, check_step0, check_template, check_trainable, fingerprint
from palate.hardware import probe
from palate.models import load, lora, save_adapter
from palate.parallel import team
from palate.project import Project
from palate.reward import annotators
from palate.reward.accuracy import Accuracy, accuracy
from palate.reward.annotators import Annotators
from palate.reward.losses import tie_start
from palate.rl.guards import likelihood_verdict
from palate.rl.losses import implicit_rewards
from palate.rl.objective import Objective, Preferences
from palate.rl.reference_cache import ReferenceCache
from palate.runs import ActiveRun
from palate.sequences import EncodedTree
from palate.training import (
    Stats,
    batches,
    encode,
    fit,
    token_budget,
    training,
)
from palate.tree import TreeForward
from palate.tree_packing import micro_batches

STANDSTILL = 0.05  # a mean margin below this after training: nothing was learned


def run(project: Project, asked: DpoConfig) -> Run:
    """Train a policy on every decided pair of the train split; returns the finished run."""
    with training(project, asked, "dpo") as (active, config, taken, ref):
        hardware = probe(config.device, config.dtype)
        loaded = load(project, ref, hardware)
        check_template(project.known(active.record.parents), loaded.encoder.template_hash)
        active.update(template_hash=loaded.encoder.template_hash)
        objective = objective_of(config, taken.table)
        rows = [row for row in taken.table.to_pylist() if objective.counting(row["pairs"])]
        train, test = ([row for row in rows if row["split"] == split] for split in ("train", "test"))
        if not any(not pair["tie"] for row in train for pair in row["pairs"]):
            raise UserError("no vote on a training prompt prefers one completion to another; rank some first")
        counted = "a decided pair" if config.ties == "drop" else "a pair"
        print(f"{active.id}: DPO on {ref}, {len(train)} rankings with {counted} ({hardware})")
        if config.annotator_model == "flips":
            train = _with_flips(train, objective, *_judged(project, active, taken.table))

        steps = batches(len(train), config.batch_size, config.epochs, config.seed)
        budget = token_budget(loaded.model.config, hardware)
        plain = TreeForward.of(loaded.model, hardware)
        cache = ReferenceCache.of(project.folder, loaded, plain)
        known = prepare(
            plain, train, encode(train, loaded.encoder, config.max_length), steps, budget, objective, cache
        )
        held_out = prepare(
            plain, test, encode(test, loaded.encoder, config.max_length), [range(len(test))], budget, objective, cache
        )  # fmt: skip
        _cache_reference(active.path, [*train, *test], [*known.reference, *held_out.reference])

        policy = lora(loaded.model, config.lora_rank, 2 * config.lora_rank, config.seed)
        forward = replace(plain, model=policy)
        check_trainable(policy)
        check_step0(*_start_losses(forward, known, steps[0], objective, budget))
        before = fingerprint(policy)
        rate = config.learning_rate or default_learning_rate(loaded.weights)
        team().tell((config, ref, known, steps, rate, objective))
        history = optimise(forward, known, steps, rate, objective, budget, active.log, Checkpoints(active))
        check_moved(before, fingerprint(policy))
        save_adapter(policy, active.path / "adapter")
        active.update(artefact={"kind": "adapter", "path": "adapter", "base": ref})
        _report(active, history, _held_out_accuracy(forward, test, held_out, objective, budget))
    return active.record


def follow(project: Project) -> None:
    """Help to train what the first process tells (palate.parallel)."""
    config, ref, known, steps, rate, objective = team().hear()
    loaded = load(project, ref, probe(config.device, config.dtype))
    here = [logprobs.to(loaded.hardware.device) for logprobs in known.reference]
    plain = TreeForward.of(loaded.model, loaded.hardware)
    forward = replace(plain, model=lora(loaded.model, config.lora_rank, 2 * config.lora_rank, config.seed))
    budget = token_budget(loaded.model.config, loaded.hardware)
    optimise(forward, replace(known, reference=here), steps, rate, objective, budget, lambda *_, **__: None)


def _judged(project: Project, active: ActiveRun, table: pa.Table) -> tuple[str, Annotators]:
    """What is known of the annotators, and which run knows it; a resumed run has it in its folder."""
    if (active.path / annotators.FILE).exists():
        return active.id, annotators.load(active.path)
    judge, found = told_apart(project, table)
    found.save(active.path)
    active.update(parents=(*active.record.parents, judge.id))
    return judge.id, found


def told_apart(project: Project, table: pa.Table) -> tuple[Run, Annotators]:
    """The latest reward run that has judged the annotators of (some of) these votes, and what it found."""
    ours = _votes_of(table)
    for one in reversed(project.runs()):
        folder = Path(one.path)
        if one.stage == "reward" and one.status == "done" and (folder / annotators.FILE).exists():
            theirs = _votes_of(pq.read_table(folder / "data" / "train.parquet", columns=["pairs"]))
            if ours & theirs:
                return one, annotators.load(folder)
    raise UserError(
        "--annotator-model flips takes what a reward run found out about the annotators of these votes, and none did: "
        "run `palate reward` first, or leave it off"
    )


def _with_flips(
    rows: Sequence[dict[str, Any]], objective: Objective, judge: str, known: Annotators
) -> list[dict[str, Any]]:
    """The rows with each pair's flip; rows that only annotators below chance judged are left out."""
    made = known.applied(rows, "flips")
    kept = [row for row in made if any(pair["weight"] > 0 for pair in objective.counting(row["pairs"]))]
    if not kept:
        raise UserError(
            f"{judge} takes every annotator of these votes to be worse than chance: look at palate stats, or leave "
            "--annotator-model off"
        )
    print(f"  annotators as {judge} judged them: {annotators.changed(rows, made)}")
    return kept


def _votes_of(table: pa.Table) -> set[str]:
    return {pair["vote_id"] for pairs in table["pairs"].to_pylist() for pair in pairs}


def default_learning_rate(weights: int) -> float:
    """Peak rate for LoRA by the model's size; measured up to 20M weights, customary above."""
    return 1e-3 if weights < 20e6 else 1e-4 if weights < 1e9 else 2e-5


def objective_of(config: DpoConfig, table: pa.Table) -> Objective:
    """What the settings ask for; a model of ties starts from the share of ties among the pairs."""
    if config.objective == "plackett_luce" and (config.loss != "sigmoid" or config.ties != "drop"):
        raise UserError(
            "--objective plackett_luce has a loss of its own and no ties: leave --loss and --ties as they are"
        )
    if config.objective == "plackett_luce" and (
        config.label_smoothing or config.annotator_model == "flips" or config.strength == "margin"
    ):
        raise UserError(
            "--objective plackett_luce has no pairs to flip or to keep a margin: leave out --label-smoothing, "
            "--annotator-model flips and --strength margin, or take --objective pairs"
        )
    if config.loss == "robust" and not config.label_smoothing and config.annotator_model == "off":
        raise UserError(
            "--loss robust is sigmoid while no vote is taken to be flipped: add --label-smoothing 0.1 (their share) or "
            "--annotator-model flips, or leave it off"
        )
    if config.ties in ("davidson", "rao_kupper") and config.loss in ("ipo", "hinge"):
        raise UserError(
            f"--ties {config.ties} gives probabilities, which --loss {config.loss} has none of: take half or drop"
        )
    if config.objective == "plackett_luce" and config.view is not None:
        raise UserError(
            "--objective plackett_luce takes whole rankings, and a view makes pairs of them: leave --view out"
        )
    if config.sft_weight < 0 or not 0 <= config.label_smoothing < 0.5 or config.beta <= 0:
        raise UserError("--sft-weight takes 0 or more, --label-smoothing 0 to 0.5, --beta more than 0")
    tie = None
    if config.ties in ("davidson", "rao_kupper"):
        pairs = [pair for pairs in table["pairs"].to_pylist() for pair in pairs]
        tie = nn.Parameter(tie_start(sum(pair["tie"] for pair in pairs) / max(1, len(pairs))))
    return Objective(
        config.beta, config.loss, config.label_smoothing, config.ties, config.strength, config.length_normalised,
        config.sft_weight, config.objective == "plackett_luce", tie,
    )  # fmt: skip


def prepare(
    forward: TreeForward,
    rows: Sequence[dict[str, Any]],
    trees: list[EncodedTree],
    steps: Sequence[Sequence[int]],
    budget: int,
    objective: Objective,
    cache: ReferenceCache | None = None,
) -> Preferences:
    """The pairs of `rows` that count, and the log-probabilities of the model as it is: the reference.

    Rows are grouped as in the first pass of `steps`, so that before the first step the policy computes the very
    same numbers, whatever the rounding of its arithmetic. What `cache` knows is not computed again. Rows that `steps`
    never reach (a part of an epoch) stay NaN and are not kept.
    """
    pairs = [objective.counting(row["pairs"]) for row in rows]
    known = cache.known(trees) if cache is not None else [None] * len(trees)
    reference = [
        torch.full((len(tree.completions),), math.nan) if one is None else one
        for tree, one in zip(trees, known, strict=True)
    ]
    seen = {row for row, one in enumerate(known) if one is not None}
    new: list[int] = []
    with torch.no_grad():
        for step in steps:
            rest = [row for row in step if row not in seen]
            for group in micro_batches([trees[row] for row in rest], budget):
                for index, logprobs in zip(
                    group, forward.logprobs([trees[rest[i]] for i in group]), strict=True
                ):
                    reference[rest[index]] = logprobs
            seen.update(rest)
            new += rest
    if cache is not None and new:
        cache.add([trees[row] for row in new], [reference[row] for row in new])
    return Preferences(trees, pairs, [one.to(forward.hardware.device) for one in reference])


def optimise(
    forward: TreeForward,
    known: Preferences,
    steps: Sequence[Sequence[int]],
    learning_rate: float,
    objective: Objective,
    budget: int,
    log: Callable[..., None],
    checkpoints: Checkpoints | None = None,
) -> list[Stats]:
    """Train the adapters of `forward.model`, and the model of ties where there is one; returns the figures of each step."""

    def micro_loss(rows: list[int]) -> tuple[Tensor, Stats]:
        return objective.sums(forward, known, rows)

    model = forward.model
    if objective.tie is not None:
        objective.tie.data = objective.tie.data.to(forward.hardware.device)
        model = nn.ModuleDict({"policy": forward.model, "tie": nn.ParameterList([objective.tie])})
    return fit(
        "dpo", model, known.trees, known.weights(), steps, micro_loss, learning_rate, budget, log, checkpoints
    )


def _start_losses(
    forward: TreeForward, known: Preferences, step: Sequence[int], objective: Objective, budget: int
) -> tuple[float, float]:
    """(the loss of the first micro-batch before anything is trained, what it is where the policy is its reference)."""
    rows = [step[i] for i in micro_batches([known.trees[row] for row in step], budget)[0]]
    plain = replace(objective, sft_weight=0.0)  # imitation is no comparison with the reference
    with torch.no_grad():
        loss, _ = plain.sums(forward, known, rows)
    return loss.item() / sum(known.weights()[row] for row in rows), objective.start(known, rows)


def _cache_reference(folder: Path, rows: Sequence[dict[str, Any]], reference: Sequence[Tensor]) -> None:
    """Keep what the reference thought of each completion beside the rows it was computed from."""
    table = pa.table(
        {
            "comparison_id": [row["comparison_id"] for row in rows],
            "completion_ids": [row["completion_ids"] for row in rows],
            "logprobs": [logprobs.tolist() for logprobs in reference],
        }
    )
    pq.write_table(table, folder / "data" / "reference_logprobs.parquet")


def _held_out_accuracy(
    forward: TreeForward,
    rows: Sequence[dict[str, Any]],
    known: Preferences,
    objective: Objective,
    budget: int,
) -> Accuracy | None:
    """Agreement of the implicit reward, beta log(policy / reference), with votes on held-out prompts."""
    rewards: list[list[float]] = [[] for _ in rows]
    with torch.no_grad():
        for group in micro_batches(known.trees, budget):
            for row, logprobs in zip(group, forward.logprobs([known.trees[i] for i in group]), strict=True):
                lengths = torch.tensor([len(c) for c in known.trees[row].completions]).to(logprobs.device)
                by_token = lengths if objective.length_normalised or objective.loss == "ipo" else None
                rewards[row] = implicit_rewards(
                    logprobs, known.reference[row], objective.beta, by_token
                ).tolist()
    return accuracy(rows, rewards)


def _report(active: ActiveRun, history: Sequence[Stats], held_out: Accuracy | None) -> None:
    """Final figures to the run's record and to the terminal, with a warning where they mean trouble."""
    tail = history[-max(1, len(history) // 10) :]  # single steps are noisy
    last = {name: sum(stats[name] for stats in tail) / len(tail) for name in tail[0]}
    active.metrics(
        loss=last["loss"], accuracy=last["accuracy"], margin=last["margin"],
        chosen_nats_per_token=last["chosen_nats_per_token"], rejected_nats_per_token=last["rejected_nats_per_token"],
        steps=len(history),
        held_out=held_out.metrics() if held_out else None,
    )  # fmt: skip
    print(
        f"  loss {history[0]['loss']:.3f} -> {last['loss']:.3f}, accuracy {history[0]['accuracy']:.2f} -> "
        f"{last['accuracy']:.2f}, margin {last['margin']:.2f}, "
        f"chosen {last['chosen_nats_per_token']:+.3f} and rejected {last['rejected_nats_per_token']:+.3f} nats/token against "
        "the reference"
    )
    print(f"  {likelihood_verdict(last['chosen_nats_per_token'], last['rejected_nats_per_token'])}")
    if held_out:
        print(f"  held-out prompts, implicit reward (before: 50 %): {held_out}")
    else:
        print("  held-out prompts: no votes there, so nothing says whether this generalises")
    if last["margin"] < STANDSTILL:
        print("  warning: chosen and rejected hardly moved apart; raise --learning-rate or --epochs")
    print(f"made {active.path / 'adapter'}")
    print("next: palate eval")
