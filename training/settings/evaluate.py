"""Settings of the method ``evaluate``."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from training.settings.train import _Sampled


class EvaluateSettings(_Sampled):
    """Measure a policy against another, or a reward model against held-out pairs."""

    METHOD: ClassVar[str] = "evaluate"
    SUMMARY: ClassVar[str] = "Measure a policy or a reward model."
    NEEDS_WEIGHTS: ClassVar[bool] = False

    a: str | None = Field(None, description="The policy that is measured; left out, a reward model is measured.")
    b: str | None = Field(None, description="The policy it is measured against.")
    oracle: str | None = Field(None, description="The rule that judges, for instance 'shorter' or a style axis.")
    reward: str | None = Field(None, description="The reward checkpoint that judges, or that is itself measured.")
    prompts: int = Field(150, ge=2, le=100_000, description="How many held-out prompts both policies reply to.")
    samples: int = Field(2, ge=1, le=16, description="Replies per prompt and policy.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of the draw and of the oracle's noise.")
    noise: float = Field(0.0, ge=0.0, le=0.5, description="Share of the oracle's verdicts that are flipped.")
    best_of: int = Field(
        1, ge=1, le=256, description="Policy A draws this many replies and gives the best: better without training."
    )
    picker: str | None = Field(
        None,
        description="Who picks A's best reply: a reward checkpoint, or a reward function such as length_band:20-60.",
    )

    @model_validator(mode="after")
    def _one_question(self) -> EvaluateSettings:
        if (self.a is None) != (self.b is None):
            raise ValueError("give both policies, a and b, or neither to measure a reward model")
        if self.a is not None and (self.oracle is None) == (self.reward is None):
            raise ValueError("two policies need exactly one judge: an oracle or a reward checkpoint")
        if self.a is None and (self.oracle is None or self.reward is None):
            raise ValueError("measuring a reward model needs reward (the checkpoint) and oracle (who is right)")
        if self.best_of > 1 and (self.a is None or self.picker is None):
            raise ValueError("best_of needs policy A, who replies, and picker, who picks the best reply")
        return self
