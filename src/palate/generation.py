"""Batched, seeded sampling: k completions of each prompt.

Prompts of similar length share a batch (left-padded), each prompt is read once for its k completions, finished
rows leave the batch, and keys and values are written into room reserved for them instead of being copied at
every step. It samples from the model's own distribution: no repetition penalty, no minimum length, no top-k
(filters would make what is sampled differ from what is scored). It is not a server.

Every completion has its own row of random numbers, drawn from the seed before anything else, so the same seed
gives the same completion whatever the batch size, the progress bar or other calls (up to rounding).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from palate.config import UserError
from palate.data.records import Message
from palate.models import Loaded

COMPACT_BELOW = 0.75  # finished rows are dropped when fewer than this share of the batch is still writing


@dataclass(frozen=True)
class Sampled:
    """One completion as the model wrote it."""

    text: str
    token_ids: list[int]  # with the stop token that ended it, if one did
    finish_reason: str  # "stop" or "length"
    # of its tokens at the sampling temperature, before top_p; none at temperature 0; equal only up to rounding
    logprobs: tuple[float, ...] = field(default=(), compare=False)


def sample(
    loaded: Loaded,
    prompts: Sequence[Sequence[Message]],
    k: int = 1,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_new_tokens: int = 96,
    seed: int = 0,
    batch_size: int = 128,
    progress: Callable[[int], object] | None = None,
    only: Sequence[int] | None = None,
) -> list[list[Sampled]]:
    """k completions of each prompt, in the prompts' order; `only`: of the prompts at these places, the same as all would be.

    `temperature` 0 takes the likeliest token; `top_p` in (0, 1]; `batch_size` counts completions generated at
    once; `progress` is told how many more are finished (a tqdm bar's `update`). A prompt that leaves too little
    of the model's context loses its start. Raises UserError for settings out of range.
    """
    if k < 1 or max_new_tokens < 1 or batch_size < 1:
        raise UserError(
            f"k ({k}), max_new_tokens ({max_new_tokens}) and batch_size ({batch_size}) must be >= 1"
        )
    if temperature < 0 or not 0 < top_p <= 1:
        raise UserError(f"temperature ({temperature}) must be >= 0 and top_p ({top_p}) in (0, 1]")
    context = getattr(loaded.model.config, "max_position_embeddings", None)
    room = None if context is None else context - max_new_tokens
    if room is not None and room < 1:
        raise UserError(f"--max-new-tokens {max_new_tokens} leaves no room in the model's {context} tokens")
    encoded = [loaded.encoder.prompt(p)[-room if room else None :] for p in prompts]
    uniforms = torch.rand(len(prompts), k, max_new_tokens, generator=torch.Generator().manual_seed(seed))

    wanted = range(len(prompts)) if only is None else only
    order = sorted(wanted, key=lambda i: len(encoded[i]))
    width = max(1, batch_size // k)
    done: dict[int, list[Sampled]] = {}
    for start in range(0, len(order), width):
        batch = order[start : start + width]
        numbers = uniforms[batch].flatten(0, 1).to(loaded.hardware.device)
        rows = _generate(loaded, [encoded[i] for i in batch], k, temperature, top_p, numbers, progress)
        for place, i in enumerate(batch):
            done[i] = [_sampled(loaded, *row) for row in rows[place * k : (place + 1) * k]]
    return [done[i] for i in wanted]


def next_tokens(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """One token for each row by inverting its cumulative distribution.

    `logits` (B, V); `uniform` (B,) in [0, 1); returns (B,). Nucleus sampling (Holtzman et al. 2020,
    https://arxiv.org/abs/1904.09751, section 3.1) keeps the smallest set whose probability reaches `top_p`.
    """
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = (logits.float() / temperature).softmax(-1)
    if top_p < 1:
        ranked, tokens = probabilities.sort(-1, descending=True)
        ranked[ranked.cumsum(-1) - ranked >= top_p] = 0
        return tokens.gather(-1, _invert(ranked, uniform)[:, None])[:, 0]
    return _invert(probabilities, uniform)


def _invert(weights: Tensor, uniform: Tensor) -> Tensor:
    """The first place where the cumulative share of `weights` (B, V) passes `uniform` (B,)."""
    cumulative = weights.cumsum(-1)
    target = uniform[:, None] * cumulative[:, -1:]
    found = torch.searchsorted(cumulative, target, right=True)[:, 0]
    return found.clamp(max=weights.shape[-1] - 1)


@torch.inference_mode()
def _generate(
    loaded: Loaded,
    prompts: list[list[int]],
    k: int,
    temperature: float,
    top_p: float,
    uniforms: Tensor,
    progress: Callable[[int], object] | None,
) -> list[tuple[list[int], list[float]]]:
    """(token ids, their log-probabilities) of k completions for each prompt; `uniforms` (prompts * k, max_new_tokens)."""
    device, model = loaded.hardware.device, loaded.model
    longest, steps = max(map(len, prompts)), uniforms.shape[1]
    ids = torch.full((len(prompts), longest), loaded.encoder.pad_id)
    mask = torch.zeros(len(prompts), longest + steps, dtype=torch.long)  # 1 = a real token
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    mask = mask.to(device)
    cache = _new_cache(model, longest + steps)
    stops = torch.tensor(loaded.encoder.stop_ids, device=device)
    with loaded.hardware.autocast():
        positions = (mask[:, :longest].cumsum(-1) - 1).clamp(min=0)
        out = model(
            input_ids=ids.to(device), attention_mask=mask[:, :longest], position_ids=positions,
            past_key_values=cache, use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        cache.batch_repeat_interleave(k)
        mask, position = mask.repeat_interleave(k, 0), positions[:, -1:].repeat_interleave(k, 0)
        logits = out.logits[:, -1].repeat_interleave(k, 0)
        written = torch.full((len(mask), steps), loaded.encoder.pad_id, device=device)
        logprobs = torch.zeros(len(mask), steps, device=device)
        lengths = torch.full((len(mask),), steps, device=device)
        rows = torch.arange(len(mask), device=device)  # which completion each row of the batch writes
        alive = torch.ones(len(mask), dtype=torch.bool, device=device)
        for step in range(steps):
            token = next_tokens(logits, uniforms[rows, step], temperature, top_p)
            written[rows[alive], step] = token[alive]
            if temperature > 0:
                scaled = logits.float() / temperature
                chosen = scaled.gather(-1, token[:, None])[:, 0] - scaled.logsumexp(-1)
                logprobs[rows[alive], step] = chosen[alive]
            ended = alive & torch.isin(token, stops)
            lengths[rows[ended]] = step + 1
            alive = alive & ~ended
            left = int(alive.sum())
            last = left == 0 or step + 1 == steps
            if progress is not None:
                progress(int(ended.sum()) + (left if last else 0))
            if last:
                break
            if left < COMPACT_BELOW * len(rows):
                keep = alive.nonzero()[:, 0]
                cache.batch_select_indices(keep)
                rows, token, position, mask, alive = (x[keep] for x in (rows, token, position, mask, alive))
            position = position + 1
            length = longest + step + 1
            out = model(
                input_ids=token[:, None], attention_mask=mask[:, :length], position_ids=position,
                past_key_values=cache, use_cache=True,
            )  # fmt: skip
            logits = out.logits[:, -1]
    known = logprobs.tolist() if temperature > 0 else [[]] * len(written)
    return [
        (row[:length], logprob[:length])
        for row, logprob, length in zip(written.tolist(), known, lengths.tolist(), strict=True)
    ]


def _sampled(loaded: Loaded, ids: list[int], logprobs: Sequence[float]) -> Sampled:
    stopped = bool(ids) and ids[-1] in loaded.encoder.stop_ids
    text = loaded.encoder.decode(ids[:-1] if stopped else ids)
    return Sampled(text, ids, "stop" if stopped else "length", tuple(logprobs))


def _new_cache(model: Any, capacity: int) -> Any:
    """The model's own kind of cache; its full-attention layers write into room reserved once.

    transformers' dynamic layer copies all keys and values at every step, which costs more than the model itself
    when the model is small and the batch large.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    class ReservedLayer(DynamicLayer):  # type: ignore[misc]
        """Keys and values are views of buffers (B, H, capacity, D)."""

        def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
            self.dtype, self.device = key_states.dtype, key_states.device
            self.buffers = [
                x.new_empty(*x.shape[:2], capacity, x.shape[3]) for x in (key_states, value_states)
            ]
            self.is_initialized = True
            self.show(0)

        def show(self, length: int) -> None:
            self.keys, self.values = (buffer[:, :, :length] for buffer in self.buffers)

        def update(
            self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
        ) -> tuple[Tensor, Tensor]:
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
            start = self.keys.shape[2]
            self.show(start + key_states.shape[2])
            self.keys[:, :, start:], self.values[:, :, start:] = key_states, value_states
            return self.keys, self.values

        def batch_repeat_interleave(self, repeats: int) -> None:
            self.buffers = [buffer.repeat_interleave(repeats, dim=0) for buffer in self.buffers]
            self.show(self.keys.shape[2])

        def batch_select_indices(self, indices: Tensor) -> None:
            self.buffers = [buffer[indices] for buffer in self.buffers]
            self.show(self.keys.shape[2])

    cache = DynamicCache(config=model.config)
    cache.layers = [ReservedLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
