"""Oracles: rules that read text only, and noise that flips as often as it says."""

from __future__ import annotations

import random

import pytest

from feedback.errors import InvalidInput, UnknownSetting
from feedback.types import ShownVerdict
from training.rewards.oracles import check_rule, get_oracle, judge, noisy, oracle_rules
from training.starter.axes import AXES

ASK = [{"role": "user", "content": "Write a note."}]


@pytest.mark.parametrize(
    ("rule", "first", "second", "expected"),
    [
        ("shorter", "one two", "one two three", "first"),
        ("shorter", "one two", "two one", "tie"),
        ("longer", "one two", "one two three", "second"),
        ("keyword:sea", "The SEA, the sea.", "A lake.", "first"),
        ("keyword:sea", "A season.", "A search.", "tie"),
        ("keyword:sea", "A lake.", "By the sea", "second"),
        ("function:no_repetition", "tick tock tick tock tick tock", "The clock has stopped.", "second"),
        ("function:keyword:sea,sky", "Sea and sky.", "The sea.", "first"),
        ("function:length_band:1-2", "one two", "two", "tie"),
    ],
)
def test_rules_prefer_what_they_say(rule: str, first: str, second: str, expected: str) -> None:
    assert get_oracle(rule).prefers(ASK, first, second) == expected
    assert get_oracle(rule).rule == rule


@pytest.mark.parametrize("axis", sorted(AXES))
def test_every_axis_of_the_starter_is_a_rule(axis: str) -> None:
    oracle = get_oracle(axis)
    reply = "Thank you so much, dear friend!"
    assert oracle.score(ASK, reply) == AXES[axis].score("Write a note.", reply)
    assert axis in oracle_rules()


@pytest.mark.parametrize("rule", ["shortest", "keyword:", "keyword", "reward:", "reward", "warm:very", ""])
def test_an_unknown_rule_is_answered_with_the_known_ones(rule: str) -> None:
    with pytest.raises(UnknownSetting, match="shorter, longer, keyword:WORD, reward:CHECKPOINT"):
        check_rule(rule)
    with pytest.raises(UnknownSetting):
        get_oracle(rule)


@pytest.mark.parametrize(
    ("rule", "error", "says"),
    [
        ("function:polite", UnknownSetting, "Reward functions: keyword, length_band"),
        ("function:length_band:9-1", InvalidInput, "20-60, not '9-1'"),
        ("function:", UnknownSetting, "function:NAME"),
    ],
)
def test_a_function_that_cannot_judge_is_refused_before_anything_is_judged(rule: str, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        check_rule(rule)


def test_a_reward_rule_needs_somewhere_to_find_the_checkpoint() -> None:
    check_rule("reward:mine")
    with pytest.raises(InvalidInput, match="needs a database and a home"):
        get_oracle("reward:mine")


def test_a_verdict_speaks_of_what_is_shown() -> None:
    shorter = get_oracle("shorter")
    assert judge(shorter, ASK, "a", "a b") is ShownVerdict.left
    assert judge(shorter, ASK, "a b", "a") is ShownVerdict.right
    assert judge(shorter, ASK, "a b", "b a") is ShownVerdict.tie


def test_noise_flips_as_often_as_it_says_and_leaves_ties_alone() -> None:
    rng = random.Random(3)
    verdicts = [judge(get_oracle("shorter"), ASK, "a", "a b", 0.2, rng) for _ in range(2000)]
    assert verdicts.count(ShownVerdict.right) / 2000 == pytest.approx(0.2, abs=0.03)
    assert {noisy(ShownVerdict.tie, 0.5, rng) for _ in range(50)} == {ShownVerdict.tie}


def test_the_same_seed_makes_the_same_mistakes() -> None:
    def mistakes() -> list[ShownVerdict]:
        rng = random.Random(8)
        return [judge(get_oracle("shorter"), ASK, "a", "a b", 0.3, rng) for _ in range(30)]

    assert mistakes() == mistakes()


@pytest.mark.parametrize("noise", [-0.1, 0.6])
def test_more_noise_than_a_coin_is_refused(noise: float) -> None:
    with pytest.raises(InvalidInput, match="0 to 0.5"):
        judge(get_oracle("shorter"), ASK, "a", "b", noise)
