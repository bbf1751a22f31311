"""Tags of prompts, given and taken by leads: to one prompt, or to everything that a search has found.

A tag is a property of the prompt, not of a vote: the journal does not repeat it, so a database that is rebuilt from
the journal alone has the tags of the time when the prompt was first voted on; a backup has them all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from palate.config import UserError
from palate.data.store import Store

LONGEST, MOST = 60, 50  # characters of a tag; tags of a prompt
AT_ONCE = 20_000  # prompts in one transaction: voting waits for that long


@dataclass(frozen=True)
class Tagged:
    """What was done."""

    prompts: int  # that were meant
    changed: int  # of them were not like that before


def checked(tag: str) -> str:
    """A tag as it is stored; a UserError when it is none."""
    tag = " ".join(tag.split())
    if not 1 <= len(tag) <= LONGEST or not tag.isprintable():
        raise UserError(f"a tag takes 1 to {LONGEST} visible characters, got {tag[:80]!r}")
    return tag


def known(store: Store) -> list[str]:
    """All tags, by name."""
    found = store.rows("SELECT DISTINCT unnest(tags) AS tag FROM prompt ORDER BY tag")
    return [str(row["tag"]) for row in found]


def change(
    store: Store, codes: NDArray[np.uint64], add: Sequence[str] = (), remove: Sequence[str] = ()
) -> Tagged:
    """Add and remove tags on prompts, given by the hashes of their ids. Sent again it changes nothing.

    A tag that is both added and removed stays. A prompt that would get too many tags is a UserError, and then the
    prompts of that transaction stay as they are.
    """
    new, old = [checked(tag) for tag in add], [checked(tag) for tag in remove]
    if not new and not old:
        raise UserError("name a tag to add or to remove")
    changed = 0
    for start in range(0, len(codes), AT_ONCE):
        changed += _change(store, codes[start : start + AT_ONCE], new, old)
    return Tagged(len(codes), changed)


_NEW = "list_distinct(list_concat(list_filter(tags, lambda x: NOT list_contains($old::VARCHAR[], x)), $new::VARCHAR[]))"


def _change(store: Store, codes: NDArray[np.uint64], new: list[str], old: list[str]) -> int:
    with store.transaction(), store.reader() as cursor:
        cursor.register("meant", pa.table({"code": codes}))
        try:
            rows = cursor.sql(
                f"SELECT id, list_sort({_NEW}) AS tags FROM prompt WHERE hash(id) IN (SELECT code FROM meant) "
                f"AND list_sort({_NEW}) IS DISTINCT FROM list_sort(list_distinct(tags))",
                params={"new": new, "old": old},
            ).to_arrow_table()
        finally:
            cursor.unregister("meant")
        if not rows.num_rows:
            return 0
        most = max(len(tags) for tags in rows["tags"].to_pylist())
        if most > MOST:
            raise UserError(f"a prompt takes at most {MOST} tags; one would get {most}")
        cursor.register("changed", rows)
        try:
            cursor.execute("UPDATE prompt SET tags = c.tags FROM changed c WHERE prompt.id = c.id")
        finally:
            cursor.unregister("changed")
        return int(rows.num_rows)
