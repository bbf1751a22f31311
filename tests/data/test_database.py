"""The database file: what fails on a full disk, what is opened again, and what is never made anew."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import pytest

from palate.config import UserError
from palate.data import database
from palate.data.records import Annotator
from palate.data.store import Damaged, Store

ROOT = Path(__file__).parents[2]

# the size of files is limited, as on a full disk: in a process of its own, since the limit is the process's
FULL = """
import os, resource, sys
from pathlib import Path
import duckdb
from palate.data import database
from palate.data.records import Annotator, Completion
from palate.data.store import Store

path = Path(sys.argv[1])
store = Store(path)
store.add_completions([Completion(f"p{n}", os.urandom(500).hex()) for n in range(4000)])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
limit = lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

limit(database.wal_bytes(path) + 200)  # a commit fails, and only that
for n in range(5):
    try:
        store.add_annotators([Annotator(f"refused {n}" * 20)])
        raise SystemExit("it was stored")
    except duckdb.FatalException:
        raise
    except duckdb.Error as error:
        assert "File too large" in str(error), error
assert store.counts()["annotator"] == 0
limit(hard)
store.add_annotators([Annotator("stored")])

limit(path.stat().st_size)  # a checkpoint fails: DuckDB gives the database up, the store opens it again
try:
    with store.reader() as cursor:
        cursor.execute("CHECKPOINT")
    raise SystemExit("the checkpoint was made")
except duckdb.FatalException:
    pass
assert store.counts()["annotator"] == 1
assert not store.checkpoint()
raw = store._con.cursor()
try:
    raw.execute("CHECKPOINT")  # past the store, so that it does not know
    raise SystemExit("the checkpoint was made")
except duckdb.FatalException:
    pass
limit(hard)
try:
    store.add_annotators([Annotator("notices")])
    raise SystemExit("it was stored in a database that was given up")
except duckdb.FatalException:
    pass
store.add_annotators([Annotator("later")])
assert store.checkpoint()
assert database.wal_bytes(path) == 0
assert store.counts()["completion"] == 4000
os._exit(9)
"""


def test_a_full_disk_fails_what_does_not_fit_and_nothing_else(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "palate.duckdb")],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 9, done.stderr
    with Store(tmp_path / "palate.duckdb") as store:
        assert [row["name"] for row in store.rows("SELECT name FROM annotator ORDER BY name")] == [
            "later",
            "stored",
        ]


def test_a_long_log_is_moved_into_the_file_after_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "palate.duckdb"
    with Store(path) as store:
        store.add_annotators([Annotator("anna")])
        assert 0 < database.wal_bytes(path) < 1000
        monkeypatch.setattr(database, "WAL_BYTES", 1000)
        store.add_annotators([Annotator(f"annotator {n}") for n in range(100)])
        assert database.wal_bytes(path) == 0
        monkeypatch.setattr(database, "room_to_checkpoint", lambda _: False)  # without room the log grows on
        store.add_annotators([Annotator(f"another {n}") for n in range(100)])
        assert database.wal_bytes(path) > 1000
        assert store.counts()["annotator"] == 201


def test_a_checkpoint_waits_for_readers_without_harm(tmp_path: Path) -> None:
    with Store(tmp_path / "palate.duckdb") as store:
        store.add_annotators([Annotator("anna")])
        with store.reader() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT * FROM annotator").fetchall()
            made = store.checkpoint()  # DuckDB decides whether this reader is in the way
            store.add_annotators([Annotator("ben")])
            assert len(cursor.execute("SELECT * FROM annotator").fetchall()) == 1
            cursor.execute("COMMIT")
        assert made in (True, False)
        assert store.checkpoint()
        assert store.counts()["annotator"] == 2


def test_a_closed_store_stays_closed(tmp_path: Path) -> None:
    store = Store(tmp_path / "palate.duckdb")
    store.close()
    store.reopen()
    with pytest.raises(duckdb.ConnectionException):
        store.counts()
    with Store(tmp_path / "palate.duckdb") as free:
        assert free.counts()["vote"] == 0


def test_a_file_that_can_not_be_opened_again_is_a_database_error(tmp_path: Path) -> None:
    with Store(tmp_path / "palate.duckdb") as store:
        store._con.close()
        (tmp_path / "palate.duckdb").write_bytes(b"no database" * 1000)
        with pytest.raises(duckdb.ConnectionException, match="^the database can't be opened$"):
            store.counts()
        with pytest.raises(duckdb.ConnectionException), store.transaction():
            pass


def test_threads_find_the_file_opened_again(tmp_path: Path) -> None:
    with Store(tmp_path / "palate.duckdb") as store:
        store.add_annotators([Annotator("anna")])
        store._con.close()  # what is left after a fatal error and a reopening that failed
        found: list[int] = []
        threads = [
            threading.Thread(target=lambda: found.append(store.counts()["annotator"])) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [1] * 8


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("IO Error: Could not set lock on file: Conflicting lock is held", database.FileInUse),
        ("IO Error: Trying to read a database file with version number 99", UserError),
        ("IO Error: Cannot open file: Permission denied", UserError),
        ("IO Error: Could not write: No space left on device", UserError),
        ("IO Error: The file exists, but it is not a valid DuckDB database file!", Damaged),
        ("IO Error: Could not read enough bytes from file", Damaged),
    ],
)
def test_only_damage_is_called_damage(message: str, kind: type[UserError]) -> None:
    assert type(database.explained(Path("palate.duckdb"), duckdb.IOException(message))) is kind


def test_an_empty_file_is_damage_and_a_missing_one_is_made(tmp_path: Path) -> None:
    path = tmp_path / "palate.duckdb"
    path.touch()
    with pytest.raises(Damaged, match="is empty: run `palate recover`"):
        Store(path)
    path.unlink()
    Store(path).close()
    assert path.stat().st_size > 0
