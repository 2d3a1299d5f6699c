from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from feedback.database import engine as databases
from feedback.database.engine import Database
from feedback.errors import DatabaseUnavailable
from feedback.store.models.policies import promote_policy
from feedback.store.models.runs import claim_next_run, get_run, list_metrics
from feedback.tables import RunRow
from feedback.types import RunState
from tests.factories import make_policy
from training.execute import open_patiently, retry_on_busy
from training.failures import explain
from training.home import Home
from training.runs import lifecycle, queue
from training.runs.launch.local import this_host

PRETEND = Path(__file__).with_name("pretend.py")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path).create()


@pytest.fixture
def run(db: Database) -> RunRow:
    """A run a worker has just claimed."""
    promote_policy(db, make_policy(db).id)
    queue.submit(db, "generate", {"limit": 7})
    claimed = claim_next_run(db, host=this_host())
    assert claimed is not None
    return claimed


def process_of(behaviour: str, home: Home, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, str(PRETEND), behaviour, "--home", str(home.path), *arguments]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **options,
    )


def until_running(db: Database, run_id: str) -> RunRow:
    deadline = time.monotonic() + 60
    while get_run(db, run_id).state is not RunState.running:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return get_run(db, run_id)


def test_a_run_tells_who_it_is_and_how_it_ended(db: Database, home: Home, run: RunRow) -> None:
    process = process_of("quick", home, "--run", run.id)
    output, _ = process.communicate()
    row = get_run(db, run.id)
    assert row.state is RunState.succeeded and row.result == {"done": 1} and row.error is None
    assert (row.pid, row.host, row.progress) == (process.pid, this_host(), 1.0)
    assert row.ended_at is not None and row.heartbeat_at is not None
    assert [(point.name, point.value) for point in list_metrics(db, run.id)] == [("loss", 0.5)]
    assert "hello from the run" in output and "ended: succeeded" in output
    spec = json.loads((home.run_dir(run.id) / "spec.json").read_text())
    assert spec["config"]["limit"] == 7 and spec["settings"]["per_prompt"] == 2 and spec["method"] == "generate"


@pytest.mark.slow_except("crash-ValueError: the loss went up (the log has the rest).")
@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("crash", "ValueError: the loss went up (the log has the rest)."),
        ("starve", "There are 0 prompts and 1 is needed."),
        ("memory", "The run ran out of memory: lower batch_size (now 128) or max_new_tokens (now automatic), then"),
        ("diverge", "The loss at step 7 is nan: the training diverged."),
        ("fill_up", "The state to resume from could not be written: the disk of"),
        ("damage", "The checkpoint x is damaged"),
        ("wander", "TypeError: Object of type object is not JSON serializable"),
    ],
)
def test_a_failure_is_one_sentence_and_the_log_has_the_rest(
    db: Database, home: Home, run: RunRow, behaviour: str, said: str
) -> None:
    output, _ = process_of(behaviour, home, "--run", run.id).communicate()
    row = get_run(db, run.id)
    assert row.state is RunState.failed and row.error is not None and row.error.startswith(said)
    assert ("Traceback" in output) == (behaviour in ("crash", "memory", "wander")) and "ended: failed" in output
    kinds = {"starve": "data", "memory": "memory", "diverge": "diverged", "fill_up": "disk", "damage": "checkpoint"}
    assert row.result == {"failure": kinds.get(behaviour, "crash")}


def test_a_cancel_is_heard_at_the_next_step(db: Database, home: Home, run: RunRow) -> None:
    process = process_of("steps", home, "--run", run.id)
    until_running(db, run.id)
    queue.cancel(db, run.id)
    output, _ = process.communicate(timeout=30)
    assert get_run(db, run.id).state is RunState.cancelled and get_run(db, run.id).error is None
    assert "Traceback" not in output
    assert list_metrics(db, run.id)


def test_a_system_that_shuts_down_interrupts_and_a_cancel_by_signal_cancels(
    db: Database, home: Home, run: RunRow
) -> None:
    process = process_of("steps", home, "--run", run.id)
    until_running(db, run.id)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    row = get_run(db, run.id)
    assert row.state is RunState.interrupted and f"studio runs resume {run.id}" in str(row.error)


def test_a_run_that_was_given_up_is_not_begun(db: Database, home: Home, run: RunRow) -> None:
    lifecycle.advance(db, run.id, RunState.interrupted)
    output, _ = process_of("quick", home, "--run", run.id).communicate()
    assert get_run(db, run.id).state is RunState.interrupted
    assert "is interrupted, not starting: nothing to do" in output


def test_a_run_cancelled_before_it_began_says_so(db: Database, home: Home, run: RunRow) -> None:
    queue.cancel(db, run.id)
    process_of("quick", home, "--run", run.id).communicate()
    assert get_run(db, run.id).state is RunState.cancelled


def test_an_end_somebody_else_wrote_stands(db: Database, home: Home, run: RunRow) -> None:
    process = process_of("steps", home, "--run", run.id)
    until_running(db, run.id)
    queue.cancel(db, run.id)
    assert lifecycle.advance(db, run.id, RunState.cancelled, error="written by the worker") is not None
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert get_run(db, run.id).error == "written by the worker"
    assert "already written by somebody else" in output


def test_a_run_given_up_for_dead_stops_by_itself(db: Database, home: Home, run: RunRow) -> None:
    process = process_of("steps", home, "--run", run.id)
    until_running(db, run.id)
    assert lifecycle.advance(db, run.id, RunState.interrupted, error="written by the worker") is not None
    output, _ = process.communicate(timeout=30)
    assert get_run(db, run.id).error == "written by the worker"
    assert "already written by somebody else" in output and "Traceback" not in output


def test_a_standby_takes_one_run_and_writes_to_its_log(db: Database, home: Home, run: RunRow) -> None:
    process = process_of("quick", home, "--standby", stdin=subprocess.PIPE)
    output, _ = process.communicate(f"{run.id}\n", timeout=60)
    assert get_run(db, run.id).state is RunState.succeeded
    assert output == "" and "hello from the run" in home.log_path(run.id).read_text()


def test_a_standby_whose_worker_is_gone_goes_too(home: Home) -> None:
    process = process_of("quick", home, "--standby", stdin=subprocess.PIPE)
    process.communicate("", timeout=60)
    assert process.returncode == 0


def test_a_standby_whose_worker_is_gone_does_not_finish_its_imports(home: Home, tmp_path: Path) -> None:
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "torch.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "training.execute", "--home", str(home.path), "--standby"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'slow'}:{Path(__file__).parents[2]}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == b"importing\n"
    process.stdin.close()
    try:
        assert process.wait(60) == 0
    finally:
        process.kill()


@pytest.mark.slow
def test_a_run_that_is_sent_during_the_imports_is_not_lost(home: Home, tmp_path: Path) -> None:
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "torch.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(2)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "training.execute", "--home", str(home.path), "--standby"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'slow'}:{Path(__file__).parents[2]}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == b"importing\n"
    process.stdin.write(b"run-sent\n")
    process.stdin.close()
    process.wait(120)
    assert home.log_path("run-sent").exists()


def test_a_full_disk_is_told_as_such() -> None:
    assert "free some space" in explain(OSError(28, "No space left on device"), {})
    assert "smaller model" in explain(MemoryError(), {})


def test_insisting_outlasts_a_locked_database(capsys: pytest.CaptureFixture[str]) -> None:
    answers = iter([RuntimeError("database is locked"), DatabaseUnavailable("restarting"), None])

    def act() -> str:
        error = next(answers)
        if error is not None:
            raise error
        return "done"

    assert retry_on_busy(act) == "done"
    assert "trying again" in capsys.readouterr().out
    with pytest.raises(ZeroDivisionError):
        retry_on_busy(lambda: 1 // 0, patience=0)  # type: ignore[arg-type, return-value]


def test_a_run_begins_when_a_locked_database_is_free(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "BUSY_TIMEOUT_SECONDS", 0.05)
    home.open().dispose()
    other = sqlite3.connect(home.database_file, isolation_level=None, check_same_thread=False)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DatabaseUnavailable):
        home.open()
    threading.Timer(1.5, other.close).start()
    opened = open_patiently(home)
    assert opened.patience > 60
    opened.dispose()


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("0", "0")])
def test_a_run_asks_for_huge_pages_before_torch_is_imported_unless_the_user_decided(
    before: str | None, after: str, tmp_path: Path
) -> None:
    name = "THP_MEM_ALLOC_ENABLE"
    environment = {key: value for key, value in os.environ.items() if key != name}
    code = (
        "import os, sys; from training import execute\n"
        f"execute.stand_by = lambda home: print(os.environ[{name!r}], 'torch' in sys.modules)\n"
        f"execute.main(['--home', {str(tmp_path)!r}, '--standby'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | ({} if before is None else {name: before}),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [after, "False"]
