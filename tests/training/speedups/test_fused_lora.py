"""One product in place of PEFT's three: the same outputs and gradients, and nothing left over from another adapter."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModelForCausalLM

from training.models.loading import load_base
from training.ppo.backbone_adapters import PeftAdapters
from training.speedups.fused_lora import FusedLora

IDS = torch.arange(5, 25).view(2, 10)


def lora(**more: Any) -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **more)


def stirred(adapters: PeftAdapters, name: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in adapters.parameters(name).values():
            value.copy_(0.3 * torch.randn(value.shape, generator=generator))


def merged_layers(adapters: PeftAdapters) -> int:
    return sum(isinstance(getattr(layer.forward, "__self__", None), FusedLora) for _, layer in adapters._layers)


@pytest.fixture
def model(tiny_base: Path) -> Any:
    return load_base(str(tiny_base), "cpu")[0]


@pytest.mark.parametrize("kind", [{}, {"use_rslora": True}])
def test_outputs_and_gradients_are_pefts(model: Any, kind: dict[str, Any]) -> None:
    plain = PeftModelForCausalLM(copy.deepcopy(model), lora(**kind), adapter_name="policy")
    adapters = PeftAdapters(model)
    adapters.create("policy", lora(**kind))
    assert merged_layers(adapters) == len(adapters._layers) > 0
    stirred(adapters, "policy", 0)
    own = adapters.parameters("policy")
    theirs = {name.replace("base_model.model.", ""): value for name, value in plain.named_parameters()}
    theirs = {name: theirs[f"{place}.policy.weight"] for name in own for place in [name.rpartition(".")[0]]}
    with torch.no_grad():
        for name, value in own.items():
            theirs[name].copy_(value)
    adapters.activate("policy")
    for value in own.values():
        value.requires_grad_(True)
    found, expected = model(input_ids=IDS).logits, plain(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    found.square().mean().backward()
    expected.square().mean().backward()
    for name, value in own.items():
        assert value.grad is not None and value.grad.abs().max() > 0, name
        torch.testing.assert_close(value.grad, theirs[name].grad, atol=1e-6, rtol=1e-4)


def test_a_new_adapter_is_the_base_bit_for_bit(model: Any) -> None:
    with torch.no_grad():
        bare = model(input_ids=IDS).logits
        adapters = PeftAdapters(model)
        adapters.create("policy", lora())
        adapters.activate("policy")
        assert torch.equal(model(input_ids=IDS).logits, bare)


def test_a_switch_or_a_step_is_seen_at_the_next_forward(model: Any) -> None:
    adapters = PeftAdapters(model)
    seen = {}
    with torch.no_grad():
        for number, name in enumerate(("policy", "value")):
            adapters.create(name, lora())
            stirred(adapters, name, number)
        for name in ("policy", "value", None, "policy"):
            adapters.activate(name)
            found = model(input_ids=IDS).logits
            assert torch.equal(seen.setdefault(name, found), found)
        assert not any(torch.equal(seen["policy"], seen[name]) for name in ("value", None))
        stirred(adapters, "policy", 9)
        adapters.activate("policy")
        assert not torch.equal(model(input_ids=IDS).logits, seen["policy"])


@pytest.mark.parametrize("kind", [{"use_dora": True}, {"lora_dropout": 0.5}, {"lora_bias": True}])
def test_what_is_more_than_a_sum_is_left_to_peft(model: Any, kind: dict[str, Any]) -> None:
    adapters = PeftAdapters(model)
    adapters.create("policy", lora(**kind))
    stirred(adapters, "policy", 0)
    adapters.activate("policy")
    with torch.no_grad():
        found = model(input_ids=IDS).logits
        for _, layer in adapters._layers:
            del layer.forward  # PEFT's own again
        assert torch.equal(model(input_ids=IDS).logits, found)


def test_dropout_drops_nothing(model: Any) -> None:
    adapters = PeftAdapters(model)
    adapters.create("policy", lora(lora_dropout=0.5))
    stirred(adapters, "policy", 0)
    adapters.activate("policy")
    with torch.no_grad():
        assert torch.equal(model(input_ids=IDS).logits, model(input_ids=IDS).logits)


def test_sixteen_bits_and_large_models_are_left_to_peft(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype, large in ((torch.bfloat16, 10**9), (torch.float32, 10)):
        monkeypatch.setattr("training.ppo.backbone_adapters.LARGE_MODEL", large)
        adapters = PeftAdapters(load_base(str(tiny_base), "cpu")[0].to(dtype))
        adapters.create("policy", lora())
        assert adapters._layers and merged_layers(adapters) == 0
