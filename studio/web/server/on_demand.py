"""Slow work that somebody waits for (replies, models, passwords), kept away from the threads of all other routes.

Each kind has threads of its own, a few places to wait, and answers 503 beyond them: so whatever hangs there, the
rest of the studio goes on answering.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from starlette.requests import Request

from feedback.errors import StudioError, Unavailable
from training.generation.stopping import stoppable

T = TypeVar("T")

REPLIES_AT_ONCE = 4
REPLIES_SECONDS = 300.0
_LOOK_SECONDS = 0.5


class Limited:
    """Threads for one kind of work: ``at_once`` of them, and ``waiting`` more that may wait for one."""

    def __init__(self, what: str, at_once: int, waiting: int = 0, after: int = 5) -> None:
        self.what = what
        self.most = at_once + waiting
        self.after = after
        self._at_work = 0  # touched on the event loop alone
        self._threads = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix=what.split()[0])

    async def run(self, work: Callable[[], T]) -> T:
        """The result of ``work``, done in a thread; Unavailable when too much waits already.

        Whoever stops waiting gives no place free: the place is taken until the work has ended.
        """
        if self._at_work >= self.most:
            raise Unavailable(
                f"{self.most} {self.what} are at work already; ask again in {self.after} seconds.", self.after
            )
        self._at_work += 1
        try:
            future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        except RuntimeError as error:  # the threads have ended
            self._at_work -= 1
            raise Unavailable("The studio is stopping; ask again when it is back.", self.after) from error
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def _done(self, future: asyncio.Future[T]) -> None:
        self._at_work -= 1
        if not future.cancelled():
            future.exception()  # nobody may be waiting for it any more

    def close(self) -> None:
        """Let no more work begin."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class OnDemand:
    """Replies or examinations on demand: few at once, for a limited time, and only while somebody waits for them."""

    def __init__(
        self,
        what: str = "requests for replies",
        at_once: int = REPLIES_AT_ONCE,
        seconds: float | None = None,
    ) -> None:
        self._limited = Limited(what, at_once, after=10)
        self._seconds = seconds
        self._closing = threading.Event()

    async def run(self, request: Request, work: Callable[[], T]) -> T:
        """The result of ``work``. It is ended when its time is over, the client leaves or the studio stops."""
        gone = threading.Event()
        watch = asyncio.create_task(_tell_of_leaving(request, gone))
        try:
            return await self._limited.run(partial(self._stoppable, work, gone))
        finally:
            gone.set()
            watch.cancel()

    def _stoppable(self, work: Callable[[], T], gone: threading.Event) -> T:
        end = time.monotonic() + (REPLIES_SECONDS if self._seconds is None else self._seconds)

        def check() -> None:
            if self._closing.is_set():
                raise Unavailable("The studio is stopping; ask again when it is back.")
            if gone.is_set():
                raise StudioError("Nobody waits for this any more.")
            if time.monotonic() > end:
                raise Unavailable(
                    f"The replies were not drawn within {REPLIES_SECONDS:.0f} seconds. Ask for fewer or shorter ones, "
                    "or queue a run: POST /api/runs with the method generate.",
                    60,
                )

        check()
        with stoppable(check):
            return work()

    def close(self) -> None:
        """End what is at work, and begin nothing more."""
        self._closing.set()
        self._limited.close()


async def _tell_of_leaving(request: Request, gone: threading.Event) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(_LOOK_SECONDS)
    gone.set()
