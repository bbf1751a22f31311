"""Numbered, named, append-only migrations. Each runs in one transaction; the store checkpoints after them.

A migration that has landed is never edited: its checksum is stored, and a database that was made by a newer
Palate, or by an edited step, is refused with a sentence instead of being opened.
"""

import hashlib
from collections.abc import Callable
from importlib.resources import files
from typing import NamedTuple

import duckdb

from palate.config import UserError


class Migration(NamedTuple):
    """One step of the schema's history."""

    version: int
    name: str
    sql: Callable[[], str]


def _file(name: str) -> Callable[[], str]:
    return lambda: files("palate.data").joinpath(name).read_text(encoding="utf-8")


MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, "first_schema", _file("schema.sql")),
    Migration(2, "annotators_app", _file("schema_2.sql")),
    Migration(3, "review", _file("schema_3.sql")),
    Migration(4, "reward_features", _file("schema_4.sql")),
)

_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migration (
    version INTEGER PRIMARY KEY, name VARCHAR NOT NULL, checksum VARCHAR NOT NULL,
    duckdb VARCHAR NOT NULL, applied_at TIMESTAMP NOT NULL DEFAULT current_timestamp
)"""


def migrate(con: duckdb.DuckDBPyConnection) -> int:
    """Bring the database to the newest schema; returns how many steps were applied."""
    con.execute(_LEDGER)
    ledger = con.execute("SELECT version, checksum FROM schema_migration").fetchall()
    applied: dict[int, str] = {int(version): str(checksum) for version, checksum in ledger}
    newest = max((step.version for step in MIGRATIONS), default=0)
    if applied and max(applied) > newest:
        raise UserError(
            f"the database has schema {max(applied)}, this Palate knows {newest}: update palate to open it"
        )
    done = 0
    for step in MIGRATIONS:
        sql = step.sql()
        checksum = hashlib.sha256(sql.encode()).hexdigest()
        if step.version in applied:
            if applied[step.version] != checksum:
                raise UserError(
                    f"migration {step.version} ({step.name}) differs from the one that made this database: "
                    "a landed migration is never edited, add a new one"
                )
            continue
        con.execute("BEGIN")
        try:
            con.execute(sql)
            con.execute(
                "INSERT INTO schema_migration (version, name, checksum, duckdb) VALUES (?, ?, ?, ?)",
                [step.version, step.name, checksum, duckdb.__version__],
            )
            con.execute("COMMIT")
        except BaseException:
            con.execute("ROLLBACK")
            raise
        done += 1
    return done
