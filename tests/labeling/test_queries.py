"""Queries from elsewhere: what the stages ask runs, what reaches beyond the records does not."""

import importlib
import io
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from palate.data.export import _PREFERENCES, _VOTES, _filled
from palate.data.records import Annotator
from palate.data.store import Store
from palate.labeling import queries
from palate.labeling.queries import Limits, QueryRefused
from tests.labeling.conftest import fill

REFUSED = """
SELECT * FROM account
SELECT * FROM login_session
SELECT * FROM access_token
SELECT * FROM invitation
SELECT * FROM migration
SELECT * FROM main.prompt
SELECT * FROM palate.main.account
SELECT * FROM "account"
SELECT * FROM ACCOUNT
SELECT * FROM prompt, account
SELECT (SELECT password FROM account LIMIT 1)
SELECT * FROM prompt WHERE EXISTS (FROM account)
SELECT * FROM prompt WHERE id IN (SELECT annotator_id FROM account)
SELECT count(*) FILTER (WHERE (SELECT count(*) FROM account) > 0) FROM prompt
SELECT * FROM prompt ORDER BY (SELECT password FROM account LIMIT 1)
SELECT * FROM prompt LIMIT (SELECT count(*) FROM account)
SELECT row_number() OVER (ORDER BY (SELECT max(password) FROM account)) FROM prompt
SELECT list_transform([1], lambda x: (SELECT max(password) FROM account))
SELECT CASE WHEN (SELECT count(*) FROM account) > 0 THEN 1 END
SELECT * FROM (SELECT * FROM account)
SELECT * FROM prompt JOIN account ON true
SELECT * FROM prompt POSITIONAL JOIN account
SELECT * FROM prompt UNION ALL SELECT annotator_id, * FROM account
SELECT * FROM unnest((SELECT list(password) FROM account))
SELECT * FROM range((SELECT count(*) FROM account))
SELECT * FROM (VALUES ((SELECT max(password) FROM account)))
WITH account AS (SELECT * FROM account) SELECT * FROM account
WITH RECURSIVE account AS (SELECT * FROM account UNION ALL SELECT * FROM account WHERE false) SELECT * FROM account
SELECT * FROM account, (WITH account AS (SELECT 1) SELECT * FROM account)
SELECT (WITH account AS (SELECT 1 AS x) SELECT x FROM account), password FROM account
WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a
WITH x AS MATERIALIZED (SELECT * FROM account) SELECT * FROM x
SELECT * REPLACE ((SELECT max(password) FROM account) AS text) FROM completion
SELECT * FROM prompt, LATERAL (SELECT * FROM account)
SELECT * FROM prompt SEMI JOIN account ON true
SELECT DISTINCT ON ((SELECT max(password) FROM account)) id FROM prompt
SELECT id FROM prompt GROUP BY id, (SELECT max(password) FROM account)
SELECT count(*) FROM prompt HAVING (SELECT count(*) FROM account) > 0
SELECT id FROM prompt QUALIFY (SELECT count(*) FROM account) > 0
SELECT id = ANY (SELECT annotator_id FROM account) FROM prompt
SELECT sum(1) OVER (ROWS BETWEEN (SELECT count(*) FROM account) PRECEDING AND CURRENT ROW) FROM prompt
SELECT {'a': (SELECT max(password) FROM account)}, [(SELECT max(password) FROM account)]
SELECT [x for x in (SELECT list(password) FROM account)]
SELECT string_agg(id, ',' ORDER BY (SELECT max(password) FROM account)) FROM prompt
(SELECT * FROM account)
SELECT 1 UNION (SELECT count(*) FROM account)
WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + (SELECT count(*) FROM account) FROM r WHERE n < 5) FROM r
WITH RECURSIVE r AS (WITH x AS (SELECT 1 AS n) FROM x UNION ALL SELECT r.n FROM r, account WHERE r.n < 1) FROM r
WITH "/etc/passwd" AS (SELECT 1) SELECT (WITH z AS (SELECT 1) FROM z), (SELECT count(*) FROM "/etc/hostname")
SELECT * FROM (WITH "x.csv" AS (SELECT 1) FROM "x.csv"), "x.csv"
FROM query_table(['account'])
FROM account
TABLE account
SELECT * FROM '/etc/passwd'
SELECT * FROM 'runs/secret.parquet'
SELECT * FROM "label.key"
SELECT * FROM read_csv('/etc/passwd')
SELECT * FROM read_csv_auto('/etc/passwd')
SELECT * FROM read_text('/etc/passwd')
SELECT * FROM read_blob('/etc/*')
SELECT * FROM read_parquet('x.parquet')
SELECT * FROM parquet_metadata('x.parquet')
SELECT * FROM read_json('https://example.org/x.json')
SELECT * FROM sniff_csv('/etc/passwd')
SELECT * FROM glob('/**')
SELECT * FROM read_duckdb('other.duckdb')
SELECT * FROM query('SELECT * FROM account')
SELECT * FROM query_table('account')
SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT * FROM account'))
SELECT json_serialize_plan('SELECT * FROM account')
SELECT * FROM duckdb_tables()
SELECT * FROM duckdb_settings()
SELECT * FROM duckdb_secrets()
SELECT * FROM duckdb_columns
SELECT * FROM information_schema.tables
SELECT * FROM pg_catalog.pg_class
SELECT * FROM sqlite_master
SELECT * FROM pragma_table_info('account')
SELECT * FROM pragma_database_list
SELECT * FROM checkpoint()
SELECT * FROM arrow_scan(1, 2, 3)
SELECT getenv('HOME')
SELECT current_setting('home_directory')
SELECT getvariable('x')
SELECT nextval('s')
SELECT write_log('x')
SELECT sleep_ms(100000)
SELECT pg_sleep(100)
SELECT repeat('x', 1000000000)
SELECT error('x')
SELECT main.count(*) FROM prompt
SELECT system.main.upper('x')
SELECT * FROM prompt AT (VERSION => 1)
SHOW TABLES
SHOW ALL TABLES
DESCRIBE account
SUMMARIZE prompt
SELECT * FROM (DESCRIBE account)
SELECT * FROM (SHOW TABLES)
EXPLAIN SELECT * FROM account
EXPLAIN ANALYZE SELECT 1
PRAGMA database_list
PIVOT prompt ON split
SELECT * FROM (PIVOT prompt ON split USING count(*))
SELECT * FROM (UNPIVOT prompt ON id INTO NAME a VALUE b)
INSERT INTO prompt SELECT * FROM prompt
UPDATE annotator SET role = 'admin'
DELETE FROM vote
DROP TABLE vote
CREATE TABLE x AS SELECT 1
CREATE MACRO f() AS TABLE SELECT * FROM account
ALTER TABLE vote DROP COLUMN verdict
COPY prompt TO '/tmp/x.csv'
COPY (SELECT * FROM account) TO '/tmp/x.csv'
ATTACH '/tmp/other.duckdb'
INSTALL httpfs
LOAD httpfs
SET threads = 64
RESET threads
CALL pragma_version()
VACUUM
CHECKPOINT
BEGIN
PREPARE p AS SELECT 1
EXECUTE p
SELECT 1; SELECT 2
SELECT 1; DROP TABLE vote
WITH d AS (DELETE FROM vote RETURNING *) SELECT * FROM d
SELECT
not SQL at all
""".strip().splitlines()

ALLOWED = """
SELECT 1
SELECT count(*) AS n, max(created_at) FROM vote
FROM prompt SELECT id, source ORDER BY source DESC, id NULLS LAST LIMIT 3 OFFSET 1
SELECT * FROM current_vote v JOIN annotator n ON n.id = v.annotator_id WHERE n.kind = 'human'
SELECT DISTINCT ON (prompt_id) prompt_id, text FROM completion WHERE text ILIKE '%words%' OR model SIMILAR TO 'secret.*'
WITH a AS (SELECT id FROM prompt), b AS (SELECT id FROM a) SELECT count(*) FROM b WHERE id IN (FROM a)
WITH account AS (SELECT 1 AS x) SELECT x FROM account
WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT sum(n) FROM r
WITH RECURSIVE r AS (WITH account AS (SELECT 1 AS n) FROM account UNION ALL SELECT n + 1 FROM r WHERE n < 5) FROM r
SELECT p.split, count(*) FILTER (WHERE p.source = '') FROM prompt p GROUP BY ALL HAVING count(*) > 0
SELECT x FROM range(3) t(x) UNION SELECT unnest([7, 8]) EXCEPT SELECT 8
SELECT [t || '!' for t in tags if t <> ''], {'a': id}, meta ->> 'group' FROM prompt
SELECT id, rank() OVER (PARTITION BY model ORDER BY length(text) DESC) FROM completion QUALIFY rank() OVER () < 9
SELECT model, avg(length(text)), quantile_cont(length(text), 0.5) FROM completion GROUP BY ROLLUP (model)
SELECT date_trunc('day', created_at), created_at::DATE, INTERVAL 1 DAY, CAST('1' AS INTEGER) FROM prompt
SELECT * FROM completion USING SAMPLE 10%
SELECT * FROM completion TABLESAMPLE reservoir(5 ROWS)
SELECT COLUMNS('id|text') FROM completion
SELECT * EXCLUDE (meta) REPLACE (upper(text) AS text) FROM completion
SELECT CASE WHEN seed IS NULL THEN 'no' ELSE 'yes' END, seed BETWEEN 1 AND 3, seed IN (1, 2) FROM completion
SELECT key FROM (SELECT meta FROM prompt) p, json_each(p.meta)
VALUES (1, 'a'), (2, 'b')
SELECT from_json(messages, '[{"role": "VARCHAR", "content": "VARCHAR"}]')[1].content FROM prompt
""".strip().splitlines()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store(tmp_path_factory.mktemp("store") / "palate.duckdb") as opened:
        fill(opened)
        opened.add_annotators([Annotator("anna")])
        opened.write("INSERT INTO account VALUES ('a', 'scrypt$hash', true, now()::TIMESTAMP, NULL)")
        yield opened


def ask(store: Store, sql: str, *params: object, limits: Limits | None = None) -> pa.Table:
    file = io.BytesIO()
    rows = queries.run(store, sql, params, file, limits)
    file.seek(0)
    found = pa.ipc.open_stream(file).read_all()
    assert found.num_rows == rows
    return found


@pytest.mark.parametrize("sql", REFUSED)
def test_refused(store: Store, sql: str) -> None:
    with pytest.raises(QueryRefused) as error:
        ask(store, sql)
    assert error.value.code == "query_refused" and "\n" not in str(error.value)


@pytest.mark.parametrize("sql", ALLOWED)
def test_allowed(store: Store, sql: str) -> None:
    found, wanted = ask(store, sql), store.table(sql)
    assert found.schema == wanted.schema
    if "SAMPLE" not in sql:
        assert sorted(map(str, found.to_pylist())) == sorted(map(str, wanted.to_pylist()))


def test_what_the_stages_ask_is_allowed() -> None:
    wanted = {
        "palate.sft.dataset": ("_DEMONSTRATIONS", "_BEST_RANKED"),
        "palate.sft.train": ("_PROBE_PROMPTS",),
        "palate.sampling": ("_PROMPTS",),
        "palate.data.preferences": ("_QUERY", "_ORIGINS"),
        "palate.labeling.simulate": ("_CANDIDATES",),
    }
    for module, names in wanted.items():
        for name in names:
            queries.check(getattr(importlib.import_module(module), name))
    for kind in ("all", "rule"):
        queries.check(_filled(_PREFERENCES, kind, "p.annotator_kind"))
        queries.check(_filled(_VOTES, kind, "n.kind"))


def test_values_are_bound_never_pasted(store: Store) -> None:
    evil = "'; DROP TABLE vote; --"
    assert ask(store, "SELECT ? AS x, $1 AS y", evil).to_pylist() == [{"x": evil, "y": evil}]
    wanted = [row["id"] for row in store.rows("SELECT id FROM prompt LIMIT 2")]
    assert ask(store, "SELECT id FROM prompt WHERE id IN (SELECT unnest(?))", wanted).num_rows == 2


def test_variables_of_the_process_are_not_tables(store: Store) -> None:
    prompt_leak = pa.table({"x": [1]})  # DuckDB would find it by its name
    assert prompt_leak.num_rows
    with pytest.raises(QueryRefused, match="'prompt_leak' can't be read here"):
        ask(store, "SELECT * FROM prompt_leak")
    with store.reading() as cursor, pytest.raises(Exception, match="does not exist"):
        cursor.execute("SELECT * FROM prompt_leak")
    with store.reading() as cursor, pytest.raises(Exception, match="read-only"):
        cursor.execute("DELETE FROM vote")


def test_failures_are_one_line(store: Store) -> None:
    for sql, params in (
        ("SELECT nothing FROM prompt", ()),
        ("SELECT ?", ()),
        ("SELECT 1", (1,)),
        ("SELECT 'x'::INT", ()),
    ):
        with pytest.raises(QueryRefused) as error:
            ask(store, sql, *params)
        assert error.value.code == "query_failed" and "\n" not in str(error.value)
    deep = "SELECT " + "(" * 3000 + "1" + ")" * 3000
    with pytest.raises(QueryRefused):
        ask(store, deep)
    with pytest.raises(QueryRefused, match="at most 100,000 characters"):
        ask(store, "SELECT '" + "x" * 100_000 + "'")


def test_limits(store: Store) -> None:
    with pytest.raises(QueryRefused, match="larger than 1,000 rows") as error:
        ask(store, "SELECT * FROM range(1000000)", limits=Limits(rows=1000))
    assert error.value.code == "query_too_large"
    with pytest.raises(QueryRefused, match="larger than") as error:
        ask(store, "SELECT md5(x::VARCHAR) FROM range(1000000) t(x)", limits=Limits(bytes=1 << 20))
    start = time.monotonic()
    with pytest.raises(QueryRefused, match=r"longer than 0.2 s") as error:
        ask(
            store,
            "SELECT sum(a.range * b.range) FROM range(1000000) a, range(10000000) b",
            limits=Limits(seconds=0.2),
        )
    assert error.value.code == "query_too_slow"
    assert time.monotonic() - start < 10
    assert ask(store, "SELECT 1 AS one").to_pylist() == [{"one": 1}]  # nothing is left behind


def test_the_database_is_as_it_was(store: Store, tmp_path: Path) -> None:
    before = store.counts()
    for sql in REFUSED:
        with pytest.raises(QueryRefused):
            ask(store, sql)
    assert store.counts() == before
    assert not list(tmp_path.iterdir())
