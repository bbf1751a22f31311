"""Records as Arrow tables: the columns of each kind, as the database has them.

record_table([Prompt(...)])     # JSON columns as text, ready for Store.add_tables or a Parquet file
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, TypeVar

import pyarrow as pa

from palate.data.records import (
    Annotator,
    Assignment,
    Comparison,
    Completion,
    Feature,
    Prompt,
    Score,
    Vote,
    canonical,
)

Item = TypeVar("Item")
Record = Prompt | Completion | Comparison | Annotator | Assignment | Vote | Score | Feature

TABLE: dict[type, str] = {
    Prompt: "prompt",
    Completion: "completion",
    Comparison: "comparison",
    Annotator: "annotator",
    Assignment: "assignment",
    Vote: "vote",
    Score: "score",
    Feature: "feature",
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
    "adjudicated": pa.bool_(),
    "seconds_visible": pa.float64(),
    "seconds_active": pa.float64(),
    "mean": pa.float64(),
    "std": pa.float64(),
    "vector": pa.list_(pa.float32()),
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


def record_values(record: Record) -> list[Any]:
    """A record's values, column for column, as parameters of a statement."""
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    for name in _JSON & values.keys():
        values[name] = canonical(values[name])
    if "created_at" in values:
        values["created_at"] = values["created_at"] or now()
    return list(values.values())


def batches(records: Iterable[Item], size: int = 10_000) -> Iterator[list[Item]]:
    """Chunks of at most `size` records, so that a generator never becomes one big list."""
    chunk: list[Item] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
