"""What an error of a database driver means for the person who meets it: busy, away, damaged, full, read-only.

The drivers of SQLite and PostgreSQL word the same fault in many ways, so their codes are read and not their words.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from feedback.errors import RESTORE_HINT, DatabaseDamaged, DatabaseUnavailable, InvalidInput, StudioError, Unavailable

READ_ERRORS: tuple[type[Exception], ...] = (DBAPIError, PoolTimeout, ValueError, TypeError)
"""Everything that reading or writing may raise when something is wrong with the database itself."""

# SQLite cannot work in less: its shared memory and the first pages of its log need some 100 KB.
FULL_BELOW = 2**20
# When to ask again, in seconds, where somebody has to make room first.
SPACE_SECONDS = 60

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_UNWRITABLE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}

# PostgreSQL's SQLSTATE: connection lost, too many connections, locks and deadlocks, shutdown, time limit, standby.
_AWAY = ("08", "40", "53", "55", "57", "58", "25006")
_DISK_FULL = "53100"
_LOST_DATA = ("XX", "42P01", "42703")

# How Python begins its complaint about a stored value that is no date, no text of a date and no text of JSON.
_UNREADABLE = (
    *("Couldn't parse datetime", "Invalid isoformat", "month must be", "day is out", "hour must", "minute must"),
    *("fromisoformat: argument", "the JSON object must be"),
)


def explain(error: Exception, engine: Engine) -> StudioError | None:
    """The error to raise in place of a driver's; None for one that means a bug and is to be seen as it is."""
    if isinstance(error, PoolTimeout):
        return DatabaseUnavailable("all its connections are in use")
    if not isinstance(error, DBAPIError):
        return _explain_value(error)
    if isinstance(error, DataError):  # PostgreSQL's; SQLite takes anything
        return InvalidInput(f"The database cannot hold a value: {one_line(error.orig)}. Nothing was saved.")
    if engine.dialect.name == "sqlite":
        return _explain_sqlite(error.orig, engine)
    return _explain_postgresql(error)


def explain_sqlite(error: sqlite3.Error, engine: Engine) -> StudioError:
    """The error to raise for one of SQLite's own, met where its driver is called without SQLAlchemy."""
    return _explain_sqlite(error, engine) or StudioError(f"The database refuses: {one_line(error)}.")


def full_disk(engine: Engine) -> StudioError | None:
    """What to say when SQLite fails for want of space; it words that in many ways, so the disk itself is asked."""
    folder = _folder(engine)
    if folder is None or not folder.is_dir() or (free := shutil.disk_usage(folder).free) >= FULL_BELOW:
        return None
    return Unavailable(
        f"The disk of {folder} is full ({free // 1024} KB free), so its database cannot be written and nothing was "
        "saved. Free some space, for instance what lies in exports/; with 1 MB free, `studio checkpoints prune` can "
        "make more.",
        SPACE_SECONDS,
    )


def one_line(error: BaseException | None) -> str:
    """What a driver says over several lines, in one."""
    return " ".join(str(error).split()).rstrip(".?")


def _folder(engine: Engine) -> Path | None:
    file = engine.url.database
    return Path(file).parent if engine.dialect.name == "sqlite" and file else None


def _explain_value(error: Exception) -> StudioError | None:
    """A stored value that cannot be read back: bytes that are no text, text that is no JSON or no date."""
    if isinstance(error, StudioError):
        return None
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError) or str(error).startswith(_UNREADABLE):
        return DatabaseDamaged(f"a stored value cannot be read ({one_line(error)[:120]})", RESTORE_HINT)
    return None


def _explain_sqlite(error: Any, engine: Engine) -> StudioError | None:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    words = one_line(error)
    if code in _BUSY:
        return DatabaseUnavailable(words)
    if code in _DAMAGED or words.startswith(("no such table", "no such column", "Could not decode to UTF-8")):
        return DatabaseDamaged(words[:160], RESTORE_HINT)
    if code not in _UNWRITABLE:
        return None
    return full_disk(engine) or Unavailable(
        f"The database cannot be written: {words}. Nothing was saved. See that the disk of "
        f"{_folder(engine) or 'the home'} has room and may be written, then try again."
    )


def _explain_postgresql(error: DBAPIError) -> StudioError | None:
    state = str(getattr(error.orig, "sqlstate", None) or "")
    if state == _DISK_FULL:
        said = f"The disk of the database's server is full: {one_line(error.orig)}. Nothing was saved."
        return Unavailable(said, SPACE_SECONDS)
    if state.startswith(_LOST_DATA):
        return DatabaseDamaged(one_line(error.orig)[:160], "Put a backup back into an empty database.")
    away = error.connection_invalidated or (isinstance(error, OperationalError | InterfaceError) and not state)
    return DatabaseUnavailable(one_line(error.orig)) if away or state.startswith(_AWAY) else None
