"""Batches: named parts of the pool with a purpose, a priority and a number of opinions of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, or_, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from feedback.database.engine import Database
from feedback.errors import Conflict, InvalidInput
from feedback.store.labeling.leases import release_ahead
from feedback.store.rows import as_row, get_by_key, in_chunks
from feedback.tables import BatchRow, JudgmentRow, LeaseRow, MatchupRow
from feedback.types import Batch, JudgmentState, LeaseState, MatchupState, Purpose, Verdict, now


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


def ensure_batch(db: Database, batch: Batch) -> BatchRow:
    """The batch of this name, made as given where there is none; matchups are saved into it by its id."""
    query = select(BatchRow).where(BatchRow.name == batch.name)
    row = as_row(BatchRow, batch)
    try:
        with db.write() as session:
            found = session.exec(query).first()
            if found is None:
                session.add(row)
            return found or row
    except IntegrityError:  # made by somebody else in between
        with db.read() as session:
            return session.exec(query).one()


def get_batch(db: Database, key: str) -> BatchRow:
    """The batch with this id or name."""
    with db.read() as session:
        return get_by_key(session, BatchRow, "batch", key)


def find_batch(db: Database, name: str) -> BatchRow | None:
    """The batch of this name, if there is one."""
    with db.read() as session:
        return session.exec(select(BatchRow).where(BatchRow.name == name)).first()


def count_opinions(
    db: Database, batch_id: str, *, since: datetime, annotator: str | None = None
) -> tuple[int, datetime | None]:
    """How many opinions that count were given on a batch since a moment, by anybody or one person, and the first."""
    query = (
        select(func.count(), func.min(JudgmentRow.created_at))
        .join(MatchupRow, col(MatchupRow.id) == col(JudgmentRow.matchup_id))
        .where(
            MatchupRow.batch_id == batch_id,
            JudgmentRow.state == JudgmentState.current,
            JudgmentRow.created_at >= since,
            or_(col(JudgmentRow.verdict).is_(None), col(JudgmentRow.verdict) != Verdict.skip),
        )
    )
    if annotator is not None:
        query = query.where(JudgmentRow.annotator == annotator)
    with db.read() as session:
        return session.exec(query).one()


def count_ties(db: Database, batch_id: str) -> int:
    """How many judgments of a batch prefer neither reply: ties, and those that call both bad."""
    query = (
        select(func.count())
        .select_from(JudgmentRow)
        .join(MatchupRow, col(MatchupRow.id) == col(JudgmentRow.matchup_id))
        .where(
            MatchupRow.batch_id == batch_id,
            JudgmentRow.state == JudgmentState.current,
            col(JudgmentRow.verdict).in_((Verdict.tie, Verdict.both_bad)),
        )
    )
    with db.read() as session:
        return session.exec(query).one()


def retire_open(db: Database, batch_id: str) -> int:
    """Withdraw the matchups of a batch on which nobody has an opinion and that are on no screen; returns how many.

    The rows are locked before leases and judgments are read: on PostgreSQL a lease may be granted in between.
    """
    with db.write() as session:
        release_ahead(session, at=now())
        rows = session.exec(
            select(MatchupRow)
            .where(MatchupRow.batch_id == batch_id, MatchupRow.state == MatchupState.open)
            .order_by(col(MatchupRow.id))
            .with_for_update()
        ).all()
        judged = select(JudgmentRow.matchup_id).where(
            JudgmentRow.state == JudgmentState.current,
            or_(col(JudgmentRow.verdict).is_(None), col(JudgmentRow.verdict) != Verdict.skip),
        )
        held = select(LeaseRow.matchup_id).where(LeaseRow.state == LeaseState.leased, col(LeaseRow.expires_at) > now())
        mine = col(MatchupRow.batch_id) == batch_id
        busy = set(session.exec(select(MatchupRow.id).where(mine, col(MatchupRow.id).in_(judged))))
        busy |= set(session.exec(select(MatchupRow.id).where(mine, col(MatchupRow.id).in_(held))))
        free = [row for row in rows if row.id not in busy]
        for row in free:
            row.state = MatchupState.retired
        return len(free)


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
