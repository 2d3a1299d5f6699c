"""The process of one run: ``python -m training.execute --home DIR --run ID``.

It says who it is, does what the method does, and reports its end exactly once. With ``--standby`` it first
imports the heavy libraries, then waits on standard input for the id of the one run it will execute; end of
input without an id means that its worker is gone, and so is the reason to wait. With ``--ticket FILE`` it works for a
worker of another machine, which laid down there what it must know.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from feedback.database.engine import Database
from feedback.errors import (
    DatabaseUnavailable,
    RunCancelled,
    StudioError,
)
from feedback.files import atomic_write
from feedback.store.content.prompts import list_prompts
from feedback.store.models.runs import get_run
from feedback.tables import RunRow
from feedback.types import RunState, Split, now
from training.failures import explain, kind_of
from training.home import Home
from training.methods import METHODS
from training.preloading import leave_when_alone, preload, quiet_libraries, use_huge_pages
from training.private_files import keep_private
from training.reporting.progress import Progress
from training.reporting.reporter import DryRunDone, RunContext, Watch
from training.runs.launch.local import started_at, this_host
from training.runs.launch.ticket import Ticket, take_ticket
from training.runs.lifecycle import advance
from training.settings.parsing import parse_settings
from training.trainer import distributed

DATABASE_PATIENCE_SECONDS = 120.0
SAMPLE_PROMPTS = 3

ResultT = TypeVar("ResultT")


class Terminated(BaseException):
    """SIGTERM arrived. Not an Exception, so that no method swallows it."""


def main(arguments: list[str] | None = None) -> int:
    """Execute one run, or stand by for one; the exit status only matters to people reading logs."""
    parser = argparse.ArgumentParser(prog="training.execute")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--database-url")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run")
    which.add_argument("--standby", action="store_true")
    parser.add_argument("--follow", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--ticket", type=Path, help="what a job away from its worker is handed; used up by reading it")
    options = parser.parse_args(arguments)
    keep_private()
    quiet_libraries()
    use_huge_pages()
    if options.ticket:
        return work_away(options.home, options.run, options.ticket)
    home = Home.locate(options.home, options.database_url)
    run_id = stand_by(home) if options.standby else options.run
    if not run_id:
        return 0
    try:
        db = open_patiently(home)
    except StudioError as error:
        log_line(str(error))
        return 1
    try:
        if options.follow:
            return 0 if follow(db, home, run_id) else 1
        return 0 if execute(db, home, run_id) else 1
    finally:
        db.dispose()


def work_away(path: Path, run_id: str, ticket_file: Path) -> int:
    """Execute a run for a worker of another machine.

    What goes wrong before the run's log and the database are at hand is said in one line of standard error, which
    the worker finds at the place where it submitted the job.
    """
    try:
        ticket = take_ticket(ticket_file)
        home = Home(path, ticket.database_url)
        db = open_patiently(home)
    except StudioError as error:
        print(error, file=sys.stderr)
        return 1
    try:
        write_to_log(home, run_id)
        return 0 if execute(db, home, run_id, ticket) else 1
    finally:
        db.dispose()


def open_patiently(home: Home) -> Database:
    """The database of a run: waited for while it is locked or away, at the start and at every later use."""
    db = retry_on_busy(home.open)
    db.patience = DATABASE_PATIENCE_SECONDS
    return db


def stand_by(home: Home) -> str:
    """Import what runs need, then wait for a run's id; from then on output goes to that run's log."""
    complaint = preload(leave_when_alone)
    run_id = sys.stdin.readline().strip()
    if not run_id:
        return ""
    write_to_log(home, run_id)
    if complaint:
        print(f"{now():%Y-%m-%d %H:%M:%S} while standing by: {complaint}", flush=True)
    return run_id


def write_to_log(home: Home, run_id: str) -> None:
    """Let all that this process says from now on stand in the run's log, and let it hear nothing."""
    log = home.log_path(run_id)
    log.parent.mkdir(parents=True, exist_ok=True)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(output)
    os.close(nothing)


def execute(db: Database, home: Home, run_id: str, ticket: Ticket | None = None) -> bool:
    """Do one run from ``starting`` to its end; False when it did not succeed or was not ours to do."""
    signal.signal(signal.SIGTERM, _raise_terminated)
    run = begin(db, run_id, ticket)
    if run is None:
        return False
    log_line(f"attempt {run.attempt} of {run.method} begins, pid {os.getpid()}")
    try:
        with Progress(db, home, run_id) as progress:
            result = _work(db, home, run, progress)
    except BaseException as error:
        # From here on a second SIGTERM must not keep the end from being written.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end_badly(db, run, error)
        return False
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _end(db, run_id, RunState.succeeded, result=result, progress=1.0, progress_text="done", error=None)
    return True


def follow(db: Database, home: Home, run_id: str) -> bool:
    """Take the steps of a run beside the process that leads it, and leave; False when that failed."""
    distributed.follow_leader()
    run = get_run(db, run_id)
    settings = distributed.follower_settings(parse_settings(run.method, run.config))
    watch = Watch(dry_run=getattr(settings, "dry_run", False))
    try:
        distributed.join(distributed.meeting_place())
        METHODS[run.method].run(
            RunContext(run=run, settings=settings, db=db, home=home, progress=distributed.Follower(watch))
        )
    except distributed.Followed:
        return True
    except Exception as error:
        log_line(f"process {distributed.rank() + 1} of the run failed: {type(error).__name__}: {error}")
        traceback.print_exception(error)
    return False


def begin(db: Database, run_id: str, ticket: Ticket | None = None) -> RunRow | None:
    """Take the run over as this process; None when it was cancelled, given up or begun anew meanwhile."""
    if ticket is not None and retry_on_busy(lambda: get_run(db, run_id)).attempt != ticket.attempt:
        log_line(f"run {run_id} is at another attempt than {ticket.attempt}: nothing to do")
        return None
    identity: dict[str, Any] = {
        "pid": os.getpid(),
        "pid_started": started_at(os.getpid()),
        "host": ticket.host if ticket is not None else this_host(),
        "heartbeat_at": now(),
    }
    run = retry_on_busy(lambda: advance(db, run_id, RunState.running, progress=0.0, progress_text="", **identity))
    if run is not None:
        return run
    run = get_run(db, run_id)
    if run.state is RunState.stopping:
        _end(db, run_id, RunState.cancelled)
    else:
        log_line(f"run {run_id} is {run.state.value}, not starting: nothing to do")
    return None


def log_line(line: str) -> None:
    """Write a line, with the time, to the run's log; on a full disk the line is lost and the run goes on."""
    with contextlib.suppress(OSError):
        print(f"{now():%Y-%m-%d %H:%M:%S} {line}", flush=True)


def retry_on_busy(act: Callable[[], ResultT], patience: float = DATABASE_PATIENCE_SECONDS) -> ResultT:
    """Call ``act``, a database operation that must not be lost, again while the database is locked or unreachable."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return act()
        except Exception as error:
            lasting = isinstance(error, StudioError) and not isinstance(error, DatabaseUnavailable)
            if lasting or time.monotonic() >= deadline:
                raise
            log_line(f"the database cannot be written ({type(error).__name__}); trying again")
            time.sleep(1.0)


def _work(db: Database, home: Home, run: RunRow, progress: Progress) -> dict[str, Any]:
    settings = parse_settings(run.method, run.config)
    _write_spec(home, run, settings.model_dump(mode="json"))
    progress.report(0.0, "loading")
    progress.watch = replace(watch_of(db, settings), mirror=home.run_dir(run.id) / "tensorboard")
    context = RunContext(run=run, settings=settings, db=db, home=home, progress=progress)
    _check_same_start(context)
    try:
        with distributed.sharing(home, run.id, getattr(settings, "ranks", 1), partial(_end_for_the_dead, db, run)):
            result = METHODS[run.method].run(context)
    except DryRunDone as done:
        shutil.rmtree(context.run_dir / "trainer", ignore_errors=True)
        result = done.figures
    return json.loads(json.dumps(result))


def _check_same_start(context: RunContext) -> None:
    from training.runs.same_start import check_same_start  # brings the models' modules along

    check_same_start(context)


def watch_of(db: Database, settings: Any) -> Watch:
    """What the settings ask to be shown beside the curves; sample prompts are the first of those held out."""
    every = getattr(settings, "sample_every", None) or 0
    rows = list_prompts(db, split=Split.evaluation, limit=SAMPLE_PROMPTS) if every else []
    if every and not rows:
        rows = list_prompts(db, limit=SAMPLE_PROMPTS)
    return Watch(every, tuple(row.messages for row in rows), getattr(settings, "dry_run", False))


def _write_spec(home: Home, run: RunRow, settings: dict[str, Any]) -> None:
    spec = {"id": run.id, "method": run.method, "attempt": run.attempt, "config": run.config, "settings": settings}
    with atomic_write(home.run_dir(run.id) / "spec.json") as file:
        file.write(f"{json.dumps(spec, indent=2, ensure_ascii=False)}\n".encode())


def _end_badly(db: Database, run: RunRow, error: BaseException) -> None:
    state = retry_on_busy(lambda: get_run(db, run.id)).state
    stopping = state is RunState.stopping
    if isinstance(error, RunCancelled | Terminated) and stopping:
        _end(db, run.id, RunState.cancelled)
        return
    if isinstance(error, RunCancelled):
        log_line(f"stopped: the run is {state.value}, its end was already written by somebody else")
        return
    if isinstance(error, Terminated | KeyboardInterrupt):
        reason = f"The process was asked to end by the system; resume it with `studio runs resume {run.id}`."
        _end(db, run.id, RunState.interrupted, error=reason)
        return
    if not isinstance(error, StudioError):  # those say all there is to say in their sentence
        with contextlib.suppress(OSError):
            traceback.print_exception(error)
    reason = explain(error, _settings_of(run))
    if stopping:
        _end(db, run.id, RunState.cancelled, error=reason)
        return
    _end(db, run.id, RunState.failed, error=reason, result={"failure": kind_of(error)})


def _end_for_the_dead(db: Database, run: RunRow, words: str) -> None:
    """End a run that waits for a process that is gone: nothing in this one can be told any more."""
    _end(db, run.id, RunState.failed, error=f"{words} Resume it with `studio runs resume {run.id}`.")
    os._exit(1)


def _end(db: Database, run_id: str, to: RunState, **changes: Any) -> None:
    """Write the end; whoever wrote one before (the worker, finding us dead) is not contradicted."""
    ended = retry_on_busy(lambda: advance(db, run_id, to, heartbeat_at=now(), **changes))
    if ended is None:
        # Stopping may have been asked for between our last look and now.
        if retry_on_busy(lambda: get_run(db, run_id)).state is RunState.stopping:
            retry_on_busy(lambda: advance(db, run_id, RunState.cancelled, **{**changes, "heartbeat_at": now()}))
        else:
            log_line(f"the end of the run ({to.value}) was already written by somebody else")
            return
    log_line(f"ended: {to.value}" + (f": {changes['error']}" if changes.get("error") else ""))


def _settings_of(run: RunRow) -> dict[str, Any]:
    """The settings with their defaults; what was asked for, when that is what is wrong with the run."""
    try:
        return parse_settings(run.method, run.config).model_dump()
    except StudioError:
        return run.config


def _raise_terminated(number: int, frame: object) -> None:
    raise Terminated(f"signal {number}")


if __name__ == "__main__":
    sys.exit(main())
