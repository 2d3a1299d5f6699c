"""Credentials: the tokens and sessions that open the studio for a user. Only hashes of their secrets are kept."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import bindparam
from sqlalchemy import select as choose
from sqlmodel import col, select

from feedback.database.engine import Database
from feedback.database.statements import CompiledStatement
from feedback.store.people.audit import add_event
from feedback.store.rows import as_row, record
from feedback.tables import CredentialRow, UserRow
from feedback.types import Credential, CredentialKind, UserStatus, now


def save_credential(db: Database, credential: Credential, *, actor: str, verb: str, subject: str) -> CredentialRow:
    """Keep a new token or session, and write down that it was given. A new token replaces the user's old ones."""
    with db.write() as session:
        if credential.kind is CredentialKind.token:
            for old in session.exec(
                select(CredentialRow).where(
                    CredentialRow.user_id == credential.user_id,
                    CredentialRow.kind == CredentialKind.token,
                    col(CredentialRow.ended_at).is_(None),
                )
            ):
                old.ended_at = now()
        row = as_row(CredentialRow, credential)
        session.add(row)
        add_event(session, actor, verb, subject)
        return row


def get_live_credential(
    db: Database, credential_id: str, kind: CredentialKind, *, at: datetime
) -> tuple[CredentialRow, UserRow] | None:
    """A credential with its user (to read from), if neither has ended: revoked, expired and disabled all give None."""
    with db.glance() as connection:
        found = _LIVE.first(connection, credential_id=credential_id, kind=kind, at=at)
    return None if found is None else (record(CredentialRow, found), record(UserRow, found, len(_CREDENTIAL.c)))


def end_credential(db: Database, credential_id: str, *, actor: str, verb: str) -> None:
    """End a token or session for good; harmless when it had ended."""
    with db.write() as session:
        row = session.get(CredentialRow, credential_id)
        if row is not None and row.ended_at is None:
            row.ended_at = now()
            add_event(session, actor, verb, actor)


# Asked with every request of whoever is signed in.
_CREDENTIAL, _USER = CredentialRow.__table__, UserRow.__table__  # type: ignore[attr-defined]
_LIVE = CompiledStatement(
    choose(*_CREDENTIAL.c, *(column.label(f"user_{column.name}") for column in _USER.c))
    .join(_USER, _USER.c.id == _CREDENTIAL.c.user_id)
    .where(
        _CREDENTIAL.c.id == bindparam("credential_id"),
        _CREDENTIAL.c.kind == bindparam("kind"),
        _CREDENTIAL.c.ended_at.is_(None),
        _CREDENTIAL.c.expires_at.is_(None) | (_CREDENTIAL.c.expires_at > bindparam("at")),
        _USER.c.status == UserStatus.active,
    )
)
