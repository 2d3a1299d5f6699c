"""Is the database sound, and which schema does it have? What ``studio doctor`` asks."""

from __future__ import annotations

from sqlalchemy import text

from feedback.db import Database
from feedback.migrations import current_revision


def check_integrity(db: Database) -> str:
    """``ok``, or the first thing that is wrong with the file; a server looks after itself."""
    query = "PRAGMA quick_check(1)" if db.is_sqlite else "SELECT 'ok'"
    with db.read() as session:
        return str(session.connection().execute(text(query)).scalar())


def schema_version(db: Database) -> str:
    """The newest migration that was applied."""
    return str(current_revision(db.engine))
