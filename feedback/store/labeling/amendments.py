"""Remarks added to a judgment that is saved already: a further revision of it, under a lease of its own.

A lease yields one judgment and no judgment is ever overwritten, so the words of a second window that was late become
the next revision, with the same verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session, col, func, select

from feedback.database.engine import Database
from feedback.errors import Conflict, NotFound
from feedback.store.rows import as_row
from feedback.tables import GenerationRow, JudgmentRow, LeaseRow, MatchupRow
from feedback.types import Judgment, JudgmentState, LeaseState, Verdict


def find_judged(db: Database, lease_id: str, annotator: str) -> tuple[JudgmentRow, list[str]] | None:
    """What this person's judgment of the lease's matchup is now, with the replies' texts in stored order."""
    with db.read() as session:
        judgment = _judgment_of(session, lease_id, annotator)
        return None if judgment is None else (judgment, _texts(session, judgment.matchup_id))


@dataclass(frozen=True)
class Amendment:
    """A judgment that is being added to, read inside the transaction that ``save`` writes in."""

    judgment: JudgmentRow
    texts: list[str]  # the replies in stored order
    _session: Session
    _at: datetime

    def save(self, changed: Mapping[str, Any]) -> str:
        """Add a revision with these fields changed; the id of what is current now. Call it once."""
        session, judgment = self._session, self.judgment
        if not changed:
            return judgment.id
        newest = select(func.max(JudgmentRow.created_at)).where(JudgmentRow.annotator == judgment.annotator)
        last = session.exec(newest).one()
        moment = max(self._at, last + timedelta(microseconds=1)) if last else self._at
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


@contextmanager
def open_amendment(db: Database, lease_id: str, annotator: str, *, at: datetime) -> Iterator[Amendment]:
    """Begin the transaction that adds to this person's judgment of a lease's matchup; it commits where the block ends.

    Raises:
        NotFound: For an unknown lease.
        Conflict: Where there is no judgment to add to.
    """
    with db.write() as session:
        judgment = _judgment_of(session, lease_id, annotator, lock=True)
        if judgment is None:
            raise Conflict("This judgment was taken back or excluded meanwhile, so nothing can be added to it.")
        yield Amendment(judgment, _texts(session, judgment.matchup_id), session, at)


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
