"""Generations: replies, each with the policy, settings and seed that made it."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import update
from sqlmodel import col, select

from feedback.database.engine import Database
from feedback.store.rows import as_row, in_chunks
from feedback.tables import GenerationRow
from feedback.types import Generation


def save_generations(db: Database, generations: Sequence[Generation]) -> list[GenerationRow]:
    """Store replies, all or none, and give their rows back in the same order."""
    rows = [as_row(GenerationRow, generation) for generation in generations]
    with db.write() as session:
        session.add_all(rows)
    return rows


def save_generations_once(db: Database, generations: Sequence[Generation], ids: Sequence[str]) -> None:
    """Store replies under ids of the caller's; those already there stay as they are.

    A run that is taken up again draws its last replies once more, and they must not be there twice.
    """
    rows = [as_row(GenerationRow, value, id=id) for value, id in zip(generations, ids, strict=True)]
    with db.write() as session:
        known = set(
            in_chunks(
                list(ids),
                lambda part: list(session.exec(select(GenerationRow.id).where(col(GenerationRow.id).in_(part)))),
            )
        )
        session.add_all(row for row in rows if row.id not in known)


def hand_over_generations(db: Database, run_id: str, policy_id: str) -> None:
    """Make a run's replies those of the policy it made.

    Until then, and for good where a run makes none, they stand under the policy it moves away from; a dataset that is
    asked for that policy's replies leaves them out.
    """
    with db.write() as session:
        session.execute(update(GenerationRow).where(col(GenerationRow.run_id) == run_id).values(policy_id=policy_id))


def list_newest_generations(db: Database, run_id: str, limit: int) -> list[GenerationRow]:
    """The last replies a run has kept, newest first."""
    newest = (col(GenerationRow.created_at).desc(), col(GenerationRow.id).desc())
    query = select(GenerationRow).where(GenerationRow.run_id == run_id).order_by(*newest).limit(limit)
    with db.read() as session:
        return list(session.exec(query))


def list_generations(
    db: Database,
    *,
    ids: Sequence[str] | None = None,
    prompt_id: str | None = None,
    policy_id: str | None = None,
    run_id: str | None = None,
    limit: int | None = None,
) -> list[GenerationRow]:
    """Generations, oldest first, that meet every condition given; ``ids`` gives them in no certain order."""
    query = select(GenerationRow).order_by(col(GenerationRow.created_at), col(GenerationRow.id))
    for column, wanted in (
        (GenerationRow.prompt_id, prompt_id),
        (GenerationRow.policy_id, policy_id),
        (GenerationRow.run_id, run_id),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    with db.read() as session:
        if ids is None:
            return list(session.exec(query.limit(limit) if limit is not None else query))
        found = in_chunks(list(ids), lambda part: list(session.exec(query.where(col(GenerationRow.id).in_(part)))))
        return found[:limit]
