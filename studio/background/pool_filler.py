"""When the pool of pairs is filled: the runs that do it are queued here."""

from __future__ import annotations

import contextlib
import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from feedback.database.engine import Database
from feedback.errors import Conflict, NotEnoughData, StudioError
from feedback.store.content import prompts as prompt_store
from feedback.store.labeling import matchups as matchup_store
from feedback.store.models import policies as policy_store
from feedback.store.models import runs as run_store
from feedback.tables import PolicyRow, RunRow
from feedback.types import RunState, Split
from training.runs import queue

log = logging.getLogger(__name__)

REFILL_BELOW = 10
"""Open matchups under which a judgment asks for more."""

POOL_SIZE = 50
"""Prompts that one generate run answers when it fills the pool."""

PENDING = (RunState.queued, RunState.starting, RunState.running)


class PoolFiller:
    """Queues the runs that fill the pool, one at a time. It checks no role: each judgment may set it going."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.lock = threading.Lock()
        self._background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="refill")
        self._pending_refill: Future[None] | None = None

    def refill_soon(self, *, empty_handed: bool = False) -> None:
        """In the background, queue a generate run when the pool runs low; at most one look is ever waiting."""
        if self._pending_refill is None or self._pending_refill.done():
            self._pending_refill = self._background.submit(self._refill_logged, empty_handed)

    def refill(self, *, empty_handed: bool = False) -> RunRow | None:
        """Queue a generate run if the pool is low and the last one worked; the run, or None if none was needed.

        ``empty_handed`` says that somebody got nothing, which can be so although pairs are open: those they
        skipped do not come back to them. The first run ever, and one after a failure, a cancel or a run that
        found nothing to add, needs a person's press: otherwise every look would queue the same failure.
        """
        if not empty_handed and not matchup_store.is_low(self.db, REFILL_BELOW):
            return None
        with self.lock:
            last = self.newest_fill(None)
            if last is None or last.state is not RunState.succeeded or not last.result.get("matchups"):
                return None
            return self.submit_fill(POOL_SIZE)

    def _refill_logged(self, empty_handed: bool) -> None:
        try:
            self.refill(empty_handed=empty_handed)
        except StudioError as error:
            log.warning("The pool was not refilled: %s", error)
        except Exception:
            log.exception("The pool was not refilled")

    def submit_fill(self, limit: int) -> RunRow:
        """Queue a run in which the champion replies to ``limit`` prompts; hold ``lock`` meanwhile.

        Raises:
            NotEnoughData: When no policy serves, or there is no prompt to reply to.
        """
        champion = policy_store.get_champion(self.db)
        if champion is None:
            raise NotEnoughData(
                "No policy serves yet, so nothing can reply: promote one on the Policies tab, "
                "or restart with `studio up --policy MODEL`."
            )
        if not prompt_store.count_prompts(self.db, split=Split.work, brought=True):
            raise NotEnoughData("There are no prompts to reply to: `studio prompts import FILE` adds some.")
        return queue.submit(self.db, "generate", {"policy": champion.id, "limit": limit})

    def newest_fill(self, states: tuple[RunState, ...] | None) -> RunRow | None:
        """The newest run that fills the pool; one that has people measure two policies fills nothing."""
        return next(iter(run_store.list_fills(self.db, states=states, limit=1)), None)

    def cancel_fills_of_others(self, policy: PolicyRow) -> None:
        """Cancel the runs that fill the pool with the replies of another policy."""
        for run in run_store.list_fills(self.db, states=PENDING):
            if run.config.get("policy") not in (policy.id, policy.name):
                with contextlib.suppress(Conflict):  # it ended since it was listed, which is all that was wanted
                    queue.cancel(self.db, run.id)

    def close(self) -> None:
        """Let the background thread finish."""
        self._background.shutdown(wait=True, cancel_futures=True)
