"""Words in prompts, answers and rationales: which texts hold which, found by reading them.

No index is kept: half a gigabyte of texts is read in a third of a second, and there is nothing to keep up to date. A
word is found anywhere in a text, whatever its case, as people type it: "refund" finds "Refunds".
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from palate.data.store import Store

Codes = NDArray[np.uint64]  # hashes of ids
Longs = NDArray[np.int64]  # rowids


@dataclass(frozen=True)
class Hits:
    """The texts that hold one of the words at least. N = texts."""

    key: NDArray[Any]  # (N,) what a text is known by
    bits: NDArray[np.uint8]  # (N,) which words: the first one's bit is 1

    def of(self, place: int) -> NDArray[Any]:
        """The keys of the texts that hold the word at this place."""
        return self.key[(self.bits >> place) & 1 > 0]


def in_prompts(store: Store, words: Sequence[str], among: Codes | None = None) -> Hits:
    """The prompts, of `among` or of all, by the hash of their id; all turns of a conversation are searched.

    Their JSON is looked through first, since taking the texts out of it takes longer; what stands around the texts
    there ("role"), and the n of an escaped line break, are no hits.
    """
    in_json = [_pattern(json.dumps(word, ensure_ascii=False)[1:-1], r"(?:\s|\\[nrt])+") for word in words]
    text = "array_to_string(messages ->> '$[*].content', chr(10)) AS text"
    source = _source("prompt", among, "hash(id)", "hash(id) AS key, messages")
    rows = f"SELECT key, {text} FROM {source} WHERE regexp_matches(messages, ?, 'i')"
    with _narrowed(store, among) as cursor:
        return _hits(cursor, f"({rows})", words, ["(?:" + "|".join(in_json) + ")"])


def in_answers(store: Store, words: Sequence[str], among: Longs | None = None) -> Hits:
    """The completions, of `among` or of all, by rowid: nothing ever changes or deletes one."""
    with _narrowed(store, among) as cursor:
        return _hits(cursor, _source("completion", among, "rowid", "rowid AS key, text"), words)


def in_rationales(store: Store, words: Sequence[str]) -> Hits:
    """The votes, superseded ones too, by the hash of their id."""
    rows = "(SELECT hash(id) AS key, rationale AS text FROM vote WHERE rationale IS NOT NULL)"
    with _narrowed(store, None) as cursor:
        return _hits(cursor, rows, words)


def _hits(
    cursor: duckdb.DuckDBPyConnection, rows: str, words: Sequence[str], params: Sequence[str] = ()
) -> Hits:
    """One pass over the rows, whose columns are key and text. `params` are the parameters of `rows`."""
    patterns = [_pattern(word) for word in words]
    if len(patterns) == 1:
        sql = f"SELECT key, 1::UTINYINT AS bits FROM {rows} WHERE regexp_matches(text, ?, 'i')"
        found = cursor.execute(sql, [*params, *patterns]).fetchnumpy()
    else:
        each = " | ".join(f"(regexp_matches(text, ?, 'i')::UTINYINT << {i})" for i in range(len(patterns)))
        sql = f"SELECT key, bits FROM (SELECT key, ({each})::UTINYINT AS bits FROM {rows}) WHERE bits > 0"
        found = cursor.execute(sql, [*patterns, *params]).fetchnumpy()
    return Hits(found["key"], found["bits"])


def _source(table: str, among: NDArray[Any] | None, key: str, columns: str) -> str:
    """The rows that are read: materialised, or DuckDB would look for the word in all of them first."""
    if among is None:
        return f"(SELECT {columns} FROM {table})"
    few = f"SELECT {columns} FROM {table} WHERE {key} IN (SELECT one FROM among)"
    return f"(WITH few AS MATERIALIZED ({few}) FROM few)"


@contextmanager
def _narrowed(store: Store, among: NDArray[Any] | None) -> Iterator[duckdb.DuckDBPyConnection]:
    with store.reader() as cursor:
        if among is None:
            yield cursor
            return
        cursor.register("among", pa.table({"one": among}))
        try:
            yield cursor
        finally:
            cursor.unregister("among")


def _pattern(word: str, space: str = r"\s+") -> str:
    """A regular expression that finds just this; a space in a phrase stands for any white space."""
    return space.join(re.sub(r"([^\w])", r"\\\1", part) for part in word.split())
