"""The schema's history, applied when a database is opened; each step is tested with rows in it.

A new column is a new file in ``versions/``; nothing else changes. Before a SQLite file that holds rows is
migrated, a copy of it is left beside it (``studio.db.before-REVISION``).
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from feedback.errors import StudioError

_HERE = Path(__file__).parent


def upgrade(engine: Engine) -> None:
    """Bring the schema to the newest revision; safe when several processes open a new file at once.

    Raises StudioError when the database was written by a newer release.
    """
    script = ScriptDirectory(str(_HERE))
    head = script.get_current_head()
    current = current_revision(engine)
    if current == head:
        return
    if current is not None and current not in {revision.revision for revision in script.walk_revisions()}:
        raise StudioError(
            f"The database is at schema {current}, which this release does not know (newest here: {head}). "
            "Install the newer release, or open another home."
        )
    if current is not None:
        _copy_aside(engine, str(head))
    _run(engine)


def current_revision(engine: Engine) -> str | None:
    """The revision the schema is at; None for an empty database."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def _run(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    # The write lock is held over the whole upgrade: of two processes that open a new file, the second waits,
    # then finds nothing left to do.
    with engine.execution_options(begin_immediate=True).begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7410923)")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _copy_aside(engine: Engine, head: str) -> None:
    path = engine.url.database
    if engine.dialect.name != "sqlite" or not path:
        return
    source = sqlite3.connect(path)
    target = sqlite3.connect(f"{path}.before-{head}")
    with source, target:
        source.backup(target)
    source.close()
    target.close()
