"""Judgments per second over HTTP with 1, 8 and 32 annotators, beside Label Studio on the same work in the same run.

    python -m tests.benchmarks.labeling [--tasks 3000] [--seconds 8] [--label-studio VENV]

Every annotator asks for a task and answers it, over and over, without a pause (a person takes seconds, so 32 of
these are some hundreds of people). The studio runs as its own process, as ``studio up`` starts it; the annotators are
threads of four client processes. Counts errors, pairs that were handed out twice and what the server spent of the
processor, which other work on the machine changes far less than the times. ``--label-studio`` names a virtual
environment in which ``pip install label-studio`` was done: its server is then given the same pairs and driven the
same way through its own API (next task, post annotation).
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import psutil

from feedback.database.engine import open_database
from tests.benchmarks.assignment import fill
from tests.factories import list_judgments

CLIENT_PROCESSES = 4


@dataclass
class Seen:
    """What some annotators saw: seconds per request, tasks answered, what went wrong, and what it cost the server."""

    latencies: list[float] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    cpu_seconds: float = 0.0


class Caller:
    """One annotator's connection: JSON in, JSON out, the time of each request noted."""

    def __init__(self, port: int, headers: dict[str, str], seen: Seen) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.headers = {"Content-Type": "application/json", **headers}
        self.seen = seen

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """The status and the answer of one request."""
        start = time.perf_counter()
        self.connection.request(method, path, None if body is None else json.dumps(body), self.headers)
        reply = self.connection.getresponse()
        text = reply.read()
        self.seen.latencies.append(time.perf_counter() - start)
        if reply.status >= 400:
            self.seen.errors.append(f"{method} {path}: {reply.status} {text[:120]!r}")
        return reply.status, json.loads(text) if text and reply.status < 400 else None


def judge_ours(caller: Caller, annotator: str) -> str | None:
    """One task of the studio, answered."""
    _, task = caller.call("POST", "/api/tasks/next", {"annotator": annotator})
    if task is None:
        return None
    said = {"lease": task["lease"], "verdict": "left", "annotator": annotator}
    status, done = caller.call("POST", "/api/judgments", said)
    return str(done["judgment_id"]) if status == 201 else None


def judge_theirs(caller: Caller, _annotator: str) -> str | None:
    """One task of Label Studio, answered."""
    _, task = caller.call("GET", "/api/projects/1/next")
    if task is None:
        return None
    said = {"result": [{"from_name": "pick", "to_name": "pair", "type": "pairwise", "value": {"selected": "left"}}]}
    status, _ = caller.call("POST", f"/api/tasks/{task['id']}/annotations/", said)
    return str(task["id"]) if status == 201 else None


JUDGES: dict[str, Callable[[Caller, str], str | None]] = {"ours": judge_ours, "theirs": judge_theirs}


def work(job: tuple[str, int, dict[str, str], list[str], float]) -> Seen:
    """One client process: a thread per annotator, all for some seconds."""
    whose, port, headers, annotators, seconds = job
    seen = Seen()
    end = time.perf_counter() + seconds

    def annotate(name: str) -> None:
        caller = Caller(port, headers, seen)
        try:
            while time.perf_counter() < end:
                done = JUDGES[whose](caller, name)
                if done is not None:
                    seen.answered.append(done)
        except OSError as error:
            seen.errors.append(repr(error))

    threads = [threading.Thread(target=annotate, args=(name,)) for name in annotators]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def drive(
    whose: str, server: psutil.Process, port: int, headers: dict[str, str], annotators: int, seconds: float
) -> Seen:
    """All annotators at once; what they saw together."""
    names = [f"annotator-{number}" for number in range(annotators)]
    jobs = [(whose, port, headers, names[part::CLIENT_PROCESSES], seconds) for part in range(CLIENT_PROCESSES)]
    jobs = [job for job in jobs if job[3]]
    with multiprocessing.get_context("spawn").Pool(len(jobs)) as pool:
        before = cpu_seconds(server)
        parts = pool.map(work, jobs, chunksize=1)
        spent = cpu_seconds(server) - before
    return Seen(
        [value for part in parts for value in part.latencies],
        [value for part in parts for value in part.answered],
        [value for part in parts for value in part.errors],
        spent,
    )


def cpu_seconds(server: psutil.Process) -> float:
    """What a server and the processes it started have used of the processor, in the program and in the system."""
    used = [process.cpu_times() for process in (server, *server.children(recursive=True))]
    return sum(times.user + times.system for times in used)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(command: list[str], port: int, path: str, log: Path, **env: str) -> Iterator[psutil.Process]:
    """A server process that answers at ``path``; ended on leaving."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **env})
    try:
        for _ in range(240):
            time.sleep(0.5)
            if process.poll() is not None:
                raise RuntimeError(f"the server ended: {log.read_text()[-2000:]}")
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                connection.request("GET", path)
                connection.getresponse().read()
                break
            except OSError:
                continue
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def row(name: str, annotators: int, seen: Seen, seconds: float, twice: str) -> str:
    """One row of the table."""
    p50, p95, p99 = numpy.percentile(seen.latencies or [float("nan")], [50, 95, 99]) * 1000
    cpu = seen.cpu_seconds / len(seen.answered) * 1000 if seen.answered else float("nan")
    return (
        f"| {name} | {annotators} | {len(seen.answered) / seconds:.1f} | {p50:.1f} | {p95:.1f} | {p99:.1f} | "
        f"{cpu:.2f} | {len(seen.errors)} | {twice} |"
    )


def measure_ours(annotators: int, tasks: int, seconds: float) -> tuple[str, float]:
    """The studio's row and its rate; every answer must be in the database once."""
    with tempfile.TemporaryDirectory() as folder:
        home, port = Path(folder), free_port()
        fill(home / "studio.db", tasks)
        command = [sys.executable, "-m", "studio.cli", "--home", folder, "up", "--no-worker", "--port", str(port)]
        with serving(command, port, "/api/health", home / "server.log") as server:
            drive("ours", server, port, {}, annotators, 1.0)  # imports, caches
            seen = drive("ours", server, port, {}, annotators, seconds)
        db = open_database(home / "studio.db")
        stored = {judgment.id: judgment.matchup_id for judgment in list_judgments(db)}
        db.dispose()
    twice = sum(times > 1 for times in Counter(stored.values()).values())
    lost = sum(key not in stored for key in seen.answered)
    if lost:
        seen.errors.append(f"{lost} answers are not in the database")
    print(*Counter(seen.errors).most_common(3), sep="\n", end="", file=sys.stderr)
    return row("this studio", annotators, seen, seconds, str(twice)), len(seen.answered) / seconds


def measure_theirs(venv: Path, annotators: int, tasks: int, seconds: float) -> tuple[str, float]:
    """Label Studio's row and its rate."""
    token = secrets.token_hex(20)
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        account = ["--username", "bench@example.org", "--password", secrets.token_hex(8), "--user-token", token]
        start = [str(venv / "bin" / "label-studio"), "start", "--no-browser", "--port", str(port), *account]
        settings = {
            "LABEL_STUDIO_BASE_DATA_DIR": folder,
            "COLLECT_ANALYTICS": "false",
            "SENTRY_DSN": "",
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        }
        headers = {"Authorization": f"Token {token}"}
        with serving(start, port, "/health", Path(folder) / "server.log", **settings) as server:
            set_up_theirs(Caller(port, headers, Seen()), tasks)
            seen = drive("theirs", server, port, headers, annotators, seconds)
    print(*Counter(seen.errors).most_common(3), sep="\n", end="", file=sys.stderr)
    twice = sum(times > 1 for times in Counter(seen.answered).values())
    return row("Label Studio", annotators, seen, seconds, str(twice)), len(seen.answered) / seconds


def set_up_theirs(caller: Caller, tasks: int) -> None:
    """A pairwise project with as many tasks as ours has pairs, and replies as long."""
    config = (
        '<View><Text name="prompt" value="$prompt"/><Pairwise name="pick" toName="a,b"/>'
        '<Text name="a" value="$a"/><Text name="b" value="$b"/></View>'
    )
    status, _ = caller.call("POST", "/api/projects", {"title": "bench", "label_config": config})
    if status >= 400:
        raise RuntimeError(f"Label Studio made no project: {caller.seen.errors}")
    for start in range(0, tasks, 500):
        count = min(500, tasks - start)
        part = [{"prompt": f"Question {i}", "a": "word " * 300, "b": "other " * 300} for i in range(count)]
        caller.call("POST", "/api/projects/1/import", part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--annotators", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--label-studio", type=Path, metavar="VENV")
    options = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} before\n")
    print(
        "| | annotators | judgments per s | p50 ms | p95 ms | p99 ms | server's CPU ms per judgment | errors "
        "| handed out twice |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for annotators in options.annotators:
        line, ours = measure_ours(annotators, options.tasks, options.seconds)
        print(line, flush=True)
        if options.label_studio:
            line, theirs = measure_theirs(options.label_studio, annotators, options.tasks, options.seconds)
            print(line, f"ratio {ours / theirs:.0f}" if theirs else "", flush=True)


if __name__ == "__main__":
    main()
