"""Live questions: a person asks, models at several endpoints answer blind, and the answers become a comparison
that this person ranks like any other.

What a browser gets are letters and text. Which model writes under which letter is drawn per question; names of
endpoints, their addresses, errors and speeds stay here (`pacing` hides the last). A question costs the process
a few sockets: models run elsewhere, and votes never wait for them.
"""

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from random import SystemRandom
from typing import Any

import duckdb
import httpx

from palate.config import UserError
from palate.data.records import Assignment, Comparison, Completion, Message, Prompt
from palate.data.store import Store
from palate.labeling.ballots import LETTERS
from palate.labeling.chat import Draft, new_client, write
from palate.labeling.endpoints import MOST_ANSWERS, Endpoint
from palate.labeling.filters import identity_leak, plainly, same
from palate.labeling.login import Refused
from palate.labeling.pacing import TICK, Event, Reveal, Speeds
from palate.labeling.throttle import Throttle

PER_PERSON, IN_ALL = 1, 8  # questions that are being answered at once
PACE = 30, 600.0  # questions of a person in so many seconds
LONGEST_QUESTION = 8_000  # characters
MOST_TURNS, LONGEST_TALK = 40, 100_000  # of a conversation: messages, characters
PRIORITY = 1_000
ALIVE = 1.0  # seconds after which a silent stream says that it lives
Offer = Callable[
    [Comparison, Sequence[str]], None
]  # a stored comparison, and the order in which it was shown

log = logging.getLogger("palate.live")
_rng = SystemRandom()

_ASKED = """
SELECT c.id, c.prompt_id, c.completion_ids, p.messages, p.meta, a.id AS assignment, a.display_order,
       v.id AS vote, v.verdict, v.ranking, v.edited_text
FROM comparison c
JOIN prompt p ON p.id = c.prompt_id
JOIN assignment a ON a.comparison_id = c.id AND a.annotator_id = c.reserved_for
LEFT JOIN current_vote v ON v.assignment_id = a.id
WHERE c.strategy = 'live' AND c.reserved_for = $1 AND ($2 IS NULL OR a.id = $2)
  AND v.adjudicated IS NOT TRUE
ORDER BY c.created_at DESC LIMIT 1
"""


@dataclass(frozen=True)
class Question:
    """A conversation that awaits answers."""

    messages: tuple[Message, ...]
    answers: int
    group: str | None = None  # the first prompt of the conversation: all its turns are held out, or none


@dataclass(frozen=True)
class Asked:
    """A person's earlier question."""

    assignment: str
    messages: tuple[Message, ...]
    group: str
    shown: tuple[str, ...]  # completion ids in the order in which they were shown
    vote: str | None
    preferred: str | None  # the answer to continue from; None: not ranked, or none was good


class Live:
    """Asks, reveals and stores. One per process, on its event loop."""

    def __init__(self, store: Store, offer: Offer, endpoints: Sequence[Endpoint]) -> None:
        self.endpoints = tuple(endpoints)
        self.most = min(MOST_ANSWERS, sum(endpoint.samples for endpoint in endpoints))
        self._store, self._offer = store, offer
        self._speeds = Speeds()
        self._pace = Throttle(*PACE)
        self._open: dict[str, int] = {}  # person -> questions that are being answered
        self._client: httpx.AsyncClient | None = None
        names = {
            plainly(name)
            for endpoint in endpoints
            for name in (endpoint.name, endpoint.model)
            if len(name) > 2
        }
        said = "|".join(map(re.escape, sorted(names))) or "(?!)"
        self._introduces = re.compile(
            rf"\b(?:i am|i'm|my name is|call me)\s+(?:an?\s|the\s)?(?:{said})", re.IGNORECASE
        )

    # -- what a person asks ------------------------------------------------------------------------------

    def question(self, person: str, text: str, after: str | None, answers: int | None) -> Question:
        """What a person typed, after the question they continue (an assignment's id), as a question; or Refused."""
        if not self.endpoints:
            raise Refused(
                409, "no_endpoints", "there are no models to ask; whoever runs this project can add some"
            )
        text = text.strip()
        if not 0 < len(text) <= LONGEST_QUESTION:
            raise Refused(
                422, "invalid", f"a question takes 1 to {LONGEST_QUESTION} characters, it has {len(text)}"
            )
        if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
            raise Refused(422, "invalid", "the question holds characters that are no text")
        number = answers if answers is not None else self.most
        if not 2 <= number <= self.most:
            raise Refused(422, "invalid", f"2 to {self.most} answers can be asked for, not {number}")
        turn = {"role": "user", "content": text}
        if after is None:
            return Question((turn,), number)
        earlier = self.asked(person, after)
        if earlier is None:
            raise Refused(404, "not_found", "this conversation is not yours, or it is gone; begin a new one")
        if earlier.preferred is None:
            raise Refused(
                409, "not_ranked", "rank the answers first; the one you prefer is what you continue from"
            )
        messages = (*earlier.messages, {"role": "assistant", "content": earlier.preferred}, turn)
        if len(messages) > MOST_TURNS or sum(len(m["content"]) for m in messages) > LONGEST_TALK:
            raise Refused(422, "too_long", "this conversation has become too long; begin a new one")
        return Question(messages, number, earlier.group)

    def asked(self, person: str, assignment: str | None = None) -> Asked | None:
        """A person's question by its assignment, or their latest one; None when there is none."""
        rows = self._store.rows(_ASKED, [person, assignment])
        if not rows:
            return None
        row = rows[0]
        messages = tuple(json.loads(row["messages"]))
        group = str(json.loads(row["meta"]).get("group") or row["prompt_id"])
        shown = tuple(row["display_order"])
        return Asked(row["assignment"], messages, group, shown, row["vote"], self._preferred(row))

    def _preferred(self, row: Mapping[str, Any]) -> str | None:
        """The better text that the person wrote, else the best answer; of equal ones the first shown."""
        if row["vote"] is None or row["edited_text"]:
            return row["edited_text"] or None
        if row["verdict"] not in ("ranked", "tie") or not row["ranking"]:
            return None
        best = min(row["ranking"][0], key=list(row["display_order"]).index)
        return str(self._store.value("SELECT text FROM completion WHERE id = ?", [best]))

    # -- asking ------------------------------------------------------------------------------------------

    async def ask(self, person: str, question: Question) -> AsyncGenerator[Event]:
        """What the browser gets to hear of a question, until its answers are stored.

        Refused, before the first event, when too much is asked at once. Closing the iterator ends everything.
        """
        self._enter(person)
        tasks: list[asyncio.Task[None]] = []
        try:
            slots = [endpoint for endpoint in self.endpoints for _ in range(endpoint.samples)]
            chosen = _rng.sample(slots, question.answers)
            drafts = {letter: _draft(endpoint) for letter, endpoint in zip(LETTERS, chosen, strict=False)}
            yield {"event": "asked", "letters": list(drafts)}
            tasks += self._begin(drafts.values(), question)
            reveal = Reveal(drafts, self._speeds, self._leaks)
            silent = 0.0
            while not reveal.done:
                await asyncio.sleep(TICK)
                events = reveal.step()
                silent = 0.0 if events else silent + TICK
                if silent > ALIVE:
                    events, silent = [{"event": "writing"}], 0.0
                for event in events:
                    yield event
            left = reveal.drafts
            for draft in left.values():
                self._speeds.learn(draft)
            again = {letter: _draft(left[letter].endpoint) for letter in _repeating(left)}
            for letter in again:
                yield {"event": "again", "letter": letter}
            tasks += self._begin(again.values(), question)
            while not all(draft.over for draft in again.values()):
                await asyncio.sleep(ALIVE)
                yield {"event": "writing"}
            for letter, draft in again.items():
                del left[letter]
                if why := self._unfit(draft, left):
                    yield {"event": "withdrawn", "letter": letter, "why": why}
                else:
                    left[letter] = draft
                    yield {"event": "text", "add": {letter: draft.text}}
            _tell_log([*drafts.values(), *again.values()])
            order = [letter for letter in LETTERS if letter in left]
            yield await self._finish(person, question, {letter: left[letter] for letter in order})
        finally:
            for task in tasks:
                task.cancel()
            self._leave(person)

    def _begin(self, drafts: Sequence[Draft] | Any, question: Question) -> list[asyncio.Task[None]]:
        if self._client is None:  # connections of its own: a crowd of slow models keeps nobody else waiting
            self._client = new_client(IN_ALL * MOST_ANSWERS)
        return [asyncio.create_task(write(self._client, draft, question.messages)) for draft in drafts]

    def _leaks(self, text: str) -> bool:
        return identity_leak(text) is not None or self._introduces.search(plainly(text)) is not None

    def _unfit(self, draft: Draft, others: Mapping[str, Draft]) -> str | None:
        """Why an answer that was asked for again is left out."""
        if draft.failure is not None:
            return "broken"
        if self._leaks(draft.text):
            return "identity"
        return "same" if any(same(other.text, draft.text) for other in others.values()) else None

    def _enter(self, person: str) -> None:
        """Take a place, or Refused in words."""
        if self._open.get(person, 0) >= PER_PERSON:
            raise Refused(
                429, "slow_down", "your last question is still being answered; stop it first, or wait"
            )
        if sum(self._open.values()) >= IN_ALL:
            raise Refused(
                429, "slow_down", f"{IN_ALL} questions are being answered right now; try again in a minute"
            )
        if (wait := self._pace.wait(person)) > 0:
            most, seconds = PACE
            raise Refused(
                429, "slow_down",
                f"you have asked {most} questions in {seconds / 60:.0f} minutes; go on in {wait / 60:.0f} min",
            )  # fmt: skip
        self._pace.mark(person)
        self._open[person] = self._open.get(person, 0) + 1

    def _leave(self, person: str) -> None:
        self._open[person] -= 1
        if not self._open[person]:
            del self._open[person]

    # -- storing -----------------------------------------------------------------------------------------

    async def _finish(self, person: str, question: Question, drafts: Mapping[str, Draft]) -> Event:
        """Store what came and say how it ended."""
        if len(drafts) < 2:
            return {"event": "failed", "code": "too_few"}
        try:
            return await asyncio.to_thread(self._save, person, question, drafts)
        except (duckdb.Error, OSError, UserError) as error:
            log.warning("a live question could not be stored: %s", error)
            return {"event": "failed", "code": "not_stored"}

    def _save(self, person: str, question: Question, drafts: Mapping[str, Draft]) -> Event:
        """The comparison as a person's next item. Its letters are those on the screen, moved up where one is gone."""
        group = {"group": question.group} if question.group else {}
        prompt = Prompt(question.messages, source="live", meta={"author": person, **group})
        completions = {letter: _completion(prompt.id, draft) for letter, draft in drafts.items()}
        shown = tuple(completion.id for completion in completions.values())
        comparison = Comparison(
            prompt.id, tuple(sorted(shown)), strategy="live", priority=PRIORITY, reserved_for=person
        )
        assignment = Assignment(comparison.id, person, shown).id
        earlier = self.asked(person, assignment)
        if earlier is not None and earlier.vote is not None:
            return {"event": "failed", "code": "known"}
        if earlier is None:
            self._store.add_all([prompt], list(completions.values()), [comparison])
            self._offer(comparison, shown)
        else:  # the very same answers still wait to be ranked, in the order of the first time
            shown = earlier.shown
        letters = {letter: LETTERS[shown.index(completion.id)] for letter, completion in completions.items()}
        return {"event": "done", "assignment": assignment, "letters": letters}


def _draft(endpoint: Endpoint) -> Draft:
    return Draft(endpoint, _rng.randrange(2**31))


def _repeating(drafts: Mapping[str, Draft]) -> list[str]:
    """Letters whose answer repeats that of an earlier letter."""
    kept: list[str] = []
    for letter, draft in drafts.items():
        if not any(same(drafts[other].text, draft.text) for other in kept):
            kept.append(letter)
    return [letter for letter in drafts if letter not in kept]


def _completion(prompt_id: str, draft: Draft) -> Completion:
    endpoint = draft.endpoint
    return Completion(
        prompt_id,
        draft.text.rstrip(),
        model=endpoint.model,
        sampling=endpoint.sampling,
        seed=draft.seed,
        finish_reason=draft.finish_reason,
        meta={"endpoint": endpoint.name} | ({"system": endpoint.system} if endpoint.system else {}),
    )


def _tell_log(drafts: Sequence[Draft]) -> None:
    """Failures with the endpoint's name, for whoever runs the server."""
    for draft in drafts:
        if draft.failure is not None:
            log.warning("endpoint %s: %s", draft.endpoint.name, draft.failure)
