"""The upper part of a decoder against the whole of it: states, gradients, models that can't be divided."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from palate.hardware import Hardware
from palate.models import lora
from palate.sequences import EncodedTree
from palate.tree import TreeForward
from palate.tree_layers import by_token, caught, divided, upper
from palate.tree_packing import Layout

CPU = Hardware(torch.device("cpu"), torch.float32, 1)
SMALL = {"vocab_size": 53, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
WIDE = {**SMALL, "intermediate_size": 48, "num_key_value_heads": 2, "initializer_range": 0.3}
TREES = [
    EncodedTree([17], [[18, 2], [19]], 0, 0),
    EncodedTree([5, 6, 7, 8], [[9, 10, 11], [], [13, 14, 15, 16, 2]], 0, 0),
]


def build(name: str) -> Any:
    """A random model of three layers; large weights, so that a wrong place shows."""
    torch.manual_seed(0)
    models = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**WIDE)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**WIDE)),
        "mistral": lambda: MistralForCausalLM(MistralConfig(**WIDE)),
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=53, n_embd=32, n_layer=3, n_head=4)),
        "opt": lambda: OPTForCausalLM(OPTConfig(**SMALL, ffn_dim=48, word_embed_proj_dim=32, init_std=0.3)),
        "gemma3": lambda: Gemma3ForCausalLM(
            Gemma3TextConfig(**WIDE, head_dim=8, layer_types=["sliding_attention"] * 2 + ["full_attention"])
        ),
    }
    return models[name]().eval()


@pytest.mark.parametrize("layout", ["line", "shelves", "rows"])
@pytest.mark.parametrize("name", ["llama", "qwen2", "mistral"])
def test_the_upper_part_continues_where_the_lower_one_ended(name: str, layout: Layout) -> None:
    forward = replace(TreeForward.of(build(name), CPU), layout=layout)
    with torch.no_grad():
        packed = forward.pack(TREES)
        with caught(forward, 2) as states:
            whole = forward.decode(packed)
        kept = by_token(packed, states[0])
        assert kept.shape == (4 + 4 + 8, 32)
        turned = forward.pack(TREES[::-1])  # other company, another order
        other = torch.cat([kept[4:], kept[:4]])
        expected, found = forward.decode(turned), upper(forward, turned, other, 2)
    torch.testing.assert_close(upper(forward, packed, kept, 2)[packed.last], whole[packed.last])
    torch.testing.assert_close(found[turned.last], expected[turned.last])
    torch.testing.assert_close(found[turned.predictors], expected[turned.predictors])
    assert len(forward.base.get_decoder().layers) == 3


def test_gradients_are_those_of_the_whole() -> None:
    forward = TreeForward.of(build("llama"), CPU)
    model = lora(forward.model, 4, 8, 0)
    forward = replace(forward, model=model)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        parameter.data += 0.1 * torch.randn_like(parameter) if "lora_" in name else 0.0
        parameter.requires_grad_("lora_" in name and "layers.0." not in name)
    own = [one for one in model.parameters() if one.requires_grad]
    packed = forward.pack(TREES)
    with caught(forward, 1) as states:
        whole = forward.decode(packed)
    whole[packed.last].square().sum().backward()
    expected = [one.grad.clone() for one in own if one.grad is not None]
    model.zero_grad(set_to_none=True)
    upper(forward, packed, by_token(packed, states[0]), 1)[packed.last].square().sum().backward()
    assert len(expected) == len(own)
    for parameter, gradient in zip(own, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize(("share", "below"), [(1.0, 0), (0.9, 0), (0.5, 1), (0.34, 1), (1 / 3, 2), (0.01, 2)])
def test_the_upper_share_is_rounded_up(share: float, below: int) -> None:
    assert divided(TreeForward.of(build("llama"), CPU), share) == below


@pytest.mark.parametrize("name", ["gpt2", "opt", "gemma3"])
def test_models_whose_layers_do_not_go_on_from_states_stay_whole(name: str) -> None:
    """GPT-2 and OPT add positions to what they start from; Gemma's layers are of two kinds."""
    assert divided(TreeForward.of(build(name), CPU), 0.5) == 0


def test_nothing_is_caught_of_a_model_that_is_not_divided() -> None:
    forward = TreeForward.of(build("gpt2"), CPU)
    with torch.no_grad(), caught(forward, 0) as states:
        forward.last_hidden(TREES)
    assert states == []
