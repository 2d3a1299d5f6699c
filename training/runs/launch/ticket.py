"""The right to begin one attempt of a run somewhere else: a file in the run's directory that can be taken once.

A job on another machine must be told which database to use, and the URL of a database has a password in it, while
everybody who opens the cluster's dashboard reads a job's command and environment. So it stands in a file that only the
account of the worker can read, and is gone once the job has read it.

Whoever takes the file away has decided what becomes of the attempt. A job that finds none does nothing, so a run can
be cancelled while its job still waits, whatever the cluster does with that job later.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from feedback.errors import Conflict, InvalidInput
from feedback.files import atomic_write
from training.home import Home
from training.runs.launch.local import this_host


@dataclass(frozen=True)
class Ticket:
    """What a job is handed: its database, which attempt it is, and the kind of place that it is recorded under."""

    database_url: str
    attempt: int
    place: str

    @property
    def host(self) -> str:
        """What a process with the ticket is recorded under: no machine's own name, so that no pid is sought there."""
        return f"{self.place}:{this_host()}"


def ticket_path(home: Home, run_id: str, attempt: int) -> Path:
    """Where the ticket of one attempt lies; the dot keeps it out of backups."""
    return home.run_dir(run_id) / f".ticket-{attempt}.json"


def write_ticket(home: Home, run_id: str, ticket: Ticket) -> Path:
    """Lay a ticket down, in place of any for this attempt."""
    path = ticket_path(home, run_id, ticket.attempt)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, mode=0o600) as file:
        file.write(json.dumps(asdict(ticket)).encode())
    return path


def take_ticket(path: Path) -> Ticket:
    """Take the ticket, so that nobody else can; one sentence where there is none to take."""
    mine = path.with_name(f"{path.name}.taken-{secrets.token_hex(8)}")
    try:
        path.rename(mine)
        try:
            text = mine.read_text(encoding="utf-8")
        finally:
            mine.unlink()
    except FileNotFoundError:
        raise _missing(path) from None
    except PermissionError:
        raise InvalidInput(
            f"{path} may not be read on {this_host()} by the account {os.getuid()}: let the cluster run under the "
            "one that the worker runs under, then resume the run."
        ) from None
    return Ticket(**json.loads(text))


def withdraw_ticket(home: Home, run_id: str, attempt: int) -> bool:
    """Take the ticket away unused; False when a job has it, or there was none."""
    try:
        ticket_path(home, run_id, attempt).unlink()
    except FileNotFoundError:
        return False
    return True


def _missing(path: Path) -> Exception:
    if path.parent.is_dir():
        return Conflict(f"{path} is gone: this attempt was given up, or another job has begun it already.")
    return InvalidInput(
        f"The run's directory {path.parent} is not on {this_host()}: the home must be a folder that every machine of "
        "the cluster sees under the same path; share it, then resume the run."
    )
