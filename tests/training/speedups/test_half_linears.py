"""Products in bf16: where they pay, that they are near to fp32, and that nothing of them stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from feedback.types import SamplingSettings
from tests.training.tiny_models import config_of
from training.generation.sampling import sample, use_half
from training.models.loading import LoadedPolicy, load_base
from training.speedups import half_linears as module
from training.speedups.half_linears import half_linears, half_pays

IDS = torch.tensor([[3, 20, 21, 22, 23, 24, 4]])
SETTINGS = SamplingSettings(max_new_tokens=12)
PROMPTS = [[{"role": "user", "content": text}] for text in ("hi", "a much longer prompt than the first", "ok?")]


@pytest.fixture
def model(tiny_base: Path) -> Any:
    return load_base(str(tiny_base), "cpu")[0]


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that computes bf16, and no model too small for it."""
    monkeypatch.setattr(module, "cpu_multiplies_bf16", lambda: True)
    monkeypatch.setattr(module, "FEWEST_PARAMETERS", 1)


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(IDS).logits.clone()


def test_products_are_near_to_fp32_and_nothing_stays(model: Any) -> None:
    before, weights = logits(model), {name: value.clone() for name, value in model.state_dict().items()}
    with half_linears(model):
        inside = logits(model)
    assert inside.dtype == torch.float32
    assert not torch.equal(inside, before)
    torch.testing.assert_close(inside, before, atol=0.05, rtol=0.05)
    assert torch.equal(logits(model), before)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    with pytest.raises(KeyError), half_linears(model):
        raise KeyError
    assert torch.equal(logits(model), before)


def test_a_bias_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Linear(4, 3)
    states = torch.ones(1, 4)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([8.0, 16.0, -32.0]))
        expected = layer(states)
        with half_linears(layer):
            torch.testing.assert_close(layer(states), expected, atol=0.1, rtol=0.01)


@pytest.mark.usefixtures("able")
def test_it_pays_where_the_cpu_can_and_the_model_is_large(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert half_pays(model)
    monkeypatch.setattr(module, "FEWEST_PARAMETERS", 50_000_000)
    assert not half_pays(model), "too small"
    monkeypatch.setattr(module, "FEWEST_PARAMETERS", 1)
    assert not half_pays(model.to(torch.bfloat16)), "is in bf16 already"
    monkeypatch.setattr(module, "cpu_multiplies_bf16", lambda: False)
    assert not half_pays(model.to(torch.float32))


@pytest.mark.usefixtures("able")
def test_it_does_not_pay_where_the_products_are_of_another_kind() -> None:
    from transformers import AutoModelForCausalLM

    assert not half_pays(AutoModelForCausalLM.from_config(config_of("gpt2", n_embd=64)))


@pytest.mark.usefixtures("able")
def test_the_same_seed_says_the_same_and_fp32_comes_back(model: Any, tiny_base: Path) -> None:
    policy, lines = LoadedPolicy(*load_base(str(tiny_base), "cpu"), "tiny"), list[str]()
    plain = sample(policy, PROMPTS, 3, SETTINGS, seed=5)
    assert use_half(policy, lines.append)
    assert len(lines) == 1 and "bf16" in lines[0]
    head = vars(policy.model.get_output_embeddings())
    used: list[bool] = []
    halved = sample(policy, PROMPTS, 3, SETTINGS, seed=5, on_token=lambda drawn, tokens: used.append("forward" in head))
    assert all(used) and "forward" not in head
    assert sample(policy, PROMPTS, 3, SETTINGS, seed=5) == halved
    policy.half = False
    assert sample(policy, PROMPTS, 3, SETTINGS, seed=5) == plain


@pytest.mark.usefixtures("able")
def test_a_folded_adapter_is_heeded_and_unfolded_without_a_loss(tiny_base: Path) -> None:
    model, tokenizer = load_base(str(tiny_base), "cpu")
    base = {name: value.clone() for name, value in model.state_dict().items()}
    under = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")).eval()
    policy = LoadedPolicy(under, tokenizer, "tiny")
    policy.half = half_pays(under)
    assert policy.half
    greedy = SamplingSettings(max_new_tokens=3, temperature=0.0)
    bare = sample(policy, PROMPTS, 1, greedy)
    for name, weight in under.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
    assert sample(policy, PROMPTS, 1, greedy) != bare
    after = under.get_base_model().state_dict()
    for name, value in base.items():
        found = after[name if name in after else name.replace(".weight", ".base_layer.weight")]
        torch.testing.assert_close(found, value, atol=1e-6, rtol=0)
