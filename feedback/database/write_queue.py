"""Writers of one SQLite file take turns, first come, first served, across threads and processes.

SQLite's own waiting is a loop of growing naps in which whoever just wrote is likely to write again: with eight
processes the unlucky wait a second. Here a writer passes two doors. It waits in front of the second one while it
still holds the first, so whoever has just written cannot overtake it. The doors are ``flock`` locks on files beside
the database, which the kernel opens again when a process is killed, and locks between the threads of one process.
SQLite's own lock stays the guarantee; the doors only decide who tries next. So nobody waits for ever in front of
one that a stopped process (Ctrl-Z) holds: after some seconds a writer goes on without its turn.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: writers of several processes poll, threads still take turns
    fcntl = None  # type: ignore[assignment]

# Far longer than a writer waits among the living, far shorter than a person does in front of a page that hangs.
PATIENCE_SECONDS = 5.0


class WriteQueue:
    """The fair lock of one database file's writers; without a file (a database in memory) it orders threads only."""

    def __init__(self, database: Path | None) -> None:
        self._outer = threading.Lock()
        self._inner = threading.Lock()
        self._paths = [Path(f"{database}.{door}") for door in ("queue", "turn")] if database and fcntl else []
        self._files: list[int] = []
        self._process = os.getpid()
        self._late: threading.Thread | None = None

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Hold the turn for the length of the block."""
        with self._outer:
            self._inner.acquire()
        try:
            self._pass_doors()
            yield
        finally:
            for file in self._files:
                fcntl.flock(file, fcntl.LOCK_UN)
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
            self._files, self._late, self._process = [], None, os.getpid()
        if self._late is not None and self._late.is_alive():  # the doors are still blocked
            return
        if not self._files:
            self._files = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) for path in self._paths]
        queue, turn = self._files
        if _is_open(queue) and _is_open(turn):
            fcntl.flock(queue, fcntl.LOCK_UN)
        else:
            self._wait_at_doors(queue, turn)

    def _wait_at_doors(self, queue: int, turn: int) -> None:
        """Wait as the kernel lets wait, first come, first served, but no longer than patience lasts.

        A blocked ``flock`` cannot be called off, so a thread waits in it. Who gives up leaves the files to that
        thread, which closes them when it is let in at last; until then it shows that the doors are blocked.
        """
        passed: Future[None] = Future()

        def pass_through() -> None:
            fcntl.flock(queue, fcntl.LOCK_EX)
            fcntl.flock(turn, fcntl.LOCK_EX)
            fcntl.flock(queue, fcntl.LOCK_UN)
            if passed.set_running_or_notify_cancel():
                passed.set_result(None)
            else:
                os.close(queue)
                os.close(turn)

        thread = threading.Thread(target=pass_through, name="turn", daemon=True)
        thread.start()
        try:
            passed.result(PATIENCE_SECONDS)
        except TimeoutError:
            pass
        finally:
            if passed.cancel():
                self._files, self._late = [], thread


def _is_open(door: int) -> bool:
    """Pass a door that nobody holds; False, and nothing happened, when somebody does."""
    try:
        fcntl.flock(door, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
