"""TRL's prompt-only format: the conversations of a dataset, each once. What online trainers draw from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from feedback.database.engine import Database
from feedback.formats.base.format import Export, Format, Row, dropped_by_filters
from feedback.formats.base.prompts import read_prompts
from feedback.store.content.prompts import MARKED, save_prompts


def rows(export: Export) -> Iterator[Row]:
    """One object per prompt that was judged, whatever was said of its replies."""
    for prompt in export.prompts():
        yield {"prompt": prompt.messages}


def read(db: Database, path: Path) -> dict[str, int]:
    """Add the prompts of a file; those there already are counted."""
    saved = save_prompts(db, read_prompts(path))
    counts = {"prompts": saved.added, "already_there": saved.duplicates}
    return counts | ({MARKED: len(saved.marked)} if saved.marked else {})


FORMAT = Format(
    name="trl-prompt",
    sentence="TRL prompts alone, as messages: what GRPO, RLOO and online DPO draw from.",
    rows=rows,
    read=read,
    dropped=dropped_by_filters,
)
