"""Leases of pages that nobody looks at any more: who may have them, and what is left for a person to judge.

A page says every few seconds that it is open. When it has been silent for ``IDLE_SECONDS``, or has said that it is
being closed, its leases are idle: the same person's next page takes them over, and anybody else for whom the pool has
nothing left ends them. Until then the page may come back and go on. Leases without a browser session, as REST gives
them, are never idle: they end when they expire.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, bindparam, func, select, update
from sqlmodel import Session

from feedback.database.engine import Database
from feedback.database.statements import CompiledStatement
from feedback.store.labeling.pool import LEASE, MATCHUP, free_for
from feedback.types import WORK_PURPOSES, LeaseState, MatchupState, Part

IDLE_SECONDS = 60.0
"""How long a page may be silent. Browsers let a hidden page speak once a minute, so its leases may come and go."""

COUNTED = 5000
"""So many free matchups are counted at most."""

FEW = 200
"""So few are counted after every vote; of more, the last count is good for ``RECOUNT_SECONDS``."""

RECOUNT_SECONDS = 5.0
_PAGES = 1000

_IDLE = timedelta(seconds=IDLE_SECONDS)
_SEEN: ColumnElement[datetime] = func.coalesce(LEASE.c.heartbeat_at, LEASE.c.created_at)
_SINCE: ColumnElement[datetime] = bindparam("idle", type_=LEASE.c.created_at.type)


@dataclass(frozen=True)
class Reach:
    """What a person can judge from one page: ``left`` now, and ``elsewhere`` in other pages of theirs, until when."""

    left: int
    elsewhere: int = 0
    until: datetime | None = None


def take_over(
    connection: Connection, *, annotator: str, session: str, count: int, at: datetime, expires_at: datetime, after: Any
) -> list[str]:
    """Give a person's idle leases to another page of theirs, at most ``count``, oldest first; the ids of these leases.

    ``after`` is when the newest lease of that page began, or None: what is taken over comes behind it on the page.
    """
    found = _IDLE_OF.all(connection, annotator=annotator, session=session, idle=at - _IDLE, at=at, count=count)
    taken = []
    for row in found:
        after = at if after is None else max(at, after + timedelta(microseconds=1))
        values = {"session": session, "heartbeat_at": at, "expires_at": expires_at, "created_at": after}
        connection.execute(update(LEASE).where(LEASE.c.id == row.id).values(values))
        taken.append(row.id)
    return taken


def touch(connection: Connection, lease_ids: Sequence[str], at: datetime) -> None:
    """Note that the page that holds these leases is open."""
    if lease_ids:
        connection.execute(update(LEASE).where(LEASE.c.id.in_(lease_ids)).values(heartbeat_at=at))


def leave(db: Database, *, annotator: str, session: str, at: datetime) -> int:
    """A page is being closed: what it holds is idle from now on. How many leases these were."""
    with db.transaction() as connection:
        left = connection.execute(
            update(LEASE)
            .where(LEASE.c.session == session, LEASE.c.annotator == annotator, LEASE.c.state == LeaseState.leased)
            .values(heartbeat_at=at - _IDLE)
        )
        return int(left.rowcount)


def end_idle(connection: Connection, *, session: str | None, at: datetime) -> None:
    """End every idle lease but those of ``session``, in the transaction under way: somebody else needs a matchup."""
    _END.all(connection, session=session or "", idle=at - _IDLE, at=at)


def is_open(session: Session, page: str, at: datetime) -> bool:
    """Whether the page of this browser session holds something and was heard of lately."""
    live = select(LEASE.c.id).where(LEASE.c.session == page, LEASE.c.state == LeaseState.leased, at - _IDLE < _SEEN)
    return session.connection().execute(live.limit(1)).first() is not None


class ReachCounts:
    """What was left for each page when it was last counted; safe for many threads.

    Counting thousands of free matchups takes milliseconds, and every vote asks. While more than ``FEW`` are left, the
    page's own judgments are subtracted from its last count. What others did, and that one of the judgments answered a
    check, which no count holds, shows after ``RECOUNT_SECONDS``.
    """

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, str], tuple[float, int, int]] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, page: tuple[str, str], judged: int) -> int | None:
        """What is left now that this person has ``judged`` so many in all; None where it has to be counted."""
        counted_at, left, judged_then = self._counts.get(page, (-math.inf, 0, 0))
        if left < COUNTED:
            left -= judged - judged_then
        return left if left > FEW and time.monotonic() - counted_at < RECOUNT_SECONDS else None

    def note(self, page: tuple[str, str], judged: int, left: int) -> None:
        """Keep a count; the page counted longest ago is forgotten."""
        with self._lock:
            self._counts[page] = (time.monotonic(), left, judged)
            self._counts.move_to_end(page)
            if len(self._counts) > _PAGES:
                self._counts.popitem(last=False)


def reach_of(
    db: Database,
    *,
    annotator: str,
    session: str | None,
    at: datetime,
    judged: int = 0,
    counts: ReachCounts | None = None,
) -> Reach:
    """What is left for a person on one page. Checks are left out: a count that knew them would tell them.

    With ``counts`` a recent count stands in for a new one; ``judged`` is then how many judgments and skips of this
    person are in force.
    """
    page, idle = (annotator, session or ""), at - _IDLE
    with db.reading() as connection:
        held = _HELD.all(connection, annotator=annotator, at=at)
        mine = [row for row in held if row.session == session or (row.session is not None and row.seen <= idle)]
        # A page that holds nothing has found nothing: what it could get before says nothing any more.
        left = counts.known(page, judged) if counts and mine else None
        if left is None:
            free = _FREE.first(connection, annotator=annotator, session=page[1], idle=idle, at=at)[0]
    others = [row for row in held if row not in mine]
    if left is None:
        left = int(free) + sum(row.purpose in WORK_PURPOSES for row in mine)
        if counts:
            counts.note(page, judged, left)
    return Reach(left, len(others), max((row.expires_at for row in others), default=None))


_IS_IDLE: ColumnElement[bool] = (
    (LEASE.c.state == LeaseState.leased)
    & LEASE.c.session.is_not(None)
    & (LEASE.c.part == Part.annotator)
    & (_SEEN <= _SINCE)
)
_IDLE_OF = CompiledStatement(
    select(LEASE.c.id)
    .where(
        LEASE.c.annotator == bindparam("annotator"),
        LEASE.c.session != bindparam("session"),
        LEASE.c.expires_at > bindparam("at"),
        _IS_IDLE,
    )
    .order_by(LEASE.c.created_at, LEASE.c.id)
    .limit(bindparam("count", type_=Integer))
    .with_for_update(skip_locked=True)
)
_OTHERS_IDLE = select(LEASE.c.id).where(LEASE.c.session != bindparam("session"), _IS_IDLE)
_END = CompiledStatement(
    update(LEASE)
    .where(LEASE.c.id.in_(_OTHERS_IDLE.with_for_update(skip_locked=True)))
    .values(state=LeaseState.expired, ended_at=bindparam("at"))
)
_HELD = CompiledStatement(
    select(LEASE.c.session, LEASE.c.expires_at, _SEEN.label("seen"), MATCHUP.c.purpose)
    .join(MATCHUP, MATCHUP.c.id == LEASE.c.matchup_id)
    .where(
        LEASE.c.annotator == bindparam("annotator"),
        LEASE.c.state == LeaseState.leased,
        LEASE.c.part == Part.annotator,
        LEASE.c.expires_at > bindparam("at"),
        MATCHUP.c.state == MatchupState.open,
    )
)
_BUSY = (LEASE.c.expires_at > bindparam("at")) & (
    LEASE.c.session.is_(None) | (LEASE.c.session == bindparam("session")) | (_SEEN > _SINCE)
)
_FREE = CompiledStatement(select(func.count()).select_from(free_for(_BUSY).limit(COUNTED).subquery()))
