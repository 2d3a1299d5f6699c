"""The cache of a user's models: what is made in it is made once, by one process, and appears whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from training.bundled import models_directory
from training.checkpoints.atomic_directory import atomic_directory, sweep

Report = Callable[[float, str], None]
RECORD = "source.json"
"""The file of a converted model that says what it was made of; written last."""


def made_once(directory: Path, make: Callable[[Path], None], report: Report) -> Path:
    """The directory, made first by ``make`` where it is not there yet.

    ``make`` writes into a hidden directory that is renamed when it is done, so that a kill leaves nothing half made.
    Processes that want the same directory wait for the one that makes it.
    """
    if is_made(directory):
        return directory
    models_directory().mkdir(parents=True, exist_ok=True)
    with exclusive(models_directory(), lambda: report(0.0, "waiting for another process that converts a model")):
        if is_made(directory):
            return directory
        directory.parent.mkdir(parents=True, exist_ok=True)
        for place in (models_directory(), *filter(Path.is_dir, models_directory().iterdir())):
            sweep(place)  # what any process left that was killed: it may be many gigabytes
        try:
            with atomic_directory(directory) as partial:
                make(partial)
        except BaseException:
            if directory.parent != models_directory():
                with suppress(OSError):  # other models may lie in it
                    directory.parent.rmdir()
            raise
    return directory


def is_made(directory: Path) -> bool:
    """Whether a model of the cache is there, whole."""
    return (directory / RECORD).is_file()


@contextmanager
def exclusive(directory: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold a lock that all processes of this user share; call ``on_wait`` if another one holds it."""
    with (directory / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sha256_of(path: Path) -> str:
    """The SHA-256 of a whole file in hexadecimal digits; ``checkpoints.hashing.hash_file`` samples large files."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
