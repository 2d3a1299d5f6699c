"""Batches: named parts of the pool with a purpose, a priority and a number of opinions of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from feedback.database.engine import Database
from feedback.errors import Conflict, InvalidInput
from feedback.store.rows import as_row, get_by_key, in_chunks
from feedback.tables import BatchRow, JudgmentRow, LeaseRow, MatchupRow
from feedback.types import Batch, LeaseState, MatchupState, Purpose


@dataclass(frozen=True)
class BatchSummary:
    """A batch and how many of its matchups are in which state."""

    batch: BatchRow
    states: dict[str, int]

    @property
    def summary(self) -> str:
        """The name of the batch, as the audit log keeps it."""
        return self.batch.name


def save_batch(
    db: Database, batch: Batch, *, matchup_ids: Sequence[str] | None = None, count: int | None = None
) -> BatchSummary:
    """Make a batch of these matchups, or of the next ``count`` of the pool that nobody has judged or holds.

    All or nothing. Raises Conflict when the name is taken or a named matchup is already at work or in a batch,
    InvalidInput when neither or both are given.
    """
    if (matchup_ids is None) == (count is None):
        raise InvalidInput("Name the matchups of a batch, or say how many to take from the pool: one of the two.")
    row = as_row(BatchRow, batch)
    try:
        with db.write() as session:
            session.add(row)
            session.flush()
            free = _free(session, count, matchup_ids)
            if matchup_ids is not None and len(free) < len(set(matchup_ids)):
                missing = sorted(set(matchup_ids) - set(free))[0]
                raise Conflict(f"Matchup {missing} is not free: it is unknown, judged, on a screen or in a batch.")
            changes = {
                "batch_id": row.id,
                "purpose": row.purpose,
                "priority": row.priority,
                "required": row.required,
                "max_required": row.max_required,
            }
            for start in range(0, len(free), 500):
                part = free[start : start + 500]
                session.execute(update(MatchupRow).where(col(MatchupRow.id).in_(part)).values(**changes))
    except IntegrityError as error:
        raise Conflict(f"There is already a batch {batch.name!r}; choose another name.") from error
    return BatchSummary(row, {MatchupState.open.value: len(free)})


def set_priority(db: Database, key: str, priority: int) -> BatchSummary:
    """Move a batch forward (higher) or back in the queue; leases already given stay."""
    with db.write() as session:
        row = get_by_key(session, BatchRow, "batch", key)
        row.priority = priority
        session.execute(update(MatchupRow).where(col(MatchupRow.batch_id) == row.id).values(priority=priority))
        return BatchSummary(row, _states(session, row.id))


def list_batches(db: Database) -> list[BatchSummary]:
    """All batches, highest priority first, with their progress."""
    with db.read() as session:
        rows = session.exec(select(BatchRow).order_by(col(BatchRow.priority).desc(), col(BatchRow.created_at))).all()
        return [BatchSummary(row, _states(session, row.id)) for row in rows]


def _states(session: Session, batch_id: str) -> dict[str, int]:
    counted = session.exec(
        select(MatchupRow.state, func.count()).where(MatchupRow.batch_id == batch_id).group_by(col(MatchupRow.state))
    )
    return {str(state): number for state, number in counted}


def _free(session: Session, count: int | None, wanted: Sequence[str] | None) -> list[str]:
    """Open matchups of no batch that nobody has judged or holds, in the order of the pool."""
    judged = select(JudgmentRow.matchup_id)
    held = select(LeaseRow.matchup_id).where(LeaseRow.state == LeaseState.leased)
    query = (
        select(MatchupRow.id)
        .where(
            MatchupRow.state == MatchupState.open,
            MatchupRow.purpose == Purpose.collect,
            col(MatchupRow.batch_id).is_(None),
            col(MatchupRow.id).not_in(judged),
            col(MatchupRow.id).not_in(held),
        )
        .order_by(col(MatchupRow.priority).desc(), col(MatchupRow.created_at), col(MatchupRow.id))
    )
    if wanted is None:
        return list(session.exec(query.limit(count)))
    return in_chunks(
        list(dict.fromkeys(wanted)), lambda part: list(session.exec(query.where(col(MatchupRow.id).in_(part))))
    )
