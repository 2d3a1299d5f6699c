"""Drafts: one per person and matchup, overwritten as they are typed and gone once they are submitted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session

from feedback.database.engine import Database
from feedback.database.statements import CompiledStatement
from feedback.errors import LeaseLost, NotFound
from feedback.store.rows import as_row, value_of
from feedback.tables import DraftRow, GenerationRow, JudgmentRow, LeaseRow, MatchupRow
from feedback.types import Draft, LeaseState


@dataclass(frozen=True)
class OpenDraft:
    """What a draft is about, read inside the transaction that ``save`` writes in."""

    lease: LeaseRow
    texts: list[str]  # the replies in stored order
    _session: Session
    _at: datetime

    def save(self, content: dict[str, Any]) -> None:
        """Keep the draft, in stored order, in place of the earlier one; an empty one is deleted."""
        draft = value_of(Draft, matchup_id=self.lease.matchup_id, annotator=self.lease.annotator, content=content)
        put_draft(self._session, draft, self._at)


@contextmanager
def open_draft(db: Database, lease_id: str, annotator: str, *, at: datetime) -> Iterator[OpenDraft]:
    """Begin the transaction that keeps a draft; it commits where the block ends.

    Raises:
        NotFound: For an unknown lease.
        LeaseLost: For a lease of somebody else or one that was submitted: a late draft must not outlive its judgment.
    """
    with db.write() as session:
        # Locked as a vote locks it, and first as there: the vote's draft is either deleted with it or refused after it
        lease = session.get(LeaseRow, lease_id, with_for_update=True)
        if lease is None:
            raise NotFound("lease", lease_id, hint="Ask for a new task.")
        if lease.annotator != annotator or lease.state in (LeaseState.submitted, LeaseState.skipped):
            raise LeaseLost("This task is no longer yours, so its draft was not kept; ask for a new task.")
        matchup = session.get_one(MatchupRow, lease.matchup_id)
        texts = [session.get_one(GenerationRow, key).text for key in matchup.generation_ids]
        yield OpenDraft(lease, texts, session, at)


def get_draft(db: Database, matchup_id: str, annotator: str) -> DraftRow | None:
    """What this person left unfinished about a matchup."""
    with db.read() as session:
        return session.get(DraftRow, (matchup_id, annotator))


def draft_of_judgment(judgment: JudgmentRow) -> Draft:
    """The remarks of a judgment that was taken back, to go on from."""
    names = ("rationale", "edited", "spans", "criteria", "flag", "ranking", "active_ms")
    content = {name: getattr(judgment, name) for name in names if getattr(judgment, name) is not None}
    return Draft(matchup_id=judgment.matchup_id, annotator=judgment.annotator, content=content)


def put_draft(session: Session, draft: Draft, at: datetime) -> None:
    """Keep a draft in the transaction under way, in the place of an earlier one; an empty one is none."""
    if not draft.content:
        delete_draft(session, draft.matchup_id, draft.annotator)
        return
    row = as_row(DraftRow, draft, updated_at=at)
    # One statement: between a deletion and an insertion another window's draft may come.
    session.connection().execute(_KEEP[session.get_bind().dialect.name], row.model_dump())


def delete_draft(transaction: Session | Connection, matchup_id: str, annotator: str) -> None:
    """Forget a draft in the transaction under way."""
    connection = transaction.connection() if isinstance(transaction, Session) else transaction
    _FORGET.all(connection, of_matchup=matchup_id, of_annotator=annotator)


_DRAFT = DraftRow.__table__  # type: ignore[attr-defined]


def _insert_or_update(insert: Any) -> Any:
    kept = {"content": insert.excluded.content, "updated_at": insert.excluded.updated_at}
    return insert.on_conflict_do_update(index_elements=list(_DRAFT.primary_key), set_=kept)


_KEEP = {
    "sqlite": _insert_or_update(sqlite.insert(_DRAFT)),
    "postgresql": _insert_or_update(postgresql.insert(_DRAFT)),
}
_FORGET = CompiledStatement(
    delete(_DRAFT).where(
        _DRAFT.c.matchup_id == bindparam("of_matchup"), _DRAFT.c.annotator == bindparam("of_annotator")
    )
)
