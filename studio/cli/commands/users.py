"""Who may come in, and what they did: users, audit."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from feedback.errors import InvalidInput
from feedback.tables import UserRow
from studio.cli.session.context import opened
from studio.cli.session.output import AsJson, show_json, show_table, tell

users = typer.Typer(no_args_is_help=True, help="People with an account: annotator < reviewer < researcher < admin.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The user's name.")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
SHOWN_ONCE = "They are shown this once and kept nowhere in plain; hand them over safely."


@users.command("add")
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Letters, digits, '.', '_' and '-'; never changes.")],
    role: Annotated[str, typer.Option(help="annotator, reviewer, researcher or admin.")] = "annotator",
    password_stdin: FromStdin = False,
    as_json: AsJson = False,
) -> None:
    """Add a user, with a password for the page and a token for scripts. From the first on, everybody signs in."""
    password = _read_password() if password_stdin else None
    with opened(context, seed=False) as session:
        made = session.services.users.add_user(name, role, password=password, admin_first=False)
        admins = session.services.users.count_admins()
    if as_json:
        secret = {} if password_stdin else {"password": made.password}
        show_json({**_user(made.user), **secret, "token": made.token})
    else:
        typer.echo(f"Added {made.user.name}, {made.user.role.value}.")
        if password is None:
            typer.echo(f"password  {made.password}")
        typer.echo(f"token     {made.token}")
        tell(SHOWN_ONCE)
    if not admins:
        tell("Everybody has to sign in from now on, and there is no admin yet: `studio users add NAME --role admin`.")


@users.command("list")
def show(context: typer.Context, as_json: AsJson = False) -> None:
    """List users, disabled ones too."""
    with opened(context, seed=False) as session:
        rows = session.services.users.list_users()
    if as_json:
        show_json([_user(row) for row in rows])
        return
    table = [(row.name, row.role.value, row.status.value, row.created_at) for row in rows]
    empty = "No users: on this machine everybody may do everything. `studio users add NAME --role admin` adds one."
    show_table(("name", "role", "status", "added"), table, empty)


@users.command("disable")
def disable(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Shut a user out at once; their judgments stay."""
    with opened(context, seed=False) as session:
        row = session.services.users.disable_user(name)
    _tell_of(row, as_json, f"{row.name} is disabled: sessions and token ended, judgments kept.")


@users.command("enable")
def enable(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Let a disabled user in again, with the password they had."""
    with opened(context, seed=False) as session:
        row = session.services.users.enable_user(name)
    _tell_of(row, as_json, f"{row.name} may sign in again; `studio users token {row.name}` makes a new token.")


@users.command("role")
def role(
    context: typer.Context,
    name: Name,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="annotator, reviewer, researcher or admin.")],
    as_json: AsJson = False,
) -> None:
    """Give a user another role, from their next request on."""
    with opened(context, seed=False) as session:
        row = session.services.users.set_user_role(name, role)
    _tell_of(row, as_json, f"{row.name} is {row.role.value} now.")


@users.command("token")
def token(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Make another token for a user; the one before stops working."""
    with opened(context, seed=False) as session:
        row, made = session.services.users.new_token(name)
    if as_json:
        show_json({**_user(row), "token": made})
    else:
        typer.echo(made)
        tell(SHOWN_ONCE)


@users.command("password")
def password(context: typer.Context, name: Name, password_stdin: FromStdin = False, as_json: AsJson = False) -> None:
    """Give a user another password, made up unless read; it ends their sessions and a lock-out."""
    given = _read_password() if password_stdin else None
    with opened(context, seed=False) as session:
        row, made = session.services.users.reset_password(name, password=given)
    if as_json:
        show_json(_user(row) if password_stdin else {**_user(row), "password": made})
    elif given is None:
        typer.echo(made)
        tell(SHOWN_ONCE)
    else:
        typer.echo(f"{row.name} has a new password.")


def audit(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
    actor: Annotated[str | None, typer.Option(help="Only what this person did.")] = None,
    verb: Annotated[str | None, typer.Option(help="Only this act, as sign_in or policy.promote.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show who did what and when. The log can only grow."""
    with opened(context, seed=False) as session:
        rows = session.services.users.list_audit(limit, actor=actor, verb=verb)
    if as_json:
        show_json([row.model_dump(mode="json") for row in rows])
        return
    table = [(row.number, row.created_at, row.actor, row.verb, row.subject, _detail(row.detail)) for row in rows]
    show_table(("", "when", "who", "did", "to what", ""), table, "Nothing was written down yet.")


def _tell_of(row: UserRow, as_json: bool, sentence: str) -> None:
    if as_json:
        show_json(_user(row))
    else:
        typer.echo(sentence)


def _user(row: UserRow) -> dict[str, Any]:
    """A user as JSON: never the hash of the password, and not the pseudonym that exports carry."""
    return row.model_dump(mode="json", include={"id", "name", "role", "status", "created_at"})


def _detail(detail: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in detail.items())


def _read_password() -> str:
    given = sys.stdin.readline().rstrip("\r\n")
    if not given:
        raise InvalidInput("--password-stdin found no password on standard input; pipe one line in.")
    return given
