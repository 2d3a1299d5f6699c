"""Credentials: the tokens and sessions that open the studio for a user. Only hashes of their secrets are kept."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import col, select

from feedback.db import Database
from feedback.store.audit import add_event
from feedback.store.rows import as_row
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
    """A credential with its user, if neither has ended: revoked, expired and disabled all give None."""
    query = (
        select(CredentialRow, UserRow)
        .join(UserRow, col(UserRow.id) == col(CredentialRow.user_id))
        .where(
            CredentialRow.id == credential_id,
            CredentialRow.kind == kind,
            col(CredentialRow.ended_at).is_(None),
            col(CredentialRow.expires_at).is_(None) | (col(CredentialRow.expires_at) > at),
            UserRow.status == UserStatus.active,
        )
    )
    with db.read() as session:
        found = session.exec(query).first()
        return None if found is None else (found[0], found[1])


def end_credential(db: Database, credential_id: str, *, actor: str, verb: str) -> None:
    """End a token or session for good; harmless when it had ended."""
    with db.write() as session:
        row = session.get(CredentialRow, credential_id)
        if row is not None and row.ended_at is None:
            row.ended_at = now()
            add_event(session, actor, verb, actor)
