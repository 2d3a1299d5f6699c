"""Key to next pair painted, in Chromium, with 10 000 matchups in the pool: ``python -m tests.benchmarks.votes``.

Two paces: as fast as the page takes it, and with a short pause between presses, as a person has. Painted means that
the frame after the change of the pair has begun.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from feedback.database.engine import Database
from feedback.store.content import generations, prompts
from feedback.store.labeling import matchups
from feedback.store.models import policies
from feedback.types import Generation, Matchup, Prompt
from tests import factories
from tests.browser import chromium
from tests.browser.conftest import LAUNCH_ARGS, lease_of, studio_in

POOL = 10_000
WATCH = """() => {
  window.seen = []; let from = 0; let lease = document.querySelector('#pair [data-lease]').dataset.lease;
  document.addEventListener('keydown', () => { from = performance.now(); }, true);
  new MutationObserver(() => {
    const now = document.querySelector('#pair [data-lease]')?.dataset.lease;
    if (now && now !== lease) { lease = now; const at = from;
      requestAnimationFrame(() => setTimeout(() => window.seen.push(performance.now() - at))); }
  }).observe(document.querySelector('#pair'), {childList: true, subtree: true});
}"""


def fill(db: Database, count: int) -> None:
    """As many pairs, written in bulk."""
    policy = policies.promote_policy(db, factories.make_policy(db, "author").id)
    asked = [Prompt(messages=[{"role": "user", "content": f"Tell me about thing {n}."}]) for n in range(count)]
    ids = prompts.save_prompts(db, asked).ids
    made = generations.save_generations(
        db,
        [
            Generation(prompt_id=key, policy_id=policy.id, text=f"Reply {side} to {key}. " + "And on. " * 60, seed=side)
            for key in ids
            for side in (0, 1)
        ],
    )
    pairs = [made[at : at + 2] for at in range(0, len(made), 2)]
    matchups.save_matchups(
        db, [Matchup(prompt_id=one.prompt_id, generation_ids=[one.id, other.id]) for one, other in pairs]
    )


def measure(page: Page, count: int, pause_ms: int) -> str:
    """Press verdict keys and say how long the next pair took to be painted."""
    page.evaluate("window.seen = []")
    for key in itertools.islice(itertools.cycle("12tx58"), count):
        before = lease_of(page)
        page.keyboard.press(key)
        changed = "before => document.querySelector('#pair [data-lease]')?.dataset.lease !== before"
        page.wait_for_function(changed, arg=before)
        page.wait_for_timeout(pause_ms)
    seen = sorted(page.evaluate("window.seen"))
    p95 = seen[int(0.95 * len(seen))]
    return f"median {statistics.median(seen):.0f} ms, p95 {p95:.0f} ms, worst {seen[-1]:.0f} ms, n = {len(seen)}"


def main(count: int = 200) -> None:
    with tempfile.TemporaryDirectory() as directory, studio_in(Path(directory)) as studio, sync_playwright() as play:
        fill(studio.db, POOL)
        studio.start("--no-worker")
        browser = play.chromium.launch(executable_path=chromium.find(), args=LAUNCH_ARGS)
        page = browser.new_page()
        page.goto(f"{studio.url}/#label")
        page.wait_for_selector("#pair .pair")
        page.evaluate(WATCH)
        measure(page, 10, 50)
        print(f"key to next pair painted, {POOL} in the pool, with 300 ms between: {measure(page, count, 300)}")
        print(f"key to next pair painted, {POOL} in the pool, back to back:        {measure(page, count, 0)}")
        browser.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
