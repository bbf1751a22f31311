"""The rows of a listing with their texts, read from the project's database: a page on the screen and an export alike."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from palate.data.store import Store
from palate.labeling.statistics.panels import Cell, Column

Row = dict[str, Cell]

COLUMNS: dict[str, tuple[Column, ...]] = {
    "items": (
        Column("prompt", "prompt", help="Its last turn."),
        Column("source", "source"),
        Column("tags", "tags"),
        Column("models", "models"),
        Column("votes", "votes", "count", help="Those that fulfil the conditions."),
        Column(
            "split", "split", help="Votes for one, ties, votes for the other, on the pair that splits most."
        ),
        Column(
            "disagreement",
            "disagreement",
            "number",
            help="How much the next two people are expected to differ.",
        ),
        Column("adjudicated", "adjudicated"),
        Column("latest", "latest vote (UTC)"),
        Column("found", "words in"),
        Column("purpose", "purpose"),
        Column("answers", "answers", "count"),
        Column("prompt_id", "prompt id"),
        Column("item", "item id"),
    ),
    "votes": (
        Column("prompt", "prompt", help="Its last turn."),
        Column("annotator", "annotator"),
        Column("verdict", "verdict"),
        Column("ranking", "ranking", help="Models, best first; = is a tie."),
        Column("strength", "strength", "count", help="0 hardly, 3 much better."),
        Column("rationale", "reason given"),
        Column("flags", "flags"),
        Column("reason", "why skipped"),
        Column("active", "active time", "seconds"),
        Column("visible", "visible time", "seconds"),
        Column("at", "when (UTC)"),
        Column("adjudicated", "adjudicated"),
        Column("source", "source"),
        Column("tags", "tags"),
        Column("purpose", "purpose"),
        Column("prompt_id", "prompt id"),
        Column("item", "item id"),
        Column("vote", "vote id"),
    ),
}
_FOUND = np.array(["", "rationales", "answers", "prompt"])

_ABOUT = """
       q.messages ->> '$[#-1].content' AS prompt, q.source, array_to_string(q.tags, ', ') AS tags, c.purpose,
       c.prompt_id, c.id AS item"""

_ITEMS = f"""
WITH chosen AS (SELECT rowid AS row, * FROM comparison WHERE {{comparisons}}),
     models AS (
         SELECT u.row, string_agg(m.model, ', ' ORDER BY u.place) AS models
         FROM (SELECT row, unnest(completion_ids) AS answer, unnest(range(len(completion_ids))) AS place FROM chosen) u
         JOIN completion m ON m.id = u.answer GROUP BY u.row
     )
SELECT {_ABOUT}, len(c.completion_ids)::INTEGER AS answers, m.models, w.votes, w.split, w.disagreement,
       CASE WHEN w.adjudicated THEN 'yes' ELSE '' END AS adjudicated, w.found,
       strftime(make_timestamp(w.latest), '%Y-%m-%d %H:%M:%S') AS latest
FROM wanted w JOIN chosen c ON c.row = w.row LEFT JOIN prompt q ON q.id = c.prompt_id LEFT JOIN models m ON m.row = c.row
ORDER BY w.place
"""

# a vote is found by its time, which the database can look up, and its hash
_VOTES = f"""
WITH chosen AS (SELECT rowid AS row, * FROM comparison WHERE {{comparisons}}),
     cast_vote AS MATERIALIZED (
         SELECT w.*, v.* FROM wanted w
         JOIN (SELECT *, hash(id) AS code FROM vote WHERE {{votes}}) v ON v.code = w.vote
     ),
     tiers AS (
         SELECT place, unnest(list_transform(ranking, lambda tier, i: {{{{'i': i, 'ids': tier}}}})) AS tier FROM cast_vote
     ),
     ranked AS (
         SELECT place, string_agg(names, ' > ' ORDER BY i) AS ranking
         FROM (SELECT t.place, t.i, string_agg(m.model, ' = ' ORDER BY m.model) AS names
               FROM (SELECT place, tier.i AS i, unnest(tier.ids) AS answer FROM tiers) t
               JOIN completion m ON m.id = t.answer GROUP BY t.place, t.i)
         GROUP BY place
     )
SELECT {_ABOUT}, n.name AS annotator, v.verdict, r.ranking, v.strength, v.rationale,
       array_to_string(list_distinct(list_transform(v.flags, lambda x: split_part(x, ':', 1))), ', ') AS flags,
       v.reason, v.seconds_active AS active, v.seconds_visible AS visible,
       strftime(v.created_at, '%Y-%m-%d %H:%M:%S') AS at,
       CASE WHEN v.adjudicated THEN 'yes' ELSE '' END AS adjudicated, v.id AS vote
FROM cast_vote v JOIN chosen c ON c.row = v.row LEFT JOIN prompt q ON q.id = c.prompt_id
LEFT JOIN annotator n ON hash(n.id) = v.annotator LEFT JOIN ranked r ON r.place = v.place
ORDER BY v.place
"""
FEW = 500  # rows up to which each is looked up by its place


@dataclass(frozen=True)
class Wanted:
    """Rows to show, in order. N = rows."""

    row: NDArray[np.int64]  # (N,) rowids of comparisons
    latest: NDArray[np.int64]  # (N,) microseconds since 1970; 0: no vote
    # where rows are items
    votes: NDArray[np.int32] | None = None
    disagreement: NDArray[np.float64] | None = None  # (N,) NaN where nobody has judged
    halves: NDArray[np.int32] | None = None  # (N, 3)
    adjudicated: NDArray[np.bool_] | None = None
    match: NDArray[np.int8] | None = (
        None  # (N,) 3 all words are in the prompt, 2 in prompt and answers, else 1
    )
    # where rows are votes
    vote: NDArray[np.uint64] | None = None  # (N,) hashes of votes' ids
    annotator: NDArray[np.uint64] | None = None  # (N,) hashes of annotators' ids

    @property
    def n(self) -> int:
        """How many rows there are."""
        return len(self.row)

    def part(self, first: int, end: int) -> "Wanted":
        """The rows from `first` up to `end`."""
        cut: dict[str, Any] = {name: None if v is None else v[first:end] for name, v in vars(self).items()}
        return Wanted(**cut)


def table_of(store: Store, wanted: Wanted) -> pa.Table:
    """The rows as a table, in order, with the keys of COLUMNS."""
    rows = [int(row) for row in wanted.row]
    few = len(rows) <= FEW
    comparisons = f"rowid IN ({', '.join(map(str, set(rows))) or '-1'})" if few else "true"
    if wanted.vote is None:
        sql = _ITEMS.format(comparisons=comparisons)
    else:
        times = sorted({int(at) for at in wanted.latest})
        ends = f"make_timestamp({times[0]}) AND make_timestamp({times[-1]})" if times else ""
        one_by_one = ", ".join(f"make_timestamp({at})" for at in times)
        votes = f"created_at IN ({one_by_one})" if few else f"created_at BETWEEN {ends}"
        sql = _VOTES.format(comparisons=comparisons, votes=votes if times else "false")
    with store.reader() as cursor:
        cursor.register("wanted", _table(wanted))
        try:
            return cursor.sql(sql).to_arrow_table()
        finally:
            cursor.unregister("wanted")


def _table(wanted: Wanted) -> pa.Table:
    n = len(wanted.row)
    columns: dict[str, Any] = {"place": np.arange(n), "row": wanted.row}
    if wanted.vote is not None:
        return pa.table({**columns, "vote": wanted.vote, "annotator": wanted.annotator})
    assert wanted.disagreement is not None and wanted.halves is not None
    judged = ~np.isnan(wanted.disagreement)
    splits = zip(wanted.halves.tolist(), judged, strict=True)
    split = [" : ".join(map(str, halves)) if there else None for halves, there in splits]
    columns |= {
        "latest": pa.array(wanted.latest, mask=wanted.latest == 0),
        "votes": wanted.votes,
        "disagreement": pa.array(wanted.disagreement, mask=~judged),
        "split": pa.array(split, pa.string()),
        "adjudicated": wanted.adjudicated,
        "found": pa.array([None] * n if wanted.match is None else _FOUND[wanted.match].tolist(), pa.string()),
    }
    return pa.table(columns)
