"""peft's LoRA layer with its arithmetic in place: the same numbers, a tenth less time and memory on a CPU.

peft computes x W' + (x A') B' s as two tensors as wide as the output, a third for the product with s, and their sum; here the
second product is added into the first, and s goes where the rank is small. So backwards. Only for what `palate` trains
itself: one adapter without dropout on a frozen `nn.Linear`. Everything else (several adapters in one batch, adapters off, merged,
DoRA, a base in 4 bits, GPT-2's transposed layers) is peft's own.

    fuse(peft_model)       # in place; names, weights and files are as they were
"""

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def fuse(model: nn.Module) -> None:
    """Let every plain LoRA layer of a model compute in place."""
    for module in model.modules():
        if type(module) is Linear and type(module.base_layer) is nn.Linear:
            module.__class__ = FusedLinear


class FusedLinear(Linear):  # type: ignore[misc] # peft is not typed
    """peft's layer; `forward` is its own wherever anything is out of the ordinary."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(..., in) to (..., out)."""
        name = self._alone()
        if args or kwargs or name is None:
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        base, a, b = self.base_layer, self.lora_A[name].weight, self.lora_B[name].weight
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else base.weight.dtype
        bias = None if base.bias is None else base.bias.to(dtype)
        added: Tensor = _Added.apply(  # type: ignore[no-untyped-call]
            x.to(dtype), base.weight.to(dtype), bias, a.to(dtype), b.to(dtype), self.scaling[name]
        )
        return added

    def _alone(self) -> str | None:
        """The one adapter that is all there is to add to a frozen base; None where it is not so plain."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        if self.disable_adapters or self.merged or len(names) != 1 or names[0] in self.lora_variant:
            return None
        plain = isinstance(self.lora_dropout[names[0]], nn.Identity) and self.lora_B[names[0]].bias is None
        return names[0] if plain and not self.base_layer.weight.requires_grad else None


class _Added(torch.autograd.Function):
    """x W' + bias + s (x A') B' of x (..., in), W (out, in), A (rank, in), B (out, rank), all of one dtype; W and bias are
    frozen."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, s: float
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        low = flat @ a.T
        out = F.linear(flat, w, bias)
        out.addmm_(low, b.T, alpha=s)
        ctx.save_for_backward(flat, w, a, b, low)
        ctx.s, ctx.shape = s, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, upstream: Tensor
    ) -> tuple[Tensor | None, None, None, Tensor | None, Tensor | None, None]:
        flat, w, a, b, low = ctx.saved_tensors
        g = upstream.reshape(-1, upstream.shape[-1])
        of_x, _, _, of_a, of_b, _ = ctx.needs_input_grad
        g_low = (g @ b).mul_(ctx.s)
        return (
            (g @ w).addmm_(g_low, a).view(ctx.shape) if of_x else None,
            None,
            None,
            g_low.T @ flat if of_a else None,
            (g.T @ low).mul_(ctx.s) if of_b else None,
            None,
        )
