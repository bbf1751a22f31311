"""LoRA in place is peft's LoRA: values, gradients, files, and everything that is peft's own."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.helpers import disable_input_dtype_casting
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaForCausalLM

from palate.fused_lora import FusedLinear, _Added, fuse

IDS = torch.arange(3, 15).view(2, 6)
SIZES = {
    "vocab_size": 32, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip


def model(biased: bool = False, adapters: tuple[str, ...] = ("default",), **settings: Any) -> Any:
    """peft's own, with second matrices that are not zero."""
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=biased))
    config = LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM", **settings)
    wrapped = get_peft_model(base, config)
    for name in adapters[1:]:
        wrapped.add_adapter(name, config)
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name or name.endswith("bias"):
            nn.init.normal_(weight, std=0.3)
    return wrapped


def both(**settings: Any) -> tuple[Any, Any]:
    own = model(**settings)
    fused = copy.deepcopy(own)
    fuse(fused)
    assert any(isinstance(module, FusedLinear) for module in fused.modules())
    return own, fused


def gradients(one: Any, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    one.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype is not None), disable_input_dtype_casting(one):
        one(input_ids=IDS, labels=IDS).loss.backward()
    return {name: p.grad for name, p in one.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("biased", [False, True])
def test_values_and_gradients_are_those_of_peft(biased: bool) -> None:
    own, fused = both(biased=biased)
    torch.testing.assert_close(fused(input_ids=IDS).logits, own(input_ids=IDS).logits, atol=1e-6, rtol=1e-5)
    expected, found = gradients(own), gradients(fused)
    assert expected.keys() == found.keys() and len(found) == 28
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-5)
    assert fused.state_dict().keys() == own.state_dict().keys()


def test_gradients_are_those_of_differences() -> None:
    torch.manual_seed(0)
    x, w, bias, a, b = (
        torch.randn(size, dtype=torch.float64) for size in ((2, 3, 5), (4, 5), (4,), (2, 5), (4, 2))
    )
    for part in (x, a, b):
        part.requires_grad_()
    assert torch.autograd.gradcheck(_Added.apply, (x, w, bias, a, b, 1.5))
    assert torch.autograd.gradcheck(lambda a, b: _Added.apply(x.detach(), w, None, a, b, 1.5), (a, b))
    assert torch.autograd.gradcheck(lambda x: _Added.apply(x, w, None, a.detach(), b.detach(), 0.5), (x,))


def test_bfloat16_rounds_where_peft_does() -> None:
    own, fused = both()
    exact, expected, found = gradients(own), gradients(own, torch.bfloat16), gradients(fused, torch.bfloat16)

    def off(these: dict[str, Tensor]) -> float:
        return sum(float((these[name] - exact[name]).norm() / exact[name].norm()) for name in exact) / len(
            exact
        )

    assert all(gradient.dtype == torch.float32 for gradient in found.values())
    assert 0 < off(found) < 1.2 * off(expected)


def test_what_is_out_of_the_ordinary_is_left_to_peft(tmp_path: Path) -> None:
    own, fused = both(adapters=("default", "other"))
    ids = {"input_ids": IDS}

    def same() -> None:
        torch.testing.assert_close(fused(**ids).logits, own(**ids).logits, atol=1e-6, rtol=1e-5)

    for one in (own, fused):
        one.eval()
    plain = fused(**ids).logits
    with own.disable_adapter(), fused.disable_adapter():
        same()
        assert not torch.allclose(fused(**ids).logits, plain)
    mixed = {"adapter_names": ["__base__", "other"]}
    torch.testing.assert_close(fused(**ids, **mixed).logits, own(**ids, **mixed).logits)
    for one in (own, fused):
        one.set_adapter("other")
    same()
    for one in (own, fused):
        one.base_model.set_adapter(["default", "other"])
    same()
    for one in (own, fused):
        one.base_model.set_adapter(["default"])
        one.merge_adapter()
    same()
    for one in (own, fused):
        one.unmerge_adapter()
    fused.save_pretrained(str(tmp_path), selected_adapters=["default"])
    read = PeftModel.from_pretrained(model().unload(), str(tmp_path)).eval()
    torch.testing.assert_close(read(**ids).logits, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_dropout": 0.5}, {"lora_bias": True}])
def test_other_kinds_are_left_to_peft(settings: dict[str, Any]) -> None:
    own, fused = both(**settings)
    found = []
    for one in (own, fused):
        torch.manual_seed(1)
        found.append(one.train()(input_ids=IDS).logits)
    torch.testing.assert_close(found[1], found[0], atol=0.0, rtol=0.0)


def test_a_base_that_trains_too_gets_its_gradient() -> None:
    own, fused = both()
    for one in (own, fused):
        one.requires_grad_(True)
    expected, found = gradients(own), gradients(fused)
    assert expected.keys() == found.keys() and len(found) > 28


def test_layers_may_be_computed_twice() -> None:
    own, fused = both()
    layer = next(module for module in fused.modules() if isinstance(module, FusedLinear))
    plain = next(module for module in own.modules() if isinstance(module, Linear))
    x = torch.randn(3, 32)
    checkpoint(layer, x, use_reentrant=False).square().sum().backward()
    plain(x).square().sum().backward()
    torch.testing.assert_close(layer.lora_A["default"].weight.grad, plain.lora_A["default"].weight.grad)
