"""`palate recover`: a database that can't be opened is put right from what is left, and it is said how.

Tried in this order: the file as it is; with its write-ahead log up to the damaged place; without the log; the
newest good backup; a new database. Then whatever can still be read of the damaged file is taken over, and the
votes come back from the journal. All that happens on a copy: the damaged files stay, under recovery/.

    store = open_store(Path("palate.duckdb"), print)     # what `palate label` does
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import duckdb

from palate.config import UserError
from palate.data import backup, database, journal
from palate.data.columns import now
from palate.data.database import Damaged
from palate.data.journal import sync_folder
from palate.data.reconcile import Reconciliation, reconcile
from palate.data.store import Store

Say = Callable[[str], None]
NOTHING_WRONG = "opens without trouble"
MEMORY = "1500MB"  # of the database while people vote; what doesn't fit goes to disk, and takes no longer
_ELSE = ("the backup", "a new database")  # how sources are told that are not the file itself
_ADVICE = ": run `palate recover`"
_ALSO = (
    "account",
    "invitation",
    "access_token",
    "guideline",
    "withheld",
    "run",
)  # rescued beside the records
_POSITION = re.compile(r"entry at byte position (\d+)")


@dataclass(frozen=True)
class Recovery:
    """What was found and done."""

    found: str  # what was wrong
    how: str  # how the database was opened again
    rescued: dict[str, int]  # table -> rows that only the damaged file had
    votes: Reconciliation
    counts: dict[str, int]
    missing: tuple[str, ...]  # what may not be there
    kept: Path | None  # where the damaged files are


def open_store(path: Path, say: Say) -> Store:
    """The database, opened for people to vote: recovered first when it is damaged, and in step with the journal."""
    log = _log_aside(path)
    try:
        store = _sound(path)
    except Damaged as error:
        say(f"recovering: {str(error).removesuffix(_ADVICE)}")
        for line in told(recover(path)):
            say(f"            {line}")
        store = _sound(path)
    try:
        done = reconcile(store, journal.folder_of(path))
    except BaseException:
        store.close()
        raise
    if str(done):
        say(f"journal:    {done}")
    if log is not None and not done.inserted:  # DuckDB has read all of it
        log.unlink()
        with suppress(OSError):
            log.parent.rmdir()
    return store


def _sound(path: Path) -> Store:
    """An open store of which every value has been read: a damaged block would else show in the middle of the day."""
    store = Store(path, MEMORY)
    try:
        with store.reader() as cursor:
            backup.tables_and_sums(cursor)
    except duckdb.Error as error:
        store.close()
        raise database.explained(path, error) from error
    return store


def _log_aside(path: Path) -> Path | None:
    """A copy of the write-ahead log that a killed server left: DuckDB drops what it can't read of it, and says nothing."""
    if not path.exists() or not database.wal_bytes(path):
        return None
    kept = path.parent / "recovery" / database.wal(path).name
    kept.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        shutil.copyfile(database.wal(path), kept)
    except OSError:  # a full disk must not keep the app from opening
        kept.unlink(missing_ok=True)
        return None
    return kept


def recover(path: Path, dry_run: bool = False) -> Recovery:
    """Put the database right. With `dry_run` find out what would be done, and change nothing."""
    path = path.resolve()
    position = _damaged_place(path)
    with _workplace(path) as (stamp, work):
        found, how = _prepared(path, work, position)
        with Store(work) as store:
            rescued = _rescue(path, store) if how.startswith(_ELSE) else {}
            votes = reconcile(store, journal.folder_of(path), insert_only=True)
            counts = store.counts()
        if backup.examined(work)["vote"][0] != counts["vote"]:  # what goes back is read to the last value
            raise UserError("the recovered copy does not hold what was written to it: nothing was changed")
        if not dry_run and (found != NOTHING_WRONG or votes.inserted):
            _swap(path, work, stamp)
    if not dry_run:
        with Store(path) as store:
            votes = replace(votes, appended=reconcile(store, journal.folder_of(path)).appended)
    kept = stamp if stamp.exists() else None
    return Recovery(found, how, rescued, votes, counts, tuple(_missing(how, votes)), kept)


def restore(file: Path, path: Path, journal_folder: Path, force: bool = False) -> Recovery:
    """Put a backup in the place of a database, and the journal's votes on top of it.

    Without `force` nothing is replaced; with it the files that were there stay under recovery/.
    """
    path = path.resolve()
    if not force and (path.exists() or database.wal_bytes(path)):
        raise UserError(
            f"{path} exists; --force puts the backup in its place and keeps the present file aside"
        )
    if path.exists():
        _damaged_place(path)  # whatever its state, another process must not be at it
    path.parent.mkdir(parents=True, exist_ok=True)
    with _workplace(path) as (stamp, work):
        _copy_backup(file, work)
        with Store(work) as store:
            votes = reconcile(store, journal_folder, insert_only=True)
            counts = store.counts()
        backup.examined(work)
        _swap(path, work, stamp)
    how = f"the backup {file.name}"
    return Recovery(
        "", how, {}, votes, counts, tuple(_missing(how, votes)), stamp if stamp.exists() else None
    )


@contextmanager
def _workplace(path: Path) -> Iterator[tuple[Path, Path]]:
    """(folder for what is kept, file to work on); what isn't needed at the end goes away."""
    stamp = path.parent / "recovery" / now().strftime("%Y-%m-%dT%H-%M-%S-%f")
    work = stamp / "work" / path.name
    work.parent.mkdir(mode=0o700, parents=True)
    stamp.parent.chmod(0o700)
    try:
        _room(path, work.parent)
        yield stamp, work
    finally:
        shutil.rmtree(work.parent, ignore_errors=True)
        for folder in (stamp, stamp.parent):
            with suppress(OSError):
                folder.rmdir()


def told(done: Recovery, dry_run: bool = False) -> Iterator[str]:
    """A recovery in a few lines."""
    if done.found:  # nothing was to be found out for a restore
        yield f"found:   {done.found}"
        yield f"would:   open {done.how}" if dry_run else f"did:     opened {done.how}"
    if done.rescued:
        rows = ", ".join(f"{count:,} of {table}" for table, count in done.rescued.items())
        yield f"         took over what only the damaged file had: rows {rows}"
    if str(done.votes):
        yield f"         {done.votes}"
    held = ", ".join(
        f"{done.counts[table]:,} {table}s" for table in ("vote", "prompt", "completion", "annotator")
    )
    yield f"holds:   {held}"
    for line in done.missing or ("nothing is missing",):
        yield f"missing: {line}" if done.missing else f"         {line}"
    if done.kept:
        yield f"kept:    the files as they were found, in {done.kept}"


def _prepared(path: Path, target: Path, position: int | None) -> tuple[str, str]:
    """A database at `target` that opens, made of the best source: (what was wrong, how it was opened)."""
    damage = ""
    for how, take in _sources(path, target, position):
        for left in (target, database.wal(target)):
            left.unlink(missing_ok=True)
        try:
            take()
            if target.exists():
                backup.examined(target)
            Store(target).close()  # migrations, and the log goes into the file
            return damage or NOTHING_WRONG, how
        except Damaged as error:
            damage = damage or str(error).removesuffix(_ADVICE).replace(str(target), str(path))
    raise AssertionError("a new database opens")


def _sources(path: Path, target: Path, position: int | None) -> Iterator[tuple[str, Callable[[], object]]]:
    """(how it is told, what puts the files of this source at `target`), the best first."""
    if database.missing(path) is None:
        yield "as it is", partial(_copy, path, target)
        if position is not None:
            yield (
                "with the write-ahead log up to its damaged place",
                partial(_copy, path, target, position),
            )
        if database.wal_bytes(path):
            yield "without the write-ahead log", partial(_copy, path, target, 0)
    else:
        yield "as it is", partial(database.connect, path)  # says what is missing
    for made in reversed(backup.backups(backup.folder_of(path))):
        how = f"the backup {made.file.name} of {made.created_at:%Y-%m-%d %H:%M} UTC"
        yield how, partial(_copy_backup, made.file, target)
    yield "a new database", lambda: None


def _copy(path: Path, target: Path, log_bytes: int | None = None) -> None:
    """Copy the file and its write-ahead log, or the log's first bytes."""
    if path.exists():
        shutil.copyfile(path, target)
    length = database.wal_bytes(path) if log_bytes is None else log_bytes
    if length:
        shutil.copyfile(database.wal(path), database.wal(target))
        os.truncate(database.wal(target), length)


def _copy_backup(file: Path, target: Path) -> None:
    backup.verify(file)
    shutil.copyfile(file, target)


def _damaged_place(path: Path) -> int | None:
    """Where in the write-ahead log DuckDB stops, when it says so. FileInUse when another process owns the file."""
    if not path.exists():
        return None
    try:
        database.connect(path, read_only=True).close()
    except Damaged as error:
        found = _POSITION.search(str(error))
        return int(found.group(1)) if found else None
    return None


def _rescue(path: Path, store: Store) -> dict[str, int]:
    """Take over what can still be read of the damaged file and the store lacks; table -> rows."""
    rescued: dict[str, int] = {}
    if database.missing(path) or not path.exists():
        return rescued
    try:
        con = database.connect(path, read_only=True)
    except UserError:
        return rescued
    with closing(con):
        for table in (*store.counts(), *_ALSO):
            with suppress(duckdb.Error):  # this table, or a part of it, is what is damaged
                rows = con.sql(f"SELECT * FROM {table}").to_arrow_table()
                if new := store.add_table(table, rows):
                    rescued[table] = new
    return rescued


def _swap(path: Path, work: Path, stamp: Path) -> None:
    """Put the recovered file in place of the damaged ones, which stay in `stamp`; a crash in between loses nothing."""
    for file in (path, database.wal(path)):
        if file.exists():
            _keep(file, stamp / file.name)
    sync_folder(stamp)
    database.wal(path).unlink(missing_ok=True)  # before the file that it doesn't belong to is there
    os.chmod(work, 0o600 if not path.exists() else path.stat().st_mode & 0o777)
    os.replace(work, path)
    sync_folder(path.parent)


def _keep(file: Path, target: Path) -> None:
    """The same file under a second name; a copy where the disk can't do that."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copy2(file, target)


def _missing(how: str, votes: Reconciliation) -> Iterator[str]:
    if "write-ahead log" in how:
        yield "no vote; of the time since the log was begun perhaps imports, accounts and guidelines"
    elif "backup" in how:
        yield "no vote; of the time since that backup perhaps imports, accounts and guidelines"
    elif how.startswith(_ELSE):
        yield (
            "accounts (`palate label` prints a link for the first admin), guidelines, imported and simulated "
            "votes, prompts that nobody has voted on: import their files again"
        )
    if votes.incomplete:
        yield f"the texts that {votes.incomplete} votes are about: their lines in the journal can't be read"
    for broken in votes.damage:
        if not broken.torn:
            yield f"what stood in line {broken.line} of the journal's {broken.file}, if the database lacks it too"


def _room(path: Path, folder: Path) -> None:
    size = (path.stat().st_size if path.exists() else 0) + database.wal_bytes(path)
    free = shutil.disk_usage(folder).free
    if free < 2 * size + 32 * 1024 * 1024:
        raise UserError(
            f"recovering needs {2 * size / 1e6 + 32:,.0f} MB in {folder}, {free / 1e6:,.0f} MB are free"
        )
