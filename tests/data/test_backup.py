"""Backups while votes go on: a snapshot, compared with its source, kept few, and restored with what came after."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from palate.config import UserError
from palate.data import backup, journal
from palate.data.journal import Journal
from palate.data.reconcile import reconcile
from palate.data.records import Annotator, Assignment, Comparison, Completion, Prompt, Vote
from palate.data.recovery import recover, restore, told
from palate.data.store import Damaged, Store


def fill(store: Store, n: int, start: int = 0) -> list[Assignment]:
    """`n` comparisons, each assigned to Anna."""
    anna = Annotator("anna")
    prompts = [Prompt(({"role": "user", "content": f"idea {start + i}"},)) for i in range(n)]
    pairs = [[Completion(p.id, text + " x" * 100, model="m") for text in ("one", "two")] for p in prompts]
    comparisons = [Comparison(p.id, (a.id, b.id)) for p, (a, b) in zip(prompts, pairs, strict=True)]
    assignments = [Assignment(c.id, anna.id, c.completion_ids, "done") for c in comparisons]
    store.add_all([anna], prompts, [c for pair in pairs for c in pair], comparisons, assignments)
    return assignments


def vote(store: Store, assignments: list[Assignment]) -> None:
    store.add_votes([Vote(one.id, "tie", id=f"v-{one.id}") for one in assignments])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "palate.duckdb"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(path) as opened:
        yield opened


def test_a_backup_holds_everything_and_its_owner_alone_can_read_it(store: Store, path: Path) -> None:
    vote(store, fill(store, 50))
    made = backup.backup(store, backup.folder_of(path))
    assert made.votes == 50
    assert backup.backups(backup.folder_of(path)) == [made]
    assert backup.verify(made.file) == made.sums
    assert [p.name for p in backup.folder_of(path).iterdir() if ".part" in p.name] == []
    assert made.file.stat().st_mode & 0o777 == 0o600
    assert backup.folder_of(path).stat().st_mode & 0o777 == 0o700
    with Store(made.file) as copy:
        assert copy.counts() == store.counts()
        assert copy.rows("SELECT * FROM preference ORDER BY ALL") == store.rows(
            "SELECT * FROM preference ORDER BY ALL"
        )
        copy.add_votes([Vote("a", "tie", id="v-new")])  # keys and views came along
        with pytest.raises(Exception, match="onstraint"):
            copy.write("INSERT INTO vote SELECT * FROM vote WHERE id = 'v-new'")


def test_votes_go_on_while_a_backup_is_made(store: Store, path: Path) -> None:
    """The backup is of one moment: all or nothing of each transaction, in the order of the commits."""
    assignments = fill(store, 20_000)
    vote(store, assignments[:15_000])
    seconds: list[float] = []
    ended = threading.Event()

    def go_on() -> None:
        for one in assignments[15_000:]:
            if ended.is_set():
                return
            start = time.perf_counter()
            with store.transaction():
                store.insert([Vote(one.id, "tie", id=f"v-{one.id}")])
            seconds.append(time.perf_counter() - start)

    voter = threading.Thread(target=go_on)
    voter.start()
    while len(seconds) < 20:
        time.sleep(0.001)
    before = len(seconds)
    made = backup.backup(store, backup.folder_of(path))
    during = seconds[before:]
    ended.set()
    voter.join()
    assert len(during) > 10
    assert 15_000 + before - 1 <= made.votes <= 15_000 + len(seconds)
    with Store(made.file) as copy:
        there = {row["id"] for row in copy.rows("SELECT id FROM vote")}
    given = [f"v-{one.id}" for one in assignments]
    assert there == set(given[: len(there)])
    assert (
        statistics.quantiles(during, n=20)[-1] < 1.0
    )  # docs/durability.md has what it is on a quiet machine


def test_a_backup_that_cannot_be_made_leaves_nothing(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vote(store, fill(store, 5))
    folder = backup.folder_of(path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
        with pytest.raises(UserError, match="a backup needs .* MB .* are free: make room first"):
            backup.backup(store, folder)
    with monkeypatch.context() as patch:  # what is read back is not what was written
        patch.setattr(backup, "examined", lambda _: {"vote": (4, 0)})
        with pytest.raises(UserError, match="differs from the database in .*vote.*: not kept"):
            backup.backup(store, folder)
    assert list(folder.iterdir()) == []
    assert backup.backup(store, folder).votes == 5


def test_a_backup_that_rots_is_found_out(store: Store, path: Path) -> None:
    vote(store, fill(store, 5))
    made = backup.backup(store, backup.folder_of(path))
    data = bytearray(made.file.read_bytes())
    for place in range(300_000, len(data), 4096):
        data[place] ^= 0xFF
    made.file.write_bytes(bytes(data))
    with pytest.raises(Damaged):
        backup.verify(made.file)
    with pytest.raises(UserError):
        restore(made.file, path.parent / "other" / path.name, journal.folder_of(path))
    assert not (path.parent / "other" / path.name).exists()


def test_the_newest_and_one_of_each_day_are_kept(tmp_path: Path) -> None:
    begin = datetime(2026, 11, 1)
    for hour in range(0, 24 * 20, 6):
        moment = begin + timedelta(hours=hour)
        file = tmp_path / f"{moment:%Y-%m-%dT%H-%M-%S}.duckdb"
        file.touch()
        file.with_suffix(".json").write_text(
            json.dumps({"created_at": moment.isoformat(), "sums": {}, "journal": "", "duckdb": ""})
        )
    (tmp_path / "mine.duckdb").touch()
    gone = backup.prune(tmp_path, keep=3, days=5)
    left = sorted(file.stem for file in tmp_path.glob("*.duckdb"))
    assert left == [
        "2026-11-16T18-00-00", "2026-11-17T18-00-00", "2026-11-18T18-00-00", "2026-11-19T18-00-00",
        "2026-11-20T06-00-00", "2026-11-20T12-00-00", "2026-11-20T18-00-00", "mine",
    ]  # fmt: skip
    assert len(gone) == 80 - 7
    assert len(list(tmp_path.glob("*.json"))) == 7


def test_journal_files_are_packed_when_a_backup_holds_their_votes(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "PACKED_BEYOND", 100)
    folder = journal.folder_of(path)
    first, second, third = (fill(store, 5, start) for start in (0, 100, 200))
    for some in (first, second):
        vote(store, some)
        reconcile(store, folder)
    only_journal = Journal(folder)
    only_journal.append([journal.line(Vote(third[0].id, "tie", id="v-not-in-the-database"))])
    only_journal.close()
    Journal(folder).append([{"kind": "vote", "id": "the-newest-file"}])
    made = backup.backup(store, backup.folder_of(path))
    packed = backup.pack_journal(made, folder)
    assert [file.name for file in packed] == ["000001.jsonl.gz", "000002.jsonl.gz"]
    assert [file.name for file in journal.files(folder)] == [
        "000001.jsonl.gz", "000002.jsonl.gz", "000003.jsonl", "000004.jsonl",
    ]  # fmt: skip
    assert journal.vote_ids(packed) == {f"v-{one.id}" for one in first + second}


def test_a_restored_backup_has_every_vote_that_was_given_since(path: Path, tmp_path: Path) -> None:
    with Store(path) as store:
        assignments = fill(store, 30)
        vote(store, assignments[:10])
        made = backup.backup(store, backup.folder_of(path))
        vote(store, assignments[10:])
        reconcile(store, journal.folder_of(path))
        votes = store.rows("SELECT * FROM vote ORDER BY id")
    before = path.read_bytes()
    with pytest.raises(UserError, match="--force"):
        restore(made.file, path, journal.folder_of(path))
    assert path.read_bytes() == before
    done = restore(made.file, path, journal.folder_of(path), force=True)
    assert done.votes.inserted == 20
    assert any("20 votes came back from the journal" in line for line in told(done))
    assert done.kept is not None
    assert (done.kept / path.name).read_bytes() == before
    elsewhere = tmp_path / "elsewhere" / path.name
    restore(made.file, elsewhere, journal.folder_of(path))
    for restored in (path, elsewhere):
        with Store(restored) as store:
            assert store.rows("SELECT * FROM vote ORDER BY id") == votes
            assert store.value("SELECT count(*) FROM current_vote") == 30
    assert recover(path).found == "opens without trouble"


def test_a_running_database_is_not_replaced(path: Path) -> None:
    with Store(path) as store:
        vote(store, fill(store, 3))
        made = backup.backup(store, backup.folder_of(path))
    script = f"import duckdb; c = duckdb.connect({str(path)!r}); print('open', flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    try:
        with pytest.raises(UserError, match="open in another process"):
            restore(made.file, path, journal.folder_of(path), force=True)
    finally:
        holder.communicate("\n")
    assert os.path.exists(path)
