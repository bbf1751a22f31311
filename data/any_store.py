"""What a stage may ask of a store, whether the database is here (`Store`) or behind a server (`RemoteStore`)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import pyarrow as pa

from palate.data.columns import TABLE, Record, record_table
from palate.data.records import Annotator, Assignment, Comparison, Completion, Prompt, Run, Vote


class AnyStore(ABC):
    """What a stage may ask of a store, whether the database is here or behind a running server."""

    @abstractmethod
    def table(self, sql: str, params: Sequence[Any] = ()) -> pa.Table:
        """The result of a query as an Arrow table."""

    @abstractmethod
    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The result of a query as one dict per row."""

    @abstractmethod
    def value(self, sql: str, params: Sequence[Any] = ()) -> Any:
        """The first column of the first row, or None when there is no row."""

    @abstractmethod
    def export(self, query: str, file: Path, options: str) -> int:
        """Write the result of a query to a file on this machine, as COPY's `options` say; how many rows."""

    @abstractmethod
    def add_tables(self, tables: Mapping[str, pa.Table | Path]) -> dict[str, int]:
        """Insert rows of several tables, all or nothing; returns how many are new, by table.

        Rows are an Arrow table or Parquet files (a path, possibly with a pattern) with the table's columns.
        Rows whose id is known stay as they are. Votes mark their assignments done.
        """

    @abstractmethod
    def put_run(self, run: Run) -> None:
        """Mirror a run record, so that SQL can join on it; `run.json` stays its home."""

    @abstractmethod
    def raise_overlap(self, comparison_ids: Sequence[str], overlap: int) -> None:
        """Ask for at least so many annotators' answers on these comparisons."""

    @abstractmethod
    def put_view(
        self, name: str, definition: Mapping[str, Any], weights: Mapping[str, float] | None, by: str | None
    ) -> None:
        """Save a view (data.training_views), or put it in another's place. A server makes the weights itself."""

    @abstractmethod
    def delete_view(self, name: str) -> None:
        """Forget a view; runs that took it keep its definition."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the store holds; nothing may be asked afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, records: Sequence[Record]) -> int:
        """Insert records of one kind; those whose id is known stay as they are. Returns how many are new."""
        return self.add_all(records)[0]

    def add_all(self, *groups: Sequence[Record]) -> list[int]:
        """Insert groups of records, each of one kind, all or nothing; returns how many of each are new."""
        tables = [TABLE[type(group[0])] if group else "" for group in groups]
        filled = {table: record_table(group) for table, group in zip(tables, groups, strict=True) if group}
        new = self.add_tables(filled) if filled else {}
        return [new.get(table, 0) for table in tables]

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
        """Append votes; a vote whose id is known is the same vote. Their assignments are done."""
        return self.add(votes)

    def add_table(self, table: str, rows: pa.Table | Path) -> int:
        """Insert an Arrow table, or Parquet files with the table's columns; returns how many rows are new."""
        return self.add_tables({table: rows})[table]

    def counts(self) -> dict[str, int]:
        """How many rows each table of records holds."""
        each = ", ".join(f"(SELECT count(*) FROM {name}) AS {name}" for name in TABLE.values())
        return dict(self.rows(f"SELECT {each}")[0])


def copied(con: duckdb.DuckDBPyConnection, query: str, file: Path, options: str) -> int:
    """Have DuckDB write the result of a query to a file; returns how many rows it has."""
    return int(con.execute(f"COPY ({query}) TO {quoted(file)} ({options})").fetchall()[0][0])


def quoted(path: Path) -> str:
    """A path as a SQL string."""
    return "'" + str(path).replace("'", "''") + "'"
