"""Which votes a figure is about: one kind of annotator, and possibly a source, a tag, a span of days."""

import datetime
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["human", "rule", "model"]
KINDS: tuple[Kind, ...] = ("human", "rule", "model")  # their codes in the facts: 0, 1, 2


@dataclass(frozen=True)
class Scope:
    """A filter over ballots, judgements and rankings. Kinds of annotators never mix, so `kind` is always one."""

    kind: Kind = "human"
    source: str | None = None
    tag: str | None = None
    since: datetime.date | None = None  # first day that counts (UTC)
    until: datetime.date | None = None  # last day that counts (UTC)

    def where(self, table: str) -> tuple[str, list[Any]]:
        """(a condition on the columns of `table`, an alias of ballot, judgement or ranking; its parameters)."""
        parts, params = [f"{table}.kind = {KINDS.index(self.kind)}"], list[Any]()
        if self.source is not None:
            parts.append(f"{table}.source IN (SELECT code FROM source WHERE name = ?)")
            params.append(self.source)
        if self.tag is not None:
            parts.append(f"{table}.item IN (SELECT item FROM item_tag WHERE tag = ?)")
            params.append(self.tag)
        for sign, day in ((">=", self.since), ("<=", self.until)):
            if day is not None:
                parts.append(f"{table}.day {sign} ?::DATE")
                params.append(day.isoformat())
        return " AND ".join(parts), params
