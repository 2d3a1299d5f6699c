"""How many tasks per second the store hands out and takes back, with 1, 8 and 32 annotators on one SQLite file.

    python -m tests.benchmarks.assignment [--tasks 5000] [--seconds 5]

Every annotator is a process of its own that leases a pair and judges it, over and over, against a pool of pairs
with replies of about 1.5 kB. Prints the rate and the latency of one lease + judgment, and checks that no pair was
handed out twice.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy

from feedback.database.engine import open_database
from feedback.labeling import assignment, judging
from feedback.store.content import generations, prompts
from feedback.store.labeling import matchups
from feedback.store.models import policies
from feedback.types import Generation, Matchup, Policy, Prompt
from tests.factories import list_judgments


def fill(path: Path, count: int) -> None:
    """A pool of ``count`` open pairs over a tenth as many prompts."""
    db = open_database(path)
    policy = policies.save_policy(db, Policy(name="bench", base="starter"))
    asked = [Prompt(messages=[{"role": "user", "content": f"Question {i}"}]) for i in range(max(1, count // 10))]
    ids = prompts.save_prompts(db, asked).ids
    replies = [
        Generation(prompt_id=ids[i // 2 % len(ids)], policy_id=policy.id, text=f"Reply {i}. " + "word " * 300, seed=i)
        for i in range(2 * count)
    ]
    rows = generations.save_generations(db, replies)
    pairs = [
        Matchup(prompt_id=rows[2 * i].prompt_id, generation_ids=[rows[2 * i].id, rows[2 * i + 1].id])
        for i in range(count)
    ]
    matchups.save_matchups(db, pairs)
    db.dispose()


def label(job: tuple[str, int, float]) -> list[float]:
    """One annotator at work for some seconds; gives the latency of each lease + judgment, in seconds."""
    path, number, seconds = job
    db = open_database(path)
    latencies = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        task = assignment.lease_next(db, f"annotator-{number}")
        if task is None:
            break
        judging.submit(db, task.lease_id, task.annotator, verdict="left")
        latencies.append(time.perf_counter() - start)
    db.dispose()
    return latencies


def measure(annotators: int, count: int, seconds: float) -> str:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "studio.db"
        fill(path, count)
        with multiprocessing.get_context("spawn").Pool(annotators) as pool:
            jobs = [(str(path), number, seconds) for number in range(annotators)]
            latencies = numpy.array([value for part in pool.map(label, jobs, chunksize=1) for value in part])
        db = open_database(path)
        handed = Counter(row.matchup_id for row in list_judgments(db))
        db.dispose()
    twice = sum(times > 1 for times in handed.values())
    p50, p95, p99 = numpy.percentile(latencies, [50, 95, 99]) * 1000
    rate = len(latencies) / seconds
    return f"| {annotators} | {rate:.0f} | {p50:.1f} | {p95:.1f} | {p99:.1f} | {twice} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    print("| annotators | lease + judgment per s | p50 ms | p95 ms | p99 ms | handed out twice |")
    print("|---|---|---|---|---|---|")
    for annotators in (1, 8, 32):
        print(measure(annotators, options.tasks, options.seconds), flush=True)


if __name__ == "__main__":
    main()
