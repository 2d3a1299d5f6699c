"""People: who is signed in, the list of users, one in full, a secret shown once, the audit log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from feedback.tables import AuditRow, UserRow
from feedback.types import UserRole, UserStatus
from studio.page.html import Html, badge, element, facts, notice, table
from studio.page.text import ago, figure, label_of

ROLE_SENTENCES = {
    UserRole.annotator: "judges pairs",
    UserRole.reviewer: "also looks at the quality of judgments",
    UserRole.researcher: "also sees policies, freezes datasets, trains and promotes",
    UserRole.admin: "also handles people",
}


def signed_in(name: str, role: str) -> Html:
    """Who is signed in, with the way to the account and out. The addresses are relative: a prefix may precede.

    ``data-role`` lets the style sheet leave out the tabs that the role cannot use; what it may do is decided by
    ``studio.services.access`` alone.
    """
    out = element("form", element("button", "Sign out", type="submit"), method="post", action="logout")
    who = element("span", "Signed in as ", element("strong", name), f", {role}")
    return element("div", who, element("a", "Account", href="account"), out, class_="signed-in", data_role=role)


def users_table(users: Sequence[UserRow], selected: str | None, now: datetime) -> Html:
    """All users; each row can be picked."""
    if not users:
        return notice(
            "No users yet",
            "Everybody who reaches this page may do everything; it is served to this machine alone.",
            "Add an admin, and from then on everybody signs in, you too: keep the password that is shown.",
        )
    rows = [
        [
            user.name,
            user.role.value,
            badge("active", "good") if user.status is UserStatus.active else badge("disabled"),
            ago(user.created_at, now),
        ]
        for user in users
    ]
    keys = [user.id for user in users]
    return table(("Name", "Role", "Status", "Added"), rows, caption="Users", keys=keys, selected=selected)


def first_admin_added(name: str) -> Html:
    """What stands in the place of the list of users once the first one is there, on a page nobody signed in to."""
    return notice(
        f"{name} is the first user",
        "From now on everybody signs in, you too: keep the password that is shown above, then load this page again.",
        tone="good",
    )


def user_detail(user: UserRow, now: datetime) -> Html:
    """One user, and what the role means."""
    state = badge("active", "good") if user.status is UserStatus.active else badge("disabled")
    return element(
        "div",
        element("div", element("h3", user.name), state, class_="detail-head"),
        facts(
            [
                ("Role", f"{user.role.value}: {ROLE_SENTENCES[user.role]}"),
                ("Added", ago(user.created_at, now)),
                ("In exports", element("code", user.pseudonym)),
            ]
        ),
        class_="detail",
    )


def role_choices() -> list[tuple[str, str]]:
    """The roles for a dropdown, each with what it adds."""
    return [(f"{role.value}: {sentence}", role.value) for role, sentence in ROLE_SENTENCES.items()]


def secret_once(title: str, secrets: Mapping[str, str]) -> Html:
    """Secrets that were just made, to be copied now."""
    return element(
        "div",
        notice(
            title,
            facts((name, element("code", secret, class_="secret")) for name, secret in secrets.items()),
            "Copy it now and hand it over safely: it is shown this once, and only its hash is kept.",
            tone="warn",
        ),
        class_="secret-once",
    )


def disable_question(user: UserRow) -> Html:
    """What disabling does, before it is done."""
    return notice(
        f"Disable {user.name}?",
        f"{user.name} is out at once: sessions and token end. Everything they judged stays and counts.",
        "Enabling lets them sign in again with the same password; a token must be made anew.",
        tone="warn",
    )


def audit_table(events: Sequence[AuditRow], now: datetime) -> Html:
    """The newest acts: who did what to what, and when."""
    rows = [
        [
            element("time", ago(event.created_at, now), title=f"{event.created_at:%Y-%m-%d %H:%M:%S} UTC"),
            event.actor,
            event.verb,
            event.subject,
            figure(_short(event.detail)),
        ]
        for event in events
    ]
    if not rows:
        return element("p", "Nothing was written down yet.", class_="quiet")
    return table(("When", "Who", "Did", "To what", "More"), rows, caption="Audit log, newest first")


def _short(detail: Mapping[str, Any]) -> dict[str, str]:
    return {label_of(name): figure(value)[:80] for name, value in detail.items()}
