"""The scheduler of one home: ``python -m training.worker --home DIR``.

One turn of its loop: end what was cancelled, find what died, claim the next queued run and start a fresh process
for it, as many at a time as its launcher has room for. Once a second it advances the rounds under way. The worker
holds no state of its own, so killing it loses nothing: runs go on by themselves, and the next worker adopts them.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from feedback.database.engine import Database
from feedback.errors import StudioError
from feedback.store.models.rounds import list_recipes
from feedback.store.models.runs import claim_next_run, get_run, list_runs, transition_run, update_run
from feedback.tables import RunRow
from feedback.types import RecipeState, RunState, now
from training.home import Home
from training.private_files import keep_private
from training.runs.dependencies import give_up_waiting
from training.runs.launch import Launched, Launcher, Urgency
from training.runs.launch.local import LocalLauncher, is_alive, started_at
from training.runs.launch.registry import lock_details, target_named_in
from training.runs.launch.target import Target
from training.runs.lifecycle import ACTIVE, advance, reconcile

TURN_SECONDS = 0.25
ROUND_SECONDS = 1.0  # between looks at the rounds under way
# A run asked to stop has this long to reach a step boundary by itself, then this long to heed SIGTERM.
GRACE_SECONDS = 5.0
TERM_SECONDS = 2.0


@dataclass
class _Stopping:
    """A run that was asked to stop, as it was then, and when that was heard of."""

    run: RunRow
    since: float


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
        self._looked_at_rounds = -math.inf

    def turn(self, at: float | None = None) -> None:
        """End the cancelled, find the dead, advance rounds, start the next; ``at`` is the monotonic clock."""
        at = time.monotonic() if at is None else at
        self._end_cancelled(at)
        for run in reconcile(self.db):
            say(f"{run.id} is {run.state.value}: {run.error or 'its process is gone'}")
            # A leader that was killed may leave helpers of its own behind; another machine's pid means nothing here.
            if self.launcher.owns(self.db, run):
                self.launcher.end(run, Urgency.kill)
        for run in give_up_waiting(self.db):
            say(f"{run.id} is {run.state.value}: {run.error}")
        owned = [run for run in list_runs(self.db, states=ACTIVE) if self.launcher.owns(self.db, run)]
        for run in owned:
            self._look_after(run)
        self._advance_rounds(at)
        if len(owned) < self.launcher.at_once:
            self._launch_next()
        self.launcher.tend()

    def _advance_rounds(self, at: float) -> None:
        if at - self._looked_at_rounds < ROUND_SECONDS or not list_recipes(self.db, states=[RecipeState.active]):
            return
        from training.rounds.advance import advance_recipes  # scipy and more, which a worker without rounds spares

        self._looked_at_rounds = at
        advance_recipes(self.db, self.home, say)

    def _launch_next(self) -> None:
        # Looking first keeps an idle worker from taking the write lock four times a second.
        if not list_runs(self.db, states=[RunState.queued], limit=1) or not self.launcher.is_ready():
            return
        run = claim_next_run(self.db, started_at=now(), host=self.launcher.host, heartbeat_at=now())
        if run is None:
            return
        try:
            launched = self.launcher.launch(run)
        except Exception as error:  # one run that cannot start must not stall those behind it
            say(f"{run.id} could not be launched: {type(error).__name__}: {error}")
            reason = str(error).rstrip(".")
            advance(self.db, run.id, RunState.failed, error=f"The run could not be launched: {reason}.")
            return
        if launched is not None:
            update_run(self.db, run.id, pid=launched.pid, pid_started=launched.pid_started)
        where = f"process {launched.pid}" if launched is not None else f"the care of {run.host}"
        say(f"{run.id} ({run.method}, attempt {run.attempt}) is in {where}")

    def _look_after(self, run: RunRow) -> None:
        """Beat for a run that waits for its process to begin; write the end of one that went without a word."""
        if run.state is RunState.stopping:
            return
        observation = self.launcher.watch(run)
        if observation is None:
            return
        if observation.gone:
            self._record_end(run, observation.gone)
        elif observation.waits:
            waiting = {"heartbeat_at": now(), "progress_text": observation.waits}
            transition_run(self.db, run.id, expected=[RunState.starting], to=RunState.starting, **waiting)

    def _record_end(self, run: RunRow, last_words: str) -> None:
        fresh = get_run(self.db, run.id)
        if fresh.attempt != run.attempt or fresh.state not in (RunState.starting, RunState.running):
            return  # it said its own end meanwhile, or was asked to stop, or is somebody else's by now
        # One that never began has nothing to go on from: there is a cause to remove first.
        began = fresh.state is RunState.running
        to, text = (RunState.interrupted, fresh.progress_text) if began else (RunState.failed, "")
        ended = {"ended_at": now(), "error": last_words, "progress_text": text}
        if transition_run(self.db, run.id, expected=[fresh.state], to=to, **ended):
            say(f"{run.id} is {to.value}: {last_words}")

    def _end_cancelled(self, at: float) -> None:
        """Take up runs newly asked to stop, and press on with each until nothing of it lives."""
        for run in list_runs(self.db, states=[RunState.stopping]):
            if self.launcher.owns(self.db, run):
                self._stopping.setdefault(run.id, _Stopping(run, since=at))
        for stopping in list(self._stopping.values()):
            self._escalate(stopping.run, at - stopping.since)

    def _escalate(self, run: RunRow, waited: float) -> None:
        """Ask, then terminate, then kill; ``cancelled`` is written when nothing of the run lives."""
        pressing = waited >= self._grace
        urgency = Urgency.kill if waited >= self._term else Urgency.terminate if pressing else Urgency.asked
        if not self.launcher.end(run, urgency):
            return
        del self._stopping[run.id]
        # A process that reported its own end meanwhile wins; then there is nothing to write.
        if get_run(self.db, run.id).state is RunState.stopping and advance(self.db, run.id, RunState.cancelled):
            say(f"{run.id} is cancelled; nothing of it is left")


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
        except StudioError as error:
            failures += 1
            say(f"this turn failed ({failures} in a row): {error}")
        except Exception:
            failures += 1
            say(f"this turn failed ({failures} in a row)")
            traceback.print_exc()
        stop.wait(min(TURN_SECONDS * 2**failures, 10.0))
    return "told to stop"


def run_worker(
    home: Home,
    *,
    standby: bool = True,
    target: Target | None = None,
    owner: str = "command",
    parent_pid: int | None = None,
) -> None:
    """Serve a home until SIGTERM, Ctrl-C, or the end of ``parent_pid``; HomeInUse if another worker does.

    Runs go to ``target`` if there is one, else they are processes of this machine. ``owner`` is written beside the
    lock: ``up`` marks a worker that ``studio up`` may stop when it ends.
    """
    if target is not None:
        target.check(home)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    parent = Launched(parent_pid, started_at(parent_pid)) if parent_pid is not None else None
    home.create()
    with home.lock_worker(owner=owner, began=now().isoformat(), **lock_details(target)):
        db = home.open()
        launcher = target.launcher(home, say) if target else LocalLauncher(home, standby=standby)
        say(f"working for {home.path}" + (f", on {target.words}" if target else ""))
        try:
            say("ends: " + serve(Worker(home, db, launcher), stop, parent=parent))
        finally:
            launcher.close()
            db.dispose()


def say(line: str) -> None:
    """Write a line, with the time, to the worker's log."""
    print(f"{now():%Y-%m-%d %H:%M:%S} worker: {line}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """The worker's command line; where its runs go is named by the environment alone."""
    parser = argparse.ArgumentParser(prog="training.worker", description="Execute the queued runs of one home.")
    parser.add_argument("--home", type=Path)
    parser.add_argument("--database-url")
    parser.add_argument("--no-standby", action="store_true", help="keep no process with torch loaded")
    parser.add_argument("--owner", default="command", help=argparse.SUPPRESS)
    parser.add_argument("--parent-pid", type=int, help="end when this process does")
    options = parser.parse_args(arguments)
    keep_private()
    try:
        run_worker(
            Home.locate(options.home, options.database_url),
            standby=not options.no_standby,
            target=target_named_in(),
            owner=options.owner,
            parent_pid=options.parent_pid,
        )
    except StudioError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
