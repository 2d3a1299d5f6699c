"""Is the database sound, and which schema does it have? What ``studio doctor`` and ``studio up`` ask."""

from __future__ import annotations

import time

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from feedback.database.engine import Database
from feedback.errors import DatabaseDamaged
from feedback.migrations import current_revision

UNFINISHED = "not checked to its end"
_INSTRUCTIONS = 10_000  # of SQLite's machine between two looks at the clock


def check_integrity(db: Database, *, seconds: float | None = None, thorough: bool = False) -> str:
    """``ok``, or the first thing that is wrong with the file; a server looks after itself.

    ``seconds`` bounds the check: ``UNFINISHED`` when they pass first. A ``thorough`` one compares indexes with their
    tables as well.
    """
    if not db.is_sqlite:
        return "ok"
    query = f"PRAGMA {'integrity' if thorough else 'quick'}_check(1)"
    try:
        with db.reading() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            if seconds is not None:
                deadline = time.monotonic() + seconds
                driver.set_progress_handler(lambda: time.monotonic() >= deadline, _INSTRUCTIONS)
            try:
                return str(connection.execute(text(query)).scalar()).replace("\n", " ")
            finally:
                driver.set_progress_handler(None, 0)
    except DatabaseDamaged as error:
        return error.reason
    except OperationalError as error:
        if "interrupted" in str(error.orig):
            return UNFINISHED
        raise


def check_references(db: Database) -> str:
    """``ok``, or the first row that refers to one that is not there; a server looks after that itself."""
    if not db.is_sqlite:
        return "ok"
    with db.reading() as connection:
        found = connection.execute(text("PRAGMA foreign_key_check")).first()
    return "ok" if found is None else f"a row of {found[0]} refers to one of {found[2]} that is not there"


def schema_version(db: Database) -> str:
    """The newest migration that was applied."""
    return str(current_revision(db.engine))
