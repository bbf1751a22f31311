"""Which comparisons there are, as numbers: what a search combines its conditions on.

Half a million comparisons with their answers are 40 MB of arrays here; read once, then only what was added. Ids are
kept as DuckDB's hashes of them, which the facts' database computes alike: 64 bits, so that two of a million ids share
one with a probability below 1 in 10 million.
"""

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from palate.data.store import Store

PURPOSES = ("train", "random", "gold", "repeat", "eval")

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Codes = NDArray[np.uint64]

_STATE = """
SELECT (SELECT coalesce(max(rowid), -1) FROM comparison) AS newest,
       (SELECT count(*) FROM comparison WHERE rowid <= $1) AS known,
       (SELECT hash(id) FROM comparison WHERE rowid = $1) AS last
"""
_COMPARISONS = """
SELECT c.rowid AS row, hash(c.id) AS code, hash(c.prompt_id) AS prompt, epoch_us(c.created_at) AS at,
       coalesce(q.source, '') AS source,
       (list_position(['train', 'random', 'gold', 'repeat', 'eval'], c.purpose) - 1)::TINYINT AS purpose
FROM comparison c LEFT JOIN prompt q ON q.id = c.prompt_id WHERE c.rowid > ? ORDER BY c.rowid
"""
_ANSWERS = """
SELECT u.row, m.rowid AS answer, m.model
FROM (SELECT rowid AS row, unnest(completion_ids) AS answer FROM comparison WHERE rowid > ?) u
JOIN completion m ON m.id = u.answer
"""


@dataclass(frozen=True)
class Catalogue:
    """C comparisons in the order of arrival, A answers (a completion in a comparison)."""

    row: Longs  # (C,) rowids, ascending
    code: Codes  # (C,) hashes of ids
    prompt: Codes  # (C,) hashes of the prompts' ids
    at: Longs  # (C,) microseconds since 1970 (UTC) when it was added
    source: Ints  # (C,) place in `sources`
    purpose: NDArray[np.int8]  # (C,) place in PURPOSES
    answer: Longs  # (A,) rowids of completions; one may be in several comparisons
    owner: Ints  # (A,) places of the comparisons that they are in
    model: Ints  # (A,) place in `models`
    sources: tuple[str, ...]
    models: tuple[str, ...]
    last: int | None  # the hash of the last comparison's id
    by_code: Longs  # (C,) places, in the order of codes

    @property
    def n(self) -> int:
        """How many comparisons there are."""
        return len(self.row)

    @property
    def version(self) -> tuple[int, int | None]:
        """Changes when there are other comparisons."""
        return self.n, self.last

    def places(self, codes: Codes) -> Longs:
        """(N,) places of the comparisons with these (N,) codes; -1 where there is none."""
        return _found(codes, self.code[self.by_code], self.by_code)

    def owners(self, answers: Longs) -> Ints:
        """Places of the comparisons that have one of these completions, by rowid; a place may come twice."""
        hit = np.zeros(1 + max(self.answer.max(initial=-1), answers.max(initial=-1)), bool)
        hit[answers] = True
        return self.owner[hit[self.answer]]


def _found(wanted: Codes, known: Codes, places: Longs) -> Longs:
    """The places of codes among `known`, which ascend; -1 where one is not among them."""
    if not len(known):
        return np.full(len(wanted), -1)
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[at] == wanted, places[at], -1)


def among(codes: Codes, known: Codes) -> NDArray[np.bool_]:
    """(N,) which of these codes are known; a third of the time of np.isin."""
    if not len(known):
        return np.zeros(len(codes), bool)
    ordered = np.sort(known)
    return np.asarray(ordered[np.minimum(np.searchsorted(ordered, codes), len(ordered) - 1)] == codes)


class Catalogues:
    """The catalogue of one store, kept up to date. Threads may share it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known = _EMPTY

    def current(self) -> Catalogue:
        """All comparisons that there are now."""
        with self._lock:
            known = self._known
            mark = int(known.row[-1]) if known.n else -1
            state = self._store.rows(_STATE, [mark])[0]
            if (state["known"], state["last"]) != (known.n, known.last):
                known, mark = (
                    _EMPTY,
                    -1,
                )  # not what was read: the database was put back, or another took its place
            if mark < state["newest"]:
                known = _extended(self._store, known, mark)
            self._known = known
            return known


def _extended(store: Store, known: Catalogue, mark: int) -> Catalogue:
    """The catalogue with the comparisons that came after `mark`."""
    new, answers = store.table(_COMPARISONS, [mark]), store.table(_ANSWERS, [mark])
    sources, source = _coded(new["source"], known.sources)
    models, model = _coded(answers["model"], known.models)
    rows = np.concatenate([known.row, _array(new, "row")])
    code = np.concatenate([known.code, _array(new, "code")])
    place = np.searchsorted(rows, _array(answers, "row"))
    there = (place < len(rows)) & (rows[np.minimum(place, len(rows) - 1)] == _array(answers, "row"))
    return Catalogue(
        rows,
        code,
        np.concatenate([known.prompt, _array(new, "prompt")]),
        np.concatenate([known.at, _array(new, "at")]),
        np.concatenate([known.source, source]),
        np.concatenate([known.purpose, _array(new, "purpose")]),
        np.concatenate([known.answer, _array(answers, "answer")[there]]),
        np.concatenate([known.owner, place[there].astype(np.int32)]),
        np.concatenate([known.model, model[there]]),
        sources,
        models,
        int(code[-1]) if len(code) else None,
        np.argsort(code, kind="stable"),
    )


def _array(table: pa.Table, name: str) -> NDArray[Any]:
    found: NDArray[Any] = table[name].to_numpy()
    return found


def _coded(names: pa.ChunkedArray, known: tuple[str, ...]) -> tuple[tuple[str, ...], Ints]:
    """(all names, with the new ones at the end; the place of each row's name)."""
    encoded = names.combine_chunks().dictionary_encode()
    places = {name: place for place, name in enumerate(known)}
    codes = np.array(
        [places.setdefault(name, len(places)) for name in encoded.dictionary.to_pylist()], np.int32
    )
    return tuple(places), codes[encoded.indices.to_numpy()] if len(encoded) else np.empty(0, np.int32)


_EMPTY = Catalogue(
    np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64),
    np.empty(0, np.int32), np.empty(0, np.int8), np.empty(0, np.int64), np.empty(0, np.int32),
    np.empty(0, np.int32), (), (), None, np.empty(0, np.int64),
)  # fmt: skip
