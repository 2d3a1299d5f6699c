from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from feedback.database.engine import Database
from feedback.store.models.policies import list_policies, promote_policy
from feedback.store.models.runs import get_run, list_metrics, save_run, update_run
from feedback.tables import RunRow
from feedback.types import Run, RunState, now
from tests.factories import make_policy
from training.home import Home
from training.runs import queue as runs
from training.runs.launch import Launched
from training.runs.launch.local import LocalLauncher, is_alive, started_at
from training.worker import Worker, serve

PRETEND = str(Path(__file__).with_name("pretend.py"))
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path).create()


@pytest.fixture
def launchers(home: Home) -> Iterator[Callable[..., LocalLauncher]]:
    """Launchers of pretended runs; whatever they left alive is killed at the end."""
    made: list[LocalLauncher] = []

    def make(behaviour: str, *, standby: bool = False, at: Home = home) -> LocalLauncher:
        made.append(LocalLauncher(at, standby=standby, command=(sys.executable, PRETEND, behaviour)))
        return made[-1]

    yield make
    for launcher in made:
        launcher.close()
        for child in launcher._children:
            if child.poll() is None:
                child.kill()
            child.wait()


def queue(db: Database) -> RunRow:
    if not list_policies(db):
        promote_policy(db, make_policy(db, "champion-1").id)
    return runs.submit(db, "generate", {})


def turn_until(worker: Worker, true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never happened"
        worker.turn()
        time.sleep(0.05)


def ended(db: Database, run: RunRow) -> Callable[[], bool]:
    return lambda: get_run(db, run.id).state.is_terminal


def is_at_step(db: Database, run: RunRow) -> Callable[[], bool]:
    return lambda: get_run(db, run.id).state is RunState.running and bool(list_metrics(db, run.id))


def test_runs_come_one_at_a_time_in_order(db: Database, home: Home, launchers: Callable[..., LocalLauncher]) -> None:
    first, second = queue(db), queue(db)
    worker = Worker(home, db, launchers("quick"))
    worker.turn()
    assert get_run(db, first.id).state is not RunState.queued and get_run(db, first.id).pid is not None
    assert get_run(db, second.id).state is RunState.queued
    turn_until(worker, ended(db, second))
    one, two = get_run(db, first.id), get_run(db, second.id)
    assert one.state is two.state is RunState.succeeded
    assert one.pid != two.pid
    assert one.ended_at is not None and two.started_at is not None and one.ended_at <= two.started_at
    assert "hello from the run" in home.log_path(first.id).read_text()


def test_a_run_that_cannot_be_launched_fails_and_the_next_one_starts(
    db: Database, home: Home, launchers: Callable[..., LocalLauncher]
) -> None:
    broken, fine = queue(db), queue(db)
    home.log_path(broken.id).mkdir(parents=True)  # a directory where the log should be
    worker = Worker(home, db, launchers("quick"))
    turn_until(worker, ended(db, fine))
    assert get_run(db, broken.id).state is RunState.failed
    assert "could not be launched" in str(get_run(db, broken.id).error)
    assert get_run(db, fine.id).state is RunState.succeeded


def test_a_killed_run_is_interrupted_the_next_starts_and_it_resumes(
    db: Database, home: Home, launchers: Callable[..., LocalLauncher]
) -> None:
    first, second = queue(db), queue(db)
    worker = Worker(home, db, launchers("steps"))
    turn_until(worker, is_at_step(db, first))
    os.kill(get_run(db, first.id).pid or 0, signal.SIGKILL)
    turn_until(worker, lambda: get_run(db, second.id).state is RunState.running)
    assert get_run(db, first.id).state is RunState.interrupted
    runs.cancel(db, second.id)
    turn_until(worker, ended(db, second))
    runs.resume(db, home, first.id)
    successor = Worker(home, db, launchers("quick"))
    turn_until(successor, ended(db, first))
    assert get_run(db, first.id).state is RunState.succeeded and get_run(db, first.id).result == {"done": 2}


def test_a_run_that_listens_stops_at_a_step(db: Database, home: Home, launchers: Callable[..., LocalLauncher]) -> None:
    run = queue(db)
    worker = Worker(home, db, launchers("steps"))
    turn_until(worker, is_at_step(db, run))
    runs.cancel(db, run.id)
    turn_until(worker, ended(db, run), seconds=10)
    assert get_run(db, run.id).state is RunState.cancelled
    assert "ended: cancelled" in home.log_path(run.id).read_text()


def test_a_deaf_run_is_killed_with_its_children(
    db: Database, home: Home, launchers: Callable[..., LocalLauncher]
) -> None:
    run = queue(db)
    worker = Worker(home, db, launchers("deaf"), grace_seconds=0.5, term_seconds=0.5)
    child_file = home.run_dir(run.id) / "child"
    turn_until(worker, child_file.exists)
    turn_until(worker, lambda: bool(child_file.read_text()))
    leader, child = get_run(db, run.id).pid or 0, int(child_file.read_text())
    runs.cancel(db, run.id)
    turn_until(worker, ended(db, run), seconds=10)
    assert get_run(db, run.id).state is RunState.cancelled
    for pid in (leader, child):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_stopped_run_can_be_cancelled(db: Database, home: Home, launchers: Callable[..., LocalLauncher]) -> None:
    run = queue(db)
    worker = Worker(home, db, launchers("steps"), grace_seconds=0.5, term_seconds=0.5)
    turn_until(worker, is_at_step(db, run))
    process = psutil.Process(get_run(db, run.id).pid)
    process.suspend()
    worker.turn()
    assert get_run(db, run.id).state is RunState.running  # stopped is not dead
    runs.cancel(db, run.id)
    turn_until(worker, ended(db, run), seconds=10)
    assert get_run(db, run.id).state is RunState.cancelled
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_lost_run_of_another_machine_names_no_process_of_this_one(
    db: Database, home: Home, launchers: Callable[..., LocalLauncher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Database, "is_sqlite", property(lambda self: False))
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    fields = {"host": "other", "pid": bystander.pid, "pid_started": started_at(bystander.pid)}
    run = save_run(db, Run(method="dpo", state=RunState.running, **fields))
    update_run(db, run.id, heartbeat_at=now() - timedelta(minutes=3))
    Worker(home, db, launchers("quick")).turn()
    assert get_run(db, run.id).state is RunState.interrupted
    with pytest.raises(subprocess.TimeoutExpired):
        bystander.wait(0.5)
    bystander.communicate(b"\n")


def test_children_of_a_killed_leader_do_not_survive(
    db: Database, home: Home, launchers: Callable[..., LocalLauncher]
) -> None:
    run = queue(db)
    worker = Worker(home, db, launchers("deaf"))
    child_file = home.run_dir(run.id) / "child"
    turn_until(worker, lambda: child_file.exists() and bool(child_file.read_text()))
    child = int(child_file.read_text())
    os.kill(get_run(db, run.id).pid or 0, signal.SIGKILL)
    turn_until(worker, ended(db, run))
    assert get_run(db, run.id).state is RunState.interrupted
    turn_until(worker, lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


def test_a_new_worker_adopts_what_the_old_one_started(
    db: Database, home: Home, launchers: Callable[..., LocalLauncher]
) -> None:
    run, waiting = queue(db), queue(db)
    turn_until(Worker(home, db, launchers("steps")), is_at_step(db, run))
    successor = Worker(home, db, launchers("quick"))
    successor.turn()
    assert get_run(db, run.id).state is RunState.running and get_run(db, waiting.id).state is RunState.queued
    runs.cancel(db, run.id)
    turn_until(successor, ended(db, waiting))
    assert get_run(db, run.id).state is RunState.cancelled


def test_a_standby_serves_one_run_and_the_next_follows(
    db: Database, home: Home, launchers: Callable[..., LocalLauncher]
) -> None:
    launcher = launchers("quick", standby=True)
    worker = Worker(home, db, launcher)
    worker.turn()
    ready = launcher.standby_pid
    assert ready is not None
    run = queue(db)
    turn_until(worker, ended(db, run))
    assert get_run(db, run.id).state is RunState.succeeded and get_run(db, run.id).pid == ready
    assert launcher.standby_pid not in (None, ready)
    launcher.close()
    assert launcher.standby_pid is None


def test_a_dead_standby_is_no_obstacle(db: Database, home: Home, launchers: Callable[..., LocalLauncher]) -> None:
    launcher = launchers("quick", standby=True)
    worker = Worker(home, db, launcher)
    worker.turn()
    pid = launcher.standby_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid)], timeout=30)  # a kill is heeded a moment after it is sent
    run = queue(db)
    turn_until(worker, ended(db, run))
    assert get_run(db, run.id).state is RunState.succeeded and get_run(db, run.id).pid != pid


def test_no_process_shows_the_database_url_in_its_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launchers: Callable[..., LocalLauncher]
) -> None:
    monkeypatch.setenv("STUDIO_DATABASE_URL", f"sqlite:///{tmp_path / 'wrong.db'}")
    elsewhere = Home(tmp_path / "elsewhere", f"sqlite:///{tmp_path / 'secret.db'}")
    db, launcher = elsewhere.open(), launchers("steps", standby=True, at=elsewhere)
    worker, shown = Worker(elsewhere, db, launcher), []
    for _ in ("cold", "handed to the standby"):
        run = queue(db)
        turn_until(worker, is_at_step(db, run))  # so it found this database, and not that of its parent's environment
        shown.append(psutil.Process(launcher.standby_pid).cmdline())
        shown.append(psutil.Process(get_run(db, run.id).pid).cmdline())
        runs.cancel(db, run.id)
        turn_until(worker, ended(db, run))
    assert not [arguments for arguments in shown if "secret" in " ".join(arguments)]
    assert not (tmp_path / "wrong.db").exists()
    db.dispose()


def test_a_stranger_with_a_reused_pid_is_left_alone(home: Home, launchers: Callable[..., LocalLauncher]) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    claimed = Launched(stranger.pid, psutil.Process(stranger.pid).create_time() - 100)
    launcher = launchers("quick")
    assert launcher.survivors(claimed) == []
    launcher.signal(claimed, signal.SIGKILL)
    assert stranger.poll() is None and not is_alive(*claimed)
    stranger.communicate(b"\n")


def test_a_failing_turn_is_told_and_tried_again(
    db: Database, home: Home, launchers: Callable[..., LocalLauncher], capfd: pytest.CaptureFixture[str]
) -> None:
    worker = Worker(home, db, launchers("quick"))
    stop, turns = threading.Event(), iter(range(10))

    def turn(at: float | None = None) -> None:
        if next(turns) == 0:
            raise RuntimeError("database is locked")
        stop.set()

    worker.turn = turn  # type: ignore[method-assign]
    assert serve(worker, stop) == "told to stop"
    assert "this turn failed (1 in a row)" in capfd.readouterr().out


def test_a_worker_ends_with_its_home_or_with_whom_it_works_for(
    db: Database, home: Home, launchers: Callable[..., LocalLauncher]
) -> None:
    worker = Worker(home, db, launchers("quick"))
    gone = Launched(os.getpid(), 1.0)
    assert "is gone" in serve(worker, threading.Event(), parent=gone)
    home.database_file.unlink()
    assert serve(worker, threading.Event()) == f"{home.path} is gone"
