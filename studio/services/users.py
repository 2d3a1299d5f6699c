"""Users as an admin handles them, one's own account, and the audit log."""

from __future__ import annotations

from feedback.store.people import audit as audit_store
from feedback.store.people import users as user_store
from feedback.tables import AuditRow, UserRow
from feedback.types import UserRole, UserStatus
from studio.identity import Person
from studio.security import accounts
from studio.security.accounts import NewUser
from studio.services.access import Acts, act


class Users(Acts):
    """Acts on users."""

    @act(UserRole.annotator)
    def whoami(self) -> Person:
        """Who is asking."""
        return self.person

    @act(UserRole.admin)
    def list_users(self) -> list[UserRow]:
        """All users, disabled ones too."""
        return user_store.list_users(self.db)

    @act(UserRole.admin)
    def count_admins(self) -> int:
        """How many admins there are who may sign in."""
        return user_store.count_admins(self.db)

    @act(UserRole.admin)
    def add_user(
        self, name: str, role: UserRole | str, *, password: str | None = None, admin_first: bool = True
    ) -> NewUser:
        """Add a user; the token, and the password unless it was given, are in the answer and nowhere else.

        With ``admin_first`` the first user must be an admin; the shell does without, for it can always add one.
        """
        if admin_first:
            accounts.require_admin_first(self.db, accounts.known_role(role))
        return accounts.add_user(self.db, name, role, actor=self.person.name, password=password)

    @act(UserRole.admin)
    def set_user_role(self, name: str, role: UserRole | str) -> UserRow:
        """Give a user another role, at once."""
        return user_store.set_user_role(self.db, name, accounts.known_role(role), actor=self.person.name)

    @act(UserRole.admin)
    def disable_user(self, name: str) -> UserRow:
        """Shut a user out at once; everything they judged stays."""
        return user_store.set_user_status(self.db, name, UserStatus.disabled, actor=self.person.name)

    @act(UserRole.admin)
    def enable_user(self, name: str) -> UserRow:
        """Let a disabled user in again, with the password they had; a token must be given anew."""
        return user_store.set_user_status(self.db, name, UserStatus.active, actor=self.person.name)

    @act(UserRole.admin)
    def new_token(self, name: str) -> tuple[UserRow, str]:
        """Another token for a user, in plain for this once."""
        return accounts.new_token(self.db, name, actor=self.person.name)

    @act(UserRole.admin)
    def reset_password(self, name: str, *, password: str | None = None) -> tuple[UserRow, str]:
        """Another password for a user, made up unless given, and in plain for this once."""
        return accounts.reset_password(self.db, name, actor=self.person.name, password=password)

    @act(UserRole.annotator)
    def change_own_password(self, current: str, wanted: str, address: str = "unknown") -> None:
        """Change the password of whoever asks, from ``address``; a wrong present one counts as a failed sign-in."""
        accounts.change_own_password(self.db, self.person, current, wanted, address=address)

    @act(UserRole.admin)
    def list_audit(
        self, limit: int = 100, before: int | None = None, actor: str | None = None, verb: str | None = None
    ) -> list[AuditRow]:
        """Who did what when, newest first."""
        return audit_store.list_events(self.db, limit=limit, before=before, actor=actor, verb=verb)
