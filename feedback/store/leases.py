"""Leases: the exclusive, expiring right to judge one matchup, handed out inside one write transaction.

Capacity and lease are one transaction (``BEGIN IMMEDIATE`` on SQLite, row locks with ``SKIP LOCKED`` on
PostgreSQL): live leases + current judgments never exceed what a matchup requires.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, exists, func, update
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from feedback.db import Database
from feedback.errors import NotFound
from feedback.tables import GenerationRow, JudgmentRow, LeaseRow, MatchupRow, PromptRow
from feedback.types import JudgmentState, LeaseState, MatchupState, Source, Verdict

# Draws the order to show replies in, from the orders shown before and the number of replies.
OrderDraw = Callable[[Sequence[Sequence[int]], int], list[int]]


def save_lease(
    db: Database,
    annotator: str,
    *,
    session_key: str | None,
    source: Source,
    expires_at: datetime,
    at: datetime,
    draw_order: OrderDraw,
) -> LeaseRow | None:
    """Lease the next matchup this annotator may judge, or None when the pool has none for them."""
    with db.write() as session:
        _expire(session, at)
        matchup = _next_matchup(session, annotator)
        if matchup is None:
            return None
        earlier = session.exec(
            select(LeaseRow.shown_order).where(LeaseRow.matchup_id == matchup.id).order_by(col(LeaseRow.created_at))
        ).all()
        lease = LeaseRow(
            matchup_id=matchup.id,
            annotator=annotator,
            session=session_key,
            source=source,
            shown_order=draw_order(earlier, len(matchup.generation_ids)),
            expires_at=expires_at,
        )
        session.add(lease)
        return lease


def get_lease(db: Database, lease_id: str) -> LeaseRow:
    """The lease with this id, whatever its state."""
    with db.read() as session:
        lease = session.get(LeaseRow, lease_id)
    if lease is None:
        raise NotFound("lease", lease_id, hint="Ask for a new task.")
    return lease


def list_live_leases(db: Database, session_key: str, *, at: datetime) -> list[LeaseRow]:
    """The leases a browser session holds that have neither ended nor expired, oldest first."""
    query = (
        select(LeaseRow)
        .where(
            LeaseRow.session == session_key,
            LeaseRow.state == LeaseState.leased,
            col(LeaseRow.expires_at) > at,
        )
        .order_by(col(LeaseRow.created_at), col(LeaseRow.id))
    )
    with db.read() as session:
        return list(session.exec(query))


def release_ahead(session: Session, *, at: datetime) -> None:
    """Give back what browsers fetched ahead, in the transaction under way; what is on a screen stays there."""
    live = session.exec(
        select(LeaseRow)
        .where(LeaseRow.state == LeaseState.leased, col(LeaseRow.session).is_not(None))
        .order_by(col(LeaseRow.created_at), col(LeaseRow.id))
    ).all()
    on_screen: set[str | None] = set()
    for lease in live:
        if lease.session in on_screen:
            lease.state = LeaseState.released
            lease.ended_at = at
        on_screen.add(lease.session)
    session.flush()


def release_lease(db: Database, lease_id: str, *, at: datetime) -> bool:
    """Give a matchup back unjudged; False when the lease had already ended."""
    with db.write() as session:
        ended = session.execute(
            update(LeaseRow)
            .where(col(LeaseRow.id) == lease_id, col(LeaseRow.state) == LeaseState.leased)
            .values(state=LeaseState.released, ended_at=at)
        )
        return bool(ended.rowcount)  # type: ignore[attr-defined]


def get_lease_contents(db: Database, lease: LeaseRow) -> tuple[MatchupRow, PromptRow, list[GenerationRow]]:
    """What a lease is about: its matchup, the prompt, and the generations in stored order."""
    with db.read() as session:
        matchup = session.get_one(MatchupRow, lease.matchup_id)
        prompt = session.get_one(PromptRow, matchup.prompt_id)
        rows = session.exec(select(GenerationRow).where(col(GenerationRow.id).in_(matchup.generation_ids))).all()
        by_id = {row.id: row for row in rows}
        return matchup, prompt, [by_id[generation_id] for generation_id in matchup.generation_ids]


def _expire(session: Session, at: datetime) -> None:
    # Whoever comes first expires a lease and the others pass it over: waiting for each other might be a deadlock.
    overdue = (
        select(LeaseRow.id)
        .where(col(LeaseRow.state) == LeaseState.leased, col(LeaseRow.expires_at) <= at)
        .with_for_update(skip_locked=True)
    )
    session.execute(update(LeaseRow).where(col(LeaseRow.id).in_(overdue)).values(state=LeaseState.expired, ended_at=at))


def _next_matchup(session: Session, annotator: str) -> MatchupRow | None:
    """Highest priority first, oldest among equals; never one this annotator judged, skipped or holds.

    PostgreSQL counts as of the statement's beginning but locks the row later: between the two another transaction
    may have leased the matchup and ended. So what is locked is asked for again, by a statement that sees that. Rows
    that others hold are passed over at first; when nothing else is left, they are waited for: a matchup that is
    being judged this moment may need another judge.
    """
    if session.get_bind().dialect.name == "sqlite":
        return session.exec(_candidates(annotator, ())).first()
    full: list[str] = []
    for passing_over in (True, False):
        while True:
            query = _candidates(annotator, full).with_for_update(skip_locked=passing_over)
            found = session.exec(query).first()
            if found is None:
                break
            if session.exec(select(MatchupRow.id).where(MatchupRow.id == found.id, _may_be_leased(annotator))).first():
                return found
            full.append(found.id)
    return None


def _candidates(annotator: str, full: Sequence[str]) -> SelectOfScalar[MatchupRow]:
    return (
        select(MatchupRow)
        .where(_may_be_leased(annotator), col(MatchupRow.id).not_in(full))
        .order_by(col(MatchupRow.priority).desc(), col(MatchupRow.created_at), col(MatchupRow.id))
        .limit(1)
    )


def _may_be_leased(annotator: str) -> ColumnElement[bool]:
    live = (
        select(func.count())
        .where(col(LeaseRow.matchup_id) == col(MatchupRow.id), col(LeaseRow.state) == LeaseState.leased)
        .scalar_subquery()
    )
    # A skip counts nowhere: it neither fills the matchup nor lets it come back to the same person.
    judged = (
        select(func.count())
        .where(
            col(JudgmentRow.matchup_id) == col(MatchupRow.id),
            col(JudgmentRow.state) == JudgmentState.current,
            (col(JudgmentRow.verdict) != Verdict.skip) | col(JudgmentRow.verdict).is_(None),
        )
        .scalar_subquery()
    )
    own_judgment = exists().where(
        col(JudgmentRow.matchup_id) == col(MatchupRow.id),
        col(JudgmentRow.annotator) == annotator,
        col(JudgmentRow.state) == JudgmentState.current,
    )
    own_lease = exists().where(
        col(LeaseRow.matchup_id) == col(MatchupRow.id),
        col(LeaseRow.annotator) == annotator,
        col(LeaseRow.state) == LeaseState.leased,
    )
    return and_(
        col(MatchupRow.state) == MatchupState.open,
        ~own_judgment,
        ~own_lease,
        live + judged < col(MatchupRow.required),
    )
