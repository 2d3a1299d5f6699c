"""Reward functions: ordinary Python functions that score a reply, in the place of a reward model.

A function takes the request and the reply, both text, and gives a number; higher is better. It is found by its
name in the entry points of the group ``rlhf_studio.reward_functions``, so a package of your own adds one:

    [project.entry-points."rlhf_studio.reward_functions"]
    polite = "my_package.rewards:polite"        # def polite(prompt: str, reply: str) -> float

A function that has a third parameter can be told something after a colon: ``length_band:20-60``, ``keyword:tea``.
"""

from __future__ import annotations

import inspect
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from feedback.errors import InvalidInput, RunFailed, UnknownSetting
from training.models.chat import Messages, request_of

if TYPE_CHECKING:
    from torch import Tensor

GROUP = "rlhf_studio.reward_functions"


def length_band(prompt: str, reply: str, band: str = "20-60") -> float:
    """1 for a reply whose words lie in the band, falling to 0 at half the lower and twice the upper end."""
    low, high = _band(band)
    words = len(reply.split())
    if words < low:
        return max(0.0, 2 * words / low - 1)
    return 1.0 if words <= high else max(0.0, 2 - words / high)


def no_repetition(prompt: str, reply: str) -> float:
    """0 for a reply without a repeated run of three words, down to -1 for one that only repeats itself."""
    words = [word.lower() for word in re.findall(r"\w+(?:'\w+)?", reply)]
    runs = Counter(zip(words, words[1:], words[2:], strict=False))
    total = sum(runs.values())
    return 0.0 if total == 0 else -(total - len(runs)) / total


def keyword(prompt: str, reply: str, words: str) -> float:
    """The share of the wanted words, separated by commas, that stand in the reply, whatever their case."""
    wanted = [word.strip() for word in words.split(",") if word.strip()]
    if not wanted:
        raise InvalidInput("keyword needs words to look for, for instance keyword:tea,garden.")
    return sum(bool(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", reply, re.IGNORECASE)) for word in wanted) / len(
        wanted
    )


@dataclass(frozen=True)
class RewardFunction:
    """A named function, with what it was told after the colon."""

    rule: str
    function: Callable[..., float]
    argument: str | None = None

    def score(self, prompt: Messages | str, reply: str) -> float:
        """The reward of one reply. A function that raises, or gives no finite number, ends the run in one sentence."""
        extra = () if self.argument is None else (self.argument,)
        try:
            value = float(self.function(request_of(prompt), reply, *extra))
        except InvalidInput:
            raise
        except Exception as error:
            raise RunFailed(
                f"The reward function {self.rule!r} raised {type(error).__name__}: {error}. "
                f"The reply was {reply[:80]!r}."
            ) from error
        if not math.isfinite(value):
            raise RunFailed(f"The reward function {self.rule!r} gave {value} for the reply {reply[:80]!r}.")
        return value

    def score_all(self, exchanges: Sequence[tuple[Messages | str, str]]) -> list[float]:
        """The rewards of many (prompt, reply)."""
        return [self.score(prompt, reply) for prompt, reply in exchanges]

    def scores(self, exchanges: Sequence[tuple[Messages | str, str]]) -> Tensor:
        """The rewards of many (prompt, reply) as the scores of the only scorer: (1, reply), fp32."""
        import torch

        return torch.tensor([self.score_all(exchanges)], dtype=torch.float32)


def reward_function_names() -> list[str]:
    """Every name that can be asked for, those of installed packages included."""
    return sorted(_registered())


def get_reward_function(rule: str) -> RewardFunction:
    """The function of a rule, ``NAME`` or ``NAME:ARGUMENT``; an unknown one is refused with those there are."""
    name, colon, argument = rule.partition(":")
    found = _registered().get(name)
    if found is None:
        raise UnknownSetting(
            f"There is no reward function {rule!r}. Reward functions: {', '.join(reward_function_names())}."
        )
    function = found()
    takes, needs = _third_parameter(function)
    if colon and not takes:
        raise UnknownSetting(f"The reward function {name!r} takes nothing after a colon, but {rule!r} gives it some.")
    if needs and not argument.strip():
        raise UnknownSetting(f"The reward function {name!r} needs to be told something: {name}:….")
    reward = RewardFunction(rule, function, argument.strip() if colon else None)
    reward.score("", "")  # a band that is not one is refused now, not in the middle of a run
    return reward


def _registered() -> dict[str, Callable[[], Callable[..., float]]]:
    shipped: dict[str, Callable[[], Any]] = {
        function.__name__: lambda function=function: function  # type: ignore[misc]
        for function in (length_band, no_repetition, keyword)
    }
    return shipped | {point.name: point.load for point in entry_points(group=GROUP)}


def _third_parameter(function: Callable[..., float]) -> tuple[bool, bool]:
    """Whether a function takes a third parameter, and whether it cannot do without."""
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) < 3:
        return False, False
    return True, parameters[2].default is inspect.Parameter.empty


def _band(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    if not (dash and low.strip().isdigit() and high.strip().isdigit() and 0 < int(low) <= int(high)):
        raise InvalidInput(f"A length band is two numbers of words, such as 20-60, not {text!r}.")
    return int(low), int(high)
