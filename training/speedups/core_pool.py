"""Threads that share a CPU by batches: each works on one of its own, on one core, instead of all on every product.

The products of a small model are too short to be shared out: four cores on one product wait for each other as long as
they compute. Torch lets go of Python's lock while it computes, so threads do run side by side; what a batch comes to
does not depend on how many there are, since each product is one core's work whatever the number.

Gradients do not add up by themselves here: two threads that add to one ``grad`` do so in an order of chance. Take them
from ``torch.autograd.grad`` and add them in the order of the batches.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

LOCK_SECONDS = 2e-5  # for which one holds Python's lock while another waits; the usual 5 ms are 20 products long

Item = TypeVar("Item")
Result = TypeVar("Result")


class Crew:
    """So many threads of one core each; a crew of one works in the thread that asks, with all the cores torch has."""

    def __init__(self, size: int = 1) -> None:
        self._pool = ThreadPoolExecutor(size, "crew", _take_one_core) if size > 1 else None

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """What ``work`` makes of each item, in the order of the items; gradients are wanted as in the caller.

        Raises what the first item in this order raised, once no other is at work: what follows may change the model.
        """
        return list(self.each(work, items))

    def each(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """As ``map``, one result at a time, so that who adds them up need not hold them all."""
        if self._pool is None:
            yield from (work(item) for item in items)
            return
        import torch

        wanted = torch.is_grad_enabled()  # a thread has a switch of its own

        def alike(item: Item) -> Result:
            with torch.set_grad_enabled(wanted):
                return work(item)

        usual = sys.getswitchinterval()
        sys.setswitchinterval(LOCK_SECONDS)
        futures: deque[Future[Result]] = deque()
        try:
            futures.extend(self._pool.submit(alike, item) for item in items)
            while futures:
                yield futures.popleft().result()
        finally:
            sys.setswitchinterval(usual)
            for future in futures:
                future.cancel()
            wait(futures)


def _take_one_core() -> None:
    import torch

    torch.set_num_threads(1)  # holds for the thread that says it
