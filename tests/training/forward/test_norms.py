"""An RMS norm as one node gives the model's own outputs and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.training.forward.models import padded, tiny
from training.forward.norms import fused_norms


def outputs(model: Any, **settings: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Last hidden states and the gradient of the embedding."""
    ids, mask = padded()
    weight = model.get_input_embeddings().weight.requires_grad_(True)
    weight.grad = None
    with torch.autocast("cpu", torch.bfloat16, **{"enabled": False, **settings}):
        states = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
    (states * torch.linspace(-1, 2, states.numel()).view(states.shape)).sum().backward()
    weight.requires_grad_(False)
    return states.detach(), weight.grad


@pytest.mark.parametrize(("family", "count"), [("llama", 5), ("qwen3", 5), ("gpt2", 0), ("gemma2", 0)])
def test_outputs_and_gradients_are_the_models_own(family: str, count: int) -> None:
    model = tiny(family)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.copy_(torch.linspace(0.5, 1.5, parameter.numel()).view(parameter.shape))
    expected = outputs(model)
    with fused_norms(model) as joined:
        assert joined == count  # qwen3's norms of heads are of another size, gemma's of another kind
        found = outputs(model)
    assert not any("forward" in vars(module) for module in model.modules())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


def test_under_autocast_the_last_norm_stays_in_fp32() -> None:
    model = tiny()
    exact, _ = outputs(model)
    with fused_norms(model):
        found, gradient = outputs(model, enabled=True)
    assert found.dtype is torch.float32 and gradient.isfinite().all()
    assert 0 < (found - exact).abs().max() < 0.2 * exact.abs().max()


def test_a_norm_that_is_trained_keeps_its_own_gradient() -> None:
    model = tiny()
    model.base_model.norm.weight.requires_grad_(True)
    with fused_norms(model) as joined:
        assert joined == 4


def test_gradients_check_numerically() -> None:
    from training.forward.norms import _RmsNorm

    torch.manual_seed(0)
    states = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: _RmsNorm.apply(x, weight, 1e-5, None), (states,))
