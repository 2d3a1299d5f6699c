"""What is said where no worker is running: nothing in the queue begins, whatever the queue itself looks like."""

from __future__ import annotations

from studio.page.html import Html, element, notice

NO_WORKER = "No worker is running: start `studio worker`"
"""For whoever can start one; it stands in the header, on the Train tab and on the Label tab."""

NO_WORKER_FOR_ANNOTATORS = "No worker is running, so no new replies are written"


def no_worker(*, may_start: bool = True) -> Html:
    """Why nothing begins, and what this person can do about it."""
    if not may_start:
        return notice(
            NO_WORKER_FOR_ANNOTATORS,
            "Tell a researcher or an admin: one of them starts it. What waits here goes on by itself then.",
            tone="bad",
        )
    return notice(
        NO_WORKER,
        "Runs wait in the queue until one runs on the studio's machine, with the studio's home; they begin by "
        "themselves then. `studio up` without `--no-worker` starts one as well.",
        tone="bad",
    )


def worker_badge(alive: bool) -> Html:
    """The same in a line for the header; empty while a worker is running."""
    return Html("") if alive else element("span", NO_WORKER, class_="badge badge-bad no-worker", role="status")
