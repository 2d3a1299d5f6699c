"""Matchups: the pool that annotators draw from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func
from sqlmodel import col, select

from feedback.db import Database
from feedback.store.rows import as_row, get_by_key
from feedback.tables import LeaseRow, MatchupRow, PromptRow
from feedback.types import LeaseState, Matchup, MatchupState, Split, now


@dataclass(frozen=True)
class MatchupCounts:
    """The pool in four numbers; ``leased`` are those of the open ones that are on somebody's screen."""

    open: int
    leased: int
    satisfied: int
    retired: int


def save_matchups(db: Database, matchups: Sequence[Matchup]) -> list[MatchupRow]:
    """Put matchups into the pool, all or none."""
    rows = [as_row(MatchupRow, matchup) for matchup in matchups]
    with db.write() as session:
        session.add_all(rows)
    return rows


def get_matchup(db: Database, matchup_id: str) -> MatchupRow:
    """The matchup with this id."""
    with db.read() as session:
        return get_by_key(session, MatchupRow, "matchup", matchup_id)


def count_matchups(db: Database) -> MatchupCounts:
    """How full the pool is."""
    with db.read() as session:
        by_state = dict(session.exec(select(MatchupRow.state, func.count()).group_by(col(MatchupRow.state))).all())
        live = select(func.count(func.distinct(LeaseRow.matchup_id))).where(
            LeaseRow.state == LeaseState.leased, col(LeaseRow.expires_at) > now()
        )
        return MatchupCounts(
            open=by_state.get(MatchupState.open, 0),
            leased=session.exec(live).one(),
            satisfied=by_state.get(MatchupState.satisfied, 0),
            retired=by_state.get(MatchupState.retired, 0),
        )


def count_open(db: Database) -> int:
    """How many matchups still wait for judgments; cheap enough to ask after every vote."""
    with db.read() as session:
        query = select(func.count()).select_from(MatchupRow).where(MatchupRow.state == MatchupState.open)
        return session.exec(query).one()


def list_prompts_without_open_matchup(db: Database, *, limit: int, split: Split = Split.work) -> list[PromptRow]:
    """The prompts to fill the pool from next: none of their matchups is open; least used first, then oldest."""
    used = select(MatchupRow.prompt_id, func.count().label("times")).group_by(col(MatchupRow.prompt_id)).subquery()
    waiting = select(MatchupRow.prompt_id).where(MatchupRow.state == MatchupState.open)
    query = (
        select(PromptRow)
        .outerjoin(used, used.c.prompt_id == PromptRow.id)
        .where(PromptRow.split == split, col(PromptRow.id).not_in(waiting))
        .order_by(func.coalesce(used.c.times, 0), col(PromptRow.created_at), col(PromptRow.id))
        .limit(limit)
    )
    with db.read() as session:
        return list(session.exec(query))
