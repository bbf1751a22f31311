"""What each method of `palate sft` trains of the base, at which learning rate, and what it leaves behind.

| method | trains | leaves |
|---|---|---|
| full | every weight | a model |
| lora, dora, rslora | adapters on all linear layers | an adapter |
| qlora | the same, on a base held in 4 bits | an adapter, for the base as it was |
| freeze | the last layers, norms or head, as asked | a model |

Not here: the training itself (fitting.py), how adapters are made and merged (palate.models).
"""

from typing import Any

from palate.config import SftConfig, UserError
from palate.freezing import Named, head_weights, norm_weights, trained_weights
from palate.hardware import Hardware
from palate.models import Loaded, check_four_bit, load, load_four_bit, lora, save_adapter, save_model
from palate.project import Project
from palate.runs import ActiveRun
from palate.sft import sharded

ADAPTERS = ("lora", "qlora", "dora", "rslora")
SMALL, HUGE = 20e6, 20e9  # weights


def check(config: SftConfig, hardware: Hardware) -> None:
    """A UserError, before anything is loaded or written, where this can't be done here or trains nothing."""
    sharded.check(config, hardware)
    if config.method == "qlora":
        check_four_bit(hardware)
    if config.lora_rank is not None and config.lora_rank < 1:
        raise UserError(f"--lora-rank {config.lora_rank}: it takes 1 or more")
    if config.method == "freeze" and not config.layers and not config.train:
        raise UserError(
            "--method freeze with --layers 0 trains nothing: add --train head, --train norms, or layers"
        )


def start(project: Project, base: str, config: SftConfig, hardware: Hardware) -> Loaded:
    """The base as the method wants it."""
    return (load_four_bit if config.method == "qlora" else load)(project, base, hardware)


def trainee(loaded: Loaded, config: SftConfig) -> Any:
    """The model to train, over the loaded one (a PeftModel) or itself; what requires gradients is what trains."""
    if config.method in ADAPTERS:
        rank, alpha = scale(config)
        return lora(
            loaded.model, rank, alpha, config.seed, config.method == "dora", config.method == "rslora"
        )
    if config.method == "freeze":
        chosen = frozen_but(loaded.model, config)
        loaded.model.requires_grad_(False)
        for parameter in chosen.values():
            parameter.requires_grad_(True)
    return loaded.model


def frozen_but(model: Any, config: SftConfig) -> Named:
    """What trains with method freeze, by name."""
    chosen = trained_weights(model, config.layers)
    if "norms" in config.train:
        chosen |= norm_weights(model)
    if "head" in config.train:
        if model.get_output_embeddings().weight is model.get_input_embeddings().weight:
            print("note: the output head was tied to the embeddings; it has weights of its own from here on")
        chosen |= head_weights(model)
    return chosen


def scale(config: SftConfig) -> tuple[int, int]:
    """(rank, alpha): what the adapter adds is multiplied by alpha / rank, which is 2 for lora and dora.

    rsLoRA's alpha / sqrt(rank) is 2 as well at the usual rank of 16 and falls above. QLoRA: 64 and 16, as in the paper.
    """
    rank = config.lora_rank or (64 if config.method == "qlora" else 16)
    return rank, {"qlora": 16, "rslora": 8}.get(config.method, 2 * rank)


def default_learning_rate(weights: int, config: SftConfig) -> float:
    """Peak learning rate by size and method: small models bear, and need, larger steps, and so do adapters, and the fewer
    weights train.

    Measured on the built-in model (benchmarks/sft_methods.py --rates; docs/sft.md shows the table). Those of larger models
    are the field's usual for full, lora and qlora, and a tenth of the small ones for freeze.
    """
    small = weights < SMALL
    if config.method == "freeze":
        rate = 1e-3 if config.layers else 3e-2 if set(config.train) == {"norms"} else 2e-3
        return rate if small else rate / 10
    if config.method == "qlora" and weights > HUGE:
        return 1e-4
    if config.method in ADAPTERS:
        return 2e-3 if small else 2e-4
    return 3e-4 if small else 2e-5


def save(model: Any, loaded: Loaded, config: SftConfig, active: ActiveRun, base: str) -> None:
    """Write what the method leaves, and note it in the run."""
    if config.method in ADAPTERS:
        save_adapter(model, active.path / "adapter")
        active.update(artefact={"kind": "adapter", "path": "adapter", "base": base})
    else:
        save_model(loaded, active.path / "model")
        active.update(artefact={"kind": "model", "path": "model", "base": base})
