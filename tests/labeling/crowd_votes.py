"""Many votes at once, written by SQL: for screens and figures at a size that no test could vote its way to."""

from palate.data.store import Store

MODELS = 8

_SQL = """
CREATE TEMP TABLE drawn AS
SELECT i, k, hash(i * 31 + k) AS h, (hash(i * 31 + k) % 1000) / 1000.0 AS chance,
       i % {models} AS first, (i // {models} + 1 + i) % {models} AS second, (i + k * 7) % {people} AS person
FROM range({items}) t(i), range({overlap}) u(k);
INSERT INTO annotator (id, name, kind, role, meta)
SELECT 'person-' || i, 'person ' || i, 'human', 'annotator', '{{}}' FROM range({people}) t(i);
INSERT INTO prompt (id, messages, source, split, tags, meta)
SELECT 'p' || i, '[{{"role": "user", "content": "idea ' || i || '"}}]', 'source ' || i % 3, 'train', ['tag ' || i % 5], '{{}}'
FROM range({items}) t(i);
INSERT INTO completion (id, prompt_id, text, model, sampling, role, meta)
SELECT 'c' || i || '-' || j, 'p' || i, repeat('word ', 5 + (hash(i * 2 + j) % 40)::INTEGER) || i || ' ' || j,
       'model ' || CASE j WHEN 0 THEN i % {models} ELSE (i // {models} + 1 + i) % {models} END, '{{}}', 'sample', '{{}}'
FROM range({items}) t(i), range(2) u(j);
INSERT INTO comparison (id, prompt_id, completion_ids, strategy, propensity, purpose, overlap, priority)
SELECT 'x' || i, 'p' || i, ['c' || i || '-0', 'c' || i || '-1'], 'random', 1.0, 'train', {overlap}, 0 FROM range({items}) t(i);
INSERT INTO assignment (id, comparison_id, annotator_id, display_order, state)
SELECT 'a' || i || '-' || k, 'x' || i, 'person-' || person,
       CASE WHEN h % 2 = 0 THEN ['c' || i || '-0', 'c' || i || '-1'] ELSE ['c' || i || '-1', 'c' || i || '-0'] END, 'done' FROM drawn;
INSERT INTO vote (id, assignment_id, verdict, ranking, strength, criteria, rationale, flags, seconds_visible, seconds_active, created_at)
SELECT 'vote-' || i || '-' || k, 'a' || i || '-' || k,
       CASE WHEN chance > 0.95 THEN 'tie' ELSE 'ranked' END,
       CASE WHEN chance > 0.95 THEN [['c' || i || '-0', 'c' || i || '-1']]
            WHEN chance < 0.45 + 0.05 * (first - second) THEN [['c' || i || '-0'], ['c' || i || '-1']]
            ELSE [['c' || i || '-1'], ['c' || i || '-0']] END,
       CASE WHEN chance > 0.95 THEN 0 ELSE 1 + h % 3 END, '{{}}',
       CASE WHEN h % 50 = 0 THEN 'because of ' || i END, [], 5 + h % 60, 4 + h % 50,
       TIMESTAMP '2026-03-02 08:00:00' + to_seconds(i * {overlap} * 20 + k)
FROM drawn;
DROP TABLE drawn;
"""


def crowd(store: Store, votes: int, overlap: int = 5, people: int = 40) -> None:
    """So many votes of people on pairs by eight models, of which the later ones are better."""
    sql = _SQL.format(items=votes // overlap, overlap=overlap, people=people, models=MODELS)
    with store.transaction():
        for statement in sql.split(";\n"):
            if statement.strip():
                store.write(statement)
