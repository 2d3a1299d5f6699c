"""What a model makes without its own forward around the layers, and which models are left to it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AutoModelForCausalLM,
    GemmaConfig,
    GPT2Config,
    GraniteConfig,
    MistralConfig,
    Qwen2Config,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from training.generation.decoding import decode
from training.models.loading import load_base
from training.ppo.backbone_adapters import PeftAdapters
from training.speedups.direct_forward import DirectForward, use_torch_rms_norms

PROMPTS = [[3, 20, 21, 22, 23, 24, 4], [3, 30, 4], [3, 40, 41, 4], [3, 50, 4]]
SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}


def make_model(config: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def test_it_makes_what_the_model_makes(tiny_base: Path) -> None:
    model, _ = load_base(str(tiny_base), "cpu")
    direct_forward = DirectForward.of(model)
    assert direct_forward is not None
    ids = torch.tensor([PROMPTS[0], [*PROMPTS[1], 9, 9, 9, 9]])
    with torch.no_grad():
        expected = model.base_model(input_ids=ids).last_hidden_state
        assert torch.equal(direct_forward(ids, torch.arange(7)[None]), expected)


def test_it_draws_what_the_model_draws(tiny_base: Path) -> None:
    """Prompts of unlike length, padded on the left, and rows that end and leave."""
    model, _ = load_base(str(tiny_base), "cpu")
    direct_forward, ends = DirectForward.of(model), list(range(60, 120))
    prompts = [PROMPTS[seed % 4] for seed in range(16)]
    expected = decode(model, prompts, list(range(16)), ends=ends, banned=[2], max_new_tokens=20)
    assert len({len(one.tokens) for one in expected}) > 3
    calls: list[int] = []
    model.base_model.register_forward_hook(lambda *_: calls.append(1))
    assert (
        decode(model, prompts, list(range(16)), ends=ends, banned=[2], max_new_tokens=20, direct_forward=direct_forward)
        == expected
    )
    assert len(calls) == 1  # for the prompts alone


@pytest.mark.parametrize(
    ("config", "fits"),
    [
        (Qwen2Config(**SMALL), True),
        (MistralConfig(**SMALL, sliding_window=None), True),
        (MistralConfig(**SMALL, sliding_window=64), False),
        (Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=64, max_window_layers=1), False),
        (GemmaConfig(**SMALL, head_dim=8), True),
        (GraniteConfig(**SMALL, embedding_multiplier=3.0), False),  # in its own forward
        (GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4), False),  # has other parts
    ],
)
def test_a_model_that_makes_it_otherwise_is_left_to_its_own_forward(config: Any, fits: bool) -> None:
    assert (DirectForward.of(make_model(config)) is not None) is fits


def test_a_model_with_attention_of_another_kind_is_left_to_its_own_forward(tiny_base: Path) -> None:
    """Even one that needs no mask for what is asked of it at first: the mask of a drawn token is for SDPA."""
    AttentionInterface.register("own", sdpa_attention_forward)
    for kind in ("eager", "own"):
        model = AutoModelForCausalLM.from_pretrained(tiny_base, attn_implementation=kind)
        assert DirectForward.of(model) is None, kind


def test_light_norms_change_nothing() -> None:
    model, ids = make_model(Qwen2Config(**SMALL)), torch.tensor(PROMPTS[:1])
    for parameter in model.parameters():
        parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) / 10  # no weight of 1
    expected = model(input_ids=ids).logits
    use_torch_rms_norms(model)
    assert isinstance(model.base_model.norm.forward, partial)
    torch.testing.assert_close(model(input_ids=ids).logits, expected, atol=1e-5, rtol=1e-5)


def test_a_norm_of_another_kind_is_left_alone() -> None:
    class OneMore(nn.Module):
        """As Gemma's: the weight is what 1 is short of."""

        def __init__(self) -> None:
            super().__init__()
            self.weight, self.variance_epsilon = nn.Parameter(torch.zeros(4)), 1e-6

        def forward(self, states: Tensor) -> Tensor:
            return torch.rms_norm(states, [4], 1 + self.weight, 1e-6)

    norm, states = OneMore(), torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    expected = norm(states)
    use_torch_rms_norms(norm)
    assert torch.equal(norm(states), expected)


def test_a_norm_with_a_gate_is_left_alone() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.variance_epsilon = nn.Parameter(torch.ones(4)), 1e-6

        def forward(self, states: Tensor, gate: Tensor | None = None) -> Tensor:
            return torch.rms_norm(states if gate is None else states * gate, [4], self.weight, 1e-6)

    norm, states = Gated(), torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    gate = torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = norm(states, gate)
    use_torch_rms_norms(norm)
    assert torch.equal(norm(states, gate), expected)


def test_a_model_with_layers_without_attention_is_left_to_its_own_forward(tiny_base: Path) -> None:
    model, _ = load_base(str(tiny_base), "cpu")
    model.config.layer_types = ["linear_attention", "full_attention"]
    assert DirectForward.of(model) is None


def test_an_adapter_over_the_embedding_that_comes_later_is_heeded(tiny_base: Path) -> None:
    model, _ = load_base(str(tiny_base), "cpu")
    direct_forward, adapters = DirectForward.of(model), PeftAdapters(model)
    assert direct_forward is not None
    adapters.create("policy", LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"], task_type="CAUSAL_LM"))
    for number, value in enumerate(adapters.parameters("policy").values()):
        value.data.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(number)))
    adapters.activate("policy")
    ids = torch.tensor(PROMPTS[:1])
    with torch.no_grad():
        assert torch.equal(
            direct_forward(ids, torch.arange(7)[None]), model.base_model(input_ids=ids).last_hidden_state
        )
