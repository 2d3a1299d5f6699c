"""Hashes that identify a base and the names of an adapter's tensors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from training.models.base_files import base_directory

_SAMPLE_ABOVE = 64 * 2**20  # weights beyond this size are hashed by sampled blocks
_BLOCK = 2**16
_BLOCKS = 64


def describe_base(base: str) -> str:
    """Hash of a base model: its configuration and weights, wherever it lies.

    Small weights are hashed whole; of large ones the size and evenly spaced blocks, which takes milliseconds.
    """
    directory = base_directory(base)
    digest = hashlib.sha256((directory / "config.json").read_bytes())
    for path in sorted([*directory.glob("*.safetensors"), *directory.glob("*.bin")]):
        digest.update(f"{path.name}:{path.stat().st_size}:{hash_file(path)}".encode())
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """Return the hash of a file of weights: of all of it, or above ``_SAMPLE_ABOVE`` of its size and sampled blocks."""
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if size <= _SAMPLE_ABOVE:
            while block := file.read(2**20):
                digest.update(block)
            return digest.hexdigest()
        for number in range(_BLOCKS):
            file.seek((size - _BLOCK) * number // (_BLOCKS - 1))
            digest.update(file.read(_BLOCK))
    return f"{size}:{digest.hexdigest()}"


def tensor_names(path: Path) -> list[str]:
    """Names of the tensors in a safetensors file, read from its header alone; none if it is not there."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return [name for name in header if name != "__metadata__"]
