"""Settings of the method ``judge``."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from training.settings.train import Settings


class JudgeSettings(Settings):
    """Let a rule judge pairs of the pool in place of people; its judgments are marked as simulated for ever."""

    METHOD: ClassVar[str] = "judge"
    SUMMARY: ClassVar[str] = "Let a rule judge in place of people."

    oracle: str = Field(description="The rule that judges, for instance 'shorter' or a style axis.")
    count: int = Field(100, ge=1, le=100_000, description="How many matchups to judge.")
    noise: float = Field(0.0, ge=0.0, le=0.5, description="Share of decisive verdicts that are flipped.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of the noise and of the shown order.")
    batch: str | None = Field(None, description="The batch that is judged; left out, the whole pool.")
