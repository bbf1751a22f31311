"""Opening the DuckDB file: what is damage, what is not, and when its write-ahead log may be moved into it.

DuckDB makes a new, empty database where the main file is missing, and drops the write-ahead log that lay beside
it; so that is checked before. It also drops, without a word, what follows a torn place in the log: only the
journal shows that votes are missing (`palate.data.recovery.reconcile`).
"""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb

from palate.config import UserError
from palate.data import journal
from palate.data.migrations import migrate

WAL_BYTES = 16 * 1024 * 1024  # a longer write-ahead log is moved into the file after a commit
_NOT_DAMAGE = (
    "no space left",
    "version number",
    "permission denied",
    "is a directory",
    "read-only file system",
)
_DAMAGE = ("valid duckdb database", "enough bytes", "replaying wal", "corrupt", "checksum", "serializ")


class FileInUse(UserError):
    """Another process owns the database file."""


class Damaged(UserError):
    """The database file or its write-ahead log can't be read; `palate recover` puts it right."""


def connect(
    path: Path, memory_limit: str | None = None, read_only: bool = False
) -> duckdb.DuckDBPyConnection:
    """An open database, or FileInUse, Damaged or UserError.

    DuckDB's own checkpoints in the middle of a commit are off: on a full disk they invalidate the whole database,
    where a commit just fails. `Store` makes them, when there is room.
    """
    if reason := missing(path):
        raise Damaged(f"{path} {reason}: run `palate recover`")
    config: dict[str, Any] = {"checkpoint_threshold": "1TB"}
    if memory_limit:
        config["memory_limit"] = memory_limit
    try:
        return duckdb.connect(str(path), read_only=read_only, config=config)
    except duckdb.Error as error:
        raise explained(path, error) from error


def opened(path: Path, memory_limit: str | None = None) -> duckdb.DuckDBPyConnection:
    """An open database with the newest schema; made when there is none and nothing was lost."""
    con = connect(path, memory_limit)
    try:
        if migrate(con):
            con.execute("CHECKPOINT")
    except duckdb.Error as error:
        con.close()
        raise explained(path, error) from error
    except BaseException:
        con.close()  # a refused file is free for the right program
        raise
    return con


def missing(path: Path) -> str | None:
    """Why a file that isn't there, or is empty, must not be made anew; None when it may be opened."""
    if path.exists() and path.stat().st_size > 0:
        return None
    state = "is empty" if path.exists() else "is missing"
    log = wal(path)
    if log.exists() and log.stat().st_size > 0:
        return f"{state}, but its write-ahead log {log.name} is there"
    if any(file.stat().st_size for file in journal.files(journal.folder_of(path))):
        return f"{state}, but {journal.folder_of(path).name} holds its votes"
    if path.exists():
        return state
    return None


def explained(path: Path, error: duckdb.Error) -> UserError:
    """The error of opening or reading a database file in our words."""
    message = str(error).splitlines()[0]
    lowered = str(error).lower()
    if "lock" in lowered and "block" not in lowered:
        return FileInUse(
            f"{path} is open in another process (a running `palate label` owns it): "
            "stop that one first, or wait until it has finished"
        )
    harmless = any(sign in lowered for sign in _NOT_DAMAGE)
    damaged = not isinstance(error, duckdb.IOException) or any(sign in lowered for sign in _DAMAGE)
    if damaged and not harmless:
        return Damaged(f"{path} is damaged ({message}): run `palate recover`")
    return UserError(f"{path} can't be opened: {message}")


def wal(path: Path) -> Path:
    """The write-ahead log of a database file."""
    return path.with_name(path.name + ".wal")


def wal_bytes(path: Path) -> int:
    """How long the write-ahead log is; 0 when there is none."""
    with suppress(FileNotFoundError):
        return wal(path).stat().st_size
    return 0


def room_to_checkpoint(path: Path) -> bool:
    """Whether the disk surely takes a checkpoint: it writes what changed anew before it frees the old."""
    changed = min(path.stat().st_size, 512 * 1024 * 1024)
    return shutil.disk_usage(path.parent).free > 4 * wal_bytes(path) + changed + 8 * 1024 * 1024
