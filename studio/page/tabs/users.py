"""People: who may come in and as what; for admins. Secrets are shown once, in the answer that made them."""

from __future__ import annotations

from typing import Any

import gradio as gr

from feedback.errors import InvalidInput
from feedback.tables import UserRow
from feedback.types import UserRole, UserStatus, now
from studio.identity import LOCAL
from studio.page.tabs.wiring import QUICK, TOLD, bind, markup, on_pick, picker
from studio.page.views import users as users_view
from studio.page.worker_notice import worker_badge
from studio.services.facade import Services

AUDIT_SHOWN = 50

WORKER_SECONDS = 10.0
"""Between two looks at whether a worker is running."""


def show_person(services: Services) -> Any:
    """Who is signed in; the style sheet leaves out the tabs that are not for their role."""
    person = services.users.whoami()
    return users_view.signed_in(person.name, person.role.value) if person != LOCAL else ""


def show_worker(services: Services) -> Any:
    """Say in the header that no worker is running, to those who can start one."""
    may_start = services.users.whoami().role.covers(UserRole.researcher)
    return worker_badge(services.runs.worker_is_alive() or not may_start)


def refresh(services: Services, selected: str | None) -> tuple[Any, ...]:
    """The users, the one shown, and the newest lines of the audit log; a secret shown before is gone."""
    users = services.users.list_users()
    chosen = next((user for user in users if user.id == selected), None)
    return (
        users_view.users_table(users, selected, now()),
        "",
        users_view.audit_table(services.users.list_audit(AUDIT_SHOWN), now()),
        chosen.id if chosen else None,
        users_view.user_detail(chosen, now()) if chosen else "",
        gr.update(visible=chosen is not None),
        gr.Dropdown(value=chosen.role.value if chosen else UserRole.annotator.value),
        gr.Button("Enable" if chosen and chosen.status is UserStatus.disabled else "Disable"),
        *_closed(),
    )


def first_role(services: Services) -> str:
    """The role that the form for a new user begins with: the first user must be an admin."""
    return UserRole.annotator.value if services.users.list_users() else UserRole.admin.value


def select(services: Services, key: str) -> tuple[Any, ...]:
    """Show one user: the list row marked, the details, what can be done."""
    return refresh(services, key)


def add(services: Services, name: str, role: str) -> tuple[Any, ...]:
    """Add a user and show the secrets that are theirs."""
    made = services.users.add_user(name, role)
    secrets = {"Password": made.password, "Token": made.token}
    shown = users_view.secret_once(f"{made.user.name} is added. What they sign in with:", secrets)
    if made.user.role is UserRole.admin and services.users.whoami() == LOCAL:
        # From this moment on nothing more is told to a page that nobody signed in to.
        added = users_view.first_admin_added(made.user.name)
        return (added, shown, *[gr.skip() for _ in range(8)], "", gr.skip())
    return (*_with_secret(services, made.user, shown), "", UserRole.annotator.value)


def set_role(services: Services, selected: str | None, role: str) -> tuple[Any, ...]:
    """Give the user shown another role."""
    user = services.users.set_user_role(_chosen(selected), role)
    gr.Info(f"{user.name} is now {user.role.value}.")
    return refresh(services, user.id)


def renew_token(services: Services, selected: str | None) -> tuple[Any, ...]:
    """Make another token for the user shown."""
    user, token = services.users.new_token(_chosen(selected))
    return _with_secret(services, user, users_view.secret_once(f"The new token of {user.name}", {"Token": token}))


def renew_password(services: Services, selected: str | None) -> tuple[Any, ...]:
    """Make another password for the user shown."""
    user, password = services.users.reset_password(_chosen(selected))
    return _with_secret(
        services, user, users_view.secret_once(f"The new password of {user.name}", {"Password": password})
    )


def ask_disable(services: Services, selected: str | None) -> tuple[Any, ...]:
    """Enable the user shown, or ask before disabling them."""
    user = next(user for user in services.users.list_users() if user.id == _chosen(selected))
    if user.status is UserStatus.disabled:
        enabled = services.users.enable_user(user.id)
        gr.Info(f"{enabled.name} is enabled.")
        return refresh(services, enabled.id)
    kept = [gr.skip() for _ in range(8)]
    return (*kept, gr.update(value=users_view.disable_question(user), visible=True), gr.update(visible=True))


def disable(services: Services, selected: str | None) -> tuple[Any, ...]:
    """Shut the user shown out."""
    user = services.users.disable_user(_chosen(selected))
    gr.Info(f"{user.name} is disabled.")
    return refresh(services, user.id)


def keep(_services: Services) -> tuple[Any, ...]:
    """Close the question; nothing changes."""
    return _closed()


def _with_secret(services: Services, user: UserRow, shown: Any) -> tuple[Any, ...]:
    table, _, *rest = refresh(services, user.id)
    return (table, shown, *rest)


def _closed() -> tuple[Any, ...]:
    return gr.update(visible=False), gr.update(visible=False)


def _chosen(selected: str | None) -> str:
    if not selected:
        raise InvalidInput("Choose a user in the table first.")
    return selected


def build_header(services: Services, page: gr.Blocks) -> None:
    """Say who is signed in, with the way out."""
    worker = markup(elem_id="worker-state")
    looking = gr.Timer(WORKER_SECONDS)
    for event in (page.load, looking.tick):
        event(bind(show_worker, services), None, [worker], **QUICK)
    who = markup(elem_id="signed-in")
    known = page.load(bind(show_person, services), None, [who], **QUICK)
    # Not before: which tabs an address may open depends on the role.
    known.then(None, [who], None, js="(who) => { window.studio.openAddress(Boolean(who)); return []; }")


def build_tab(services: Services, tab: gr.Tab) -> None:
    """Lay the tab out and connect it."""
    selected = gr.State(None)
    with gr.Row(elem_id="add-user-bar"):
        name = gr.Textbox(label="Name", elem_id="user-name", min_width=180, max_lines=1)
        roles = users_view.role_choices()
        role = gr.Dropdown(roles, value="annotator", label="Role", elem_id="user-role", min_width=240)
        add_button = gr.Button("Add a user", variant="primary", elem_id="add-user", min_width=140)
    secret = markup(elem_id="user-secret")
    table = picker("users-table")
    detail = markup(elem_id="user-detail")
    with gr.Column(visible=False, elem_id="user-acts") as acts, gr.Row(elem_id="user-bar"):
        other_role = gr.Dropdown(roles, value="annotator", label="Role", elem_id="other-role", min_width=240)
        role_button = gr.Button("Change the role", elem_id="set-role", min_width=140)
        token_button = gr.Button("New token", elem_id="new-token", min_width=120)
        password_button = gr.Button("New password", elem_id="new-password", min_width=120)
        disable_button = gr.Button("Disable", variant="stop", elem_id="disable-user", min_width=120)
    question = markup(elem_id="disable-question", visible=False)
    with gr.Row(visible=False, elem_id="disable-confirm") as confirm:
        yes = gr.Button("Yes, disable", variant="stop", elem_id="disable-yes")
        no = gr.Button("No, leave it", elem_id="disable-no")
    with gr.Accordion("Audit log", open=False, elem_id="audit"):
        log = markup(elem_id="audit-table")

    shown = [table, secret, log, selected, detail, acts, other_role, disable_button, question, confirm]
    tab.select(bind(refresh, services), [selected], shown, **QUICK)
    tab.select(bind(first_role, services), None, [role], **QUICK)
    on_pick(table, select, services, [], shown)
    add_button.click(bind(add, services), [name, role], [*shown, name, role], **TOLD)
    role_button.click(bind(set_role, services), [selected, other_role], shown, **TOLD)
    token_button.click(bind(renew_token, services), [selected], shown, **TOLD)
    password_button.click(bind(renew_password, services), [selected], shown, **TOLD)
    disable_button.click(bind(ask_disable, services), [selected], shown, **TOLD)
    yes.click(bind(disable, services), [selected], shown, **TOLD)
    no.click(bind(keep, services), None, [question, confirm], **QUICK)
