"""Losses worked by hand: Plackett-Luce with and without ties, margins, wrong labels, and SimPO."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch

from training.trainer.losses import ranking_loss, simpo_loss


def loss_of(scores: list[float], ranks: list[int], margin: float = 0.0, smoothing: float = 0.0) -> float:
    return ranking_loss(
        torch.tensor([scores], dtype=torch.float64),
        torch.tensor([ranks]),
        torch.tensor([margin], dtype=torch.float64),
        smoothing,
    ).item()


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_a_ranking_of_two_is_the_pair_loss_with_its_margin() -> None:
    assert loss_of([1.5, 0.25], [1, 2]) == pytest.approx(softplus(-1.25))
    assert loss_of([1.5, 0.25], [2, 1]) == pytest.approx(softplus(1.25))
    assert loss_of([1.5, 0.25], [1, 2], margin=2.0) == pytest.approx(softplus(-(1.25 - 2.0)))


def test_a_ranking_of_three_is_two_choices_one_after_the_other() -> None:
    a, b, c = 0.3, -0.7, 1.1
    first = -c + math.log(math.exp(a) + math.exp(b) + math.exp(c))
    second = -a + math.log(math.exp(a) + math.exp(b))
    assert loss_of([a, b, c], [2, 3, 1]) == pytest.approx((first + second) / 2)


def test_the_probabilities_of_all_orders_add_up_to_one() -> None:
    scores = [0.2, -1.3, 0.9, 0.4]
    total = sum(math.exp(-3 * loss_of(scores, list(order))) for order in permutations(range(1, 5)))
    assert total == pytest.approx(1.0)


def test_ties_are_chosen_from_what_is_left_of_their_group() -> None:
    a, b, c = 0.3, -0.7, 1.1
    tied, rest = math.exp(a) + math.exp(b), math.exp(c)
    by_hand = (-a + math.log(tied + rest)) + (-b + math.log(tied / 2 + rest))
    assert loss_of([a, b, c], [1, 1, 3]) == pytest.approx(by_hand / 2)


def test_a_tie_prefers_none_and_pulls_together() -> None:
    assert loss_of([2.0, -1.0], [1, 1]) == pytest.approx(loss_of([-1.0, 2.0], [1, 1]))
    assert loss_of([0.5, 0.5], [1, 1]) < loss_of([1.0, 0.0], [1, 1])


def test_smoothing_mixes_in_the_neighbours_exchanged() -> None:
    assert loss_of([1.0, 0.0], [1, 2], smoothing=0.2) == pytest.approx(0.8 * softplus(-1) + 0.2 * softplus(1))
    scores = [0.3, -0.7, 1.1]
    exchanged = (loss_of(scores, [2, 1, 3]) + loss_of(scores, [1, 3, 2])) / 2
    expected = 0.9 * loss_of(scores, [1, 2, 3]) + 0.1 * exchanged
    assert loss_of(scores, [1, 2, 3], smoothing=0.1) == pytest.approx(expected)
    # Ranks with gaps are the same ranking
    assert loss_of(scores, [1, 4, 9], smoothing=0.1) == pytest.approx(expected)
    tied = [0.3, -0.7, 1.1, 0.2]
    assert loss_of(tied, [1, 1, 3, 4], smoothing=0.1) == pytest.approx(
        0.9 * loss_of(tied, [1, 1, 3, 4]) + 0.05 * (loss_of(tied, [2, 2, 1, 3]) + loss_of(tied, [1, 1, 3, 2]))
    )


def test_places_without_a_reply_change_nothing_and_no_gradient_is_lost() -> None:
    scores = torch.tensor([[0.3, -0.7, 1.1, 50.0], [1.0, 2.0, 3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    ranks = torch.tensor([[2, 3, 1, 0], [4, 3, 2, 1]])
    losses = ranking_loss(scores, ranks, torch.zeros(2, dtype=torch.float64), 0.1)
    assert losses[0].item() == pytest.approx(loss_of([0.3, -0.7, 1.1], [2, 3, 1], smoothing=0.1))
    losses.sum().backward()
    assert scores.grad is not None and bool(torch.isfinite(scores.grad).all())
    assert scores.grad[0, 3].item() == 0.0
    assert scores.grad[0, 2].item() < 0 < scores.grad[0, 1].item()


def test_simpo_leads_per_token_by_a_margin() -> None:
    losses, lead = simpo_loss(
        torch.tensor([-6.0]), torch.tensor([-8.0]), torch.tensor([3]), torch.tensor([2]), beta=2.0, margin=0.5
    )
    assert lead.item() == pytest.approx(2 * (-2 + 4))
    assert losses.item() == pytest.approx(softplus(-(4 - 0.5)))
