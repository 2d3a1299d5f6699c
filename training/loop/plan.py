"""What a loop is asked to do, and what one round of it came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from feedback.errors import InvalidInput
from training.rounds.recipe import parse_recipe


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
        for name, value in (("rounds", self.rounds), ("pairs", self.pairs), ("prompts", self.prompts)):
            if value < 1:
                raise InvalidInput(f"{name} must be at least 1, not {value}.")
        if not 0.0 <= self.noise <= 0.5:
            raise InvalidInput(f"noise must be between 0 and 0.5 (a coin), not {self.noise}.")
        parse_recipe(self.recipe())

    def recipe(self) -> dict[str, Any]:
        """The settings of the recipe that does this; the gate decides, for nobody is asked."""
        return {
            "policy": self.policy,
            "rounds": self.rounds,
            "pairs": self.pairs,
            "annotator": self.oracle,
            "noise": self.noise,
            "methods": [{"method": self.method, "settings": self.settings}],
            "prompts": self.prompts,
            "benchmarks": list(self.benchmarks),
            "promote": "auto",
            "seed": self.seed,
        }


@dataclass
class Round:
    """What one round came to; the figures are those of its scorecards."""

    number: int
    champion: str
    start: str = ""
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
