"""The desk of a server, for rule-based annotators: what they ask of a `Desk` goes over HTTP.

desk = RemoteDesk(remote_store)
items = desk.next_items(annotator.id, random.Random(0), 64)
"""

import random
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from palate.data.remote import RemoteStore
from palate.labeling.ballots import Ballot, Item


class RemoteDesk:
    """As much of a `Desk` as rules need. The store stays open."""

    def __init__(self, store: RemoteStore) -> None:
        self._store = store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held here."""

    def next_items(self, person: str, rng: random.Random, limit: int = 1) -> list[Item]:
        """The items this annotator answers next, at most `limit`."""
        body = {"limit": limit, "seed": rng.getrandbits(62)}
        return [_item(found) for found in self._store.post(f"/rule-annotators/{person}/next", body)["items"]]

    def cast_all(self, person: str, ballots: Sequence[Ballot], run_id: str) -> list[str]:
        """Store several answers, all or none of them; they are durable when this returns. Their votes' ids."""
        body = {"run_id": run_id, "ballots": [_sent(ballot) for ballot in ballots]}
        return list(self._store.post(f"/rule-annotators/{person}/votes", body)["saved"])


def _item(found: dict[str, Any]) -> Item:
    answers = tuple((answer["letter"], answer["text"]) for answer in found["answers"])
    return Item(found["assignment"], tuple(found["messages"]), answers)


def _sent(ballot: Ballot) -> dict[str, Any]:
    """A rule's ballot as the route takes it: rules rank, and say no more."""
    return {
        "vote_id": ballot.vote_id,
        "assignment": ballot.assignment_id,
        "verdict": ballot.verdict,
        "ranking": [list(tier) for tier in ballot.ranking],
        "strength": ballot.strength,
    }
