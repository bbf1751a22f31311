"""Backups of a running server: every so many minutes while votes come in, and when an admin asks.

    keeper = add_backups(app, store, folder_of(store.path), config.backup_minutes)
    ... keeper.close()                  # before the store closes

The same thread moves the write-ahead log into the file when nobody votes, so that the next start is quick.
"""

import sys
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
from fastapi import FastAPI, Request

from palate.config import UserError
from palate.data import backup, database, journal
from palate.data.backup import Backup
from palate.data.store import Store
from palate.labeling.login import Refused, require
from palate.labeling.people import COMMAND

TICK = 3.0  # seconds between looks at the log; it is idle when it has not grown in between
WORTH_MOVING = 256 * 1024  # bytes of the log
PAUSE = 300.0  # seconds until the next attempt after a failed one


class Keeper:
    """Makes backups, one at a time, and checkpoints when idle, on a thread of its own."""

    def __init__(self, store: Store, folder: Path, minutes: float) -> None:
        self._store, self._folder, self._seconds = store, folder, 60.0 * minutes
        self._busy = threading.Lock()
        self._stop = threading.Event()
        self.failure: str | None = None  # why the latest attempt of the thread failed
        self._votes = self._count()
        self._next = time.monotonic() + self._seconds
        self._thread = threading.Thread(target=self._run, name="palate-keeper", daemon=True)
        self._thread.start()

    def make(self) -> Backup:
        """A backup now: made, read again, older ones thinned out."""
        if not self._busy.acquire(blocking=False):
            raise Refused(409, "busy", "a backup is being made; ask again when it is done")
        try:
            votes = self._count()
            made = backup.backup(self._store, self._folder)
            backup.prune(self._folder)
            backup.pack_journal(made, journal.folder_of(self._store.path))
            self._votes, self.failure = votes, None
            self._next = time.monotonic() + self._seconds
            return made
        finally:
            self._busy.release()

    def close(self) -> None:
        """End the thread; a backup that is being made is finished first."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        length = 0
        while not self._stop.wait(TICK):
            try:
                before, length = length, database.wal_bytes(self._store.path)
                if length == before and length > WORTH_MOVING:
                    self._store.checkpoint()
                if self._seconds and time.monotonic() >= self._next and self._count() > self._votes:
                    self.make()
            except (UserError, OSError, duckdb.Error, Refused) as error:
                self._next = time.monotonic() + max(PAUSE, self._seconds)
                self.failure = str(error).splitlines()[0]
                print(f"backup:     {self.failure}", file=sys.stderr, flush=True)

    def _count(self) -> int:
        return int(self._store.value("SELECT count(*) FROM vote"))


def add_backups(app: FastAPI, store: Store, folder: Path, minutes: float) -> Keeper:
    """The routes, for admins and for commands on this machine, and the thread; close the keeper before the store."""
    keeper = Keeper(store, folder, minutes)

    def allowed(request: Request) -> None:
        if require(request, "lead") != COMMAND:
            require(request, "admin")

    @app.post("/api/v1/backups", tags=["backups"])
    def make(request: Request) -> dict[str, Any]:
        """Back the database up now; answers when the backup has been read again."""
        allowed(request)
        return described(keeper.make())

    @app.get("/api/v1/backups", tags=["backups"])
    def known(request: Request) -> dict[str, Any]:
        """The backups that are kept, oldest first."""
        allowed(request)
        return {"backups": [described(made) for made in backup.backups(folder)], "failure": keeper.failure}

    return keeper


def described(made: Backup) -> dict[str, Any]:
    """A backup in JSON."""
    return {"file": made.file.name, "created_at": f"{made.created_at.isoformat()}Z", "votes": made.votes}
