"""Rows for supervised fine-tuning: from the store to token ids, and from ids to micro-batches.

Rows are demonstrations, or the completions that votes put first. They are frozen with the ids they came from
before anything is trained. Every row is encoded by the same `Encoder` as in all other stages, and only the
answer is learned. This file trains nothing.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import torch

from palate.config import UserError
from palate.data.any_store import AnyStore
from palate.doctor import IGNORE
from palate.sequences import Encoder

Source = Literal["demonstrations", "best_ranked"]

SCHEMA = pa.schema(
    [
        ("completion_id", pa.string()),
        ("prompt_id", pa.string()),
        ("split", pa.string()),
        ("messages", pa.string()),  # JSON
        ("completion", pa.string()),
        ("finish_reason", pa.string()),
        ("vote_ids", pa.list_(pa.string())),  # the votes that put it first; empty for a demonstration
    ]
)

_DEMONSTRATIONS = """
SELECT c.id AS completion_id, c.prompt_id, p.split, p.messages, c.text AS completion, c.finish_reason,
       []::VARCHAR[] AS vote_ids
FROM completion c JOIN prompt p ON p.id = c.prompt_id
WHERE c.role = 'demonstration'
ORDER BY c.id
"""

# answers that annotators made better while ranking, as long as the vote they came with stands
_EDITS = """
SELECT c.id AS completion_id, c.prompt_id, p.split, p.messages, c.text AS completion, c.finish_reason,
       [v.id] AS vote_ids
FROM completion c JOIN prompt p ON p.id = c.prompt_id JOIN current_vote v ON v.id = c.meta ->> '$.vote_id'
WHERE c.role = 'edit'
ORDER BY c.id
"""

# the first tier of each current vote, when it holds one completion; per comparison the one that most annotators
# put first; equally many for two of them is a tie and drops the comparison
_BEST_RANKED = """
WITH first AS (
    SELECT id AS vote_id, comparison_id, annotator_id, ranking[1][1] AS completion_id
    FROM current_vote
    WHERE verdict = 'ranked' AND len(ranking[1]) = 1 AND purpose IN ('train', 'random', 'repeat')
), counted AS (
    SELECT comparison_id, completion_id, count(DISTINCT annotator_id) AS n, list(vote_id ORDER BY vote_id) AS votes
    FROM first GROUP BY comparison_id, completion_id
), placed AS (
    SELECT *, rank() OVER (PARTITION BY comparison_id ORDER BY n DESC) AS place FROM counted
), best AS (
    SELECT completion_id, votes FROM placed WHERE place = 1
    QUALIFY count(*) OVER (PARTITION BY comparison_id) = 1
)
SELECT c.id AS completion_id, any_value(c.prompt_id) AS prompt_id, any_value(p.split) AS split,
       any_value(p.messages) AS messages, any_value(c.text) AS completion,
       any_value(c.finish_reason) AS finish_reason, flatten(list(b.votes ORDER BY b.votes)) AS vote_ids
FROM best b JOIN completion c ON c.id = b.completion_id JOIN prompt p ON p.id = c.prompt_id
GROUP BY c.id
ORDER BY c.id
"""


@dataclass(frozen=True)
class Row:
    """One conversation as token ids; `labels` are the ids where the answer stands and IGNORE elsewhere."""

    input_ids: list[int]
    labels: list[int]
    cut_prompt: bool
    cut_end: bool  # the answer has no stop token: cut by max_length, or sampled up to a length limit


def read_rows(
    store: AnyStore, data: Literal["auto", "demonstrations", "best_ranked"]
) -> tuple[pa.Table, Source]:
    """All rows of `SCHEMA`, train and test, and which kind they are.

    Answers that annotators edited into better ones are demonstrations, and join whatever is taken.
    """
    edits = store.table(_EDITS).cast(SCHEMA)
    if data in ("auto", "demonstrations"):
        rows = store.table(_DEMONSTRATIONS).cast(SCHEMA)
        if rows.num_rows or (data == "demonstrations" and edits.num_rows):
            return pa.concat_tables([rows, edits]), "demonstrations"
    if data in ("auto", "best_ranked"):
        rows = store.table(_BEST_RANKED).cast(SCHEMA)
        if rows.num_rows:
            return pa.concat_tables([rows, edits]), "best_ranked"
    if data == "auto" and edits.num_rows:
        return edits, "demonstrations"
    raise UserError(
        "there is nothing to train on: no demonstrations (palate import FILE brings some) and no completion that "
        "votes put first (palate label, or palate simulate)"
        if data == "auto"
        else f"--data {data}: there are none in this project; use --data auto, or palate import FILE"
    )


def encode(rows: pa.Table, encoder: Encoder, max_length: int) -> list[Row]:
    """Prompt and answer of every row as token ids, at most `max_length` together."""
    encoded = []
    for row in rows.to_pylist():
        reason = row["finish_reason"]
        tree = encoder.tree(json.loads(row["messages"]), [row["completion"]], [reason], max_length)
        answer = tree.completions[0]
        encoded.append(
            Row(
                tree.prompt + answer,
                [IGNORE] * len(tree.prompt) + answer,
                cut_prompt=tree.cut_prompt > 0,
                cut_end=tree.cut_completions > 0 or reason == "length",
            )
        )
    return encoded


def plan(
    lengths: Sequence[int], batch_size: int, epochs: float, max_tokens: int, seed: int, processes: int = 1
) -> list[list[list[int]]]:
    """Steps of micro-batches of row numbers; every step but the last has equally many micro-batches.

    Each has as many for one process as for another, so where rows are few some are empty. A step is `batch_size` rows in random order, dealt into micro-batches of about equally many tokens, as many as
    keep the average one under `max_tokens`. A packed micro-batch costs its length squared in attention, so a few
    even ones are cheaper than one long one, and than uneven ones.
    """
    generator = torch.Generator().manual_seed(seed)
    total = max(1, round(epochs * len(lengths)))
    order: list[int] = []
    while len(order) < total:
        order += torch.randperm(len(lengths), generator=generator).tolist()
    steps = [order[start : min(start + batch_size, total)] for start in range(0, total, batch_size)]
    mean = sum(lengths) / len(lengths)
    parts = min(batch_size, max(1, -int(-batch_size * mean // max_tokens)))
    return [_deal(step, lengths, processes * -(-min(parts, len(step)) // processes)) for step in steps]


def _deal(rows: Sequence[int], lengths: Sequence[int], parts: int) -> list[list[int]]:
    """Longest first, each to the part with the fewest tokens; no part stays empty while there are rows."""
    dealt: list[list[int]] = [[] for _ in range(parts)]
    tokens = [0] * parts
    for row in sorted(rows, key=lambda i: -lengths[i]):
        least = min(range(parts), key=lambda p: tokens[p])
        dealt[least].append(row)
        tokens[least] += lengths[row]
    return dealt


def pack(rows: Sequence[Row]) -> dict[str, list[int]]:
    """Rows laid end to end, with their lengths: what TRL's padding-free collator takes."""
    return {
        "input_ids": [token for row in rows for token in row.input_ids],
        "labels": [label for row in rows for label in row.labels],
        "seq_lengths": [len(row.input_ids) for row in rows],
    }
