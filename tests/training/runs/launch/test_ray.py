"""Runs as jobs of a Ray cluster, against a head that speaks the Jobs API and really starts what it is given."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from feedback.database.engine import Database
from feedback.errors import Conflict, InvalidInput
from feedback.store.models.runs import get_run, save_run, update_run
from feedback.tables import RunRow
from feedback.types import Run, RunState, now
from studio.cli.commands.serve import tell_of_other_worker
from studio.doctor import examine
from studio.worker_keeper import WorkerKeeper, worker_for
from tests.feedback.conftest import postgresql, postgresql_server, postgresql_url  # noqa: F401
from tests.training.ray_head import RayHead
from tests.training.test_worker import ended, is_at_step, queue, turn_until
from training.home import Home
from training.runs import lifecycle
from training.runs import queue as runs
from training.runs.launch import Observation
from training.runs.launch.cluster import RayCluster
from training.runs.launch.local import is_here, this_host
from training.runs.launch.ray import RayLauncher
from training.runs.launch.ray_jobs import ClusterAway, RayJobs
from training.runs.launch.registry import target_asked_for
from training.runs.launch.ticket import Ticket, take_ticket, ticket_path, write_ticket
from training.worker import Worker

PRETEND = str(Path(__file__).parents[2] / "pretend.py")
ROOT = Path(__file__).parents[4]
PASSWORD = "s3cret-word"
REAL = "STUDIO_TEST_RAY"

Launchers = Callable[..., RayLauncher]


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("STUDIO_RAY_", "RAY_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def head(no_settings_of_this_machine: None) -> Iterator[RayHead]:
    head = RayHead()
    head.environment.pop("PYTHONPATH", None)  # a cluster's machine finds the studio as it is told to
    yield head
    head.close()


@pytest.fixture
def db(postgresql: Database) -> Database:  # noqa: F811
    return postgresql


@pytest.fixture
def home(tmp_path: Path, postgresql_url: str) -> Home:  # noqa: F811
    """A home whose database has a password in its URL; the test's server takes any."""
    url = make_url(postgresql_url).set(password=PASSWORD)
    return Home(tmp_path / "home", url.render_as_string(hide_password=False)).create()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def launchers(home: Home, head: RayHead, said: list[str]) -> Iterator[Launchers]:
    made: list[RayLauncher] = []

    def make(*command: str, at_once: int = 4, silent_seconds: float = 0.5) -> RayLauncher:
        cluster = RayCluster(head.address, at_once=at_once)
        command = (sys.executable, PRETEND, *command) if len(command) == 1 else command
        pace = {"poll_seconds": 0.05, "away_seconds": 0.05, "silent_seconds": silent_seconds}
        made.append(RayLauncher(home, cluster, say=said.append, command=command, **pace))
        return made[-1]

    yield make
    for launcher in made:
        launcher.close()


def state_of(db: Database, run: RunRow) -> RunState:
    return get_run(db, run.id).state


def waits_for(db: Database, run: RunRow, words: str) -> Callable[[], bool]:
    return lambda: words in get_run(db, run.id).progress_text


def waiting(db: Database, home: Home, head: RayHead, launchers: Launchers) -> tuple[RunRow, Worker]:
    """A quick run whose job waits for room in the cluster, and its worker."""
    head.room = 0
    run = queue(db)
    worker = Worker(home, db, launchers("quick"))
    turn_until(worker, waits_for(db, run, "waiting for room"))
    return run, worker


def log_of(home: Home, run: RunRow) -> str:
    return home.log_path(run.id).read_text()


def test_a_run_succeeds_as_a_job_that_names_no_password(
    db: Database, home: Home, head: RayHead, launchers: Launchers
) -> None:
    run = queue(db)
    turn_until(Worker(home, db, launchers("quick")), ended(db, run))
    row = get_run(db, run.id)
    assert (row.state, row.result, row.host) == (RunState.succeeded, {"done": 1}, f"ray:{this_host()}")
    assert row.pid is not None and not is_here(db, row)
    assert "hello from the run" in log_of(home, run)
    (request,) = [job.request for job in head.jobs.values()]
    assert list(head.jobs) == [f"{run.id}-1"]
    assert request["metadata"] == {"run": run.id, "method": "generate"}
    assert (request["entrypoint_num_cpus"], request["entrypoint_num_gpus"]) == (1, 0)
    assert "runtime_env" not in request and PASSWORD not in str(head.heard)
    assert not list(home.run_dir(run.id).glob(".ticket*"))  # and none of the URL is left behind


def test_a_submission_whose_answer_was_lost_is_made_once(
    db: Database, home: Home, head: RayHead, launchers: Launchers
) -> None:
    head.loses_answers = True
    run = queue(db)
    turn_until(Worker(home, db, launchers("quick")), ended(db, run))
    assert state_of(db, run) is RunState.succeeded and head.submitted == 1


def test_a_job_that_is_there_already_is_a_success(head: RayHead) -> None:
    head.room = 0
    jobs = RayJobs(head.address)
    for _ in range(2):
        jobs.submit("run-x-1", "exec true", cpus=1, gpus=0, metadata={})
    assert head.submitted == 1
    jobs.close()


def test_a_run_that_waits_for_room_is_spoken_for(db: Database, home: Home, head: RayHead, launchers: Launchers) -> None:
    head.room = 0
    run = queue(db)
    worker = Worker(home, db, launchers("quick"))
    turn_until(worker, waits_for(db, run, "waiting for room in the cluster (1 CPU)"))
    assert state_of(db, run) is RunState.starting and get_run(db, run.id).host == "ray:127.0.0.1"
    long_ago = now() - timedelta(seconds=lifecycle.SILENT_SECONDS - 60)
    update_run(db, run.id, heartbeat_at=long_ago)
    turn_until(worker, lambda: (get_run(db, run.id).heartbeat_at or long_ago) > long_ago)
    assert lifecycle.reconcile(db) == []
    head.room = 1
    turn_until(worker, ended(db, run))
    assert state_of(db, run) is RunState.succeeded


@pytest.mark.slow
@pytest.mark.parametrize("how", ["gave up", "forgot"])
def test_a_run_that_ray_gives_up_or_forgets_before_it_began_is_handed_over_again(
    db: Database, home: Home, head: RayHead, launchers: Launchers, how: str
) -> None:
    run, worker = waiting(db, home, head, launchers)
    if how == "forgot":
        head.jobs.clear()
    else:
        head.give_up(f"{run.id}-1")
    turn_until(worker, lambda: head.submitted == 2)
    head.room = 1
    turn_until(worker, ended(db, run))
    assert state_of(db, run) is RunState.succeeded


def test_what_goes_wrong_before_python_began_is_the_runs_error(
    db: Database, home: Home, head: RayHead, launchers: Launchers
) -> None:
    for command, words in (
        (("/no/such/python", "-m", "training.execute"), "exit code 127"),
        ((sys.executable, "-m", "training.no_such_thing"), "No module named training.no_such_thing"),
    ):
        run = queue(db)
        turn_until(Worker(home, db, launchers(*command)), ended(db, run))
        row = get_run(db, run.id)
        assert row.state is RunState.failed and row.error is not None and words in row.error
        assert row.error.startswith(f"The job {run.id}-1 ended before the run began: ") and "\n" not in row.error
        assert "Running entrypoint" not in row.error and not ticket_path(home, run.id, 1).exists()


def test_a_job_that_ray_refuses_fails_and_the_next_run_begins(
    db: Database, home: Home, head: RayHead, launchers: Launchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, fine = queue(db), queue(db)
    submit = head._submit

    def choose(request: dict[str, Any]) -> Any:
        return (400, "ValueError: no such resource") if refused.id in request["submission_id"] else submit(request)

    monkeypatch.setattr(head, "_submit", choose)
    turn_until(Worker(home, db, launchers("quick")), ended(db, fine))
    row = get_run(db, refused.id)
    assert row.state is RunState.failed and "(HTTP 400): ValueError: no such resource." in str(row.error)
    assert state_of(db, fine) is RunState.succeeded and not ticket_path(home, refused.id, 1).exists()


@pytest.mark.slow
def test_a_killed_process_is_found_and_the_run_resumed(
    db: Database, home: Home, head: RayHead, launchers: Launchers
) -> None:
    run = queue(db)
    worker = Worker(home, db, launchers("steps"))
    turn_until(worker, is_at_step(db, run))
    os.kill(get_run(db, run.id).pid or 0, signal.SIGKILL)
    turn_until(worker, ended(db, run))
    row = get_run(db, run.id)
    assert row.state is RunState.interrupted and row.error is not None
    assert "ended without a word of its own; Ray says: exit code -9" in row.error
    assert f"`studio runs resume {run.id}`" in row.error
    runs.resume(db, home, run.id)
    turn_until(Worker(home, db, launchers("quick")), ended(db, run))
    assert get_run(db, run.id).result == {"done": 2} and list(head.jobs) == [f"{run.id}-1", f"{run.id}-2"]


@pytest.mark.parametrize("meanwhile", [{"attempt": 2}, {"state": RunState.stopping}])
def test_a_run_that_moved_on_while_ray_was_asked_is_not_buried(
    db: Database, home: Home, head: RayHead, launchers: Launchers, meanwhile: dict[str, Any]
) -> None:
    run = save_run(db, Run(method="generate", state=RunState.running, host="ray:node-1", heartbeat_at=now()))
    launcher = launchers("quick")

    def watch(seen: RunRow) -> Observation:
        if "state" in meanwhile:
            runs.cancel(db, seen.id)
        else:
            update_run(db, seen.id, **meanwhile)
        return Observation(gone="Nobody knows it.")

    launcher.watch = watch  # type: ignore[method-assign]
    Worker(home, db, launcher).turn()
    assert state_of(db, run) is meanwhile.get("state", RunState.running) and get_run(db, run.id).error is None


@pytest.mark.slow
def test_a_run_that_beats_is_believed_before_ray(db: Database, home: Home, head: RayHead, launchers: Launchers) -> None:
    run = queue(db)
    worker = Worker(home, db, launchers("steps", silent_seconds=20))
    turn_until(worker, is_at_step(db, run))
    kept, head.jobs = head.jobs, {}  # its head was started anew
    beaten = get_run(db, run.id).heartbeat_at
    turn_until(worker, lambda: get_run(db, run.id).heartbeat_at != beaten)
    asked = len(head.heard)
    turn_until(worker, lambda: len(head.heard) > asked + 3)
    assert state_of(db, run) is RunState.running
    head.jobs = kept
    runs.cancel(db, run.id)
    turn_until(worker, ended(db, run))
    assert state_of(db, run) is RunState.cancelled


@pytest.mark.parametrize("heeds", [True, False])
def test_a_run_that_waits_is_cancelled_at_once_and_its_job_does_nothing(
    db: Database, home: Home, head: RayHead, launchers: Launchers, heeds: bool
) -> None:
    run, worker = waiting(db, home, head, launchers)
    job = head.jobs[f"{run.id}-1"]
    runs.cancel(db, run.id)
    turn_until(worker, ended(db, run))
    assert state_of(db, run) is RunState.cancelled and job.status == "PENDING" and job.stop_asked
    job.stop_asked = heeds
    head.room = 1
    jobs = RayJobs(head.address)
    turn_until(worker, lambda: getattr(jobs.look(f"{run.id}-1"), "is_over", False))
    assert job.status == ("STOPPED" if heeds else "FAILED")
    assert heeds or "this attempt was given up" in jobs.last_words(f"{run.id}-1", jobs.look(f"{run.id}-1") or job)
    assert state_of(db, run) is RunState.cancelled and "begins" not in log_of(home, run)
    jobs.close()


@pytest.mark.slow
def test_a_run_that_listens_ends_by_itself_and_a_deaf_one_through_ray(
    db: Database, home: Home, head: RayHead, launchers: Launchers
) -> None:
    listens = queue(db)
    worker = Worker(home, db, launchers("steps"), grace_seconds=300)
    turn_until(worker, is_at_step(db, listens))
    runs.cancel(db, listens.id)
    turn_until(worker, ended(db, listens))
    assert state_of(db, listens) is RunState.cancelled and "ended: cancelled" in log_of(home, listens)
    assert not [path for _, path, _ in head.heard if path.endswith("/stop")]

    deaf = queue(db)
    worker = Worker(home, db, launchers("deaf"), grace_seconds=0.2, term_seconds=0.2)
    child_file = home.run_dir(deaf.id) / "child"
    turn_until(worker, lambda: child_file.exists() and bool(child_file.read_text()))
    runs.cancel(db, deaf.id)
    turn_until(worker, ended(db, deaf))
    assert state_of(db, deaf) is RunState.cancelled
    assert head.jobs[f"{deaf.id}-1"].process is not None and head.jobs[f"{deaf.id}-1"].status == "STOPPED"
    assert head.jobs[f"{deaf.id}-1"].process.poll() is not None  # not before its process had ended


@pytest.mark.slow
def test_while_the_cluster_is_away_nothing_begins_and_what_works_goes_on(
    db: Database, home: Home, head: RayHead, launchers: Launchers, said: list[str]
) -> None:
    works = queue(db)
    worker = Worker(home, db, launchers("steps"))
    turn_until(worker, is_at_step(db, works))
    head.stop_answering()
    waits, beaten = queue(db), get_run(db, works.id).heartbeat_at
    turn_until(worker, lambda: get_run(db, works.id).heartbeat_at != beaten)
    turn_until(worker, lambda: bool(said))
    assert state_of(db, waits) is RunState.queued and state_of(db, works) is RunState.running
    head.start()
    turn_until(worker, is_at_step(db, waits))
    assert len(said) == 2 and "cannot be reached" in said[0] and said[1].endswith("answers again")
    for run in (works, waits):
        runs.cancel(db, run.id)
        turn_until(worker, ended(db, run))


@pytest.mark.slow
def test_a_run_that_waits_outlasts_a_head_that_is_started_anew(
    db: Database, home: Home, head: RayHead, launchers: Launchers
) -> None:
    run, worker = waiting(db, home, head, launchers)
    head.stop_answering()
    turn_until(worker, waits_for(db, run, "waiting for the cluster, which does not answer"))
    head.jobs.clear()
    head.room = 1
    head.start()
    turn_until(worker, ended(db, run))
    assert state_of(db, run) is RunState.succeeded and head.submitted == 2


def test_a_run_that_waits_can_be_cancelled_while_the_cluster_is_away(
    db: Database, home: Home, head: RayHead, launchers: Launchers
) -> None:
    run, worker = waiting(db, home, head, launchers)
    head.stop_answering()
    runs.cancel(db, run.id)
    turn_until(worker, ended(db, run))
    assert state_of(db, run) is RunState.cancelled
    head.start()


@pytest.mark.slow
def test_a_token_is_asked_for_in_words_and_sent(
    db: Database, home: Home, head: RayHead, launchers: Launchers, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    head.token = "open-sesame"
    run = queue(db)
    worker = Worker(home, db, launchers("quick"))
    turn_until(worker, lambda: len(said) == 1)
    assert "wants a token (HTTP 401): set $RAY_AUTH_TOKEN" in said[0] and state_of(db, run) is RunState.queued
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    turn_until(worker, lambda: len(said) == 2)
    assert "refuses the token it was given (HTTP 403)" in said[1]
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    Path(os.environ["RAY_AUTH_TOKEN_PATH"]).write_text("open-sesame\n")
    turn_until(worker, ended(db, run))
    assert state_of(db, run) is RunState.succeeded


@pytest.mark.parametrize(("status", "words"), [(302, "sends elsewhere"), (503, "is not well (HTTP 503): OSError")])
def test_what_is_no_answer_of_ray_is_told(head: RayHead, status: int, words: str) -> None:
    jobs = RayJobs(head.address)
    head.fails_with = status
    with pytest.raises(ClusterAway) as error:
        jobs.look("run-x-1")
    assert words in str(error.value)
    jobs.close()


def test_a_job_does_not_import_from_where_ray_was_started(
    db: Database, home: Home, head: RayHead, launchers: Launchers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").touch()
    (tmp_path / "training" / "execute.py").write_text("print('a stranger')\n")
    monkeypatch.chdir(tmp_path)
    run = queue(db)
    update_run(db, run.id, config={"limit": "none"})  # so it fails soon, in the studio's own words
    turn_until(Worker(home, db, launchers()), ended(db, run))
    assert state_of(db, run) is RunState.failed and "limit" in str(get_run(db, run.id).error)


@pytest.mark.slow
def test_no_more_are_given_away_than_asked_for(db: Database, home: Home, head: RayHead, launchers: Launchers) -> None:
    three = [queue(db) for _ in range(3)]
    worker = Worker(home, db, launchers("steps", at_once=2))
    for run in three[:2]:
        turn_until(worker, is_at_step(db, run))
    for _ in range(5):
        worker.turn()
    assert state_of(db, three[2]) is RunState.queued
    runs.cancel(db, three[0].id)
    turn_until(worker, is_at_step(db, three[2]))
    for run in three[1:]:
        runs.cancel(db, run.id)
        turn_until(worker, ended(db, run))


@pytest.mark.slow
def test_a_new_worker_adopts_what_the_cluster_has(
    db: Database, home: Home, head: RayHead, launchers: Launchers
) -> None:
    run = queue(db)
    turn_until(Worker(home, db, launchers("steps")), is_at_step(db, run))
    successor = Worker(home, db, launchers("steps", at_once=1))
    waiting = queue(db)
    successor.turn()
    assert state_of(db, waiting) is RunState.queued
    os.kill(get_run(db, run.id).pid or 0, signal.SIGKILL)
    turn_until(successor, is_at_step(db, waiting))
    assert state_of(db, run) is RunState.interrupted
    runs.cancel(db, waiting.id)
    turn_until(successor, ended(db, waiting))


def test_a_home_that_is_not_shared_fails_the_run_and_is_not_made_anew(
    db: Database, home: Home, head: RayHead, launchers: Launchers
) -> None:
    run, worker = waiting(db, home, head, launchers)
    shutil.rmtree(home.run_dir(run.id))  # as on a machine that sees another folder under this path
    head.room = 1
    turn_until(worker, ended(db, run))
    row = get_run(db, run.id)
    assert row.state is RunState.failed
    assert f"The run's directory {home.run_dir(run.id)} is not on {this_host()}" in str(row.error)
    assert not home.run_dir(run.id).exists()


def test_a_job_of_another_attempt_does_nothing(db: Database, home: Home, head: RayHead, launchers: Launchers) -> None:
    run, _ = waiting(db, home, head, launchers)
    update_run(db, run.id, attempt=2)
    process = subprocess.run(
        shlex.split(head.jobs[f"{run.id}-1"].request["entrypoint"])[1:], capture_output=True, check=False
    )
    assert process.returncode == 1 and state_of(db, run) is RunState.starting
    assert "is at another attempt than 1: nothing to do" in log_of(home, run)


def test_a_ticket_is_its_owners_alone_and_taken_once(home: Home) -> None:
    path = write_ticket(home, "run-x", Ticket("postgresql://ann:pw@db/studio", 3, "ray"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.name.startswith(".")
    taken: list[Ticket] = []
    refused: list[Conflict] = []

    def take() -> None:
        try:
            taken.append(take_ticket(path))
        except Conflict as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken == [Ticket("postgresql://ann:pw@db/studio", 3, "ray")] and len(refused) == 3
    assert list(path.parent.iterdir()) == []


@pytest.mark.slow
def test_sqlite_is_refused_in_one_sentence(tmp_path: Path, head: RayHead) -> None:
    cluster, home = RayCluster(head.address), Home(tmp_path / "small")
    with pytest.raises(InvalidInput, match="need PostgreSQL, .* give --database-url postgresql://"):
        RayLauncher(home, cluster, say=print)
    for command in (["worker", "--ray", head.address], ["up", "--port", "0", "--ray", head.address]):
        done = subprocess.run(
            [sys.executable, "-m", "studio.cli", "--home", str(home.path), *command], capture_output=True, text=True
        )
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and "need PostgreSQL" in done.stderr
    assert head.heard == []


def test_a_command_that_waits_finds_the_cluster_in_the_environment(
    tmp_path: Path, head: RayHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIO_RAY_ADDRESS", head.address)
    with (
        pytest.raises(InvalidInput, match="need PostgreSQL"),
        worker_for(Home(tmp_path / "small").create(), standby=False),
    ):
        pass
    keeper = WorkerKeeper(Home(tmp_path), owner="up", standby=False, dies_with_me=False)
    assert "STUDIO_RAY_ADDRESS" not in keeper._environment()  # told of none, it starts a worker of this machine


def test_a_worker_that_works_elsewhere_is_told_of(
    home: Home, head: RayHead, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = RayCluster(head.address)
    tell_of_other_worker(home, cluster)
    with home.lock_worker(ray=head.address):
        tell_of_other_worker(home, cluster)
        assert capsys.readouterr().err == ""
        tell_of_other_worker(home, None)
        assert f"executes runs on the Ray cluster at {head.address} already" in capsys.readouterr().err
        worker = {finding.name: finding for finding in examine(home, {})}["worker"]
        assert worker.seen == f"alive, pid {os.getpid()}, for the Ray cluster at {head.address}"
    with home.lock_worker(ray=None):
        tell_of_other_worker(home, cluster)
        assert "executes runs on this machine already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ray": "127.0.0.1:6379"}, "'127.0.0.1:6379' is not the address of a Ray dashboard; valid: http://HEAD:8265"),
        ({"ray": "ray://head:10001"}, "is not the address of a Ray dashboard"),
        ({"ray": "http://user:pw@head:8265"}, "is not the address of a Ray dashboard"),
        (
            {"ray": "http://head:8265", "ray_cpus": 0.0},
            "0 CPUs cannot be asked of Ray for a run; valid: a number above 0",
        ),
        ({"ray": "http://head:8265", "ray_gpus": 1.5}, "1.5 GPUs cannot be asked of Ray for a run; valid: 0, a share"),
        ({"ray": "http://head:8265", "ray_gpus": float("nan")}, "nan GPUs cannot be asked"),
        ({"ray": "http://head:8265", "at_once": 0}, "0 runs at once are none to work with; valid: 1 to 1000"),
        ({"ray_gpus": 1.0, "at_once": 3}, "--ray-gpus 1.0 and --at-once 3 can be said of a Ray cluster alone"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput) as error:
        target_asked_for(Home(tmp_path, "postgresql://ann@db/studio"), options)
    assert words in str(error.value)


def test_options_go_before_variables_and_reach_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path, "postgresql://ann@db/studio")
    left_out = dict.fromkeys(("ray", "ray_cpus", "ray_gpus", "ray_python", "at_once"))
    assert target_asked_for(home, left_out) is None
    for name, value in {"ADDRESS": "http://other:1", "GPUS": "2", "AT_ONCE": "7"}.items():
        monkeypatch.setenv(f"STUDIO_RAY_{name}", value)
    given = {"ray": "http://head:8265", "ray_cpus": 0.5, "ray_python": "/opt/python"}
    cluster = target_asked_for(home, left_out | given)
    assert cluster == RayCluster("http://head:8265", 0.5, 2.0, 7, "/opt/python")
    keeper = WorkerKeeper(home, owner="up", standby=False, dies_with_me=False, target=cluster)
    assert RayCluster.from_environment(keeper._environment()) == cluster
    monkeypatch.setenv("STUDIO_RAY_GPUS", "many")
    with pytest.raises(InvalidInput, match=r"\$STUDIO_RAY_GPUS='many' is not a number"):
        RayCluster.from_environment()


def test_a_kept_worker_works_for_the_cluster(home: Home, head: RayHead, db: Database) -> None:
    cluster = RayCluster(head.address, at_once=2)
    keeper = WorkerKeeper(home, owner="up", standby=False, dies_with_me=True, target=cluster)
    run = queue(db)
    head.room = 0
    deadline = time.monotonic() + 120
    keeper.tend()
    try:
        while not head.jobs:
            assert time.monotonic() < deadline, Path(keeper.log_path).read_text()
            time.sleep(0.05)
        assert list(head.jobs) == [f"{run.id}-1"] and (home.worker_holder() or {}).get("ray") == head.address
        assert shlex.split(head.jobs[f"{run.id}-1"].request["entrypoint"])[3:6] == [sys.executable, "-P", "-m"]
    finally:
        keeper.stop()


def test_the_doctor_looks_at_the_cluster_that_is_named(home: Home, head: RayHead) -> None:
    def finding(**variables: str) -> Any:
        return {finding.name: finding for finding in examine(home, variables)}.get("ray")

    assert finding() is None
    well = finding(STUDIO_RAY_ADDRESS=head.address, STUDIO_RAY_GPUS="1")
    assert well.ok and well.seen == f"Ray 2.60.0 at {head.address}, 1 CPU, 1 GPU for a run"
    head.token = "open-sesame"
    locked = finding(STUDIO_RAY_ADDRESS=head.address)
    assert not locked.ok and "set $RAY_AUTH_TOKEN" in locked.remedy
    head.stop_answering()
    away = finding(STUDIO_RAY_ADDRESS=head.address)
    assert not away.ok and "see that it runs (`ray status`)" in away.remedy
    head.start()


@pytest.mark.skipif(REAL not in os.environ, reason=f"name the dashboard of a Ray cluster on this machine in ${REAL}")
def test_a_real_cluster_executes_and_cancels(db: Database, home: Home) -> None:
    def launcher(behaviour: str) -> RayLauncher:
        cluster = RayCluster(os.environ[REAL], cpus=0.5)
        return RayLauncher(home, cluster, say=print, command=(sys.executable, PRETEND, behaviour))

    done = queue(db)
    turn_until(Worker(home, db, launcher("quick")), ended(db, done), seconds=300)
    assert (state_of(db, done), get_run(db, done.id).host) == (RunState.succeeded, f"ray:{this_host()}")
    for behaviour, kill in (("steps", False), ("deaf", False), ("steps", True)):
        run = queue(db)
        worker = Worker(home, db, launcher(behaviour))
        turn_until(worker, lambda run=run: get_run(db, run.id).state is RunState.running, seconds=300)
        if kill:
            os.kill(get_run(db, run.id).pid or 0, signal.SIGKILL)
        else:
            runs.cancel(db, run.id)
        turn_until(worker, ended(db, run), seconds=300)
        assert state_of(db, run) is (RunState.interrupted if kill else RunState.cancelled)
