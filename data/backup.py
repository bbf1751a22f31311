"""Backups of the database, made while it is in use: a file of its own, read again and compared before it counts.

    made = backup(store, folder)          # backups/2026-11-21T04-30-00.duckdb, with a .json beside it
    prune(folder, keep=8, days=14)

The copy is of one moment (a snapshot); votes go on meanwhile. A backup holds everything, password hashes too, so
the folder is its owner's alone.
"""

import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from palate.config import UserError
from palate.data import database, journal
from palate.data.columns import now
from palate.data.journal import sync_folder
from palate.data.store import Store

KEEP = 8  # the newest backups, whatever their age
DAYS = 14  # and the last one of each of so many days before
PACKED_BEYOND = 1024 * 1024  # smaller journal files are not worth a compressed one
_STAMP = "%Y-%m-%dT%H-%M-%S"
Sums = dict[str, tuple[int, int]]  # table -> rows, checksum of their content


@dataclass(frozen=True)
class Backup:
    """A verified backup and what it holds."""

    file: Path
    created_at: datetime
    sums: Sums
    journal: str  # the journal's newest file when it was made
    duckdb: str  # version that wrote it: checksums compare within one version

    @property
    def votes(self) -> int:
        """How many votes it holds."""
        return self.sums.get("vote", (0, 0))[0]


def folder_of(path: Path) -> Path:
    """Where the backups of a database lie: beside it."""
    return path.parent / "backups"


def backup(store: Store, folder: Path) -> Backup:
    """Make one backup and verify it. Raises UserError or OSError and leaves nothing behind when that fails."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    store.checkpoint()
    _room(store.path, folder)
    moment = _free_moment(folder)
    file = folder / f"{moment.strftime(_STAMP)}.duckdb"
    part = file.with_name(file.name + ".part")
    newest = journal.files(journal.folder_of(store.path))
    try:
        sums = _copied(store, part)
        os.chmod(part, 0o600)
        _sync(part)
        if (copied := examined(part)) != sums:
            wrong = sorted(name for name in sums if copied.get(name) != sums[name])
            raise UserError(
                f"the backup {part.name} differs from the database in {', '.join(wrong)}: not kept"
            )
        made = Backup(file, moment, sums, newest[-1].name if newest else "", duckdb.__version__)
        _note(made)
        os.replace(part, file)
        sync_folder(folder)
    except duckdb.Error as error:
        raise UserError(f"the backup was not made: {str(error).splitlines()[0]}") from error
    finally:
        for left in (part, database.wal(part)):
            left.unlink(missing_ok=True)
        if not file.exists():
            _beside(file).unlink(missing_ok=True)
    return made


def _copied(store: Store, part: Path) -> Sums:
    """Copy the database of this moment into a new file, with writers going on."""
    target = "'" + str(part).replace("'", "''") + "'"
    with store.reader() as cursor:
        own = cursor.execute("SELECT current_database()").fetchall()[0][0]
        cursor.execute(f"ATTACH {target} AS copied")
        try:
            cursor.execute("BEGIN")
            sums = tables_and_sums(cursor)
            cursor.execute(f'COPY FROM DATABASE "{own}" TO copied')
            cursor.execute("COMMIT")
        except BaseException:
            with suppress(duckdb.Error):
                cursor.execute("ROLLBACK")
            raise
        finally:
            with suppress(duckdb.Error):
                cursor.execute("DETACH copied")
    return sums


def tables_and_sums(con: duckdb.DuckDBPyConnection) -> Sums:
    """Rows and checksum of every table of the database in use; reads every value, so damage shows."""
    names = con.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() AND NOT temporary "
        "ORDER BY table_name"
    ).fetchall()
    sums: Sums = {}
    for (name,) in names:
        rows, checksum = con.execute(
            f'SELECT count(*), coalesce(bit_xor(hash(t)), 0) FROM "{name}" t'
        ).fetchall()[0]
        sums[str(name)] = (int(rows), int(checksum))
    return sums


def examined(path: Path) -> Sums:
    """Every table of a file, read to the last value without changing anything; Damaged when that can't be done."""
    con = database.connect(path, read_only=True)
    try:
        return tables_and_sums(con)
    except duckdb.Error as error:
        raise database.explained(path, error) from error
    finally:
        con.close()


def backups(folder: Path) -> list[Backup]:
    """The backups in a folder, oldest first."""
    found = []
    for file in sorted(folder.glob("*.duckdb")) if folder.is_dir() else []:
        with suppress(OSError, ValueError, KeyError, TypeError):
            found.append(read_note(file))
    return found


def read_note(file: Path) -> Backup:
    """What stands beside a backup file."""
    noted: dict[str, Any] = json.loads(_beside(file).read_text(encoding="utf-8"))
    return Backup(
        file,
        datetime.fromisoformat(noted["created_at"]),
        {str(name): (int(rows), int(checksum)) for name, (rows, checksum) in noted["sums"].items()},
        str(noted["journal"]),
        str(noted["duckdb"]),
    )


def verify(file: Path) -> Sums:
    """A backup read again: its tables, or a UserError that says what is wrong with it."""
    sums = examined(file)
    if not _beside(file).exists():
        return sums
    made = read_note(file)
    exact = made.duckdb == duckdb.__version__
    for name, expected in made.sums.items():
        found = sums.get(name, (-1, 0))
        if found != expected if exact else found[0] != expected[0]:
            raise database.Damaged(f"{file} is not what was backed up: table {name} differs")
    return sums


def prune(folder: Path, keep: int = KEEP, days: int = DAYS) -> list[Path]:
    """Delete backups but the newest `keep` and the last one of each of the newest `days` days; returns which."""
    made = backups(folder)
    last_of_day = {one.created_at.date(): one.file for one in made}
    kept = {one.file for one in made[-keep:]} | {last_of_day[day] for day in sorted(last_of_day)[-days:]}
    gone = [one.file for one in made if one.file not in kept]
    for file in gone:
        file.unlink(missing_ok=True)
        _beside(file).unlink(missing_ok=True)
    return gone


def pack_journal(made: Backup, folder: Path) -> list[Path]:
    """Compress older journal files whose votes are all in a verified backup; returns the compressed files."""
    old = [file for file in journal.files(folder) if file.suffix != ".gz" and file.name < made.journal]
    old = [file for file in old if file.stat().st_size > PACKED_BEYOND]
    if not old:
        return []
    con = database.connect(made.file, read_only=True)
    try:
        held = {row[0] for row in con.execute("SELECT id FROM vote").fetchall()}
    finally:
        con.close()
    return [journal.pack(file) for file in old if journal.vote_ids([file]) <= held]


def _room(path: Path, folder: Path) -> None:
    needed = path.stat().st_size + 2 * database.wal_bytes(path) + 16 * 1024 * 1024
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"a backup needs {needed / 1e6:,.0f} MB in {folder}, {free / 1e6:,.0f} MB are free: make room first"
        )


def _free_moment(folder: Path) -> datetime:
    """This second, or the next one that no backup is named after."""
    moment = now().replace(microsecond=0)
    taken = {file.stem for file in folder.glob("*.duckdb")}
    while moment.strftime(_STAMP) in taken:
        moment += timedelta(seconds=1)
    return moment


def _beside(file: Path) -> Path:
    return file.with_suffix(".json")


def _note(made: Backup) -> None:
    noted = asdict(made) | {"file": made.file.name, "created_at": made.created_at.isoformat()}
    note = _beside(made.file)
    note.write_text(json.dumps(noted, indent=1), encoding="utf-8")
    os.chmod(note, 0o600)
    _sync(note)


def _sync(path: Path) -> None:
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())
