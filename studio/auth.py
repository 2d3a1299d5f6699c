"""Secrets and sign-in: passwords, tokens, sessions, the lock-out. Nothing here knows HTTP.

A password is kept as scrypt (RFC 7914) with a salt of its own. Tokens and sessions are 256 random bits of which
the database holds the SHA-256 alone; both name their row (``id.secret``), so a row is found by its public part and
the secret is then compared in constant time. A session's cookie is signed with the home's own key as well, so a
made-up cookie is refused without a look at the database.

Wrong passwords are counted in the audit log, which outlives a restart: five for one name from one address, or
twenty for one name from anywhere, or thirty from one address, within a quarter of an hour, lock until the oldest
of them is a quarter of an hour old. A password given while locked is not looked at and does not prolong the lock.
A wrong present password of somebody who wants another one counts alike: whoever has a session has not yet a password.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from feedback.database.engine import Database
from feedback.errors import InvalidInput, LockedOut, NotAllowed, NotSignedIn
from feedback.store.people import credentials, users
from feedback.store.people.audit import list_events, list_moments, save_event
from feedback.tables import UserRow
from feedback.types import Credential, CredentialKind, UserStatus, now
from studio.roles import Person
from training.home import SESSION_KEY

SESSION_DAYS = 14
TOKEN_PREFIX = "studio_"
MIN_PASSWORD, MAX_PASSWORD = 10, 200

LOCK_WINDOW = timedelta(minutes=15)
TRIES_PER_NAME_AND_ADDRESS = 5
TRIES_PER_NAME = 20
TRIES_PER_ADDRESS = 30

_FAILED = "sign_in.failed"
_WRONG = "The name or the password is wrong. If you are sure of both, ask an admin whether the user is disabled."
# One password at a time: parallel guesses could all pass the count before any of them is counted.
_ONE_BY_ONE = threading.Lock()

# 32 MiB and about a tenth of a second per guess.
_COST, _BLOCK, _PARALLEL = 2**15, 8, 1


# Passwords ------------------------------------------------------------------------------------------------


def check_password_rules(password: str, name: str = "") -> str:
    """The password, if it is one that may be set; InvalidInput says what is missing."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise InvalidInput(
            f"A password has {MIN_PASSWORD} to {MAX_PASSWORD} characters, not {len(password)}; "
            "a few plain words do well."
        )
    if len(set(password)) < 4 or password.lower() in {name.lower(), "passwordpassword", "1234567890"}:
        raise InvalidInput("This password would be guessed at once; take one with more different characters.")
    return password


def hash_password(password: str) -> str:
    """A password as it may be kept: ``scrypt$n$r$p$salt$hash``."""
    salt = secrets.token_bytes(16)
    return "$".join(["scrypt", str(_COST), str(_BLOCK), str(_PARALLEL), _text(salt), _text(_scrypt(password, salt))])


def password_matches(password: str, kept: str | None) -> bool:
    """Whether a password is the kept one. Without one it takes as long and is False: nobody learns who exists."""
    _, cost, block, parallel, salt, expected = (kept or _NOBODY).split("$")
    found = _scrypt(password[:MAX_PASSWORD], b64decode(salt), int(cost), int(block), int(parallel))
    return hmac.compare_digest(found, b64decode(expected)) and kept is not None


def new_password() -> str:
    """Four groups of five letters and digits that are told apart when read aloud: 98 bits."""
    alphabet = "abcdefghijkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(alphabet) for _ in range(5)) for _ in range(4))


def _scrypt(password: str, salt: bytes, cost: int = _COST, block: int = _BLOCK, parallel: int = _PARALLEL) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"), salt=salt, n=cost, r=block, p=parallel,
        maxmem=256 * cost * block, dklen=32,
    )  # fmt: skip


def _text(data: bytes) -> str:
    return b64encode(data).decode()


_NOBODY = "$".join(["scrypt", str(_COST), str(_BLOCK), str(_PARALLEL), _text(bytes(16)), _text(bytes(32))])


# Tokens and sessions --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Session:
    """A sign-in that succeeded: who, and what the browser is to keep."""

    person: Person
    cookie: str


class Auth:
    """Sign-in over one home: who stands behind a cookie, a token, a name and a password."""

    def __init__(self, home_path: Path, db: Database) -> None:
        self.db = db
        self._key = signing_key(home_path)
        # A browser keeps cookies by host and not by port, so two studios on one machine need names that differ.
        self.cookie_name = f"studio_session_{hashlib.sha256(b'name' + self._key).hexdigest()[:8]}"
        self._has_users = False

    @property
    def is_light(self) -> bool:
        """True when who is behind a request is known in microseconds, so that nothing waits meanwhile."""
        return self.db.glances_are_light

    def is_open(self) -> bool:
        """True while no user exists: then nobody needs to sign in."""
        self._has_users = self._has_users or users.any_user(self.db)  # users are never removed
        return not self._has_users

    def sign_in(self, name: str, password: str, address: str) -> Session:
        """A session for the right name and password.

        Raises NotSignedIn when they are wrong (the same for an unknown name, a disabled user and a wrong password)
        and LockedOut when there were too many wrong ones.
        """
        name = name.strip()
        with _ONE_BY_ONE:
            user = users.find_user(self.db, name)
            # A name nobody has may be a password typed into the wrong field, so only its hash is written down.
            known_as = user.name if user else "unknown-" + _digest(name)[:12]
            kept = user.password_hash if user and user.status is UserStatus.active else None
            if not _is_right(self.db, password, kept, known_as, address) or user is None:
                raise NotSignedIn(_WRONG)
            return Session(_person(user), self._open_session(user, address))

    def sign_out(self, cookie: str) -> None:
        """End the session of a cookie, in the database and so for every copy of it."""
        known = self._by_cookie(cookie)
        if known is not None:
            credential_id, user = known
            credentials.end_credential(self.db, credential_id, actor=user.name, verb="sign_out")

    def person_of_cookie(self, cookie: str) -> Person | None:
        """Who a cookie's session belongs to; None for one that is forged, ended or of a disabled user."""
        known = self._by_cookie(cookie)
        return None if known is None else _person(known[1])

    def person_of_token(self, token: str) -> Person | None:
        """Who a token belongs to; None for one that is unknown, replaced or of a disabled user."""
        credential_id, _, secret = token.removeprefix(TOKEN_PREFIX).partition(".")
        known = self._live(credential_id, secret, CredentialKind.token)
        return None if known is None else _person(known)

    def _open_session(self, user: UserRow, address: str) -> str:
        secret = secrets.token_urlsafe(32)
        row = credentials.save_credential(
            self.db,
            Credential(
                user_id=user.id,
                kind=CredentialKind.session,
                secret_hash=_digest(secret),
                expires_at=now() + timedelta(days=SESSION_DAYS),
            ),
            actor=user.name,
            verb="sign_in",
            subject=f"{user.name} from {address}",
        )
        return f"{row.id}.{secret}.{self._signature(row.id, secret)}"

    def _by_cookie(self, cookie: str) -> tuple[str, UserRow] | None:
        credential_id, secret, signature = [*cookie.split("."), "", "", ""][:3]
        if not hmac.compare_digest(signature.encode(), self._signature(credential_id, secret).encode()):
            return None
        user = self._live(credential_id, secret, CredentialKind.session)
        return None if user is None else (credential_id, user)

    def _live(self, credential_id: str, secret: str, kind: CredentialKind) -> UserRow | None:
        known = credentials.get_live_credential(self.db, credential_id, kind, at=now())
        expected = known[0].secret_hash if known else _digest("")
        return known[1] if hmac.compare_digest(_digest(secret), expected) and known else None

    def _signature(self, credential_id: str, secret: str) -> str:
        return hmac.new(self._key, f"{credential_id}.{secret}".encode(), hashlib.sha256).hexdigest()


def new_token(db: Database, user: UserRow, *, actor: str) -> str:
    """A fresh token for a user, in plain for this once; their earlier one stops working."""
    if user.status is not UserStatus.active:
        raise InvalidInput(f"{user.name} is disabled and can be given no token; `studio users enable {user.name}`.")
    secret = secrets.token_urlsafe(32)
    row = credentials.save_credential(
        db,
        Credential(user_id=user.id, kind=CredentialKind.token, secret_hash=_digest(secret)),
        actor=actor,
        verb="user.token",
        subject=user.name,
    )
    return f"{TOKEN_PREFIX}{row.id}.{secret}"


def signing_key(home_path: Path) -> bytes:
    """The key that signs this home's cookies; made at first use, readable by the owner alone."""
    path = home_path / SESSION_KEY
    if not path.exists():
        partial = home_path / f"{SESSION_KEY}.{secrets.token_hex(8)}"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
        try:
            os.link(partial, path)  # unlike a rename it leaves a key that another process just made
        except FileExistsError:
            pass
        finally:
            partial.unlink()
    return path.read_bytes()


# Wrong passwords ------------------------------------------------------------------------------------------


def change_password(db: Database, user_id: str, current: str, wanted: str, address: str) -> None:
    """Give a user who is signed in another password. NotAllowed when the present one is wrong, LockedOut after many."""
    with _ONE_BY_ONE:
        user = users.get_user(db, user_id)
        if not _is_right(db, current, user.password_hash, user.name, address, actor=user.name):
            raise NotAllowed("The present password is wrong; nothing was changed.")
        hashed = hash_password(check_password_rules(wanted, user.name))
        users.set_user_password(db, user.id, hashed, actor=user.name)


def _is_right(
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


def _person(user: UserRow) -> Person:
    return Person(user.name, user.role, user.id)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
