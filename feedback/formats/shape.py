"""What a format is: how a dataset becomes rows, and how a file becomes judgments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback.db import Database
from feedback.tables import DatasetRow


def dropped_in_derivation(dataset: DatasetRow) -> dict[str, int]:
    """The drops of a format that exports pairs: what freezing left out."""
    return dataset.dropped


@dataclass(frozen=True)
class Format:
    """One outside format. ``read`` is None where files of this kind cannot be imported."""

    name: str
    sentence: str
    rows: Callable[[Database, DatasetRow], Iterator[dict[str, Any]]]
    read: Callable[[Database, Path], dict[str, int]] | None = None
    dropped: Callable[[DatasetRow], dict[str, int]] = dropped_in_derivation
