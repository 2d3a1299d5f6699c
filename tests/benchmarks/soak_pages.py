"""A page every five seconds for ten minutes, and annotators over REST beside it: does the memory stay flat?

    python -m tests.benchmarks.soak_pages [--seconds 600] [--every 5] [--clients 4]

Each page is a browser context of its own: it loads, judges one pair by a key and closes, as a reload does. Memory (RSS)
of the web process is read once a second. The first tenth is warm-up: code is loaded, threads start. Growth is the
highest of the last tenth over the highest of the first tenth after the warm-up; the whole run without warm-up is
printed beside it. Needs the browser (``make chromium``).

Exits with 1 when a page failed, when a judgment is missing or double, or when the web process grew by 5 % or more.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy
from playwright.sync_api import Browser, Error, sync_playwright

from feedback.database.engine import open_database
from tests.benchmarks.labeling import Caller, Seen, free_port, judge_ours, serving
from tests.benchmarks.soak import growth, pids_of, prepare, resident_mb
from tests.browser import chromium
from tests.browser.conftest import LAUNCH_ARGS, press
from tests.factories import list_judgments

WARM_UP = 0.1
MAX_GROWTH = 0.05
PAUSE_S = 0.2
"""Between two judgments of an annotator over REST: people read."""


def open_page(browser: Browser, port: int) -> None:
    """Load the page in a context of its own, judge a pair and close."""
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}/#label")
        press(page, "1")
    finally:
        context.close()


def browse(port: int, seconds: float, every: float) -> tuple[int, list[str]]:
    """Open a page every ``every`` seconds; how many there were, and what failed."""
    opened, failed = 0, list[str]()
    start = time.monotonic()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=LAUNCH_ARGS)
        while (elapsed := time.monotonic() - start) < seconds:
            due = opened * every
            if elapsed < due:
                time.sleep(min(due - elapsed, seconds - elapsed))
                continue
            opened += 1
            try:
                open_page(browser, port)
            except Error as error:
                failed.append(str(error))
        browser.close()
    return opened, failed


class Beside:
    """Threads that go on beside the pages until told to stop: annotators over REST, and a reader of the memory."""

    def __init__(self, port: int, clients: int, pid: int) -> None:
        self.samples: list[float] = []
        self.seen = [Seen() for _ in range(clients)]
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._watch, args=(pid,))]
        for number, seen in enumerate(self.seen):
            self._threads.append(threading.Thread(target=self._annotate, args=(port, f"annotator-{number}", seen)))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End all of them."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _watch(self, pid: int) -> None:
        while not self._stop.wait(1.0):
            self.samples.append(resident_mb(pid))

    def _annotate(self, port: int, name: str, seen: Seen) -> None:
        caller = Caller(port, {}, seen)
        while not self._stop.wait(PAUSE_S):
            try:
                if (key := judge_ours(caller, name)) is not None:
                    seen.answered.append(key)
            except OSError as error:
                seen.errors.append(repr(error))
                return


def check(home: Path, answered: list[str], pages: int) -> list[str]:
    """What is wrong with the judgments in the database, in words."""
    db = open_database(home / "studio.db")
    kept = [row.id for row in list_judgments(db)]
    db.dispose()
    print(f"{len(kept)} judgments, {pages} of them made on a page")
    wrong = [(len(set(answered) - set(kept)), "answered judgments are not in the database")]
    wrong.append((abs(len(kept) - len(answered) - pages), "judgments too many or too few"))
    return [f"{number} {what}" for number, what in wrong if number]


def report(samples: list[float]) -> list[str]:
    """Print the curve of the memory; what grew too much, in words."""
    for at in numpy.linspace(0, len(samples) - 1, 11).astype(int):
        print(f"{at:4d} s {samples[at]:4.0f} MB")
    grown = growth(samples[int(WARM_UP * len(samples)) :])
    print(f"growth after the warm-up {grown:+.1%}, with it {samples[-1] / samples[0] - 1:+.1%}")
    return [f"the web process grew by {grown:.1%}"] if grown >= MAX_GROWTH else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--every", type=float, default=5)
    parser.add_argument("--clients", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home, port = Path(folder), free_port()
        prepare(home, int(options.seconds * (options.clients / PAUSE_S + 1)), 1)
        command = [sys.executable, "-m", "studio.cli", "--home", str(home), "up", "--port", str(port)]
        with serving(command, port, "/api/health", home / "server.log"):
            beside = Beside(port, options.clients, pids_of(home)["studio"])
            opened, failed = browse(port, options.seconds, options.every)
            beside.stop()
        answered = [key for seen in beside.seen for key in seen.answered]
        failed += [error for seen in beside.seen for error in seen.errors]
        print(f"load {os.getloadavg()[0]:.1f}; {opened} pages, {len(failed)} failures")
        wrong = failed + check(home, answered, opened - len(failed)) + report(beside.samples)
    print("\n".join(wrong) or "nothing lost, nothing double, memory flat")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
