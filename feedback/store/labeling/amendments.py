"""Remarks added to a judgment that is saved already: a further revision of it, under a lease of its own.

A lease yields one judgment and no judgment is ever overwritten, so the words of a second window that was late become
the next revision, with the same verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session, col, func, select

from feedback.database.engine import Database
from feedback.errors import Conflict, NotFound
from feedback.store.rows import as_row
from feedback.tables import GenerationRow, JudgmentRow, LeaseRow, MatchupRow
from feedback.types import Judgment, JudgmentState, LeaseState, Verdict

# Gives the remarks of the next revision from the judgment and the texts of the replies in stored order.
Merge = Callable[[JudgmentRow, list[str]], dict[str, Any]]


def find_judged(db: Database, lease_id: str, annotator: str) -> tuple[JudgmentRow, list[str]] | None:
    """What this person's judgment of the lease's matchup is now, with the replies' texts in stored order."""
    with db.read() as session:
        judgment = _judgment_of(session, lease_id, annotator)
        return None if judgment is None else (judgment, _texts(session, judgment.matchup_id))


def amend_judgment(db: Database, lease_id: str, annotator: str, merge: Merge, *, at: datetime) -> str:
    """Add a revision with other remarks to this person's judgment of a lease's matchup; the id of the current one.

    Raises Conflict where there is no judgment to add to, and what ``merge`` raises. Nothing is added where ``merge``
    changes nothing.
    """
    with db.write() as session:
        judgment = _judgment_of(session, lease_id, annotator, lock=True)
        if judgment is None:
            raise Conflict("This judgment was taken back or excluded meanwhile, so nothing can be added to it.")
        changed = merge(judgment, _texts(session, judgment.matchup_id))
        if not changed:
            return judgment.id
        newest = select(func.max(JudgmentRow.created_at)).where(JudgmentRow.annotator == annotator)
        last = session.exec(newest).one()
        moment = max(at, last + timedelta(microseconds=1)) if last else at
        lease = _copy_of(session.get_one(LeaseRow, judgment.lease_id), judgment, moment)
        judgment.state = JudgmentState.superseded
        session.add(lease)
        session.flush()  # the unique index refuses a second current judgment while the first one is
        kept = {name: getattr(judgment, name) for name in Judgment.model_fields}
        own = {"lease_id": lease.id, "revision": judgment.revision + 1, "supersedes": judgment.id}
        value = Judgment.model_validate({**kept, **own, "state": JudgmentState.current, **changed})
        row = as_row(JudgmentRow, value, created_at=moment)
        session.add(row)
        return row.id


def _judgment_of(session: Session, lease_id: str, annotator: str, *, lock: bool = False) -> JudgmentRow | None:
    lease = session.get(LeaseRow, lease_id)
    if lease is None:
        raise NotFound("lease", lease_id, hint="Ask for a new task.")
    if lease.annotator != annotator:
        return None
    if lock:
        session.get_one(MatchupRow, lease.matchup_id, with_for_update=True)
    query = select(JudgmentRow).where(
        JudgmentRow.matchup_id == lease.matchup_id,
        JudgmentRow.annotator == annotator,
        JudgmentRow.state == JudgmentState.current,
    )
    return session.exec(query.order_by(col(JudgmentRow.revision).desc())).first()


def _texts(session: Session, matchup_id: str) -> list[str]:
    matchup = session.get_one(MatchupRow, matchup_id)
    return [session.get_one(GenerationRow, key).text for key in matchup.generation_ids]


def _copy_of(lease: LeaseRow, judgment: JudgmentRow, at: datetime) -> LeaseRow:
    """An ended lease as the one that a judgment was made under, for its next revision."""
    return LeaseRow(
        created_at=at,
        matchup_id=lease.matchup_id,
        annotator=lease.annotator,
        session=lease.session,
        source=lease.source,
        shown_order=lease.shown_order,
        state=LeaseState.skipped if judgment.verdict is Verdict.skip else LeaseState.submitted,
        expires_at=lease.expires_at,
        ended_at=at,
        part=lease.part,
    )
