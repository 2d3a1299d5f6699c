"""Several processes train one run: the same steps as one would take, told and saved once, and ended together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from feedback.database.engine import Database
from feedback.datasets.freeze import freeze
from feedback.errors import InvalidInput, UnknownSetting
from feedback.store.models.checkpoints import list_checkpoints
from feedback.store.models.policies import promote_policy, save_policy
from feedback.store.models.runs import claim_next_run, get_run, list_metrics
from feedback.tables import RunRow
from feedback.types import DatasetFilters, Policy, RunState
from tests.factories import judge_by, make_matchup, make_prompt
from training.checkpoints.loading import load_policy
from training.home import Home
from training.runs import queue
from training.runs.launch.local import this_host
from training.trainer import distributed

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
SHORT = {"epochs": 1, "min_steps": 6, "batch_size": 4, "embedding_noise": 0.0, "log_every": 1}


@pytest.fixture
def home(tmp_path: Path, tiny_base: Path) -> Home:
    """A home with the tiny policy and a dataset of one simple taste."""
    home = Home(tmp_path / "home").create()
    db = home.open()
    policy = promote_policy(db, save_policy(db, Policy(name="tiny", base=str(tiny_base))).id)
    for number in range(12):
        texts = [f"no {number}", f"yes yes yes {number}"]
        make_matchup(db, policy=policy, prompt=make_prompt(db, f"Say {number}."), texts=texts)
    judge_by(db, lambda left, right: len(left.split()) - len(right.split()))
    freeze(db, "taste", DatasetFilters(test_share=0.0))
    db.dispose()
    return home


@pytest.fixture
def db(home: Home) -> Any:
    opened = home.open()
    yield opened
    opened.dispose()


def begin(db: Database, home: Home, method: str, **config: Any) -> tuple[RunRow, subprocess.Popen[bytes]]:
    """Submit a run and start its process, as a worker would."""
    queue.submit(db, method, {"dataset": "taste", **SHORT, **config})
    run = claim_next_run(db, host=this_host())
    assert run is not None
    log = home.log_path(run.id)
    log.parent.mkdir(parents=True)
    command = [sys.executable, "-m", "training.execute", "--home", str(home.path), "--run", run.id]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=ENVIRONMENT, start_new_session=True)
    return run, process


def finish(db: Database, home: Home, method: str, **config: Any) -> RunRow:
    run, process = begin(db, home, method, **config)
    process.wait(400)
    ended = get_run(db, run.id)
    assert ended.state is RunState.succeeded, home.log_path(run.id).read_text()
    return ended


def curve(db: Database, run: RunRow, name: str = "loss") -> list[float]:
    return [point.value for point in list_metrics(db, run.id) if point.name == name]


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def until(true: Any, seconds: float = 200.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "reward"])
def test_two_processes_take_the_steps_of_one(db: Database, home: Home, method: str) -> None:
    alone = finish(db, home, method, name="alone")
    shared = finish(db, home, method, name="shared", processes=2)
    first, second = curve(db, alone), curve(db, shared)
    assert len(first) == len(second) == 6
    assert second == pytest.approx(first, rel=2e-3) and first[-1] < first[0]
    assert sorted(row.name for row in list_checkpoints(db)) == ["alone", "shared"]
    assert not (home.run_dir(shared.id) / ".ranks").exists()
    if method == "dpo":
        one, other = (
            dict(load_policy(home.checkpoints / name).model.named_parameters()) for name in ("alone", "shared")
        )
        moved = [name for name in one if "lora_B" in name]
        assert moved and all((one[name] - other[name]).abs().max() < 2e-3 for name in moved)


@pytest.mark.slow
def test_whoever_ends_the_leader_ends_them_all(db: Database, home: Home) -> None:
    run, process = begin(db, home, "dpo", name="long", processes=2, min_steps=5000)
    until(lambda: bool(curve(db, run)))
    followers = family(process)
    assert len(followers) == 1
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in followers))


def test_a_follower_that_waits_for_nobody_ends_with_its_leader_too() -> None:
    """Where no exchange fails, as while it loads, nothing but the watch tells it."""
    follower = (
        "from training.trainer import distributed; distributed.follow_leader(); print('here', flush=True); "
        "import time; time.sleep(600)"
    )
    leader = (
        "import os, subprocess, sys, time\n"
        f"env = {{**os.environ, {distributed.LEADER!r}: str(os.getpid())}}\n"
        f"print(subprocess.Popen([sys.executable, '-c', {follower!r}], env=env).pid, flush=True)\n"
        "time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", leader], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    assert process.stdout.readline() == "here\n" and child.is_running()
    process.kill()
    process.wait()
    process.stdout.close()
    try:
        until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


@pytest.mark.slow
def test_a_follower_that_dies_ends_the_run_in_words_and_it_is_resumed(db: Database, home: Home) -> None:
    run, process = begin(db, home, "dpo", name="shared", processes=2, min_steps=300, save_every=5)
    until(lambda: any((home.run_dir(run.id) / "trainer").glob("checkpoint-*/trainer_state.json")))
    (follower,) = family(process)
    follower.kill()
    process.wait(200)
    ended = get_run(db, run.id)
    assert ended.state is RunState.failed
    assert ended.error == (
        "Process 2 of 2 ended with status -9, perhaps for want of memory; the log has its last words."
    )
    assert list_checkpoints(db) == []
    assert queue.resume(db, home, run.id).attempt == 2
    assert claim_next_run(db, host=this_host()) is not None
    command = [sys.executable, "-m", "training.execute", "--home", str(home.path), "--run", run.id]
    again = subprocess.run(command, capture_output=True, env=ENVIRONMENT, timeout=400)
    assert get_run(db, run.id).state is RunState.succeeded, again.stdout.decode()
    assert b"going on from checkpoint-" in again.stdout


def test_what_cannot_be_shared_is_refused_in_words(db: Database, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownSetting, match="batch_size=4 cannot be shared evenly by 3 processes"):
        queue.submit(db, "dpo", {"dataset": "taste", "batch_size": 4, "processes": 3})
    with pytest.raises(UnknownSetting, match="adalora hands out its ranks in one process"):
        queue.submit(db, "dpo", {"dataset": "taste", "processes": 2, "adapter": "adalora"})
    with pytest.raises(UnknownSetting, match="members"):
        queue.submit(db, "reward", {"dataset": "taste", "processes": 2, "members": 2})
    with pytest.raises(UnknownSetting, match="processes"):
        queue.submit(db, "ppo", {"processes": 2, "reward_function": "length_band:1-9"})
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    with (
        pytest.raises(InvalidInput, match="processes=4 needs as many cores, and this machine has 2; lower processes"),
        distributed.sharing(home, "run-x", 4, pytest.fail),
    ):
        pytest.fail("it began")
