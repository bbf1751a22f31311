"""Loading and saving: the only file that knows how transformers and peft do it.

A reference is `builtin`, a run id, a folder or a hub id. A run that made an adapter is loaded as its base with
the adapter merged in memory, so every stage starts from one plain model whatever came before. Weights are
float32 (autocast does the fast arithmetic) and dropout is off, so that a policy and its reference agree exactly
until the first step.

    loaded = load(project, "sft-1", probe("auto", "auto"))
    save_model(loaded, run.path / "model")
"""

import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from palate.config import BUILTIN, UserError
from palate.hardware import Hardware
from palate.project import Project
from palate.sequences import Encoder

_BUILTIN_FOLDER = Path(__file__).parent / "builtin"


@dataclass
class Loaded:
    """A causal language model, ready to run, with the one encoder that fits it."""

    model: Any  # transformers.PreTrainedModel, in eval mode, on the hardware's device
    tokenizer: Any
    encoder: Encoder
    ref: str
    hardware: Hardware
    head: Tensor | None = None  # (1, D) the score head that came with it, of a classifier or a reward run

    @property
    def weights(self) -> int:
        """How many numbers the model holds."""
        return int(self.model.num_parameters())  # which knows that 4-bit weights lie two in a byte


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence progress bars and warnings that mean nothing to a user, here and nowhere else."""
    from datasets.utils import logging as datasets_logging
    from transformers.utils import logging as transformers_logging

    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    loggers = [logging.getLogger(name) for name in ("transformers", "trl", "peft", "accelerate", "datasets")]
    levels = [logger.level for logger in loggers]
    bars = (transformers_logging.is_progress_bar_enabled(), datasets_logging.is_progress_bar_enabled())
    transformers_logging.disable_progress_bar()
    datasets_logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars[0]:
            transformers_logging.enable_progress_bar()
        if bars[1]:
            datasets_logging.enable_progress_bar()


def load(project: Project | None, ref: str, hardware: Hardware, scores: bool = False) -> Loaded:
    """Model and tokenizer behind a reference; a UserError in one line when it can't be had.

    `scores`: it is to score, not to write, so a reward run or a decoder with a sequence-classification head will do;
    its head comes along.
    """
    source, adapters, head = _resolve(project, ref, scores)
    with quiet_libraries():
        model, tokenizer = _from_pretrained(source, scores)
        for adapter in adapters:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    model.requires_grad_(True)
    if head is None and isinstance(getattr(model, "score", None), nn.Linear):
        head = model.score.weight.detach().clone()
    return _ready(model.to(hardware.device), tokenizer, ref, hardware, head)


def _ready(model: Any, tokenizer: Any, ref: str, hardware: Hardware, head: Tensor | None = None) -> Loaded:
    _disable_dropout(model)
    encoder = Encoder(tokenizer, _eos_ids(getattr(model, "generation_config", None)))
    rows = model.get_input_embeddings().weight.shape[0]
    if max(encoder.stop_ids) >= rows:
        raise UserError(
            f"{ref}: the tokenizer has ids up to {len(tokenizer)}, the model only {rows} embeddings"
        )
    return Loaded(model.eval(), tokenizer, encoder, ref, hardware, head)


def check_four_bit(hardware: Hardware) -> None:
    """A UserError where a base can't be held in 4 bits: before anything is loaded."""
    from transformers.utils import is_bitsandbytes_available
    from transformers.utils.import_utils import BITSANDBYTES_MIN_VERSION

    if hardware.device.type != "cuda":
        raise UserError(
            f"--method qlora holds the base in 4 bits, which takes a CUDA GPU, and this trains on {hardware.device.type}: "
            "use --method lora"
        )
    if not is_bitsandbytes_available():
        raise UserError(
            "--method qlora holds the base in 4 bits, which takes bitsandbytes: "
            f"pip install 'bitsandbytes>={BITSANDBYTES_MIN_VERSION}'"
        )


def load_four_bit(project: Project | None, ref: str, hardware: Hardware) -> Loaded:
    """As `load`, with the linear layers but the output head held in 4 bits (NF4, double quantisation: Dettmers et al.
    2023, https://arxiv.org/abs/2305.14314, section 3), to train an adapter on. Its weights can't train themselves.
    """
    from transformers import BitsAndBytesConfig

    source, adapters, _ = _resolve(project, ref)
    place = torch.cuda.current_device() if hardware.device.type == "cuda" else hardware.device
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=hardware.dtype,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        if adapters:  # they belong to the weights as they are: merged first, cut down to 4 bits afterwards
            save_model(
                load(project, ref, replace(hardware, device=torch.device("cpu"))), Path(folder) / "merged"
            )
            source = str(Path(folder) / "merged")
        with quiet_libraries():
            model, tokenizer = _from_pretrained(
                source, scores=False, quantization_config=quantization, device_map={"": place}
            )
    return _ready(model.requires_grad_(False), tokenizer, ref, hardware)


def is_run(project: Project, ref: str) -> bool:
    """Whether a reference is a run of this project, and so a parent."""
    return "/" not in ref and (project.folder / "runs" / ref / "run.json").is_file()


def lora(
    model: Any, rank: int, alpha: int, seed: int, magnitudes: bool = False, root_rank: bool = False
) -> Any:
    """LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685) on every linear layer but the output head.

    Returns a PeftModel; `model` is changed in place and frozen. The second matrix is zero, so nothing changes
    until the first step; `seed` draws the first. `magnitudes`: each output's weights have a length that trains by
    itself (DoRA, Liu et al. 2024, https://arxiv.org/abs/2402.09353). `root_rank`: what the matrices add is scaled by
    alpha / sqrt(rank) instead of alpha / rank (rsLoRA, Kalajdzievski 2023, https://arxiv.org/abs/2312.03732).
    """
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    from palate.fused_lora import fuse

    transposed = any(isinstance(module, Conv1D) for module in model.modules())  # GPT-2 stores (in, out)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules="all-linear", fan_in_fan_out=transposed,
        exclude_modules=["score"] if hasattr(model, "score") else None,
        task_type="CAUSAL_LM" if hasattr(model, "prepare_inputs_for_generation") else None,
        use_dora=magnitudes, use_rslora=root_rank,
    )  # fmt: skip
    with quiet_libraries(), torch.random.fork_rng():
        torch.manual_seed(seed)
        wrapped = get_peft_model(model, config)
    fuse(wrapped)
    return wrapped


def save_adapter(peft_model: Any, path: Path) -> None:
    """The adapter `default` alone, a few MB, in peft's format; complete or not there at all."""
    with _whole_folder(path) as folder, quiet_libraries():
        peft_model.save_pretrained(str(folder), save_embedding_layers=False, selected_adapters=["default"])
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty form; lineage writes a real card


def save_model(loaded: Loaded, path: Path) -> None:
    """A folder that plain `AutoModelForCausalLM.from_pretrained` loads, and whose `generate` stops."""
    settings = loaded.model.generation_config
    settings.eos_token_id = list(loaded.encoder.stop_ids)
    settings.pad_token_id = loaded.encoder.pad_id
    settings.do_sample = True  # temperature and top_p, where set, are only valid with it
    with _whole_folder(path) as folder, quiet_libraries():
        loaded.model.save_pretrained(str(folder))
        loaded.tokenizer.save_pretrained(str(folder))


def _resolve(
    project: Project | None, ref: str, scores: bool = False
) -> tuple[str, list[Path], Tensor | None]:
    """(folder or hub id, adapters to merge into it, innermost first, the head of a reward run)."""
    if ref == BUILTIN:
        if not (_BUILTIN_FOLDER / "config.json").exists():
            raise UserError("the built-in model is missing: `python -m palate.builtin.build --help` makes it")
        return str(_BUILTIN_FOLDER), [], None
    if project is not None and is_run(project, ref):
        run = project.run(ref)
        kind, place = run.artefact.get("kind"), Path(run.path) / str(run.artefact.get("path", ""))
        if kind == "reward" and scores:
            return _resolve_reward(project, ref, str(run.artefact["base"]), place)
        if kind == "reward":
            raise UserError(f"{ref} is a reward model: it scores answers, it can't write them")
        if kind not in ("model", "adapter") or not place.is_dir():
            raise UserError(f"{ref} (status {run.status}) made no model; choose another run: palate runs")
        if kind == "model":
            return str(place), [], None
        source, adapters, head = _resolve(project, str(run.artefact["base"]), scores)
        return source, [*adapters, place], head
    folder = Path(ref).expanduser()
    if folder.is_dir():
        if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
            base = json.loads((folder / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"]
            source, adapters, head = _resolve(project, str(base), scores)
            return source, [*adapters, folder], head
        if not (folder / "config.json").exists():
            raise UserError(f"{folder} holds no model (no config.json)")
        return str(folder), [], None
    if ref.startswith((".", "/", "~")) or ref.count("/") > 1:
        raise UserError(f"there is no folder {ref}")
    return ref, [], None


def _resolve_reward(project: Project, ref: str, base: str, place: Path) -> tuple[str, list[Path], Tensor]:
    """As `_resolve`, of a reward run that has an adapter, or a head alone."""
    if (place / "weights.safetensors").exists():
        raise UserError(f"{ref} changed the weights of {base} themselves (full, freeze): start from {base}")
    source, adapters, _ = _resolve(project, base, scores=True)
    if (place / "adapter_config.json").exists():
        adapters = [*adapters, place]
    return source, adapters, load_file(place / "head.safetensors")["weight"]


def _from_pretrained(source: str, scores: bool, **settings: Any) -> tuple[Any, Any]:
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    local, kind = Path(source).is_dir(), AutoModelForCausalLM
    try:
        config = AutoConfig.from_pretrained(source)
        if any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
            if not scores:
                raise UserError(
                    f"{source} is a sequence-classification model: it scores answers, it can't write them"
                )
            if config.num_labels != 1:
                raise UserError(
                    f"{source} has {config.num_labels} labels; a reward model has one (num_labels 1)"
                )
            kind = AutoModelForSequenceClassification
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = kind.from_pretrained(source, dtype=torch.float32, **settings)
    except (OSError, ValueError, KeyError, ImportError) as error:  # what from_pretrained raises when it can't
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if local:
            raise UserError(f"{source} is no causal language model that loads: {reason}") from error
        raise UserError(
            f"the model '{source}' is neither a folder, nor a run of this project, nor reachable on the hub: {reason}"
        ) from error
    if scores and not hasattr(model, "score") and kind is AutoModelForSequenceClassification:
        raise UserError(
            f"{source} reads in both directions; a reward model is trained on a decoder. As it is it can score: "
            f"palate reward score --reward {source}"
        )
    return model, tokenizer


def _eos_ids(generation_config: Any) -> list[int]:
    ids = generation_config.eos_token_id if generation_config is not None else None
    return [] if ids is None else [int(i) for i in ids] if isinstance(ids, (list, tuple)) else [int(ids)]


def _disable_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(vars(module).get("attention_dropout"), float):  # Llama, Qwen2: a plain number
            vars(module)["attention_dropout"] = 0.0


@contextmanager
def _whole_folder(path: Path) -> Iterator[Path]:
    """Write beside the place and rename, so that a stop in between leaves no half of a model."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
