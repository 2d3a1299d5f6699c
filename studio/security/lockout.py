"""The lock-out after wrong passwords, counted in the audit log, which outlives a restart.

Five wrong ones for one name from one address, twenty for one name from anywhere, or thirty from one address within a
quarter of an hour lock until the oldest of them is a quarter of an hour old. A password given while locked is not
looked at and does not prolong the lock. A wrong present password of somebody who wants another one counts alike:
whoever has a session has not yet a password.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

from feedback.database.engine import Database
from feedback.errors import LockedOut, NotAllowed
from feedback.store.people import users
from feedback.store.people.audit import list_events, list_moments, save_event
from feedback.types import now
from studio.security.passwords import check_password_rules, hash_password, password_matches

LOCK_WINDOW = timedelta(minutes=15)
TRIES_PER_NAME_AND_ADDRESS = 5
TRIES_PER_NAME = 20
TRIES_PER_ADDRESS = 30

_FAILED = "sign_in.failed"
# One password at a time: parallel guesses could all pass the count before any of them is counted.
ONE_BY_ONE = threading.Lock()


def change_password(db: Database, user_id: str, current: str, wanted: str, address: str) -> None:
    """Give a user who is signed in another password. NotAllowed when the present one is wrong, LockedOut after many."""
    with ONE_BY_ONE:
        user = users.get_user(db, user_id)
        if not is_right(db, current, user.password_hash, user.name, address, actor=user.name):
            raise NotAllowed("The present password is wrong; nothing was changed.")
        hashed = hash_password(check_password_rules(wanted, user.name))
        users.set_user_password(db, user.id, hashed, actor=user.name)


def is_right(
    db: Database, password: str, kept: str | None, known_as: str, address: str, *, actor: str = "nobody"
) -> bool:
    """Whether a password is the kept one; a wrong one is written down, and after too many none is looked at."""
    _refuse_locked(db, known_as, address)
    right = password_matches(password, kept)
    if not right:
        save_event(db, actor, _FAILED, f"{known_as} from {address}")
    return right


def _refuse_locked(db: Database, known_as: str, address: str) -> None:
    both, somewhere, from_there = f"{known_as} from {address}", f"{known_as} from ", f" from {address}"
    start = now() - LOCK_WINDOW
    renewed = _last(db, "user.password", known_as, start)
    signed_in = _last(db, "sign_in", both, start)
    for tries, since, starting, ending in (
        (TRIES_PER_NAME_AND_ADDRESS, max(renewed, signed_in), both, both),
        (TRIES_PER_NAME, renewed, somewhere, ""),
        (TRIES_PER_ADDRESS, start, "", from_there),
    ):
        wrong = list_moments(db, _FAILED, since=since, starting=starting, ending=ending)
        # One dated far in the future was written while the clock was wrong, and would lock until then.
        wrong = [moment for moment in wrong if moment <= now() + LOCK_WINDOW]
        if len(wrong) >= tries:
            raise _locked(min(wrong[-tries], now()) + LOCK_WINDOW)


def _last(db: Database, verb: str, subject: str, otherwise: datetime) -> datetime:
    """When something was last done, or the later of that and the moment given.

    What is dated in the future was done while the clock was wrong: until then, no wrong password would count.
    """
    done = list_events(db, verb=verb, subject=subject, limit=1)
    return max([otherwise, *(event.created_at for event in done if event.created_at <= now())])


def _locked(until: datetime) -> LockedOut:
    minutes = max(1, round((until - now()).total_seconds() / 60))
    return LockedOut(
        f"Too many wrong passwords: signing in is locked until {until:%H:%M} UTC, for {minutes} more "
        f"minute{'s' if minutes > 1 else ''}. An admin can give you a new password at once, with "
        "`studio users password NAME`.",
        until,
    )
