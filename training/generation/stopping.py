"""Lets whoever waits for replies end the drawing: a person who left, a deadline that passed, a studio that stops.

``stoppable`` names a check for everything that is called inside it; the check raises what ends the work. A model
here asks it once per token, an endpoint several times a second. Without a check nothing is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")
Check = Callable[[], None]

_LOOK_SECONDS = 0.2
_CHECK: ContextVar[Check | None] = ContextVar("check", default=None)


@contextmanager
def stoppable(check: Check) -> Iterator[None]:
    """Ask ``check`` now and then during the block; what it raises ends the work."""
    token = _CHECK.set(check)
    try:
        yield
    finally:
        _CHECK.reset(token)


def check_stopped() -> None:
    """Raise what the present check raises."""
    check = _CHECK.get()
    if check is not None:
        check()


def run_stoppable(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, run in this thread until it ends or the present check ends it."""
    return asyncio.run(_watched(work))


async def _watched(work: Coroutine[Any, Any, T]) -> T:
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            check_stopped()
            await asyncio.wait([task], timeout=_LOOK_SECONDS)
        return task.result()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task
