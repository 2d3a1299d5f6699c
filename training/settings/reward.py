"""Settings of the method ``reward``."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from training.settings.train import LARGE_MODEL, Rates, SharedSettings


class RewardSettings(SharedSettings):
    """Learn to score replies as the annotators did."""

    METHOD: ClassVar[str] = "reward"
    SUMMARY: ClassVar[str] = "Learn to score replies as people did."
    MAKES: ClassVar[Literal["policy", "reward", "nothing"]] = "reward"
    CONTINUES_PARENT: ClassVar[bool] = False  # it starts from the parent's bare base
    RATES: ClassVar[Rates] = (1e-3, 1e-4, 1e-4)
    SMALL_BASE_STEPS: ClassVar[int] = 110
    SMALL_BASE_NOISE: ClassVar[float] = 5.0
    REFERENCE_IS_BASE: ClassVar[bool] = False
    FEWEST: ClassVar[int] = 8

    centering: float = Field(
        0.01,
        ge=0.0,
        le=1.0,
        description="Pull of the scores towards 0, so that they stay comparable between runs.",
    )
    pooling: Literal["last", "sum", "mean"] | None = Field(
        None,
        description="What the head reads: the last token, or the sum or mean over all of them, which a small base "
        "learns from fewer pairs. ppo lengthens replies to please a sum where length is not what is asked for, and "
        "shortens them too far to please a mean where brevity is. Left out, chosen by the size of the base model.",
    )
    rankings: bool = Field(
        False, description="Learns from whole rankings, each reply read once, instead of from pairs; ties included."
    )
    ties: float = Field(
        1.0,
        ge=0.0,
        le=10.0,
        description="How much two replies called equally good count beside a preference: they are pulled to one "
        "score; 0 leaves ties out.",
    )
    margin: float = Field(
        0.0,
        ge=0.0,
        le=5.0,
        description="By how much scores are to differ for each degree of preference strength; 0 leaves strength out.",
    )
    label_smoothing: float = Field(
        0.0, ge=0.0, le=0.45, description="Share of the judgments expected to be wrong: they then count less."
    )
    estimate_noise: bool = Field(
        False, description="Sets label_smoothing from how often people who judged the same pair disagree."
    )
    members: int = Field(
        1, ge=1, le=8, description="Reward models trained side by side on one base; their spread tells doubt."
    )

    @model_validator(mode="after")
    def _one_way_at_a_time(self) -> RewardSettings:
        if self.members > 1 and self.processes > 1:
            raise ValueError(
                f"members={self.members} train one after the other, which processes={self.processes} cannot share; "
                "train single reward models, several of which may judge together (reward=one,two)"
            )
        return self

    def pooling_for(self, parameters: int) -> Literal["last", "sum", "mean"]:
        """What the head reads on a base of so many parameters: the pooling asked for, else by size."""
        return self.pooling or ("last" if parameters >= LARGE_MODEL else "sum")
