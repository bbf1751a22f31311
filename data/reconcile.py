"""Database and journal brought to the same votes, at start and after a recovery.

A vote that only the journal has was lost by the database (DuckDB drops, without a word, what follows a torn place
in its write-ahead log): it is inserted, with all it needs. A vote of a person that only the database has was not
acknowledged in time, or is older than the journal: it is appended.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from palate.data import journal
from palate.data.columns import TABLE, Record
from palate.data.journal import Damage, Journal
from palate.data.records import Annotator, Assignment, Comparison, Completion, Prompt, Vote
from palate.data.store import Store

_ORDER = (
    Annotator,
    Prompt,
    Completion,
    Comparison,
    Assignment,
    Vote,
)  # what is needed stands before what needs it
_JSON = ("messages", "meta", "sampling", "criteria")
_CHUNK = 2_000  # votes appended at once


@dataclass(frozen=True)
class Reconciliation:
    """What was done, and what can't be read."""

    inserted: int = 0  # votes that came back from the journal
    appended: int = 0  # votes that the journal lacked
    damage: tuple[Damage, ...] = ()
    incomplete: int = 0  # votes that came back without the texts they are about: those lines can't be read

    def __str__(self) -> str:
        """One line, empty when nothing was to be done."""
        said = []
        if self.inserted:
            said.append(f"{_votes(self.inserted)} came back from the journal")
        if self.incomplete:
            said.append(f"{self.incomplete} of them without their texts")
        if self.appended:
            said.append(f"{_votes(self.appended)} of the database went into the journal")
        for broken in self.damage:
            if not broken.torn:
                said.append(f"line {broken.line} of the journal's {broken.file} can't be read")
        return "; ".join(said)


def reconcile(store: Store, folder: Path, insert_only: bool = False) -> Reconciliation:
    """Insert the votes that only the journal has, append the votes of people that only the database has."""
    damage: list[Damage] = []
    by_file = {path: journal.vote_ids([path], damage) for path in journal.files(folder)}
    journaled = set().union(*by_file.values())
    lost, missing = _compared(store, journaled)
    for path, found in by_file.items():
        if not lost.isdisjoint(found):
            replay(store, path)
    missing = [] if insert_only else missing
    if missing:
        append(store, folder, missing)
    return Reconciliation(len(lost), len(missing), tuple(damage), _incomplete(store, lost) if lost else 0)


def _compared(store: Store, journaled: set[str]) -> tuple[set[str], list[str]]:
    """(ids that only the journal has, votes of people that only the database has). Ids of millions stay there."""
    with store.reader() as cursor:
        cursor.register("journaled", pa.table({"id": pa.array(journaled, pa.string())}))
        lost = cursor.execute(
            "SELECT j.id FROM journaled j LEFT JOIN vote v ON v.id = j.id WHERE v.id IS NULL"
        ).fetchall()
        missing = cursor.execute(
            "SELECT id FROM vote WHERE run_id IS NULL AND id NOT IN (SELECT id FROM journaled) ORDER BY rowid"
        ).fetchall()
        cursor.unregister("journaled")
    return {row[0] for row in lost}, [row[0] for row in missing]


def replay(store: Store, path: Path) -> None:
    """Insert whatever one file of the journal holds and the database lacks, all or nothing."""
    records: dict[type, dict[str, Record]] = {kind: {} for kind in _ORDER}
    for raw in journal.lines_of(path):
        record = journal.record(journal.parse(raw))
        records[type(record)].setdefault(record.id, record)  # type: ignore[union-attr]
    store.add_all(*(list(records[kind].values()) for kind in _ORDER))


def append(store: Store, folder: Path, vote_ids: Sequence[str]) -> None:
    """Append votes of the database, with what they need, to a file of their own."""
    written: set[str] = set()
    opened = Journal(folder)
    try:
        for start in range(0, len(vote_ids), _CHUNK):
            if opened.file.stat().st_size == 0:
                written.clear()
            lines = [
                line for line in _lines(store, vote_ids[start : start + _CHUNK]) if line["id"] not in written
            ]
            opened.append(lines)
            written.update(line["id"] for line in lines)
    finally:
        opened.close()


def _lines(store: Store, vote_ids: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    votes = _rows(store, Vote, vote_ids)
    assignments = _rows(store, Assignment, {row["assignment_id"] for row in votes})
    comparisons = _rows(store, Comparison, {row["comparison_id"] for row in assignments})
    shown = {name for row in comparisons for name in row["completion_ids"]}
    edits = [row["edited_text"] for row in votes if row["edited_text"] is not None]
    if edits:  # an edited answer is a completion of its own
        prompts = [row["prompt_id"] for row in comparisons]
        shown |= {
            row["id"]
            for row in store.rows(
                "SELECT id FROM completion WHERE role = 'edit' AND prompt_id IN (SELECT unnest(?)) "
                "AND text IN (SELECT unnest(?))",
                [prompts, edits],
            )
        }
    yield from _rows(store, Annotator, {row["annotator_id"] for row in assignments})
    yield from _rows(store, Prompt, {row["prompt_id"] for row in comparisons})
    yield from _rows(store, Completion, shown)
    yield from comparisons
    yield from assignments
    yield from votes


def _rows(store: Store, kind: type[Record], ids: Sequence[str] | set[str]) -> list[dict[str, Any]]:
    """Rows of a table as lines of the journal."""
    names = ", ".join(field.name for field in fields(kind))
    order = " ORDER BY created_at, id" if kind is Vote else ""
    found = store.rows(
        f"SELECT {names} FROM {TABLE[kind]} WHERE id IN (SELECT unnest(?)){order}", [list(ids)]
    )
    for row in found:
        for name in _JSON:
            if name in row:
                row[name] = json.loads(row[name])
    return [journal.as_line(TABLE[kind], row) for row in found]


def _incomplete(store: Store, vote_ids: set[str]) -> int:
    whole = store.value(
        "SELECT count(*) FROM vote v JOIN assignment a ON a.id = v.assignment_id "
        "JOIN comparison c ON c.id = a.comparison_id JOIN prompt p ON p.id = c.prompt_id "
        "WHERE v.id IN (SELECT unnest(?))",
        [list(vote_ids)],
    )
    return len(vote_ids) - int(whole)


def _votes(n: int) -> str:
    return "1 vote" if n == 1 else f"{n:,} votes"
