"""Reading an archive that may be hostile: nothing beyond a bound is unpacked, whatever its headers say.

A backup is a plain tar; one that was compressed since is read as well. What a few bytes unpack to is counted while it
is unpacked, so that neither the disk nor the memory is filled by it.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from feedback.errors import InvalidInput

# Text shrinks to a tenth; what shrinks to less than this was made to fill a disk.
MOST_RATIO = 100
SMALL = 64 * 2**20
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
# What a home has at its top: directories, and files that are never directories.
DIRECTORIES = ("checkpoints", "runs", "exports")
FILES = ("studio.db", "session.key", "studio.lock", "worker.lock", "worker.log", "manifest.json")


@contextmanager
def opened_archive(file: Path, into: Path) -> Iterator[tarfile.TarFile]:
    """The archive as a stream, bounded by its own size, or by what a compressed one may reasonably hold."""
    with file.open("rb") as raw:
        start = raw.read(6)
        raw.seek(0)
        opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
        size = file.stat().st_size
        bound = size if opener is None else max(SMALL, MOST_RATIO * size)
        source = raw if opener is None else opener(raw)
        free = shutil.disk_usage(into).free
        bounded: Any = _Bounded(source, bound, free, file)
        with tarfile.open(fileobj=bounded, mode="r|") as archive:
            yield archive


def check_member(file: Path, member: tarfile.TarInfo) -> str:
    """A member's name, when it is a plain file in a place where a home has one; anything else refuses the archive."""
    path = PurePosixPath(member.name)
    escapes = path.is_absolute() or ".." in path.parts or "\0" in member.name or "\\" in member.name or not path.parts
    if escapes or not member.isreg() or member.issparse():
        raise InvalidInput(f"{file} holds {member.name!r}, which is no plain file of a home. Nothing was restored.")
    top, is_file = path.parts[0], len(path.parts) == 1
    misplaced = top in (DIRECTORIES if is_file else FILES)
    if misplaced or (top.startswith("studio.db") and top != "studio.db"):
        raise InvalidInput(f"{file} holds {member.name!r}, where a home has something else. Nothing was restored.")
    return path.as_posix()


class _Bounded:
    """A stream that refuses to give more than the archive may hold, or than the disk has room for."""

    def __init__(self, source: IO[bytes], bound: int, free: int, file: Path) -> None:
        self._source, self._bound, self._free, self._file = source, bound, free, file
        self._given = 0

    def read(self, wanted: int) -> bytes:
        data = self._source.read(wanted)
        self._given += len(data)
        if self._given > self._free:
            raise InvalidInput(
                f"{self._file} holds more than the {self._free / 2**30:.1f} GiB that are free. Nothing was restored; "
                "free some space, or restore into a --home on another disk."
            )
        if self._given > self._bound:
            raise InvalidInput(
                f"{self._file} unpacks to more than {MOST_RATIO} times its size, as no backup does. Nothing was "
                "restored; unpack it yourself and give the plain tar if you trust it."
            )
        return data
