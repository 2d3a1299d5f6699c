"""Atomic directories: written under a hidden name, synced and renamed, so that they appear whole or not at all.

The writer holds a ``flock`` on the hidden directory, which the kernel releases when the process is killed. So what a
kill left behind can be told from what another process is writing, and is removed or put back.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from feedback.files import sync, sync_tree

_HERE = -100  # AT_FDCWD
_EXCHANGE = 2  # RENAME_EXCHANGE


@contextlib.contextmanager
def atomic_directory(final: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a directory to write into, which replaces ``final`` when the block ends; after an exception it is removed.

    A directory that was there before moves aside, and is removed once the new one is in place. Without ``replace``
    only an empty directory is replaced; OSError if ``final`` is anything else by then.
    """
    fresh = final.with_name(f".new-{uuid.uuid4().hex[:8]}")
    partial = final.with_name(f".partial-{final.name}-{uuid.uuid4().hex[:8]}")
    fresh.mkdir(parents=True)
    try:
        with _held(fresh):  # before it has the name that a sweep looks for
            os.rename(fresh, partial)
            yield partial
            sync_tree(partial)
            _put_in_place(partial, final, replace)
    except BaseException:  # SIGTERM and Ctrl-C too
        for path in (fresh, partial):
            shutil.rmtree(path, ignore_errors=True)
        raise


@contextlib.contextmanager
def scratch_directory(parent: Path) -> Iterator[Path]:
    """Yield an empty directory for large, passing files; what a killed process left of its own goes first."""
    sweep(parent)
    fresh = parent / f".new-{uuid.uuid4().hex[:8]}"
    scratch = parent / f".partial-scratch-{uuid.uuid4().hex[:8]}"
    fresh.mkdir(mode=0o700)
    try:
        with _held(fresh):  # as in ``atomic_directory``
            os.rename(fresh, scratch)
            yield scratch
    finally:
        for path in (fresh, scratch):
            shutil.rmtree(path, ignore_errors=True)


def sweep(directory: Path) -> None:
    """Remove what killed processes left half done, and put back what one had moved aside."""
    for left in [*directory.glob(".partial-*"), *directory.glob(".old-*")]:
        with _held(left) as mine:
            if not mine:
                continue
            final = left.with_name(left.name.removeprefix(".old-").rpartition("-")[0])
            if left.name.startswith(".old-") and not final.exists():
                os.rename(left, final)
            else:
                shutil.rmtree(left, ignore_errors=True)


def restore(final: Path) -> None:
    """Put back what a kill between two renames left aside; nothing happens where something stands."""
    if not final.exists() and any(final.parent.glob(f".old-{final.name}-????????")):
        sweep(final.parent)


def exchange(one: Path, other: Path) -> bool:
    """Let two directories of one disk change places at one moment; False where the system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):  # not Linux, or an old C library
        return False
    done = rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), ctypes.c_uint(_EXCHANGE))
    return bool(done == 0)


@contextlib.contextmanager
def _held(directory: Path) -> Iterator[bool]:
    """Hold a directory's lock; False where another does, where it is gone, or where the disk knows no locks."""
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = True
        except OSError:
            mine = False
        yield mine
    finally:
        os.close(handle)


def _put_in_place(partial: Path, final: Path, replace: bool) -> None:
    """One rename makes it visible; a predecessor steps aside first, and comes back when that fails."""
    if not replace or not final.exists():
        os.rename(partial, final)
        sync(final.parent)
        return
    old = final.with_name(f".old-{final.name}-{uuid.uuid4().hex[:8]}")
    with _held(final):
        os.rename(final, old)
        try:
            os.rename(partial, final)
        except BaseException:
            if not final.exists():
                os.rename(old, final)
            raise
        sync(final.parent)
        shutil.rmtree(old, ignore_errors=True)
