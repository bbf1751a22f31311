"""Blind streaming: how several answers are revealed together, so that neither the order, nor the speed, nor the
size of pieces tells which model wrote which.

All answers begin at the same moment and grow by the same number of characters at the same ticks, whatever
arrives from where. The rhythm is set once, before the first character is shown, by the slowest of all models
asked (also when its answer is short or done), and it never quickens, also after the slowest has finished. When
one of them stalls nevertheless, all wait until every answer is complete; the rest then comes at once. Every
rule treats the answers alike, so exchanging who is fast and who is slow gives the same sequence of events.

What remains: the moment at which everything is there after such a wait depends on the last one, and an annotator
who knows how long each model takes for how much text might guess. Nothing here knows of HTTP.
"""

from collections.abc import Callable, Mapping
from typing import Any

from palate.labeling.chat import Draft

Event = dict[str, Any]
TICK = 0.1  # seconds between two pieces
AHEAD = (
    120  # characters that an unfinished answer must be ahead of what is shown: for the filter, against stalls
)
MEASURED = 160  # characters after which an endpoint's speed is known
SHARE = 0.7  # of the slowest endpoint's speed: room for a slower moment
SLOWEST, FASTEST = (
    30.0,
    200.0,
)  # characters a second; nobody reads faster than the first, below it all is awaited


class Speeds:
    """How fast endpoints write, by experience; kept in memory."""

    def __init__(self) -> None:
        self._known: dict[str, float] = {}

    def learn(self, draft: Draft) -> None:
        """Take a complete answer into account."""
        if (speed := draft.speed(MEASURED)) is not None:
            name = draft.endpoint.name
            self._known[name] = (self._known.get(name, speed) + speed) / 2

    def of(self, draft: Draft) -> float | None:
        """Characters a second of a draft's endpoint: from earlier answers, else as it writes now."""
        return self._known.get(draft.endpoint.name) or draft.speed(MEASURED)


class Reveal:
    """What the browser gets of some drafts, one `step` per tick. `leaks` says whether a text names its maker."""

    def __init__(self, drafts: Mapping[str, Draft], speeds: Speeds, leaks: Callable[[str], object]) -> None:
        self.drafts = dict(drafts)  # by letter; those that are left out disappear
        self.shown = 0  # characters of each answer
        self.done = False
        self._speeds = speeds
        self._leaks = leaks
        self._read = {
            letter: (0, False) for letter in drafts
        }  # how much of it `leaks` has seen, all of it or not
        self._size: int | None = None  # characters per tick, once the rhythm is known
        self._waits = False  # until everything is complete

    def step(self) -> list[Event]:
        """The events of one tick."""
        events = [self._without(letter, why) for letter, why in self._unfit().items()]
        complete = all(draft.finished for draft in self.drafts.values())
        if complete and (self._waits or self._size is None):
            return events + self._grow(max((len(draft.text) for draft in self.drafts.values()), default=0))
        if self._size is None:
            self._set_rhythm()
        if self._size is not None and not self._waits:
            lead = AHEAD if self.shown else AHEAD + round(self._size / TICK)
            if self._all_ahead(self.shown + self._size + lead):
                return events + self._grow(self._size)
            self._waits = self.shown > 0
        return events

    def _grow(self, size: int) -> list[Event]:
        """Every answer, longer by `size` characters or complete."""
        start, self.shown = self.shown, self.shown + size
        add = {letter: draft.text[start : self.shown] for letter, draft in self.drafts.items()}
        longest = max((len(draft.text) for draft in self.drafts.values()), default=0)
        self.done = self._all_ahead(longest + 1) and self.shown >= longest
        add = {letter: piece for letter, piece in add.items() if piece}
        return [{"event": "text", "add": add}] if add else []

    def _all_ahead(self, length: int) -> bool:
        return all(draft.finished or len(draft.text) >= length for draft in self.drafts.values())

    def _set_rhythm(self) -> None:
        speeds = [self._speeds.of(draft) for draft in self.drafts.values()]
        if any(speed is None for speed in speeds):
            return
        rate = min([SHARE * speed for speed in speeds if speed is not None], default=FASTEST)
        self._size = max(1, round(min(rate, FASTEST) * TICK))
        self._waits = rate < SLOWEST

    def _unfit(self) -> dict[str, str]:
        """Answers to leave out, and why: broken off, or about to show who wrote them."""
        found = {}
        for letter, draft in self.drafts.items():
            if draft.failure is not None:
                found[letter] = "broken"
                continue
            read, whole = self._read[letter]
            if whole or (len(draft.text) == read and not draft.finished):
                continue
            self._read[letter] = (len(draft.text), draft.finished)
            if self._leaks(draft.text if draft.finished else draft.text[max(0, read - 2 * AHEAD) :]):
                found[letter] = "identity"
        return found

    def _without(self, letter: str, why: str) -> Event:
        del self.drafts[letter]
        return {"event": "withdrawn", "letter": letter, "why": why}
