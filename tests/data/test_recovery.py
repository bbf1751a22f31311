"""Whatever happens to the files, every acknowledged vote is there afterwards, exactly once, and it is told how."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from palate.config import UserError
from palate.data import backup, database, journal
from palate.data.journal import Journal
from palate.data.reconcile import reconcile
from palate.data.records import Annotator, Assignment, Comparison, Completion, Prompt, Vote
from palate.data.recovery import open_store, recover, told
from palate.data.store import Damaged, Store

ROOT = Path(__file__).parents[2]
VOTES = 60  # a third in a backup, a third in the file, a third in the write-ahead log

# a server as the database sees it: commits, then journals, then is killed
BUILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_recovery as t
t.build(Path(sys.argv[1]))
"""


def build(folder: Path) -> None:
    """What a server leaves that is killed."""
    path = folder / "palate.duckdb"
    store = Store(path)
    people = [Annotator("anna"), Annotator("bob")]
    store.add_annotators(people)
    store.write("INSERT INTO guideline VALUES (1, 'be kind', NULL, now()::TIMESTAMP)")
    opened = Journal(journal.folder_of(path))
    for number in range(VOTES):
        prompt = Prompt(({"role": "user", "content": f"idea {number}"},))
        answers = [Completion(prompt.id, text, model="m") for text in ("one", "two")]
        comparison = Comparison(prompt.id, tuple(answer.id for answer in answers))
        person = people[number % 2]
        assignment = Assignment(comparison.id, person.id, comparison.completion_ids, "done")
        vote = Vote(assignment.id, "tie", id=f"vote-{number:04}")
        with store.transaction():
            store.add_all([prompt], answers, [comparison], [assignment])
            store.insert([vote])
        row = store.rows("SELECT created_at FROM vote WHERE id = ?", [vote.id])[0]
        needed = [person, prompt, *answers, comparison, assignment]
        lines = [journal.line(record) for record in needed]
        opened.append([*lines, journal.line(vote) | {"created_at": row["created_at"]}])
        if number == VOTES // 3 - 1:
            backup.backup(store, backup.folder_of(path))
        if number == 2 * VOTES // 3 - 1:
            assert store.checkpoint()
    os._exit(9)  # before anything is closed


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's files after a kill, to be copied and damaged."""
    folder = tmp_path_factory.mktemp("killed")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder), str(Path(__file__).parent)], env=environment, check=False
    )
    assert done.returncode == 9
    assert database.wal_bytes(folder / "palate.duckdb") > 10_000
    return folder


@pytest.fixture
def path(killed: Path, tmp_path: Path) -> Path:
    shutil.copytree(killed, tmp_path / "project")
    return tmp_path / "project" / "palate.duckdb"


def is_whole(path: Path) -> None:
    """Every vote once in the database, with its texts, and once in the journal."""
    expected = [f"vote-{number:04}" for number in range(VOTES)]
    with Store(path) as store:
        assert [row["id"] for row in store.rows("SELECT id FROM vote ORDER BY id")] == expected
        assert store.value("SELECT count(DISTINCT prompt_id) FROM current_vote") == VOTES
        assert store.value("SELECT count(*) FROM assignment WHERE state = 'done'") == VOTES
        assert store.value("SELECT count(DISTINCT created_at) FROM vote") == VOTES
    lines = [entry["id"] for entry in journal.read(journal.folder_of(path)) if entry["kind"] == "vote"]
    assert sorted(lines) == expected


def cut(share: float, log: bool) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        target = database.wal(path) if log else path
        os.truncate(target, int(target.stat().st_size * share))

    return damage


def garbage(start: float, end: float, log: bool) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        target = database.wal(path) if log else path
        data = bytearray(target.read_bytes())
        first, last = int(len(data) * start), max(int(len(data) * end), int(len(data) * start) + 1)
        data[first:last] = random.Random(0).randbytes(last - first)
        target.write_bytes(bytes(data))

    return damage


def gone(path: Path) -> None:
    path.unlink()


def all_gone(path: Path) -> None:
    path.unlink()
    database.wal(path).unlink()


def main_and_backups(path: Path) -> None:
    os.truncate(path, 20_000)
    for file in backup.folder_of(path).glob("*.duckdb"):
        os.truncate(file, 20_000)


def torn_journal(path: Path) -> None:
    """Killed while a line was written: that vote is committed, and nobody was told so."""
    file = journal.files(journal.folder_of(path))[-1]
    os.truncate(file, file.stat().st_size - 40)


def torn_both(path: Path) -> None:
    torn_journal(path)
    cut(0.9999, log=True)(
        path
    )  # the vote that the journal lacks is the last one, and it is lost: never acknowledged


DAMAGES: dict[str, Callable[[Path], None]] = {
    "nothing": lambda path: None,
    "log truncated": cut(0.5, log=True),
    "log truncated early": cut(0.02, log=True),
    "log truncated late": cut(0.999, log=True),
    "log empty": cut(0, log=True),
    "log starts with garbage": garbage(0, 0.01, log=True),
    "log is garbage": garbage(0, 1, log=True),
    "one byte of the log": garbage(0.5, 0.5, log=True),
    "end of the log": garbage(0.99, 1, log=True),
    "main truncated": cut(0.9, log=False),
    "main truncated to half": cut(0.5, log=False),
    "main truncated to a few bytes": cut(0.0005, log=False),
    "main empty": cut(0, log=False),
    "main starts with garbage": garbage(0, 0.02, log=False),
    "one byte of a block": garbage(0.6, 0.6, log=False),
    "main is garbage": garbage(0, 1, log=False),
    "main missing": gone,
    "main and log missing": all_gone,
    "main and backups truncated": main_and_backups,
    "torn journal": torn_journal,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_the_app_opens_by_itself_with_every_vote(path: Path, damage: Callable[[Path], None]) -> None:
    damage(path)
    said: list[str] = []
    open_store(path, said.append).close()
    is_whole(path)
    again: list[str] = []
    open_store(path, again.append).close()
    assert again == []
    is_whole(path)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_recover_does_the_same_and_deletes_nothing(path: Path, damage: Callable[[Path], None]) -> None:
    damage(path)
    before = {file: file.read_bytes() for file in (path, database.wal(path)) if file.exists()}
    assert recover(path, dry_run=True).kept is None
    assert {file: file.read_bytes() for file in (path, database.wal(path)) if file.exists()} == before
    assert not (path.parent / "recovery").exists()
    done = recover(path)
    is_whole(path)
    assert done.counts["vote"] == VOTES
    if done.kept is not None:
        assert {file.name: file.read_bytes() for file in done.kept.iterdir()} == {
            file.name: data for file, data in before.items()
        }


def test_a_torn_journal_and_a_torn_log_lose_only_what_nobody_was_told(path: Path) -> None:
    torn_both(path)
    open_store(path, lambda _: None).close()
    with Store(path) as store:
        ids = [row["id"] for row in store.rows("SELECT id FROM vote ORDER BY id")]
    assert ids == [f"vote-{number:04}" for number in range(VOTES - 1)]


def test_what_was_done_is_told(path: Path) -> None:
    garbage(0.5, 0.5, log=True)(path)
    would = list(told(recover(path, dry_run=True), dry_run=True))
    lines = list(told(recover(path)))
    assert lines[0].startswith("found:   ")
    assert "Failure while replaying WAL" in lines[0]
    assert lines[1] == "did:     opened with the write-ahead log up to its damaged place"
    assert would[1] == "would:   open with the write-ahead log up to its damaged place"
    assert "votes came back from the journal" in lines[2]
    assert "60 votes, 60 prompts, 120 completions, 2 annotators" in lines[3]
    assert lines[-1].startswith("kept:    the files as they were found, in ")


def test_a_healthy_database_is_left_alone(path: Path) -> None:
    Store(path).close()
    before = path.read_bytes()
    done = recover(path)
    assert (done.found, done.kept, done.votes.inserted, done.missing) == (
        "opens without trouble",
        None,
        0,
        (),
    )
    assert path.read_bytes() == before
    assert list(told(done))[-1].strip() == "nothing is missing"


def readable(path: Path, table: str) -> bool:
    try:
        with duckdb.connect(str(path), read_only=True) as con:
            con.execute(f"SELECT * FROM {table}").fetchall()
    except duckdb.Error:
        return False
    return True


def test_what_the_damaged_file_still_holds_is_taken_over(path: Path) -> None:
    """The backup is older than the guideline; the table of texts is what is damaged."""
    with Store(path) as store:
        store.write("INSERT INTO guideline VALUES (2, 'be kinder', NULL, now()::TIMESTAMP)")
        store.write("INSERT INTO account VALUES ('a', 'scrypt$', true, now()::TIMESTAMP, NULL)")
        big = [Completion(f"p{n}", random.Random(n).randbytes(400).hex()) for n in range(3000)]
        store.add_completions(big)
    whole = path.read_bytes()
    for place in range(
        len(whole) - 1000, 0, -100_000
    ):  # until a block of the completions is hit, and only that
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        if readable(path, "guideline") and readable(path, "account") and not readable(path, "completion"):
            break
    else:
        raise AssertionError("no such block")
    said: list[str] = []
    with open_store(path, said.append) as store:
        assert store.value("SELECT max(version) FROM guideline") == 2
        assert store.value("SELECT count(*) FROM account") == 1
    assert any("took over" in line for line in said)
    is_whole(path)


def test_a_file_that_is_not_damaged_is_never_recovered(path: Path) -> None:
    con = duckdb.connect(str(path))
    con.execute("INSERT INTO schema_migration VALUES (999, 'later', 'x', 'x', now()::TIMESTAMP)")
    con.close()
    with pytest.raises(UserError, match="update palate"):
        open_store(path, pytest.fail)
    assert not (path.parent / "recovery").exists()


def test_others_are_told_to_recover(path: Path) -> None:
    gone(path)
    with pytest.raises(Damaged, match=r"palate.duckdb is missing, but .* run `palate recover`"):
        Store(path)
    assert not path.exists()
    all_gone_but_journal = path.parent / "other" / "palate.duckdb"
    shutil.copytree(journal.folder_of(path), journal.folder_of(all_gone_but_journal))
    with pytest.raises(Damaged, match="votes.journal holds its votes"):
        Store(all_gone_but_journal)


def test_a_database_in_use_is_not_recovered(path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", f"import duckdb; c = duckdb.connect({str(path)!r}); print('open', flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    try:
        with pytest.raises(UserError, match="open in another process"):
            recover(path)
    finally:
        holder.communicate("\n")


def test_a_database_older_than_its_journal_fills_it(tmp_path: Path, path: Path) -> None:
    """The first start with a journal: what people voted goes in, imported and simulated votes do not."""
    shutil.rmtree(journal.folder_of(path))
    with Store(path) as store:
        first = store.rows("SELECT * FROM assignment ORDER BY id LIMIT 1")[0]
        store.add_votes([Vote(first["id"], "tie", run_id="import-1", id="imported-1")])
        edit = Completion(
            store.value("SELECT prompt_id FROM comparison WHERE id = ?", [first["comparison_id"]]),
            "better",
            role="edit",
        )
        store.add_completions([edit])
        store.add_votes([Vote(first["id"], "tie", edited_text="better", id="edited-01")])
        done = reconcile(store, journal.folder_of(path))
        assert str(done) == "61 votes of the database went into the journal"
        assert str(reconcile(store, journal.folder_of(path))) == ""
        held = {table: store.rows(f"SELECT * EXCLUDE (created_at) FROM {table} ORDER BY id") for table in
                ("annotator", "prompt", "completion", "comparison", "assignment")}  # fmt: skip
        votes = store.rows("SELECT * FROM vote WHERE run_id IS NULL ORDER BY id")
    with Store(tmp_path / "rebuilt.duckdb") as rebuilt:
        assert reconcile(rebuilt, journal.folder_of(path)).inserted == VOTES + 1
        assert held == {
            table: rebuilt.rows(f"SELECT * EXCLUDE (created_at) FROM {table} ORDER BY id") for table in held
        }
        assert votes == rebuilt.rows("SELECT * FROM vote ORDER BY id")


def test_a_damaged_line_of_the_journal_is_named(path: Path) -> None:
    file = journal.files(journal.folder_of(path))[0]
    lines = file.read_bytes().splitlines(keepends=True)
    at = next(n for n, raw in enumerate(lines) if b"vote-0005" in raw)
    lines[at] = lines[at].replace(b"tie", b"tye")
    file.write_bytes(b"".join(lines))
    said: list[str] = []
    open_store(path, said.append).close()
    assert len(said) == 1
    assert "1 vote of the database went into the journal" in said[0]
    assert f"line {at + 1} of the journal's {file.name} can't be read" in said[0]
    is_whole(path)


def test_a_vote_whose_texts_are_lost_is_kept_and_counted(path: Path) -> None:
    all_gone(path)
    shutil.rmtree(backup.folder_of(path))
    file = journal.files(journal.folder_of(path))[0]
    lines = file.read_bytes().splitlines(keepends=True)
    at = next(n for n, raw in enumerate(lines) if json.loads(raw)["kind"] == "prompt")
    lines[at] = lines[at].replace(b"idea", b"idEa")
    file.write_bytes(b"".join(lines))
    done = recover(path)
    assert done.votes.incomplete == 1
    assert done.counts["vote"] == VOTES
    assert any("the texts that 1 votes are about" in line for line in told(done))
