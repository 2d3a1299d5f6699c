"""Writers queue: nobody overtakes those who wait, and whoever is killed opens the door."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import IO

import pytest

from feedback.database.write_queue import WriteQueue


def write_in_turns(path: str, name: str, log: str, start: float, rounds: int) -> None:
    queue = WriteQueue(Path(path))
    time.sleep(max(0.0, start - time.time()))
    for _ in range(rounds):
        with queue.wait(), open(log, "a") as lines:
            lines.write(f"{name}\n")
            lines.flush()
            time.sleep(0.002)


def hold_for_ever(path: str, ready: str) -> None:
    with WriteQueue(Path(path)).wait():
        Path(ready).touch()
        time.sleep(600)


def test_processes_take_turns_and_each_comes_to_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    start = time.time() + 4  # all of them are there before the first begins
    people = [
        multiprocessing.get_context("spawn").Process(
            target=write_in_turns, args=(str(tmp_path / "db"), f"p{i}", str(log), start, 40)
        )
        for i in range(4)
    ]
    for person in people:
        person.start()
    for person in people:
        person.join(60)
    order = log.read_text().split()
    assert Counter(order) == {f"p{i}": 40 for i in range(4)}


def test_whoever_has_just_written_comes_after_whoever_waits(tmp_path: Path) -> None:
    writer, waiter = (
        WriteQueue(tmp_path / "db"),
        WriteQueue(tmp_path / "db"),
    )  # files of their own, as two processes have
    order: list[str] = []

    def wait() -> None:
        with waiter.wait():
            order.append("waiter")

    thread = threading.Thread(target=wait)
    with writer.wait():
        thread.start()
        with open(tmp_path / "db.queue") as outer_door:
            end = time.monotonic() + 30
            while not is_locked(outer_door):
                assert time.monotonic() < end, "the waiter does not hold the outer door"
                time.sleep(0.01)
    with writer.wait():  # at once, without the door it would mostly be first
        order.append("writer")
    thread.join()
    assert order == ["waiter", "writer"]


def is_locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def test_threads_exclude_each_other(tmp_path: Path) -> None:
    queue, inside, most = WriteQueue(tmp_path / "db"), [], []

    def work() -> None:
        for _ in range(50):
            with queue.wait():
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(most) == 300


def test_a_killed_writer_opens_the_door(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    holder = multiprocessing.get_context("spawn").Process(target=hold_for_ever, args=(str(tmp_path / "db"), str(ready)))
    holder.start()
    while not ready.exists():
        time.sleep(0.02)
    assert holder.pid
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with WriteQueue(tmp_path / "db").wait():
        pass


def test_a_stopped_writer_holds_the_others_up_once_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedback.database.write_queue.PATIENCE_SECONDS", 0.5, raising=False)
    ready, written = tmp_path / "ready", threading.Event()
    holder = multiprocessing.get_context("spawn").Process(target=hold_for_ever, args=(str(tmp_path / "db"), str(ready)))
    holder.start()
    while not ready.exists():
        time.sleep(0.02)
    assert holder.pid
    os.kill(holder.pid, signal.SIGSTOP)
    queue = WriteQueue(tmp_path / "db")

    def write_thrice() -> None:
        for _ in range(3):
            with queue.wait():
                pass
        written.set()

    threading.Thread(target=write_thrice, daemon=True).start()
    try:
        assert written.wait(30), "a stopped process blocks the others"
        late = [thread for thread in threading.enumerate() if thread.name == "turn"]
        assert len(late) == 1  # the second and the third did not wait again
    finally:
        os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    late[0].join(30)
    with queue.wait(), open(tmp_path / "db.turn") as door:
        assert is_locked(door)  # the turn is taken again
    with open(tmp_path / "db.turn") as door:
        assert not is_locked(door)


def test_a_database_in_memory_needs_no_files(tmp_path: Path) -> None:
    with WriteQueue(None).wait():
        assert list(tmp_path.iterdir()) == []
