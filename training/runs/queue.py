"""The run queue: submit, cancel, resume, reconcile, wait; and the one table of what may follow what.

    queued → starting → running → succeeded | failed | cancelled | interrupted
    queued → failed when the run that is waited for did not succeed (``training.runs.dependencies``)
    stopping lies on the way to cancelled; interrupted, failed and cancelled go back to queued by ``resume``

Every step is a compare-and-swap on the state, so a process that reports its own end and a worker that finds it
dead cannot both be right: whoever comes second changes nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from feedback.database.engine import Database
from feedback.errors import (
    Conflict,
    DatabaseUnavailable,
    InvalidInput,
    StudioError,
    UnknownSetting,
)
from feedback.store.models.runs import find_run, get_run, save_run, transition_run
from feedback.tables import RunRow
from feedback.types import MAX_PRIORITY, Run, RunState, now, reject_bool
from training.home import Home
from training.methods import METHODS
from training.runs.dependencies import check_after, promised_names
from training.runs.lifecycle import may_precede
from training.runs.validation import _check_libraries, _check_name, _check_references
from training.settings.parsing import parse_settings

# How long who waits for a run waits for a database that is locked or away.
AWAY_SECONDS = 120.0


def submit(
    db: Database,
    method: str,
    config: dict[str, Any],
    *,
    priority: int = 0,
    after: str | None = None,
    home: Home | None = None,
    run_id: str | None = None,
) -> RunRow:
    """Queue a run after checking all that can be known now: the method, its settings, what they refer to.

    A policy left out is filled in with the present champion, so that a promotion while the run waits does not
    change what was asked for. ``after`` names a run that must succeed first, and whose product may be referred to;
    both it and ``priority`` (higher begins first) may also stand in ``config``. With ``home``, a name is also refused
    for what lies there and is not in the database. With a ``run_id`` of its own a run is queued once: asked again, the
    run that is there is returned.
    """
    if run_id is not None and (there := find_run(db, run_id)) is not None:
        return there
    if method not in METHODS:
        raise UnknownSetting(f"There is no method {method!r}. Valid: {', '.join(sorted(METHODS))}.")
    config = dict(config)
    after, asked = config.pop("after", None) or after, config.pop("priority", None)
    priority = _priority(priority if asked is None else asked)
    if not isinstance(after, str | None):
        raise InvalidInput(f"after={after!r:.40} is not the id of a run; `studio runs list` shows them.")
    before = check_after(db, after)
    settings = parse_settings(method, {name: value for name, value in config.items() if value is not None})
    # As understood, not as typed: a command line says "3" where 3 is meant.
    config = settings.model_dump(mode="json", include=set(config), exclude_none=True)
    promised = promised_names(db, before)
    config |= _check_references(db, settings, promised)
    _check_name(db, home, settings, promised)
    _check_libraries(settings)
    waits = f"waits for {before.id}" if before is not None and before.state is not RunState.succeeded else ""
    run = Run(method=method, config=config, priority=priority, after=before.id if before else None, progress_text=waits)
    return save_run(db, run, run_id)


def cancel(db: Database, run_id: str) -> RunRow:
    """End a waiting run at once; ask an active one to stop. Cancelling twice, or too late, is a Conflict."""
    ended = {"ended_at": now(), "progress_text": RunState.cancelled.value}
    run = transition_run(db, run_id, expected=[RunState.queued], to=RunState.cancelled, **ended) or transition_run(
        db,
        run_id,
        expected=[RunState.starting, RunState.running],
        to=RunState.stopping,
        progress_text="stopping",
    )
    if run is not None:
        return run
    run = get_run(db, run_id)
    if run.state is RunState.stopping:
        return run
    raise Conflict(f"Run {run.id} is {run.state.value} already; only a waiting or working run can be cancelled.")


def resume(db: Database, home: Home, run_id: str) -> RunRow:
    """Queue an ended run again under the same id; it goes on from its last checkpoint if it left one."""
    ended = get_run(db, run_id)
    run = transition_run(
        db,
        run_id,
        expected=may_precede(RunState.queued),
        to=RunState.queued,
        attempt=ended.attempt + 1,
        error=None,
        result={},
        pid=None,
        pid_started=None,
        host=None,
        started_at=None,
        ended_at=None,
        heartbeat_at=None,
        progress_text="",
    )
    if run is None:
        raise Conflict(
            f"Run {run_id} is {get_run(db, run_id).state.value}; "
            "only a failed, cancelled or interrupted run can be resumed."
        )
    _note(home, run)
    return run


def wait(
    db: Database,
    run_id: str,
    *,
    on_change: Callable[[RunRow], None] | None = None,
    on_poll: Callable[[], None] | None = None,
    timeout: float | None = None,
    poll_seconds: float = 0.2,
) -> RunRow:
    """Block until a run has ended, calling ``on_change`` whenever its state or progress moved.

    ``on_poll`` is called at every look: a waiting command sees to its worker there. Raises StudioError when
    ``timeout`` seconds pass first; the run itself goes on. A database that is locked or away is waited for: a run
    takes hours, and a server is restarted in less than ``AWAY_SECONDS``.
    """
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    seen: tuple[Any, ...] | None = None
    while True:
        run = _seen(db, run_id)
        present = (run.state, run.progress, run.progress_text)
        if present != seen and on_change is not None:
            on_change(run)
        seen = present
        if run.state.is_terminal:
            return run
        if on_poll is not None:
            on_poll()
        if time.monotonic() >= deadline:
            raise StudioError(
                f"Run {run_id} is still {run.state.value} after {timeout:g} s and goes on; "
                f"see `studio runs show {run_id}`."
            )
        time.sleep(poll_seconds)


def _seen(db: Database, run_id: str) -> RunRow:
    """A run as it is, once the database can be read."""
    deadline = time.monotonic() + AWAY_SECONDS
    while True:
        try:
            return get_run(db, run_id)
        except DatabaseUnavailable:
            if time.monotonic() >= deadline:
                raise
            time.sleep(1.0)


def _priority(given: Any) -> int:
    try:
        number = int(reject_bool(given))
        if number != float(given) or abs(number) > MAX_PRIORITY:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(
            f"priority={given!r:.40} is not a whole number from {-MAX_PRIORITY} to {MAX_PRIORITY}; "
            "higher begins first, 0 is usual."
        ) from None
    return number


def _note(home: Home, run: RunRow) -> None:
    log = home.log_path(run.id)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as lines:
        lines.write(f"{now():%Y-%m-%d %H:%M:%S} resumed: attempt {run.attempt}\n")
