"""Judgments: revisions, never overwrites. A lease yields one judgment, however often it is submitted."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func
from sqlalchemy import select as columns
from sqlmodel import Session, col, select

from feedback.db import Database
from feedback.errors import LeaseLost, NotFound
from feedback.store.drafts import delete_draft, draft_of_judgment, put_draft
from feedback.store.rows import as_row
from feedback.tables import DatasetJudgmentRow, GenerationRow, JudgmentRow, LeaseRow, MatchupRow
from feedback.types import Judgment, JudgmentState, LeaseState, MatchupState, Source, Verdict

_DECISIVE = (Verdict.first, Verdict.second)


@dataclass(frozen=True)
class Submitted:
    """The judgment a lease led to; ``created`` is False when the same lease had been submitted before."""

    judgment_id: str
    created: bool


@dataclass(frozen=True)
class AnnotatorFigures:
    """One person's current judgments in numbers; ``median_ms`` is active time, None when none was measured.

    ``sides`` counts what was preferred as the screen showed it: left, right.
    """

    total: int
    recent: int
    verdicts: dict[str, int]
    sides: tuple[int, int]
    median_ms: int | None
    edits: int
    flags: int


def save_judgment(
    db: Database,
    lease_id: str,
    annotator: str,
    build: Callable[[LeaseRow, MatchupRow, list[str]], Judgment],
    *,
    at: datetime,
) -> Submitted:
    """Judge what a lease is about, once. ``build`` makes the judgment from the lease, its matchup and the replies
    in stored order; what it raises undoes all.

    The draft of it ends with it. The same lease again gives the first judgment back. Raises NotFound for an unknown
    lease and LeaseLost for one
    that is expired, released or somebody else's.
    """
    with db.write() as session:
        # Locked (SQLite's one writer needs no lock): a double click must find the judgment of the first one.
        lease = session.get(LeaseRow, lease_id, with_for_update=True)
        if lease is None:
            raise NotFound("lease", lease_id, hint="Ask for a new task.")
        if lease.annotator != annotator:
            raise LeaseLost("This task is leased to another annotator; ask for a task of your own.")
        known = session.exec(select(JudgmentRow.id).where(JudgmentRow.lease_id == lease_id)).first()
        if known is not None:
            return Submitted(known, created=False)
        _require_live(lease, at)
        # Locked, so that of two last judgments at once the second counts the first and settles the matchup.
        matchup = session.get_one(MatchupRow, lease.matchup_id, with_for_update=True)
        texts = [session.get_one(GenerationRow, key).text for key in matchup.generation_ids]
        row = as_row(JudgmentRow, build(lease, matchup, texts))
        delete_draft(session, lease.matchup_id, annotator)
        _supersede(session, row)
        session.add(row)
        skipped = row.verdict is Verdict.skip
        lease.state = LeaseState.skipped if skipped else LeaseState.submitted
        lease.ended_at = at
        session.flush()
        _settle(session, matchup)
        return Submitted(row.id, created=True)


def withdraw_last_judgment(
    db: Database, annotator: str, *, session_key: str | None, expires_at: datetime, at: datetime
) -> LeaseRow | None:
    """Take back this annotator's newest judgment and lease its matchup again, shown the same way round.

    The judgment stays as a withdrawn revision, and its remarks become the draft to go on from. Live leases of the
    same session are released. None when there is nothing to take back. ``session_key`` limits the search to
    judgments made in that browser session.
    """
    with db.write() as session:
        judgment = _newest_judgment(session, annotator, session_key)
        if judgment is None:
            return None
        matchup = session.get_one(MatchupRow, judgment.matchup_id, with_for_update=True)
        session.refresh(judgment, with_for_update=True)
        if judgment.state is not JudgmentState.current:
            return None  # another request took it back between the look and the lock
        judgment.state = JudgmentState.withdrawn
        session.flush()
        _release_held(session, annotator, session_key, at)
        matchup.state = MatchupState.open
        lease = LeaseRow(
            matchup_id=judgment.matchup_id,
            annotator=annotator,
            session=session_key,
            source=judgment.source,
            shown_order=judgment.shown_order,
            expires_at=expires_at,
        )
        session.add(lease)
        put_draft(session, draft_of_judgment(judgment), at)
        return lease


def count_judgments(db: Database, *, annotator: str | None = None, source: Source | None = None) -> int:
    """How many current judgments there are, skips included."""
    query = select(func.count()).select_from(JudgmentRow).where(JudgmentRow.state == JudgmentState.current)
    if annotator is not None:
        query = query.where(JudgmentRow.annotator == annotator)
    if source is not None:
        query = query.where(JudgmentRow.source == source)
    with db.read() as session:
        return session.exec(query).one()


def tally_judgments(db: Database, annotator: str | None = None) -> dict[str, int]:
    """Current judgments by verdict (``rank`` for rankings), with their ``total``."""
    query = (
        select(JudgmentRow.verdict, func.count())
        .where(JudgmentRow.state == JudgmentState.current)
        .group_by(col(JudgmentRow.verdict))
    )
    if annotator is not None:
        query = query.where(JudgmentRow.annotator == annotator)
    with db.read() as session:
        found = {str(verdict or "rank"): count for verdict, count in session.exec(query).all()}
    tally = {key: found.get(key, 0) for key in [*(verdict.value for verdict in Verdict), "rank"]}
    return {**tally, "total": sum(tally.values())}


def annotator_figures(db: Database, annotator: str, *, since: datetime) -> AnnotatorFigures:
    """What one person did: in all and since a moment, how they decided, and how long it took them."""
    query = columns(
        col(JudgmentRow.verdict),
        col(JudgmentRow.shown_order),
        col(JudgmentRow.active_ms),
        col(JudgmentRow.created_at),
        col(JudgmentRow.flag),
        col(JudgmentRow.edited),
    ).where(col(JudgmentRow.annotator) == annotator, col(JudgmentRow.state) == JudgmentState.current)
    with db.read() as session:
        rows = session.execute(query).all()
    verdicts: Counter[str] = Counter(str(verdict or "rank") for verdict, *_ in rows)
    decided = [
        order[0] == (0 if verdict is Verdict.first else 1) for verdict, order, *_ in rows if verdict in _DECISIVE
    ]
    times = [active for _, _, active, *_ in rows if active is not None]
    return AnnotatorFigures(
        total=len(rows),
        recent=sum(created >= since for _, _, _, created, *_ in rows),
        verdicts=dict(verdicts),
        sides=(sum(decided), len(decided) - sum(decided)),
        median_ms=round(statistics.median(times)) if times else None,
        edits=sum(bool(edited) for *_, edited in rows),
        flags=sum(flag is not None for *_, flag, _ in rows),
    )


def tally_sources(db: Database) -> dict[str, int]:
    """Current judgments by who is behind them: human, simulated, imported."""
    query = (
        select(JudgmentRow.source, func.count())
        .where(JudgmentRow.state == JudgmentState.current)
        .group_by(col(JudgmentRow.source))
    )
    with db.read() as session:
        found = {str(source): count for source, count in session.exec(query).all()}
    return {source.value: found.get(source.value, 0) for source in Source}


def list_judgments(
    db: Database, *, limit: int | None = None, dataset_id: str | None = None, current_only: bool = False
) -> list[JudgmentRow]:
    """Judgments, oldest first: all revisions, or those a dataset was frozen from, or the current ones."""
    query = select(JudgmentRow).order_by(col(JudgmentRow.created_at), col(JudgmentRow.id))
    if dataset_id is not None:
        members = select(DatasetJudgmentRow.judgment_id).where(DatasetJudgmentRow.dataset_id == dataset_id)
        query = query.where(col(JudgmentRow.id).in_(members))
    if current_only:
        query = query.where(JudgmentRow.state == JudgmentState.current)
    if limit is not None:
        query = query.limit(limit)
    with db.read() as session:
        return list(session.exec(query))


def _require_live(lease: LeaseRow, at: datetime) -> None:
    if lease.state is LeaseState.leased and lease.expires_at > at:
        return
    why = "expired" if lease.state is LeaseState.leased else f"was {lease.state.value}"
    raise LeaseLost(f"This task's lease {why}; the pair went back to the pool. Ask for a new task.")


def _supersede(session: Session, row: JudgmentRow) -> None:
    """Number the new revision after this person's earlier ones of the same matchup."""
    query = (
        select(JudgmentRow)
        .where(JudgmentRow.matchup_id == row.matchup_id, JudgmentRow.annotator == row.annotator)
        .order_by(col(JudgmentRow.revision).desc())
        .limit(1)
    )
    previous = session.exec(query).first()
    if previous is None:
        return
    row.revision = previous.revision + 1
    row.supersedes = previous.id
    if previous.state is JudgmentState.current:
        previous.state = JudgmentState.superseded
        # The partial unique index would refuse the new row while the old one is still current.
        session.flush()


def _settle(session: Session, matchup: MatchupRow) -> None:
    """A matchup with all its judgments leaves the pool; skips count nowhere."""
    judged = session.exec(
        select(func.count()).where(
            col(JudgmentRow.matchup_id) == matchup.id,
            col(JudgmentRow.state) == JudgmentState.current,
            (col(JudgmentRow.verdict) != Verdict.skip) | col(JudgmentRow.verdict).is_(None),
        )
    ).one()
    if judged >= matchup.required:
        matchup.state = MatchupState.satisfied


def _newest_judgment(session: Session, annotator: str, session_key: str | None) -> JudgmentRow | None:
    query = (
        select(JudgmentRow)
        .join(LeaseRow, col(LeaseRow.id) == col(JudgmentRow.lease_id))
        .where(JudgmentRow.annotator == annotator, JudgmentRow.state == JudgmentState.current)
        .order_by(col(JudgmentRow.created_at).desc())
        .limit(1)
    )
    if session_key is not None:
        query = query.where(LeaseRow.session == session_key)
    return session.exec(query).first()


def _release_held(session: Session, annotator: str, session_key: str | None, at: datetime) -> None:
    query = select(LeaseRow).where(
        LeaseRow.annotator == annotator, LeaseRow.session == session_key, LeaseRow.state == LeaseState.leased
    )
    if session_key is None:
        return  # without a session there is no one screen the held lease could be taken from
    for lease in session.exec(query):
        lease.state = LeaseState.released
        lease.ended_at = at
