"""Sign-in: sessions and tokens. Nothing here knows HTTP.

Tokens and sessions are 256 random bits of which the database holds the SHA-256 alone; both name their row
(``id.secret``), so a row is found by its public part and the secret is then compared in constant time. A session's
cookie is signed with the home's own key as well, so a made-up cookie is refused without a look at the database.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from feedback.database.engine import Database
from feedback.errors import InvalidInput, NotSignedIn
from feedback.store.people import credentials, users
from feedback.tables import UserRow
from feedback.types import Credential, CredentialKind, UserStatus, now
from studio.identity import Person
from studio.security.lockout import ONE_BY_ONE, is_right
from training.home import SESSION_KEY

SESSION_DAYS = 14
TOKEN_PREFIX = "studio_"
_WRONG = "The name or the password is wrong. If you are sure of both, ask an admin whether the user is disabled."


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
        with ONE_BY_ONE:
            user = users.find_user(self.db, name)
            # A name nobody has may be a password typed into the wrong field, so only its hash is written down.
            known_as = user.name if user else "unknown-" + _digest(name)[:12]
            kept = user.password_hash if user and user.status is UserStatus.active else None
            if not is_right(self.db, password, kept, known_as, address) or user is None:
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


def _person(user: UserRow) -> Person:
    return Person(user.name, user.role, user.id)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
