"""Users, their credentials, and the events of the audit log."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import field_validator
from sqlmodel import SQLModel

from feedback.errors import InvalidInput
from feedback.types.validation import RESERVED_NAMES, usable_name


class UserRole(StrEnum):
    """What a user may do: each role may do all that the ones before it may, and more."""

    annotator = "annotator"
    reviewer = "reviewer"
    researcher = "researcher"
    admin = "admin"

    def covers(self, needed: UserRole) -> bool:
        """True when this role may do what ``needed`` may."""
        order = list(UserRole)
        return order.index(self) >= order.index(needed)


class UserStatus(StrEnum):
    """A disabled user cannot get in; everything they judged stays."""

    active = "active"
    disabled = "disabled"


class CredentialKind(StrEnum):
    """What opens the studio for a user: a token in a script, a session in a browser."""

    token = "token"
    session = "session"


class User(SQLModel):
    """A person with an account. ``name`` is the annotator of their judgments and never changes.

    ``password_hash`` is what ``studio.security.passwords`` made of the password; None when there is none yet.
    ``pseudonym`` is drawn at random, so that an export that carries it cannot be turned back into the name.
    """

    name: str
    role: UserRole = UserRole.annotator
    status: UserStatus = UserStatus.active
    password_hash: str | None = None
    pseudonym: str = ""

    @field_validator("name")
    @classmethod
    def _usable_name(cls, name: str) -> str:
        if name.lower() in RESERVED_NAMES:
            raise InvalidInput(f"{name!r} cannot name a user: the studio uses it itself; choose another name")
        return usable_name(name, "user")


class Credential(SQLModel):
    """A token or a session of one user. Of its secret only ``secret_hash`` (SHA-256) is kept."""

    user_id: str
    kind: CredentialKind
    secret_hash: str
    expires_at: datetime | None = None
    ended_at: datetime | None = None


class AuditEvent(SQLModel):
    """Who did what to what. ``actor`` is a user's name, ``local`` without users, ``shell:NAME`` for the command."""

    actor: str
    verb: str
    subject: str = ""
    detail: dict[str, Any] = {}
