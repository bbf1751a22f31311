"""Votes as training data: one row per comparison, with every pair that its votes decide.

Reward training and DPO take the same rows. A vote that ranks K completions decides up to C(K, 2) pairs and
weighs 1 in all (Ouyang et al. 2022, section 3.5: 1 / C(K, 2) each), so a ranking of nine does not drown
nine votes on two. Only `current_vote` counts; skips decide nothing, "all bad" no pair (see `rankings`). A saved view
(`palate.data.training_views`) puts its own labels and weights in place of every vote's.
"""

import json
import re
from typing import Literal

import pyarrow as pa

from palate.config import UserError
from palate.data.any_store import AnyStore
from palate.data.records import split_of
from palate.data.training_views import View
from palate.data.view_rows import chosen

Annotators = Literal["all", "human", "rule", "model"]

PAIR = pa.struct(
    [
        ("winner", pa.int32()),  # index into `completions`
        ("loser", pa.int32()),
        ("tie", pa.bool_()),
        ("strength", pa.int32()),  # 0..3 or null
        (
            "weight",
            pa.float64(),
        ),  # the weights of one vote's pairs add up to 1; see view_rows for those of a view
        ("vote_id", pa.string()),
        ("annotator_id", pa.string()),
        ("shown_first", pa.bool_()),  # the winner (of a tie: `winner`) before the loser; null: nobody knows
        ("adjudicated", pa.bool_()),  # by a lead who had seen the others' votes
    ]
)
SCHEMA = pa.schema(
    [
        ("comparison_id", pa.string()),
        ("prompt_id", pa.string()),
        ("group", pa.string()),  # prompts of one group are held out together
        ("split", pa.string()),  # train | test
        ("messages", pa.string()),  # JSON
        ("completion_ids", pa.list_(pa.string())),
        ("completions", pa.list_(pa.string())),
        ("finish_reasons", pa.list_(pa.string())),
        ("pairs", pa.list_(PAIR)),
    ]
)

_EVERY_VOTE = """
WITH chosen AS (
    SELECT p.* REPLACE (coalesce(p.adjudicated, false) AS adjudicated),
           1.0 / count(*) OVER (PARTITION BY p.vote_id) AS weight
    FROM preference p
    WHERE p.purpose IN ('train', 'random', 'repeat') AND (? = 'all' OR p.annotator_kind = ?)
)
"""

_ROWS = """
, pairs AS (
    SELECT k.comparison_id,
           list({'winner': list_position(c.completion_ids, winner) - 1,
                 'loser': list_position(c.completion_ids, loser) - 1,
                 'tie': tie, 'strength': strength, 'weight': weight,
                 'vote_id': vote_id, 'annotator_id': annotator_id, 'shown_first': winner_shown_first,
                 'adjudicated': adjudicated}
                ORDER BY vote_id, winner, loser) AS pairs
    FROM chosen k JOIN comparison c ON c.id = k.comparison_id
    GROUP BY k.comparison_id
), texts AS (
    SELECT c.id, list(m.text ORDER BY u.place) AS completions,
           list(m.finish_reason ORDER BY u.place) AS finish_reasons
    FROM comparison c, unnest(list_transform(c.completion_ids, lambda x, i: {'place': i, 'id': x})) AS v(u)
    JOIN completion m ON m.id = u.id
    WHERE c.id IN (SELECT comparison_id FROM pairs)
    GROUP BY c.id
)
SELECT c.id AS comparison_id, c.prompt_id, coalesce(q.meta ->> '$.group', q.id) AS "group", q.split, q.messages,
       c.completion_ids, t.completions, t.finish_reasons, p.pairs
FROM pairs p JOIN comparison c ON c.id = p.comparison_id JOIN texts t ON t.id = c.id
JOIN prompt q ON q.id = c.prompt_id
WHERE (? IS NULL OR q.source = ?)
ORDER BY c.id
"""

_QUERY = _EVERY_VOTE + _ROWS

# the same in one statement, so of one moment, with votes that find all answers of a comparison bad, ranked by others or not
_WITH_ALL_BAD = (
    _EVERY_VOTE
    + """
, bad AS (
    SELECT comparison_id, count(*)::INTEGER AS votes FROM current_vote
    WHERE verdict = 'all_bad' AND purpose IN ('train', 'random', 'repeat') AND (? = 'all' OR annotator_kind = ?)
    GROUP BY comparison_id
)
"""
    + _ROWS.replace(
        ", texts AS (",
        """, every AS (
    SELECT coalesce(d.comparison_id, b.comparison_id) AS comparison_id, coalesce(d.pairs, []) AS pairs,
           coalesce(b.votes, 0) AS all_bad
    FROM pairs d FULL JOIN bad b ON b.comparison_id = d.comparison_id
), texts AS (""",
    )
    .replace("SELECT comparison_id FROM pairs", "SELECT comparison_id FROM every")
    .replace("t.finish_reasons, p.pairs\nFROM pairs p", "t.finish_reasons, p.pairs, p.all_bad\nFROM every p")
    .replace("ORDER BY c.id", "ORDER BY len(p.pairs) = 0, c.id")
)
_ALL_BAD = pa.field("all_bad", pa.int32())

_ORIGINS = """
SELECT DISTINCT run_id FROM vote WHERE id IN (SELECT unnest(?)) AND run_id IS NOT NULL
UNION SELECT DISTINCT run_id FROM completion WHERE id IN (SELECT unnest(?)) AND run_id IS NOT NULL
ORDER BY run_id
"""


def origins(store: AnyStore, table: pa.Table) -> tuple[str, ...]:
    """The runs (imports, sampling, simulations) that brought the votes and completions of these rankings."""
    votes = {pair["vote_id"] for pairs in table["pairs"].to_pylist() for pair in pairs}
    completions = {name for names in table["completion_ids"].to_pylist() for name in names}
    return tuple(row["run_id"] for row in store.rows(_ORIGINS, [sorted(votes), sorted(completions)]))


def rankings(
    store: AnyStore,
    annotators: Annotators = "all",
    source: str | None = None,
    split_by: str | None = None,
    view: View | None = None,
    all_bad: bool = False,
) -> pa.Table:
    """Rows of `SCHEMA`, ordered by comparison: every vote's own pairs, or those that a view makes of the votes.

    `all_bad` adds a column of that name: how many standing votes find all answers of the comparison bad. Comparisons of
    which nobody says more are rows without pairs, after the others. A view says itself what counts, and adds none.

    `split_by` is a regular expression searched in the last user turn: prompts that agree in its first group
    (or in the whole match) form one group, and the train/test split is drawn again by group.
    """
    if view is None and all_bad:
        asked = [annotators, annotators, annotators, annotators, source, source]
        rows = store.table(_WITH_ALL_BAD, asked).cast(SCHEMA.append(_ALL_BAD))
    elif view is None:
        rows = store.table(_QUERY, [annotators, annotators, source, source]).cast(SCHEMA)
    else:
        sql, params = chosen(view.narrowed(annotators, source))
        rows = store.table(sql + _ROWS, [*params, None, None]).cast(SCHEMA)
    _check_shown(rows)
    return _grouped(rows, split_by)


def _check_shown(rows: pa.Table) -> None:
    """Every answer that a vote ranks belongs to its comparison; UserError names the first vote that says otherwise."""
    if not rows.num_rows:
        return
    pairs = rows["pairs"].combine_chunks().flatten()
    if not pairs.field("winner").null_count and not pairs.field("loser").null_count:
        return
    odd = {p["vote_id"]: p["annotator_id"] for p in pairs.to_pylist() if None in (p["winner"], p["loser"])}
    vote, annotator = min(odd.items())
    raise UserError(
        f"{len(odd)} votes rank an answer that their comparison does not hold, e.g. vote {vote} of annotator {annotator}: "
        "store a vote that supersedes each, or leave them out by a view (palate view)"
    )


def _grouped(rows: pa.Table, split_by: str | None) -> pa.Table:
    """With groups and splits of a regular expression, where there is one."""
    if split_by is None:
        return rows
    try:
        pattern = re.compile(split_by)
    except re.error as error:
        raise UserError(f"--split-by {split_by!r} is not a regular expression: {error}") from error
    groups = []
    for messages in rows["messages"].to_pylist():
        text = json.loads(messages)[-1]["content"]
        found = pattern.search(text)
        if found is None:
            raise UserError(f"--split-by {split_by!r} does not match the prompt {text[:80]!r}")
        groups.append(found.group(1) if pattern.groups else found.group(0))
    splits = [split_of(group) for group in groups]
    rows = rows.set_column(SCHEMA.get_field_index("group"), "group", pa.array(groups))
    return rows.set_column(SCHEMA.get_field_index("split"), "split", pa.array(splits))
