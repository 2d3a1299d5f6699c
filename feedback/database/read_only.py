"""A database opened to look at: nothing is created, migrated or changed by it, whatever state the file is in."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, NullPool, create_engine, event

from feedback.database.driver_errors import READ_ERRORS, explain, explain_sqlite, one_line
from feedback.database.engine import (
    Database,
    create_engine_for,
    file_of,
    read_only_connection,
    refuse_foreign,
    require_schema,
    shown_url,
)
from feedback.errors import InvalidInput, StudioError
from feedback.migrations import current_revision, newest_revision, require_known, table_names

_ERRORS: tuple[type[Exception], ...] = (*READ_ERRORS, sqlite3.Error)


def open_read_only(url: str) -> Database:
    """Open what is there. InvalidInput when there is no such file or it is no database, StudioError when it is away."""
    file = file_of(url)
    engine = create_engine_for(url) if file is None else _read_only_file(file)
    try:
        if file is None:
            event.listen(engine, "connect", _refuse_writes)
        refuse_foreign(url)
        require_known(engine)
        if current_revision(engine) == newest_revision():
            require_schema(engine)
    except StudioError:
        engine.dispose()
        raise
    except _ERRORS as error:
        engine.dispose()
        told = explain_sqlite(error, engine) if isinstance(error, sqlite3.Error) else explain(error, engine)
        raise told or StudioError(
            f"The database {shown_url(url)} cannot be opened: {one_line(error)}. Check that it exists and can be read."
        ) from error
    return Database(url, engine)


def count_tables(url: str) -> int:
    """How many tables a database has; 0 for a file that is empty or not there."""
    file = file_of(url)
    if file is not None and (not file.is_file() or file.stat().st_size == 0):
        return 0
    db = open_read_only(url)
    try:
        return len(table_names(db.engine))
    finally:
        db.dispose()


def _read_only_file(file: Path) -> Engine:
    if not file.is_file():
        raise InvalidInput(f"There is no database {file}.")

    return create_engine("sqlite://", creator=lambda: read_only_connection(file), poolclass=NullPool)


def _refuse_writes(connection: Any, _record: Any) -> None:
    connection.read_only = True
