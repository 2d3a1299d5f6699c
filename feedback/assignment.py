"""Lease the next matchup to a person: exactly N judgments each, expiry, no double hand-out.

What leaves here goes to an annotator's screen: replies in shown order, and nothing that names a policy.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from feedback import pairing
from feedback.db import Database
from feedback.errors import InvalidInput
from feedback.store import leases
from feedback.tables import LeaseRow
from feedback.types import MatchupKind, Source, now

LEASE_SECONDS = 30 * 60


@dataclass(frozen=True)
class Task:
    """One matchup as its judge sees it; ``responses`` are in shown order."""

    lease_id: str
    matchup_id: str
    kind: MatchupKind
    messages: list[dict[str, str]]
    responses: list[str]
    expires_at: datetime
    annotator: str


def lease_next(
    db: Database,
    annotator: str,
    *,
    session: str | None = None,
    source: Source = Source.human,
    lease_seconds: float = LEASE_SECONDS,
    rng: random.Random | None = None,
) -> Task | None:
    """Lease the next matchup to this annotator, or None when the pool holds none for them.

    Every call gives another matchup: never one the annotator has judged, skipped or holds, and never one whose
    judgments and live leases already make up what it requires.
    """
    if not annotator.strip():
        raise InvalidInput("An annotator needs a name; it must not be empty.")
    at = now()
    lease = leases.save_lease(
        db,
        annotator,
        session_key=session,
        source=source,
        expires_at=at + timedelta(seconds=lease_seconds),
        at=at,
        draw_order=partial(pairing.balanced_order, rng=rng or random.Random()),
    )
    return None if lease is None else task_of(db, lease)


def resume(db: Database, session: str) -> Task | None:
    """The task a browser session still holds: what a reloaded page shows again."""
    lease = leases.get_live_lease(db, session, at=now())
    return None if lease is None else task_of(db, lease)


def release(db: Database, lease_id: str) -> bool:
    """Give a task back unjudged; False when it had already ended."""
    return leases.release_lease(db, lease_id, at=now())


def task_of(db: Database, lease: LeaseRow) -> Task:
    """What a lease puts on the screen."""
    matchup, prompt, generations = leases.get_lease_contents(db, lease)
    return Task(
        lease_id=lease.id,
        matchup_id=matchup.id,
        kind=matchup.kind,
        messages=prompt.messages,
        responses=[generations[index].text for index in lease.shown_order],
        expires_at=lease.expires_at,
        annotator=lease.annotator,
    )
