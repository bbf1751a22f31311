"""What annotators have before them: items, until when they are theirs, and their own pace."""

import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from palate.data.records import Assignment, Vote

REMEMBERED = 200  # answering times per annotator behind the median


class Filled(Exception):
    """The answer has no slot any more: others have answered meanwhile."""


@dataclass
class Held:
    """An item that an annotator has before them."""

    assignment: Assignment
    standing: Vote | None = None  # the vote that stands, when it was taken back to be changed
    opening: "Future[None] | None" = None  # when it is durable that it is theirs
    pending: "tuple[Vote, Future[None]] | None" = (
        None  # the answer, and when it is durable, while it is being stored
    )


@dataclass
class Desktop:
    """What one annotator has open, and their pace."""

    held: dict[str, Held] = field(default_factory=dict)  # assignment id -> item, in the order to be answered
    done: int = 0
    today: int = 0
    day: int = 0  # days since the epoch that `today` counts
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    told: tuple[int, int] = (0, 0)  # (items left, items answered) when what is left was counted for them last

    def count(self, change: int) -> None:
        """So many more answers, or fewer."""
        if self.day != today():
            self.day, self.today = today(), 0
        self.done += change
        self.today = max(0, self.today + change)


def today() -> int:
    """Days since the epoch."""
    return int(time.time() // 86_400)
