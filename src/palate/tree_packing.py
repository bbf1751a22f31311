"""How prompt trees are laid out in rows: which tokens stand where, and how many trees go at once.

    packed = pack(trees, "line", device)
    micro_batches(trees, token_budget)       # groups of trees of similar length

Not here: forward passes over what is packed (tree.py), parts of a decoder (tree_layers.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from palate.sequences import EncodedTree

PAD = 0  # any id: nothing sees it
# line: all trees in one row, attention branch by branch (CPU: no padding, nothing masked is computed);
# shelves: rows as long as the longest tree, filled with shorter ones, under a block mask (GPU: few large calls);
# rows: one completion per row, as any model takes it
Layout = Literal["line", "shelves", "rows"]


@dataclass(frozen=True)
class Packed:
    """Several trees in R rows of T tokens. N counts completion tokens, C completions, in the trees' order."""

    input_ids: Tensor  # (R, T)
    position_ids: Tensor  # (R, T)
    tree: Tensor  # (R, T) which tree a token belongs to; -1 is padding
    branch: Tensor  # (R, T) 0 in the prompt, k in the k-th completion
    predictors: Tensor  # (N,) flat positions whose logits predict ...
    targets: Tensor  # (N,) ... these completion tokens
    owners: Tensor  # (N,) the completion each belongs to, 0..C-1
    last: Tensor  # (C,) flat position of each completion's last token
    sources: Tensor  # (R, T) which of all tokens of the trees (prompt, completions; tree after tree) stands here; padding: 0
    layout: Layout
    lengths: list[list[int]]  # of prompt and completions, tree by tree in the order of their places


def pack(
    trees: Sequence[EncodedTree],
    layout: Layout,
    device: torch.device,
    origins: Sequence[tuple[int, int]] | None = None,
) -> Packed:
    """Lay trees out: each goes, in order of falling length, to the first row that has room for it.

    `origins` says of each tree where its prompt and its first completion are among all tokens, where it is a piece.
    """
    origins = origins or tree_origins(trees, [[tree] for tree in trees])
    lengths = [tree_tokens(tree) for tree in trees]
    width = sum(lengths) if layout == "line" else max(lengths)
    offsets = [0] * len(trees)  # where a tree starts in the flattened rows
    filled: list[int] = []  # tokens in each row
    for index in sorted(range(len(trees)), key=lambda i: -lengths[i]):
        fitting = (r for r, used in enumerate(filled) if used + lengths[index] <= width)
        row = len(filled) if layout == "rows" else next(fitting, len(filled))
        if row == len(filled):
            filled.append(0)
        offsets[index] = row * width + filled[row]
        filled[row] += lengths[index]
    size = len(filled) * width
    ids, positions, owner_tree, branch = [PAD] * size, [0] * size, [-1] * size, [0] * size
    sources = [0] * size
    predictors: list[int] = []
    targets: list[int] = []
    counts: list[int] = []
    last: list[int] = []
    for index, tree in enumerate(trees):
        start, prompt = offsets[index], len(tree.prompt)
        ids[start : start + prompt] = tree.prompt
        positions[start : start + prompt] = range(prompt)
        owner_tree[start : start + lengths[index]] = [index] * lengths[index]
        at = start + prompt
        first, second = origins[index]
        sources[start:at] = range(first, first + prompt)
        sources[at : start + lengths[index]] = range(second, second + lengths[index] - prompt)
        for k, completion in enumerate(tree.completions, 1):
            end = at + len(completion)
            ids[at:end] = completion
            positions[at:end] = range(prompt, prompt + len(completion))
            branch[at:end] = [k] * len(completion)
            if completion:  # the prompt's last token predicts the first one
                predictors += [start + prompt - 1, *range(at, end - 1)]
            targets += completion
            counts.append(len(completion))
            last.append(end - 1 if completion else start + prompt - 1)
            at = end
    rows = torch.tensor([ids, positions, owner_tree, branch, sources], device=device)
    rows = rows.view(5, len(filled), width)
    where = torch.tensor([predictors, targets], dtype=torch.long, device=device)
    owners = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(device)
    ends = torch.tensor(last, device=device)
    placed = [trees[index] for index in sorted(range(len(trees)), key=offsets.__getitem__)]
    parts = [[len(tree.prompt), *map(len, tree.completions)] for tree in placed]
    return Packed(
        rows[0], rows[1], rows[2], rows[3], where[0], where[1], owners, ends, rows[4], layout, parts
    )


def tree_tokens(tree: EncodedTree) -> int:
    """Tokens of the prompt and of all completions."""
    return len(tree.prompt) + sum(map(len, tree.completions))


def tree_origins(
    trees: Sequence[EncodedTree], pieces: Sequence[Sequence[EncodedTree]]
) -> list[tuple[int, int]]:
    """Of each piece of each tree, where its prompt and its first completion are among all tokens of the trees."""
    found, at = [], 0
    for tree, parts in zip(trees, pieces, strict=True):
        completion = at + len(tree.prompt)
        for part in parts:
            found.append((at, completion))
            completion += sum(map(len, part.completions))
        at += tree_tokens(tree)
    return found


def split_tree(tree: EncodedTree, hidden_size: int) -> list[EncodedTree]:
    """The tree itself, or pieces with fewer completions each where repeating the prompt is cheaper.

    A row of T tokens costs about T (6 D + T) per layer (24 D^2 for the linear maps of a token, 4 D T for its
    attention, as kernels compute the masked half too): long completions should not pay for each other.
    """

    def cost(pieces: list[EncodedTree]) -> int:
        return sum(t * (6 * hidden_size + t) for t in map(tree_tokens, pieces))

    best = [tree]
    for size in range(1, len(tree.completions)):
        starts = range(0, len(tree.completions), size)
        pieces = [replace(tree, completions=tree.completions[at : at + size]) for at in starts]
        if cost(pieces) < cost(best):
            best = pieces
    return best


def micro_batches(trees: Sequence[EncodedTree], token_budget: int) -> list[list[int]]:
    """Indices of trees in groups of similar length and at most `token_budget` tokens (at least one tree)."""
    groups: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(trees)), key=lambda i: -tree_tokens(trees[i])):
        size = tree_tokens(trees[index])
        if not groups or tokens + size > token_budget:
            groups.append([])
            tokens = 0
        groups[-1].append(index)
        tokens += size
    return groups
