"""A home is for its owner alone: the umask of every process of the studio, and the modes of what a home holds.

The database holds hashes of passwords, prompts, names and votes. On a machine that several people share, nobody but
the owner of the home may read them. A file that the user names, as by ``--out``, is the user's own business and gets
the mode that the user's umask gives to every new file.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

PRIVATE_UMASK = 0o077
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
# What lies in a home beside its directories, by the beginning of its name.
_OWN_FILES = ("studio.db", "session.key", "studio.lock", "worker.lock", "worker.log")
_asked: list[int] = []


def keep_private() -> None:
    """Let this process, and those it starts, create files for their owner alone. The user's umask is remembered."""
    before = os.umask(PRIVATE_UMASK)
    if not _asked:
        _asked.append(before)


@contextlib.contextmanager
def users_umask() -> Iterator[None]:
    """Create files with the mode that the user's umask gives. For commands: the umask is the whole process's."""
    if not _asked:
        yield
        return
    before = os.umask(_asked[0])
    try:
        yield
    finally:
        os.umask(before)


def mend_modes(home: Path, directories: Iterable[Path]) -> None:
    """Take from everybody but the owner what an earlier release left open; whatever cannot be changed is left.

    A directory that is more than a home (/tmp, the user's own) keeps its mode: what lies in it is closed by itself.
    """
    if not _is_shared(home):
        _close(home)
    for directory in directories:
        _close(directory)
    with contextlib.suppress(OSError):
        for entry in os.scandir(home):
            if entry.name.startswith(_OWN_FILES) and entry.is_file(follow_symlinks=False):
                _close(Path(entry.path))


def _is_shared(directory: Path) -> bool:
    with contextlib.suppress(OSError, RuntimeError):
        if directory.resolve() in (Path("/"), Path.home().resolve()):
            return True
    with contextlib.suppress(OSError):
        return bool(directory.stat().st_mode & stat.S_ISVTX)
    return False


def _close(path: Path) -> None:
    with contextlib.suppress(OSError):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & _OTHERS:
            path.chmod(mode & ~_OTHERS)
