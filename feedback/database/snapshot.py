"""A whole database as one SQLite file, taken while others write to it, and such a file put back.

SQLite makes the copy itself, by its online backup. PostgreSQL's rows are read in one snapshot and written to a file of
the same schema, so a backup looks alike wherever it was taken, and may be restored into either database.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, func, insert, select, text
from sqlmodel import SQLModel, col

from feedback.database.driver_errors import explain_sqlite
from feedback.database.engine import Database, open_database
from feedback.database.schema import refuse_foreign_code, refuse_unsound
from feedback.errors import Conflict, DatabaseDamaged, InvalidInput
from feedback.tables import RunRow
from feedback.types import RunState, now

_PAGE = 1000
_WITH_PROCESS = [RunState.starting, RunState.running, RunState.stopping]


def save_copy(db: Database, path: Path) -> None:
    """Write the database as it is at one moment into a new SQLite file; the database stays in use meanwhile.

    Raises StudioError when the disk is full, DatabaseDamaged when a page cannot be read.
    """
    if db.is_sqlite:
        source = db.engine.raw_connection()
        try:
            with closing(sqlite3.connect(path)) as target:
                source.driver_connection.backup(target)  # type: ignore[union-attr]
        except sqlite3.Error as error:
            raise explain_sqlite(error, db.engine) from error
        finally:
            source.close()
        return
    copy = open_database(path)
    snapshot = db.engine.execution_options(isolation_level="REPEATABLE READ")
    try:
        with snapshot.connect() as read, copy.transaction() as write:
            _copy_rows(read, write)
    finally:
        copy.dispose()


def open_copy(path: Path) -> Database:
    """Open a copy, brought to today's schema, with the runs in it that had a process marked as interrupted.

    Such a process belongs to the studio the copy was taken from: nothing here may wait for it or end it. Raises
    InvalidInput when the file is damaged.
    """
    refuse_foreign_code(path)
    try:
        db = open_database(path)
    except DatabaseDamaged as error:
        raise InvalidInput(f"The database in the backup is damaged: {error.reason}. Use another backup.") from error
    try:
        refuse_unsound(db, path)
        _interrupt_runs(db)
    except BaseException:
        db.dispose()
        raise
    return db


def _interrupt_runs(db: Database) -> None:
    with db.write() as session:
        for run in session.scalars(select(RunRow).where(col(RunRow.state).in_(_WITH_PROCESS))):
            run.state = RunState.interrupted
            run.error = "It was at work when the backup was taken; `studio runs resume` goes on."
            run.ended_at, run.pid, run.pid_started = now(), None, None


@contextmanager
def loaded_copy(copy: Database, db: Database) -> Iterator[None]:
    """Put a copy's rows into an empty PostgreSQL database, all or none; Conflict when it is not empty.

    They are committed when the block has ended, and are not there when anything is raised in it.
    """
    with db.transaction() as write:
        for table in _tables():
            if write.execute(select(func.count()).select_from(table)).scalar_one():
                raise Conflict("The database to restore into holds rows already; name an empty one.")
        with copy.reading() as read:
            _copy_rows(read, write)
        yield


def _tables() -> list[Table]:
    return list(SQLModel.metadata.sorted_tables)


def _copy_rows(read: Connection, write: Connection) -> None:
    """Every row of every table, parents first, in the transaction that is open."""
    for table in _tables():
        for page in _pages(read, table):
            write.execute(insert(table), page)
        _advance_numbers(write, table)


def _pages(read: Connection, table: Table) -> Iterator[list[dict[str, Any]]]:
    # Rows refer to older rows of their own table (a policy to its parent), so the oldest go first.
    oldest = [table.c.created_at] if "created_at" in table.c else []
    rows = read.execute(select(table).order_by(*oldest, *table.primary_key.columns).execution_options(yield_per=_PAGE))
    for page in rows.mappings().partitions(_PAGE):
        yield [dict(row) for row in page]


def _advance_numbers(write: Connection, table: Table) -> None:
    """PostgreSQL hands out numbers from a counter of its own, which rows that bring theirs do not move."""
    number = table.autoincrement_column
    if write.dialect.name != "postgresql" or number is None:
        return
    newest = write.execute(select(func.max(number))).scalar()
    if newest is not None:
        write.execute(
            text("SELECT setval(pg_get_serial_sequence(:t, :c), :n)"), {"t": table.name, "c": number.name, "n": newest}
        )
