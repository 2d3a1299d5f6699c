"""The one directory that holds all state: database, checkpoints, runs, exports.

``--home DIR``, else ``$STUDIO_HOME``, else ``~/.rlhf-studio``. Two advisory locks live in it: ``studio.lock`` for
the web process and ``worker.lock`` for the worker. They belong to the process that took them and vanish with
it, whatever way it ends; the text inside only says who that was, and is believed only while the lock is held.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from feedback.database.engine import Database, open_database
from feedback.database.read_only import count_tables, open_read_only
from feedback.errors import HomeInUse, InvalidInput
from training.lost_database import require_database
from training.private_files import mend_modes

DEFAULT_HOME = Path("~/.rlhf-studio")
DATABASE_VARIABLE = "STUDIO_DATABASE_URL"
STUDIO_LOCK = "studio.lock"
WORKER_LOCK = "worker.lock"
SESSION_KEY = "session.key"


class Home:
    """Where a studio keeps everything. Nothing is created until ``create`` or ``open``."""

    def __init__(self, path: Path, database_url: str | None = None) -> None:
        self.path = path.expanduser().absolute()
        # The override alone: None means the SQLite file inside the home.
        self.database_override = database_url

    @classmethod
    def locate(cls, explicit: Path | None = None, database_url: str | None = None) -> Home:
        """The home asked for: the argument, else ``$STUDIO_HOME``, else ``~/.rlhf-studio``."""
        path = explicit or Path(os.environ.get("STUDIO_HOME") or DEFAULT_HOME)
        return cls(path, database_url or os.environ.get(DATABASE_VARIABLE) or None)

    def __repr__(self) -> str:
        return f"Home({str(self.path)!r})"

    def environment(self) -> dict[str, str]:
        """The environment of a process that works on this home: it finds this very database there.

        Everybody on a machine may read another's arguments, and a URL of PostgreSQL has a password in it.
        """
        own = {name: value for name, value in os.environ.items() if name != DATABASE_VARIABLE}
        return own if self.database_override is None else {**own, DATABASE_VARIABLE: self.database_override}

    @property
    def database_url(self) -> str:
        """The URL of the database: the override, else SQLite inside the home."""
        return self.database_override or f"sqlite:///{self.database_file}"

    @property
    def database_file(self) -> Path:
        """The SQLite file, whether or not an override makes it unused."""
        return self.path / "studio.db"

    @property
    def checkpoints(self) -> Path:
        """What training runs leave, one directory each."""
        return self.path / "checkpoints"

    @property
    def runs(self) -> Path:
        """One directory per run: spec, log, metrics."""
        return self.path / "runs"

    @property
    def exports(self) -> Path:
        """Files written for other tools."""
        return self.path / "exports"

    @property
    def cache(self) -> Path:
        """What can be computed again: it may be deleted at any time, and no backup holds it."""
        return self.path / "cache"

    def run_dir(self, run_id: str) -> Path:
        """The directory of one run, which may not exist yet."""
        return self.runs / run_id

    def log_path(self, run_id: str) -> Path:
        """Everything one run's process said, over all its attempts."""
        return self.run_dir(run_id) / "log.txt"

    def create(self) -> Home:
        """Make the directories, or say in one sentence why they cannot be made."""
        if self.path.exists() and not self.path.is_dir():
            raise InvalidInput(f"The home {self.path} is a file; name a directory with --home or $STUDIO_HOME.")
        try:
            for directory in (self.path, self.checkpoints, self.runs, self.exports):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(self._unusable(error.strerror or str(error))) from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise InvalidInput(self._unusable("no permission to write in it"))
        mend_modes(self.path, (self.checkpoints, self.runs, self.exports))
        return self

    def open(self) -> Database:
        """Create the directories where missing, and open the migrated database.

        DatabaseDamaged when the home was in use and its database is gone or empty: nothing is created then.
        """
        self.require_database()
        self.create()
        db = open_database(self.database_url)
        mend_modes(self.path, ())  # a database that was just made, and the files SQLite keeps beside it
        return db

    def look(self) -> Database | None:
        """The database as it is, to read from: nothing is created or migrated. None where there is none yet."""
        self.require_database()
        return open_read_only(self.database_url) if count_tables(self.database_url) else None

    def require_database(self) -> None:
        """Raise DatabaseDamaged when the home was in use and its database is gone or empty."""
        traces = [self.path / SESSION_KEY]
        directories = [self.checkpoints, self.runs]
        require_database(self.path, self.database_url, traces=traces, directories=directories)

    def is_present(self) -> bool:
        """False once somebody removed the home (or its database file) under a running process."""
        return self.path.is_dir() and (self.database_override is not None or self.database_file.exists())

    def lock_studio(self, **details: Any) -> HomeLock:
        """Take the home for one web process; its ``url`` is shown to whoever comes second."""
        lock = HomeLock(self.path / STUDIO_LOCK)
        if lock.take(details):
            return lock
        holder = lock.holder()
        url = holder.get("url")
        raise HomeInUse(
            f"Another studio (pid {holder.get('pid', 'unknown')}) already serves {self.path}"
            + (f" at {url}: open that page" if url else ": use that one")
            + ", stop it first, or start this one with another --home."
        )

    def lock_worker(self, **details: Any) -> HomeLock:
        """Take the home for one worker, or raise HomeInUse with the pid of the one that works."""
        lock = HomeLock(self.path / WORKER_LOCK)
        if lock.take(details):
            return lock
        raise HomeInUse(
            f"A worker (pid {lock.holder().get('pid', 'unknown')}) already serves {self.path}; "
            "it takes every queued run, so a second one is not needed."
        )

    def worker_holder(self) -> dict[str, Any] | None:
        """Who the live worker is (pid, started, owner, …), or None when no worker lives."""
        lock = HomeLock(self.path / WORKER_LOCK)
        return lock.holder() if lock.is_held() else None

    def studio_holder(self) -> dict[str, Any] | None:
        """Who the live web process is (pid, url), or None when none lives."""
        lock = HomeLock(self.path / STUDIO_LOCK)
        return lock.holder() if lock.is_held() else None

    def _unusable(self, reason: str) -> str:
        return f"The home {self.path} cannot be used: {reason}. Name a writable directory with --home or $STUDIO_HOME."


class HomeLock:
    """An exclusive ``flock`` on one file, with a line of JSON in it that names the holder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def take(self, details: dict[str, Any], patience: float = 1.0) -> bool:
        """Take the lock and write who took it; False when another process keeps it.

        The short patience outlasts ``is_held``, which holds the lock for an instant to find out.
        """
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + patience
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return False
            time.sleep(0.02)
        self._descriptor = descriptor
        self.describe(**details)
        return True

    def describe(self, **details: Any) -> None:
        """Say of the lock this process holds who holds it, and whatever else is worth knowing."""
        if self._descriptor is None:
            raise RuntimeError("a lock is described by its holder")
        own = {"pid": os.getpid(), "pid_started": psutil.Process().create_time(), **details}
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(own).encode(), 0)

    def holder(self) -> dict[str, Any]:
        """What the last holder wrote of itself; empty when it cannot be read."""
        try:
            read = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return read if isinstance(read, dict) else {}

    def is_held(self) -> bool:
        """True while some process, this one included, keeps the lock."""
        try:
            descriptor = os.open(self.path, os.O_RDWR)
        except OSError:
            return False
        try:
            return not _try_lock(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> HomeLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
