"""Scorecards: what evaluations found, kept for ever."""

from __future__ import annotations

from sqlmodel import col, select

from feedback.database.engine import Database
from feedback.store.rows import as_row
from feedback.tables import ScorecardRow
from feedback.types import Scorecard


def save_scorecard(db: Database, scorecard: Scorecard) -> ScorecardRow:
    """Keep the outcome of one evaluation."""
    row = as_row(ScorecardRow, scorecard)
    with db.write() as session:
        session.add(row)
    return row


def list_scorecards(db: Database, *, subject_id: str | None = None) -> list[ScorecardRow]:
    """Scorecards, newest first, of one policy or reward checkpoint or of all."""
    query = select(ScorecardRow).order_by(col(ScorecardRow.created_at).desc(), col(ScorecardRow.id))
    if subject_id is not None:
        query = query.where(ScorecardRow.subject_id == subject_id)
    with db.read() as session:
        return list(session.exec(query))
