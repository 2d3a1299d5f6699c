"""A LoRA layer as one node computes what PEFT's layer does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests.training.forward.models import padded, tiny
from training.forward.lora import _forward, fused_lora


def adapted(**settings: Any) -> Any:
    """A tiny model under LoRA whose B is not zero."""
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **settings})
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = get_peft_model(tiny(), config)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    return model


def outputs(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits, and the gradients of the adapter."""
    ids, mask = padded()
    model.zero_grad()
    logits = model(input_ids=ids, attention_mask=mask).logits[mask.bool()]
    logits.square().mean().backward()
    return logits.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"use_dora": True}, {"lora_bias": True}])
def test_outputs_and_gradients_are_pefts(settings: dict[str, Any]) -> None:
    model = adapted(**settings)
    logits, gradients = outputs(model)
    with fused_lora(model) as count:
        assert count == 14
        own, found = outputs(model)
    torch.testing.assert_close(own, logits, rtol=1e-4, atol=1e-4)
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6)


def test_an_adapter_that_is_off_or_another_is_heeded() -> None:
    model = adapted()
    ids, mask = padded()
    with model.disable_adapter():
        plain = model(input_ids=ids, attention_mask=mask).logits
    with fused_lora(model):
        with model.disable_adapter():
            torch.testing.assert_close(model(input_ids=ids, attention_mask=mask).logits, plain)
        assert not torch.allclose(model(input_ids=ids, attention_mask=mask).logits, plain)
        model.add_adapter("other", LoraConfig(r=2, target_modules="all-linear"))
        model.set_adapter("other")
        torch.testing.assert_close(model(input_ids=ids, attention_mask=mask).logits, plain)


def test_the_layers_are_pefts_again_afterwards() -> None:
    model = adapted()
    with fused_lora(model):
        assert any("forward" in vars(module) for module in model.modules())
    assert not any("forward" in vars(module) for module in model.modules())


def test_weights_of_the_base_may_be_bf16_under_an_fp32_adapter() -> None:
    torch.manual_seed(0)
    model = adapted()
    layer = next(module for module in model.modules() if hasattr(module, "lora_A"))
    x = torch.randn(6, layer.in_features)
    exact = layer(x)
    layer.base_layer.weight.data = layer.base_layer.weight.data.to(torch.bfloat16)
    found = _forward(layer, layer.forward, x)
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=0.05, atol=0.02 * float(exact.detach().abs().max()))
    found.float().sum().backward()
    assert layer.lora_A["default"].weight.grad.dtype is torch.float32


def test_a_bias_that_is_trained_keeps_its_gradient() -> None:
    model = tiny("qwen2")  # its queries have biases
    model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", bias="all"))
    with fused_lora(model):
        _, gradients = outputs(model)
    assert any("bias" in name and gradient.abs().max() > 0 for name, gradient in gradients.items())
