"""The log-probability of a token and its own way back, against autograd's."""

from __future__ import annotations

import pytest
import torch

from training.speedups.token_log_probs import TokenLogProbs

LOGITS = [[2.0, 0.0, -1.0, 0.5], [0.0, 0.0, 0.0, 0.0]]


def test_by_hand() -> None:
    logits = torch.tensor(LOGITS, requires_grad=True)
    found = TokenLogProbs.apply(logits, torch.tensor([0, 3]))
    assert found[1].item() == pytest.approx(-1.3862944)  # a quarter
    found.backward(torch.tensor([0.0, 2.0]))
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0.0] * 4, pytest.approx([-0.5, -0.5, -0.5, 1.5])]


def test_the_way_back_is_that_of_autograd() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 11, generator=generator, dtype=torch.float64, requires_grad=True)
    targets, wanted = torch.randint(11, (7,), generator=generator), torch.randn(7, generator=generator).double()
    expected = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    found = TokenLogProbs.apply(logits, targets)
    torch.testing.assert_close(found, expected)
    (slopes,) = torch.autograd.grad(expected, logits, wanted)
    torch.testing.assert_close(torch.autograd.grad(found, logits, wanted)[0], slopes)


def test_it_is_gone_once() -> None:
    """What it saved is overwritten: a second time must not give other numbers in silence."""
    logits = torch.tensor(LOGITS, requires_grad=True)
    total = TokenLogProbs.apply(logits, torch.tensor([0, 3])).sum()
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()
