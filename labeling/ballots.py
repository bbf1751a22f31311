"""What an annotator says about an item, checked and turned into a vote. Pure functions: no database, no HTTP.

An `Item` carries texts under the letters A, B, ... in the order in which this annotator sees them; a `Ballot`
comes back in the same letters and is resolved to completions by the order that was stored when it was shown.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from palate.config import UserError
from palate.data.records import Completion, Message, Verdict, Vote
from palate.data.store import now

LETTERS = "ABCDEFGHI"
VERDICTS: tuple[Verdict, ...] = ("ranked", "tie", "all_bad", "skip")
REASONS = ("unclear", "language", "expertise", "broken", "other")  # why an item is skipped
FLAGS = ("unsafe", "broken", "personal", "language", "identical")
LONGEST_RATIONALE = 2_000  # characters
LONGEST_EDIT = 100_000
_VOTE_ID = re.compile(r"[0-9A-Za-z-]{8,64}")
_DAY = 86_400.0


class BallotRefused(UserError):
    """The answer can't be stored; the message says why, in words for the annotator. `code` is for programs."""

    def __init__(self, message: str, code: str = "invalid") -> None:
        super().__init__(message)
        self.code = code  # invalid | filled | answered | not_yours | nothing_to_undo


@dataclass(frozen=True)
class Answer:
    """What an annotator says about an item, in the item's letters."""

    verdict: Verdict
    ranking: tuple[tuple[str, ...], ...] = ()  # tiers of letters, best first; equal within a tier
    strength: int | None = None  # two answers only: 1 slightly, 2 better, 3 much better
    reason: str | None = None  # of a skip: one of REASONS
    flags: tuple[tuple[str, str | None], ...] = ()  # (one of FLAGS, the letter or None for the whole item)
    criteria: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # criterion -> letter -> 1..5
    rationale: str | None = None
    edit: tuple[str, str] | None = None  # (letter, the better text)


@dataclass(frozen=True)
class Ballot(Answer):
    """An answer on its way in: to which item, under which id, after how long."""

    vote_id: str = ""  # made by the sender: sending it twice is one vote
    assignment_id: str = ""
    seconds_visible: float | None = None
    seconds_active: float | None = None
    guideline_version: int | None = None


@dataclass(frozen=True)
class Item:
    """What an annotator sees: the conversation and the answers, nothing about where they came from."""

    assignment_id: str
    messages: tuple[Message, ...]
    answers: tuple[tuple[str, str], ...]  # (letter, text) in the order shown
    earlier: Answer | None = None  # the standing vote, when it was taken back to be changed
    standing: str | None = None  # its id


@dataclass(frozen=True)
class Rules:
    """What a ballot of this project may hold."""

    partial: bool = True  # a ranking of three or more answers may leave some out
    criteria: tuple[str, ...] = ()


def check_id(vote_id: str) -> None:
    """BallotRefused unless it can be a vote's id."""
    if not _VOTE_ID.fullmatch(vote_id):
        raise BallotRefused(f"a vote's id must be 8 to 64 letters, digits or dashes, got {vote_id[:80]!r}")


def checked(answer: Answer, shown: int, rules: Rules) -> Answer:
    """The answer in its one canonical form, or BallotRefused. `shown` is the number of answers, 2..9.

    A tie has one tier with every letter and, between two answers, strength 0; "all bad" and a skip have no
    ranking. Whatever else was said (flags, ratings, a better text) is checked and kept with any verdict.
    """
    letters = LETTERS[:shown]
    if answer.verdict not in VERDICTS:
        raise BallotRefused(f"the verdict must be one of {', '.join(VERDICTS)}, got {answer.verdict!r}")
    ranking, strength = _checked_ranking(answer, letters, rules.partial)
    if answer.reason is not None and (answer.verdict != "skip" or answer.reason not in REASONS):
        raise BallotRefused(f"a skip's reason is one of {', '.join(REASONS)}, got {answer.reason!r}")
    return Answer(
        answer.verdict,
        ranking,
        strength,
        answer.reason,
        _checked_flags(answer, letters),
        _checked_criteria(answer, letters, rules.criteria),
        (answer.rationale or "").strip()[:LONGEST_RATIONALE] or None,
        _checked_edit(answer, letters),
    )


def _checked_ranking(
    answer: Answer, letters: str, partial: bool
) -> tuple[tuple[tuple[str, ...], ...], int | None]:
    """(tiers, strength) in canonical form."""
    if answer.verdict in ("all_bad", "skip"):
        if answer.ranking or answer.strength is not None:
            raise BallotRefused(f"'{answer.verdict}' takes no ranking")
        return (), None
    if answer.verdict == "tie":
        if answer.ranking and (len(answer.ranking) != 1 or sorted(answer.ranking[0]) != list(letters)):
            raise BallotRefused("a tie has one tier with every answer in it")
        return (tuple(letters),), 0 if len(letters) == 2 else None
    named = [letter for tier in answer.ranking for letter in tier]
    if unknown := [letter for letter in named if letter not in letters]:
        raise BallotRefused(f"answer {unknown[0]!r} was not shown; the answers are {', '.join(letters)}")
    if len(set(named)) < len(named):
        raise BallotRefused("an answer stands twice in the ranking")
    missing = [letter for letter in letters if letter not in named]
    if missing and (not partial or len(letters) == 2):
        raise BallotRefused(f"the ranking must hold every answer; {', '.join(missing)} is missing")
    if not all(answer.ranking) or len(answer.ranking) < 2:
        raise BallotRefused("a ranking needs at least two tiers, none of them empty")
    if answer.strength is not None and (len(letters) != 2 or answer.strength not in (1, 2, 3)):
        raise BallotRefused(f"strength is 1, 2 or 3 and only between two answers, got {answer.strength!r}")
    return tuple(answer.ranking), answer.strength


def _checked_flags(answer: Answer, letters: str) -> tuple[tuple[str, str | None], ...]:
    for name, letter in answer.flags:
        if name not in FLAGS or (letter is not None and letter not in letters):
            raise BallotRefused(
                f"a flag is one of {', '.join(FLAGS)}, on the item or on an answer shown; got {name!r} on {letter!r}"
            )
    return tuple(sorted(set(answer.flags), key=lambda pair: (pair[0], pair[1] or "")))


def _checked_criteria(
    answer: Answer, letters: str, known: tuple[str, ...]
) -> Mapping[str, Mapping[str, int]]:
    for criterion, ratings in answer.criteria.items():
        if criterion not in known:
            raise BallotRefused(f"{criterion!r} is not rated here; what is: {', '.join(known) or 'nothing'}")
        for letter, rating in ratings.items():
            if letter not in letters or not 1 <= rating <= 5:
                raise BallotRefused(
                    f"'{criterion}' takes 1 to 5 for an answer shown, got {rating!r} for {letter!r}"
                )
    return {name: dict(ratings) for name, ratings in answer.criteria.items() if ratings}


def _checked_edit(answer: Answer, letters: str) -> tuple[str, str] | None:
    if answer.edit is None:
        return None
    letter, text = answer.edit
    if letter not in letters:
        raise BallotRefused(f"the edited answer must be one of {', '.join(letters)}, got {letter!r}")
    if not text.strip() or len(text) > LONGEST_EDIT:
        raise BallotRefused(f"an edited answer takes 1 to {LONGEST_EDIT:,} characters, got {len(text):,}")
    return letter, text


def to_vote(
    ballot: Ballot, order: Sequence[str], rules: Rules, supersedes: str | None, run_id: str | None
) -> Vote:
    """The ballot's letters resolved to completions by the order in which they were shown."""
    answer = checked(ballot, len(order), rules)
    shown = dict(zip(LETTERS, order, strict=False))
    return Vote(
        assignment_id=ballot.assignment_id,
        verdict=answer.verdict,
        ranking=tuple(tuple(shown[letter] for letter in tier) for tier in answer.ranking),
        strength=answer.strength,
        criteria={
            name: {shown[letter]: rating for letter, rating in ratings.items()}
            for name, ratings in answer.criteria.items()
        },
        rationale=answer.rationale,
        flags=tuple(f"{name}:{shown[letter]}" if letter else name for name, letter in answer.flags),
        edited_text=answer.edit[1] if answer.edit else None,
        seconds_visible=_seconds(ballot.seconds_visible),
        seconds_active=_seconds(ballot.seconds_active),
        guideline_version=ballot.guideline_version,
        reason=answer.reason,
        supersedes=supersedes,
        created_at=now(),
        run_id=run_id,
        id=ballot.vote_id,
    )


def edited(ballot: Ballot, order: Sequence[str], prompt_id: str, person_id: str) -> Completion | None:
    """The better answer that came with a ballot: a demonstration whose author is known, so it is never theirs to rank."""
    if ballot.edit is None:
        return None
    letter, text = ballot.edit
    origin = order[LETTERS.index(letter)]
    meta = {"author": person_id, "edit_of": origin, "vote_id": ballot.vote_id}
    return Completion(prompt_id, text, "person", role="edit", meta=meta, finish_reason="stop")


def to_answer(vote: Vote, order: Sequence[str], edit_of: str | None = None) -> Answer:
    """A stored vote in the letters of the order shown. `edit_of`: the completion that was edited."""
    letter = {completion: LETTERS[i] for i, completion in enumerate(order)}
    flags = [name.partition(":") for name in vote.flags]
    return Answer(
        vote.verdict,
        tuple(tuple(letter[completion] for completion in tier) for tier in vote.ranking),
        vote.strength,
        vote.reason,
        tuple((name, letter.get(completion)) for name, _, completion in flags),
        {
            name: {letter[completion]: rating for completion, rating in ratings.items()}
            for name, ratings in vote.criteria.items()
            if isinstance(ratings, dict)
        },
        vote.rationale,
        (letter[edit_of], vote.edited_text) if vote.edited_text and edit_of in letter else None,
    )


def answer_json(answer: Answer) -> dict[str, Any]:
    """An answer as the page takes it."""
    found = {f.name: getattr(answer, f.name) for f in fields(Answer)}
    found["flags"] = [{"flag": name, "letter": letter} for name, letter in answer.flags]
    found["edit"] = {"letter": answer.edit[0], "text": answer.edit[1]} if answer.edit else None
    return found


def _seconds(value: float | None) -> float | None:
    """A duration as measured by the browser; nonsense is stored as unknown."""
    return round(value, 2) if value is not None and math.isfinite(value) and 0 <= value <= _DAY else None
