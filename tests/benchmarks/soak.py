"""Six hours of labeling in a few minutes: is every judgment there once, and does the memory stay flat?

    python -m tests.benchmarks.soak [--clients 50] [--judgments 20000] [--required 2]

Fifty annotators drive a served studio with its worker over REST, without a pause; a run that fills the pool waits in
the worker's queue and ends. The memory (RSS) of the web process and of the worker is read every second. The first
fifth of the judgments is warm-up: caches fill, code is loaded, threads start. Growth is the highest of the last tenth
of the samples over the highest of the first tenth after the warm-up.

Exits with 1 when a judgment is missing or double, when a matchup was judged more often than it requires, when an
answer was an error, or when either process grew by ten per cent or more.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
from sqlalchemy import update

from feedback.database.engine import open_database
from feedback.store.labeling.settings import change_checks
from feedback.tables import MatchupRow
from feedback.types import Checks, MatchupState
from tests.benchmarks.assignment import fill
from tests.benchmarks.labeling import CLIENT_PROCESSES, Caller, Seen, free_port, judge_ours, serving
from tests.factories import get_matchup, list_judgments

WARM_UP = 0.2
MAX_GROWTH = 0.10
Sample = tuple[int, dict[str, float]]
"""Judgments answered so far, and MB by process."""


def label(job: tuple[int, list[str], Any, int]) -> Seen:
    """One client process: a thread per annotator, until all judgments that are wanted are made."""
    port, names, made, wanted = job
    seen = Seen()

    def annotate(name: str) -> None:
        caller = Caller(port, {}, seen)
        try:
            while made.value < wanted and (key := judge_ours(caller, name)) is not None:
                seen.answered.append(key)
                with made.get_lock():
                    made.value += 1
        except OSError as error:  # the server is gone
            seen.errors.append(repr(error))

    threads = [threading.Thread(target=annotate, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def resident_mb(pid: int) -> float:
    """A process's resident memory."""
    with Path(f"/proc/{pid}/statm").open() as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def sample(pids: dict[str, int], made: Any, into: list[Sample], stop: threading.Event) -> None:
    """Read the memory once a second until told to stop."""
    while not stop.wait(1.0):
        into.append((made.value, {name: resident_mb(pid) for name, pid in pids.items()}))


def growth(samples: list[float]) -> float:
    """By which share the end lies above the beginning."""
    tenth = max(1, len(samples) // 10)
    return max(samples[-tenth:]) / max(samples[:tenth]) - 1


def pids_of(home: Path) -> dict[str, int]:
    """The web process and the worker of a home, by their locks."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        told = {name: home / f"{name}.lock" for name in ("studio", "worker")}
        try:
            return {name: int(json.loads(path.read_text())["pid"]) for name, path in told.items()}
        except (OSError, ValueError, KeyError):
            time.sleep(0.2)
    raise RuntimeError("the studio or its worker did not start")


def soak(home: Path, clients: int, wanted: int) -> tuple[list[Seen], list[Sample], float]:
    """Serve, label, watch; what the clients saw, the memory over time, and how many seconds it took."""
    port = free_port()
    command = [sys.executable, "-m", "studio.cli", "--home", str(home), "up", "--port", str(port)]
    spawn = multiprocessing.get_context("spawn")
    made, samples, stop = spawn.Value("l", 0), list[Sample](), threading.Event()
    names = [f"annotator-{number}" for number in range(clients)]
    with serving(command, port, "/api/health", home / "server.log"):
        watcher = threading.Thread(target=sample, args=(pids_of(home), made, samples, stop))
        watcher.start()
        start = time.monotonic()
        parts = list[Seen]()
        processes = [
            _Client(port, names[part::CLIENT_PROCESSES], made, wanted, spawn) for part in range(CLIENT_PROCESSES)
        ]
        for process in processes:
            parts.append(process.result())
        seconds = time.monotonic() - start
        stop.set()
        watcher.join()
    return parts, samples, seconds


class _Client:
    """A client process and the end of the pipe its result comes through; a pool cannot share a counter."""

    def __init__(self, port: int, names: list[str], made: Any, wanted: int, spawn: Any) -> None:
        self.end, other = spawn.Pipe(duplex=False)
        self.process = spawn.Process(target=_send, args=(label, (port, names, made, wanted), other))
        self.process.start()

    def result(self) -> Seen:
        seen: Seen = self.end.recv()
        self.process.join()
        return seen


def _send(work: Callable[[Any], Seen], job: Any, end: Any) -> None:
    end.send(work(job))


def check(home: Path, parts: list[Seen]) -> list[str]:
    """What is wrong with the judgments in the database, in words."""
    answered = Counter(key for part in parts for key in part.answered)
    db = open_database(home / "studio.db")
    stored = list_judgments(db)
    kept = {row.id for row in stored}
    per_matchup = Counter(row.matchup_id for row in stored)
    own = Counter((row.matchup_id, row.annotator) for row in stored)
    rows = [get_matchup(db, key) for key in per_matchup]
    db.dispose()
    done = [row for row in rows if row.state is not MatchupState.open]  # disputed ones have all they require too
    wrong = [
        (sum(key not in kept for key in answered), "answered judgments are not in the database"),
        (len(kept - set(answered)), "judgments in the database were never answered"),
        (sum(times > 1 for times in answered.values()), "judgments were answered twice"),
        (sum(per_matchup[row.id] > row.required for row in rows), "matchups have more judgments than they require"),
        (sum(per_matchup[row.id] != row.required for row in done), "done matchups have not exactly what they require"),
        (sum(times > 1 for times in own.values()), "matchups were judged twice by one person"),
        (sum(len(part.errors) for part in parts), "requests failed"),
    ]
    print(f"{len(stored)} judgments, {len(done)} matchups done of {len(rows)} begun")
    return [f"{number} {what}" for number, what in wrong if number]


def prepare(home: Path, wanted: int, required: int) -> None:
    """A pool that lasts, each matchup judged ``required`` times, without gold and repeats: those are extra."""
    fill(home / "studio.db", wanted // required + 200)
    db = open_database(home / "studio.db")
    with db.write() as session:
        session.execute(update(MatchupRow).values(required=required, max_required=required))
    change_checks(db, Checks(), {"gold_share": 0, "repeat_share": 0}, author="soak")
    db.dispose()


def report(samples: list[Sample], wanted: int) -> list[str]:
    """Print the curve of the memory; what grew too much, in words."""
    names = list(samples[0][1])
    print("\n| judgments | " + " | ".join(f"{name} MB" for name in names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for at in numpy.linspace(0, len(samples) - 1, 11).astype(int):
        made, sizes = samples[at]
        print(f"| {made} | " + " | ".join(f"{sizes[name]:.0f}" for name in names) + " |")
    warm = [sizes for made, sizes in samples if made >= WARM_UP * wanted]
    grown = {name: growth([sizes[name] for sizes in warm]) for name in names}
    print("\ngrowth after the warm-up: " + ", ".join(f"{name} {share:+.1%}" for name, share in grown.items()))
    return [f"{name} grew by {share:.1%}" for name, share in grown.items() if share >= MAX_GROWTH]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--judgments", type=int, default=20_000)
    parser.add_argument("--required", type=int, default=2)
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        prepare(home, options.judgments, options.required)
        parts, samples, seconds = soak(home, options.clients, options.judgments)
        latencies = [value for part in parts for value in part.latencies]
        p50, p95, p99 = numpy.percentile(latencies, [50, 95, 99]) * 1000
        print(f"{seconds:.0f} s, {options.judgments / seconds:.0f}/s; p50 {p50:.0f}, p95 {p95:.0f}, p99 {p99:.0f} ms")
        wrong = check(home, parts) + report(samples, options.judgments)
    print("\n".join(wrong) or "nothing lost, nothing double, memory flat")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
