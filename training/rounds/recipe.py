"""The settings of a recipe: what each of its rounds does, checked before the first one begins."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from feedback.errors import InvalidInput, UnknownSetting
from feedback.store.rows import reason_of
from training.evaluation.gate import GateLimits
from training.evaluation.people import PEOPLE
from training.methods import METHODS
from training.rewards.oracles import check_rule
from training.runs.validation import check_harness
from training.settings.parsing import parse_settings
from training.settings.train import RewardedSettings

ROUND_REWARD = "reward"
"""As the evaluator of a recipe: the reward model that each round trains."""
LIMITS = tuple(field.name for field in fields(GateLimits))


class MethodStep(BaseModel):
    """One training of a round; the settings are those that differ from the method's own defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    settings: dict[str, Any] = {}


class RecipeSettings(BaseModel):
    """What each round does.

    Attributes:
        policy: The policy that the first round starts from; left out, the champion.
        rounds: How many rounds follow each other.
        pairs: Pairs that are judged in a round before it trains.
        opinions: Judgments that each pair is to get.
        tags: Tags that a prompt must carry to be used; all of them.
        annotator: ``people``, or the rule of an oracle that judges in their place.
        noise: Share of an oracle's decisive verdicts that are flipped.
        methods: The trainings of a round in order, each from what the one before made.
        evaluator: Who compares the new policy with the champion: ``people``, a rule, or ``reward`` for the reward
            model of the round; left out, whoever labels.
        prompts: Held-out prompts of a comparison.
        benchmarks: Tasks on which a new champion must not be worse.
        limits: Limits of the gate that differ from its defaults.
        promote: *ask* leaves the decision at the gate to a person, *auto* follows the gate.
        reward_model: *auto* trains a reward model where a method or the evaluator needs one, *always* in each round.
        seed: Seed of everything drawn.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: str | None = None
    rounds: int = Field(3, ge=1, le=1000)
    pairs: int = Field(200, ge=1, le=1_000_000)
    opinions: int = Field(1, ge=1, le=50)
    tags: tuple[str, ...] = ()
    annotator: str = PEOPLE
    noise: float = Field(0.0, ge=0.0, le=0.5)
    methods: tuple[MethodStep, ...] = (MethodStep(method="dpo"),)
    evaluator: str | None = None
    prompts: int = Field(150, ge=2, le=100_000)
    benchmarks: tuple[str, ...] = ()
    limits: dict[str, float] = {}
    promote: Literal["ask", "auto"] = "ask"
    reward_model: Literal["auto", "always"] = "auto"
    seed: int = Field(0, ge=0, le=2**31 - 1)

    @model_validator(mode="after")
    def _fits_together(self) -> RecipeSettings:
        if self.annotator != PEOPLE and self.opinions > 1:
            raise ValueError(f"a rule gives one opinion on a pair, so opinions={self.opinions} would never be reached")
        if not self.methods:
            raise ValueError("a round needs at least one method")
        for step in self.methods:
            own = sorted({"name", "dataset", "parent"} & set(step.settings))
            if own:
                raise ValueError(f"a round sets {own[0]} of {step.method} itself; leave it out of the settings")
        for name, value in self.limits.items():
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"the limit {name} must be a finite number of at least 0, not {value}")
        unknown = sorted(set(self.limits) - set(LIMITS))
        if unknown:
            raise ValueError(f"the gate has no limit {unknown[0]!r}; valid: {', '.join(LIMITS)}")
        return self

    @property
    def by_people(self) -> bool:
        """Whether people label."""
        return self.annotator == PEOPLE

    @property
    def judge(self) -> str:
        """Who compares the new policy with the champion."""
        return self.evaluator or self.annotator

    @property
    def gate_limits(self) -> GateLimits:
        """The limits of the gate."""
        return GateLimits(**self.limits)

    @property
    def trains_reward(self) -> bool:
        """Whether a round trains a reward model."""
        return self.reward_model == "always" or self.judge == ROUND_REWARD or any(map(needs_reward, self.methods))

    def check(self) -> None:
        """Raise for what could only fail later: an unknown method or setting, a rule that nobody knows."""
        trainers = sorted(name for name, method in METHODS.items() if method.settings.MAKES == "policy")
        for step in self.methods:
            if step.method not in trainers:
                raise UnknownSetting(f"A round cannot train by {step.method!r}. Valid: {', '.join(trainers)}.")
            parse_settings(step.method, with_inputs(step, "dataset", "reward"))
        for rule in {self.annotator, self.judge} - {PEOPLE, ROUND_REWARD}:
            check_rule(rule)
        if self.annotator == ROUND_REWARD:
            raise InvalidInput(
                "annotator: people, or a rule such as shorter; the reward model of a round only evaluates."
            )
        if self.benchmarks:
            check_harness()


def parse_recipe(given: dict[str, Any]) -> RecipeSettings:
    """Checked settings; InvalidInput or UnknownSetting with the first reason why not."""
    unknown = sorted(set(given) - set(RecipeSettings.model_fields))
    if unknown:
        raise UnknownSetting(
            f"A recipe has no setting {unknown[0]!r}. Valid: {', '.join(RecipeSettings.model_fields)}."
        )
    try:
        settings = RecipeSettings.model_validate(given)
    except ValidationError as error:
        met = error.errors(include_url=False)[0]
        value = "" if isinstance(met.get("input"), dict) else f" (it is {met.get('input')!r:.40})"
        raise InvalidInput(f"{reason_of(error).rstrip('.')}{value}.") from error
    settings.check()
    return settings


def round_name(recipe: str, number: int) -> str:
    """The name of a round: that of its batch, its dataset and the policy that it trains."""
    return f"{recipe}-{number}"


def needs_reward(step: MethodStep) -> bool:
    """Whether a training asks a reward model, and its settings name none."""
    rewarded = issubclass(METHODS[step.method].settings, RewardedSettings)
    return rewarded and not {"reward", "reward_function"} & set(step.settings)


def with_inputs(step: MethodStep, dataset: str, reward: str, **given: Any) -> dict[str, Any]:
    """The configuration of a training: what the round gives it, under what its settings say."""
    config = {"dataset": dataset, **given, **step.settings}
    if needs_reward(step):
        config["reward"] = reward
    return config
