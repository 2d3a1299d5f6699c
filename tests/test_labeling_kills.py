"""Annotators and servers die at any moment; every acknowledged judgment is there once, and the pool can be finished."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from feedback.database.engine import Database, open_database
from feedback.labeling import assignment, judging
from feedback.store.labeling import matchups
from feedback.types import JudgmentState, Verdict, now
from tests.factories import count_judgments, list_judgments, make_matchup, make_policy, make_prompt

PAIRS = 40


def fill(db: Database, count: int, required: int) -> list[str]:
    policy, prompt = make_policy(db), make_prompt(db)
    return [make_matchup(db, policy=policy, prompt=prompt, required=required).id for _ in range(count)]


def label_until_killed(path: str, number: int, log: str) -> None:
    """Lease and judge for ever, noting each acknowledged judgment before the next; dies when it is killed."""
    db = open_database(path)
    rng = random.Random(number)
    with open(log, "a", buffering=1) as acknowledged:
        while True:
            task = assignment.lease_next(db, f"ann-{number}", lease_seconds=2, rng=rng)
            if task is None:
                time.sleep(0.02)
                continue
            if rng.random() < 0.2:
                continue  # walks away from it
            done = judging.submit(db, task.lease_id, task.annotator, verdict=rng.choice(["left", "right"]))
            acknowledged.write(f"{done.judgment_id}\n")


def check_the_pool(db: Database, made: list[str], required: int, acknowledged: list[str]) -> None:
    """Nothing lost, nothing double, nothing above what is required; then honest people finish the rest."""
    rows = {row.id: row for row in list_judgments(db)}
    assert set(acknowledged) <= set(rows) and len(set(acknowledged)) == len(acknowledged)
    per_matchup = Counter(row.matchup_id for row in rows.values() if row.state is JudgmentState.current)
    assert all(count <= required for count in per_matchup.values())
    for name in ("late-1", "late-2", "late-3"):
        while (task := assignment.lease_next(db, name)) is not None:
            judging.submit(db, task.lease_id, name, verdict="tie")
    finished = Counter(
        row.matchup_id
        for row in list_judgments(db)
        if row.state is JudgmentState.current and row.verdict is not Verdict.skip
    )
    assert finished == dict.fromkeys(made, required)
    assert matchups.count_matchups(db).open == 0


@pytest.mark.slow
def test_killed_annotators_lose_nothing_and_block_nobody(tmp_path: Path) -> None:
    path = tmp_path / "studio.db"
    db = open_database(path)
    made = fill(db, PAIRS, 2)
    context = multiprocessing.get_context("spawn")
    logs = [tmp_path / f"{number}.log" for number in range(5)]
    people = [context.Process(target=label_until_killed, args=(str(path), i, str(log))) for i, log in enumerate(logs)]
    for person in people:
        person.start()
    rng = random.Random(5)
    for person in rng.sample(people, len(people)):  # one by one, in the middle of whatever they do
        before = count_judgments(db)
        wait_until(lambda before=before: count_judgments(db) >= min(before + 4, 2 * PAIRS))
        assert person.pid
        os.kill(person.pid, signal.SIGKILL)
        person.join()
    acknowledged = [line for log in logs if log.exists() for line in log.read_text().split()]
    assert acknowledged
    time.sleep(2.1)  # the leases of the dead end
    check_the_pool(db, made, 2, acknowledged)
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.slow
def test_a_killed_server_keeps_what_it_acknowledged_and_takes_the_rest_again(tmp_path: Path) -> None:
    home, port = tmp_path / "home", free_port()
    home.mkdir()
    db = open_database(home / "studio.db")
    made = fill(db, PAIRS, 2)
    acknowledged: dict[str, str] = {}
    unanswered: list[dict[str, str]] = []
    stop = threading.Event()
    server = serve(home, port)
    try:
        threads = [
            threading.Thread(target=label_over_http, args=(port, f"ann-{i}", acknowledged, unanswered, stop))
            for i in range(4)
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(acknowledged) >= 15)
        server.kill()  # in the middle of four people's requests
        server.wait()
        stop.set()
        for thread in threads:
            thread.join()
        known = {row.lease_id: row.id for row in list_judgments(db)}
        assert acknowledged.items() <= known.items()
        server = serve(home, port)
        for said in unanswered:  # a browser sends again what got no answer: it counts once, whether or not it had
            first, answer = call(port, "/api/judgments", said)
            again, same = call(port, "/api/judgments", said)
            assert (first, again) in {(200, 200), (201, 200)} and answer == same
            acknowledged[said["lease"]] = answer["judgment_id"]
    finally:
        stop.set()
        server.kill()
        server.wait()
    with db.write() as session:
        session.connection().exec_driver_sql(
            "UPDATE lease SET expires_at = ? WHERE state = 'leased'", (str(now())[:26],)
        )
    check_the_pool(db, made, 2, list(acknowledged.values()))


def label_over_http(
    port: int, name: str, acknowledged: dict[str, str], unanswered: list[dict[str, str]], stop: threading.Event
) -> None:
    """Lease and judge until told to stop or until the server is gone."""
    while not stop.is_set():
        said: dict[str, str] | None = None
        try:
            status, task = call(port, "/api/tasks/next", {"annotator": name})
            if status != 200:
                return
            said = {"lease": task["lease"], "annotator": name, "verdict": "left"}
            status, done = call(port, "/api/judgments", said)
            assert status == 201
            acknowledged[task["lease"]] = done["judgment_id"]
        except (OSError, http.client.HTTPException):
            if said is not None:
                unanswered.append(said)
            return


def call(port: int, path: str, body: dict[str, str]) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        text = reply.read()
        return reply.status, json.loads(text) if text else None
    finally:
        connection.close()


def serve(home: Path, port: int) -> subprocess.Popen[bytes]:
    """A studio without a worker; returns when it answers."""
    command = [sys.executable, "-m", "studio.cli", "--home", str(home), "up", "--no-worker", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers() -> bool:
        assert process.poll() is None, "the server ended"
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/api/health")
            return connection.getresponse().status == 200
        except OSError:
            return False

    wait_until(answers)
    return process


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(is_so: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)
