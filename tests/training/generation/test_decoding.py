"""Decoding by our own loop: the same tokens as the library's, whatever else is in the batch, and it stops."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from feedback.errors import RunCancelled
from training.generation.decoding import choose, decode
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
    monkeypatch.setattr(type(model), "forward", lambda *args, **given: (steps.append(1), real(*args, **given))[1])
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


def test_the_draw_follows_the_probabilities(model: Any) -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log()[None].expand(3000, 3)
    chosen = choose(logits, torch.rand(3000, 1, generator=torch.Generator().manual_seed(0)), 1.0)
    assert torch.bincount(chosen).div(3000).tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    assert choose(logits[:2], torch.tensor([[0.0], [0.99999999]]), 1.0).tolist() == [0, 2]


def test_a_point_that_rounds_to_the_whole_sum_draws_no_token_of_probability_0() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2, 0.0]]).log()
    assert choose(logits, torch.tensor([[1.0]]), 1.0).item() in (0, 1, 2)


def test_it_can_be_stopped_between_batches(model: Any) -> None:
    def stop() -> None:
        raise RunCancelled("The run was cancelled.")

    with pytest.raises(RunCancelled):
        drawn(model, PROMPTS, [1, 2, 3, 4], check=stop)
