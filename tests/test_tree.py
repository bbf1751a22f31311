"""The prompt tree against the model's own forward pass on plain rows: values, gradients, fallbacks."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from palate import tree_kernels
from palate.hardware import Hardware
from palate.models import lora
from palate.sequences import EncodedTree
from palate.tree import TreeForward
from palate.tree_kernels import block_mask, logprobs_and_entropy, target_logprobs
from palate.tree_packing import Layout, micro_batches, pack, split_tree, tree_tokens

CPU = Hardware(torch.device("cpu"), torch.float32, 1)
SMALL = {
    "vocab_size": 53,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
TREES = [
    EncodedTree([5, 6, 7, 8], [[9, 10, 11], [12, 2], [13, 14, 15, 16, 2]], 0, 0),
    EncodedTree([17], [[18, 2], [19]], 0, 0),
    EncodedTree([20, 21, 22], [[23, 24, 25, 26, 27, 28, 2], [29, 2]], 0, 0),
]


def build(name: str) -> Any:
    """A random model of two layers; large weights, so that a wrong mask shows."""
    torch.manual_seed(0)
    models = {
        "llama": lambda: LlamaForCausalLM(
            LlamaConfig(**SMALL, num_key_value_heads=2, initializer_range=0.3, bos_token_id=None, eos_token_id=2)
        ),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL, num_key_value_heads=2, initializer_range=0.3)),
        "gpt2": lambda: GPT2LMHeadModel(
            GPT2Config(vocab_size=53, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3)
        ),
        "granite": lambda: GraniteForCausalLM(GraniteConfig(**SMALL, initializer_range=0.3, logits_scaling=4.0)),
        "mamba": lambda: MambaForCausalLM(MambaConfig(vocab_size=53, hidden_size=32, num_hidden_layers=2, state_size=4)),
        "mistral": lambda: MistralForCausalLM(
            MistralConfig(**SMALL, num_key_value_heads=2, initializer_range=0.3, sliding_window=6)
        ),
    }  # fmt: skip
    return models[name]().eval().requires_grad_(False)


def plain_logprobs(model: Any, tree: EncodedTree) -> list[torch.Tensor]:
    """The model's own logits on each `prompt + completion` alone."""
    found = []
    for completion in tree.completions:
        ids = torch.tensor([tree.prompt + completion])
        logprobs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        own = logprobs.gather(-1, ids[0, 1:, None])[:, 0]
        found.append(own[len(tree.prompt) - 1 :])
    return found


def with_adapter(model: Any) -> Any:
    """LoRA whose second matrices are not zero."""
    adapted = lora(model, rank=4, alpha=8, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return adapted


@pytest.fixture(params=[0, 256], ids=["branches", "whole"], autouse=True)
def small_tree(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU trees up to this size are computed by one call, longer ones branch by branch."""
    monkeypatch.setattr(tree_kernels, "SMALL_TREE", request.param)


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("layout", ["line", "shelves", "rows"])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2"])
def test_every_layout_gives_the_models_own_logprobs(name: str, layout: Layout, adapter: bool) -> None:
    model = with_adapter(build(name)) if adapter else build(name)
    expected = [plain_logprobs(model, tree) for tree in TREES]
    forward = replace(TreeForward.of(model, CPU), layout=layout)
    found = forward.token_logprobs(TREES)
    for tree_found, tree_expected in zip(found, expected, strict=True):
        for one, other in zip(tree_found, tree_expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    for sums, tree_expected in zip(forward.logprobs(TREES), expected, strict=True):
        torch.testing.assert_close(sums, torch.stack([t.sum() for t in tree_expected]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", ["line", "shelves", "rows"])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2"])
def test_every_layout_gives_the_same_gradients(name: str, layout: Layout) -> None:
    model = with_adapter(build(name))
    parameters = [p for p in model.parameters() if p.requires_grad]
    signs = [1.0, -2.0, 0.5, 3.0, -1.0, 1.5, -0.5]

    def gradients(logprobs: list[torch.Tensor]) -> list[torch.Tensor]:
        loss = sum(s * x for s, x in zip(signs, torch.cat(logprobs), strict=True))
        return list(torch.autograd.grad(loss, parameters))

    plain = [torch.stack([t.sum() for t in plain_logprobs(model, tree)]) for tree in TREES]
    forward = replace(TreeForward.of(model, CPU), layout=layout)
    for found, expected in zip(gradients(forward.logprobs(TREES)), gradients(plain), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_last_hidden_is_read_at_each_completions_last_token() -> None:
    model = build("llama")
    forward = TreeForward.of(model, CPU)
    assert forward.layout == "line"
    for layout in ("line", "shelves", "rows"):
        for tree, hidden in zip(TREES, replace(forward, layout=layout).last_hidden(TREES), strict=True):
            alone = [
                model.model(input_ids=torch.tensor([tree.prompt + c])).last_hidden_state[0, -1]
                for c in tree.completions
            ]
            torch.testing.assert_close(hidden, torch.stack(alone), atol=1e-5, rtol=1e-5)


def test_an_empty_completion_has_logprob_zero() -> None:
    tree = EncodedTree([5, 6], [[], [7, 2]], 0, 0)
    for layout in ("line", "shelves", "rows"):
        found = replace(TreeForward.of(build("llama"), CPU), layout=layout).logprobs([tree])[0]
        assert found[0] == 0 and found[1] < 0


def test_ordinary_calls_are_not_changed(capsys: pytest.CaptureFixture[str]) -> None:
    model = build("llama")
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    padded, mask = torch.tensor([[0, 0, 5, 6, 7]]), torch.tensor([[0, 0, 1, 1, 1]])
    before = model(input_ids=ids).logits, model(input_ids=padded, attention_mask=mask).logits[:, 2:]
    written = model.generate(ids, max_new_tokens=8, do_sample=False)
    assert TreeForward.of(model, CPU).plain_head
    torch.testing.assert_close(model(input_ids=ids).logits, before[0])
    torch.testing.assert_close(model(input_ids=padded, attention_mask=mask).logits[:, 2:], before[1])
    assert torch.equal(model.generate(ids, max_new_tokens=8, do_sample=False), written)
    assert capsys.readouterr().out == ""


def test_a_head_that_scales_its_logits_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    model = build("granite")
    forward = TreeForward.of(model, CPU)
    assert not forward.plain_head
    assert "its own head" in capsys.readouterr().out
    expected = torch.stack([t.sum() for t in plain_logprobs(model, TREES[0])])
    torch.testing.assert_close(forward.logprobs(TREES)[0], expected, atol=1e-5, rtol=1e-5)


def test_a_state_space_model_is_computed_in_plain_rows(capsys: pytest.CaptureFixture[str]) -> None:
    model = build("mamba")
    forward = TreeForward.of(model, CPU)
    assert forward.layout == "rows"
    assert "a row of its own" in capsys.readouterr().out
    expected = torch.stack([t.sum() for t in plain_logprobs(model, TREES[0])])
    torch.testing.assert_close(forward.logprobs(TREES)[0], expected, atol=1e-4, rtol=1e-4)


def test_sequences_longer_than_a_sliding_window_get_plain_rows() -> None:
    model = build("mistral")
    forward = TreeForward.of(model, CPU)
    assert forward.layout == "line"  # short sequences fit the window of 6
    for found, tree in zip(forward.logprobs(TREES), TREES, strict=True):
        expected = torch.stack([t.sum() for t in plain_logprobs(model, tree)])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_packing_by_hand() -> None:
    trees = [
        EncodedTree([5], [[6], [7, 8]], 0, 0),
        EncodedTree([9, 10], [[11, 12, 13]], 0, 0),
        EncodedTree([14], [[15]], 0, 0),
    ]
    shelves = pack(trees, "shelves", torch.device("cpu"))
    assert shelves.input_ids.tolist() == [[9, 10, 11, 12, 13], [5, 6, 7, 8, 0], [14, 15, 0, 0, 0]]
    assert shelves.position_ids.tolist() == [[0, 1, 2, 3, 4], [0, 1, 1, 2, 0], [0, 1, 0, 0, 0]]
    assert shelves.tree.tolist() == [[1, 1, 1, 1, 1], [0, 0, 0, 0, -1], [2, 2, -1, -1, -1]]
    assert shelves.predictors.tolist() == [5, 5, 7, 1, 2, 3, 10]
    assert shelves.targets.tolist() == [6, 7, 8, 11, 12, 13, 15]
    assert shelves.owners.tolist() == [0, 1, 1, 2, 2, 2, 3]
    assert shelves.last.tolist() == [6, 8, 4, 11]
    visible = block_mask(shelves.tree, shelves.branch, torch.float32)[1, 0] == 0
    assert visible[:4, :4].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]
    line = pack(trees, "line", torch.device("cpu"))
    assert line.input_ids.tolist() == [[9, 10, 11, 12, 13, 5, 6, 7, 8, 14, 15]]
    assert line.lengths == [[2, 3], [1, 1, 2], [1, 1]]


@pytest.mark.parametrize(
    ("words", "dtype"), [(700, torch.float32), (5000, torch.float32), (5000, torch.bfloat16)]
)
@pytest.mark.parametrize("biased", [True, False])
def test_target_logprobs_match_autograd(words: int, dtype: torch.dtype, biased: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1100, 16, generator=generator, requires_grad=True)
    weight = torch.randn(words, 16, generator=generator)
    bias = 4 * torch.randn(words, generator=generator) if biased else None
    targets = torch.randint(words, (1100,), generator=generator)
    upstream = torch.randn(1100, generator=generator)
    parts = [None if one is None else one.to(dtype) for one in (hidden, weight, bias)]
    logits = torch.nn.functional.linear(*parts).log_softmax(-1, dtype=torch.float32)  # type: ignore[arg-type]
    plain = logits.gather(-1, targets[:, None])[:, 0]
    found, entropy = logprobs_and_entropy(hidden, weight, bias, targets, dtype)
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(target_logprobs(hidden, weight, bias, targets, dtype), found)
    torch.testing.assert_close(entropy, -(logits.exp() * logits).sum(-1))
    expected = torch.autograd.grad(plain @ upstream, hidden)[0]
    near = 1e-4 if dtype == torch.float32 else 0.03
    torch.testing.assert_close(
        torch.autograd.grad(found @ upstream, hidden)[0], expected, atol=near, rtol=near
    )


def test_logits_far_below_and_above_nought_neither_overflow_nor_vanish() -> None:
    weight = torch.cat([torch.full((2100, 1), -1e4), torch.full((2100, 1), 1e4)])
    hidden, targets = torch.tensor([[1.0], [-1.0]]), torch.tensor([4199, 4199])
    logprobs, entropy = logprobs_and_entropy(hidden, weight, None, targets, torch.float32)
    torch.testing.assert_close(logprobs, torch.tensor([-math.log(2100), -2e4 - math.log(2100)]))
    torch.testing.assert_close(entropy, torch.full((2,), math.log(2100)))


def test_long_completions_do_not_pay_for_each_other() -> None:
    short = EncodedTree(list(range(200)), [[1] * 20] * 4, 0, 0)
    long = EncodedTree(list(range(20)), [[1] * 2000] * 4, 0, 0)
    assert split_tree(short, hidden_size=256) == [short]
    pieces = split_tree(long, hidden_size=256)
    assert [len(piece.completions) for piece in pieces] == [1, 1, 1, 1]
    assert all(piece.prompt == long.prompt for piece in pieces)


def test_micro_batches_keep_to_the_budget_and_lose_nothing() -> None:
    trees = [EncodedTree([1] * (i % 7 + 1), [[1] * (i % 11 + 1)] * 2, 0, 0) for i in range(40)]
    groups = micro_batches(trees, 60)
    assert sorted(index for group in groups for index in group) == list(range(40))
    assert all(sum(tree_tokens(trees[i]) for i in group) <= 60 for group in groups)
    assert micro_batches([EncodedTree([1] * 90, [[1]], 0, 0)], 60) == [[0]]
    assert micro_batches([], 60) == []


@pytest.mark.parametrize("layout", ["line", "shelves", "rows"])
def test_summaries_are_last_and_mean_of_plain_rows(layout: Layout) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SMALL)).eval()
    forward = replace(TreeForward.of(model, CPU), layout=layout)
    trees = [
        *TREES,
        EncodedTree([20, 21], [[22], []], 0, 0),
    ]  # an empty completion has the prompt's last state twice
    found = forward.summaries(trees)
    for tree, rows in zip(trees, found, strict=True):
        for completion, row in zip(tree.completions, rows, strict=True):
            hidden = model.model(torch.tensor([tree.prompt + completion])).last_hidden_state[0]
            own = hidden[len(tree.prompt) :] if completion else hidden[-1:]
            assert torch.allclose(row, torch.cat([own[-1], own.mean(0)]), atol=1e-5)
