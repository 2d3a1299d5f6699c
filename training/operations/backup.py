"""A home in one archive, and back: database, checkpoints, runs and exports, each file with its hash.

The archive is a plain tar. The database in it is a consistent copy taken while the studio runs; everything else was
written to a temporary name and renamed, or only ever grows (logs), so it can be read at any time too. The database is
copied first: every checkpoint it knows is already on disk. ``manifest.json`` comes last, so an archive that was cut
off has none and is refused.

Restoring unpacks into a directory beside the home, checks every name, size and hash there, and only then renames it
into place: until that moment nothing has changed.

An archive and what is restored are their owner's alone: the database has the hashes of passwords and what people wrote.
The key that signs cookies is in neither, for whoever holds it is half way to every session. A home without one makes
another when it is served, and everybody signs in anew.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import lzma
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from feedback.database.engine import Database, open_database
from feedback.database.snapshot import loaded_copy, open_copy, save_copy
from feedback.errors import Conflict, HomeInUse, InvalidInput, StudioError
from feedback.files import sync_tree
from feedback.outputs import find_output, is_full
from training.checkpoints.atomic_directory import exchange
from training.home import SESSION_KEY, STUDIO_LOCK, WORKER_LOCK, Home
from training.operations.archives import check_member, opened_archive

MANIFEST = "manifest.json"
DATABASE = "studio.db"
VERSION = 1
_LEFT_BEHIND = {STUDIO_LOCK, WORKER_LOCK, "worker.log", MANIFEST}
_PRIVATE = 0o600
_CHUNK = 1024 * 1024
_SMALL = 4 * _CHUNK


@dataclass(frozen=True)
class BackupReport:
    """What an archive holds: how many files, of how many bytes in all."""

    path: Path
    files: int
    size: int


@dataclass(frozen=True)
class RestoreReport:
    """What was restored, and where the home that was there before now is; None when there was none."""

    home: Path
    files: int
    kept_aside: Path | None


def back_up(home: Home, db: Database, file: Path, *, replace: bool = False) -> BackupReport:
    """Write the home into one archive, under a temporary name until it is whole.

    Raises Conflict when the file is there already, InvalidInput when it cannot be written.
    """
    out = find_output(file)
    if out.target is not None and not replace and out.target.exists() and out.target.stat().st_size:
        raise Conflict(f"{file} is there already; name another file, or let --force replace it.")
    try:
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=home.path) as work, out.open(private=True) as stream:
            copy = Path(work) / DATABASE
            save_copy(db, copy)
            entries = _write_archive(stream, [(DATABASE, copy), *_files_of(home)])
    except OSError as error:
        remedy = "Free some space there or name a file on another disk" if is_full(error) else "Name another file"
        raise InvalidInput(f"The backup {file} cannot be written: {error.strerror}. {remedy}.") from error
    return BackupReport(file, len(entries), sum(entry["size"] for entry in entries))


def restore(home: Home, file: Path, *, force: bool = False) -> RestoreReport:
    """Make a home from an archive. A home that is there stays, unless forced, and is kept aside even then.

    Raises Conflict for a home that is not empty or a database that holds rows, HomeInUse while a studio or worker
    serves it, InvalidInput for an archive that is damaged, cut off or tries to write elsewhere. Nothing is changed
    then.
    """
    occupied = home.path.exists() and (not home.path.is_dir() or any(home.path.iterdir()))
    if occupied:
        _require_idle(home)
        if not force:
            raise Conflict(
                f"The home {home.path} is not empty; restore into another --home, or give --force, "
                "which keeps the present one aside."
            )
    work = _directory_beside(home.path)
    try:
        files = _unpack(file, work)
        aside = _put_in_place(home, work, occupied)
    except OSError as error:
        raise InvalidInput(f"{file} cannot be restored into {home.path}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return RestoreReport(home.path, files, aside)


def _put_in_place(home: Home, work: Path, occupied: bool) -> Path | None:
    """Check the unpacked home and let it take its place; gives where the one before is now.

    Rows that go into a server are committed last: what fails before leaves neither the home nor the server changed.
    """
    copy = open_copy(work / DATABASE)
    swapped = False
    aside = None
    try:
        with _loaded(home.database_override, copy):
            copy.dispose()
            Home(work).create()
            sync_tree(work)
            aside = _swap(home.path, work, occupied)
            swapped = True
    except BaseException:
        if swapped:  # the server refused to commit
            home.path.rename(work)
            if aside is not None:
                aside.rename(home.path)
        raise
    finally:
        copy.dispose()
    return aside


def _new_file(path: Path) -> IO[bytes]:
    """A file that was not there, open to write, which no other account may read from its first byte on."""
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, _PRIVATE))


# Writing --------------------------------------------------------------------------------------------------


def _files_of(home: Home) -> Iterator[tuple[str, Path]]:
    """Every file of the home that is finished: no locks, no temporary names, no links, not the live database."""
    for folder, folders, names in os.walk(home.path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            top = Path(folder) == home.path
            skipped = top and (name in _LEFT_BEHIND or name.startswith((DATABASE, SESSION_KEY)))
            if not (skipped or name.startswith(".") or path.is_symlink() or not path.is_file()):
                yield path.relative_to(home.path).as_posix(), path


def _write_archive(stream: IO[bytes], files: list[tuple[str, Path]]) -> list[dict[str, Any]]:
    entries = []
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name, path in files:
            try:
                source = path.open("rb")
            except FileNotFoundError:
                continue  # a run's scratch file that went away since it was listed
            with source:
                found = os.fstat(source.fileno())
                hashed = _hashed(source, found.st_size)
                info = tarfile.TarInfo(name)
                info.size, info.mode, info.mtime = hashed.left, _PRIVATE, int(found.st_mtime)
                size = info.size
                archive.addfile(info, hashed)  # type: ignore[arg-type]
                entries.append({"name": name, "size": size, "sha256": hashed.digest.hexdigest()})
        made = datetime.now(UTC).isoformat(timespec="seconds")
        manifest = json.dumps({"version": VERSION, "made_at": made, "files": entries}, indent=1).encode()
        info = tarfile.TarInfo(MANIFEST)
        info.size = len(manifest)
        archive.addfile(info, io.BytesIO(manifest))
    return entries


def _hashed(source: IO[bytes], size: int) -> _Hashed:
    """A small file is read at once: a run that writes it anew meanwhile may make it shorter than its size said."""
    if size > _SMALL:
        return _Hashed(source, size)
    data = source.read(size)
    return _Hashed(io.BytesIO(data), len(data))


class _Hashed:
    """A file read up to the size it had when it was opened, hashed on the way: a log may grow meanwhile."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream = stream
        self.left = size
        self.digest = hashlib.sha256()

    def read(self, wanted: int) -> bytes:
        data = self._stream.read(min(wanted, self.left))
        self.left -= len(data)
        self.digest.update(data)
        return data


# Restoring ------------------------------------------------------------------------------------------------


def _unpack(file: Path, into: Path) -> int:
    """Every file of an archive under ``into``, checked against the manifest; gives how many."""
    seen: dict[str, tuple[int, str]] = {}
    manifest = None
    try:
        with opened_archive(file, into) as archive:
            for member in archive:
                name = check_member(file, member)
                source = archive.extractfile(member)
                if source is None or name in seen or manifest is not None:
                    raise InvalidInput(_damaged(file, f"{name!r} does not belong where it stands"))
                if name == MANIFEST:
                    manifest = source.read()
                else:
                    seen[name] = _extract(source, into / name)
    except FileNotFoundError as error:
        raise InvalidInput(f"There is no file {file}; name what `studio backup FILE` wrote.") from error
    except IsADirectoryError as error:
        raise InvalidInput(f"{file} is a directory; name what `studio backup FILE` wrote.") from error
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise  # the disk is full, the archive may be sound
        reason = str(error)
        raise InvalidInput(_damaged(file, "it is no archive" if "\n" in reason else reason)) from error
    if manifest is None:
        raise InvalidInput(_damaged(file, "it has no manifest at its end, so it was cut off or is no backup"))
    _check(file, manifest, seen)
    # Earlier releases packed the key, into an archive that everybody could read.
    (into / SESSION_KEY).unlink(missing_ok=True)
    return len(seen.keys() - {SESSION_KEY})


def _extract(source: IO[bytes], target: Path) -> tuple[int, str]:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with _new_file(target) as out:
        while data := source.read(_CHUNK):
            out.write(data)
            digest.update(data)
            size += len(data)
    return size, digest.hexdigest()


def _check(file: Path, manifest: bytes, seen: dict[str, tuple[int, str]]) -> None:
    try:
        told = json.loads(manifest)
        version = told["version"]
        listed = {entry["name"]: (entry["size"], entry["sha256"]) for entry in told["files"]}
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(_damaged(file, "its manifest cannot be read")) from error
    if version != VERSION:
        raise InvalidInput(f"{file} is a backup of version {version!r}; this release reads version {VERSION}.")
    wrong = sorted(name for name in {*listed, *seen} if listed.get(name) != seen.get(name))
    if wrong:
        raise InvalidInput(_damaged(file, f"{wrong[0]} is not what its manifest says"))
    if DATABASE not in seen:
        raise InvalidInput(_damaged(file, "it holds no database"))


def _damaged(file: Path, reason: str) -> str:
    return f"{file} is not a whole backup: {reason}. Nothing was restored; use another backup."


def _require_idle(home: Home) -> None:
    for holder, what in ((home.studio_holder(), "studio"), (home.worker_holder(), "worker")):
        if holder is not None:
            raise HomeInUse(
                f"A {what} (pid {holder.get('pid', 'unknown')}) is serving {home.path}; stop it first, then restore."
            )


def _directory_beside(home: Path) -> Path:
    """A fresh directory of its owner's alone on the same disk, so that a rename can put it into place."""
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{home.name}.restoring-", dir=home.parent))
    except OSError as error:
        raise InvalidInput(f"Nothing can be written beside {home}: {error.strerror}. Name another --home.") from error


@contextmanager
def _loaded(url: str | None, copy: Database) -> Iterator[None]:
    """With a server's URL: the copy's rows in it, committed when the block has ended. Without: nothing."""
    if url is None:
        yield
        return
    target = open_database(url)
    try:
        if target.is_sqlite:
            raise StudioError("A backup is restored into --home, or into PostgreSQL; not into another SQLite file.")
        with loaded_copy(copy, target):
            yield
    finally:
        target.dispose()


def _swap(home: Path, work: Path, occupied: bool) -> Path | None:
    """Put the unpacked home in place; the one that was there keeps all it had under another name.

    Where the system can, both change places at one moment, so that a kill leaves one of them there.
    """
    if not occupied:
        if home.exists():
            home.rmdir()
        work.rename(home)
        return None
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    aside = home.with_name(f"{home.name}.before-restore-{stamp}")
    if exchange(work, home):
        try:
            work.rename(aside)
        except OSError:
            exchange(work, home)
            raise
        return aside
    home.rename(aside)
    try:
        work.rename(home)
    except OSError:
        aside.rename(home)
        raise
    return aside
