"""The decoding loop: the same tokens as the library's, whatever else is in the batch, by every filter; it stops."""

from __future__ import annotations

from collections.abc import Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch

from feedback.errors import RunCancelled
from tests.training.tiny_models import config_of
from training.generation import decoding
from training.generation.decoding import choose, decode
from training.generation.stopping import stoppable
from training.models.loading import load_base

PROMPTS = [[3, 20, 21, 22, 23, 24, 4], [3, 30, 4], [3, 40, 41, 4], [3, 50, 4]]
END = 1


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> Iterator[Any]:
    yield load_base(str(tiny_base), "cpu")[0]


def drawn(model: Any, prompts: list[list[int]], seeds: list[int], **options: Any) -> list[tuple[tuple[int, ...], bool]]:
    given = {"ends": [END], "max_new_tokens": 12} | options
    return [(one.tokens, one.ended) for one in decode(model, prompts, seeds, **given)]


def test_the_likeliest_tokens_are_those_of_the_library(model: Any) -> None:
    for prompt, (tokens, _) in zip(PROMPTS, drawn(model, PROMPTS, [0] * 4, temperature=0), strict=True):
        expected = model.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=12, eos_token_id=END, pad_token_id=0
        )
        assert list(tokens) == expected[0, len(prompt) :].tolist()


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_reply_depends_on_its_seed_and_not_on_its_company(model: Any, size: int) -> None:
    together = drawn(model, PROMPTS, [1, 2, 3, 4], batch_size=size)
    assert together == [drawn(model, [prompt], [seed])[0] for prompt, seed in zip(PROMPTS, [1, 2, 3, 4], strict=True)]
    other = drawn(model, PROMPTS, [9, 2, 3, 4])
    assert other[0] != together[0] and other[1:] == together[1:]


def test_rows_that_ended_leave_and_the_others_go_on(model: Any) -> None:
    """With many end tokens most rows end early; what is left must still be what it would be alone."""
    ends = list(range(60, 160))
    seeds = list(range(16))
    prompts = [PROMPTS[seed % 4] for seed in seeds]
    found = drawn(model, prompts, seeds, ends=ends, max_new_tokens=20)
    assert len({len(tokens) for tokens, _ in found}) > 3
    for (tokens, ended), prompt, seed in zip(found, prompts, seeds, strict=True):
        assert not set(tokens[:-1]) & set(ends) and ended == (tokens[-1] in ends)
        assert drawn(model, [prompt], [seed], ends=ends, max_new_tokens=20)[0] == (tokens, ended)


def test_rows_leave_layers_that_keep_a_state_instead_of_keys() -> None:
    from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig

    linear = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "vocab_size": 64}
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 4, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "linear_value_head_dim": 8}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Qwen3_5ForCausalLM(Qwen3_5TextConfig(**linear, **sizes, **heads)).eval()
    ends, seeds = list(range(40, 52)), list(range(8))
    prompts = [[5, 6, 7, 8, 9], [10, 11], [12], [20] * 7] * 2
    found = drawn(model, prompts, seeds, ends=ends, max_new_tokens=20)
    assert len({len(tokens) for tokens, _ in found}) > 3
    for one, prompt, seed in zip(found, prompts, seeds, strict=True):
        assert drawn(model, [prompt], [seed], ends=ends, max_new_tokens=20)[0] == one


def test_it_stops_when_all_have_ended(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    real = type(model).forward

    @wraps(real)
    def counted(*args: Any, **given: Any) -> Any:
        steps.append(1)
        return real(*args, **given)

    monkeypatch.setattr(type(model), "forward", counted)
    everything = list(range(model.config.vocab_size))
    assert [len(tokens) for tokens, _ in drawn(model, PROMPTS, [1, 2, 3, 4], ends=everything)] == [1] * 4
    assert len(steps) == 1


def test_a_reply_cut_at_the_limit_did_not_end(model: Any) -> None:
    assert drawn(model, PROMPTS[:1], [1], ends=[], max_new_tokens=5)[0][1] is False
    assert len(drawn(model, PROMPTS[:1], [1], ends=[], max_new_tokens=5)[0][0]) == 5


def test_banned_tokens_are_never_drawn(model: Any) -> None:
    banned = list(range(40, model.config.vocab_size))
    for tokens, _ in drawn(model, PROMPTS * 4, list(range(16)), banned=banned, temperature=3.0):
        assert not set(tokens) & set(banned)


def test_the_draw_follows_the_probabilities() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log()[None].expand(3000, 3)
    chosen = choose(logits, torch.rand(3000, 1, generator=torch.Generator().manual_seed(0)), 1.0)
    assert torch.bincount(chosen).div(3000).tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    assert choose(logits[:2], torch.tensor([[0.0], [0.99999999]]), 1.0).tolist() == [0, 2]


def test_a_point_that_rounds_to_the_whole_sum_draws_no_token_of_probability_0() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2, 0.0]]).log()
    assert choose(logits, torch.tensor([[1.0]]), 1.0).item() in (0, 1, 2)


LIKELY = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


@pytest.mark.parametrize(
    ("settings", "possible"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_k": 9}, {0, 1, 2, 3}),
        ({"top_p": 0.6}, {0, 1}),
        ({"top_p": 0.49}, {0}),
        ({"top_k": 2, "top_p": 0.62}, {0}),  # of the two that are left the first has 0.625
        ({"temperature": 0.0}, {0}),
        ({"temperature": 0.5, "top_p": 0.94}, {0, 1, 2}),
        ({}, {0, 1, 2, 3}),
    ],
)
def test_filters_leave_what_they_should(settings: dict[str, Any], possible: set[int]) -> None:
    uniform = torch.linspace(0, 1, 500)[:, None]
    chosen = choose(LIKELY.expand(500, 4), uniform, **{"temperature": 1.0, **settings})
    assert set(chosen.tolist()) == possible


def test_tokens_as_likely_as_the_last_of_top_k_stay() -> None:
    chosen = choose(torch.tensor([[1.0, 0.0, 0.0, -1.0]]).expand(500, 4), torch.linspace(0, 1, 500)[:, None], 1.0, 2)
    assert set(chosen.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("mistral", {"sliding_window": 6}),
        ("gpt2", {}),
        ("bloom", {}),  # its forward has no positions
        ("openai-gpt", {"n_embd": 16, "n_layer": 2, "n_head": 2}),  # it has no cache
        ("mamba", {"state_size": 4}),  # it has no attention
    ],
)
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_every_kind_of_decoder_gives_the_tokens_of_the_library(
    family: str, settings: dict[str, Any], implementation: str
) -> None:
    from transformers import AutoModelForCausalLM

    if implementation == "sdpa" and family in ("bloom", "openai-gpt", "mamba"):
        pytest.skip("has its own attention or none")
    config = config_of(family, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation).eval()
        for weight in model.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.3)
    ends = list(range(60, 80))
    for prompt, (tokens, _) in zip(PROMPTS, drawn(model, PROMPTS, [0] * 4, temperature=0, ends=ends), strict=True):
        expected = model.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=12, eos_token_id=ends, pad_token_id=0
        )
        assert list(tokens) == expected[0, len(prompt) :].tolist()


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_rotary_factors_that_change_with_the_length_are_those_of_the_whole_row(kind: str) -> None:
    from transformers import AutoModelForCausalLM

    factors = (
        {"short_factor": [1.0] * 4, "long_factor": [1.0, 3.0, 5.0, 9.0]} if kind == "longrope" else {"factor": 4.0}
    )
    rope = {"rope_type": kind, "rope_theta": 10_000.0, "original_max_position_embeddings": 8, **factors}
    own = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "rope_parameters": rope}
    own |= {"original_max_position_embeddings": 8} if kind == "longrope" else {"max_position_embeddings": 8}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(config_of("phi3" if kind == "longrope" else "llama", **own)).eval()
        for weight in model.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.3)
    for prompt, (tokens, _) in zip(PROMPTS, drawn(model, PROMPTS, [0] * 4, temperature=0, ends=[]), strict=True):
        row = list(prompt)
        for _ in tokens:
            row.append(int(model(torch.tensor([row]), use_cache=False).logits[0, -1].argmax()))
        assert list(tokens) == row[len(prompt) :]


def test_the_room_for_keys_and_values_grows(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = drawn(model, PROMPTS, [1, 2, 3, 4])
    monkeypatch.setattr(decoding, "ROOM", 2)
    assert drawn(model, PROMPTS, [1, 2, 3, 4]) == expected
    cache = decoding.roomy_cache(model, 20)
    with torch.no_grad():
        for ids in ([PROMPTS[0]], [[5]], [[6]], [[7]]):
            model(torch.tensor(ids), past_key_values=cache)
    layer = cache.layers[0]
    assert (layer.keys.shape[2], layer.key_room.shape[2]) == (10, 12)


def test_each_batch_is_told(model: Any) -> None:
    told: list[int] = []
    drawn(model, PROMPTS, [1, 2, 3, 4], batch_size=3, on_batch=told.append)
    assert told == [3, 4]


def test_it_can_be_stopped_at_each_token(model: Any) -> None:
    asked: list[int] = []

    def stop() -> None:
        asked.append(1)
        if len(asked) == 4:
            raise RunCancelled("The run was cancelled.")

    with pytest.raises(RunCancelled), stoppable(stop):
        drawn(model, PROMPTS, [1, 2, 3, 4], ends=[])
    assert len(asked) == 4


def test_it_can_be_stopped_between_batches(model: Any) -> None:
    def stop() -> None:
        raise RunCancelled("The run was cancelled.")

    with pytest.raises(RunCancelled):
        drawn(model, PROMPTS, [1, 2, 3, 4], check=stop)
