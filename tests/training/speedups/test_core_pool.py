"""A core pool returns what a loop returns, in the order of the loop, with gradients enabled as in the caller."""

from __future__ import annotations

import sys
import threading

import pytest
import torch

from training.speedups.core_pool import CorePool


@pytest.mark.parametrize("size", [1, 3])
def test_results_are_in_the_order_of_the_items(size: int) -> None:
    assert CorePool(size).map(lambda item: item * item, range(20)) == [item * item for item in range(20)]


def test_members_work_at_the_same_time_on_one_core_each() -> None:
    meeting = threading.Barrier(3, timeout=60)  # passed only by three at once

    def work(_: int) -> int:
        meeting.wait()
        return torch.get_num_threads()

    cores = torch.get_num_threads()
    assert CorePool(3).map(work, range(3)) == [1, 1, 1]
    assert torch.get_num_threads() == cores


def test_pythons_lock_changes_hands_sooner_while_a_pool_is_at_work() -> None:
    usual = sys.getswitchinterval()
    assert max(CorePool(2).map(lambda _: sys.getswitchinterval(), range(3))) < usual / 10
    assert sys.getswitchinterval() == usual
    with pytest.raises(ZeroDivisionError):
        CorePool(2).map(lambda number: 1 / number, range(3))
    assert sys.getswitchinterval() == usual


@pytest.mark.parametrize("size", [1, 3])
def test_gradients_are_wanted_as_in_the_caller(size: int) -> None:
    core_pool = CorePool(size)
    assert core_pool.map(lambda _: torch.is_grad_enabled(), range(4)) == [True] * 4
    with torch.no_grad():
        assert core_pool.map(lambda _: torch.is_grad_enabled(), range(4)) == [False] * 4


def test_a_failure_is_told_when_nobody_is_at_work_any_more() -> None:
    """The trap: the caller switches adapters while other threads still read them."""
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def work(item: int) -> None:
        if item == 0:
            assert begun.wait(60)
            threading.Timer(0.05, go_on.set).start()
            raise ValueError("item 0")
        begun.set()
        assert go_on.wait(60)
        done.set()

    with pytest.raises(ValueError, match="item 0"):
        CorePool(2).map(work, range(2))
    assert done.is_set()


@pytest.mark.parametrize("size", [1, 3])
def test_results_can_be_let_go_one_by_one(size: int) -> None:
    import weakref

    class Large:
        pass

    living: list[weakref.ref[Large]] = []
    for made in CorePool(size).each(lambda _: Large(), range(12)):
        living.append(weakref.ref(made))
        del made
        assert sum(one() is not None for one in living[:-1]) == 0


@pytest.mark.parametrize("size", [1, 3])
def test_the_first_item_in_order_that_fails_is_told(size: int) -> None:
    def work(item: int) -> int:
        if item in (2, 5):
            raise ValueError(f"item {item}")
        return item

    with pytest.raises(ValueError, match="item 2"):
        CorePool(size).map(work, range(7))
