"""Leases: the exclusive, expiring right to judge one matchup, handed out inside one write transaction.

Capacity and lease are one transaction (``BEGIN IMMEDIATE`` on SQLite, row locks with ``SKIP LOCKED`` on
PostgreSQL): live leases + current judgments never exceed what a matchup requires.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

from sqlalchemy import Connection, bindparam, insert, update
from sqlalchemy import select as choose
from sqlmodel import Session, col, select

from feedback.column_types import new_id
from feedback.database.engine import Database, one_at_a_time
from feedback.database.statements import CompiledStatement
from feedback.errors import InvalidInput, LeaseLost, NotFound
from feedback.store.labeling import idle_leases, pool
from feedback.store.labeling.pool import LEASE
from feedback.store.rows import as_row, get_by_key, record
from feedback.tables import GenerationRow, LeaseRow, MatchupRow, PromptRow
from feedback.types import CUT, LeaseState, Matchup, MatchupKind, Part, Purpose, Source

# Draws the order to show replies in, from the orders judged in, those that may come back, and the number of replies.
OrderDraw = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]], int], list[int]]

_GENERATION = GenerationRow.__table__  # type: ignore[attr-defined]
_PROMPT = PromptRow.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Request:
    """Who asks for a matchup, when, and what for.

    ``purpose`` is what to try first: gold or a repeat (of a judgment made before ``repeat_before``) in place of the
    matchup that is next; when there is none, or nothing else is left to judge, the ordinary one is given. With
    ``batch_id`` nothing but a matchup of that batch is given.
    """

    annotator: str
    at: datetime
    expires_at: datetime
    session: str | None = None
    source: Source = Source.human
    part: Part = Part.annotator
    purpose: Purpose = Purpose.collect
    repeat_before: datetime | None = None
    resume: bool = False
    batch_id: str | None = None


@dataclass(frozen=True)
class Screen:
    """A lease with what it puts before its holder.

    ``responses`` are in shown order, as are which of them were cut and the ``reasoning`` before each, if any.
    """

    lease: LeaseRow
    kind: MatchupKind
    messages: list[dict[str, str]]
    responses: list[str]
    cut: tuple[bool, ...] = ()
    reasoning: tuple[str | None, ...] = ()


def save_lease(db: Database, request: Request, draw_order: OrderDraw) -> Screen | None:
    """Lease the next matchup this annotator may judge, or None when the pool has none for them.

    With ``request.resume`` a session that holds live leases is given the oldest again, which is on its screen.
    """
    if request.resume:
        return next(iter(save_deck(db, [request], draw_order)), None)
    with db.transaction() as connection:
        one_at_a_time(connection, f"lease to {request.annotator}")
        _EXPIRE.all(connection, at=request.at)
        return _lease(connection, request, draw_order)


def save_deck(db: Database, requests: Sequence[Request], draw_order: OrderDraw) -> list[Screen]:
    """All that a session holds, oldest first, with more leases until there is one for each of its requests.

    What idle pages of the same person hold comes before new leases (``feedback.store.labeling.idle_leases``). The look
    and the leases are one transaction: however many windows ask at once, a session holds no more.
    """
    first = requests[0]
    with db.transaction() as connection:
        one_at_a_time(connection, f"lease to {first.annotator}")
        _EXPIRE.all(connection, at=first.at)
        held = _held(connection, first)
        idle_leases.touch(connection, [lease.id for lease in held], first.at)
        if first.session and len(held) < len(requests):
            taken = idle_leases.take_over(
                connection,
                annotator=first.annotator,
                session=first.session,
                count=len(requests) - len(held),
                at=first.at,
                expires_at=first.expires_at,
                after=held[-1].created_at if held else None,
            )
            held = _held(connection, first) if taken else held
        screens = [_screen(connection, lease) for lease in held]
        for request in requests[len(screens) :]:
            after = screens[-1].lease.created_at if screens else None
            screen = _lease(connection, request, draw_order, after=after)
            if screen is None:
                break
            screens.append(screen)
        return screens


def _held(connection: Connection, request: Request) -> list[LeaseRow]:
    rows = _HELD.all(connection, session=request.session, annotator=request.annotator, at=request.at)
    return [record(LeaseRow, row) for row in rows]


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


def extend_lease(
    db: Database, lease_id: str, annotator: str, *, at: datetime, expires_at: datetime, session: str | None = None
) -> LeaseRow:
    """A sign of life from whoever holds a lease: it ends later, never earlier.

    Raises LeaseLost when it has ended, or when it is no longer held by the browser ``session`` that is named.
    """
    with db.transaction() as connection:
        found = _BY_ID.first(connection, lease_id=lease_id)
        if found is None:
            raise NotFound("lease", lease_id, hint="Ask for a new task.")
        lease = record(LeaseRow, found)
        require_live(lease, annotator, at)
        if session is not None and lease.session != session:
            raise LeaseLost("This task is open in another window of yours; ask for a new task.")
        lease.heartbeat_at, lease.expires_at = at, max(lease.expires_at, expires_at)
        changed = {"heartbeat_at": at, "expires_at": lease.expires_at}
        connection.execute(update(LEASE).where(LEASE.c.id == lease_id).values(changed))
        return lease


def require_live(lease: LeaseRow, annotator: str, at: datetime) -> None:
    """Raise LeaseLost unless this annotator holds the lease at that moment."""
    if lease.annotator != annotator:
        raise LeaseLost("This task is leased to another annotator; ask for a task of your own.")
    if lease.state is LeaseState.leased and lease.expires_at > at:
        return
    why = "expired" if lease.state is LeaseState.leased else f"was {lease.state.value}"
    raise LeaseLost(f"This task's lease {why}; the pair went back to the pool. Ask for a new task.")


def release_lease(db: Database, lease_id: str, *, at: datetime) -> bool:
    """Give a matchup back unjudged; False when the lease had already ended."""
    with db.transaction() as connection:
        ended = connection.execute(
            update(LEASE)
            .where(LEASE.c.id == lease_id, LEASE.c.state == LeaseState.leased)
            .values(state=LeaseState.released, ended_at=at)
        )
        return bool(ended.rowcount)


def get_screen(db: Database, lease: LeaseRow) -> Screen:
    """What a lease puts before its holder."""
    with db.reading() as connection:
        return _screen(connection, lease)


def _lease(
    connection: Connection, request: Request, draw_order: OrderDraw, *, after: datetime | None = None
) -> Screen | None:
    """A new lease in the transaction under way; one ``after`` another is ahead of the screen, and younger."""
    matchup = _pick(connection, request, wait=after is None)
    if matchup is None and request.part is Part.annotator:
        idle_leases.end_idle(connection, session=request.session, at=request.at)
        matchup = _pick(connection, request, wait=False)
    if matchup is None:
        return None
    columns: dict[str, Any] = {
        "id": new_id("lea"),
        "created_at": request.at if after is None else max(request.at, after + timedelta(microseconds=1)),
        "matchup_id": matchup.id,
        "annotator": request.annotator,
        "session": request.session,
        "source": request.source,
        "shown_order": _order(connection, matchup, request, draw_order),
        "state": LeaseState.leased,
        "expires_at": request.expires_at,
        "part": request.part,
    }
    _INSERT.all(connection, **columns)
    return _screen(connection, cast(LeaseRow, SimpleNamespace(**columns)), matchup)


def _pick(connection: Connection, request: Request, *, wait: bool) -> MatchupRow | None:
    if request.part is Part.adjudicator:
        return pool.next_dispute(connection, request.annotator)
    if request.batch_id is not None:
        return pool.next_of_batch(connection, request.annotator, request.batch_id)
    ordinary = pool.next_matchup(connection, request.annotator, wait=wait, source=request.source)
    if ordinary is None:  # checks alone would tell that they are checks
        return None
    if request.purpose is Purpose.gold:
        return pool.next_gold(connection, request.annotator) or ordinary
    if request.purpose is Purpose.repeat and request.repeat_before is not None:
        return pool.next_repeat(connection, request.annotator, request.repeat_before, request.at) or ordinary
    return ordinary


def _order(connection: Connection, matchup: MatchupRow, request: Request, draw_order: OrderDraw) -> list[int]:
    """As this person saw it before, a repeat the other way round; else so that each way is seen equally often.

    Undo gives back what is on the screen and what it took back before: that must not come back mirrored.
    """
    if matchup.repeat_of is not None:
        seen = _MY_ORDER.first(connection, matchup_id=matchup.repeat_of, annotator=request.annotator)
        if seen is not None:
            return list(reversed(seen.shown_order))
    # The newest of each person: who takes a judgment back and judges anew has seen one order, not two.
    newest = {found.annotator: found for found in _ORDERS.all(connection, matchup_id=matchup.id)}
    if (own := newest.get(request.annotator)) is not None:
        return list(own.shown_order)
    judged = [one.shown_order for one in newest.values() if one.state in (LeaseState.leased, LeaseState.submitted)]
    given_back = [one.shown_order for one in newest.values() if one.state in (LeaseState.released, LeaseState.expired)]
    return draw_order(judged, given_back, len(matchup.generation_ids))


def _screen(connection: Connection, lease: LeaseRow, matchup: MatchupRow | None = None) -> Screen:
    if matchup is None:
        found = _MATCHUP_OF.first(connection, matchup_id=lease.matchup_id)
        kind, generation_ids = found.kind, found.generation_ids
    else:
        kind, generation_ids = matchup.kind, matchup.generation_ids
    rows = _TEXTS.all(connection, ids=generation_ids)
    replies = {row.id: row for row in rows}
    shown = [replies[generation_ids[index]] for index in lease.shown_order]
    cut = tuple(row.finish_reason == CUT for row in shown)
    reasoning = tuple(row.reasoning for row in shown)
    return Screen(lease, kind, rows[0].messages, [row.text for row in shown], cut, reasoning)


# Whoever comes first expires a lease and the others pass it over: waiting for each other might be a deadlock.
_OVERDUE = (
    choose(LEASE.c.id)
    .where(LEASE.c.state == LeaseState.leased, LEASE.c.expires_at <= bindparam("at"))
    .with_for_update(skip_locked=True)
)
_EXPIRE = CompiledStatement(
    update(LEASE).where(LEASE.c.id.in_(_OVERDUE)).values(state=LeaseState.expired, ended_at=bindparam("at"))
)
_INSERT = CompiledStatement(insert(LEASE))
_BY_ID = CompiledStatement(choose(LEASE).where(LEASE.c.id == bindparam("lease_id")).with_for_update())
_HELD = CompiledStatement(
    choose(LEASE)
    .where(
        LEASE.c.session == bindparam("session"),
        LEASE.c.annotator == bindparam("annotator"),
        LEASE.c.state == LeaseState.leased,
        LEASE.c.expires_at > bindparam("at"),
    )
    .order_by(LEASE.c.created_at, LEASE.c.id)
)
_ORDERS = CompiledStatement(
    choose(LEASE.c.annotator, LEASE.c.state, LEASE.c.shown_order)
    .where(LEASE.c.matchup_id == bindparam("matchup_id"))
    .order_by(LEASE.c.created_at, LEASE.c.id)
)
_MY_ORDER = CompiledStatement(
    choose(LEASE.c.shown_order)
    .where(LEASE.c.matchup_id == bindparam("matchup_id"), LEASE.c.annotator == bindparam("annotator"))
    .order_by(LEASE.c.created_at.desc())
    .limit(1)
)
_MATCHUP_OF = CompiledStatement(
    choose(pool.MATCHUP.c.kind, pool.MATCHUP.c.generation_ids).where(pool.MATCHUP.c.id == bindparam("matchup_id"))
)
_TEXTS = CompiledStatement(
    choose(
        _GENERATION.c.id,
        _GENERATION.c.text,
        _GENERATION.c.finish_reason,
        _GENERATION.c.reasoning,
        _PROMPT.c.messages,
    )
    .join(_PROMPT, _PROMPT.c.id == _GENERATION.c.prompt_id)
    .where(_GENERATION.c.id.in_(bindparam("ids", expanding=True)))
)


def lease_pair(
    db: Database, generation_ids: Sequence[str], annotator: str, *, purpose: Purpose, expires_at: datetime
) -> LeaseRow:
    """Lease a new matchup of two replies, shown in this order. Nobody else is asked about it.

    Raises:
        InvalidInput: the replies answer different prompts, or one is not there.
    """
    with db.write() as session:
        rows = session.exec(select(GenerationRow).where(col(GenerationRow.id).in_(list(generation_ids)))).all()
        prompts = {row.prompt_id for row in rows}
        if len(rows) != len(set(generation_ids)) or len(prompts) != 1:
            raise InvalidInput("Two replies can be compared only if both answer the same conversation.")
        # Stored order is by id, so that it says nothing of the side
        stored = sorted(generation_ids)
        matchup = as_row(
            MatchupRow,
            Matchup(prompt_id=prompts.pop(), generation_ids=stored, purpose=purpose, reserved_for=annotator),
        )
        session.add(matchup)
        session.flush()
        order = [stored.index(key) for key in generation_ids]
        lease = LeaseRow(matchup_id=matchup.id, annotator=annotator, shown_order=order, expires_at=expires_at)
        session.add(lease)
        return lease


def lease_again(db: Database, matchup_id: str, annotator: str, *, expires_at: datetime) -> LeaseRow:
    """Another lease of such a matchup, shown as before: its judgment takes the place of the earlier one."""
    with db.write() as session:
        matchup = get_by_key(session, MatchupRow, "matchup", matchup_id)
        earlier = session.exec(
            select(LeaseRow).where(LeaseRow.matchup_id == matchup.id).order_by(col(LeaseRow.created_at))
        ).first()
        order = [0, 1] if earlier is None else earlier.shown_order
        lease = LeaseRow(matchup_id=matchup.id, annotator=annotator, shown_order=order, expires_at=expires_at)
        session.add(lease)
        return lease
