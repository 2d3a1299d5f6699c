"""What a run tells the world: progress, metric points, log lines; and the one thing it hears: please stop.

Calls are cheap enough for every step. A thread writes once a second, in one batch: heartbeat, progress and the
points gathered since. A database that is locked or away for a while costs nothing but delay: points wait in
memory (and stand in ``metrics.jsonl`` at once) until they are written.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from feedback.database.engine import Database
from feedback.errors import RunCancelled
from feedback.files import atomic_write
from feedback.store.models.runs import get_run, last_step, save_metrics, update_run
from feedback.types import MetricPoint, RunState, now
from training.home import Home
from training.reporting.reporter import Samples, Watch

METRICS_FILE = "metrics.jsonl"
SAMPLES_FILE = "samples.jsonl"
FLUSH_SECONDS = 1.0
# At the end of a run the last points are worth this much waiting for a locked database.
CLOSE_PATIENCE_SECONDS = 60.0


class Progress:
    """Progress of a real run, written to the database by a thread of its own. Use it as a context manager.

    A second attempt goes on from the last state that was kept, some steps before the first one ended. Its first
    point therefore replaces whatever the curves had from that step on. What a killed attempt told in its last second
    stands in its file alone, and is brought to the database first.
    """

    def __init__(
        self,
        db: Database,
        home: Home,
        run_id: str,
        *,
        watch: Watch | None = None,
        flush_seconds: float = FLUSH_SECONDS,
    ) -> None:
        self.watch = watch or Watch()
        self.told: dict[str, Any] = {}
        self._db = db
        self._run_id = run_id
        self._flush_seconds = flush_seconds
        self._lock = threading.Lock()
        self._points: list[MetricPoint] = []
        self._first_step: int | None = None
        self._replaced = False
        self._fraction: float | None = None
        self._text = ""
        self._stop_asked = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="progress", daemon=True)
        self._directory = home.run_dir(run_id)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lost = _read_points(self._directory / METRICS_FILE)
        self._file: IO[str] = (self._directory / METRICS_FILE).open("a", encoding="utf-8")

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def report(self, fraction: float, text: str) -> None:
        """Say how much is done (0 to 1) and what is being done; replaces what was said before."""
        with self._lock:
            self._fraction = min(max(float(fraction), 0.0), 1.0)
            self._text = text

    def metrics(self, step: int, **values: float) -> None:
        """Add one point to each named curve; a value that is not a finite number goes to the log instead."""
        numbers = {name: float(value) for name, value in values.items()}
        for name in [name for name, value in numbers.items() if not math.isfinite(value)]:
            self.log(f"{name} at step {step} is {numbers.pop(name)}")
        points = [MetricPoint(step=step, name=name, value=value) for name, value in numbers.items()]
        with self._lock:
            if self._first_step is None:
                self._first_step = step
                self._file.close()
                _forget_lines(self._directory / METRICS_FILE, step)
                self._file = (self._directory / METRICS_FILE).open("a", encoding="utf-8")
            self._points += points
            self._write_line({"step": step, "at": now().isoformat(), **numbers})

    def samples(self, step: int, said: Samples) -> None:
        """Keep a look at the model's replies, in place of what an earlier attempt saw from this step on."""
        path = self._directory / SAMPLES_FILE
        _forget_lines(path, step)
        with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "said": said}, ensure_ascii=False) + "\n")

    def check(self) -> None:
        """Raise RunCancelled when somebody asked the run to stop."""
        if self._stop_asked.is_set():
            raise RunCancelled("The run was cancelled.")

    def log(self, line: str) -> None:
        """Write a line, with the time, to the run's log: the process's own output."""
        with contextlib.suppress(OSError):  # a full disk: a lost line must not end a run
            print(f"{now():%Y-%m-%d %H:%M:%S} {line}", file=sys.stdout, flush=True)

    def close(self) -> None:
        """Write what is left, waiting for a locked database if need be, and end the thread."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        deadline = time.monotonic() + CLOSE_PATIENCE_SECONDS
        while not self._flush() and time.monotonic() < deadline:
            time.sleep(self._flush_seconds)
        if self._points:
            self.log(f"{len(self._points)} metric points could not be written; they are in metrics.jsonl")
        self._file.close()

    def _beat(self) -> None:
        complained = False
        while not self._closing.wait(self._flush_seconds):
            reached = self._flush()
            if not reached and not complained:
                self.log("the database cannot be written at the moment; trying on")
            complained = not reached

    def _flush(self) -> bool:
        """Write heartbeat, progress and points, and hear whether to stop; False to try again later."""
        with self._lock:
            points, self._points = self._points, []
            changes: dict[str, Any] = {"heartbeat_at": now()}
            if self._fraction is not None:
                changes |= {"progress": self._fraction, "progress_text": self._text}
        try:
            self._bring_lost()
            if points:
                save_metrics(self._db, self._run_id, points, replace_from=None if self._replaced else self._first_step)
                self._replaced = True
                points = []
            state = get_run(self._db, self._run_id).state
            if state is not RunState.running:
                # Somebody asked us to stop, or has given us up for dead: then another attempt may already be at work.
                self._stop_asked.set()
                changes.pop("progress_text", None)
            if state not in (RunState.running, RunState.stopping):
                return True
            update_run(self._db, self._run_id, **changes)
        except Exception:  # whatever ails the database, the run itself must go on
            with self._lock:
                self._points = points + self._points
            return False
        return True

    def _bring_lost(self) -> None:
        if self._lost:
            last = last_step(self._db, self._run_id)
            points = [point for point in self._lost if last is None or point.step >= last]
            if points:
                save_metrics(self._db, self._run_id, points, replace_from=last)
            self._lost = []

    def _write_line(self, values: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()
        except OSError as error:  # a full disk: the database has the points too
            self.log(f"metrics.jsonl: {error.strerror}")


def _forget_lines(path: Path, step: int) -> None:
    """Take the lines of ``step`` and later out of a file of JSON lines; a line cut off in the middle goes too."""
    if not path.is_file():
        return
    # Split at line feeds alone: a reply may hold other signs at which text breaks; and a kill may cut one in half
    kept = [line for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if _is_before(line, step)]
    # A full disk: the file keeps lines that are reported twice
    with contextlib.suppress(OSError), atomic_write(path) as file:
        file.write("".join(f"{line}\n" for line in kept).encode())


def _read_points(path: Path) -> list[MetricPoint]:
    """The points in a file of JSON lines; a line cut off in the middle holds none."""
    points: list[MetricPoint] = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else ():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            values = json.loads(line)
            step = int(values.pop("step"))
            values.pop("at", None)
            points += [MetricPoint(step=step, name=name, value=float(value)) for name, value in values.items()]
    return points


def _is_before(line: str, step: int) -> bool:
    try:
        return int(json.loads(line)["step"]) < step
    except (ValueError, KeyError, TypeError):
        return False
