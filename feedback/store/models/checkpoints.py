"""Checkpoints: what training runs left on disk."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel, col, select

from feedback.database.engine import Database
from feedback.errors import NotFound, UnknownSetting
from feedback.store.rows import as_row, get_by_key, refusal
from feedback.tables import CheckpointRow, DatasetRow, RunRow
from feedback.types import Checkpoint

_REFERENCES: dict[str, type[SQLModel]] = {"run_id": RunRow, "dataset_id": DatasetRow, "parent_id": CheckpointRow}


def save_checkpoint(db: Database, checkpoint: Checkpoint) -> CheckpointRow:
    """Register a checkpoint; Conflict when its name is taken, InvalidInput when what it names is not there."""
    row = as_row(CheckpointRow, checkpoint)
    try:
        with db.write() as session:
            session.add(row)
    except IntegrityError as error:
        with db.read() as session:
            raise refusal(session, as_row(CheckpointRow, checkpoint), "checkpoint", _REFERENCES) from error
    return row


def mark_removed(db: Database, checkpoint_id: str, moment: datetime) -> None:
    """Remember that a checkpoint's weights were deleted; its row and manifest stay."""
    with db.write() as session:
        row = get_by_key(session, CheckpointRow, "checkpoint", checkpoint_id)
        row.removed_at = moment
        session.add(row)


def get_checkpoint(db: Database, key: str) -> CheckpointRow:
    """The checkpoint with this id or name."""
    with db.read() as session:
        return get_by_key(session, CheckpointRow, "checkpoint", key)


def get_to_score(db: Database, key: str) -> CheckpointRow:
    """The reward model with this id or name; NotFound, or UnknownSetting for another kind, lists those there are."""
    try:
        row = get_checkpoint(db, key)
    except NotFound:
        known = [row.name for row in list_checkpoints(db, kind="reward")]
        raise NotFound("reward model", key, known, hint="Train one: `studio train reward --dataset D`.") from None
    if row.kind != "reward":
        named = ", ".join(row.name for row in list_checkpoints(db, kind="reward")) or "none yet"
        raise UnknownSetting(
            f"Checkpoint {key!r} is a {row.kind}, not a reward model. Reward models: {named}; "
            "train one: `studio train reward --dataset D`."
        )
    return row


def list_checkpoints(db: Database, *, kind: Literal["policy", "reward"] | None = None) -> list[CheckpointRow]:
    """Checkpoints, newest first."""
    query = select(CheckpointRow).order_by(col(CheckpointRow.created_at).desc(), col(CheckpointRow.id))
    if kind is not None:
        query = query.where(CheckpointRow.kind == kind)
    with db.read() as session:
        return list(session.exec(query))
