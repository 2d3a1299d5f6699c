"""The audit log: who did what and when. Rows are added, never changed; the database refuses anything else."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlmodel import Session, col, select

from feedback.database.engine import Database
from feedback.store.rows import as_row
from feedback.tables import AuditRow
from feedback.types import AuditEvent


def save_event(db: Database, actor: str, verb: str, subject: str = "", **detail: Any) -> AuditRow:
    """Write one act down."""
    with db.write() as session:
        return add_event(session, actor, verb, subject, **detail)


def add_event(session: Session, actor: str, verb: str, subject: str = "", **detail: Any) -> AuditRow:
    """Write one act down inside the transaction that does it, so that there is neither without the other."""
    row = as_row(AuditRow, AuditEvent(actor=actor, verb=verb, subject=subject, detail=detail))
    session.add(row)
    session.flush()
    return row


def list_events(
    db: Database,
    *,
    limit: int = 100,
    before: int | None = None,
    actor: str | None = None,
    verb: str | None = None,
    subject: str | None = None,
) -> list[AuditRow]:
    """Acts, newest first; ``before`` a number reads on from the page that ended there."""
    query = select(AuditRow).order_by(col(AuditRow.number).desc()).limit(limit)
    if before is not None:
        query = query.where(col(AuditRow.number) < before)
    for column, wanted in ((AuditRow.actor, actor), (AuditRow.verb, verb), (AuditRow.subject, subject)):
        if wanted is not None:
            query = query.where(col(column) == wanted)
    with db.read() as session:
        return list(session.exec(query))


def list_moments(db: Database, verb: str, *, since: datetime, starting: str = "", ending: str = "") -> list[datetime]:
    """When ``verb`` was done since a moment, oldest first, to subjects that start and end with these words."""
    query = (
        select(AuditRow.created_at)
        .where(
            AuditRow.verb == verb,
            col(AuditRow.created_at) >= since,
            col(AuditRow.subject).startswith(starting, autoescape=True),
            col(AuditRow.subject).endswith(ending, autoescape=True),
        )
        .order_by(col(AuditRow.number))
    )
    with db.read() as session:
        return list(session.exec(query))
