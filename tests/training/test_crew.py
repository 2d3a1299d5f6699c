"""A crew does what a loop does, in the loop's order, with gradients as the caller wants them."""

from __future__ import annotations

import threading

import pytest
import torch

from training.crew import Crew


@pytest.mark.parametrize("size", [1, 3])
def test_results_are_in_the_order_of_the_items(size: int) -> None:
    assert Crew(size).map(lambda item: item * item, range(20)) == [item * item for item in range(20)]


def test_members_work_at_the_same_time_on_one_core_each() -> None:
    meeting = threading.Barrier(3, timeout=60)  # passed only by three at once

    def work(_: int) -> int:
        meeting.wait()
        return torch.get_num_threads()

    cores = torch.get_num_threads()
    assert Crew(3).map(work, range(3)) == [1, 1, 1]
    assert torch.get_num_threads() == cores


@pytest.mark.parametrize("size", [1, 3])
def test_gradients_are_wanted_as_in_the_caller(size: int) -> None:
    crew = Crew(size)
    assert crew.map(lambda _: torch.is_grad_enabled(), range(4)) == [True] * 4
    with torch.no_grad():
        assert crew.map(lambda _: torch.is_grad_enabled(), range(4)) == [False] * 4


@pytest.mark.parametrize("size", [1, 3])
def test_the_first_item_in_order_that_fails_is_told(size: int) -> None:
    def work(item: int) -> int:
        if item in (2, 5):
            raise ValueError(f"item {item}")
        return item

    with pytest.raises(ValueError, match="item 2"):
        Crew(size).map(work, range(7))
