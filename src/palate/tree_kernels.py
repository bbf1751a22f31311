"""The arithmetic under the prompt tree: who sees whom, and log-probabilities without keeping logits.

Attention comes in two forms that give the same numbers: a block mask over whole rows, for devices whose kernels
like few large calls, and one small call per branch, which on a CPU costs a fraction of it (nothing masked is
computed). `use_branches` makes a model able to take the second; its ordinary calls are not changed.
Pure functions of tensors but for that registration; what a tree is stands in tree.py.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

# logits exist a block at a time on a CPU, which should stay in its cache; so many on a GPU, which likes few large calls
HEAD_ROWS, HEAD_WORDS = 512, 2048
HEAD_NUMBERS_GPU = 1 << 26
SMALL_TREE = 256  # tokens
BRANCHES = "palate_branches"  # the name under which transformers knows branch_attention


@dataclass(frozen=True)
class Branches:
    """How one row of N tokens falls into trees: for each the lengths [prompt, completion 1, ..., K], in order."""

    lengths: list[list[int]]
    masks: list[Tensor | None]  # of small trees: (T, T) as block_mask, one call computes all; else None
    causal: (
        Tensor  # (L, L) added to scores: 0 up to the diagonal, the lowest number above; L = longest sequence
    )

    @classmethod
    def of(cls, lengths: list[list[int]], dtype: torch.dtype, device: torch.device) -> "Branches":
        """For scores computed in `dtype`."""
        longest = max(tree[0] + max(tree[1:]) for tree in lengths)
        lowest = torch.full((longest, longest), torch.finfo(dtype).min, dtype=dtype, device=device)
        return cls(lengths, [_small_mask(tree, dtype, device) for tree in lengths], lowest.triu(1))


def _small_mask(lengths: list[int], dtype: torch.dtype, device: torch.device) -> Tensor | None:
    """One tree's block mask, where computing the masked part too costs less than a call per branch."""
    if sum(lengths) > SMALL_TREE:
        return None
    sizes = torch.tensor(lengths, device=device)
    branch = torch.repeat_interleave(torch.arange(len(lengths), device=device), sizes)[None]
    return block_mask(torch.zeros_like(branch), branch, dtype)[0, 0]


def block_mask(tree: Tensor, branch: Tensor, dtype: torch.dtype) -> Tensor:
    """(R, 1, T, T) to be added to attention scores: 0 where query i may see key j, else the lowest number.

    tree, branch (R, T): which tree a token belongs to (padding: -1), and 0 in its prompt, k in its k-th
    completion. j is visible from i when both are of one tree, j is not later, and j lies in the prompt or in i's
    completion.
    """
    key = branch[:, None, :]
    seen = (tree[:, :, None] == tree[:, None, :]) & ((key == 0) | (key == branch[:, :, None]))
    seen &= torch.ones(seen.shape[1:], dtype=torch.bool, device=seen.device).tril()
    lowest = torch.full(seen.shape, torch.finfo(dtype).min, dtype=dtype, device=seen.device)
    return lowest.masked_fill_(seen, 0)[:, None]


def branch_attention(query: Tensor, key: Tensor, value: Tensor, branches: Branches, scaling: float) -> Tensor:
    """Attention inside each tree of one row: query (1, H, N, D), key and value (1, G, N, D), H a multiple of G.

    Prompts see themselves, completions their prompt and themselves, all causally. Returns (1, N, H, D).
    """
    if key.shape[1] != query.shape[1]:  # grouped queries
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    sizes = [
        size
        for tree, mask in zip(branches.lengths, branches.masks, strict=True)
        for size in (tree if mask is None else [sum(tree)])
    ]
    parts = zip(*(torch.split(x, sizes, 2) for x in (query * scaling, key, value)), strict=True)
    outputs = []
    for (prompt, *completions), mask in zip(branches.lengths, branches.masks, strict=True):
        q, prompt_key, prompt_value = next(parts)
        if mask is not None:
            outputs.append(_attend(q, prompt_key, prompt_value, mask))
            continue
        outputs.append(_attend(q, prompt_key, prompt_value, branches.causal[:prompt, :prompt]))
        for length in completions:
            q, k, v = next(parts)
            whole = prompt + length
            k, v = torch.cat([prompt_key, k], 2), torch.cat([prompt_value, v], 2)
            outputs.append(_attend(q, k, v, branches.causal[prompt:whole, :whole]))
    return torch.cat(outputs, 2).transpose(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """softmax(q k^T + mask) v, written out: torch's fused kernel is 3 x slower backwards on CPUs in bfloat16."""
    scores = torch.matmul(query, key.transpose(-1, -2)).add_(mask)
    return torch.matmul(scores.softmax(-1), value)


def use_branches(model: Any) -> bool:
    """Let a transformers model that runs on torch's attention take `branches=...`; False when it runs on another."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
    from transformers.modeling_utils import AttentionInterface

    def attention(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
        scaling: float | None = None, branches: Branches | None = None, **others: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        if branches is None:  # an ordinary call, from generation for instance
            return cast(
                tuple[Tensor, None],
                sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **others),
            )
        if others.get("softcap") or others.get("s_aux") is not None:
            raise ValueError("attention with soft caps or sinks")
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return branch_attention(query, key, value, branches, scale), None

    if model.config._attn_implementation == "sdpa":
        AttentionInterface.register(BRANCHES, attention)
        AttentionMaskInterface.register(BRANCHES, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
        model.set_attn_implementation(BRANCHES)
    return bool(model.config._attn_implementation == BRANCHES)


class _TargetLogprobs(torch.autograd.Function):
    """log softmax(h W^T + b)[target] without keeping the logits, and the entropy of each softmax without gradient.

    With W frozen, d logprob / d h = W[target] - softmax(h W^T) W, which the forward pass can finish block by block: it
    stores (N, D) numbers instead of the (N, V) that autograd would keep.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, entropies: bool
    ) -> tuple[Tensor, Tensor]:
        logprobs = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        entropy = torch.empty_like(logprobs) if entropies else logprobs.new_empty(0)
        slope = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        cpu = hidden.device.type == "cpu"
        size = HEAD_ROWS if cpu else max(64, HEAD_NUMBERS_GPU // len(weight))
        for start in range(0, len(targets), size):
            rows = slice(start, start + size)
            softmax = _Softmax.of(hidden[rows], targets[rows], slope is not None, entropies)
            for first in range(0, len(weight), HEAD_WORDS if cpu else len(weight)):
                words = slice(first, first + HEAD_WORDS if cpu else None)
                softmax.add(first, weight[words], None if bias is None else bias[words])
            logprobs[rows] = softmax.logprob()
            if entropies:
                entropy[rows] = softmax.entropy()
            if slope is not None:
                slope[rows] = weight[targets[rows]] - softmax.mean().to(weight.dtype)
        ctx.slope = slope
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        return grads[0].to(ctx.slope.dtype)[:, None] * ctx.slope, None, None, None, None


@dataclass
class _Softmax:
    """softmax(h W^T) of n rows over a vocabulary that comes in blocks: sums of e^(logit - largest), rescaled whenever a
    larger one comes (Milakov and Gimelshein 2018, https://arxiv.org/abs/1805.02867). All in float32, (n, 1) but for `words`."""

    hidden: Tensor  # (n, D)
    targets: Tensor  # (n, 1)
    largest: Tensor
    total: Tensor  # of e^(logit - largest)
    chosen: Tensor  # the target's logit
    logits: Tensor | None  # the sum of (logit - largest) e^(logit - largest), for entropies
    words: Tensor | None  # (n, D): the sum of e^(logit - largest) W[word], for slopes

    @classmethod
    def of(cls, hidden: Tensor, targets: Tensor, slopes: bool, entropies: bool) -> "_Softmax":
        none = torch.zeros(len(hidden), 1, device=hidden.device)
        words = torch.zeros(hidden.shape, device=hidden.device) if slopes else None
        return cls(
            hidden, targets[:, None], torch.full_like(none, -1e38), none,
            none.clone(), none.clone() if entropies else None, words,
        )  # fmt: skip

    def add(self, first: int, weight: Tensor, bias: Tensor | None) -> None:
        """The words from `first` on."""
        block = F.linear(self.hidden, weight, bias).float()
        own = self.targets - first
        inside = (own >= 0) & (own < len(weight))
        self.chosen = torch.where(inside, block.gather(-1, own.clamp(0, len(weight) - 1)), self.chosen)
        largest = torch.maximum(self.largest, block.amax(-1, keepdim=True))
        lower = self.largest - largest
        scale = lower.exp()
        block.sub_(largest)
        if self.logits is None:
            block.exp_()
        else:
            terms = block.exp()
            self.logits = scale * (self.logits + self.total * lower) + block.mul_(terms).sum(-1, keepdim=True)
            block = terms
        self.total = self.total * scale + block.sum(-1, keepdim=True)
        if self.words is not None:
            self.words.mul_(scale)
            if weight.dtype == torch.float32:
                self.words.addmm_(block, weight)
            else:
                self.words += block.to(weight.dtype) @ weight
        self.largest = largest

    def logprob(self) -> Tensor:
        """(n,) of the targets."""
        return (self.chosen - self.largest - self.total.log())[:, 0]

    def entropy(self) -> Tensor:
        """(n,) in nats."""
        assert self.logits is not None
        return (self.total.log() - self.logits / self.total)[:, 0]

    def mean(self) -> Tensor:
        """(n, D): the words' weights averaged by their probabilities."""
        assert self.words is not None
        return self.words / self.total


def target_logprobs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, dtype: torch.dtype
) -> Tensor:
    """(N,) float32 log-probabilities of `targets` (N,) under the head `weight` (V, D), from `hidden` (N, D).

    Matrix products run in `dtype`, the softmax in float32. A frozen head costs no memory for logits; one that trains
    keeps them all.
    """
    return _logprobs(hidden, weight, bias, targets, dtype, False)[0]


def logprobs_and_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """`target_logprobs`, and (N,) entropies in nats of the whole distribution, which carry no gradient."""
    return _logprobs(hidden, weight, bias, targets, dtype, True)


def _logprobs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, dtype: torch.dtype, entropies: bool
) -> tuple[Tensor, Tensor]:
    with torch.autocast(hidden.device.type, enabled=False):
        bias = None if bias is None else bias.to(dtype)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        if weight.requires_grad and torch.is_grad_enabled():
            logits = F.linear(hidden, weight, bias).log_softmax(-1, dtype=torch.float32)
            entropy = -(logits.detach().exp() * logits.detach()).sum(-1) if entropies else logits.new_empty(0)
            return logits.gather(-1, targets[:, None])[:, 0], entropy
        result = _TargetLogprobs.apply(hidden, weight, bias, targets, entropies)  # type: ignore[no-untyped-call]
    return cast(tuple[Tensor, Tensor], result)
