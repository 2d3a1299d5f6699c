"""The state that a training loop of our own leaves to go on from: one file, whole or not there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.checkpoints import disk_full, is_disk_full


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state beside its place, sync it, rename it; on a full disk the state before it stays."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except Exception as error:
        partial.unlink(missing_ok=True)
        if is_disk_full(error):
            raise disk_full(path.parent, "The state to resume from") from error
        raise


def read_state(path: Path) -> dict[str, Any] | None:
    """The state that was left, or None; tensors and plain values only, so that reading it runs nothing."""
    import torch

    return dict(torch.load(path, map_location="cpu", weights_only=True)) if path.is_file() else None
