"""A pool of threads, each pinned to one core, that process the micro-batches of a small model side by side.

The matrix products of a small model are too short to be split: four cores on one product wait for each other as long
as they compute. Torch releases Python's lock while it computes, so threads do run in parallel. The result of a batch
does not depend on the size of the pool, because each product is computed by one core in any case.

Gradients are not accumulated here: two threads that add to one ``grad`` do so in a random order. Take gradients from
``torch.autograd.grad`` and add them in the order of the batches.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

# Seconds a thread holds Python's lock while another waits; the default of 5 ms is as long as 20 products.
LOCK_SECONDS = 2e-5

Item = TypeVar("Item")
Result = TypeVar("Result")


class CorePool:
    """A pool of ``size`` threads, each pinned to one core.

    With ``size=1`` work runs in the calling thread and uses every core torch has.
    """

    def __init__(self, size: int = 1) -> None:
        self._pool = ThreadPoolExecutor(size, "core", _take_one_core) if size > 1 else None

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Return ``work(item)`` of each item, in the order of the items; gradients are enabled as in the caller.

        Raises what the first failing item in this order raised, after every other thread has finished, because the
        caller may change the model next.
        """
        return list(self.each(work, items))

    def each(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the results of ``map`` one at a time, so that a caller that sums them need not hold them all."""
        if self._pool is None:
            yield from (work(item) for item in items)
            return
        import torch

        grad_enabled = torch.is_grad_enabled()  # each thread has a switch of its own

        def with_same_grad_mode(item: Item) -> Result:
            with torch.set_grad_enabled(grad_enabled):
                return work(item)

        switch_interval = sys.getswitchinterval()
        sys.setswitchinterval(LOCK_SECONDS)
        futures: deque[Future[Result]] = deque()
        try:
            futures.extend(self._pool.submit(with_same_grad_mode, item) for item in items)
            while futures:
                yield futures.popleft().result()
        finally:
            sys.setswitchinterval(switch_interval)
            for future in futures:
                future.cancel()
            wait(futures)


def _take_one_core() -> None:
    import torch

    torch.set_num_threads(1)  # applies to the calling thread only
