"""A decoder in two parts: what its lower layers put out is computed once where they are frozen, and the rest trains from there.

    below = divided(forward, 0.5)                     # layers of the lower part; 0: this model can't be divided
    with caught(forward, below) as states:            # while the whole decoder runs, what reaches the upper part
        forward.decode(packed)
    kept = by_token(packed, states[0])                # token by token, in whatever layout it was
    hidden = upper(forward, other, kept, below)       # the decoder's output from there, in any layout of the same trees

Positions and masks reach every layer of a decoder alike, so a shorter list of layers that starts from these states is its upper
part. A model that adds something to what it starts from (learned positions, a scale) is noticed by a test on a few tokens.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from palate.tree import TreeForward, close, trial_trees
from palate.tree_packing import Packed


@torch.no_grad()
def divided(forward: TreeForward, share: float) -> int:
    """How many layers stay below where `share` (0 to 1, 0 excluded) of them are above, rounded up; 0 for a model that can't."""
    layers = getattr(forward.base.get_decoder(), "layers", None)
    kinds = getattr(forward.base.config.get_text_config(), "layer_types", None) or []
    if not isinstance(layers, nn.ModuleList) or len(set(kinds)) > 1:
        return 0
    below = len(layers) - math.ceil(share * len(layers))
    if below == 0:
        return 0
    exact = replace(forward, hardware=replace(forward.hardware, dtype=torch.float32))
    packed = exact.pack(trial_trees(exact))
    with caught(exact, below) as states:
        whole = exact.decode(packed)
    try:
        found = upper(exact, packed, by_token(packed, states[0]), below)
    except (RuntimeError, TypeError, ValueError):
        return 0
    own = packed.tree.flatten() >= 0
    agrees = close(found[own].float(), whole[own].float(), exact.base.get_input_embeddings().weight.dtype)
    return below if agrees else 0


@contextmanager
def caught(forward: TreeForward, below: int) -> Iterator[list[Tensor]]:
    """What reaches the layer after the first `below` in every pass meanwhile: (R T, D) each; nothing where that is 0."""
    states: list[Tensor] = []

    def keep(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        states.append(arguments[0].flatten(0, 1))

    if not below:
        yield states
        return
    handle = forward.base.get_decoder().layers[below].register_forward_pre_hook(keep)
    try:
        yield states
    finally:
        handle.remove()


def by_token(packed: Packed, states: Tensor) -> Tensor:
    """(tokens, D): states (R T, D) of all tokens of the trees, tree after tree, prompt before completions."""
    own = (packed.tree.flatten() >= 0).nonzero()[:, 0]
    sources = packed.sources.flatten()[own]
    places = torch.empty(int(sources.max()) + 1, dtype=torch.long, device=states.device)
    places[sources] = own  # of a prompt that stands several times, any
    return states[places]


def upper(forward: TreeForward, packed: Packed, states: Tensor, below: int) -> Tensor:
    """(R T, D): the decoder's output from what its first `below` layers put out, as `by_token` has it; with gradients."""
    decoder = forward.base.get_decoder()
    layers = decoder.layers
    decoder.layers = layers[below:]
    try:
        return forward.decode(packed, embeddings=states[packed.sources])
    finally:
        decoder.layers = layers
