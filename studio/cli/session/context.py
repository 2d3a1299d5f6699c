"""The home that a command works on, open for the time of the command, and the audit log's line about it."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from feedback.database.engine import Database
from feedback.errors import InvalidInput
from feedback.store.people.audit import save_event
from feedback.types import UserRole
from studio.identity import Person
from training.home import Home
from training.operations.seed import seed_home

if TYPE_CHECKING:
    from studio.services.facade import Services

AUDITED = {"judge", "loop"}
"""Commands beside the services, which the audit log tells of when they succeeded; acts write themselves down."""


@dataclass(frozen=True)
class Asked:
    """What was said of the home before (or after) the command."""

    home: Path | None
    database_url: str | None


@dataclass(frozen=True)
class Session:
    """An open home for the time of one command."""

    home: Home
    db: Database

    @cached_property
    def services(self) -> Services:
        """Return the acts with the role of an admin: a user of the shell can read the database file too."""
        from studio.services.facade import Services  # the help and a misspelt command need none of it

        return Services(self.home, self.db).acting_as(Person(whoami(), UserRole.admin))


def home_of(context: typer.Context) -> Home:
    """The home the command was asked to work on; nothing is created.

    What stands in place of its database must be a URL: code may open a bare path, but a misspelt URL is one as well,
    and would become an empty studio in a new file.
    """
    asked: Asked = context.obj
    home = Home.locate(asked.home, asked.database_url)
    url = home.database_override
    if url is not None and "://" not in url:
        raise InvalidInput(f"{url!r} is not a database URL; valid: sqlite:///FILE or postgresql://USER@HOST/NAME.")
    return home


@contextmanager
def opened(context: typer.Context, *, seed: bool = True) -> Iterator[Session]:
    """The home, opened; a fresh one is given the bundled prompts and the starter policy first."""
    home = home_of(context)
    db = home.open()
    try:
        if seed:
            seed_home(db)
        yield Session(home, db)
        _write_down(context, db)
    finally:
        db.dispose()


def whoami() -> str:
    """Who types: the account of the machine, marked as such, for no user of the studio stands behind a command."""
    try:
        return f"shell:{getpass.getuser()}"
    except (KeyError, OSError):
        return "shell"


def _write_down(context: typer.Context, db: Database) -> None:
    """A command that changed something goes to the audit log, with what it was given."""
    command = context.command_path.partition(" ")[2]
    if command in AUDITED:
        given = {name: str(value)[:200] for name, value in context.params.items() if value not in (None, False)}
        save_event(db, whoami(), "command", command, **given)
