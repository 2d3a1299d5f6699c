"""The schema's history, applied when a database is opened; each step is tested with rows in it.

A new column is a new file in ``versions/``; nothing else changes. Before a SQLite file that holds rows is
migrated, a copy of it is left beside it (``studio.db.before-REVISION``).

Alembic is loaded only when there is something to migrate: it takes longer than a light command as a whole.
"""

from __future__ import annotations

import ast
import re
import sqlite3
from pathlib import Path

from sqlalchemy import Engine, inspect, text

from feedback.errors import StudioError

_HERE = Path(__file__).parent


def upgrade(engine: Engine) -> None:
    """Bring the schema to the newest revision; safe when several processes open a new file at once.

    Raises StudioError when the database was written by a newer release.
    """
    parents = _parents()
    (head,) = set(parents).difference(*parents.values())
    current = current_revision(engine)
    if current == head:
        return
    if current is not None and current not in parents:
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
        if not inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return found


def _parents() -> dict[str, tuple[str, ...]]:
    """Every revision with those it follows, read from the files without running them."""
    parents = {}
    for path in (_HERE / "versions").glob("*.py"):
        told = dict(re.findall(r"^(revision|down_revision)\b[^=\n]*= *(.+)$", path.read_text("utf-8"), re.MULTILINE))
        before = ast.literal_eval(told["down_revision"])
        parents[ast.literal_eval(told["revision"])] = before if isinstance(before, tuple) else (before,)
    return parents


def _run(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config

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
