"""What the facts take from the records: queries over the project's database, by range of votes.

A few votes are looked up through the primary keys, which takes milliseconds in a database of ten million; many are
joined. Both are the same query with other conditions.
"""

from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa

from palate.data.store import Store

FEW = 500  # up to so many new votes are looked up one by one
ROWS = 100_000  # of a batch of Arrow

# strategies that don't look at what an answer would teach; anything else counts as chosen for it
PASSIVE = ("", "random", "repeat", "live", "api", "imported")

# places and shown: by completion, in the order of their ids; NULL where it was not ranked, or the order is unknown
VOTES = """
SELECT hash(v.id) AS vote, a.annotator_id AS annotator, a.comparison_id AS comparison, v.verdict,
       CASE WHEN v.verdict IN ('ranked', 'tie') THEN list_transform(list_sort(c.completion_ids), lambda x:
            list_position(list_transform(v.ranking, lambda tier: list_contains(tier, x)), true)::TINYINT)
       END AS places,
       CASE WHEN len(a.display_order) > 0 THEN list_transform(list_sort(c.completion_ids), lambda x:
            list_position(a.display_order, x)::TINYINT) END AS shown,
       v.strength::TINYINT AS strength, coalesce(v.adjudicated, false) AS adjudicated,
       len(c.completion_ids)::TINYINT AS answers, v.seconds_visible::REAL AS visible,
       v.seconds_active::REAL AS active, coalesce(v.rationale, '') <> '' AS rationale, len(v.flags) > 0 AS flagged,
       v.created_at AS moment
FROM (SELECT * FROM vote WHERE rowid > $low AND rowid <= $high) v
JOIN (SELECT * FROM assignment WHERE {assignments}) a ON a.id = v.assignment_id
JOIN (SELECT id, completion_ids FROM comparison WHERE {comparisons}) c ON c.id = a.comparison_id
WHERE NOT EXISTS (SELECT 1 FROM vote s WHERE s.supersedes = v.id)
"""

# styles are counted outside of code blocks, as in Li et al. 2024, "Does style matter?"
ITEMS = """
WITH chosen AS (SELECT * FROM comparison WHERE {comparisons}),
     pieces AS (SELECT id AS comparison, unnest(list_sort(completion_ids)) AS id FROM chosen),
     texts AS (
         SELECT id, model, length(text) AS length,
                regexp_replace(text, '(?s)```.*?(```|$)', '', 'g') AS prose
         FROM completion WHERE {completions}
     ),
     styled AS (
         SELECT id, model, length,
                len(regexp_extract_all(prose, '(?m)^ {{0,3}}#{{1,6}} ')) AS headers,
                len(regexp_extract_all(prose, '(?m)^\\s*([-*+]|\\d+[.)])\\s')) AS lists,
                len(regexp_extract_all(prose, '\\*\\*[^*\\n]+\\*\\*|__[^_\\n]+__')) AS bold
         FROM texts
     ),
     answers AS (
         SELECT p.comparison, list({{'id': s.id, 'model': s.model, 'length': s.length, 'headers': s.headers,
                                    'lists': s.lists, 'bold': s.bold}} ORDER BY s.id) AS answers
         FROM pieces p JOIN styled s ON s.id = p.id GROUP BY p.comparison
     )
SELECT c.id, c.prompt_id AS prompt, q.source, c.purpose, c.strategy, c.repeats, a.answers
FROM chosen c JOIN answers a ON a.comparison = c.id JOIN (SELECT id, source FROM prompt WHERE {prompts}) q
     ON q.id = c.prompt_id
ORDER BY c.created_at, c.id
"""


def votes(store: Store, low: int, high: int) -> Iterator[pa.RecordBatchReader]:
    """One stream of the current votes with low < rowid <= high."""
    with store.reader() as cursor:
        if high - low > FEW:
            sql = VOTES.format(assignments="true", comparisons="true")
        else:
            found = "SELECT assignment_id FROM vote WHERE rowid > ? AND rowid <= ?"
            assignments = _among([row[0] for row in cursor.execute(found, [low, high]).fetchall()])
            found = f"SELECT DISTINCT comparison_id FROM assignment WHERE id {assignments}"
            comparisons = _among([row[0] for row in cursor.execute(found).fetchall()])
            sql = VOTES.format(assignments=f"id {assignments}", comparisons=f"id {comparisons}")
        yield _stream(cursor, sql.replace("$low", str(int(low))).replace("$high", str(int(high))))


def items(store: Store, comparisons: list[str]) -> Iterator[pa.RecordBatchReader]:
    """One stream of these comparisons with their answers' models and styles."""
    with store.reader() as cursor:
        if len(comparisons) > FEW:
            cursor.register("wanted", pa.table({"id": comparisons}))
            among = "id IN (SELECT id FROM wanted)"
            sql = ITEMS.format(comparisons=among, completions="true", prompts="true")
        else:
            among = _among(comparisons)
            rows = cursor.execute(
                f"SELECT prompt_id, completion_ids FROM comparison WHERE id {among}"
            ).fetchall()
            texts = _among([name for _, names in rows for name in names])
            prompts = _among([prompt for prompt, _ in rows])
            sql = ITEMS.format(comparisons=f"id {among}", completions=f"id {texts}", prompts=f"id {prompts}")
        yield _stream(cursor, sql)


def _among(ids: list[str]) -> str:
    """A condition that DuckDB answers from the primary key: constants, not a subquery."""
    if not ids:
        return "IN ('')"
    return "IN (" + ", ".join("'" + name.replace("'", "''") + "'" for name in dict.fromkeys(ids)) + ")"


def _stream(cursor: duckdb.DuckDBPyConnection, sql: str) -> Any:
    return cursor.sql(sql).to_arrow_reader(ROWS)


def state(store: Store, mark: int) -> dict[str, Any]:
    """How far the votes go, how many there are up to `mark`, which is the last of them; digests of what may change."""
    return store.rows(
        """
        SELECT (SELECT coalesce(max(rowid), -1) FROM vote) AS newest,
               (SELECT count(*) FROM vote WHERE rowid <= $1) AS votes,
               (SELECT hash(id)::VARCHAR FROM vote WHERE rowid = $1) AS last,
               (SELECT coalesce(bit_xor(hash(id, tags)), 0)::VARCHAR FROM prompt) AS tags,
               (SELECT coalesce(bit_xor(hash(id, name, kind, role)), 0)::VARCHAR FROM annotator) AS annotators
        """,
        [mark],
    )[0]
