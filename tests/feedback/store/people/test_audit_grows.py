"""The audit log only grows: no row is changed, removed or replaced, from whatever program the statement comes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from feedback.database.engine import Database, open_database
from feedback.store.people.audit import list_events, save_event
from tests.feedback.migrations.test_adapters import migrate_to

_ROW = "(1, '2026-01-01 00:00:00', 'eve', 'nothing', '', '{}')"
_COLUMNS = "(number, created_at, actor, verb, subject, detail)"
STATEMENTS = [
    "UPDATE audit SET actor = 'eve' WHERE number = 1",
    "DELETE FROM audit WHERE number = 1",
    "DELETE FROM audit",
    f"INSERT INTO audit {_COLUMNS} VALUES {_ROW} ON CONFLICT (number) DO UPDATE SET actor = 'eve'",
]
OF_SQLITE = [
    f"INSERT OR REPLACE INTO audit {_COLUMNS} VALUES {_ROW}",
    f"REPLACE INTO audit {_COLUMNS} VALUES {_ROW}",
    f"INSERT OR IGNORE INTO audit {_COLUMNS} VALUES {_ROW}",
    "UPDATE OR REPLACE audit SET number = 1 WHERE number = 2",
    "UPDATE OR IGNORE audit SET actor = 'eve'",
]


def filled(db: Database) -> Database:
    save_event(db, "ann", "one")
    save_event(db, "ben", "two")
    return db


@pytest.mark.parametrize("statement", [*STATEMENTS, *OF_SQLITE])
@pytest.mark.parametrize("recursive", ["ON", "OFF"])
def test_sqlite_refuses(statement: str, recursive: str, tmp_path: Path) -> None:
    db = filled(open_database(tmp_path / "studio.db"))
    with closing(sqlite3.connect(tmp_path / "studio.db")) as other:
        other.execute(f"PRAGMA recursive_triggers = {recursive}")
        with pytest.raises(sqlite3.IntegrityError, match="the audit log can only grow"):
            other.execute(statement)
    save_event(db, "cat", "three")
    assert [event.actor for event in list_events(db)] == ["cat", "ben", "ann"]


@pytest.mark.parametrize("statement", [*STATEMENTS, "TRUNCATE audit"])
def test_postgresql_refuses(statement: str, postgresql: Database) -> None:
    filled(postgresql)
    with pytest.raises(DBAPIError, match="the audit log can only grow"), postgresql.engine.begin() as connection:
        connection.execute(text(statement))
    save_event(postgresql, "cat", "three")
    assert [event.actor for event in list_events(postgresql)] == ["cat", "ben", "ann"]


def test_every_connection_counts_a_replaced_row_as_deleted(db: Database) -> None:
    with db.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA recursive_triggers").scalar() == 1


def test_a_log_of_an_earlier_release_is_kept_and_closed(tmp_path: Path) -> None:
    migrate_to(tmp_path / "studio.db", "0005_purpose")
    with sqlite3.connect(tmp_path / "studio.db") as old:
        old.execute(f"INSERT INTO audit {_COLUMNS} VALUES (1, '2026-01-01 00:00:00', 'ann', 'one', '', '{{}}')")
    db = open_database(tmp_path / "studio.db")
    save_event(db, "ben", "two")
    with closing(sqlite3.connect(tmp_path / "studio.db")) as other, pytest.raises(sqlite3.IntegrityError):
        other.execute(OF_SQLITE[0])
    assert [event.actor for event in list_events(db)] == ["ben", "ann"]
