"""Exports as archives to download: one ZIP file per policy and form, kept until the next of its kind replaces it."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from feedback.files import atomic_write
from training.export.exporting import Form
from training.home import Home


def archive_name(name: str, form: str, quantization: str) -> str:
    """What the archive of a policy of this name is called where it is downloaded."""
    return f"{name}-{form}-{quantization}.zip" if form == Form.gguf else f"{name}-{form}.zip"


def archive_path(home: Home, policy_id: str, form: str, quantization: str) -> Path:
    """The path of a policy's archive; backups leave it out, since it can be made again."""
    return home.cache / "exports" / archive_name(policy_id, form, quantization)


def write_archive(directory: Path, path: Path, check: Callable[[], None] = lambda: None) -> int:
    """Pack a directory of files into an archive, under the directory's name, and return its size in bytes.

    Weights do not compress, so nothing is compressed. ``check`` is called before each file and may raise to stop; then
    an older archive stays as it was.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with atomic_write(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(one for one in directory.rglob("*") if one.is_file()):
            check()
            with file.open("rb") as source, archive.open(_member(directory, file), "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 2**20)
    return path.stat().st_size


def _member(directory: Path, file: Path) -> zipfile.ZipInfo:
    """The entry of a file, which everybody may read once it is unpacked."""
    entry = zipfile.ZipInfo(f"{directory.name}/{file.relative_to(directory).as_posix()}")
    entry.external_attr = 0o644 << 16
    return entry
