"""The pool: which matchup a person may be given next. What runs with every vote is prepared.

Nobody is given a matchup they judged, skipped, hold or wrote a reply of. Live leases and current judgments never
exceed what a matchup requires: the check runs inside the transaction that grants the lease.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, ScalarSelect, Select, bindparam, exists, func, insert, select

from feedback.column_types import new_id
from feedback.database.statements import CompiledStatement
from feedback.store.rows import record
from feedback.tables import JudgmentRow, LeaseRow, MatchupAuthorRow, MatchupRow, PromptRow
from feedback.types import FOR_PEOPLE, JudgmentState, LeaseState, MatchupState, Part, Purpose, Source, Verdict

MATCHUP = MatchupRow.__table__  # type: ignore[attr-defined]
LEASE = LeaseRow.__table__  # type: ignore[attr-defined]
JUDGMENT = JudgmentRow.__table__  # type: ignore[attr-defined]
PROMPT = PromptRow.__table__  # type: ignore[attr-defined]
AUTHOR = MatchupAuthorRow.__table__  # type: ignore[attr-defined]

# A skip says nothing about the replies: it neither fills a matchup nor lets it come back to the same person.
COUNTS = (JUDGMENT.c.state == JudgmentState.current) & (
    (JUDGMENT.c.verdict != Verdict.skip) | JUDGMENT.c.verdict.is_(None)
)
_ME: ColumnElement[str] = bindparam("annotator")


def next_matchup(
    connection: Connection, annotator: str, *, wait: bool = True, source: Source = Source.human
) -> MatchupRow | None:
    """Highest priority first, oldest among equals, with room for one more opinion.

    What only measures is put before people: a rule that answered in their place would be taken for them.

    PostgreSQL counts as of the statement's beginning but locks the row later: between the two another transaction
    may have leased the matchup and ended. So what is locked is asked for again, by a statement that sees that. Rows
    that others hold are passed over at first; when nothing else is left, they are waited for: a matchup that is
    being judged this moment may need another judge. Not with ``wait`` off: who waits while holding a matchup might
    wait for somebody who waits for that one.
    """
    by_rule = source is Source.simulated
    also, kind = (Purpose.collect, "") if by_rule else (Purpose.evaluate, FOR_PEOPLE)
    if connection.dialect.name == "sqlite":
        found = _NEXT_ON_SQLITE.first(connection, annotator=annotator, also=also, kind=kind)
        return None if found is None else record(MatchupRow, found)
    for query in (_NEXT_FREE, _NEXT_LOCKED) if wait else (_NEXT_FREE,):
        while (found := query.first(connection, annotator=annotator, also=also, kind=kind)) is not None:
            asked = {"annotator": annotator, "also": also, "kind": kind, "matchup_id": found.id}
            if _STILL_NEXT.first(connection, **asked) is not None:
                return record(MatchupRow, found)
    return None


def next_of_batch(connection: Connection, annotator: str, batch_id: str) -> MatchupRow | None:
    """As ``next_matchup``, out of one batch: for a rule, which judges where it is sent."""
    asked = {"annotator": annotator, "batch_id": batch_id}
    while (found := connection.execute(_NEXT_OF_BATCH, asked).first()) is not None:
        if connection.execute(_STILL_NEXT_OF_BATCH, asked | {"matchup_id": found.id}).first() is not None:
            return record(MatchupRow, found)
    return None


def next_gold(connection: Connection, annotator: str) -> MatchupRow | None:
    """A matchup with a known answer that this person has not seen, at random; everybody gets each one."""
    found = _GOLD.first(connection, annotator=annotator)
    return None if found is None else record(MatchupRow, found)


def next_dispute(connection: Connection, reviewer: str) -> MatchupRow | None:
    """The oldest disputed matchup that this reviewer has no opinion on and nobody is at work on."""
    found = connection.execute(_DISPUTED, {"annotator": reviewer}).first()
    return None if found is None else record(MatchupRow, found)


def next_repeat(connection: Connection, annotator: str, before: datetime, at: datetime) -> MatchupRow | None:
    """One of this person's own matchups again, as a matchup of its own: judged before then, never repeated yet.

    A repeat that was handed out and given back comes first.
    """
    waiting = _WAITING_REPEAT.first(connection, annotator=annotator)
    if waiting is not None:
        return record(MatchupRow, waiting)
    original = _REPEATABLE.first(connection, annotator=annotator, before=before)
    if original is None:
        return None
    columns = {
        "id": new_id("mat"),
        "created_at": at,
        "prompt_id": original.prompt_id,
        "generation_ids": original.generation_ids,
        "kind": original.kind,
        "state": MatchupState.open,
        "required": 1,
        "max_required": 0,
        "priority": 0,
        "purpose": Purpose.repeat,
        "repeat_of": original.id,
        "reserved_for": annotator,
    }
    connection.execute(insert(MATCHUP), columns)
    return MatchupRow(**columns)


def _mine(table: object, *states: object) -> ColumnElement[bool]:
    """Whether I have a row about this matchup.

    The name is compared as an expression, so that no index on names is used: for each matchup looked at it would walk
    all that this person ever judged, where the index on matchups finds a row or two.
    """
    columns = table.c  # type: ignore[attr-defined]
    return (
        exists()
        .where(columns.matchup_id == MATCHUP.c.id, columns.annotator.concat("") == _ME, columns.state.in_(states))
        .correlate(MATCHUP)
    )


_NEW_TO_ME = (
    ~_mine(JUDGMENT, JudgmentState.current, JudgmentState.excluded),
    ~_mine(LEASE, LeaseState.leased),
    ~exists().where(AUTHOR.c.matchup_id == MATCHUP.c.id, AUTHOR.c.annotator == _ME).correlate(MATCHUP),
)


def _live(*also: ColumnElement[bool]) -> ScalarSelect[int]:
    """How many leases fill a place of a matchup."""
    return (
        select(func.count())
        .where(
            LEASE.c.matchup_id == MATCHUP.c.id,
            LEASE.c.state == LeaseState.leased,
            LEASE.c.part == Part.annotator,
            *also,
        )
        .correlate(MATCHUP)
        .scalar_subquery()
    )


_LIVE = _live()
_JUDGED = (
    select(func.count())
    .where(JUDGMENT.c.matchup_id == MATCHUP.c.id, COUNTS, JUDGMENT.c.part == Part.annotator)
    .correlate(MATCHUP)
    .scalar_subquery()
)


def _open(*purposes: Purpose | ColumnElement[Purpose]) -> Select[tuple[object, ...]]:
    return select(MATCHUP).where(MATCHUP.c.state == MatchupState.open, MATCHUP.c.purpose.in_(purposes))


def free_for(busy: ColumnElement[bool]) -> Select[tuple[str]]:
    """The ids of what ``next_matchup`` could give ``:annotator``; only leases that are ``busy`` take a place."""
    return select(MATCHUP.c.id).where(
        MATCHUP.c.state == MatchupState.open,
        MATCHUP.c.purpose.in_((Purpose.collect, Purpose.evaluate)),
        MATCHUP.c.reserved_for.is_(None) | MATCHUP.c.reserved_for.in_((FOR_PEOPLE, _ME)),
        *_NEW_TO_ME,
        MATCHUP.c.required > _live(busy) + _JUDGED,
    )


_KIND: ColumnElement[str] = bindparam("kind")
_FOR_ME = MATCHUP.c.reserved_for.is_(None) | (MATCHUP.c.reserved_for == _ME) | (MATCHUP.c.reserved_for == _KIND)
_NEXT = (
    _open(Purpose.collect, bindparam("also", type_=MATCHUP.c.purpose.type))
    .where(_FOR_ME, *_NEW_TO_ME, MATCHUP.c.required > _LIVE + _JUDGED)
    .order_by(MATCHUP.c.priority.desc(), MATCHUP.c.created_at, MATCHUP.c.id)
    .limit(1)
)
_NEXT_ON_SQLITE = CompiledStatement(_NEXT)
_NEXT_FREE = CompiledStatement(_NEXT.with_for_update(skip_locked=True, of=MATCHUP))
_NEXT_LOCKED = CompiledStatement(_NEXT.with_for_update(of=MATCHUP))
_STILL_NEXT = CompiledStatement(_NEXT.where(MATCHUP.c.id == bindparam("matchup_id")))
_OF_BATCH = (
    _open(Purpose.collect)
    .where(MATCHUP.c.batch_id == bindparam("batch_id"), *_NEW_TO_ME, MATCHUP.c.required > _LIVE + _JUDGED)
    .order_by(MATCHUP.c.priority.desc(), MATCHUP.c.created_at, MATCHUP.c.id)
    .limit(1)
)
_NEXT_OF_BATCH = _OF_BATCH.with_for_update(of=MATCHUP)
_STILL_NEXT_OF_BATCH = _OF_BATCH.where(MATCHUP.c.id == bindparam("matchup_id"))
_GOLD = CompiledStatement(_open(Purpose.gold).where(*_NEW_TO_ME).order_by(func.random()).limit(1))
_DISPUTED = (
    select(MATCHUP)
    .where(
        MATCHUP.c.state == MatchupState.disputed,
        *_NEW_TO_ME,
        ~exists()
        .where(LEASE.c.matchup_id == MATCHUP.c.id, LEASE.c.state == LeaseState.leased, LEASE.c.part == Part.adjudicator)
        .correlate(MATCHUP),
    )
    .order_by(MATCHUP.c.priority.desc(), MATCHUP.c.created_at, MATCHUP.c.id)
    .limit(1)
    .with_for_update(skip_locked=True, of=MATCHUP)
)
_WAITING_REPEAT = CompiledStatement(
    _open(Purpose.repeat)
    .where(MATCHUP.c.reserved_for == _ME, *_NEW_TO_ME)
    .order_by(MATCHUP.c.created_at, MATCHUP.c.id)
    .limit(1)
)
_COPY = MATCHUP.alias("copy")
_REPEATABLE = CompiledStatement(
    select(MATCHUP)
    .join(JUDGMENT, JUDGMENT.c.matchup_id == MATCHUP.c.id)
    .where(
        JUDGMENT.c.annotator == _ME,
        COUNTS,
        JUDGMENT.c.part == Part.annotator,
        JUDGMENT.c.created_at <= bindparam("before"),
        MATCHUP.c.purpose.in_((Purpose.collect, Purpose.evaluate)),
        ~exists().where(PROMPT.c.id == MATCHUP.c.prompt_id, PROMPT.c.retired.is_(True)).correlate(MATCHUP),
        ~exists().where(_COPY.c.repeat_of == MATCHUP.c.id, _COPY.c.reserved_for == _ME),
    )
    .order_by(func.random())
    .limit(1)
)
