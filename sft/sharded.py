"""FSDP and DeepSpeed of `palate sft`: what training holds is cut into parts, one for each process.

    accelerate launch --config_file recipes/accelerate/fsdp.yaml --num_processes 2 -m palate sft

FSDP: each process loads a whole model, then keeps its part of weights, gradients and optimiser; a layer's weights come
together while it computes. After training the first process puts a whole model together again, measures it and writes it.
DeepSpeed's ZeRO 1 and 2 leave the weights whole. Not here: the training (fitting.py).
"""

import functools
import os
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from palate.config import SftConfig, UserError
from palate.hardware import Hardware
from palate.launched import sharding

# what each calls its part of a checkpoint
_PARTS = {"FSDP": "pytorch_model_fsdp*", "DeepSpeed": "global_step*"}


def check(config: SftConfig, hardware: Hardware) -> None:
    """A UserError where the launcher asks for what can't be had."""
    name = sharding()
    if name is None:
        return
    if config.method == "qlora":
        raise UserError(
            f"--method qlora is not supported with {name}: use --method lora, or launch with recipes/accelerate/ddp.yaml"
        )
    if name == "FSDP" and os.environ.get("FSDP_VERSION") != "2":
        raise UserError("only FSDP 2 is supported: set fsdp_version: 2, as in recipes/accelerate/fsdp.yaml")
    if name == "FSDP" and os.environ.get("FSDP_CPU_RAM_EFFICIENT_LOADING", "false").lower() == "true":
        raise UserError(
            "every process looks at the whole model before it is cut: set fsdp_cpu_ram_efficient_loading: false"
        )
    if name == "DeepSpeed" and os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") not in ("1", "2"):
        raise UserError(
            "of DeepSpeed, ZeRO 1 and 2 are supported: set zero_stage: 2, or take recipes/accelerate/fsdp.yaml"
        )
    if name == "DeepSpeed" and hardware.dtype != torch.float32:
        raise UserError(
            "with DeepSpeed the weights would become bfloat16: add --dtype float32, or take recipes/accelerate/fsdp.yaml"
        )


def check_checkpoint(checkpoint: Path | None) -> None:
    """A UserError where a checkpoint is in parts and this run is not, or the other way round."""
    if checkpoint is None:
        return
    found = next((name for name, parts in _PARTS.items() if any(checkpoint.glob(parts))), None)
    if found == sharding():
        return
    if found is None:
        raise UserError(f"its checkpoint was written without {sharding()}: resume it without")
    raise UserError(
        f"its checkpoint is in {found}'s parts: resume it with recipes/accelerate/{found.lower()}.yaml"
    )


def prepare(trainer: Any, hardware: Hardware) -> None:
    """Have transformers' Trainer cut the model, and compute as one process does.

    On a CPU accelerate leaves both off, though torch and DeepSpeed can do it there.
    """
    state = trainer.accelerator.state
    if sharding() == "FSDP":
        from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

        if getattr(state, "fsdp_plugin", None) is None:
            state.distributed_type = DistributedType.FSDP
            state.fsdp_plugin = FullyShardedDataParallelPlugin()
            trainer.is_fsdp_enabled = True
        # it would gather weights and add up gradients in bfloat16; as in one process, autocast does the fast arithmetic
        state.fsdp_plugin.mixed_precision_policy = None
        _autocast(trainer.model, hardware)
    elif sharding() == "DeepSpeed" and getattr(state, "deepspeed_plugin", None) is None:
        from accelerate.utils import DistributedType
        from deepspeed import init_distributed
        from transformers.trainer import propagate_args_to_deepspeed

        init_distributed("gloo", auto_mpi_discovery=False)  # the group that is there
        plugin = trainer.args.deepspeed_plugin
        plugin.set_mixed_precision("no")
        plugin.select(_from_accelerator_state=True)
        state.distributed_type, state.deepspeed_plugins = DistributedType.DEEPSPEED, {"default": plugin}
        trainer.is_deepspeed_enabled = True
        propagate_args_to_deepspeed(trainer.accelerator, trainer.args)


def _autocast(model: Any, hardware: Hardware) -> None:
    """The forward pass in the fast arithmetic, as accelerate wraps a model that it doesn't cut."""
    from accelerate.utils import convert_outputs_to_fp32

    if hardware.dtype == torch.float32:
        return
    forward = model.forward

    @functools.wraps(forward)
    def fast(*args: Any, **kwargs: Any) -> Any:
        # its cache would keep a copy of every layer
        with torch.autocast(hardware.device.type, hardware.dtype, cache_enabled=False):
            return forward(*args, **kwargs)

    model.forward = convert_outputs_to_fp32(fast)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """What has trained, whole, in the first process; the others help, and get nothing."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    whole = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    return cast(dict[str, Tensor], get_model_state_dict(model, options=whole))


def share(model: nn.Module) -> float:
    """Which part of the weights this process holds."""
    from torch.distributed.tensor import DTensor

    held = sum(
        one.to_local().numel() if isinstance(one, DTensor) else one.numel() for one in model.parameters()
    )
    return held / sum(one.numel() for one in model.parameters())
