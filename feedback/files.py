"""Atomic writes: a file that other processes see whole or not at all, also after a kill or a power cut."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: what a killed write left behind stays there
    fcntl = None  # type: ignore[assignment]


@contextmanager
def atomic_write(path: Path, *, mode: int | None = None) -> Iterator[BinaryIO]:
    """Open a stream whose content replaces ``path`` when the block ends without an exception.

    The content goes to a hidden file in the same directory, which is synced and renamed; the directory is synced too.
    Until then, and after any failure, the old file stays as it was. What a killed write left of the same file is
    removed by the next one. A symbolic link is replaced, not followed; ``feedback.outputs`` follows links.

    Args:
        path: The file to write. Its directory must exist.
        mode: Permission bits of the new file, 0o600 for a secret. Default: what the umask gives to a new file.

    Raises:
        OSError: The file cannot be written; nothing of it is left.
    """
    _remove_leftovers(path)
    partial, descriptor = _open_partial(path, 0o666 if mode is None else mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            if mode is not None and stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
                os.fchmod(descriptor, mode)
            yield stream
            stream.flush()
            os.fsync(descriptor)
            if fcntl is None:
                stream.close()  # Windows renames no open file
            partial.replace(path)  # while the lock is held, or another writer could remove it as a leftover
    except BaseException:  # SIGTERM and Ctrl-C too
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    _sync_names(path.parent)


def sync(path: Path) -> None:
    """Flush a file, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """Flush a directory with everything in it to the disk."""
    for path in directory.rglob("*"):
        sync(path)
    sync(directory)


def _open_partial(path: Path, mode: int) -> tuple[Path, int]:
    """Create the hidden file and lock it, which tells other writers that it is no leftover."""
    while True:
        partial = path.with_name(f".{path.name[:200]}.partial-{secrets.token_hex(4)}")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            locked = _lock(descriptor)
        except OSError:
            return partial, descriptor  # a file system without locks, where no writer removes leftovers either
        if locked and _is_open_at(partial, descriptor):
            return partial, descriptor
        os.close(descriptor)  # another writer took it for a leftover before it was locked, and removes it


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of this file; the kernel has released their locks."""
    if fcntl is None:
        return
    for name in glob.iglob(f".{glob.escape(path.name[:200])}.partial-????????", root_dir=path.parent):
        with contextlib.suppress(OSError):
            descriptor = os.open(path.parent / name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if stat.S_ISREG(os.fstat(descriptor).st_mode) and _lock(descriptor):
                    os.unlink(path.parent / name)
            finally:
                os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Return whether this process holds the file's lock now; OSError where the file system has no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_open_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sync_names(directory: Path) -> None:
    """Flush a directory's names; nothing where it may not be read, or where the system syncs no directories."""
    try:
        sync(directory)
    except PermissionError:
        pass
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
