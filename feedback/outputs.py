"""Where a command writes: one answer to what a path given as ``--out`` or FILE means.

A regular file, or a path where nothing is yet, is written under a temporary name and renamed, so that the old file
stays whole until the new one is. A link is followed: its target is replaced and the link stays. ``-`` is standard
output. A pipe, a character device and an open descriptor (``/dev/stdout``, ``/proc/self/fd/N``, ``>(...)``) are written
as they are, since a rename would put a file in their place.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from feedback.errors import InvalidInput
from feedback.files import atomic_write

STANDARD_OUTPUT = "-"
_OPEN_FILES = re.compile(r"/proc/(self|thread-self|\d+(/task/\d+)?)/fd")
_MOST_LINKS = 40


def is_full(error: OSError) -> bool:
    """Whether an error says that nothing more fits where something was written."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Output:
    """A place to write to: ``target`` is a regular file or nothing yet, ``descriptor`` one of this process.

    Neither for what is opened as it is: a pipe, a device, another process's descriptor.
    """

    path: Path
    target: Path | None = None
    descriptor: int | None = None

    @property
    def is_file(self) -> bool:
        """Whether a file is there afterwards, which others can lie beside."""
        return self.target is not None

    @property
    def is_standard_output(self) -> bool:
        """Whether what is written goes where the command's result is printed otherwise."""
        return self.descriptor == 1

    @contextmanager
    def open(self, *, private: bool = False) -> Iterator[BinaryIO]:
        """A stream to write; a file is in its place only when the block ends well. ``private``: its owner's alone.

        Raises InvalidInput when the place cannot be written.
        """
        try:
            if self.target is not None:
                with _replacing(self.target, private=private) as stream:
                    yield stream
            else:
                with os.fdopen(self._descriptor(), "wb") as stream:
                    yield stream
        except OSError as error:
            remedy = "Free some space there or name a file on another disk" if is_full(error) else "Name another file"
            raise InvalidInput(f"{self.path} cannot be written: {error.strerror}. {remedy}.") from error

    def _descriptor(self) -> int:
        if self.descriptor is None:
            return os.open(self.path, os.O_WRONLY)
        if self.descriptor == 1:
            sys.stdout.flush()
        return os.dup(self.descriptor)


def find_output(path: Path) -> Output:
    """What a path means; InvalidInput for a directory and whatever else nothing can be written to."""
    if str(path) == STANDARD_OUTPUT:
        return Output(path, descriptor=1)
    place = path
    for _ in range(_MOST_LINKS):
        if _OPEN_FILES.fullmatch(os.path.realpath(place.parent)) and place.name.isdecimal():
            owner = os.path.realpath(place.parent).split("/")[2]
            return Output(path, descriptor=int(place.name) if owner == str(os.getpid()) else None)
        if not place.is_symlink():
            break
        place = place.parent / os.readlink(place)
    try:
        mode = place.stat().st_mode
    except FileNotFoundError:
        return Output(path, target=place)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}. Name another file.") from error
    if stat.S_ISREG(mode):
        return Output(path, target=place)
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        return Output(path)
    kind = "a directory" if stat.S_ISDIR(mode) else "a block device" if stat.S_ISBLK(mode) else "a socket"
    raise InvalidInput(f"{path} is {kind}. Name a file to write.")


@contextmanager
def _replacing(target: Path, *, private: bool) -> Iterator[BinaryIO]:
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = 0o600 if private else stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    with atomic_write(target, mode=mode) as stream:
        yield stream
