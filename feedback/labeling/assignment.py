"""Lease the next matchup to a person: exactly N judgments each, expiry, no double hand-out.

What leaves here goes to an annotator's screen: replies in shown order, and nothing that names a policy or tells a
check (gold, a repeat) from any other task.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from feedback.database.engine import Database
from feedback.errors import InvalidInput
from feedback.rules import pairing
from feedback.store.labeling import idle_leases, leases
from feedback.store.labeling.leases import Request, Screen
from feedback.tables import LeaseRow
from feedback.types import Checks, MatchupKind, Part, Purpose, Source, now

LEASE_SECONDS = 30 * 60


CHECKS = Checks()

# Seeded once: a generator per lease would ask the system for its seed every time. Its calls are atomic.
_CHANCE = random.Random()


def draw_purpose(checks: Checks, rng: random.Random) -> Purpose:
    """What to try to hand out next."""
    drawn = rng.random()
    if drawn < checks.gold_share:
        return Purpose.gold
    return Purpose.repeat if drawn < checks.gold_share + checks.repeat_share else Purpose.collect


@dataclass(frozen=True)
class Task:
    """One matchup as its judge sees it; ``responses`` are in shown order, as are which were cut at a length limit.

    So is the ``reasoning`` that a model wrote before a reply; None where it wrote none.
    """

    lease_id: str
    matchup_id: str
    kind: MatchupKind
    messages: list[dict[str, str]]
    responses: list[str]
    expires_at: datetime
    annotator: str
    shown_order: tuple[int, ...] = ()
    cut: tuple[bool, ...] = ()
    reasoning: tuple[str | None, ...] = ()


def lease_next(
    db: Database,
    annotator: str,
    *,
    session: str | None = None,
    source: Source = Source.human,
    lease_seconds: float = LEASE_SECONDS,
    rng: random.Random | None = None,
    part: Part = Part.annotator,
    checks: Checks = CHECKS,
    resume: bool = False,
    batch_id: str | None = None,
    at: datetime | None = None,
) -> Task | None:
    """Lease the next matchup to this annotator, or None when the pool holds none for them.

    Every call gives another matchup: never one the annotator has judged, skipped, holds or wrote a reply of, and
    never one whose judgments and live leases already make up what it requires. With ``resume`` a ``session`` that
    holds a live lease is given that one again, with ``batch_id`` only what is in that batch. An adjudicator is given
    what annotators disagree about, and sees nothing of their answers.
    """
    _require_name(annotator)
    moment, chance = at or now(), rng or _CHANCE
    request = Request(
        annotator=annotator,
        at=moment,
        expires_at=moment + timedelta(seconds=lease_seconds),
        session=session,
        source=source,
        part=part,
        purpose=draw_purpose(checks, chance),
        repeat_before=moment - timedelta(seconds=checks.repeat_after),
        resume=resume and session is not None,
        batch_id=batch_id,
    )
    screen = leases.save_lease(db, request, partial(pairing.balanced_order, rng=chance))
    return None if screen is None else _task(screen)


def fill_deck(
    db: Database,
    annotator: str,
    session: str,
    *,
    size: int,
    lease_seconds: float = LEASE_SECONDS,
    rng: random.Random | None = None,
    checks: Checks = CHECKS,
    at: datetime | None = None,
) -> list[Task]:
    """All tasks that a browser session of this annotator holds, filled up to ``size`` as ``lease_next`` would.

    The one on its screen comes first, then what is fetched ahead; all of them are different matchups.
    """
    _require_name(annotator)
    moment, chance = at or now(), rng or _CHANCE
    requests = [
        Request(
            annotator=annotator,
            at=moment,
            expires_at=moment + timedelta(seconds=lease_seconds),
            session=session,
            purpose=draw_purpose(checks, chance),
            repeat_before=moment - timedelta(seconds=checks.repeat_after),
        )
        for _ in range(size)
    ]
    screens = leases.save_deck(db, requests, partial(pairing.balanced_order, rng=chance))
    return [_task(screen) for screen in screens]


def resume(db: Database, session: str) -> Task | None:
    """The task a browser session is at: what a reloaded page shows again."""
    found = held(db, session)
    return found[0] if found else None


def held(db: Database, session: str) -> list[Task]:
    """All tasks a browser session holds: the one on its screen first, then what was fetched ahead."""
    return [task_of(db, lease) for lease in leases.list_live_leases(db, session, at=now())]


def heartbeat(
    db: Database,
    lease_id: str,
    annotator: str,
    *,
    session: str | None = None,
    lease_seconds: float = LEASE_SECONDS,
    at: datetime | None = None,
) -> datetime:
    """A sign of life: the lease now lasts ``lease_seconds`` from here, at least; gives the moment it ends.

    With ``session`` it must still be that browser's: LeaseLost when another page of the same person took it over.
    """
    moment = at or now()
    ends = moment + timedelta(seconds=lease_seconds)
    return leases.extend_lease(db, lease_id, annotator, at=moment, expires_at=ends, session=session).expires_at


def leave(db: Database, annotator: str, session: str) -> int:
    """A page is being closed: its tasks may go to others at once. It may come back to those that nobody took."""
    return idle_leases.leave(db, annotator=annotator, session=session, at=now())


def release(db: Database, lease_id: str) -> bool:
    """Give a task back unjudged; False when it had already ended."""
    return leases.release_lease(db, lease_id, at=now())


def task_of(db: Database, lease: LeaseRow) -> Task:
    """What a lease puts on the screen."""
    return _task(leases.get_screen(db, lease))


def _task(screen: Screen) -> Task:
    lease = screen.lease
    return Task(
        lease_id=lease.id,
        matchup_id=lease.matchup_id,
        kind=screen.kind,
        messages=screen.messages,
        responses=screen.responses,
        expires_at=lease.expires_at,
        annotator=lease.annotator,
        shown_order=tuple(lease.shown_order),
        cut=screen.cut,
        reasoning=screen.reasoning,
    )


def _require_name(annotator: str) -> None:
    if not annotator.strip():
        raise InvalidInput("An annotator needs a name; it must not be empty.")
