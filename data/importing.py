"""Files to records in the store: everything is staged as Parquet first, then moved in one transaction.

Either all usable rows of all files arrive or none. Ids are digests of content, so the same file twice adds
nothing. It knows no project and no run: the command is `palate.importing`.

    staged = stage_files(sources, folder, run_id)
    counts = insert(store, folder)
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import duckdb
from tqdm import tqdm

from palate.config import UserError
from palate.data.any_store import AnyStore
from palate.data.formats import Kind
from palate.data.readers import opened, rows
from palate.data.staging import TABLES, UNNAMED, Outcome, Plan
from palate.data.workers import Work, cores, stage_all

CHUNK = 5_000  # rows staged at once: what memory holds of a file of any length
BIG = 32 << 20  # bytes; below this, starting workers takes longer than they save


@dataclass(frozen=True)
class Source:
    """One file and what is known of it before it is read."""

    path: Path
    name: str  # for rows that name no source of their own
    forced: bool = False  # the name wins over the rows' own


@dataclass(frozen=True)
class Count:
    """Records of one table that an import met."""

    new: int
    known: int


def content_hash(path: Path) -> str:
    """SHA-256 of what a file holds, unpacked when it is gzip: the same rows under another name."""
    with opened(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()  # type: ignore[arg-type]


def check_group_by(pattern: str | None) -> None:
    """A pattern that is no regular expression is a UserError."""
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise UserError(f"--group-by {pattern!r} is not a regular expression: {error}") from error


def stage_files(
    sources: Sequence[Source],
    folder: Path,
    run_id: str,
    kind: Kind | None = None,
    group_by: str | None = None,
    on_rejects: Callable[[list[dict[str, object]]], None] = lambda _: None,
) -> list[Outcome]:
    """Write the records of all files to `folder` as Parquet; what became of each file.

    `on_rejects` gets the rows that can't be used, with file, line and reason, as they come up. A file that
    can't be read at all is a UserError.
    """
    outcomes = []
    size = sum(source.path.stat().st_size for source in sources)
    workers = cores() if size >= BIG else 1
    with tqdm(total=size, unit="B", unit_scale=True, desc="reading", disable=None, leave=False) as bar:
        for number, source in enumerate(sources):
            plan = Plan(number, str(source.path), source.name, source.forced, kind, group_by, run_id, folder)
            total = Outcome()
            for outcome in stage_all(_chunks(plan, source.path, bar.update), workers):
                on_rejects(outcome.rejects)
                total.add(outcome)
            outcomes.append(total)
    return outcomes


def _chunks(plan: Plan, path: Path, advance: Callable[[int], object]) -> Iterator[Work]:
    read = rows(path, advance)
    for number in count():
        chunk = list(islice(read, CHUNK))
        if not chunk:
            return
        yield plan, number, chunk


def insert(store: AnyStore, folder: Path) -> dict[str, Count]:
    """Move everything staged in `folder` into the store, all or nothing; what was new, per table."""
    # a DuckDB of its own looks through the staged files; what does not fit its memory is spilled beside them
    settings = {"memory_limit": "512MB", "temp_directory": str(folder / "spill")}
    with duckdb.connect(config=settings) as con:
        _number_votes(con, folder)
        met = {table: _distinct(con, folder, table) for table in TABLES}
    staged = {table: Path(_globbed(folder)) / f"{table}-*.parquet" for table in TABLES if met[table]}
    new = store.add_tables(staged) if staged else {}
    return {table: Count(new.get(table, 0), met[table] - new.get(table, 0)) for table in TABLES}


def _number_votes(con: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Give equal unnamed votes of one file ids of their own: the same judgement twice is two votes.

    They are counted within a file, so that the same row in two files, or on the next import, is the same vote.
    """
    for file in sorted({path.name.split("-")[1] for path in folder.glob(f"{UNNAMED}-*.parquet")}):
        pattern = f"{UNNAMED}-{file}-*.parquet"
        if _repeats(con, folder, pattern):
            query = f"""
                SELECT * EXCLUDE (filename, file_row_number, occurrence) REPLACE
                    (CASE occurrence WHEN 1 THEN id ELSE substr(sha256(id || ':' || occurrence), 1, 20) END AS id)
                FROM (SELECT *, row_number() OVER (PARTITION BY id ORDER BY filename, file_row_number) AS occurrence
                      FROM {_staged(folder, pattern)})
                ORDER BY filename, file_row_number"""
            _rewrite(con, folder, pattern, query, f"vote-{UNNAMED}-{file}.parquet")
        else:
            for path in folder.glob(pattern):
                path.rename(path.with_name(f"vote-{path.name}"))


def _distinct(con: duckdb.DuckDBPyConnection, folder: Path, table: str) -> int:
    """Leave the first record of each id, in the order of the files; returns how many there are."""
    pattern = f"{table}-*.parquet"
    if not any(folder.glob(pattern)):
        return 0
    if _repeats(con, folder, pattern):
        query = f"""
            WITH staged AS (SELECT * FROM {_staged(folder, pattern)}),
            firsts AS (SELECT id, min((filename, file_row_number)) AS place FROM staged GROUP BY id)
            SELECT s.* EXCLUDE (filename, file_row_number)
            FROM staged s JOIN firsts f ON f.id = s.id AND f.place = (s.filename, s.file_row_number)
            ORDER BY s.filename, s.file_row_number"""
        _rewrite(con, folder, pattern, query, f"{table}-distinct.parquet")
    return _number(con, f"SELECT count(*) FROM {_staged(folder, pattern)}")


def _repeats(con: duckdb.DuckDBPyConnection, folder: Path, pattern: str) -> int:
    return _number(con, f"SELECT count(*) - count(DISTINCT id) FROM {_staged(folder, pattern)}")


def _rewrite(con: duckdb.DuckDBPyConnection, folder: Path, pattern: str, query: str, name: str) -> None:
    """Replace the files of a pattern by the rows of a query over them."""
    old = list(folder.glob(pattern))
    temporary = folder / "rewritten"
    con.execute(f"COPY ({query}) TO '{_quoted(str(temporary))}' (FORMAT parquet, COMPRESSION zstd)")
    for path in old:
        path.unlink()
    temporary.rename(folder / name)


def _number(con: duckdb.DuckDBPyConnection, sql: str) -> int:
    return int(con.execute(sql).fetchall()[0][0])


def _staged(folder: Path, pattern: str) -> str:
    return f"read_parquet('{_quoted(_globbed(folder))}/{pattern}', filename = true, file_row_number = true)"


def _globbed(folder: Path) -> str:
    """The folder's name for DuckDB's patterns: its own brackets and stars stand for themselves."""
    return re.sub(r"([\[*?])", r"[\1]", str(folder))


def _quoted(text: str) -> str:
    return text.replace("'", "''")
