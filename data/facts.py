"""Votes as small numbers: what statistics are computed from, in a DuckDB file of its own.

The project's database holds records, with texts and digests as ids; figures about ten million votes need columns of
small integers. So they are copied, once per vote, into `statistics.duckdb` beside it (facts.sql says what is there).
It is derived: it may be deleted, and is made anew when it doesn't fit the database. It has its own connection, so
its long queries share neither locks nor memory with the one short write per vote.

    with Facts(store) as facts:
        facts.refresh()
        facts.rows("SELECT kind, count(*) AS votes FROM ballot GROUP BY kind")
"""

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import duckdb
import numpy as np
from numpy.typing import NDArray

from palate.config import UserError
from palate.data import facts_filling as filling
from palate.data import facts_source as source
from palate.data.store import Store

T = TypeVar("T")
_log = logging.getLogger(__name__)
CHUNK = 1_000_000  # votes that are taken in at once
REMEMBERED = 48  # results that are kept
MEMORY = "1200MB"
Progress = Callable[[int, int], None]


class Facts:
    """The facts of one store. Threads may share it. `version` changes whenever any fact does."""

    def __init__(self, store: Store, path: Path | None = None, threads: int | None = None) -> None:
        self.store = store
        self.path = path or store.path.with_name("statistics.duckdb")
        self.overlap = (
            1,
            1.0,
        )  # answers that the server asks for at least, on which share of the comparisons
        self._threads = threads
        self._lock = threading.RLock()  # of refreshing
        self._remembered: OrderedDict[tuple[Any, ...], Future[Any]] = OrderedDict()
        self._remembering = threading.Lock()
        self._con = self._opened()
        self.version = self._version()

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            self._con.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- reading ---------------------------------------------------------------------------------------

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The result of a query over the facts as one dict per row."""
        with self._con.cursor() as cursor:
            result = cursor.execute(sql, list(params))
            names = [column[0] for column in result.description]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def columns(self, sql: str, params: Sequence[Any] = ()) -> dict[str, NDArray[Any]]:
        """The result of a query over the facts as one array per column; NULL makes a masked array."""
        with self._con.cursor() as cursor:
            return cast(dict[str, NDArray[Any]], cursor.execute(sql, list(params)).fetchnumpy())

    def value(self, sql: str, params: Sequence[Any] = ()) -> Any:
        """The first column of the first row, or None when there is no row."""
        with self._con.cursor() as cursor:
            row = cursor.execute(sql, list(params)).fetchone()
            return row[0] if row else None

    def remember(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """What `make` returns, made once per key and version; a second asker waits for the first.

        A failure is not remembered.
        """
        whole = (self.version, *key)
        with self._remembering:
            known = self._remembered.get(whole)
            if known is None:
                mine: Future[T] = Future()
                self._remembered[whole] = mine
                while len(self._remembered) > REMEMBERED:
                    self._remembered.popitem(last=False)
            else:
                self._remembered.move_to_end(whole)
        if known is not None:
            return cast(T, known.result())
        try:
            mine.set_result(make())
        except BaseException as error:
            with self._remembering:
                self._remembered.pop(whole, None)
            mine.set_exception(error)
            raise
        return mine.result()

    # -- keeping up ------------------------------------------------------------------------------------

    def refresh(self, progress: Progress | None = None) -> str:
        """Take in what has been voted since; returns the version. `progress` hears (votes done, votes in all)."""
        with self._lock:
            try:
                self._refresh(progress)
            except duckdb.Error as error:
                with suppress(duckdb.Error):
                    self._con.execute("ROLLBACK")
                self._anew()  # whatever it was, nothing of it is needed
                raise UserError(
                    f"the statistics at {self.path} can't be brought up to date "
                    f"({str(error).splitlines()[0]}): they are made anew next time"
                ) from error
            version = self._version()
            if version != self.version:
                with self._remembering:
                    self._remembered.clear()
                self.version = version
            return version

    def _refresh(self, progress: Progress | None) -> None:
        known = self.rows("SELECT * FROM state")[0]
        found = source.state(self.store, known["mark"])
        if (found["votes"], found["last"]) != (known["votes"], known["last"]):
            _log.info("the statistics don't fit the votes and are made anew")
            self._anew()
            known = self.rows("SELECT * FROM state")[0]
        if found["annotators"] != known["annotators"]:
            people = self.store.table("SELECT id, name, kind, role FROM annotator")
            self._step(lambda: filling.set_annotators(self._con, people), annotators=found["annotators"])
        low, newest = int(known["mark"]), int(found["newest"])
        fresh = low < newest
        while low < newest:
            high = min(low + CHUNK, newest)
            self._take_in(low, high)
            if progress:
                progress(high + 1, newest + 1)
            low = high
        if fresh or found["tags"] != known["tags"]:
            tags = self.store.table("SELECT id AS prompt, unnest(tags) AS tag FROM prompt")
            self._step(lambda: filling.set_tags(self._con, tags), tags=found["tags"])
        if fresh:
            self._con.execute("CHECKPOINT")

    def _take_in(self, low: int, high: int) -> None:
        """The votes with low < rowid <= high, all or none of them."""
        mark = self.store.rows(
            "SELECT (SELECT count(*) FROM vote WHERE rowid <= $1) AS votes, "
            "(SELECT hash(id)::VARCHAR FROM vote WHERE rowid = $1) AS last",
            [high],
        )[0]
        gone = self.store.table(
            "SELECT hash(supersedes) AS vote FROM vote WHERE supersedes IS NOT NULL AND rowid > ? AND rowid <= ?",
            [low, high],
        )

        def fill() -> None:
            if gone.num_rows:
                self._con.register("gone", gone)
                for table in ("ballot", "judgement", "ranking"):
                    self._con.execute(f"DELETE FROM {table} WHERE vote IN (SELECT vote FROM gone)")
                self._con.unregister("gone")
            for stream in source.votes(self.store, low, high):
                self._con.register("incoming", stream)
                self._con.execute("CREATE OR REPLACE TEMP TABLE cast_vote AS SELECT * FROM incoming")
                self._con.unregister("incoming")
            if unknown := filling.unknown_items(self._con):
                for stream in source.items(self.store, unknown):
                    filling.add_items(self._con, stream)
            filling.add_votes(self._con)

        self._step(fill, mark=high, votes=mark["votes"], last=mark["last"])

    def _step(self, act: Callable[[], None], **state: Any) -> None:
        """One transaction: what `act` does, and how far that brings us."""
        self._con.execute("BEGIN")
        act()
        names = ", ".join(f"{name} = ?" for name in state)
        self._con.execute(f"UPDATE state SET {names}, changes = changes + 1", list(state.values()))
        self._con.execute("COMMIT")

    # -- the file --------------------------------------------------------------------------------------

    def _version(self) -> str:
        return "{schema}-{last}-{changes}".format(**self.rows("SELECT * FROM state")[0])

    def _opened(self) -> duckdb.DuckDBPyConnection:
        """The file as it is, or a new one when it is damaged or of another make."""
        with suppress(duckdb.Error):
            con = self._connect()
            try:
                if con.execute("SELECT schema FROM state").fetchall() == [(_schema(),)]:
                    return con
            except duckdb.CatalogException:
                pass
            con.close()
        self._remove()
        return self._made()

    def _anew(self) -> None:
        with suppress(duckdb.Error):
            self._con.close()
        self._remove()
        self._con = self._made()

    def _made(self) -> duckdb.DuckDBPyConnection:
        try:
            con = self._connect()
            con.execute(_statements())
            con.execute("INSERT INTO state VALUES (?, -1, 0, NULL, '', '', 0)", [_schema()])
        except duckdb.Error as error:
            raise UserError(f"{self.path} can't be made: {str(error).splitlines()[0]}") from error
        return con

    def _connect(self) -> duckdb.DuckDBPyConnection:
        config: dict[str, Any] = {"memory_limit": MEMORY, "preserve_insertion_order": False}
        if self._threads:
            config["threads"] = self._threads
        con = duckdb.connect(str(self.path), config=config)
        filling.prepare(con)
        return con

    def _remove(self) -> None:
        for path in (self.path, self.path.with_name(self.path.name + ".wal")):
            path.unlink(missing_ok=True)


def _statements() -> str:
    return files("palate.data").joinpath("facts.sql").read_text(encoding="utf-8")


def _schema() -> str:
    texts = [_statements()]
    texts += [
        files("palate.data").joinpath(name).read_text("utf-8")
        for name in ("facts_source.py", "facts_filling.py")
    ]
    return hashlib.sha256("".join(texts).encode()).hexdigest()[:16]


def filled(array: NDArray[Any], value: float = np.nan) -> NDArray[Any]:
    """A column of `Facts.columns` as floats, with NULLs as `value`."""
    return np.ma.filled(np.ma.asarray(array).astype(np.float64), value)
