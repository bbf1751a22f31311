"""`palate sft`: supervised fine-tuning, the starting model of everything that follows.

Demonstrations (or the completions that votes put first) are frozen, encoded by the one encoder of all stages, and
learned by TRL's SFTTrainer, which gets ready micro-batches: rows laid end to end without padding, of even size.
Before and after: validation loss on held-out prompts, the same samples from the same seed, and the doctor's
checks. Preferences are not learned here (palate reward, palate dpo).

    palate sft --method lora --epochs 2
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from torch import Tensor

from palate import doctor
from palate.config import SftConfig, UserError, as_dict, of_run
from palate.data.records import Message, Run
from palate.generation import Sampled, sample
from palate.hardware import probe
from palate.launched import sharding
from palate.models import Loaded, is_run
from palate.parallel import team
from palate.project import Project
from palate.runs import CHECKPOINTS, ActiveRun
from palate.sft import methods, sharded
from palate.sft.checkpoints import Before, before
from palate.sft.dataset import Row, encode, read_rows
from palate.sft.fitting import fit, validation_loss
from palate.sft.report import write_report
from palate.trainers import latest, step_of

PROBES = 16  # prompts sampled before and after
PROBE_TOKENS = 96
_PROBE_PROMPTS = "SELECT messages FROM prompt ORDER BY split = 'test' DESC, id LIMIT ?"


class Begun(NamedTuple):
    """A run that has its rows."""

    active: ActiveRun
    config: SftConfig  # of a resumed run its own
    base: str  # reference of the model to start from
    train: pa.Table
    test: pa.Table
    said: str  # what it learns from


def run(project: Project, asked: SftConfig) -> Run:
    """Train a starting model; returns the run, whose artefact is a model folder or an adapter."""
    with _begun(project, asked) as begun:
        active, config, base = begun.active, begun.config, begun.base
        loaded = methods.start(project, base, config, probe(config.device, config.dtype))
        active.update(template_hash=loaded.encoder.template_hash)
        print(
            f"{active.id}: {begun.said}; from {base} ({loaded.weights / 1e6:.1f}M weights, {loaded.hardware})"
        )
        doctor.check_template(project.known(active.record.parents), loaded.encoder.template_hash)
        rows, held_out = (encode(t, loaded.encoder, config.max_length) for t in (begun.train, begun.test))
        _check_rows(rows, loaded, config)
        _train(project, begun, loaded, rows, held_out)
    return active.record


def follow(project: Project) -> None:
    """Help to train what the first process tells (palate.parallel)."""
    config, base, rows, folder, checkpoint = team().hear()
    loaded = methods.start(project, base, config, probe(config.device, config.dtype))
    model = methods.trainee(loaded, config)
    fit(model, loaded, rows, config, lambda *_: None, folder, checkpoint)
    if sharding() == "FSDP":
        sharded.weights(model)
        team().leave()


@contextmanager
def _begun(project: Project, asked: SftConfig) -> Iterator[Begun]:
    """A new run with its rows frozen; or, with `asked.resume`, that run with its own rows and settings."""
    if asked.resume is not None:
        with project.resume(asked.resume, "sft") as active:
            yield _resumed(asked, active)
        return
    base = asked.base or project.base
    methods.check(asked, probe(asked.device, asked.dtype))
    with project.store() as store:
        table, source = read_rows(store, asked.data)
    train, test = (table.filter(pc.field("split") == split) for split in ("train", "test"))
    train = train.slice(0, asked.limit)
    if not train.num_rows:
        raise UserError(f"all {table.num_rows} rows belong to held-out prompts; import more demonstrations")
    parents = [base] if is_run(project, base) else []
    with project.start("sft", {**as_dict(asked), "base": base}, parents, asked.seed) as active:
        if test.num_rows:
            active.freeze("test", test)
        active.freeze("train", train)  # last: a run that has these has all
        what = f"{train.num_rows} {source.replace('_', ' ')} to learn, {test.num_rows} held out"
        yield Begun(active, asked, base, train, test, what)


def _resumed(asked: SftConfig, active: ActiveRun) -> Begun:
    """What a stopped run had: the rows in its folder, the settings in its record. Only where it computes is new."""
    if "train" not in active.record.files:
        raise UserError(f"{active.id} was stopped before it had its rows: begin anew")
    config = of_run(active.record.config, asked, active.id)
    methods.check(config, probe(config.device, config.dtype))
    train = pq.read_table(active.path / "data" / "train.parquet")
    test = train.slice(0, 0)
    if "test" in active.record.files:
        test = pq.read_table(active.path / "data" / "test.parquet")
    found = latest(active.path / CHECKPOINTS)
    what = f"goes on {'from the start' if found is None else f'after step {step_of(found)}'}"
    return Begun(active, config, str(config.base), train, test, what)


def _train(
    project: Project, begun: Begun, loaded: Loaded, rows: Sequence[Row], held_out: Sequence[Row]
) -> None:
    """Measure, train, measure again, save, report."""
    active, config, folder = begun.active, begun.config, begun.active.path / CHECKPOINTS
    checkpoint = latest(folder)
    sharded.check_checkpoint(checkpoint)
    active.rewind(0 if checkpoint is None else step_of(checkpoint) + 1)
    was = before(folder) or _measure(project, loaded, held_out, config, folder)
    team().tell((config, begun.base, rows, folder, checkpoint))
    model = methods.trainee(loaded, config)
    types = [parameter.dtype for parameter in model.parameters()]
    trainable = doctor.check_trainable(model)
    untrained = doctor.fingerprint(model)

    def on_log(step: int, figures: dict[str, float]) -> None:
        if "loss" in figures:
            doctor.check_finite(figures["loss"], step)
            active.log(step, **figures)

    steps = fit(model, loaded, rows, config, on_log, folder, checkpoint)
    if sharding() == "FSDP":
        print(f"FSDP: each process held {sharded.share(model):.0%} of the weights")
        weights = sharded.weights(model)
        team().leave()
        loaded.model = model = None  # its part makes room
        model = _whole(project, begun, loaded, weights)
    doctor.check_moved(untrained, doctor.fingerprint(model))
    doctor.check_dtype(model, types)
    loss, samples = validation_loss(model, loaded, held_out), _samples(loaded, was.prompts, config.seed)

    methods.save(model, loaded, config, active, begun.base)
    rates = [doctor.stop_rate([s.finish_reason for s in drawn]) for drawn in (was.samples, samples)]
    active.metrics(
        train_loss=active.last().get("loss"),
        validation_loss_before=was.validation_loss,
        validation_loss=loss,
        stop_rate_before=rates[0],
        stop_rate=rates[1],
        rows=len(rows),
        steps=steps,
        trainable_weights=trainable,
    )
    write_report(active, was.prompts, was.samples, samples)
    _tell(active, rates[1])


def _whole(project: Project, begun: Begun, loaded: Loaded, weights: dict[str, Tensor]) -> Any:
    """A model of its own that has the weights which were trained in parts; `loaded` holds it afterwards."""
    loaded.model = methods.start(project, begun.base, begun.config, loaded.hardware).model
    model = methods.trainee(loaded, begun.config)
    lacking, unknown = model.load_state_dict(weights, strict=False)
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    assert not unknown and not trained & set(lacking)
    return model.eval()


def _measure(
    project: Project, loaded: Loaded, held_out: Sequence[Row], config: SftConfig, folder: Path
) -> Before:
    """What the base does, kept for the case that the run is stopped."""
    with project.store() as store:
        prompts = [json.loads(row["messages"]) for row in store.rows(_PROBE_PROMPTS, [PROBES])]
    samples = _samples(loaded, prompts, config.seed)
    was = Before(prompts, samples, validation_loss(loaded.model, loaded, held_out))
    was.save(folder)
    return was


def _check_rows(rows: Sequence[Row], loaded: Loaded, config: SftConfig) -> None:
    """The doctor's checks on what is about to be learned; what was cut is said, not hidden."""
    labels = [row.labels for row in rows]
    doctor.check_labels(labels)
    doctor.check_stop_labels(labels, loaded.encoder.stop_ids, [row.cut_end for row in rows])
    doctor.check_double_bos([row.input_ids for row in rows], loaded.tokenizer.bos_token_id)
    cut = doctor.cut_message(
        sum(row.cut_prompt for row in rows), sum(row.cut_end for row in rows), len(rows), config.max_length
    )
    for sentence in (cut, loaded.encoder.prefix_problem()):
        if sentence:
            print(f"note: {sentence}")


def _samples(loaded: Loaded, prompts: Sequence[Sequence[Message]], seed: int) -> list[Sampled]:
    return [row[0] for row in sample(loaded, prompts, max_new_tokens=PROBE_TOKENS, seed=seed)]


def _tell(active: ActiveRun, rate: float) -> None:
    figures, artefact = active.record.metrics, active.record.artefact
    print(f"made {active.path / artefact['path']}")
    if figures["validation_loss"] is not None:
        print(
            f"validation loss {figures['validation_loss_before']:.3f} -> {figures['validation_loss']:.3f}, answers "
            f"that end by themselves {figures['stop_rate_before']:.0%} -> {figures['stop_rate']:.0%}"
        )
    else:
        print(f"training loss {figures['train_loss']:.3f}; no held-out rows to validate on")
    warning = doctor.stop_warning(rate)
    if warning:
        print(f"note: {warning}")
    print(f"samples side by side: {active.path / 'report.md'}")
    print("next: palate sample")
