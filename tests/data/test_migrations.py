"""Migrations: applied once, in order, all or nothing; an edited or newer schema is refused with a sentence."""

from pathlib import Path

import duckdb
import pytest

from palate.config import UserError
from palate.data import migrations
from palate.data.migrations import MIGRATIONS, Migration, migrate
from palate.data.store import Store


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


def test_numbers_go_up_by_one() -> None:
    assert [step.version for step in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))
    assert len({step.name for step in MIGRATIONS}) == len(MIGRATIONS)


def test_applied_once(con: duckdb.DuckDBPyConnection) -> None:
    assert migrate(con) == len(MIGRATIONS)
    assert migrate(con) == 0
    ledger = con.execute("SELECT version, name, duckdb FROM schema_migration ORDER BY version").fetchall()
    assert ledger == [(step.version, step.name, duckdb.__version__) for step in MIGRATIONS]


def test_a_later_step_is_added_to_what_is_there(
    con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(con)
    step = Migration(len(MIGRATIONS) + 1, "colour", lambda: "ALTER TABLE prompt ADD COLUMN colour VARCHAR")
    monkeypatch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, step))
    assert migrate(con) == 1
    assert con.execute("SELECT count(colour) FROM prompt").fetchall() == [(0,)]


def test_a_failing_step_leaves_nothing(
    con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(con)
    sql = "CREATE TABLE half (x INTEGER); SELECT * FROM nowhere"
    monkeypatch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, Migration(99, "half", lambda: sql)))
    with pytest.raises(duckdb.CatalogException, match="nowhere"):
        migrate(con)
    tables = [name for (name,) in con.execute("SELECT table_name FROM information_schema.tables").fetchall()]
    assert "half" not in tables
    monkeypatch.undo()
    assert migrate(con) == 0


def test_an_edited_step_is_refused(con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(con)
    edited = MIGRATIONS[0]._replace(sql=lambda: MIGRATIONS[0].sql() + "-- a thought")
    monkeypatch.setattr(migrations, "MIGRATIONS", (edited, *MIGRATIONS[1:]))
    with pytest.raises(UserError, match=r"migration 1 \(first_schema\) differs from the one that made this"):
        migrate(con)


def test_a_newer_schema_is_refused_and_the_file_is_free_again(tmp_path: Path) -> None:
    path = tmp_path / "x.duckdb"
    with Store(path) as store:
        store.write("INSERT INTO schema_migration VALUES (99, 'from_the_future', 'x', 'x', now())")
    with pytest.raises(
        UserError, match="the database has schema 99, this Palate knows .*: update palate to open it"
    ):
        Store(path)
    con = duckdb.connect(str(path))
    con.execute("DELETE FROM schema_migration WHERE version = 99")
    con.close()
    Store(path).close()
