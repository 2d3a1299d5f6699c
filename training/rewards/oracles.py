"""Judges that compare two replies. An oracle is a rule in place of a person; it reads text only, never the policy.

shorter            fewer words is better
longer             more words is better
keyword:WORD       the reply that holds the word is better
reward:CHECKPOINT  the reply a reward model scores higher is better
function:NAME      the reply a reward function scores higher is better, one of an installed package for instance
AXIS               one of the starter's style axes by name, for instance ``warm``
"""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from feedback.errors import InvalidInput, UnknownSetting
from feedback.types import ShownVerdict
from training.models.chat import Messages, as_messages, request_of
from training.rewards.functions import RewardFunction, get_reward_function

if TYPE_CHECKING:
    from feedback.database.engine import Database
    from training.home import Home
    from training.models.loading import LoadedReward

Better = Literal["first", "second", "tie"]


class Judge(Protocol):
    """Whatever compares replies to a prompt; ``rule`` names it. Those that score alike are a tie."""

    rule: str

    def score_all(self, exchanges: Sequence[tuple[Messages | str, str]]) -> list[float]:
        """One score for each (prompt, reply), higher is better: many comparisons at once."""
        ...

    def prefers(self, prompt: Messages | str, first: str, second: str) -> Better:
        """Which of two replies is better."""
        ...


class _Rule(ABC):
    """What all rules share: a preference is a comparison of scores."""

    rule: str

    @abstractmethod
    def score(self, prompt: Messages | str, reply: str) -> float:
        """Return how good one reply is; higher is better."""

    def score_all(self, exchanges: Sequence[tuple[Messages | str, str]]) -> list[float]:
        """The scores of many (prompt, reply)."""
        return [self.score(prompt, reply) for prompt, reply in exchanges]

    def prefers(self, prompt: Messages | str, first: str, second: str) -> Better:
        """Which of two replies is better."""
        one, other = self.score_all([(prompt, first), (prompt, second)])
        return better(one, other)


@dataclass
class LengthOracle(_Rule):
    """Prefers fewer words (``sign`` -1) or more (+1)."""

    rule: str
    sign: int

    def score(self, prompt: Messages | str, reply: str) -> float:
        """The number of words, signed."""
        return float(self.sign * len(reply.split()))


@dataclass
class KeywordOracle(_Rule):
    """Prefers the reply that holds a word, whatever its case."""

    rule: str
    word: str

    def score(self, prompt: Messages | str, reply: str) -> float:
        """1 when the word stands in the reply, else 0."""
        return float(re.search(rf"(?<!\w){re.escape(self.word)}(?!\w)", reply, re.IGNORECASE) is not None)


@dataclass
class AxisOracle(_Rule):
    """Prefers what one of the starter's style axes scores higher."""

    rule: str
    axis: Any

    def score(self, prompt: Messages | str, reply: str) -> float:
        """The axis's own score of the reply."""
        return float(self.axis.score(request_of(prompt), reply))


@dataclass
class FunctionOracle(_Rule):
    """Prefers what a reward function scores higher."""

    rule: str
    function: RewardFunction

    def score(self, prompt: Messages | str, reply: str) -> float:
        """The function's own score of the reply."""
        return self.function.score(prompt, reply)


@dataclass
class RewardOracle(_Rule):
    """Prefers what a reward model scores higher."""

    rule: str
    reward: LoadedReward

    def score(self, prompt: Messages | str, reply: str) -> float:
        """The reward of one reply."""
        return self.score_all([(prompt, reply)])[0]

    def score_all(self, exchanges: Sequence[tuple[Messages | str, str]]) -> list[float]:
        """The rewards, in batches."""
        from training.models.scoring import reward_scores

        return reward_scores(self.reward, [(as_messages(prompt), reply) for prompt, reply in exchanges])


def get_oracle(rule: str, *, db: Database | None = None, home: Home | None = None) -> Judge:
    """The oracle of a rule; ``reward:CHECKPOINT`` needs the database and the home. Unknown rules are refused."""
    check_rule(rule)
    kind, _, rest = rule.partition(":")
    if rule == "shorter":
        return LengthOracle(rule, -1)
    if rule == "longer":
        return LengthOracle(rule, +1)
    if kind == "keyword":
        return KeywordOracle(rule, rest.strip())
    if kind == "function":
        return FunctionOracle(rule, get_reward_function(rest.strip()))
    if kind == "reward":
        if db is None or home is None:
            raise InvalidInput(f"The oracle {rule!r} reads a checkpoint, so it needs a database and a home.")
        from training.checkpoints.opening import open_reward

        return RewardOracle(rule, open_reward(db, home, rest.strip()))
    return AxisOracle(rule, _axes()[rule])


def check_rule(rule: str) -> None:
    """Refuse a rule that names no oracle, listing those there are; reads no checkpoint.

    Raises:
        UnknownSetting: the rule, or the reward function it names, does not exist.
        InvalidInput: the function refuses what follows its name.
    """
    kind, colon, rest = rule.partition(":")
    if kind == "function" and rest.strip():
        get_reward_function(rest.strip())
        return
    if rule in ("shorter", "longer") or rule in _axes() or (colon and kind in ("keyword", "reward") and rest.strip()):
        return
    raise UnknownSetting(f"There is no oracle {rule!r}. Oracles: {', '.join(oracle_rules())}.")


def oracle_rules() -> list[str]:
    """Every rule there is; capitals stand for what is to be filled in."""
    return ["shorter", "longer", "keyword:WORD", "reward:CHECKPOINT", "function:NAME", *_axes()]


def judge(
    oracle: Judge,
    prompt: Messages | str,
    left: str,
    right: str,
    noise: float = 0.0,
    rng: random.Random | None = None,
) -> ShownVerdict:
    """The verdict an oracle gives on what is shown; a decisive one is flipped with probability ``noise``."""
    return noisy(_SHOWN[oracle.prefers(prompt, left, right)], noise, rng or random.Random(0))


def noisy(verdict: ShownVerdict, noise: float, rng: random.Random) -> ShownVerdict:
    """The verdict, or with probability ``noise`` its opposite; a tie stays a tie.

    One number is drawn whatever the verdict, so that a tie does not shift the noise of the verdicts after it.
    """
    if not 0.0 <= noise <= 0.5:
        raise InvalidInput(f"noise must be 0 to 0.5 (a coin), not {noise}.")
    flip = rng.random() < noise
    return _OPPOSITE[verdict] if flip else verdict


def better(first: float, second: float) -> Better:
    """Which of two scores is higher."""
    return "first" if first > second else "second" if second > first else "tie"


_SHOWN = {"first": ShownVerdict.left, "second": ShownVerdict.right, "tie": ShownVerdict.tie}
_OPPOSITE = {
    ShownVerdict.left: ShownVerdict.right,
    ShownVerdict.right: ShownVerdict.left,
    ShownVerdict.tie: ShownVerdict.tie,
    ShownVerdict.both_bad: ShownVerdict.both_bad,
}


def _axes() -> dict[str, Any]:
    from training.starter.axes import AXES

    return dict(AXES)
