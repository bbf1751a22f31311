"""Which comparison an annotator sees next, and how an answer becomes a vote.

The one code path for people at the screen, rule-based annotators and tests. It knows nothing of HTTP or of
screens, and it hands out no model names: an `Item` carries texts under the letters A, B, ... in the order in
which this annotator sees them, and a `Ballot` comes back in the same letters.

    item = next_item(store, annotator.id, random.Random())
    vote = cast(store, annotator.id, Ballot(new_id(), item.assignment_id, "ranked", (("B",), ("A",))))
"""

import json
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from palate.config import UserError
from palate.data.records import Annotator, AnnotatorKind, Assignment, Message, Verdict, Vote
from palate.data.store import Store, now

LETTERS = "ABCDEFGHI"
LEASE = timedelta(minutes=30)  # after so long without a sign of life, an item is offered to others again
VERDICTS: tuple[Verdict, ...] = ("ranked", "tie", "all_bad", "skip")
_VOTE_ID = re.compile(r"[0-9A-Za-z-]{8,64}")
_DAY = 86_400.0


class BallotRefused(UserError):
    """The answer can't be stored; the message says why, in words for the annotator."""


@dataclass(frozen=True)
class Answer:
    """What an annotator says about an item, in the item's letters."""

    verdict: Verdict
    ranking: tuple[tuple[str, ...], ...] = ()  # tiers of letters, best first; equal within a tier
    strength: int | None = None  # two answers only: 1 slightly, 2 better, 3 much better


@dataclass(frozen=True)
class Ballot(Answer):
    """An answer on its way in: to which item, under which id, after how long."""

    vote_id: str = ""  # made by the sender: sending it twice is one vote
    assignment_id: str = ""
    rationale: str | None = None
    seconds_visible: float | None = None
    seconds_active: float | None = None


@dataclass(frozen=True)
class Item:
    """What an annotator sees: the conversation and the answers, nothing about where they came from."""

    assignment_id: str
    messages: tuple[Message, ...]
    answers: tuple[tuple[str, str], ...]  # (letter, text) in the order shown
    earlier: Answer | None = None  # the standing vote, when it was taken back to be changed


# An assignment takes a slot of its comparison when it is answered (a skip is no answer) or being answered.
_OPEN = """
WITH answered AS (
    SELECT v.assignment_id FROM vote v
    WHERE v.verdict <> 'skip' AND NOT EXISTS (SELECT 1 FROM vote s WHERE s.supersedes = v.id)
), taken AS (
    SELECT a.comparison_id, count(*) AS slots FROM assignment a
    WHERE (a.state = 'open' AND a.leased_until > $2) OR a.id IN (SELECT assignment_id FROM answered)
    GROUP BY a.comparison_id
)
SELECT c.id, c.completion_ids, c.priority, coalesce(t.slots, 0) AS slots
FROM comparison c
LEFT JOIN taken t ON t.comparison_id = c.id
WHERE c.purpose IN ('train', 'random') AND coalesce(t.slots, 0) < c.overlap
  AND c.id NOT IN (SELECT comparison_id FROM assignment WHERE annotator_id = $1 AND state <> 'released')
"""

_KNOWN = "SELECT * FROM vote WHERE id IN (SELECT unnest(?))"


def annotator(store: Store, name: str, kind: AnnotatorKind = "human") -> Annotator:
    """The annotator of this name and kind, known from now on. The name is 1..60 visible characters."""
    name = " ".join(name.split())
    if not 1 <= len(name) <= 60 or not name.isprintable():
        raise UserError(f"an annotator's name takes 1 to 60 visible characters, got {name[:80]!r}")
    person = Annotator(name, kind)
    store.add_annotators([person])
    return person


def next_item(store: Store, annotator_id: str, rng: random.Random) -> Item | None:
    """What this annotator answers next, or None when nothing is open for them.

    Their open item comes back unchanged, in the order already drawn, so a reload changes nothing. Else one
    open comparison is taken: by `priority`, then those that others have begun (so agreement is known early),
    then in an order of the annotator's own. `rng` draws the order of its answers. Taking a slot is one transaction: two annotators never get the last slot both.
    """
    return next(iter(next_items(store, annotator_id, rng, 1)), None)


def next_items(store: Store, annotator_id: str, rng: random.Random, limit: int) -> list[Item]:
    """Up to `limit` items at once, for an annotator that answers faster than a database commits."""
    with store.transaction():
        held = _held(store, annotator_id, limit)
        return _items(store, held + _take(store, annotator_id, rng, limit - len(held)))


def cast(store: Store, annotator_id: str, ballot: Ballot, run_id: str | None = None) -> Vote:
    """Store one answer; it is on disk when this returns.

    The same vote id again is the same vote, whatever else the second ballot says. Answering an item that
    `undo` has re-opened supersedes the vote that stands. Raises BallotRefused and stores nothing when the
    ballot is not a complete ranking of exactly the answers shown, or the item is not the annotator's to answer.
    """
    return cast_all(store, annotator_id, [ballot], run_id)[0]


def cast_all(
    store: Store, annotator_id: str, ballots: Sequence[Ballot], run_id: str | None = None
) -> list[Vote]:
    """Store several answers of one annotator, all or none of them."""
    for ballot in ballots:
        if not _VOTE_ID.fullmatch(ballot.vote_id):
            raise BallotRefused(
                f"a vote's id must be 8 to 64 letters, digits or dashes, got {ballot.vote_id[:80]!r}"
            )
    with store.transaction():
        known = {row["id"]: row for row in store.rows(_KNOWN, [[ballot.vote_id for ballot in ballots]])}
        ids = [ballot.assignment_id for ballot in ballots]
        given = {
            row["id"]: row
            for row in store.rows("SELECT * FROM assignment WHERE id IN (SELECT unnest(?))", [ids])
        }
        standing = _standing(store, ids)
        votes, new = [], []
        for ballot in ballots:
            row = given.get(ballot.assignment_id)
            if row is None or row["annotator_id"] != annotator_id:
                raise BallotRefused("this item was not given to you; reload the page")
            if ballot.vote_id in known:
                if known[ballot.vote_id]["assignment_id"] != ballot.assignment_id:
                    raise BallotRefused("this vote's id belongs to another vote; reload the page")
                votes.append(_vote(known[ballot.vote_id]))
                continue
            if row["state"] == "done":
                raise BallotRefused(
                    "you have answered this item already (in another tab?); undo to change it"
                )
            old = standing.get(ballot.assignment_id)
            new.append(_new_vote(ballot, row["display_order"], old.id if old else None, run_id))
            votes.append(new[-1])
            given[ballot.assignment_id] = {**row, "state": "done"}
        if new:
            store.add_votes(new)
    return votes


def undo(store: Store, annotator_id: str) -> Item | None:
    """Re-open the annotator's last vote and return its item; their next answer to it supersedes the vote.

    Until then the vote stands. Again: the one before. None when there is nothing to take back. Imported and
    simulated votes are not taken back here.
    """
    with store.transaction():
        last = store.value(
            "SELECT v.assignment_id FROM vote v JOIN assignment a ON a.id = v.assignment_id "
            "WHERE a.annotator_id = ? AND a.state = 'done' AND v.run_id IS NULL "
            "AND NOT EXISTS (SELECT 1 FROM vote s WHERE s.supersedes = v.id) "
            "ORDER BY v.created_at DESC, v.id DESC LIMIT 1",
            [annotator_id],
        )
        if last is None:
            return None
        store.write(
            "UPDATE assignment SET state = 'open', leased_until = ? WHERE id = ?", [now() + LEASE, last]
        )
        return _items(store, [last])[0]


def progress(store: Store, annotator_id: str) -> tuple[int, int]:
    """(items this annotator has answered, comparisons that wait for them)."""
    done = store.value(
        "SELECT count(*) FROM assignment WHERE annotator_id = ? AND state = 'done'", [annotator_id]
    )
    left = store.value(f"SELECT count(*) FROM ({_OPEN})", [annotator_id, now()])
    return int(done), int(left)


def checked(answer: Answer, shown: int) -> Answer:
    """The answer in its one canonical form, or BallotRefused. `shown` is the number of answers, 2..9.

    A tie has one tier with every letter and, between two answers, strength 0; "all bad" and a skip have no
    ranking.
    """
    letters = LETTERS[:shown]
    if answer.verdict not in VERDICTS:
        raise BallotRefused(f"the verdict must be one of {', '.join(VERDICTS)}, got {answer.verdict!r}")
    if answer.verdict in ("all_bad", "skip"):
        if answer.ranking or answer.strength is not None:
            raise BallotRefused(f"'{answer.verdict}' takes no ranking")
        return Answer(answer.verdict)
    if answer.verdict == "tie":
        if answer.ranking and (len(answer.ranking) != 1 or sorted(answer.ranking[0]) != list(letters)):
            raise BallotRefused("a tie has one tier with every answer in it")
        return Answer("tie", (tuple(letters),), 0 if shown == 2 else None)
    named = [letter for tier in answer.ranking for letter in tier]
    if unknown := [letter for letter in named if letter not in letters]:
        raise BallotRefused(f"answer {unknown[0]!r} was not shown; the answers are {', '.join(letters)}")
    if len(set(named)) < len(named):
        raise BallotRefused("an answer stands twice in the ranking")
    if missing := [letter for letter in letters if letter not in named]:
        raise BallotRefused(f"the ranking must hold every answer; {', '.join(missing)} is missing")
    if not all(answer.ranking) or len(answer.ranking) < 2:
        raise BallotRefused("a ranking needs at least two tiers, none of them empty")
    if answer.strength is not None and (shown != 2 or answer.strength not in (1, 2, 3)):
        raise BallotRefused(f"strength is 1, 2 or 3 and only between two answers, got {answer.strength!r}")
    return Answer("ranked", tuple(answer.ranking), answer.strength)


def _new_vote(ballot: Ballot, order: Sequence[str], supersedes: str | None, run_id: str | None) -> Vote:
    """The ballot's letters resolved to completions by the order in which they were shown."""
    answer = checked(ballot, len(order))
    shown = dict(zip(LETTERS, order, strict=False))
    return Vote(
        assignment_id=ballot.assignment_id,
        verdict=answer.verdict,
        ranking=tuple(tuple(shown[letter] for letter in tier) for tier in answer.ranking),
        strength=answer.strength,
        rationale=(ballot.rationale or "").strip()[:2000] or None,
        seconds_visible=_seconds(ballot.seconds_visible),
        seconds_active=_seconds(ballot.seconds_active),
        supersedes=supersedes,
        created_at=now(),
        run_id=run_id,
        id=ballot.vote_id,
    )


def _held(store: Store, annotator_id: str, limit: int) -> list[str]:
    """The annotator's own open items, leases renewed; those that others have filled meanwhile are released."""
    rows = store.rows(
        "SELECT a.id, a.comparison_id, a.leased_until, EXISTS (SELECT 1 FROM vote v WHERE v.assignment_id = a.id)"
        " AS answered FROM assignment a WHERE a.annotator_id = ? AND a.state = 'open' "
        "ORDER BY answered DESC, a.created_at, a.id",
        [annotator_id],
    )
    held: list[str] = []
    for row in rows:
        if len(held) == limit:
            break
        expired = row["leased_until"] is None or row["leased_until"] <= now()
        if expired and not row["answered"] and _filled(store, row["comparison_id"]):
            store.write("UPDATE assignment SET state = 'released' WHERE id = ?", [row["id"]])
        else:
            held.append(str(row["id"]))
    if held:
        renewed = "UPDATE assignment SET leased_until = ? WHERE id IN (SELECT unnest(?))"
        store.write(renewed, [now() + LEASE, held])
    return held


def _filled(store: Store, comparison_id: str) -> bool:
    sql = f"SELECT count(*) FROM ({_OPEN}) WHERE id = $3"  # '' is nobody: has no assignments of their own
    return int(store.value(sql, ["", now(), comparison_id])) == 0


def _take(store: Store, annotator_id: str, rng: random.Random, limit: int) -> list[str]:
    """Take slots of open comparisons and draw the order of their answers."""
    if limit < 1:
        return []
    found = store.rows(
        f"{_OPEN} ORDER BY c.priority DESC, slots DESC, md5(c.id || $1) LIMIT $3",
        [annotator_id, now(), limit],
    )
    taken = []
    for row in found:
        order = list(row["completion_ids"])
        rng.shuffle(order)
        taken.append(Assignment(row["id"], annotator_id, tuple(order), leased_until=now() + LEASE))
    ids = [assignment.id for assignment in taken]
    if store.add_assignments(taken) < len(taken):  # some were released to others once, and not filled by them
        again = "UPDATE assignment SET state = 'open', leased_until = ? WHERE id IN (SELECT unnest(?))"
        store.write(again, [now() + LEASE, ids])
    return ids


def _items(store: Store, assignment_ids: Sequence[str]) -> list[Item]:
    """The items of these assignments, in their order."""
    if not assignment_ids:
        return []
    rows = store.rows(
        "SELECT a.id, a.display_order, p.messages FROM assignment a JOIN comparison c ON c.id = a.comparison_id "
        "JOIN prompt p ON p.id = c.prompt_id WHERE a.id IN (SELECT unnest(?))",
        [assignment_ids],
    )
    found = {row["id"]: row for row in rows}
    shown = [one for row in rows for one in row["display_order"]]
    wanted = store.rows("SELECT id, text FROM completion WHERE id IN (SELECT unnest(?))", [shown])
    texts = {row["id"]: str(row["text"]) for row in wanted}
    standing = _standing(store, assignment_ids)
    items = []
    for one in assignment_ids:
        letters = dict(zip(found[one]["display_order"], LETTERS, strict=False))
        answers = tuple((letter, texts[completion]) for completion, letter in letters.items())
        vote = standing.get(one)
        tiers = tuple(tuple(letters[c] for c in tier) for tier in vote.ranking) if vote else ()
        earlier = Answer(vote.verdict, tiers, vote.strength) if vote else None
        items.append(Item(one, tuple(json.loads(found[one]["messages"])), answers, earlier))
    return items


def _standing(store: Store, assignment_ids: Sequence[str]) -> dict[str, Vote]:
    """The vote that counts, for each of the assignments that has one."""
    rows = store.rows(
        "SELECT v.* FROM vote v WHERE v.assignment_id IN (SELECT unnest(?)) "
        "AND NOT EXISTS (SELECT 1 FROM vote s WHERE s.supersedes = v.id) ORDER BY v.created_at",
        [list(assignment_ids)],
    )
    return {row["assignment_id"]: _vote(row) for row in rows}


def _vote(row: dict[str, Any]) -> Vote:
    values = {name: row[name] for name in Vote.__dataclass_fields__}
    ranking = tuple(tuple(tier) for tier in row["ranking"])
    return replace(
        Vote(**{**values, "criteria": json.loads(row["criteria"])}),
        ranking=ranking,
        flags=tuple(row["flags"]),
    )


def _seconds(value: float | None) -> float | None:
    """A duration as measured by the browser; nonsense is stored as unknown."""
    return round(value, 2) if value is not None and math.isfinite(value) and 0 <= value <= _DAY else None
