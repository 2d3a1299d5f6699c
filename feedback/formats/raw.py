"""The studio's own lossless format: every judgment revision with its lease, matchup, generations and policies.

Each line stands alone, so a file streams in constant memory and lines may be joined from several files. It is
the only format that re-imports exactly: ids are kept, rows that are already there are left as they are, and a
row that is there with other content refuses the whole file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from feedback.database.engine import Database
from feedback.errors import InvalidLine
from feedback.formats.base.format import Export, Format, Row, dropped_by_filters
from feedback.packed_files import read_objects
from feedback.store.rows import reason_of
from feedback.store.transfer import archive
from feedback.store.transfer.archive import ArchivedJudgment

VERSION = 1


class _Line(BaseModel):
    """The outer shape of a line; the nouns inside are validated as rows when they are stored."""

    model_config = ConfigDict(extra="forbid")

    version: int
    judgment: dict[str, Any]
    lease: dict[str, Any]
    matchup: dict[str, Any]
    prompt: dict[str, Any]
    generations: list[dict[str, Any]]
    policies: list[dict[str, Any]]


_OUTER = frozenset(_Line.model_fields)


def rows(export: Export) -> Iterator[Row]:
    """One object per judgment of the dataset, skips and earlier revisions included."""
    for entry in archive.iterate_judgments(export.db, export.dataset.id):
        if export.split is None or export.side_of(entry.prompt["content_hash"]) == export.split:
            yield {"version": VERSION, **entry.as_json()}


def read(db: Database, path: Path) -> dict[str, int]:
    """Store every judgment of a file with all it rests on, or nothing of it."""
    return archive.save_judgments(db, path.name, _entries(path))


def _entries(path: Path) -> Iterator[tuple[int, ArchivedJudgment]]:
    for number, fields in read_objects(path):
        if not fields.keys() >= _OUTER:
            keys = ", ".join(list(fields)[:8]) or "none"
            reason = f"this is no line of a raw export (keys: {keys}); name the file's own --format"
            raise InvalidLine(path.name, number, reason)
        try:
            line = _Line.model_validate(fields)
        except ValidationError as error:
            raise InvalidLine(path.name, number, reason_of(error)) from error
        if line.version != VERSION:
            raise InvalidLine(path.name, number, f"version {line.version} is unknown here (valid: {VERSION})")
        yield number, ArchivedJudgment(**line.model_dump(exclude={"version"}))


FORMAT = Format(
    name="raw",
    sentence="Everything, without loss: every judgment revision with what was shown, by whom and when.",
    rows=rows,
    read=read,
    dropped=dropped_by_filters,
)
