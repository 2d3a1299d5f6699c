"""The state that a training loop of our own leaves to go on from: one file, whole or not there; and the one before it.

PyTorch writes a zip archive with a checksum for every part, so a file that was torn or changed can be told.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from feedback.files import atomic_write
from training.checkpoints.saving import disk_full, is_disk_full


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state atomically, and keep the one before it under another name.

    On a full disk the state before it stays.
    """
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(path) as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())  # the new state is whole on the disk before the old one gives up its name
            if path.is_file():
                os.replace(path, _previous(path))
    except Exception as error:
        if is_disk_full(error):
            raise disk_full(path.parent, "The state to resume from") from error
        raise


def read_state(path: Path, log: Callable[[str], None] = lambda line: None) -> dict[str, Any] | None:
    """The newest state that can be read, or None; ``log`` is told which cannot.

    Tensors and plain values only, so that reading it runs nothing.
    """
    import torch

    for place in (path, _previous(path)):
        if not place.is_file():
            continue
        if fault := _fault(place):
            log(f"warning: the state {place.name} cannot be used: {fault}; the one before is taken, if any")
            continue
        return dict(torch.load(place, map_location="cpu", weights_only=True))
    return None


def _previous(path: Path) -> Path:
    return path.with_suffix(f".previous{path.suffix}")


def _fault(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            return None if archive.testzip() is None else "it is damaged"
    except (OSError, zipfile.BadZipFile):
        return "it is empty" if path.stat().st_size == 0 else "it is damaged"
