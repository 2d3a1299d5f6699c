"""Checkpoints: what training runs left on disk."""

from __future__ import annotations

from typing import Literal

from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select

from feedback.db import Database
from feedback.errors import Conflict
from feedback.store.rows import as_row, get_by_key
from feedback.tables import CheckpointRow
from feedback.types import Checkpoint


def save_checkpoint(db: Database, checkpoint: Checkpoint) -> CheckpointRow:
    """Register a checkpoint; Conflict when its name is taken."""
    row = as_row(CheckpointRow, checkpoint)
    try:
        with db.write() as session:
            session.add(row)
    except IntegrityError as error:
        raise Conflict(f"There is already a checkpoint {checkpoint.name!r}; choose another name.") from error
    return row


def get_checkpoint(db: Database, key: str) -> CheckpointRow:
    """The checkpoint with this id or name."""
    with db.read() as session:
        return get_by_key(session, CheckpointRow, "checkpoint", key)


def list_checkpoints(db: Database, *, kind: Literal["policy", "reward"] | None = None) -> list[CheckpointRow]:
    """Checkpoints, newest first."""
    query = select(CheckpointRow).order_by(col(CheckpointRow.created_at).desc(), col(CheckpointRow.id))
    if kind is not None:
        query = query.where(CheckpointRow.kind == kind)
    with db.read() as session:
        return list(session.exec(query))
