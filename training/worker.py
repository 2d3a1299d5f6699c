"""The scheduler of one home: ``python -m training.worker --home DIR``.

One turn of its loop: end what was cancelled, find what died, claim the next queued run and start a fresh process
for it. One run works at a time: they share one processor or one GPU. The worker holds no state of its own, so
killing it loses nothing: runs go on by themselves, and the next worker adopts them.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from feedback.db import Database
from feedback.errors import StudioError
from feedback.store.runs import claim_next_run, get_run, list_runs, update_run
from feedback.tables import RunRow
from feedback.types import RunState, now
from training.dependencies import give_up_waiting
from training.home import Home
from training.launch import Launched, Launcher
from training.launch.local import LocalLauncher, is_alive, started_at
from training.runs import ACTIVE, advance, is_here, reconcile, this_host

TURN_SECONDS = 0.25
# A run asked to stop has this long to reach a step boundary by itself, then this long to heed SIGTERM.
GRACE_SECONDS = 5.0
TERM_SECONDS = 2.0


@dataclass
class _Stopping:
    """How far the ending of one cancelled run has got."""

    launched: Launched
    since: float
    sent: list[int] = field(default_factory=list)


class Worker:
    """Turns the queue of one home. ``turn`` does one round, so that tests can step it."""

    def __init__(
        self,
        home: Home,
        db: Database,
        launcher: Launcher,
        *,
        grace_seconds: float = GRACE_SECONDS,
        term_seconds: float = TERM_SECONDS,
    ) -> None:
        self.home = home
        self.db = db
        self.launcher = launcher
        self._grace = grace_seconds
        self._term = grace_seconds + term_seconds
        self._stopping: dict[str, _Stopping] = {}

    def turn(self, at: float | None = None) -> None:
        """End the cancelled, find the dead, start the next. ``at`` is the monotonic clock, for tests."""
        self._end_cancelled(time.monotonic() if at is None else at)
        for run in reconcile(self.db):
            say(f"{run.id} is {run.state.value}: {run.error or 'its process is gone'}")
            # A leader that was killed may leave helpers of its own behind; another machine's pid means nothing here.
            if is_here(self.db, run) and run.pid is not None and run.pid_started is not None:
                self.launcher.signal(Launched(run.pid, run.pid_started), signal.SIGKILL)
        for run in give_up_waiting(self.db):
            say(f"{run.id} is {run.state.value}: {run.error}")
        if not self._active():
            self._launch_next()
        self.launcher.tend()

    def _active(self) -> list[RunRow]:
        return [run for run in list_runs(self.db, states=ACTIVE) if is_here(self.db, run)]

    def _launch_next(self) -> None:
        # Looking first keeps an idle worker from taking the write lock four times a second.
        if not list_runs(self.db, states=[RunState.queued], limit=1):
            return
        run = claim_next_run(self.db, started_at=now(), host=this_host(), heartbeat_at=now())
        if run is None:
            return
        try:
            launched = self.launcher.launch(run.id)
        except Exception as error:  # one run that cannot start must not stall those behind it
            say(f"{run.id} could not be launched: {type(error).__name__}: {error}")
            advance(self.db, run.id, RunState.failed, error=f"The run could not be launched: {error}.")
            return
        update_run(self.db, run.id, pid=launched.pid, pid_started=launched.pid_started)
        say(f"{run.id} ({run.method}, attempt {run.attempt}) is in process {launched.pid}")

    def _end_cancelled(self, at: float) -> None:
        """Take up runs newly asked to stop, and press on with each until none of its processes lives."""
        for run in list_runs(self.db, states=[RunState.stopping]):
            if is_here(self.db, run) and run.pid is not None and run.pid_started is not None:
                launched = Launched(run.pid, run.pid_started)
                self._stopping.setdefault(run.id, _Stopping(launched, since=at))
        for run_id, state in list(self._stopping.items()):
            self._press(run_id, state, at)

    def _press(self, run_id: str, state: _Stopping, at: float) -> None:
        """Ask, then terminate, then kill; ``cancelled`` is written when nothing of the run lives."""
        waited = at - state.since
        leader_lives = is_alive(*state.launched)
        if leader_lives and waited >= self._grace and signal.SIGTERM not in state.sent:
            state.sent.append(signal.SIGTERM)
            self.launcher.signal(state.launched, signal.SIGTERM)
        if waited >= self._term or not leader_lives:
            self.launcher.signal(state.launched, signal.SIGKILL)
        if self.launcher.survivors(state.launched):
            return
        del self._stopping[run_id]
        # A process that reported its own end meanwhile wins; then there is nothing to write.
        if get_run(self.db, run_id).state is RunState.stopping and advance(self.db, run_id, RunState.cancelled):
            say(f"{run_id} is cancelled; none of its processes is left")


def serve(worker: Worker, stop: threading.Event, *, parent: Launched | None = None) -> str:
    """Turn until told to stop; returns why it stopped.

    A turn that fails (a locked database, a full disk) is told and tried again, ever more slowly. It ends by
    itself when the home was removed, or when the process it works for is gone.
    """
    failures = 0
    while not stop.is_set():
        if not worker.home.is_present():
            return f"{worker.home.path} is gone"
        if parent is not None and not is_alive(*parent):
            return f"process {parent.pid}, for which it worked, is gone"
        try:
            worker.turn()
            failures = 0
        except Exception:
            failures += 1
            say(f"this turn failed ({failures} in a row)")
            traceback.print_exc()
        stop.wait(min(TURN_SECONDS * 2**failures, 10.0))
    return "told to stop"


def run_worker(home: Home, *, standby: bool = True, owner: str = "command", parent_pid: int | None = None) -> None:
    """Serve a home until SIGTERM, Ctrl-C, or the end of ``parent_pid``; HomeInUse if another worker does.

    ``owner`` is written beside the lock: ``up`` marks a worker that ``studio up`` may stop when it ends.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    parent = Launched(parent_pid, started_at(parent_pid)) if parent_pid is not None else None
    home.create()
    with home.lock_worker(owner=owner, began=now().isoformat()):
        db = home.open()
        launcher = LocalLauncher(home, standby=standby)
        say(f"working for {home.path}")
        try:
            say("ends: " + serve(Worker(home, db, launcher), stop, parent=parent))
        finally:
            launcher.close()
            db.dispose()


def say(line: str) -> None:
    """Write a line, with the time, to the worker's log."""
    print(f"{now():%Y-%m-%d %H:%M:%S} worker: {line}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """The worker's command line."""
    parser = argparse.ArgumentParser(prog="training.worker", description="Execute the queued runs of one home.")
    parser.add_argument("--home", type=Path)
    parser.add_argument("--database-url")
    parser.add_argument("--no-standby", action="store_true", help="keep no process with torch loaded")
    parser.add_argument("--owner", default="command", help=argparse.SUPPRESS)
    parser.add_argument("--parent-pid", type=int, help="end when this process does")
    options = parser.parse_args(arguments)
    try:
        run_worker(
            Home.locate(options.home, options.database_url),
            standby=not options.no_standby,
            owner=options.owner,
            parent_pid=options.parent_pid,
        )
    except StudioError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
