"""The training of `palate sft`: TRL's SFTTrainer on packed micro-batches.

Rows lie end to end without padding, in micro-batches of even size. Not here: rows and their order (dataset.py), what
trains (methods.py), the run around it (train.py).
"""

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from tqdm import tqdm

from palate import doctor, trainers
from palate.config import SftConfig
from palate.launched import sharding
from palate.models import Loaded, quiet_libraries
from palate.parallel import team
from palate.sft import sharded
from palate.sft.dataset import Row, pack, plan
from palate.sft.methods import default_learning_rate

# Tokens of a packed micro-batch. Its attention costs the square; on 2 CPU cores 256 and 512 are equally fast, 1024
# is a fifth slower, 2048 a third. A GPU wants larger products.
PACKED_TOKENS = {"cpu": 512, "mps": 2048, "cuda": 8192}
_UNTOLD = ("epoch", "num_tokens")  # the second begins at nought in a resumed run


def fit(
    model: Any,
    loaded: Loaded,
    rows: Sequence[Row],
    config: SftConfig,
    on_log: Callable[[int, dict[str, float]], None],
    folder: Path | None = None,
    checkpoint: Path | None = None,
) -> int:
    """Train `model` (the loaded one, or a PeftModel over it) on rows with TRL's SFTTrainer; returns the steps.

    `on_log` gets the step and its figures (loss, grad_norm, learning_rate, entropy, mean_token_accuracy). `folder` is for
    checkpoints, None for none; `checkpoint` is where to go on. Several processes (palate.parallel) share every step.
    """
    with quiet_libraries():
        from datasets import Dataset
        from trl import SFTTrainer

        lengths = [len(row.input_ids) for row in rows]
        # a model that can't keep packed rows apart gets one row at a time
        max_tokens = PACKED_TOKENS[loaded.hardware.device.type] if packs(loaded) else 1
        steps = plan(lengths, config.batch_size, config.epochs, max_tokens, config.seed, team().size)
        nothing = [replace(rows[0], labels=[doctor.IGNORE] * lengths[0])]  # for a process that gets no row
        batches = Dataset.from_dict({"rows": [part for step in steps for part in step]}).with_transform(
            lambda chunk: _columns([pack([rows[i] for i in part] or nothing) for part in chunk["rows"]])
        )
        saving = config.gradient_checkpointing
        if saving is None:  # with FSDP always: layers that are kept for the backward pass would be kept whole
            saving = sharding() == "FSDP" or _needs_checkpointing(loaded, max(max_tokens, max(lengths)))
        done = 0 if checkpoint is None else trainers.step_of(checkpoint)
        silent = None if team().first else True
        with (
            tempfile.TemporaryDirectory() as scratch,
            tqdm(total=len(steps), unit="step", initial=done, disable=silent) as bar,
        ):
            place = Path(scratch) if folder is None else trainers.writing(folder)
            trainer = SFTTrainer(
                model=model,
                args=_arguments(loaded, config, steps, saving, place),
                train_dataset=batches,
                processing_class=copy.deepcopy(loaded.tokenizer),  # TRL sets a pad token on it
                callbacks=[_progress(bar, on_log)],
            )
            assert trainer.args.world_size == team().size
            _in_float32(model)
            sharded.prepare(trainer, loaded.hardware)
            trainers.train(trainer, folder, checkpoint)
    model.eval()
    return len(steps)


def _arguments(
    loaded: Loaded, config: SftConfig, steps: Sequence[Sequence[object]], saving: bool, place: Path
) -> Any:
    """TRL's settings for a plan of packed micro-batches; `saving`: gradient checkpointing."""
    from trl import SFTConfig as TrlConfig

    return TrlConfig(
        output_dir=str(place),
        per_device_train_batch_size=1,  # one packed micro-batch
        gradient_accumulation_steps=len(steps[0]) // team().size,
        num_train_epochs=1,  # the plan holds all epochs
        train_sampling_strategy="sequential",  # and their order
        padding_free=True,
        pad_to_multiple_of=64,  # few shapes: CPUs build a kernel for each
        max_length=None,  # rows are cut already, and what was cut is counted
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        learning_rate=config.learning_rate or default_learning_rate(loaded.weights, config),
        warmup_steps=round(config.warmup * len(steps)),
        lr_scheduler_type="linear",
        gradient_checkpointing=saving,
        ddp_find_unused_parameters=False,
        # with FSDP, gradients that wait for the last micro-batch would be whole in every process
        accelerator_config={"gradient_accumulation_kwargs": {"sync_each_batch": sharding() == "FSDP"}},
        logging_steps=max(1, len(steps) // 200),
        seed=config.seed,
        **trainers.machine(loaded.hardware),
    )


def _in_float32(model: Any) -> None:
    """TRL makes the adapters of a 4-bit base bfloat16, in which small steps round to nothing."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


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
    """Whether two rows laid end to end give the logits they give alone (not with every kind of attention).

    A base in 4 bits computes in bfloat16, which rounds far above the tolerance of float32.
    """
    if getattr(loaded.model, "is_loaded_in_4bit", False):
        tolerance = 0.1
    ids = torch.arange(3, 15, device=loaded.hardware.device)[None] % loaded.model.config.vocab_size
    first, second = ids[:, :7], ids[:, 7:]
    positions = torch.cat([torch.arange(7), torch.arange(5)])[None].to(ids.device)
    together = loaded.model(input_ids=ids, position_ids=positions, use_cache=False).logits
    alone = torch.cat([loaded.model(input_ids=part, use_cache=False).logits for part in (first, second)], 1)
    return bool((together - alone).abs().max() < tolerance)


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


def _progress(bar: Any, on_log: Callable[[int, dict[str, float]], None]) -> Any:
    from transformers import TrainerCallback

    class Progress(TrainerCallback):  # type: ignore[misc]
        """Our bar, our log."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            bar.update()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            on_log(state.global_step, {k: float(v) for k, v in (logs or {}).items() if k not in _UNTOLD})
            if logs and "loss" in logs:
                bar.set_postfix_str(f"loss {float(logs['loss']):.3f}")

    return Progress()
