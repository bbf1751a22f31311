"""Backups through a running server, and a server that opens by itself on a damaged database."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from palate.config import LabelConfig
from palate.data import backup, database
from palate.data.records import Assignment, Vote
from palate.data.store import Store
from palate.labeling import backup_routes
from palate.labeling.backup_routes import Keeper
from palate.labeling.server import make_app
from palate.project import Project
from tests.labeling.annotator_client import Page, add_people
from tests.labeling.conftest import ENV, Server, enter, fill


def palate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "palate", *arguments]
    return subprocess.run(command, env=ENV, capture_output=True, text=True, check=False)


def wait_for(condition: Callable[[], object]) -> None:
    for _ in range(400):
        if condition():
            return
        backup_routes.threading.Event().wait(0.02)
    raise AssertionError("it did not come about")


@pytest.fixture
def client(project: Project) -> Iterator[TestClient]:
    store = project.own_store()
    fill(store)
    app: FastAPI = make_app(store, project, LabelConfig(project=project.folder, browser=False))
    with TestClient(app, base_url="http://localhost") as opened:
        yield opened


def test_an_admin_makes_backups_and_nobody_else(client: TestClient, project: Project) -> None:
    for role, status in (("annotator", 403), ("lead", 403), ("admin", 200)):
        enter(client, f"the {role}", role)  # type: ignore[arg-type]
        assert client.post("/api/v1/backups", json={}).status_code == status
        assert client.get("/api/v1/backups").status_code == status
    made = backup.backups(backup.folder_of(project.database))
    assert [one["file"] for one in client.get("/api/v1/backups").json()["backups"]] == [made[0].file.name]
    client.cookies.clear()
    assert client.post("/api/v1/backups", json={}).status_code == 401


def test_backups_come_by_themselves_while_votes_do(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_routes, "TICK", 0.02)
    monkeypatch.setattr(backup_routes, "WORTH_MOVING", 0)
    folder = backup.folder_of(store.path)
    keeper = Keeper(store, folder, minutes=0.0005)
    try:
        store.add_votes([Vote("a", "tie")])
        wait_for(lambda: backup.backups(folder))
        wait_for(lambda: not database.wal_bytes(store.path))  # moved into the file when nobody votes
        votes = [Vote(Assignment("c", str(n), ()).id, "tie") for n in range(3)]
        store.add_votes(votes)
        wait_for(lambda: backup.backups(folder)[-1].votes == 4)
    finally:
        keeper.close()
    assert [one.votes for one in backup.backups(folder)] == [1, 4]  # none while nobody voted


def test_a_backup_that_fails_is_told_and_the_server_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backup_routes, "TICK", 0.02)
    folder = backup.folder_of(store.path)
    folder.write_text("a file where the folder should be")
    keeper = Keeper(store, folder, minutes=0.0005)
    try:
        store.add_votes([Vote("a", "tie")])
        wait_for(lambda: keeper.failure)
    finally:
        keeper.close()
    assert "backup:     " in capsys.readouterr().err
    assert store.counts()["vote"] == 1


@pytest.mark.slow
def test_backup_damage_and_recovery_as_a_user_meets_them(
    project: Project, launch: Callable[..., Server]
) -> None:
    with Store(project.database) as store:
        fill(store, n=10)
        token = add_people(store, ["anna"])["anna"]
    server = launch(project.folder)
    with Page(server.url, token) as anna:
        for _ in range(4):
            assert anna.step() == "voted"
        done = palate("backup", "--project", str(project.folder))
        assert done.returncode == 0, done.stderr
        assert re.search(r"made: .*\.duckdb with 4 votes, by the running server", done.stdout)
        for _ in range(3):
            assert anna.step() == "voted"
        server.stop(9)
        os.truncate(project.database, 100_000)
        done = palate("stats", "--project", str(project.folder))
        assert done.returncode == 1
        assert "is damaged" in done.stderr
        assert done.stderr.rstrip().endswith("run `palate recover`")
        assert len(done.stderr.strip().splitlines()) == 1
        done = palate("recover", "--dry-run", "--project", str(project.folder))
        assert re.search(r"would:   open the backup \S+ of \d{4}-", done.stdout)
        assert "3 votes came back from the journal" in done.stdout
        again = launch(project.folder)  # by itself
        anna.move(again.url)
        # an item that was held and not answered is known to neither backup nor journal: it is given out anew
        said = [anna.step() for _ in range(6)]
        assert (said.count("voted"), said[-1], set(said) - {"voted", "gone", "idle"}) == (3, "idle", set())
        again.stop()
    with Store(project.database) as store:
        assert {row["id"] for row in store.rows("SELECT id FROM vote")} == set(anna.acknowledged)
    assert len(anna.acknowledged) == 10
    assert list((project.folder / "recovery").glob("*/palate.duckdb"))
    done = palate("restore", "latest", "--project", str(project.folder), "--to", str(project.folder / "copy"))
    assert done.returncode == 0, done.stderr
    assert "6 votes came back from the journal" in done.stdout
    with Store(Path(project.folder / "copy" / "palate.duckdb")) as store:
        assert store.counts()["vote"] == 10
