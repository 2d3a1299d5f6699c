"""Accounts: users with their passwords and tokens, which are shown once and never again."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from feedback.database.engine import Database
from feedback.errors import Conflict, InvalidInput
from feedback.store.people import users
from feedback.store.rows import reason_of
from feedback.tables import UserRow
from feedback.types import User, UserRole
from studio.identity import LOCAL, Person
from studio.security import lockout, passwords, sessions


@dataclass(frozen=True)
class NewUser:
    """A user just added, with the secrets that nobody can read again later."""

    user: UserRow
    password: str
    token: str


def add_user(db: Database, name: str, role: UserRole | str, *, actor: str, password: str | None = None) -> NewUser:
    """Add a user with a password (one is made up unless given) and a token."""
    wanted = known_role(role)
    secret = passwords.new_password() if password is None else passwords.check_password_rules(password, name)
    try:
        value = User(name=name.strip(), role=wanted, password_hash=passwords.hash_password(secret))
    except ValidationError as error:
        raise InvalidInput(reason_of(error)) from error
    user = users.save_user(db, value, actor=actor)
    return NewUser(user, secret, sessions.new_token(db, user, actor=actor))


def reset_password(db: Database, name: str, *, actor: str, password: str | None = None) -> tuple[UserRow, str]:
    """Give a user another password, made up unless given; their sessions end, a lock-out too."""
    user = users.get_user(db, name)
    secret = passwords.new_password() if password is None else passwords.check_password_rules(password, user.name)
    return users.set_user_password(db, user.id, passwords.hash_password(secret), actor=actor), secret


def change_own_password(db: Database, person: Person, current: str, wanted: str, *, address: str) -> None:
    """Change the password of whoever is signed in, who must know the present one."""
    if person == LOCAL:
        raise InvalidInput("This studio has no users yet, so there is no password to change.")
    lockout.change_password(db, person.user_id, current, wanted, address)


def new_token(db: Database, name: str, *, actor: str) -> tuple[UserRow, str]:
    """Give a user another token; the one before stops working."""
    user = users.get_user(db, name)
    return user, sessions.new_token(db, user, actor=actor)


def known_role(role: UserRole | str) -> UserRole:
    """The role of this name, or an InvalidInput that lists the four."""
    try:
        return UserRole(role)
    except ValueError as error:
        raise InvalidInput(f"{role!r} is not a role; valid: {', '.join(UserRole)}.") from error


def require_admin_first(db: Database, role: UserRole) -> None:
    """From the page the first user must be an admin: from then on everybody signs in, and somebody must be able to."""
    if role is not UserRole.admin and not users.any_user(db):
        raise Conflict("The first user must be an admin, since from then on everybody has to sign in.")
