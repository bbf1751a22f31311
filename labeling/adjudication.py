"""Adjudication: a lead reads an item that people are split on, with all votes and reasons, and decides.

A decision is a vote with `adjudicated` set, through the same writer and journal as any vote: when `decide` returns, it
is committed and in the journal. It is its own kind. It never counts as agreement, fills no slot of an item that still
awaits answers, and an item that has one leaves the queue.

Whose vote it is. An assignment's id is a digest of ("assignment", comparison, annotator), so one annotator has one
standing vote per item. A lead may have answered the item as an annotator before; that answer was independent, and the
decision must not supersede it. So a decision has an assignment of its own, with ("adjudication", comparison, lead) in
the digest: both votes stand beside each other, and databases, exports and the journal need no rule for that.

What it replaces. An item has one decision. A new one supersedes the one that stands, whoever made it: two leads'
contradicting decisions would else both count, on an item that is in no queue any more. So that nobody overrules a
decision that they have not seen, `decide` is told which one was on the screen (`replaces`).

Blind. The lead sees who voted how, not which model wrote what: answers stand under letters, in an order drawn by hash
for this item and lead, so that a reload changes nothing.
"""

import threading
from dataclasses import dataclass, replace
from datetime import datetime
from random import Random
from typing import Any

from palate.data.records import AnnotatorKind, Assignment, Message, Purpose, Vote, digest
from palate.data.store import Store
from palate.labeling import contents
from palate.labeling.ballots import (
    LETTERS,
    Answer,
    Ballot,
    BallotRefused,
    check_id,
    edited,
    to_answer,
    to_vote,
)
from palate.labeling.contents import Content
from palate.labeling.desk import Desk
from palate.labeling.recall import to_vote_record
from palate.labeling.writer import Entry

# each of the two big tables is read once: conditions on a few values are pushed into it
_VOTES = """
SELECT v.*, s.annotator_id, s.display_order, n.name, n.kind
FROM (SELECT * FROM assignment WHERE comparison_id = $1) s
JOIN vote v ON v.assignment_id = s.id
JOIN annotator n ON n.id = s.annotator_id
ORDER BY v.adjudicated IS TRUE, v.created_at, v.id
"""
_DECISION = """
SELECT v.id, v.supersedes
FROM (SELECT * FROM vote WHERE adjudicated) v
JOIN (SELECT id FROM assignment WHERE comparison_id = $1) s ON s.id = v.assignment_id
ORDER BY v.created_at DESC, v.id
"""


class NoSuchItem(BallotRefused):
    """There is no such comparison, or its texts are missing."""


@dataclass(frozen=True)
class Cast:
    """A standing vote as the lead sees it, in the letters of their screen."""

    id: str
    annotator: str
    kind: AnnotatorKind
    answer: Answer
    at: datetime  # UTC
    seconds_active: float | None
    by_me: bool


@dataclass(frozen=True)
class Case:
    """An item to decide."""

    comparison_id: str
    prompt_id: str
    messages: tuple[Message, ...]
    answers: tuple[tuple[str, str], ...]  # (letter, text)
    source: str
    tags: tuple[str, ...]
    purpose: Purpose
    votes: tuple[Cast, ...]  # oldest first
    decision: Cast | None  # the one that stands


class Adjudicator:
    """Shows cases and takes decisions. One per process."""

    def __init__(self, store: Store, desk: Desk) -> None:
        self._store, self._desk = store, desk
        self._deciding = threading.Lock()  # one at a time: an item has one decision
        self._decided: set[str] = set()

    def decided_since_start(self) -> frozenset[str]:
        """Comparisons that were decided since the start: the facts learn of them some seconds later."""
        return frozenset(self._decided)

    def case(self, comparison_id: str, lead: str) -> Case:
        """The item with everything a lead decides by; NoSuchItem."""
        content = self._content(comparison_id)
        order = _order(content, lead)
        texts = content.texts()
        rows = self._store.rows(_VOTES, [comparison_id])
        gone = {row["supersedes"] for row in rows}
        cast = [self._cast(row, order, lead) for row in rows if row["id"] not in gone]
        decided = {row["id"] for row in rows if row["adjudicated"]}
        return Case(
            comparison_id,
            content.prompt.id,
            content.messages,
            tuple((LETTERS[i], texts[name]) for i, name in enumerate(order)),
            content.prompt.source,
            content.prompt.tags,
            content.comparison.purpose,
            tuple(vote for vote in cast if vote.id not in decided),
            next((vote for vote in reversed(cast) if vote.id in decided), None),
        )

    def decide(self, lead: str, comparison_id: str, ballot: Ballot, replaces: str | None = None) -> Vote:
        """Store a decision, in the letters of the lead's case; durable when this returns.

        The same vote id again is the same decision. `replaces` is the id of the decision that the lead saw standing.
        Raises BallotRefused and stores nothing when the ballot does not fit the item, or when another decision was
        made meanwhile (code "answered"); NotStored when the disk does not take it.
        """
        check_id(ballot.vote_id)
        content = self._content(comparison_id)
        order = _order(content, lead)
        assignment = Assignment(comparison_id, lead, order, id=digest("adjudication", comparison_id, lead))
        with self._deciding:
            known = self._store.rows("SELECT * FROM vote WHERE id = ?", [ballot.vote_id])
            if known and known[0]["assignment_id"] != assignment.id:
                raise BallotRefused("this vote's id belongs to another vote; reload the page")
            if known:
                self._desk.flush()  # the journal has it too, or this says that it does not
                return to_vote_record(known[0])
            standing = self._standing(comparison_id)
            if standing != replaces:
                raise BallotRefused(
                    "somebody decided this item meanwhile; reload the page to see how", "answered"
                )
            given = replace(ballot, assignment_id=assignment.id)
            vote = replace(to_vote(given, order, self._desk.rules, standing, None), adjudicated=True)
            new = not self._store.rows("SELECT 1 FROM assignment WHERE id = ?", [assignment.id])
            better = edited(given, order, content.prompt.id, lead)
            self._desk.add(Entry(vote, assignment, content, better), new).result()
            self._decided.add(comparison_id)
            return vote

    def _content(self, comparison_id: str) -> Content:
        found = contents.read(self._store, [comparison_id])
        if not found:
            raise NoSuchItem(f"there is no item {comparison_id[:80]!r}, or its texts are gone", "not_found")
        return found[0]

    def _standing(self, comparison_id: str) -> str | None:
        """The id of the item's decision."""
        rows = self._store.rows(_DECISION, [comparison_id])
        gone = {row["supersedes"] for row in rows}
        return next((str(row["id"]) for row in rows if row["id"] not in gone), None)

    def _cast(self, row: dict[str, Any], order: tuple[str, ...], lead: str) -> Cast:
        vote = to_vote_record(row)
        edit_of = self._desk.recall.edit_of(vote) if vote.edited_text is not None else None
        return Cast(
            vote.id,
            row["name"],
            row["kind"],
            to_answer(vote, order, edit_of),
            row["created_at"],
            vote.seconds_active,
            row["annotator_id"] == lead,
        )


def _order(content: Content, lead: str) -> tuple[str, ...]:
    """The order in which this lead sees the answers: all of them, also those that annotators were not shown."""
    order = list(content.comparison.completion_ids)
    Random(digest("adjudication", content.comparison.id, lead)).shuffle(order)
    return tuple(order)
