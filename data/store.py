"""The store: one DuckDB file, one owner, the only place that writes SQL rows.

DuckDB takes one read-write process and a connection is not shared by threads, so every call takes its own
cursor and writers queue behind one lock; each write is one short transaction that is on disk (fsync of the
write-ahead log) before the call returns. Votes are append-only. Stages ask for no more than `AnyStore`, which
`palate.data.remote` offers too, over HTTP, while another process owns the file.

    with Store(Path("palate.duckdb")) as store:
        store.add_prompts([Prompt(({"role": "user", "content": "Hello"},))])
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from palate.config import UserError
from palate.data import database
from palate.data.any_store import AnyStore, copied, quoted
from palate.data.columns import TABLE, Record, now, record_table, record_values
from palate.data.database import Damaged, FileInUse
from palate.data.records import Run

__all__ = ["Damaged", "FileInUse", "Store", "now"]

_log = logging.getLogger(__name__)
AS_PARAMETERS = 6  # up to so many records, parameters of a statement beat an Arrow table


class Store(AnyStore):
    """Owns the database file. Threads may share a Store; processes may not share the file."""

    def __init__(self, path: Path, memory_limit: str | None = None) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        self._open_cursor: duckdb.DuckDBPyConnection | None = None  # set inside `transaction`
        self._memory_limit = memory_limit
        self._closed = False
        self._con = database.opened(self.path, self._memory_limit)

    def close(self) -> None:
        """Close the file; DuckDB checkpoints the write-ahead log into it."""
        with self._lock:
            self._closed = True
            while True:
                try:
                    self._con.close()
                    return
                except duckdb.ResourceInUseException:  # another thread takes a cursor of it at this moment
                    time.sleep(0.001)

    def reopen(self) -> None:
        """Open the file again after an error that DuckDB calls fatal: nothing works on the old connection any more.

        What was committed is there. Does nothing while the connection is sound.
        """
        with self._lock:
            if self._closed:
                return
            try:
                self._con.cursor().execute("SELECT 1")
            except duckdb.Error:
                with suppress(duckdb.Error):
                    self._con.close()
                self._con = database.opened(self.path, self._memory_limit)

    def _heal(self, error: BaseException) -> None:
        """Open again after a fatal error; where that can't be done yet, the next call tries."""
        if isinstance(error, duckdb.FatalException | duckdb.InternalException):
            with suppress(UserError):
                self.reopen()

    # -- writing ---------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside are committed together, or none of them."""
        with self._lock:
            if self._open_cursor is not None:  # nested: the outer one commits
                yield
                return
            cursor = self._cursor()
            try:
                cursor.execute("BEGIN")
                self._open_cursor = cursor
                yield
                cursor.execute("COMMIT")
            except BaseException as error:
                with suppress(duckdb.Error):  # after a failed commit nothing is left to roll back
                    cursor.execute("ROLLBACK")
                self._heal(error)
                raise
            finally:
                self._open_cursor = None
                cursor.close()
        self._checkpoint_when_due()

    def _checkpoint_when_due(self) -> None:
        if database.wal_bytes(self.path) > database.WAL_BYTES:
            self.checkpoint()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        """A cursor of this call's own; the file is opened again when that failed after a fatal error."""
        try:
            return self._con.cursor()
        except duckdb.ConnectionException:
            if self._closed:
                raise
            try:
                self.reopen()
            except UserError as error:  # its words name a path: they are for the log
                _log.error("%s", error)
                raise duckdb.ConnectionException("the database can't be opened") from error
            return self._con.cursor()

    def add_tables(self, tables: Mapping[str, pa.Table | Path]) -> dict[str, int]:
        """Insert rows of several tables in one transaction; see AnyStore."""
        with self.transaction():
            assert self._open_cursor is not None
            return {table: self._insert(self._open_cursor, table, rows) for table, rows in tables.items()}

    def add_files(
        self, files: Mapping[str, Sequence[Path]], check: Callable[[duckdb.DuckDBPyConnection], None]
    ) -> dict[str, int]:
        """Insert many rows from Parquet files, all or nothing, while others go on writing; how many are new.

        `check` sees what was inserted before it is committed, and raises to take it back. When another writer
        was at the same rows, it is done once more with everybody waiting.
        """
        new: dict[str, int] = {}
        for turn in (nullcontext(), self._lock):
            with turn:
                cursor = self._cursor()
                try:
                    cursor.execute("BEGIN")
                    for table, paths in files.items():
                        new[table] = sum(self._insert(cursor, table, path) for path in paths)
                    check(cursor)
                    cursor.execute("COMMIT")
                    break
                except (duckdb.TransactionException, duckdb.ConstraintException):
                    if turn is self._lock:
                        raise
                except duckdb.Error as error:
                    self._heal(error)
                    raise
                finally:
                    cursor.close()  # takes back what is not committed
        self._checkpoint_when_due()
        return new

    def _insert(self, cursor: duckdb.DuckDBPyConnection, table: str, rows: pa.Table | Path) -> int:
        before = self._count(cursor, table)
        source = "incoming"
        if isinstance(rows, Path):
            source = f"read_parquet({quoted(rows)})"
        else:
            cursor.register(source, rows)
        cursor.execute(f"INSERT INTO {table} BY NAME SELECT * FROM {source} ON CONFLICT DO NOTHING")
        if table == "vote":
            cursor.execute(
                "UPDATE assignment SET state = 'done' WHERE state <> 'done' "
                f"AND id IN (SELECT assignment_id FROM {source})"
            )
        if source == "incoming":
            cursor.unregister(source)
        return self._count(cursor, table) - before

    def insert(self, records: Sequence[Record], again: bool = False) -> None:
        """Insert records of one kind, for the short transaction of a vote.

        Unless `again`, none of them may be stored already (duckdb.ConstraintException). A few go as parameters,
        which takes half the time of an Arrow table; looking for conflicts costs as much as the insertion.
        """
        kind = type(records[0])
        names = [f.name for f in fields(kind)]
        conflict = " ON CONFLICT DO NOTHING" if again else ""
        with self.transaction():
            assert self._open_cursor is not None
            head = f"INSERT INTO {TABLE[kind]} ({', '.join(names)})"
            if len(records) <= AS_PARAMETERS:
                row = f"({', '.join('?' * len(names))})"
                self._open_cursor.execute(
                    f"{head} VALUES {', '.join([row] * len(records))}{conflict}",
                    [value for record in records for value in record_values(record)],
                )
                return
            self._open_cursor.register("incoming", record_table(records))
            self._open_cursor.execute(f"{head} SELECT {', '.join(names)} FROM incoming{conflict}")
            self._open_cursor.unregister("incoming")

    def put_run(self, run: Run) -> None:
        """Mirror a run record, so that SQL can join on it; `run.json` stays its home."""
        record = json.dumps({f.name: getattr(run, f.name) for f in fields(run)}, default=str)
        self._write(
            "INSERT INTO run (id, stage, status, record) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET status = excluded.status, record = excluded.record",
            [run.id, run.stage, run.status, record],
        )

    def raise_overlap(self, comparison_ids: Sequence[str], overlap: int) -> None:
        """Ask for at least so many annotators' answers on these comparisons."""
        raised = (
            "UPDATE comparison SET overlap = $1 WHERE overlap < $1 AND id IN (SELECT unnest($2::VARCHAR[]))"
        )
        self._write(raised, [overlap, list(comparison_ids)])

    def put_view(
        self, name: str, definition: Mapping[str, Any], weights: Mapping[str, float] | None, by: str | None
    ) -> None:
        """Save a view, or put it in another's place; see AnyStore."""
        given = None if weights is None else json.dumps(weights, sort_keys=True, allow_nan=False)
        self._write(
            "INSERT OR REPLACE INTO training_view (name, definition, weights, created_by, created_at) "
            "VALUES (?, ?, ?, ?, ?)",
            [name, json.dumps(definition), given, by, now()],
        )

    def delete_view(self, name: str) -> None:
        """Forget a view; see AnyStore."""
        self._write("DELETE FROM training_view WHERE name = ?", [name])

    def write(self, sql: str, params: Sequence[Any] = ()) -> None:
        """One writing statement in a transaction of its own, or in the one that is open."""
        self._write(sql, list(params))

    def checkpoint(self) -> bool:
        """Move the write-ahead log into the file; whether it was done. Not while a reader is busy, or without room.

        What fails here harms nothing: the log holds every commit until a checkpoint has succeeded.
        """
        with self._lock:
            try:
                if not database.room_to_checkpoint(self.path):
                    return False
                self._con.execute("CHECKPOINT")
            except (duckdb.Error, OSError) as error:
                self._heal(error)
                return False
            return True

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
        with self.reader() as cursor:
            return cursor.sql(sql, params=list(params)).to_arrow_table()

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The result of a query as one dict per row."""
        with self.reader() as cursor:
            result = cursor.execute(sql, list(params))
            names = [column[0] for column in result.description]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def value(self, sql: str, params: Sequence[Any] = ()) -> Any:
        """The first column of the first row, or None when there is no row."""
        with self.reader() as cursor:
            row = cursor.execute(sql, list(params)).fetchone()
            return row[0] if row else None

    def export(self, query: str, file: Path, options: str) -> int:
        """DuckDB writes the file itself, row by row; see AnyStore."""
        with self.reader() as cursor:
            return copied(cursor, query, file, options)

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor that can't write and sees no variables of this process: for queries from elsewhere."""
        cursor = self._cursor()
        try:
            cursor.execute("SET python_enable_replacements = false")
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            yield cursor
        except duckdb.Error as error:
            self._heal(error)
            raise
        finally:
            cursor.close()

    @contextmanager
    def reader(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor of the caller's own; inside `transaction` the one that sees what isn't committed yet."""
        if self._open_cursor is not None and self._lock.acquire(blocking=False):  # own uncommitted rows count
            try:
                if self._open_cursor is not None:
                    yield self._open_cursor
                    return
            finally:
                self._lock.release()
        cursor = self._cursor()
        try:
            yield cursor
        except duckdb.Error as error:
            self._heal(error)
            raise
        finally:
            cursor.close()
