"""`palate sft`: supervised fine-tuning, the starting model of everything that follows.

Demonstrations (or the completions that votes put first) are frozen, encoded by the one encoder of all stages, and
learned by TRL's SFTTrainer, which gets ready micro-batches: rows laid end to end without padding, of even size.
Before and after: validation loss on held-out prompts, the same samples from the same seed, and the doctor's
checks. Preferences are not learned here (palate reward, palate dpo).

    palate sft --method lora --epochs 2
"""

import json
from collections.abc import Sequence

import pyarrow.compute as pc

from palate import doctor
from palate.config import SftConfig, UserError, as_dict
from palate.data.records import Message, Run
from palate.generation import Sampled, sample
from palate.hardware import probe
from palate.models import Loaded, is_run
from palate.project import Project
from palate.runs import ActiveRun
from palate.sft import methods
from palate.sft.dataset import Row, encode, read_rows
from palate.sft.fitting import fit, validation_loss
from palate.sft.report import write_report

PROBES = 16  # prompts sampled before and after
PROBE_TOKENS = 96
_PROBE_PROMPTS = "SELECT messages FROM prompt ORDER BY split = 'test' DESC, id LIMIT ?"


def run(project: Project, config: SftConfig) -> Run:
    """Train a starting model; returns the run, whose artefact is a model folder or an adapter."""
    base = config.base or project.base
    hardware = probe(config.device, config.dtype)
    methods.check(config, hardware)
    with project.store() as store:
        table, source = read_rows(store, config.data)
        prompts = [json.loads(row["messages"]) for row in store.rows(_PROBE_PROMPTS, [PROBES])]
    train, test = (table.filter(pc.field("split") == split) for split in ("train", "test"))
    train = train.slice(0, config.limit)
    if not train.num_rows:
        raise UserError(f"all {table.num_rows} rows belong to held-out prompts; import more demonstrations")
    parents = [base] if is_run(project, base) else []
    with project.start("sft", as_dict(config), parents, config.seed) as active:
        active.freeze("train", train)
        if test.num_rows:
            active.freeze("test", test)
        loaded = methods.start(project, base, config, hardware)
        active.update(template_hash=loaded.encoder.template_hash)
        print(
            f"{active.id}: {train.num_rows} {source.replace('_', ' ')} to learn, {test.num_rows} held out; "
            f"from {base} ({loaded.weights / 1e6:.1f}M weights, {loaded.hardware})"
        )
        doctor.check_template([project.run(p) for p in parents], loaded.encoder.template_hash)
        rows, held_out = (encode(t, loaded.encoder, config.max_length) for t in (train, test))
        _check_rows(rows, loaded, config)
        _train(loaded, rows, held_out, prompts, config, active, base)
    return active.record


def _train(
    loaded: Loaded,
    rows: Sequence[Row],
    held_out: Sequence[Row],
    prompts: Sequence[Sequence[Message]],
    config: SftConfig,
    active: ActiveRun,
    base: str,
) -> None:
    """Measure, train, measure again, save, report."""
    losses = [validation_loss(loaded.model, loaded, held_out)]
    samples = [_samples(loaded, prompts, config.seed)]
    model = methods.trainee(loaded, config)
    types = [parameter.dtype for parameter in model.parameters()]
    trainable = doctor.check_trainable(model)
    before = doctor.fingerprint(model)

    last: dict[str, float] = {}

    def on_log(step: int, figures: dict[str, float]) -> None:
        if "loss" in figures:
            doctor.check_finite(figures["loss"], step)
            active.log(step, **figures)
            last.update(figures)

    steps = fit(model, loaded, rows, config, on_log)
    doctor.check_moved(before, doctor.fingerprint(model))
    doctor.check_dtype(model, types)
    losses.append(validation_loss(model, loaded, held_out))
    samples.append(_samples(loaded, prompts, config.seed))

    methods.save(model, loaded, config, active, base)
    rates = [doctor.stop_rate([s.finish_reason for s in drawn]) for drawn in samples]
    active.metrics(
        train_loss=last.get("loss"),
        validation_loss_before=losses[0],
        validation_loss=losses[1],
        stop_rate_before=rates[0],
        stop_rate=rates[1],
        rows=len(rows),
        steps=steps,
        trainable_weights=trainable,
    )
    write_report(active, prompts, samples[0], samples[1])
    _tell(active, rates[1])


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
