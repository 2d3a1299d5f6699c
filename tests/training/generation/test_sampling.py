"""Sampling: the same seed says the same, whatever is drawn beside it; specials never leak; repeats are redrawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedback.errors import InvalidInput
from feedback.types import SamplingSettings
from training.generation.sampling import sample
from training.models.chat import PromptTooLong
from training.models.loading import LoadedPolicy, load_base

SHORT = SamplingSettings(max_new_tokens=12)
PROMPTS = [[{"role": "user", "content": text}] for text in ("hi", "a much longer prompt than the first", "ok?")]


@pytest.fixture(scope="module")
def policy(tiny_base: Path) -> LoadedPolicy:
    return LoadedPolicy(*load_base(str(tiny_base), "cpu"), str(tiny_base))


def test_the_same_seed_says_the_same_and_another_says_otherwise(policy: LoadedPolicy) -> None:
    first = sample(policy, PROMPTS, 2, SHORT, seed=5)
    assert first == sample(policy, PROMPTS, 2, SHORT, seed=5)
    assert first != sample(policy, PROMPTS, 2, SHORT, seed=6)
    assert [len(replies) for replies in first] == [2, 2, 2]


def test_a_reply_does_not_depend_on_what_is_drawn_beside_it(policy: LoadedPolicy) -> None:
    together = sample(policy, PROMPTS, 3, SHORT, seed=5, batch_size=64)
    assert together == sample(policy, PROMPTS, 3, SHORT, seed=5, batch_size=2)
    assert together[1] == sample(policy, [PROMPTS[1]], 3, SHORT, seed=5)[0]


def test_torch_keeps_its_own_random_state(policy: LoadedPolicy) -> None:
    import torch

    before = torch.random.get_rng_state()
    sample(policy, PROMPTS[:1], 1, SHORT, seed=5)
    assert torch.equal(before, torch.random.get_rng_state())


def test_replies_hold_no_special_tokens_and_say_how_they_ended(policy: LoadedPolicy) -> None:
    specials = set(policy.tokenizer.all_special_ids) - {policy.tokenizer.eos_token_id}
    hot = SamplingSettings(temperature=5.0, max_new_tokens=40)
    replies = [reply for own in sample(policy, PROMPTS * 10, 2, hot, seed=1) for reply in own]
    assert {reply.finish_reason for reply in replies} == {"stop", "length"}
    for reply in replies:
        assert not specials & set(reply.token_ids)
        assert "<|" not in reply.text
        ended = reply.token_ids[-1] == policy.tokenizer.eos_token_id
        assert ended == (reply.finish_reason == "stop")
        assert reply.tokens == len(reply.token_ids) - ended <= 40


def test_temperature_zero_is_greedy_and_draws_once(policy: LoadedPolicy) -> None:
    drawn: list[int] = []
    greedy = SamplingSettings(temperature=0.0, max_new_tokens=6)
    one, two = sample(policy, PROMPTS[:1], 2, greedy, seed=1, on_progress=lambda n, _: drawn.append(n))[0]
    assert one.text == two.text
    assert drawn == [2]


def test_equal_replies_are_drawn_again_three_times_at_most(policy: LoadedPolicy) -> None:
    drawn: list[int] = []
    narrow = SamplingSettings(top_k=1, max_new_tokens=3)  # every draw is the same
    replies = sample(policy, PROMPTS[:1], 3, narrow, seed=1, on_progress=lambda n, _: drawn.append(n))[0]
    assert len({reply.text for reply in replies}) == 1
    assert len(drawn) == 1 + 3
    assert len({reply.seed for reply in replies}) == 3
    drawn.clear()
    sample(policy, PROMPTS[:1], 3, narrow, seed=1, on_progress=lambda n, _: drawn.append(n), distinct=False)
    assert len(drawn) == 1, "a measurement keeps what it drew"


def test_a_prompt_too_long_is_refused_before_anything_is_drawn(policy: LoadedPolicy) -> None:
    drawn: list[int] = []
    with pytest.raises(PromptTooLong, match="window is 256"):
        sample(
            policy,
            [PROMPTS[0], [{"role": "user", "content": "x" * 250}]],
            1,
            SHORT,
            on_progress=lambda n, _: drawn.append(n),
        )
    assert not drawn


def test_zero_replies_are_refused(policy: LoadedPolicy) -> None:
    with pytest.raises(InvalidInput, match="k must be 1 or more"):
        sample(policy, PROMPTS, 0)


def test_progress_is_told_after_each_batch_and_not_less_while_repeats_are_drawn(policy: LoadedPolicy) -> None:
    told: list[tuple[int, int]] = []
    narrow = SamplingSettings(top_k=1, max_new_tokens=3)  # every draw is the same
    sample(policy, PROMPTS, 2, narrow, batch_size=4, on_progress=lambda drawn, wanted: told.append((drawn, wanted)))
    assert told == [(4, 6), (6, 6), *[(6, 6)] * 3]


def test_a_model_under_an_adapter_replies_by_its_adapter(tiny_base: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model, tokenizer = load_base(str(tiny_base), "cpu")
    bare = sample(LoadedPolicy(model, tokenizer, "tiny"), PROMPTS, 1, SHORT, seed=5)
    under = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")).eval()
    policy = LoadedPolicy(under, tokenizer, "tiny", folds=False)
    assert sample(policy, PROMPTS, 1, SHORT, seed=5) == bare  # a new adapter changes nothing
    for name, weight in under.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.5)
    assert sample(policy, PROMPTS, 1, SHORT, seed=5) != bare
    with policy.reference():
        assert sample(policy, PROMPTS, 1, SHORT, seed=5) == bare
