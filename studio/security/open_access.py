"""Who may enter a studio without users: every account of the machine, or with ``--token`` who has the token.

The token is made at each start and ends with it. A program of the same account reads it from the file ``open.token``
of the home. Once there is a user, it opens nothing any more.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
from collections.abc import Iterator
from pathlib import Path

from feedback.database.engine import Database
from feedback.store.people.users import any_user
from training.home import Home

TOKEN_FILE = "open.token"
_NO_SHELLS = ("nologin", "false", "sync", "shutdown", "halt")
_FIRST_PERSON = 1000
_SHOWN = 3


def is_open(db: Database) -> bool:
    """Whether there are no users, so that nobody signs in."""
    return not any_user(db)


@contextlib.contextmanager
def token_file(home: Home, wanted: bool) -> Iterator[str]:
    """A new token, in a file of the home that its owner alone can read, for the time of the block; else empty."""
    path = home.path / TOKEN_FILE
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # of a start that was killed
    if not wanted:
        yield ""
        return
    token = secrets.token_urlsafe(32)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token)
    try:
        yield token
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def address(url: str, token: str) -> str:
    """The address to open in a browser."""
    return f"{url}/?token={token}" if token else url


def who_may_enter(db: Database, token: str) -> str:
    """A warning where other people have accounts on this machine and could enter; empty when nobody else can."""
    others = list_others()
    if token or not others or not is_open(db):
        return ""
    shown = ", ".join(others[:_SHOWN]) + (f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else "")
    return (
        f"There are no users, so every account of this machine ({shown}) can do everything here; start with --token, "
        "or add one: `studio users add NAME --role admin`."
    )


def list_others(passwd: Path | None = None) -> list[str]:
    """Names of the people, beside the present account, who can log in to this machine."""
    if passwd is None:
        rows = [(row.pw_name, row.pw_uid, row.pw_shell) for row in pwd.getpwall()]
    else:
        fields = [line.split(":") for line in passwd.read_text().splitlines() if line.count(":") == 6]
        rows = [(one[0], int(one[2]), one[6]) for one in fields]
    return [
        name
        for name, uid, shell in rows
        if uid != os.getuid() and _FIRST_PERSON <= uid < 65534 and not shell.endswith(_NO_SHELLS)
    ]
