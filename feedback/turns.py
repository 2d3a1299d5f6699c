"""Writers of one SQLite file take turns, first come, first served, across threads and processes.

SQLite's own waiting is a loop of growing naps in which whoever just wrote is likely to write again: with eight
processes the unlucky wait a second. Here a writer passes two doors. It waits in front of the second one while it
still holds the first, so whoever has just written cannot overtake it. The doors are ``flock`` locks on files beside
the database, which the kernel opens again when a process is killed, and locks between the threads of one process.
SQLite's own lock stays the guarantee; the doors only decide who tries next.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: writers of several processes poll, threads still take turns
    fcntl = None  # type: ignore[assignment]


class Turns:
    """The doors of one database file; without a file (a database in memory) only threads take turns."""

    def __init__(self, database: Path | None) -> None:
        self._outer = threading.Lock()
        self._inner = threading.Lock()
        self._paths = [Path(f"{database}.{door}") for door in ("queue", "turn")] if database and fcntl else []
        self._files: list[int] = []
        self._process = os.getpid()

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Hold the turn for the length of the block."""
        with self._outer:
            self._inner.acquire()
        try:
            self._pass_doors()
            try:
                yield
            finally:
                if self._files:
                    fcntl.flock(self._files[1], fcntl.LOCK_UN)
        finally:
            self._inner.release()

    def close(self) -> None:
        """Close the files; the next wait opens them again."""
        for file in self._files:
            os.close(file)
        self._files = []

    def _pass_doors(self) -> None:
        if not self._paths:
            return
        if self._process != os.getpid():  # a fork shares its parent's locks, and would walk through its doors
            self._files, self._process = [], os.getpid()
        if not self._files:
            self._files = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) for path in self._paths]
        queue, turn = self._files
        fcntl.flock(queue, fcntl.LOCK_EX)
        try:
            fcntl.flock(turn, fcntl.LOCK_EX)
        finally:
            fcntl.flock(queue, fcntl.LOCK_UN)
