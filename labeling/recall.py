"""What an annotator did before, read from the store: their votes, their pace, an item to show once more."""

import json
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from palate.data.records import Assignment, Comparison, Vote, digest
from palate.data.store import Store, now
from palate.labeling.ballots import Ballot, BallotRefused, answer_json, to_answer

ANSWERED = "you have answered this item already (in another tab?); undo to change it"
FILLED = "enough others have answered this item meanwhile, so your answer was not needed"

_STANDING = "v.id NOT IN (SELECT supersedes FROM vote WHERE supersedes IS NOT NULL)"
# adjudications are not among them: they are made and changed elsewhere
_MINE = (
    "FROM vote v JOIN assignment a ON a.id = v.assignment_id "
    f"WHERE a.annotator_id = ? AND v.adjudicated IS NOT TRUE AND {_STANDING}"
)

_LIST = f"""
SELECT v.*, a.display_order, p.messages {_MINE.replace("WHERE", "JOIN comparison c ON c.id = a.comparison_id JOIN prompt p ON p.id = c.prompt_id WHERE")}
  AND v.run_id IS NULL AND (? IS NULL OR v.created_at < ?)
ORDER BY v.created_at DESC, v.id DESC LIMIT ?
"""

_TO_REPEAT = f"""
WITH mine AS (
    SELECT a.comparison_id, a.display_order, c.prompt_id, c.completion_ids, v.created_at,
           row_number() OVER (ORDER BY v.created_at DESC) AS age
    FROM vote v JOIN assignment a ON a.id = v.assignment_id JOIN comparison c ON c.id = a.comparison_id
    WHERE a.annotator_id = $1 AND v.run_id IS NULL AND v.verdict IN ('ranked', 'tie')
      AND v.adjudicated IS NOT TRUE AND c.purpose IN ('train', 'random') AND {_STANDING}
)
SELECT * FROM mine WHERE age > $2 AND comparison_id NOT IN (
    SELECT repeats FROM comparison WHERE repeats IS NOT NULL AND reserved_for = $1)
ORDER BY md5(comparison_id || $1) LIMIT 1
"""


class Recall:
    """Reads of one store, for the desk."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def pace(self, person: str) -> tuple[int, int, list[float]]:
        """(items answered, of them today, seconds of the latest answers, oldest first)."""
        done = self._store.value(
            "SELECT count(*) FROM assignment WHERE annotator_id = ? AND state = 'done' "
            "AND id NOT IN (SELECT assignment_id FROM vote WHERE adjudicated)",
            [person],
        )
        rows = self._store.rows(
            f"SELECT v.seconds_active AS seconds, v.created_at {_MINE} AND v.run_id IS NULL "
            "ORDER BY v.created_at DESC LIMIT 200",
            [person],
        )
        start = now().replace(hour=0, minute=0, second=0, microsecond=0)
        today = self._store.value(f"SELECT count(*) {_MINE} AND v.created_at >= ?", [person, start])
        return int(done), int(today), [row["seconds"] for row in reversed(rows) if row["seconds"] is not None]

    def vote(self, person: str, ballot: Ballot) -> Vote | None:
        """The stored vote of this ballot's id on this ballot's item, if there is one: it was sent before."""
        rows = self._store.rows(
            "SELECT v.* FROM vote v JOIN assignment a ON a.id = v.assignment_id "
            "WHERE v.id = ? AND v.assignment_id = ? AND a.annotator_id = ?",
            [ballot.vote_id, ballot.assignment_id, person],
        )
        return to_vote_record(rows[0]) if rows else None

    def why_not(self, person: str, assignment_id: str) -> BallotRefused:
        """Why an item that this annotator does not hold can't be answered by them."""
        rows = self._store.rows("SELECT annotator_id, state FROM assignment WHERE id = ?", [assignment_id])
        if not rows or rows[0]["annotator_id"] != person:
            return BallotRefused("this item was not given to you; reload the page", "not_yours")
        if rows[0]["state"] == "done":
            return BallotRefused(ANSWERED, "answered")
        return BallotRefused(FILLED, "filled")

    def last(self, person: str) -> str | None:
        """The id of the annotator's latest standing vote that is not taken back already."""
        found = self._store.value(
            f"SELECT v.id {_MINE} AND v.run_id IS NULL AND a.state = 'done' "
            "ORDER BY v.created_at DESC, v.id DESC LIMIT 1",
            [person],
        )
        return None if found is None else str(found)

    def standing(self, person: str, vote_id: str) -> tuple[Assignment, Vote] | None:
        """An own standing vote with its assignment; None when it is not theirs, or was superseded."""
        rows = self._store.rows(
            f"SELECT v.*, a.comparison_id, a.display_order {_MINE} AND v.run_id IS NULL AND v.id = ?",
            [person, vote_id],
        )
        if not rows:
            return None
        row = rows[0]
        order = tuple(row["display_order"])
        return Assignment(row["comparison_id"], person, order, id=row["assignment_id"]), to_vote_record(row)

    def edit_of(self, vote: Vote) -> str | None:
        """Which completion the better answer of this vote was made from."""
        if vote.edited_text is None:
            return None
        found = self._store.value(  # by its text: the same text of a later vote is the same completion
            "SELECT m.meta ->> '$.edit_of' FROM completion m JOIN comparison c ON c.prompt_id = m.prompt_id "
            "JOIN assignment a ON a.comparison_id = c.id WHERE a.id = ? AND m.role = 'edit' AND m.text = ?",
            [vote.assignment_id, vote.edited_text],
        )
        return None if found is None else str(found)

    def mine(self, person: str, limit: int, before: datetime | None) -> list[dict[str, Any]]:
        """The annotator's own standing votes, newest first, in the letters of the orders shown."""
        found = []
        for row in self._store.rows(_LIST, [person, before, before, limit]):
            vote, order = to_vote_record(row), tuple(row["display_order"])
            answer = answer_json(replace(to_answer(vote, order), edit=None))
            question = next((m["content"] for m in reversed(json.loads(row["messages"]))), "")
            found.append(
                {
                    "id": vote.id,
                    "assignment": vote.assignment_id,
                    "created_at": vote.created_at.isoformat() if vote.created_at else None,
                    "prompt": question[:200],
                    "answers": len(order),
                    "edited": vote.edited_text is not None,
                    **{
                        k: answer[k]
                        for k in ("verdict", "ranking", "strength", "reason", "flags", "rationale")
                    },
                }
            )
        return found

    def to_repeat(self, person: str, after: int) -> tuple[Comparison, tuple[str, ...]] | None:
        """An own item, answered at least `after` items ago, as a comparison of its own in reversed order."""
        rows = self._store.rows(_TO_REPEAT, [person, after])
        if not rows:
            return None
        row = rows[0]
        comparison = Comparison(
            row["prompt_id"],
            tuple(row["completion_ids"]),
            strategy="repeat",
            purpose="repeat",
            reserved_for=person,
            repeats=row["comparison_id"],
            id=digest("repeat", row["comparison_id"], person),
        )
        return comparison, tuple(reversed(row["display_order"]))


def to_vote_record(row: dict[str, Any]) -> Vote:
    """A row of the vote table as a record."""
    values = {f.name: row[f.name] for f in fields(Vote)}
    return Vote(
        **{
            **values,
            "criteria": json.loads(row["criteria"]),
            "ranking": tuple(tuple(tier) for tier in row["ranking"]),
            "flags": tuple(row["flags"]),
            "adjudicated": bool(row["adjudicated"]),
        }
    )
