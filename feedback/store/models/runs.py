"""Runs and their metric points. State changes only by compare-and-swap, so two reporters cannot both be right."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, TypeVar

from sqlalchemy import and_, delete, func, or_, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from feedback.database.engine import Database
from feedback.store.rows import as_row, get_by_key
from feedback.tables import MetricRow, RunRow
from feedback.types import MetricPoint, Run, RunState

Found = TypeVar("Found")


def save_run(db: Database, run: Run, run_id: str | None = None) -> RunRow:
    """Put a run into the queue; one with a ``run_id`` of its own only once, then what is there is returned."""
    row = as_row(RunRow, run, **({"id": run_id} if run_id else {}))
    try:
        with db.write() as session:
            session.add(row)
    except IntegrityError:
        if run_id is None:
            raise
        return get_run(db, run_id)
    return row


def find_run(db: Database, run_id: str) -> RunRow | None:
    """The run with this id, if there is one."""
    with db.read() as session:
        return session.get(RunRow, run_id)


def get_run(db: Database, run_id: str) -> RunRow:
    """The run with this id."""
    with db.read() as session:
        return get_by_key(session, RunRow, "run", run_id, hint="`studio runs list` shows all.")


def list_runs(
    db: Database,
    *,
    states: Collection[RunState] | None = None,
    method: str | None = None,
    name: str | None = None,
    before: str | None = None,
    limit: int | None = None,
) -> list[RunRow]:
    """Runs, newest first, in the given states and of the given method, or in and of any.

    ``name`` is a part of what a run, or what it made, is called, or of its id. ``before`` is the id of a run: only
    older ones are listed. NotFound when there is no such run.
    """
    query = _matching(_newest_first(states, limit), method, name)
    with db.read() as session:
        if before is not None:
            last = get_by_key(session, RunRow, "run", before, hint="Leave the cursor out to begin at the newest run.")
            older = col(RunRow.created_at) < last.created_at
            same = and_(col(RunRow.created_at) == last.created_at, col(RunRow.id) > last.id)
            query = query.where(or_(older, same))
        return list(session.exec(query))


def count_runs(
    db: Database, *, states: Collection[RunState] | None = None, method: str | None = None, name: str | None = None
) -> int:
    """How many runs ``list_runs`` has in all."""
    query = select(func.count()).select_from(RunRow)
    if states is not None:
        query = query.where(col(RunRow.state).in_(list(states)))
    with db.read() as session:
        return session.exec(_matching(query, method, name)).one()


def _matching(query: SelectOfScalar[Found], method: str | None, name: str | None) -> SelectOfScalar[Found]:
    if method is not None:
        query = query.where(RunRow.method == method)
    if name is not None:
        named = [col(RunRow.config)["name"], col(RunRow.result)["policy"], col(RunRow.result)["checkpoint"]]
        texts = [col(RunRow.id), *(func.coalesce(value.as_string(), "") for value in named)]
        query = query.where(or_(*(func.lower(text).contains(name.lower(), autoescape=True) for text in texts)))
    return query


def list_fills(db: Database, *, states: Collection[RunState] | None = None, limit: int | None = None) -> list[RunRow]:
    """As ``list_runs``, those that fill the pool with one policy's replies: not those that put two side by side."""
    alone = col(RunRow.config)["against"].as_string().is_(None)
    with db.read() as session:
        return list(session.exec(_newest_first(states, limit).where(RunRow.method == "generate", alone)))


def _newest_first(states: Collection[RunState] | None, limit: int | None) -> SelectOfScalar[RunRow]:
    query = select(RunRow).order_by(col(RunRow.created_at).desc(), col(RunRow.id))
    if states is not None:
        query = query.where(col(RunRow.state).in_(list(states)))
    return query if limit is None else query.limit(limit)


def transition_run(
    db: Database, run_id: str, *, expected: Collection[RunState], to: RunState, **changes: Any
) -> RunRow | None:
    """Move a run to another state if it is in one of ``expected``; None when it was not, and nothing changed."""
    with db.write() as session:
        moved = session.execute(
            update(RunRow)
            .where(col(RunRow.id) == run_id, col(RunRow.state).in_(list(expected)))
            .values(state=to, **changes)
        )
        return session.get(RunRow, run_id) if moved.rowcount else None  # type: ignore[attr-defined]


def claim_next_run(db: Database, *, to: RunState = RunState.starting, **changes: Any) -> RunRow | None:
    """Take the next queued run, highest priority first and oldest first among equals; None when none may begin.

    A run that comes after another is passed over until that one has succeeded.
    """
    done = select(RunRow.id).where(RunRow.state == RunState.succeeded)
    query = (
        select(RunRow)
        .where(RunRow.state == RunState.queued, or_(col(RunRow.after).is_(None), col(RunRow.after).in_(done)))
        .order_by(col(RunRow.priority).desc(), col(RunRow.created_at), col(RunRow.id))
        .limit(1)
        .with_for_update(skip_locked=True)  # SQLite ignores it; there, BEGIN IMMEDIATE already holds the lock
    )
    with db.write() as session:
        run = session.exec(query).first()
        if run is not None:
            run.state = to
            for name, value in changes.items():
                setattr(run, name, value)
            session.add(run)
        return run


def update_run(db: Database, run_id: str, **changes: Any) -> RunRow:
    """Write progress, heartbeat, pid or result of a run; its state is ``transition_run``'s business alone."""
    if "state" in changes:
        raise ValueError("update_run does not change the state; use transition_run")
    with db.write() as session:
        session.execute(update(RunRow).where(col(RunRow.id) == run_id).values(**changes))
        return get_by_key(session, RunRow, "run", run_id)


def save_metrics(db: Database, run_id: str, points: Sequence[MetricPoint], *, replace_from: int | None = None) -> None:
    """Append points to a run's curves in one transaction; what they had from step ``replace_from`` on goes first."""
    with db.write() as session:
        if replace_from is not None:
            session.execute(
                delete(MetricRow).where(col(MetricRow.run_id) == run_id, col(MetricRow.step) >= replace_from)
            )
        session.add_all(MetricRow(run_id=run_id, step=p.step, name=p.name, value=p.value) for p in points)


def last_step(db: Database, run_id: str) -> int | None:
    """The last step that a run's curves have a point at; None where they have none."""
    with db.read() as session:
        return session.exec(select(func.max(MetricRow.step)).where(MetricRow.run_id == run_id)).one()


def list_metrics(db: Database, run_id: str, *, after_id: int = 0) -> list[MetricRow]:
    """The points of a run in the order written, those after ``after_id`` only: what a live chart polls."""
    query = (
        select(MetricRow).where(MetricRow.run_id == run_id, col(MetricRow.id) > after_id).order_by(col(MetricRow.id))
    )
    with db.read() as session:
        return list(session.exec(query))
