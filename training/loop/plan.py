"""What a loop is asked to do, and what one round of it came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from feedback.errors import InvalidInput, UnknownSetting
from training.methods import METHODS
from training.rewards.oracles import check_rule
from training.runs.validation import check_harness
from training.settings.parsing import parse_settings
from training.settings.train import RewardedSettings

# A few replies of a batch come out identical or empty and make no pair.
SPARE_SHARE = 0.1
MAX_REFILLS = 20
# Nothing is set apart: what is learned is measured on fresh replies to evaluation prompts.
TEST_SHARE = 0.0
# Two reward models read the judgments: from 200 of them their mean is right a point more often than one alone.
REWARD_MEMBERS = 2
CARD_SAMPLES = 4  # replies per held-out prompt that make the reward model's test pairs


@dataclass(frozen=True)
class Plan:
    """What to turn: how many rounds, how many judgments in each, by which method and whose taste."""

    rounds: int = 1
    pairs: int = 200
    method: str = "dpo"
    oracle: str = "shorter"
    noise: float = 0.0
    seed: int = 0
    policy: str | None = None
    prompts: int = 150
    benchmarks: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse what cannot work before anything is generated."""
        trainers = sorted(name for name, method in METHODS.items() if method.settings.MAKES == "policy")
        if self.method not in trainers:
            raise UnknownSetting(f"The loop cannot train by {self.method!r}. Valid: {', '.join(trainers)}.")
        check_rule(self.oracle)
        for name, value in (("rounds", self.rounds), ("pairs", self.pairs), ("prompts", self.prompts)):
            if value < 1:
                raise InvalidInput(f"{name} must be at least 1, not {value}.")
        if not 0.0 <= self.noise <= 0.5:
            raise InvalidInput(f"noise must be between 0 and 0.5 (a coin), not {self.noise}.")
        parse_settings(self.method, self.train_config("dataset", "reward"))
        if self.benchmarks:
            check_harness()

    def train_config(self, dataset: str, reward: str, **given: Any) -> dict[str, Any]:
        """What the round's method is asked for: what is given, under what the plan sets."""
        config = {"dataset": dataset, **given, **self.settings}
        if issubclass(METHODS[self.method].settings, RewardedSettings) and "reward_function" not in config:
            config.setdefault("reward", reward)
        return config


@dataclass
class Round:
    """What one round came to; the figures are those of its scorecards."""

    number: int
    champion: str
    policy: str = ""
    dataset: str = ""
    judged: int = 0
    ties: int = 0
    pairs: int = 0
    over_start: dict[str, Any] = field(default_factory=dict)
    over_champion: dict[str, Any] = field(default_factory=dict)
    reward: dict[str, Any] = field(default_factory=dict)
    gate: dict[str, Any] = field(default_factory=dict)
    promoted: bool = False
    seconds: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The round as plain JSON, with its total time."""
        return {**asdict(self), "seconds_total": round(sum(self.seconds.values()), 1)}
