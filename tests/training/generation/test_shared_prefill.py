"""Several replies to one prompt: the prompt is computed once, and each reply is what it would be alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.tiny_models import config_of
from training.generation import decoding
from training.generation.decoding import bytes_per_token, decode
from training.models.loading import load_base
from training.speedups.direct_forward import DirectForward

LONG, SHORT, OTHER = [3, 20, 21, 22, 23, 24, 4], [3, 30, 4], [3, 50, 4]
PROMPTS = [LONG, SHORT, LONG, OTHER, SHORT, LONG]
SEEDS = [1, 2, 3, 4, 5, 6]


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> Iterator[Any]:
    yield load_base(str(tiny_base), "cpu")[0]


def drawn(model: Any, prompts: list[list[int]], seeds: list[int], **options: Any) -> list[tuple[tuple[int, ...], bool]]:
    given = {"ends": list(range(60, 80)), "max_new_tokens": 12} | options
    return [(one.tokens, one.ended) for one in decode(model, prompts, seeds, **given)]


def check_each_is_what_it_is_alone(model: Any, **options: Any) -> None:
    found = drawn(model, PROMPTS, SEEDS, **options)
    assert len(set(found)) == len(found) and len({len(tokens) for tokens, _ in found}) > 1
    for one, prompt, seed in zip(found, PROMPTS, SEEDS, strict=True):
        assert drawn(model, [prompt], [seed])[0] == one


def randomized(config: Any, **given: Any) -> Any:
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(config, **given).eval()
        for weight in model.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.2)
    return model


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch, model: Any) -> list[tuple[int, int]]:
    """The shape (row, token) of each forward."""
    shapes: list[tuple[int, int]] = []
    real = type(model).forward

    @wraps(real)
    def noted(*args: Any, **given: Any) -> Any:
        shapes.append(tuple(given["input_ids"].shape))
        return real(*args, **given)

    monkeypatch.setattr(type(model), "forward", noted)
    return shapes


def test_each_prompt_is_computed_once(model: Any, rows: list[tuple[int, int]]) -> None:
    drawn(model, PROMPTS, SEEDS, ends=[], max_new_tokens=3)
    assert rows == [(3, len(LONG)), (6, 1), (6, 1)]


def test_prompts_that_are_all_different_are_computed_as_they_are(model: Any, rows: list[tuple[int, int]]) -> None:
    drawn(model, [SHORT, OTHER], [1, 2], ends=[], max_new_tokens=2)
    assert rows == [(2, len(SHORT)), (2, 1)]


def test_equal_prompts_share_a_batch(model: Any, rows: list[tuple[int, int]]) -> None:
    drawn(model, [SHORT, OTHER, SHORT, OTHER], [1, 2, 3, 4], ends=[], max_new_tokens=1, batch_size=2)
    assert rows == [(1, len(SHORT)), (1, len(OTHER))]


@pytest.mark.parametrize("options", [{}, {"batch_size": 4}, {"batch_size": 1}])
def test_each_reply_is_what_it_is_alone(model: Any, options: dict[str, Any]) -> None:
    check_each_is_what_it_is_alone(model, **options)


def test_each_reply_is_what_it_is_alone_by_the_direct_forward(model: Any) -> None:
    direct_forward = DirectForward.of(model)
    assert direct_forward is not None
    check_each_is_what_it_is_alone(model, direct_forward=direct_forward)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("mistral", {"sliding_window": 6}),
        ("gpt2", {}),
        ("bloom", {}),
        ("openai-gpt", {"n_embd": 16, "n_layer": 2, "n_head": 2}),  # it has no cache
        ("mamba", {"state_size": 4}),  # it has no attention
    ],
)
def test_each_reply_is_what_it_is_alone_for_other_decoders(family: str, settings: dict[str, Any]) -> None:
    check_each_is_what_it_is_alone(randomized(config_of(family, **settings)))


def test_each_reply_is_what_it_is_alone_where_layers_keep_a_state() -> None:
    from transformers import Qwen3_5TextConfig

    linear = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "vocab_size": 96}
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 4, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "linear_value_head_dim": 8}
    check_each_is_what_it_is_alone(randomized(Qwen3_5TextConfig(**linear, **sizes, **heads)))


def test_fewer_replies_share_a_batch_where_they_are_long(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = drawn(model, PROMPTS, SEEDS)
    assert bytes_per_token(model) == 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, size of a head, fp32
    monkeypatch.setattr(decoding, "CACHE_BYTES", 2 * (len(LONG) + 12) * bytes_per_token(model))
    told: list[int] = []
    assert drawn(model, PROMPTS, SEEDS, on_batch=told.append) == expected
    assert told == [2, 4, 6]  # the second batch holds a long prompt too, and the third two rows of the short ones
    monkeypatch.setattr(decoding, "CACHE_BYTES", 1)
    told.clear()
    assert drawn(model, PROMPTS, SEEDS, on_batch=told.append) == expected
    assert told == [1, 2, 3, 4, 5, 6]


def test_each_token_is_told(model: Any) -> None:
    told: list[tuple[float, int]] = []
    found = drawn(model, PROMPTS, SEEDS, batch_size=4, on_token=lambda replies, tokens: told.append((replies, tokens)))
    ended = sum(len(found[place][0]) == 1 for place in (0, 2, 5, 1))
    assert told[0] == (pytest.approx(ended + (4 - ended) / 12), 4)
    assert told == sorted(told)
    assert told[-1] == (6, sum(len(tokens) for tokens, _ in found))
    first = max(len(found[place][0]) for place in (0, 2, 5, 1))
    assert told[first - 1][0] == 4
