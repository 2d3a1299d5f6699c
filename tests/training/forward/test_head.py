"""Log-probabilities and their gradients against torch's own arithmetic."""

from __future__ import annotations

import pytest
import torch

from training.forward import head
from training.forward.head import token_outputs


@pytest.mark.parametrize("at_once", [50, 1 << 23])
@pytest.mark.parametrize("biased", [False, True])
def test_it_is_the_log_softmax_of_the_logits(biased: bool, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "LOGITS_AT_ONCE", at_once)
    torch.manual_seed(0)
    weight, states = torch.randn(37, 8), torch.randn(11, 8, requires_grad=True)
    bias = torch.randn(37) if biased else None
    targets = torch.randint(0, 37, (11,))
    logits = torch.nn.functional.linear(states, weight, bias)
    shares = logits.log_softmax(-1)
    expected = shares.gather(1, targets[:, None]).squeeze(1)
    found = token_outputs(states, targets, weight, bias)
    torch.testing.assert_close(found.log_probs, expected)
    torch.testing.assert_close(found.entropy, -(shares.exp() * shares).sum(-1))
    torch.testing.assert_close(found.mean_logits, logits.mean(-1))
    assert found.is_top1.tolist() == (logits.argmax(-1) == targets).tolist()
    weights = torch.linspace(-1, 1, 11)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), states)
    (own,) = torch.autograd.grad((found.log_probs * weights).sum(), states)
    torch.testing.assert_close(own, wanted)


def test_gradients_check_numerically() -> None:
    torch.manual_seed(0)
    weight = torch.randn(9, 4, dtype=torch.float64)
    states = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 9, (5,))
    # The outputs are fp32, hence the tolerance
    assert torch.autograd.gradcheck(
        lambda x: token_outputs(x, targets, weight).log_probs, (states,), eps=1e-2, atol=1e-3, rtol=1e-2
    )


def test_no_token_is_a_sum_of_zero_that_has_a_gradient() -> None:
    states = torch.randn(0, 4, requires_grad=True)
    found = token_outputs(states, torch.zeros(0, dtype=torch.long), torch.randn(9, 4))
    found.log_probs.sum().backward()
    assert states.grad is not None and states.grad.shape == (0, 4)


@pytest.mark.parametrize("biased", [False, True])
def test_products_in_bf16_cost_the_log_probabilities_little(biased: bool) -> None:
    torch.manual_seed(0)
    weight, states = 2 * torch.randn(2000, 16), torch.randn(300, 16, requires_grad=True)
    bias = torch.randn(2000) if biased else None
    targets = torch.randint(0, 2000, (300,))
    exact = token_outputs(states, targets, weight, bias)
    found = token_outputs(states, targets, weight, bias, products=torch.bfloat16)
    plain = states.bfloat16() @ weight.bfloat16().t()
    logits = (plain if bias is None else plain + bias.bfloat16()).float()
    usual = logits.log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
    error = (found.log_probs - exact.log_probs).abs()
    assert 0 < error.mean() < 0.5 * (usual - exact.log_probs).abs().mean()
    (one,), (other,) = (torch.autograd.grad(made.log_probs.sum(), states) for made in (exact, found))
    assert 0 < (one - other).abs().max() < 0.02 * one.abs().max()
