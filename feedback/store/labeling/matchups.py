"""Matchups: the pool that annotators draw from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy import ColumnElement, Integer, bindparam, func
from sqlalchemy import select as choose
from sqlmodel import Session, col, select

from feedback.database.engine import Database
from feedback.database.statements import CompiledStatement
from feedback.errors import Conflict, InvalidInput
from feedback.store.content.prompts import was_brought
from feedback.store.labeling.pool import MATCHUP
from feedback.store.rows import as_row, get_by_key, in_chunks, reason_of
from feedback.tables import GenerationRow, LeaseRow, MatchupAuthorRow, MatchupRow, PromptRow
from feedback.types import FOR_PEOPLE, WORK_PURPOSES, LeaseState, Matchup, MatchupState, Purpose, Split, now


@dataclass(frozen=True)
class MatchupCounts:
    """The pool in numbers; ``leased`` are those of the open ones that are on somebody's screen.

    Gold and repeats are checks, not work: they are left out, and ``disputed`` ones wait for an adjudicator.
    """

    open: int
    leased: int
    satisfied: int
    retired: int
    disputed: int = 0
    adjudicated: int = 0


def save_matchups(db: Database, matchups: Sequence[Matchup]) -> list[MatchupRow]:
    """Put matchups into the pool, all or none.

    Those of a prompt that was retired while their replies were drawn wait, retired as well, until it is restored.
    """
    rows = [as_row(MatchupRow, matchup) for matchup in matchups]
    with db.write() as session:
        retired = _lock_retired(session, {row.prompt_id for row in rows})
        for row in rows:
            if row.prompt_id in retired and row.state is MatchupState.open:
                row.state = MatchupState.retired
        session.add_all(rows)
        session.flush()
        _save_authors(session, rows)
    return rows


def save_gold(db: Database, matchup_id: str, gold: dict[str, Any]) -> MatchupRow:
    """A gold matchup of the same replies, whose known answer is given in stored order; everybody will meet it.

    The matchup it is taken from leaves the pool, so that nobody meets the pair twice. Raises Conflict when it is a
    check itself, or its prompt is retired.
    """
    with db.write() as session:
        original = get_by_key(session, MatchupRow, "matchup", matchup_id)
        session.refresh(original, with_for_update=True)  # a vote or an undo under way decides its state first
        if original.purpose not in WORK_PURPOSES:
            raise Conflict(f"Matchup {matchup_id} is a check already ({original.purpose.value}).")
        refuse_retired(session, original)
        try:
            value = Matchup(
                prompt_id=original.prompt_id,
                generation_ids=original.generation_ids,
                kind=original.kind,
                purpose=Purpose.gold,
                gold=gold,
            )
        except ValidationError as error:
            raise InvalidInput(reason_of(error)) from error
        row = as_row(MatchupRow, value)
        session.add(row)
        session.flush()
        _save_authors(session, [row])
        if original.state is MatchupState.open:
            original.state = MatchupState.retired
    return row


def is_asked_as_gold(session: Session, matchup: MatchupRow) -> bool:
    """Whether a gold matchup was made of this one, in the transaction under way: then it never comes back."""
    gold = session.exec(
        select(MatchupRow.generation_ids).where(
            MatchupRow.prompt_id == matchup.prompt_id, MatchupRow.purpose == Purpose.gold
        )
    )
    return matchup.purpose in WORK_PURPOSES and any(set(ids) == set(matchup.generation_ids) for ids in gold)


def may_reopen(session: Session, matchup: MatchupRow) -> bool:
    """Whether a matchup that room was made in may be put before people again, in the transaction under way."""
    return not session.get_one(PromptRow, matchup.prompt_id).retired and not is_asked_as_gold(session, matchup)


def refuse_retired(session: Session, matchup: MatchupRow) -> None:
    """Raise Conflict where people are to be asked anew about a matchup whose prompt is retired."""
    if _lock_retired(session, {matchup.prompt_id}):
        raise Conflict(
            f"The prompt {matchup.prompt_id} of this matchup is retired, so nobody is asked about it any more; "
            f"restore it first: `studio prompts restore {matchup.prompt_id}`."
        )


def list_matched(db: Database, prompt_ids: Sequence[str]) -> set[str]:
    """The ids of all generations to these prompts that some matchup holds, whatever became of it."""
    with db.read() as session:
        found = in_chunks(
            list(prompt_ids),
            lambda part: list(
                session.exec(select(MatchupRow.generation_ids).where(col(MatchupRow.prompt_id).in_(part)))
            ),
        )
    return {generation for ids in found for generation in ids}


def count_matchups(
    db: Database, *, purposes: Sequence[Purpose] = WORK_PURPOSES, batch_id: str | None = None
) -> MatchupCounts:
    """How full the pool, or one batch of it, is of what is for these purposes."""
    these: list[ColumnElement[bool]] = [col(MatchupRow.purpose).in_(purposes)]
    if batch_id is not None:
        these.append(col(MatchupRow.batch_id) == batch_id)
    with db.read() as session:
        by_state = dict(
            session.exec(select(MatchupRow.state, func.count()).where(*these).group_by(col(MatchupRow.state))).all()
        )
        live = (
            select(func.count(func.distinct(LeaseRow.matchup_id)))
            .join(MatchupRow, col(MatchupRow.id) == col(LeaseRow.matchup_id))
            .where(
                LeaseRow.state == LeaseState.leased,
                col(LeaseRow.expires_at) > now(),
                MatchupRow.state == MatchupState.open,
                *these,
            )
        )
        return MatchupCounts(
            open=by_state.get(MatchupState.open, 0),
            leased=session.exec(live).one(),
            satisfied=by_state.get(MatchupState.satisfied, 0),
            retired=by_state.get(MatchupState.retired, 0),
            disputed=by_state.get(MatchupState.disputed, 0),
            adjudicated=by_state.get(MatchupState.adjudicated, 0),
        )


def is_low(db: Database, below: int) -> bool:
    """Whether fewer than ``below`` matchups wait for people; looks at no more than that many."""
    with db.glance() as connection:
        return len(_OPEN_WORK.all(connection, below=below)) < below


def count_open(db: Database) -> int:
    """How many matchups still wait for judgments, checks left out; cheap enough to ask after every vote."""
    with db.reading() as connection:
        return int(_COUNT_OPEN.first(connection)[0])


def list_prompts_without_open_matchup(
    db: Database, *, limit: int, split: Split = Split.work, batch_id: str | None = None, tags: Sequence[str] = ()
) -> list[PromptRow]:
    """The prompts to fill the pool from next: none of their matchups is open; least used first, then oldest.

    For a batch only its own open matchups count: others may ask about the same prompts. ``tags`` keeps the prompts that
    carry every one named. Retired prompts, and those that only came in with a request for replies, are not among them.
    """
    used = select(MatchupRow.prompt_id, func.count().label("times")).group_by(col(MatchupRow.prompt_id)).subquery()
    waiting = select(MatchupRow.prompt_id).where(
        MatchupRow.state == MatchupState.open, col(MatchupRow.purpose).in_(WORK_PURPOSES)
    )
    if batch_id is not None:
        waiting = waiting.where(col(MatchupRow.batch_id) == batch_id)
    query = (
        select(PromptRow)
        .outerjoin(used, used.c.prompt_id == PromptRow.id)
        .where(
            PromptRow.split == split,
            col(PromptRow.id).not_in(waiting),
            was_brought(),
            col(PromptRow.retired).is_(False),
        )
        .order_by(func.coalesce(used.c.times, 0), col(PromptRow.created_at), col(PromptRow.id))
    )
    with db.read() as session:
        if not tags:
            return list(session.exec(query.limit(limit)))
        # Tags are a JSON list, and the two databases disagree on how to look into one
        return [row for row in session.exec(query) if set(tags) <= set(row.tags)][:limit]


def _lock_retired(session: Session, prompt_ids: Collection[str]) -> set[str]:
    """Which of these prompts are retired; until the transaction ends none of them can be retired or restored."""
    query = select(PromptRow.id, PromptRow.retired).order_by(PromptRow.id).with_for_update(read=True)
    rows = in_chunks(sorted(prompt_ids), lambda part: list(session.exec(query.where(col(PromptRow.id).in_(part)))))
    return {key for key, is_retired in rows if is_retired}


def _save_authors(session: Session, rows: Sequence[MatchupRow]) -> None:
    """Note who wrote a reply of which matchup, so that they are never asked to judge it."""
    ids = sorted({generation_id for row in rows for generation_id in row.generation_ids})
    written = in_chunks(
        ids,
        lambda part: list(
            session.exec(
                select(GenerationRow.id, GenerationRow.author).where(
                    col(GenerationRow.id).in_(part), col(GenerationRow.author).is_not(None)
                )
            )
        ),
    )
    authors = {generation_id: author for generation_id, author in written}
    if not authors:
        return
    pairs = {(row.id, authors[key]) for row in rows for key in row.generation_ids if key in authors}
    session.add_all(MatchupAuthorRow(matchup_id=matchup_id, annotator=name) for matchup_id, name in sorted(pairs))


_IS_OPEN_WORK = (MATCHUP.c.state == MatchupState.open) & MATCHUP.c.purpose.in_(WORK_PURPOSES)
_ANYBODYS = MATCHUP.c.reserved_for.is_(None) | (MATCHUP.c.reserved_for == FOR_PEOPLE)
_OPEN_WORK = CompiledStatement(
    choose(MATCHUP.c.id).where(_IS_OPEN_WORK, _ANYBODYS).limit(bindparam("below", type_=Integer))
)
_COUNT_OPEN = CompiledStatement(choose(func.count()).where(_IS_OPEN_WORK))
