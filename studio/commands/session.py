"""What every command shares: the home it works on, and how it speaks.

Results go to standard output; progress and complaints go to standard error, so that ``--json`` prints JSON and
nothing else.
"""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from feedback.database.engine import Database
from feedback.datasets.split_size import few_pairs_note
from feedback.errors import InvalidInput
from feedback.outputs import find_output
from feedback.store.models.runs import get_run
from feedback.store.people.audit import save_event
from feedback.tables import RunRow
from feedback.types import RunState
from studio.workers import WorkerKeeper, wait_for_run
from training.home import Home
from training.operations.seed import seed_home
from training.runs.queue import submit

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
INTERRUPTED = 130

AUDITED = {
    "prompts import", "generate", "judge", "dataset freeze", "export", "import", "train", "evaluate", "loop",
    "runs cancel", "runs resume", "policies add", "policies promote", "policies rebase",
    "benchmark run", "benchmark import",
}  # fmt: skip
"""Commands that the audit log tells of when they succeeded; those about users are told by the store itself."""


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


def tell(line: str) -> None:
    """Say something that is not the result."""
    typer.echo(line, err=True)


def show_json(value: Any, *, apart_from: Path | None = None) -> None:
    """Print a result for a program."""
    show_line(json.dumps(value, indent=2, ensure_ascii=False), apart_from=apart_from)


def show_line(line: str, *, apart_from: Path | None = None) -> None:
    """Print a result; on standard error where what was written to ``apart_from`` is on standard output already."""
    typer.echo(line, err=apart_from is not None and find_output(apart_from).is_standard_output)


def show_table(headers: Sequence[str], rows: Iterable[Sequence[Any]], empty: str) -> None:
    """Print a result for a person: columns as wide as they must be, or a sentence when there is nothing."""
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        typer.echo(empty)
        return
    widths = [max(len(row[column]) for row in [list(headers), *cells]) for column in range(len(headers))]
    for row in [list(headers), *cells]:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show_fields(fields: dict[str, Any]) -> None:
    """Print one thing for a person, a field a line; nested values as JSON."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        if value in (None, "", {}, []):
            continue
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else _cell(value)
        typer.echo(f"{name.ljust(width)}  {text}")


def run_to_end(session: Session, keeper: WorkerKeeper, run: RunRow) -> RunRow:
    """Wait for a run while showing its progress; an interruption cancels it, an unhappy end ends the command."""
    line = ProgressLine(f"{run.method} {run.id}")
    try:
        ended = wait_for_run(session.db, run, keeper, on_change=line.show)
    except KeyboardInterrupt:
        line.end()
        tell(f"Run {run.id} is {get_run(session.db, run.id).state.value}.")
        raise typer.Exit(INTERRUPTED) from None
    line.end()
    return ended


def submit_and_wait(session: Session, keeper: WorkerKeeper, method: str, config: dict[str, Any]) -> RunRow:
    """Queue a run and wait for its happy end; any other end is told and ends the command with status 1."""
    run = run_to_end(session, keeper, submit(session.db, method, config, home=session.home))
    if run.state is not RunState.succeeded:
        tell(ending_of(run))
        raise typer.Exit(1)
    note = few_pairs_note(run.result["test_pairs"]) if isinstance(run.result.get("test_pairs"), int) else ""
    if note:
        tell(f"The accuracy was {note}.")
    return run


def ending_of(run: RunRow) -> str:
    """One sentence on how a run ended."""
    if run.state is RunState.succeeded:
        return f"Run {run.id} succeeded."
    return f"Run {run.id} is {run.state.value}" + (f": {run.error}" if run.error else ".")


def run_json(run: RunRow) -> dict[str, Any]:
    """A run as JSON."""
    return run.model_dump(mode="json")


class ProgressLine:
    """One line that is rewritten on a terminal, and a line per change of state elsewhere."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._rewrites = sys.stderr.isatty()
        self._width = 0
        self._state: RunState | None = None

    def show(self, run: RunRow) -> None:
        """Show where the run stands."""
        text = f"{self.title}: {run.state.value}"
        if self._rewrites:
            if run.state is RunState.running:
                text += f" {100 * run.progress:3.0f} % {run.progress_text}"
            elif run.state is RunState.starting and run.progress_text:
                text += f", {run.progress_text}"
            sys.stderr.write("\r" + text[:110].ljust(self._width))
            self._width = len(text[:110])
            sys.stderr.flush()
        elif run.state is not self._state:
            tell(text)
        self._state = run.state

    def end(self) -> None:
        """Leave the line as it is."""
        if self._rewrites and self._width:
            sys.stderr.write("\n")


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return str(value)
