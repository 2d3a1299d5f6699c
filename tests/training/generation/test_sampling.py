"""Sampling: the same seed says the same, whatever is drawn beside it; specials never leak; repeats are redrawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from feedback.errors import InvalidInput
from feedback.types import SamplingSettings
from training.generation.sampling import _Chooser, sample
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


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    import torch

    scores = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().repeat(4000, 1)
    chooser = _Chooser(SamplingSettings(max_new_tokens=1), list(range(4000)), 3, banned=[])
    chosen = chooser(torch.zeros(4000, 3), scores).argmax(-1).tolist()
    shares = [Counter(chosen)[token] / 4000 for token in range(4)]
    assert shares == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.025)


@pytest.mark.parametrize(
    ("settings", "possible"),
    [
        (SamplingSettings(top_k=2, max_new_tokens=1), {0, 1}),
        (SamplingSettings(top_p=0.6, max_new_tokens=1), {0, 1}),
        (SamplingSettings(top_p=0.5, max_new_tokens=1), {0}),
        (SamplingSettings(temperature=0.0, max_new_tokens=1), {0}),
        (SamplingSettings(max_new_tokens=1), {0, 1, 2, 3}),
    ],
)
def test_filters_leave_what_they_should(settings: SamplingSettings, possible: set[int]) -> None:
    import torch

    scores = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().repeat(500, 1)
    chosen = _Chooser(settings, list(range(500)), 3, banned=[])(torch.zeros(500, 3), scores).argmax(-1)
    assert set(chosen.tolist()) == possible


def test_a_banned_token_is_never_drawn() -> None:
    import torch

    scores = torch.tensor([0.9, 0.1]).log().repeat(50, 1)
    chosen = _Chooser(SamplingSettings(max_new_tokens=1), list(range(50)), 3, banned=[0])(torch.zeros(50, 3), scores)
    assert set(chosen.argmax(-1).tolist()) == {1}
