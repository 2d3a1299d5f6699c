"""Users: who may come in, and as what. A user is disabled, never removed: their judgments keep their name.

Every change is written to the audit log in the same transaction.
"""

from __future__ import annotations

from sqlalchemy import func, update
from sqlalchemy import select as choose
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from feedback.column_types import new_id
from feedback.database.engine import Database, one_at_a_time
from feedback.database.statements import CompiledStatement
from feedback.errors import Conflict
from feedback.store.people.audit import add_event
from feedback.store.rows import as_row, get_by_key
from feedback.tables import CredentialRow, UserRow
from feedback.types import User, UserRole, UserStatus, now

_HINT = "`studio users list` shows all; `studio users add NAME --role ROLE` adds one."
# Two who remove each other at once must not each count the other as the admin that stays.
_ADMINS = "change who is admin"


def save_user(db: Database, user: User, *, actor: str) -> UserRow:
    """Add a user; Conflict when the name is taken, also by somebody disabled or written in other case."""
    try:
        with db.write() as session:
            if session.exec(select(UserRow).where(func.lower(UserRow.name) == user.name.lower())).first():
                raise _taken(user.name)
            row = as_row(UserRow, user, pseudonym=user.pseudonym or new_id("person"))
            session.add(row)
            session.flush()
            add_event(session, actor, "user.add", row.name, role=row.role.value)
            return row
    except IntegrityError as error:
        raise _taken(user.name) from error


def get_user(db: Database, key: str) -> UserRow:
    """The user with this id or name."""
    with db.read() as session:
        return get_by_key(session, UserRow, "user", key, hint=_HINT)


def find_user(db: Database, name: str) -> UserRow | None:
    """The user of this very name, or None."""
    with db.read() as session:
        return session.exec(select(UserRow).where(UserRow.name == name)).first()


def list_users(db: Database) -> list[UserRow]:
    """All users, disabled ones too, oldest first."""
    with db.read() as session:
        return list(session.exec(select(UserRow).order_by(col(UserRow.created_at), col(UserRow.id))))


def any_user(db: Database) -> bool:
    """True once a user was ever added, disabled or not."""
    with db.glance() as connection:
        return _ANYBODY.first(connection) is not None


def count_admins(db: Database) -> int:
    """How many admins can sign in."""
    with db.read() as session:
        return _admins(session)


def set_user_status(db: Database, key: str, status: UserStatus, *, actor: str) -> UserRow:
    """Disable or enable a user. Disabling ends every session and token at once; nothing they judged changes."""
    with db.write() as session:
        one_at_a_time(session, _ADMINS)
        row = get_by_key(session, UserRow, "user", key, hint=_HINT)
        if status is UserStatus.disabled:
            _keep_an_admin(session, row, "disabled")
            _end_credentials(session, row.id)
        row.status = status
        add_event(session, actor, "user.disable" if status is UserStatus.disabled else "user.enable", row.name)
        return row


def set_user_role(db: Database, key: str, role: UserRole, *, actor: str) -> UserRow:
    """Give a user another role; it holds from their next request on."""
    with db.write() as session:
        one_at_a_time(session, _ADMINS)
        row = get_by_key(session, UserRow, "user", key, hint=_HINT)
        if role is not UserRole.admin:
            _keep_an_admin(session, row, f"made {role.value}")
        add_event(session, actor, "user.role", row.name, before=row.role.value, after=role.value)
        row.role = role
        return row


def set_user_password(db: Database, key: str, password_hash: str, *, actor: str) -> UserRow:
    """Give a user another password. Their sessions end; their tokens are not made from it and stay."""
    with db.write() as session:
        row = get_by_key(session, UserRow, "user", key, hint=_HINT)
        row.password_hash = password_hash
        _end_credentials(session, row.id, kind="session")
        add_event(session, actor, "user.password", row.name)
        return row


def list_pseudonyms(db: Database) -> dict[str, str]:
    """Every user's name with the pseudonym that stands for it in whatever leaves the studio."""
    with db.read() as session:
        return {name: pseudonym for name, pseudonym in session.exec(select(UserRow.name, UserRow.pseudonym)).all()}


def _taken(name: str) -> Conflict:
    return Conflict(f"There is already a user {name!r}; choose another name, or enable that one if it is disabled.")


def _admins(session: Session) -> int:
    query = select(func.count()).where(col(UserRow.role) == UserRole.admin, col(UserRow.status) == UserStatus.active)
    return session.exec(query).one()


def _keep_an_admin(session: Session, row: UserRow, what: str) -> None:
    if row.role is UserRole.admin and row.status is UserStatus.active and _admins(session) == 1:
        raise Conflict(
            f"{row.name} is the only admin and cannot be {what}: nobody could add or help users any more. "
            "Make another user admin first."
        )


def _end_credentials(session: Session, user_id: str, kind: str | None = None) -> None:
    query = update(CredentialRow).where(col(CredentialRow.user_id) == user_id, col(CredentialRow.ended_at).is_(None))
    if kind is not None:
        query = query.where(col(CredentialRow.kind) == kind)
    session.execute(query.values(ended_at=now()))


_ANYBODY = CompiledStatement(choose(UserRow.__table__.c.id).limit(1))  # type: ignore[attr-defined]  # asked with every request
