"""Is a copy of a database what the studio would have made? Its triggers, its references, every page of it."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from feedback.database.engine import Database, open_database, read_only_connection
from feedback.database.health import check_integrity, check_references
from feedback.errors import InvalidInput

_ACTING = "SELECT type || ' ' || name, sql FROM sqlite_master WHERE type IN ('trigger', 'view')"


def refuse_foreign_code(path: Path) -> None:
    """Refuse a file with triggers or views of its own, before anything is written that could set them off."""
    known = _own()
    for name, sql in sorted(_acting(path).items()):
        if known.get(name) != sql:
            raise InvalidInput(f"The database in the backup has a {name} that is not the studio's. Use another backup.")


def refuse_unsound(db: Database, path: Path) -> None:
    """Refuse an open, migrated file that lacks a trigger of the studio, is damaged, or refers to what is not there."""
    if missing := sorted(_own().keys() - _acting(path).keys()):
        raise InvalidInput(
            f"The database in the backup lacks the {missing[0]}, which keeps the audit log whole. Use another backup."
        )
    found = check_integrity(db, thorough=True)
    found = check_references(db) if found == "ok" else found
    if found != "ok":
        raise InvalidInput(f"The database in the backup is damaged: {found}. Use another backup.")


def _own() -> dict[str, str]:
    """The triggers and views of a new database, by kind and name."""
    with tempfile.TemporaryDirectory(prefix="studio-schema-") as directory:
        path = Path(directory) / "new.db"
        open_database(path).dispose()
        return _acting(path)


def _acting(path: Path) -> dict[str, str]:
    try:
        with closing(read_only_connection(path)) as connection:
            return {str(name): str(sql) for name, sql in connection.execute(_ACTING)}
    except sqlite3.Error as error:
        raise InvalidInput(f"The database in the backup cannot be read: {error}. Use another backup.") from error
