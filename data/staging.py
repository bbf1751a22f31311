"""Rows of files to Parquet files of records, chunk by chunk: any number of rows in little memory.

A chunk is a few thousand rows and is worked on alone, so chunks may run in several processes. Nothing here
touches the database; `palate.data.importing` moves the finished files into it in one transaction.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from palate.data.columns import record_table
from palate.data.formats import Kind, Shape, shape_of
from palate.data.formats_item import BadRow, Item, Row, plain
from palate.data.readers import Payload, Unreadable, parse_line
from palate.data.records import (
    Annotator,
    AnnotatorKind,
    Assignment,
    Comparison,
    Completion,
    Prompt,
    Vote,
    digest,
)

Record = Prompt | Completion | Comparison | Annotator | Assignment | Vote
# The staged files' names begin with one of these. An unnamed vote is one whose file gives it no id: it is
# named after its content, and the same content twice in one file is two votes (see importing).
TABLES = ("prompt", "completion", "comparison", "annotator", "assignment", "vote")
UNNAMED = "unnamed"
# names that mean nobody outside their file: they are prefixed with the source
_NUMBERED = re.compile(r"(annotator|rater|worker|judge|user|expert|crowd)?[\s_-]*\d*", re.IGNORECASE)


@dataclass(frozen=True)
class Plan:
    """What all chunks of one file share."""

    file: int  # place among the files of this import
    name: str  # as messages call it
    source: str  # for rows that name no source
    forced_source: bool  # --source was given: it wins over the rows' own
    kind: Kind | None  # --as, or None for "by the columns"
    group_by: str | None
    run_id: str
    folder: Path


@dataclass
class Outcome:
    """What became of a chunk, or of a whole file when they are added up."""

    rows: int = 0
    shapes: Counter[tuple[str, str]] = field(default_factory=Counter)  # (kind, columns) -> rows
    ungrouped: int = 0  # prompts that --group-by does not match
    dropped: set[str] = field(default_factory=set)  # columns that were not kept
    rejects: list[dict[str, Any]] = field(default_factory=list)
    rejected: int = 0

    def add(self, other: "Outcome") -> None:
        """Count another chunk in; its rejected rows are only counted."""
        self.rows += other.rows
        self.shapes += other.shapes
        self.ungrouped += other.ungrouped
        self.dropped |= other.dropped
        self.rejected += other.rejected


def stage(plan: Plan, number: int, chunk: list[tuple[int, Payload]]) -> Outcome:
    """Write chunk `number` as Parquet files of records, named by table, file and chunk."""
    outcome = Outcome(rows=len(chunk))
    shapes: dict[tuple[Any, ...], Shape] = {}  # by the columns and the types in them
    staged: dict[str, dict[str, Record]] = {name: {} for name in (*TABLES, UNNAMED)}
    for line, payload in chunk:
        row = parse_line(payload)
        try:
            if isinstance(row, Unreadable):
                raise BadRow(row.reason)
            key = (*row, *map(type, row.values()))
            if (shape := shapes.get(key)) is None:
                shape = shapes[key] = _as_kind(shape_of(row), plan.kind)
            made = [pair for item in shape.items(row) for pair in _records(item, plan, outcome)]
        except BadRow as error:
            outcome.rejects.append(_reject(plan, line, str(error), row))
            continue
        outcome.shapes[shape.kind, shape.says] += 1
        for table, record in made:
            # the first record of an id stays; unnamed votes are all kept
            staged[table].setdefault(record.id if table != UNNAMED else str(len(staged[UNNAMED])), record)
    for table, records in staged.items():
        if records:
            path = plan.folder / f"{table}-{plan.file:03d}-{number:06d}.parquet"
            pq.write_table(record_table(list(records.values())), path, compression="zstd")
    outcome.rejected = len(outcome.rejects)
    return outcome


def _reject(plan: Plan, line: int, reason: str, row: Row | Unreadable) -> dict[str, Any]:
    said = row.raw if isinstance(row, Unreadable) else plain(row)
    return {"file": plan.name, "line": line, "reason": reason, "row": said}


def _as_kind(shape: Shape, forced: Kind | None) -> Shape:
    """The shape, read as what --as says; BadRow when the columns can't be that."""
    if forced is None or forced == shape.kind:
        return shape
    if forced == "prompts":
        return Shape("prompts", shape.says, partial(_prompts_only, shape=shape))
    if {forced, shape.kind} == {"preferences", "rankings"}:
        return Shape(forced, shape.says, shape.items)
    raise BadRow(f"--as {forced}, but the columns look like {shape.kind}: {shape.says}")


def _prompts_only(row: Row, shape: Shape) -> list[Item]:
    return [
        Item(item.messages, meta=item.meta, tags=item.tags, split=item.split, source=item.source)
        for item in shape.items(row)
    ]


def _records(item: Item, plan: Plan, outcome: Outcome) -> Iterator[tuple[str, Record]]:
    """(table, record) of all that an item says."""
    source = plan.source if plan.forced_source or item.source is None else item.source
    meta = item.meta
    if plan.group_by is not None:
        found = re.search(plan.group_by, item.messages[-1]["content"])
        group = found and found.group(min(1, found.re.groups))
        if group:
            meta = {**meta, "group": group}
        else:
            outcome.ungrouped += 1
    outcome.dropped.update(item.dropped)
    prompt = Prompt(item.messages, source, item.split, item.tags, meta, plan.run_id)
    yield "prompt", prompt
    ids = []
    for answer in item.answers:
        completion = Completion(
            prompt.id, answer.text, answer.model, finish_reason=answer.finish_reason, role=answer.role,
            meta=answer.meta, run_id=plan.run_id,
        )  # fmt: skip
        ids.append(completion.id)
        yield "completion", completion
    if not item.compared:
        return
    comparison = Comparison(prompt.id, tuple(ids), "imported", purpose=item.purpose, run_id=plan.run_id)
    yield "comparison", comparison
    # in which order answers were shown is often unknown: then it stays empty and no statistic uses it
    shown = tuple(ids) if item.shown else ()
    for judged in item.judgements:
        annotator = _annotator(judged.annotator, judged.kind, source)
        named = judged.assignment_id
        if shown and not judged.id:
            # a file may show one pair to one person twice, in both orders: then these are two assignments
            named = digest("assignment", comparison.id, annotator.id, shown)
        assignment = Assignment(comparison.id, annotator.id, shown, "done", id=named)
        yield "annotator", annotator
        yield "assignment", assignment
        ranking = tuple(tuple(ids[place] for place in tier) for tier in judged.tiers)
        content = ("vote", comparison.id, annotator.id, judged.time, judged.verdict, ranking)
        vote = Vote(
            assignment.id, judged.verdict, ranking, judged.strength, judged.criteria, judged.rationale,
            judged.flags, judged.edited_text, judged.seconds_visible, judged.seconds_active,
            judged.guideline_version, supersedes=judged.supersedes, created_at=judged.time, run_id=plan.run_id,
            adjudicated=judged.adjudicated, id=judged.id or digest(*content),
        )  # fmt: skip
        yield "vote" if judged.id else UNNAMED, vote


@lru_cache(maxsize=10_000)
def _annotator(name: str | None, kind: AnnotatorKind, source: str) -> Annotator:
    """Who judged: the name in the file; with the source when the name alone says nothing."""
    if name is None:
        name = f"import:{source}"
    elif _NUMBERED.fullmatch(name):
        name = f"{source}:{name}"
    return Annotator(name, kind, meta={"imported": True})
