"""Reward functions: what the shipped ones give, how others are found, what a broken one says."""

from importlib.metadata import EntryPoint

import pytest

from feedback.errors import InvalidInput, RunFailed, UnknownSetting
from training.rewards import functions
from training.rewards.functions import RewardFunction, get_reward_function, reward_function_names


@pytest.mark.parametrize(
    ("rule", "reply", "expected"),
    [
        ("length_band:4-6", "one two three four five", 1.0),
        ("length_band:4-6", "one two three", 0.5),
        ("length_band:4-6", "one two", 0.0),
        ("length_band:4-6", "w " * 9, 0.5),
        ("length_band:4-6", "w " * 12, 0.0),
        ("no_repetition", "a cat sat on a mat", 0.0),
        ("no_repetition", "so so so so so", -2 / 3),
        ("keyword:tea", "Tea, please.", 1.0),
        ("keyword:tea,milk", "Steam and TEA.", 0.5),
        ("keyword:tea", "a steady hand", 0.0),
    ],
)
def test_shipped_functions_by_hand(rule: str, reply: str, expected: float) -> None:
    assert get_reward_function(rule).score("", reply) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rule", "error", "says"),
    [
        ("politeness", UnknownSetting, "length_band"),
        ("no_repetition:3", UnknownSetting, "nothing after a colon"),
        ("keyword", UnknownSetting, "needs to be told"),
        ("length_band:60-20", InvalidInput, "60-20"),
        ("keyword:,", InvalidInput, "keyword:tea"),
    ],
)
def test_what_cannot_score_is_refused_before_a_run(rule: str, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        get_reward_function(rule)


def test_a_package_of_ones_own_adds_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("shout", "tests.training.rewards.test_functions:shout", functions.GROUP)
    monkeypatch.setattr(functions, "entry_points", lambda group: [point])
    assert "shout" in reward_function_names()
    assert get_reward_function("shout").score([{"role": "user", "content": "x"}], "HEY") == 1.0


@pytest.mark.parametrize("bad", [lambda prompt, reply: 1 / 0, lambda prompt, reply: float("nan")])
def test_a_broken_function_names_itself_and_the_reply(bad) -> None:
    with pytest.raises(RunFailed, match=r"'mine'.*'the reply'"):
        RewardFunction("mine", bad).score("", "the reply")


def shout(prompt: str, reply: str) -> float:
    """Found through the entry point above."""
    return float(reply.isupper())


def test_a_function_is_a_scorer_of_one_row() -> None:
    function = get_reward_function("length_band:4-6")
    exchanges = [("", "one two three"), ("", "one two three four")]
    assert function.scores(exchanges).tolist() == [function.score_all(exchanges)] == [[0.5, 1.0]]
    assert function.scores([]).shape == (1, 0)
