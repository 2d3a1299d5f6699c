"""What a model makes without its own forward around the layers, and which models are left to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GemmaConfig, GPT2Config, GraniteConfig, MistralConfig, Qwen2Config

from training.decoding import decode
from training.lean_forward import LeanForward, lighten_norms
from training.models import load_base

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
    lean = LeanForward.of(model)
    assert lean is not None
    ids = torch.tensor([PROMPTS[0], [*PROMPTS[1], 9, 9, 9, 9]])
    with torch.no_grad():
        expected = model.base_model(input_ids=ids).last_hidden_state
        assert torch.equal(lean(ids, torch.arange(7)[None]), expected)


def test_it_draws_what_the_model_draws(tiny_base: Path) -> None:
    """Prompts of unlike length, padded on the left, and rows that end and leave."""
    model, _ = load_base(str(tiny_base), "cpu")
    lean, ends = LeanForward.of(model), list(range(60, 120))
    prompts = [PROMPTS[seed % 4] for seed in range(16)]
    expected = decode(model, prompts, list(range(16)), ends=ends, banned=[2], max_new_tokens=20)
    assert len({len(one.tokens) for one in expected}) > 3
    calls: list[int] = []
    model.base_model.register_forward_hook(lambda *_: calls.append(1))
    assert decode(model, prompts, list(range(16)), ends=ends, banned=[2], max_new_tokens=20, lean=lean) == expected
    assert len(calls) == 1  # for the prompts alone


@pytest.mark.parametrize(
    ("config", "lean"),
    [
        (Qwen2Config(**SMALL), True),
        (MistralConfig(**SMALL, sliding_window=None), True),
        (MistralConfig(**SMALL, sliding_window=8), False),
        (Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=8, max_window_layers=1), False),
        (GemmaConfig(**SMALL, head_dim=8), True),
        (GraniteConfig(**SMALL, embedding_multiplier=3.0), False),  # in its own forward
        (GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4), False),  # has other parts
    ],
)
def test_a_model_that_makes_it_otherwise_is_left_to_its_own_forward(config: Any, lean: bool) -> None:
    assert (LeanForward.of(make_model(config)) is not None) is lean


def test_a_model_with_attention_of_another_kind_is_left_to_its_own_forward(tiny_base: Path) -> None:
    """Eager attention has no causality but by its mask."""
    model = AutoModelForCausalLM.from_pretrained(tiny_base, attn_implementation="eager")
    assert LeanForward.of(model) is None


@pytest.mark.parametrize("kind", [Qwen2Config, GemmaConfig])
def test_light_norms_change_nothing(kind: Any) -> None:
    model, ids = make_model(kind(**SMALL)), torch.tensor(PROMPTS[:1])
    for parameter in model.parameters():
        parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) / 10  # no weight of 1
    expected = model(input_ids=ids).logits
    usual = type(model.base_model.norm).forward
    lighten_norms(model)
    torch.testing.assert_close(model(input_ids=ids).logits, expected, atol=1e-5, rtol=1e-5)
    own = model.base_model.norm.forward
    assert (getattr(own, "__func__", None) is usual) is (kind is GemmaConfig)  # Gemma's norm adds 1 to its weight
