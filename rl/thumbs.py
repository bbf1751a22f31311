"""Thumbs up and down for KTO: from votes that rank, from votes that find all answers bad, and from files.

    thumbs(row)                   of a row of data.preferences: True, False or None for each completion
    from_votes(table)             a table of SCHEMA
    from_files(paths)             the same, of files with prompt, completion and label

The rule for a ranking: answers of its top tier are up, those of its bottom tier down, the ones between neither, as nobody said
that they are good or bad. A vote that all are bad is a thumb down for each. A tie of all says nothing. Several votes on an
answer are counted, and as many up as down is neither.

TRL takes rows in their order, and unpaired preferences come as all good ones and then all bad ones, so that a batch would hold
one kind: `balanced` gives every batch its share of both. Not here: the loss (kto.py).
"""

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from palate.config import UserError
from palate.data.readers import Unreadable, check_files, parse_line, rows
from palate.data.records import Message, Prompt
from palate.doctor import DoctorError

SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("split", pa.string()),  # train | test
        ("messages", pa.string()),  # JSON
        ("completion", pa.string()),
        ("finish_reason", pa.string()),
        ("label", pa.bool_()),  # up
    ]
)
BOTH = 0.9  # share of batches that must hold good and bad answers
_LABELS = {"true": True, "1": True, "up": True, "false": False, "0": False, "down": False}
_ROLES = ("system", "user", "assistant")


def thumbs(row: Mapping[str, Any]) -> list[bool | None]:
    """For each completion of a comparison: up, down, or neither."""
    count = len(row["completions"])
    won: dict[str, set[int]] = defaultdict(set)
    lost: dict[str, set[int]] = defaultdict(set)
    for pair in row["pairs"]:
        if not pair["tie"]:
            won[pair["vote_id"]].add(pair["winner"])
            lost[pair["vote_id"]].add(pair["loser"])
    balance = [-int(row.get("all_bad") or 0)] * count
    for vote, winners in won.items():
        for i in winners ^ lost[vote]:  # in both: a tier between
            balance[i] += 1 if i in winners else -1
    return [None if one == 0 else one > 0 for one in balance]


def from_votes(rankings: pa.Table) -> pa.Table:
    """Rows of SCHEMA from rows of data.preferences; an answer that stands in several comparisons has a thumb in each."""
    found = []
    for row in rankings.to_pylist():
        for text, reason, up in zip(row["completions"], row["finish_reasons"], thumbs(row), strict=True):
            if up is not None:
                found.append((row["prompt_id"], row["split"], row["messages"], text, reason, up))
    return _table(found)


def from_files(paths: Sequence[Path]) -> pa.Table:
    """Rows of SCHEMA from JSONL, JSON, CSV or Parquet with the columns `prompt` (text, or messages), `completion` and `label`.

    UserError names the first row that can't be used, and how many there are.
    """
    check_files(tuple(paths))
    found: list[tuple[Any, ...]] = []
    wrong: list[str] = []
    for path in paths:
        for number, payload in rows(path):
            row = parse_line(payload)
            try:
                found.append(_read(row))
            except ValueError as error:
                wrong.append(f"{path}, row {number}: {error}")
    if wrong:
        more = f" (and {len(wrong) - 1} more rows)" if len(wrong) > 1 else ""
        raise UserError(f"{wrong[0]}{more}")
    return _table(found)


def balanced(labels: Sequence[bool], batch_size: int, epochs: float, seed: int) -> list[list[int]]:
    """Rows of each step: a new order in each epoch, every batch of the same size and with its share of good and bad.

    What does not fill a batch is left out of an epoch, other rows in each.
    """
    good, bad = ([i for i, label in enumerate(labels) if label == kind] for kind in (True, False))
    size = min(batch_size, len(labels))
    per_epoch = len(labels) // size
    wanted = min(
        len(good), max(per_epoch * size - len(bad), round(per_epoch * size * len(good) / len(labels)))
    )
    steps: list[list[int]] = []
    epoch = 0
    total = max(1, round(epochs * per_epoch))
    while len(steps) < total:
        order = random.Random(f"{seed}/thumbs/{epoch}")
        ups, downs = order.sample(good, len(good)), order.sample(bad, len(bad))
        taken = 0
        for batch in range(per_epoch):
            until = round((batch + 1) * wanted / per_epoch)
            first = batch * size - taken
            rows = ups[taken:until] + downs[first : first + size - (until - taken)]
            steps.append(order.sample(rows, len(rows)))
            taken = until
        epoch += 1
    return steps[:total]


def check_order(steps: Sequence[Sequence[int]], labels: Sequence[bool]) -> None:
    """Nearly all batches hold good and bad answers."""
    both = sum(len({labels[row] for row in step}) == 2 for step in steps) / len(steps)
    if both < BOTH:
        raise DoctorError(
            f"only {both:.0%} of the batches hold good and bad answers: the model would learn one kind and then the other; "
            "raise --batch-size"
        )


def weights(labels: Sequence[bool]) -> tuple[float, float]:
    """Of good and bad answers, so that both kinds weigh the same in all (eq. 9); the commoner kind weighs 1."""
    up = sum(labels)
    down = len(labels) - up
    return max(1.0, down / up), max(1.0, up / down)


def _read(row: Mapping[str, Any] | Unreadable) -> tuple[Any, ...]:
    """One row of SCHEMA; ValueError says what is wrong with it."""
    if not isinstance(row, Mapping):
        raise ValueError(getattr(row, "reason", "no row"))  # noqa: TRY004 (bad data, not a bad call)
    for name in ("prompt", "completion", "label"):
        if row.get(name) is None:
            raise ValueError(f"there is no '{name}'; a row has prompt, completion and label")
    label = _LABELS.get(str(row["label"]).strip().lower().removesuffix(".0"))
    if label is None:
        raise ValueError(f"the label is {row['label']!r}; it is true or false (or 1, 0, up, down)")
    messages = tuple(_messages(row["prompt"]))
    text = row["completion"]
    if isinstance(text, list) and len(text) == 1 and isinstance(text[0], dict):
        text = text[0].get("content")
    if not isinstance(text, str) or not text.strip():
        raise ValueError("the completion is no text")
    prompt = Prompt(messages)
    return prompt.id, prompt.split, json.dumps(messages, ensure_ascii=False), text, None, label


def _messages(prompt: Any) -> Iterator[Message]:
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if not isinstance(prompt, list) or not prompt:
        raise ValueError("the prompt is neither a text nor a list of messages")
    for message in prompt:
        known = isinstance(message, dict) and message.get("role") in _ROLES
        if not known or not isinstance(message.get("content"), str) or not message["content"].strip():
            raise ValueError("a message of the prompt has no role (system, user, assistant) or no content")
        yield {"role": message["role"], "content": message["content"]}
    if prompt[-1]["role"] != "user":
        raise ValueError("the prompt does not end with a user turn")


def _table(found: Sequence[tuple[Any, ...]]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, one, strict=True)) for one in found], schema=SCHEMA)
