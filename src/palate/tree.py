"""The prompt tree: K completions of one prompt in one row, computed once.

    [ prompt | completion 1 | completion 2 | ... | completion K ]

Each completion sees the prompt and itself, and position ids restart after the prompt, so every token's hidden
state is what it would be in a plain row `[prompt | completion]`; the prompt is computed once instead of K times.
Trees share rows, and the language-model head runs on the positions that predict completion tokens, nowhere else.

    forward = TreeForward.of(model, hardware)       # a causal LM, plain or wrapped by peft; tests itself first
    forward.logprobs(trees)                         # per tree (K,): sums of log-probabilities
    forward.last_hidden(trees)                      # per tree (K, D): what a reward head reads

A model whose attention can't be told who sees whom (state space), or whose head is more than one matrix
(soft-capped logits), is noticed by the self-test and computed in plain rows, one per completion.
Not here: tokenization (sequences.py), layouts (tree_packing.py), losses (reward/losses.py, rl/losses.py), the training loop (training.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from palate.hardware import Hardware
from palate.sequences import EncodedTree
from palate.tree_kernels import (
    Branches,
    block_mask,
    logprobs_and_entropy,
    target_logprobs,
    use_branches,
)
from palate.tree_packing import Layout, Packed, pack, split_tree, tree_origins


@dataclass(frozen=True)
class TreeForward:
    """Forward passes of one causal LM over prompt trees, with gradients where torch records them."""

    model: Any  # a transformers causal LM, or peft's wrapper around one
    hardware: Hardware
    layout: Layout
    plain_head: bool = True  # False: log-probabilities come from the model's own logits

    @classmethod
    def of(cls, model: Any, hardware: Hardware) -> "TreeForward":
        """The fastest way this model allows, found by a self-test on a few tokens; says so when it is slow."""
        line = hardware.device.type == "cpu" and use_branches(_unwrapped(model))
        wanted = cls(model, hardware, "line" if line else "shelves")
        decoder_agrees, head_agrees = _self_test(wanted)
        if not decoder_agrees:
            print("this model's attention can't share a row: each completion gets a row of its own (slower)")
        elif not head_agrees:
            print("this model's logits are not one matrix product: its own head computes them (slower)")
        return cls(model, hardware, wanted.layout if decoder_agrees else "rows", head_agrees)

    def logprobs(self, trees: Sequence[EncodedTree]) -> list[Tensor]:
        """Per tree (K,) float32: log p(completion | prompt), summed over its tokens, stop token included."""
        packed = self.pack(trees)
        sizes = [len(tree.completions) for tree in trees]
        sums = torch.zeros(sum(sizes), device=self.hardware.device)
        return list(torch.split(sums.index_add(0, packed.owners, self._token_logprobs(packed)), sizes))

    def token_logprobs(self, trees: Sequence[EncodedTree]) -> list[list[Tensor]]:
        """Per tree and completion (tokens,) float32: log p(token | prompt, earlier tokens)."""
        flat = self._token_logprobs(self.pack(trees))
        parts = iter(
            torch.split(flat, [len(completion) for tree in trees for completion in tree.completions])
        )
        return [[next(parts) for _ in tree.completions] for tree in trees]

    def tokens(self, trees: Sequence[EncodedTree], temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """((N,) log p of all completion tokens in order, (N,) entropies in nats without gradient), of softmax(logits / T)."""
        packed = self.pack(trees)
        return self.head_tokens(self.decode(packed), packed, temperature)

    def head_tokens(self, hidden: Tensor, packed: Packed, temperature: float) -> tuple[Tensor, Tensor]:
        """`tokens` from the decoder's output (R T, D)."""
        head = self.base.get_output_embeddings()
        bias = None if head.bias is None else head.bias / temperature
        states = hidden[packed.predictors] / temperature
        return logprobs_and_entropy(states, head.weight, bias, packed.targets, self.hardware.dtype)

    def roles(self, packed: Packed, adapters: Sequence[str]) -> dict[str, Tensor]:
        """The decoder's output (R T, D) under each of several adapters ("__base__": none) in one pass; no gradients.

        `model` is peft's; its rows are repeated once per adapter, so what a row computes is what that adapter would.
        """
        rows = packed.input_ids.shape[0]
        names = [name for name in adapters for _ in range(rows)]
        with self.model.base_model._enable_peft_forward_hooks(adapter_names=names):
            hidden = self.decode(packed, len(adapters))
        return dict(zip(adapters, hidden.chunk(len(adapters)), strict=True))

    def last_hidden(self, trees: Sequence[EncodedTree]) -> list[Tensor]:
        """Per tree (K, D): the decoder's output at the last token of each completion."""
        packed = self.pack(trees)
        return list(torch.split(self.decode(packed)[packed.last], [len(tree.completions) for tree in trees]))

    def summaries(self, trees: Sequence[EncodedTree]) -> list[Tensor]:
        """Per tree (K, 2 D): the decoder's output at each completion's last token, and its mean over the completion."""
        packed = self.pack(trees)
        hidden = self.decode(packed).float()
        # a token stands where its follower is predicted from; the last one of a completion predicts nothing
        own = packed.predictors.roll(-1)
        ends = packed.owners.roll(-1) != packed.owners
        ends[-1:] = True
        own = torch.where(ends, packed.last[packed.owners], own)
        last = hidden[packed.last]
        sums = torch.zeros_like(last).index_add_(0, packed.owners, hidden[own])
        counts = torch.bincount(packed.owners, minlength=len(last))[:, None]
        mean = torch.where(counts > 0, sums / counts.clamp(min=1), last)
        return list(torch.split(torch.cat([last, mean], 1), [len(tree.completions) for tree in trees]))

    @property
    def base(self) -> Any:
        """The transformers model, with adapters in place."""
        return _unwrapped(self.model)

    def pack(self, trees: Sequence[EncodedTree]) -> Packed:
        """The layout, unless a sliding window would have to cut inside a sequence."""
        config, device = self.base.config.get_text_config(), self.hardware.device
        longest = max(len(tree.prompt) + max(map(len, tree.completions)) for tree in trees)
        if self.layout == "rows" or longest > (getattr(config, "sliding_window", None) or longest):
            layout: Layout = "rows"
            pieces = [[replace(tree, completions=[c]) for c in tree.completions] for tree in trees]
        elif self.layout == "shelves":
            layout = self.layout
            pieces = [split_tree(tree, config.hidden_size) for tree in trees]
        else:
            return pack(trees, self.layout, device)
        return pack([one for some in pieces for one in some], layout, device, tree_origins(trees, pieces))

    def _token_logprobs(self, packed: Packed) -> Tensor:
        """(N,) float32 log-probabilities of the completion tokens."""
        if self.plain_head:
            head = self.base.get_output_embeddings()
            hidden = self.decode(packed)[packed.predictors]
            return target_logprobs(hidden, head.weight, head.bias, packed.targets, self.hardware.dtype)
        with self.hardware.autocast():
            logits = self.base(**_inputs(packed, self.hardware.dtype), use_cache=False).logits
        chosen: Tensor = logits.flatten(0, 1)[packed.predictors].float()
        return chosen.log_softmax(-1).gather(-1, packed.targets[:, None])[:, 0]

    def decode(self, packed: Packed, times: int = 1, embeddings: Tensor | None = None) -> Tensor:
        """(times R T, D): the decoder's output at every position, all rows repeated `times`.

        `embeddings` (R, T, D) are what it starts from in place of the tokens' own.
        """
        inputs = _inputs(packed, self.hardware.dtype)
        if embeddings is not None:
            inputs = {name: one for name, one in inputs.items() if name != "input_ids"}
            inputs["inputs_embeds"] = embeddings
        if times > 1:
            for name in ("input_ids", "position_ids", "attention_mask"):
                if name in inputs and inputs[name].shape[0] == packed.input_ids.shape[0]:
                    inputs[name] = inputs[name].repeat(times, *[1] * (inputs[name].dim() - 1))
        with self.hardware.autocast():
            output = self.base.get_decoder()(**inputs, use_cache=False)
        hidden: Tensor = output.last_hidden_state.flatten(0, 1)
        return hidden


def _unwrapped(model: Any) -> Any:
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _inputs(packed: Packed, dtype: torch.dtype) -> dict[str, Any]:
    """What a model is called with; plain rows need no more than an ordinary padding mask."""
    if packed.layout == "rows":
        return {"input_ids": packed.input_ids, "attention_mask": (packed.tree >= 0).long()}
    inputs = {"input_ids": packed.input_ids, "position_ids": packed.position_ids}
    if packed.layout == "line":
        nothing = torch.zeros(1, 1, 1, 1)  # four dimensions: transformers builds no mask of its own
        branches = Branches.of(packed.lengths, dtype, packed.input_ids.device)
        return {**inputs, "attention_mask": nothing, "branches": branches}
    return {**inputs, "attention_mask": block_mask(packed.tree, packed.branch, dtype)}


@torch.no_grad()
def _self_test(wanted: TreeForward) -> tuple[bool, bool]:
    """Does its layout give the hidden states of plain rows, and one matrix product the model's own logits?"""
    exact = replace(wanted, hardware=replace(wanted.hardware, dtype=torch.float32))
    plain = replace(exact, layout="rows")
    own = replace(plain, plain_head=False)
    trees = trial_trees(exact)
    weights = exact.base.get_input_embeddings().weight.dtype
    training = [module for module in exact.model.modules() if module.training]
    exact.model.eval()  # dropout would make any two passes differ
    try:
        expected = torch.cat(plain.last_hidden(trees)).float()
        writes = exact.base.get_output_embeddings() is not None  # a classifier doesn't
        head_agrees = not writes or close(
            torch.cat(plain.logprobs(trees)), torch.cat(own.logprobs(trees)), weights
        )
        try:
            decoder_agrees = close(torch.cat(exact.last_hidden(trees)).float(), expected, weights)
        except (RuntimeError, TypeError, ValueError):  # its attention refuses to be told who sees whom
            decoder_agrees = False
    finally:
        for module in training:
            module.training = True
    return decoder_agrees, head_agrees


def trial_trees(forward: TreeForward) -> list[EncodedTree]:
    """Two small ones, to see what a model can do."""
    vocabulary = forward.base.config.get_text_config().vocab_size
    ids = [(3 + 7 * i) % vocabulary for i in range(24)]
    return [
        EncodedTree(ids[:6], [ids[6:9], ids[9:14], ids[14:15]], 0, 0),
        EncodedTree(ids[15:18], [ids[18:20], ids[20:24]], 0, 0),
    ]


def close(found: Tensor, expected: Tensor, weights: torch.dtype) -> bool:
    """Equal up to the rounding of the weights' type; a wrong mask is off by far more."""
    tolerance = max(1e-3, 8 * torch.finfo(weights).eps)
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())
