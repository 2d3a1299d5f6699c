"""Settings of the method ``kto``."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from training.settings.plots import LOSS, Plot
from training.settings.train import Rates, SharedSettings


class KtoSettings(SharedSettings):
    """Make good replies likelier and bad ones less likely, each by itself; no pairs are needed."""

    METHOD: ClassVar[str] = "kto"
    SUMMARY: ClassVar[str] = "Learn from good and bad replies, without pairs."
    SIMPLE: ClassVar[tuple[str, ...]] = (*SharedSettings.SIMPLE, "beta")
    FIRST_PLOTS: ClassVar[tuple[Plot, Plot]] = (LOSS, Plot("Reward", ("good_reward", "bad_reward")))
    NEEDS_PAIRS: ClassVar[bool] = False  # both-bad verdicts teach too; the method says when there are too few replies
    RATES: ClassVar[Rates] = (3e-3, 3e-4, 2e-5)
    SMALL_BASE_STEPS: ClassVar[int] = 90

    batch_size: int = Field(16, ge=2, le=1024, description="Replies per optimizer step.")
    beta: float = Field(
        0.1, ge=0.001, le=10.0, description="How strongly the policy is held to its parent; higher moves it less."
    )
    good_weight: float | None = Field(
        None, gt=0.0, le=100.0, description="What a good reply counts; left out, set so that both kinds weigh the same."
    )
    bad_weight: float | None = Field(
        None, gt=0.0, le=100.0, description="What a bad reply counts; left out, set so that both kinds weigh the same."
    )
