"""The store: one DuckDB file, one owner, the only place that writes SQL rows.

DuckDB takes one read-write process and a connection is not shared by threads, so every call takes its own
cursor and writers queue behind one lock; each write is one short transaction that is on disk (fsync of the
write-ahead log) before the call returns. Votes are append-only.

    with Store(Path("palate.duckdb")) as store:
        store.add_prompts([Prompt(({"role": "user", "content": "Hello"},))])
"""

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import pyarrow as pa

from palate.config import UserError
from palate.data.migrations import migrate
from palate.data.records import (
    Annotator,
    Assignment,
    Comparison,
    Completion,
    Prompt,
    Run,
    Score,
    Vote,
    canonical,
)

Record = Prompt | Completion | Comparison | Annotator | Assignment | Vote | Score

_TABLE: dict[type, str] = {
    Prompt: "prompt",
    Completion: "completion",
    Comparison: "comparison",
    Annotator: "annotator",
    Assignment: "assignment",
    Vote: "vote",
    Score: "score",
}
_JSON = {"messages", "meta", "sampling", "criteria"}  # columns stored as JSON text

_TYPES: dict[str, pa.DataType] = {
    "tags": pa.list_(pa.string()),
    "flags": pa.list_(pa.string()),
    "completion_ids": pa.list_(pa.string()),
    "display_order": pa.list_(pa.string()),
    "ranking": pa.list_(pa.list_(pa.string())),
    "seed": pa.int64(),
    "overlap": pa.int32(),
    "priority": pa.int32(),
    "strength": pa.int32(),
    "guideline_version": pa.int32(),
    "propensity": pa.float64(),
    "seconds_visible": pa.float64(),
    "seconds_active": pa.float64(),
    "mean": pa.float64(),
    "std": pa.float64(),
    "leased_until": pa.timestamp("us"),
    "created_at": pa.timestamp("us"),
}


def now() -> datetime:
    """UTC without a zone, as the database stores it."""
    return datetime.now(UTC).replace(tzinfo=None)


def record_schema(kind: type[Record]) -> pa.Schema:
    """The Arrow schema of a record's table, column for column."""
    return pa.schema([(f.name, _TYPES.get(f.name, pa.string())) for f in fields(kind)])


def record_table(records: Sequence[Record]) -> pa.Table:
    """Records of one kind as an Arrow table: JSON columns as text, a vote without a time gets this moment."""
    schema = record_schema(type(records[0]))
    values = zip(*map(attrgetter(*schema.names), records), strict=True)
    columns: dict[str, Any] = dict(zip(schema.names, values, strict=True))
    for name in _JSON & columns.keys():
        columns[name] = [canonical(value) for value in columns[name]]
    if "created_at" in columns:
        moment = now()
        columns["created_at"] = [value or moment for value in columns["created_at"]]
    return pa.table([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


class Store:
    """Owns the database file. `threads` may share a Store; processes may not share the file."""

    def __init__(self, path: Path, memory_limit: str | None = None) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        self._open_cursor: duckdb.DuckDBPyConnection | None = None  # set inside `transaction`
        config: dict[str, Any] = {"memory_limit": memory_limit} if memory_limit else {}
        try:
            self._con = duckdb.connect(str(path), config=config)
        except duckdb.IOException as error:
            raise UserError(_why_not_opened(self.path, str(error))) from error
        try:
            if migrate(self._con):
                self._con.execute("CHECKPOINT")
        except BaseException:
            self._con.close()  # a refused file is free for the right program
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; DuckDB checkpoints the write-ahead log into it."""
        with self._lock:
            self._con.close()

    # -- writing ---------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside are committed together, or none of them."""
        with self._lock:
            if self._open_cursor is not None:  # nested: the outer one commits
                yield
                return
            cursor = self._con.cursor()
            cursor.execute("BEGIN")
            self._open_cursor = cursor
            try:
                yield
                cursor.execute("COMMIT")
            except BaseException:
                cursor.execute("ROLLBACK")
                raise
            finally:
                self._open_cursor = None
                cursor.close()

    def add(self, records: Sequence[Record]) -> int:
        """Insert records of one kind; those whose id is known stay as they are. Returns how many are new."""
        if not records:
            return 0
        kind = type(records[0])
        return self.add_table(_TABLE[kind], record_table(records))

    def add_prompts(self, prompts: Sequence[Prompt]) -> int:
        """New prompts; returns how many were not known before."""
        return self.add(prompts)

    def add_completions(self, completions: Sequence[Completion]) -> int:
        """New completions; returns how many were not known before."""
        return self.add(completions)

    def add_comparisons(self, comparisons: Sequence[Comparison]) -> int:
        """New comparisons; returns how many were not known before."""
        return self.add(comparisons)

    def add_annotators(self, annotators: Sequence[Annotator]) -> int:
        """New annotators; returns how many were not known before."""
        return self.add(annotators)

    def add_assignments(self, assignments: Sequence[Assignment]) -> int:
        """New assignments; returns how many were not known before."""
        return self.add(assignments)

    def add_votes(self, votes: Sequence[Vote]) -> int:
        """Append votes and mark their assignments done; a vote whose id is known is the same vote."""
        with self.transaction():
            added = self.add(votes)
            ids = list({v.assignment_id for v in votes})
            self._write("UPDATE assignment SET state = 'done' WHERE id IN (SELECT unnest(?))", [ids])
        return added

    def add_table(self, table: str, rows: pa.Table | Path) -> int:
        """Insert an Arrow table, or a Parquet file with the table's columns; returns how many rows are new."""
        with self.transaction():
            cursor = self._open_cursor
            assert cursor is not None
            before = self._count(cursor, table)
            if isinstance(rows, Path):
                source = f"read_parquet('{str(rows).replace(chr(39), chr(39) * 2)}')"
            else:
                cursor.register("incoming", rows)
                source = "incoming"
            cursor.execute(f"INSERT INTO {table} BY NAME SELECT * FROM {source} ON CONFLICT DO NOTHING")
            if source == "incoming":
                cursor.unregister("incoming")
            return self._count(cursor, table) - before

    def put_run(self, run: Run) -> None:
        """Mirror a run record, so that SQL can join on it; `run.json` stays its home."""
        record = json.dumps({f.name: getattr(run, f.name) for f in fields(run)}, default=str)
        self._write(
            "INSERT INTO run (id, stage, status, record) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET status = excluded.status, record = excluded.record",
            [run.id, run.stage, run.status, record],
        )

    def write(self, sql: str, params: Sequence[Any] = ()) -> None:
        """One writing statement in a transaction of its own, or in the one that is open."""
        self._write(sql, list(params))

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file; skipped when a reader is busy."""
        with self._lock:
            try:
                self._con.execute("CHECKPOINT")
            except duckdb.TransactionException:
                return

    def _write(self, sql: str, params: list[Any]) -> None:
        with self.transaction():
            assert self._open_cursor is not None
            self._open_cursor.execute(sql, params)

    @staticmethod
    def _count(cursor: duckdb.DuckDBPyConnection, table: str) -> int:
        return int(cursor.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])

    # -- reading ---------------------------------------------------------------------------------------

    def table(self, sql: str, params: Sequence[Any] = ()) -> pa.Table:
        """The result of a query as an Arrow table."""
        with self._reader() as cursor:
            return cursor.sql(sql, params=list(params)).to_arrow_table()

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The result of a query as one dict per row."""
        with self._reader() as cursor:
            result = cursor.execute(sql, list(params))
            names = [column[0] for column in result.description]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def value(self, sql: str, params: Sequence[Any] = ()) -> Any:
        """The first column of the first row, or None when there is no row."""
        with self._reader() as cursor:
            row = cursor.execute(sql, list(params)).fetchone()
            return row[0] if row else None

    def counts(self) -> dict[str, int]:
        """How many rows each table of records holds."""
        return {name: int(self.value(f"SELECT count(*) FROM {name}")) for name in _TABLE.values()}

    @contextmanager
    def _reader(self) -> Iterator[duckdb.DuckDBPyConnection]:
        if self._open_cursor is not None and self._lock.acquire(blocking=False):  # own uncommitted rows count
            try:
                if self._open_cursor is not None:
                    yield self._open_cursor
                    return
            finally:
                self._lock.release()
        cursor = self._con.cursor()
        try:
            yield cursor
        finally:
            cursor.close()


def batches(records: Iterable[Record], size: int = 10_000) -> Iterator[list[Record]]:
    """Chunks of at most `size` records, so that a generator never becomes one big list."""
    chunk: list[Record] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _why_not_opened(path: Path, message: str) -> str:
    if "lock" in message.lower():
        return (
            f"{path} is open in another process (a running `palate label` owns it): "
            "stop that one first, or wait until it has finished"
        )
    return f"{path} can't be opened: {message.splitlines()[0]}"
