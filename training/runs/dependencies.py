"""What a run waits for: another run, which must have succeeded first.

A waiting run stays queued, and may name what that run has yet to make: the reward model of ``reward`` → ``rloo``,
the policy of ``dpo`` → ``evaluate``. When the run it waits for fails or is cancelled, it fails too and says so; an
interrupted one may still be resumed, so the wait goes on.
"""

from __future__ import annotations

from feedback.database.engine import Database
from feedback.errors import Conflict
from feedback.store.models.runs import get_run, list_runs, transition_run
from feedback.tables import RunRow
from feedback.types import RunState, now

# States from which a run does not succeed by itself.
UNSUCCESSFUL = frozenset({RunState.failed, RunState.cancelled})


def check_after(db: Database, run_id: str | None) -> RunRow | None:
    """The run that is to be waited for; Conflict when it can no longer succeed by itself, NotFound when unknown."""
    if run_id is None:
        return None
    run = get_run(db, run_id)
    if run.state in UNSUCCESSFUL:
        raise Conflict(
            f"Run {run.id} is {run.state.value}, so nothing can come after it; "
            f"resume it first with `studio runs resume {run.id}`."
        )
    return run


def promised_names(db: Database, after: RunRow | None) -> set[str]:
    """Names that the runs waited for, all the way back, will give to what they make."""
    names: set[str] = set()
    while after is not None:
        if after.config.get("name"):
            names.add(str(after.config["name"]))
        after = get_run(db, after.after) if after.after else None
    return names


def give_up_waiting(db: Database) -> list[RunRow]:
    """Fail the queued runs whose predecessor cannot succeed any more; returns them."""
    given_up = []
    for run in list_runs(db, states=[RunState.queued]):
        if run.after is None:
            continue
        before = get_run(db, run.after)
        if before.state not in UNSUCCESSFUL:
            continue
        error = (
            f"It waited for run {before.id}, which is {before.state.value}"
            + (f": {before.error.rstrip('.')}. " if before.error else ". ")
            + f"Resume that run, then this one with `studio runs resume {run.id}`."
        )
        moved = transition_run(db, run.id, expected=[RunState.queued], to=RunState.failed, error=error, ended_at=now())
        if moved is not None:
            given_up.append(moved)
    return given_up
