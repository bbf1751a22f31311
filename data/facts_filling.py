"""Filling the facts: SQL over the facts' own database, which holds a batch of votes or comparisons as `incoming`.

Votes come as `cast_vote`, a temporary table of one batch. What they are about is put in first, so that everything
else joins on small numbers.
"""

import duckdb
import pyarrow as pa

from palate.data.facts_source import PASSIVE

_PASSIVE = ", ".join(f"'{name}'" for name in PASSIVE)

_NEW_NAMES = """
INSERT INTO {table} SELECT (SELECT count(*) FROM {table}) + row_number() OVER (ORDER BY name) - 1, name
FROM (SELECT DISTINCT name FROM ({names}) WHERE name NOT IN (SELECT name FROM {table}))
"""

_ITEMS = """
INSERT INTO item
SELECT (SELECT count(*) FROM item) + row_number() OVER (ORDER BY n.place) - 1 AS code, n.id, n.prompt, s.code,
       n.purpose, n.strategy, len(n.answers), m.models, n.repeats,
       NULL, (SELECT count(*) FROM unit) + sum(len(n.answers) * (len(n.answers) - 1) // 2) OVER
           (ORDER BY n.place ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
           - len(n.answers) * (len(n.answers) - 1) // 2
FROM new_item n JOIN source s ON s.name = n.source
JOIN (SELECT p.id, list(m.code ORDER BY p.at) AS models
      FROM (SELECT id, unnest(answers).model AS model, unnest(range(len(answers))) AS at FROM new_item) p
      JOIN model m ON m.name = p.model GROUP BY p.id) m ON m.id = n.id
"""

_UNITS = """
INSERT INTO unit
WITH pairs AS (
    SELECT i.code AS item, i.first_unit + p.place AS code, n.answers[p.i] AS a, n.answers[p.j] AS b
    FROM new_item n JOIN item i ON i.id = n.id JOIN pair p ON p.answers = len(n.answers)
)
SELECT p.code, p.item, p.a.id, p.b.id, m.code, o.code,
       (p.a.length - p.b.length) / (p.a.length + p.b.length + 1),
       (p.a.headers - p.b.headers) / (p.a.headers + p.b.headers + 1),
       (p.a.lists - p.b.lists) / (p.a.lists + p.b.lists + 1),
       (p.a.bold - p.b.bold) / (p.a.bold + p.b.bold + 1),
       ln((1 + p.a.length) / (1 + p.b.length))
FROM pairs p JOIN model m ON m.name = p.a.model JOIN model o ON o.name = p.b.model
ORDER BY p.code
"""

_ROOTS = """
UPDATE item SET root = coalesce((SELECT min(r.code) FROM item r WHERE r.id = item.repeats), code) WHERE root IS NULL
"""

_ABOUT = f"""
CREATE OR REPLACE TEMP TABLE about AS
SELECT code, id, source, root, first_unit, models, answers,
       list_position(['train', 'random', 'gold', 'repeat', 'eval'], purpose) - 1 AS purpose,
       strategy NOT IN ({_PASSIVE}) AS selected
FROM item WHERE id IN (SELECT DISTINCT comparison FROM cast_vote)
"""

# who has answered which item before: in an earlier batch, or earlier in this one
_CODED = """
CREATE OR REPLACE TEMP TABLE coded AS
WITH mine AS (
    SELECT c.vote, n.code AS annotator, list_position(['human', 'rule', 'model'], n.kind) - 1 AS kind,
           i.code AS item, i.root, i.source, i.purpose, i.selected, i.first_unit, i.models, c.verdict, c.places,
           c.shown, c.strength, c.adjudicated, c.answers, c.visible, c.active, c.rationale, c.flagged, c.moment
    FROM cast_vote c JOIN annotator n ON n.id = c.annotator JOIN about i ON i.id = c.comparison
), before AS (
    SELECT DISTINCT b.annotator, i.root FROM ballot b JOIN item i ON i.code = b.item
    WHERE b.verdict <> 3 AND (b.annotator, i.root) IN (SELECT (annotator, root) FROM mine)
)
SELECT m.*, b.root IS NOT NULL OR (m.verdict <> 'skip' AND count(*) FILTER (m.verdict <> 'skip') OVER earlier > 1)
       AS again
FROM mine m LEFT JOIN before b ON b.annotator = m.annotator AND b.root = m.root
WINDOW earlier AS (PARTITION BY m.annotator, m.root ORDER BY m.moment, m.vote
                   ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
"""

_BALLOTS = """
INSERT INTO ballot
SELECT vote, annotator, item, kind, source, purpose, selected, again, adjudicated,
       list_position(['ranked', 'tie', 'all_bad', 'skip'], verdict) - 1, answers, visible, active,
       CASE WHEN answers > 2 AND verdict = 'ranked' AND shown IS NOT NULL THEN coalesce(places = shown, false) END,
       rationale, flagged, moment, moment::DATE
FROM coded
"""

_JUDGEMENTS = """
INSERT INTO judgement
SELECT c.vote, c.annotator, c.item, c.first_unit + p.place, c.models[p.i], c.models[p.j], c.kind, c.source, c.purpose, c.selected, c.again,
       c.adjudicated,
       CASE WHEN c.places[p.i] = c.places[p.j] THEN 0
            ELSE sign(c.places[p.j] - c.places[p.i]) *
                 CASE WHEN c.answers = 2 AND c.strength IS NOT NULL THEN least(greatest(c.strength, 1), 3) ELSE 4 END
       END,
       c.shown[p.i] < c.shown[p.j],
       len(list_filter(c.places, lambda x: x IS NOT NULL)) * (len(list_filter(c.places, lambda x: x IS NOT NULL)) - 1)
           // 2,
       c.moment::DATE
FROM coded c JOIN pair p ON p.answers = c.answers
WHERE c.places[p.i] IS NOT NULL AND c.places[p.j] IS NOT NULL
"""

_RANKINGS = """
INSERT INTO ranking
SELECT vote, annotator, item, kind, source, purpose, selected, again, adjudicated, places, models, moment::DATE
FROM coded WHERE answers > 2 AND len(list_filter(places, lambda x: x IS NOT NULL)) > 2
"""


def prepare(con: duckdb.DuckDBPyConnection) -> None:
    """The places of pairs within comparisons of 2 to 9 answers, in a table of this connection."""
    con.execute("CREATE OR REPLACE TEMP TABLE pair (answers TINYINT, place INTEGER, i INTEGER, j INTEGER)")
    rows = [
        (answers, place, i, j)
        for answers in range(2, 10)
        for place, (i, j) in enumerate(
            (i, j) for i in range(1, answers + 1) for j in range(i + 1, answers + 1)
        )
    ]
    con.executemany("INSERT INTO pair VALUES (?, ?, ?, ?)", rows)


def unknown_items(con: duckdb.DuckDBPyConnection) -> list[str]:
    """The comparisons of this batch that have no row yet."""
    found = con.execute(
        "SELECT DISTINCT comparison FROM cast_vote WHERE comparison NOT IN (SELECT id FROM item) ORDER BY 1"
    )
    return [row[0] for row in found.fetchall()]


def add_items(con: duckdb.DuckDBPyConnection, incoming: pa.RecordBatchReader) -> None:
    """Comparisons with their answers, as `facts_source.items` gives them."""
    con.register("incoming", incoming)
    con.execute(
        "CREATE OR REPLACE TEMP TABLE new_item AS SELECT *, row_number() OVER () AS place FROM incoming"
    )
    con.unregister("incoming")
    con.execute(_NEW_NAMES.format(table="source", names="SELECT source AS name FROM new_item"))
    models = "SELECT unnest(answers).model AS name FROM new_item"
    con.execute(_NEW_NAMES.format(table="model", names=models))
    for step in (_ITEMS, _UNITS, _ROOTS, "DROP TABLE new_item"):
        con.execute(step)


def add_votes(con: duckdb.DuckDBPyConnection) -> None:
    """The votes of `cast_vote`; what they are about is there already."""
    for step in (_ABOUT, _CODED, _BALLOTS, _JUDGEMENTS, _RANKINGS):
        con.execute(step)
    con.execute("DROP TABLE coded; DROP TABLE about; DROP TABLE cast_vote")


def set_annotators(con: duckdb.DuckDBPyConnection, rows: pa.Table) -> None:
    """Everybody there is, with the codes of those who are known."""
    con.register("incoming", rows)
    con.execute("CREATE OR REPLACE TEMP TABLE everybody AS SELECT * FROM incoming")
    con.unregister("incoming")
    con.execute(
        """
        CREATE OR REPLACE TEMP TABLE renewed AS
        SELECT coalesce(a.code, (SELECT count(*) FROM annotator) - 1 +
                        count(*) FILTER (a.code IS NULL) OVER (ORDER BY e.id))::INTEGER AS code,
               e.id, e.name, e.kind, e.role
        FROM everybody e LEFT JOIN annotator a ON a.id = e.id
        """
    )
    con.execute("DELETE FROM annotator")
    con.execute("INSERT INTO annotator SELECT * FROM renewed ORDER BY code")
    con.execute("DROP TABLE renewed; DROP TABLE everybody")


def set_tags(con: duckdb.DuckDBPyConnection, tags: pa.Table) -> None:
    """The tags of all prompts, as (prompt, tag) rows."""
    con.register("incoming", tags)
    con.execute("DELETE FROM item_tag")
    con.execute(
        "INSERT INTO item_tag SELECT i.code, t.tag FROM incoming t JOIN item i ON i.prompt = t.prompt"
    )
    con.unregister("incoming")
