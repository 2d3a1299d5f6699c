"""Runs that a command submits and waits for."""

from __future__ import annotations

from typing import Any

import typer

from feedback.datasets.split_size import few_pairs_note
from feedback.store.models.runs import get_run
from feedback.tables import RunRow
from feedback.types import RunState
from studio.cli.session.context import Session
from studio.cli.session.output import INTERRUPTED, ProgressLine, ending_of, tell
from studio.worker_keeper import WorkerKeeper, wait_for_run


def run_to_end(session: Session, keeper: WorkerKeeper, run: RunRow) -> RunRow:
    """Wait for a run while showing its progress; an interruption cancels it, an unhappy end ends the command."""
    line = ProgressLine(f"{run.method} {run.id}")
    try:
        ended = wait_for_run(
            session.db, run, keeper, on_change=line.show, cancel=lambda: session.services.runs.cancel_run(run.id)
        )
    except KeyboardInterrupt:
        line.end()
        tell(f"Run {run.id} is {get_run(session.db, run.id).state.value}.")
        raise typer.Exit(INTERRUPTED) from None
    line.end()
    return ended


def submit_and_wait(session: Session, keeper: WorkerKeeper, method: str, config: dict[str, Any]) -> RunRow:
    """Queue a run and wait for its happy end; any other end is told and ends the command with status 1."""
    run = run_to_end(session, keeper, session.services.runs.submit_run(method, config))
    if run.state is not RunState.succeeded:
        tell(ending_of(run))
        raise typer.Exit(1)
    note = few_pairs_note(run.result["test_pairs"]) if isinstance(run.result.get("test_pairs"), int) else ""
    if note:
        tell(f"The accuracy was {note}.")
    return run
