"""The states of a run and how they may follow each other."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from feedback.database.engine import Database
from feedback.store.models.runs import get_run, list_runs, transition_run
from feedback.tables import RunRow
from feedback.types import RunState, now
from training.runs.launch.local import is_alive, is_here

TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    # A queued run fails without a process when the run it waits for did.
    RunState.queued: frozenset({RunState.starting, RunState.cancelled, RunState.failed}),
    RunState.starting: frozenset({RunState.running, RunState.stopping, RunState.failed, RunState.interrupted}),
    RunState.running: frozenset(
        {RunState.stopping, RunState.succeeded, RunState.failed, RunState.cancelled, RunState.interrupted}
    ),
    # A run that was asked to stop after its last step has done its work: the truth is that it succeeded.
    RunState.stopping: frozenset({RunState.cancelled, RunState.succeeded}),
    RunState.succeeded: frozenset(),
    RunState.failed: frozenset({RunState.queued}),
    RunState.cancelled: frozenset({RunState.queued}),
    RunState.interrupted: frozenset({RunState.queued}),
}
# How long a claimed run may go without a process before its launch counts as lost.
LAUNCH_SECONDS = 60.0
# A run beats every second; where its pid cannot be looked at, on another machine, so long a silence is its end.
SILENT_SECONDS = 120.0
ACTIVE = tuple(state for state in RunState if state.is_active)


def may_precede(to: RunState) -> frozenset[RunState]:
    """The states from which ``to`` can be reached in one step."""
    return frozenset(state for state, following in TRANSITIONS.items() if to in following)


def advance(db: Database, run_id: str, to: RunState, **changes: Any) -> RunRow | None:
    """Move a run to ``to`` if the table allows it from where it is; None when it does not."""
    if to.is_terminal:
        changes.setdefault("ended_at", now())
    if to is RunState.cancelled:
        changes.setdefault("progress_text", to.value)
    return transition_run(db, run_id, expected=may_precede(to), to=to, **changes)


def reconcile(db: Database) -> list[RunRow]:
    """Find runs whose process is gone and say so; returns those it changed.

    On this machine pid and start decide, since a process that is stopped or swapped out beats no more and is not
    dead; for another machine's run its heartbeat does. Safe at any time and from any process: a run that reports its
    own end meanwhile wins.
    """
    changed = []
    for run in list_runs(db, states=ACTIVE):
        if not _is_lost(db, run):
            continue
        # Between the list and now it may have ended by itself, or been resumed: then this is another process's run.
        fresh = get_run(db, run.id)
        if not fresh.state.is_active or (fresh.pid, fresh.attempt) != (run.pid, run.attempt):
            continue
        to = RunState.cancelled if fresh.state is RunState.stopping else RunState.interrupted
        error = None if to is RunState.cancelled else _last_words(db, fresh)
        text = to.value if to is RunState.cancelled else fresh.progress_text
        ended = {"ended_at": now(), "error": error, "progress_text": text}
        moved = transition_run(db, run.id, expected=[fresh.state], to=to, **ended)
        if moved is not None:
            changed.append(moved)
    return changed


def _is_lost(db: Database, run: RunRow) -> bool:
    if not is_here(db, run):
        return now() - _last_beat(run) >= timedelta(seconds=SILENT_SECONDS)
    if run.pid is not None:
        return not is_alive(run.pid, run.pid_started)
    began = run.started_at or run.created_at
    return now() - began > timedelta(seconds=LAUNCH_SECONDS)


def _last_beat(run: RunRow) -> datetime:
    return run.heartbeat_at or run.started_at or run.created_at


def _last_words(db: Database, run: RunRow) -> str:
    if not is_here(db, run):
        return (
            f"Nothing was heard from it since {_last_beat(run):%Y-%m-%d %H:%M:%S} UTC; it worked on {run.host}, "
            f"which may be down or cut off; resume it with `studio runs resume {run.id}`."
        )
    if run.pid is None:
        return f"No process began within {LAUNCH_SECONDS:.0f} s; resume it with `studio runs resume {run.id}`."
    return (
        f"The process (pid {run.pid}) ended without a word, perhaps killed for want of memory; its last lines are "
        f"in `studio runs logs {run.id}`; resume it with `studio runs resume {run.id}`."
    )
