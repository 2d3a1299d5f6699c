from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from feedback.database.engine import Database
from feedback.errors import RunCancelled
from feedback.store.models import runs as run_store
from feedback.store.models.runs import get_run, list_metrics, save_run, transition_run
from feedback.types import MetricPoint, Run, RunState
from training.home import Home
from training.reporting import progress as progress_module
from training.reporting.progress import Progress
from training.reporting.reporter import LocalProgress


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path).create()


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def test_what_is_said_reaches_the_database_and_the_file(db: Database, home: Home) -> None:
    run = save_run(db, Run(method="dpo", state=RunState.running))
    with Progress(db, home, run.id, flush_seconds=0.05) as progress:
        progress.report(0.25, "step 1 of 4")
        progress.metrics(1, loss=0.7, accuracy=0.5)
        until(lambda: get_run(db, run.id).progress_text == "step 1 of 4")
        progress.metrics(2, loss=0.6)
        progress.report(7, "past the end")
    row = get_run(db, run.id)
    assert (row.progress, row.progress_text) == (1.0, "past the end") and row.heartbeat_at is not None
    points = [(point.step, point.name, point.value) for point in list_metrics(db, run.id)]
    assert points == [(1, "loss", 0.7), (1, "accuracy", 0.5), (2, "loss", 0.6)]
    lines = [json.loads(line) for line in (home.run_dir(run.id) / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 0.7), (2, 0.6)]


def test_what_a_killed_attempt_told_last_is_not_lost(db: Database, home: Home) -> None:
    """The file is written at once, the database every second: in between a kill leaves points in the file alone."""
    run = save_run(db, Run(method="ppo", state=RunState.running))
    killed = Progress(db, home, run.id)  # its thread never starts
    for step in (1, 2, 3, 4):
        killed.metrics(step, loss=float(step), reward=0.5)
    run_store.save_metrics(db, run.id, [MetricPoint(step=s, name="loss", value=float(s)) for s in (1, 2)])
    (home.run_dir(run.id) / "metrics.jsonl").open("a").write('{"step": 5, "lo')
    with Progress(db, home, run.id) as second:
        second.metrics(4, loss=40.0)  # the last state was that of step 3
    found = sorted((point.step, point.name, point.value) for point in list_metrics(db, run.id))
    assert found == [
        (1, "loss", 1.0),
        (2, "loss", 2.0),
        (2, "reward", 0.5),
        (3, "loss", 3.0),
        (3, "reward", 0.5),
        (4, "loss", 40.0),
    ]
    with Progress(db, home, run.id):
        pass  # nothing more to say, and nothing twice
    assert len(list_metrics(db, run.id)) == 6


def test_check_raises_once_stopping_was_asked(db: Database, home: Home) -> None:
    run = save_run(db, Run(method="dpo", state=RunState.running))
    with Progress(db, home, run.id, flush_seconds=0.02) as progress:
        progress.check()
        transition_run(db, run.id, expected=[RunState.running], to=RunState.stopping)
        with pytest.raises(RunCancelled):
            while True:
                progress.check()
                time.sleep(0.01)


def test_no_point_is_lost_while_the_database_is_locked(
    db: Database, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save_run(db, Run(method="dpo", state=RunState.running))
    locked = threading.Event()
    locked.set()

    def refuse_while_locked(db: Database, run_id: str, points: list[MetricPoint], **_: Any) -> None:
        if locked.is_set():
            raise OperationalError("insert", {}, Exception("database is locked"))
        run_store.save_metrics(db, run_id, points)

    monkeypatch.setattr(progress_module, "save_metrics", refuse_while_locked)
    with Progress(db, home, run.id, flush_seconds=0.02) as progress:
        for step in range(50):
            progress.metrics(step, loss=float(step))
            time.sleep(0.002)
        assert list_metrics(db, run.id) == []
        locked.clear()
    assert [point.step for point in list_metrics(db, run.id)] == list(range(50))
    assert capsys.readouterr().out.count("trying on") == 1


def test_a_value_that_is_no_number_goes_to_the_log(
    db: Database, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save_run(db, Run(method="dpo", state=RunState.running))
    with Progress(db, home, run.id) as progress:
        progress.metrics(3, loss=float("nan"), accuracy=0.5)
    assert [point.name for point in list_metrics(db, run.id)] == ["accuracy"]
    assert "loss at step 3 is nan" in capsys.readouterr().out


def test_local_progress_keeps_lists() -> None:
    progress = LocalProgress()
    progress.report(0.5, "half")
    progress.metrics(1, loss=2)
    progress.log("a line")
    progress.check()
    assert progress.reports == [(0.5, "half")] and progress.lines == ["a line"]
    assert progress.points == [MetricPoint(step=1, name="loss", value=2.0)]
    progress.stop()
    with pytest.raises(RunCancelled):
        progress.check()


def test_a_second_attempt_replaces_the_points_it_takes_again(db: Database, home: Home) -> None:
    run = save_run(db, Run(method="dpo", state=RunState.running))
    with Progress(db, home, run.id) as first:
        for step in range(1, 8):
            first.metrics(step, loss=float(step))
            first.samples(step, [("hi", f"first {step}")])
    with Progress(db, home, run.id) as second:  # the last state that was kept is of step 4
        for step in range(5, 10):
            second.metrics(step, loss=10.0 * step)
            second.samples(step, [("hi", f"second {step}")])
    points = [(point.step, point.value) for point in list_metrics(db, run.id)]
    assert points == [*((step, float(step)) for step in range(1, 5)), *((step, 10.0 * step) for step in range(5, 10))]
    directory = home.run_dir(run.id)
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == points
    said = [json.loads(line) for line in (directory / "samples.jsonl").read_text().splitlines()]
    assert [look["said"][0][1] for look in said] == [
        *(f"first {step}" for step in range(1, 5)),
        *(f"second {step}" for step in range(5, 10)),
    ]
