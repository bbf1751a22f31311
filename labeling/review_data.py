"""Data: search and filter over prompts, answers, votes and rationales.

    finder = Finder(store)
    listing = finder.page(facts, read({"q": "refund", "disagreement": "0.4"}), 1)     # 50 rows, and how many there are

Conditions on votes are asked of the facts, conditions on texts of the project's database (`review_texts`); both come
back as numbers and are combined over the catalogue of all comparisons (`review_conditions`, `review_catalogue`).
Which items are found is kept for the next pages until somebody votes; of votes, of which there may be ten million, a
page takes no more than it shows. Texts are read for the rows of a page only (`review_rows`).
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.data.facts import Facts
from palate.data.store import Store
from palate.labeling.review_catalogue import Catalogues
from palate.labeling.review_conditions import FEW, PAGE, Asked, Bools, Codes, Ints, Longs, Words, words
from palate.labeling.review_query import Query
from palate.labeling.review_rows import COLUMNS, Row, Wanted, table_of
from palate.labeling.statistics.panels import Column

KEPT, KEPT_ROWS = 6, 1_000_000  # results that are kept, and how many rows one may have for that
BLOCK = 2_000  # votes that are looked at first for a page of votes


@dataclass(frozen=True)
class Listing:
    """One page of what a query finds."""

    query: Query
    columns: tuple[Column, ...]
    rows: tuple[
        Row, ...
    ]  # values by column key; `item` and `prompt_id` are ids, `vote` too where rows are votes
    total: int
    page: int  # from 1
    pages: int


@dataclass(frozen=True)
class Found:
    """What a query finds, in its order. N = rows."""

    place: Ints  # (N,) places of comparisons in the catalogue
    latest: Longs  # (N,) microseconds since 1970 of the latest vote, or of this one; 0: none
    votes: Ints | None = None  # (N,) votes that fulfil the conditions, where rows are items
    vote: Codes | None = None  # (N,) hashes of votes' ids, where rows are votes
    annotator: Ints | None = None  # (N,) their codes
    rank: NDArray[np.int8] | None = None  # (N,) where the words are

    @property
    def n(self) -> int:
        """How many rows there are."""
        return len(self.place)

    def part(self, chosen: Any) -> "Found":
        """These rows of it."""
        return Found(*(None if value is None else value[chosen] for value in vars(self).values()))  # type: ignore[arg-type]


class Finder:
    """Finds in one store. Threads may share it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._catalogues = Catalogues(store)
        self._kept: OrderedDict[tuple[Any, ...], Found] = OrderedDict()
        self._lock = threading.Lock()

    def page(self, facts: Facts, query: Query, number: int = 1) -> Listing:
        """The page of this number, from 1; one behind the last is empty."""
        number = max(1, number)
        first, end = (number - 1) * PAGE, number * PAGE
        asked = self.asked(facts, query)
        if query.rows == "votes" and not query.words:
            found, total = _page_of_votes(asked, first, end)
        else:
            whole = self.find(asked)
            found, total = whole.part(slice(first, end)), whole.n
        rows = table_of(self.store, wanted(asked, found)).to_pylist()
        return Listing(query, columns_of(query), tuple(rows), total, number, -(-total // PAGE))

    def asked(self, facts: Facts, query: Query) -> Asked:
        """A query beside what it is asked of, as it is now."""
        return Asked(facts, self.store, self._catalogues.current(), query)

    def find(self, asked: Asked) -> Found:
        """All rows of a query; found once until a vote or a comparison comes in."""
        key = (asked.query, asked.facts.version, asked.catalogue.version)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = _votes(asked) if asked.query.rows == "votes" else _items(asked)
        with self._lock:
            if found.n <= KEPT_ROWS:
                self._kept[key] = found
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found

    def prompts(self, facts: Facts, query: Query) -> Codes:
        """Hashes of the ids of the prompts that the rows of a query are about, each once."""
        asked = self.asked(facts, query)
        return np.unique(asked.catalogue.prompt[self.find(asked).place])

    def forget(self) -> None:
        """Find anew whatever is asked next: tags have changed."""
        with self._lock:
            self._kept.clear()

    def warm_up(self) -> None:
        """Read the catalogue, before somebody asks."""
        self._catalogues.current()


def columns_of(query: Query) -> tuple[Column, ...]:
    """The columns of a listing."""
    return tuple(column for column in COLUMNS[query.rows] if column.key != "found" or query.text)


def wanted(asked: Asked, found: Found) -> Wanted:
    """What `review_rows` shows of these rows."""
    row = asked.catalogue.row[found.place]
    if found.vote is not None and found.annotator is not None:
        sql = "SELECT hash(id) AS id FROM annotator ORDER BY annotator.code"
        people = asked.facts.remember(("annotators",), lambda: asked.facts.columns(sql)["id"])
        return Wanted(row, found.latest, vote=found.vote, annotator=people[found.annotator])
    expected, halves = asked.splits_of(found.place)
    return Wanted(
        row,
        found.latest,
        found.votes,
        expected,
        halves,
        asked.adjudicated()[found.place],
        found.rank,
    )


# -- items -----------------------------------------------------------------------------------------------------------


def _items(asked: Asked) -> Found:
    keep = asked.keep()
    found = words(asked, keep) if asked.query.words and keep.any() else None
    place = np.flatnonzero(found.items if found else keep).astype(np.int32)
    votes, latest = asked.voted
    rank = found.rank[place] if found else None
    at = np.where(latest > 0, latest, asked.catalogue.at)[place]
    made = Found(place, latest[place], votes[place], rank=rank)
    return made.part(_order(asked, made, at))


def _order(asked: Asked, found: Found, at: Longs) -> NDArray[np.intp]:
    """The order of rows with times `at`: the newest first, before that what the query wants first.

    Of votes of the same moment, of which an import brings many, the order is that of their hashes: pages must fit.
    """
    keys: list[NDArray[Any]] = [found.place if found.vote is None else found.vote, -at]
    if asked.query.sort == "disagreement":
        keys += [] if found.vote is None else [found.place]  # an item's votes stand together
        keys.append(-np.nan_to_num(asked.splits()[0], nan=-1.0)[found.place])
    if asked.query.sort == "match" and found.rank is not None:
        keys.append(-found.rank)
    return np.lexsort(keys)


# -- votes -----------------------------------------------------------------------------------------------------------


def _votes(asked: Asked) -> Found:
    """All of them: where there is no condition, ten million."""
    keep = asked.keep()
    found = words(asked, keep) if asked.query.words and keep.any() else None
    keep = found.items if found else keep
    if keep.sum() <= FEW * asked.catalogue.n:
        made = _cast(asked, keep, "b.item IN (SELECT unnest(?::INTEGER[]))", [asked.items(keep).tolist()])
    else:
        made = _cast(asked, keep, "true", [])
    made = _with_words(made, found)
    return made.part(_order(asked, made, made.latest))


def _with_words(made: Found, found: Words | None) -> Found:
    if found is None or made.vote is None:
        return made
    made = made.part(found.votes(made.vote, made.place))
    return Found(made.place, made.latest, made.votes, made.vote, made.annotator, found.rank[made.place])


def _cast(asked: Asked, keep: Bools, where: str, params: list[Any]) -> Found:
    """The votes that fulfil the conditions, on items that are kept, and `where`; in no order."""
    conditions, given = asked.votes
    found = asked.facts.columns(
        f"SELECT vote, item, annotator, epoch_us(moment) AS at FROM ballot b WHERE {conditions} AND {where}",
        [*given, *params],
    )
    place = asked.places()[found["item"]]
    chosen = (place >= 0) & keep[place]
    return Found(
        place[chosen].astype(np.int32),
        found["at"][chosen],
        vote=found["vote"][chosen],
        annotator=found["annotator"][chosen],
    )


def _page_of_votes(asked: Asked, first: int, end: int) -> tuple[Found, int]:
    """(rows from `first` up to `end`, how many there are), without looking at all votes.

    How many votes each item has is known; so is, for the most split first, which items a page takes. For the newest
    first, days are gone through from the latest back, until the page is full.
    """
    keep = asked.keep()
    count = np.where(keep, asked.voted[0], 0)
    total = int(count.sum())
    if asked.query.sort == "disagreement":
        return _from_items(asked, count, first, end), total
    return _from_days(asked, keep, first, min(end, total)), total


def _from_items(asked: Asked, count: Ints, first: int, end: int) -> Found:
    place = np.flatnonzero(count)
    place = place[np.argsort(-np.nan_to_num(asked.splits()[0], nan=-1.0)[place], kind="stable")]
    below = np.cumsum(count[place])
    low, high = np.searchsorted(below, first, side="right"), np.searchsorted(below, end)
    chosen = place[low : high + 1]
    if not len(chosen):
        return _nothing()
    keep = np.zeros(asked.catalogue.n, bool)
    keep[chosen] = True
    made = _cast(asked, keep, "b.item IN (SELECT unnest(?::INTEGER[]))", [asked.items(keep).tolist()])
    skipped = int(below[low - 1]) if low else 0
    return made.part(_order(asked, made, made.latest)).part(slice(first - skipped, end - skipped))


def _from_days(asked: Asked, keep: Bools, first: int, end: int) -> Found:
    if first >= end:
        return _nothing()
    conditions, params = asked.votes
    days = asked.facts.columns(
        f"SELECT day, count(*) AS n FROM ballot b WHERE {conditions} GROUP BY day ORDER BY day DESC", params
    )
    below, low, parts, there, take = np.cumsum(days["n"]), 0, list[Found](), 0, end + BLOCK
    while there < end and low < len(below):
        before = int(below[low - 1]) if low else 0
        high = min(int(np.searchsorted(below, before + take)), len(below) - 1)
        span = [str(days["day"][place].astype("datetime64[D]")) for place in (high, low)]
        parts.append(_cast(asked, keep, "b.day BETWEEN ?::DATE AND ?::DATE", span))
        there, low, take = there + parts[-1].n, high + 1, 4 * take
    made = parts[0] if len(parts) == 1 else _joined(parts)
    return made.part(_order(asked, made, made.latest)).part(slice(first, end))


def _joined(parts: list[Found]) -> Found:
    return Found(
        np.concatenate([part.place for part in parts]),
        np.concatenate([part.latest for part in parts]),
        vote=np.concatenate([part.vote for part in parts if part.vote is not None]),
        annotator=np.concatenate([part.annotator for part in parts if part.annotator is not None]),
    )


def _nothing() -> Found:
    return Found(
        np.empty(0, np.int32),
        np.empty(0, np.int64),
        vote=np.empty(0, np.uint64),
        annotator=np.empty(0, np.int32),
    )
