"""`palate kto`: Kahneman-Tversky optimisation (Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306), from thumbs.

    palate kto                  or   run(Project.open(folder), KtoConfig(folder))
    palate kto --data thumbs.jsonl

An answer is good or bad by itself; no pair is needed (eq. 7 and 8). TRL's KTOTrainer computes the loss; tokens, order and
guards are ours: TRL takes rows as they come, and unpaired preferences come as all good ones and then all bad ones, so that
no batch holds both. Here every batch holds its share of both. The rarer kind weighs more, so that both weigh the same.
Not here: what is a thumb, and their order (thumbs.py).
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from peft.helpers import disable_input_dtype_casting
from tqdm import tqdm
from transformers import TrainerCallback
from trl import KTOConfig as TrlConfig
from trl import KTOTrainer

from palate import trainers
from palate.config import KtoConfig, UserError, as_dict, of_run
from palate.data.records import Run
from palate.doctor import (
    check_dtype,
    check_finite,
    check_frozen,
    check_moved,
    check_step0,
    check_template,
    check_trainable,
    fingerprint,
)
from palate.hardware import probe
from palate.models import Loaded, load, lora, quiet_libraries, save_adapter
from palate.project import Project
from palate.reward.accuracy import Estimate, cluster_bootstrap
from palate.rl.dpo import default_learning_rate
from palate.rl.guards import DRIFT
from palate.rl.online_run import logged
from palate.rl.online_trl import reference_is_start
from palate.rl.thumbs import balanced, check_order, from_files, from_votes, weights
from palate.runs import CHECKPOINTS, ActiveRun
from palate.sequences import EncodedTree
from palate.training import encode, read_rankings, starting_point, token_budget
from palate.tree import TreeForward
from palate.tree_packing import micro_batches

START = 0.5  # the loss of every answer before the first step, eq. 7 at a log-ratio of 0
Stats = dict[str, float]


@dataclass(frozen=True)
class Thumbs:
    """Answers as tokens, one a tree, with what was thought of them."""

    trees: list[EncodedTree]
    labels: list[bool]
    prompts: list[str]  # ids

    @classmethod
    def of(cls, rows: Sequence[dict[str, Any]], loaded: Loaded, max_length: int) -> "Thumbs":
        """Prints what was cut to `max_length`."""
        one_each = [
            {**row, "completions": [row["completion"]], "finish_reasons": [row["finish_reason"]]}
            for row in rows
        ]
        trees = encode(one_each, loaded.encoder, max_length)
        return cls(trees, [row["label"] for row in rows], [row["prompt_id"] for row in rows])


class Kto(KTOTrainer):  # type: ignore[misc]
    """TRL's trainer on tokens that are ready."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


def run(project: Project, asked: KtoConfig) -> Run:
    """Train a policy on good and bad answers of the train split; returns the finished run."""
    if asked.batch_size < 2 or asked.epochs <= 0 or asked.beta <= 0:
        raise UserError(
            "--batch-size must be at least 2 (an answer's distance is held against another's), --epochs and --beta above 0"
        )
    with _started(project, asked) as (active, config, table):
        hardware = probe(config.device, config.dtype)
        base = str(config.base)
        loaded = load(project, base, hardware)
        check_template(project.known(active.record.parents), loaded.encoder.template_hash)
        active.update(template_hash=loaded.encoder.template_hash)
        rows = table.to_pylist()
        known = Thumbs.of([row for row in rows if row["split"] == "train"], loaded, config.max_length)
        held_out = Thumbs.of([row for row in rows if row["split"] == "test"], loaded, config.max_length)
        up = sum(known.labels)
        if not 0 < up < len(known.labels):
            raise UserError(
                f"of {len(known.labels)} answers on training prompts {up} are good: KTO needs good and bad ones"
            )
        print(f"{active.id}: KTO on {base}, {up} good and {len(known.labels) - up} bad answers ({hardware})")
        steps = balanced(known.labels, config.batch_size, config.epochs, config.seed)
        check_order(steps, known.labels)
        policy = lora(loaded.model, config.lora_rank, 2 * config.lora_rank, config.seed)
        check_trainable(policy)
        frozen, before = fingerprint(policy, trainable=False), fingerprint(policy)
        folder = active.path / CHECKPOINTS
        folder.mkdir(exist_ok=True)
        history = optimise(policy, loaded, known, steps, config, active, folder)
        check_moved(before, fingerprint(policy))
        check_frozen(frozen, fingerprint(policy, trainable=False))
        save_adapter(policy, active.path / "adapter")
        active.update(artefact={"kind": "adapter", "path": "adapter", "base": base})
        _report(active, history, told_apart(policy, loaded, held_out))
    return active.record


def optimise(
    policy: Any,
    loaded: Loaded,
    known: Thumbs,
    steps: Sequence[Sequence[int]],
    config: KtoConfig,
    active: ActiveRun,
    folder: Path,
) -> list[Stats]:
    """Train the adapter `policy` from the start, or from the last checkpoint in `folder`; returns all figures logged."""
    from datasets import Dataset

    checkpoint = trainers.latest(folder)
    done = 0 if checkpoint is None else trainers.step_of(checkpoint)
    active.rewind(done)
    good, bad = weights(known.labels)
    types = [parameter.dtype for parameter in policy.parameters()]

    def log(step: int, figures: Stats) -> None:
        if step == 0:
            up = sum(known.labels[row] for row in steps[0])
            check_step0(
                figures["loss"], START * (good * up + bad * (len(steps[0]) - up)) / len(steps[0]), 1e-2
            )
            check_dtype(policy, types)
        check_finite(figures["loss"] + figures["grad_norm"], step)
        active.log(step, **figures)

    with ExitStack() as stack:
        stack.enter_context(quiet_libraries())
        bar = stack.enter_context(
            tqdm(
                total=len(steps),
                desc="kto",
                initial=done,
                unit="step",
                file=sys.stderr,
                leave=False,
                disable=None,
            )
        )
        trainer = Kto(
            model=policy, args=_arguments(loaded, config, len(steps), len(steps[0]), good, bad, folder),
            train_dataset=Dataset.from_list([one for step in steps for one in _batch(known, step)]),
            processing_class=loaded.tokenizer, callbacks=[_Progress(log, bar)],
        )  # fmt: skip
        reference_is_start(policy)
        stack.enter_context(disable_input_dtype_casting(policy))
        trainers.train(trainer, folder, checkpoint)
    policy.eval()
    policy.set_adapter("default")
    return logged(active)


def _batch(known: Thumbs, step: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Columns of TRL's collator; the distance is estimated on answers to other prompts, those of the row before."""
    for place, row in enumerate(step):
        tree = known.trees[row]
        yield {
            "prompt_ids": tree.prompt,
            "completion_ids": tree.completions[0],
            "KL_completion_ids": known.trees[step[place - 1]].completions[0],
            "label": known.labels[row],
        }


def _arguments(
    loaded: Loaded, config: KtoConfig, steps: int, batch: int, good: float, bad: float, folder: Path
) -> Any:
    return TrlConfig(
        output_dir=str(trainers.writing(folder)),
        per_device_train_batch_size=batch,  # the distance is a mean over what is in one pass
        max_steps=steps,
        train_sampling_strategy="sequential",  # the plan has an order
        max_length=None,  # rows are cut already, and what was cut is counted
        beta=config.beta,
        desirable_weight=good,
        undesirable_weight=bad,
        disable_dropout=True,
        learning_rate=config.learning_rate or default_learning_rate(loaded.weights),
        lr_scheduler_type="cosine",
        warmup_steps=max(1, round(0.1 * steps)),
        gradient_checkpointing=False,
        logging_steps=1,
        seed=config.seed,
        **trainers.machine(loaded.hardware),
    )


class _Progress(TrainerCallback):  # type: ignore[misc]
    """Our bar and our log."""

    def __init__(self, log: Callable[[int, Stats], None], bar: Any) -> None:
        self._log, self._bar = log, bar

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """A step's figures, by our names."""
        if not logs or "loss" not in logs:
            return
        names = {
            "loss": "loss", "grad_norm": "grad_norm", "learning_rate": "learning_rate", "kl": "kl", "entropy": "entropy",
            "rewards/chosen": "reward_good", "rewards/rejected": "reward_bad", "rewards/margins": "margin",
        }  # fmt: skip
        self._log(
            state.global_step - 1, {ours: float(logs[name]) for name, ours in names.items() if name in logs}
        )
        self._bar.update()
        self._bar.set_postfix(loss=f"{float(logs['loss']):.3f}")


@torch.no_grad()
def told_apart(policy: Any, loaded: Loaded, known: Thumbs) -> tuple[Estimate | None, float | None]:
    """On held-out answers: how often the implicit reward of a good one is above that of a bad one (chance: 50 %), and
    how much likelier good ones became, in nats per token."""
    if len(set(known.labels)) < 2:
        return None, None
    ratios = np.zeros(len(known.trees))
    forward = TreeForward.of(policy, loaded.hardware)
    for group in micro_batches(known.trees, token_budget(loaded.model.config, loaded.hardware)):
        trees = [known.trees[i] for i in group]
        own = torch.cat(forward.logprobs(trees))
        with policy.disable_adapter():
            ratios[group] = (own - torch.cat(forward.logprobs(trees))).cpu().numpy()
    good = np.array(known.labels)
    above = (ratios[good][:, None] > ratios[~good][None]) + 0.5 * (
        ratios[good][:, None] == ratios[~good][None]
    )
    _, clusters = np.unique(np.array(known.prompts)[good], return_inverse=True)
    lengths = np.array([len(tree.completions[0]) for tree in known.trees])
    return cluster_bootstrap(above.mean(1), clusters), float((ratios[good] / lengths[good]).mean())


@contextmanager
def _started(project: Project, asked: KtoConfig) -> Iterator[tuple[ActiveRun, KtoConfig, pa.Table]]:
    """A new run with its thumbs frozen; or, with `--resume`, that run with its own."""
    if asked.resume is not None:
        with project.resume(asked.resume, "kto") as active:
            file = active.path / "data" / "train.parquet"
            if not file.exists():
                raise UserError(f"{active.id} was stopped before it had its thumbs: begin anew")
            print(f"{active.id} goes on")
            yield active, of_run(active.record.config, asked, active.id), pq.read_table(file)
        return
    ref, parents = starting_point(project, asked.base)
    brought_by: tuple[str, ...] = ()
    if asked.data:
        table = from_files(asked.data)
    else:
        taken = read_rankings(project, asked.annotators, asked.source, None, None, asked.view, all_bad=True)
        table, brought_by = from_votes(taken.table), taken.brought_by
    table = table.slice(0, asked.limit)
    with project.start("kto", {**as_dict(asked), "base": ref}, (*parents, *brought_by), asked.seed) as active:
        active.freeze("train", table)
        yield active, replace(asked, base=ref), table


def _report(
    active: ActiveRun, history: Sequence[Stats], held_out: tuple[Estimate | None, float | None]
) -> None:
    """Final figures to the record and the terminal, with what they mean."""
    size = max(1, len(history) // 10)

    def mean(name: str, rows: Sequence[Stats]) -> float:
        found = [row[name] for row in rows if name in row]
        return sum(found) / len(found) if found else 0.0

    margin = mean("margin", history[-size:])
    apart, drift = held_out
    active.metrics(
        steps=len(history), loss=mean("loss", history[-size:]), margin=margin, kl=mean("kl", history[-size:]),
        held_out=None if apart is None else vars(apart), good_nats_per_token=drift,
    )  # fmt: skip
    print(
        f"  loss {mean('loss', history[:size]):.3f} -> {mean('loss', history[-size:]):.3f}, margin {margin:.2f}"
    )
    if apart is None:
        print("  held-out prompts: not both kinds of thumbs there, so nothing says whether this generalises")
    else:
        print(
            f"  held-out prompts: a good answer gained more than a bad one in {apart} of cases (before: 50 %)"
        )
    if drift is not None and drift < DRIFT:
        print(
            "  warning: good answers became much less likely too; lower --learning-rate or --epochs, or raise --beta"
        )
    if margin < 0.05:
        print("  warning: good and bad hardly moved apart; raise --learning-rate or --epochs")
    print(f"made {active.path / 'adapter'}")
    print("next: palate eval")
