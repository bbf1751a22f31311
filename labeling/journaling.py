"""Votes as lines of the journal, each file self-contained: whatever a vote needs stands before it.

From the journal alone a database can be rebuilt with every vote of a person, its assignment, and the texts it
judged (`palate recover`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from palate.data.journal import Journal, line
from palate.data.records import Annotator
from palate.data.store import Store
from palate.labeling.writer import Entry


class VoteJournal:
    """Appends votes to a journal; called by the writer's thread only."""

    def __init__(self, journal: Journal, store: Store) -> None:
        self._journal, self._store = journal, store
        self._file: Path | None = None
        self._known: set[str] = set()  # ids of what this file holds already

    def __call__(self, entries: Sequence[Entry]) -> None:
        """Append these votes and what they need; on disk when it returns, else OSError and none of them is."""
        if self._journal.file != self._file:
            self._file, self._known = self._journal.file, set()
        lines: list[Mapping[str, Any]] = []
        new: set[str] = set()
        for entry in entries:
            for record in self._needed(entry):
                if record.id not in self._known and record.id not in new:
                    new.add(record.id)
                    lines.append(line(record))
            lines.append(line(entry.vote))
        self._journal.append(lines)
        self._known |= new

    def _needed(self, entry: Entry) -> list[Any]:
        records: list[Any] = []
        if entry.assignment.annotator_id not in self._known:
            records.append(self._annotator(entry.assignment.annotator_id))
        if entry.content is not None and entry.content.comparison.id not in self._known:
            content = entry.content
            records += [content.prompt, *content.completions, content.comparison]
        records += [entry.assignment]
        return records + ([entry.edit] if entry.edit is not None else [])

    def _annotator(self, person: str) -> Annotator:
        rows = self._store.rows("SELECT name, kind, role FROM annotator WHERE id = ?", [person])
        if not rows:
            return Annotator(person, id=person)
        return Annotator(rows[0]["name"], rows[0]["kind"], rows[0]["role"], id=person)
