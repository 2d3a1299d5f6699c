"""The schema's history, applied when a database is opened; each step is tested with rows in it.

A new column is a new file in ``versions/``; nothing else changes. Before a SQLite file that holds rows is
migrated, a copy of it is left beside it (``studio.db.before-REVISION``), which nothing here ever writes again.

Alembic is loaded only when there is something to migrate: it takes longer than a light command as a whole.
"""

from __future__ import annotations

import ast
import filecmp
import itertools
import re
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text
from sqlmodel import SQLModel

from feedback.errors import RESTORE_HINT, DatabaseDamaged, StudioError

_HERE = Path(__file__).parent


def upgrade(engine: Engine) -> None:
    """Bring the schema to the newest revision; safe when several processes open a new file at once.

    Raises StudioError when the database was written by a newer release.
    """
    parents = _parents()
    (head,) = set(parents).difference(*parents.values())
    if _is_behind(current_revision(engine), head, parents):
        _run(engine, head, parents)


def newest_revision() -> str:
    """The revision that this release brings a database to."""
    parents = _parents()
    (head,) = set(parents).difference(*parents.values())
    return head


def table_names(engine: Engine) -> set[str]:
    """The names of all tables of a database."""
    with engine.connect() as connection:
        return set(inspect(connection).get_table_names())


def columns_of_tables(engine: Engine) -> dict[str, set[str]]:
    """The names of the columns of each table of a database."""
    with engine.connect() as connection:
        found = inspect(connection).get_multi_columns()
    return {name: {str(column["name"]) for column in columns} for (_, name), columns in found.items()}


def require_known(engine: Engine) -> None:
    """Refuse a database whose schema this release cannot tell: DatabaseDamaged, or StudioError of a newer release."""
    current = current_revision(engine)
    if current is None and (own := SQLModel.metadata.tables.keys() & table_names(engine)):
        current = current_revision(engine)  # another process may have made both since it was read
        if current is None:
            raise DatabaseDamaged(f"it has {len(own)} tables and does not say of which schema they are", RESTORE_HINT)
    _is_behind(current, newest_revision(), _parents())


def current_revision(engine: Engine) -> str | None:
    """The revision the schema is at; None for an empty database."""
    with engine.connect() as connection:
        return _revision(connection)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _is_behind(current: str | None, head: str, parents: Mapping[str, object]) -> bool:
    if current is not None and current not in parents:
        raise StudioError(
            f"The database is at schema {current}, which this release does not know (newest here: {head}). "
            "Install the newer release, or open another home."
        )
    return current != head


def _parents() -> dict[str, tuple[str, ...]]:
    """Every revision with those it follows, read from the files without running them."""
    parents = {}
    for path in (_HERE / "versions").glob("*.py"):
        told = dict(re.findall(r"^(revision|down_revision)\b[^=\n]*= *(.+)$", path.read_text("utf-8"), re.MULTILINE))
        before = ast.literal_eval(told["down_revision"])
        parents[ast.literal_eval(told["revision"])] = before if isinstance(before, tuple) else (before,)
    return parents


def _run(engine: Engine, head: str, parents: Mapping[str, object]) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    # The write lock is held over the copy and the whole upgrade: of two processes that open one file, the second
    # waits, then finds nothing left to do. What it read before it had the lock may be long past.
    with engine.execution_options(begin_immediate=True).begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7410923)")
        current = _revision(connection)
        if not _is_behind(current, head, parents):
            return
        if current is not None and engine.dialect.name == "sqlite" and engine.url.database:
            _copy_aside(Path(engine.url.database), head)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _copy_aside(path: Path, head: str) -> None:
    """Leave a whole copy beside the file; the caller holds the write lock, so one at a time does this."""
    wanted = path.with_name(f"{path.name}.before-{head}")
    partial = path.with_name(f"{wanted.name}.partial")
    try:
        partial.unlink(missing_ok=True)  # of a process that was killed while it copied
        partial.touch()
        shutil.copymode(path, partial)
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(partial)) as target:
            source.backup(target)
        _keep(partial, wanted)
    except (sqlite3.Error, OSError) as error:
        raise StudioError(
            f"The database cannot be copied to {wanted} before it is migrated: {error}. Nothing was changed; "
            "free as much space as it takes, and see that its folder can be written."
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def _keep(copy: Path, wanted: Path) -> None:
    """Give a copy its name, numbered where another has it: that of a database put back since. One like it is enough."""
    others = (wanted.with_name(f"{wanted.name}-{number}") for number in itertools.count(2))
    for name in itertools.chain([wanted], others):
        if not name.exists():
            copy.rename(name)
            return
        if filecmp.cmp(name, copy, shallow=False):  # of a migration that failed and is tried again
            return
