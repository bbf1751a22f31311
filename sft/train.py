"""`palate sft`: supervised fine-tuning, the starting model of everything that follows.

Demonstrations (or the completions that votes put first) are frozen, encoded by the one encoder of all stages, and
learned by TRL's SFTTrainer, which gets ready micro-batches: rows laid end to end without padding, of even size.
Before and after: validation loss on held-out prompts, the same samples from the same seed, and the doctor's
checks. Preferences are not learned here (palate reward, palate dpo).

    palate sft --method lora --epochs 2
"""

import copy
import json
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import psutil  # type: ignore[import-untyped]
import pyarrow.compute as pc
import torch
from tqdm import tqdm

from palate import doctor
from palate.config import SftConfig, UserError, as_dict
from palate.data.records import Message, Run
from palate.generation import Sampled, sample
from palate.hardware import probe
from palate.models import Loaded, is_run, load, lora, quiet_libraries, save_adapter, save_model
from palate.project import Project
from palate.runs import ActiveRun
from palate.sft.dataset import Row, encode, pack, plan, read_rows
from palate.sft.report import write_report

# Tokens of a packed micro-batch. Its attention costs the square; on 2 CPU cores 256 and 512 are equally fast, 1024
# is a fifth slower, 2048 a third. A GPU wants larger products.
PACKED_TOKENS = {"cpu": 512, "mps": 2048, "cuda": 8192}
PROBES = 16  # prompts sampled before and after
PROBE_TOKENS = 96
_PROBE_PROMPTS = "SELECT messages FROM prompt ORDER BY split = 'test' DESC, id LIMIT ?"


def run(project: Project, config: SftConfig) -> Run:
    """Train a starting model; returns the run, whose artefact is a model folder or an adapter."""
    base = config.base or project.base
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
        loaded = load(project, base, probe(config.device, config.dtype))
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


def fit(
    model: Any,
    loaded: Loaded,
    rows: Sequence[Row],
    config: SftConfig,
    on_log: Callable[[int, dict[str, float]], None],
) -> int:
    """Train `model` (the loaded one, or a PeftModel over it) on rows with TRL's SFTTrainer; returns the steps.

    `on_log` gets the step and its figures (loss, grad_norm, learning_rate, entropy, mean_token_accuracy).
    """
    with quiet_libraries():
        from datasets import Dataset
        from trl import SFTConfig as TrlConfig
        from trl import SFTTrainer

        lengths = [len(row.input_ids) for row in rows]
        # a model that can't keep packed rows apart gets one row at a time
        max_tokens = PACKED_TOKENS[loaded.hardware.device.type] if packs(loaded) else 1
        steps = plan(lengths, config.batch_size, config.epochs, max_tokens, config.seed)
        batches = Dataset.from_dict({"rows": [part for step in steps for part in step]}).with_transform(
            lambda chunk: _columns([pack([rows[i] for i in part]) for part in chunk["rows"]])
        )
        learning_rate = config.learning_rate
        if learning_rate is None:
            learning_rate = default_learning_rate(loaded.weights, config.method)
        checkpointing = config.gradient_checkpointing
        if checkpointing is None:
            checkpointing = _needs_checkpointing(loaded, max(max_tokens, max(lengths)))
        with (
            tempfile.TemporaryDirectory() as scratch,
            tqdm(total=len(steps), unit="step", disable=None) as bar,
        ):
            trainer = SFTTrainer(
                model=model,
                args=TrlConfig(
                    output_dir=scratch,
                    per_device_train_batch_size=1,  # one packed micro-batch
                    gradient_accumulation_steps=len(steps[0]),
                    num_train_epochs=1,  # the plan holds all epochs
                    train_sampling_strategy="sequential",  # and their order
                    padding_free=True,
                    pad_to_multiple_of=64,  # few shapes: CPUs build a kernel for each
                    max_length=None,  # rows are cut already, and what was cut is counted
                    dataset_kwargs={"skip_prepare_dataset": True},
                    remove_unused_columns=False,
                    learning_rate=config.learning_rate
                    or default_learning_rate(loaded.weights, config.method),
                    warmup_steps=round(config.warmup * len(steps)),
                    lr_scheduler_type="linear",
                    gradient_checkpointing=checkpointing,
                    bf16=loaded.hardware.dtype == torch.bfloat16,
                    use_cpu=loaded.hardware.device.type == "cpu",
                    dataloader_pin_memory=loaded.hardware.device.type == "cuda",
                    logging_steps=max(1, len(steps) // 200),
                    logging_nan_inf_filter=False,
                    save_strategy="no",
                    report_to="none",
                    disable_tqdm=True,
                    seed=config.seed,
                ),
                train_dataset=batches,
                processing_class=copy.deepcopy(loaded.tokenizer),  # TRL sets a pad token on it
                callbacks=[_callback(bar, on_log)],
            )
            _remove_printer(trainer)
            trainer.train()
    model.eval()
    return len(steps)


@torch.inference_mode()
def validation_loss(model: Any, loaded: Loaded, rows: Sequence[Row]) -> float | None:
    """Mean negative log-likelihood of the answers' tokens, over all of them alike; None without rows."""
    total, tokens = 0.0, 0
    for row in rows:
        ids = torch.tensor([row.input_ids], device=loaded.hardware.device)
        labels = torch.tensor(row.labels[1:], device=loaded.hardware.device)
        learned = labels != doctor.IGNORE
        with loaded.hardware.autocast():
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1][learned].float()
        total += float(torch.nn.functional.cross_entropy(logits, labels[learned], reduction="sum"))
        tokens += int(learned.sum())
    return total / tokens if tokens else None


@torch.inference_mode()
def packs(loaded: Loaded, tolerance: float = 1e-3) -> bool:
    """Whether two rows laid end to end give the logits they give alone (not with every kind of attention)."""
    ids = torch.arange(3, 15, device=loaded.hardware.device)[None] % loaded.model.config.vocab_size
    first, second = ids[:, :7], ids[:, 7:]
    positions = torch.cat([torch.arange(7), torch.arange(5)])[None].to(ids.device)
    together = loaded.model(input_ids=ids, position_ids=positions, use_cache=False).logits
    alone = torch.cat([loaded.model(input_ids=part, use_cache=False).logits for part in (first, second)], 1)
    return bool((together - alone).abs().max() < tolerance)


def default_learning_rate(weights: int, method: str) -> float:
    """Peak learning rate by size and method: small models and adapters bear, and need, larger steps.

    Measured on the built-in model, 715 demonstrations, 2 epochs, validation loss from 1.742: full 1.5e-4 1.135,
    3e-4 1.127, 1e-3 1.141, 2e-3 1.199; lora 1e-3 1.135, 2e-3 1.114. Those of larger models are the field's usual.
    """
    small = weights < 20_000_000
    if method == "lora":
        return 2e-3 if small else 2e-4
    return 3e-4 if small else 2e-5


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
    types = [parameter.dtype for parameter in loaded.model.parameters()]
    model = loaded.model
    if config.method == "lora":
        model = lora(loaded.model, config.lora_rank, 2 * config.lora_rank, config.seed)
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

    if config.method == "lora":
        save_adapter(model, active.path / "adapter")
        active.update(artefact={"kind": "adapter", "path": "adapter", "base": base})
    else:
        save_model(loaded, active.path / "model")
        active.update(artefact={"kind": "model", "path": "model", "base": base})
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


def _needs_checkpointing(loaded: Loaded, tokens: int) -> bool:
    """Whether the activations of one micro-batch would fill half of the free memory."""
    config = loaded.model.config.get_text_config()
    # about 34 numbers per token, layer and channel (Korthikanti et al. 2022, https://arxiv.org/abs/2205.05198, eq. 1,
    # in 2-byte numbers), the attention mask's square, and three passes over the logits
    channels = 34 * config.num_hidden_layers * config.hidden_size
    attention = config.num_hidden_layers * config.num_attention_heads * tokens
    needed = 2 * tokens * (channels + attention) + 3 * 4 * tokens * config.vocab_size
    if loaded.hardware.device.type == "cuda":
        free = torch.cuda.mem_get_info(loaded.hardware.device)[0]
    else:
        free = int(psutil.virtual_memory().available)
    return bool(needed > free / 2)


def _columns(chunk: Sequence[dict[str, list[int]]]) -> dict[str, list[list[int]]]:
    return {name: [row[name] for row in chunk] for name in chunk[0]}


def _callback(bar: Any, on_log: Callable[[int, dict[str, float]], None]) -> Any:
    from transformers import TrainerCallback

    class Progress(TrainerCallback):  # type: ignore[misc]
        """Our bar, our log."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            bar.update()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            on_log(state.global_step, {k: float(v) for k, v in (logs or {}).items() if k != "epoch"})
            if logs and "loss" in logs:
                bar.set_postfix_str(f"loss {float(logs['loss']):.3f}")

    return Progress()


def _remove_printer(trainer: Any) -> None:
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
