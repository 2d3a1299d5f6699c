"""What a reference said of a dataset's replies, kept on disk by content for later runs of one dataset and parent.

The key is a hash of everything the sums follow from: the weights of the reference, the token ids, the precision and
what the trainer sums up. Another parent, another row or another version of the libraries is another key.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from feedback.files import atomic_write
from training.adapters.build import TRL_REFERENCE

FORMAT = 1  # raised when what computes the sums changes
KEPT = 64  # files; the oldest go first
TRAINED = ".default."  # part of the names of the adapter that is trained, which is no part of the reference


def reference_key(model: Any, rows: Sequence[Any], **inputs: Any) -> str:
    """The hash of a reference and of what it is asked.

    ``model`` is the trainer's PEFT model: the reference is its copy of the parent's adapter, else the base with the
    adapters off. ``rows`` are token rows; ``inputs`` is whatever else the sums depend on.
    """
    import torch

    digest = hashlib.sha256()
    copy = model.peft_config.get(TRL_REFERENCE)
    head = {
        "rows": [dict(row) for row in rows],
        "inputs": inputs,
        "format": FORMAT,
        "device": model.device.type,
        "versions": [version(name) for name in ("torch", "transformers", "trl", "peft")],
        "config": model.get_base_model().config.to_dict(),
        "adapter": {} if copy is None else copy.to_dict(),
    }
    digest.update(json.dumps(head, sort_keys=True, default=_json_value).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if TRAINED in name:
            continue
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _json_value(value: Any) -> Any:
    """Settings of adapters hold sets, whose order differs from one process to the next."""
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)


def load_sums(directory: Path, key: str, columns: int, rows: int) -> list[list[float]] | None:
    """The sums that were kept under a key, one list per column; None where there are none that can be read."""
    path = directory / f"{key}.json"
    try:
        found = json.loads(path.read_text())
        usable = len(found) == columns and all(len(column) == rows for column in found)
        return found if usable and all(map(math.isfinite, chain(*found))) else None
    except (OSError, ValueError, TypeError):
        return None


def save_sums(directory: Path, key: str, columns: Sequence[Sequence[float]]) -> None:
    """Keep the sums under a key, and no more than ``KEPT`` files; a disk that is full loses a cache, not a run."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic_write(directory / f"{key}.json", mode=0o600) as stream:
            stream.write(json.dumps(columns).encode())
        kept = sorted(directory.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in kept[KEPT:]:
            path.unlink(missing_ok=True)
    except OSError:
        return
