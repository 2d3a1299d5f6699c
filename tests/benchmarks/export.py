"""How many rows per second an export writes, and in how much memory, for every format.

    python -m tests.benchmarks.export [--pairs 50000] [--format NAME]

The dataset holds one judged pair per prompt, with replies of about 300 characters. Each format is exported in a
process of its own, so that its peak of memory is its own too: ``more MB`` is by how much the peak rose above the
process before its first row, and ``per CPU s`` is the rate on a core of its own, whatever else the machine does.
Label Studio 1.23 exports 2,000 tasks in 2.4 s on this class of machine: 833 a second.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

from feedback import formats, jsonl
from feedback.database.engine import open_database
from feedback.datasets import freeze

PEER_TASKS_PER_SECOND = 2000 / 2.4


def fill(folder: Path, count: int) -> Path:
    """A database with ``count`` imported pairs, frozen as ``d``; says how long reading and freezing them took."""
    lines = (
        jsonl.dump_line(
            {
                "prompt": f"Question number {i}: what would you say?",
                "chosen": f"Answer {i}. " + "A good word. " * 22,
                "rejected": f"Reply {i}. " + "Another word. " * 20,
            }
        )
        for i in range(count)
    )
    jsonl.write_lines(folder / "in.jsonl", lines)
    db = open_database(folder / "studio.db")
    start = time.perf_counter()
    formats.import_file(db, folder / "in.jsonl", "trl-preference")
    read = time.perf_counter() - start
    freeze.freeze(db, "d")
    frozen = time.perf_counter() - start - read
    print(f"{count} pairs: read in {read:.1f} s ({count / read:.0f}/s), frozen in {frozen:.1f} s\n")
    db.dispose()
    return folder / "studio.db"


def export(job: tuple[Path, str]) -> tuple[int, float, float, float]:
    """Export one format; gives rows, seconds, seconds of CPU and by how many MB the peak of memory rose."""
    path, name = job
    db = open_database(path)
    next(formats.stream_dataset(db, "d", name))  # what the first query loads is not the export's
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    report = formats.export_dataset(db, "d", name, path.parent / f"{name}.out")
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    db.dispose()
    return report.rows, seconds, cpu, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=50_000)
    parser.add_argument("--format", choices=list(formats.FORMATS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = fill(Path(folder), options.pairs)
        print("| format | rows | rows per s | per CPU s | beside Label Studio's 833 per s | more MB |")
        print("|---|---|---|---|---|---|")
        for name in [options.format] if options.format else formats.FORMATS:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows, seconds, cpu, memory = pool.apply(export, ((path, name),))
            times = rows / seconds / PEER_TASKS_PER_SECOND
            print(
                f"| {name} | {rows} | {rows / seconds:.0f} | {rows / cpu:.0f} | {times:.0f} × | {memory:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
