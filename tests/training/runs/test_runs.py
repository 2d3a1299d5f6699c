from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from feedback.database.engine import Database
from feedback.datasets.freeze import freeze
from feedback.errors import Conflict, InvalidInput, NotEnoughData, NotFound, StudioError, UnknownSetting
from feedback.store.models.checkpoints import save_checkpoint
from feedback.store.models.policies import get_champion, promote_policy
from feedback.store.models.runs import claim_next_run, get_run, list_runs, save_run, transition_run, update_run
from feedback.types import Checkpoint, DatasetFilters, Run, RunState, now
from tests.factories import judge_by, longer, make_matchup, make_policy
from training.checkpoints.opening import open_policy
from training.home import Home
from training.methods import METHODS
from training.runs import lifecycle, queue
from training.runs.launch.local import started_at, this_host


@pytest.fixture
def champion(db: Database) -> str:
    return promote_policy(db, make_policy(db, "champion-1").id).name


def a_dead_process() -> tuple[int, float]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = process.pid, started_at(process.pid)
    process.communicate(b"\n")
    return identity


def test_every_state_has_its_row_in_the_table() -> None:
    assert set(lifecycle.TRANSITIONS) == set(RunState)
    assert lifecycle.may_precede(RunState.queued) == {RunState.failed, RunState.cancelled, RunState.interrupted}
    assert not lifecycle.TRANSITIONS[RunState.succeeded]


def test_the_table_is_what_advance_obeys(db: Database) -> None:
    for state in RunState:
        for to in RunState:
            run = save_run(db, Run(method="dpo", state=state))
            assert (lifecycle.advance(db, run.id, to) is not None) == (to in lifecycle.TRANSITIONS[state])


def test_submit_fills_in_the_champion_of_now(db: Database, champion: str) -> None:
    run = queue.submit(db, "generate", {"limit": 3, "seed": None})
    promote_policy(db, make_policy(db, "later").id)
    assert get_run(db, run.id).config == {"limit": 3, "policy": champion}
    assert run.state is RunState.queued


def test_submit_refuses_what_cannot_work(db: Database, champion: str) -> None:
    make_matchup(db)
    empty = freeze(db, "empty")
    assert judge_by(db, longer) == 1
    one = freeze(db, "one", DatasetFilters(test_share=0.0))
    save_checkpoint(db, Checkpoint(name="taken", kind="policy", path="checkpoints/taken", base="b"))
    refused: list[tuple[str, dict[str, object], type[StudioError], str]] = [
        ("fly", {}, UnknownSetting, f"Valid: {', '.join(sorted(METHODS))}"),
        ("dpo", {"dataset": "one", "speed": 1}, UnknownSetting, "speed"),
        ("dpo", {"dataset": "nowhere"}, NotFound, "nowhere.*Known: one, empty"),
        ("dpo", {"dataset": empty.id}, NotEnoughData, "0 training pairs"),
        ("reward", {"dataset": one.name}, NotEnoughData, "1 training pair,.*at least 2"),
        ("generate", {"policy": "nobody"}, NotFound, "nobody.*champion-1"),
        ("evaluate", {"a": champion, "b": "nobody", "oracle": "shorter"}, NotFound, "nobody"),
        ("evaluate", {"reward": "nothing", "oracle": "shorter"}, NotFound, "reward model 'nothing'"),
        ("evaluate", {"reward": "taken", "oracle": "shorter"}, UnknownSetting, "not a reward model"),
        ("evaluate", {"a": champion, "b": champion, "oracle": "sweeter"}, UnknownSetting, "sweeter.*shorter"),
    ]
    for method, config, kind, said in refused:
        with pytest.raises(kind, match=said):
            queue.submit(db, method, config)
    assert list_runs(db) == []


def test_a_policy_that_was_only_imported_is_refused_before_its_base_replies(
    db: Database, tmp_path: Path, champion: str
) -> None:
    make_policy(db, "gpt-4", note="imported with votes.jsonl; it replied elsewhere and cannot reply here")
    asked: list[tuple[str, dict[str, object]]] = [
        ("generate", {"policy": "gpt-4"}),
        ("evaluate", {"a": champion, "b": "gpt-4", "oracle": "shorter"}),
        ("rft", {"parent": "gpt-4", "reward_function": "no_repetition"}),
    ]
    for method, config in asked:
        with pytest.raises(Conflict, match="'gpt-4': imported with votes.jsonl; it replied elsewhere and cannot reply"):
            queue.submit(db, method, config)
    for act in (lambda: promote_policy(db, "gpt-4"), lambda: open_policy(db, Home(tmp_path), "gpt-4", "cpu")):
        with pytest.raises(Conflict, match="cannot reply here"):
            act()
    assert list_runs(db) == [] and get_champion(db).name == champion


def test_submit_refuses_a_name_that_is_taken(db: Database, champion: str) -> None:
    for _ in range(3):
        make_matchup(db)
    judge_by(db, longer)
    freeze(db, "three", DatasetFilters(test_share=0.0))
    with pytest.raises(Conflict, match="already a policy 'champion-1'"):
        queue.submit(db, "dpo", {"dataset": "three", "name": champion})


def test_submit_refuses_a_name_whose_directory_exists(db: Database, home: Home, champion: str) -> None:
    for _ in range(3):
        make_matchup(db)
    judge_by(db, longer)
    freeze(db, "three", DatasetFilters(test_share=0.0))
    (home.checkpoints / "left").mkdir()
    for method in ("dpo", "reward"):
        asked = {"dataset": "three", "name": "left", "allow_few": True}
        with pytest.raises(Conflict, match=r"already a directory .*/left; choose another --name"):
            queue.submit(db, method, asked, home=home)
        assert queue.submit(db, method, asked | {"name": f"{method}-1"}, home=home).state is RunState.queued


def test_without_a_champion_submit_says_how_to_get_one(db: Database) -> None:
    with pytest.raises(InvalidInput, match="studio up --policy MODEL"):
        queue.submit(db, "generate", {})


def test_cancel_ends_a_waiting_run_and_asks_a_working_one(db: Database, champion: str) -> None:
    waiting = queue.submit(db, "generate", {})
    assert queue.cancel(db, waiting.id).state is RunState.cancelled
    working = queue.submit(db, "generate", {})
    claim_next_run(db)
    assert queue.cancel(db, working.id).state is RunState.stopping
    assert queue.cancel(db, working.id).state is RunState.stopping
    with pytest.raises(Conflict, match="is cancelled already"):
        queue.cancel(db, waiting.id)
    with pytest.raises(NotFound, match="studio runs list"):
        queue.cancel(db, "run-nope")


def test_a_cancelled_run_no_longer_says_that_it_is_stopping(db: Database, champion: str) -> None:
    waiting, working = queue.submit(db, "generate", {}), queue.submit(db, "generate", {}, priority=1)
    assert queue.cancel(db, waiting.id).progress_text == "cancelled"
    claim_next_run(db)
    assert queue.cancel(db, working.id).progress_text == "stopping"
    lifecycle.advance(db, working.id, RunState.cancelled)
    assert get_run(db, working.id).progress_text == "cancelled"


def test_resume_queues_the_same_run_again(db: Database, tmp_path: Path) -> None:
    home = Home(tmp_path)
    run = save_run(db, Run(method="dpo", state=RunState.interrupted, error="gone", pid=1, pid_started=2.0, host="h"))
    again = queue.resume(db, home, run.id)
    assert (again.id, again.state, again.attempt) == (run.id, RunState.queued, 2)
    assert (again.error, again.pid, again.host, again.ended_at) == (None, None, None, None)
    assert "attempt 2" in home.log_path(run.id).read_text()
    with pytest.raises(Conflict, match="is queued; only a failed, cancelled or interrupted"):
        queue.resume(db, home, run.id)


def test_reconcile_tells_the_dead_from_the_living(db: Database) -> None:
    dead_pid, dead_started = a_dead_process()
    me, my_start = os.getpid(), started_at(os.getpid())
    here = this_host()

    def working(state: RunState = RunState.running, **fields: object) -> str:
        return save_run(db, Run(method="dpo", state=state, **{"host": here, **fields})).id

    dead = working(pid=dead_pid, pid_started=dead_started)
    stopped = working(RunState.stopping, pid=dead_pid, pid_started=dead_started)
    reused = working(pid=me, pid_started=my_start - 1000)
    alive = working(pid=me, pid_started=my_start)
    just_claimed = working(RunState.starting)
    transition_run(db, just_claimed, expected=[RunState.starting], to=RunState.starting, started_at=now())
    never_began = working(RunState.starting)
    long_ago = now() - timedelta(seconds=61)
    transition_run(db, never_began, expected=[RunState.starting], to=RunState.starting, started_at=long_ago)

    changed = {run.id: run for run in lifecycle.reconcile(db)}
    assert set(changed) == {dead, stopped, reused, never_began}
    assert changed[stopped].state is RunState.cancelled and changed[stopped].error is None
    assert changed[stopped].progress_text == "cancelled"
    assert changed[dead].state is changed[reused].state is RunState.interrupted
    assert f"pid {dead_pid}" in str(changed[dead].error) and f"studio runs resume {dead}" in str(changed[dead].error)
    assert changed[dead].ended_at is not None
    assert "No process began" in str(changed[never_began].error)
    assert get_run(db, alive).state is RunState.running
    assert get_run(db, just_claimed).state is RunState.starting
    assert lifecycle.reconcile(db) == []


@pytest.fixture
def on_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database may be shared by several machines."""
    monkeypatch.setattr(Database, "is_sqlite", property(lambda self: False))


def beating(db: Database, seconds_ago: float, state: RunState = RunState.running, **fields: object) -> str:
    """A working run of another machine whose last heartbeat was so long ago."""
    fields = {"host": "other", "pid": os.getpid(), "pid_started": started_at(os.getpid()), **fields}
    run = save_run(db, Run(method="dpo", state=state, **fields))
    return update_run(db, run.id, heartbeat_at=now() - timedelta(seconds=seconds_ago)).id


def test_a_run_of_another_machine_is_believed_while_its_heart_beats(db: Database, on_postgresql: None) -> None:
    pid, started = a_dead_process()
    beating(db, 100, pid=pid, pid_started=started)
    assert lifecycle.reconcile(db) == []


def test_a_run_of_another_machine_that_fell_silent_is_lost(db: Database, home: Home, on_postgresql: None) -> None:
    silent, cancelled = beating(db, 121), beating(db, 121)
    queue.cancel(db, cancelled)
    changed = {run.id: run for run in lifecycle.reconcile(db)}
    assert changed[silent].state is RunState.interrupted and changed[cancelled].state is RunState.cancelled
    assert "Nothing was heard" in str(changed[silent].error) and "worked on other" in str(changed[silent].error)
    assert queue.resume(db, home, silent).state is RunState.queued
    assert queue.resume(db, home, cancelled).state is RunState.queued


def test_on_this_machine_the_process_decides_and_not_the_heartbeat(db: Database, on_postgresql: None) -> None:
    stopped = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        fields = {"host": this_host(), "pid": stopped.pid, "pid_started": started_at(stopped.pid)}
        silent = beating(db, 10_000, **fields)
        assert lifecycle.reconcile(db) == []
    finally:
        stopped.kill()
        stopped.communicate()
    assert [row.id for row in lifecycle.reconcile(db)] == [silent]


def test_one_sqlite_file_has_one_machine_whatever_it_is_called_today(db: Database) -> None:
    pid, started = a_dead_process()
    assert [beating(db, 0, pid=pid, pid_started=started)] == [row.id for row in lifecycle.reconcile(db)]


def test_a_zombie_is_dead(db: Database) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    identity = child.pid, started_at(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it ended, and nobody reaped it
    run = save_run(
        db, Run(method="dpo", state=RunState.running, host=this_host(), pid=identity[0], pid_started=identity[1])
    )
    assert [row.id for row in lifecycle.reconcile(db)] == [run.id]
    child.wait()


def test_who_reports_its_own_end_first_is_believed(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    pid, started = a_dead_process()
    fields = {"host": this_host(), "pid": pid, "pid_started": started}
    run = save_run(db, Run(method="dpo", state=RunState.running, **fields))
    looked = lifecycle.get_run

    def succeeds_at_the_last_moment(db: Database, run_id: str) -> object:
        row = looked(db, run_id)
        assert lifecycle.advance(db, run_id, RunState.succeeded, result={"ok": 1}) is not None
        return row

    monkeypatch.setattr(lifecycle, "get_run", succeeds_at_the_last_moment)
    assert lifecycle.reconcile(db) == []
    assert looked(db, run.id).state is RunState.succeeded


@pytest.mark.parametrize("end", [RunState.succeeded, RunState.failed])
def test_a_run_that_ends_while_its_process_is_looked_for_keeps_its_end(
    db: Database, monkeypatch: pytest.MonkeyPatch, end: RunState
) -> None:
    pid, started = a_dead_process()
    fields = {"host": this_host(), "pid": pid, "pid_started": started}
    run = save_run(db, Run(method="dpo", state=RunState.running, **fields))
    looked = lifecycle.is_alive

    def ends_meanwhile(pid: int | None, pid_started: float | None) -> bool:
        assert lifecycle.advance(db, run.id, end, result={"ok": 1}) is not None
        return looked(pid, pid_started)

    monkeypatch.setattr(lifecycle, "is_alive", ends_meanwhile)
    assert lifecycle.reconcile(db) == []
    row = get_run(db, run.id)
    assert (row.state, row.result, row.error) == (end, {"ok": 1}, None)


def test_wait_tells_every_change_and_gives_up_in_words(db: Database) -> None:
    run = save_run(db, Run(method="dpo"))
    seen: list[RunState] = []
    steps = iter([RunState.starting, RunState.running, RunState.succeeded])
    ended = queue.wait(
        db,
        run.id,
        on_change=lambda row: seen.append(row.state),
        on_poll=lambda: lifecycle.advance(db, run.id, next(steps)) and None,
        poll_seconds=0,
    )
    assert ended.state is RunState.succeeded
    assert seen == [RunState.queued, RunState.starting, RunState.running, RunState.succeeded]
    waiting = save_run(db, Run(method="dpo"))
    with pytest.raises(StudioError, match="still queued after 0 s"):
        queue.wait(db, waiting.id, timeout=0)
