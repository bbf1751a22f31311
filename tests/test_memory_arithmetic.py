"""The arithmetic of docs/scale.md: numbers of weights, what autograd keeps, and tables that are what the script prints."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import memory_arithmetic as arithmetic
import pytest
import torch
from peft.helpers import disable_input_dtype_casting
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from palate.generation import _new_cache
from palate.hardware import probe
from palate.models import lora
from palate.sequences import EncodedTree
from palate.tree import TreeForward

ROOT = Path(__file__).parents[1]
SMALL = {"vocab_size": 300, "hidden_size": 128, "intermediate_size": 352, "num_attention_heads": 4}


def kept(model: Any, forward: Any) -> int:
    """Bytes that autograd keeps for the backward pass, but for the model's own weights and copies of them."""
    held = {one.untyped_storage().data_ptr() for one in model.parameters()}
    shapes = {shape for one in model.parameters() for shape in (one.shape, one.shape[::-1])}
    found: dict[int, Tensor] = {}

    def keep(one: Tensor) -> Tensor:
        place = one.untyped_storage().data_ptr()
        if place not in held and one.shape not in shapes:
            found[place] = one
        return one

    with disable_input_dtype_casting(model), torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        result = forward()
    assert result is not None
    return sum(one.untyped_storage().nbytes() for one in found.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rank", [None, 8])
def test_activations_are_what_autograd_keeps_of_a_layer(dtype: torch.dtype, rank: int | None) -> None:
    tokens, sizes = 40, []
    for layers in (1, 3):
        config = LlamaConfig(**SMALL, num_hidden_layers=layers, num_key_value_heads=2)
        model: Any = LlamaForCausalLM(config).eval()
        if rank:
            model = lora(model, rank, 2 * rank, 0)
        decoder = (model.get_base_model() if rank else model).model
        ids = torch.arange(tokens)[None]
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            sizes.append(
                kept(model, lambda ids=ids, decoder=decoder: decoder(input_ids=ids, use_cache=False))
            )
    assert (sizes[1] - sizes[0]) / 2 == tokens * arithmetic.layer_bytes(config, dtype, rank)


def test_trees_keep_what_the_arithmetic_says() -> None:
    config = LlamaConfig(**SMALL, num_hidden_layers=3, num_key_value_heads=4)
    forward = TreeForward.of(LlamaForCausalLM(config).eval(), probe("cpu", "float32"))
    model = lora(forward.model, arithmetic.RANK, 32, 0)
    ids = torch.randint(3, 300, (3, 5, 90), generator=torch.Generator().manual_seed(0)).tolist()
    trees = [EncodedTree(row[0][: 30 * n], row[1:], 0, 0) for n, row in enumerate(ids, 1)]
    found = kept(model, lambda: forward.__class__(model, forward.hardware, "line").logprobs(trees))
    assert found == pytest.approx(
        arithmetic.trees_bytes(config, trees), rel=0.02
    )  # and small change of the head


def test_keys_and_values_take_six_bytes_in_bfloat16() -> None:
    config = LlamaConfig(**SMALL, num_hidden_layers=2, num_key_value_heads=2)
    model = LlamaForCausalLM(config).eval()
    cache = _new_cache(model, 40)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        model(input_ids=torch.arange(10)[None], past_key_values=cache, use_cache=True)
    held = sum(buffer.nbytes for layer in cache.layers for buffer in layer.buffers)
    assert held == 6 * 64 * 2 * 40  # K, layers, tokens


def test_numbers_of_weights_are_those_of_llama() -> None:
    found = {name: arithmetic.counts(config, 16) for name, config in arithmetic.SHAPES.items()}
    assert {name: (one.all, one.adapter) for name, one in found.items()} == {
        "1B": (1_235_814_400, 11_272_192),  # as their model cards and peft's print_trainable_parameters say
        "8B": (8_030_261_248, 41_943_040),
        "70B": (70_553_706_496, 207_093_760),
    }


def test_the_tables_of_the_docs_are_what_the_script_prints() -> None:
    command = [sys.executable, str(ROOT / "benchmarks/memory_arithmetic.py")]
    env = {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    page = (ROOT / "docs/scale.md").read_text()
    tables = done.stdout.strip().split("\n\n")
    assert len(tables) == 3 and all(table in page for table in tables)


@pytest.mark.slow
def test_the_measurement_runs() -> None:
    command = [sys.executable, str(ROOT / "benchmarks/memory_measured.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('"bench": "memory_measured"') == 4
