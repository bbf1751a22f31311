"""Exports of a listing: all rows of a query with the columns of the screen, and the query in the file.

A file is written in parts of some thousand rows: beside them only the rows' numbers are in memory, 32 bytes each.

    export = Export.of(finder, facts, query)            # while the facts stay as they are
    export.parquet(file); export.csv()                  # afterwards, for as long as it takes

CSV: the first line is a comment, `# query: ?tag=billing&q=refund` (pandas: `read_csv(..., comment="#", skiprows=1)`),
the second names the columns. A text that a spreadsheet would run as a formula, since it begins with = + - @ or a
control character, gets an apostrophe in front (OWASP, "CSV injection"). Parquet: the query is in the key-value
metadata under `query`, texts are as they are.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from palate.data.facts import Facts
from palate.data.store import Store
from palate.labeling.review_data import Finder, columns_of, wanted
from palate.labeling.review_query import Query, written
from palate.labeling.review_rows import Wanted, table_of
from palate.labeling.statistics.panels import Cell

PART = 20_000  # rows
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\0")
_TYPES = {"text": pa.string(), "count": pa.int64(), "number": pa.float64(), "seconds": pa.float64()}


def schema_of(query: Query) -> pa.Schema:
    """The columns of an export, with the query among the metadata."""
    columns = [(column.key, _TYPES[column.unit]) for column in columns_of(query)]
    return pa.schema(columns, metadata={"query": said(query)})


def said(query: Query) -> str:
    """The query as it stands in a file; never empty."""
    return written(query) or "?"


@dataclass(frozen=True)
class Export:
    """All rows of a query, found and not read yet."""

    store: Store
    query: Query
    wanted: Wanted

    @classmethod
    def of(cls, finder: Finder, facts: Facts, query: Query) -> "Export":
        """What is found now; later votes are not in it."""
        asked = finder.asked(facts, query)
        return cls(finder.store, query, wanted(asked, finder.find(asked)))

    def parts(self) -> Iterator[pa.Table]:
        """The rows, some thousand at a time."""
        schema = schema_of(self.query)
        for first in range(0, self.wanted.n, PART):
            part = self.wanted.part(first, first + PART)
            yield table_of(self.store, part).select(schema.names).cast(schema)

    def parquet(self, file: IO[bytes]) -> int:
        """Write the rows to a file; returns how many there are."""
        with pq.ParquetWriter(file, schema_of(self.query), compression="zstd") as writer:
            for part in self.parts():
                writer.write_table(part)
        return self.wanted.n

    def csv(self) -> Iterator[bytes]:
        """The lines of a CSV file in UTF-8, some thousand at a time."""
        yield f"# query: {said(self.query)}\r\n{','.join(schema_of(self.query).names)}\r\n".encode()
        for part in self.parts():
            out = io.StringIO()
            columns = [column.to_pylist() for column in part.columns]
            csv.writer(out).writerows([guarded(cell) for cell in row] for row in zip(*columns, strict=True))
            yield out.getvalue().encode("utf-8", "replace")


def guarded(cell: Cell) -> Cell:
    """A cell that no spreadsheet runs as a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
